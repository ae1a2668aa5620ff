//! Every device makes sharded steps with the CPU's bits: every rule and kind of state, one to three ranks
//! on one device.
#![allow(missing_docs)]

mod common;

use common::gpus;
use common::optim::rules;
use common::sharded::{Case, Outcome, sharded};
use halfstep::optim::{Config, Master, Moments, Rule, Scaler};
use halfstep::{Device, bf16};

/// Around what a thread and a block take; the second and the fourth are cut between ranks.
const LENS: [usize; 6] = [1, 16_390, 0, 33_000, 7, 255];

fn steps(device: &Device, case: &Case) -> Vec<Outcome> {
    sharded::<bf16, bf16>(case, device, |_, _, _| {})
}

/// Every rule, each with another kind of state, over one to three ranks.
fn cases() -> Vec<Case> {
    let masters = [Master::Stochastic, Master::Remainder, Master::F32, Master::Nearest];
    let case = |(at, rule): (usize, Rule)| {
        let (ranks, master) = (1 + (at + 1) % 3, masters[at % masters.len()]);
        let moments = if at % 2 == 0 { Moments::Bf16 } else { Moments::F32 };
        let scaler = Scaler::Fixed(4.0);
        let config = Config { master, moments, scaler, clip: Some(0.1), ..Config::default() };
        let case = Case { reversed: at % 2 == 1, ..Case::new(ranks, &LENS, rule, config) };
        // The second step is skipped; in the third nobody has a gradient of a tensor.
        Case { nan: Some((1, ranks - 1, 3)), unused: Some((2, 1)), ..case }
    };
    rules().into_iter().enumerate().map(case).collect()
}

#[test]
fn steps_have_the_bits_of_the_cpu() {
    let mut count = 0;
    for device in gpus() {
        for case in cases() {
            let (found, expected) = (steps(&device, &case), steps(&Device::cpu(), &case));
            assert!(found == expected, "{}: {:?}, {} ranks", device.info(), case.rule, case.ranks);
            count += 1;
        }
    }
    println!("{count} cases");
}

/// The file that a device's ranks save is the CPU's, and its ranks read it.
#[cfg(feature = "safetensors")]
#[test]
fn files_have_the_bytes_of_the_cpu() {
    let folder = common::files::Folder::new("sharded-devices");
    for device in gpus() {
        let save = |device: &Device, name: &str| {
            let path = folder.0.join(name);
            let case = Case { steps: 1, ..cases().swap_remove(0) };
            sharded::<bf16, bf16>(&case, device, |sharded, stream, _| {
                sharded.save(stream, &path).unwrap();
                sharded.load(stream, &path).unwrap();
                sharded.save(stream, &path).unwrap();
            });
            std::fs::read(path).unwrap()
        };
        assert!(save(&device, "device") == save(&Device::cpu(), "cpu"), "{}", device.info());
    }
}
