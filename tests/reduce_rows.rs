//! What the reducer does when it is used wrongly, when ranks differ and when one fails: rows K-01 …
//! K-18, C-23. (K-06, K-07, K-18: `reduce_plan.rs`. K-12, K-13, K-15: `reduce.rs`. K-10 is a matter of
//! types: `ready` has packed when it returns.)
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::reduction::{params_from, refs, two};
use common::{cpu, ranks};
use halfstep::reduce::{
    Abort, BucketPlan, Collective, Communicator, Config, Fault, Local, NonFinite, Parts, Reducer,
    Unscale,
};
use halfstep::{Buffer, Dtype, Error, Stream, bf16};
use std::sync::{Arc, Barrier};
use std::time::Instant;

#[test]
fn k01_a_parameter_marked_twice_is_named_and_nothing_is_lost() {
    two(&[40, 3], Config::default(), |_, stream, reducer| {
        let (mut a, mut b) = (vec![2.0f32; 40], vec![4.0f32; 3]);
        reducer.ready(stream, 1, &b).unwrap();
        let error = reducer.ready(stream, 1, &b).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error}");
        assert!(error.to_string().contains("p1"), "{error}");
        reducer.ready(stream, 0, &a).unwrap();
        reducer.finish(stream, &mut [&mut a, &mut b], Unscale::Keep).unwrap();
        assert_eq!((a[39], b[2]), (2.0, 4.0));
    });
}

#[test]
fn k02_unmarked_parameters_are_named_and_no_rank_hangs() {
    let errors = two(&[40, 3, 5], Config::default(), |rank, stream, reducer| {
        let mut tensors = vec![vec![1.0f32; 40], vec![1.0; 3], vec![1.0; 5]];
        for (param, tensor) in tensors.iter().enumerate() {
            if rank == 0 || param == 0 {
                reducer.ready(stream, param, tensor).unwrap();
            }
        }
        let error = reducer.finish(stream, &mut refs(&mut tensors), Unscale::Keep).unwrap_err();
        let again = reducer.ready(stream, 0, &tensors[0]).unwrap_err();
        assert_eq!(again, error, "the first error stays");
        assert_eq!(tensors[1], [1.0; 3], "nothing is written");
        error
    });
    assert!(errors[1].to_string().contains("p1, p2"), "{}", errors[1]);
    let Error::Comm(Fault::Aborted { rank: 1, reason }) = &errors[0] else {
        panic!("{}", errors[0])
    };
    assert!(reason.contains("p1, p2"), "{reason}");
}

/// K-03: unused here and used there counts as zero here; unused everywhere is left alone.
#[test]
fn k03_ranks_may_disagree_about_unused_parameters() {
    let config = Config { allow_unused: true, ..Config::default() };
    two(&[40, 3, 5], config, |rank, stream, reducer| {
        for round in 1..4 {
            let value = 4.0 * round as f32;
            let mut tensors = vec![vec![value; 40], vec![value; 3], vec![7.0; 5]];
            reducer.ready(stream, 0, &tensors[0]).unwrap();
            if rank == 1 {
                reducer.ready(stream, 1, &tensors[1]).unwrap();
            }
            let reduced = reducer.finish(stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
            assert_eq!(reduced.used, [true, true, false]);
            assert_eq!(tensors, [vec![value; 40], vec![value / 2.0; 3], vec![7.0; 5]]);
        }
    });
}

/// K-04: marks in opposite orders, every bucket of one parameter.
#[test]
fn k04_arrival_order_does_not_matter() {
    let lens = [64; 12];
    two(&lens, Config::default(), |rank, stream, reducer| {
        let mut tensors: Vec<Vec<f32>> = (0..12).map(|p| vec![(p + rank) as f32; 64]).collect();
        let order: Vec<usize> = if rank == 0 { (0..12).collect() } else { (0..12).rev().collect() };
        for param in order {
            reducer.ready(stream, param, &tensors[param]).unwrap();
        }
        reducer.finish(stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
        for (p, tensor) in tensors.iter().enumerate() {
            assert_eq!(tensor[63], p as f32 + 0.5);
        }
    });
}

/// K-05: plans that differ are found before the first step, on all ranks, by name.
#[test]
fn k05_different_plans_are_an_error_on_every_rank() {
    let make =
        |lens: &[usize], cap| BucketPlan::ddp(&params_from(lens), Dtype::Bf16, cap, cap).unwrap();
    let base = make(&[10, 20, 30], 1000);
    let average = Config::default();
    let sum = Config { average: false, ..Config::default() };
    for (other, config, param) in [
        (make(&[10, 21, 30], 1000), &average, "1 (p1)"),
        (make(&[10, 20], 1000), &average, "2 ("),
        (make(&[10, 20, 30], 16), &average, "0 (p0)"),
        (base.clone(), &sum, "none"),
    ] {
        let errors = ranks::run(3, |comm| {
            let last = comm.rank() == 2;
            let (plan, config) = if last {
                (other.clone(), config.clone())
            } else {
                (base.clone(), average.clone())
            };
            Reducer::<f32>::new(&cpu(1), plan, Box::new(comm), config).err().unwrap()
        });
        for error in errors {
            let Error::Comm(Fault::PlanMismatch { rank: 2, param: found }) = &error else {
                panic!("{error}")
            };
            assert!(found.starts_with(param), "{found}: {param}");
        }
    }
}

/// K-08: one bucket holds gradients of one storage type, cast to one wire type; a reducer for each
/// type keeps types apart, and one that differs between ranks is found at the start.
#[test]
fn k08_gradient_types_are_not_mixed() {
    let plan = BucketPlan::ddp(&params_from(&[10, 20]), Dtype::Bf16, 1000, 1000).unwrap();
    let errors = ranks::run(2, |comm| {
        let (plan, config) = (plan.clone(), Config::default());
        match comm.rank() {
            0 => Reducer::<f32>::new(&cpu(1), plan, Box::new(comm), config).err(),
            _ => Reducer::<bf16>::new(&cpu(1), plan, Box::new(comm), config).err(),
        }
    });
    for error in errors {
        assert!(
            matches!(error, Some(Error::Comm(Fault::PlanMismatch { rank: 1, .. }))),
            "{error:?}"
        );
    }
}

/// K-09, and the other arguments: an error names the parameter and the step goes on.
#[test]
fn k09_bad_arguments_change_nothing() {
    two(&[40, 3], Config::default(), |_, stream, reducer| {
        let (mut a, mut b) = (vec![2.0f32; 40], vec![4.0f32; 3]);
        let error = reducer.ready(stream, 0, &b).unwrap_err();
        assert!(matches!(&error, Error::Shape { arg, .. } if arg == "gradient of p0"), "{error}");
        let error = reducer.ready(stream, 2, &b).unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
        let error = reducer.accumulate(stream, 0, &a).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error}");
        reducer.ready(stream, 0, &a).unwrap();
        reducer.ready(stream, 1, &b).unwrap();
        let error = reducer.set_weight(2.0).unwrap_err(); // K-11: the step is not over
        assert!(matches!(error, Error::State { .. }), "{error}");
        let error = reducer.set_weight(f64::NAN).unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
        let mut short = vec![0.0f32; 2];
        let error = reducer.finish(stream, &mut [&mut a, &mut short], Unscale::Keep).unwrap_err();
        assert!(error.to_string().contains("gradients[1] (p1)"), "{error}");
        let error = reducer.finish(stream, &mut [&mut a], Unscale::Keep).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        let error = reducer
            .finish(stream, &mut [&mut a, &mut b], Unscale::Factor(f32::INFINITY))
            .unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
        reducer.finish(stream, &mut [&mut a, &mut b], Unscale::Factor(0.5)).unwrap();
        assert_eq!((a[0], b[0]), (1.0, 2.0));
    });
}

/// Outputs that share memory would be written twice: possible through raw pointers only.
#[test]
fn overlapping_outputs_are_refused() {
    two(&[40, 3], Config::default(), |_, stream, reducer| {
        let mut a = vec![2.0f32; 40];
        let b = vec![4.0f32; 3];
        reducer.ready(stream, 0, &a).unwrap();
        reducer.ready(stream, 1, &b).unwrap();
        let address = a.as_mut_ptr() as u64;
        // SAFETY: `a` outlives both; the call refuses to use them together.
        let (mut x, mut y, mut b) = unsafe {
            use halfstep::Raw;
            (Raw::new(address, 40), Raw::new(address + 39 * 4, 3), Raw::new(b.as_ptr() as u64, 3))
        };
        let error = reducer.finish(stream, &mut [&mut x, &mut y], Unscale::Keep).unwrap_err();
        assert!(matches!(error, Error::Overlap { .. }), "{error}");
        reducer.finish(stream, &mut [&mut x, &mut b], Unscale::Keep).unwrap();
    });
}

/// K-14: a NaN on one rank is NaN on all, in its element alone; its source is known.
#[test]
fn k14_a_nan_reaches_every_rank_and_its_source_is_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        two(&[40, 300], Config::default(), |rank, stream, reducer| {
            let (mut a, mut b) = (vec![1.0f32; 40], vec![1.0f32; 300]);
            if rank == 1 {
                b[299] = bad;
            }
            reducer.ready(stream, 1, &b).unwrap();
            reducer.ready(stream, 0, &a).unwrap();
            let reduced = reducer.finish(stream, &mut [&mut a, &mut b], Unscale::Keep).unwrap();
            let bucket = reducer.plan().place(1).0;
            assert_eq!(reduced.non_finite, [NonFinite { rank: 1, bucket, elements: 1 }]);
            assert!(b[299].is_nan() == bad.is_nan() && !b[299].is_finite());
            assert!(a.iter().chain(&b[..299]).all(|&x| x == 1.0));
            let summary = reducer.stats().unwrap().read(stream).unwrap();
            assert_eq!((summary.non_finite, summary.first_non_finite), (1, Some(1)));
            assert_eq!(summary.sum_squares, 339.0);
        });
    }
}

/// What was accumulated is a gradient, though it was never marked: it is not among what is missing.
#[test]
fn k02_what_was_accumulated_is_not_missing() {
    let config = Config { accumulate: true, ..Config::default() };
    two(&[40, 3], config, |_, stream, reducer| {
        let (mut w, mut b) = (vec![1.0f32; 40], vec![0.0f32; 3]);
        reducer.accumulate(stream, 0, &w).unwrap();
        let error = reducer.finish(stream, &mut [&mut w, &mut b], Unscale::Keep).unwrap_err();
        let Error::State { found, .. } = &error else { panic!("{error}") };
        assert!(found.ends_with("never marked: p1"), "{error}");
    });
}

/// K-16: N micro-batches and one exchange are the f32 sum and one exchange.
#[test]
fn k16_accumulation_equals_reducing_the_f32_sum() {
    let config = Config { accumulate: true, average: false, ..Config::default() };
    for last_is_ready in [true, false] {
        let config = config.clone();
        two(&[1000, 3], config, |rank, stream, reducer| {
            for round in 0..3 {
                let mut rng = Rng(100 * round + rank as u64);
                let batches: Vec<Vec<f32>> =
                    (0..4).map(|_| Distribution::Normal.fill(&mut rng, 1000)).collect();
                let mut sum = vec![0.0f32; 1000];
                for batch in &batches {
                    sum.iter_mut().zip(batch).for_each(|(s, g)| *s += g);
                }
                let sends = if last_is_ready { 3 } else { 4 };
                for batch in &batches[..sends] {
                    reducer.accumulate(stream, 0, batch).unwrap();
                }
                if last_is_ready {
                    reducer.ready(stream, 0, &batches[3]).unwrap();
                }
                let (mut a, mut b) = (vec![0.0f32; 1000], vec![1.0f32; 3]);
                reducer.ready(stream, 1, &b).unwrap();
                reducer.finish(stream, &mut [&mut a, &mut b], Unscale::Keep).unwrap();
                // The same sums reduced in one go.
                let (mut direct, mut one) = (sum, vec![1.0f32; 3]);
                reducer.ready(stream, 0, &direct).unwrap();
                reducer.ready(stream, 1, &one).unwrap();
                reducer.finish(stream, &mut [&mut direct, &mut one], Unscale::Keep).unwrap();
                assert_eq!((a, b), (direct, one));
            }
        });
    }
}

/// What a rank that weighs nothing has accumulated is dropped, not kept for a step in which it counts.
#[test]
fn k16_what_weighs_nothing_is_not_accumulated() {
    let config = Config { accumulate: true, ..Config::default() };
    for last_is_ready in [true, false] {
        let config = config.clone();
        two(&[1000, 3], config, |rank, stream, reducer| {
            for (weight, bad) in [(0.0, f32::NAN), (1.0, 1.0)] {
                reducer.set_weight(if rank == 1 { weight } else { 1.0 }).unwrap();
                let (mut a, mut b) = (vec![1.0f32; 1000], vec![1.0f32; 3]);
                if rank == 1 {
                    a[999] = bad;
                }
                reducer.accumulate(stream, 0, &a).unwrap();
                if last_is_ready {
                    reducer.ready(stream, 0, &a).unwrap();
                }
                reducer.ready(stream, 1, &b).unwrap();
                reducer.finish(stream, &mut [&mut a, &mut b], Unscale::Keep).unwrap();
                let sum = if last_is_ready { 2.0 } else { 1.0 };
                assert_eq!((a, b), (vec![sum; 1000], vec![1.0; 3]), "{weight}");
            }
        });
    }
}

/// K-17: a reducer dropped inside a step ends, and the other rank gets an error, not a hang.
#[test]
fn k17_a_dropped_reducer_ends_the_step_everywhere() {
    let plan = BucketPlan::ddp(&params_from(&[4000, 4000]), Dtype::Bf16, 1, 1).unwrap();
    let made = Barrier::new(2);
    let errors = ranks::run(2, |comm| {
        let rank = comm.rank();
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let config = Config::default();
        let mut reducer = Reducer::new(&device, plan.clone(), Box::new(comm), config).unwrap();
        made.wait();
        let mut tensors = vec![vec![1.0f32; 4000]; 2];
        reducer.ready(&stream, 1, &tensors[1]).unwrap();
        if rank == 1 {
            return None; // drops it, with a bucket under way
        }
        let _ = reducer.ready(&stream, 0, &tensors[0]);
        reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).err()
    });
    let error = errors[0].as_ref().unwrap();
    assert!(matches!(error, Error::Comm(_)), "{error}");
}

/// A communicator on which rank 1's blocks arrive changed.
struct Tampered {
    inner: Local,
    /// The byte of rank 1's block that is changed, from its end.
    byte: usize,
}

impl Communicator for Tampered {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn exchange(
        &mut self,
        collective: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let mut parts = self.inner.exchange(collective, send, stream, deadline)?;
        if collective == Collective::AllToAll {
            let part = &mut parts.parts[1];
            let mut bytes = vec![0; part.len];
            part.buffer.read(stream, part.start, &mut bytes).unwrap();
            let at = bytes.len() - self.byte;
            bytes[at] += 1;
            (part.buffer, part.start) = (Arc::new(cpu(1).upload(&bytes).unwrap()), 0);
        }
        Ok(parts)
    }

    fn aborter(&self) -> Arc<dyn Abort> {
        self.inner.aborter()
    }
}

/// Ranks in different steps, or with other plans, meet in a trailer and not in a sum.
#[test]
fn a_trailer_of_another_step_or_plan_is_found() {
    // 40 elements on 2 ranks: a shard of 128 elements is 256 bytes, the trailer the next 256.
    for byte in [256, 256 - 8] {
        let plan = BucketPlan::ddp(&params_from(&[40]), Dtype::Bf16, 1, 1).unwrap();
        let errors = ranks::run(2, |inner| {
            let device = cpu(1);
            let stream = device.stream().unwrap();
            let comm = Box::new(Tampered { inner, byte });
            let mut reducer = Reducer::new(&device, plan.clone(), comm, Config::default()).unwrap();
            let mut tensors = vec![vec![1.0f32; 40]];
            reducer.ready(&stream, 0, &tensors[0]).unwrap();
            reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).unwrap_err()
        });
        // One rank notices first; the other hears of it, or notices too.
        for error in &errors {
            assert!(error.to_string().contains("rank 1 is in step"), "{error}");
        }
        assert!(errors.iter().any(|e| matches!(e, Error::Comm(Fault::StepSkew { .. }))));
    }
}

/// Steps are counted alike on every rank, and a parameter that drops out takes its NaN with it.
#[test]
fn statistics_are_of_this_step_only() {
    let config = Config { allow_unused: true, ..Config::default() };
    two(&[40, 3], config, |_, stream, reducer| {
        let mut tensors = vec![vec![1.0f32; 40], vec![f32::NAN; 3]];
        for round in 0..3 {
            reducer.ready(stream, 0, &tensors[0]).unwrap();
            if round == 0 {
                reducer.ready(stream, 1, &tensors[1]).unwrap();
            }
            let reduced = reducer.finish(stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
            let summary = reducer.stats().unwrap().read(stream).unwrap();
            let expected = if round == 0 { 3 } else { 0 };
            assert_eq!((summary.non_finite, summary.sum_squares), (expected, 40.0));
            assert_eq!(reduced.non_finite.len(), if round == 0 { 2 } else { 0 });
        }
    });
}

/// More than 8 parameters in one bucket, each used by some ranks only.
#[test]
fn every_bit_of_the_used_map_counts() {
    let config = Config { allow_unused: true, ..Config::default() };
    let plan = BucketPlan::ddp(&params_from(&[3; 20]), Dtype::F32, 1 << 20, 1 << 20).unwrap();
    ranks::run(3, |comm| {
        let rank = comm.rank();
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let mut reducer =
            Reducer::new(&device, plan.clone(), Box::new(comm), config.clone()).unwrap();
        let mut tensors = vec![vec![3.0f32; 3]; 20];
        // Rank 0 has the multiples of 2, rank 1 those of 3, rank 2 those of 5.
        let has = |rank: usize, param: usize| param.is_multiple_of([2, 3, 5][rank]);
        for param in (0..20).filter(|&param| has(rank, param)) {
            reducer.ready(&stream, param, &tensors[param]).unwrap();
        }
        let reduced = reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
        for (param, tensor) in tensors.iter().enumerate() {
            let ranks = (0..3).filter(|&rank| has(rank, param)).count();
            assert_eq!(reduced.used[param], ranks > 0);
            let expected = if ranks > 0 { ranks as f32 } else { 3.0 };
            assert_eq!(*tensor, [expected; 3], "p{param}");
        }
    });
}

/// C-23: a fork has the reducer's memory, and none of its threads.
#[test]
#[cfg(unix)]
fn c23_a_fork_is_told_so() {
    unsafe extern "C" {
        fn fork() -> i32;
        fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
        fn _exit(status: i32) -> !;
    }
    two(&[40], Config::default(), |rank, stream, reducer| {
        let mut values = vec![1.0f32; 40];
        if rank == 0 {
            // SAFETY: the child makes one call that starts and waits for nothing, and ends.
            let child = unsafe { fork() };
            if child == 0 {
                let refused = matches!(
                    reducer.ready(stream, 0, &values),
                    Err(Error::State { ref found, .. }) if found.contains("fork")
                );
                // SAFETY: ends the process, and runs nothing of the parent's.
                unsafe { _exit(if refused { 7 } else { 1 }) };
            }
            let mut status = 0;
            // SAFETY: one int to write to.
            assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
            assert_eq!(status >> 8, 7, "refused, by a child that ended by itself");
        }
        reducer.ready(stream, 0, &values).unwrap();
        reducer.finish(stream, &mut [&mut values], Unscale::Keep).unwrap();
    });
}
