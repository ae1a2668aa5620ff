//! Offload bundles: clang's container for the code objects of several targets.

use crate::gfx::{GfxError, Result};

const MAGIC: &[u8] = b"__CLANG_OFFLOAD_BUNDLE__";
const COMPRESSED: &[u8] = b"CCOB";

/// The gfx90a code object of a bundle, or the file itself if it is one.
pub fn unbundle(file: &[u8]) -> Result<&[u8]> {
    if file.starts_with(COMPRESSED) {
        return Err(GfxError::new("the offload bundle is compressed (--no-offload-compress)"));
    }
    let Some(entries) = file.strip_prefix(MAGIC) else { return Ok(file) };
    let short = || GfxError::new("the offload bundle is cut short");
    let number = |at: usize| -> Result<usize> {
        let bytes = entries.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or_else(short)?;
        Ok(u64::from_le_bytes(bytes) as usize)
    };
    let (count, mut at) = (number(0)?, 8);
    let mut names = Vec::new();
    for _ in 0..count {
        let (start, len, name_len) = (number(at)?, number(at + 8)?, number(at + 16)?);
        let name = entries.get(at + 24..at + 24 + name_len).ok_or_else(short)?;
        let name = String::from_utf8_lossy(name).into_owned();
        // hip-amdgcn-amd-amdhsa--gfx90a:sramecc+:xnack-
        let target = name.rsplit('-').find(|part| part.starts_with("gfx")).unwrap_or_default();
        if target.split(':').next() == Some("gfx90a") {
            return file.get(start..start.saturating_add(len)).ok_or_else(short);
        }
        names.push(name);
        at += 24 + name_len;
    }
    Err(GfxError::new(format!("no code for gfx90a in the bundle; there is {}", names.join(", "))))
}
