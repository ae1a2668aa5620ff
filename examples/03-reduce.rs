//! Gradients averaged over four ranks, in the order in which a backward pass makes them.
//!
//! `cargo run --release --example 03-reduce`

use halfstep::reduce::{
    BucketPlan, Communicator, Config, Link, Local, Param, Reducer, Unscale, local,
    ready_by_elements,
};
use halfstep::{Device, Dtype, Write};

fn main() -> halfstep::Result<()> {
    let params: Vec<Param> = (0..24)
        .flat_map(|i| {
            [Param::new(format!("{i}.weight"), 65_536), Param::new(format!("{i}.bias"), 256)]
        })
        .collect();
    // Which parameters travel together: best for a backward pass of 5 ms over this link.
    let ready = ready_by_elements(&params, 5e-3);
    let link = Link { alpha: 50e-6, beta: 1.0 / 5e9 };
    let plan = BucketPlan::optimal(&params, Dtype::Bf16, &ready, link)?;
    println!(
        "{} parameters in {} buckets of {:?} bytes",
        params.len(),
        plan.buckets().len(),
        plan.bytes()
    );

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
    let mut gradients: Vec<Vec<f32>> =
        plan.params().iter().map(|p| vec![rank as f32; p.len]).collect();
    let mut reducer = Reducer::new(&device, plan, Box::new(comm), Config::default())?;

    // Rank r has r + 1 samples: an average over samples, not over ranks.
    reducer.set_weight((rank + 1) as f64)?;
    for (param, gradient) in gradients.iter().enumerate().rev() {
        reducer.ready(&stream, param, gradient)?; // its bucket may leave now
    }
    let mut outputs: Vec<&mut dyn Write<f32>> =
        gradients.iter_mut().map(|g| g as &mut dyn Write<f32>).collect();
    let reduced = reducer.finish(&stream, &mut outputs, Unscale::Keep)?;
    if rank == 0 {
        let norm = reducer.stats()?.read(&stream)?.sum_squares.sqrt();
        println!(
            "average {} (of 0, 1, 2, 3 with weights 1, 2, 3, 4), norm {norm:.1}",
            gradients[0][0]
        );
        for (index, t) in reduced.times.iter().enumerate() {
            println!(
                "bucket {index}: {} bytes, pack {:?}, skew {:?}, wire {:?}, sum {:?}, unpack {:?}, exposed {:?}",
                t.bytes, t.pack, t.skew, t.wire, t.sum, t.unpack, t.exposed
            );
        }
    }
    Ok(())
}
