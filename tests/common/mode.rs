//! The floating-point mode of a thread, as a library leaves it that shares the thread (x86-64).

use std::arch::asm;

/// Subnormals are flushed, and read as zeros; rounding upwards. Every exception is masked.
pub const FOREIGN: [u32; 2] = [0x9fc0, 0x5f80];

fn get() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes at the address of `value`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut value) };
    value & 0xffc0
}

fn set(value: u32) {
    // SAFETY: a value that masks every exception.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &value) };
}

/// What `work` gives in a mode, which is that of this thread and of those that start from it. It leaves the mode alone.
pub fn within<T>(mode: u32, work: impl FnOnce() -> T) -> T {
    let before = get();
    set(mode);
    let given = work();
    let kept = get();
    set(before);
    assert_eq!(kept, mode, "the caller's own");
    given
}
