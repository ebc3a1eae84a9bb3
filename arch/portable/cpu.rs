//! The current CPU, where no thread area tells it.

/// Always `None`: plain Rust has no way to ask without a system call, which is the platform
/// layer's business.
#[inline]
pub fn cpu_number() -> Option<u32> {
    None
}
