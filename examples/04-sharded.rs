//! Steps of which each of four ranks makes a quarter, with a quarter of the optimizer's memory.
//!
//! `cargo run --release --example 04-sharded`

use std::time::Instant;

use halfstep::optim::{self, AdamW, Group, Tensor};
use halfstep::reduce::{BucketPlan, Communicator, Config, Local, Param, Sharded, Unscale, local};
use halfstep::{Device, Dtype, Read, Write, bf16};

const LAYERS: usize = 12;
const LEN: usize = 1 << 20;

fn main() -> halfstep::Result<()> {
    let params: Vec<Param> = (0..LAYERS).map(|i| Param::new(format!("{i}.weight"), LEN)).collect();
    let plan = BucketPlan::ddp(&params, Dtype::Bf16, 1 << 20, 8 << 20)?;
    std::thread::scope(|scope| {
        let ranks: Vec<_> = local(4.try_into().expect("not zero"))
            .into_iter()
            .map(|comm| scope.spawn(|| rank(comm, plan.clone())))
            .collect();
        ranks.into_iter().try_for_each(|rank| rank.join().expect("ranks return their errors"))
    })
}

fn rank(comm: Local, plan: BucketPlan) -> halfstep::Result<()> {
    let rank = comm.rank();
    let device = Device::cpu_with_threads(std::num::NonZeroUsize::MIN);
    let stream = device.stream()?;
    let tensors = plan.params().iter().map(|param| Tensor::new(&param.name, param.len));
    let groups = [Group::new(AdamW { lr: 0.01, ..AdamW::default() }).tensors(tensors)];
    let (config, optimizer) = (Config::default(), optim::Config::default());
    let mut sharded =
        Sharded::<bf16, bf16>::new(&device, plan, Box::new(comm), config, &groups, optimizer)?;
    println!("rank {rank}: {} bytes of masters and moments", sharded.state_bytes());

    let mut weights = vec![vec![bf16::ONE; LEN]; LAYERS];
    let reads: Vec<&dyn Read<bf16>> = weights.iter().map(|w| w as &dyn Read<bf16>).collect();
    sharded.load_params(&stream, &reads)?;
    let gradient = vec![bf16::from_f32(1.0 + rank as f32); LEN];
    for step in 0..3 {
        let start = Instant::now();
        for (layer, weight) in weights.iter_mut().enumerate() {
            sharded.wait(&stream, layer, weight)?; // then this layer's forward pass
        }
        for layer in (0..LAYERS).rev() {
            sharded.ready(&stream, layer, &gradient)?; // what its backward pass has made
        }
        let mut all: Vec<&mut dyn Write<bf16>> =
            weights.iter_mut().map(|w| w as &mut dyn Write<bf16>).collect();
        sharded.step(&stream, &mut all, Unscale::Keep)?;
        if rank == 0 {
            let report = sharded.report(&stream)?;
            println!("step {step}: norm {:.1}, {:?}", report.norm, start.elapsed());
        }
    }
    for (layer, weight) in weights.iter_mut().enumerate() {
        sharded.wait(&stream, layer, weight)?;
        assert!(weight.iter().all(|&value| value == weight[0] && value < bf16::ONE));
    }
    Ok(())
}
