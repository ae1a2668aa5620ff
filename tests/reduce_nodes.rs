//! The exchange over many nodes: the bits of its documented order on every rank and device, those of one level
//! where sums are exact, its bound elsewhere, and the faults of the two communicators that it is made of.
#![allow(missing_docs)]

mod common;

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use common::data::{Distribution, Rng};
use common::reduction::{params_from, refs, step};
use common::{cpu, devices, ranks};
use halfstep::reduce::{
    BucketPlan, Collective, Communicator, Config, Fault, Hierarchical, Local, Reducer, Unscale,
    local,
};
use halfstep::{Device, Dtype, Error, Storage, bf16};

const LENGTHS: [usize; 5] = [1, 3390, 0, 2049, 255];
const LONG: Duration = Duration::from_secs(30);

fn hierarchical(device: &Device, inside: Local, across: Local) -> Hierarchical {
    Hierarchical::new(device, Box::new(inside), Box::new(across), LONG).unwrap()
}

#[derive(Clone, Copy)]
struct Case {
    wire: Dtype,
    integers: bool,
    average: bool,
}

/// A rank's gradients.
fn gradients<G: Storage>(case: Case, rank: usize) -> Vec<Vec<G>> {
    let mut rng = Rng(77 + rank as u64);
    let fill = |&len: &usize| match case.integers {
        true => (0..len).map(|_| G::narrow(rng.below(17) as f32 - 8.0)).collect(),
        false => Distribution::REAL[4].fill::<G>(&mut rng, len),
    };
    LENGTHS.iter().map(fill).collect()
}

/// Small, and exact in sums of integers.
fn weight(rank: usize) -> f64 {
    1.0 + (rank % 3) as f64
}

/// Two steps of the same gradients; what the second one gives, and Σg². Nobody has one for parameter 4 in it.
fn reduce<G: Storage>(
    device: &Device,
    comm: impl Communicator + 'static,
    case: Case,
) -> (Vec<Vec<G>>, u64) {
    let plan = BucketPlan::ddp(&params_from(&LENGTHS), case.wire, 1000, 5000).unwrap();
    let rank = comm.rank();
    let stream = device.stream().unwrap();
    let config = Config { average: case.average, allow_unused: true, ..Config::default() };
    let mut reducer = Reducer::<G>::new(device, plan, Box::new(comm), config).unwrap();
    reducer.set_weight(weight(rank)).unwrap();
    let mut tensors = gradients::<G>(case, rank);
    for step in 0..2 {
        tensors = gradients(case, rank);
        let mut own: Vec<_> = tensors.iter().map(|t| device.upload(t).unwrap()).collect();
        for param in (0..LENGTHS.len()).rev().filter(|&param| step == 0 || param != 4) {
            reducer.ready(&stream, param, &own[param]).unwrap();
        }
        let mut out: Vec<&mut dyn halfstep::Write<G>> =
            own.iter_mut().map(|own| own as &mut dyn halfstep::Write<G>).collect();
        let reduced = reducer.finish(&stream, &mut out, Unscale::Keep).unwrap();
        assert_eq!(reduced.used[4], step == 0);
        for (own, tensor) in own.iter().zip(&mut tensors) {
            own.read(&stream, 0, tensor).unwrap();
        }
    }
    let stats = reducer.stats().unwrap().read(&stream).unwrap();
    tensors.truncate(4); // what nobody has is left alone
    (tensors, stats.sum_squares.to_bits())
}

/// The documented order, in loops; and the exact weighted sum with that of absolute values.
fn expected<G: Storage, W: Storage>(
    (ranks, nodes): (usize, usize),
    case: Case,
) -> Vec<Vec<(f32, f64, f64)>> {
    let all: Vec<Vec<Vec<G>>> = (0..ranks * nodes).map(|rank| gradients(case, rank)).collect();
    let total: f64 = (0..ranks * nodes).map(weight).sum();
    let factor = if case.average { (1.0 / total) as f32 } else { 1.0 };
    let element = |param: usize, i: usize| {
        let sent = |rank: usize| W::narrow(all[rank][param][i].widen()).widen();
        let mut sum = 0.0f32;
        for node in 0..nodes {
            let first = node * ranks;
            let mut of_node = weight(first) as f32 * sent(first);
            for rank in first + 1..first + ranks {
                of_node = (weight(rank) as f32).mul_add(sent(rank), of_node);
            }
            sum = if node == 0 { of_node } else { sum + of_node };
        }
        let exact = |f: fn(f64) -> f64| -> f64 {
            let one = |rank: usize| weight(rank) * f(f64::from(all[rank][param][i].widen()));
            (0..ranks * nodes).map(one).sum::<f64>() * if case.average { 1.0 / total } else { 1.0 }
        };
        (W::narrow(sum * factor).widen(), exact(|x| x), exact(f64::abs))
    };
    let tensor = |param: usize| (0..LENGTHS[param]).map(|i| element(param, i)).collect();
    (0..4).map(tensor).collect()
}

fn check<W: Storage>(device: &Device, shape: (usize, usize), average: bool) {
    let case = Case { wire: W::DTYPE, integers: false, average };
    let found = ranks::of_nodes(shape, |inside, across| {
        reduce::<f32>(device, hierarchical(device, inside, across), case)
    });
    let expected = expected::<f32, W>(shape, case);
    let unit = match W::DTYPE {
        Dtype::Bf16 => 2f64.powi(-8),
        Dtype::F16 => 2f64.powi(-11),
        Dtype::F32 => 2f64.powi(-24),
    };
    for (rank, (tensors, squares)) in found.iter().enumerate() {
        assert_eq!(*squares, found[0].1, "rank {rank}");
        for (tensor, expected) in tensors.iter().zip(&expected) {
            for (&found, &(bits, exact, magnitude)) in tensor.iter().zip(expected) {
                assert_eq!(
                    found.to_bits(),
                    bits.to_bits(),
                    "{shape:?} of {}, rank {rank}",
                    W::DTYPE
                );
                // f16 has subnormals, whose roundings are absolute: two of them, each of 2^-25.
                let tiny = if W::DTYPE == Dtype::F16 { 2f64.powi(-24) } else { 0.0 };
                let levels = (shape.0 + shape.1 + 1) as f64 * 2f64.powi(-24);
                let bound = (2.01 * unit + levels) * magnitude + tiny;
                let error = (f64::from(found) - exact).abs();
                assert!(error <= bound, "{found} is not {exact} within {bound}");
            }
        }
    }
}

/// A rank that weighs nothing counts as zeros, whatever its gradients are: beside one that does, and in a node of such ranks.
#[test]
fn what_weighs_nothing_counts_as_zeros() {
    for device in devices() {
        let results = ranks::of_nodes((2, 2), |inside, across| {
            let comm = hierarchical(&device, inside, across);
            let counts = comm.rank() == 1;
            let plan = BucketPlan::ddp(&params_from(&LENGTHS), Dtype::F32, 1000, 5000).unwrap();
            let comm = Box::new(comm);
            let mut reducer = Reducer::<f32>::new(&device, plan, comm, Config::default()).unwrap();
            reducer.set_weight(if counts { 2.0 } else { 0.0 }).unwrap();
            let value = if counts { 3.0 } else { f32::NAN };
            let gradients = LENGTHS.map(|len| Some(vec![value; len]));
            let mut out = LENGTHS.map(|len| vec![0.0f32; len]);
            step(&device, &mut reducer, &gradients, (false, Unscale::Keep), &mut out);
            out
        });
        assert!(results.iter().flatten().flatten().all(|x| *x == 3.0), "{}", device.info());
    }
}

#[test]
fn every_rank_and_device_has_the_bits_of_the_documented_order() {
    for device in &devices() {
        for shape in [(2, 2), (3, 2), (2, 3), (1, 2), (2, 1)] {
            check::<bf16>(device, shape, true);
        }
        check::<f32>(device, (2, 2), true);
        check::<halfstep::f16>(device, (2, 2), true);
        check::<bf16>(device, (2, 3), false);
    }
}

/// Where no sum is rounded, one level and two give the same bits; and they are the sum.
#[test]
fn integers_come_out_as_from_one_level() {
    let device = cpu(1);
    for wire in Dtype::ALL {
        let case = Case { wire, integers: true, average: false };
        let flat = ranks::run(6, |comm| reduce::<f32>(&device, comm, case));
        for shape in [(2, 3), (3, 2), (6, 1), (1, 6)] {
            let nodes = ranks::of_nodes(shape, |inside, across| {
                reduce::<f32>(&device, hierarchical(&device, inside, across), case)
            });
            assert!(nodes == flat, "{shape:?} over {wire}");
        }
    }
}

/// Its own collectives bring what those of one level do.
#[test]
fn blocks_go_where_they_should() {
    for device in &devices() {
        ranks::of_nodes((2, 3), |inside, across| {
            let mut comm = hierarchical(device, inside, across);
            let (rank, stream) = (comm.rank() as u8, device.stream().unwrap());
            assert_eq!(comm.size(), 6);
            for len in [5, 16, 0, 300] {
                let block = |from: u8, to: u8| vec![from * 16 + to + 1; len];
                let send: Vec<u8> = (0..6).flat_map(|to| block(rank, to)).collect();
                let send = Arc::new(device.upload(&send).unwrap());
                for how in [Collective::AllToAll, Collective::AllGather] {
                    let parts = comm.exchange(how, &send, &stream, Instant::now() + LONG).unwrap();
                    assert_eq!(parts.parts.len(), 6);
                    for (from, part) in (0u8..).zip(&parts.parts) {
                        let mut found = vec![0; part.len];
                        part.buffer.read(&stream, part.start, &mut found).unwrap();
                        let expected = match how {
                            Collective::AllToAll => block(from, rank),
                            Collective::AllGather => {
                                (0..6).flat_map(|to| block(from, to)).collect()
                            }
                        };
                        assert_eq!(found, expected, "{how:?} of {len}");
                    }
                }
            }
        });
    }
}

/// A value that is not finite reaches everybody, and its rank is named.
#[test]
fn a_nan_reaches_every_rank_and_its_source_is_named() {
    let plan = BucketPlan::ddp(&params_from(&[300]), Dtype::Bf16, 1000, 5000).unwrap();
    ranks::of_nodes((2, 2), |inside, across| {
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let comm = hierarchical(&device, inside, across);
        let mut tensor = vec![vec![1.0f32; 300]];
        if comm.rank() == 2 {
            tensor[0][299] = f32::NAN;
        }
        let mut reducer =
            Reducer::new(&device, plan.clone(), Box::new(comm), Config::default()).unwrap();
        reducer.ready(&stream, 0, &tensor[0]).unwrap();
        let reduced = reducer.finish(&stream, &mut refs(&mut tensor), Unscale::Keep).unwrap();
        assert!(tensor[0][299].is_nan() && tensor[0][..299].iter().all(|&x| x == 1.0));
        let bad: Vec<_> = reduced.non_finite.iter().map(|bad| (bad.rank, bad.elements)).collect();
        assert_eq!(bad, [(2, 1)]);
    });
}

/// Rank 3 of four is lost or gives up: every other rank has an error, and those that it was with name it.
#[test]
fn faults_end_both_communicators_and_name_ranks_of_the_whole() {
    for abort in [false, true] {
        let made = Barrier::new(4);
        let faults = ranks::of_nodes((2, 2), |inside, across| {
            let device = cpu(1);
            let stream = device.stream().unwrap();
            let mut comm = hierarchical(&device, inside, across);
            made.wait();
            if comm.rank() == 3 {
                if abort {
                    comm.aborter().abort("enough");
                }
                return None; // dropped
            }
            let send = Arc::new(device.upload(&[1u8; 16]).unwrap());
            let at = Instant::now() + LONG;
            let fault = comm.exchange(Collective::AllGather, &send, &stream, at).unwrap_err();
            assert_eq!(
                comm.exchange(Collective::AllGather, &send, &stream, at).unwrap_err(),
                fault
            );
            assert_eq!(comm.check().unwrap_err(), fault);
            Some(fault)
        });
        // Rank 1 is of rank 3's place, rank 2 of its node.
        for rank in [1, 2] {
            let fault = faults[rank].as_ref().unwrap();
            let lost = matches!(fault, Fault::PeerLost { rank: 3, .. });
            let said = matches!(fault, Fault::Aborted { .. });
            assert!(lost && !abort || said, "rank {rank}: {fault}");
        }
        let text = faults[0].as_ref().unwrap().to_string();
        assert!(text.contains("rank 3") || text.contains("enough"), "{text}");
        assert!(faults[3].is_none());
    }
}

/// Two communicators that are not inside and across of one another.
#[test]
fn communicators_that_do_not_fit_are_refused() {
    let errors = ranks::run(2, |comm| {
        let device = cpu(1);
        // Each rank a node of its own; but both say that they are the first rank of node 0.
        let alone = || Box::new(local(1.try_into().unwrap()).remove(0));
        let across: Box<dyn Communicator> = alone();
        let inside: Box<dyn Communicator> = Box::new(comm);
        Hierarchical::new(&device, inside, across, LONG).map(|comm| comm.size())
    });
    assert!(errors.iter().all(|size| *size.as_ref().unwrap() == 2));
    // Nodes of two ranks and of one.
    let mut across = local(2.try_into().unwrap()).into_iter();
    let mut inside = local(2.try_into().unwrap()).into_iter();
    let (first, second) = (across.next().unwrap(), across.next().unwrap());
    let (of_two, _other) = (inside.next().unwrap(), inside.next().unwrap());
    let one = local(1.try_into().unwrap()).remove(0);
    let errors = std::thread::scope(|scope| {
        let made = |inside: Local, across: Local| {
            Hierarchical::new(&cpu(1), Box::new(inside), Box::new(across), LONG).err().unwrap()
        };
        let threads =
            [scope.spawn(move || made(of_two, first)), scope.spawn(move || made(one, second))];
        threads.map(|thread| thread.join().unwrap())
    });
    for error in errors {
        assert!(matches!(error, Error::State { .. } | Error::Comm(_)), "{error}");
    }
}
