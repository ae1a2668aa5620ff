//! A chart in characters: a letter for each series, no colour, 80 columns.

use std::fmt::Write;

use super::axis::side_by_side;
use super::{Axis, Chart, Kind, number};

const COLUMNS: usize = 64;
const ROWS: usize = 16;

/// The chart as lines of text.
pub fn draw(chart: &Chart) -> String {
    let mut cells = [' '; COLUMNS * ROWS];
    let mark = |index: usize| char::from(b'a' + (index % 26) as u8);
    for (index, series) in chart.series.iter().enumerate().rev() {
        let place = |point: &super::Point| (chart.x.place(point.x), chart.y.place(point.y));
        let places: Vec<_> = series.points.iter().map(place).collect();
        for column in 0..COLUMNS {
            let at = column as f64 / (COLUMNS - 1) as f64;
            let inside = |height: &f64| (0.0..=1.0).contains(height);
            if let Some(height) = height(&places, at, series.kind).filter(inside) {
                cells[row(height) * COLUMNS + column] = mark(index);
            }
        }
    }
    let mut text = format!("{}\n", chart.title);
    for (index, cells) in cells.chunks(COLUMNS).enumerate() {
        let tick = chart.y.ticks.iter().find(|&&tick| row(chart.y.place(tick)) == index);
        let label = tick.map_or(String::new(), |&tick| number(tick));
        let line: String = cells.iter().collect();
        let _ = writeln!(text, "{label:>8} |{}", line.trim_end());
    }
    let _ = writeln!(text, "{:>8} +{}", "", "-".repeat(COLUMNS));
    let _ = writeln!(text, "{}", below(&chart.x));
    let _ = writeln!(text, "{:10}{}, {}", "", chart.x.label, chart.y.label);
    for (index, series) in chart.series.iter().enumerate() {
        let _ = writeln!(text, "{:10}{} {}", "", mark(index), series.name);
    }
    text
}

/// The row of a height from 0 to 1.
fn row(height: f64) -> usize {
    ((1.0 - height) * (ROWS - 1) as f64).round() as usize
}

/// The ticks of the axis below, as far as there is room.
fn below(axis: &Axis) -> String {
    let labels: Vec<String> = axis.ticks.iter().map(|&tick| number(tick)).collect();
    let column = |&tick: &f64| 10.0 + axis.place(tick) * (COLUMNS - 1) as f64;
    let widths: Vec<_> = axis
        .ticks
        .iter()
        .zip(&labels)
        .map(|(tick, label)| (column(tick), label.len() as f64 + 1.0))
        .collect();
    let mut line = String::new();
    for index in side_by_side(&widths) {
        let start = (widths[index].0 - 0.5 * labels[index].len() as f64 + 0.5).floor() as usize;
        line += &" ".repeat(start.saturating_sub(line.len()));
        line += &labels[index];
    }
    line
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
