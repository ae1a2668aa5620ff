//! Ranks whose system gives no thread.
#![allow(missing_docs)]

use std::process::Command;
use std::thread::Builder;

use halfstep::reduce::{BucketPlan, Config, Param, Reducer, local};
use halfstep::{Device, Dtype, Error};

const CHILD: &str = "HALFSTEP_TEST_WITHOUT_THREADS";

/// A reducer has a thread of its own. In a process in which none starts, for stacks larger than all memory, every rank has an
/// error that says so.
#[test]
fn a_reducer_without_a_thread_is_an_error() {
    if std::env::var_os(CHILD).is_none() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_reducer_without_a_thread_is_an_error", "--test-threads=1"])
            .envs([("RUST_MIN_STACK", (1usize << 50).to_string()), (CHILD, "1".into())])
            .output()
            .unwrap();
        return assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    }
    let ranks = local(2.try_into().unwrap()).into_iter().map(|comm| {
        let rank = move || {
            let device = Device::cpu_with_threads(1.try_into().unwrap());
            let plan = BucketPlan::ddp(&[Param::new("w", 9)], Dtype::F32, 1, 1).unwrap();
            Reducer::<f32>::new(&device, plan, Box::new(comm), Config::default()).map(drop)
        };
        Builder::new().stack_size(1 << 20).spawn(rank).unwrap()
    });
    for rank in ranks.collect::<Vec<_>>() {
        let refused = rank.join().expect("no panic");
        assert!(matches!(refused, Err(Error::State { .. })), "{refused:?}");
    }
}
