//! The backward products, batches and groups.
#![allow(missing_docs)]

mod common;

use common::bound::{self, Growth, within};
use common::data::{Distribution, Rng};
use common::guard::Guarded;
use common::memory::Values;
use common::oracle_gemm::act_derivative;
use common::policy;
use common::rounding::round;
use halfstep::gemm::{
    Activation, Copy, DataGrad, DataGradOperands, Stats, Subnormals, WeightGrad,
    WeightGradOperands, WeightLayout,
};
use halfstep::{Device, Dtype, Error, GradStats, Storage, bf16, f16};
use proptest::prelude::*;

/// A linear layer's backward pass.
#[derive(Debug, Clone, Copy)]
struct Layer {
    rows: usize,
    input: usize,
    output: usize,
    activation: Activation,
    weight: WeightLayout,
    accumulate: bool,
    flush: bool,
    /// `dw` and `db` have the operands' type; else they are f32.
    narrow: bool,
    data: Distribution,
    seed: u64,
    shift: usize,
}

fn any_layer() -> impl Strategy<Value = Layer> {
    (
        (prop_oneof![0usize..70, 1usize..9], 1usize..70, 1usize..70),
        proptest::sample::select(Activation::ALL.to_vec()),
        any::<[bool; 4]>(),
        proptest::sample::select(Distribution::REAL.to_vec()),
        (any::<u64>(), 0usize..8),
    )
        .prop_map(|((rows, input, output), activation, flags, data, (seed, shift))| {
            let [in_out, accumulate, flush, narrow] = flags;
            let weight = if in_out { WeightLayout::InOut } else { WeightLayout::OutIn };
            // Few rows are multiplied by a derivative a piece at a time.
            let output = if rows < 9 { 16 * output } else { output };
            Layer {
                rows,
                input,
                output,
                activation,
                weight,
                accumulate,
                flush,
                narrow,
                data,
                seed,
                shift,
            }
        })
}

struct Tensors<T, O> {
    x: Vec<T>,
    w: Vec<T>,
    dy: Vec<T>,
    z: Vec<T>,
    dw: Vec<O>,
    db: Vec<O>,
}

fn tensors<T: Storage, O: Storage>(layer: &Layer) -> Tensors<T, O> {
    let Layer { rows, input, output, data, .. } = *layer;
    let mut rng = Rng(layer.seed);
    Tensors {
        x: data.fill(&mut rng, rows * input),
        w: data.fill(&mut rng, output * input),
        dy: data.fill(&mut rng, rows * output),
        z: data.fill(&mut rng, rows * output),
        dw: data.fill(&mut rng, output * input),
        db: data.fill(&mut rng, output),
    }
}

#[derive(Debug, PartialEq)]
struct Gradients<T, O> {
    dx: Vec<T>,
    dz: Vec<T>,
    dz_again: Vec<T>,
    dw: Vec<O>,
    db: Vec<O>,
    /// Of a `dw` of f32.
    copy: Option<Vec<bf16>>,
    stats: halfstep::Summary,
}

/// The layer as a device can run it: one that flushes has to be asked to.
fn on<T: Storage>(layer: &Layer, device: &Device) -> Layer {
    let flushes = device.info().flushes_subnormals && T::DTYPE != Dtype::F32;
    Layer { flush: layer.flush || flushes, ..*layer }
}

fn run<T: Storage, O: Storage>(
    layer: &Layer,
    t: &Tensors<T, O>,
    device: &Device,
) -> Gradients<T, O> {
    let layer = &on::<T>(layer, device);
    let Layer { rows, input, output, shift, .. } = *layer;
    let stream = device.stream().unwrap();
    let policy = if layer.flush { Subnormals::Flush } else { Subnormals::Preserve };
    let data = DataGrad::new(rows, input, output)
        .activation(layer.activation)
        .weight_layout(layer.weight)
        .subnormals(policy)
        .plan::<T, T>(device)
        .unwrap();
    let weight = WeightGrad::new(rows, input, output)
        .activation(layer.activation)
        .weight_layout(layer.weight)
        .accumulate(layer.accumulate)
        .subnormals(policy)
        .plan::<T, O>(device)
        .unwrap();
    let pads = |values: &[T]| Guarded::new(values, shift);
    let (x, w, dy, z) = (pads(&t.x), pads(&t.w), pads(&t.dy), pads(&t.z));
    let mut dx = Guarded::<T>::output(rows * input, shift);
    let (mut dz, mut again) =
        (Guarded::<T>::output(rows * output, shift), Guarded::<T>::output(rows * output, shift));
    let old = |values: &[O]| {
        if layer.accumulate {
            Guarded::new(values, shift)
        } else {
            Guarded::output(values.len(), shift)
        }
    };
    let (mut dw, mut db) = (old(&t.dw), old(&t.db));
    let mut copy = Guarded::<bf16>::output(output * input, shift);
    let mut stats = GradStats::new(device, &[5, output * input, output]).unwrap();
    {
        let mut operands = DataGradOperands::new(&dy, &w, &mut dx);
        operands.z = Some(&z);
        operands.d_preactivation = Some(&mut dz);
        data.run(&stream, operands).unwrap();
        let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
        operands.z = Some(&z);
        operands.d_preactivation = Some(&mut again);
        operands.db = Some(&mut db);
        operands.copy = (O::DTYPE == Dtype::F32).then_some(Copy::Bf16(&mut copy));
        operands.stats = Some(Stats { stats: &mut stats, weight: 1, bias: Some(2) });
        weight.run(&stream, operands).unwrap();
    }
    stream.sync().unwrap();
    for (name, read) in [("x", &x), ("w", &w), ("dy", &dy), ("z", &z)] {
        read.unchanged(name);
    }
    dx.check("dx");
    dz.check("dz");
    again.check("dz");
    dw.check("dw");
    db.check("db");
    copy.check("copy");
    Gradients {
        dx: dx.get().to_vec(),
        dz: dz.get().to_vec(),
        dz_again: again.get().to_vec(),
        dw: dw.get().to_vec(),
        db: db.get().to_vec(),
        copy: (O::DTYPE == Dtype::F32).then(|| copy.get().to_vec()),
        stats: stats.read(&stream).unwrap(),
    }
}

/// Everything against the oracle.
fn check<T: Storage, O: Storage>(layer: &Layer, t: &Tensors<T, O>, got: &Gradients<T, O>) {
    let Layer { rows, input, output, activation, .. } = *layer;
    let growth = if layer.data.zero_mean() && activation == Activation::None {
        Growth::ZeroMean
    } else {
        Growth::Expected
    };
    let wide = |values: &[T], i: usize| {
        let value = f64::from(values[i].widen());
        if layer.flush { common::gemm_case::flushed(value, T::DTYPE) } else { value }
    };
    let floor = if layer.flush { bound::smallest_normal(T::DTYPE) } else { 0.0 };
    // Exact dz and the error that its rounding may have.
    let dz: Vec<(f64, f64)> = (0..rows * output)
        .map(|i| {
            // The derivative is taken before anything is flushed.
            let (dy, z) = (f64::from(t.dy[i].widen()), f64::from(t.z[i].widen()));
            let error = bound::dz(activation, T::DTYPE, dy, z);
            let value = dy * act_derivative(activation.name(), z);
            let kept =
                if layer.flush && activation == Activation::None { wide(&t.dy, i) } else { value };
            (kept, error + floor)
        })
        .collect();
    for (i, (exact, error)) in dz.iter().enumerate() {
        let value = f64::from(got.dz[i].widen());
        assert!(within(value, *exact, *error, T::DTYPE), "{layer:?}: dz[{i}] {value:e} {exact:e}");
    }
    let near =
        |name: &str, got: f64, start: f64, terms: &mut dyn Iterator<Item = (usize, f64)>, dtype| {
            let (mut sum, mut size, mut inherited, mut k) = (start, start.abs(), 0.0, 0);
            for (i, factor) in terms {
                let (value, error) = dz[i];
                sum += value * factor;
                size += (value * factor).abs();
                inherited += error * factor.abs();
                k += 1;
            }
            let error = bound::sum(growth, k, size + inherited) + inherited;
            let bound = error + bound::half_ulp(sum.abs() + error, dtype);
            let floor = if layer.flush { bound::smallest_normal(dtype) } else { 0.0 };
            assert!(
                within(got, sum, bound + floor, dtype),
                "{layer:?}: {name}: {got:e}, not {sum:e} ± {bound:e}"
            );
        };
    let w_at = |o: usize, i: usize| match layer.weight {
        WeightLayout::OutIn => o * input + i,
        WeightLayout::InOut => i * output + o,
    };
    for r in 0..rows {
        for i in 0..input {
            let mut terms = (0..output).map(|o| (r * output + o, wide(&t.w, w_at(o, i))));
            near("dx", f64::from(got.dx[r * input + i].widen()), 0.0, &mut terms, T::DTYPE);
        }
    }
    let start = |old: O| if layer.accumulate { f64::from(old.widen()) } else { 0.0 };
    for o in 0..output {
        for i in 0..input {
            let at = w_at(o, i);
            let mut terms = (0..rows).map(|r| (r * output + o, wide(&t.x, r * input + i)));
            near("dw", f64::from(got.dw[at].widen()), start(t.dw[at]), &mut terms, O::DTYPE);
        }
        let mut terms = (0..rows).map(|r| (r * output + o, 1.0));
        near("db", f64::from(got.db[o].widen()), start(t.db[o]), &mut terms, O::DTYPE);
    }
    let wide = |values: &[O]| values.iter().map(|v| v.widen()).collect::<Vec<_>>();
    let (dw, db) = (wide(&got.dw), wide(&got.db));
    if let Some(copy) = &got.copy {
        assert!(dw.iter().zip(copy).all(|(v, c)| c.to_bits() == bf16::narrow(*v).to_bits()));
    }
    assert_eq!(got.dz.len(), got.dz_again.len());
    assert!(
        got.dz.iter().zip(&got.dz_again).all(|(x, y)| x.widen().to_bits() == y.widen().to_bits())
    );
    // Of f16 some overflow.
    let finite = || dw.iter().chain(&db).filter(|v| v.is_finite());
    let squares: f64 = finite().map(|v| f64::from(*v) * f64::from(*v)).sum();
    // Each square is exact in f64, and each of two sums of them rounds as often.
    let rounding = (dw.len() + db.len()) as f64 * f64::EPSILON;
    assert!((got.stats.sum_squares - squares).abs() <= rounding * squares);
    assert_eq!(got.stats.non_finite, (dw.len() + db.len() - finite().count()) as u64);
}

fn reference() -> Device {
    Device::cpu_with_arch(1.try_into().unwrap(), "reference").unwrap()
}

/// All devices of such products, and the CPU's other forms.
fn devices() -> Vec<Device> {
    let mut devices = common::gemm_devices();
    let others = [(2, "avx512bf16"), (1, "avx512f"), (2, "avx2+fma"), (3, "portable")];
    for (threads, arch) in others {
        devices.extend(Device::cpu_with_arch(usize::try_into(threads).unwrap(), arch).ok());
    }
    devices
}

fn property<T: Storage>() {
    let (exact, devices) = (reference(), devices());
    let amx = common::amx();
    proptest!(common::cases(), |(layer in any_layer())| {
        if layer.narrow {
            on_all::<T, T>(&layer, &exact, &devices, amx.as_ref());
        } else {
            on_all::<T, f32>(&layer, &exact, &devices, amx.as_ref());
        }
    });
}

fn on_all<T: Storage, O: Storage>(
    layer: &Layer,
    exact: &Device,
    devices: &[Device],
    amx: Option<&Device>,
) {
    let tensors = tensors::<T, O>(layer);
    let expected = run(layer, &tensors, exact);
    check(layer, &tensors, &expected);
    for device in devices {
        let got = run(layer, &tensors, device);
        assert!(got == expected, "{layer:?} on {}", device.info());
    }
    if let Some(device) = amx {
        check_own_order(layer, &tensors, &expected, device);
    }
}

/// On GPUs.
fn property_of_gpus<T: Storage>() {
    let exact = reference();
    for device in common::gpus() {
        println!("{}: 10 layers, an interpreter's share", device.info());
        let mut rng = Rng(77);
        for i in 0..10 {
            let layer = Layer {
                rows: if i == 0 { 0 } else { 1 + rng.below(if i == 1 { 700 } else { 70 }) },
                input: 1 + rng.below(if i == 2 { 300 } else { 70 }),
                output: 1 + rng.below(if i == 2 { 300 } else { 70 }),
                activation: Activation::ALL[i % 5],
                weight: [WeightLayout::OutIn, WeightLayout::InOut][rng.below(2)],
                accumulate: rng.below(2) == 0,
                flush: false,
                narrow: i % 3 == 1,
                data: Distribution::REAL[i % 7],
                seed: rng.next(),
                shift: if i == 2 { 0 } else { rng.below(8) },
            };
            let layer = on::<T>(&layer, &device);
            if layer.narrow {
                on_gpu::<T, T>(&layer, &exact, &device);
            } else {
                on_gpu::<T, f32>(&layer, &exact, &device);
            }
        }
    }
}

fn on_gpu<T: Storage, O: Storage>(layer: &Layer, exact: &Device, device: &Device) {
    let tensors = tensors::<T, O>(layer);
    check_own_order(layer, &tensors, &run(layer, &tensors, exact), device);
}

/// What devices promise whose products of 16 bits add in an order of their own: everything within its bounds; what has
/// one order of arithmetic (dz, db, the statistics, and with f32 storage all of it) to the bit; twice the same.
fn check_own_order<T: Storage, O: Storage>(
    layer: &Layer,
    tensors: &Tensors<T, O>,
    expected: &Gradients<T, O>,
    device: &Device,
) {
    let got = run(layer, tensors, device);
    check(layer, tensors, &got);
    assert!(got.dz == expected.dz && got.db == expected.db, "{layer:?} on {}", device.info());
    assert!(T::DTYPE != Dtype::F32 || got == *expected, "{layer:?} on {}", device.info());
    assert!(got == run(layer, tensors, device), "{layer:?}: twice on {}", device.info());
}

#[test]
fn bf16_gradients_of_gpus() {
    property_of_gpus::<bf16>();
}

#[test]
fn f16_gradients_of_gpus() {
    property_of_gpus::<f16>();
}

#[test]
fn f32_gradients_of_gpus() {
    property_of_gpus::<f32>();
}

#[test]
fn bf16_gradients_are_within_their_bounds_and_have_the_references_bits() {
    property::<bf16>();
}

#[test]
fn f16_gradients_are_within_their_bounds_and_have_the_references_bits() {
    property::<f16>();
}

#[test]
fn f32_gradients_are_within_their_bounds_and_have_the_references_bits() {
    property::<f32>();
}

/// Integers: exact through every layout, also where the sum over rows is cut.
#[test]
fn g23_accumulating_twice_is_the_sum_of_both_and_an_error_in_between_changes_nothing() {
    for device in common::product_devices() {
        for weight in [WeightLayout::OutIn, WeightLayout::InOut] {
            let layer = Layer {
                rows: 600,
                input: 50,
                output: 33,
                activation: Activation::Relu,
                weight,
                accumulate: true,
                flush: false,
                narrow: false,
                data: Distribution::Integer(7),
                seed: 3,
                shift: 1,
            };
            let mut t = tensors::<bf16, f32>(&layer);
            let first = run(&layer, &t, &device);
            (t.dw, t.db) = (first.dw.clone(), first.db.clone());
            let second = run(&layer, &t, &device);
            let fresh = run(&Layer { accumulate: false, ..layer }, &t, &device);
            let start = tensors::<bf16, f32>(&layer);
            for i in 0..first.dw.len() {
                assert_eq!(first.dw[i], start.dw[i] + fresh.dw[i]);
                assert_eq!(second.dw[i], first.dw[i] + fresh.dw[i]);
                let exact: f64 = (0..600)
                    .map(|r| {
                        let (o, j) = match weight {
                            WeightLayout::OutIn => (i / 50, i % 50),
                            WeightLayout::InOut => (i % 33, i / 33),
                        };
                        let at = r * 33 + o;
                        let dz = if t.z[at].widen() > 0.0 { t.dy[at].to_f64() } else { 0.0 };
                        dz * t.x[r * 50 + j].to_f64()
                    })
                    .sum();
                assert_eq!(f64::from(fresh.dw[i]), round(exact, Dtype::F32));
            }
            assert_eq!(second.db[5], start.db[5] + 2.0 * fresh.db[5]);
            // An error leaves the buffer as it was.
            let plan = WeightGrad::new(600, 50, 33).accumulate(true).subnormals(policy(&device));
            let plan = plan.plan::<bf16, f32>(&device).unwrap();
            let (mut dw, dy) = (Values::from(first.dw.clone()), Values::from(t.dy.clone()));
            let short = Values::from(vec![bf16::ONE; 600 * 50 - 1]);
            let operands = WeightGradOperands::new(&dy, &short, &mut dw);
            let error = plan.run(&device.stream().unwrap(), operands).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }) && dw == first.dw, "{error}");
        }
    }
}

/// Sums over many rows: through several of the blocks that `db` is defined by, and of `k`.
#[test]
fn long_batches_have_the_references_bits() {
    let exact = reference();
    for rows in [255, 256, 257, 700, 4096, 4500] {
        for (activation, accumulate) in [(Activation::None, false), (Activation::GeluErf, true)] {
            let layer = Layer {
                rows,
                input: 9,
                output: 13,
                activation,
                weight: WeightLayout::OutIn,
                accumulate,
                flush: false,
                narrow: false,
                data: Distribution::Normal,
                seed: rows as u64,
                shift: 1,
            };
            let tensors = tensors::<bf16, f32>(&layer);
            let expected = run(&layer, &tensors, &exact);
            check(&layer, &tensors, &expected);
            for device in common::gemm_devices() {
                assert!(run(&layer, &tensors, &device) == expected, "{layer:?}");
            }
            if let Some(device) = common::amx() {
                check_own_order(&layer, &tensors, &expected, &device);
            }
        }
    }
}

/// So many rows of A, in both products, that each row of tiles packs its own.
#[test]
fn tall_products_have_the_references_bits() {
    let exact = reference();
    let layer = Layer {
        rows: 601,
        input: 9,
        output: 1003,
        activation: Activation::GeluErf,
        weight: WeightLayout::OutIn,
        accumulate: true,
        flush: false,
        narrow: true,
        data: Distribution::Normal,
        seed: 3,
        shift: 1,
    };
    let tensors = tensors::<bf16, bf16>(&layer);
    let expected = run(&layer, &tensors, &exact);
    check(&layer, &tensors, &expected);
    for device in devices() {
        assert!(run(&layer, &tensors, &device) == expected, "{}", device.info());
    }
    if let Some(device) = common::amx() {
        check_own_order(&layer, &tensors, &expected, &device);
    }
}
