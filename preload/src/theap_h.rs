//! The functions of `theap.h`.
#![allow(unsafe_code)] // C interfaces: exported names, raw pointers in and out.

use crate::text::Text;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use theap::{Breach, Contract, Error, Front, Hot, Shown, raw};

/// The library's version.
#[unsafe(no_mangle)]
pub extern "C" fn theap_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Prepares memory so that the calling thread can allocate `bytes` bytes without a page fault.
/// Answers 0, or an error number.
#[unsafe(no_mangle)]
pub extern "C" fn theap_warm_up(bytes: usize) -> c_int {
    number(theap::warm_up(bytes))
}

/// Prepares the calling thread for `count` blocks of `size` bytes. Answers 0, or an error number.
#[unsafe(no_mangle)]
pub extern "C" fn theap_warm_up_class(size: usize, count: usize) -> c_int {
    number(theap::warm_up_class(size, count))
}

/// The error number of an answer; 0 for success.
fn number(done: Result<(), Error>) -> c_int {
    match done {
        Ok(()) => 0,
        Err(Error::Unsupported) => libc::ENOSYS,
        Err(Error::Other(errno)) => errno,
        Err(Error::NoMemory | Error::NoHugepages | Error::Lost) => libc::ENOMEM,
    }
}

/// Gives free memory back to the system, and answers the number of bytes given back.
#[unsafe(no_mangle)]
pub extern "C" fn theap_purge() -> usize {
    theap::purge()
}

/// Returns what the calling thread caches to the heap.
#[unsafe(no_mangle)]
pub extern "C" fn theap_collect() {
    theap::collect();
}

/// From now on the allocator makes no system call; an allocation that needs one fails.
#[unsafe(no_mangle)]
pub extern "C" fn theap_seal() {
    theap::seal();
}

/// Ends the effect of [`theap_seal`].
#[unsafe(no_mangle)]
pub extern "C" fn theap_unseal() {
    theap::unseal();
}

/// Begins a hot scope of the calling thread, and answers the word that ends it.
#[unsafe(no_mangle)]
pub extern "C" fn theap_hot_begin(contract: c_int, breach: c_int) -> usize {
    let contract = match contract {
        1 => Contract::NoSlowPath,
        2 => Contract::NoAllocation,
        _ => return 0,
    };
    let breach = match breach {
        0 => Breach::Count,
        1 => Breach::Report,
        2 => Breach::Abort,
        _ => return 0,
    };
    theap::hot(contract, breach).into_raw()
}

/// Begins a scope in which the calling thread has promised nothing, and answers the word that ends
/// it.
#[unsafe(no_mangle)]
pub extern "C" fn theap_hot_excuse() -> usize {
    theap::excused().into_raw()
}

/// Ends a scope, and answers how often the thread has broken a contract in it.
#[unsafe(no_mangle)]
pub extern "C" fn theap_hot_end(scope: usize) -> usize {
    Hot::from_raw(scope).breaches() as usize
}

/// Sets the front: 0 is the classic one, any other number the magazines.
#[unsafe(no_mangle)]
pub extern "C" fn theap_set_front(front: c_int) {
    theap::set_front(if front == 0 {
        Front::Classic
    } else {
        Front::Theap
    });
}

/// A function of C that is told the bytes that are mapped.
type OnSoftLimit = extern "C" fn(usize);

/// The function that [`theap_on_soft_limit`] was given last, or null.
static ON_SOFT_LIMIT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Registers the function that is called when the heap has reached its soft limit, or none.
#[unsafe(no_mangle)]
pub extern "C" fn theap_on_soft_limit(function: Option<OnSoftLimit>) {
    let pointer = function.map_or(ptr::null_mut(), |function| function as *mut ());
    ON_SOFT_LIMIT.store(pointer, Ordering::Release);
    theap::on_soft_limit(function.map(|_| at_soft_limit as fn(usize)));
}

/// Calls C's function. The allocation within which it runs keeps `errno`.
fn at_soft_limit(mapped: usize) {
    let pointer = ON_SOFT_LIMIT.load(Ordering::Acquire);
    if !pointer.is_null() {
        // SAFETY: `theap_on_soft_limit` has stored null or a function of this type; errno is this
        // thread's.
        unsafe {
            let function = core::mem::transmute::<*mut (), OnSoftLimit>(pointer);
            let before = *libc::__errno_location();
            function(mapped);
            *libc::__errno_location() = before;
        }
    }
}

/// A function of C that is told the bytes that are mapped, and answers whether to go on.
type ServesSoftLimit = extern "C" fn(usize, *mut c_void) -> bool;

/// Acts on the soft limit in the calling thread until `function` answers false; `data` is passed on
/// to it. False at once if there is nothing to act on, or if another thread does so already.
#[unsafe(no_mangle)]
pub extern "C" fn theap_serve_soft_limit(
    function: Option<ServesSoftLimit>,
    data: *mut c_void,
) -> bool {
    function.is_some_and(|function| theap::serve_soft_limit(|mapped| function(mapped, data)))
}

/// The kernel's figures for the heap's memory, as C sees them.
#[repr(C)]
pub struct TheapResident {
    resident: usize,
    metadata: usize,
    thp: usize,
    hugetlb: usize,
    swapped: usize,
}

/// Asks the kernel for the memory that it has for the heap. Answers 0, or an error number.
///
/// # Safety
/// `answer` is valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn theap_resident(answer: *mut TheapResident) -> c_int {
    number(theap::resident().map(|is| {
        let [resident, metadata, thp, hugetlb, swapped] =
            is.sizes().map(|(_, bytes)| bytes as usize);
        let is = TheapResident {
            resident,
            metadata,
            thp,
            hugetlb,
            swapped,
        };
        // SAFETY: valid for writing, as the caller promises in `# Safety`.
        unsafe { answer.write(is) };
    }))
}

/// Whether the address lies in the heap's range.
#[unsafe(no_mangle)]
pub extern "C" fn theap_owns(address: *const c_void) -> bool {
    theap::owns(address.cast())
}

/// Writes the statistics as one JSON object with a terminating zero, at most `size` bytes in all.
/// Answers the length of the whole text without the zero, like `snprintf`.
///
/// # Safety
/// `buffer` is valid for writing `size` bytes, and nobody else accesses them meanwhile; it may be
/// null if `size` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn theap_stats_json(buffer: *mut c_char, size: usize) -> usize {
    let buffer = if size == 0 {
        &mut []
    } else {
        // SAFETY: the buffer is valid and this function's alone, as the caller promises in `#
        // Safety`; bytes of any value are initialized once C has them.
        unsafe { core::slice::from_raw_parts_mut(buffer.cast(), size) }
    };
    let mut text = Text::new(buffer);
    // Writing to this buffer does not fail.
    let written = raw::with_report(|report| {
        let shown = Shown {
            stats: &report.stats,
            heaps: theap::heaps(),
            resident: None,
        };
        let _ = shown.write_json(&mut text);
    });
    if written.is_none() {
        add_json(&mut text);
    }
    text.terminate()
}

/// Adds the statistics by way of the stack.
#[cold]
#[inline(never)]
fn add_json(text: &mut Text<'_>) {
    let _ = theap::stats().write_json(text);
}
