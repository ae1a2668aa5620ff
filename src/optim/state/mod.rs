//! Saving and loading: one safetensors file, raw types kept.
#![forbid(unsafe_code)]

pub(crate) mod file;
pub(crate) mod hash;
mod header;
pub(crate) mod parts;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use self::file::{Draft, Reader};
use self::hash::Hash;
use self::header::{Array, Entry, Header};
use super::core::{Core, Masters, Phase, Slot};
use super::{LossScale, Optimizer};
use crate::kernel::params::optim::Status;
use crate::{Element, Error, Result, Storage, Stream};

/// f32 of one piece of data on its way between device and file.
const PIECE: usize = 1 << 18;

/// What [`Optimizer::load_with`] lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether tensors that the file lacks, or has too many, or had in a group of another rate, are
    /// errors. Otherwise what is in both is loaded.
    pub strict: bool,
    /// Whether state may hold NaN or ±Inf.
    pub allow_non_finite: bool,
}

impl Default for LoadOptions {
    /// Strict, and finite.
    fn default() -> Self {
        Self { strict: true, allow_non_finite: false }
    }
}

/// What was not in both the file and the optimizer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Tensors of the optimizer that the file lacks: left as they were.
    pub missing: Vec<String>,
    /// Tensors of the file that the optimizer lacks: left out.
    pub unexpected: Vec<String>,
}

/// A file that has been found whole, and to fit an optimizer.
pub(crate) struct Checked {
    reader: Reader,
    header: Header,
    /// The optimizer's own.
    here: Header,
    loaded: Loaded,
    status: Status,
}

const SAVE: &str = "optim::save";
const LOAD: &str = "optim::load";

impl<P: Storage, G: Storage> Optimizer<P, G> {
    /// Writes the whole state to a safetensors file: masters or remainders, moments, counters, loss
    /// scale, learning rates, seed. Parameters themselves are the model's to save; with
    /// [`Master::Remainder`](super::Master) both belong together.
    ///
    /// The old file is replaced only when the new one is on the disk, in one step; it keeps its
    /// permissions. Of two writers to one path the last wins, whole. Each tensor and the header
    /// have a checksum (XXH64). Tensors are named `<tensor>/<slot>`, in f32, bf16 or (remainders)
    /// u16: readable by any safetensors reader.
    ///
    /// ```
    /// # fn main() -> halfstep::Result<()> {
    /// # use halfstep::{Device, optim::*};
    /// # let device = Device::cpu();
    /// # let stream = device.stream()?;
    /// # let folder = std::env::temp_dir().join(format!("halfstep-save-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).unwrap();
    /// # let path = folder.join("optimizer.safetensors");
    /// let groups = [Group::new(AdamW::default()).tensor(Tensor::new("w", 4))];
    /// let mut optimizer = Optimizer::<f32, f32>::new(&device, &groups, Config::default())?;
    /// optimizer.save(&stream, &path)?;
    /// optimizer.load(&stream, &path)?;
    /// # std::fs::remove_dir_all(&folder).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::State`] between `control` and `step`; [`Error::Io`]: then the old file is as it was
    /// and nothing is left beside it. That the folder could not be synced after the new one was there is no error.
    pub fn save(&self, stream: &Stream, path: impl AsRef<Path>) -> Result<()> {
        self.core.save(stream, path.as_ref())
    }

    /// [`load_with`](Self::load_with) the default options.
    ///
    /// # Errors
    /// As there.
    pub fn load(&mut self, stream: &Stream, path: impl AsRef<Path>) -> Result<()> {
        self.load_with(stream, path, LoadOptions::default()).map(|_| ())
    }

    /// Reads state that [`save`](Self::save) wrote, from an optimizer with the same rule, number of
    /// groups, kinds of state, types, seed and tensors. Nothing is cast. The next step has the bits it would have had
    /// without the interruption, if tensors are in the same order: in another, norms are summed
    /// otherwise and random numbers are others. Learning rates are restored, those of the first group
    /// to the first; the other hyper-parameters stay as they are here. A dynamic loss scale goes on from
    /// that of the file; where that was constant, it stays as it is here.
    ///
    /// Everything is checked before anything is written: checksums of header and data, names,
    /// types and lengths, counters, the loss scale against its rules, and that moments are finite
    /// and second moments not negative. The file is read, not mapped.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for what does not fit, by tensor; [`Error::Io`]; [`Error::State`]
    /// between `control` and `step`. Nothing has been written then, unless the file changed while
    /// it was read: the error says so, and only another `load` is possible.
    pub fn load_with(
        &mut self,
        stream: &Stream,
        path: impl AsRef<Path>,
        options: LoadOptions,
    ) -> Result<Loaded> {
        self.core.load_with(stream, path.as_ref(), options)
    }
}

impl Core {
    fn save(&self, stream: &Stream, path: &Path) -> Result<()> {
        little_endian(SAVE)?;
        self.between_steps(SAVE)?;
        let status = self.read_status(stream)?;
        let mut header = Header::of(self, &status, &self.progress(stream)?);
        let mut draft = Draft::new(SAVE, path)?;
        draft.header(&header.text())?;
        let mut piece = vec![0u32; PIECE];
        for index in 0..header.entries.len() {
            let entry = header.entries[index].clone();
            let mut hash = Hash::new();
            for (start, count) in entry.pieces() {
                let bytes = entry.piece(&mut piece, count);
                self.fetch(stream, &entry, start..start + count, bytes)?;
                hash.update(bytes);
                draft.write(bytes)?;
            }
            header.hashes[index] = hash.finish();
        }
        draft.header(&header.text())?;
        draft.commit()
    }

    fn load_with(&mut self, stream: &Stream, path: &Path, options: LoadOptions) -> Result<Loaded> {
        let checked = self.check_file(stream, path, options)?;
        self.load_checked(stream, checked)
    }

    /// First pass: every byte of the file is there, whole, and makes sense. Nothing is written.
    pub(crate) fn check_file(
        &self,
        stream: &Stream,
        path: &Path,
        options: LoadOptions,
    ) -> Result<Checked> {
        self.checked(stream, path, options).map_err(|error| error.in_file(path))
    }

    /// Second pass: the state.
    pub(crate) fn load_checked(&mut self, stream: &Stream, checked: Checked) -> Result<Loaded> {
        let path = checked.reader.path.clone();
        self.restored(stream, checked).map_err(|error| error.in_file(&path))
    }

    fn checked(&self, stream: &Stream, path: &Path, options: LoadOptions) -> Result<Checked> {
        little_endian(LOAD)?;
        if self.phase == Phase::Decided {
            return Err(Error::state(LOAD, "`step`, since `control` has run", "`load`"));
        }
        stream.expect_device(LOAD, &self.device)?;
        let mut reader = Reader::new(LOAD, path)?;
        let header = Header::parse(&reader.header, reader.data)?;
        let status = self.read_status(stream)?;
        let here = Header::of(self, &status, &self.progress(stream)?);
        let loaded = header.compare(&here, options.strict)?;
        let status = status_of(&header, status, &self.scale_rules)?;
        let mut piece = vec![0u32; PIECE];
        for index in 0..header.entries.len() {
            let never_negative = match header.entries[index].array {
                Array::Slot(slot) => self.rule.never_negative(slot),
                Array::Master | Array::Remainder => false,
            };
            self.check(&mut reader, &header, index, &mut piece, options, never_negative)?;
        }
        Ok(Checked { reader, header, here, loaded, status })
    }

    fn restored(&mut self, stream: &Stream, checked: Checked) -> Result<Loaded> {
        let Checked { mut reader, header, here, loaded, status } = checked;
        let mut piece = vec![0u32; PIECE];
        self.phase = Phase::Damaged;
        let ours: HashMap<&str, &Entry> =
            here.entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        for (index, theirs) in header.entries.iter().enumerate() {
            if let Some(ours) = ours.get(theirs.name.as_str()) {
                self.restore(&mut reader, &header, index, ours, stream, &mut piece)?;
            }
        }
        let rows: HashMap<&str, usize> = here
            .tensors
            .iter()
            .zip(&self.layout.items)
            .filter_map(|(tensor, item)| Some((tensor.name.as_str(), item.row?)))
            .collect();
        for tensor in &header.tensors {
            if let Some(&row) = rows.get(tensor.name.as_str()) {
                self.progress.write(stream, row, &[tensor.progress])?;
            }
        }
        self.status.write(stream, 0, &[status])?;
        for (group, lr) in header.rates.iter().enumerate() {
            self.set_lr(group, *lr)?;
        }
        self.loaded = match header.loaded {
            true => self.loaded || loaded.missing.is_empty(),
            // Masters that had no values when they were saved have none here, if any came.
            false => self.loaded && loaded.missing.len() == here.tensors.len(),
        };
        self.phase = Phase::Idle;
        Ok(loaded)
    }

    /// Reads one array of the file and checks it.
    fn check(
        &self,
        reader: &mut Reader,
        header: &Header,
        index: usize,
        piece: &mut [u32],
        options: LoadOptions,
        never_negative: bool,
    ) -> Result<()> {
        let entry = &header.entries[index];
        let mut hash = Hash::new();
        reader.seek(entry.offset)?;
        for (_, count) in entry.pieces() {
            let bytes = entry.piece(piece, count);
            reader.read(bytes)?;
            hash.update(bytes);
            if matches!(entry.array, Array::Remainder) {
                continue;
            }
            for value in entry.values(bytes) {
                if !value.is_finite() && !options.allow_non_finite {
                    return Err(entry.wrong("finite values", value));
                }
                if value < 0.0 && never_negative {
                    return Err(entry.wrong("no negative values", value));
                }
            }
        }
        header.matches(index, hash.finish())
    }

    /// Reads one array of the file into the state.
    fn restore(
        &mut self,
        reader: &mut Reader,
        header: &Header,
        index: usize,
        ours: &Entry,
        stream: &Stream,
        piece: &mut [u32],
    ) -> Result<()> {
        let theirs = &header.entries[index];
        let mut hash = Hash::new();
        reader.seek(theirs.offset)?;
        for (start, count) in theirs.pieces() {
            let bytes = theirs.piece(piece, count);
            reader.read(bytes)?;
            hash.update(bytes);
            let here = start.max(ours.part.start)..(start + count).min(ours.part.end);
            if here.is_empty() {
                continue;
            }
            let width = theirs.width();
            let bytes = &bytes[(here.start - start) * width..(here.end - start) * width];
            let first = ours.state + here.start - ours.part.start;
            match (&mut self.masters, &mut self.slots[..], ours.array) {
                (Masters::F32(to), _, Array::Master) => {
                    to.write(stream, first, bytemuck::cast_slice(bytes))?;
                }
                (Masters::Remainder(to), _, Array::Remainder) => {
                    to.write(stream, first, bytemuck::cast_slice(bytes))?;
                }
                (_, slots, Array::Slot(slot)) => match &mut slots[slot] {
                    Slot::F32(to) => to.write(stream, first, bytemuck::cast_slice(bytes))?,
                    Slot::Bf16(to) => to.write(stream, first, bytemuck::cast_slice(bytes))?,
                },
                _ => {}
            }
        }
        header.matches(index, hash.finish())
    }

    /// Copies elements of an array, which are here, to the host.
    fn fetch(
        &self,
        stream: &Stream,
        entry: &Entry,
        elements: Range<usize>,
        to: &mut [u8],
    ) -> Result<()> {
        let first = elements.start - entry.part.start;
        match self.array(entry) {
            Place::F32(buffer, state) => fetch(buffer, stream, state + first, to),
            Place::Bf16(buffer, state) => fetch(buffer, stream, state + first, to),
            Place::U16(buffer, state) => fetch(buffer, stream, state + first, to),
            Place::Nothing => Ok(()),
        }
    }

    fn array(&self, entry: &Entry) -> Place<'_> {
        match (&self.masters, entry.array) {
            (Masters::F32(buffer), Array::Master) => Place::F32(buffer, entry.state),
            (Masters::Remainder(buffer), Array::Remainder) => Place::U16(buffer, entry.state),
            (_, Array::Slot(slot)) => match &self.slots[slot] {
                Slot::F32(buffer) => Place::F32(buffer, entry.state),
                Slot::Bf16(buffer) => Place::Bf16(buffer, entry.state),
            },
            _ => Place::Nothing,
        }
    }
}

/// Where an array lives, and its first element.
enum Place<'a> {
    F32(&'a crate::Buffer<f32>, usize),
    Bf16(&'a crate::Buffer<crate::bf16>, usize),
    U16(&'a crate::Buffer<u16>, usize),
    Nothing,
}

fn fetch<T: Element>(
    from: &crate::Buffer<T>,
    stream: &Stream,
    start: usize,
    to: &mut [u8],
) -> Result<()> {
    from.read(stream, start, bytemuck::cast_slice_mut(to))
}

pub(crate) fn little_endian(op: &'static str) -> Result<()> {
    if cfg!(target_endian = "little") {
        return Ok(());
    }
    Err(Error::unsupported(op, "safetensors files on a big-endian machine"))
}

/// The status that the file asks for, if the rules of the loss scale here allow it.
fn status_of(header: &Header, now: Status, scale: &LossScale) -> Result<Status> {
    let saved = &header.status;
    let rules = scale.rules();
    let wrong = |item: &str, expected: String, found: String| {
        Err(Error::checkpoint(LOAD, item, expected, found))
    };
    if rules.dynamic == 0 {
        if saved.scale.to_bits() != now.scale.to_bits() {
            return wrong("scale", now.scale.to_string(), saved.scale.to_string());
        }
    } else if header.dynamic {
        // Not a range's `contains`: NaN fails every comparison here, as it should.
        if !(saved.scale >= rules.min && saved.scale <= rules.max) {
            let expected = format!("from {:e} to {:e}", rules.min, rules.max);
            return wrong("scale", expected, saved.scale.to_string());
        }
        let most = rules.interval.saturating_add(rules.late);
        if saved.growth_tracker >= most {
            let found = saved.growth_tracker.to_string();
            return wrong("growth_tracker", format!("less than {most}"), found);
        }
        if !(1..=rules.hysteresis).contains(&saved.hysteresis) {
            let expected = format!("from 1 to {}", rules.hysteresis);
            return wrong("hysteresis", expected, saved.hysteresis.to_string());
        }
    }
    if saved.applied > saved.attempts {
        let expected = format!("at most {} attempts", saved.attempts);
        return wrong("applied", expected, saved.applied.to_string());
    }
    // A constant scale is no history that a dynamic one could go on from.
    let scaled = if rules.dynamic == 1 && !header.dynamic { &now } else { saved };
    Ok(Status {
        attempts: saved.attempts,
        applied: saved.applied,
        scale: scaled.scale,
        inverse: super::scale::inverse(scaled.scale),
        growth_tracker: scaled.growth_tracker,
        hysteresis: scaled.hysteresis,
        skips: saved.skips,
        ..bytemuck::Zeroable::zeroed() // the last step is not one of here
    })
}
