//! Versions, and codes in words.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use halfstep_vgpu::driver::error::Error;

use crate::call::{export, lock, put, put_if, text};

/// CUDA 13.0, the toolkit whose PTX is read.
const VERSION: c_int = 13000;

/// Code, name, words.
const CODES: [(u32, &CStr, &CStr); 39] = [
    (0, c"CUDA_SUCCESS", c"no error"),
    (1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (4, c"CUDA_ERROR_DEINITIALIZED", c"driver shutting down"),
    (100, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
    (101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (200, c"CUDA_ERROR_INVALID_IMAGE", c"device kernel image is invalid"),
    (201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
    (
        209,
        c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        c"no kernel image is available for execution on the device",
    ),
    (214, c"CUDA_ERROR_ECC_UNCORRECTABLE", c"uncorrectable ECC error encountered"),
    (218, c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
    (
        222,
        c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        c"the provided PTX was compiled with an unsupported toolchain.",
    ),
    (301, c"CUDA_ERROR_FILE_NOT_FOUND", c"file not found"),
    (400, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
    (401, c"CUDA_ERROR_ILLEGAL_STATE", c"the operation cannot be performed in the present state"),
    (500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (600, c"CUDA_ERROR_NOT_READY", c"device not ready"),
    (700, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered"),
    (701, c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", c"too many resources requested for launch"),
    (702, c"CUDA_ERROR_LAUNCH_TIMEOUT", c"the launch timed out and was terminated"),
    (704, c"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", c"peer access is already enabled"),
    (705, c"CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", c"peer access has not been enabled"),
    (
        712,
        c"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
        c"part or all of the requested memory range is already mapped",
    ),
    (
        713,
        c"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
        c"pointer does not correspond to a registered memory region",
    ),
    (716, c"CUDA_ERROR_MISALIGNED_ADDRESS", c"misaligned address"),
    (719, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
    (800, c"CUDA_ERROR_NOT_PERMITTED", c"operation not permitted"),
    (801, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
    (
        900,
        c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        c"operation not permitted when stream is capturing",
    ),
    (
        901,
        c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        c"operation failed due to a previous error during capture",
    ),
    (
        902,
        c"CUDA_ERROR_STREAM_CAPTURE_MERGE",
        c"operation would result in a merge of separate capture sequences",
    ),
    (
        903,
        c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
        c"capture was not ended in the same stream as it began",
    ),
    (904, c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED", c"capturing stream has unjoined work"),
    (
        905,
        c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
        c"dependency created on uncaptured work in another stream",
    ),
    (
        906,
        c"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
        c"operation would make the legacy stream depend on a capturing blocking stream",
    ),
    (
        907,
        c"CUDA_ERROR_CAPTURED_EVENT",
        c"operation not permitted on an event last recorded in a capturing stream",
    ),
    (
        908,
        c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
        c"attempt to terminate a thread-local capture sequence from another thread",
    ),
    (999, c"CUDA_ERROR_UNKNOWN", c"unknown error"),
];

fn find(code: u32) -> Option<(&'static CStr, &'static CStr)> {
    CODES.iter().find(|(known, ..)| *known == code).map(|(_, name, words)| (*name, *words))
}

export! {
    #[doc = "Begins everything."]
    fn cuInit(flags: c_uint) {
        if flags != 0 {
            return Err(Error::InvalidValue);
        }
        let mut d = lock();
        if d.settings.devices == 0 {
            return Err(Error::NoDevice);
        }
        d.initialized = true;
        Ok(())
    }

    #[doc = "The version of CUDA."]
    fn cuDriverGetVersion(version: *mut c_int) {
        put(version, VERSION)
    }

    #[doc = "A code's name."]
    fn cuGetErrorName(error: u32, name: *mut *const c_char) {
        let Some((found, _)) = find(error) else {
            put(name, std::ptr::null())?;
            return Err(Error::InvalidValue);
        };
        put(name, found.as_ptr())
    }

    #[doc = "A code in words."]
    fn cuGetErrorString(error: u32, words: *mut *const c_char) {
        let Some((_, found)) = find(error) else {
            put(words, std::ptr::null())?;
            return Err(Error::InvalidValue);
        };
        put(words, found.as_ptr())
    }

    #[doc = "The address of a function."]
    fn cuGetProcAddress(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64) {
        put(function, lookup(text(symbol)?).ok_or(Error::NotFound)?)
    }

    #[doc = "The address of a function."]
    fn cuGetProcAddress_v2(
        symbol: *const c_char,
        function: *mut *mut c_void,
        version: c_int,
        flags: u64,
        status: *mut c_uint,
    ) {
        let found = lookup(text(symbol)?);
        put_if(status, u32::from(found.is_none()));
        put(function, found.unwrap_or(std::ptr::null_mut()))
    }
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dladdr(address: *const c_void, info: *mut [*mut c_void; 4]) -> c_int;
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
}

/// A function of this library by the name that callers use: the newest version of it that is
/// provided.
fn lookup(name: &str) -> Option<*mut c_void> {
    let mut info = [std::ptr::null_mut(); 4];
    // SAFETY: `info` has the size of Dl_info; the first field is the name of the file that this
    // function is in, which is loaded, so that opening it only gives its handle.
    let library = unsafe {
        if dladdr(lookup as *const c_void, &mut info) == 0 {
            return None;
        }
        dlopen(info[0].cast(), 2)
    };
    let names = ["_v4", "_v3", "_v2", ""].map(|version| format!("{name}{version}\0"));
    names.iter().find_map(|name| {
        // SAFETY: a string with its end, and a handle that is open.
        let found = unsafe { dlsym(library, name.as_ptr().cast()) };
        (!found.is_null()).then_some(found)
    })
}
