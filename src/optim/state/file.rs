//! The file: a safetensors file whose header carries checksums, replaced as a whole or not at all.
//!
//! `u64 length of the header | header (JSON) | data`. In the header's `__metadata__`, `hashes` is
//! one XXH64 for each tensor, in the order of their data, and `header_hash` is the XXH64 of all
//! bytes before the data with its own 16 digits as zeros. Every byte of the file is under one of
//! them, so any single flipped bit is found.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::hash::Hash;
use crate::{Error, Result};

/// Where the header's own hash stands.
const MARK: &str = "\"header_hash\":\"";
const DIGITS: usize = 16;
/// The largest header that safetensors readers accept.
const MAX_HEADER: u64 = 100_000_000;

pub(crate) fn io(op: &'static str, path: &Path, error: impl ToString) -> Error {
    Error::Io { op, path: path.display().to_string(), text: error.to_string() }
}

/// A hash as the file writes it.
pub(crate) fn digits(hash: u64) -> String {
    format!("{hash:016x}")
}

/// The bytes before the data: length, header padded to 8 bytes, with the header's hash filled in.
fn sealed(header: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    let length = bytes.len() as u64 - 8;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    let place = 8 + header.find(MARK)? + MARK.len();
    let hash = digits(header_hash(&bytes, place)?);
    bytes.get_mut(place..place + DIGITS)?.copy_from_slice(hash.as_bytes());
    (length <= MAX_HEADER).then_some(bytes)
}

/// The hash of all bytes before the data, with the digits at `place` as zeros.
fn header_hash(bytes: &[u8], place: usize) -> Option<u64> {
    let mut hash = Hash::new();
    hash.update(bytes.get(..place)?);
    hash.update(&[b'0'; DIGITS]);
    hash.update(bytes.get(place + DIGITS..)?);
    Some(hash.finish())
}

/// A file being written under another name.
pub(crate) struct Draft {
    op: &'static str,
    temporary: PathBuf,
    target: PathBuf,
    file: Option<File>,
    /// Bytes before the data.
    start: u64,
}

/// So that two writers of one process have two names.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

impl Draft {
    /// Opens a file beside `path`; a link is followed, so that it stays a link.
    pub(crate) fn new(op: &'static str, path: &Path) -> Result<Self> {
        let target = match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => {
                fs::canonicalize(path).map_err(|e| io(op, path, e))?
            }
            _ => path.to_path_buf(),
        };
        if fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
            return Err(io(op, path, "not a regular file"));
        }
        let Some(name) = target.file_name() else {
            return Err(io(op, path, "no file name"));
        };
        let (temporary, file) = loop {
            let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{number}.tmp", std::process::id()));
            let temporary = target.with_file_name(hidden);
            match OpenOptions::new().read(true).write(true).create_new(true).open(&temporary) {
                // Of a process that was killed and had this one's number, as each start in a container has.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io(op, &target, e)), // a missing folder, for one
                Ok(file) => break (temporary, Some(file)),
            }
        };
        Ok(Self { op, temporary, target, file, start: 0 })
    }

    fn file(&mut self) -> Result<&mut File> {
        let closed = io(self.op, &self.temporary, "closed");
        self.file.as_mut().ok_or(closed)
    }

    /// Writes the header: first to leave room, and again, of the same length, when hashes are
    /// known.
    pub(crate) fn header(&mut self, header: &str) -> Result<()> {
        let Some(bytes) = sealed(header) else {
            let wrong = Error::checkpoint(self.op, "header", "at most 100 MB", header.len());
            return Err(wrong.in_file(&self.target));
        };
        self.start = bytes.len() as u64;
        let temporary = self.temporary.clone();
        let op = self.op;
        let file = self.file()?;
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&bytes));
        written.map_err(|e| io(op, &temporary, e))
    }

    /// Appends data.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let temporary = self.temporary.clone();
        let op = self.op;
        self.file()?.write_all(bytes).map_err(|e| io(op, &temporary, e))
    }

    /// Writes data from byte `to` of the data on.
    pub(crate) fn write_at(&mut self, to: u64, bytes: &[u8]) -> Result<()> {
        self.at(to, |file| file.write_all(bytes))
    }

    /// Reads data that has been written, from byte `from` of the data on.
    pub(crate) fn read_at(&mut self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.at(from, |file| file.read_exact(bytes))
    }

    fn at(
        &mut self,
        place: u64,
        work: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<()> {
        let (op, temporary) = (self.op, self.temporary.clone());
        let place = SeekFrom::Start(self.start + place);
        let file = self.file()?;
        file.seek(place).and_then(|_| work(file)).map_err(|e| io(op, &temporary, e))
    }

    /// Puts the file in place of the old one: data on the disk first, then the name, then the
    /// folder. Whoever opens the name finds the old file or the new one, whole. An error is one of before the new one is
    /// there.
    pub(crate) fn commit(mut self) -> Result<()> {
        let (op, temporary, target) = (self.op, self.temporary.clone(), self.target.clone());
        let file = self.file()?;
        let place = || -> std::io::Result<()> {
            if let Ok(old) = fs::metadata(&target) {
                file.set_permissions(old.permissions())?;
            }
            file.sync_all()?;
            let folder = folder_of(&target)?;
            rename(&temporary, &target, folder.as_ref())
        };
        place().map_err(|e| io(op, &target, e))?;
        self.file = None;
        Ok(())
    }
}

/// The folder that a file is in, to be synced; none where that cannot be: in one that may be written and not read, the
/// system decides when a new name is on the disk.
fn folder_of(file: &Path) -> std::io::Result<Option<File>> {
    if cfg!(not(unix)) {
        return Ok(None);
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    match File::open(folder.unwrap_or(Path::new("."))) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(None),
        opened => opened.map(Some),
    }
}

/// Gives a file its name, and syncs the folder. Once it has the name it is what everybody finds, whether or not the folder
/// can be synced (some file systems never do): that is no failure.
fn rename(from: &Path, to: &Path, folder: Option<&File>) -> std::io::Result<()> {
    fs::rename(from, to)?;
    let _ = folder.map(File::sync_all);
    Ok(())
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A file whose header has been read and found whole.
pub(crate) struct Reader {
    op: &'static str,
    pub(super) path: PathBuf,
    file: File,
    pub(crate) header: String,
    /// Bytes before the data.
    start: u64,
    /// Bytes of data.
    pub(crate) data: u64,
}

impl Reader {
    /// A file that this crate wrote.
    pub(crate) fn new(op: &'static str, path: &Path) -> Result<Self> {
        let reader = Self::open(op, path)?;
        if !reader.header.contains(MARK) {
            let expected = "a state file of halfstep";
            return Err(Error::checkpoint(op, "header", expected, "no header_hash").in_file(path));
        }
        Ok(reader)
    }

    /// Any safetensors file; its header's hash is checked where it has one.
    pub(crate) fn open(op: &'static str, path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| io(op, path, e);
        let damaged = |expected: String, found: String| {
            Error::checkpoint(op, "header", expected, found).in_file(path)
        };
        let found = fs::metadata(path).map_err(failed)?;
        if !found.is_file() {
            return Err(io(op, path, "not a regular file"));
        }
        let mut file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut length = [0u8; 8];
        if size < 8 {
            return Err(damaged("at least 8 bytes".into(), size.to_string()));
        }
        file.read_exact(&mut length).map_err(failed)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length > size - 8 {
            let expected = format!("at most {} bytes", (size - 8).min(MAX_HEADER));
            return Err(damaged(expected, length.to_string()));
        }
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.resize(8 + length as usize, 0);
        file.read_exact(&mut bytes[8..]).map_err(failed)?;
        let Ok(header) = String::from_utf8(bytes.split_off(8)) else {
            return Err(damaged("UTF-8".into(), "other bytes".into()));
        };
        if let Some(place) = header.find(MARK).map(|at| at + MARK.len()) {
            bytes.extend_from_slice(header.as_bytes());
            let hash = header_hash(&bytes, 8 + place).map(digits).unwrap_or_default();
            let found = header.as_bytes().get(place..place + DIGITS).unwrap_or_default();
            if hash.as_bytes() != found {
                let found = String::from_utf8_lossy(found);
                return Err(damaged(format!("checksum {found}"), hash));
            }
        }
        let path = path.to_path_buf();
        Ok(Self { op, path, file, header, start: 8 + length, data: size - 8 - length })
    }

    /// Goes to a byte of the data.
    pub(crate) fn seek(&mut self, to: u64) -> Result<()> {
        let place = SeekFrom::Start(self.start + to);
        self.file.seek(place).map(|_| ()).map_err(|e| io(self.op, &self.path, e))
    }

    /// Fills `bytes` with what follows.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact(bytes).map_err(|e| io(self.op, &self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("halfstep-file-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A folder that refuses to be synced: so does the null device.
    #[cfg(unix)]
    #[test]
    fn a_file_that_has_its_name_is_saved() {
        let folder = Folder::new("sync");
        let (from, to) = (folder.0.join("from"), folder.0.join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        let refuses = File::open("/dev/null").unwrap();
        assert!(refuses.sync_all().is_err());
        rename(&from, &to, Some(&refuses)).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert!(folder_of(&to).unwrap().is_some());
        assert!(folder_of(Path::new("name")).unwrap().is_some(), "the working folder");
        assert!(folder_of(&folder.0.join("none/to")).is_err());
    }

    /// Drafts of a process that had this one's number, and was killed: containers give the same one at every start.
    #[test]
    fn drafts_that_were_left_behind_are_passed_over() {
        let folder = Folder::new("left");
        let next = DRAFTS.load(Ordering::Relaxed);
        for number in 0..next + 20 {
            let name = format!(".state.{}-{number}.tmp", std::process::id());
            fs::write(folder.0.join(name), "half").unwrap();
        }
        let left = fs::read_dir(&folder.0).unwrap().count();
        let mut draft = Draft::new("save", &folder.0.join("state")).unwrap();
        draft.write(b"whole").unwrap();
        draft.commit().unwrap();
        assert_eq!(fs::read(folder.0.join("state")).unwrap(), b"whole");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), left + 1, "others' stay");
    }
}
