//! What a finished step says: which parameters have a gradient, where a NaN came from, and where
//! the time went.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::plan::Bucket;
use super::trailer::Trailer;

/// The result of one [`Reducer::finish`](super::Reducer::finish).
#[derive(Debug, Clone, PartialEq)]
pub struct Reduced {
    /// For each parameter, whether any rank had a gradient for it. An optimizer leaves the others
    /// alone.
    pub used: Vec<bool>,
    /// Where non-finite gradients came from, before the sum spread them to every rank.
    pub non_finite: Vec<NonFinite>,
    /// Σ weights over the ranks.
    pub weight: f64,
    /// Where the time went, for each bucket in plan order.
    pub times: Vec<BucketTimes>,
}

/// A rank that packed NaN or ±Inf into a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonFinite {
    /// The rank.
    pub rank: usize,
    /// The bucket.
    pub bucket: usize,
    /// How many elements.
    pub elements: u64,
}

/// Where the time of one bucket went, on this rank's host clock.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BucketTimes {
    /// Bytes sent, trailers and padding included.
    pub bytes: usize,
    /// From the step's first mark until the bucket was complete.
    pub ready: Duration,
    /// Packing.
    pub pack: Duration,
    /// Waiting for slower ranks: their lateness, not the wire's slowness.
    pub skew: Duration,
    /// Moving bytes.
    pub wire: Duration,
    /// Summing this rank's shard.
    pub sum: Duration,
    /// Unpacking.
    pub unpack: Duration,
    /// How long `finish` stood waiting for the bucket: what the backward pass did not hide.
    pub exposed: Duration,
}

impl Reduced {
    pub(super) fn new(params: usize) -> Self {
        Self { used: vec![false; params], non_finite: Vec::new(), weight: 0.0, times: Vec::new() }
    }

    pub(super) fn add(&mut self, bucket: &Bucket, index: usize, trailers: &[Trailer]) {
        self.weight = trailers.iter().map(|t| t.weight).sum();
        for (rank, trailer) in trailers.iter().enumerate() {
            for (&param, &used) in bucket.params.iter().zip(&trailer.used) {
                self.used[param] |= used;
            }
            if trailer.non_finite > 0 {
                let elements = trailer.non_finite;
                self.non_finite.push(NonFinite { rank, bucket: index, elements });
            }
        }
    }

    /// How long `finish` stood waiting, over all buckets.
    pub fn exposed(&self) -> Duration {
        self.times.iter().map(|t| t.exposed).sum()
    }
}
