//! `D = act(α·A·B + β·C + bias) + residual`, its pre-activation, SwiGLU and a product times a derivative.

use halfstep::gemm::bound::{self, Forward, Growth};
use halfstep::gemm::{Activation, Gemm, Layout, Operands, Source};
use halfstep::{Device, Dtype, Storage, bf16, f16};

use super::{Devices, Group, Outputs, Worst, read, seed, values};
use crate::data::{Distribution, Rng};
use crate::golden::{Reason, flushed, subnormals};
use crate::oracle;

/// Rows, columns, steps of `k`: one, a row, a column, around the edges of tiles, and sums that are cut.
const SIZES: [[usize; 3]; 10] = [
    [1, 1, 1],
    [1, 67, 129],
    [1, 300, 40],
    [47, 1, 33],
    [3, 5, 7],
    [8, 48, 64],
    [33, 65, 31],
    [64, 64, 96],
    [97, 49, 17],
    [5, 9, 4100],
];

/// What a product does besides.
#[derive(Clone, Copy)]
struct Epilogue {
    name: &'static str,
    alpha: f32,
    /// C is there where it is not 0.
    beta: f32,
    bias: bool,
    residual: bool,
    /// Whether the pre-activation is stored.
    kept: bool,
    activation: Activation,
    role: Role,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Forward,
    Derivative,
    Gated,
}

const PLAIN: Epilogue = Epilogue {
    name: "plain",
    alpha: 1.0,
    beta: 0.0,
    bias: false,
    residual: false,
    kept: false,
    activation: Activation::None,
    role: Role::Forward,
};

const EPILOGUES: [Epilogue; 7] = [
    PLAIN,
    Epilogue {
        name: "bias gelu_erf, z kept",
        bias: true,
        kept: true,
        activation: Activation::GeluErf,
        ..PLAIN
    },
    Epilogue {
        name: "bias gelu_tanh residual",
        bias: true,
        residual: true,
        activation: Activation::GeluTanh,
        ..PLAIN
    },
    Epilogue {
        name: "alpha beta relu",
        alpha: -1.25,
        beta: 0.75,
        activation: Activation::Relu,
        ..PLAIN
    },
    Epilogue { name: "alpha silu residual", alpha: 0.5, residual: true, ..SILU },
    Epilogue { name: "times silu'", role: Role::Derivative, ..SILU },
    Epilogue { name: "bias swiglu", bias: true, role: Role::Gated, ..SILU },
];
const SILU: Epilogue = Epilogue { activation: Activation::Silu, ..PLAIN };

pub fn groups(devices: &Devices, all: &mut Vec<Group>) {
    group::<bf16, bf16>(devices, all);
    group::<bf16, f32>(devices, all);
    group::<f16, f16>(devices, all);
    group::<f16, f32>(devices, all);
    group::<f32, f32>(devices, all);
}

fn group<T: Storage, O: Storage>(devices: &Devices, all: &mut Vec<Group>) {
    let (input, output) = (T::DTYPE, O::DTYPE);
    let mut cases: Vec<(String, super::Run)> = Vec::new();
    for layout in Layout::ALL {
        for size in SIZES {
            for epilogue in EPILOGUES {
                let [m, n, k] = size;
                let name =
                    format!("gemm {input} to {output} {layout:?} {m}x{n}x{k} {}", epilogue.name);
                let case = Case { layout, size, epilogue, seed: seed(&name) };
                cases.push((name, Box::new(move |devices| check::<T, O>(&case, devices))));
            }
        }
    }
    let name = format!("gemm {input} to {output}");
    all.push(Group { name, bits: devices.bits_of_products(input), cases });
}

struct Case {
    layout: Layout,
    size: [usize; 3],
    epilogue: Epilogue,
    seed: u64,
}

impl Case {
    /// Columns of B: of a gate, twice those of D.
    fn columns(&self) -> usize {
        if self.epilogue.role == Role::Gated { 2 * self.size[1] } else { self.size[1] }
    }
}

struct Data<T, O> {
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<O>,
    bias: Vec<T>,
    residual: Vec<O>,
    z: Vec<T>,
}

impl<T: Storage, O: Storage> Data<T, O> {
    fn new(case: &Case) -> Self {
        let [m, n, k] = case.size;
        let rng = &mut Rng(case.seed);
        let of = [Distribution::Normal, Distribution::Uniform, Distribution::Positive];
        // The product of two long sums of positive values may be more than f16 holds.
        let of = of[rng.below(if case.epilogue.role == Role::Gated { 2 } else { 3 })];
        Self {
            a: values(of, rng, m * k),
            b: values(of, rng, k * case.columns()),
            c: values(of, rng, m * n),
            bias: values(of, rng, case.columns()),
            residual: values(of, rng, m * n),
            z: values(of, rng, m * n),
        }
    }
}

/// D, and the pre-activation where it is kept.
fn run<T: Storage, O: Storage>(
    case: &Case,
    data: &Data<T, O>,
    device: &Device,
) -> halfstep::Result<Outputs> {
    let ([m, n, k], epilogue) = (case.size, case.epilogue);
    let gemm = match epilogue.role {
        Role::Forward => Gemm::new(m, n, k).activation(epilogue.activation),
        Role::Derivative => Gemm::new(m, n, k).derivative(epilogue.activation),
        Role::Gated => Gemm::swiglu(m, n, k),
    };
    let plan = gemm
        .layout(case.layout)
        .alpha(epilogue.alpha)
        .beta(epilogue.beta)
        .subnormals(subnormals::<T>(device))
        .plan::<T, O>(device)?;
    let stream = device.stream()?;
    let (a, b) = (device.upload(&data.a)?, device.upload(&data.b)?);
    let (bias, z) = (device.upload(&data.bias)?, device.upload(&data.z)?);
    let (c, residual) = (device.upload(&data.c)?, device.upload(&data.residual)?);
    let (mut d, mut kept) = (device.zeros::<O>(m * n)?, device.zeros::<T>(m * n)?);
    let mut operands = Operands::new(&a, &b, &mut d);
    if epilogue.beta != 0.0 {
        operands.c = Source::From(&c);
    }
    if epilogue.residual {
        operands.residual = Source::From(&residual);
    }
    operands.bias = epilogue.bias.then_some(&bias as _);
    operands.derivative_of = (epilogue.role == Role::Derivative).then_some(&z as _);
    if epilogue.kept {
        operands.preactivation = Some(&mut kept);
    }
    plan.run(&stream, operands)?;
    let mut outputs = vec![("d", read(&d, &stream)?)];
    if epilogue.kept {
        outputs.push(("z", read(&kept, &stream)?));
    }
    Ok(outputs)
}

fn check<T: Storage, O: Storage>(case: &Case, devices: &Devices) -> Result<f64, Reason> {
    let data = Data::<T, O>::new(case);
    let bits = devices.bits_of_products(T::DTYPE);
    let outputs = devices.outputs(bits, |device| run(case, &data, device))?;

    let ([m, n, k], epilogue) = (case.size, case.epilogue);
    let name = epilogue.activation.name();
    // What enters the activation in a column of B, and the magnitudes that it is the sum of.
    let sum = |i: usize, j: usize, column: usize| {
        let (at, bt) = (case.layout.a_transposed(), case.layout.b_transposed());
        let (lda, ldb) = (if at { m } else { k }, if bt { k } else { case.columns() });
        let (sum, size) = oracle::dot(
            k,
            |p| oracle::at(&data.a, i, p, lda, at),
            |p| oracle::at(&data.b, p, column, ldb, bt),
        );
        let alpha = f64::from(epilogue.alpha);
        let c = f64::from(epilogue.beta) * f64::from(data.c[i * n + j].widen());
        let bias = if epilogue.bias { f64::from(data.bias[column].widen()) } else { 0.0 };
        (alpha * sum + c + bias, alpha.abs() * size + c.abs() + bias.abs())
    };
    // A result's exact value and its bound.
    let element = |what: &str, at: usize| {
        let (i, j) = (at / n, at % n);
        let (z, magnitude) = sum(i, j, j);
        let growth = Growth::Expected;
        let of = |activation, magnitude, exact, output| Forward {
            growth,
            k,
            magnitude,
            activation,
            preactivation: z,
            exact,
            output,
        };
        if what == "z" {
            return (z, bound::bound(of(Activation::None, magnitude, z, T::DTYPE)));
        }
        let residual = if epilogue.residual { f64::from(data.residual[at].widen()) } else { 0.0 };
        let of = |exact| of(epilogue.activation, magnitude + residual.abs(), exact, O::DTYPE);
        match epilogue.role {
            Role::Forward => {
                let exact = oracle::act(name, z) + residual;
                (exact, bound::bound(of(exact)))
            }
            Role::Gated => {
                let (up, up_magnitude) = sum(i, j, n + j);
                let exact = oracle::act(name, z) * up + residual;
                (exact, bound::gated(of(exact), up, up_magnitude))
            }
            // As of a slope that is read: off by 4u, and at most 1.13.
            Role::Derivative => {
                let slope = oracle::act_derivative(name, data.z[at].widen().into());
                let exact = z * slope + residual;
                let u = Dtype::F32.unit_roundoff();
                let error = 1.13 * growth.sum(k, magnitude) + 5.0 * u * z.abs();
                let error = error + 2.0 * u * (magnitude + residual.abs());
                (exact, error + bound::rounding(exact.abs() + error, O::DTYPE))
            }
        }
    };
    // Where subnormal operands are read as zeros, such results are written as zeros.
    let floors = [flushed::<O>(&devices.device), flushed::<T>(&devices.device)];
    let mut worst = Worst::default();
    for ((what, found), floor) in outputs.iter().zip(floors) {
        worst.add(what, found, |at| {
            let (exact, bound) = element(what, at);
            (exact, bound + floor)
        });
    }
    worst.verdict()
}
