//! Parameter blocks of `reduce`.

block! {
    /// `bucket[offset + i] = wire(scale · (gradient[i] + accumulated[i]))`, where the bucket is cut in shards
    /// of equal length; `accumulated[i] = 0`; `*non_finite += ` how many results are NaN or ±Inf.
    pub struct Pack {
        /// `[len]` of `gradient_type`, or absent: zeros.
        pub gradient: u64,
        /// `[len]` f32, or absent: nothing was accumulated.
        pub accumulated: u64,
        /// The first shard, of `wire`.
        pub bucket: u64,
        /// One u64.
        pub non_finite: u64,
        /// Elements of one shard: as many as a thread takes, 8, at least.
        pub shard: u64,
        /// Bytes from the start of one shard to that of the next.
        pub stride: u64,
        /// Where the elements start in the bucket.
        pub offset: u64,
        /// Elements.
        pub len: u64,
        /// Factor, applied in f32 before the one rounding.
        pub scale: f32,
        /// Storage type of the gradient.
        pub gradient_type: u32,
        /// Storage type on the wire.
        pub wire: u32,
        /// Zero.
        pub padding: u32,
    }
}

block! {
    /// `accumulated[i] += gradient[i]` in f32.
    pub struct Accumulate {
        /// `[len]` of `gradient_type`.
        pub gradient: u64,
        /// `[len]` f32.
        pub accumulated: u64,
        /// Elements.
        pub len: u64,
        /// Storage type of the gradient.
        pub gradient_type: u32,
        /// Zero.
        pub padding: u32,
    }
}

block! {
    /// `to[i] = type(factor · Σ_r weights[r] · parts[r][i])`: f32, `r` ascending, one rounding.
    pub struct Sum {
        /// `[ranks]` addresses of `[len]` of `from_type`.
        pub parts: u64,
        /// `[ranks]` f32.
        pub weights: u64,
        /// `[len]` of `to_type`.
        pub to: u64,
        /// Elements.
        pub len: u64,
        /// Ranks.
        pub ranks: u32,
        /// Storage type of the parts, or [`INT8`].
        pub from_type: u32,
        /// Storage type of the sum: that of the parts, or one of the two is f32; f32 of [`INT8`].
        pub to_type: u32,
        /// `1 / Σ weights` for an average, 1 for a sum.
        pub factor: f32,
    }
}

block! {
    /// All tensors of a bucket, which is cut in shards of equal length: for each element `i` of a piece
    ///
    /// `tensor[i − offset] = type(factor · bucket[i])`,
    ///
    /// and for each piece the [`Partial`](super::Partial) of its f32 products.
    pub struct Unpack {
        /// Addresses of the shards.
        pub shards: u64,
        /// `[count]` [`Piece`]s.
        pub pieces: u64,
        /// `[tensors]` [`Target`]s.
        pub targets: u64,
        /// Partials of all tensors.
        pub partials: u64,
        /// Elements of one shard: as many as a thread takes, 8, at least.
        pub shard: u64,
        /// Pieces.
        pub count: u64,
        /// Factor, applied in f32.
        pub factor: f32,
        /// Storage type of the gradients.
        pub gradient_type: u32,
        /// Storage type on the wire, or [`INT8`].
        pub wire: u32,
        /// Zero.
        pub padding: u32,
    }
}

block! {
    /// Where a tensor of a bucket goes.
    pub struct Target {
        /// Its elements; or absent: it is left alone.
        pub to: u64,
        /// Where it starts in the bucket, in elements.
        pub offset: u64,
        /// Its first partial.
        pub partial: u64,
    }
}

block! {
    /// The mean, or weighted sum, of the same elements of several buckets in one address space, put in
    /// the place of some or all of them:
    ///
    /// `t = wire(factor · Σ_r weights[r] · wire(scale · bucket_r[i]))`, `r` ascending, in f32;
    /// `bucket[i] = type(t)` for every bucket that is written.
    ///
    /// For each piece also: its [`Partial`](super::Partial) of the `t`, which `type` must hold exactly
    /// unless there is one rank, no weight and no scale; and `count[r] +=` how many of
    /// `wire(scale · bucket_r[i])` are NaN or ±Inf, in each of those.
    pub struct InPlace {
        /// `[ranks]` addresses of buckets of `value_type`, to read.
        pub buckets: u64,
        /// `[written_count]` addresses of those that are written.
        pub written: u64,
        /// `[ranks]` f32.
        pub weights: u64,
        /// `[count]` [`Piece`]s.
        pub pieces: u64,
        /// Of each tensor a u8, which is not 0 where its pieces are left alone; or absent: none is.
        pub skipped: u64,
        /// `[ranks]` u64, 0 at first, that all ranks at work on the same pieces claim them with; or
        /// absent: all pieces are this launch's.
        pub next: u64,
        /// Where the first piece's partial is in each bucket, in bytes; those of the others follow. 0: none
        /// is wanted.
        pub partials: u64,
        /// Where the `[ranks]` u64 counts are in each bucket, in bytes.
        pub non_finite: u64,
        /// Where the exponents of blocks of [`FIXED_BLOCK`] elements, from the first one on, are in each bucket, in bytes: the
        /// sum is in fixed point, with the largest of all ranks, of values that are not scaled and have the type `wire`. 0: there are none.
        pub exponents: u64,
        /// Pieces.
        pub count: u64,
        /// Ranks.
        pub ranks: u32,
        /// How many buckets are written.
        pub written_count: u32,
        /// The rank whose range of pieces comes first.
        pub rank: u32,
        /// Storage type of the buckets.
        pub value_type: u32,
        /// Storage type that values and sums are rounded to.
        pub wire: u32,
        /// Factor before the first rounding.
        pub scale: f32,
        /// Factor before the second: `1 / Σ weights` for an average, 1 for a sum.
        pub factor: f32,
        /// Zero.
        pub padding: u32,
    }
}

block! {
    /// Elements of one tensor in a bucket, as many as one [`Partial`](super::Partial) covers.
    pub struct Piece {
        /// The first, in elements from the bucket's start.
        pub start: u64,
        /// How many.
        pub len: u32,
        /// The tensor's index, for the partial.
        pub tensor: u32,
    }
}

block! {
    /// Block of `measure`, `encode` and `decode`: 32-bit fixed point with one exponent for each
    /// [`FIXED_BLOCK`] elements. Which of the three are written, the row says.
    pub struct Fixed {
        /// `[len]` of `value_type`.
        pub values: u64,
        /// `[⌈len / 256⌉]` u8.
        pub exponents: u64,
        /// `[len]` i32.
        pub sums: u64,
        /// Elements.
        pub len: u64,
        /// Factor, applied in f32: before encoding, after decoding.
        pub factor: f32,
        /// Storage type of the values.
        pub value_type: u32,
        /// log2 of the number of ranks, rounded up.
        pub headroom: u32,
        /// Zero.
        pub padding: u32,
    }
}

/// Elements that share an exponent.
pub const FIXED_BLOCK: usize = 256;

block! {
    /// Values in blocks of 8-bit integers, and what that loses: of each [`INT8_BLOCK`] elements, with
    /// `v = values + carried` and `m = max |v|`,
    ///
    /// `scale = m · (1/127)`; `code = round(v · (127 / m))`; `values = v − scale · code`.
    ///
    /// Below 2⁻¹⁰⁰ `m` counts as 0, whose scale and codes are 0. From 2¹²⁷ on, and where it is not finite, the
    /// scale is NaN, codes and values are 0.
    pub struct Quantize {
        /// `[len]` f32, at a multiple of 16 bytes.
        pub values: u64,
        /// `[len]` f32, at a multiple of 16 bytes: what was lost before.
        pub carried: u64,
        /// The first shard of [`INT8`].
        pub to: u64,
        /// Bytes from the start of one shard to that of the next.
        pub stride: u64,
        /// Elements: of whole shards, and 2⁴⁰ at most.
        pub len: u64,
        /// [`INT8_BLOCK`]s of one shard.
        pub blocks: u32,
        /// Zero.
        pub padding: u32,
    }
}

/// Beside the numbers of [`Dtype`](crate::Dtype): blocks of [`INT8_BLOCK`] elements, each so many i8 and
/// then the f32 that they are multiplied by.
pub const INT8: u32 = 3;

/// Elements that share a scale.
pub const INT8_BLOCK: usize = 256;

/// Bytes of so many elements.
pub const INT8_BYTES: usize = INT8_BLOCK + size_of::<f32>();

/// The blocks of this op's kernels.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Block {
    Pack(Pack),
    Accumulate(Accumulate),
    Sum(Sum),
    /// The same sum in fixed point, in no order: with `v = weights[r] · parts[r][i]` in f32, what `measure`, `encode`
    /// and `decode` make of it, where all ranks' exponents and integers are in reach.
    SumFixed(Sum),
    Unpack(Unpack),
    InPlace(InPlace),
    Measure(Fixed),
    Encode(Fixed),
    Decode(Fixed),
    Quantize(Quantize),
}
