//! A chart in characters: a letter for each series, no colour, 80 columns.

use std::fmt::Write;

use super::{Chart, Kind};

const COLUMNS: usize = 64;
const ROWS: usize = 16;

/// The chart as lines of text.
pub fn draw(chart: &Chart) -> String {
    let mut cells = [' '; COLUMNS * ROWS];
    let mark = |index: usize| char::from(b'a' + (index % 26) as u8);
    for (index, series) in chart.series.iter().enumerate().rev() {
        let places: Vec<_> =
            series.points.iter().map(|&(x, y)| (chart.x.place(x), chart.y.place(y))).collect();
        for column in 0..COLUMNS {
            let at = column as f64 / (COLUMNS - 1) as f64;
            let inside = |height: &f64| (0.0..=1.0).contains(height);
            if let Some(height) = height(&places, at, series.kind).filter(inside) {
                let row = ((1.0 - height) * (ROWS - 1) as f64).round() as usize;
                cells[row * COLUMNS + column] = mark(index);
            }
        }
    }
    let number = |axis: &super::Axis, share: f64| {
        let value = if axis.log {
            axis.from * (axis.to / axis.from).powf(share)
        } else {
            axis.from + share * (axis.to - axis.from)
        };
        if value.abs() < 10.0 && value.fract() != 0.0 {
            format!("{value:.2}")
        } else {
            format!("{value:.0}")
        }
    };
    let mut text = format!("{}\n", chart.title);
    for (row, cells) in cells.chunks(COLUMNS).enumerate() {
        let share = 1.0 - row as f64 / (ROWS - 1) as f64;
        let label = if row % 5 == 0 { number(&chart.y, share) } else { String::new() };
        let line: String = cells.iter().collect();
        let _ = writeln!(text, "{label:>8} |{}", line.trim_end());
    }
    let (left, middle, right) =
        (number(&chart.x, 0.0), number(&chart.x, 0.5), number(&chart.x, 1.0));
    let _ = writeln!(text, "{:>8} +{}", "", "-".repeat(COLUMNS));
    let (half, rest) = (COLUMNS / 2, COLUMNS / 2 - 8);
    let _ = writeln!(text, "{:10}{left:<half$}{middle:<rest$}{right:>8}", "");
    let _ = writeln!(text, "{:10}{}, {}", "", chart.x.label, chart.y.label);
    for (index, series) in chart.series.iter().enumerate() {
        let _ = writeln!(text, "{:10}{} {}", "", mark(index), series.name);
    }
    text
}

/// How high a series is at a place, by straight lines between its points; clouds only at their points.
fn height(places: &[(f64, f64)], at: f64, kind: Kind) -> Option<f64> {
    let near = 0.5 / (COLUMNS - 1) as f64;
    if kind == Kind::Points || places.len() == 1 {
        return places.iter().find(|(x, _)| (x - at).abs() <= near).map(|(_, y)| *y);
    }
    places.windows(2).find_map(|pair| {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        if !(x0 - 1e-9..=x1 + 1e-9).contains(&at) {
            return None;
        }
        Some(if x1 > x0 { y0 + (y1 - y0) * (at - x0) / (x1 - x0) } else { y1 })
    })
}
