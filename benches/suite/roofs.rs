//! What devices can do at best.

use std::num::NonZeroUsize;

use halfstep::{Device, DeviceKind, Peak, Rates};

use super::bandwidth::Bandwidth;
use super::limits::{Arithmetic, Traffic, Unit, peak_flops};
use super::{Entry, Failure, On, device_name, text};

/// FLOP for a byte that every device has time for.
const LITTLE: f64 = 4.0;

/// What bounds a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roof {
    Memory,
    Arithmetic(Unit),
}

impl Roof {
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Arithmetic(unit) => unit.name(),
        }
    }
}

/// Roofs of a device: FLOP/s by arithmetic, bytes/s by traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Roofs {
    pub device: String,
    /// Of the CPU.
    pub threads: Option<usize>,
    /// Measured; infinite where they could not be, on a GPU without device code.
    pub flops: [f64; 3],
    /// What does that arithmetic.
    pub units: [Unit; 3],
    /// Measured. A GPU's are those of a copy.
    pub bytes: [f64; 3],
    /// What follows from a GPU's clocks.
    pub computed: Option<Peak>,
}

impl Roofs {
    /// Of each device, and of so many threads as entries have ranks.
    pub fn of(
        meter: &mut Bandwidth,
        devices: &[Device],
        entries: &[Entry],
    ) -> Result<Vec<Self>, Failure> {
        let mut devices = devices.to_vec();
        let cpu = devices.iter().any(|device| device.info().kind == DeviceKind::Cpu);
        let ranks = entries.iter().filter(|_| cpu).filter_map(|entry| match entry.on {
            On::Shared(ranks) => NonZeroUsize::new(ranks),
            On::One | On::All(_) => None,
        });
        for device in ranks.map(Device::cpu_with_threads) {
            let name = device_name(&device);
            if devices.iter().all(|other| device_name(other) != name) {
                devices.push(device);
            }
        }
        devices.iter().map(|device| Self::measure(meter, device)).collect()
    }

    /// The best of a few measurements of each.
    fn measure(meter: &mut Bandwidth, device: &Device) -> Result<Self, Failure> {
        let best = |values: &mut dyn FnMut() -> f64| (0..5).map(|_| values()).fold(0.0, f64::max);
        let (info, device_name) = (device.info(), device_name(device));
        if info.kind != DeviceKind::Cpu {
            // Without device code each case says why.
            let rates = Rates::measure(device).ok();
            let flops = rates.map_or([f64::INFINITY; 3], |rates| {
                [rates.f32_flops, rates.matrix_flops, rates.matrix_flops]
            });
            let mut copies = Vec::new();
            for _ in 0..5 {
                copies.push(copy_bandwidth(device, meter.len())?);
            }
            let bytes = [copies.into_iter().fold(0.0, f64::max); 3];
            return Ok(Self {
                device: device_name,
                threads: None,
                flops,
                units: [Unit::Fma, Unit::Matrix, Unit::Matrix],
                bytes,
                computed: info.peak,
            });
        }
        let threads = info.units;
        let units = Arithmetic::ALL.map(|arithmetic| Unit::of(arithmetic, &info.arch));
        let flops = units.map(|unit| best(&mut || peak_flops(threads, unit)));
        let bytes = Traffic::ALL.map(|traffic| best(&mut || meter.measure(traffic, threads)));
        Ok(Self {
            device: device_name,
            threads: Some(threads),
            flops,
            units,
            bytes,
            computed: None,
        })
    }

    /// Those of a device.
    pub fn named<'a>(all: &'a [Self], device: &str) -> Option<&'a Self> {
        all.iter().find(|roofs| roofs.device == device)
    }

    /// The least time that the roof over an entry allows, the CPU's measured once more; none where it is not known.
    pub fn seconds_now(&self, entry: &Entry, meter: &mut Bandwidth) -> Option<f64> {
        let (flops, bytes) = (self.arithmetic(entry.arithmetic), self.bandwidth(entry.traffic));
        Some(match (self.over(entry)?, self.threads) {
            // What a GPU can do, nobody else takes from it: measured once.
            (Roof::Arithmetic(_), None) => entry.flops / flops,
            (Roof::Memory, None) => entry.bytes / bytes,
            // The peak does not change; measuring it can only be disturbed.
            (Roof::Arithmetic(unit), Some(threads)) => {
                entry.flops / peak_flops(threads, unit).max(flops)
            }
            (Roof::Memory, Some(threads)) => entry.bytes / meter.measure(entry.traffic, threads),
        })
    }

    /// The roof over so much arithmetic on so many bytes; none where it is that of an arithmetic that is not known.
    pub fn over(&self, entry: &Entry) -> Option<Roof> {
        let flops = self.arithmetic(entry.arithmetic);
        if flops.is_infinite() && entry.flops > LITTLE * entry.bytes {
            return None;
        }
        let compute_bound = entry.flops / flops > entry.bytes / self.bandwidth(entry.traffic);
        Some(if compute_bound {
            Roof::Arithmetic(self.units[entry.arithmetic as usize])
        } else {
            Roof::Memory
        })
    }

    pub fn arithmetic(&self, kind: Arithmetic) -> f64 {
        self.flops[kind as usize]
    }

    pub fn bandwidth(&self, traffic: Traffic) -> f64 {
        self.bytes[traffic as usize]
    }
}

/// Bytes a second, read and written, of a copy of so many f32 by the driver, on its clock.
fn copy_bandwidth(device: &Device, len: usize) -> Result<f64, Failure> {
    let stream = device.stream().map_err(text)?;
    let (from, mut to) = (device.zeros::<f32>(len), device.zeros::<f32>(len));
    let (from, to) = (from.map_err(text)?, to.as_mut().map_err(|error| error.to_string())?);
    let mut copy = || to.view_mut(0..len)?.copy_from_view(&stream, &from.view(0..len)?);
    copy().map_err(text)?;
    let taken = stream.time(copy).map_err(text)?;
    Ok((2 * len * size_of::<f32>()) as f64 / taken.as_secs_f64())
}
