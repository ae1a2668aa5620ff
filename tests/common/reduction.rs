//! Reductions between ranks, as the suites write them.

use super::{cpu, ranks};
use halfstep::reduce::{BucketPlan, Communicator, Config, Param, Reducer, Unscale};
use halfstep::{Device, Dtype, Storage, Write};
use std::sync::Barrier;

/// What `finish` takes.
pub fn refs<G: Storage>(tensors: &mut [Vec<G>]) -> Vec<&mut dyn Write<G>> {
    tensors.iter_mut().map(|t| t as &mut dyn Write<G>).collect()
}

/// Parameters p0, p1, … of these lengths.
pub fn params_from(lens: &[usize]) -> Vec<Param> {
    lens.iter().enumerate().map(|(i, &len)| Param::new(format!("p{i}"), len)).collect()
}

/// One step of a rank on any device, gradients being views or not: what `out` becomes.
pub fn step<G: Storage>(
    device: &Device,
    reducer: &mut Reducer<G>,
    gradients: &[Option<Vec<G>>],
    (views, unscale): (bool, Unscale),
    out: &mut [Vec<G>],
) {
    let stream = device.stream().unwrap();
    let there = gradients.iter().enumerate().filter_map(|(i, g)| Some((i, g.as_ref()?)));
    for (param, gradient) in there {
        if views {
            let mut view = reducer.gradient_mut(param).unwrap();
            view.copy_from(&stream, gradient).unwrap();
            reducer.ready_view(&stream, param).unwrap();
        } else {
            let gradient = device.upload(gradient).unwrap();
            reducer.ready(&stream, param, &gradient).unwrap();
        }
    }
    if views {
        reducer.finish_views(&stream, unscale).unwrap();
        for (param, out) in out.iter_mut().enumerate() {
            reducer.gradient(param).unwrap().copy_to(&stream, out).unwrap();
        }
    } else {
        let mut own: Vec<_> = out.iter().map(|out| device.upload(out).unwrap()).collect();
        let mut to: Vec<&mut dyn Write<G>> =
            own.iter_mut().map(|own| own as &mut dyn Write<G>).collect();
        reducer.finish(&stream, &mut to, unscale).unwrap();
        for (own, out) in own.iter().zip(out) {
            own.read(&stream, 0, out).unwrap();
        }
    }
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
