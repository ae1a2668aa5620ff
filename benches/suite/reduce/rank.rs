//! One rank's step, and whether its averages are right.

use std::num::NonZeroUsize;

use halfstep::reduce::{BucketPlan, Communicator, Config, Reducer, Sum, Unscale};
use halfstep::{Buffer, Device, DeviceKind, Storage, Stream, Write};

use crate::suite::{Failure, text};

/// One rank's reducer and gradients.
pub struct Rank<G: Storage> {
    stream: Stream,
    reducer: Reducer<G>,
    /// Unless they are views.
    gradients: Option<Vec<Buffer<G>>>,
    ranks: usize,
    tolerance: Tolerance,
}

/// How far an average of values below 1 may be from that in f64.
enum Tolerance {
    /// This part of the greatest of them.
    Relative(f64),
    /// The steps of 8-bit integers are of the largest of 256 elements.
    Absolute(f64),
}

impl Tolerance {
    fn new(config: &Config, ranks: usize, unit_roundoff: f64) -> Self {
        match config.sum {
            Sum::Int8 => Self::Absolute(2.0 / 127.0),
            // A library rounds each sum of two; and values, averages, and what is of higher order.
            _ => Self::Relative((ranks + 2) as f64 * unit_roundoff),
        }
    }

    fn of(&self, greatest: f64) -> f64 {
        match self {
            Self::Relative(part) => part * greatest,
            Self::Absolute(most) => *most,
        }
    }
}

/// Element `i` of a rank's gradient of a parameter, in [-1, 1).
fn value(rank: usize, param: usize, i: usize) -> f32 {
    let index = i + 7919 * param + 104_729 * rank;
    (index.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 32_768.0 - 1.0
}

impl<G: Storage> Rank<G> {
    pub fn new(
        device: &Device,
        comm: Box<dyn Communicator>,
        plan: BucketPlan,
        config: Config,
    ) -> halfstep::Result<Self> {
        let (views, rank, ranks) = (config.views, comm.rank(), comm.size());
        let device = match device.info().kind {
            DeviceKind::Cpu => &Device::cpu_with_threads(NonZeroUsize::MIN),
            _ => device,
        };
        let stream = device.stream()?;
        let roundoff = plan.wire().unit_roundoff().max(G::DTYPE.unit_roundoff());
        let tolerance = Tolerance::new(&config, ranks, roundoff);
        let lens: Vec<usize> = plan.params().iter().map(|param| param.len).collect();
        let values = |param: usize| -> Vec<G> {
            (0..lens[param]).map(|i| G::narrow(value(rank, param, i))).collect()
        };
        let mut reducer = Reducer::new(device, plan, comm, config)?;
        let mut gradients = Vec::new();
        for param in 0..lens.len() {
            if views {
                reducer.gradient_mut(param)?.copy_from(&stream, &values(param))?;
            } else {
                gradients.push(device.upload(&values(param))?);
            }
        }
        stream.sync()?;
        let gradients = (!views).then_some(gradients);
        Ok(Self { stream, reducer, gradients, ranks, tolerance })
    }

    pub fn step(&mut self) -> halfstep::Result<()> {
        let Self { stream, reducer, gradients, .. } = self;
        match gradients {
            Some(gradients) => {
                for (param, gradient) in gradients.iter().enumerate().rev() {
                    reducer.ready(stream, param, gradient)?;
                }
                let mut outputs: Vec<&mut dyn Write<G>> =
                    gradients.iter_mut().map(|g| g as &mut dyn Write<G>).collect();
                reducer.finish(stream, &mut outputs, Unscale::Keep)?;
            }
            None => {
                for param in (0..reducer.plan().params().len()).rev() {
                    reducer.ready_view(stream, param)?;
                }
                reducer.finish_views(stream, Unscale::Keep)?;
            }
        }
        stream.sync()
    }

    /// Some elements of every parameter, against the average of all ranks' in f64.
    pub fn check(&self) -> Result<(), Failure> {
        let lens: Vec<usize> = self.reducer.plan().params().iter().map(|param| param.len).collect();
        for (param, &len) in lens.iter().enumerate() {
            let mut found = vec![G::zeroed(); len];
            match &self.gradients {
                Some(gradients) => gradients[param].read(&self.stream, 0, &mut found),
                None => self
                    .reducer
                    .gradient(param)
                    .and_then(|view| view.copy_to(&self.stream, &mut found)),
            }
            .map_err(text)?;
            for i in (0..len).step_by(len / 64 + 1).chain([len - 1]) {
                let of = |rank| f64::from(G::narrow(value(rank, param, i)).widen());
                let exact = (0..self.ranks).map(of).sum::<f64>() / self.ranks as f64;
                let greatest = (0..self.ranks).map(of).map(f64::abs).fold(0.0, f64::max);
                let off = (f64::from(found[i].widen()) - exact).abs();
                // Written so that a NaN fails.
                let good = off <= self.tolerance.of(greatest);
                if !good {
                    let found = found[i];
                    return Err(format!(
                        "parameter {param}, element {i} is {found:?}, not {exact}"
                    ));
                }
            }
        }
        Ok(())
    }
}
