//! The in-process communicator, and what it does when ranks fail. Rows C-01 … C-22.
//!
//! | row | why it is not here |
//! |---|---|
//! | C-02 | `local` makes all ranks at once, so numbers and counts agree by construction |
//! | C-04 | one device for each rank is a rule of NCCL; CPU ranks share the host |
//! | C-09 | blocks travel by reference: there is no frame to corrupt |
//! | C-13, C-14, C-15, C-16 | several NCCL communicators, its codes and its asynchronous errors |
//! | C-19, C-20 | blocks are bytes of one buffer; there is no operator to combine with a type |
#![allow(missing_docs)]

mod common;

use common::blocks::{bytes, exchange};
use common::{cpu, ranks};
use halfstep::reduce::{
    Abort, BucketPlan, Collective, Communicator, Config, Fault, Local, Param, Part, Parts, Reducer,
    Unscale, local,
};
use halfstep::{Buffer, Dtype, Error, Stream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn blocks_go_where_they_should() {
    for size in [1, 2, 3, 5] {
        ranks::run(size, |mut comm| {
            let rank = comm.rank() as u8;
            for round in 0..50u8 {
                let send: Vec<u8> = (0..size as u8).flat_map(|to| [rank, to, round]).collect();
                let parts = exchange(&mut comm, Collective::AllToAll, &send, LONG).unwrap();
                let expected: Vec<Vec<u8>> =
                    (0..size as u8).map(|from| vec![from, rank, round]).collect();
                assert_eq!(bytes(&parts), expected);
                let parts =
                    exchange(&mut comm, Collective::AllGather, &[rank, round], LONG).unwrap();
                let expected: Vec<Vec<u8>> =
                    (0..size as u8).map(|from| vec![from, round]).collect();
                assert_eq!(bytes(&parts), expected);
            }
        });
    }
}

/// C-01: a buffer that cannot be cut into one block a rank.
#[test]
fn c01_a_buffer_that_is_not_a_block_for_each_rank() {
    let faults = ranks::run(2, |mut comm| {
        exchange(&mut comm, Collective::AllToAll, &[1, 2, 3], LONG).unwrap_err()
    });
    for fault in faults {
        assert!(matches!(fault, Fault::Length { bytes: 3, blocks: 2, .. }), "{fault}");
    }
}

/// C-03, C-07: a rank that does not come, at first or later, is named on every other rank by the
/// deadline.
#[test]
fn c03_c07_a_missing_rank_is_named_by_the_deadline() {
    for rounds in [0, 3] {
        let limit = Duration::from_millis(150);
        let done = Barrier::new(3);
        let outcomes = ranks::run(3, |mut comm| {
            for _ in 0..rounds {
                exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap();
            }
            let start = Instant::now();
            let outcome = (comm.rank() != 1)
                .then(|| exchange(&mut comm, Collective::AllGather, &[1], limit).unwrap_err());
            let elapsed = start.elapsed();
            done.wait(); // rank 1 stays alive, and silent
            (outcome, elapsed)
        });
        for (rank, (outcome, elapsed)) in outcomes.into_iter().enumerate() {
            if rank != 1 {
                let expected = Fault::Deadline { sequence: rounds, waiting_on: vec![1] };
                assert_eq!(outcome, Some(expected));
                // No test asserts a time; this one asserts an order of magnitude, no hang.
                assert!(elapsed < LONG, "{elapsed:?}");
            }
        }
    }
}

/// C-05: another collective, or another length, is a mismatch on every rank, and says both.
#[test]
fn c05_a_different_call_is_named_on_every_rank() {
    let faults = ranks::run(3, |mut comm| {
        let how = if comm.rank() == 2 { Collective::AllToAll } else { Collective::AllGather };
        exchange(&mut comm, how, &[0; 3], LONG).unwrap_err()
    });
    for fault in &faults {
        assert!(matches!(fault, Fault::Mismatch { rank: 2, sequence: 0, .. }), "{fault}");
        let text = fault.to_string();
        assert!(text.contains("AllToAll") && text.contains("AllGather"), "{text}");
    }
    let faults = ranks::run(2, |mut comm| {
        let len = 4 + comm.rank();
        exchange(&mut comm, Collective::AllGather, &vec![0; len], LONG).unwrap_err()
    });
    for fault in faults {
        assert!(fault.to_string().contains("5 bytes"), "{fault}");
    }
}

/// C-06, C-22: a rank that ends, or panics, while others wait is a lost peer on all of them.
#[test]
fn c06_c22_a_rank_that_ends_or_panics_is_lost() {
    for panics in [false, true] {
        let comms = local(3.try_into().unwrap());
        let faults: Vec<Fault> = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for mut comm in comms {
                threads.push(scope.spawn(move || {
                    exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap();
                    if comm.rank() == 1 {
                        if panics {
                            std::panic::resume_unwind(Box::new("as a test"));
                        }
                        return None;
                    }
                    let fault = exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap_err();
                    // C-10: the same answer at once, for ever.
                    let start = Instant::now();
                    let again = exchange(&mut comm, Collective::AllToAll, &[1; 3], LONG);
                    assert_eq!(again.unwrap_err(), fault);
                    assert!(start.elapsed() < LONG);
                    Some(fault)
                }));
            }
            threads.into_iter().filter_map(|thread| thread.join().unwrap_or(None)).collect()
        });
        assert_eq!(faults, vec![Fault::PeerLost { sequence: 1, rank: 1 }; 2]);
    }
}

/// C-08: a slow rank within the deadline is no fault, and its lateness is measured as skew.
#[test]
fn c08_a_slow_rank_is_waited_for_and_measured() {
    let late = Duration::from_millis(60);
    let skews = ranks::run(2, |mut comm| {
        if comm.rank() == 1 {
            std::thread::sleep(late);
        }
        exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap().skew
    });
    assert!(skews[0] > skews[1], "the early rank waits: {skews:?}");
}

/// C-11, C-12: an abort from another thread ends the call in progress, on every rank.
#[test]
fn c11_c12_abort_ends_a_blocked_call_on_every_rank() {
    let faults = ranks::run(3, |mut comm| {
        if comm.rank() == 0 {
            // Rank 0 never comes; another of its threads gives up.
            let aborter = comm.aborter();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                aborter.abort("no more data");
            })
            .join()
            .unwrap();
        }
        exchange(&mut comm, Collective::AllGather, &[1], LONG).unwrap_err()
    });
    let expected = Fault::Aborted { rank: 0, reason: "no more data".into() };
    assert_eq!(faults, vec![expected; 3]);
}

/// C-17, C-18: a communicator dropped by an unwinding thread frees nothing that others read.
#[test]
fn c17_c18_blocks_outlive_the_rank_that_sent_them() {
    let parts = ranks::run(2, |mut comm| {
        let rank = comm.rank() as u8;
        exchange(&mut comm, Collective::AllGather, &[rank; 100], LONG).unwrap()
    });
    assert_eq!(bytes(&parts[0]), [[0u8; 100], [1u8; 100]]);
}

/// C-21: nothing to send is a collective like any other.
#[test]
fn c21_empty_blocks_advance_the_sequence() {
    ranks::run(4, |mut comm| {
        for _ in 0..10 {
            let parts = exchange(&mut comm, Collective::AllToAll, &[], LONG).unwrap();
            assert!(parts.parts.iter().all(|part| part.len == 0));
        }
        let rank = comm.rank() as u8;
        let parts = exchange(&mut comm, Collective::AllGather, &[rank], LONG).unwrap();
        assert_eq!(bytes(&parts), [[0], [1], [2], [3]]);
    });
}

/// A deadline that has passed is no fault for the rank that comes last: everything is there.
#[test]
fn a_deadline_in_the_past_fails_only_those_who_would_wait() {
    let mut alone = local(1.try_into().unwrap());
    exchange(&mut alone[0], Collective::AllGather, &[1], Duration::ZERO).unwrap();
    let mut two = local(2.try_into().unwrap());
    let fault = exchange(&mut two[0], Collective::AllGather, &[1], Duration::ZERO).unwrap_err();
    assert_eq!(fault, Fault::Deadline { sequence: 0, waiting_on: vec![1] });
}

#[test]
fn communicators_are_send() {
    fn send<T: Send>() {}
    send::<Local>();
    send::<halfstep::reduce::Reducer<f32>>();
}

/// Nobody has to wait for ever to overflow a clock.
#[test]
fn the_longest_deadline_is_a_deadline() {
    let device = cpu(1);
    let stream = device.stream().unwrap();
    let plan = || BucketPlan::ddp(&[Param::new("w", 3)], Dtype::F32, 1, 1).unwrap();
    let config = Config { deadline: Duration::MAX, ..Config::default() };
    let sums = ranks::run(2, |comm| {
        let mut reducer =
            Reducer::<f32>::new(&device, plan(), Box::new(comm), config.clone()).unwrap();
        let mut g = vec![2.0f32; 3];
        reducer.ready(&stream, 0, &g).unwrap();
        reducer.finish(&stream, &mut [&mut g], Unscale::Keep).unwrap();
        g
    });
    assert_eq!(sums, [[2.0; 3]; 2]);
}

/// Weights whose f32, or whose sum's inverse, would be 0 or infinite are refused.
#[test]
fn weights_are_factors_that_f32_holds() {
    let plan = BucketPlan::ddp(&[Param::new("w", 3)], Dtype::F32, 1, 1).unwrap();
    let comm = Box::new(local(1.try_into().unwrap()).remove(0));
    let mut reducer = Reducer::<f32>::new(&cpu(1), plan, comm, Config::default()).unwrap();
    for weight in [1e300, 1e-300, 1e-40, -1.0, f64::NAN, f64::INFINITY] {
        let error = reducer.set_weight(weight).unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
    }
    for weight in [0.0, 1.0, 1e9, 1e-9] {
        reducer.set_weight(weight).unwrap();
    }
}

/// A communicator of someone else's, that answers a bucket's `call`-th collective with bad parts.
struct Wrong {
    inner: Local,
    call: usize,
    spoil: fn(&mut Vec<Part>),
}

impl Communicator for Wrong {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn exchange(
        &mut self,
        how: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        let mut parts = self.inner.exchange(how, send, stream, deadline)?;
        if self.call == 0 {
            (self.spoil)(&mut parts.parts);
        }
        self.call = self.call.wrapping_sub(1);
        Ok(parts)
    }
    fn aborter(&self) -> Arc<dyn Abort> {
        self.inner.aborter()
    }
}

/// Parts are checked before memory is read through them: `Communicator` is a safe trait.
#[test]
fn wrong_parts_are_errors_and_never_read() {
    let spoils: [fn(&mut Vec<Part>); 6] = [
        |parts| parts.clear(),
        |parts| parts.truncate(1),
        |parts| parts[1].len -= 1,
        |parts| parts[1].start = usize::MAX,
        |parts| parts[1].start += parts[1].buffer.len(),
        |parts| {
            let bytes = vec![0; parts[1].len + 1];
            parts[1].buffer = Arc::new(cpu(1).upload(&bytes).unwrap());
            parts[1].start = 1;
        },
    ];
    for spoil in spoils {
        for call in 0..3 {
            let results = ranks::run(2, |inner| {
                let device = cpu(1);
                let stream = device.stream().unwrap();
                let plan = BucketPlan::ddp(&[Param::new("w", 300)], Dtype::Bf16, 1, 1).unwrap();
                let config = Config { deadline: Duration::from_millis(500), ..Config::default() };
                let comm = Box::new(Wrong { inner, call, spoil });
                let mut reducer = Reducer::<f32>::new(&device, plan, comm, config)?;
                let mut g = vec![1.0f32; 300];
                reducer.ready(&stream, 0, &g)?;
                reducer.finish(&stream, &mut [&mut g], Unscale::Keep).map(|_| ())
            });
            // Whoever sees it second may hear of it from the other rank.
            let errors: Vec<Error> = results.into_iter().map(|r| r.unwrap_err()).collect();
            let own = |e: &Error| matches!(e, Error::Shape { .. } | Error::Align { .. });
            let heard = |e: &Error| matches!(e, Error::Comm(_));
            assert!(errors.iter().any(own), "{errors:?}");
            assert!(errors.iter().all(|e| own(e) || heard(e)), "{errors:?}");
        }
    }
}

/// Rank 1 alone sees that its parts are wrong, in the bucket's first collective, and does not come to `finish`: rank 0
/// hears why at once, and does not wait for it until the deadline.
#[test]
fn a_rank_that_fails_alone_tells_the_others() {
    let heard = Barrier::new(2);
    let results = ranks::run(2, |inner| {
        let (rank, device) = (inner.rank(), cpu(1));
        let stream = device.stream().unwrap();
        let plan = BucketPlan::ddp(&[Param::new("w", 300)], Dtype::Bf16, 1, 1).unwrap();
        let config = Config { deadline: Duration::from_secs(2), ..Config::default() };
        // The first one is that of plans.
        let comm =
            Wrong { inner, call: if rank == 1 { 1 } else { 99 }, spoil: |parts| parts.clear() };
        let mut reducer = Reducer::<f32>::new(&device, plan, Box::new(comm), config).unwrap();
        let mut g = vec![1.0f32; 300];
        reducer.ready(&stream, 0, &g).unwrap();
        let mut finish = || reducer.finish(&stream, &mut [&mut g], Unscale::Keep).unwrap_err();
        let first = (rank == 0).then(&mut finish);
        heard.wait();
        first.unwrap_or_else(finish)
    });
    let Error::Comm(Fault::Aborted { rank: 1, reason }) = &results[0] else {
        panic!("{}", results[0])
    };
    assert!(reason.contains("parts"), "{reason}");
    assert!(matches!(results[1], Error::Shape { .. }), "{}", results[1]);
}

/// A rank that has its communicator in another order than the rest would average blocks that are not the same.
#[test]
fn ranks_that_are_numbered_otherwise_are_errors() {
    let errors = ranks::run(3, |inner| {
        let call = if inner.rank() == 1 { 0 } else { 99 };
        let comm = Wrong { inner, call, spoil: |parts| parts.swap(1, 2) };
        let plan = BucketPlan::ddp(&[Param::new("w", 300)], Dtype::Bf16, 1, 1).unwrap();
        Reducer::<f32>::new(&cpu(1), plan, Box::new(comm), Config::default()).err()
    });
    let Some(Error::State { .. }) = &errors[1] else { panic!("{errors:?}") };
    let error = errors[1].as_ref().unwrap().to_string();
    assert!(error.contains("rank 1") && error.contains("rank 2"), "{error}");
}
