//! Memory and streams of frameworks: cudarc's, as candle and burn hold them, and raw addresses.
#![allow(missing_docs)]
#![cfg(feature = "cuda")]

mod common;

use common::optim::group;
use cudarc::driver::{CudaContext, sys};
use halfstep::optim::*;
use halfstep::{Device, Error, Raw, Stream};

/// The context and stream of a framework, where there is a device.
fn framework() -> Option<(std::sync::Arc<CudaContext>, Device, Stream)> {
    // SAFETY: only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        println!("skipped: no CUDA driver");
        return None;
    }
    let context = CudaContext::new(0).unwrap();
    let device = Device::from_cudarc(&context).unwrap();
    let stream = Stream::from_cudarc(&device, &context.default_stream()).unwrap();
    Some((context, device, stream))
}

fn optimizer(device: &Device, len: usize) -> Optimizer<f32, f32> {
    let rule = Sgd { lr: 1.0, ..Sgd::default() };
    Optimizer::new(device, &[group(rule, &[len])], Config::default()).unwrap()
}

#[test]
fn slices_and_views_of_cudarc_are_lent() {
    let Some((context, device, stream)) = framework() else { return };
    let theirs = context.default_stream();
    let mut w = theirs.clone_htod(&vec![1.0f32; 300]).unwrap();
    let g = theirs.clone_htod(&vec![0.25f32; 400]).unwrap();
    let mut optimizer = optimizer(&device, 100);
    // A slice's part to write, another slice's part to read: no copies.
    let mut part = w.slice_mut(100..200);
    optimizer.run(&stream, &mut [&mut part], &[Some(&g.slice(300..400))]).unwrap();
    let found = theirs.clone_dtoh(&w).unwrap();
    assert_eq!(found[..100], [1.0; 100]);
    assert_eq!(found[100..200], [0.75; 100]);
    assert_eq!(found[200..], [1.0; 100]);
    // Whole slices, and lengths that do not fit.
    let error = optimizer.run(&stream, &mut [&mut w], &[Some(&g)]).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

#[test]
fn streams_that_are_not_the_slices_own_are_refused() {
    let Some((context, device, _)) = framework() else { return };
    let theirs = context.default_stream();
    let mut w = theirs.clone_htod(&[1.0f32; 10]).unwrap();
    let g = theirs.clone_htod(&[0.25f32; 10]).unwrap();
    let ours = device.stream().unwrap();
    let mut optimizer = optimizer(&device, 10);
    let error = optimizer.run(&ours, &mut [&mut w], &[Some(&g)]).unwrap_err();
    assert!(matches!(&error, Error::Device { .. }), "{error}");
    assert!(error.to_string().contains("from_cudarc"), "{error}");
    // Host memory is not the device's.
    let (mut host, grad) = (vec![1.0f32; 10], vec![1.0f32; 10]);
    let error = optimizer.run(&ours, &mut [&mut host], &[Some(&grad)]).unwrap_err();
    assert!(error.to_string().contains("host memory"), "{error}");
    assert_eq!(theirs.clone_dtoh(&w).unwrap(), [1.0; 10]);
}

/// Default streams of all devices have one handle.
#[test]
fn slices_of_another_device_are_refused() {
    let Some((context, device, ours)) = framework() else { return };
    if CudaContext::device_count().unwrap() < 2 {
        return println!("skipped: one device");
    }
    let there = CudaContext::new(1).unwrap();
    let far = there.default_stream().clone_htod(&vec![1.0f32; 10]).unwrap();
    let mut w = context.default_stream().clone_htod(&vec![1.0f32; 10]).unwrap();
    let refused = optimizer(&device, 10).run(&ours, &mut [&mut w], &[Some(&far)]);
    assert!(matches!(refused, Err(Error::Device { .. })), "{refused:?}");
    // cudarc frees memory on the thread's device.
    there.bind_to_thread().unwrap();
    drop(far);
    context.bind_to_thread().unwrap();
}

#[test]
fn raw_addresses_and_raw_streams_are_used_as_they_are() {
    let Some((context, device, _)) = framework() else { return };
    let theirs = context.default_stream();
    // SAFETY: the stream lives as long as `theirs`.
    let stream = unsafe { Stream::from_raw(&device, theirs.cu_stream() as u64) }.unwrap();
    let (mut w, g) = (device.upload(&[1.0f32; 10]).unwrap(), device.upload(&[0.5f32; 10]).unwrap());
    // SAFETY: both buffers live on, and nobody else uses them.
    let (mut raw, grad) =
        unsafe { (Raw::<f32>::new(w.address(), 10), Raw::<f32>::new(g.address(), 10)) };
    optimizer(&device, 10).run(&stream, &mut [&mut raw], &[Some(&grad)]).unwrap();
    stream.sync().unwrap();
    assert_eq!(w.to_vec(&stream).unwrap(), [0.5; 10]);
    w.clear(&stream).unwrap();
}
