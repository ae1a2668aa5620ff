//! One file of an optimizer whose state is spread over ranks: the bytes of each rank's parts, on their
//! way to the file that an optimizer of everything would write.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::path::Path;

use super::file::Draft;
use super::hash::Hash;
use super::header::{Entry, Header};
use super::{Checked, PIECE, SAVE, little_endian};
use crate::kernel::params::optim::Progress;
use crate::optim::core::Core;
use crate::{Result, Stream};

/// Bytes of what travels at a time.
pub(crate) const BLOCK: usize = 4 * PIECE;

/// A piece of one array, and where it is among the bytes of its rank.
struct Run {
    /// First byte, a multiple of 4.
    at: usize,
    entry: usize,
    /// Elements of the whole tensor.
    elements: Range<usize>,
}

/// A file that ranks write together.
pub(crate) struct Saving {
    header: Header,
    /// `[ranks]` what each has, array by array.
    runs: Vec<Vec<Run>>,
    draft: Option<Draft>,
}

impl Core {
    /// The counters of each tensor, as far as they are here.
    pub(crate) fn progress(&self, stream: &Stream) -> Result<Vec<Progress>> {
        let rows = self.progress.to_vec(stream)?;
        let fresh = Progress { step: 0, beta1_power: 1.0, beta2_power: 1.0 };
        let counters = self.layout.items.iter().map(|item| item.row.map_or(fresh, |row| rows[row]));
        Ok(counters.collect())
    }

    /// The header of a file of all parts, `parts[r]` being the elements of each tensor that rank `r` has.
    pub(crate) fn saving(
        &self,
        stream: &Stream,
        progress: &[Progress],
        parts: &[Vec<Range<usize>>],
    ) -> Result<Saving> {
        little_endian(SAVE)?;
        self.between_steps(SAVE)?;
        let header = Header::of(self, &self.read_status(stream)?, progress);
        let arrays = header.entries.len() / parts.first().map_or(1, |parts| parts.len().max(1));
        let runs = |parts: &Vec<Range<usize>>| {
            let mut at = 0;
            let mut runs = Vec::new();
            for (entry, of) in header.entries.iter().enumerate() {
                let elements = parts[entry / arrays].clone();
                let bytes = elements.len() * of.width();
                if bytes > 0 {
                    runs.push(Run { at, entry, elements });
                }
                at += bytes.next_multiple_of(4);
            }
            runs
        };
        let runs = parts.iter().map(runs).collect();
        Ok(Saving { header, runs, draft: None })
    }

    /// Reads block number `block` of this rank's bytes, from the device.
    pub(crate) fn fill(
        &self,
        stream: &Stream,
        saving: &Saving,
        rank: usize,
        block: usize,
        to: &mut [u32],
    ) -> Result<()> {
        for (entry, elements, at) in saving.within(rank, block) {
            let bytes = elements.len() * entry.width();
            let to = &mut bytemuck::cast_slice_mut(to)[at..at + bytes];
            self.fetch(stream, entry, elements, to)?;
        }
        Ok(())
    }
}

impl Checked {
    /// The header's checksum, which covers those of all data: the same for the same file.
    pub(crate) fn hash(&self) -> u64 {
        let mut hash = Hash::new();
        hash.update(self.reader.header.as_bytes());
        hash.finish()
    }
}

impl Saving {
    /// In how many blocks the rank with the most bytes has them.
    pub(crate) fn blocks(&self) -> usize {
        let end = |runs: &Vec<Run>| runs.last().map_or(0, |run| self.end(run));
        self.runs.iter().map(end).max().unwrap_or(0).div_ceil(BLOCK)
    }

    fn end(&self, run: &Run) -> usize {
        run.at + run.elements.len() * self.header.entries[run.entry].width()
    }

    /// What a block of a rank's bytes has: arrays, elements, and where their bytes start in the block.
    fn within(
        &self,
        rank: usize,
        block: usize,
    ) -> impl Iterator<Item = (&Entry, Range<usize>, usize)> {
        let (first, last) = (block * BLOCK, (block + 1) * BLOCK);
        let runs = &self.runs[rank];
        let from = runs.partition_point(move |run| self.end(run) <= first);
        runs[from..].iter().take_while(move |run| run.at < last).map(move |run| {
            let entry = &self.header.entries[run.entry];
            let element = |byte: usize| run.elements.start + (byte - run.at) / entry.width();
            let (start, end) = (run.at.max(first), self.end(run).min(last));
            (entry, element(start)..element(end), start - first)
        })
    }

    /// Opens the file, with room for the header.
    pub(crate) fn create(&mut self, path: &Path) -> Result<()> {
        let mut draft = Draft::new(SAVE, path)?;
        draft.header(&self.header.text())?;
        self.draft = Some(draft);
        Ok(())
    }

    /// Writes a block of a rank's to its places in the file.
    pub(crate) fn store(&mut self, rank: usize, block: usize, bytes: &[u8]) -> Result<()> {
        let Some(mut draft) = self.draft.take() else { return Ok(()) };
        for (entry, elements, at) in self.within(rank, block) {
            let to = entry.offset + (elements.start * entry.width()) as u64;
            draft.write_at(to, &bytes[at..at + elements.len() * entry.width()])?;
        }
        self.draft = Some(draft);
        Ok(())
    }

    /// Everything is there: hashes what has been written, and puts the file in its place.
    pub(crate) fn commit(mut self) -> Result<()> {
        let Some(mut draft) = self.draft.take() else { return Ok(()) };
        let mut piece = vec![0u32; PIECE];
        for (index, entry) in self.header.entries.iter().enumerate() {
            let mut hash = Hash::new();
            for (start, count) in entry.pieces() {
                let bytes = entry.piece(&mut piece, count);
                draft.read_at(entry.offset + (start * entry.width()) as u64, bytes)?;
                hash.update(bytes);
            }
            self.header.hashes[index] = hash.finish();
        }
        draft.header(&self.header.text())?;
        draft.commit()
    }
}
