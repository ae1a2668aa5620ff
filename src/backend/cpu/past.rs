//! Stores past the caches, of what does not fit into them: a line that is written whole need not be read first.

/// Elements of an array from which on it does not fit into the caches.
pub(super) const LARGE: u64 = 1 << 22;

/// Orders everything that this thread has stored past the caches before what it does next: it has to follow such
/// stores, before another thread reads what they wrote.
#[inline(always)]
pub(super) fn drain() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
