//! Ranks are not equally fast. In each step rank r takes exp(σ·z) of the usual time, z standard normal:
//! a lognormal spread. All wait for the slowest.

/// Random numbers: SplitMix64 (Steele, Lea, Flood 2014), so that a seed gives the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
}

/// The standard normal value that is exceeded with a probability up to ½, within 1.2e-9 of itself (P. J. Acklam's rational
/// approximations, 2003).
fn exceeded_with(probability: f64) -> f64 {
    fn polynomial(x: f64, coefficients: &[f64]) -> f64 {
        coefficients.iter().fold(0.0, |value, coefficient| value * x + coefficient)
    }
    const TAIL: f64 = 0.02425;
    if probability < TAIL {
        let q = (-2.0 * probability.ln()).sqrt();
        let above = [
            -7.784894002430293e-3,
            -3.223964580411365e-1,
            -2.400758277161838,
            -2.549732539343734,
            4.374664141464968,
            2.938163982698783,
        ];
        let below =
            [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1.0];
        return -polynomial(q, &above) / polynomial(q, &below);
    }
    let q = 0.5 - probability;
    let above = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    let below = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    q * polynomial(q * q, &above) / polynomial(q * q, &below)
}

/// How slow the slowest of `ranks` ranks is in each of `steps` steps, as a factor. One draw for each step: none of so
/// many normal values exceeds z with probability Φ(z)^ranks. Draws are the same for any number of ranks, so that more
/// of them never wait less, and a row does not depend on the others that are asked for.
pub fn slowest(ranks: usize, sigma: f64, steps: usize, seed: u64) -> Vec<f64> {
    let mut random = Random(seed);
    let step = |_| {
        let exceeded = -(random.uniform().ln() / ranks as f64).exp_m1(); // by one rank; accurate where that is rare
        let worst = match exceeded <= 0.5 {
            true => exceeded_with(exceeded),
            false => -exceeded_with(1.0 - exceeded),
        };
        (sigma * worst).exp()
    };
    (0..steps).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected largest of n standard normals (Harter 1961): 2: 0.564, 3: 0.846, 10: 1.539, 100: 2.508,
    /// 1000: 3.241.
    /// Values whose tails are tabulated (Abramowitz and Stegun, table 26.1), and the tails of far ones: 6 and 8.
    #[test]
    fn values_are_exceeded_as_tables_say() {
        for (z, probability) in [
            (0.0, 0.5),
            (1.0, 0.158_655_253_931_457),
            (2.0, 0.022_750_131_948_179),
            (3.0, 1.349_898_031_630_095e-3),
            (6.0, 9.865_876_450_376_98e-10),
            (8.0, 6.220_960_574_271_784e-16),
        ] {
            assert!((exceeded_with(probability) - z).abs() <= 1e-8, "{z}");
        }
    }

    /// In time that does not depend on how many there are.
    #[test]
    fn a_million_ranks_are_as_quick_as_one() {
        let draws = slowest(1_000_000, 1.0, 10_000, 1);
        let mean = draws.iter().map(|factor| factor.ln()).sum::<f64>() / draws.len() as f64;
        assert!((mean - 4.863).abs() < 0.02, "{mean}"); // the expected largest
    }

    #[test]
    fn the_slowest_is_as_slow_as_order_statistics_say() {
        for (ranks, expected) in
            [(1, 0.0), (2, 0.564), (3, 0.846), (10, 1.539), (100, 2.508), (1000, 3.241)]
        {
            let draws = slowest(ranks, 1.0, 4000, 1);
            let mean = draws.iter().map(|factor| factor.ln()).sum::<f64>() / draws.len() as f64;
            assert!((mean - expected).abs() < 0.05, "{ranks}: {mean}");
        }
    }

    #[test]
    fn the_slowest_of_more_is_not_faster() {
        for seed in 0..20 {
            let draws = [1, 2, 3, 64, 4096, 1_000_000].map(|ranks| slowest(ranks, 0.01, 32, seed));
            for (few, many) in draws.windows(2).map(|pair| (&pair[0], &pair[1])) {
                assert!(few.iter().zip(many).all(|(few, many)| few <= many), "{seed}");
            }
        }
    }

    #[test]
    fn a_seed_is_a_sequence_and_no_spread_is_none() {
        assert_eq!(slowest(64, 0.1, 5, 7), slowest(64, 0.1, 5, 7));
        assert_ne!(slowest(64, 0.1, 5, 7), slowest(64, 0.1, 5, 8));
        assert_eq!(slowest(4096, 0.0, 2, 7), [1.0, 1.0]);
    }
}
