//! Sums over k that start at steps of their own, on devices whose memory has channels that rows share: which order that
//! is, what it depends on, and what not.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::data::{Distribution, Rng};
use common::gemm_case::{LARGE, SMALL, large};
use common::memory::Values;
use common::policy;
use halfstep::gemm::{DataGrad, DataGradOperands, Gemm, Layout, Matrix, Operands, Tile};
use halfstep::{Device, DeviceKind, Storage, bf16};

/// Elements from row to row of operands that hold k side by side: 4 KiB.
const LD: usize = 2048;
/// Columns that start at one step, steps of k between two starts, and starts at most.
const COLUMNS: usize = 256;
const APART: usize = 4;
const PLACES: usize = 32;

/// A `[m,k]` and B `[k,n]`, as numbers.
#[derive(Clone)]
struct Numbers {
    m: usize,
    n: usize,
    k: usize,
    a: Vec<bf16>,
    b: Vec<bf16>,
}

impl Numbers {
    fn new((m, n, k): (usize, usize, usize), data: Distribution) -> Self {
        let mut rng = Rng((m + n + k) as u64);
        let (a, b) = (data.fill(&mut rng, m * k), data.fill(&mut rng, k * n));
        Self { m, n, k, a, b }
    }

    /// With steps of k in another order; a step behind the end is 0.
    fn ordered(&self, order: &[usize]) -> Self {
        let (zero, k) = (bf16::narrow(0.0), 32 * order.len());
        let from = |at: usize| 32 * order[at / 32] + at % 32;
        let there = |at: usize| from(at) < self.k;
        let a = |i: usize| move |p: usize| (i, p);
        let a = (0..self.m).flat_map(|i| (0..k).map(a(i)));
        let a =
            a.map(|(i, p)| if there(p) { self.a[i * self.k + from(p)] } else { zero }).collect();
        let b = (0..k * self.n).map(|at| (at / self.n, at % self.n));
        let b =
            b.map(|(p, j)| if there(p) { self.b[from(p) * self.n + j] } else { zero }).collect();
        Self { a, b, k, ..*self }
    }

    /// The product, with operands stored as the layout says, those that hold k side by side in rows of `LD`.
    fn product(&self, how: How, device: &Device) -> Vec<u32> {
        let How { layout, tile, splits, rotate, shift } = how;
        let Self { m, n, k, .. } = *self;
        let mut gemm = Gemm::new(m, n, k).layout(layout).subnormals(policy(device)).rotate(rotate);
        gemm = if splits > 0 { gemm.split(splits) } else { gemm };
        gemm = if let Some(tile) = tile { gemm.tile(tile) } else { gemm };
        let stored =
            |values: &[bf16], (rows, columns): (usize, usize), transposed: bool, ld: usize| {
                let (lines, len) = if transposed { (columns, rows) } else { (rows, columns) };
                let mut out = vec![bf16::NAN; (lines - 1) * ld + len];
                for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
                    let (line, at) = if transposed { (j, i) } else { (i, j) };
                    out[line * ld + at] = values[i * columns + j];
                }
                Values::shifted(out, shift)
            };
        let (at, bt) = (layout.a_transposed(), layout.b_transposed());
        let (lda, ldb) = (if at { m.next_multiple_of(8) } else { LD }, if bt { LD } else { n });
        let (a, b) = (stored(&self.a, (m, k), at, lda), stored(&self.b, (k, n), bt, ldb));
        let gemm = gemm.leading(Matrix::A, lda).leading(Matrix::B, ldb);
        let plan = gemm.plan::<bf16, f32>(device).unwrap();
        let rotated = rotate && device.info().kind == DeviceKind::Hip && layout != Layout::TN;
        assert_eq!(plan.explain().contains("rotated"), rotated, "{}", plan.explain());
        let mut d = Values::shifted(vec![0.0f32; m * n], shift);
        plan.run(&device.stream().unwrap(), Operands::new(&a, &b, &mut d)).unwrap();
        d.iter().map(|value| value.to_bits()).collect()
    }
}

#[derive(Clone, Copy, Debug)]
struct How {
    layout: Layout,
    tile: Option<Tile>,
    splits: u32,
    rotate: bool,
    shift: usize,
}

const PLAIN: How =
    How { layout: Layout::NN, tile: Some(SMALL), splits: 1, rotate: false, shift: 0 };

/// The order of the steps of columns `256·group` …: each part starts somewhere and goes around.
fn order(steps: usize, splits: usize, group: usize) -> Vec<usize> {
    let part = |part: usize| steps * part / splits..steps * (part + 1) / splits;
    let mut order = Vec::new();
    for mut steps in (0..splits).map(|i| part(i).collect::<Vec<_>>()) {
        let places = PLACES.min(steps.len() / APART);
        steps.rotate_left(group % places * APART);
        order.extend(steps);
    }
    order
}

fn columns(d: &[u32], n: usize, group: usize) -> Vec<u32> {
    let inside = |(at, _): &(usize, &u32)| at % n / COLUMNS == group;
    d.iter().enumerate().filter(inside).map(|(_, bits)| *bits).collect()
}

/// The bits are those of operands whose steps lie in the order that the model says, in every layout and tile.
#[test]
fn columns_start_where_the_model_says() {
    for device in common::gpus() {
        let hip = device.info().kind == DeviceKind::Hip;
        let tiles = |layout| {
            let large = large(layout, &device).into_iter().map(Some);
            [None, Some(SMALL)].into_iter().chain(large)
        };
        for (size, splits) in [((36, 704, 288), 1), ((20, 520, 400), 1), ((8, 1032, 1024), 3)] {
            let numbers = Numbers::new(size, Distribution::Normal);
            let (n, steps) = (numbers.n, numbers.k.div_ceil(32));
            let ascending = numbers.product(How { splits: splits as u32, ..PLAIN }, &device);
            let expected: Vec<Vec<u32>> = (0..n.div_ceil(COLUMNS))
                .map(|group| {
                    let order = order(steps, if hip { splits } else { 1 }, group);
                    let ordered = numbers.ordered(&order);
                    let how = How { splits: splits as u32, ..PLAIN };
                    columns(&ordered.product(how, &device), n, group)
                })
                .collect();
            for (layout, tile) in
                Layout::ALL.into_iter().flat_map(|l| tiles(l).map(move |t| (l, t)))
            {
                let how = How { layout, tile, splits: splits as u32, rotate: true, shift: 0 };
                let d = numbers.product(how, &device);
                if !hip || layout == Layout::TN {
                    assert!(d == ascending, "{how:?} on {}", device.info());
                    continue;
                }
                assert!(d != ascending, "{how:?}");
                for (group, expected) in expected.iter().enumerate() {
                    assert!(columns(&d, n, group) == *expected, "{how:?}, columns {group}");
                }
            }
        }
    }
}

/// Nor do the bits of a row depend on how many there are, on the address, or on the run. Integers are what they are,
/// and a NaN or an infinity touches its row alone.
#[test]
fn rows_addresses_and_exact_sums() {
    for device in common::gpus() {
        let numbers = Numbers::new((34, 528, 400), Distribution::Normal);
        let how = How { layout: Layout::NT, rotate: true, ..PLAIN };
        let d = numbers.product(how, &device);
        let large = How { tile: Some(LARGE[0]), ..how };
        assert!(numbers.product(large, &device) == d && numbers.product(large, &device) == d);
        assert!(numbers.product(How { shift: 1, ..how }, &device) == d);
        let row = Numbers { m: 1, a: numbers.a[..400].to_vec(), ..numbers.clone() };
        assert!(row.product(large, &device) == d[..528]);

        let integers = Numbers::new((34, 528, 400), Distribution::Integer(6));
        let exact = integers.product(PLAIN, &device);
        assert!(
            integers.product(large, &device) == exact && integers.product(how, &device) == exact
        );

        for (i, value) in [(0, bf16::NAN), (33, bf16::INFINITY)] {
            for p in [0, 130, 399] {
                let mut planted = integers.clone();
                planted.a[i * 400 + p] = value;
                for (at, bits) in planted.product(large, &device).into_iter().enumerate() {
                    let hit = at / 528 == i;
                    assert_eq!(!f32::from_bits(bits).is_finite(), hit, "{value} at {i}, {p}: {at}");
                    assert!(hit || bits == exact[at]);
                }
            }
        }
    }
}

/// A data gradient with rows of 4 KiB is the same product.
#[test]
fn data_gradients_are_rotated_unless_forbidden() {
    for device in common::gpus() {
        let numbers = Numbers::new((20, 520, LD), Distribution::Uniform);
        let run = |rotate: bool| {
            let plan = DataGrad::new(20, 520, LD).subnormals(policy(&device)).rotate(rotate);
            let plan = plan.plan::<bf16, f32>(&device).unwrap();
            let hip = device.info().kind == DeviceKind::Hip;
            assert_eq!(plan.explain().contains("rotated"), rotate && hip, "{}", plan.explain());
            let (dy, w) = (Values::from(numbers.a.clone()), Values::from(numbers.b.clone()));
            let mut dx = Values::from(vec![0.0f32; 20 * 520]);
            let operands = DataGradOperands::new(&dy, &w, &mut dx);
            plan.run(&device.stream().unwrap(), operands).unwrap();
            dx.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        // (The plan's own number of parts.)
        let how = |rotate| How { tile: None, splits: 0, rotate, ..PLAIN };
        for rotate in [false, true] {
            assert!(run(rotate) == numbers.product(how(rotate), &device), "{}", device.info());
        }
    }
}
