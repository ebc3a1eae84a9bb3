//! The signal handlers behind [`crate::crash`].
#![allow(unsafe_code)] // Signal handlers.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::Error;
use crate::signal::Crash;

/// The signals that are reported.
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT];

/// The handlers that the program had. `install` writes them before the handler of this file can
/// run, and that handler reads them.
struct Previous(UnsafeCell<[MaybeUninit<libc::sigaction>; SIGNALS.len()]>);

// SAFETY: only the caller that wins `INSTALLED` writes, and it writes each place before it installs
// the handler that reads that place.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new([MaybeUninit::uninit(); SIGNALS.len()]));
static INSTALLED: AtomicBool = AtomicBool::new(false);
static REPORTED: AtomicBool = AtomicBool::new(false);
/// The address of the hook, a `fn(Crash)`.
static HOOK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// From now on the first SIGSEGV, SIGBUS or SIGABRT calls `hook` in the signal's handler, and then
/// the handler that the program had. Only the first call in a process installs anything. A program
/// that sets a handler of its own afterwards replaces this one. The handler runs on the thread's
/// signal stack where the thread has one (sigaltstack), else on the thread's own stack; then nobody
/// reports an overflow of that stack.
///
/// # Errors
/// [`Error::Other`]: the system refused; nothing is installed.
///
/// # Safety
/// `hook` is async-signal-safe: it takes no lock and calls nothing that the signal may have
/// interrupted halfway, such as an allocator.
pub unsafe fn install(hook: fn(Crash)) -> Result<(), Error> {
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    HOOK.store(hook as *mut (), Ordering::Release);
    for (index, &signal) in SIGNALS.iter().enumerate() {
        // SAFETY: zero is a valid `sigaction`, and `handle` has the signature that SA_SIGINFO asks
        // for. Only this thread writes the place (it won `INSTALLED`), and nobody reads it yet:
        // until the second call the signal goes to the handler that the program had.
        let answer = unsafe {
            let previous = (&raw mut (*PREVIOUS.0.get())[index]).cast();
            libc::sigaction(signal, ptr::null(), previous);
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        };
        if answer != 0 {
            // SAFETY: `errno` is this thread's own and always valid.
            return Err(Error::Other(unsafe { *libc::__errno_location() }));
        }
    }
    Ok(())
}

/// Handles a signal: calls the hook if no other signal has, and then the program's own handler.
///
/// # Safety
/// The kernel calls it, or a caller that has the kernel's arguments for a signal handler.
unsafe extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: `errno` is this thread's own; `info` is the kernel's structure (`# Safety`), which is
    // valid during the handler.
    let (errno, code, address) = unsafe {
        (
            *libc::__errno_location(),
            (*info).si_code,
            (*info).si_addr() as usize,
        )
    };
    // If a process sent the signal, or the address is not a canonical one, the kernel tells no
    // address.
    let address = (code > 0 && code != libc::SI_KERNEL).then_some(address);
    if !REPORTED.swap(true, Ordering::AcqRel) {
        let hook = HOOK.load(Ordering::Acquire);
        // SAFETY: `install` stored a `fn(Crash)` before it installed this handler.
        let hook: fn(Crash) = unsafe { core::mem::transmute(hook) };
        hook(match signal {
            libc::SIGSEGV => Crash::Segv(address),
            libc::SIGBUS => Crash::Bus(address),
            _ => Crash::Abort,
        });
    }
    // SAFETY: `chain` gets the arguments of this handler, which are the kernel's (`# Safety`);
    // `errno` is this thread's own.
    unsafe {
        chain(signal, code, info, context);
        *libc::__errno_location() = errno;
    }
}

/// Does what would have happened without this handler.
///
/// # Safety
/// The caller is the handler of the signal and passes its own arguments.
unsafe fn chain(signal: c_int, code: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(index) = SIGNALS.iter().position(|&one| one == signal) else {
        return;
    };
    // SAFETY: `install` wrote the place before this handler could run, so it is initialized. A
    // handler that is neither SIG_DFL nor SIG_IGN is a function of the signature that its flags
    // tell; it gets the arguments of the signal.
    unsafe {
        let previous = (*PREVIOUS.0.get())[index].assume_init_ref();
        match previous.sa_sigaction {
            libc::SIG_IGN if code <= 0 => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = core::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, ptr::null_mut());
                // A fault comes again when the handler returns, with the same registers for the
                // core file; a signal that somebody sent does not.
                if code <= 0 {
                    libc::raise(signal);
                }
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                    core::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(c_int) = core::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}
