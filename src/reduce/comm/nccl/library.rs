//! The library's functions, looked up once by name. RCCL has NCCL's names, types and numbers, so one
//! table serves both; nothing is linked, and a library that is missing is an error.
//!
//! Source: nccl.h of NCCL 2.14 to 2.27 and of RCCL (ROCm 5.7 to 6.4). All calls are of communicators
//! that do not block: [`IN_PROGRESS`] is no failure, and [`Comm::progress`] tells the end.

use std::error::Error;
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use crate::reduce::comm::Reduction;
use crate::{DeviceKind, Dtype};

/// Bytes of what a communicator is known by.
pub(super) const ID_BYTES: usize = 128;
/// Bytes are sent, whatever they stand for.
const UINT8: u32 = 1;
/// Other types, and operators.
const INT32: u32 = 2;
const FLOAT16: u32 = 6;
const FLOAT32: u32 = 7;
const BFLOAT16: u32 = 9;
const SUM: u32 = 0;
const MAX: u32 = 2;
const SUCCESS: u32 = 0;
const IN_PROGRESS: u32 = 7;
/// The first version with communicators that do not block: 2.14.0.
const OLDEST: i32 = 21400;

/// `ncclUniqueId`, passed by value.
#[derive(Clone, Copy)]
#[repr(C)]
struct UniqueId([u8; ID_BYTES]);

/// `ncclConfig_t` as of 2.14. Later versions have more fields behind these and take this size, with
/// this version, for what it is.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: i32,
}

/// Names of files, by vendor.
const FILES: [&[&str]; 2] = [&["libnccl.so.2", "libnccl.so"], &["librccl.so.1", "librccl.so"]];

/// A call that failed.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub call: &'static str,
    pub reason: String,
}

macro_rules! functions {
    ($($name:ident($($arg:ident: $type:ty),*) = $symbol:literal;)*) => {
        struct Table {
            $($name: unsafe extern "C" fn($($type),*) -> u32,)*
            error_string: unsafe extern "C" fn(u32) -> *const c_char,
            last_error: unsafe extern "C" fn(usize) -> *const c_char,
        }

        impl Table {
            fn load(library: &libloading::Library) -> Result<Self, String> {
                let missing = |name: &str| format!("it has no {name}: it is older than 2.14");
                Ok(Self {
                    $($name: {
                        // SAFETY: nccl.h declares the function with these arguments and an enumeration,
                        // which is an integer, as its result.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($($type),*) -> u32>($symbol.as_bytes())
                        };
                        *found.map_err(|_| missing($symbol))?
                    },)*
                    // SAFETY: as above.
                    error_string: *unsafe { library.get(b"ncclGetErrorString") }
                        .map_err(|_| missing("ncclGetErrorString"))?,
                    // SAFETY: as above.
                    last_error: *unsafe { library.get(b"ncclGetLastError") }
                        .map_err(|_| missing("ncclGetLastError"))?,
                })
            }
        }

        impl Library {
            $(
                #[allow(clippy::too_many_arguments)] // the library's own
                /// # Safety
                /// As the library's manual says of the function.
                unsafe fn $name(&self, $($arg: $type),*) -> Result<(), Failed> {
                    // SAFETY: the caller's promise.
                    let code = unsafe { (self.table.$name)($($arg),*) };
                    self.outcome($symbol, code)
                }
            )*
        }
    };
}

functions! {
    get_version(version: *mut i32) = "ncclGetVersion";
    get_unique_id(id: *mut UniqueId) = "ncclGetUniqueId";
    init(comm: *mut usize, ranks: i32, id: UniqueId, rank: i32, config: *mut Config) = "ncclCommInitRankConfig";
    async_error(comm: usize, state: *mut u32) = "ncclCommGetAsyncError";
    destroy(comm: usize) = "ncclCommDestroy";
    abort(comm: usize) = "ncclCommAbort";
    group_start() = "ncclGroupStart";
    group_end() = "ncclGroupEnd";
    send(from: u64, count: usize, kind: u32, peer: i32, comm: usize, stream: u64) = "ncclSend";
    receive(to: u64, count: usize, kind: u32, peer: i32, comm: usize, stream: u64) = "ncclRecv";
    all_reduce(from: u64, to: u64, count: usize, kind: u32, operator: u32, comm: usize, stream: u64) = "ncclAllReduce";
    all_gather(from: u64, to: u64, count: usize, kind: u32, comm: usize, stream: u64) = "ncclAllGather";
}

/// The first of the files that can be loaded; or why none can: one may be there, and what it needs be missing.
fn load(files: &[&str]) -> Result<libloading::Library, String> {
    let mut reasons = Vec::new();
    for name in files {
        // SAFETY: the library's initialisers are what every program that uses it runs.
        match unsafe { libloading::Library::new(*name) } {
            Ok(library) => return Ok(library),
            // What the system says of it is behind what was tried.
            Err(error) => reasons.push(error.source().unwrap_or(&error).to_string()),
        }
    }
    Err(reasons.join("; "))
}

/// A vendor's library, open until the process ends: it has threads of its own.
pub(super) struct Library {
    table: Table,
    _library: libloading::Library,
}

impl Library {
    /// The library for a kind of device. An `Err` says what is missing, and what cures it.
    pub fn open(kind: DeviceKind) -> Result<&'static Self, String> {
        static OPEN: [OnceLock<Library>; 2] = [const { OnceLock::new() }; 2];
        let (vendor, built, feature) = match kind {
            DeviceKind::Cuda => (0, cfg!(feature = "nccl"), "nccl"),
            DeviceKind::Hip => (1, cfg!(feature = "rccl"), "rccl"),
            _ => return Err("ranks of a CPU are threads (`local`) or processes (`Mpi`)".into()),
        };
        if !built {
            return Err(format!("this build is without the feature `{feature}`"));
        }
        if let Some(open) = OPEN[vendor].get() {
            return Ok(open);
        }
        let library = load(FILES[vendor]).map_err(|reasons| {
            format!("no {feature}: {reasons}; install it, or name its folder in LD_LIBRARY_PATH")
        })?;
        let opened = Self { table: Table::load(&library)?, _library: library };
        let version = opened.version().map_err(|failed| failed.reason)?;
        if version < OLDEST {
            return Err(format!("{feature} has version {version}; {OLDEST} or newer is needed"));
        }
        Ok(OPEN[vendor].get_or_init(|| opened))
    }

    /// The library's version, as its own number: 21803 for 2.18.3.
    pub fn version(&self) -> Result<i32, Failed> {
        let mut version = 0;
        // SAFETY: one number is written.
        unsafe { self.get_version(&mut version) }?;
        Ok(version)
    }

    /// What a new communicator will be known by; one rank makes it for all.
    pub fn unique_id(&self) -> Result<[u8; ID_BYTES], Failed> {
        let mut id = UniqueId([0; ID_BYTES]);
        // SAFETY: one identifier is written.
        unsafe { self.get_unique_id(&mut id) }?;
        Ok(id.0)
    }

    fn outcome(&self, call: &'static str, code: u32) -> Result<(), Failed> {
        if code == SUCCESS || code == IN_PROGRESS {
            return Ok(());
        }
        let text = |text: *const c_char| {
            if text.is_null() {
                return String::new();
            }
            // SAFETY: not null: a string of the library's that nobody changes before its next call.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_string()
        };
        // SAFETY: takes any number.
        let what = text(unsafe { (self.table.error_string)(code) });
        // SAFETY: the argument is not used; the manual allows none.
        let more = text(unsafe { (self.table.last_error)(0) });
        let more = if more.is_empty() { more } else { format!(": {more}") };
        Err(Failed { call, reason: format!("{code} ({what}{more})") })
    }
}

/// Bytes to a rank, or from one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub peer: usize,
    pub address: u64,
    pub bytes: usize,
}

/// One rank of a communicator of the library's. Dropped without [`end`](Self::end) it is left as it is.
pub(super) struct Comm {
    library: &'static Library,
    handle: usize,
}

impl Comm {
    /// Begins to make rank `rank` of `ranks`, on the thread's current device.
    pub fn begin(
        library: &'static Library,
        id: [u8; ID_BYTES],
        rank: usize,
        ranks: usize,
    ) -> Result<Self, Failed> {
        let count = |n: usize| {
            let call = "ncclCommInitRankConfig";
            i32::try_from(n).map_err(|_| Failed { call, reason: format!("{n} ranks") })
        };
        let (rank, ranks) = (count(rank)?, count(ranks)?);
        let mut config = Config {
            size: size_of::<Config>(),
            magic: 0xcafe_beef,
            version: OLDEST as u32,
            blocking: 0,
        };
        let mut handle = 0;
        // SAFETY: one handle is written; the configuration is read during the call.
        unsafe { library.init(&mut handle, ranks, UniqueId(id), rank, &mut config) }?;
        Ok(Self { library, handle })
    }

    /// Whether the last call has ended; an error that came in the meantime.
    pub fn progress(&self) -> Result<bool, Failed> {
        let mut state = SUCCESS;
        // SAFETY: a living communicator; one number is written.
        unsafe { self.library.async_error(self.handle, &mut state) }?;
        self.library.outcome("ncclCommGetAsyncError", state)?;
        Ok(state == SUCCESS)
    }

    /// Sends and receives, all at once.
    ///
    /// # Safety
    /// All addresses are of memory of the communicator's device, valid until `stream`, a stream of that
    /// device, has come past it; what is received is nobody else's until then.
    pub unsafe fn exchange(
        &self,
        sends: &[Message],
        receives: &[Message],
        stream: u64,
    ) -> Result<(), Failed> {
        let Self { library, handle } = *self;
        // SAFETY: takes nothing.
        unsafe { library.group_start() }?;
        let mut given = Ok(());
        for message in sends {
            let Message { peer, address, bytes } = *message;
            // SAFETY: the caller's promise.
            let sent = unsafe { library.send(address, bytes, UINT8, peer as i32, handle, stream) };
            given = given.and(sent);
        }
        for message in receives {
            let Message { peer, address, bytes } = *message;
            // SAFETY: the caller's promise.
            let taken =
                unsafe { library.receive(address, bytes, UINT8, peer as i32, handle, stream) };
            given = given.and(taken);
        }
        // A group that was begun has to be ended; the first failure is the cause.
        // SAFETY: takes nothing.
        given.and(unsafe { library.group_end() })
    }

    /// Every rank's `bytes` bytes, in rank order.
    ///
    /// # Safety
    /// As [`exchange`](Self::exchange); `to` has room for `bytes` of each rank.
    pub unsafe fn gather(
        &self,
        from: u64,
        to: u64,
        bytes: usize,
        stream: u64,
    ) -> Result<(), Failed> {
        // SAFETY: the caller's promise.
        unsafe { self.library.all_gather(from, to, bytes, UINT8, self.handle, stream) }
    }

    /// The reduction of every rank's `count` values, put in their place, in an order of the library's.
    ///
    /// # Safety
    /// As [`exchange`](Self::exchange).
    pub unsafe fn reduce(
        &self,
        address: u64,
        count: usize,
        reduction: Reduction,
        stream: u64,
    ) -> Result<(), Failed> {
        let (kind, operator) = match reduction {
            Reduction::MaxU8 => (UINT8, MAX),
            Reduction::SumI32 => (INT32, SUM),
            Reduction::Sum(Dtype::F16) => (FLOAT16, SUM),
            Reduction::Sum(Dtype::F32) => (FLOAT32, SUM),
            Reduction::Sum(Dtype::Bf16) => (BFLOAT16, SUM),
        };
        let Self { library, handle } = *self;
        // SAFETY: the caller's promise.
        unsafe { library.all_reduce(address, address, count, kind, operator, handle, stream) }
    }

    /// Ends the communicator: where nothing has failed, once all that it has sent has left, since a stream that has come
    /// past a call says only that the library has the bytes; else at once, with what is in streams. May wait for
    /// other ranks of this host to do the same. Returns whether it has ended: a failure leaves it as it is.
    pub fn end(self, whole: bool) -> bool {
        let Self { library, handle } = self;
        // SAFETY: a living communicator, which nobody uses any more.
        let ended = unsafe {
            match whole {
                true => library.destroy(handle),
                false => library.abort(handle),
            }
        };
        ended.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library that is there, and cannot be loaded, is not said to be missing.
    #[test]
    fn why_a_library_cannot_be_loaded_is_said() {
        let name = format!("halfstep-no-library-{}.so", std::process::id());
        let path = std::env::temp_dir().join(&name);
        std::fs::write(&path, "no library").unwrap();
        let reasons = load(&["libhalfstep-missing.so", path.to_str().unwrap()]).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        let reasons: Vec<&str> = reasons.split("; ").collect();
        assert!(reasons[0].contains("libhalfstep-missing.so"), "{reasons:?}");
        assert!(reasons[1].contains(&name) && reasons[1].contains("short"), "{reasons:?}");
    }
}
