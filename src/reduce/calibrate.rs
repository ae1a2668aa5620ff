//! What an exchange costs: measured at three sizes, fitted with a line.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::comm::Communicator;
use super::config::{Config, Unscale};
use super::plan::{BucketPlan, Link, Param};
use super::reducer::Reducer;
use super::report::Phase;
use crate::{Device, Dtype, Error, Result, Storage, ViewMut};

/// Bytes of the buckets that are timed: latency, a usual bucket, bandwidth.
const SIZES: [usize; 3] = [16 << 10, 1 << 20, 16 << 20];
/// Steps that are timed; medians count.
const STEPS: usize = 7;
/// Parts that a number is sent in, so that a 16-bit wire carries 24 bits of it.
const PARTS: usize = 3;

impl Link {
    /// The line through measured times (bytes, seconds), with the least sum of squared relative errors;
    /// neither part is below 0.
    ///
    /// ```
    /// use halfstep::reduce::Link;
    /// let link = Link::fit(&[(1_000, 21e-6), (1_000_000, 1020e-6), (10_000_000, 10_020e-6)])?;
    /// assert!((link.alpha / 20e-6 - 1.0).abs() < 1e-6 && (link.beta / 1e-9 - 1.0).abs() < 1e-6);
    /// # Ok::<(), halfstep::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Range`] for a time that is not above 0 and finite, or sizes that are all the same.
    pub fn fit(samples: &[(usize, f64)]) -> Result<Self> {
        const OP: &str = "Link::fit";
        if let Some((_, time)) = samples.iter().find(|(_, time)| !(time.is_finite() && *time > 0.0))
        {
            return Err(Error::range(OP, "samples", "finite times above 0", time));
        }
        // Relative to the measured time t: minimise Σ (α/t + β·S/t − 1)².
        let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
            samples.iter().map(|&(bytes, time)| term(1.0 / time, bytes as f64 / time)).sum()
        };
        let (aa, ab, bb) = (sum(&|a, _| a * a), sum(&|a, b| a * b), sum(&|_, b| b * b));
        let (a, b) = (sum(&|a, _| a), sum(&|_, b| b));
        let determinant = aa * bb - ab * ab;
        if determinant.is_nan() || determinant <= 1e-12 * aa * bb {
            return Err(Error::range(OP, "samples", "two sizes at least", samples.len()));
        }
        let (alpha, beta) = ((a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant);
        Ok(match (alpha < 0.0, beta < 0.0) {
            (true, _) => Self { alpha: 0.0, beta: b / bb },
            (_, true) => Self { alpha: a / aa, beta: 0.0 },
            _ => Self { alpha, beta },
        })
    }
}

/// Measures what an exchange of gradients `G` over `wire` costs between these ranks, on this device, for
/// [`BucketPlan::optimal`]. Every rank takes part, with a communicator made for this; rank 0's numbers
/// are the answer on all of them, to the bit, so that all make the same plan. `config` is that of the
/// reducer to come: what is a view here is a view there.
///
/// ```
/// use halfstep::{Device, Dtype, reduce::*};
/// let links: Vec<Link> = std::thread::scope(|scope| {
///     let ranks: Vec<_> = local(2.try_into().unwrap())
///         .into_iter()
///         .map(|comm| {
///             let device = Device::cpu_with_threads(1.try_into().unwrap());
///             let config = Config { views: true, ..Config::default() };
///             let comm = Box::new(comm);
///             scope.spawn(move || calibrate::<f32>(&device, comm, Dtype::Bf16, &config).unwrap())
///         })
///         .collect();
///     ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
/// });
/// assert_eq!(links[0], links[1]);
/// assert!(links[0].alpha + links[0].beta > 0.0);
/// ```
///
/// # Errors
/// As [`Reducer::new`] and [`Reducer::finish`].
pub fn calibrate<G: Storage>(
    device: &Device,
    comm: Box<dyn Communicator>,
    wire: Dtype,
    config: &Config,
) -> Result<Link> {
    let rank = comm.rank();
    // The smallest goes first, when ranks have not met yet; that is no part of its cost.
    let first = [Param::new("first", 1)];
    let timed = SIZES.map(|bytes| Param::new(format!("{bytes} bytes"), bytes / wire.bytes()));
    let answer = [Param::new("answer", 2 * PARTS)];
    let params: Vec<Param> =
        answer.into_iter().chain(timed.into_iter().rev()).chain(first).collect();
    let plan = BucketPlan::ddp(&params, wire, 1, 1)?; // a bucket for each, the last one first
    let config = Config {
        average: false,
        allow_unused: false,
        accumulate: false,
        scale: 1.0,
        ..config.clone()
    };
    let views = config.views;
    let mut reducer = Reducer::<G>::new(device, plan, comm, config)?;
    let stream = device.stream()?;
    let mut own = match views {
        true => Vec::new(),
        false => {
            let zeros = params.iter().map(|param| device.zeros::<G>(param.len));
            zeros.collect::<Result<Vec<_>>>()?
        }
    };
    let mut step = |answer: Option<&[G]>| -> Result<(Vec<Duration>, Vec<G>)> {
        let write = |mut to: ViewMut<'_, G>| to.copy_from(&stream, answer.unwrap_or_default());
        for param in (0..params.len()).rev() {
            match views {
                true => {
                    if let (0, Some(_)) = (param, answer) {
                        write(reducer.gradient_mut(0)?)?;
                    }
                    reducer.ready_view(&stream, param)?;
                }
                false => {
                    if let (0, Some(_)) = (param, answer) {
                        write(own[0].view_mut(0..params[0].len)?)?;
                    }
                    reducer.ready(&stream, param, &own[param])?;
                }
            }
        }
        let reduced = match views {
            true => reducer.finish_views(&stream, Unscale::Keep)?,
            false => {
                let mut outputs: Vec<&mut dyn crate::Write<G>> =
                    own.iter_mut().map(|buffer| buffer as &mut dyn crate::Write<G>).collect();
                reducer.finish(&stream, &mut outputs, Unscale::Keep)?
            }
        };
        let mut found = vec![G::narrow(0.0); params[0].len];
        match views {
            true => reducer.gradient(0)?.copy_to(&stream, &mut found)?,
            false => own[0].read(&stream, 0, &mut found)?,
        }
        // All ranks have met in the bucket before: what they wait now is part of the cost.
        let beside = Phase::ALL.into_iter().filter(|phase| phase.beside());
        let time = |bucket: usize| beside.clone().map(|p| reduced.times[bucket].phase(p)).sum();
        Ok(((1..=SIZES.len()).map(time).collect(), found))
    };
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); SIZES.len()];
    for round in 0..=STEPS {
        for (times, time) in times.iter_mut().zip(step(None)?.0) {
            times.extend((round > 0).then_some(time)); // the first touches memory for the first time
        }
    }
    let samples: Vec<(usize, f64)> = SIZES
        .into_iter()
        .zip(&mut times)
        .map(|(bytes, times)| {
            times.sort();
            (bytes, times[STEPS / 2].as_secs_f64().max(1e-9))
        })
        .collect();
    let mine = Link::fit(&samples)?;
    // One rank's numbers plus the others' zeros: a broadcast that every communicator has.
    let parts = match rank {
        0 => [mine.alpha, mine.beta].iter().flat_map(|&x| split::<G>(x, wire)).collect(),
        _ => vec![G::narrow(0.0); 2 * PARTS],
    };
    let (_, found) = step(Some(&parts))?;
    let join = |parts: &[G]| unlog(parts.iter().map(|part| f64::from(part.widen())).sum());
    Ok(Link { alpha: join(&found[..PARTS]), beta: join(&found[PARTS..]) })
}

/// Smaller than any cost.
const LEAST: f64 = 1e-15;

/// The logarithm of a cost in parts that every storage type holds.
fn split<G: Storage>(cost: f64, wire: Dtype) -> [G; PARTS] {
    let mut rest = cost.max(LEAST).log2();
    std::array::from_fn(|_| {
        let sent = match wire {
            Dtype::F32 => G::narrow(rest as f32),
            Dtype::Bf16 => G::narrow(crate::bf16::narrow(rest as f32).widen()),
            Dtype::F16 => G::narrow(crate::f16::narrow(rest as f32).widen()),
        };
        rest -= f64::from(sent.widen());
        sent
    })
}

fn unlog(log: f64) -> f64 {
    let cost = log.exp2();
    if cost <= 1.001 * LEAST { 0.0 } else { cost }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bf16, f16};

    #[test]
    fn costs_are_carried_by_every_type() {
        fn check<G: Storage>() {
            for wire in Dtype::ALL {
                for cost in [0.0, 1e-12, 3.7e-10, 1.0 / 3.0, 2e-5, 40.0] {
                    let parts = split::<G>(cost, wire);
                    let found = unlog(parts.iter().map(|part| f64::from(part.widen())).sum());
                    assert!((found - cost).abs() <= 1e-4 * cost, "{cost}: {found} over {wire}");
                }
            }
        }
        check::<f32>();
        check::<bf16>();
        check::<f16>();
    }
}
