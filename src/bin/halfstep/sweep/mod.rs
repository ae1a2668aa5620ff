//! A sweep over the operations: seeded cases, each within its bound of what f64 says, and to the bit what the
//! reference gives where bits are promised.

mod backward;
mod convert;
mod forward;
mod steps;

use std::num::NonZeroUsize;

use halfstep::optim::bound::Enclosure;
use halfstep::{Buffer, Device, DeviceKind, Dtype, Storage, Stream};

use crate::data::{Distribution, Rng};
use crate::golden::Reason;

/// Runs a case; the worst error over its bound, 1 being the most that is allowed.
pub type Run = Box<dyn Fn(&Devices) -> Result<f64, Reason>>;

/// Cases of one kind.
pub struct Group {
    pub name: String,
    /// Whether results are compared to the bit, too.
    pub bits: bool,
    pub cases: Vec<(String, Run)>,
}

/// What is tested, and what it is compared with.
pub struct Devices {
    pub device: Device,
    /// The CPU on one thread, with products by the definition.
    reference: Device,
}

impl Devices {
    pub fn new(device: Device) -> Result<Self, Reason> {
        let reference = Device::cpu_with_arch(NonZeroUsize::MIN, "reference");
        Ok(Self { device, reference: reference.map_err(|error| error.to_string())? })
    }

    /// Whether the products of a type have the reference's bits.
    fn bits_of_products(&self, input: Dtype) -> bool {
        let info = self.device.info();
        match (info.kind, input) {
            (DeviceKind::Cpu, Dtype::Bf16) => info.arch != "amx-bf16",
            (DeviceKind::Cpu, _) => true,
            (_, input) => input == Dtype::F32,
        }
    }

    /// What a run gives on the device; where `bits` says so, that the reference gives the same is checked.
    fn outputs(
        &self,
        bits: bool,
        run: impl Fn(&Device) -> halfstep::Result<Outputs>,
    ) -> Result<Outputs, Reason> {
        let found = run(&self.device).map_err(|error| error.to_string())?;
        if bits {
            let expected = run(&self.reference).map_err(|error| error.to_string())?;
            for ((name, found), (_, expected)) in found.iter().zip(&expected) {
                let mut both = found.iter().zip(expected);
                if let Some(at) = both.position(|(a, b)| a.to_bits() != b.to_bits()) {
                    let (found, expected) = (found[at], expected[at]);
                    return Err(format!("{name}[{at}] is {found:e}, the reference's {expected:e}"));
                }
            }
        }
        Ok(found)
    }
}

/// Results by name. f32 holds the values of every type, and distinguishes what they distinguish.
type Outputs = Vec<(&'static str, Vec<f32>)>;

/// A device's result.
fn read<T: Storage>(buffer: &Buffer<T>, stream: &Stream) -> halfstep::Result<Vec<f32>> {
    Ok(buffer.to_vec(stream)?.into_iter().map(T::widen).collect())
}

/// The worst error over its bound so far, and where it is.
#[derive(Default)]
struct Worst {
    share: f64,
    at: String,
}

impl Worst {
    /// Compares the elements of a result; `exact` gives the value of each, and how far from it the result may be.
    fn add(&mut self, name: &str, found: &[f32], exact: impl Fn(usize) -> (f64, f64)) {
        for (at, &found) in found.iter().enumerate() {
            let (exact, bound) = exact(at);
            let share = Enclosure { value: exact, error: bound }.ratio(found.into());
            // Written so that a NaN is the worst.
            let better = share <= self.share;
            if !better {
                self.share = if share.is_nan() { f64::INFINITY } else { share };
                self.at = format!("{name}[{at}] is {found:e}, exactly {exact:e}");
            }
        }
    }

    fn verdict(self) -> Result<f64, Reason> {
        match self.share <= 1.0 {
            true => Ok(self.share),
            false => Err(format!("{}: {:.3} of its bound", self.at, self.share)),
        }
    }
}

/// All groups.
pub fn groups(devices: &Devices) -> Vec<Group> {
    let mut all = Vec::new();
    forward::groups(devices, &mut all);
    backward::groups(devices, &mut all);
    steps::groups(&mut all);
    convert::groups(&mut all);
    all
}

/// A case's seed, from its name: it is the same whichever others are run.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3) // FNV-1a
    })
}

/// Values of a distribution, none of them near where a type's numbers become subnormal.
fn values<T: Storage>(of: Distribution, rng: &mut Rng, len: usize) -> Vec<T> {
    let mut values = of.fill::<T>(rng, len);
    for value in values.iter_mut().filter(|value| value.widen().abs() < 1.0 / 1024.0) {
        *value = T::narrow(0.0);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bit, a value beyond its bound and a NaN: each fails, in words.
    #[test]
    fn faults_are_found() {
        let devices = Devices::new(Device::cpu()).unwrap();
        // Zeros, the second of which has another sign on the device that is tested.
        let run = |device: &Device| {
            let other = if device.info().arch == "reference" { 0.0 } else { -0.0 };
            Ok(vec![("d", vec![0.0, other])])
        };
        let error = devices.outputs(true, run).unwrap_err();
        assert_eq!(error, "d[1] is -0e0, the reference's 0e0");
        assert!(devices.outputs(false, run).is_ok());

        let verdict = |found: &[f32]| {
            let mut worst = Worst::default();
            worst.add("d", found, |at| (at as f64, 0.5));
            worst.verdict()
        };
        assert_eq!(verdict(&[0.0, 1.25, 2.5]), Ok(1.0));
        assert_eq!(
            verdict(&[0.0, 1.0, 1.0]).unwrap_err(),
            "d[2] is 1e0, exactly 2e0: 2.000 of its bound"
        );
        assert!(verdict(&[0.0, f32::NAN, 2.0]).unwrap_err().contains("d[1] is NaN"));
    }
}
