//! The first exchange: ranks compare what they are about to do, and name what differs.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::comm::{Collective, Communicator, Fault, check_parts};
use super::config::{self, Config, Sum};
use super::plan::BucketPlan;
use super::way::Way;
use crate::{Device, Dtype, Error, Result};

/// Agrees on plan and configuration; returns the hash that every bucket's trailer repeats, and the way
/// in which every rank can exchange buckets, of which `way` is this one's.
pub(super) fn agree(
    comm: &mut dyn Communicator,
    plan: &BucketPlan,
    config: &Config,
    (gradient, sharded): (Dtype, Option<u64>),
    device: &Device,
    way: Way,
) -> Result<(u64, Way)> {
    let options = u64::from(config.average)
        | u64::from(config.allow_unused) << 1
        | u64::from(config.accumulate) << 2
        | (gradient as u64) << 3
        | u64::from(config.views) << 5
        | u64::from(config.stats) << 6
        | u64::from(config.scale.to_bits()) << 8
        | (config.sum as u64) << 40;
    let hash = plan.hash() ^ options.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = sharded.map_or(hash, |optimizer| hash.rotate_left(1) ^ optimizer);
    if comm.size() == 1 {
        return Ok((hash, Way::Packed));
    }
    let count = plan.params().len() as u64;
    let own = comm.rank() as u64;
    let all = gather(comm, config, device, vec![hash, count, way as u64, own])?;
    // Blocks would go to others than those that they are for.
    if let Some(place) = all.iter().enumerate().position(|(place, said)| said[3] != place as u64) {
        let found = format!("that rank {place} is rank {} to itself", all[place][3]);
        comm.aborter().abort(&found);
        return Err(Error::state("Reducer::new", "ranks that every rank numbers alike", found));
    }
    let Some(rank) = all.iter().position(|theirs| theirs[0] != all[0][0]) else {
        let same = all.iter().all(|theirs| theirs[2] == way as u64);
        // Else a way that all have.
        let common = match config.sum {
            Sum::OrderFree => Way::Whole,
            _ => Way::Packed,
        };
        return Ok((hash, if same { way } else { common }));
    };
    // They differ: find the first parameter that does. Lists may have different lengths.
    let longest = all.iter().map(|theirs| theirs[1]).max().unwrap_or(0) as usize;
    let mut hashes: Vec<u64> = (0..plan.params().len()).map(|p| plan.param_hash(p)).collect();
    hashes.resize(longest, 0);
    let all = gather(comm, config, device, hashes)?;
    let param = match (0..longest).find(|&p| all[rank][p] != all[0][p]) {
        Some(p) => match plan.params().get(p) {
            Some(param) => format!("{p} ({})", param.name),
            None => format!("{p} (this rank declares only {count})"),
        },
        None => "none: configurations, optimizers, gradient or wire types differ".into(),
    };
    Err(Error::Comm(Fault::PlanMismatch { rank, param }))
}

/// Every rank's words.
fn gather(
    comm: &mut dyn Communicator,
    config: &Config,
    device: &Device,
    words: Vec<u64>,
) -> Result<Vec<Vec<u64>>> {
    let stream = device.stream()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let send = Arc::new(device.upload(&bytes)?);
    let deadline = config::deadline(config.deadline);
    let parts = comm.exchange(Collective::AllGather, &send, &stream, deadline)?.parts;
    check_parts(&parts, &stream, comm.size(), bytes.len())?;
    parts
        .iter()
        .map(|part| {
            let mut bytes = vec![0u8; part.len];
            part.buffer.read(&stream, part.start, &mut bytes)?;
            let word = |b: &[u8]| u64::from_le_bytes(std::array::from_fn(|i| b[i]));
            Ok(bytes.chunks_exact(8).map(word).collect())
        })
        .collect()
}
