//! Ranks on GPUs over NCCL and RCCL, as the suites write them.

use std::sync::Barrier;
use std::time::Duration;

use super::ranks;
use halfstep::reduce::{Communicator, Local, NcclComm};
use halfstep::{Device, Stream};

pub const LONG: Duration = Duration::from_secs(60);

/// The devices of each vendor that has one for each of `ranks` ranks.
pub fn vendors(ranks: usize) -> Vec<Vec<Device>> {
    let required = std::env::var("HALFSTEP_REQUIRE").unwrap_or_default();
    let vendors: Vec<(&str, Vec<Device>)> = vec![
        #[cfg(feature = "nccl")]
        ("cuda", (0..ranks).map_while(|i| Device::cuda(i).ok()).collect()),
        #[cfg(feature = "rccl")]
        ("hip", (0..ranks).map_while(|i| Device::hip(i).ok()).collect()),
    ];
    let enough = |(name, devices): (&str, Vec<Device>)| {
        if devices.len() == ranks {
            return Some(devices);
        }
        let found = devices.len();
        assert!(
            !required.contains(name),
            "HALFSTEP_REQUIRE: {found} devices of {name}, not {ranks}"
        );
        println!("skipped: {found} devices of {name}, {ranks} needed");
        None
    };
    vendors.into_iter().filter_map(enough).collect()
}

/// Runs `rank` on as many ranks as there are devices, each with its communicator.
pub fn run<R: Send>(
    devices: &[Device],
    rank: impl Fn(NcclComm, &Device, &Stream) -> R + Sync,
) -> Vec<R> {
    run_over(devices, |host| Box::new(host), rank)
}

/// The same, where ranks meet on another communicator of the host's.
pub fn run_over<R: Send>(
    devices: &[Device],
    host: impl Fn(Local) -> Box<dyn Communicator> + Sync,
    rank: impl Fn(NcclComm, &Device, &Stream) -> R + Sync,
) -> Vec<R> {
    let made = Barrier::new(devices.len());
    ranks::run(devices.len(), |local| {
        let device = &devices[local.rank()];
        let comm = NcclComm::new(device, host(local), LONG).unwrap();
        made.wait(); // nobody breaks it before all have it
        rank(comm, device, &device.stream().unwrap())
    })
}
