//! Images that a driver does not take. A program of its own: whose call is to fail is told by its number.
#![allow(missing_docs)]
#![cfg(any(feature = "cuda", feature = "hip"))]

mod common;

use common::vgpu::Door;
use common::{devices, opened_again};
use halfstep::Error;

/// D-04: which images a driver refuses, with which code, and what to do; and what is no fault of theirs is not laid to them.
#[test]
fn d04_images_that_a_driver_refuses_are_named() {
    for device in devices() {
        let Some(door) = Door::of(&device) else { continue };
        let open = || opened_again(&device);
        let cuda = door.vendor == "cuda";
        let call = if cuda { "cuModuleLoadData" } else { "hipModuleLoadData" };
        // Of CUDA's two the virtual driver refuses the first by itself: it runs no cubins.
        let (last, newer) = if cuda { (2, 222) } else { (1, 209) };
        for (code, words) in [(newer, "update the driver"), (200, "HALFSTEP_")] {
            door.fail(call, last, code);
            let error = open().unwrap_err();
            assert_eq!(door.fail_end(), 0);
            let text = error.to_string();
            assert!(matches!(error, Error::NoDevice { .. }), "{text}");
            let image = if cuda { "compute_80 (ptx)" } else { "gfx90a (co)" };
            assert!(text.contains(&format!("{image}: {code} (")) && text.contains(words), "{text}");
        }
        door.fail(call, last, 2);
        let error = open().unwrap_err();
        assert_eq!(door.fail_end(), 0);
        assert!(matches!(error, Error::Driver { code: 2, .. }), "{error}");
        if cuda {
            door.fail(call, 1, 200); // a cubin that is newer than the driver is no reason not to try the PTX
            open().unwrap();
            assert_eq!(door.fail_end(), 0);
        }
    }
}
