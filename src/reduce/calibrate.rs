//! What an exchange costs: measured at three sizes, fitted with a line.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use super::comm::Communicator;
use super::config::{Config, Unscale};
use super::core::Core;
use super::outbox::receive;
use super::plan::{BucketPlan, Link, Param};
use super::reducer::Reducer;
use super::report::Phase;
use crate::{Device, Dtype, Error, Result, Storage, Stream};

/// Bytes of the buckets that are timed: latency, a usual bucket, bandwidth.
const SIZES: [usize; 3] = [16 << 10, 1 << 20, 16 << 20];
/// Steps that are timed; medians count.
const STEPS: usize = 7;

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
/// Between all ranks of two nodes, it is what `halfstep scale --alpha --rate` predicts larger machines from.
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
    // The smallest goes first, when ranks have not met yet; that is no part of its cost.
    let first = [Param::new("first", 1)];
    let timed = SIZES.map(|bytes| Param::new(format!("{bytes} bytes"), bytes / wire.bytes()));
    let params: Vec<Param> = timed.into_iter().rev().chain(first).collect();
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
    let mut step = || -> Result<Vec<Duration>> {
        for param in (0..params.len()).rev() {
            match views {
                true => reducer.ready_view(&stream, param)?,
                false => reducer.ready(&stream, param, &own[param])?,
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
        // All ranks have met in the bucket before: what they wait now is part of the cost.
        let beside = Phase::ALL.into_iter().filter(|phase| phase.beside());
        let time = |bucket: usize| beside.clone().map(|p| reduced.times[bucket].phase(p)).sum();
        Ok((1..=SIZES.len()).map(time).collect())
    };
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); SIZES.len()];
    for round in 0..=STEPS {
        for (times, time) in times.iter_mut().zip(step()?) {
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
    of_rank_0(&mut reducer.core, &stream, Link::fit(&samples)?)
}

/// Rank 0's numbers on every rank, to the bit: bytes, which nobody rounds.
fn of_rank_0(reducer: &mut Core, stream: &Stream, mine: Link) -> Result<Link> {
    let send = stream.device().upload(bytemuck::bytes_of(&[mine.alpha, mine.beta]))?;
    let parts = receive(&reducer.outbox.gather(&Arc::new(send), stream.record()?)?)?;
    let mut found = [0.0f64; 2];
    parts[0].buffer.read(stream, parts[0].start, bytemuck::bytes_of_mut(&mut found))?;
    Ok(Link { alpha: found[0], beta: found[1] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::{Local, Sum, local};

    fn of(rank: usize) -> Link {
        Link { alpha: 1e-5 / (3 + rank) as f64, beta: 1e-10 / (3 + rank) as f64 }
    }

    /// What a rank whose numbers are its own gets.
    fn received(comm: Local, sum: Sum) -> Link {
        let plan = BucketPlan::ddp(&[Param::new("w", 9)], Dtype::Bf16, 1, 1).unwrap();
        let device = Device::cpu_with_threads(1.try_into().unwrap());
        let (mine, comm) = (of(comm.rank()), Box::new(comm));
        let config = Config { sum, ..Config::default() };
        let mut reducer = Reducer::<f32>::new(&device, plan, comm, config).unwrap();
        of_rank_0(&mut reducer.core, &device.stream().unwrap(), mine).unwrap()
    }

    /// Whatever gradients are sent in.
    #[test]
    fn costs_arrive_to_the_bit() {
        for sum in [Sum::RankOrder, Sum::OrderFree, Sum::Communicator, Sum::Int8] {
            for size in [1usize, 3] {
                std::thread::scope(|scope| {
                    let ranks = local(size.try_into().unwrap()).into_iter();
                    let ranks: Vec<_> =
                        ranks.map(|comm| scope.spawn(move || received(comm, sum))).collect();
                    for rank in ranks {
                        assert_eq!(rank.join().unwrap(), of(0), "{sum:?}");
                    }
                });
            }
        }
    }
}
