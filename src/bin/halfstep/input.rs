//! Files that are read as a whole.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// Bytes at most of what has no size of its own: a pipe, which may be meant, or a device that never ends.
const MOST: u64 = 64 << 20;

/// All of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error: std::io::Error| error.to_string();
    let mut file = File::open(path).map_err(wrong)?;
    let mut bytes = Vec::new();
    if file.metadata().map_err(wrong)?.is_file() {
        file.read_to_end(&mut bytes).map_err(wrong)?;
        return Ok(bytes);
    }
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > MOST {
        return Err(format!("more than {} MiB, and not a regular file", MOST >> 20));
    }
    Ok(bytes)
}

/// A file of JSON, with a byte order mark or without.
pub fn json(path: &Path) -> Result<Value, String> {
    let bytes = read(path)?;
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    serde_json::from_slice(text).map_err(|error| error.to_string())
}
