//! The current CPU from rseq's thread area, and the instructions that the CPU has.
//!
//! Since version 2.35 glibc registers every thread with the kernel's rseq. The thread's area lies
//! `__rseq_offset` from the thread pointer, and the kernel keeps the CPU number in it. The symbols
//! are weak here, so programs also link and run with C libraries that lack them, and get `None`.
#![allow(unsafe_code)] // reads the thread area and asks cpuid

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The CPU that this thread ran on a moment ago; `None` if the C library did not register the
/// thread with rseq.
#[inline]
pub fn cpu_number() -> Option<u32> {
    let (offset, size): (*const isize, *const u32);
    // SAFETY: reads two entries of the global offset table; the entry of an undefined weak symbol
    // is 0.
    unsafe {
        asm!(
            ".weak __rseq_offset",
            ".weak __rseq_size",
            "mov {offset}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {size}, qword ptr [rip + __rseq_size@GOTPCREL]",
            offset = out(reg) offset,
            size = out(reg) size,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    // SAFETY: addresses that are not null are those of glibc's constants, which glibc sets before
    // any other code runs.
    if offset.is_null() || size.is_null() || unsafe { size.read() } == 0 {
        return None;
    }
    let cpu: i32;
    // SAFETY: a size above 0 says that the thread has an area at this offset, whose second word is
    // `cpu_id`. The kernel changes that word at any time, and one load of 4 bytes gets the old or
    // the new one.
    unsafe {
        asm!(
            "mov {cpu:e}, dword ptr fs:[{offset} + 4]",
            cpu = out(reg) cpu,
            offset = in(reg) offset.read(),
            options(readonly, nostack, preserves_flags)
        );
    }
    u32::try_from(cpu).ok()
}

/// The answer of [`detect`]: 0 means that it has not run.
static VECTORS: AtomicU8 = AtomicU8::new(0);
const PLAIN: u8 = 1;
const AVX2: u8 = 2;

/// Whether the CPU has AVX2, BMI1 and POPCNT, and the operating system saves its registers.
#[inline(always)]
pub(super) fn has_avx2() -> bool {
    match VECTORS.load(Relaxed) {
        0 => detect() == AVX2,
        found => found == AVX2,
    }
}

/// Asks the CPU which of the two it is. Threads that ask at the same time find the same.
#[cold]
#[inline(never)]
fn detect() -> u8 {
    const POPCNT_OSXSAVE_AVX: u32 = 1 << 23 | 1 << 27 | 1 << 28;
    const BMI1_AVX2: u32 = 1 << 3 | 1 << 5;
    let all = |word: u32, bits: u32| word & bits == bits;
    let vectors = __cpuid(0).eax >= 7
        && all(__cpuid(1).ecx, POPCNT_OSXSAVE_AVX)
        && all(__cpuid_count(7, 0).ebx, BMI1_AVX2)
        // SAFETY: the bits above say that the CPU has OSXSAVE.
        && unsafe { saves_ymm() };
    let found = if vectors { AVX2 } else { PLAIN };
    VECTORS.store(found, Relaxed);
    found
}

/// Whether the operating system saves the ymm registers.
///
/// # Safety
/// The CPU has OSXSAVE.
unsafe fn saves_ymm() -> bool {
    const XMM_YMM: u32 = 0b110;
    let low: u32;
    // SAFETY: a CPU with OSXSAVE (`# Safety`) has xgetbv, and register 0 always exists.
    unsafe {
        asm!(
            "xgetbv",
            in("ecx") 0,
            out("eax") low,
            out("edx") _,
            options(nomem, nostack, preserves_flags)
        );
    }
    low & XMM_YMM == XMM_YMM
}
