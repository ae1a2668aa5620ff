//! An axis: what it spans, and the values that are named on it.

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    pub label: String,
    pub from: f64,
    pub to: f64,
    pub log: bool,
    /// Ascending.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// A logarithmic one over these values, ascending and above 0, each named.
    pub fn of(label: &str, values: &[f64]) -> Self {
        let from = values.first().copied().unwrap_or(1.0);
        let to = values.last().copied().unwrap_or(1.0).max(2.0 * from);
        Self { label: label.into(), from, to, log: true, ticks: values.to_vec() }
    }

    /// A logarithmic one, on which powers of ten are named.
    pub fn logarithmic(label: &str, from: f64, to: f64) -> Self {
        let powers = from.log10().ceil() as i32..=to.log10().floor() as i32;
        // By the parser, since powi(0.1) is not the nearest.
        let ticks = powers.filter_map(|power| format!("1e{power}").parse().ok()).collect();
        Self { label: label.into(), from, to, log: true, ticks }
    }

    /// A linear one over what is finite of these values, rounded outward to steps of 1, 2 or 5 and zeros.
    pub fn linear(label: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let ends = finite.fold(None, |ends: Option<(f64, f64)>, value| {
            let (from, to) = ends.unwrap_or((value, value));
            Some((from.min(value), to.max(value)))
        });
        let (from, to) = ends.unwrap_or((0.0, 1.0));
        // Values that are the same have a span as well.
        let span = (to - from).max(0.01 * to.abs()).max(1e-3);
        let step = step(span / 8.0);
        let (first, mut last) = ((from / step).floor(), (to / step).ceil());
        if first == last {
            last += 1.0;
        }
        let ticks: Vec<f64> =
            (0..=(last - first) as usize).map(|index| (first + index as f64) * step).collect();
        Self { label: label.into(), from: ticks[0], to: ticks[ticks.len() - 1], log: false, ticks }
    }

    /// Where a value is between the ends, 0 to 1.
    pub fn place(&self, value: f64) -> f64 {
        let scale = |x: f64| if self.log { x.max(f64::MIN_POSITIVE).ln() } else { x };
        let span = scale(self.to) - scale(self.from);
        if span == 0.0 { 0.0 } else { (scale(value) - scale(self.from)) / span }
    }
}

/// The least 1, 2 or 5 times a power of ten that is not below.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|times| times * power);
    steps.into_iter().find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// Which of these labels (where its middle is, and how wide it is; ascending) can be written side by side:
/// both ends, and from the first on what does not come too near.
pub fn side_by_side(labels: &[(f64, f64)]) -> Vec<usize> {
    let apart = |a: usize, b: usize| labels[b].0 - labels[a].0 >= 0.5 * (labels[a].1 + labels[b].1);
    let Some(last) = labels.len().checked_sub(1) else {
        return Vec::new();
    };
    let mut kept = vec![0];
    for index in 1..last {
        if apart(kept[kept.len() - 1], index) && apart(index, last) {
            kept.push(index);
        }
    }
    if last > 0 && apart(kept[kept.len() - 1], last) {
        kept.push(last);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_is_rounded_outward() {
        let ends = |values: &[f64]| {
            let axis = Axis::linear("", values.iter().copied());
            (axis.from, axis.to, axis.ticks.len())
        };
        assert_eq!(ends(&[94.3, 97.9]), (94.0, 98.0, 9));
        assert_eq!(ends(&[43.0, 100.0]), (40.0, 100.0, 7));
        assert_eq!(ends(&[100.0, 100.0]), (100.0, 100.2, 2));
        assert_eq!(ends(&[f64::NAN, 1.0, 0.0]), (0.0, 1.0, 6));
        assert_eq!(ends(&[]), (0.0, 1.0, 6));
    }

    #[test]
    fn ends_are_named_first() {
        let ranks = [1.0, 2.0, 4.0, 8.0, 9.0].map(|middle| (middle, 2.0));
        assert_eq!(side_by_side(&ranks), [0, 2, 4]);
        assert_eq!(side_by_side(&[(1.0, 2.0), (1.5, 2.0)]), [0]);
        assert_eq!(side_by_side(&[(1.0, 2.0)]), [0]);
        assert!(side_by_side(&[]).is_empty());
    }
}
