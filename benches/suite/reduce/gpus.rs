//! Ranks that have a GPU each: all of a vendor's that are here, where there are two or more. Links have no roof that could
//! be measured beside.

use std::time::Duration;

use halfstep::reduce::{Config, NcclComm, Sum};
use halfstep::{Device, DeviceKind, Dtype, Storage, bf16};

use super::{Case, Connect, Entry, Failure, On, Ranks, elements, entry, name};
use crate::workloads;

/// How long ranks may take to find each other: the library searches for links.
const MEETING: Duration = Duration::from_secs(120);

/// With the library that moves their bytes.
const VENDORS: [(DeviceKind, bool, &str); 2] = [
    (DeviceKind::Cuda, cfg!(feature = "nccl"), "NCCL"),
    (DeviceKind::Hip, cfg!(feature = "rccl"), "RCCL"),
];

pub fn entries(all: &mut Vec<Entry>, devices: &[Device]) {
    for (kind, built, library) in VENDORS {
        let ours = |device: &&Device| built && device.info().kind == kind;
        let gpus: Vec<Device> = devices.iter().filter(ours).cloned().collect();
        if gpus.len() < 2 {
            continue;
        }
        // This crate's sums, in rank order, then the library's own of the same gradients.
        for sum in [Sum::RankOrder, Sum::Communicator] {
            let config = Config { views: true, stats: false, sum, ..Config::default() };
            add::<bf16>(all, &gpus, library, (Dtype::Bf16, config.clone()));
            add::<f32>(all, &gpus, library, (Dtype::Bf16, config.clone()));
            add::<f32>(all, &gpus, library, (Dtype::F32, config));
        }
        add::<bf16>(all, &gpus, library, (Dtype::Bf16, Config::default()));
    }
}

fn add<G: Storage>(
    all: &mut Vec<Entry>,
    gpus: &[Device],
    library: &str,
    (wire, config): (Dtype, Config),
) {
    let params = workloads::wav2vec2_base_ctc();
    let (gpus, ranks) = (gpus.to_vec(), gpus.len());
    let on_wire = (elements(&params) * wire.bytes()) as f64;
    let bytes = 2.0 * (ranks - 1) as f64 / ranks as f64 * on_wire;
    let whose = if config.sum == Sum::Communicator { "'s sum" } else { "" };
    let name = format!("{}, {library}{whose}", name::<G>(wire, &config));
    let connect: Connect = |gpu, host| Ok(Box::new(NcclComm::new(gpu, Box::new(host), MEETING)?));
    let on = On::All(gpus.clone());
    let make = move |_: &Device| -> Result<Box<dyn Case>, Failure> {
        Ok(Box::new(Ranks::new::<G>(&gpus, connect, &params, wire, &config)?))
    };
    all.push(entry((name, ranks), on, bytes, Box::new(make)));
}
