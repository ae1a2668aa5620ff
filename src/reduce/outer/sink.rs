//! A file that is written tensor by tensor.
#![forbid(unsafe_code)]

use std::path::Path;

use serde_json::json;

use super::OP;
use super::source::Entry;
use crate::Result;
use crate::optim::state::file::{Draft, digits};
use crate::optim::state::hash::Hash;

pub(super) struct Sink {
    draft: Draft,
    step: u64,
    dtype: &'static str,
    hash: Hash,
    hashes: Vec<u64>,
}

impl Sink {
    /// A file beside `path`, with room for its header.
    pub(super) fn new(
        path: &Path,
        entries: &[Entry],
        step: u64,
        dtype: &'static str,
    ) -> Result<Self> {
        let draft = Draft::new(OP, path)?;
        let hashes = vec![0; entries.len()];
        let mut sink = Self { draft, step, dtype, hash: Hash::new(), hashes };
        sink.draft.header(&sink.text(entries))?;
        sink.hashes.clear();
        Ok(sink)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.draft.write(bytes)
    }

    /// The tensor is complete.
    pub(super) fn end(&mut self) {
        self.hashes.push(self.hash.finish());
        self.hash = Hash::new();
    }

    /// The file is complete, under its temporary name.
    pub(super) fn finish(mut self, entries: &[Entry]) -> Result<Draft> {
        self.draft.header(&self.text(entries))?;
        Ok(self.draft)
    }

    /// The header; its length does not depend on the hashes.
    fn text(&self, entries: &[Entry]) -> String {
        let hashes: Vec<String> = self.hashes.iter().map(|&hash| digits(hash)).collect();
        let metadata = json!({
            "format": "pt", // what readers of Hugging Face's ask of any file
            "hashes": hashes.join(","),
            "outer_step": self.step.to_string(),
        });
        // By hand from here on, so that the mark is where a reader looks for it.
        let mut text = String::from("{\"__metadata__\":{\"header_hash\":\"0000000000000000\",");
        text.push_str(&metadata.to_string()[1..]);
        let width = if self.dtype == "F32" { 4 } else { 2 };
        let mut offset = 0u64;
        for entry in entries {
            let end = offset + entry.len as u64 * width;
            let description = json!({
                "dtype": self.dtype,
                "shape": entry.shape,
                "data_offsets": [offset, end],
            });
            text.push_str(&format!(",{}:{description}", json!(entry.name)));
            offset = end;
        }
        text.push('}');
        text
    }
}
