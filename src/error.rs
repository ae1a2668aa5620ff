//! The one error type. An error names the operation, the argument, what was expected and what was
//! found; when an operation returns one, it has written nothing (unless the variant says otherwise).

use std::borrow::Cow;
#[cfg(feature = "safetensors")]
use std::path::Path;

use crate::reduce::Fault;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The name of an argument: `"a"`, or with an index `"grads[3]"`.
pub type Arg = Cow<'static, str>;

/// What went wrong, where, what was expected there and what was found.
///
/// Variants up to [`Error::State`] are found before anything is written; they leave every output,
/// and every object involved, as it was.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A length, shape or stride does not fit.
    #[error("{op}: {arg}: expected {expected}, found {found}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The argument.
        arg: Arg,
        /// What would have fitted.
        expected: String,
        /// What was passed.
        found: String,
    },
    /// A number is outside its range.
    #[error("{op}: {arg}: expected {expected}, found {found}")]
    Range {
        /// The operation.
        op: &'static str,
        /// The argument.
        arg: Arg,
        /// The allowed range.
        expected: String,
        /// The number passed.
        found: String,
    },
    /// A pointer is not aligned to its element.
    #[error("{op}: {arg}: expected an address aligned to {need} bytes, found {address:#x}")]
    Align {
        /// The operation.
        op: &'static str,
        /// The argument.
        arg: Arg,
        /// Alignment needed, in bytes.
        need: usize,
        /// The address passed.
        address: u64,
    },
    /// Two arguments share memory in a way the operation cannot allow.
    #[error("{op}: {first} and {second} overlap")]
    Overlap {
        /// The operation.
        op: &'static str,
        /// One argument (an output).
        first: Arg,
        /// The other.
        second: Arg,
    },
    /// An argument (memory, a stream or an event) is of another device than the call.
    #[error("{op}: {arg}: expected the device {expected}, found {found}")]
    Device {
        /// The operation.
        op: &'static str,
        /// The argument.
        arg: Arg,
        /// The device that the call is for.
        expected: String,
        /// The device of the argument.
        found: String,
    },
    /// The combination asked for does not exist; the reason says what does.
    #[error("{op}: not supported: {reason}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// Why, and what is supported instead.
        reason: String,
    },
    /// The call came at the wrong time.
    #[error("{op}: expected {expected}, found {found}")]
    State {
        /// The operation.
        op: &'static str,
        /// The state in which the call is allowed.
        expected: String,
        /// The state it met.
        found: String,
    },
    /// Memory could not be had. Nothing of the call that asked for it is left allocated.
    #[error("out of memory: {bytes} bytes on {device}")]
    OutOfMemory {
        /// Size of the request that failed.
        bytes: usize,
        /// Where.
        device: String,
    },
    /// A GPU cannot be used: no driver, too old a driver, no such device, no image for it. The reason
    /// says what there is and what to do.
    #[error("{backend} device {index}: {reason}")]
    NoDevice {
        /// `cuda` or `hip`.
        backend: &'static str,
        /// The index asked for.
        index: usize,
        /// What is missing.
        reason: String,
    },
    /// A call of a driver failed. Where `deferred`, the cause is work enqueued earlier, the device is
    /// lost to this process, and every later call gives this error again; what that work was to
    /// write is undefined.
    #[error("{device}: {call} gave {text}{}", later(*deferred, recent))]
    Driver {
        /// The driver's function.
        call: &'static str,
        /// Its code.
        code: u32,
        /// The code with the driver's name for it.
        text: String,
        /// The device.
        device: String,
        /// Whether earlier work is to blame, not this call.
        deferred: bool,
        /// The last kernels launched before it was noticed, oldest first.
        recent: Vec<&'static str>,
    },
    /// A collective failed. The communicator answers every later call with the same fault.
    #[error("{0}")]
    Comm(#[from] Fault),
    /// A file could not be read or written.
    #[error("{op}: {path}: {text}")]
    Io {
        /// The operation.
        op: &'static str,
        /// The file.
        path: String,
        /// The system's words.
        text: String,
    },
    /// A file is damaged, or does not belong to this optimizer or outer step.
    #[error("{op}: {path}: {item}: expected {expected}, found {found}")]
    Checkpoint {
        /// The operation.
        op: &'static str,
        /// The file.
        path: String,
        /// The tensor or header field.
        item: String,
        /// What the file should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
}

/// The end of a driver error's text.
fn later(deferred: bool, recent: &[&'static str]) -> String {
    match (deferred, recent) {
        (false, _) => String::new(),
        (true, []) => ", left behind by earlier work".into(),
        (true, recent) => {
            format!(", left behind by earlier work; last launched: {}", recent.join(", "))
        }
    }
}

/// Short constructors, so that checks read as one line each.
impl Error {
    pub(crate) fn shape(
        op: &'static str,
        arg: impl Into<Arg>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        let (expected, found) = (expected.to_string(), found.to_string());
        Self::Shape { op, arg: arg.into(), expected, found }
    }

    pub(crate) fn range(
        op: &'static str,
        arg: impl Into<Arg>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        let (expected, found) = (expected.to_string(), found.to_string());
        Self::Range { op, arg: arg.into(), expected, found }
    }

    pub(crate) fn unsupported(op: &'static str, reason: impl ToString) -> Self {
        Self::Unsupported { op, reason: reason.to_string() }
    }

    pub(crate) fn state(op: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self::State { op, expected: expected.to_string(), found: found.to_string() }
    }
}

/// About state files.
#[cfg(feature = "safetensors")]
impl Error {
    /// Of a file that [`in_file`](Self::in_file) names.
    pub(crate) fn checkpoint(
        op: &'static str,
        item: impl ToString,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        let [item, expected, found] = [item.to_string(), expected.to_string(), found.to_string()];
        Self::Checkpoint { op, path: String::new(), item, expected, found }
    }

    /// The same error, of this file.
    pub(crate) fn in_file(mut self, file: &Path) -> Self {
        if let Self::Checkpoint { path, .. } = &mut self {
            *path = file.display().to_string();
        }
        self
    }
}
