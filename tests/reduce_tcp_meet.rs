//! Ranks that meet over TCP, and what may come while they do. Rows C-02, C-03 and C-09.
#![allow(missing_docs)]
#![cfg(feature = "tcp")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use common::ranks;
use common::tcp::{connect, port};
use halfstep::Error;
use halfstep::reduce::{Communicator, Fault};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(500);

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
        let stranger = |says: &[u8]| {
            let mut stream = call(port);
            stream.write_all(says).unwrap();
            stream
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

/// All are listened to at once: one after the other, these would take until long after the deadline.
#[test]
fn c09_silent_strangers_hold_nobody_up() {
    let port = port();
    std::thread::scope(|scope| {
        let rank = |rank| scope.spawn(move || connect(rank, 2, port, 10 * SHORT).map(drop));
        let first = rank(0);
        let silent: Vec<_> = (0..8).map(|_| call(port)).collect();
        let second = rank(1);
        second.join().unwrap().unwrap();
        first.join().unwrap().unwrap();
        drop(silent);
    });
}

/// Who never comes to an end is not listened to for longer than who says nothing.
#[test]
fn c09_a_stranger_that_speaks_slowly_holds_nobody_up() {
    const LEN: usize = 1000;
    let port = port();
    std::thread::scope(|scope| {
        let first = scope.spawn(move || connect(0, 2, port, SHORT).map(drop));
        let mut stream = call(port);
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

/// Whoever listens at a port, once somebody does.
fn call(port: u16) -> TcpStream {
    loop {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            return stream;
        }
    }
}

/// Says something to whoever listens at a port.
fn say(port: u16, text: &str) -> TcpStream {
    let mut stream = call(port);
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
