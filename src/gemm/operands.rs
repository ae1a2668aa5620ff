//! What a plan is run on, and the checks that only a run can make.
#![forbid(unsafe_code)]

use super::checks::Footprint;
use crate::{Element, Error, Read, Result, Storage, Stream, Write};

/// Where C or the residual comes from.
#[derive(Clone, Copy, Default)]
pub enum Source<'a, O: Element> {
    /// There is none.
    #[default]
    None,
    /// Memory of its own.
    From(&'a dyn Read<O>),
    /// D's old content; D is read before it is written, with D's leading dimension and stride, whatever the plan has of C's
    /// or the residual's.
    InPlace,
}

impl<O: Element> std::fmt::Debug for Source<'_, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::From(_) => "From(..)",
            Self::InPlace => "InPlace",
        })
    }
}

/// The tensors of one [`Plan::run`](super::Plan::run). [`new`](Self::new) fills in the three that
/// are always there; set the fields of those you want besides.
pub struct Operands<'a, T: Storage, O: Storage> {
    /// A: `[m,k]`, or `[k,m]` by layout.
    pub a: &'a dyn Read<T>,
    /// B: `[k,n]`, or `[n,k]` by layout; `2n` in the place of `n` for SwiGLU.
    pub b: &'a dyn Read<T>,
    /// C `[m,n]`; needed where `β ≠ 0`, else not looked at.
    pub c: Source<'a, O>,
    /// The bias `[n]` (`[2n]` for SwiGLU; `[groups,n]` where grouped).
    pub bias: Option<&'a dyn Read<T>>,
    /// Added after the activation, `[m,n]`.
    pub residual: Source<'a, O>,
    /// The pre-activation `z` that [`Gemm::derivative`](super::Gemm::derivative) reads, `[m,n]`. Refused without.
    pub derivative_of: Option<&'a dyn Read<T>>,
    /// Where each group's rows end, `[groups]`; see [`Gemm::groups`](super::Gemm::groups). Refused without groups.
    pub group_ends: Option<&'a dyn Read<u32>>,
    /// Takes `α·A·B + β·C + bias` rounded to the input type, `[m,n]` (`[m,2n]` for SwiGLU): what the
    /// backward products read as `z`.
    pub preactivation: Option<&'a mut dyn Write<T>>,
    /// D `[m,n]`.
    pub d: &'a mut dyn Write<O>,
}

impl<'a, T: Storage, O: Storage> Operands<'a, T, O> {
    /// `D` from `A` and `B` alone.
    pub fn new(a: &'a dyn Read<T>, b: &'a dyn Read<T>, d: &'a mut dyn Write<O>) -> Self {
        Self {
            a,
            b,
            c: Source::None,
            bias: None,
            residual: Source::None,
            derivative_of: None,
            group_ends: None,
            preactivation: None,
            d,
        }
    }
}

impl<T: Storage, O: Storage> std::fmt::Debug for Operands<'_, T, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operands")
            .field("c", &self.c)
            .field("bias", &self.bias.is_some())
            .field("residual", &self.residual)
            .field("preactivation", &self.preactivation.is_some())
            .finish_non_exhaustive()
    }
}

/// One operand's memory.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    arg: &'static str,
    start: u64,
    bytes: u64,
    /// Bytes from row to row, and in a row; equal where there is only one.
    ld: u64,
    row: u64,
    stride: u64,
    written: bool,
    /// May be exactly `d`.
    in_place: bool,
}

/// The addresses of one run, checked one by one.
pub(super) struct Bound<'s> {
    op: &'static str,
    stream: &'s Stream,
    spans: [Span; 16],
    count: usize,
}

impl<'s> Bound<'s> {
    pub fn new(op: &'static str, stream: &'s Stream) -> Self {
        Self { op, stream, spans: [Span::default(); 16], count: 0 }
    }

    /// The address of an operand that is read.
    pub fn read<E: Element>(
        &mut self,
        arg: &'static str,
        operand: &dyn Read<E>,
        shape: &Footprint,
    ) -> Result<u64> {
        let lent = operand.lend(self.stream)?;
        let address = lent.address(self.op, || arg.into(), self.stream)?;
        self.check_len(arg, lent.len(), shape)?;
        Ok(self.push::<E>(arg, address.0, shape, false))
    }

    /// The address of an operand that is written.
    pub fn write<E: Element>(
        &mut self,
        arg: &'static str,
        operand: &mut dyn Write<E>,
        shape: &Footprint,
    ) -> Result<u64> {
        let stream = self.stream;
        let lent = operand.lend_mut(stream)?;
        let address = lent.address(self.op, || arg.into(), stream)?;
        self.check_len(arg, lent.len(), shape)?;
        Ok(self.push::<E>(arg, address.0, shape, true))
    }

    /// The address of the list of group ends, which is there where the plan has groups. Without, a B of several would be read
    /// as its first.
    pub fn group_ends(
        &mut self,
        ends: Option<&dyn Read<u32>>,
        shape: Option<&Footprint>,
    ) -> Result<u64> {
        const ARG: &str = "group_ends";
        match (ends, shape) {
            (Some(ends), Some(shape)) => self.read(ARG, ends, shape),
            (None, Some(shape)) if shape.need > 0 => Err(missing(self.op, ARG, shape)),
            (None, _) => Ok(0),
            (Some(_), None) => {
                Err(Error::shape(self.op, ARG, "none, of a plan without groups", "a list"))
            }
        }
    }

    /// Lets the operand just added be exactly `d`.
    pub fn or_in_place(&mut self) {
        self.spans[self.count - 1].in_place = true;
    }

    fn check_len(&self, arg: &'static str, len: usize, shape: &Footprint) -> Result<()> {
        if len >= shape.need {
            return Ok(());
        }
        let Footprint { rows, cols, ld, count, need, .. } = *shape;
        let expected = format!(
            "at least {need} elements ({count} of [{rows}, {cols}], leading dimension {ld})"
        );
        Err(Error::shape(self.op, arg, expected, format!("{len} elements")))
    }

    fn push<E: Element>(
        &mut self,
        arg: &'static str,
        start: u64,
        shape: &Footprint,
        written: bool,
    ) -> u64 {
        let bytes = |elements: usize| (elements * size_of::<E>()) as u64;
        let span = Span {
            arg,
            start,
            bytes: bytes(shape.need),
            ld: bytes(shape.ld),
            row: bytes(shape.cols),
            stride: if shape.count > 1 { bytes(shape.stride) } else { 0 },
            written,
            in_place: false,
        };
        self.spans[self.count] = span;
        self.count += 1;
        start
    }

    /// Refuses outputs that share memory with anything but an operand in place.
    pub fn overlaps(&self) -> Result<()> {
        let spans = &self.spans[..self.count];
        for (i, out) in spans.iter().enumerate().filter(|(_, span)| span.written) {
            for (j, other) in spans.iter().enumerate() {
                // Two outputs meet once, in the order of their adding.
                if i == j || (other.written && j < i) || !meet(out, other) {
                    continue;
                }
                let same = (out.start, out.ld, out.stride) == (other.start, other.ld, other.stride);
                if !(same && other.in_place && out.arg == "d") {
                    let (first, second) = (out.arg.into(), other.arg.into());
                    return Err(Error::Overlap { op: self.op, first, second });
                }
            }
        }
        Ok(())
    }
}

/// An operand that has to be there.
pub(super) fn missing(op: &'static str, arg: &'static str, shape: &Footprint) -> Error {
    Error::shape(op, arg, format!("[{}, {}]", shape.rows, shape.cols), "none")
}

/// Whether two operands share a byte. Column ranges of one larger matrix do not meet.
fn meet(x: &Span, y: &Span) -> bool {
    if x.bytes == 0 || y.bytes == 0 {
        return false;
    }
    let (low, high) = if x.start <= y.start { (x, y) } else { (y, x) };
    let apart = high.start - low.start;
    if apart >= low.bytes {
        return false;
    }
    let one_matrix = low.ld == high.ld && low.stride == 0 && high.stride == 0 && low.ld > 0;
    let column = if one_matrix { apart % low.ld } else { 0 };
    !(one_matrix && column >= low.row && column + high.row <= low.ld)
}
