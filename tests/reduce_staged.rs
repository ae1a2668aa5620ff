//! Ranks on GPUs over a communicator of the host's: the bits of ranks on the CPU, and the faults of the
//! communicator within.
#![allow(missing_docs)]

mod common;

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use common::data::{Distribution, Rng};
use common::reduction::params_from;
use common::{cpu, devices, ranks};
use halfstep::reduce::{
    Abort, BucketPlan, Collective, Communicator, Config, Fault, Local, Parts, Reducer, Staged,
    Unscale,
};
use halfstep::{Buffer, Device, DeviceKind, Dtype, Error, Stream, Write};

const LENGTHS: [usize; 5] = [1, 16_390, 0, 2049, 255];
const LONG: Duration = Duration::from_secs(30);

/// A communicator for memory of the host's, and of nothing else.
struct Host(Local);

impl Communicator for Host {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn size(&self) -> usize {
        self.0.size()
    }
    fn exchange(
        &mut self,
        how: Collective,
        send: &Arc<Buffer<u8>>,
        stream: &Stream,
        deadline: Instant,
    ) -> Result<Parts, Fault> {
        for device in [send.device(), stream.device()] {
            assert_eq!(device.info().kind, DeviceKind::Cpu);
        }
        self.0.exchange(how, send, stream, deadline)
    }
    fn aborter(&self) -> Arc<dyn Abort> {
        self.0.aborter()
    }
}

fn staged(comm: Local) -> Staged {
    Staged::new(Box::new(Host(comm))).unwrap()
}

/// Three steps on each rank's device, as bits.
fn reduce(devices: &[Device], views: bool) -> Vec<Vec<u64>> {
    let plan = BucketPlan::ddp(&params_from(&LENGTHS), Dtype::Bf16, 4000, 9000).unwrap();
    ranks::run(devices.len(), |comm| {
        let rank = comm.rank();
        let device = &devices[rank];
        let stream = device.stream().unwrap();
        let config = Config { views, ..Config::default() };
        let comm = Box::new(staged(comm));
        let mut reducer = Reducer::<f32>::new(device, plan.clone(), comm, config).unwrap();
        let mut rng = Rng(31 + rank as u64);
        let mut bits = Vec::new();
        for _ in 0..3 {
            reducer.set_weight(1.5 + rank as f64).unwrap();
            let fill = |&len: &usize| Distribution::REAL[4].fill::<f32>(&mut rng, len);
            let mut tensors: Vec<Vec<f32>> = LENGTHS.iter().map(fill).collect();
            let mut own: Vec<_> = tensors.iter().map(|t| device.upload(t).unwrap()).collect();
            for param in (0..LENGTHS.len()).rev() {
                match views {
                    true => {
                        let mut view = reducer.gradient_mut(param).unwrap();
                        view.copy_from(&stream, &tensors[param]).unwrap();
                        reducer.ready_view(&stream, param).unwrap();
                    }
                    false => reducer.ready(&stream, param, &own[param]).unwrap(),
                }
            }
            match views {
                true => reducer.finish_views(&stream, Unscale::Keep).unwrap(),
                false => {
                    let out = own.iter_mut().map(|own| own as &mut dyn Write<f32>);
                    reducer.finish(&stream, &mut out.collect::<Vec<_>>(), Unscale::Keep).unwrap()
                }
            };
            for (param, tensor) in tensors.iter_mut().enumerate() {
                match views {
                    true => reducer.gradient(param).unwrap().copy_to(&stream, tensor).unwrap(),
                    false => own[param].read(&stream, 0, tensor).unwrap(),
                }
                bits.extend(tensor.iter().map(|x| u64::from(x.to_bits())));
            }
            let stats = reducer.stats().unwrap().read(&stream).unwrap();
            bits.extend([stats.sum_squares.to_bits(), stats.non_finite]);
        }
        bits
    })
}

#[test]
fn every_device_has_the_bits_of_the_cpu() {
    let here = devices();
    for size in 1..4 {
        let expected = reduce(&vec![cpu(1); size], false);
        assert!(expected.windows(2).all(|pair| pair[0] == pair[1]));
        for device in &here {
            for views in [false, true] {
                let found = reduce(&vec![device.clone(); size], views);
                assert!(found == expected, "{size} ranks, {}, views: {views}", device.info());
            }
        }
        // Ranks of all kinds, together.
        let mixed: Vec<Device> = here.iter().rev().cycle().take(size).cloned().collect();
        assert!(reduce(&mixed, false) == expected, "{size} ranks of {} kinds", here.len());
    }
}

/// Blocks of odd lengths go where they should, and receive buffers are used again.
#[test]
fn blocks_go_where_they_should() {
    for device in devices() {
        ranks::run(3, |comm| {
            let mut comm = staged(comm);
            let (rank, stream) = (comm.rank() as u8, device.stream().unwrap());
            let mut addresses = Vec::new();
            for round in 0..6 {
                let len = [17, 16, 0][round / 2];
                let block = |from: u8, to: u8| vec![from * 16 + to + 1; len];
                let send: Vec<u8> = (0..3).flat_map(|to| block(rank, to)).collect();
                let send = Arc::new(device.upload(&send).unwrap());
                for how in [Collective::AllToAll, Collective::AllGather] {
                    let parts = comm.exchange(how, &send, &stream, Instant::now() + LONG).unwrap();
                    for (from, part) in parts.parts.iter().enumerate() {
                        let mut found = vec![0; part.len];
                        part.buffer.read(&stream, part.start, &mut found).unwrap();
                        let from = from as u8;
                        let expected = match how {
                            Collective::AllToAll => block(from, rank),
                            Collective::AllGather => {
                                (0..3).flat_map(|to| block(from, to)).collect()
                            }
                        };
                        assert_eq!(found, expected, "{how:?}");
                    }
                    let peer = usize::from(rank == 0);
                    addresses.push(parts.parts[peer].buffer.address());
                }
            }
            if device.info().kind != DeviceKind::Cpu {
                assert_eq!((addresses[0], addresses[1]), (addresses[2], addresses[3]));
            }
        });
    }
}

#[test]
fn faults_deadlines_and_aborts_pass_through() {
    for device in devices() {
        let faults = ranks::run(2, |comm| {
            let mut comm = staged(comm);
            let stream = device.stream().unwrap();
            let send = Arc::new(device.upload(&[1u8; 5]).unwrap());
            let at = Instant::now() + LONG;
            if comm.rank() == 1 {
                comm.aborter().abort("enough");
            }
            let fault = comm.exchange(Collective::AllGather, &send, &stream, at).unwrap_err();
            assert_eq!(
                comm.exchange(Collective::AllGather, &send, &stream, at).unwrap_err(),
                fault
            );
            fault
        });
        for fault in faults {
            assert!(matches!(&fault, Fault::Aborted { rank: 1, reason } if reason == "enough"));
        }
        let faults = ranks::run(2, |comm| {
            let mut comm = staged(comm);
            let stream = device.stream().unwrap();
            let send = Arc::new(device.upload(&vec![1u8; 4 + comm.rank()]).unwrap());
            comm.exchange(Collective::AllGather, &send, &stream, Instant::now() + LONG).unwrap_err()
        });
        for fault in faults {
            assert!(matches!(fault, Fault::Mismatch { rank: 1, .. }), "{fault}");
        }
        let over = Barrier::new(2); // who leaves before is lost, which is another fault
        let faults = ranks::run(2, |comm| {
            let mut comm = staged(comm);
            let stream = device.stream().unwrap();
            let send = Arc::new(device.upload(&[1u8; 4]).unwrap());
            let rank = comm.rank();
            let at = Instant::now() + Duration::from_millis(50);
            let mut come = || comm.exchange(Collective::AllGather, &send, &stream, at).unwrap_err();
            let fault = (rank == 0).then(&mut come);
            over.wait();
            fault
        });
        assert!(
            matches!(&faults[0], Some(Fault::Deadline { waiting_on, .. }) if *waiting_on == [1]),
            "{faults:?}"
        );
    }
}

/// A stream and a buffer of different devices: a fault on both ranks, and no panic.
#[test]
fn what_a_device_cannot_reach_breaks_the_communicator() {
    let Some(gpu) = devices().into_iter().find(|device| device.info().kind != DeviceKind::Cpu)
    else {
        println!("skipped: no GPU");
        return;
    };
    let faults = ranks::run(2, |comm| {
        let mut comm = staged(comm);
        let stream = gpu.stream().unwrap();
        let owner = if comm.rank() == 0 { cpu(1) } else { gpu.clone() };
        let send = Arc::new(owner.upload(&[1u8; 4]).unwrap());
        comm.exchange(Collective::AllGather, &send, &stream, Instant::now() + LONG).unwrap_err()
    });
    assert!(matches!(&faults[0], Fault::Transport { rank: 0, .. }), "{}", faults[0]);
    let error = Error::from(faults[1].clone()).to_string();
    assert!(error.contains("copy to the host"), "{error}");
}
