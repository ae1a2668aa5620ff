//! Gradients that lie in the reducer's memory.

#![forbid(unsafe_code)]

use super::config::{Unscale, deadline};
use super::core::{Core, Gradients};
use super::exchange::{Done, Exchanged, Geometry, exclusive};
use super::launch::{self, Buckets, Span};
use super::reducer::Reducer;
use super::report::Reduced;
use super::way::Way;
use super::wire::Int8Geometry;
use crate::backend::Address;
use crate::kernel::params::Partial;
use crate::{Buffer, Dtype, Error, Read, Result, Storage, Stream, View, ViewMut};

const VIEW: &str = "Reducer::gradient";
const VIEW_MUT: &str = "Reducer::gradient_mut";
const READY: &str = "Reducer::ready_view";
const ACCUMULATE: &str = "Reducer::accumulate_view";
const FINISH: &str = "Reducer::finish_views";

/// With [`Config::views`](super::Config::views): gradients are views of the reducer's memory.
///
/// ```
/// use halfstep::{Device, Dtype, reduce::*};
/// # fn main() -> halfstep::Result<()> {
/// let params = [Param::new("w", 4), Param::new("b", 2)];
/// let plan = BucketPlan::ddp(&params, Dtype::F32, 1 << 20, 25 << 20)?;
/// let run = |comm: Local| -> halfstep::Result<()> {
///     let rank = comm.rank() as f32;
///     let device = Device::cpu_with_threads(1.try_into().unwrap());
///     let stream = device.stream()?;
///     let config = Config { views: true, ..Config::default() };
///     let mut reducer = Reducer::<f32>::new(&device, plan.clone(), Box::new(comm), config)?;
///     for param in [1, 0] {
///         // A backward pass passes the view on as the output of a product.
///         reducer.gradient_mut(param)?.host().expect("a CPU's memory").fill(rank);
///         reducer.ready_view(&stream, param)?;
///     }
///     reducer.finish_views(&stream, Unscale::Keep)?;
///     assert_eq!(reducer.gradient(0)?.host(), Some(&[0.5; 4][..]));
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
impl<G: Storage> Reducer<G> {
    /// The gradient of parameter `param`: after [`finish_views`](Self::finish_views) the reduced one,
    /// until [`gradient_mut`](Self::gradient_mut) is asked for; zeros if no rank had one.
    ///
    /// # Errors
    /// [`Error::Range`] for an index past the declared list; [`Error::State`] without
    /// [`Config::views`](super::Config::views), or while the bucket is being exchanged.
    pub fn gradient(&self, param: usize) -> Result<View<'_, G>> {
        let (buffer, start, len) = self.core.view(param)?;
        buffer.view_as(start, len)
    }

    /// The place for the gradient of parameter `param`, to be written before it is marked.
    ///
    /// # Errors
    /// As [`gradient`](Self::gradient); [`Error::State`] if it has been marked in this step;
    /// [`Error::Comm`] if another rank still reads the last step's bucket at the deadline.
    pub fn gradient_mut(&mut self, param: usize) -> Result<ViewMut<'_, G>> {
        let (buffer, start, len) = self.core.view_mut(param)?;
        buffer.view_as_mut(start, len)
    }

    /// [`ready`](Self::ready) for a gradient that lies in its view, where work enqueued on `stream` has
    /// put it.
    ///
    /// # Errors
    /// As [`ready`](Self::ready); [`Error::State`] without [`Config::views`](super::Config::views).
    pub fn ready_view(&mut self, stream: &Stream, param: usize) -> Result<()> {
        self.core.ready_view(stream, param)
    }

    /// [`accumulate`](Self::accumulate) for a gradient that lies in its view.
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate); [`Error::State`] without
    /// [`Config::views`](super::Config::views).
    pub fn accumulate_view(&mut self, stream: &Stream, param: usize) -> Result<()> {
        self.core.accumulate_view(stream, param)
    }

    /// [`finish`](Self::finish) for gradients that are views.
    ///
    /// # Errors
    /// As [`finish`](Self::finish); [`Error::State`] without [`Config::views`](super::Config::views).
    pub fn finish_views(&mut self, stream: &Stream, unscale: Unscale) -> Result<Reduced> {
        self.core.finish_views(stream, unscale)
    }
}

impl Core {
    /// Where a view is: the buffer, its first byte there, and its elements.
    fn view(&self, param: usize) -> Result<(&Buffer<u8>, usize, usize)> {
        let (bucket, start) = self.check_view(VIEW, param)?;
        let declared = &self.plan.params()[param];
        match (&self.gradients, &self.buckets[bucket].blocks) {
            (Gradients::Ours(own), _) => Ok((&own[bucket], start, declared.len)),
            (_, Some(blocks)) => Ok((&*blocks.send, start, declared.len)),
            (_, None) => Err(on_its_way(VIEW, &declared.name)),
        }
    }

    /// The same, to be written.
    fn view_mut(&mut self, param: usize) -> Result<(&mut Buffer<u8>, usize, usize)> {
        let (bucket, start) = self.check_view(VIEW_MUT, param)?;
        self.check_unmarked(VIEW_MUT, param)?;
        let declared = &self.plan.params()[param];
        let buffer = match (&mut self.gradients, &mut self.buckets[bucket].blocks) {
            (Gradients::Ours(own), _) => &mut own[bucket],
            (_, Some(blocks)) => exclusive(&mut blocks.send, deadline(self.config.deadline))?,
            (_, None) => return Err(on_its_way(VIEW_MUT, &declared.name)),
        };
        Ok((buffer, start, declared.len))
    }

    pub(super) fn ready_view(&mut self, stream: &Stream, param: usize) -> Result<()> {
        self.check_view(READY, param)?;
        self.check_unmarked(READY, param)?;
        let span = self.view_span(READY, stream, param)?;
        self.mark(stream, param, span)
    }

    pub(super) fn accumulate_view(&mut self, stream: &Stream, param: usize) -> Result<()> {
        self.check_view(ACCUMULATE, param)?;
        self.check_unmarked(ACCUMULATE, param)?;
        let span = self.view_span(ACCUMULATE, stream, param)?;
        self.add(ACCUMULATE, stream, param, span)
    }

    pub(super) fn finish_views(&mut self, stream: &Stream, unscale: Unscale) -> Result<Reduced> {
        self.check_fault()?;
        self.check_gradients_lie(FINISH, true)?;
        self.check_stream(FINISH, stream)?;
        self.check_unscale(FINISH, unscale)?;
        let spans = match self.gradients {
            Gradients::Ours(_) => (0..self.marked.len())
                .map(|param| self.view_span(FINISH, stream, param))
                .collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        self.end(stream, &spans, unscale)
    }

    /// Its address.
    fn view_span(&self, op: &'static str, stream: &Stream, param: usize) -> Result<Span> {
        let (buffer, start, len) = self.view(param)?;
        let view = buffer.view_as::<u8>(start, len * self.dtype.bytes())?;
        let arg = || format!("gradient of {}", self.plan.params()[param].name).into();
        Ok(Span { address: view.lend(stream)?.address(op, arg, stream)?, len })
    }

    /// The bucket of a parameter, and where its view starts there, in bytes.
    fn check_view(&self, op: &'static str, param: usize) -> Result<(usize, usize)> {
        self.check_fault()?;
        self.check_gradients_lie(op, true)?;
        self.check_param(op, param)?;
        let (bucket, position) = self.plan.place(param);
        let offset = self.plan.buckets()[bucket].offsets[position];
        Ok((bucket, offset * self.dtype.bytes()))
    }

    /// No gradient on this rank: zeros in its view, which other ranks may read.
    pub(super) fn zero_view(&mut self, stream: &Stream, param: usize) -> Result<()> {
        let (index, position) = self.plan.place(param);
        let bucket = &self.plan.buckets()[index];
        let (len, offset) = (self.plan.params()[param].len, bucket.offsets[position]);
        let filling = &mut self.buckets[index];
        let memory = match (&mut self.gradients, &mut filling.blocks) {
            (Gradients::Callers, _) => return Ok(()),
            (Gradients::Ours(own), _) => &mut own[index],
            (_, Some(blocks)) => exclusive(&mut blocks.send, deadline(self.config.deadline))?,
            (_, None) => return Err(on_its_way(FINISH, &self.plan.params()[param].name)),
        };
        let shard = bucket.len.max(1);
        let whole = Geometry { blocks: 1, shard, shard_bytes: 0, block_bytes: 0, part: shard };
        launch::pack(
            stream,
            self.dtype,
            Span { address: Address::NULL, len },
            None,
            memory,
            &mut filling.non_finite,
            whole,
            (0, offset, self.dtype),
            1.0,
        )
    }

    /// A bucket that has come back with its averages in place: takes over its statistics.
    pub(super) fn take_bucket(
        &mut self,
        stream: &Stream,
        done: Done,
        factor: f32,
    ) -> Result<Exchanged> {
        let Done { bucket: index, mut blocks, filled, outcome } = done;
        self.buckets[index].filled = filled;
        let exchanged = outcome?;
        let Gradients::InPlace { layouts, one, skipped } = &mut self.gradients else {
            unreachable!("only buckets that were lent come back in place")
        };
        let layout = &layouts[index];
        let used = |at: usize| exchanged.trailers.iter().any(|trailer| trailer.used[at]);
        if factor != 1.0 {
            // In f32, as a mean over this rank alone; then the one rounding.
            let bucket = exclusive(&mut blocks.send, deadline(self.config.deadline))?;
            self.shard_table.write(stream, 0, &[bucket.address()])?;
            for (position, &param) in self.plan.buckets()[index].params.iter().enumerate() {
                skipped.write(stream, param, &[(!used(position)).into()])?;
            }
            let alone = Buckets {
                addresses: &self.shard_table,
                written: (&self.shard_table, 1),
                weights: one,
                ranks: 1,
                rank: 0,
                shared: None,
            };
            let table = Some(&*skipped);
            let stats = self.config.stats;
            let pieces = (&**layout, 0..layout.pieces.len());
            launch::in_place(stream, &alone, pieces, table, Dtype::F32, (1.0, factor), stats)?;
        }
        let bucket = &self.plan.buckets()[index];
        for (position, &param) in
            bucket.params.iter().enumerate().filter(|(at, _)| self.config.stats && used(*at))
        {
            let pieces = layout.of(position);
            let start = layout.partials + pieces.start * size_of::<Partial>();
            let from = blocks.send.view_as::<Partial>(start, pieces.len())?;
            let first = self.targets.first_partial(param);
            let mut to = self.stats.partials.view_mut(first..first + pieces.len())?;
            to.copy_from_view(stream, &from)?;
        }
        self.buckets[index].blocks = Some(blocks);
        Ok(exchanged)
    }

    /// Bytes of a bucket, with what travels beside its elements.
    pub(super) fn bucket_bytes(&self, index: usize) -> usize {
        match &self.gradients {
            Gradients::InPlace { layouts, .. } => layouts[index].bytes,
            _ if self.way == Way::Quantized => {
                let packed = self.geometry[index];
                let params = self.plan.buckets()[index].params.len();
                packed.shard / packed.part * Int8Geometry::new(packed.part, params).stride
            }
            _ => self.geometry[index].block_bytes * self.geometry[index].blocks,
        }
    }
}

fn on_its_way(op: &'static str, name: &str) -> Error {
    Error::state(op, "a bucket that is here", format!("that the bucket of {name} is exchanged"))
}
