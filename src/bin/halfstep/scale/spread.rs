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

    /// Two standard normals (Box, Muller 1958).
    fn normals(&mut self) -> [f64; 2] {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform();
        [radius * angle.cos(), radius * angle.sin()]
    }
}

/// How slow the slowest of `ranks` ranks is in each of `steps` steps, as a factor.
pub fn slowest(ranks: usize, sigma: f64, steps: usize, seed: u64) -> Vec<f64> {
    // Each count of ranks has its own stream, so that the list asked for does not change a row.
    let mut random = Random(seed ^ (ranks as u64).wrapping_mul(0xa076_1d64_78bd_642f));
    let step = |_| {
        let mut worst = f64::NEG_INFINITY;
        for rank in (0..ranks).step_by(2) {
            let [a, b] = random.normals();
            worst = worst.max(a);
            if rank + 1 < ranks {
                worst = worst.max(b);
            }
        }
        (sigma * worst).exp()
    };
    (0..steps).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected largest of n standard normals (Harter 1961): 2: 0.564, 3: 0.846, 10: 1.539, 100: 2.508,
    /// 1000: 3.241.
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
    fn a_seed_is_a_sequence_and_no_spread_is_none() {
        assert_eq!(slowest(64, 0.1, 5, 7), slowest(64, 0.1, 5, 7));
        assert_ne!(slowest(64, 0.1, 5, 7), slowest(64, 0.1, 5, 8));
        assert_eq!(slowest(4096, 0.0, 2, 7), [1.0, 1.0]);
    }
}
