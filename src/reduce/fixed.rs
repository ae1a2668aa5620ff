//! Sums that do not depend on their order: 32-bit fixed point with an exponent for each block.
#![forbid(unsafe_code)]

use super::{launch, reference};
use crate::kernel::params::reduce::{Block, FIXED_BLOCK, Fixed};
use crate::{Element, Error, Read, Result, Storage, Stream, Write};

/// Fixed point for sums over a number of ranks: integers are added, so that the result has the same
/// bits for any algorithm, topology, order or vendor that adds them (NCCL's, RCCL's and MPI's int32
/// sums, a switch's).
///
/// ```text
/// measure:  e[b] = largest exponent field of factor·g over block b of 256 elements
///           (ranks take the maximum of their e: a u8 MAX all-reduce of 1/256 of the elements)
/// encode:   q[i] = round(factor·g[i] · 2^s),  s = 156 − h − e[b],  h = ⌈log2 ranks⌉
///           (ranks add their q: an i32 SUM all-reduce)
/// decode:   g[i] = type(factor · f32(q[i] · 2^−s))
/// ```
///
/// **Numerics.** `factor·g` is one f32 product; scaling is exact in f64, rounding to nearest, ties to
/// even. With M the largest magnitude of the block over all ranks, each rank errs by at most
/// 2^(h−31)·2M, and the sum by `ranks` times that: for 64 ranks 6·10⁻⁸ of the block's sum of maxima, which
/// is below what f32 sums in ring order lose. Elements far below their block's largest lose relative
/// accuracy: choose it for gradients of one scale. A block with a NaN or ±Inf on any rank decodes to
/// NaN everywhere, never to a number.
///
/// ```
/// use halfstep::reduce::FixedPoint;
/// # fn main() -> halfstep::Result<()> {
/// let stream = halfstep::Device::cpu().stream()?;
/// let ranks = [[1.0f32, -2.5, 1e-3], [0.5, 2.25, 2e-3]];
/// let fixed = FixedPoint::new(ranks.len())?;
/// let mut exponents = [0u8; 1];
/// for gradient in &ranks {
///     let mut mine = [0u8; 1];
///     fixed.measure(&stream, gradient, 1.0, &mut mine)?;
///     exponents[0] = exponents[0].max(mine[0]); // MAX over ranks
/// }
/// let mut sums = [0i32; 3];
/// for gradient in &ranks {
///     let mut mine = [0i32; 3];
///     fixed.encode(&stream, gradient, 1.0, &exponents, &mut mine)?;
///     sums.iter_mut().zip(mine).for_each(|(sum, q)| *sum += q); // SUM over ranks, in any order
/// }
/// let mut mean = [0.0f32; 3];
/// fixed.decode(&stream, &sums, &exponents, 0.5, &mut mean)?;
/// assert_eq!(mean[..2], [0.75, -0.125]);
/// assert!((mean[2] - 1.5e-3).abs() < 1e-8);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedPoint {
    headroom: u32,
}

/// Most ranks: 10 bits are left for the elements.
const MOST_RANKS: usize = 1 << 20;

impl FixedPoint {
    /// For sums over this many ranks.
    ///
    /// # Errors
    /// [`Error::Range`] for 0, or more than 2²⁰.
    pub fn new(ranks: usize) -> Result<Self> {
        if !(1..=MOST_RANKS).contains(&ranks) {
            return Err(Error::range("FixedPoint::new", "ranks", "from 1 to 1048576", ranks));
        }
        Ok(Self { headroom: reference::headroom(ranks) })
    }

    /// log2 of the number of ranks, rounded up.
    pub(super) fn headroom(&self) -> u32 {
        self.headroom
    }

    /// How many exponents `len` elements have.
    pub fn exponents(len: usize) -> usize {
        len.div_ceil(FIXED_BLOCK)
    }

    /// Each block's exponent on this rank.
    ///
    /// Shapes: `values` `[len]`, `exponents` `[⌈len/256⌉]`. Enqueues one kernel.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Align`], [`Error::Device`]; [`Error::Overlap`] if what is written shares
    /// memory with what is read; [`Error::Range`] for a factor that is not finite.
    pub fn measure<G: Storage>(
        &self,
        stream: &Stream,
        values: &(impl Read<G> + ?Sized),
        factor: f32,
        exponents: &mut (impl Write<u8> + ?Sized),
    ) -> Result<()> {
        const OP: &str = "FixedPoint::measure";
        let values = read(OP, "values", stream, values, None)?;
        let wanted = Self::exponents(values.len);
        let exponents = write(OP, "exponents", stream, exponents, Some(wanted))?;
        apart(OP, &exponents, &[&values])?;
        let block = self.block::<G>(OP, &values, exponents.address, 0, factor)?;
        launch::fixed(stream, Block::Measure, block)
    }

    /// The integers whose sum over ranks [`decode`](Self::decode) takes; `exponents` are the maxima
    /// over all ranks.
    ///
    /// Shapes: `values` and `to` `[len]`, `exponents` `[⌈len/256⌉]`. Enqueues one kernel.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn encode<G: Storage>(
        &self,
        stream: &Stream,
        values: &(impl Read<G> + ?Sized),
        factor: f32,
        exponents: &(impl Read<u8> + ?Sized),
        to: &mut (impl Write<i32> + ?Sized),
    ) -> Result<()> {
        const OP: &str = "FixedPoint::encode";
        let values = read(OP, "values", stream, values, None)?;
        let wanted = Self::exponents(values.len);
        let exponents = read(OP, "exponents", stream, exponents, Some(wanted))?;
        let to = write(OP, "to", stream, to, Some(values.len))?;
        apart(OP, &to, &[&values, &exponents])?;
        let block = self.block::<G>(OP, &values, exponents.address, to.address, factor)?;
        launch::fixed(stream, Block::Encode, block)
    }

    /// The sum over ranks, times `factor` (1/ranks for an average).
    ///
    /// Shapes: `sums` and `to` `[len]`, `exponents` `[⌈len/256⌉]`. Enqueues one kernel.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn decode<G: Storage>(
        &self,
        stream: &Stream,
        sums: &(impl Read<i32> + ?Sized),
        exponents: &(impl Read<u8> + ?Sized),
        factor: f32,
        to: &mut (impl Write<G> + ?Sized),
    ) -> Result<()> {
        const OP: &str = "FixedPoint::decode";
        let sums = read(OP, "sums", stream, sums, None)?;
        let wanted = Self::exponents(sums.len);
        let exponents = read(OP, "exponents", stream, exponents, Some(wanted))?;
        let to = write(OP, "to", stream, to, Some(sums.len))?;
        apart(OP, &to, &[&sums, &exponents])?;
        let block = self.block::<G>(OP, &to, exponents.address, sums.address, factor)?;
        launch::fixed(stream, Block::Decode, block)
    }

    fn block<G: Storage>(
        &self,
        op: &'static str,
        values: &Operand,
        exponents: u64,
        sums: u64,
        factor: f32,
    ) -> Result<Fixed> {
        if !factor.is_finite() {
            return Err(Error::range(op, "factor", "a finite number", factor));
        }
        Ok(Fixed {
            values: values.address,
            exponents,
            sums,
            len: values.len as u64,
            factor,
            value_type: G::DTYPE as u32,
            headroom: self.headroom,
            padding: 0,
        })
    }
}

/// An operand of a call, checked.
struct Operand {
    name: &'static str,
    address: u64,
    /// Elements.
    len: usize,
    /// One past the last byte.
    end: u64,
}

impl Operand {
    fn new<T: Element>(name: &'static str, address: u64, len: usize) -> Self {
        Self { name, address, len, end: address.saturating_add((len * size_of::<T>()) as u64) }
    }
}

/// What is written shares no memory with what is read.
fn apart(op: &'static str, written: &Operand, read: &[&Operand]) -> Result<()> {
    let meets = |other: &&&Operand| {
        let some = written.len > 0 && other.len > 0;
        some && written.address < other.end && other.address < written.end
    };
    match read.iter().find(meets) {
        None => Ok(()),
        Some(other) => {
            let (first, second) = (written.name.into(), other.name.into());
            Err(Error::Overlap { op, first, second })
        }
    }
}

fn check(op: &'static str, arg: &'static str, wanted: Option<usize>, len: usize) -> Result<()> {
    match wanted {
        Some(wanted) if wanted != len => {
            Err(Error::shape(op, arg, format!("{wanted} elements"), len))
        }
        _ => Ok(()),
    }
}

fn read<T: Element>(
    op: &'static str,
    arg: &'static str,
    stream: &Stream,
    memory: &(impl Read<T> + ?Sized),
    wanted: Option<usize>,
) -> Result<Operand> {
    let lent = memory.lend(stream)?;
    check(op, arg, wanted, lent.len())?;
    let address = lent.address(op, || arg.into(), stream)?;
    Ok(Operand::new::<T>(arg, address.0, lent.len()))
}

fn write<T: Element>(
    op: &'static str,
    arg: &'static str,
    stream: &Stream,
    memory: &mut (impl Write<T> + ?Sized),
    wanted: Option<usize>,
) -> Result<Operand> {
    let lent = memory.lend_mut(stream)?;
    check(op, arg, wanted, lent.len())?;
    let address = lent.address(op, || arg.into(), stream)?;
    Ok(Operand::new::<T>(arg, address.0, lent.len()))
}
