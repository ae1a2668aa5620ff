//! A file that is read tensor by tensor.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytemuck::cast_slice;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::OP;
use crate::optim::state::file::{Reader, digits};
use crate::optim::state::hash::Hash;
use crate::{Error, Result};

/// One tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) len: usize,
    offset: u64,
    /// Its checksum, in files that have them.
    hash: Option<String>,
}

pub(super) struct Source {
    path: PathBuf,
    reader: Reader,
    /// In the order of their data.
    pub(super) entries: Vec<Entry>,
    places: HashMap<String, usize>,
    /// What its metadata says.
    pub(super) step: Option<u64>,
    hash: Hash,
}

/// An error about something in a file.
pub(super) fn wrong(
    path: &Path,
    item: &str,
    expected: impl ToString,
    found: impl ToString,
) -> Error {
    Error::checkpoint(OP, item, expected, found).in_file(path)
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let reader = Reader::open(OP, path)?;
        let parsed: Metadata = serde_json::from_str(reader.header.trim_end_matches(' '))
            .map_err(|error| wrong(path, "header", "a safetensors header", error))?;
        let metadata = parsed.metadata().clone().unwrap_or_default();
        let step = match metadata.get("outer_step") {
            Some(text) => {
                Some(text.parse().map_err(|_| wrong(path, "outer_step", "a whole number", text))?)
            }
            None => None,
        };
        let names = parsed.offset_keys();
        let hashes: Option<Vec<String>> = metadata
            .get("hashes")
            .filter(|_| metadata.contains_key("header_hash"))
            .map(|all| all.split(',').filter(|one| !one.is_empty()).map(String::from).collect());
        if let Some(hashes) = &hashes
            && hashes.len() != names.len()
        {
            return Err(wrong(path, "hashes", names.len(), hashes.len()));
        }
        let (mut entries, mut places, mut end) = (Vec::new(), HashMap::new(), 0);
        for (index, name) in names.into_iter().enumerate() {
            let Some(info) = parsed.info(&name) else { continue };
            end = info.data_offsets.1 as u64;
            places.insert(name.clone(), index);
            entries.push(Entry {
                len: info.shape.iter().product(), // bounded: the offsets were checked against it
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: info.data_offsets.0 as u64,
                hash: hashes.as_ref().map(|hashes| hashes[index].clone()),
                name,
            });
        }
        if end != reader.data {
            return Err(wrong(path, "data", format!("{end} bytes"), reader.data));
        }
        Ok(Self { path: path.to_path_buf(), reader, entries, places, step, hash: Hash::new() })
    }

    pub(super) fn wrong(&self, item: &str, expected: impl ToString, found: impl ToString) -> Error {
        wrong(&self.path, item, expected, found)
    }

    /// The tensor that stands for `other`, of the same shape and one of `dtypes`.
    pub(super) fn like(&self, other: &Entry, dtypes: &[Dtype]) -> Result<usize> {
        let Some(&index) = self.places.get(&other.name) else {
            return Err(self.wrong(&other.name, "a tensor", "none"));
        };
        let entry = &self.entries[index];
        if entry.shape != other.shape {
            let (expected, found) =
                (format!("shape {:?}", other.shape), format!("{:?}", entry.shape));
            return Err(self.wrong(&other.name, expected, found));
        }
        if !dtypes.contains(&entry.dtype) {
            let expected = format!("one of {dtypes:?}");
            return Err(self.wrong(&other.name, expected, format!("{:?}", entry.dtype)));
        }
        Ok(index)
    }

    /// Reads elements of a tensor as f32. Pieces of a tensor come in order, from its start: the
    /// checksum is compared at its end. The first value that is not finite is an error.
    pub(super) fn read(
        &mut self,
        index: usize,
        start: usize,
        bytes: &mut [u32],
        values: &mut [f32],
    ) -> Result<()> {
        let entry = &self.entries[index];
        let width = if entry.dtype == Dtype::F32 { 4 } else { 2 };
        let bytes = &mut bytemuck::cast_slice_mut::<u32, u8>(bytes)[..values.len() * width];
        self.reader.seek(entry.offset + (start * width) as u64)?;
        self.reader.read(bytes)?;
        if let Some(expected) = &entry.hash {
            if start == 0 {
                self.hash = Hash::new();
            }
            self.hash.update(bytes);
            if start + values.len() == entry.len {
                let found = digits(self.hash.finish());
                if found != *expected {
                    return Err(self.wrong(&entry.name, format!("checksum {expected}"), found));
                }
            }
        }
        match entry.dtype {
            Dtype::BF16 => widen(cast_slice::<u8, bf16>(bytes), values, bf16::to_f32),
            Dtype::F16 => widen(cast_slice::<u8, f16>(bytes), values, f16::to_f32),
            _ => values.copy_from_slice(cast_slice(bytes)),
        }
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            let item = format!("{}[{}]", entry.name, start + place);
            return Err(self.wrong(&item, "a finite value", values[place]));
        }
        Ok(())
    }
}

fn widen<T: Copy>(from: &[T], to: &mut [f32], widen: impl Fn(T) -> f32) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = widen(from);
    }
}
