//! A chart as SVG. Points say what they are in `<title>`, which browsers show under the pointer.

use std::fmt::{Result, Write};
use std::path::Path;

use super::layout::{Anchor, GREY, Label, Layout, colours};
use super::{Chart, Kind, Series};

/// Writes the chart into a file, which is replaced.
pub fn write(chart: &Chart, path: &Path) -> std::result::Result<(), String> {
    let text = draw(chart).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn draw(chart: &Chart) -> std::result::Result<String, std::fmt::Error> {
    let layout = Layout::new(chart);
    let (width, height) = (layout.width, layout.height);
    let mut to = String::new();
    writeln!(
        to,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif">"#
    )?;
    writeln!(to, r#"<rect width="{width}" height="{height}" fill="white"/>"#)?;
    grid(&mut to, &layout)?;
    let colours = colours(chart);
    for (series, colour) in chart.series.iter().zip(&colours) {
        line(&mut to, &layout, series, colour)?;
    }
    for (series, colour) in chart.series.iter().zip(&colours) {
        marks(&mut to, &layout, series, colour)?;
    }
    for (index, (left, middle)) in layout.legend() {
        let (right, colour) = (left + 26.0, colours[index]);
        if chart.series[index].kind == Kind::Curve {
            stroke(&mut to, [left, middle, right, middle], colour, 2.0)?;
        }
        writeln!(to, r#"<circle cx="{}" cy="{middle}" r="4" fill="{colour}"/>"#, left + 13.0)?;
    }
    for label in layout.labels() {
        write_label(&mut to, &label)?;
    }
    writeln!(to, "</svg>")?;
    Ok(to)
}

/// The plot's frame, and a line for each tick.
fn grid(to: &mut String, layout: &Layout) -> Result {
    let [left, top, right, bottom] = layout.plot();
    let (across, down) = layout.ticks();
    for x in across {
        stroke(to, [x, top, x, bottom], "#ececec", 1.0)?;
        stroke(to, [x, bottom, x, bottom + 5.0], GREY, 1.0)?;
    }
    for y in down {
        stroke(to, [left, y, right, y], "#ececec", 1.0)?;
        stroke(to, [left - 5.0, y, left, y], GREY, 1.0)?;
    }
    stroke(to, [left, bottom, right, bottom], GREY, 1.0)?;
    stroke(to, [left, top, left, bottom], GREY, 1.0)
}

fn stroke(to: &mut String, [x0, y0, x1, y1]: [f64; 4], colour: &str, width: f64) -> Result {
    writeln!(
        to,
        r#"<line x1="{x0:.1}" y1="{y0:.1}" x2="{x1:.1}" y2="{y1:.1}" stroke="{colour}" stroke-width="{width}"/>"#
    )
}

fn line(to: &mut String, layout: &Layout, series: &Series, colour: &str) -> Result {
    if series.kind == Kind::Points {
        return Ok(());
    }
    let width = if series.kind == Kind::Curve { 2.0 } else { 1.5 };
    write!(to, r#"<polyline fill="none" stroke="{colour}" stroke-width="{width}" points=""#)?;
    for (x, y) in series.points.iter().filter_map(|point| layout.place(point.x, point.y)) {
        write!(to, "{x:.1},{y:.1} ")?;
    }
    writeln!(to, r#""/>"#)
}

fn marks(to: &mut String, layout: &Layout, series: &Series, colour: &str) -> Result {
    if matches!(series.kind, Kind::Bound(_)) {
        return Ok(());
    }
    for point in &series.points {
        if let Some((x, y)) = layout.place(point.x, point.y) {
            let about = escaped(&point.about);
            writeln!(
                to,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"><title>{about}</title></circle>"#
            )?;
        }
    }
    Ok(())
}

fn write_label(to: &mut String, label: &Label) -> Result {
    let Label { at: (x, y), size, angle, .. } = label;
    let anchor = match label.anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    write!(to, r#"<text x="{x:.1}" y="{y:.1}" font-size="{size:.1}" text-anchor="{anchor}""#)?;
    if *angle != 0.0 {
        write!(to, r#" transform="rotate({angle:.2} {x:.1} {y:.1})""#)?;
    }
    writeln!(to, ">{}</text>", escaped(&label.text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
