//! A report when the process dies of a signal: a hook that runs in the handler, once, before the previous handler.
#![allow(unsafe_code)] // Signal handlers.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::Error;

/// The signals that are reported.
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT];

/// What ended the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// SIGSEGV; the address that was touched, if the kernel knows it.
    Segv(Option<usize>),
    /// SIGBUS; the same.
    Bus(Option<usize>),
    /// SIGABRT.
    Abort,
}

/// The handlers that were there before: written by `install` before ours can run, read by ours.
struct Previous(UnsafeCell<[MaybeUninit<libc::sigaction>; SIGNALS.len()]>);

// SAFETY: written by the one caller that wins `INSTALLED`, each place before the handler that reads it is installed.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new([MaybeUninit::uninit(); SIGNALS.len()]));
static INSTALLED: AtomicBool = AtomicBool::new(false);
static REPORTED: AtomicBool = AtomicBool::new(false);
/// The hook, as an address.
static HOOK: AtomicUsize = AtomicUsize::new(0);

/// From now on the first SIGSEGV, SIGBUS or SIGABRT calls `hook` in the signal's handler, and then what handled the
/// signal before. Once a process; a program that sets a handler of its own afterwards replaces it. `hook` must be
/// async-signal-safe. On a stack of its own where the thread has one (sigaltstack), else on the thread's: an overflow
/// of that is not reported.
///
/// # Errors
/// [`Error::Other`]: the system refused; nothing is installed.
pub fn install(hook: fn(Crash)) -> Result<(), Error> {
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    HOOK.store(hook as usize, Ordering::Release);
    for (index, &signal) in SIGNALS.iter().enumerate() {
        // SAFETY: plain data for which zero is valid; the handler has the signature that SA_SIGINFO wants. Only this
        // thread writes the place, and our handler for the signal, which reads it, is not installed yet: a signal in
        // between the two calls is the previous handler's.
        let answer = unsafe {
            let previous = (&raw mut (*PREVIOUS.0.get())[index]).cast();
            libc::sigaction(signal, ptr::null(), previous);
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        };
        if answer != 0 {
            // SAFETY: the thread's own errno.
            return Err(Error::Other(unsafe { *libc::__errno_location() }));
        }
    }
    Ok(())
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the thread's own errno; the kernel's structure is valid during the handler.
    let (errno, code, address) = unsafe {
        (
            *libc::__errno_location(),
            (*info).si_code,
            (*info).si_addr() as usize,
        )
    };
    // Sent by a process, or a fault of an address that is none: the kernel tells no address.
    let address = (code > 0 && code != libc::SI_KERNEL).then_some(address);
    if !REPORTED.swap(true, Ordering::AcqRel) {
        let hook = HOOK.load(Ordering::Acquire);
        // SAFETY: `install` stored a `fn(Crash)`.
        let hook: fn(Crash) = unsafe { core::mem::transmute(hook) };
        hook(match signal {
            libc::SIGSEGV => Crash::Segv(address),
            libc::SIGBUS => Crash::Bus(address),
            _ => Crash::Abort,
        });
    }
    // SAFETY: as above; `chain` gets what this handler got.
    unsafe {
        chain(signal, code, info, context);
        *libc::__errno_location() = errno;
    }
}

/// What would have happened without this handler.
///
/// # Safety
/// To be called in the handler of the signal, with its arguments.
unsafe fn chain(signal: c_int, code: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(index) = SIGNALS.iter().position(|&one| one == signal) else {
        return;
    };
    // SAFETY: `install` filled the place in before this handler could run. A handler that is none of the two special
    // ones is a function of the signature that its flags tell.
    unsafe {
        let previous = (*PREVIOUS.0.get())[index].assume_init_ref();
        match previous.sa_sigaction {
            libc::SIG_IGN if code <= 0 => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = core::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, ptr::null_mut());
                // A fault comes again when the handler returns, with the registers of the first for the core file.
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
