//! The products as they are defined, one element at a time, in scalar Rust. The CPU's fast path gives
//! these bits; a device keeps the bound.
#![forbid(unsafe_code)]

use super::Activation;
use crate::kernel::params::gemm as params;
use crate::kernel::params::gemm::Product;
use crate::{Dtype, Storage, bf16};

/// C or the residual.
#[derive(Clone, Copy)]
pub(crate) enum Term<'a, O> {
    Absent,
    Own(&'a [O]),
    /// D's old content.
    InPlace,
}

/// The memory of one product (one member of a batch, one group).
pub(crate) struct Slices<'a, T, O> {
    pub a: &'a [T],
    pub b: &'a [T],
    pub c: Term<'a, O>,
    pub bias: Option<&'a [T]>,
    pub residual: Term<'a, O>,
    pub z: Option<&'a [T]>,
    pub d: &'a mut [O],
    pub preactivation: Option<&'a mut [T]>,
    pub fused_a: Option<&'a mut [T]>,
    pub a_sums: Option<&'a mut [O]>,
}

/// Rows of A whose sum starts again from 0; see [`a_sum`].
pub(crate) const SUM_BLOCK: usize = 256;

/// `Σ a·b`: one chain of fused multiply-adds, from 0, in the order given.
pub(crate) fn dot(terms: impl Iterator<Item = (f32, f32)>) -> f32 {
    terms.fold(0.0, |sum, (a, b)| a.mul_add(b, sum))
}

/// The sum of a row of A: blocks of 256, each from 0 in order, then the blocks in order, from 0.
pub(crate) fn a_sum(values: impl Iterator<Item = f32>) -> f32 {
    let (mut total, mut block, mut count) = (0.0f32, 0.0f32, 0);
    for value in values {
        block += value;
        count += 1;
        if count == SUM_BLOCK {
            (total, block, count) = (total + block, 0.0, 0);
        }
    }
    if count > 0 { total + block } else { total }
}

/// A subnormal of the type becomes a zero of its sign, where the policy says so.
pub(crate) fn flushed<T: Storage>(value: T, flush: bool) -> T {
    let smallest = smallest_normal(T::DTYPE);
    if flush && value.widen().abs() < smallest {
        T::narrow(0.0f32.copysign(value.widen()))
    } else {
        value
    }
}

/// A factor as it is multiplied: f16 rounded to bf16, where the policy says so.
pub(crate) fn factor<T: Storage>(value: T, through_bf16: bool) -> f32 {
    if through_bf16 { bf16::narrow(value.widen()).widen() } else { value.widen() }
}

/// The smallest normal number of a 16-bit type; 0 for f32, which is never flushed.
pub(crate) const fn smallest_normal(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::Bf16 => f32::MIN_POSITIVE,
        Dtype::F16 => 6.103_515_6e-5,
        Dtype::F32 => 0.0,
    }
}

/// One product; `block` has its own sizes, and a batch of 1.
pub(crate) fn product<T: Storage, O: Storage>(block: &Product, s: Slices<'_, T, O>) {
    let Slices { a, b, c, bias, residual, z, d, mut preactivation, mut fused_a, a_sums } = s;
    let (m, n, k) = (block.m as usize, block.n as usize, block.k as usize);
    let has = |flag: u32| block.flags & flag != 0;
    let (flush, gated) = (has(params::FLAG_FLUSH), has(params::FLAG_GATED));
    let through = has(params::FLAG_THROUGH_BF16);
    let activation = Activation::from_number(block.activation);
    let at = |transposed: bool, i: usize, j: usize, ld: u64| {
        if transposed { j * ld as usize + i } else { i * ld as usize + j }
    };
    let a_transposed = has(params::FLAG_A_TRANSPOSED);

    // A as the product reads it.
    let mut fused = vec![T::zeroed(); m * k]; // [m,k]
    for i in 0..m {
        for p in 0..k {
            let value = a[at(a_transposed, i, p, block.lda)];
            let value = match z {
                Some(z) if block.role == params::ROLE_FUSED_A => {
                    let z = z[at(a_transposed, i, p, block.ldz)].widen();
                    T::narrow(value.widen() * activation.derivative(z))
                }
                _ => value,
            };
            fused[i * k + p] = flushed(value, flush);
            if let Some(out) = &mut fused_a {
                out[at(a_transposed, i, p, block.ldf)] = fused[i * k + p];
            }
        }
    }
    if let Some(sums) = a_sums {
        for (i, sum) in sums.iter_mut().enumerate() {
            let row = a_sum(fused[i * k..(i + 1) * k].iter().map(|value| value.widen()));
            let row = if has(params::FLAG_ADD_A_SUMS) { sum.widen() + row } else { row };
            *sum = flushed(O::narrow(row), flush);
        }
    }

    let sum = |i: usize, j: usize| {
        // k is 0 where α is 0
        dot((0..k).map(|p| {
            let b = b[at(has(params::FLAG_B_TRANSPOSED), p, j, block.ldb)];
            (factor(fused[i * k + p], through), factor(flushed(b, flush), through))
        }))
    };
    let d_transposed = has(params::FLAG_D_TRANSPOSED);
    for i in 0..m {
        for j in 0..n {
            let index = at(d_transposed, i, j, block.ldd);
            let term = |term: Term<'_, O>, ld: u64| match term {
                Term::Absent => None,
                Term::Own(values) => Some(values[at(d_transposed, i, j, ld)].widen()),
                Term::InPlace => Some(d[index].widen()),
            };
            let (c, residual) = (term(c, block.ldc), term(residual, block.ldr));
            let before = |j: usize| {
                let mut value = block.alpha * sum(i, j);
                if let Some(c) = c {
                    value = block.beta.mul_add(c, value);
                }
                if let Some(bias) = bias {
                    value += bias[j].widen();
                }
                value
            };
            let p = before(j);
            let mut value = match block.role {
                params::ROLE_FORWARD => activation.apply(p),
                params::ROLE_DERIVATIVE => {
                    let z = z.map_or(0.0, |z| z[i * block.ldz as usize + j].widen());
                    p * activation.derivative(z)
                }
                _ => p,
            };
            let mut store = |j: usize, p: f32| {
                if let Some(out) = &mut preactivation {
                    out[i * block.ldp as usize + j] = flushed(T::narrow(p), flush);
                }
            };
            store(j, p);
            if gated {
                let up = before(n + j);
                store(n + j, up);
                value *= up;
            }
            if let Some(residual) = residual {
                value += residual;
            }
            d[index] = flushed(O::narrow(value), flush);
        }
    }
}

/// `d_gate` and `d_up` of one element.
pub(crate) fn swiglu_grad(activation: Activation, dy: f32, gate: f32, up: f32) -> (f32, f32) {
    ((dy * up) * activation.derivative(gate), dy * activation.apply(gate))
}
