//! Whose processor this is, for what was measured to be best in one way on AMD's and in another on Intel's: how far
//! ahead memory is read without being asked.

use std::arch::x86_64::__cpuid;
use std::sync::LazyLock;

/// Whether it is AMD's.
pub(super) fn amd() -> bool {
    static AMD: LazyLock<bool> = LazyLock::new(|| {
        let leaf = __cpuid(0);
        let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
        name.as_flattened() == b"AuthenticAMD"
    });
    *AMD
}
