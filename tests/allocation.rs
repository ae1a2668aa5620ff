//! Steps allocate nothing: counted by the allocator itself, on the calling thread.
#![allow(missing_docs)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::cpu;
use halfstep::gemm::{
    Activation, DataGrad, DataGradOperands, Gemm, Operands, WeightGrad, WeightGradOperands,
};
use halfstep::optim::{AdamW, Config, Group, Lamb, Optimizer, Rule, Scaler, Tensor};
use halfstep::{Read, Storage, Write, bf16};

/// Counts this thread's allocations.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
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

fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

#[test]
fn the_count_counts() {
    assert!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))) > 0);
}

#[test]
fn optimizer_steps_allocate_nothing() {
    let device = cpu(1);
    let stream = device.stream().unwrap();
    let rules: [Rule; 2] = [AdamW::default().into(), Lamb::default().into()];
    for rule in rules {
        let lens = [40_000usize, 0, 7, 20_000];
        let tensors = lens.iter().enumerate().map(|(i, &len)| Tensor::new(format!("{i}"), len));
        let config = Config { clip: Some(1.0), scaler: Scaler::PYTORCH, ..Config::default() };
        let groups = [Group::new(rule).tensors(tensors)];
        let mut optimizer = Optimizer::<bf16, bf16>::new(&device, &groups, config).unwrap();
        let mut params: Vec<Vec<bf16>> = lens.iter().map(|&len| vec![bf16::ONE; len]).collect();
        let grads = params.clone();
        let reads: Vec<&dyn Read<bf16>> = params.iter().map(|p| p as &dyn Read<bf16>).collect();
        optimizer.load_params(&stream, &reads).unwrap();
        let grads: Vec<Option<&dyn Read<bf16>>> =
            grads.iter().map(|g| Some(g as &dyn Read<bf16>)).collect();
        let mut writes: Vec<&mut dyn Write<bf16>> =
            params.iter_mut().map(|p| p as &mut dyn Write<bf16>).collect();
        for step in 0..4 {
            let count = allocations(|| optimizer.run(&stream, &mut writes, &grads).unwrap());
            assert_eq!(count, 0, "{rule:?}, step {step}");
        }
    }
}

#[test]
fn products_allocate_only_their_workspace_once() {
    let device = cpu(1);
    let stream = device.stream().unwrap();
    let (m, n, k) = (70, 130, 300);
    let fill = |len: usize| vec![bf16::narrow(0.5); len];
    let (x, w, b, dy) = (fill(m * k), fill(k * n), fill(n), fill(m * n));
    let (mut y, mut z, mut dx) = (fill(m * n), fill(m * n), fill(m * k));
    let (mut dw, mut db) = (vec![0.0f32; k * n], vec![0.0f32; n]);
    let forward = Gemm::new(m, n, k).activation(Activation::GeluErf).plan::<bf16, bf16>(&device);
    let data = DataGrad::new(m, k, n).activation(Activation::GeluErf).plan::<bf16, bf16>(&device);
    let weight =
        WeightGrad::new(m, k, n).activation(Activation::GeluErf).plan::<bf16, f32>(&device);
    let (forward, data, weight) = (forward.unwrap(), data.unwrap(), weight.unwrap());
    for call in 0..4 {
        let count = allocations(|| {
            let operands = Operands {
                bias: Some(&b),
                preactivation: Some(&mut z),
                ..Operands::new(&x, &w, &mut y)
            };
            forward.run(&stream, operands).unwrap();
            let operands =
                DataGradOperands { z: Some(&z), ..DataGradOperands::new(&dy, &w, &mut dx) };
            data.run(&stream, operands).unwrap();
            let operands = WeightGradOperands {
                z: Some(&z),
                db: Some(&mut db),
                ..WeightGradOperands::new(&dy, &x, &mut dw)
            };
            weight.run(&stream, operands).unwrap();
        });
        println!("call {call}: {count} allocations");
        if call > 0 {
            assert_eq!(count, 0, "call {call}");
        }
    }
}
