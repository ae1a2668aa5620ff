//! A step allocates nothing: state and work list are made once.
#![allow(missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use halfstep::optim::*;
use halfstep::{Device, Read, Write, bf16};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: passes every call on; counting touches a constant-initialised thread local only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_step_allocates_nothing() {
    let rules: [Rule; 3] = [
        AdamW::default().into(),
        Lamb::default().into(),
        Sgd { momentum: 0.9, ..Sgd::default() }.into(),
    ];
    let configs = [
        Config { clip: Some(1.0), scaler: Scaler::PYTORCH, ..Config::default() },
        Config { master: Master::Stochastic, moments: Moments::Bf16, ..Config::default() },
    ];
    let device = Device::cpu_with_threads(1.try_into().unwrap());
    let stream = device.stream().unwrap();
    for rule in rules {
        for config in configs {
            let tensors = [Tensor::new("a", 40_000), Tensor::new("b", 0), Tensor::new("c", 5)];
            let groups = [Group::new(rule).tensors(tensors)];
            let mut optimizer = Optimizer::<bf16, bf16>::new(&device, &groups, config).unwrap();
            let mut params = [vec![bf16::ONE; 40_000], vec![], vec![bf16::ONE; 5]];
            let grads = params.clone();
            let moved = params.clone();
            optimizer.load_params(&stream, &[&params[0], &params[1], &params[2]]).unwrap();
            let [a, b, c] = &mut params;
            let mut writes: [&mut dyn Write<bf16>; 3] = [a, b, c];
            let reads: [Option<&dyn Read<bf16>>; 3] =
                [Some(&grads[0]), Some(&grads[1]), Some(&grads[2])];
            let others: [Option<&dyn Read<bf16>>; 3] = [Some(&moved[0]), None, None];
            let before = ALLOCATIONS.get();
            optimizer.run(&stream, &mut writes, &reads).unwrap();
            optimizer.set_lr(0, 0.1).unwrap();
            optimizer.run(&stream, &mut writes, &others).unwrap();
            let report = optimizer.report(&stream).unwrap();
            assert_eq!(ALLOCATIONS.get() - before, 0, "{rule:?}");
            assert_eq!(report.applied, 2);
        }
    }
}
