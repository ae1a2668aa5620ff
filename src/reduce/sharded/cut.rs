//! Which rank owns which elements.
//!
//! Each bucket is cut in as many parts as there are ranks, of about as many elements, and between chunks
//! of its parameters: sums over chunks are then the very ones that are made without cutting.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use super::super::plan::BucketPlan;
use crate::kernel::params::PARTIAL_CHUNK;

/// Who owns what.
#[derive(Debug)]
pub(crate) struct Cut {
    plan: Arc<BucketPlan>,
    ranks: usize,
    /// `[buckets][ranks + 1]` the element of the bucket at which each rank's part starts; and the end.
    starts: Vec<Vec<usize>>,
}

/// Where an element of a bucket lies when its parts are sent.
pub(crate) struct Place {
    /// The rank that owns it.
    pub rank: usize,
    /// Elements of the rank's part before it.
    pub within: usize,
    /// Elements of the rank's part from it on.
    pub left: usize,
}

impl Cut {
    /// Parts of `ranks` ranks. Rank `r`'s part of a bucket of `n` elements starts at the first chunk that
    /// starts at element `n·r/ranks` or later.
    pub fn new(plan: Arc<BucketPlan>, ranks: usize) -> Self {
        let starts = plan.buckets().iter().map(|bucket| {
            let mut chunks = Vec::new();
            for (&param, &offset) in bucket.params.iter().zip(&bucket.offsets) {
                chunks.extend((offset..offset + plan.params()[param].len).step_by(PARTIAL_CHUNK));
            }
            let start = |rank: usize| {
                let share = (bucket.len as u128 * rank as u128 / ranks as u128) as usize;
                let chunk = chunks.partition_point(|&chunk| chunk < share);
                chunks.get(chunk).copied().unwrap_or(bucket.len)
            };
            (0..=ranks).map(start).collect()
        });
        let starts = starts.collect();
        Self { plan, ranks, starts }
    }

    /// How many ranks there are.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// Elements of a bucket's largest part.
    pub fn largest(&self, bucket: usize) -> usize {
        self.starts[bucket].windows(2).map(|part| part[1] - part[0]).max().unwrap_or(0)
    }

    /// The elements of a parameter that a rank owns.
    pub fn part(&self, param: usize, rank: usize) -> Range<usize> {
        let (bucket, position) = self.plan.place(param);
        let offset = self.plan.buckets()[bucket].offsets[position];
        let len = self.plan.params()[param].len;
        let at = |start: usize| start.saturating_sub(offset).min(len);
        at(self.starts[bucket][rank])..at(self.starts[bucket][rank + 1])
    }

    /// How many elements of a rank's part of the bucket are before its part of the parameter.
    pub fn before(&self, param: usize, rank: usize) -> usize {
        let (bucket, position) = self.plan.place(param);
        let offset = self.plan.buckets()[bucket].offsets[position];
        (offset + self.part(param, rank).start).saturating_sub(self.starts[bucket][rank])
    }

    /// Where element `at` of a bucket is.
    pub fn place(&self, bucket: usize, at: usize) -> Place {
        let starts = &self.starts[bucket];
        // The last rank that starts there or before: those before it with the same start have nothing.
        let rank = starts[..starts.len() - 1].partition_point(|&start| start <= at) - 1;
        Place { rank, within: at - starts[rank], left: starts[rank + 1] - at }
    }

    /// The chunks of each parameter of `order` that a rank owns, counted over all parameters in that order.
    pub fn chunks(&self, order: &[usize], rank: usize) -> Vec<Range<usize>> {
        let mut first = 0;
        let mut chunks = Vec::new();
        for &param in order {
            let part = self.part(param, rank);
            if !part.is_empty() {
                let end = part.end.div_ceil(PARTIAL_CHUNK);
                chunks.push(first + part.start / PARTIAL_CHUNK..first + end);
            }
            first += self.plan.params()[param].len.div_ceil(PARTIAL_CHUNK);
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;
    use crate::reduce::Param;

    /// Every element is in the part of one rank, where `place` says; parts are cut between chunks, and
    /// as large as each other to within a chunk.
    #[test]
    fn every_element_is_owned_once() {
        let lens = [1, 0, 3 * PARTIAL_CHUNK, 5, PARTIAL_CHUNK + 1, 70_001, 0, 2];
        let params: Vec<Param> =
            lens.iter().enumerate().map(|(i, &len)| Param::new(format!("p{i}"), len)).collect();
        for bytes in [1, 100_000, 1 << 30] {
            let plan = Arc::new(BucketPlan::ddp(&params, Dtype::Bf16, bytes, bytes).unwrap());
            for ranks in [1, 2, 3, 4, 7, 100] {
                let cut = Cut::new(plan.clone(), ranks);
                assert_eq!(cut.ranks(), ranks);
                for (param, &len) in lens.iter().enumerate() {
                    let (bucket, position) = plan.place(param);
                    let offset = plan.buckets()[bucket].offsets[position];
                    let mut end = 0;
                    for rank in 0..ranks {
                        let part = cut.part(param, rank);
                        assert_eq!(part.start, end, "{param} of {rank}");
                        end = part.end;
                        assert!(end == len || end.is_multiple_of(PARTIAL_CHUNK), "{param}");
                        for at in part.clone().step_by(PARTIAL_CHUNK) {
                            let place = cut.place(bucket, offset + at);
                            let before = cut.before(param, rank) + at - part.start;
                            assert_eq!((place.rank, place.within), (rank, before));
                            assert!(place.left >= part.end - at);
                            assert!(place.within < cut.largest(bucket));
                        }
                    }
                    assert_eq!(end, len);
                }
                for (index, bucket) in plan.buckets().iter().enumerate() {
                    assert!(cut.largest(index) <= bucket.len.div_ceil(ranks) + PARTIAL_CHUNK);
                }
                let order: Vec<usize> = (0..lens.len()).rev().collect();
                let mut owned: Vec<usize> =
                    (0..ranks).flat_map(|rank| cut.chunks(&order, rank)).flatten().collect();
                owned.sort_unstable();
                let all: usize = lens.iter().map(|len| len.div_ceil(PARTIAL_CHUNK)).sum();
                assert_eq!(owned, (0..all).collect::<Vec<_>>());
            }
        }
    }
}
