//! Versions, and codes in words.

use std::ffi::{CStr, c_char, c_int, c_uint};

use halfstep_vgpu::driver::error::Error;

use crate::call::{export, forget_error, last_error, lock, put};

/// ROCm 6.4, whose numbers for kinds of memory are used.
const VERSION: c_int = 60_443_483;

/// Code, name, words.
const CODES: [(u32, &CStr, &CStr); 34] = [
    (0, c"hipSuccess", c"no error"),
    (1, c"hipErrorInvalidValue", c"invalid argument"),
    (2, c"hipErrorOutOfMemory", c"out of memory"),
    (3, c"hipErrorNotInitialized", c"initialization error"),
    (100, c"hipErrorNoDevice", c"no ROCm-capable device is detected"),
    (101, c"hipErrorInvalidDevice", c"invalid device ordinal"),
    (200, c"hipErrorInvalidImage", c"device kernel image is invalid"),
    (201, c"hipErrorInvalidContext", c"invalid device context"),
    (209, c"hipErrorNoBinaryForGpu", c"no kernel image is available for execution on the device"),
    (218, c"hipErrorInvalidKernelFile", c"invalid kernel file"),
    (301, c"hipErrorFileNotFound", c"file not found"),
    (400, c"hipErrorInvalidHandle", c"invalid resource handle"),
    (401, c"hipErrorIllegalState", c"the operation cannot be performed in the present state"),
    (500, c"hipErrorNotFound", c"named symbol not found"),
    (600, c"hipErrorNotReady", c"device not ready"),
    (700, c"hipErrorIllegalAddress", c"an illegal memory access was encountered"),
    (701, c"hipErrorLaunchOutOfResources", c"out of resources"),
    (704, c"hipErrorPeerAccessAlreadyEnabled", c"peer access is already enabled"),
    (705, c"hipErrorPeerAccessNotEnabled", c"peer access has not been enabled"),
    (712, c"hipErrorHostMemoryAlreadyRegistered", c"host memory is already registered"),
    (713, c"hipErrorHostMemoryNotRegistered", c"host memory is not registered"),
    (719, c"hipErrorLaunchFailure", c"unspecified launch failure"),
    (801, c"hipErrorNotSupported", c"operation not supported"),
    (900, c"hipErrorStreamCaptureUnsupported", c"operation not permitted when stream is capturing"),
    (
        901,
        c"hipErrorStreamCaptureInvalidated",
        c"operation failed due to a previous error during capture",
    ),
    (
        902,
        c"hipErrorStreamCaptureMerge",
        c"operation would result in a merge of separate capture sequences",
    ),
    (
        903,
        c"hipErrorStreamCaptureUnmatched",
        c"capture was not ended in the same stream as it began",
    ),
    (904, c"hipErrorStreamCaptureUnjoined", c"capturing stream has unjoined work"),
    (
        905,
        c"hipErrorStreamCaptureIsolation",
        c"dependency created on uncaptured work in another stream",
    ),
    (
        906,
        c"hipErrorStreamCaptureImplicit",
        c"operation would make the legacy stream depend on a capturing blocking stream",
    ),
    (
        907,
        c"hipErrorCapturedEvent",
        c"operation not permitted on an event last recorded in a capturing stream",
    ),
    (
        908,
        c"hipErrorStreamCaptureWrongThread",
        c"attempt to terminate a thread-local capture sequence from another thread",
    ),
    (910, c"hipErrorGraphExecUpdateFailure", c"the graph update was not performed"),
    (999, c"hipErrorUnknown", c"unknown error"),
];

fn find(code: u32) -> (&'static CStr, &'static CStr) {
    let found = CODES.iter().find(|(known, ..)| *known == code);
    found.map_or((c"hipErrorUnknown", c"unknown error"), |(_, name, words)| (*name, *words))
}

/// A code's name.
#[unsafe(no_mangle)]
pub extern "C" fn hipGetErrorName(error: u32) -> *const c_char {
    find(error).0.as_ptr()
}

/// A code in words.
#[unsafe(no_mangle)]
pub extern "C" fn hipGetErrorString(error: u32) -> *const c_char {
    find(error).1.as_ptr()
}

/// The thread's last error, which is forgotten.
#[unsafe(no_mangle)]
pub extern "C" fn hipGetLastError() -> u32 {
    let error = last_error();
    forget_error();
    error
}

/// The thread's last error.
#[unsafe(no_mangle)]
pub extern "C" fn hipPeekAtLastError() -> u32 {
    last_error()
}

export! {
    #[doc = "Begins everything, which happens anyway."]
    fn hipInit(flags: c_uint) {
        if flags != 0 {
            return Err(Error::InvalidValue);
        }
        lock().initialized = true;
        Ok(())
    }

    #[doc = "The version of HIP."]
    fn hipDriverGetVersion(version: *mut c_int) {
        put(version, VERSION)
    }

    #[doc = "The version of HIP."]
    fn hipRuntimeGetVersion(version: *mut c_int) {
        put(version, VERSION)
    }

    #[doc = "A code's name."]
    fn hipDrvGetErrorName(error: u32, name: *mut *const c_char) {
        put(name, find(error).0.as_ptr())
    }

    #[doc = "A code in words."]
    fn hipDrvGetErrorString(error: u32, words: *mut *const c_char) {
        put(words, find(error).1.as_ptr())
    }
}
