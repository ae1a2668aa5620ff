//! The flight record: who was where when something went wrong.
#![allow(missing_docs)]

mod common;

use common::reduction::{params_from, refs};
use common::{cpu, ranks};
use halfstep::Dtype;
use halfstep::reduce::{
    BucketPlan, BucketState, Communicator, Config, FlightRecord, Phase, Reducer, Unscale,
};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

/// A bucket each.
const LENGTHS: [usize; 3] = [5, 3, 7];

fn folder(name: &str) -> PathBuf {
    let name = format!("halfstep-flight-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn plan() -> BucketPlan {
    BucketPlan::ddp(&params_from(&LENGTHS), Dtype::F32, 1, 1).unwrap()
}

/// One whole step; then rank 1 keeps its second gradient back, and rank 0 gives up on it.
fn stuck(folder: &Path) -> Vec<FlightRecord> {
    let done = Barrier::new(2);
    ranks::run(2, |comm| {
        let (rank, device) = (comm.rank(), cpu(1));
        let stream = device.stream().unwrap();
        let config = Config {
            deadline: Duration::from_millis(400),
            flight_record: Some(folder.into()),
            ..Config::default()
        };
        let mut reducer = Reducer::<f32>::new(&device, plan(), Box::new(comm), config).unwrap();
        let mut tensors: Vec<Vec<f32>> = LENGTHS.iter().map(|&len| vec![1.0; len]).collect();
        for param in [2, 1, 0] {
            reducer.ready(&stream, param, &tensors[param]).unwrap();
        }
        reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
        assert!(reducer.flight_record().events.iter().any(|(_, e)| e.phase == Phase::Unpack));
        let (first, second) = if rank == 0 { ([2, 1], Some(0)) } else { ([2, 0], None) };
        for param in first {
            reducer.ready(&stream, param, &tensors[param]).unwrap();
        }
        if let Some(param) = second {
            reducer.ready(&stream, param, &tensors[param]).unwrap();
            reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).unwrap_err();
        }
        let record = reducer.flight_record();
        done.wait();
        record
    })
}

#[test]
fn a_record_says_where_each_bucket_is() {
    let folder = folder("buckets");
    let records = stuck(&folder);
    let [waits, late] = &records[..] else { panic!("two ranks") };
    assert_eq!((waits.rank, waits.ranks, waits.step), (0, 2, 1));
    // The first bucket came; the second one went out and rank 1 has not met it.
    assert_eq!(waits.buckets, [BucketState::Done, BucketState::Sent, BucketState::Sent]);
    let text = waits.to_string();
    assert!(text.contains("waiting for ranks [1]"), "{text}");
    assert!(text.contains("bucket 1: sent, not back"), "{text}");
    assert!(waits.events.iter().any(|(step, event)| *step == 0 && event.phase == Phase::Wire));
    assert!(waits.events.iter().any(|(step, event)| *step == 1 && event.bucket == 1));
    // The other rank's says what it had not marked.
    let missing = BucketState::Waiting(vec!["p1".into()]);
    assert_eq!(late.buckets[1..], [missing, BucketState::Complete]);
    assert!(late.to_string().contains("bucket 1: waits for p1"));
    // It was written down where there was a fault, once.
    let file = |rank: usize| folder.join(format!("halfstep-rank-{rank}.txt"));
    assert_eq!(std::fs::read_to_string(file(0)).unwrap(), text);
    assert!(late.fault.is_none() && !file(1).exists());
    std::fs::remove_dir_all(folder).unwrap();
}

/// A folder that is not there changes nothing: the fault is what is reported.
#[test]
fn a_record_that_cannot_be_written_is_no_error_of_its_own() {
    let missing = folder("missing");
    std::fs::remove_dir_all(&missing).unwrap();
    let records = stuck(&missing);
    assert!(records[0].to_string().contains("waiting for ranks [1]"));
    assert!(!missing.exists());
}

/// Only the last events are kept.
#[test]
fn a_long_run_keeps_the_last_steps() {
    let comm = halfstep::reduce::local(1.try_into().unwrap()).remove(0);
    let device = cpu(1);
    let stream = device.stream().unwrap();
    let mut reducer =
        Reducer::<f32>::new(&device, plan(), Box::new(comm), Config::default()).unwrap();
    let mut tensors: Vec<Vec<f32>> = LENGTHS.iter().map(|&len| vec![1.0; len]).collect();
    for _ in 0..300 {
        for param in [2, 1, 0] {
            reducer.ready(&stream, param, &tensors[param]).unwrap();
        }
        reducer.finish(&stream, &mut refs(&mut tensors), Unscale::Keep).unwrap();
    }
    let record = reducer.flight_record();
    assert_eq!((record.step, record.events.len()), (300, 1024));
    assert_eq!(record.events.last().unwrap().0, 299);
    assert!(record.events.windows(2).all(|pair| pair[0].0 <= pair[1].0));
}
