//! What is known of a gradient before a step: its sum of squares and whether it is finite.
//!
//! Whoever touches a gradient last can say it for free: the weight-gradient product, the unpacking
//! of a reduced bucket, or [`Optimizer::stats`](crate::optim::Optimizer::stats). The optimizer's
//! control stage only reads it.

use crate::environment::Environment;
use crate::kernel::params::{FOLD_LANES, PARTIAL_CHUNK, Partial};
use crate::{Buffer, Device, Error, Result, Stream, Write};

/// Σg² (f64) and non-finite counts of a list of tensors, chunk by chunk, on the device.
///
/// ```
/// # fn main() -> halfstep::Result<()> {
/// use halfstep::{Device, GradStats};
/// let device = Device::cpu();
/// let stats = GradStats::new(&device, &[3, 40_000])?;
/// let summary = stats.read(&device.stream()?)?;
/// assert_eq!((summary.sum_squares, summary.first_non_finite), (0.0, None));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GradStats {
    pub(crate) partials: Buffer<Partial>,
    /// How many elements of each partial's chunk a launch has stored so far; 0 between launches.
    counts: Buffer<u32>,
    /// Of each tensor, the index of its first partial, and its length.
    tensors: Vec<(usize, usize)>,
}

/// A [`GradStats`] summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Σg² over all finite elements.
    pub sum_squares: f64,
    /// How many elements are NaN or ±Inf.
    pub non_finite: u64,
    /// The first tensor that has one.
    pub first_non_finite: Option<usize>,
}

/// A tensor's first partial, and its count.
pub(crate) struct Addresses {
    pub partials: u64,
    pub counts: u64,
}

impl GradStats {
    /// Room for tensors of these lengths. Allocates; nothing later does.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(device: &Device, lengths: &[usize]) -> Result<Self> {
        let mut tensors = Vec::with_capacity(lengths.len());
        let mut end = 0usize;
        for &len in lengths {
            tensors.push((end, len));
            // Too many to count are too many to allocate.
            end = end.saturating_add(len.div_ceil(PARTIAL_CHUNK));
        }
        // The device says first whether there is room; then the host's copy fits too.
        let mut on_device = device.zeros(end)?;
        let counts = device.zeros(end)?;
        let mut partials = Vec::new();
        partials.try_reserve_exact(end).map_err(|_| Error::OutOfMemory {
            bytes: end.saturating_mul(size_of::<Partial>()),
            device: "the host".into(),
        })?;
        for (tensor, len) in lengths.iter().enumerate() {
            let empty = Partial { sum_squares: 0.0, non_finite: 0, tensor: tensor as u32 };
            partials.extend(std::iter::repeat_n(empty, len.div_ceil(PARTIAL_CHUNK)));
        }
        let stream = device.stream()?;
        on_device.write(&stream, 0, &partials)?;
        stream.sync()?;
        Ok(Self { partials: on_device, counts, tensors })
    }

    /// Sets everything to 0, in the stream's order: for a step in which nothing writes the statistics of some tensor, since
    /// it has no gradient. Those of an earlier step would count again, and a NaN among them skip every step.
    ///
    /// ```
    /// # fn main() -> halfstep::Result<()> {
    /// use halfstep::gemm::{Stats, WeightGrad, WeightGradOperands};
    /// use halfstep::{Device, GradStats};
    /// let device = Device::cpu();
    /// let stream = device.stream()?;
    /// let mut stats = GradStats::new(&device, &[1])?;
    /// let (dy, x, mut dw) = (vec![2.0f32], vec![3.0f32], vec![0.0f32]);
    /// let mut operands = WeightGradOperands::new(&dy, &x, &mut dw);
    /// operands.stats = Some(Stats { stats: &mut stats, weight: 0, bias: None });
    /// WeightGrad::new(1, 1, 1).plan::<f32, f32>(&device)?.run(&stream, operands)?;
    /// assert_eq!(stats.read(&stream)?.sum_squares, 36.0);
    /// stats.clear(&stream)?;
    /// assert_eq!(stats.read(&stream)?.sum_squares, 0.0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the stream is another device's.
    pub fn clear(&mut self, stream: &Stream) -> Result<()> {
        // Whoever writes a partial writes its tensor, too.
        self.partials.clear(stream)
    }

    /// The length that a tensor was declared with; `None` for an index that is none.
    pub(crate) fn len_of(&self, tensor: usize) -> Option<usize> {
        Some(self.tensors.get(tensor)?.1)
    }

    /// Elements of all tensors.
    pub(crate) fn elements(&self) -> usize {
        self.tensors.iter().map(|&(_, len)| len).sum()
    }

    /// Where a kernel on `stream` writes a tensor's partials.
    pub(crate) fn lend(
        &mut self,
        op: &'static str,
        arg: &'static str,
        stream: &Stream,
        tensor: usize,
    ) -> Result<Addresses> {
        let (first, _) = self.tensors[tensor];
        let partials = self.partials.lend_mut(stream)?.address(op, || arg.into(), stream)?;
        let counts = self.counts.lend_mut(stream)?.address(op, || arg.into(), stream)?;
        Ok(Addresses {
            partials: partials.offset(first * size_of::<Partial>()).0,
            counts: counts.offset(first * size_of::<u32>()).0,
        })
    }

    /// Sums up on the host; waits for the stream.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the stream is another device's.
    pub fn read(&self, stream: &Stream) -> Result<Summary> {
        let partials = self.partials.to_vec(stream)?;
        let _environment = Environment::standard();
        Ok(summarize(partials.iter().copied()))
    }
}

/// The sum over all partials, folded as [`Partial`] folds elements.
pub(crate) fn summarize(partials: impl Iterator<Item = Partial> + Clone) -> Summary {
    Summary {
        sum_squares: fold(partials.clone().map(|p| p.sum_squares)),
        non_finite: partials.clone().map(|p| u64::from(p.non_finite)).sum(),
        first_non_finite: partials.filter(|p| p.non_finite > 0).map(|p| p.tensor as usize).min(),
    }
}

/// The definition of every sum of squares: lane `l` adds values `l, l + 2048, …`; lanes fold by
/// halves.
pub(crate) fn fold(values: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0f64; FOLD_LANES];
    for (i, value) in values.enumerate() {
        lanes[i % FOLD_LANES] += value;
    }
    let mut half = FOLD_LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The definition of a [`Partial`], from the f32 values of one chunk.
pub(crate) fn partial(tensor: u32, chunk: impl Iterator<Item = f32> + Clone) -> Partial {
    let finite = |value: f32| value.to_bits() & 0x7f80_0000 != 0x7f80_0000;
    let squares = chunk.clone().map(|v| if finite(v) { f64::from(v) * f64::from(v) } else { 0.0 });
    Partial {
        sum_squares: fold(squares),
        non_finite: chunk.filter(|&v| !finite(v)).count() as u32,
        tensor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_counts_what_it_leaves_out() {
        let chunk = [1.0f32, f32::NAN, 2.0, f32::NEG_INFINITY];
        let partial = partial(7, chunk.into_iter());
        assert_eq!(partial, Partial { sum_squares: 5.0, non_finite: 2, tensor: 7 });
    }

    #[test]
    fn huge_and_tiny_gradients_keep_a_finite_norm() {
        let huge = partial(0, std::iter::repeat_n(1e20f32, 1000));
        assert!((huge.sum_squares / 1e43 - 1.0).abs() < 1e-6);
        let tiny = partial(0, std::iter::repeat_n(1e-23f32, 1000));
        assert!((tiny.sum_squares / 1e-43 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_first_tensor_is_named_and_not_the_first_chunk() {
        let at = |tensor, non_finite| Partial { sum_squares: 1.0, non_finite, tensor };
        let summary = summarize([at(0, 0), at(5, 1), at(3, 2)].into_iter());
        assert_eq!((summary.non_finite, summary.first_non_finite), (3, Some(3)));
    }
}
