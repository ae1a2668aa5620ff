//! The processor's floating-point mode. Libraries that a program shares a thread with change it (to flush
//! subnormals, to round otherwise), and new threads inherit it; what is computed here must not depend on that.

/// The standard mode, from [`standard`](Self::standard) on: to nearest, subnormals kept, no traps. The mode that
/// was there before comes back when this is dropped.
#[must_use]
pub(crate) struct Environment {
    before: Register,
}

impl Environment {
    /// Sets the standard mode for this thread.
    pub(crate) fn standard() -> Self {
        let before = read();
        if before & MODE != STANDARD {
            write(before & !MODE | STANDARD);
        }
        Self { before }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if self.before & MODE != STANDARD {
            write(self.before);
        }
    }
}

#[cfg(target_arch = "x86_64")]
use x86_64::*;
/// MXCSR (Intel SDM, volume 1, 10.2.3). Its low six bits are flags, not a mode.
#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;

    pub(super) type Register = u32;
    pub(super) const MODE: Register = 0xffc0;
    pub(super) const STANDARD: Register = 0x1f80;

    pub(super) fn read() -> Register {
        let mut value = 0;
        // SAFETY: stores four bytes at the address of `value`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) };
        value
    }

    pub(super) fn write(value: Register) {
        // SAFETY: reads four bytes; the value was read before, or is the standard one.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
use aarch64::*;
/// FPCR (Arm ARM, C5.2.8): rounding mode, FZ, FZ16, DN, AH and the traps.
#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::asm;

    pub(super) type Register = u64;
    pub(super) const MODE: Register = 0x07ff_9f07;
    pub(super) const STANDARD: Register = 0;

    pub(super) fn read() -> Register {
        let value;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub(super) fn write(value: Register) {
        // SAFETY: the value was read before, or is the standard one.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use other::*;
/// No mode that we know of.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod other {
    pub(super) type Register = u32;
    pub(super) const MODE: Register = 0;
    pub(super) const STANDARD: Register = 0;

    pub(super) fn read() -> Register {
        0
    }

    pub(super) fn write(_: Register) {}
}
