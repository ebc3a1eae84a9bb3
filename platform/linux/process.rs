//! The process as a whole: its clocks, environment, memory and end.
#![allow(unsafe_code)] // `environ` and libc calls.

use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;

use rustix::process::{Resource, getrlimit};
use rustix::rand::GetRandomFlags;
use rustix::time::{ClockId, clock_gettime};

use super::call::call;
use super::file;
use crate::{Cpu, PAGE};

/// See [`crate::Os::current_cpu`].
pub fn current_cpu() -> Cpu {
    Cpu(rustix::thread::sched_getcpu() as u32)
}

/// See [`crate::Os::thread_id`].
pub fn thread_id() -> u32 {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: this thread lives, and `clock` is a local variable, valid for writing.
    if unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) } != 0 {
        return 0;
    }
    // The kernel's clock of a thread is its number, inverted, above three bits of flags.
    !(clock >> 3) as u32
}

/// See [`crate::Os::total_memory`].
pub fn total_memory() -> u64 {
    let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: the kernel writes one structure, for which zero is valid too.
    let (told, info) = unsafe {
        let told = call(libc::SYS_sysinfo, [info.as_mut_ptr().addr()]);
        (told, info.assume_init())
    };
    if told.is_ok() {
        return info.totalram.saturating_mul(u64::from(info.mem_unit));
    }
    // A filter forbids the call.
    let mut buffer = [0; 256];
    let text = file::read(b"/proc/meminfo", &mut buffer).unwrap_or_default();
    file::field(text, b"MemTotal:").map_or(1 << 30, |kib| kib as u64 * 1024)
}

/// Bytes of memory that new programs could have without swapping, as the kernel estimates; all of
/// the machine's where it does not say.
pub fn available() -> u64 {
    let mut buffer = [0; 256];
    let text = file::read(b"/proc/meminfo", &mut buffer).unwrap_or_default();
    let kib = file::field(text, b"MemAvailable:");
    kib.map_or_else(total_memory, |kib| kib as u64 * 1024)
}

/// Bytes that this process may still map by its limits of addresses and of data; `u64::MAX` without
/// limits.
pub fn limits_left() -> u64 {
    let left = |resource, field| {
        let limit = getrlimit(resource).current?;
        Some(limit.saturating_sub(memory(field)))
    };
    let addresses = left(Resource::As, ADDRESSES);
    let data = left(Resource::Data, DATA);
    addresses.unwrap_or(u64::MAX).min(data.unwrap_or(u64::MAX))
}

/// See [`crate::Os::process_id`].
pub fn id() -> u32 {
    rustix::process::getpid().as_raw_pid().unsigned_abs()
}

/// Bytes of the process's resident memory without hugetlb pages; 0 where the kernel does not say.
pub fn resident() -> u64 {
    memory(RESIDENT)
}

/// Fields of `/proc/self/statm`.
const ADDRESSES: usize = 0;
const RESIDENT: usize = 1;
const DATA: usize = 5;

/// Bytes of the process's memory in a field of `/proc/self/statm`; 0 where the kernel does not say.
fn memory(field: usize) -> u64 {
    let mut buffer = [0; 256];
    let text = file::read(b"/proc/self/statm", &mut buffer).unwrap_or_default();
    let pages = text.split(|&byte| byte == b' ').nth(field);
    let pages = pages.and_then(|pages| core::str::from_utf8(pages).ok()?.parse().ok());
    pages.map_or(0, |pages: u64| pages * PAGE as u64)
}

/// See [`crate::Os::now`].
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// See [`crate::Os::recently`].
pub fn recently() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// See [`crate::Os::thread_time`].
pub fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// See [`crate::Os::random`].
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // Early in a boot the kernel would make the caller wait without this flag.
    match rustix::rand::getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => {
            let (stack, code) = (&raw const bytes as u64, random as *const () as u64);
            (now() ^ stack.rotate_left(24) ^ code.rotate_left(40))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        }
    }
}

unsafe extern "C" {
    /// The environment. The crate libc does not name it for every C library.
    static environ: *const *const c_char;
}

/// See [`crate::Os::env`].
pub fn env<R>(name: &[u8], read: impl FnOnce(Option<&[u8]>) -> R) -> R {
    // SAFETY: getauxval has no precondition; it only reads, and every kernel provides this entry.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return read(None);
    }
    // SAFETY: `environ` is null before libc has started, else a null-terminated array of C strings.
    // Code that changes it while others read it (`setenv`, `set_var`) breaks that function's own
    // contract.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            // Byte by byte: most names differ in the first ones, and values are long.
            let at = (*entry).cast::<u8>();
            let mut same = name.iter().chain(b"=").enumerate();
            if same.all(|(i, byte)| *at.add(i) == *byte) {
                return read(Some(
                    CStr::from_ptr((*entry).add(name.len() + 1)).to_bytes(),
                ));
            }
            entry = entry.add(1);
        }
    }
    read(None)
}

/// See [`crate::Os::abort`].
pub fn abort() -> ! {
    // SAFETY: abort has no precondition.
    unsafe { libc::abort() }
}
