//! Devices, streams, buffers and lending.
#![allow(missing_docs)]

mod common;

use halfstep::{Device, Error, Raw, bf16};

#[test]
fn buffers_hold_what_was_written_and_refuse_what_does_not_fit() {
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let mut buffer = device.upload(&[1u32, 2, 3, 4]).unwrap();
        buffer.write(&stream, 3, &[9]).unwrap();
        let error = buffer.write(&stream, 3, &[7, 7]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "write", .. }), "{error}");
        let error = buffer.write(&stream, usize::MAX, &[7]).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        let mut two = [0u32; 2];
        buffer.read(&stream, 2, &mut two).unwrap();
        assert_eq!((two, buffer.to_vec(&stream).unwrap()), ([3, 9], vec![1, 2, 3, 9]));
        buffer.clear(&stream).unwrap();
        assert_eq!(buffer.to_vec(&stream).unwrap(), [0; 4]);
        assert!(buffer.view(1..5).is_err() && buffer.view_mut(1..4).is_ok());
    }
}

/// D-06: a size that overflows is out of memory, not a short buffer.
#[test]
fn d06_a_size_that_overflows_is_an_error() {
    let device = Device::cpu();
    for len in [usize::MAX, usize::MAX / 8 + 2, (1 << 61) + 1] {
        let error = device.zeros::<u64>(len).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    }
    assert!(device.zeros::<bf16>(0).unwrap().is_empty());
}

#[test]
fn streams_and_handles_move_between_threads() {
    fn send_sync<T: Send + Sync>() {}
    send_sync::<Device>();
    send_sync::<halfstep::Stream>();
    send_sync::<halfstep::Buffer<f32>>();
    send_sync::<Raw<f32>>();
    send_sync::<Error>();
}

/// Statistics of more than memory holds are an error, and no abort.
#[test]
fn statistics_of_uncountable_lengths_are_out_of_memory() {
    for device in common::devices() {
        for lengths in [vec![usize::MAX], vec![usize::MAX; 20_000], vec![usize::MAX >> 4, 1]] {
            let error = halfstep::GradStats::new(&device, &lengths).unwrap_err();
            assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
        }
    }
}
