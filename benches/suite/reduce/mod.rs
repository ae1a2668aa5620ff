//! Averaging the gradients of Wave2Vec2-base over ranks that are threads of this process: two that share a GPU, or have
//! a thread of the CPU each; and one for each GPU, over NCCL or RCCL.
//!
//! Of ranks that share a device, bytes are the least that any way moves: each rank's gradients once in and once out.
//! Views of the buckets move no more; gradients of the caller's are packed, and unpacked, besides. Of ranks on n GPUs
//! they are what each sends over its links, and receives: 2(n−1)/n of the bytes that its gradients have on the wire,
//! whatever the algorithm, so that a rate is what NCCL's own tests call bus bandwidth.

#[cfg(any(feature = "nccl", feature = "rccl"))]
mod gpus;
mod rank;
mod threads;

use halfstep::reduce::{Communicator, Config, Local, Param, Sum};
use halfstep::{Device, Dtype, Storage, bf16};

use super::{Arithmetic, Case, Entry, Failure, Make, On, Traffic};
use crate::workloads;
use threads::Ranks;

/// How many share a device.
const RANKS: usize = 2;

/// How a rank comes by its communicator, on its own thread.
type Connect = fn(&Device, Local) -> halfstep::Result<Box<dyn Communicator>>;

pub fn entries(all: &mut Vec<Entry>, devices: &[Device]) {
    for (views, stats) in [(true, false), (true, true), (false, true)] {
        let way = |wire| (wire, Config { views, stats, ..Config::default() });
        add::<bf16>(all, way(Dtype::Bf16));
        add::<f32>(all, way(Dtype::Bf16));
        add::<f32>(all, way(Dtype::F32));
    }
    add::<f32>(all, (Dtype::F32, Config { sum: Sum::Int8, ..Config::default() }));
    #[cfg(any(feature = "nccl", feature = "rccl"))]
    gpus::entries(all, devices);
    let _ = devices; // without these features
}

fn add<G: Storage>(all: &mut Vec<Entry>, (wire, config): (Dtype, Config)) {
    let params = workloads::wav2vec2_base_ctc();
    let bytes = (RANKS * 2 * elements(&params) * size_of::<G>()) as f64;
    let name = name::<G>(wire, &config);
    let connect: Connect = |_, host| Ok(Box::new(host));
    let make = move |device: &Device| -> Result<Box<dyn Case>, Failure> {
        let devices = vec![device.clone(); RANKS];
        Ok(Box::new(Ranks::new::<G>(&devices, connect, &params, wire, &config)?))
    };
    all.push(entry((name, RANKS), On::Shared(RANKS), bytes, Box::new(make)));
}

/// What the cases of so many ranks have in common.
fn entry((name, ranks): (String, usize), on: On, bytes: f64, make: Make) -> Entry {
    let params = workloads::wav2vec2_base_ctc();
    Entry {
        op: "reduce",
        name,
        size: format!("{ranks}×{} tensors", params.len()),
        workload: "wav2vec2-base",
        flops: (ranks * elements(&params)) as f64, // a sum of so many
        bytes,
        arithmetic: Arithmetic::F32,
        traffic: Traffic::Update,
        on,
        make,
    }
}

/// `bf16 views, bf16 wire, Σg²`.
fn name<G: Storage>(wire: Dtype, config: &Config) -> String {
    let lie = if config.views { "views" } else { "packed" };
    let sums = if config.stats { ", Σg²" } else { "" };
    let travels = match config.sum {
        Sum::Int8 => "int8".to_string(),
        _ => wire.to_string(),
    };
    format!("{} {lie}, {travels} wire{sums}", G::DTYPE)
}

fn elements(params: &[Param]) -> usize {
    params.iter().map(|param| param.len).sum()
}
