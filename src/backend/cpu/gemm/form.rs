//! What the forms of the matrix kernel have in common.

/// Rows of A where they lie.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // no form there has tiles of such
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    /// The first element of the first.
    pub start: *const u8,
    /// Bytes from one to the next.
    pub apart: usize,
}

/// A form of the matrix kernel: a tile of sums in registers, and the instruction set of the loops
/// around it. Every form but [`Amx`](super::amx::Amx) computes each element as the same chain of fused multiply-adds.
pub(super) trait Form {
    /// Rows of a tile; a panel of A has them side by side for each `k`.
    const MR: usize;
    /// Columns of a tile; a panel of B has them side by side for each `k`. A multiple of 16.
    const NR: usize;
    /// Whether AVX2, FMA and F16C are there.
    const VECTOR: bool;
    /// Whether AVX-512F is there too, for loops outside the tile.
    #[cfg(halfstep_avx512)]
    const WIDE: bool = false;
    /// The form whose loops around the tile this one's are: they are compiled once for both.
    type Around: Form;
    /// Steps of `k` in a word of a packed panel: 1, of f32; or 2, of bf16, for products of bf16 only.
    const WORD_STEPS: usize = 1;
    /// Whether the first of two steps is in a word's low half, as memory has it, or in the high one.
    const LOW_FIRST: bool = false;
    /// Words of a lane that lie side by side in a panel of A, and of which panels have whole multiples: 1, where those
    /// of all lanes do; or as many as a row of a tile register holds.
    const LANE_WORDS: usize = 1;

    /// What a thread does before tiles, and after them.
    ///
    /// # Safety
    /// The processor has the form's instructions.
    #[inline(always)]
    unsafe fn begin() {}
    /// # Safety
    /// As for [`begin`](Self::begin).
    #[inline(always)]
    unsafe fn end() {}

    /// `C[rows,cols] (+)= A·B` over the steps in `k ≥ 1` words of packed panels. Whole vectors are written: up
    /// to `MR` rows, and `cols` rounded up to 16 columns. Where `normal`, no element and no sum of products, up to
    /// any step, is subnormal.
    ///
    /// # Safety
    /// The panels hold `k`, rounded up to `LANE_WORDS`, times `MR` and `NR` words; C has `MR` rows of `NR` floats, `ldc`
    /// apart, that nothing else uses. The processor has the form's instructions.
    #[allow(clippy::too_many_arguments)] // what assembly takes
    unsafe fn tile(
        size: (usize, usize),
        k: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        add: bool,
        normal: bool,
    );

    /// Whether the form has [`tile_in_place`](Self::tile_in_place).
    const IN_PLACE: bool = false;

    /// [`tile`](Self::tile) with `MR` rows of A where they lie: of f32, or of bf16 where words are of pairs.
    ///
    /// # Safety
    /// As for [`tile`](Self::tile), with `MR` rows of `k` words, a multiple of `LANE_WORDS`, in place of A's panel.
    #[allow(clippy::too_many_arguments)] // as above
    unsafe fn tile_in_place(
        cols: usize,
        k: usize,
        a: Rows,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        add: bool,
        normal: bool,
    ) {
        let _ = (cols, k, a, b, c, ldc, add, normal);
        unreachable!("tiles of this form are of panels");
    }

    /// Calls `f` where the compiler may use the form's instructions.
    ///
    /// # Safety
    /// The processor has them.
    unsafe fn vectorized<R>(f: impl FnOnce() -> R) -> R;
}
