//! Means in the place of what they are the means of: each strip of all ranks' buckets is read, and
//! written again while it is in the cache. Bucket memory is moved once in and once out.

use std::marker::PhantomData;
use std::slice::{from_raw_parts, from_raw_parts_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::fold;
use super::super::threads::Threads;
use super::super::wide::{Work, vector};
use super::fixed::Point;
use crate::kernel::params::Partial;
use crate::kernel::params::reduce::{FIXED_BLOCK, InPlace, Piece};
use crate::optim::round::Lane;
use crate::reduce::reference::{self, non_finite};
use crate::{Dtype, Storage};

/// Elements that are worked on at a time: of every rank, and in f32, they fit the first-level cache. A block of fixed point.
const STRIP: usize = FIXED_BLOCK;

/// What all pieces of a launch share.
struct Job<'a, G> {
    /// Every rank's bucket; of one whose part alone is here, where it would start.
    buckets: &'a [*mut G],
    /// Those that are written.
    written: &'a [*mut G],
    weights: &'a [f32],
    /// Where the exponents are in each bucket, in bytes, if sums are made in fixed point.
    exponents: Option<usize>,
    /// How many non-finite values each rank has brought.
    bad: &'a [AtomicU64],
    scale: f32,
    factor: f32,
    /// Whether partials are wanted.
    stats: bool,
}

// SAFETY: the pointers are used for pieces that do not overlap, by `run`'s contract.
unsafe impl<G> Sync for Job<'_, G> {}

/// # Safety
/// See [`super::run`]; and no two pieces of the list share elements. Other ranks run the same list at the
/// same time: who claims a piece has it alone.
pub(super) unsafe fn run<G: Lane, W: Storage>(threads: &Threads, block: &InPlace) {
    let (ranks, count) = (block.ranks as usize, block.count as usize);
    if count == 0 {
        return; // no elements: nothing has an address
    }
    // SAFETY: the caller's promise.
    let (read, addresses, weights, pieces) = unsafe {
        (
            from_raw_parts(block.buckets as *const u64, ranks),
            from_raw_parts(block.written as *const u64, block.written_count as usize),
            from_raw_parts(block.weights as *const f32, ranks),
            from_raw_parts(block.pieces as *const Piece, count),
        )
    };
    let pointers = |addresses: &[u64]| -> Vec<*mut G> {
        addresses.iter().map(|&address| address as *mut G).collect()
    };
    let (buckets, written) = (pointers(read), pointers(addresses));
    let bad: Vec<AtomicU64> = read.iter().map(|_| AtomicU64::new(0)).collect();
    let (scale, factor) = (block.scale, block.factor);
    let stats = block.partials != 0;
    let exponents = (block.exponents != 0).then_some(block.exponents as usize);
    let (buckets, written, bad) = (&buckets[..], &written[..], &bad[..]);
    let job = &Job { buckets, written, weights, exponents, bad, scale, factor, stats };
    let skipped = |piece: &Piece| {
        let table = block.skipped as *const u8;
        // SAFETY: the caller's promise: one of each tensor.
        !table.is_null() && unsafe { *table.add(piece.tensor as usize) } != 0
    };
    let work = |i: usize| {
        if skipped(&pieces[i]) {
            return;
        }
        // SAFETY: the caller's promise.
        let partial = unsafe { piece::<G, W>(job, &pieces[i]) };
        let Some(partial) = partial else { return };
        for &address in addresses {
            let to = (address + block.partials) as *mut Partial;
            // SAFETY: the caller's promise: room for one of each piece.
            unsafe { *to.add(i) = partial }
        }
    };
    if block.next == 0 {
        threads.run(count, work);
    } else {
        // SAFETY: the caller's promise: counters that all ranks share, and use in no other way.
        let next: Vec<&AtomicU64> = (0..ranks)
            .map(|rank| unsafe { AtomicU64::from_ptr((block.next as *mut u64).add(rank)) })
            .collect();
        // Each rank has a range of its own, which it walks in order; who is done takes from the others',
        // so that nobody waits for a rank that its processor has left.
        let start = |rank: usize| rank * count / ranks;
        threads.run(threads.count(), |_| {
            for rank in (block.rank as usize..ranks).chain(0..block.rank as usize) {
                loop {
                    let i = start(rank) + next[rank].fetch_add(1, Ordering::Relaxed) as usize;
                    if i >= start(rank + 1) {
                        break;
                    }
                    work(i);
                }
            }
        });
    }
    for &address in addresses {
        for (rank, bad) in bad.iter().enumerate() {
            let count = (address + block.non_finite) as *mut u64;
            // SAFETY: the caller's promise: room for one of each rank, for this launch alone.
            unsafe { *count.add(rank) += bad.load(Ordering::Relaxed) }
        }
    }
}

/// One piece, and its partial where that is wanted.
///
/// # Safety
/// The piece is inside every bucket, and nobody else touches it.
unsafe fn piece<G: Lane, W: Storage>(job: &Job<'_, G>, piece: &Piece) -> Option<Partial> {
    // Alone, what is summed is factor·x before the last rounding; else what every rank has at the end,
    // which holds a mean exactly.
    let alone = job.buckets.len() == 1;
    // SAFETY: the caller's promise.
    let partial = |factor: f32| job.stats.then(|| unsafe { sum_squares(job, piece, factor) });
    let before = if alone { partial(job.factor) } else { None };
    vector(Strips::<G, W> { job, piece, wire: PhantomData });
    if alone { before } else { partial(1.0) }
}

/// A piece whose means are wanted: [`piece`] without the partial. It is inside every bucket, and nobody else touches it.
struct Strips<'a, G, W> {
    job: &'a Job<'a, G>,
    piece: &'a Piece,
    wire: PhantomData<W>,
}

impl<G: Lane, W: Storage> Work for Strips<'_, G, W> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { job, piece, .. } = self;
        let (mut at, end) = (piece.start as usize, (piece.start + u64::from(piece.len)) as usize);
        while at < end {
            // A block has one exponent.
            let most = if job.exponents.is_some() { STRIP - at % STRIP } else { STRIP };
            // A length that the compiler knows makes better loops.
            if most == STRIP && end - at >= STRIP {
                // SAFETY: what the piece is.
                unsafe { strip::<G, W>(job, at, STRIP) }
                at += STRIP;
            } else {
                let some = most.min(end - at);
                // SAFETY: as above.
                unsafe { strip::<G, W>(job, at, some) }
                at += some;
            }
        }
    }
}

/// The partial of a piece as it is.
///
/// # Safety
/// As for [`piece`].
unsafe fn sum_squares<G: Lane>(job: &Job<'_, G>, piece: &Piece, factor: f32) -> Partial {
    let start = job.written[0].wrapping_add(piece.start as usize);
    // SAFETY: the caller's promise; nothing is written while the slice is alive.
    let values = unsafe { from_raw_parts(start, piece.len as usize) };
    fold::partial(piece.tensor, values, factor)
}

/// One strip of `len` elements, from element `start` of the buckets on; of one block, where those have exponents.
///
/// # Safety
/// As for [`piece`].
#[inline(always)]
unsafe fn strip<G: Storage, W: Storage>(job: &Job<'_, G>, start: usize, len: usize) {
    let (mut sums, mut out) = ([0.0f32; STRIP], [G::narrow(0.0); STRIP]);
    let (sums, out) = (&mut sums[..len], &mut out[..len]);
    match job.exponents {
        // SAFETY: the caller's promise.
        None => unsafe { sum::<G, W>(job, start, sums) },
        // SAFETY: the caller's promise.
        Some(exponents) => unsafe { sum_fixed(job, start, exponents, sums) },
    }
    if !reference::round_mean::<G, W>(sums, out, job.factor) {
        // Before the strip is overwritten: who brought what is not finite? (Maybe nobody: a sum can
        // overflow.)
        for (&bucket, count) in job.buckets.iter().zip(job.bad) {
            // SAFETY: as above.
            let values = unsafe { from_raw_parts(bucket.wrapping_add(start), len) };
            let sent = values.iter().map(|value| W::narrow(job.scale * value.widen()).widen());
            count.fetch_add(sent.filter(|x| non_finite(*x)).count() as u64, Ordering::Relaxed);
        }
    }
    for &bucket in job.written {
        // SAFETY: the caller's promise; no other slice of the strip is alive.
        unsafe { from_raw_parts_mut(bucket.wrapping_add(start), len) }.copy_from_slice(out);
    }
}

/// A strip's weighted sums, in f32, in rank order.
///
/// # Safety
/// As for [`piece`].
#[inline(always)]
unsafe fn sum<G: Storage, W: Storage>(job: &Job<'_, G>, start: usize, sums: &mut [f32]) {
    let len = sums.len();
    // Values that the wire type holds exactly, and that nothing scales, need no rounding.
    let exact = job.scale == 1.0 && (W::DTYPE == G::DTYPE || W::DTYPE == Dtype::F32);
    for (rank, (&bucket, &weight)) in job.buckets.iter().zip(job.weights).enumerate() {
        // SAFETY: the caller's promise; the slice ends before the strip is written.
        let values = unsafe { from_raw_parts(bucket.wrapping_add(start), len) };
        match exact {
            true => reference::add_weighted::<G, G>(values, sums, weight, 1.0, rank == 0),
            false => reference::add_weighted::<G, W>(values, sums, weight, job.scale, rank == 0),
        }
    }
}

/// The same in fixed point, in no order.
///
/// # Safety
/// As for [`piece`]; the strip is of one block, whose exponent on each rank is in that one's bucket.
#[inline(always)]
unsafe fn sum_fixed<G: Storage>(
    job: &Job<'_, G>,
    start: usize,
    exponents: usize,
    sums: &mut [f32],
) {
    let mut exponent = 0;
    for &bucket in job.buckets {
        let own = bucket.cast::<u8>().wrapping_add(exponents + start / STRIP);
        // SAFETY: the caller's promise.
        exponent = exponent.max(unsafe { *own });
    }
    let point = Point::new(exponent, reference::headroom(job.buckets.len()));
    let mut integers = [0; STRIP];
    let integers = &mut integers[..sums.len()];
    for (&bucket, &weight) in job.buckets.iter().zip(job.weights) {
        // SAFETY: the caller's promise; the slice ends before the strip is written.
        let values = unsafe { from_raw_parts(bucket.wrapping_add(start), sums.len()) };
        point.add(values, integers, weight);
    }
    point.widen(integers, sums);
}
