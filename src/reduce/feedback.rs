//! What rounding to 8 bits loses, carried from step to step.
//!
//! A step leaves what it lost where it found the values that it rounded. If the step counts, those buffers
//! change places with the ones that hold what was lost before; else what was lost before stays.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use super::core::Core;
use super::exchange::{Geometry, exclusive};
use super::reducer::Reducer;
use super::report::Reduced;
use super::wire::{Int8Geometry, Wire};
use super::{config, launch};
use crate::{Buffer, Device, Dtype, Error, Result, Storage, Stream};

/// Of one bucket. All but `codes` in f32.
pub(crate) struct Feedback {
    /// What is sent: every rank's part.
    pub codes: Arc<Buffer<u8>>,
    /// What this rank has lost of its gradients before: as long as the bucket that they are packed in.
    pub carried: Arc<Buffer<u8>>,
    /// Sums of this rank's part; once they are rounded, what that lost.
    pub sums: Buffer<u8>,
    /// What this rank has lost of its part's sums before.
    pub carried_sums: Buffer<u8>,
}

impl Feedback {
    /// Nothing was lost yet.
    pub fn new(device: &Device, packed: Geometry, params: usize) -> Result<Self> {
        let int8 = Int8Geometry::new(packed.part, params);
        let sums = packed.part * size_of::<f32>();
        Ok(Self {
            codes: Arc::new(device.zeros(packed.shard / packed.part * int8.stride)?),
            carried: Arc::new(device.zeros(packed.block_bytes)?),
            sums: device.zeros(sums)?,
            carried_sums: device.zeros(sums)?,
        })
    }
}

/// Puts elements back: those of `range`, where `to` and `from` start at element `start`, as far as both have them.
fn restore(
    stream: &Stream,
    to: &mut Buffer<u8>,
    from: &Buffer<u8>,
    (range, start): (&Range<usize>, usize),
    len: usize,
) -> Result<()> {
    let place = |i: usize| i.clamp(start, start + len) - start;
    let bytes = place(range.start) * size_of::<f32>()..place(range.end) * size_of::<f32>();
    if bytes.is_empty() {
        return Ok(());
    }
    to.view_mut(bytes.clone())?.copy_from_view(stream, &from.view(bytes)?)
}

impl<G: Storage> Reducer<G> {
    /// Multiplies what [`Sum::Int8`](super::Sum::Int8) has lost and carries over to the next step, on this rank: by
    /// `new / old` whenever the loss scale changes, since gradients and what was lost of them are added.
    /// 0 forgets it. Without error feedback there is nothing to do. One launch for each bucket.
    ///
    /// ```
    /// use halfstep::{Device, Dtype, reduce::*};
    /// # fn main() -> halfstep::Result<()> {
    /// let params = [Param::new("w", 3)];
    /// let plan = BucketPlan::ddp(&params, Dtype::F32, 1 << 20, 25 << 20)?;
    /// let run = |comm: Local| -> halfstep::Result<()> {
    ///     let device = Device::cpu();
    ///     let stream = device.stream()?;
    ///     let config = Config { sum: Sum::Int8, ..Config::default() };
    ///     let mut reducer = Reducer::new(&device, plan.clone(), Box::new(comm), config)?;
    ///     let mut sum = [0.0f32; 3];
    ///     let mut scale = 1024.0;
    ///     for step in 0..4 {
    ///         if step == 2 {
    ///             scale /= 2.0; // what the loss is multiplied by
    ///             reducer.scale_feedback(&stream, 0.5)?;
    ///         }
    ///         // 1/1000 of the largest is less than half of what 8 bits resolve.
    ///         let mut w = [1.0f32, 1e-3, 0.0].map(|w| w * scale);
    ///         reducer.ready(&stream, 0, &w)?;
    ///         reducer.finish(&stream, &mut [&mut w], Unscale::Factor(1.0 / scale))?;
    ///         sum.iter_mut().zip(w).for_each(|(sum, w)| *sum += w);
    ///     }
    ///     assert!((sum[1] - 4e-3).abs() < 2.0 / 254.0 && sum[2] == 0.0);
    ///     Ok(())
    /// };
    /// std::thread::scope(|scope| {
    ///     let ranks = local(2.try_into().unwrap()).into_iter();
    ///     let ranks: Vec<_> = ranks.map(|comm| scope.spawn(move || run(comm))).collect();
    ///     ranks.into_iter().try_for_each(|rank| rank.join().unwrap())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Range`] unless the factor is finite and not negative; [`Error::State`] inside a step;
    /// [`Error::Comm`] after a fault.
    pub fn scale_feedback(&mut self, stream: &Stream, factor: f32) -> Result<()> {
        self.core.scale_feedback(stream, factor)
    }
}

impl Core {
    pub(super) fn scale_feedback(&mut self, stream: &Stream, factor: f32) -> Result<()> {
        const OP: &str = "Reducer::scale_feedback";
        self.check_fault()?;
        if !(factor.is_finite() && factor >= 0.0) {
            return Err(Error::range(OP, "factor", "a finite number, 0 or more", factor));
        }
        if self.started.is_some() {
            return Err(Error::state(OP, "no gradient marked ready yet", "a step in progress"));
        }
        let device = stream.device();
        let one = device.upload(&[1.0f32])?;
        let deadline = config::deadline(self.config.deadline);
        for (bucket, geometry) in self.buckets.iter_mut().zip(&self.geometry) {
            let Some(blocks) = &mut bucket.blocks else { continue };
            let Some(feedback) = &mut blocks.feedback else { continue };
            let types = (Wire::Elements(Dtype::F32), Dtype::F32);
            let mut scale = |from: &Buffer<u8>, to: &mut Buffer<u8>, len| {
                self.shard_table.write(stream, 0, &[from.address()])?;
                let from = (&self.shard_table, 1);
                launch::sum(stream, from, (&one, 0), to, len, factor, types)?;
                stream.sync() // the table is free again
            };
            let to = exclusive(&mut blocks.send, deadline)?;
            scale(&feedback.carried, to, geometry.shard)?;
            scale(&feedback.carried_sums, &mut feedback.sums, geometry.part)?;
            std::mem::swap(&mut feedback.carried, &mut blocks.send);
            std::mem::swap(&mut feedback.carried_sums, &mut feedback.sums);
        }
        Ok(())
    }

    /// What a step has lost is carried over to the next, if the step counts: if all that ranks packed is
    /// finite, and some rank weighs something (else averages are 0, whatever was sent). Of parameters without a gradient on any rank, whose results go nowhere, what was
    /// lost before stays.
    pub(super) fn keep_feedback(&mut self, stream: &Stream, reduced: &Reduced) -> Result<()> {
        if !reduced.non_finite.is_empty() || self.config.average && reduced.weight == 0.0 {
            return Ok(());
        }
        let deadline = config::deadline(self.config.deadline);
        let plan = self.plan.clone();
        for (index, bucket) in plan.buckets().iter().enumerate() {
            let geometry = self.geometry[index];
            let Some(blocks) = &mut self.buckets[index].blocks else { continue };
            let Some(feedback) = &mut blocks.feedback else { continue };
            let lost = exclusive(&mut blocks.send, deadline)?;
            let own = self.rank * geometry.part;
            for (&param, &offset) in bucket.params.iter().zip(&bucket.offsets) {
                if reduced.used[param] {
                    continue;
                }
                let range = &(offset..offset + plan.params()[param].len);
                restore(stream, lost, &feedback.carried, (range, 0), geometry.shard)?;
                let (sums, carried) = (&mut feedback.sums, &feedback.carried_sums);
                restore(stream, sums, carried, (range, own), geometry.part)?;
            }
            std::mem::swap(&mut feedback.carried, &mut blocks.send);
            std::mem::swap(&mut feedback.carried_sums, &mut feedback.sums);
        }
        stream.sync() // the next step may come on other streams
    }
}
