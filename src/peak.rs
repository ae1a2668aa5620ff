//! What a device can do at best, by its vendor's figures and what its driver says of it.
#![forbid(unsafe_code)]

/// The roofs of a device, computed: what its units could do at the highest clock, and its memory at its own.
///
/// ```text
/// flops = units · FLOP of a unit and cycle · clock        bytes = 2 · memory clock · bus width / 8
/// ```
///
/// Source: NVIDIA's whitepapers of A100 (2020) and H100 (2022), AMD's of CDNA 2 (2021) and CDNA 3 (2023). What clocks
/// a device keeps under load is less, and not known here.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Peak {
    /// f32 multiply-adds, of the vector units, or of the matrix units where those are faster (CDNA 2): FLOP/s. 0: not known of this architecture.
    pub f32_flops: f64,
    /// Dense products of bf16 or f16, summed in f32, of the matrix units: FLOP/s. 0: not known of this architecture.
    pub matrix_flops: f64,
    /// Memory: bytes/s, read and written together.
    pub bytes: f64,
}

/// FLOP of a unit and cycle: f32 multiply-adds, and 16-bit products.
const UNITS: [(&str, f64, f64); 4] = [
    ("sm_80", 128.0, 2048.0),
    ("sm_90", 256.0, 4096.0),
    ("gfx90a", 256.0, 1024.0),
    ("gfx942", 256.0, 2048.0),
];

impl Peak {
    /// Of an architecture with so many units; clocks in kHz, the bus in bits.
    #[cfg_attr(not(any(feature = "cuda", feature = "hip", test)), allow(dead_code))]
    pub(crate) fn new(arch: &str, units: usize, clock: i32, memory_clock: i32, bus: i32) -> Self {
        let cycles = 1e3 * f64::from(clock) * units as f64;
        let unit = UNITS.iter().find(|unit| unit.0 == arch);
        let (f32_flops, matrix_flops) =
            unit.map_or((0.0, 0.0), |unit| (unit.1 * cycles, unit.2 * cycles));
        // Two transfers a cycle, of all memory that these devices have.
        let bytes = 2e3 * f64::from(memory_clock) * f64::from(bus) / 8.0;
        Self { f32_flops, matrix_flops, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vendors' own figures, to three digits.
    #[test]
    fn data_sheets() {
        let sheets = [
            // A100-SXM4-40GB: 19.5 and 312 TFLOP/s, 1,555 GB/s.
            (Peak::new("sm_80", 108, 1_410_000, 1_215_000, 5120), [19.5, 312.0, 1.555]),
            // H100-SXM5: 989 TFLOP/s, at 1.83 GHz, and 3,352 GB/s. (Its 66.9 of f32 are at another clock.)
            (Peak::new("sm_90", 132, 1_830_000, 2_619_000, 5120), [61.8, 989.0, 3.352]),
            // A GCD of an MI250X: half of 95.7 (matrix units) and 383, 1,638 GB/s.
            (Peak::new("gfx90a", 110, 1_700_000, 1_600_000, 4096), [47.87, 191.5, 1.638]),
            // MI300X: 163.4 and 1,307 TFLOP/s, 5.3 TB/s.
            (Peak::new("gfx942", 304, 2_100_000, 2_600_000, 8192), [163.4, 1307.4, 5.325]),
        ];
        for (peak, tera) in sheets {
            let found = [peak.f32_flops, peak.matrix_flops, peak.bytes].map(|x| 1e-12 * x);
            for (found, expected) in found.iter().zip(tera) {
                assert!((found / expected - 1.0).abs() < 2e-3, "{found}, not {expected}");
            }
        }
        let unknown = Peak::new("sm_999", 10, 1_000_000, 1_000_000, 1024);
        assert_eq!((unknown.f32_flops, unknown.matrix_flops), (0.0, 0.0));
    }
}
