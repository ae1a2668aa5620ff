//! All-reduces of MPI's own, with an operator of ours for 16-bit values, between processes.
#![allow(missing_docs)]

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::data::{Distribution, Rng};
use common::mpi::{self, ALL, Case, RANKS};
use common::reduction::{params_from, step};
use common::{cpu, devices, ranks};
use halfstep::reduce::{
    BucketPlan, Collective, Communicator, Config, Fault, Mpi, MpiComm, Reducer, Reduction, Staged,
    Sum, Unscale,
};
use halfstep::{Device, Dtype, Element, Error, Result, Storage, bf16, f16};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(500);

const CASES: [Case; 10] = [
    ("integers_are_exact", integers_are_exact, ALL),
    ("floats_are_as_close_as_promised", floats, ALL),
    ("a_nan_is_one_nan", a_nan_is_one_nan, ALL),
    ("reducers_sum_by_it", reducers_sum_by_it, ALL),
    ("staged_memory_of_every_device", staged_memory_of_every_device, ALL),
    ("groups_reduce_by_exchanges", groups_reduce_by_exchanges, ALL),
    ("communicators_do_not_meet", communicators_do_not_meet, ALL),
    ("c05_a_different_reduction_is_named_on_every_rank", c05_reduction, ALL),
    ("k_a_rank_that_is_killed_amid_reductions_is_named", killed, &[0, 2, 3]),
    ("c07_a_process_that_is_stopped_is_named_on_the_others", c07_stopped, &[0, 2, 3]),
];

fn main() -> ExitCode {
    mpi::main(&CASES)
}

/// The values of all ranks reduced; what is behind them is left alone.
fn reduce_on<T: Element>(
    device: &Device,
    comm: &mut dyn Communicator,
    values: &[T],
    reduction: Reduction,
    limit: Duration,
) -> Result<Vec<T>> {
    let stream = device.stream()?;
    let mut bytes = bytemuck::cast_slice(values).to_vec();
    let len = bytes.len();
    bytes.extend([0xa5; 24]);
    let buffer = device.upload(&bytes)?;
    let (buffer, _) = comm.all_reduce(buffer, len, reduction, &stream, Instant::now() + limit)?;
    let bytes = buffer.to_vec(&stream)?;
    assert!(bytes[len..] == [0xa5; 24]);
    Ok(bytes[..len].chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
}

fn reduce<T: Element>(comm: &mut dyn Communicator, values: &[T], reduction: Reduction) -> Vec<T> {
    reduce_on(&cpu(1), comm, values, reduction, LONG).unwrap()
}

/// Whether all ranks have the same bytes.
fn same(comm: &mut dyn Communicator, bytes: &[u8]) -> bool {
    let (device, end) = (cpu(1), Instant::now() + LONG);
    let stream = device.stream().unwrap();
    let send = Arc::new(device.upload(bytes).unwrap());
    let parts = comm.exchange(Collective::AllGather, &send, &stream, end).unwrap().parts;
    parts.iter().all(|part| {
        let mut other = vec![0; part.len];
        part.buffer.read(&stream, part.start, &mut other).unwrap();
        other == bytes
    })
}

/// Integers modulo 2³² and bytes, of lengths that are whole pieces, more and less.
fn integers_are_exact(mpi: &Mpi) {
    let mut comm = mpi.comm().unwrap();
    for len in [0, 1, 5, 100_003, 4 << 20, (4 << 20) + 3] {
        let value = |rank: usize, i: usize| (i as u32).wrapping_mul(0x9e37_79b9) << rank;
        let mine: Vec<u32> = (0..len).map(|i| value(comm.rank(), i)).collect();
        let sums = reduce(&mut comm, &mine, Reduction::SumI32);
        let sum = |i| (0..RANKS).map(|rank| value(rank, i)).fold(0, u32::wrapping_add);
        assert!(sums.iter().enumerate().all(|(i, got)| *got == sum(i)), "{len}");
    }
    let value = |rank: usize, i: usize| ((i + 1) * (rank + 7) * 31 % 256) as u8;
    for len in [0, 1, 70_001] {
        let mine: Vec<u8> = (0..len).map(|i| value(comm.rank(), i)).collect();
        let largest = reduce(&mut comm, &mine, Reduction::MaxU8);
        let most = |i| (0..RANKS).map(|rank| value(rank, i)).max().unwrap();
        assert!(largest.iter().enumerate().all(|(i, got)| *got == most(i)));
    }
}

/// Sums in an order of the library's: exact where all partial sums are, and within `n − 1` roundings of the
/// partial sums otherwise. 16-bit sums are rounded at every hop: were they made by exchanges, in f32, they would
/// be rounded once.
fn floats(mpi: &Mpi) {
    fn check<T: Storage>(mpi: &Mpi) {
        let mut comm = mpi.comm().unwrap();
        let (rank, len) = (comm.rank(), 50_021);
        let small: Vec<T> = (0..len).map(|i| T::narrow((i * (rank + 1) % 61) as f32)).collect();
        let sums = reduce(&mut comm, &small, Reduction::Sum(T::DTYPE));
        for (i, sum) in sums.iter().enumerate() {
            let exact: usize = (0..RANKS).map(|rank| i * (rank + 1) % 61).sum();
            assert_eq!(sum.widen(), exact as f32, "{} {i}", T::DTYPE);
        }
        for seed in 0..4 {
            let value =
                |rank| Distribution::LogWide.fill::<T>(&mut Rng(100 * seed + rank as u64), len);
            let all: Vec<Vec<T>> = (0..RANKS).map(value).collect();
            let sums = reduce(&mut comm, &all[rank], Reduction::Sum(T::DTYPE));
            assert!(same(&mut comm, bytemuck::cast_slice(&sums)), "{}", T::DTYPE);
            let (mut once, u) = (0, T::DTYPE.unit_roundoff());
            for (i, sum) in sums.iter().enumerate() {
                let terms = all.iter().map(|values| f64::from(values[i].widen()));
                let (exact, size) =
                    terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                let error = (f64::from(sum.widen()) - exact).abs();
                let bound = (RANKS - 1) as f64 * u / (1.0 - RANKS as f64 * u) * size;
                let smallest = if T::DTYPE == Dtype::F16 { 2f64.powi(-24) } else { 0.0 };
                assert!(error <= bound + smallest, "{} {i}: {error} > {bound}", T::DTYPE);
                once += usize::from(*sum == T::narrow(exact as f32));
            }
            assert!(once < len * 19 / 20, "{}: rounded once, not at every hop", T::DTYPE);
        }
    }
    check::<f32>(mpi);
    check::<bf16>(mpi);
    check::<f16>(mpi);
}

/// With the same bits on all ranks, whose NaNs differ.
fn a_nan_is_one_nan(mpi: &Mpi) {
    fn check<T: Storage>(mpi: &Mpi, nan: impl Fn(usize) -> T + Copy) {
        // Libraries send short messages another way.
        let mut comm = mpi.comm().unwrap();
        for len in [20, 40_000] {
            check_some(&mut comm, nan, len);
        }
    }
    fn check_some<T: Storage>(comm: &mut MpiComm, nan: impl Fn(usize) -> T, len: usize) {
        let rank = comm.rank();
        let infinite = |sign: f32| T::narrow(sign * f32::INFINITY);
        let mine: Vec<T> = (0..len)
            .map(|i| match i % 5 {
                0 => nan(rank),                              // everywhere
                1 if i / 5 % RANKS == rank => nan(rank),     // on one
                2 if i / 5 % RANKS == rank => infinite(1.0), // on one
                3 if i / 5 % 2 == rank % 2 => infinite(1.0), // and the opposite on others
                3 => infinite(-1.0),
                _ => T::narrow(1.0),
            })
            .collect();
        let sums = reduce(comm, &mine, Reduction::Sum(T::DTYPE));
        for (i, sum) in sums.iter().enumerate() {
            match i % 5 {
                2 => assert_eq!(sum.widen(), f32::INFINITY),
                4 => assert_eq!(sum.widen(), RANKS as f32),
                _ => assert!(sum.widen().is_nan(), "{} {i}", T::DTYPE),
            }
        }
        // Sums of f32 are MPI's own, and a NaN whichever it likes.
        assert!(same(comm, bytemuck::cast_slice(&sums)) || T::DTYPE == Dtype::F32);
    }
    check::<bf16>(mpi, |rank| bf16::from_bits((0x7fc1 + rank as u16) | ((rank as u16 & 1) << 15)));
    check::<f16>(mpi, |rank| f16::from_bits((0x7e01 + rank as u16) | ((rank as u16 & 1) << 15)));
    check::<f32>(mpi, |rank| f32::from_bits(0x7fc0_0001 + rank as u32));
}

const LENS: [usize; 5] = [1, 70_000, 0, 33, 30_001];

/// What a rank gets of three steps.
fn steps(device: &Device, comm: impl Communicator + 'static, wire: Dtype, sum: Sum) -> Vec<f32> {
    let plan = BucketPlan::ddp(&params_from(&LENS), wire, 1000, 150_000).unwrap();
    let config = Config { sum, ..Config::default() };
    let mut rng = Rng(3 + comm.rank() as u64);
    let mut reducer = Reducer::<f32>::new(device, plan, Box::new(comm), config).unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        reducer.set_weight((1 + rng.below(9)) as f64).unwrap();
        let fill = |&len: &usize| Some(Distribution::Normal.fill::<f32>(&mut rng, len));
        let gradients: Vec<_> = LENS.iter().map(fill).collect();
        let mut out: Vec<Vec<f32>> = LENS.iter().map(|&len| vec![0.0; len]).collect();
        step(device, &mut reducer, &gradients, (false, Unscale::Keep), &mut out);
        all.extend(out.concat());
    }
    all
}

/// Without an order: the bits of threads. In the library's: near those in rank order, and the same on all ranks.
fn reducers_sum_by_it(mpi: &Mpi) {
    let threads = |sum, wire| ranks::run(RANKS, |comm| steps(&cpu(1), comm, wire, sum));
    let expected = threads(Sum::OrderFree, Dtype::F32);
    let found = steps(&cpu(1), mpi.comm().unwrap(), Dtype::F32, Sum::OrderFree);
    assert!(found == expected[mpi.rank()]);
    let exact = threads(Sum::RankOrder, Dtype::F32);
    let mut comm = mpi.comm().unwrap();
    for wire in Dtype::ALL {
        let found = steps(&cpu(1), mpi.comm().unwrap(), wire, Sum::Communicator);
        assert!(same(&mut comm, bytemuck::cast_slice(&found)), "{wire}");
        let largest = exact[0].iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let bound = (2 * RANKS) as f32 * wire.unit_roundoff() as f32 * largest * RANKS as f32;
        let far = |(a, b): (&f32, &f32)| (a - b).abs() > bound;
        assert!(!found.iter().zip(&exact[0]).any(far), "{wire}");
    }
}

fn staged_memory_of_every_device(mpi: &Mpi) {
    for device in devices() {
        let mut comm = Staged::new(Box::new(mpi.comm().unwrap())).unwrap();
        for len in [0, 3, 20_001] {
            let mine: Vec<i32> = (0..len).map(|i| (i << comm.rank()) - 7).collect();
            let sums = reduce_on(&device, &mut comm, &mine, Reduction::SumI32, LONG).unwrap();
            assert!(sums.iter().zip(0..).all(|(sum, i)| *sum == 15 * i - 28), "{}", device.info());
            let mine: Vec<bf16> = (0..len).map(|i| bf16::narrow((i % 32) as f32)).collect();
            let sum = Reduction::Sum(Dtype::Bf16);
            let sums = reduce_on(&device, &mut comm, &mine, sum, LONG).unwrap();
            assert!(sums.iter().zip(0..).all(|(sum, i)| sum.widen() == (4 * (i % 32)) as f32));
        }
    }
}

fn groups_reduce_by_exchanges(mpi: &Mpi) {
    let rank = mpi.rank();
    let members: Vec<usize> = (0..RANKS).rev().filter(|other| other % 2 == rank % 2).collect();
    let mut comm = mpi.group(&members).unwrap();
    let sums = reduce(&mut comm, &[rank as u32, 5], Reduction::SumI32);
    assert_eq!(sums, [members.iter().sum::<usize>() as u32, 10]);
}

/// Reductions of communicators by threads that do not know of each other: two of the first eight, and one that is
/// not, and exchanges.
fn communicators_do_not_meet(mpi: &Mpi) {
    let mut comms: Vec<_> = (0..9).map(|_| mpi.comm().unwrap()).collect();
    comms.drain(2..8);
    let rank = mpi.rank();
    std::thread::scope(|scope| {
        for (of, mut comm) in comms.into_iter().enumerate() {
            scope.spawn(move || {
                for i in 0..20usize {
                    // Each rank's threads come in an order of their own.
                    std::thread::sleep(Duration::from_micros(
                        ((rank + of) * 7 + i) as u64 % 5 * 100,
                    ));
                    let mine = vec![(of * 1000 + i) as u32; 1 + of * 3000];
                    let sums = reduce(&mut comm, &mine, Reduction::SumI32);
                    assert!(sums.iter().all(|sum| *sum == (RANKS * (of * 1000 + i)) as u32));
                }
            });
        }
    });
}

fn c05_reduction(mpi: &Mpi) {
    let mut comm = mpi.comm().unwrap();
    reduce(&mut comm, &[1u32], Reduction::SumI32);
    let mine = if comm.rank() == 2 { Reduction::SumI32 } else { Reduction::Sum(Dtype::F32) };
    let error = reduce_on(&cpu(1), &mut comm, &[1u32], mine, LONG).unwrap_err();
    let Error::Comm(Fault::Mismatch { sequence: 1, rank: 2, expected, found }) = error else {
        panic!("{error}");
    };
    assert_eq!((&*expected, &*found), ("Sum(F32) of 4 bytes", "SumI32 of 4 bytes"));
}

/// Sums without end: the error that ends them, once process 1 has done something that disturbs them.
fn until_disturbed(mpi: &Mpi, disturb: impl FnOnce() + Send + 'static) -> Error {
    let mut comm = mpi.comm().unwrap();
    let (device, sum) = (cpu(1), Reduction::Sum(Dtype::Bf16));
    let (stream, len) = (device.stream().unwrap(), 16 << 20);
    let mut reduce = |buffer, limit| {
        comm.all_reduce(buffer, len, sum, &stream, Instant::now() + limit).map(|(buffer, _)| buffer)
    };
    let mut buffer = reduce(device.zeros(len).unwrap(), LONG).unwrap();
    if mpi.rank() == 1 {
        std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            disturb();
        });
    }
    let start = Instant::now();
    loop {
        match reduce(buffer, 4 * SHORT) {
            Ok(reduced) => buffer = reduced,
            Err(error) => {
                let took = start.elapsed();
                assert!(took < LONG / 2, "no test asserts a time; this is an order of magnitude");
                return error;
            }
        }
    }
}

/// Between the call and its end, where ranks spend nearly all of their time here.
fn killed(mpi: &Mpi) {
    match until_disturbed(mpi, || std::process::abort()) {
        Error::Comm(Fault::Deadline { waiting_on, .. }) => assert_eq!(waiting_on, [1]),
        Error::Comm(Fault::Transport { reason, .. }) => {
            // The library noticed first.
            assert!(reason.starts_with("ranks [1] do not answer; "), "{reason}");
        }
        other => panic!("{other}"),
    }
}

/// A process that is stopped, and ended by another once that has heard of it: launchers wait for all.
fn c07_stopped(mpi: &Mpi) {
    let (device, id) = (cpu(1), std::process::id());
    let (stream, mut comm) = (device.stream().unwrap(), mpi.comm().unwrap());
    let send = Arc::new(device.upload(&id.to_le_bytes()).unwrap());
    let end = Instant::now() + LONG;
    let parts = comm.exchange(Collective::AllGather, &send, &stream, end).unwrap().parts;
    let mut id = [0; 4];
    parts[1].buffer.read(&stream, parts[1].start, &mut id).unwrap();
    let signal = |id: u32, signal: &str| {
        let script = format!("kill {signal} {id}");
        std::process::Command::new("sh").args(["-c", &script]).status().unwrap();
    };
    let error = until_disturbed(mpi, move || signal(std::process::id(), "-STOP"));
    if mpi.rank() == 0 {
        signal(u32::from_le_bytes(id), "-KILL");
    }
    match error {
        Error::Comm(Fault::Deadline { waiting_on, .. }) => assert_eq!(waiting_on, [1]),
        other => panic!("{other}"),
    }
}
