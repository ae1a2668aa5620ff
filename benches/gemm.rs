//! `cargo bench --bench gemm`: time, GFLOP/s and share of the machine's multiply-add peak. The peak is
//! measured between the timed calls, so that both see the same machine; shares are medians over
//! rounds. Every product's answer is checked before it is timed.
#![allow(missing_docs)]

#[path = "common/peak.rs"]
mod peak;
#[path = "workloads/mod.rs"]
mod workloads;

use std::time::Instant;

use halfstep::gemm::{
    Activation, DataGrad, DataGradOperands, Gemm, Layout, Operands, WeightGrad, WeightGradOperands,
};
use halfstep::{Device, Storage, Stream, bf16, f16};
use workloads::{MARKED, OTHERS, ROW, Shape};

fn main() {
    // `cargo test --benches` only asks whether this runs.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { 15 } else { 1 };
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let devices = [1, 2].map(|n: usize| Device::cpu_with_threads(n.try_into().expect("not zero")));
    let mut bench = Bench { rounds, filter, devices };
    println!("{}", bench.devices[0].info());
    println!(
        "peak: {:.1} GFLOP/s, one thread",
        (0..5).map(|_| peak::fma_gflops()).fold(0.0, f64::max)
    );
    println!(
        "{:32} {:>15} {:>9} {:>9} {:>7} {:>9} {:>6}",
        "op", "M×K×N", "ms", "GFLOP/s", "peak", "2 threads", "ratio"
    );
    for shape in MARKED.into_iter().chain(OTHERS) {
        bench.layer::<bf16, bf16>(
            shape,
            "bf16 NN bias gelu_erf",
            Layout::NN,
            Some(Activation::GeluErf),
        );
        bench.layer::<bf16, bf16>(
            shape,
            "bf16 NN bias gelu_tanh",
            Layout::NN,
            Some(Activation::GeluTanh),
        );
        bench.layer::<bf16, bf16>(
            shape,
            "bf16 NT bias gelu_erf",
            Layout::NT,
            Some(Activation::GeluErf),
        );
        bench.layer::<bf16, bf16>(shape, "bf16 NN plain", Layout::NN, None);
        bench.layer::<f16, f16>(
            shape,
            "f16 NT bias gelu_erf",
            Layout::NT,
            Some(Activation::GeluErf),
        );
        bench.layer::<f32, f32>(shape, "f32 NN plain", Layout::NN, None);
        bench.data_grad::<bf16>(shape, "bf16 data grad, gelu'");
        bench.weight_grad::<bf16>(shape, "bf16 weight grad, += and db");
    }
    bench.layer::<bf16, bf16>(ROW, "bf16 NN plain", Layout::NN, None);
    bench.layer::<bf16, bf16>(ROW, "bf16 NT plain", Layout::NT, None);
}

struct Bench {
    rounds: usize,
    filter: String,
    devices: [Device; 2],
}

/// Values in [-1/16, 1/16) from a fixed seed: for `k` around 1,000 sums are of the size that networks
/// keep them at.
fn values<T: Storage>(len: usize, mut seed: u32) -> Vec<T> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((seed >> 8) as f32 / 8_388_608.0 - 1.0) / 16.0
    };
    (0..len).map(|_| T::narrow(next())).collect()
}

/// Values in [-1, 1).
fn signals<T: Storage>(len: usize) -> Vec<T> {
    values::<f32>(len, 1).into_iter().map(|v| T::narrow(16.0 * v)).collect()
}

/// Fails unless a few of the elements are what f64 says.
fn check<O: Storage>(name: &str, got: &[O], scale: f64, exact: impl Fn(usize) -> f64) {
    for index in [0, got.len() / 3, got.len() / 2 + 1, got.len() - 1] {
        let index = index.min(got.len() - 1);
        let (got, exact) = (f64::from(got[index].widen()), exact(index));
        let bound = O::DTYPE.unit_roundoff() * exact.abs() * 1.1 + 1e-5 * scale;
        assert!((got - exact).abs() <= bound, "{name}: element {index} is {got}, not {exact}");
    }
}

impl Bench {
    fn layer<T: Storage, O: Storage>(
        &mut self,
        shape: Shape,
        name: &str,
        layout: Layout,
        activation: Option<Activation>,
    ) {
        let Shape { rows: m, input: k, output: n } = shape;
        let (a, b, bias) = (signals::<T>(m * k), values::<T>(k * n, 2), values::<T>(n, 3));
        let mut d = vec![O::zeroed(); m * n];
        let gemm = Gemm::new(m, n, k).layout(layout).activation(activation.unwrap_or_default());
        let plans =
            self.devices.each_ref().map(|device| gemm.plan::<T, O>(device).expect("a plan"));
        let with_bias = activation.is_some();
        let mut run = |which: usize, stream: &Stream| {
            let mut operands = Operands::new(&a, &b, &mut d);
            if with_bias {
                operands.bias = Some(&bias);
            }
            plans[which].run(stream, operands).expect("a run");
        };
        self.time(name, shape, &mut run);
        let exact = |index: usize| {
            let (i, j) = (index / n, index % n);
            let at = |p: usize| if layout.b_transposed() { b[j * k + p] } else { b[p * n + j] };
            let sum: f64 =
                (0..k).map(|p| f64::from(a[i * k + p].widen()) * f64::from(at(p).widen())).sum();
            let z = sum + if with_bias { f64::from(bias[j].widen()) } else { 0.0 };
            activation.map_or(z, |activation| f64::from(activation.apply(z as f32)))
        };
        check(name, &d, k as f64, exact);
    }

    fn data_grad<T: Storage>(&mut self, shape: Shape, name: &str) {
        let Shape { rows, input, output } = shape;
        let (dy, z) = (values::<T>(rows * output, 1), values::<T>(rows * output, 2));
        let w = values::<T>(output * input, 3);
        let mut dx = vec![T::zeroed(); rows * input];
        let grad = DataGrad::new(rows, input, output).activation(Activation::GeluErf);
        let plans =
            self.devices.each_ref().map(|device| grad.plan::<T, T>(device).expect("a plan"));
        let mut run = |which: usize, stream: &Stream| {
            let operands =
                DataGradOperands { z: Some(&z), ..DataGradOperands::new(&dy, &w, &mut dx) };
            plans[which].run(stream, operands).expect("a run");
        };
        self.time(name, shape, &mut run);
        let exact = |index: usize| {
            let (i, j) = (index / input, index % input);
            let dz = |p: usize| dz(dy[i * output + p], z[i * output + p]);
            (0..output).map(|p| dz(p) * f64::from(w[p * input + j].widen())).sum()
        };
        check(name, &dx, output as f64, exact);
    }

    fn weight_grad<T: Storage>(&mut self, shape: Shape, name: &str) {
        let Shape { rows, input, output } = shape;
        let (dy, x) = (values::<T>(rows * output, 1), values::<T>(rows * input, 2));
        let (mut dw, mut db) = (vec![0.0f32; output * input], vec![0.0f32; output]);
        let plan = |accumulate, device: &Device| {
            WeightGrad::new(rows, input, output)
                .accumulate(accumulate)
                .plan::<T>(device)
                .expect("a plan")
        };
        let plans = self.devices.each_ref().map(|device| plan(true, device));
        let fresh = plan(false, &self.devices[0]);
        let mut run = |which: usize, stream: &Stream| {
            let operands = WeightGradOperands {
                db: Some(&mut db),
                ..WeightGradOperands::new(&dy, &x, &mut dw)
            };
            plans[which].run(stream, operands).expect("a run");
        };
        self.time(name, shape, &mut run);
        let stream = self.devices[0].stream().expect("a stream");
        fresh.run(&stream, WeightGradOperands::new(&dy, &x, &mut dw)).expect("a run");
        let exact = |index: usize| {
            let (i, j) = (index / input, index % input);
            let term = |r: usize| {
                f64::from(dy[r * output + i].widen()) * f64::from(x[r * input + j].widen())
            };
            (0..rows).map(term).sum()
        };
        check(name, &dw, rows as f64, exact);
    }

    /// Prints one line.
    fn time(&mut self, name: &str, shape: Shape, run: &mut dyn FnMut(usize, &Stream)) {
        let label = format!("{name} {shape}");
        let flops = 2.0 * (shape.rows * shape.input * shape.output) as f64;
        let streams = self.devices.each_ref().map(|device| device.stream().expect("a stream"));
        // The first call of each grows the workspace; its answer is what gets checked.
        run(1, &streams[1]);
        run(0, &streams[0]);
        if !label.contains(&self.filter) {
            return;
        }
        // Calls of a few milliseconds.
        let calls = ((4e8 / flops) as usize).clamp(1, 50);
        let mut seconds = |which: usize| {
            let start = Instant::now();
            for _ in 0..calls {
                run(which, &streams[which]);
            }
            start.elapsed().as_secs_f64() / calls as f64
        };
        let (mut share, mut one, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        let mut two = Vec::new();
        for _ in 0..self.rounds {
            let before = peak::fma_gflops();
            let alone = seconds(0);
            let after = peak::fma_gflops();
            let both = seconds(1);
            share.push(flops / alone * 1e-9 / before.max(after));
            ratio.push(alone / both);
            one.push(alone);
            two.push(both);
        }
        let one = median(&mut one);
        println!(
            "{name:32} {:>15} {:9.3} {:9.1} {:6.1}% {:9.1} {:6.2}",
            shape.to_string(),
            one * 1e3,
            flops / one * 1e-9,
            100.0 * median(&mut share),
            flops / median(&mut two) * 1e-9,
            median(&mut ratio),
        );
    }
}

fn dz<T: Storage>(dy: T, z: T) -> f64 {
    f64::from(T::narrow(dy.widen() * Activation::GeluErf.derivative(z.widen())).widen())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
