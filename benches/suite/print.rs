//! The table, and roofs in words.

use halfstep::Peak;

use super::roofs::Roof;
use super::{Arithmetic, Line, Roofs, Traffic};

/// The head of the table.
pub fn header() -> String {
    format!(
        "{:8} {:34} {:>15} {:>7} {:>10} {:>9} {:>7} {:>7} {:>8} {:>6}",
        "op", "case", "size", "device", "ms", "GFLOP/s", "GB/s", "share", "of", "ratio"
    )
}

/// What its columns are.
pub const LEGEND: &str = "size: rows × inputs × outputs of a product; elements; ranks × tensors
share: the least time that the roof allows, over the time taken; of: which roof, measured beside each case: memory, or arithmetic by multiply-adds (FMA),
       dot products or tiles (AMX) of bf16; a GPU's arithmetic is from registers to registers, its memory's roof a copy; -: none is known
ratio: times faster than on the first device of the table
cuda×N, hip×N: a rank on each of N GPUs, over NCCL or RCCL; their GB/s are bus bandwidth: 2(N−1)/N of a rank's bytes on the wire, which is what
       it sends over its links, over the time; NCCL's sum: ncclAllReduce, beside sums in rank order
";

/// A line of it.
pub fn row(line: &Line) -> String {
    let share = line.share.map_or("-".into(), |share| format!("{:.1}%", 100.0 * share));
    let ratio = line.speedup.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let of = line.roof.map_or("-", Roof::name);
    format!(
        "{:8} {:34} {:>15} {:>7} {:>10.3} {:>9.1} {:>7.1} {share:>7} {of:>8} {ratio:>6}",
        line.op,
        line.name,
        line.size,
        line.device,
        1e3 * line.seconds,
        line.gflops(),
        line.gbs(),
    )
}

/// Roofs in words.
pub fn roof_lines(roofs: &[Roofs]) -> Vec<String> {
    let line = |roofs: &Roofs| {
        let Some(threads) = roofs.threads else { return gpu_line(roofs) };
        let bytes = Traffic::ALL.map(|traffic| {
            format!("{} {:.1} GB/s", traffic.name(), 1e-9 * roofs.bandwidth(traffic))
        });
        let noun = if threads == 1 { "thread" } else { "threads" };
        format!(
            "roofs, {threads} {noun}: f32 {:.1} GFLOP/s ({}), bf16 {:.1} ({}); {}",
            1e-9 * roofs.arithmetic(Arithmetic::F32),
            roofs.units[Arithmetic::F32 as usize].name(),
            1e-9 * roofs.arithmetic(Arithmetic::Bf16),
            roofs.units[Arithmetic::Bf16 as usize].name(),
            bytes.join(", ")
        )
    };
    roofs.iter().map(line).collect()
}

/// A GPU's: what its clocks allow, and what its units, and a copy, reach.
fn gpu_line(roofs: &Roofs) -> String {
    let three = |f32_flops: f64, products: f64, bytes: f64| {
        let tera = |value: f64| match value > 0.0 && value.is_finite() {
            true => format!("{:.1} TFLOP/s", 1e-12 * value),
            false => "not known".into(),
        };
        let [f32_flops, products] = [f32_flops, products].map(tera);
        let bytes = 1e-9 * bytes;
        format!(
            "f32 multiply-adds {f32_flops}, products of 16 bits {products}, memory {bytes:.0} GB/s"
        )
    };
    let of = |peak: Peak| three(peak.f32_flops, peak.matrix_flops, peak.bytes);
    let computed = roofs.computed.map_or("nothing".into(), of);
    let arithmetic = |kind| roofs.arithmetic(kind);
    let measured = three(
        arithmetic(Arithmetic::F32),
        arithmetic(Arithmetic::Bf16),
        roofs.bandwidth(Traffic::Copy),
    );
    format!("roofs, {}: computed: {computed}; measured: {measured} (a copy)", roofs.device)
}
