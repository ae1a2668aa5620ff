//! Parameters on their way from the rank that has stepped them to all others, bucket by bucket.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::super::comm::Part;
use super::super::config::deadline;
use super::super::exchange::exclusive;
use super::super::outbox::receive;
use super::Sharded;
use super::core::Core;
use crate::lend::List;
use crate::{Buffer, Error, Event, Result, Storage, Stream, Write};

/// The parameters of one bucket.
pub(super) struct Bringing {
    /// This rank's parts, one after the other.
    pub send: Arc<Buffer<u8>>,
    /// Every rank's, when they have come.
    coming: Option<Receiver<Result<Vec<Part>>>>,
    parts: Vec<Part>,
    /// Parameters that have not been fetched.
    left: usize,
    /// The work that reads `parts`.
    fetched: Vec<Event>,
}

impl Bringing {
    pub fn new(send: Buffer<u8>) -> Self {
        let (parts, fetched) = (Vec::new(), Vec::new());
        Self { send: Arc::new(send), coming: None, parts, left: 0, fetched }
    }
}

const WAIT: &str = "Sharded::wait";

impl<P: Storage, G: Storage> Sharded<P, G> {
    /// Waits until all of parameter `param` is there that other ranks have stepped, and writes it into
    /// `to`. A forward pass calls it before it reads the parameter, and so waits for that parameter's
    /// bucket alone; buckets come in the order in which their first parameters were declared. Does
    /// nothing for a parameter that is whole; one without elements is.
    ///
    /// `to` is the parameter that was passed to [`step`](Self::step): this rank's part is not written
    /// again.
    ///
    /// # Errors
    /// [`Error::Range`] for an index past the declared list; [`Error::Shape`] for another length;
    /// [`Error::Device`], [`Error::Align`]; [`Error::Comm`].
    pub fn wait(&mut self, stream: &Stream, param: usize, to: &mut dyn Write<P>) -> Result<()> {
        self.core.wait(stream, param, &mut [to].as_mut_slice())
    }

    /// [`wait`](Self::wait) for every parameter, in the declared order.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); [`Error::Shape`] for another number of tensors.
    pub fn wait_all(&mut self, stream: &Stream, params: &mut [&mut dyn Write<P>]) -> Result<()> {
        self.core.check_count(WAIT, params.len())?;
        for (param, to) in params.iter_mut().enumerate() {
            self.wait(stream, param, *to)?;
        }
        Ok(())
    }
}

impl Core {
    fn wait(&mut self, stream: &Stream, param: usize, to: &mut dyn List) -> Result<()> {
        self.reducer.check_fault()?;
        let declared = self.reducer.check_param(WAIT, param)?;
        let arg = || format!("parameter {}", declared.name).into();
        let lent = to.lend(0, stream)?;
        if lent.len() != declared.len {
            let expected = format!("{} elements", declared.len);
            return Err(Error::shape(WAIT, arg(), expected, lent.len()));
        }
        lent.address(WAIT, &arg, stream)?;
        if self.whole[param] {
            return Ok(());
        }
        let bringing = &mut self.bringing[self.reducer.plan.place(param).0];
        if let Some(coming) = bringing.coming.take() {
            match receive(&coming) {
                Ok(parts) => bringing.parts = parts,
                Err(error) => {
                    self.reducer.fail(error.clone());
                    return Err(error);
                }
            }
        }
        let bytes = self.param.bytes();
        for (rank, from) in bringing.parts.iter().enumerate() {
            let part = self.cut.part(param, rank);
            if rank != self.rank && !part.is_empty() {
                let start = from.start + self.cut.before(param, rank) * bytes;
                let from = from.buffer.view_as::<u8>(start, part.len() * bytes)?;
                lent.copy_from(WAIT, &arg, stream, part.start, &from)?;
            }
        }
        bringing.fetched.push(stream.record()?);
        bringing.left -= 1;
        if bringing.left == 0 {
            // Whoever sent the parts may write there again once nobody reads them.
            for event in bringing.fetched.drain(..) {
                stream.wait(&event)?;
            }
            stream.sync()?;
            bringing.parts.clear();
        }
        self.whole[param] = true;
        Ok(())
    }

    /// Sends this rank's parts of all parameters, those first that a forward pass reads first.
    pub(super) fn send_params(
        &mut self,
        op: &'static str,
        stream: &Stream,
        params: &mut dyn List,
    ) -> Result<()> {
        if self.cut.ranks() == 1 {
            return Ok(());
        }
        let plan = self.reducer.plan.clone();
        let time = self.reducer.config.deadline;
        let first = |&bucket: &usize| plan.buckets()[bucket].params.iter().min().copied();
        let mut order: Vec<usize> = (0..plan.buckets().len()).collect();
        order.sort_by_key(first);
        for bucket in order {
            let bringing = &mut self.bringing[bucket];
            let send = exclusive(&mut bringing.send, deadline(time))?;
            bringing.left = 0;
            for &param in &plan.buckets()[bucket].params {
                self.whole[param] = plan.params()[param].len == 0;
                bringing.left += usize::from(!self.whole[param]);
                let part = self.cut.part(param, self.rank);
                if part.is_empty() {
                    continue;
                }
                let bytes = self.param.bytes();
                let start = self.cut.before(param, self.rank) * bytes;
                let mut to = send.view_as_mut::<u8>(start, part.len() * bytes)?;
                let arg = || format!("params[{param}]").into();
                let from = params.lend(param, stream)?;
                from.copy_to(op, &arg, stream, part.start, &mut to)?;
            }
            let coming = self.reducer.outbox.gather(&bringing.send, stream.record()?)?;
            // What nobody waits for is dropped when it comes.
            bringing.coming = (bringing.left > 0).then_some(coming);
        }
        Ok(())
    }

    /// All of the last step's parameters have been fetched.
    pub(super) fn check_whole(&self, op: &'static str) -> Result<()> {
        let missing = self.whole.iter().position(|&whole| !whole);
        missing.map_or(Ok(()), |param| {
            let name = &self.reducer.plan.params()[param].name;
            let found = format!("{name} not waited for");
            Err(Error::state(op, "every parameter whole: `wait` for each", found))
        })
    }
}
