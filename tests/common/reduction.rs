//! Reductions between ranks, as the suites write them.

use super::{cpu, ranks};
use halfstep::reduce::{BucketPlan, Communicator, Config, Param, Reducer};
use halfstep::{Dtype, Storage, Write};
use std::sync::Barrier;

/// What `finish` takes.
pub fn refs<G: Storage>(tensors: &mut [Vec<G>]) -> Vec<&mut dyn Write<G>> {
    tensors.iter_mut().map(|t| t as &mut dyn Write<G>).collect()
}

/// Parameters p0, p1, … of these lengths.
pub fn params_from(lens: &[usize]) -> Vec<Param> {
    lens.iter().enumerate().map(|(i, &len)| Param::new(format!("p{i}"), len)).collect()
}

/// Everything a test of one reducer on each of two ranks needs.
pub fn two<R: Send>(
    lens: &[usize],
    config: Config,
    rank: impl Fn(usize, &halfstep::Stream, &mut Reducer<f32>) -> R + Sync,
) -> Vec<R> {
    let plan = BucketPlan::ddp(&params_from(lens), Dtype::Bf16, 64, 64).unwrap();
    let made = Barrier::new(2); // an abort must not meet a rank that is still agreeing
    ranks::run(2, |comm| {
        let index = comm.rank();
        let device = cpu(1);
        let stream = device.stream().unwrap();
        let mut reducer =
            Reducer::new(&device, plan.clone(), Box::new(comm), config.clone()).unwrap();
        made.wait();
        rank(index, &stream, &mut reducer)
    })
}
