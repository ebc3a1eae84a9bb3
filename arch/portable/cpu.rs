//! The current CPU, where no thread area has its number.

/// The current CPU, which is always `None`: plain Rust cannot find out without a system call, and
/// only the platform layer makes these.
#[inline]
pub fn cpu_number() -> Option<u32> {
    None
}
