//! A chart as SVG.

use std::path::Path;

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use super::{Axis, Chart, Kind, Series};

type Failure = Box<dyn std::error::Error>;

const SIZE: (u32, u32) = (900, 560);
const FONT: &str = "sans-serif";
/// Colours that are told apart with any kind of sight (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// Writes the chart into a file, which is replaced.
pub fn write(chart: &Chart, path: &Path) -> Result<(), String> {
    let file = draw(chart).map_err(|error| error.to_string())?;
    std::fs::write(path, file).map_err(|error| format!("{}: {error}", path.display()))
}

fn draw(chart: &Chart) -> Result<String, Failure> {
    let mut text = String::new();
    let (x, y) = (&chart.x, &chart.y);
    match (x.log, y.log) {
        (true, true) => {
            render(&mut text, chart, (x.from..x.to).log_scale(), (y.from..y.to).log_scale())?
        }
        (true, false) => render(&mut text, chart, (x.from..x.to).log_scale(), y.from..y.to)?,
        (false, true) => render(&mut text, chart, x.from..x.to, (y.from..y.to).log_scale())?,
        (false, false) => render(&mut text, chart, x.from..x.to, y.from..y.to)?,
    }
    Ok(text)
}

fn render<X, Y>(text: &mut String, chart: &Chart, x: X, y: Y) -> Result<(), Failure>
where
    X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut canvas = ChartBuilder::on(&area)
        .caption(&chart.title, (FONT, 20))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    let label = |axis: &Axis| axis.label.clone();
    canvas
        .configure_mesh()
        .x_desc(label(&chart.x))
        .y_desc(label(&chart.y))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .light_line_style(WHITE.mix(0.0))
        .x_label_formatter(&|value| number(*value))
        .y_label_formatter(&|value| number(*value))
        .draw()?;
    for (index, series) in chart.series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let Series { name, points, kind } = series;
        let mut legend = None;
        if *kind != Kind::Points {
            let style = colour.stroke_width(2);
            legend = Some(canvas.draw_series(LineSeries::new(points.iter().copied(), style))?);
        }
        if let Some(legend) = legend {
            legend.label(name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
            });
        }
        if *kind != Kind::Bound {
            let marks = points.iter().map(|&point| Circle::new(point, 4, colour.filled()));
            let marks = canvas.draw_series(marks)?;
            if *kind == Kind::Points {
                marks.label(name).legend(move |(x, y)| Circle::new((x + 9, y), 4, colour.filled()));
            }
        }
    }
    // Curves of efficiency start high; under a roofline the right is empty.
    let points = chart.series.iter().any(|series| series.kind == Kind::Points);
    let corner =
        if points { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::LowerLeft };
    canvas
        .configure_series_labels()
        .position(corner)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 13))
        .draw()?;
    area.present()?;
    drop(canvas);
    drop(area);
    Ok(())
}

/// As short as it can be: 0.25, 4, 1024, 1e6.
fn number(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e6).contains(&value.abs()) {
        return format!("{value:e}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}
