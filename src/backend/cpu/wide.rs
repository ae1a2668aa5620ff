//! Loops in the widest vectors that the machine has.

/// Work to be compiled for the widest vectors that the machine has. Everything that `run` calls is
/// `#[inline(always)]`: code that is not inlined keeps the vectors of the whole build.
pub(super) trait Work {
    type Output;
    /// `FUSED`: the machine has a fused multiply-add.
    fn run<const FUSED: bool>(self) -> Self::Output;
}

/// Runs it. The bits do not depend on which form runs.
#[inline]
pub(super) fn vector<W: Work>(work: W) -> W::Output {
    // The widest do twice as many integer products (random bits), roundings and comparisons an instruction.
    #[cfg(all(target_arch = "x86_64", halfstep_avx512))]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn widest<W: Work>(work: W) -> W::Output {
            work.run::<true>()
        }
        if super::has_avx512() {
            // SAFETY: the processor has the features, checked just now.
            return unsafe { widest(work) };
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn wide<W: Work>(work: W) -> W::Output {
            work.run::<true>()
        }
        if super::has_avx2() {
            // SAFETY: as above.
            return unsafe { wide(work) };
        }
    }
    plain(work)
}

/// What the whole build was compiled for. (By itself, as are the others: [`vector`] is copied to wherever it is called.)
#[inline(never)]
fn plain<W: Work>(work: W) -> W::Output {
    work.run::<false>()
}
