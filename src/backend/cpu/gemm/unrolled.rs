//! Loops without a loop: where each step has to have loads of its own in the code.

/// `f(i)` for each `i < N ≤ 8`, each in code of its own. A processor that reads ahead for each load in the code, as AMD's
/// do, follows a row as long as one load goes along it, and loses it where one takes several rows by turns: loops over
/// rows side by side took 1.1 to 2.8 times as long.
#[inline(always)]
pub(super) fn each<const N: usize>(mut f: impl FnMut(usize)) {
    const { assert!(N <= 8) };
    macro_rules! steps {
        ($($i:literal)+) => {$(
            if N > $i {
                f($i);
            }
        )+};
    }
    steps!(0 1 2 3 4 5 6 7);
}
