//! The functions, in the libraries' own words.

use super::{INVALID_ARGUMENT, INVALID_USAGE};
use crate::driver::error::Result;

/// A communicator's configuration, as far as it is read: its first fields, which are the same in every
/// version that has it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: i32,
}

impl Config {
    /// Whether the caller filled it in and wants calls that do not block.
    pub fn check(&self) -> Result {
        let filled = self.magic == 0xcafe_beef && self.size >= 24 && self.version >= 21400;
        match (filled, self.blocking) {
            (true, 0) => Ok(()),
            (true, _) => Err(INVALID_USAGE),
            (false, _) => Err(INVALID_ARGUMENT),
        }
    }
}

/// Exports the libraries' functions, over the front's driver.
#[macro_export]
#[allow(clippy::crate_in_macro_def)] // the front's own
macro_rules! export_nccl {
    () => {
        mod nccl {
            use std::ffi::c_char;

            use halfstep_vgpu::driver::error::Error;
            use halfstep_vgpu::driver::nccl::{Call, Config, Id, VERSION, Value, describe};

            use crate::call::{export, lock, put};

            /// 128 bytes, passed as a structure.
            #[derive(Debug, Clone, Copy)]
            #[repr(C)]
            pub struct UniqueId(Id);

            export! {
                #[doc = "The library's version."]
                fn ncclGetVersion(version: *mut i32) {
                    put(version, VERSION)
                }

                #[doc = "What a new communicator will be known by."]
                fn ncclGetUniqueId(id: *mut UniqueId) {
                    put(id, UniqueId(lock().nccl_id()))
                }

                #[doc = "One rank of a communicator."]
                fn ncclCommInitRankConfig(
                    comm: *mut u64, ranks: i32, id: UniqueId, rank: i32, config: *const Config,
                ) {
                    if config.is_null() {
                        return Err(Error::Injected(4));
                    }
                    // SAFETY: not null; the caller promised a configuration.
                    unsafe { config.read() }.check()?;
                    put(comm, lock().nccl_init(id.0, ranks, rank)?)?;
                    Err(Error::Injected(7))
                }

                #[doc = "How the last call stands."]
                fn ncclCommGetAsyncError(comm: u64, state: *mut u32) {
                    let now = lock().nccl_state(comm).map_or_else(Error::code, |()| 0);
                    put(state, now)
                }

                #[doc = "Ends a communicator that does nothing."]
                fn ncclCommDestroy(comm: u64) {
                    lock().nccl_destroy(comm)
                }

                #[doc = "Ends a communicator, whatever it does."]
                fn ncclCommAbort(comm: u64) {
                    lock().nccl_abort(comm)
                }

                #[doc = "Begins a group."]
                fn ncclGroupStart() {
                    lock().nccl_group_start()
                }

                #[doc = "Ends a group."]
                fn ncclGroupEnd() {
                    lock().nccl_group_end()
                }

                #[doc = "Bytes to a rank."]
                fn ncclSend(from: u64, count: usize, kind: u32, peer: i32, comm: u64, stream: u64) {
                    let bytes = count as u64 * Value::new(kind)?.bytes();
                    lock().nccl_call(comm, stream, Call::Send { from, bytes, peer: peer as usize })
                }

                #[doc = "Bytes from a rank."]
                fn ncclRecv(to: u64, count: usize, kind: u32, peer: i32, comm: u64, stream: u64) {
                    let bytes = count as u64 * Value::new(kind)?.bytes();
                    lock().nccl_call(comm, stream, Call::Receive { to, bytes, peer: peer as usize })
                }

                #[doc = "Every rank's bytes, for all."]
                fn ncclAllGather(
                    from: u64, to: u64, count: usize, kind: u32, comm: u64, stream: u64,
                ) {
                    let bytes = count as u64 * Value::new(kind)?.bytes();
                    lock().nccl_call(comm, stream, Call::AllGather { from, to, bytes })
                }

                #[doc = "The sum of every rank's values, or their maximum, for all."]
                fn ncclAllReduce(
                    from: u64, to: u64, count: usize, kind: u32, operator: u32, comm: u64,
                    stream: u64,
                ) {
                    let max = match operator {
                        0 => false,
                        2 => true,
                        _ => return Err(Error::Injected(4)),
                    };
                    let (count, kind) = (count as u64, Value::new(kind)?);
                    lock().nccl_call(comm, stream, Call::AllReduce { from, to, count, kind, max })
                }
            }

            /// What a result is called.
            #[unsafe(no_mangle)]
            pub extern "C" fn ncclGetErrorString(code: u32) -> *const c_char {
                describe(code).as_ptr()
            }

            /// What went wrong last, in words: nothing is kept here.
            #[unsafe(no_mangle)]
            pub extern "C" fn ncclGetLastError(_comm: u64) -> *const c_char {
                c"".as_ptr()
            }
        }
    };
}
