//! Ranks over TCP: threads that connect through the loopback, and processes that die. Rows C-01 … C-12
//! and C-21 between them.
#![allow(missing_docs)]
#![cfg(feature = "tcp")]

mod common;

use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use common::blocks::{bytes, exchange};
use common::data::{Distribution, Rng};
use common::reduction::{params_from, refs};
use common::tcp::{connect, port};
use common::{cpu, ranks};
use halfstep::reduce::{
    BucketPlan, Collective, Communicator, Config, Fault, Given, Moves, Reducer, Rendezvous,
    Section, Sum, TcpComm, Unscale,
};
use halfstep::{Buffer, Device, Dtype, Error, Storage, bf16};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(500);

/// Runs every rank on a thread.
fn run<R: Send>(size: usize, rank: impl Fn(TcpComm) -> R + Sync) -> Vec<R> {
    let (port, made) = (port(), Barrier::new(size));
    ranks::run(size, |comm| {
        let comm = connect(comm.rank(), size, port, LONG).unwrap();
        made.wait(); // nobody breaks it before all have it
        rank(comm)
    })
}

#[test]
fn blocks_go_where_they_should() {
    for size in [1, 2, 5] {
        run(size, |mut comm| {
            let rank = comm.rank();
            for (round, len) in [1usize, 17, 0, 70_001, 3_000_000].into_iter().enumerate() {
                let byte =
                    |from: usize, to: usize, i: usize| (from * 31 + to * 7 + i * 3 + round) as u8;
                let block =
                    |from, to| (0..len).map(move |i| byte(from, to, i)).collect::<Vec<u8>>();
                let send: Vec<u8> = (0..size).flat_map(|to| block(rank, to)).collect();
                let parts = exchange(&mut comm, Collective::AllToAll, &send, LONG).unwrap();
                let expected: Vec<_> = (0..size).map(|from| block(from, rank)).collect();
                assert!(bytes(&parts) == expected, "{size} {len}");
                let parts =
                    exchange(&mut comm, Collective::AllGather, &block(rank, 9), LONG).unwrap();
                let expected: Vec<_> = (0..size).map(|from| block(from, 9)).collect();
                assert!(bytes(&parts) == expected, "{size} {len}");
            }
        });
    }
}

/// Three steps of a reducer, as bits.
fn reduce<G: Storage>(
    device: &Device,
    comm: Box<dyn Communicator>,
    (wire, sum, views): (Dtype, Sum, bool),
) -> Vec<u32> {
    const LENGTHS: [usize; 6] = [1, 7_000, 0, 33, 409_600, 25_001];
    let rank = comm.rank();
    let stream = device.stream().unwrap();
    let plan = BucketPlan::ddp(&params_from(&LENGTHS), wire, 10_000, 900_000).unwrap();
    let config = Config { sum, views, ..Config::default() };
    let mut reducer = Reducer::<G>::new(device, plan, comm, config).unwrap();
    let mut rng = Rng(5 + rank as u64);
    let mut bits = Vec::new();
    for _ in 0..3 {
        reducer.set_weight((1 + rng.below(5)) as f64).unwrap();
        let fill = |&len: &usize| Distribution::Outliers.fill::<G>(&mut rng, len);
        let mut gradients: Vec<Vec<G>> = LENGTHS.iter().map(fill).collect();
        for (param, gradient) in gradients.iter().enumerate() {
            match views {
                true => {
                    reducer.gradient_mut(param).unwrap().copy_from(&stream, gradient).unwrap();
                    reducer.ready_view(&stream, param).unwrap();
                }
                false => reducer.ready(&stream, param, gradient).unwrap(),
            }
        }
        if views {
            reducer.finish_views(&stream, Unscale::Keep).unwrap();
            for (param, gradient) in gradients.iter_mut().enumerate() {
                reducer.gradient(param).unwrap().copy_to(&stream, gradient).unwrap();
            }
        } else {
            reducer.finish(&stream, &mut refs(&mut gradients), Unscale::Keep).unwrap();
        }
        bits.extend(gradients.iter().flatten().map(|value| value.widen().to_bits()));
    }
    bits
}

#[test]
fn gradients_have_the_bits_of_threads() {
    for size in [2, 3] {
        for case in [
            (Dtype::Bf16, Sum::RankOrder, false),
            (Dtype::Bf16, Sum::RankOrder, true), // in sections, in place
            (Dtype::F32, Sum::OrderFree, false),
            (Dtype::Bf16, Sum::Int8, false),
        ] {
            let threads = ranks::run(size, |comm| reduce::<bf16>(&cpu(1), Box::new(comm), case));
            let over = run(size, |comm| reduce::<bf16>(&cpu(1), Box::new(comm), case));
            assert!(over == threads, "{size} {case:?}");
        }
    }
}

/// Ranks on GPUs meet over TCP, and exchange over NCCL or RCCL.
#[test]
#[cfg(any(feature = "nccl", feature = "rccl"))]
fn ranks_of_nccl_meet_over_tcp() {
    use common::nccl::{run_over, vendors};
    let (case, size) = ((Dtype::Bf16, Sum::RankOrder, true), 3);
    for devices in vendors(size) {
        let threads = ranks::run(size, |comm| reduce::<bf16>(&cpu(1), Box::new(comm), case));
        let port = port();
        let host = |rank| connect(rank, size, port, LONG).unwrap();
        let found = run_over(
            &devices,
            |comm| Box::new(host(comm.rank())),
            |comm, device, _| reduce::<bf16>(device, Box::new(comm), case),
        );
        assert!(found == threads, "{}", devices[0].info());
    }
}

/// C-01: on every rank, and the communicator answers with that from then on (C-10).
#[test]
fn c01_c10_a_buffer_that_is_not_a_block_for_each_rank() {
    run(3, |mut comm| {
        let len = if comm.rank() == 1 { 4 } else { 3 };
        let fault = exchange(&mut comm, Collective::AllToAll, &vec![0; len], LONG).unwrap_err();
        assert_eq!(fault, Fault::Length { sequence: 0, rank: 1, bytes: 4, blocks: 3 });
        let again = exchange(&mut comm, Collective::AllGather, &[0], LONG).unwrap_err();
        assert_eq!(again, fault);
    });
}

#[test]
fn c05_a_different_call_is_named_on_every_rank() {
    run(3, |mut comm| {
        let how = if comm.rank() == 2 { Collective::AllGather } else { Collective::AllToAll };
        let fault = exchange(&mut comm, how, &[0; 6], LONG).unwrap_err();
        assert!(matches!(fault, Fault::Mismatch { rank: 2, .. }), "{fault}");
    });
}

#[test]
fn c07_a_late_rank_is_named_by_the_deadline() {
    let end = Barrier::new(3);
    run(3, |mut comm| {
        if comm.rank() != 1 {
            let start = Instant::now();
            let fault = exchange(&mut comm, Collective::AllGather, &[1], SHORT).unwrap_err();
            assert!(
                matches!(fault, Fault::Deadline { ref waiting_on, .. } if *waiting_on == [1]),
                "{fault}"
            );
            assert!(start.elapsed() < SHORT + Duration::from_secs(1), "{:?}", start.elapsed());
        }
        end.wait(); // it is late, not gone
    });
}

/// C-06: a rank that ends while others wait is lost at once, and named by all.
#[test]
fn c06_a_rank_that_ends_is_lost() {
    run(4, |mut comm| {
        exchange(&mut comm, Collective::AllGather, &[1; 9], LONG).unwrap();
        if comm.rank() == 2 {
            return;
        }
        let start = Instant::now();
        let fault = exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap_err();
        assert_eq!(fault, Fault::PeerLost { sequence: 1, rank: 2 });
        assert!(start.elapsed() < Duration::from_secs(5), "not at the deadline");
    });
}

/// C-11, C-12: from another thread, while the call waits; on every rank.
#[test]
fn c11_c12_abort_ends_a_blocked_call_on_every_rank() {
    let end = Barrier::new(3);
    run(3, |mut comm| {
        if comm.rank() == 0 {
            comm.aborter().abort("enough");
        }
        if comm.rank() < 2 {
            let fault = exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap_err();
            assert_eq!(fault, Fault::Aborted { rank: 0, reason: "enough".into() });
        }
        end.wait();
    });
}

/// Ranks that disagree about their plans are told so by the reducer.
#[test]
fn c05_a_different_plan_is_named_on_every_rank() {
    run(2, |comm| {
        let lens = [40, 3 + comm.rank()];
        let plan = BucketPlan::ddp(&params_from(&lens), Dtype::F32, 64, 64).unwrap();
        let made = Reducer::<f32>::new(&cpu(1), plan, Box::new(comm), Config::default());
        let error = made.err().expect("they differ");
        assert!(matches!(error, Error::Comm(Fault::PlanMismatch { rank: 1, .. })), "{error}");
    });
}

/// One of four processes, which dies amid its exchanges.
const CHILD: &str = "HALFSTEP_TEST_TCP_CHILD";

#[test]
fn one_process_of_the_next_test() {
    let Ok(child) = std::env::var(CHILD) else {
        println!("skipped: a process of c06_a_process_that_dies_is_named_at_once");
        return;
    };
    let words: Vec<usize> = child.split(' ').map(|word| word.parse().unwrap()).collect();
    let [rank, port, at, amid] = words[..] else { panic!("{child}") };
    let mut comm = connect(rank, 4, port as u16, LONG).unwrap();
    if amid == 1 {
        let start = Instant::now();
        if let Err(error) = sections(&mut comm, at) {
            println!("\n0 {} {error}", start.elapsed().as_millis());
        }
        return;
    }
    for round in 0.. {
        if rank == 2 && round == at {
            std::process::abort(); // nothing is said to anyone
        }
        let start = Instant::now();
        if let Err(fault) = exchange(&mut comm, Collective::AllToAll, &vec![1; 8 << 20], LONG) {
            println!("\n{round} {} {fault}", start.elapsed().as_millis());
            return;
        }
    }
}

/// Blocks to their ranks and back, in so many sections; rank 2 dies between, when all have begun.
fn sections(comm: &mut TcpComm, at: usize) -> Result<(), Error> {
    const LEN: usize = 1 << 20;
    let (rank, device) = (comm.rank(), Device::cpu());
    let section = |index: usize| {
        let range = |of: usize| (4 * index + of) * LEN..(4 * index + of + 1) * LEN;
        let block = |of: usize| std::iter::once(range(of)).collect::<Vec<_>>();
        let (all, own) = ((0..4).map(block).collect::<Vec<_>>(), vec![block(rank); 4]);
        Section {
            gather: Moves { send: all.clone(), receive: all.clone() },
            scatter: Moves { send: own, receive: all },
        }
    };
    let sections: Vec<Section> = (0..at + 1).map(section).collect();
    let buffers = (device.zeros(4 * LEN * (at + 1))?, device.zeros(4 * LEN * (at + 1))?);
    let mut work = |section: usize, _: &Buffer<u8>, _: &Buffer<u8>| {
        if rank == 2 && section == at {
            std::process::abort();
        }
        Ok(())
    };
    let deadline = Instant::now() + LONG;
    comm.exchange_sections(buffers, &sections, &mut work, &device.stream()?, deadline).map(drop)
}

#[test]
fn c06_a_process_that_dies_is_named_at_once() {
    for (at, amid) in [(0, 0), (3, 0), (0, 1), (3, 1)] {
        let port = port();
        let start = |rank: usize| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "one_process_of_the_next_test", "--nocapture"])
                .env(CHILD, format!("{rank} {port} {at} {amid}"))
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let processes: Vec<_> = (0..4).map(start).collect();
        for (rank, process) in processes.into_iter().enumerate() {
            let output = process.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            if rank == 2 {
                assert!(!output.status.success(), "it died");
                continue;
            }
            let sequence = if amid == 1 { 0 } else { at };
            let expected = format!("collective {sequence}: rank 2 is lost");
            let line = said.lines().find(|line| line.ends_with(&expected));
            let line = line.unwrap_or_else(|| panic!("rank {rank}: {said}"));
            let time: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(time < 5000, "rank {rank}: {time} ms, not at the deadline");
        }
    }
}

/// Communicators one after the other at one port, and one that nobody can reach.
#[test]
fn ports_are_used_again() {
    let port = port();
    ranks::run(3, |comm| {
        for round in 0..5u8 {
            let mut comm = connect(comm.rank(), 3, port, LONG).unwrap();
            let parts = exchange(&mut comm, Collective::AllGather, &[round], LONG).unwrap();
            assert_eq!(bytes(&parts), vec![[round]; 3]);
        }
    });
    let given = Given { host: Some("no.such.host.invalid".into()), ..Given::default() };
    let given =
        Given { rank: Some(1), size: Some(2), local_rank: Some(0), local_size: Some(1), ..given };
    let meet = Rendezvous::find(&given, &|_| None).unwrap();
    let error = TcpComm::connect(&meet, Instant::now() + SHORT).unwrap_err();
    assert!(error.to_string().contains("no host no.such.host.invalid"), "{error}");
}
