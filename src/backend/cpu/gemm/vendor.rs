//! Whose processor this is, for what was measured to be best in one way on AMD's and in another on Intel's: how far
//! ahead memory is read without being asked, and how long the third cache takes to answer (50 cycles on AMD's, where a
//! few cores share it; several hundred on Intel's servers, where all do).

/// Whether it is AMD's.
pub(super) fn amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::LazyLock;
        static AMD: LazyLock<bool> = LazyLock::new(|| {
            let leaf = std::arch::x86_64::__cpuid(0);
            let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
            name.as_flattened() == b"AuthenticAMD"
        });
        *AMD
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}
