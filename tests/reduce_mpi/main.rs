//! Ranks that are processes of MPI. Rows C-03 … C-12, C-21 and C-24 between processes.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod sections;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::blocks::{bytes, exchange};
use common::data::{Distribution, Rng};
use common::mpi::{self, ALL, Case, RANKS};
use common::reduction::{params_from, refs};
use common::{cpu, devices, ranks, sharded};
use halfstep::optim::{self, Moments};
use halfstep::reduce::{
    BucketPlan, Collective, Communicator, Config, Fault, Hierarchical, Local, Mpi, Reducer,
    Sharded, Staged, Sum, Unscale, local,
};
use halfstep::{Buffer, Device, Dtype, Error, Storage, Stream, bf16, f16};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(500);

const PLAIN: (bool, Sum) = (false, Sum::RankOrder);
const VIEWS: (bool, Sum) = (true, Sum::RankOrder);
const INT8: (bool, Sum) = (true, Sum::Int8);

const CASES: [Case; 18] = [
    ("blocks_go_where_they_should", blocks_go_where_they_should, ALL),
    ("the_bits_of_threads", the_bits_of_threads, ALL),
    ("staged_memory_of_every_device", staged_memory_of_every_device, ALL),
    ("nodes_have_the_bits_of_threads", nodes_have_the_bits_of_threads, ALL),
    ("groups_that_cannot_be", groups_that_cannot_be, ALL),
    ("sharded_steps_have_the_bits_of_threads", sharded_steps, ALL),
    ("sections_go_where_they_should", sections::go_where_they_should, ALL),
    ("sections_that_cannot_be", sections::that_cannot_be, ALL),
    ("communicators_do_not_meet", communicators_do_not_meet, ALL),
    ("c01_a_buffer_that_is_not_a_block_for_each_rank", c01_length, ALL),
    ("c03_c07_a_late_rank_is_named_by_the_deadline", c03_c07_late, ALL),
    ("c05_a_different_call_is_named_on_every_rank", c05_call, ALL),
    ("c05_a_different_plan_is_named_on_every_rank", c05_plan, ALL),
    ("c06_a_rank_that_ends_is_lost", c06_ends, ALL),
    ("c06_a_rank_that_is_killed_is_named_by_the_deadline", c06_killed, &[0, 2, 3]),
    ("k_a_rank_that_is_killed_amid_bulk_is_named", killed_amid_bulk, &[0, 2, 3]),
    ("c11_c12_abort_ends_a_blocked_call_on_every_rank", c11_c12_abort, ALL),
    ("mpi_that_someone_else_ends", ended_by_someone_else, ALL),
];

fn main() -> ExitCode {
    mpi::main(&CASES)
}

/// Lengths that leave at once, that are handed over, and 0 (C-21).
fn blocks_go_where_they_should(mpi: &Mpi) {
    println!("{}", mpi.library());
    let mut comm = mpi.comm().unwrap();
    let rank = comm.rank() as u8;
    for (round, len) in [3, 0, 17, 100_000, 0, 3_000_001].into_iter().cycle().take(12).enumerate() {
        let block = |from: u8, to: u8| {
            let mut block = vec![from.wrapping_mul(31) ^ to ^ round as u8; len];
            block.extend([from, to]);
            block
        };
        let send: Vec<u8> = (0..RANKS as u8).flat_map(|to| block(rank, to)).collect();
        let parts = exchange(&mut comm, Collective::AllToAll, &send, LONG).unwrap();
        let expected: Vec<_> = (0..RANKS as u8).map(|from| block(from, rank)).collect();
        assert!(bytes(&parts) == expected, "round {round}");
        let parts = exchange(&mut comm, Collective::AllGather, &block(rank, 9), LONG).unwrap();
        let expected: Vec<_> = (0..RANKS as u8).map(|from| block(from, 9)).collect();
        assert!(bytes(&parts) == expected, "round {round}");
        let empty = exchange(&mut comm, Collective::AllToAll, &[], LONG).unwrap();
        assert!(empty.parts.iter().all(|part| part.len == 0));
    }
}

/// Four steps of gradients from a seed, in an order of each rank's own; what rank `comm.rank()` gets.
fn reduce<G: Storage>(
    device: &Device,
    comm: impl Communicator + 'static,
    lens: [usize; 6],
    (wire, most): (Dtype, usize),
    (views, sum): (bool, Sum),
) -> Vec<u8> {
    let stream = device.stream().unwrap();
    let plan = BucketPlan::ddp(&params_from(&lens), wire, 1000, most).unwrap();
    let mut rng = Rng(7 + comm.rank() as u64);
    let config = Config { views, sum, allow_unused: true, ..Config::default() };
    let rank = comm.rank();
    let mut reducer = Reducer::<G>::new(device, plan, Box::new(comm), config).unwrap();
    let mut bits = Vec::new();
    for step in 0..4 {
        reducer.set_weight((1 + rng.below(9)) as f64).unwrap();
        let fill = |&len: &usize| Distribution::Outliers.fill::<G>(&mut rng, len);
        let mut gradients: Vec<Vec<G>> = lens.iter().map(fill).collect();
        let mut order: Vec<usize> = (0..lens.len()).collect();
        (1..order.len()).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
        if step == 2 {
            gradients[4][rank] = G::narrow(f32::INFINITY);
        }
        order.retain(|param| step != 3 || (*param != 1 && param + rank != 5)); // 1 is nobody's
        let unscale = if step == 1 { Unscale::Factor(0.3) } else { Unscale::Keep };
        for &param in &order {
            match views {
                true => {
                    let mut view = reducer.gradient_mut(param).unwrap();
                    view.copy_from(&stream, &gradients[param]).unwrap();
                    reducer.ready_view(&stream, param).unwrap();
                }
                false => reducer.ready(&stream, param, &gradients[param]).unwrap(),
            }
        }
        gradients[1].fill(G::narrow(0.0)); // what nobody has is left alone, and is zeros in a view
        let reduced = match views {
            true => reducer.finish_views(&stream, unscale).unwrap(),
            false => reducer.finish(&stream, &mut refs(&mut gradients), unscale).unwrap(),
        };
        if views {
            for (param, gradient) in gradients.iter_mut().enumerate() {
                reducer.gradient(param).unwrap().copy_to(&stream, gradient).unwrap();
            }
        }
        let bad: Vec<u64> = reduced.non_finite.iter().map(|bad| bad.elements).collect();
        assert_eq!(bad, if step == 2 { vec![1; RANKS] } else { vec![] });
        assert_eq!(reduced.used, (0..lens.len()).map(|p| step != 3 || p != 1).collect::<Vec<_>>());
        let norm = reducer.stats().unwrap().read(&stream).unwrap();
        bits.extend(norm.sum_squares.to_bits().to_le_bytes());
        bits.extend(norm.non_finite.to_le_bytes());
        bits.extend(gradients.iter().flat_map(|g| bytemuck::cast_slice::<G, u8>(g).to_vec()));
    }
    bits
}

/// Steps of LAMB, which has most to exchange, one of them skipped; and the file that rank 0 writes.
fn sharded_steps(mpi: &Mpi) {
    let config = optim::Config { moments: Moments::Bf16, clip: Some(0.1), ..Default::default() };
    let lens = [3, 70_001, 0, 400_000, 16_384];
    let case = sharded::Case::new(RANKS, &lens, optim::Lamb::default().into(), config);
    let case = sharded::Case { nan: Some((1, 3, 1)), unused: Some((2, 3)), ..case };
    let folder = std::env::temp_dir();
    let file = |of: &str| folder.join(format!("halfstep-{of}-{}", std::process::id()));
    let (threads, processes) = (file("threads"), file("processes"));
    let expected = sharded::sharded::<bf16, bf16>(&case, &cpu(1), |sharded, stream, _| {
        sharded.save(stream, &threads).unwrap();
    });
    let comm = mpi.comm().unwrap();
    let rank = comm.rank();
    let end = |sharded: &mut Sharded<bf16, bf16>, stream: &Stream, _| {
        sharded.save(stream, &processes).unwrap();
    };
    let found = sharded::one_rank::<bf16, bf16>(&case, &cpu(1), comm, &end);
    assert!(found == expected[rank], "rank {rank}");
    if rank == 0 {
        assert!(std::fs::read(&threads).unwrap() == std::fs::read(&processes).unwrap());
        std::fs::remove_file(&processes).unwrap();
    }
    std::fs::remove_file(&threads).unwrap();
}

fn the_bits_of_threads(mpi: &Mpi) {
    fn check<G: Storage>(mpi: &Mpi, wire: Dtype, lens: [usize; 6], most: usize) {
        let threads =
            ranks::run(RANKS, |comm| reduce::<G>(&cpu(1), comm, lens, (wire, most), PLAIN));
        assert!(threads[0].iter().any(|&byte| byte != 0));
        for views in [PLAIN, VIEWS] {
            let processes = reduce::<G>(&cpu(1), mpi.comm().unwrap(), lens, (wire, most), views);
            let same = processes == threads[mpi.rank()];
            assert!(same, "{} over {wire:?}, {views:?}, {lens:?}", G::DTYPE);
        }
    }
    let lens = [1, 70_000, 0, 33, 4096, 250_001];
    check::<f32>(mpi, Dtype::F32, lens, 300_000);
    check::<f32>(mpi, Dtype::Bf16, lens, 300_000);
    check::<bf16>(mpi, Dtype::Bf16, lens, 300_000);
    check::<f16>(mpi, Dtype::F16, lens, 300_000);
    // Parts of three sections, the last of which differ in length.
    check::<f32>(mpi, Dtype::F32, [1, 900_003, 0, 33, 4096, 1_700_001], 100_000_000);
    let plan = (Dtype::Bf16, 300_000);
    let threads = ranks::run(RANKS, |comm| reduce::<bf16>(&cpu(1), comm, lens, plan, INT8));
    let processes = reduce::<bf16>(&cpu(1), mpi.comm().unwrap(), lens, plan, INT8);
    assert!(processes == threads[mpi.rank()], "8-bit integers");
}

/// Every device that is here, its memory staged.
fn staged_memory_of_every_device(mpi: &Mpi) {
    let (lens, wire) = ([1, 7_000, 0, 33, 4096, 2_501], (Dtype::Bf16, 9000));
    let threads = ranks::run(RANKS, |comm| reduce::<f32>(&cpu(1), comm, lens, wire, PLAIN));
    for device in devices() {
        let comm = Staged::new(Box::new(mpi.comm().unwrap())).unwrap();
        let processes = reduce::<f32>(&device, comm, lens, wire, VIEWS);
        assert!(processes == threads[mpi.rank()], "{}", device.info());
    }
}

/// Two nodes of two, of processes and of threads.
fn nodes_have_the_bits_of_threads(mpi: &Mpi) {
    let (lens, wire) = ([1, 70_000, 0, 33, 4096, 250_001], (Dtype::Bf16, 300_000));
    let (node, place) = (mpi.rank() / 2, mpi.rank() % 2);
    let two = || local(2.try_into().unwrap()).into_iter().map(Some).collect::<Vec<_>>();
    let (inside, across) = ([two(), two()].map(Mutex::new), [two(), two()].map(Mutex::new));
    let take = |of: &Mutex<Vec<Option<Local>>>, at: usize| of.lock().unwrap()[at].take().unwrap();
    let threads = std::thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|rank: usize| {
            let inside = take(&inside[rank / 2], rank % 2);
            let across = take(&across[rank % 2], rank / 2);
            scope.spawn(move || reduce::<f32>(&cpu(1), nodes(inside, across), lens, wire, PLAIN))
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let inside = mpi.group(&[2 * node, 2 * node + 1]).unwrap();
    let across = mpi.group(&[place, place + 2]).unwrap();
    let comm = nodes(inside, across);
    assert_eq!((comm.rank(), comm.size()), (mpi.rank(), RANKS));
    let processes = reduce::<f32>(&cpu(1), comm, lens, wire, VIEWS);
    assert!(processes == threads[mpi.rank()]);
}

fn nodes(inside: impl Communicator + 'static, across: impl Communicator + 'static) -> Hierarchical {
    Hierarchical::new(&cpu(1), Box::new(inside), Box::new(across), LONG).unwrap()
}

fn groups_that_cannot_be(mpi: &Mpi) {
    let rank = mpi.rank();
    for members in [vec![], vec![(rank + 1) % RANKS], vec![rank, rank], vec![rank, RANKS]] {
        let error = mpi.group(&members).unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
    }
    // In an order of its own, beside those of others.
    let members: Vec<usize> = (0..RANKS).rev().filter(|other| other % 2 == rank % 2).collect();
    let mut comm = mpi.group(&members).unwrap();
    assert_eq!(members[comm.rank()], rank);
    let parts = exchange(&mut comm, Collective::AllGather, &[rank as u8], LONG).unwrap();
    let expected: Vec<_> = members.iter().map(|&member| vec![member as u8]).collect();
    assert_eq!(bytes(&parts), expected);
}

/// Two at a time, and many after each other: what one has left behind reaches no other.
fn communicators_do_not_meet(mpi: &Mpi) {
    let (mut first, mut second) = (mpi.comm().unwrap(), mpi.comm().unwrap());
    let late = std::thread::spawn(move || {
        exchange(&mut second, Collective::AllGather, b"second", LONG).map(|parts| bytes(&parts))
    });
    let parts = exchange(&mut first, Collective::AllGather, b"first", LONG).unwrap();
    assert_eq!(bytes(&parts), vec![b"first"; RANKS]);
    assert_eq!(late.join().unwrap().unwrap(), vec![b"second"; RANKS]);
    for round in 0..50u8 {
        let mut comm = mpi.comm().unwrap();
        let parts = exchange(&mut comm, Collective::AllGather, &[round], LONG).unwrap();
        assert_eq!(bytes(&parts), vec![[round]; RANKS]);
    }
    // C-24: there is one MPI in a process.
    assert!(matches!(Mpi::init(), Err(Error::State { .. })));
}

fn c01_length(mpi: &Mpi) {
    let mut comm = mpi.comm().unwrap();
    let fault = exchange(&mut comm, Collective::AllToAll, &[0; 5], LONG).unwrap_err();
    assert!(matches!(fault, Fault::Length { bytes: 5, blocks: RANKS, .. }), "{fault}");
}

fn c03_c07_late(mpi: &Mpi) {
    let mut comm = mpi.comm().unwrap();
    exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap();
    if comm.rank() == 1 {
        std::thread::sleep(3 * SHORT);
    }
    let fault = exchange(&mut comm, Collective::AllGather, &[1], SHORT).unwrap_err();
    assert_eq!(fault, Fault::Deadline { sequence: 1, waiting_on: vec![1] });
    // C-10: the same answer for ever.
    assert_eq!(exchange(&mut comm, Collective::AllToAll, &[1; 3], LONG).unwrap_err(), fault);
}

fn c05_call(mpi: &Mpi) {
    let mut comm = mpi.comm().unwrap();
    let how = if comm.rank() == 2 { Collective::AllToAll } else { Collective::AllGather };
    let fault = exchange(&mut comm, how, &[0; 4], LONG).unwrap_err();
    assert!(matches!(fault, Fault::Mismatch { rank: 2, sequence: 0, .. }), "{fault}");
    let text = fault.to_string();
    assert!(text.contains("AllToAll") && text.contains("AllGather"), "{text}");
    let mut comm = mpi.comm().unwrap();
    let len = if comm.rank() == 3 { 5_000_000 } else { 4 };
    let fault = exchange(&mut comm, Collective::AllGather, &vec![0; len], LONG).unwrap_err();
    assert!(matches!(fault, Fault::Mismatch { rank: 3, .. }), "{fault}");
}

fn c05_plan(mpi: &Mpi) {
    let device = cpu(1);
    let lens = if mpi.rank() == 2 { [5, 8] } else { [5, 7] };
    let plan = BucketPlan::ddp(&params_from(&lens), Dtype::F32, 1000, 1000).unwrap();
    let comm = Box::new(mpi.comm().unwrap());
    let error =
        Reducer::<f32>::new(&device, plan, comm, Config::default()).map(|_| ()).unwrap_err();
    let Error::Comm(Fault::PlanMismatch { rank: 2, param }) = &error else { panic!("{error}") };
    assert!(param.contains("p1"), "{error}");
}

fn c06_ends(mpi: &Mpi) {
    let mut comm = mpi.comm().unwrap();
    exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap();
    if mpi.rank() == 1 {
        return;
    }
    let fault = exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap_err();
    assert_eq!(fault, Fault::PeerLost { sequence: 1, rank: 1 });
}

/// Without a word: the launcher, told to, leaves the others alone.
fn c06_killed(mpi: &Mpi) {
    let mut comm = mpi.comm().unwrap();
    exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap();
    if mpi.rank() == 1 {
        std::process::abort();
    }
    let start = Instant::now();
    let fault = exchange(&mut comm, Collective::AllGather, &[1], 2 * SHORT).unwrap_err();
    assert!(start.elapsed() < LONG / 2, "no test asserts a time; this is an order of magnitude");
    match fault {
        Fault::Deadline { waiting_on, .. } => assert_eq!(waiting_on, [1]),
        Fault::Transport { reason, .. } => {
            // The library noticed first.
            assert!(reason.starts_with("ranks [1] do not answer; "), "{reason}");
        }
        other => panic!("{other}"),
    }
}

/// With a part of the bytes on their way, and more to come.
fn killed_amid_bulk(mpi: &Mpi) {
    const LEN: usize = 1 << 20;
    let mut comm = mpi.comm().unwrap();
    let (rank, device) = (comm.rank(), cpu(1));
    let stream = device.stream().unwrap();
    let sections: Vec<_> = (0..6).map(|index| sections::section(rank, index, LEN)).collect();
    let memory = (device.zeros(6 * RANKS * LEN).unwrap(), device.zeros(2 * RANKS * LEN).unwrap());
    let mut work = |index: usize, _: &Buffer<u8>, _: &Buffer<u8>| {
        if (rank, index) == (1, 2) {
            std::process::abort();
        }
        Ok(())
    };
    let (start, end) = (Instant::now(), Instant::now() + 4 * SHORT);
    let error = comm.exchange_sections(memory, &sections, &mut work, &stream, end).unwrap_err();
    assert!(start.elapsed() < LONG / 2, "no test asserts a time; this is an order of magnitude");
    match error {
        Error::Comm(Fault::Deadline { waiting_on, .. }) => assert_eq!(waiting_on, [1]),
        Error::Comm(Fault::Transport { reason, .. }) => {
            // The library noticed first.
            assert!(reason.starts_with("ranks [1] do not answer; "), "{reason}");
        }
        other => panic!("{other}"),
    }
}

fn c11_c12_abort(mpi: &Mpi) {
    let mut comm = mpi.comm().unwrap();
    if mpi.rank() == 0 {
        // Rank 0 never comes; another of its threads gives up.
        let aborter = comm.aborter();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            aborter.abort("no more data");
        })
        .join()
        .unwrap();
    }
    let fault = exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap_err();
    assert_eq!(fault, Fault::Aborted { rank: 0, reason: "no more data".into() });
}

unsafe extern "C" {
    fn MPI_Finalize() -> std::ffi::c_int;
}

/// MPI ends a process that calls it afterwards: what is called, and dropped, after MPI's end does not.
fn ended_by_someone_else(mpi: &Mpi) {
    let (mut comm, unused) = (mpi.comm().unwrap(), mpi.comm().unwrap());
    exchange(&mut comm, Collective::AllGather, &[1; 9], LONG).unwrap();
    // SAFETY: nothing is on its way, and this thread has started MPI.
    assert_eq!(unsafe { MPI_Finalize() }, 0);
    let fault = exchange(&mut comm, Collective::AllGather, &[1; 9], LONG).unwrap_err();
    assert!(matches!(fault, Fault::Transport { .. }), "{fault}");
    assert!(fault.to_string().contains("MPI_Finalize"), "{fault}");
    drop((comm, unused));
    assert!(matches!(mpi.comm().unwrap_err(), Error::State { .. }));
}
