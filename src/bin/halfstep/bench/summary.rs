//! Lines in a few: what share of their roofs they reach, and which reach least.

use std::collections::BTreeMap;

use crate::suite::Line;

/// Lines that reach least of their roofs, as many as are named.
const LOWEST: usize = 5;

/// The geometric mean of the shares of each operation on each device, and the lowest of all; empty without shares.
pub fn summary(lines: &[Line]) -> String {
    let mut shares: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    let mut all: Vec<(f64, &Line)> = Vec::new();
    for line in lines {
        let Some(share) = line.share else { continue };
        shares.entry((&line.device, &line.op)).or_default().push(share);
        all.push((share, line));
    }
    if all.is_empty() {
        return String::new();
    }
    let mut text = String::from("\nshare of the roof, geometric mean (lowest to highest)\n");
    for ((device, op), shares) in shares {
        let mean = (shares.iter().map(|share| share.ln()).sum::<f64>() / shares.len() as f64).exp();
        let [low, high] = [
            shares.iter().copied().fold(f64::INFINITY, f64::min),
            shares.iter().copied().fold(0.0, f64::max),
        ];
        let [mean, low, high] = [mean, low, high].map(|share| 100.0 * share);
        text += &format!("{op:8} {device:>7} {mean:>6.1}%  ({low:.1}% to {high:.1}%)\n");
    }
    all.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    text += "lowest\n";
    for (share, line) in all.into_iter().take(LOWEST) {
        let Line { op, name, size, device, .. } = line;
        text += &format!("{op:8} {device:>7} {:>6.1}%  {name} {size}\n", 100.0 * share);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(op: &str, device: &str, share: Option<f64>) -> Line {
        let (name, size) = (format!("case {share:?}"), "1".into());
        let (op, device, roof, speedup) = (op.into(), device.into(), None, None);
        Line { op, name, size, device, seconds: 1.0, flops: 1.0, bytes: 1.0, roof, share, speedup }
    }

    #[test]
    fn means_are_geometric_and_the_lowest_are_named() {
        assert_eq!(summary(&[line("gemm", "cpu×1", None)]), "");
        let lines = [
            line("gemm", "cpu×1", Some(0.2)),
            line("gemm", "cpu×1", Some(0.8)),
            line("gemm", "cpu×2", Some(0.5)),
            line("optim", "cpu×1", None),
        ];
        let text = summary(&lines);
        assert!(text.contains("gemm       cpu×1   40.0%  (20.0% to 80.0%)\n"), "{text}");
        assert!(text.contains("gemm       cpu×2   50.0%  (50.0% to 50.0%)\n"), "{text}");
        assert!(!text.contains("optim"), "{text}");
        let lowest = text.split("lowest\n").nth(1).unwrap();
        assert!(lowest.starts_with("gemm       cpu×1   20.0%  case Some(0.2) 1\n"), "{text}");
        assert_eq!(lowest.lines().count(), 3);
    }
}
