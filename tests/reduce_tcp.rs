//! Ranks over TCP: threads that connect through the loopback, and processes that die. Rows C-01 … C-12
//! and C-21 between them, and what may come while they meet.
#![allow(missing_docs)]
#![cfg(feature = "tcp")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use common::data::{Distribution, Rng};
use common::reduction::{params_from, refs};
use common::tcp::{connect, port};
use common::{cpu, ranks};
use halfstep::reduce::{
    BucketPlan, Collective, Communicator, Config, Fault, Given, Moves, Parts, Reducer, Rendezvous,
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

fn exchange(
    comm: &mut TcpComm,
    how: Collective,
    bytes: &[u8],
    within: Duration,
) -> Result<Parts, Fault> {
    let device = Device::cpu();
    let send = Arc::new(device.upload(bytes).unwrap());
    comm.exchange(how, &send, &device.stream().unwrap(), Instant::now() + within)
}

fn bytes(parts: &Parts) -> Vec<Vec<u8>> {
    let stream = Device::cpu().stream().unwrap();
    let one = |part: &halfstep::reduce::Part| {
        let mut bytes = vec![0; part.len];
        part.buffer.read(&stream, part.start, &mut bytes).unwrap();
        bytes
    };
    parts.parts.iter().map(one).collect()
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

/// C-03: who has come is told who has not, by rank 0's deadline.
#[test]
fn c03_a_rank_that_does_not_come_is_named() {
    let port = port();
    let faults = ranks::run(2, |comm| connect([0, 2][comm.rank()], 4, port, SHORT).unwrap_err());
    for fault in faults {
        let Error::Comm(Fault::Deadline { waiting_on, .. }) = fault else { panic!("{fault}") };
        assert_eq!(waiting_on, [1, 3]);
    }
    let alone = connect(1, 2, port, SHORT).unwrap_err();
    let expected = Fault::Deadline { sequence: 0, waiting_on: vec![0] };
    assert_eq!(alone, Error::Comm(expected));
}

/// C-02: two processes of one rank, and a process of another job; on all that have come.
#[test]
fn c02_ranks_that_cannot_be_are_named() {
    let [twice, sizes] = [port(), port()];
    let faults = ranks::run(3, |comm| {
        connect([0, 1, 1][comm.rank()], 3, twice, LONG).unwrap_err().to_string()
    });
    assert!(faults.iter().all(|fault| fault.contains("1 of 3 of halfstep")), "{faults:?}");
    assert!(faults[0].contains("a second time"), "{faults:?}");
    let faults = ranks::run(2, |comm| {
        let rank = comm.rank();
        connect(rank, 2 + rank, sizes, LONG).unwrap_err().to_string()
    });
    assert!(faults.iter().all(|fault| fault.contains("called 1 of 3")), "{faults:?}");
}

/// Who calls and is no rank is not listened to: silence, noise, a length of 2 GiB.
#[test]
fn c09_strangers_are_ignored() {
    let port = port();
    std::thread::scope(|scope| {
        let rank = |rank| scope.spawn(move || connect(rank, 2, port, LONG).map(drop));
        let first = rank(0);
        let stranger = |says: &[u8]| loop {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                stream.write_all(says).unwrap();
                return stream;
            }
        };
        let silent = stranger(b"");
        let mut noise = [stranger(b"GET / HTTP/1.1\r\n\r\n"), stranger(&[255; 200])];
        let unfinished = stranger(&[40, 0, 0, 0, b'{']);
        let second = rank(1);
        second.join().unwrap().unwrap();
        first.join().unwrap().unwrap();
        for stream in &mut noise {
            assert!(!matches!(stream.read(&mut [0; 8]), Ok(1..)), "hung up on");
        }
        drop((silent, unfinished));
    });
}

/// Who never comes to an end is not listened to for longer than who says nothing.
#[test]
fn c09_a_stranger_that_speaks_slowly_holds_nobody_up() {
    const LEN: usize = 1000;
    let port = port();
    std::thread::scope(|scope| {
        let first = scope.spawn(move || connect(0, 2, port, SHORT).map(drop));
        let mut stream = loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                break stream;
            }
        };
        stream.write_all(&(LEN as u32).to_le_bytes()).unwrap();
        let mut said = 0;
        // Until hung up on.
        while said < LEN && stream.write_all(b" ").is_ok() {
            said += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(said < LEN, "listened to the end");
        let error = first.join().unwrap().unwrap_err();
        let expected = Fault::Deadline { sequence: 0, waiting_on: vec![1] };
        assert_eq!(error, Error::Comm(expected));
    });
}

const FILES: &str = "HALFSTEP_TEST_TCP_FILES";

#[test]
fn the_process_of_the_next_test() {
    if std::env::var(FILES).is_err() {
        println!("skipped: the process of a_rank_that_may_open_no_more_files_says_so");
        return;
    }
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    files.pop(); // where it listens
    let error = connect(1, 2, port_of_nobody(), SHORT).unwrap_err();
    drop(files);
    println!("\n{error}");
}

/// As [`port`], which would need a file.
fn port_of_nobody() -> u16 {
    9
}

/// A rank that cannot call another does not say that the other has not come.
#[test]
#[cfg(target_os = "linux")]
fn a_rank_that_may_open_no_more_files_says_so() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_of_the_next_test", "--nocapture"])
        .env(FILES, "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("connect: Too many open files"), "{said}");
}

/// Says something to whoever listens at a port.
fn say(port: u16, text: &str) -> TcpStream {
    let mut stream = loop {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            break stream;
        }
    };
    stream.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// What a rank introduces itself with.
fn hello(rank: usize, size: usize) -> String {
    let protocol = format!("halfstep {}", env!("CARGO_PKG_VERSION"));
    format!(r#"{{"protocol":"{protocol}","rank":{rank},"size":{size},"port":9}}"#)
}

/// A rank that ends before all have come, and is started again, before the last one or after, has come once.
#[test]
fn a_rank_may_be_started_again_until_all_have_come() {
    for first in [1, 2] {
        let port = port();
        std::thread::scope(|scope| {
            let rank = |rank| scope.spawn(move || connect(rank, 3, port, LONG).map(drop));
            let zero = rank(0);
            drop(say(port, &hello(1, 3)));
            let ranks = [zero, rank(first), rank(3 - first)];
            ranks.into_iter().for_each(|rank| rank.join().unwrap().unwrap());
        });
    }
}

/// Who was let in by rank 0, and then says another job's number, is not taken for a rank.
#[test]
fn connections_of_another_job_are_ignored() {
    let port = port();
    std::thread::scope(|scope| {
        let first = scope.spawn(move || connect(0, 2, port, 4 * SHORT).map(drop));
        let hello = say(port, &hello(1, 2));
        assert_eq!((&hello).read(&mut [0]).unwrap(), 1, "let in");
        let peer = |bulk| format!(r#"{{"job":7,"rank":1,"bulk":{bulk}}}"#);
        let wrong = [false, true].map(|bulk| say(port, &peer(bulk)));
        let error = first.join().unwrap().unwrap_err();
        let expected = Fault::Deadline { sequence: 0, waiting_on: vec![1] };
        assert_eq!(error, Error::Comm(expected));
        drop(wrong);
    });
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
