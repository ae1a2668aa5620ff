//! Tables with a row for each chunk, of which each rank makes the rows of its parts, and gets the others'.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::super::config::deadline;
use super::super::exchange::exclusive;
use super::super::outbox::{Outbox, receive};
use crate::{Buffer, Device, Result, Stream};

/// Parts of a buffer start at multiples of this many bytes.
const ALIGN: usize = 16;

/// Who makes which rows, and what they are sent from.
pub(super) struct Rows {
    send: Arc<Buffer<u8>>,
    /// Bytes of a row.
    width: usize,
    /// `[ranks]` the rows that each makes, in order.
    ranges: Vec<Vec<Range<usize>>>,
}

impl Rows {
    pub fn new(device: &Device, width: usize, ranges: Vec<Vec<Range<usize>>>) -> Result<Self> {
        let count = |ranges: &Vec<Range<usize>>| ranges.iter().map(Range::len).sum();
        let most: usize = ranges.iter().map(count).max().unwrap_or(0);
        // As long on every rank, and never nothing.
        let bytes = (most * width).max(1).next_multiple_of(ALIGN);
        Ok(Self { send: Arc::new(device.zeros(bytes)?), width, ranges })
    }

    /// The rows that a rank makes.
    pub fn of(&self, rank: usize) -> &[Range<usize>] {
        &self.ranges[rank]
    }

    /// Sends this rank's rows and writes every rank's into the whole table. Waits for all ranks.
    pub fn exchange(
        &mut self,
        outbox: &mut Outbox,
        stream: &Stream,
        time: Duration,
        own: &[u8],
        whole: &mut [u8],
    ) -> Result<()> {
        exclusive(&mut self.send, deadline(time))?.write(stream, 0, own)?;
        let parts = receive(&outbox.gather(&self.send, stream.record()?)?)?;
        for (part, ranges) in parts.iter().zip(&self.ranges) {
            let mut bytes = vec![0; part.len];
            part.buffer.read(stream, part.start, &mut bytes)?;
            let mut rows = bytes.chunks_exact(self.width);
            for row in ranges.iter().cloned().flatten() {
                let to = &mut whole[row * self.width..(row + 1) * self.width];
                rows.by_ref().take(1).for_each(|row| to.copy_from_slice(row));
            }
        }
        Ok(())
    }
}
