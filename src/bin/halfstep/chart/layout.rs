//! Where everything of a picture goes: the plot, the legend below it, a label for each tick and bound.

use super::axis::side_by_side;
use super::{Chart, Kind, Series, Side, number};

const WIDTH: f64 = 900.0;
/// Of the plot.
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 36.0;
const TOP: f64 = 48.0;
/// Ticks and the axis's label, below the plot.
const BELOW: f64 = 58.0;
/// A line of the legend.
pub const ROW: f64 = 20.0;
/// How wide a letter is, of its height: more than it is in usual typefaces.
const LETTER: f64 = 0.62;

/// Colours that are told apart with any kind of sight (Okabe and Ito, 2008), black and a dark purple.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#581870"];
/// Of bounds, and of what is said of axes.
pub const GREY: &str = "#5a5a5a";

/// The colour of each series.
pub fn colours(chart: &Chart) -> Vec<&'static str> {
    let mut next = COLOURS.into_iter().cycle();
    let mut colour = |series: &Series| match series.kind {
        Kind::Bound(_) => GREY,
        _ => next.next().unwrap_or(GREY),
    };
    chart.series.iter().map(&mut colour).collect()
}

/// Which end of a label is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A line of text.
#[derive(Debug, Clone)]
pub struct Label {
    pub text: String,
    /// Of its base line.
    pub at: (f64, f64),
    pub size: f64,
    pub anchor: Anchor,
    /// In degrees, clockwise.
    pub angle: f64,
}

impl Label {
    fn new(text: impl Into<String>, at: (f64, f64), size: f64, anchor: Anchor) -> Self {
        Self { text: text.into(), at, size, anchor, angle: 0.0 }
    }

    fn turned(self, angle: f64) -> Self {
        Self { angle, ..self }
    }

    fn width(&self) -> f64 {
        LETTER * self.size * self.text.chars().count() as f64
    }

    /// The box that it fills, by the widths of letters that are assumed.
    #[cfg(test)]
    pub fn corners(&self) -> [(f64, f64); 4] {
        let (width, (sin, cos)) = (self.width(), self.angle.to_radians().sin_cos());
        let from = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -0.5 * width,
            Anchor::End => -width,
        };
        let (top, bottom) = (-0.8 * self.size, 0.2 * self.size);
        [(from, top), (from + width, top), (from + width, bottom), (from, bottom)]
            .map(|(x, y)| (self.at.0 + cos * x - sin * y, self.at.1 + sin * x + cos * y))
    }
}

/// A picture's places.
pub struct Layout<'a> {
    chart: &'a Chart,
    pub width: f64,
    pub height: f64,
}

impl<'a> Layout<'a> {
    pub fn new(chart: &'a Chart) -> Self {
        let rows = chart.series.iter().filter(|series| in_legend(series)).count();
        let height = TOP + HEIGHT + BELOW + ROW * rows as f64 + 8.0;
        Self { chart, width: WIDTH, height }
    }

    /// Left, top, right and bottom of the plot.
    pub fn plot(&self) -> [f64; 4] {
        [LEFT, TOP, WIDTH - RIGHT, TOP + HEIGHT]
    }

    /// Where a point is, if it is in the plot.
    pub fn place(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        let (x, y) = (self.chart.x.place(x), self.chart.y.place(y));
        let inside = |share: f64| (-1e-9..=1.0 + 1e-9).contains(&share);
        (inside(x) && inside(y)).then(|| (self.across(x), self.down(y)))
    }

    fn across(&self, share: f64) -> f64 {
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, share: f64) -> f64 {
        TOP + (1.0 - share) * HEIGHT
    }

    /// Where ticks of the axes are.
    pub fn ticks(&self) -> (Vec<f64>, Vec<f64>) {
        let Chart { x, y, .. } = self.chart;
        let across = x.ticks.iter().map(|&tick| self.across(x.place(tick))).collect();
        (across, y.ticks.iter().map(|&tick| self.down(y.place(tick))).collect())
    }

    /// Series of the legend, and the middle of the line of each.
    pub fn legend(&self) -> impl Iterator<Item = (usize, (f64, f64))> {
        let series = self.chart.series.iter().enumerate();
        let rows = series.filter(|(_, series)| in_legend(series)).enumerate();
        let first = TOP + HEIGHT + BELOW + 0.5 * ROW;
        rows.map(move |(row, (index, _))| (index, (LEFT, first + ROW * row as f64)))
    }

    /// Everything that is written.
    pub fn labels(&self) -> Vec<Label> {
        let Chart { title, x, y, series } = self.chart;
        let middle = 0.5 * WIDTH;
        let mut labels = vec![
            fitted(Label::new(title, (middle, 30.0), 18.0, Anchor::Middle), WIDTH - 20.0),
            Label::new(&x.label, (middle, TOP + HEIGHT + 44.0), 14.0, Anchor::Middle),
            fitted(
                Label::new(&y.label, (20.0, TOP + 0.5 * HEIGHT), 14.0, Anchor::Middle)
                    .turned(-90.0),
                HEIGHT + TOP,
            ),
        ];
        let (across, down) = self.ticks();
        let below = |(&tick, &at): (&f64, &f64)| {
            Label::new(number(tick), (at, TOP + HEIGHT + 20.0), 13.0, Anchor::Middle)
        };
        let below: Vec<Label> = x.ticks.iter().zip(&across).map(below).collect();
        let widths: Vec<_> = below.iter().map(|label| (label.at.0, label.width() + 8.0)).collect();
        labels.extend(side_by_side(&widths).into_iter().map(|index| below[index].clone()));
        labels.extend(y.ticks.iter().zip(&down).map(|(&tick, &at)| {
            Label::new(number(tick), (LEFT - 10.0, at + 4.5), 13.0, Anchor::End)
        }));
        labels.extend(series.iter().filter_map(|series| self.name_of_bound(series)));
        labels.extend(self.legend().map(|(index, (left, middle))| {
            Label::new(&series[index].name, (left + 34.0, middle + 4.5), 14.0, Anchor::Start)
        }));
        labels
    }

    /// The name of a bound, along its line, at its second point.
    fn name_of_bound(&self, series: &Series) -> Option<Label> {
        let Kind::Bound(side) = series.kind else {
            return None;
        };
        let place = |point: &super::Point| self.place(point.x, point.y);
        let ((x0, y0), (x1, y1)) =
            (series.points.first().and_then(place)?, series.points.get(1).and_then(place)?);
        let (along, length) = ((x1 - x0, y1 - y0), (x1 - x0).hypot(y1 - y0));
        let (cos, sin) = (along.0 / length, along.1 / length);
        // Off the line, and off what begins where it ends.
        let (back, off) = (24.0, if side == Side::Above { -6.0 } else { 15.0 });
        let at = (x1 - back * cos - off * sin, y1 - back * sin + off * cos);
        let angle = sin.atan2(cos).to_degrees();
        Some(Label::new(&series.name, at, 13.0, Anchor::End).turned(angle))
    }
}

/// Bounds have their names beside them.
fn in_legend(series: &Series) -> bool {
    !matches!(series.kind, Kind::Bound(_))
}

/// The label, in smaller letters if it is longer than there is room.
fn fitted(label: Label, room: f64) -> Label {
    let size = label.size * (room / label.width()).min(1.0);
    Label { size, ..label }
}
