//! Where the tensors of a plan go when their buckets are unpacked, as the device sees it: pieces of
//! buckets, which never change, and a table of addresses, which is uploaded when one does.

#![forbid(unsafe_code)]

use super::core::Own;
use super::launch::Span;
use super::plan::{Bucket, BucketPlan};
use crate::kernel::params::PARTIAL_CHUNK;
use crate::kernel::params::reduce::{Piece, Target};
use crate::{Buffer, Device, Result, Stream};

/// The pieces of parameters, each with where it starts and its length: as many as it has partials.
pub(super) fn pieces(params: impl Iterator<Item = (usize, usize, usize)>) -> Vec<Piece> {
    let of = |(param, offset, len): (usize, usize, usize)| {
        (0..len).step_by(PARTIAL_CHUNK).map(move |at| Piece {
            start: (offset + at) as u64,
            len: PARTIAL_CHUNK.min(len - at) as u32,
            tensor: param as u32,
        })
    };
    params.flat_map(of).collect()
}

/// What unpacking needs to know of all buckets' tensors.
pub(super) struct Targets {
    /// Of each bucket.
    pub pieces: Vec<Buffer<Piece>>,
    /// Elements of each bucket, or of the part.
    pub lens: Vec<usize>,
    /// How many partials all of them have.
    pub partials: usize,
    /// `[params]`, on the device.
    pub table: Buffer<Target>,
    /// What the table holds.
    sent: Vec<Target>,
    /// What it is to hold: all that is the same in every step, and this step's addresses.
    wanted: Vec<Target>,
}

impl Targets {
    /// Of whole buckets, or of this rank's own part of each.
    pub fn new(device: &Device, plan: &BucketPlan, own: Option<&Own>) -> Result<Self> {
        let params = plan.params();
        let mut partials = 0;
        let wanted: Vec<Target> = (0..params.len())
            .map(|param| {
                let (bucket, position) = plan.place(param);
                let (offset, before) = match own {
                    None => (plan.buckets()[bucket].offsets[position], 0),
                    Some(own) => {
                        let before = own.cut.part(param, own.rank).start / PARTIAL_CHUNK;
                        (own.cut.before(param, own.rank), before)
                    }
                };
                let partial = (partials + before) as u64;
                partials += params[param].len.div_ceil(PARTIAL_CHUNK);
                Target { to: 0, offset: offset as u64, partial }
            })
            .collect();
        let len = |param: usize| match own {
            None => params[param].len,
            Some(own) => own.cut.part(param, own.rank).len(),
        };
        let of = |bucket: &Bucket| {
            let of = |&param: &usize| (param, wanted[param].offset as usize, len(param));
            pieces(bucket.params.iter().map(of))
        };
        let end = |pieces: &Vec<Piece>| {
            pieces.iter().map(|piece| piece.start as usize + piece.len as usize).max().unwrap_or(0)
        };
        let all: Vec<Vec<Piece>> = plan.buckets().iter().map(of).collect();
        Ok(Self {
            lens: all.iter().map(end).collect(),
            partials,
            pieces: all.iter().map(|pieces| device.upload(pieces)).collect::<Result<_>>()?,
            table: device.upload(&wanted)?,
            sent: wanted.clone(),
            wanted,
        })
    }

    /// Where a parameter's first partial is.
    pub fn first_partial(&self, param: usize) -> usize {
        self.wanted[param].partial as usize
    }

    /// From now on gradients go to `spans`.
    pub fn set(&mut self, spans: &[Span]) {
        for (target, span) in self.wanted.iter_mut().zip(spans) {
            target.to = span.address.0;
        }
    }

    /// Brings the table up to date for a bucket whose parameters are `used` or left alone. With the first
    /// bucket all addresses go, so that those that follow need nothing.
    pub fn upload(&mut self, stream: &Stream, bucket: &Bucket, used: &[bool]) -> Result<()> {
        for (&param, _) in bucket.params.iter().zip(used).filter(|(_, used)| !**used) {
            self.wanted[param].to = 0;
        }
        if bucket.params.iter().all(|&param| self.wanted[param] == self.sent[param]) {
            return Ok(());
        }
        self.table.write(stream, 0, &self.wanted)?;
        self.sent.clone_from(&self.wanted);
        Ok(())
    }
}
