//! Curves, in a terminal and as SVG.

mod svg;
mod text;

pub use svg::write as write_svg;
pub use text::draw as draw_text;

/// One curve, or one cloud of points.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub kind: Kind,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A line through marked points.
    Curve,
    /// A line alone: a bound.
    Bound,
    /// Marks alone.
    Points,
}

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    pub label: String,
    pub from: f64,
    pub to: f64,
    pub log: bool,
}

impl Axis {
    /// Where a value is between the ends, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let scale = |x: f64| if self.log { x.max(f64::MIN_POSITIVE).ln() } else { x };
        let span = scale(self.to) - scale(self.from);
        if span == 0.0 { 0.0 } else { (scale(value) - scale(self.from)) / span }
    }
}

/// A picture.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let axis = |label: &str, from, to, log| Axis { label: label.into(), from, to, log };
        let curve = |name: &str, points| Series { name: name.into(), points, kind: Kind::Curve };
        Chart {
            title: "a < b & c".into(),
            x: axis("ranks", 1.0, 1000.0, true),
            y: axis("percent", 0.0, 100.0, false),
            series: vec![
                curve("falls", vec![(1.0, 100.0), (1000.0, 0.0)]),
                curve("stays", vec![(1.0, 50.0), (1000.0, 50.0)]),
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
    }

    #[test]
    fn svg_is_escaped_and_has_every_series() {
        let path = std::env::temp_dir().join(format!("halfstep-chart-{}.svg", std::process::id()));
        write_svg(&chart(), &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("a &lt; b &amp; c"));
        assert!(text.contains("falls") && text.contains("stays"));
        assert!(text.matches("<polyline").count() >= 2 && text.matches("<circle").count() >= 4);
        assert!(write_svg(&chart(), std::path::Path::new("no/such/folder/x.svg")).is_err());
    }
}
