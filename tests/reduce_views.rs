//! Gradients that are views of the reducer's memory: the bits of packed ones, whether they are averaged
//! in place or packed after all, and what goes wrong.
#![allow(missing_docs)]

mod common;

use std::sync::Barrier;

use common::data::{Distribution, Rng};
use common::reduction::{params_from, refs};
use common::{cpu, ranks};
use halfstep::reduce::{
    BucketPlan, Communicator, Config, Fault, Local, Reduced, Reducer, Sum, Unscale,
};
use halfstep::{Device, Dtype, Error, Storage, bf16, f16};
use proptest::prelude::*;

/// How gradients reach the reducer.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Packed,
    InPlace,
    /// Views, and one rank of them that lends nothing: then none does.
    Views,
}

/// What one rank sees of a step: the gradients' bytes, Σg², where NaNs came from, what was used.
type Seen = (Vec<u8>, u64, Vec<(usize, u64)>, Vec<bool>);

fn seen<G: Storage>(tensors: &[Vec<G>], reduced: &Reduced, sum_squares: f64) -> Seen {
    let bytes = tensors.iter().flat_map(|tensor| {
        // Which NaN it is, is the processor's business.
        let clean =
            tensor.iter().map(|x| if x.widen().is_nan() { G::narrow(f32::NAN) } else { *x });
        clean.flat_map(|x| bytemuck::bytes_of(&x).to_vec()).collect::<Vec<u8>>()
    });
    let bad = reduced.non_finite.iter().map(|bad| (bad.rank, bad.elements)).collect();
    (bytes.collect(), sum_squares.to_bits(), bad, reduced.used.clone())
}

struct Case {
    lens: Vec<usize>,
    wire: Dtype,
    config: Config,
    unscale: Unscale,
    /// Out of so many elements one is NaN or ±Inf.
    bad: Option<usize>,
    size: usize,
    seed: u64,
}

/// Two steps, `way`.
fn run<G: Storage>(case: &Case, way: Way) -> Vec<Vec<Seen>> {
    let plan = BucketPlan::ddp(&params_from(&case.lens), case.wire, 3000, 90_000).unwrap();
    ranks::run(case.size, |comm| {
        let rank = comm.rank();
        let mut rng = Rng(case.seed ^ (rank as u64) << 40);
        let device = cpu(1 + rank % 3);
        let stream = device.stream().unwrap();
        let comm: Box<dyn Communicator> = match way {
            Way::Views if rank == 0 => Box::new(ranks::Plain(comm)),
            _ => Box::new(comm),
        };
        let config = Config { views: way != Way::Packed, ..case.config.clone() };
        let mut reducer = Reducer::<G>::new(&device, plan.clone(), comm, config).unwrap();
        let mut steps = Vec::new();
        for _ in 0..2 {
            reducer.set_weight((1 + rng.below(5)) as f64).unwrap();
            let mut tensors: Vec<Vec<G>> = Vec::new();
            for &len in &case.lens {
                let mut tensor = Distribution::Outliers.fill::<G>(&mut rng, len);
                for value in &mut tensor {
                    if case.bad.is_some_and(|one_in| rng.below(one_in) == 0) {
                        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
                        *value = G::narrow(bad[rng.below(3)]);
                    }
                }
                tensors.push(tensor);
            }
            let unused =
                |param: usize| case.config.allow_unused && (param + rank).is_multiple_of(3);
            for param in (0..case.lens.len()).filter(|&param| !unused(param)) {
                if way == Way::Packed {
                    reducer.ready(&stream, param, &tensors[param]).unwrap();
                } else {
                    let mut view = reducer.gradient_mut(param).unwrap();
                    view.host().unwrap().copy_from_slice(&tensors[param]);
                    reducer.ready_view(&stream, param).unwrap();
                }
            }
            let reduced = if way == Way::Packed {
                // What nobody has is left alone; in a view it is zeros.
                tensors.iter_mut().flatten().for_each(|x| *x = G::narrow(0.0));
                reducer.finish(&stream, &mut refs(&mut tensors), case.unscale).unwrap()
            } else {
                let reduced = reducer.finish_views(&stream, case.unscale).unwrap();
                for (param, tensor) in tensors.iter_mut().enumerate() {
                    tensor.copy_from_slice(reducer.gradient(param).unwrap().host().unwrap());
                }
                reduced
            };
            let norm = reducer.stats().unwrap().read(&stream).unwrap();
            assert_eq!(norm.non_finite > 0, !reduced.non_finite.is_empty());
            steps.push(seen(&tensors, &reduced, norm.sum_squares));
        }
        steps
    })
}

fn check<G: Storage>(case: &Case) {
    let packed = run::<G>(case, Way::Packed);
    for way in [Way::InPlace, Way::Views] {
        let views = run::<G>(case, way);
        for (rank, (packed, views)) in packed.iter().zip(&views).enumerate() {
            assert!(packed == views, "{way:?}, rank {rank}, {} over {}", G::DTYPE, case.wire);
        }
    }
}

proptest! {
    #![proptest_config(common::cases())]

    #[test]
    fn views_have_the_bits_of_packed_gradients(
        seed: u64, size in 1usize..5, types in 0usize..9, scale in 0usize..3, factor in 0usize..3,
        lens in proptest::collection::vec(0usize..700, 1..9), long in 0usize..40_000,
        average: bool, allow_unused: bool, bad: bool, ordered: bool,
    ) {
        let mut lens = lens;
        lens[0] += long; // several pieces, of which the last is not whole
        let case = Case {
            lens,
            wire: Dtype::ALL[types / 3],
            config: Config {
                average,
                allow_unused,
                scale: [1.0, 0.5, 3.0][scale],
                sum: if ordered { Sum::RankOrder } else { Sum::OrderFree },
                ..Config::default()
            },
            unscale: [Unscale::Keep, Unscale::Factor(0.25), Unscale::Factor(0.3)][factor],
            bad: bad.then_some(5000),
            size,
            seed,
        };
        match Dtype::ALL[types % 3] {
            Dtype::Bf16 => check::<bf16>(&case),
            Dtype::F16 => check::<f16>(&case),
            Dtype::F32 => check::<f32>(&case),
        }
    }
}

fn reducer(device: &Device, comm: Local, config: Config) -> Reducer<f32> {
    let plan = BucketPlan::ddp(&params_from(&[40, 3]), Dtype::F32, 1, 1).unwrap();
    Reducer::new(device, plan, Box::new(comm), config).unwrap()
}

fn state(error: Error, words: &str) {
    let text = error.to_string();
    assert!(matches!(error, Error::State { .. }) && text.contains(words), "{text}");
}

#[test]
fn a_call_at_the_wrong_time_is_an_error_and_changes_nothing() {
    ranks::run(2, |comm| {
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let config = Config { views: true, ..Config::default() };
        let mut reducer = reducer(&device, comm, config);
        assert!(matches!(reducer.gradient(2).unwrap_err(), Error::Range { .. }));
        assert!(matches!(reducer.gradient_mut(2).unwrap_err(), Error::Range { .. }));
        assert!(matches!(reducer.ready_view(&stream, 2).unwrap_err(), Error::Range { .. }));
        // Gradients of the caller's have no place here.
        state(reducer.ready(&stream, 0, &[0.0; 40]).unwrap_err(), "Config::views");
        let none: &mut [&mut dyn halfstep::Write<f32>] = &mut [];
        state(reducer.finish(&stream, none, Unscale::Keep).unwrap_err(), "Config::views");
        state(reducer.accumulate_view(&stream, 0).unwrap_err(), "Config::accumulate");
        for step in 1..4 {
            let value = step as f32;
            reducer.gradient_mut(1).unwrap().host().unwrap().fill(value);
            reducer.ready_view(&stream, 1).unwrap();
            // Its bucket has left, or will.
            state(reducer.ready_view(&stream, 1).unwrap_err(), "p1");
            state(reducer.gradient_mut(1).unwrap_err(), "p1");
            state(reducer.gradient(1).unwrap_err(), "p1");
            reducer.gradient_mut(0).unwrap().host().unwrap().fill(2.0 * value);
            reducer.ready_view(&stream, 0).unwrap();
            let error = reducer.finish_views(&stream, Unscale::Factor(-1.0)).unwrap_err();
            assert!(matches!(error, Error::Range { .. }), "{error}");
            reducer.finish_views(&stream, Unscale::Keep).unwrap();
            assert_eq!(reducer.gradient(0).unwrap().host().unwrap(), [2.0 * value; 40]);
            assert_eq!(reducer.gradient(1).unwrap().host().unwrap(), [value; 3]);
        }
    });
    ranks::run(1, |comm| {
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let mut reducer = reducer(&device, comm, Config::default());
        state(reducer.gradient(0).map(|_| ()).unwrap_err(), "Config::views");
        state(reducer.gradient_mut(0).map(|_| ()).unwrap_err(), "Config::views");
        state(reducer.ready_view(&stream, 0).unwrap_err(), "Config::views");
        state(reducer.finish_views(&stream, Unscale::Keep).unwrap_err(), "Config::views");
    });
}

/// A rank that is lost in a step: an error on the others, and no view of what it may still write.
#[test]
fn after_a_fault_nothing_is_lent() {
    let made = Barrier::new(2);
    let errors = ranks::run(2, |comm| {
        let rank = comm.rank();
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let config = Config { views: true, ..Config::default() };
        let mut reducer = reducer(&device, comm, config);
        made.wait();
        reducer.ready_view(&stream, 1).unwrap();
        if rank == 1 {
            return None; // drops it, with a bucket under way
        }
        let _ = reducer.ready_view(&stream, 0);
        let error = reducer.finish_views(&stream, Unscale::Keep).unwrap_err();
        assert_eq!(reducer.gradient(0).unwrap_err(), error);
        assert_eq!(reducer.gradient_mut(0).unwrap_err(), error);
        Some(error)
    });
    assert!(matches!(errors[0], Some(Error::Comm(_))), "{errors:?}");
}

/// Views and packed gradients are different protocols; ranks notice at the start.
#[test]
fn ranks_that_differ_in_it_are_told() {
    let errors = ranks::run(2, |comm| {
        let config = Config { views: comm.rank() == 1, ..Config::default() };
        let plan = BucketPlan::ddp(&params_from(&[4]), Dtype::F32, 1, 1).unwrap();
        Reducer::<f32>::new(&cpu(1), plan, Box::new(comm), config).err()
    });
    for error in errors {
        assert!(
            matches!(error, Some(Error::Comm(Fault::PlanMismatch { rank: 1, .. }))),
            "{error:?}"
        );
    }
}

#[test]
fn views_copy_to_and_from_the_host() {
    let device = cpu(1);
    let stream = device.stream().unwrap();
    let mut buffer = device.upload(&[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    buffer.view_mut(1..3).unwrap().copy_from(&stream, &[7.0, 8.0]).unwrap();
    let mut found = [0.0; 3];
    buffer.view(1..4).unwrap().copy_to(&stream, &mut found).unwrap();
    assert_eq!(found, [7.0, 8.0, 4.0]);
    let error = buffer.view(0..2).unwrap().copy_to(&stream, &mut found).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    let error = buffer.view_mut(0..2).unwrap().copy_from(&stream, &found).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    assert_eq!(buffer.view(2..2).unwrap().host().unwrap(), [0.0; 0]);
}
