//! Sections of a buffer, as exchanges between processes have them.

use std::ops::Range;
use std::time::Instant;

use halfstep::reduce::{Collective, Communicator, Fault, Moves, Mpi, MpiComm, Section};
use halfstep::{Buffer, Error};

use super::LONG;
use super::common::blocks::exchange;
use super::common::cpu;
use super::common::mpi::RANKS;

/// Sections of one byte for each rank, and each of the bytes in `len` copies: what rank `r` has for rank
/// `q` is gathered there; what it makes of that is scattered to all.
pub fn section(rank: usize, index: usize, len: usize) -> Section {
    let block = |at: usize| at * len..(at + 1) * len;
    // In two ranges.
    let halves = |at: usize| {
        let (block, middle) = (block(at), at * len + len / 3);
        vec![block.start..middle, middle..block.end]
    };
    let row = index * RANKS;
    Section {
        gather: Moves {
            send: (0..RANKS).map(|to| halves(row + to)).collect(),
            receive: (0..RANKS).map(|from| halves(index % 2 * RANKS + from)).collect(),
        },
        scatter: Moves {
            send: vec![vec![block(row + rank)]; RANKS],
            receive: (0..RANKS).map(|from| vec![block(row + from)]).collect(),
        },
    }
}

/// Each rank gathers what every other one has for it, adds it up, and scatters the sum.
pub fn go_where_they_should(mpi: &Mpi) {
    let mut comm = mpi.comm().unwrap();
    let (rank, device) = (comm.rank(), cpu(1));
    let stream = device.stream().unwrap();
    let value = |from: usize, to: usize, index: usize| (16 * from + 4 * to + index) as u8;
    for (count, len) in [(0, 8), (1, 0), (1, 1), (2, 70_001), (5, 3), (7, 40_000)] {
        let sections: Vec<_> = (0..count).map(|index| section(rank, index, len)).collect();
        let rows = (0..count).flat_map(|index| (0..RANKS).map(move |to| (index, to)));
        let bytes: Vec<u8> =
            rows.clone().flat_map(|(index, to)| vec![value(rank, to, index); len]).collect();
        let memory = (device.upload(&bytes).unwrap(), device.zeros(2 * RANKS * len).unwrap());
        let mut next = 0;
        let mut work = |index: usize, buffer: &Buffer<u8>, gathered: &Buffer<u8>| {
            assert_eq!(index, next);
            next += 1;
            let mut sum = vec![value(rank, rank, index); len];
            for from in (0..RANKS).filter(|&from| from != rank) {
                let mut bytes = vec![0; len];
                gathered.read(&stream, (index % 2 * RANKS + from) * len, &mut bytes)?;
                sum.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum += byte);
            }
            let to = buffer.address() + ((index * RANKS + rank) * len) as u64;
            // SAFETY: a row of the buffer that is this rank's own, and is not on its way.
            unsafe { std::ptr::copy_nonoverlapping(sum.as_ptr(), to as *mut u8, len) };
            Ok(())
        };
        let end = Instant::now() + LONG;
        let moved = comm.exchange_sections(memory, &sections, &mut work, &stream, end);
        let found = moved.unwrap().0.to_vec(&stream).unwrap();
        assert_eq!(next, count);
        for (at, (index, of)) in rows.enumerate() {
            let sum = (0..RANKS).map(|from| value(from, of, index)).fold(0, u8::wrapping_add);
            assert!(found[at * len..(at + 1) * len] == vec![sum; len], "{index} of {of}");
        }
    }
}

/// Sections without work.
fn only_gather(comm: &mut MpiComm, out: Range<usize>, into: Range<usize>) -> Error {
    let device = cpu(1);
    let stream = device.stream().unwrap();
    let gather = Moves { send: vec![vec![out]; RANKS], receive: vec![vec![into]; RANKS] };
    let sections = [Section { gather, scatter: Moves::default() }];
    let memory = (device.zeros(8).unwrap(), device.zeros(8).unwrap());
    let end = Instant::now() + LONG;
    comm.exchange_sections(memory, &sections, &mut |_, _, _| Ok(()), &stream, end).unwrap_err()
}

pub fn that_cannot_be(mpi: &Mpi) {
    // Blocks and sections are different calls.
    let mut comm = mpi.comm().unwrap();
    match mpi.rank() {
        1 => {
            let fault = exchange(&mut comm, Collective::AllGather, &[0; 8], LONG).unwrap_err();
            assert!(matches!(fault, Fault::Mismatch { rank: 1, .. }), "{fault}");
        }
        _ => {
            let error = only_gather(&mut comm, 0..1, 0..1);
            assert!(matches!(error, Error::Comm(Fault::Mismatch { rank: 1, .. })), "{error}");
        }
    }
    // Nothing is read or received past the end, nor two ranks' bytes in one place.
    for (out, into) in [(7..9, 0..2), (0..2, 7..9), (0..2, 0..2)] {
        let error = only_gather(&mut mpi.comm().unwrap(), out, into);
        assert!(matches!(error, Error::Comm(Fault::Transport { .. })), "{error}");
    }
    // A rank whose work fails says so itself, and ends the others.
    let mut comm = mpi.comm().unwrap();
    let (rank, device) = (comm.rank(), cpu(1));
    let stream = device.stream().unwrap();
    let sections: Vec<_> = (0..3).map(|index| section(rank, index, 8)).collect();
    let memory = (device.zeros(96).unwrap(), device.zeros(64).unwrap());
    let mut work = |index: usize, _: &Buffer<u8>, _: &Buffer<u8>| match (rank, index) {
        (2, 1) => {
            let (expected, found) = ("one".into(), "two".into());
            Err(Error::State { op: "a test", expected, found })
        }
        _ => Ok(()),
    };
    let end = Instant::now() + LONG;
    let error = comm.exchange_sections(memory, &sections, &mut work, &stream, end).unwrap_err();
    match (rank, error) {
        (2, Error::State { op: "a test", .. }) => {}
        (0 | 1 | 3, Error::Comm(Fault::Aborted { rank: 2, .. })) => {}
        (_, other) => panic!("{other}"),
    }
}
