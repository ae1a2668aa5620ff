//! Ranks on GPUs over NCCL and RCCL: blocks, gradients, and what happens when ranks, links or the library
//! fail. On the virtual GPU, the library is virtual too; there each rank has a device of its own:
//!
//! ```text
//! VGPU_DEVICES=3 ci/vgpu/run cargo test --features nccl,rccl --test reduce_nccl
//! ```
//!
//! | row | what is asserted |
//! |---|---|
//! | C-04 | two ranks on one device are refused, by the library's own words |
//! | C-14, C-15 | a code of the library's, and one that it has in the background, end all ranks |
//! | C-16 | "in progress" is no failure: the virtual library is, for a random while, after every call |
#![cfg(any(feature = "nccl", feature = "rccl"))]
#![allow(missing_docs)]

mod common;

use common::data::{Distribution, Rng};
use common::nccl::{LONG, run, vendors};
use common::reduction::params_from;
use common::vgpu::Door;
use common::{ranks, sharded};
use halfstep::optim;
use halfstep::reduce::{
    BucketPlan, Collective, Communicator, Config, Fault, Local, NcclComm, Reducer, Sharded, Sum,
    Unscale, local,
};
use halfstep::{Device, Dtype, Error, Stream, Write, bf16};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time: what is left behind, and what was made to fail, is the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn exchange(
    comm: &mut NcclComm,
    (device, stream): (&Device, &Stream),
    how: Collective,
    bytes: &[u8],
    limit: Duration,
) -> Result<Vec<Vec<u8>>, Fault> {
    let send = Arc::new(device.upload(bytes).unwrap());
    let parts = comm.exchange(how, &send, stream, Instant::now() + limit)?;
    let read = |part: &halfstep::reduce::Part| {
        let mut bytes = vec![0; part.len];
        part.buffer.read(stream, part.start, &mut bytes).unwrap();
        bytes
    };
    Ok(parts.parts.iter().map(read).collect())
}

#[test]
fn blocks_go_where_they_should() {
    let _alone = alone();
    for devices in vendors(3) {
        run(&devices, |mut comm, device, stream| {
            let (rank, size) = (comm.rank() as u8, comm.size() as u8);
            for (round, len) in [1, 16, 17, 4096, 5, 0].into_iter().enumerate() {
                let block = |from: u8, to: u8| -> Vec<u8> {
                    (0..len)
                        .map(|i| (i as u8).wrapping_mul(3) ^ from << 4 ^ to << 2 ^ round as u8)
                        .collect()
                };
                let send: Vec<u8> = (0..size).flat_map(|to| block(rank, to)).collect();
                let here = (device, stream);
                let parts = exchange(&mut comm, here, Collective::AllToAll, &send, LONG).unwrap();
                let expected: Vec<_> = (0..size).map(|from| block(from, rank)).collect();
                assert!(parts == expected, "all-to-all of {len}");
                let mine = block(rank, 0);
                let parts = exchange(&mut comm, here, Collective::AllGather, &mine, LONG).unwrap();
                let expected: Vec<_> = (0..size).map(|from| block(from, 0)).collect();
                assert!(parts == expected, "all-gather of {len}");
            }
        });
    }
}

/// What is sent is what work in progress on the stream is about to write.
#[test]
fn an_exchange_comes_after_the_work_before_it() {
    let _alone = alone();
    for devices in vendors(2) {
        run(&devices, |mut comm, device, stream| {
            for round in 0..8u8 {
                let mut buffer = device.zeros::<u8>(64).unwrap();
                let fresh = device.upload(&[comm.rank() as u8 + 10 * round; 64]).unwrap();
                buffer
                    .view_mut(0..64)
                    .unwrap()
                    .copy_from_view(stream, &fresh.view(0..64).unwrap())
                    .unwrap();
                let send = Arc::new(buffer);
                let deadline = Instant::now() + LONG;
                let parts = comm.exchange(Collective::AllGather, &send, stream, deadline).unwrap();
                for (rank, part) in parts.parts.iter().enumerate() {
                    let mut bytes = [0; 64];
                    part.buffer.read(stream, part.start, &mut bytes).unwrap();
                    assert_eq!(bytes, [rank as u8 + 10 * round; 64]);
                }
            }
        });
    }
}

/// Steps of LAMB, which has most to exchange, one of them skipped.
#[test]
fn sharded_steps_have_the_bits_of_the_cpu() {
    let _alone = alone();
    let config = optim::Config { moments: optim::Moments::Bf16, ..optim::Config::default() };
    let lens = [1, 16_390, 0, 33_000, 255];
    let case = sharded::Case::new(3, &lens, optim::Lamb::default().into(), config);
    let case = sharded::Case { nan: Some((1, 2, 1)), ..case };
    let end = |_: &mut Sharded<bf16, bf16>, _: &Stream, _: usize| {};
    let expected = sharded::sharded(&case, &Device::cpu(), end);
    for devices in vendors(3) {
        let found = run(&devices, |comm, device, _| sharded::one_rank(&case, device, comm, &end));
        assert!(found == expected, "{}", devices[0].info());
    }
}

const LENGTHS: [usize; 7] = [1, 7, 16_390, 0, 2049, 9, 255];

/// Two steps of a reducer on a rank, as bits.
fn reduce(
    comm: Box<dyn Communicator>,
    device: &Device,
    (wire, sum, views): (Dtype, Sum, bool),
) -> Vec<u16> {
    let plan = BucketPlan::ddp(&params_from(&LENGTHS), wire, 4000, 9000).unwrap();
    let stream = device.stream().unwrap();
    let mut rng = Rng(17 + comm.rank() as u64);
    let weight = 1.5 + comm.rank() as f64;
    let config = Config { views, sum, ..Config::default() };
    let mut reducer = Reducer::<bf16>::new(device, plan, comm, config).unwrap();
    let mut bits = Vec::new();
    for _ in 0..2 {
        reducer.set_weight(weight).unwrap();
        let fill = |&len: &usize| Distribution::REAL[4].fill::<bf16>(&mut rng, len);
        let tensors: Vec<Vec<bf16>> = LENGTHS.iter().map(fill).collect();
        let mut own: Vec<_> = tensors.iter().map(|t| device.upload(t).unwrap()).collect();
        for param in (0..LENGTHS.len()).rev() {
            if views {
                let mut to = reducer.gradient_mut(param).unwrap();
                to.copy_from_view(&stream, &own[param].view(0..LENGTHS[param]).unwrap()).unwrap();
                reducer.ready_view(&stream, param).unwrap();
            } else {
                reducer.ready(&stream, param, &own[param]).unwrap();
            }
        }
        if views {
            reducer.finish_views(&stream, Unscale::Keep).unwrap();
            for (param, &len) in LENGTHS.iter().enumerate() {
                let mut all = vec![bf16::default(); len];
                reducer.gradient(param).unwrap().copy_to(&stream, &mut all).unwrap();
                bits.extend(all.iter().map(|v| v.to_bits()));
            }
        } else {
            let mut out: Vec<&mut dyn Write<bf16>> =
                own.iter_mut().map(|buffer| buffer as &mut dyn Write<bf16>).collect();
            reducer.finish(&stream, &mut out, Unscale::Keep).unwrap();
            for buffer in &own {
                bits.extend(buffer.to_vec(&stream).unwrap().iter().map(|v| v.to_bits()));
            }
        }
    }
    bits
}

/// Gradients have the bits of ranks that are threads on a CPU.
#[test]
fn gradients_have_the_bits_of_the_cpu() {
    let _alone = alone();
    for ranks in [2, 3] {
        for devices in vendors(ranks) {
            for case in [
                (Dtype::Bf16, Sum::RankOrder, false),
                (Dtype::F32, Sum::RankOrder, true),
                (Dtype::Bf16, Sum::OrderFree, false),
                (Dtype::Bf16, Sum::Int8, true),
            ] {
                let cpu = ranks::run(ranks, |comm| reduce(Box::new(comm), &Device::cpu(), case));
                let door = Door::of(&devices[0]);
                let aborted = door.as_ref().map_or(0, |door| door.calls("ncclCommAbort"));
                for seed in 0..4 {
                    if let Some(door) = &door {
                        door.seed(seed);
                    }
                    let here =
                        run(&devices, |comm, device, _| reduce(Box::new(comm), device, case));
                    assert!(cpu == here, "{case:?} seed {seed}");
                    assert!(here.windows(2).all(|pair| pair[0] == pair[1]));
                }
                if let Some(door) = door {
                    // Others may still be getting the last bytes.
                    assert_eq!(door.calls("ncclCommAbort"), aborted, "ended in order");
                    assert!(case.1 != Sum::OrderFree || door.calls("ncclAllReduce") > 0);
                    assert!(door.calls("ncclSend") > 0 && door.calls("ncclAllGather") > 0);
                    let left = door.leaks();
                    assert!(!left.contains(&"communicator".to_string()), "{left:?}");
                }
            }
        }
    }
}

/// Sums of the library's own: within what one rounding at every hop can do, and the same on every rank.
#[test]
fn the_librarys_own_sum() {
    let _alone = alone();
    for devices in vendors(3) {
        for (wire, u) in [(Dtype::Bf16, 2f64.powi(-8)), (Dtype::F32, 2f64.powi(-24))] {
            let results = run(&devices, |comm, device, _| {
                reduce(Box::new(comm), device, (wire, Sum::Communicator, false))
            });
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "ranks agree");
            let mut rngs: Vec<Rng> = (0..3).map(|rank| Rng(17 + rank)).collect();
            let mut got = results[0].iter().map(|bits| f64::from(bf16::from_bits(*bits)));
            for len in LENGTHS.repeat(2) {
                let fill = |rng: &mut Rng| Distribution::REAL[4].fill::<bf16>(rng, len);
                let (mut exact, mut size) = (vec![0.0; len], vec![0.0; len]);
                for (rank, values) in rngs.iter_mut().map(fill).enumerate() {
                    for (i, value) in values.into_iter().enumerate() {
                        let term = (1.5 + rank as f64) * f64::from(value) / 7.5;
                        exact[i] += term;
                        size[i] += f64::abs(term);
                    }
                }
                for (exact, size) in exact.into_iter().zip(size) {
                    let got = got.next().unwrap();
                    // Packed, added twice, unpacked to bf16.
                    let bound = 3.1 * u * size + 2f64.powi(-8) * f64::abs(exact) + 1e-6 * size;
                    assert!((got - exact).abs() <= bound, "{wire} {got} {exact} {bound}");
                }
            }
        }
    }
}

/// A rank that does not come is named on every other one by the deadline.
#[test]
fn a_missing_rank_is_named_by_the_deadline() {
    let _alone = alone();
    for devices in vendors(3) {
        let done = Barrier::new(3);
        let outcomes = run(&devices, |mut comm, device, stream| {
            let limit = Duration::from_millis(200);
            let gather = Collective::AllGather;
            let outcome = (comm.rank() != 1).then(|| {
                let outcome = exchange(&mut comm, (device, stream), gather, &[1; 16], limit);
                let fault = outcome.unwrap_err();
                // The same answer at once, for ever.
                let again = exchange(&mut comm, (device, stream), gather, &[1; 16], LONG);
                assert_eq!(again.unwrap_err(), fault);
                assert_eq!(comm.check().unwrap_err(), fault);
                fault
            });
            done.wait(); // rank 1 stays alive, and silent
            outcome
        });
        for (rank, outcome) in outcomes.into_iter().enumerate() {
            let named = Fault::Deadline { sequence: 1, waiting_on: vec![1] };
            assert_eq!(outcome, (rank != 1).then_some(named));
        }
    }
}

#[test]
fn another_call_is_named_on_every_rank() {
    let _alone = alone();
    for devices in vendors(3) {
        let faults = run(&devices, |mut comm, device, stream| {
            let how = if comm.rank() == 2 { Collective::AllToAll } else { Collective::AllGather };
            exchange(&mut comm, (device, stream), how, &[0; 48], LONG).unwrap_err()
        });
        for fault in faults {
            assert!(matches!(fault, Fault::Mismatch { rank: 2, .. }), "{fault}");
            let text = fault.to_string();
            assert!(text.contains("AllToAll of 48") && text.contains("AllGather of 48"), "{text}");
        }
        let faults = run(&devices, |mut comm, device, stream| {
            let bytes = vec![0; 16 + comm.rank()];
            exchange(&mut comm, (device, stream), Collective::AllGather, &bytes, LONG).unwrap_err()
        });
        for fault in faults {
            assert!(matches!(fault, Fault::Mismatch { rank: 1, .. }), "{fault}");
        }
    }
}

/// A rank that ends, panics or gives up while others wait for it.
#[test]
fn a_rank_that_is_lost_is_named() {
    let _alone = alone();
    for devices in vendors(3) {
        for way in ["ends", "panics", "aborts"] {
            let exchanged = Barrier::new(3);
            let faults = run(&devices, |mut comm, device, stream| {
                let here = (device, stream);
                exchange(&mut comm, here, Collective::AllGather, &[1; 16], LONG).unwrap();
                exchanged.wait();
                if comm.rank() == 1 {
                    match way {
                        "aborts" => comm.aborter().abort("enough"),
                        "panics" => {
                            let panic =
                                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                                    let _lost = comm;
                                    std::panic::resume_unwind(Box::new("as a test"));
                                }));
                            assert!(panic.is_err());
                        }
                        _ => drop(comm),
                    }
                    return None;
                }
                let gather = Collective::AllGather;
                Some(exchange(&mut comm, here, gather, &[1; 16], LONG).unwrap_err())
            });
            for fault in faults.into_iter().flatten() {
                match way {
                    "aborts" => {
                        assert_eq!(fault, Fault::Aborted { rank: 1, reason: "enough".into() });
                    }
                    _ => assert!(matches!(fault, Fault::PeerLost { rank: 1, .. }), "{fault}"),
                }
            }
        }
    }
}

/// The virtual library's door, where there is one.
fn door(devices: &[Device]) -> Option<Door> {
    let door = Door::of(&devices[0]);
    if door.is_none() {
        println!("skipped: a library of hardware does not fail when it is asked to");
    }
    door
}

/// C-14, C-15: a call that fails on one rank, and an error in the background, end every rank: that one with
/// the library's words, the others with its.
#[test]
fn a_failure_of_the_library_ends_all_ranks() {
    let _alone = alone();
    for devices in vendors(2) {
        let Some(door) = door(&devices) else { continue };
        const REMOTE: &str = "6 (remote process exited or there was a network error)";
        for (call, nth, code, words) in [
            ("ncclSend", 1, 3, "3 (internal error)"),
            ("ncclGroupEnd", 1, 2, "2 (unhandled system error)"),
            ("ncclCommGetAsyncError", 1, 3, "3 (internal error)"),
            ("ncclAsyncError", 1, 6, REMOTE),
            ("ncclAsyncError", 2, 6, REMOTE), // while the work is waited for
        ] {
            let ready = Barrier::new(2);
            let spare = Mutex::new(local(2.try_into().unwrap()));
            let faults = run(&devices, |mut comm, device, stream| {
                let here = (device, stream);
                exchange(&mut comm, here, Collective::AllToAll, &[1; 32], LONG).unwrap();
                ready.wait();
                if comm.rank() == 1 {
                    door.fail(call, nth, code);
                }
                // The other rank's part of the first one may be whole.
                let mut next = || exchange(&mut comm, here, Collective::AllToAll, &[1; 32], LONG);
                let fault = next().err().or_else(|| next().err()).expect("a fault by then");
                // The thread, and the device, are good for another communicator.
                drop(comm);
                let host = spare.lock().unwrap().pop().unwrap();
                let mut again = NcclComm::new(device, Box::new(host), LONG).unwrap();
                exchange(&mut again, here, Collective::AllToAll, &[1; 32], LONG).unwrap();
                fault
            });
            let Fault::Transport { rank: 1, reason, .. } = &faults[1] else {
                panic!("{call}: {}", faults[1]);
            };
            assert_eq!(reason, words, "{call}");
            let Fault::Aborted { rank: 1, reason } = &faults[0] else {
                panic!("{call}: {}", faults[0]);
            };
            assert!(reason.contains(words), "{call}: {reason}");
            assert_eq!(door.fail_end(), 0);
            assert!(!door.leaks().contains(&"communicator".to_string()));
        }
    }
}

/// Links that stop while bytes are on their way: everybody has called, nobody can say whose fault it is, and no
/// rank hangs.
#[test]
fn a_transfer_without_end_ends_by_the_deadline() {
    let _alone = alone();
    for devices in vendors(2) {
        if door(&devices).is_none() {
            continue;
        }
        let faults = run(&devices, |mut comm, device, stream| {
            // Rank 1's links do nothing any more.
            if comm.rank() == 1 {
                Door::of(device).unwrap().fail("ncclAsyncError", 1, 7);
            }
            // Who has come early gives up early, and takes the other along: neither blames it.
            let limit = Duration::from_millis(if comm.rank() == 0 { 300 } else { 5000 });
            exchange(&mut comm, (device, stream), Collective::AllToAll, &[1; 32], limit)
                .unwrap_err()
        });
        for fault in faults {
            assert_eq!(fault, Fault::Deadline { sequence: 0, waiting_on: vec![] });
        }
        assert!(!Door::of(&devices[0]).unwrap().leaks().contains(&"communicator".to_string()));
    }
}

/// Every rank's outcome of making a communicator, rank `r` on device `on[r]`.
fn make(devices: &[Device], on: &[usize], host: impl Fn(usize) + Sync) -> Vec<Option<Error>> {
    let done = Barrier::new(on.len());
    ranks::run(on.len(), |comm: Local| {
        let rank = comm.rank();
        host(rank);
        let limit = Duration::from_secs(5);
        let made = NcclComm::new(&devices[on[rank]], Box::new(comm), limit);
        done.wait();
        made.err()
    })
}

/// C-04: one device is one rank's.
#[test]
fn two_ranks_on_one_device_are_refused() {
    let _alone = alone();
    for devices in vendors(2) {
        let errors = make(&devices, &[0, 0], |_| {});
        let words = |error: &Option<Error>| error.as_ref().unwrap().to_string();
        // The second of them is refused; the other hears of it.
        assert!(
            errors.iter().all(|error| words(error).contains("5 (invalid usage)")),
            "{errors:?}"
        );
        assert!(errors.iter().all(|error| words(error).contains("ncclCommInitRankConfig")));
    }
}

/// What goes wrong before there is a communicator is said on every rank, too.
#[test]
fn a_communicator_that_cannot_be_made() {
    let _alone = alone();
    for devices in vendors(2) {
        let Some(door) = door(&devices) else { continue };
        for (call, rank) in [("ncclGetUniqueId", 0), ("ncclCommInitRankConfig", 1)] {
            let errors = make(&devices, &[0, 1], |here| {
                if here == rank {
                    door.fail(call, 1, 2);
                }
            });
            for error in errors {
                let text = error.unwrap().to_string();
                assert!(text.contains(call) && text.contains("unhandled system error"), "{text}");
            }
            assert_eq!(door.fail_end(), 0);
        }
    }
}

#[test]
fn memory_of_another_device_is_refused() {
    let _alone = alone();
    for devices in vendors(2) {
        let faults = run(&devices, |mut comm, device, stream| {
            let other = if comm.rank() == 0 { device.clone() } else { Device::cpu() };
            let send = Arc::new(other.upload(&[0u8; 16]).unwrap());
            let deadline = Instant::now() + LONG;
            comm.exchange(Collective::AllGather, &send, stream, deadline).unwrap_err()
        });
        for fault in faults {
            assert!(
                matches!(&fault, Fault::Aborted { rank: 1, reason }
                if reason.contains("exchanges memory of")),
                "{fault}"
            );
        }
    }
}

/// Ranks of a CPU have other communicators, and the error says which.
#[test]
fn a_cpu_is_refused() {
    let _alone = alone();
    let errors = ranks::run(2, |host| {
        NcclComm::new(&Device::cpu(), Box::new(host), LONG).unwrap_err().to_string()
    });
    assert!(errors.iter().any(|error| error.contains("`local`")), "{errors:?}");
}
