//! Steps allocate nothing that is as long as gradients, whatever sums are made in: the allocator itself says so, of all threads.
#![allow(missing_docs)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::reduction::params_from;
use common::{cpu, ranks, reduction};
use halfstep::reduce::{BucketPlan, Communicator, Config, Reducer, Sum, Unscale};
use halfstep::{Dtype, Storage, bf16};

/// Notes the largest allocation.
struct Noting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

/// Of so many elements even the partial sums of squares are longer than what a step may allocate: its report, and
/// room for messages between threads.
const LENGTHS: [usize; 3] = [4 << 20, 3, 700];
const SMALL: usize = 4 << 10;

fn largest_of_a_step<G: Storage>(wire: Dtype, config: &Config, plain: bool) -> usize {
    let plan = BucketPlan::ddp(&params_from(&LENGTHS), wire, 1 << 10, 64 << 20).unwrap();
    let meet = Barrier::new(2);
    let found = ranks::run(2, |comm| {
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let comm: Box<dyn Communicator> =
            if plain { Box::new(ranks::Plain(comm)) } else { Box::new(comm) };
        let mut reducer = Reducer::<G>::new(&device, plan.clone(), comm, config.clone()).unwrap();
        let mut own: Vec<Vec<G>> = match config.views {
            true => Vec::new(),
            false => LENGTHS.iter().map(|&len| vec![G::narrow(0.5); len]).collect(),
        };
        let mut largest = 0;
        for step in 0..3 {
            meet.wait();
            LARGEST.store(0, Ordering::Relaxed);
            meet.wait();
            for param in (0..LENGTHS.len()).rev() {
                match config.views {
                    true => reducer.ready_view(&stream, param).unwrap(),
                    false => reducer.ready(&stream, param, &own[param]).unwrap(),
                }
            }
            match config.views {
                true => reducer.finish_views(&stream, Unscale::Factor(0.5)).unwrap(),
                false => {
                    let mut to = reduction::refs(&mut own);
                    reducer.finish(&stream, &mut to, Unscale::Factor(0.5)).unwrap()
                }
            };
            meet.wait();
            // The first step makes room that the others use again.
            largest = if step > 0 { LARGEST.load(Ordering::Relaxed).max(largest) } else { 0 };
        }
        largest
    });
    found.into_iter().max().unwrap_or(0)
}

#[test]
fn steps_allocate_nothing_as_long_as_gradients() {
    LARGEST.store(0, Ordering::Relaxed);
    drop(std::hint::black_box(vec![1u8; SMALL]));
    assert!(LARGEST.load(Ordering::Relaxed) >= SMALL, "the allocator notes");
    // Between threads, and over a communicator of somebody else's, which has no sums of its own.
    for plain in [false, true] {
        for sum in [Sum::RankOrder, Sum::OrderFree, Sum::Communicator, Sum::Int8] {
            for views in [false, true] {
                let config = Config { sum, views, ..Config::default() };
                for (what, largest) in [
                    ("bf16", largest_of_a_step::<bf16>(Dtype::Bf16, &config, plain)),
                    ("f32 over bf16", largest_of_a_step::<f32>(Dtype::Bf16, &config, plain)),
                    ("f32", largest_of_a_step::<f32>(Dtype::F32, &config, plain)),
                ] {
                    let how = format!("{sum:?}, views {views}, plain {plain}, {what}");
                    assert!(largest < SMALL, "{how}: {largest} bytes");
                }
            }
        }
    }
}
