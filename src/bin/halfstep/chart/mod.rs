//! Curves, in a terminal and as SVG.

mod axis;
mod layout;
mod svg;
mod text;

pub use axis::Axis;
pub use svg::write as write_svg;
pub use text::draw as draw_text;

/// A picture.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

/// One curve, one cloud of points, or one bound.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub points: Vec<Point>,
    pub kind: Kind,
}

/// A point, and what there is to say of it.
#[derive(Debug, Clone)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub about: String,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A line through marked points.
    Curve,
    /// A straight line alone, with its name on this side of it, up to its second point.
    Bound(Side),
    /// Marks alone.
    Points,
}

/// A side of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Above,
    Below,
}

impl Point {
    /// One of a bound, of which nothing is said.
    pub fn at(x: f64, y: f64) -> Self {
        Self { x, y, about: String::new() }
    }
}

/// As short as it can be: 0.25, 4, 1024, 1e6.
fn number(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e6).contains(&value.abs()) {
        return format!("{value:e}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
pub mod tests {
    use super::layout::{Layout, colours};
    use super::*;

    /// What has to be so of every picture: no label lies on another or leaves the picture, no colour is there
    /// twice, and each axis names both ends of what it was asked to name.
    pub fn assert_readable(chart: &Chart) {
        let layout = Layout::new(chart);
        let labels = layout.labels();
        for (index, label) in labels.iter().enumerate() {
            let inside = |&(x, y): &(f64, f64)| {
                (0.0..=layout.width).contains(&x) && (0.0..=layout.height).contains(&y)
            };
            assert!(label.corners().iter().all(inside), "{label:?} leaves {}", chart.title);
            for other in &labels[..index] {
                let apart = separated(&label.corners(), &other.corners());
                assert!(apart, "{}: {label:?} lies on {other:?}", chart.title);
            }
        }
        let mut seen = Vec::new();
        for (series, colour) in chart.series.iter().zip(colours(chart)) {
            if !matches!(series.kind, Kind::Bound(_)) {
                assert!(!seen.contains(&colour), "{}: {colour} is there twice", chart.title);
                seen.push(colour);
            }
        }
        for axis in [&chart.x, &chart.y] {
            let ends = [axis.ticks.first(), axis.ticks.last()].map(|end| number(*end.unwrap()));
            let named = |end: &String| labels.iter().any(|label| label.text == *end);
            assert!(ends.iter().all(named), "{}: {ends:?}", chart.title);
        }
    }

    /// Whether a line between two convex quadrilaterals exists: along one of their edges, if there is one.
    fn separated(a: &[(f64, f64); 4], b: &[(f64, f64); 4]) -> bool {
        [a, b].iter().any(|quad| {
            (0..4).any(|i| {
                let ((x0, y0), (x1, y1)) = (quad[i], quad[(i + 1) % 4]);
                let along = |points: &[(f64, f64); 4]| {
                    points.map(|(x, y)| (x - x0) * (y0 - y1) + (y - y0) * (x1 - x0))
                };
                let least = |values: [f64; 4]| values.into_iter().fold(f64::INFINITY, f64::min);
                let most = |values: [f64; 4]| values.into_iter().fold(f64::NEG_INFINITY, f64::max);
                most(along(a)) <= least(along(b)) || most(along(b)) <= least(along(a))
            })
        })
    }

    fn chart() -> Chart {
        let curve = |name: &str, points: [(f64, f64); 2]| Series {
            name: name.into(),
            points: points.map(|(x, y)| Point { x, y, about: format!("{x} < {y}") }).into(),
            kind: Kind::Curve,
        };
        Chart {
            title: "a < b & c".into(),
            x: Axis::of("ranks", &[1.0, 1000.0]),
            y: Axis::linear("percent", [0.0, 100.0]),
            series: vec![
                curve("falls", [(1.0, 100.0), (1000.0, 0.0)]),
                curve("stays", [(1.0, 50.0), (1000.0, 50.0)]),
            ],
        }
    }

    /// A line that falls starts above and ends below; one that stays has one row. On a logarithmic axis
    /// the middle is the geometric mean.
    #[test]
    fn text_puts_points_where_they_belong() {
        assert!((chart().x.place(31.6227766) - 0.5).abs() < 1e-6);
        let text = draw_text(&chart());
        let rows: Vec<_> = text.lines().filter_map(|row| row.split_once('|')).collect();
        let column = |(_, cells): &(&str, &str)| cells.chars().position(|c| c == 'a');
        let falling: Vec<_> = rows.iter().filter_map(column).collect();
        assert!(falling.len() > 10 && falling.is_sorted(), "{text}");
        let staying = rows.iter().filter(|(_, cells)| cells.contains("bbbb")).count();
        assert_eq!(staying, 1, "{text}");
        assert!(text.contains("a falls") && text.contains("b stays"), "{text}");
        assert!(text.lines().all(|row| row.chars().count() <= 80), "{text}");
        let named = |row: &(&str, &str), label: &str| row.0.trim() == label;
        assert!(named(&rows[0], "100") && named(&rows[15], "0"), "{text}");
        let below = text.lines().nth(18).unwrap();
        assert!(below.trim_start().starts_with("1 ") && below.ends_with(" 1000"), "{text}");
    }

    #[test]
    fn svg_is_escaped_and_has_every_series() {
        let path = std::env::temp_dir().join(format!("halfstep-chart-{}.svg", std::process::id()));
        write_svg(&chart(), &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("a &lt; b &amp; c"));
        assert!(text.contains(">falls<") && text.contains(">stays<"));
        assert_eq!(text.matches("<polyline").count(), 2);
        assert!(text.contains("<title>1000 &lt; 0</title></circle>"), "{text}");
        assert!(write_svg(&chart(), std::path::Path::new("no/such/folder/x.svg")).is_err());
    }

    /// However many ticks there are, labels keep apart, and both ends are named; as many series as there are
    /// colours are told apart.
    #[test]
    fn labels_keep_apart() {
        let mut chart = chart();
        for count in 1..=8 {
            let ranks: Vec<f64> = (0..60 * count).map(|rank| 1.0 + f64::from(rank)).collect();
            chart.x = Axis::of("ranks", &ranks);
            chart.y = Axis::linear("percent", [100.0 - 0.37 * f64::from(count), 100.0]);
            chart.series = (0..count)
                .map(|index| Series {
                    name: format!("series {index}"),
                    points: vec![Point::at(1.0, 100.0)],
                    kind: if index % 2 == 0 { Kind::Curve } else { Kind::Points },
                })
                .collect();
            assert_readable(&chart);
        }
    }
}
