//! Which parameters share a bucket, and in which order buckets are exchanged. Pure; the same on
//! every rank by construction, and checked to be.

#![forbid(unsafe_code)]

use crate::{Dtype, Error, Result};

const OP: &str = "bucket plan";

/// A parameter whose gradient is reduced. The list of them is declared once, in the order in which
/// the forward pass uses them ("registration order"), the same on every rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name, for errors and tables.
    pub name: String,
    /// Number of elements; may be 0.
    pub len: usize,
}

impl Param {
    /// A parameter of `len` elements.
    pub fn new(name: impl Into<String>, len: usize) -> Self {
        Self { name: name.into(), len }
    }
}

/// The cost of one exchange of `bytes` bytes, `alpha + beta · bytes` seconds: the α-β model of
/// Hockney (1994).
///
/// ```
/// use halfstep::reduce::Link;
/// let link = Link { alpha: 20e-6, beta: 1.0 / 10e9 }; // 20 µs, then 10 GB/s
/// assert!((link.seconds(10_000_000) - 1.02e-3).abs() < 1e-9);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Seconds that an exchange takes however small it is.
    pub alpha: f64,
    /// Seconds per byte.
    pub beta: f64,
}

impl Link {
    /// Seconds for one exchange of `bytes`.
    pub fn seconds(&self, bytes: usize) -> f64 {
        self.alpha + self.beta * bytes as f64
    }
}

/// One bucket: parameters exchanged together, laid out one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Indices into the declared list, in the bucket's order.
    pub params: Vec<usize>,
    /// Where each of them starts, in elements.
    pub offsets: Vec<usize>,
    /// Elements in all.
    pub len: usize,
}

/// Buckets in the order in which they are exchanged. That order is fixed here: gradients may
/// become ready in any order, on each rank in another, and exchanges still match up.
///
/// ```
/// use halfstep::{Dtype, reduce::{BucketPlan, Param}};
/// # fn main() -> halfstep::Result<()> {
/// let params = [Param::new("w1", 1000), Param::new("b1", 10), Param::new("w2", 500)];
/// let plan = BucketPlan::ddp(&params, Dtype::Bf16, 1 << 10, 2 << 10)?;
/// assert_eq!(plan.buckets().len(), 2); // w1 alone reaches 1 KiB; b1 and w2 follow
/// assert_eq!(plan.buckets()[0].params, [1, 2]); // the last layers' bucket goes first
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct BucketPlan {
    params: Vec<Param>,
    wire: Dtype,
    buckets: Vec<Bucket>,
    place: Vec<(usize, usize)>,
}

/// When one bucket is exchanged, in seconds from the start of the backward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// All its gradients are there.
    pub ready: f64,
    /// The exchange starts.
    pub start: f64,
    /// The exchange ends.
    pub end: f64,
}

impl BucketPlan {
    /// The plan that PyTorch's `DistributedDataParallel` begins with: walk the list in registration
    /// order; close a bucket once it holds `first_bytes` (the first) or `bytes` (the others), so
    /// that it may hold more; exchange the last one first. Sizes are those of `wire`.
    ///
    /// (After a step PyTorch walks again, in the order in which gradients came, and exchanges the
    /// first bucket first: the small one goes first then, not last.)
    ///
    /// Source: `compute_bucket_assignment_by_size` in PyTorch's `reducer.cpp`.
    ///
    /// # Errors
    /// [`Error::Range`] for a limit of 0; [`Error::Shape`] if the sizes overflow.
    pub fn ddp(params: &[Param], wire: Dtype, first_bytes: usize, bytes: usize) -> Result<Self> {
        for (arg, limit) in [("first_bytes", first_bytes), ("bytes", bytes)] {
            if limit == 0 {
                return Err(Error::range(OP, arg, "at least 1", 0));
            }
        }
        check_total(params)?;
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let (mut open, mut size, mut limit) = (Vec::new(), 0usize, first_bytes);
        for (index, param) in params.iter().enumerate() {
            open.push(index);
            size += param.len * wire.bytes();
            if size >= limit {
                groups.push(std::mem::take(&mut open));
                (size, limit) = (0, bytes);
            }
        }
        if !open.is_empty() {
            groups.push(open);
        }
        groups.reverse();
        Ok(Self::from_groups(params, wire, groups))
    }

    /// The plan under which the last exchange ends first, by dynamic programming: with the
    /// parameters in the order in which they become ready, `P_j` the bytes of the first `j` and
    /// `r_j` the time when they are there,
    ///
    /// `F(0) = 0`, `F(j) = min over i < j of max(F(i), r_j) + α + β·(P_j − P_i)`.
    ///
    /// `ready[i]` is when parameter `i`'s gradient is there, in seconds from the start of the
    /// backward pass (see [`ready_by_elements`]); parameters become ready from the last to the
    /// first. Exact: no contiguous plan ends earlier. Of several best plans, one is taken in which each
    /// bucket, not the last alone, ends as early as any plan would have its parameters end: that leaves
    /// the most slack where a link turns out slower than was thought. Of several such, the one with the
    /// fewest buckets. Time is O(n²). The formulation is that of MG-WFBP (Shi, Chu, Li, INFOCOM 2019),
    /// solved exactly.
    ///
    /// # Errors
    /// [`Error::Shape`] if `ready` has another length or the sizes overflow; [`Error::Range`] for
    /// times or costs that are negative or not finite.
    pub fn optimal(params: &[Param], wire: Dtype, ready: &[f64], link: Link) -> Result<Self> {
        check_times(params, ready, link)?;
        check_total(params)?;
        let (order, bytes, ready) = ready_order(params, wire, ready);
        let n = order.len();
        // Best (end, buckets) for the first j parameters, and where the last bucket starts.
        let mut best = vec![(0.0f64, 0usize); n + 1];
        let mut cut = vec![0; n + 1];
        for j in 1..=n {
            best[j] = (f64::INFINITY, usize::MAX);
            for i in 0..j {
                let end = best[i].0.max(ready[j - 1]) + link.seconds(bytes[j] - bytes[i]);
                let candidate = (end, best[i].1 + 1);
                if candidate.0 < best[j].0 || (candidate.0 == best[j].0 && candidate.1 < best[j].1)
                {
                    best[j] = candidate;
                    cut[j] = i;
                }
            }
        }
        let mut groups = Vec::new();
        let mut end = n;
        while end > 0 {
            groups.push(order[cut[end]..end].to_vec());
            end = cut[end];
        }
        groups.reverse();
        Ok(Self::from_groups(params, wire, groups))
    }

    fn from_groups(params: &[Param], wire: Dtype, groups: Vec<Vec<usize>>) -> Self {
        let mut place = vec![(0, 0); params.len()];
        let mut buckets = Vec::with_capacity(groups.len());
        for (bucket, group) in groups.into_iter().enumerate() {
            let (mut offsets, mut len) = (Vec::with_capacity(group.len()), 0);
            for (position, &param) in group.iter().enumerate() {
                place[param] = (bucket, position);
                offsets.push(len);
                len += params[param].len;
            }
            buckets.push(Bucket { params: group, offsets, len });
        }
        Self { params: params.to_vec(), wire, buckets, place }
    }

    /// The declared list.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// What gradients are rounded to for the exchange. Sums are f32 whatever it is.
    pub fn wire(&self) -> Dtype {
        self.wire
    }

    /// The buckets, first exchanged first.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The bucket of a parameter, and its position there.
    ///
    /// # Panics
    /// If there is no such parameter, as indexing [`params`](Self::params) does.
    pub fn place(&self, param: usize) -> (usize, usize) {
        self.place[param]
    }

    /// Bytes of each bucket on the wire, without padding.
    pub fn bytes(&self) -> Vec<usize> {
        self.buckets.iter().map(|b| b.len * self.wire.bytes()).collect()
    }

    /// What the α-β model predicts for this plan: buckets exchanged one after the other, each once
    /// its gradients are there. What is exposed is the last `end` less the backward pass's time.
    ///
    /// # Errors
    /// As [`BucketPlan::optimal`].
    pub fn timeline(&self, ready: &[f64], link: Link) -> Result<Vec<Slot>> {
        check_times(&self.params, ready, link)?;
        let mut free = 0.0f64;
        Ok(self
            .buckets
            .iter()
            .map(|bucket| {
                let ready = bucket.params.iter().fold(0.0f64, |time, &p| time.max(ready[p]));
                let start = free.max(ready);
                free = start + link.seconds(bucket.len * self.wire.bytes());
                Slot { ready, start, end: free }
            })
            .collect())
    }

    /// A hash of all that ranks must agree on: names, lengths, wire type, buckets and their order.
    /// 64-bit FNV-1a.
    pub fn hash(&self) -> u64 {
        let mut hash = Fnv::new();
        hash.write(&(self.wire as u32).to_le_bytes());
        for param in 0..self.params.len() {
            hash.write(&self.param_hash(param).to_le_bytes());
        }
        hash.0
    }

    /// The part of [`BucketPlan::hash`] that one parameter makes.
    pub(crate) fn param_hash(&self, param: usize) -> u64 {
        let mut hash = Fnv::new();
        let (bucket, position) = self.place[param];
        hash.write(self.params[param].name.as_bytes());
        for number in [self.params[param].len, bucket, position] {
            hash.write(&(number as u64).to_le_bytes());
        }
        hash.0
    }
}

/// When each gradient is there if the backward pass takes `seconds` and each element the same
/// share of it: a guess for plans made before anything has been measured.
pub fn ready_by_elements(params: &[Param], seconds: f64) -> Vec<f64> {
    let total: f64 = params.iter().map(|p| p.len as f64).sum();
    let mut done = 0.0;
    let mut ready = vec![0.0; params.len()];
    for (index, param) in params.iter().enumerate().rev() {
        done += param.len as f64;
        ready[index] = if total > 0.0 { seconds * done / total } else { seconds };
    }
    ready
}

/// Parameters from last to first, prefix sums of their bytes, and the time by which all up to each
/// are ready.
fn ready_order(params: &[Param], wire: Dtype, ready: &[f64]) -> (Vec<usize>, Vec<usize>, Vec<f64>) {
    let order: Vec<usize> = (0..params.len()).rev().collect();
    let mut bytes = vec![0];
    let mut times = Vec::with_capacity(order.len());
    let mut time = 0.0f64;
    for &param in &order {
        bytes.push(bytes[bytes.len() - 1] + params[param].len * wire.bytes());
        time = time.max(ready[param]);
        times.push(time);
    }
    (order, bytes, times)
}

fn check_total(params: &[Param]) -> Result<()> {
    let limit = isize::MAX as usize / 8;
    let total = params.iter().try_fold(0usize, |sum, p| sum.checked_add(p.len));
    match total {
        Some(total) if total <= limit => Ok(()),
        _ => Err(Error::shape(OP, "params", format!("at most {limit} elements"), "more")),
    }
}

fn check_times(params: &[Param], ready: &[f64], link: Link) -> Result<()> {
    if ready.len() != params.len() {
        let expected = format!("{} times", params.len());
        return Err(Error::shape(OP, "ready", expected, ready.len()));
    }
    let good = |value: f64| value.is_finite() && value >= 0.0;
    for (index, &time) in ready.iter().enumerate() {
        if !good(time) {
            let arg = format!("ready[{index}]");
            return Err(Error::range(OP, arg, "finite seconds of at least 0", time));
        }
    }
    for (arg, value) in [("link.alpha", link.alpha), ("link.beta", link.beta)] {
        if !good(value) {
            return Err(Error::range(OP, arg, "a finite number of at least 0", value));
        }
    }
    Ok(())
}

/// 64-bit FNV-1a (Fowler, Noll, Vo).
pub(super) struct Fnv(pub u64);

impl Fnv {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
