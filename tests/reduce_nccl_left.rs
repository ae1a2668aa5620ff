//! What NCCL or RCCL may still touch is not used again, where the library cannot end a communicator. In a process of its
//! own, in which it is left behind.
//!
//! ```text
//! VGPU_DEVICES=2 ci/vgpu/run cargo test --features nccl,rccl --test reduce_nccl_left
//! ```
#![cfg(any(feature = "nccl", feature = "rccl"))]
#![allow(missing_docs)]

mod common;

use common::nccl::{run, vendors};
use common::vgpu::Door;
use halfstep::reduce::{Collective, Communicator, Fault};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A call in progress is not in its stream yet: that the stream has come to its end says nothing.
#[test]
fn memory_that_a_communicator_was_left_with_is_not_used_again() {
    for devices in vendors(2) {
        let Some(door) = Door::of(&devices[0]) else { continue };
        for number in [1, 2] {
            door.fail_anywhere("ncclCommAbort", number, 3);
        }
        let used_again = run(&devices, |mut comm, device, stream| {
            const BYTES: usize = 1040; // as nothing else has
            door.fail("ncclAsyncError", 1, 7);
            let send = Arc::new(device.upload(&[1u8; BYTES]).unwrap());
            let (address, deadline) = (send.address(), Instant::now() + Duration::from_millis(200));
            let fault = comm.exchange(Collective::AllToAll, &send, stream, deadline).unwrap_err();
            assert!(matches!(fault, Fault::Deadline { .. }), "{fault}");
            drop((send, comm));
            let next = [(); 4].map(|()| device.zeros::<u8>(BYTES).unwrap());
            next.iter().any(|buffer| buffer.address() == address)
        });
        assert_eq!(used_again, [false, false], "{}", devices[0].info());
    }
}
