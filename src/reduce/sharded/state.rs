//! Saving and loading: one file, whatever the number of ranks.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::super::config::deadline;
use super::super::exchange::exclusive;
use super::super::outbox::receive;
use super::Sharded;
use super::core::Core;
use super::lists::Ordered;
use super::rows::Rows;
use crate::kernel::params::optim::Progress;
use crate::lend::List;
use crate::optim::LoadOptions;
use crate::optim::state::parts::{BLOCK, Saving};
use crate::{Buffer, Error, Result, Storage, Stream, Write};

const SAVE: &str = "Sharded::save";
const LOAD: &str = "Sharded::load";

/// What a rank says of its part of the work, if not that it failed.
const DONE: u64 = 1;
const FAILED: u64 = 0;

impl<P: Storage, G: Storage> Sharded<P, G> {
    /// Writes the whole state to one file, byte by byte that of
    /// [`Optimizer::save`](crate::optim::Optimizer::save) of an optimizer of everything. To be called on
    /// every rank, between steps; rank 0 writes, and a mebibyte of each rank's is on its way at a time.
    /// Other ranks' paths are not used.
    ///
    /// ```
    /// # use halfstep::optim::{AdamW, Config, Group, Optimizer, Tensor};
    /// # use halfstep::reduce::{self, BucketPlan, Local, Param, Sharded, local};
    /// # use halfstep::{Device, Dtype};
    /// # fn main() -> halfstep::Result<()> {
    /// # let folder = std::env::temp_dir().join(format!("halfstep-sharded-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).unwrap();
    /// # let path = folder.join("state.safetensors");
    /// let plan = BucketPlan::ddp(&[Param::new("w", 50_000)], Dtype::F32, 1 << 20, 1 << 20)?;
    /// let groups = [Group::new(AdamW::default()).tensor(Tensor::new("w", 50_000))];
    /// let run = |comm: Local| -> halfstep::Result<()> {
    ///     let device = Device::cpu_with_threads(1.try_into().unwrap());
    ///     let (stream, comm) = (device.stream()?, Box::new(comm));
    ///     let config = reduce::Config::default();
    ///     let mut sharded = Sharded::<f32, f32>::new(
    ///         &device, plan.clone(), comm, config, &groups, Config::default())?;
    ///     sharded.save(&stream, &path)
    /// };
    /// std::thread::scope(|scope| {
    ///     let ranks = local(3.try_into().unwrap()).into_iter();
    ///     let ranks: Vec<_> = ranks.map(|comm| scope.spawn(move || run(comm))).collect();
    ///     ranks.into_iter().try_for_each(|rank| rank.join().unwrap())
    /// })?;
    /// // What three ranks have saved, one optimizer loads; so does any number of ranks.
    /// let device = Device::cpu();
    /// let mut optimizer = Optimizer::<f32, f32>::new(&device, &groups, Config::default())?;
    /// optimizer.load(&device.stream()?, &path)?;
    /// # std::fs::remove_dir_all(&folder).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] on every rank: then the old file is as it was; [`Error::State`] inside a step;
    /// [`Error::Comm`].
    pub fn save(&mut self, stream: &Stream, path: impl AsRef<Path>) -> Result<()> {
        self.core.save(stream, path.as_ref())
    }

    /// Reads state that [`save`](Self::save) wrote on any number of ranks, or an optimizer of everything:
    /// each rank its parts. The next step has the bits it would have had without the interruption, with as
    /// many gradients. To be called on every rank; each checks the whole file.
    ///
    /// Where masters are f32, [`write_params`](Self::write_params) brings parameters in line.
    ///
    /// # Errors
    /// As [`Optimizer::load_with`](crate::optim::Optimizer::load_with); [`Error::Checkpoint`] on every
    /// rank if one of them cannot load its file, or has another. Nothing has been written then.
    /// [`Error::State`] inside a step; [`Error::Comm`].
    pub fn load(&mut self, stream: &Stream, path: impl AsRef<Path>) -> Result<()> {
        self.core.load(stream, path.as_ref())
    }

    /// parameter ← round(master): [`Optimizer::write_params`](crate::optim::Optimizer::write_params), of
    /// this rank's parts; [`wait`](Self::wait) brings the others'. To be called on every rank.
    ///
    /// # Errors
    /// As there; [`Error::State`] inside a step, or while parameters have not been waited for;
    /// [`Error::Comm`].
    pub fn write_params(
        &mut self,
        stream: &Stream,
        mut params: &mut [&mut dyn Write<P>],
    ) -> Result<()> {
        self.core.write_params(stream, &mut params)
    }
}

impl Core {
    pub(super) fn save(&mut self, stream: &Stream, path: &Path) -> Result<()> {
        self.check_between(SAVE)?;
        let mut outcome = Ok(());
        self.settle(|sharded| {
            let progress = sharded.all_progress(stream)?;
            let parts: Vec<_> = (0..sharded.cut.ranks()).map(|rank| sharded.parts(rank)).collect();
            let mut saving = sharded.optimizer.saving(stream, &progress, &parts)?;
            // What goes wrong with the file is no reason to leave the other ranks alone.
            outcome = match sharded.rank {
                0 => saving.create(path),
                _ => Ok(()),
            };
            sharded.send_state(stream, &mut saving, &mut outcome)?;
            if sharded.rank == 0 && outcome.is_ok() {
                outcome = saving.commit();
            }
            let word = if outcome.is_ok() { DONE } else { FAILED };
            let words = sharded.agree(stream, word)?;
            if words[0] == FAILED && outcome.is_ok() {
                let (path, text) = (path.display().to_string(), "rank 0 failed".into());
                outcome = Err(Error::Io { op: SAVE, path, text });
            }
            Ok(())
        })?;
        outcome
    }

    pub(super) fn load(&mut self, stream: &Stream, path: &Path) -> Result<()> {
        self.check_between(LOAD)?;
        let checked = self.optimizer.check_file(stream, path, LoadOptions::default());
        let word = checked.as_ref().map_or(FAILED, |checked| checked.hash().max(DONE));
        let mut words = Vec::new();
        self.settle(|sharded| {
            words = sharded.agree(stream, word)?;
            Ok(())
        })?;
        let checked = checked?;
        let other = |expected: &str, rank: usize| {
            let found = format!("none on rank {rank}");
            Err(Error::checkpoint(LOAD, "file", expected, found).in_file(path))
        };
        if let Some(rank) = words.iter().position(|&word| word == FAILED) {
            return other("a file that fits on every rank", rank);
        }
        if let Some(rank) = words.iter().position(|&word| word != words[0]) {
            return other("rank 0's file on every rank", rank);
        }
        self.settle(|sharded| sharded.optimizer.load_checked(stream, checked).map(|_| ()))
    }

    pub(super) fn write_params(&mut self, stream: &Stream, params: &mut dyn List) -> Result<()> {
        const OP: &str = "Sharded::write_params";
        self.check_between(OP)?;
        self.check_whole(OP)?;
        self.check_params(OP, stream, params)?;
        self.optimizer.write_params(stream, &mut Ordered { order: &self.order, list: params })?;
        self.settle(|sharded| sharded.send_params(OP, stream, params))
    }

    /// A rank's part of each tensor of the optimizer's list.
    fn parts(&self, rank: usize) -> Vec<Range<usize>> {
        self.order.iter().map(|&param| self.cut.part(param, rank)).collect()
    }

    /// The counters of all tensors: each is on every rank that has a part of it, the first one's counts.
    fn all_progress(&mut self, stream: &Stream) -> Result<Vec<Progress>> {
        let mut all = self.optimizer.progress(stream)?;
        let ranks = self.cut.ranks();
        let mut owned = vec![Vec::new(); ranks];
        for (tensor, &param) in self.order.iter().enumerate() {
            let owner = (0..ranks).find(|&rank| !self.cut.part(param, rank).is_empty());
            owned[owner.unwrap_or(0)].push(tensor..tensor + 1);
        }
        let own: Vec<Progress> =
            owned[self.rank].iter().cloned().flatten().map(|tensor| all[tensor]).collect();
        let device = stream.device();
        let mut rows = Rows::new(device, size_of::<Progress>(), owned)?;
        let (own, whole) = (bytemuck::cast_slice(&own), bytemuck::cast_slice_mut(&mut all));
        let deadline = self.reducer.config.deadline;
        rows.exchange(&mut self.reducer.outbox, stream, deadline, own, whole)?;
        Ok(all)
    }

    /// Every rank's word.
    fn agree(&mut self, stream: &Stream, word: u64) -> Result<Vec<u64>> {
        let ranks = self.cut.ranks();
        let one = |rank: usize| std::iter::once(rank..rank + 1).collect();
        let each = (0..ranks).map(one).collect();
        let mut rows = Rows::new(stream.device(), size_of::<u64>(), each)?;
        let mut words = vec![0u64; ranks];
        let deadline = self.reducer.config.deadline;
        let (own, all) = (word.to_ne_bytes(), bytemuck::cast_slice_mut(&mut words));
        rows.exchange(&mut self.reducer.outbox, stream, deadline, &own, all)?;
        Ok(words)
    }

    /// Block by block, every rank's bytes to the file. `outcome` is that of the file.
    fn send_state(
        &mut self,
        stream: &Stream,
        saving: &mut Saving,
        outcome: &mut Result<()>,
    ) -> Result<()> {
        let time = self.reducer.config.deadline;
        let mut words = vec![0u32; BLOCK / size_of::<u32>()];
        let mut send: Arc<Buffer<u8>> = Arc::new(stream.device().zeros(BLOCK)?);
        for block in 0..saving.blocks() {
            self.optimizer.fill(stream, saving, self.rank, block, &mut words)?;
            let bytes = bytemuck::cast_slice_mut(&mut words);
            exclusive(&mut send, deadline(time))?.write(stream, 0, bytes)?;
            let parts = receive(&self.reducer.outbox.gather(&send, stream.record()?)?)?;
            if self.rank > 0 {
                continue;
            }
            for (rank, part) in parts.iter().enumerate() {
                part.buffer.read(stream, part.start, bytes)?;
                if outcome.is_ok() {
                    *outcome = saving.store(rank, block, bytes);
                }
            }
        }
        Ok(())
    }
}
