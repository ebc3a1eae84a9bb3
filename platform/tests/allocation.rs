//! The platform layer never allocates: it serves the allocator.
#![allow(unsafe_code, missing_docs)] // A global allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use theap_platform::{Error, HUGE, Line, Mutex, Os, PAGE, PageMode, Rank, thread_exit};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every function forwards to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is also the system
        // allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is also the system
        // allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

unsafe extern "C" fn on_exit(_: *mut core::ffi::c_void) {}

/// Calls the functions of the contract on `os`.
fn use_everything(os: Os) -> Result<(), Error> {
    static LOCK: Mutex<u32> = Mutex::new(Rank::Heaps, 0);
    let addr = os.reserve(8 * HUGE, HUGE)?;
    // SAFETY: this function reserved the range, and nobody else knows of it.
    unsafe {
        os.commit(addr, PAGE)?;
        os.map(addr + HUGE, 4 * HUGE, PageMode::Small, None)?;
        let _ = os.map(addr + 6 * HUGE, HUGE, PageMode::Hugetlb, None);
        os.populate(addr + HUGE, PAGE)?;
        os.move_pages(addr + HUGE, addr + 3 * HUGE, HUGE)?;
        os.purge(addr + HUGE, HUGE)?;
        os.unmap(addr + HUGE, HUGE, PageMode::Small)?;
        let _ = os.node_of(addr + 3 * HUGE);
        os.unreserve(addr, 8 * HUGE);
        thread_exit::arm(on_exit, addr as *mut _)?;
    }
    let known = os.env(b"PATH", |path| path.map_or(0, <[u8]>::len)) + os.topology().nodes();
    *LOCK.lock() += os.current_cpu().0;
    let line = Line::new()
        .str("theap: test: ")
        .dec(os.now())
        .bytes(os.total_memory().min(os.memory_limit()));
    line.hex(known as u64).show(Error::Lost).send(os);
    Ok(())
}

#[test]
fn nothing_allocates() {
    let before = COUNT.get();
    let done = use_everything(Os::LINUX);
    assert_eq!(COUNT.get(), before);
    done.unwrap();
    #[cfg(feature = "fake")]
    {
        use theap_platform::{Fake, Topology};
        static FAKE: Fake = Fake::new();
        let topology = Box::leak(Box::new(Topology::from_parts(&[(0, 1, 0), (2, 3, 1)])));
        let before = COUNT.get();
        FAKE.set_topology(topology);
        FAKE.set_env(b"PATH", None);
        let done = use_everything(Os::faked(&FAKE));
        assert_eq!(COUNT.get(), before);
        done.unwrap();
    }
}
