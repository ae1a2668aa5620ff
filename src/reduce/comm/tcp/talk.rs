//! What is said while ranks meet: its length, four bytes, and text.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Bytes of the length.
const LEN: usize = 4;
/// Longest message: an address of each of 10,000 ranks.
const LONGEST: usize = 1 << 20;

/// A connection whose other side has until then for all that it says, or hears. (The system's own limits are of each
/// call, and begin again with every byte.)
struct Until<'a>(&'a TcpStream, Instant);

impl Until<'_> {
    fn left(&self) -> std::io::Result<Option<Duration>> {
        match self.1.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.0.set_read_timeout(self.left()?)?;
        self.0.read(to)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        self.0.set_write_timeout(self.left()?)?;
        self.0.write(from)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Says something.
pub(super) fn say<T: Serialize>(
    stream: &TcpStream,
    what: &T,
    until: Instant,
) -> std::io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
    bytes.extend(text);
    Until(stream, until).write_all(&bytes)
}

/// Hears what the other side says.
pub(super) fn hear<T: for<'a> Deserialize<'a>>(
    stream: &TcpStream,
    until: Instant,
) -> std::io::Result<T> {
    let mut stream = Until(stream, until);
    let mut heard = Vec::new();
    while let Some(missing) = missing(&heard)? {
        let known = heard.len();
        heard.resize(known + missing, 0);
        stream.read_exact(&mut heard[known..])?;
    }
    parse(&heard)
}

/// Bytes until the length is known, or all has been heard; `None` when it has.
pub(super) fn missing(heard: &[u8]) -> std::io::Result<Option<usize>> {
    let Some((&len, text)) = heard.split_first_chunk() else {
        return Ok(Some(LEN - heard.len()));
    };
    let len = u32::from_le_bytes(len) as usize;
    if len > LONGEST {
        return Err(std::io::Error::new(ErrorKind::InvalidData, format!("{len} bytes")));
    }
    Ok(Some(len - text.len()).filter(|&missing| missing > 0))
}

/// What has been heard whole.
pub(super) fn parse<T: for<'a> Deserialize<'a>>(heard: &[u8]) -> std::io::Result<T> {
    Ok(serde_json::from_slice(&heard[LEN..])?)
}
