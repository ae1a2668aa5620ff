//! One product with every option, as data: run on any device between guard pads, and checked against
//! the oracle.

use halfstep::gemm::{Activation, Gemm, Layout, Matrix, Operands, Source, Subnormals, Tile};
use halfstep::{Device, DeviceKind, Dtype, Storage};

use super::bound::Growth;
use super::data::{Distribution, Rng};
use super::guard::Guarded;
use super::oracle_gemm as oracle;
use super::rounding::round;

/// The tile of the path that takes every product.
pub const SMALL: Tile = Tile::new(64, 64);
/// Tiles of aligned 16-bit operands that every GPU has.
pub const LARGE: [Tile; 3] = [Tile::new(128, 128), Tile::new(256, 128), Tile::new(128, 256)];

/// Tiles of aligned 16-bit operands: those, and one of each vendor's own; none where both are stored transposed.
pub fn large(layout: Layout, device: &Device) -> Vec<Tile> {
    let own = match device.info().kind {
        DeviceKind::Cuda => Tile::new(128, 64),
        _ => Tile::new(256, 256),
    };
    let all = if layout == Layout::TT { &[][..] } else { &LARGE[..] };
    all.iter().copied().chain((layout != Layout::TT).then_some(own)).collect()
}

/// Where an addend comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Term {
    Absent,
    Own,
    InPlace,
}

/// What the activation does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    Forward,
    Derivative,
    Gated,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub layout: Layout,
    pub alpha: f32,
    pub beta: f32,
    pub c: Term,
    pub bias: bool,
    pub residual: Term,
    pub activation: Activation,
    pub role: Role,
    pub preactivation: bool,
    pub flush: bool,
    /// Factors are rounded to bf16; of f16 only.
    pub through_bf16: bool,
    /// Added to each leading dimension.
    pub gap: usize,
    /// Elements away from an aligned address.
    pub shift: usize,
    /// Rows of A and B start at multiples of eight elements; they have no other gap then.
    pub aligned: bool,
    /// Rows of A and B start at odd multiples of two elements; they have no other gap then.
    pub pairs: bool,
    /// A GPU's tile; `None` leaves it to the plan.
    pub tile: Option<Tile>,
    /// Parts of k on a GPU; 0 leaves them to the plan.
    pub splits: u32,
    pub data: Distribution,
    pub seed: u64,
}

impl Case {
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        Self {
            m,
            n,
            k,
            layout: Layout::NN,
            alpha: 1.0,
            beta: 0.0,
            c: Term::Absent,
            bias: false,
            residual: Term::Absent,
            activation: Activation::None,
            role: Role::Forward,
            preactivation: false,
            flush: false,
            through_bf16: false,
            gap: 0,
            shift: 0,
            aligned: false,
            pairs: false,
            tile: None,
            splits: 0,
            data: Distribution::Normal,
            seed: 1,
        }
    }

    fn halves(&self) -> usize {
        if self.role == Role::Gated { 2 } else { 1 }
    }

    /// `[rows, cols]` of A and B as stored.
    fn stored(&self) -> [(usize, usize); 2] {
        let (a, b) = ((self.m, self.k), (self.k, self.halves() * self.n));
        let swap = |swap, (rows, cols)| if swap { (cols, rows) } else { (rows, cols) };
        [swap(self.layout.a_transposed(), a), swap(self.layout.b_transposed(), b)]
    }

    /// The case as a device can run it: one whose matrix unit flushes subnormals of `T` has to be asked to.
    pub fn on<T: Storage>(&self, device: &Device) -> Self {
        let flushes =
            device.info().flushes_subnormals && T::DTYPE != Dtype::F32 && !self.through_bf16;
        Self { flush: self.flush || flushes, ..*self }
    }

    /// Leading dimension of A and B.
    fn ld(&self, cols: usize) -> usize {
        match (self.aligned, self.pairs) {
            (true, _) => cols.next_multiple_of(8),
            (_, true) => (cols + 2).next_multiple_of(4) - 2,
            _ => cols + self.gap,
        }
    }

    pub fn gemm(&self) -> Gemm {
        let (m, n, k) = (self.m, self.n, self.k);
        let [(_, a), (_, b)] = self.stored();
        let gemm = match self.role {
            Role::Forward => Gemm::new(m, n, k).activation(self.activation),
            Role::Derivative => Gemm::new(m, n, k).derivative(self.activation),
            Role::Gated => Gemm::swiglu(m, n, k).activation(self.activation),
        };
        let z = if self.role == Role::Gated { 2 * n } else { n };
        let gemm = match self.tile {
            Some(tile) => gemm.tile(tile),
            None => gemm,
        };
        let gemm = if self.splits > 0 { gemm.split(self.splits) } else { gemm };
        gemm.layout(self.layout)
            .alpha(self.alpha)
            .beta(self.beta)
            .subnormals(match (self.through_bf16, self.flush) {
                (true, _) => Subnormals::ThroughBf16,
                (_, true) => Subnormals::Flush,
                _ => Subnormals::Preserve,
            })
            .leading(Matrix::A, self.ld(a))
            .leading(Matrix::B, self.ld(b))
            .leading(Matrix::C, n + self.gap)
            .leading(Matrix::Residual, n + self.gap)
            .leading(Matrix::Preactivation, z + self.gap)
            .leading(Matrix::D, n + self.gap)
    }
}

/// The operands' values, dense. Gaps between rows are filled when they are laid out.
pub struct Data<T, O> {
    pub a: Vec<T>,
    pub b: Vec<T>,
    pub c: Vec<O>,
    pub bias: Vec<T>,
    pub residual: Vec<O>,
    pub z: Vec<T>,
}

impl<T: Storage, O: Storage> Data<T, O> {
    pub fn new(case: &Case) -> Self {
        let mut rng = Rng(case.seed);
        let [(ar, ac), (br, bc)] = case.stored();
        let (mn, columns) = (case.m * case.n, case.halves() * case.n);
        Self {
            a: case.data.fill(&mut rng, ar * ac),
            b: case.data.fill(&mut rng, br * bc),
            c: case.data.fill(&mut rng, mn),
            bias: case.data.fill(&mut rng, columns),
            residual: case.data.fill(&mut rng, mn),
            z: case.data.fill(&mut rng, mn),
        }
    }
}

/// Rows of `cols` values, `ld` apart, with the pad's NaN between them.
pub fn spread<T: Storage>(dense: &[T], cols: usize, ld: usize) -> Vec<T> {
    let rows = dense.len().checked_div(cols).unwrap_or(0);
    let len = if rows == 0 { 0 } else { (rows - 1) * ld + cols };
    let mut values = vec![Guarded::<T>::canary(); len];
    for row in 0..rows {
        values[row * ld..row * ld + cols].copy_from_slice(&dense[row * cols..(row + 1) * cols]);
    }
    values
}

/// The values again; panics if a gap has been written.
pub fn gather<T: Storage>(name: &str, values: &[T], cols: usize, ld: usize) -> Vec<T> {
    let canary = Guarded::<T>::canary();
    let bits = |value: &T| bytemuck::bytes_of(value).to_vec();
    let mut dense = Vec::new();
    for row in values.chunks(ld.max(1)) {
        dense.extend_from_slice(&row[..cols]);
        assert!(row[cols..].iter().all(|v| bits(v) == bits(&canary)), "{name}: gap written");
    }
    dense
}

/// What a run wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Written<T, O> {
    pub d: Vec<O>,
    pub preactivation: Vec<T>,
}

impl<T: Storage, O: Storage> Written<T, O> {
    /// All bits; every NaN is one.
    pub fn bits(&self) -> Vec<u32> {
        let all =
            self.d.iter().map(|v| v.widen()).chain(self.preactivation.iter().map(|v| v.widen()));
        all.map(|v| if v.is_nan() { u32::MAX } else { v.to_bits() }).collect()
    }
}

/// Runs the case between guard pads.
pub fn run<T: Storage, O: Storage>(
    case: &Case,
    data: &Data<T, O>,
    device: &Device,
) -> Written<T, O> {
    let case = &case.on::<T>(device);
    let plan = case.gemm().plan::<T, O>(device).expect("a plan");
    let stream = device.stream().expect("a stream");
    let [(_, ac), (_, bc)] = case.stored();
    let (n, shift, gap) = (case.n, case.shift, case.gap);
    let zc = if case.role == Role::Gated { 2 * n } else { n };
    let guarded =
        |values: &[T], cols: usize, ld: usize| Guarded::new(&spread(values, cols, ld), shift);
    let a = guarded(&data.a, ac, case.ld(ac));
    let b = guarded(&data.b, bc, case.ld(bc));
    let bias = Guarded::new(&data.bias, shift);
    let z = guarded(&data.z, n, n + gap);
    let c = Guarded::new(&spread(&data.c, n, n + gap), shift);
    let residual = Guarded::new(&spread(&data.residual, n, n + gap), shift);
    let old = match (case.c, case.residual) {
        (Term::InPlace, _) => spread(&data.c, n, n + gap),
        (_, Term::InPlace) => spread(&data.residual, n, n + gap),
        _ => spread(&vec![Guarded::<O>::canary(); case.m * n], n, n + gap),
    };
    let mut d = Guarded::new(&old, shift);
    let z_len = spread(&vec![T::zeroed(); case.m * zc], zc, zc + gap).len();
    let mut preactivation = Guarded::<T>::output(z_len, shift);

    let mut operands = Operands::new(&a, &b, &mut d);
    operands.c = match case.c {
        Term::Absent => Source::None,
        Term::Own => Source::From(&c),
        Term::InPlace => Source::InPlace,
    };
    operands.residual = match case.residual {
        Term::Absent => Source::None,
        Term::Own => Source::From(&residual),
        Term::InPlace => Source::InPlace,
    };
    if case.bias {
        operands.bias = Some(&bias);
    }
    if case.role == Role::Derivative {
        operands.derivative_of = Some(&z);
    }
    if case.preactivation {
        operands.preactivation = Some(&mut preactivation);
    }
    plan.run(&stream, operands).expect("a run");
    stream.sync().expect("synced");
    for (name, read) in [("a", &a), ("b", &b), ("bias", &bias), ("z", &z)] {
        read.unchanged(name);
    }
    for (name, read) in [("c", &c), ("residual", &residual)] {
        read.unchanged(name);
    }
    preactivation.check("preactivation");
    d.check("d");
    let preactivation = if case.preactivation {
        gather("preactivation", preactivation.get(), zc, zc + gap)
    } else {
        assert!(preactivation.untouched());
        Vec::new()
    };
    Written { d: gather("d", d.get(), n, n + gap), preactivation }
}

/// One element's exact value, and what its bound depends on.
pub struct Exact {
    pub value: f64,
    pub z: f64,
    pub magnitude: f64,
    pub up: f64,
    pub up_magnitude: f64,
}

/// The oracle's answer for element `(i, j)`.
pub fn exact<T: Storage, O: Storage>(case: &Case, data: &Data<T, O>, i: usize, j: usize) -> Exact {
    let [(_, ac), (_, bc)] = case.stored();
    let (alpha, beta) = (f64::from(case.alpha), f64::from(case.beta));
    let k = if alpha == 0.0 { 0 } else { case.k };
    let name = case.activation.name();
    let flush = |v: f64, dtype| if case.flush { flushed(v, dtype) } else { v };
    let factor =
        |v: f64| if case.through_bf16 { round(v, Dtype::Bf16) } else { flush(v, T::DTYPE) };
    let sum = |j: usize| {
        let (sum, size) = oracle::dot(
            k,
            |p| factor(oracle::at(&data.a, i, p, ac, case.layout.a_transposed())),
            |p| factor(oracle::at(&data.b, p, j, bc, case.layout.b_transposed())),
        );
        let c = if beta != 0.0 { beta * oracle::at(&data.c, i, j, case.n, false) } else { 0.0 };
        let bias = if case.bias { f64::from(data.bias[j].widen()) } else { 0.0 };
        (alpha * sum + c + bias, alpha.abs() * size + c.abs() + bias.abs())
    };
    let residual = match case.residual {
        Term::Absent => 0.0,
        _ => f64::from(data.residual[i * case.n + j].widen()),
    };
    let (z, size) = sum(j);
    let (up, up_magnitude) = if case.role == Role::Gated { sum(case.n + j) } else { (1.0, 0.0) };
    let value = match case.role {
        Role::Forward | Role::Gated => oracle::act(name, z) * up,
        Role::Derivative => {
            z * oracle::act_derivative(name, f64::from(data.z[i * case.n + j].widen()))
        }
    };
    let magnitude = size + residual.abs();
    Exact { value: value + residual, z, magnitude, up, up_magnitude }
}

/// A subnormal 16-bit number as zero.
pub fn flushed(value: f64, dtype: Dtype) -> f64 {
    let smallest = match dtype {
        Dtype::Bf16 => 2f64.powi(-126),
        Dtype::F16 => 2f64.powi(-14),
        Dtype::F32 => 0.0,
    };
    if round(value, dtype).abs() < smallest { 0.0 } else { value }
}

/// Checks every element against the oracle's bound; returns the largest error over bound.
pub fn check<T: Storage, O: Storage>(
    case: &Case,
    data: &Data<T, O>,
    written: &Written<T, O>,
    growth: Growth,
) -> f64 {
    let mut worst = 0.0f64;
    for i in 0..case.m {
        for j in 0..case.n {
            let exact = exact(case, data, i, j);
            let bound = super::bound::forward(case, growth, &exact, O::DTYPE);
            let got = f64::from(written.d[i * case.n + j].widen());
            let lost = super::bound::flushed_steps(case.k, T::DTYPE) * f64::from(case.alpha.abs());
            let floor = super::bound::smallest_normal(O::DTYPE) + lost;
            let floor = if case.flush { floor } else { 0.0 };
            let ok = super::bound::within(got, exact.value, bound + floor, O::DTYPE);
            let (value, z) = (exact.value, exact.z);
            assert!(
                ok,
                "{case:?}: d[{i},{j}] = {got:e}, exact {value:e} (z {z:e}), bound {bound:e}"
            );
            if got.is_finite() && bound > 0.0 {
                worst = worst.max((got - exact.value).abs() / (bound + floor));
            }
        }
    }
    worst
}
