//! Devices, streams, buffers and lending.
#![allow(missing_docs)]

mod common;

use halfstep::{Device, DeviceKind, Error, Raw, bf16};

#[test]
fn buffers_hold_what_was_written_and_refuse_what_does_not_fit() {
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let mut buffer = device.upload(&[1u32, 2, 3, 4]).unwrap();
        buffer.write(&stream, 3, &[9]).unwrap();
        let error = buffer.write(&stream, 3, &[7, 7]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "Buffer::write", .. }), "{error}");
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

/// A clock sees what the stream does while it runs, and nothing else.
#[test]
fn work_is_timed_by_the_device() {
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let mut buffer = device.zeros::<u8>(1 << 24).unwrap();
        let time = |work: &mut dyn FnMut() -> halfstep::Result<()>| {
            (0..5).map(|_| stream.time(&mut *work).unwrap()).min().unwrap()
        };
        let nothing = time(&mut || Ok(()));
        let much = time(&mut || (0..20).try_for_each(|_| buffer.clear(&stream)));
        assert!(nothing < much && !much.is_zero(), "{nothing:?} {much:?} on {}", device.info());
        // What fails is said, and the stream goes on.
        let error = stream.time(|| buffer.write(&stream, 1 << 24, &[1])).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "Buffer::write", .. }), "{error}");
        time(&mut || buffer.clear(&stream));
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

/// However many threads are asked for, there are as many as a piece of work is ever cut for, at most; `units` says how many.
#[test]
fn threads_beyond_all_use_are_not_started() {
    for asked in [std::num::NonZeroUsize::MAX, 10_000_000_000.try_into().unwrap()] {
        let device = Device::cpu_with_threads(asked);
        assert!((1..=256).contains(&device.info().units), "{}", device.info());
    }
}

/// D-17: a library that flushes subnormals or rounds upwards in our thread, and so in threads that we start from
/// it, changes nothing of what is computed, and keeps its mode.
#[cfg(target_arch = "x86_64")]
#[test]
fn d17_the_floating_point_mode_of_the_caller_is_not_ours() {
    use common::mode;
    use halfstep::gemm::{Gemm, Operands};
    use halfstep::optim::{Config, Group, Optimizer, Sgd, Tensor};

    fn results(threads: usize) -> Vec<u32> {
        const N: usize = 300;
        let device = common::cpu(threads);
        let stream = device.stream().unwrap();
        let (a, b) = (vec![f32::from_bits(0x0012_3457); N * N], vec![0.333_333_34f32; N * N]);
        let mut d = vec![0.0f32; N * N];
        let plan = Gemm::new(N, N, N).plan::<f32, f32>(&device).unwrap();
        plan.run(&stream, Operands::new(&a, &b, &mut d)).unwrap();
        let group = Group::new(Sgd { lr: 0.1, ..Sgd::default() }).tensor(Tensor::new("d", d.len()));
        let mut optimizer =
            Optimizer::<f32, f32>::new(&device, &[group], Config::default()).unwrap();
        optimizer.run(&stream, &mut [&mut d], &[Some(&a)]).unwrap();
        d.iter().map(|v| v.to_bits()).collect()
    }
    for threads in [1, 2] {
        let expected = results(threads);
        assert!(expected[0] != 0, "of subnormal factors");
        for foreign in mode::FOREIGN {
            let found = mode::within(foreign, || results(threads));
            assert!(found == expected, "{threads} threads, mode {foreign:#x}");
        }
    }
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

/// Memory at address 0 is refused: it would count as an operand that is not there.
#[test]
fn lent_memory_without_an_address_is_refused() {
    use halfstep::gemm::{Gemm, Operands};
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let (a, b) = (device.upload(&[1.0f32; 4]).unwrap(), device.upload(&[1.0f32; 4]).unwrap());
        let mut d = device.zeros::<f32>(4).unwrap();
        // SAFETY: it is refused, and read by nobody.
        let nowhere = unsafe { Raw::<f32>::new(0, 2) };
        let plan = Gemm::new(2, 2, 2).plan::<f32, f32>(&device).unwrap();
        let operands = Operands { bias: Some(&nowhere), ..Operands::new(&a, &b, &mut d) };
        let error = plan.run(&stream, operands).unwrap_err();
        assert!(matches!(&error, Error::Shape { arg, .. } if arg == "bias"), "{error}");
        assert_eq!(d.to_vec(&stream).unwrap(), [0.0; 4]);
    }
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

#[test]
fn ranges_are_copied_within_a_device() {
    for device in common::devices() {
        let stream = device.stream().unwrap();
        let values: Vec<u32> = (0..70_000).collect();
        let from = device.upload(&values).unwrap();
        for (start, len) in [(0, 0), (0, 1), (1, 3), (17, 69_983), (0, 70_000)] {
            let mut to = device.zeros::<u32>(len + 2).unwrap();
            let mut view = to.view_mut(1..len + 1).unwrap();
            view.copy_from_view(&stream, &from.view(start..start + len).unwrap()).unwrap();
            let found = to.to_vec(&stream).unwrap();
            assert!(found[1..=len] == values[start..start + len], "{}", device.info());
            assert_eq!((found[0], found[len + 1]), (0, 0), "around it");
        }
        let mut to = device.zeros::<u32>(2).unwrap();
        let mut view = to.view_mut(0..2).unwrap();
        let error = view.copy_from_view(&stream, &from.view(0..3).unwrap()).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "ViewMut::copy_from_view", .. }), "{error}");
    }
}

/// A100 and MI250X: the vendors' figures.
#[test]
fn a_gpu_says_what_it_can_do_at_best() {
    for device in common::devices() {
        let info = device.info();
        let tera = info.peak.map(|peak| [peak.f32_flops, peak.matrix_flops, peak.bytes]);
        let tera = tera.map(|peak| peak.map(|value| (1e-10 * value).round() / 100.0));
        match &info.name {
            _ if info.kind == DeviceKind::Cpu => assert_eq!(tera, None),
            name if name.contains("A100-SXM4-40GB") => {
                assert_eq!(tera, Some([19.49, 311.87, 1.56]))
            }
            name if name.contains("MI250X") => assert_eq!(tera, Some([47.87, 191.49, 1.64])),
            _ => assert!(tera.unwrap()[2] > 0.0, "{info}"),
        }
    }
}
