//! A fork while the heap comes to be: other threads make the first allocation of the process at
//! the same moment, or code of others does in a handler of its own in the middle of the fork.
//! Parent and child allocate afterwards. The process of the test itself never has a heap.
#![allow(unsafe_code)] // Calls the allocator directly, and fork.

mod child;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{hint, ptr, thread};
use theap::raw;

/// Threads that make the first allocation.
const THREADS: usize = 3;
/// Seconds after which a process that waits for a lock in vain is killed.
const DEADLINE: u32 = 20;

/// Runs `work` in a child, which is killed after a while, and answers how it has ended.
fn in_child(work: impl FnOnce()) -> i32 {
    // SAFETY: the child uses this thread's memory and theap, which is made for it, and ends without
    // unwinding.
    match unsafe { libc::fork() } {
        -1 => panic!("fork"),
        0 => {
            // SAFETY: the call has no precondition; SIGALRM ends the process.
            unsafe { libc::alarm(DEADLINE) };
            work();
            // SAFETY: the call ends the child and does not run the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: `status` is live and writable.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            status
        }
    }
}

/// Ends the process unless `is` holds: a child that panics would unwind into the test.
fn ensure(is: bool, number: i32) {
    if !is {
        // SAFETY: the call ends the process.
        unsafe { libc::_exit(number) }
    }
}

/// Takes blocks of many sizes, writes to them and frees them.
fn use_the_heap() {
    for size in [1, 16, 100, 1000, 20_000, 300_000] {
        let blocks = [(); 8].map(|()| raw::alloc(size));
        for (i, &block) in blocks.iter().enumerate() {
            ensure(!block.is_null(), 2);
            // SAFETY: the block is live, this thread's, and of this size.
            unsafe { ptr::write_bytes(block, i as u8, size) };
        }
        for (i, &block) in blocks.iter().enumerate() {
            // SAFETY: as above; the block is freed once.
            unsafe {
                ensure(*block == i as u8 && *block.add(size - 1) == i as u8, 3);
                raw::free(block);
            }
        }
    }
}

fn check_the_heap() {
    // SAFETY: the calling process has no other thread inside of the allocator now.
    #[cfg(debug_assertions)]
    ensure(unsafe { theap::is_valid() }.is_ok(), 4);
}

/// Some threads make the first allocation; this one forks at the same moment, or `late` later.
fn fork_beside_the_first_allocation(late: u32) {
    let barrier = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| {
            scope.spawn(|| {
                barrier.wait();
                use_the_heap();
            })
        });
        barrier.wait();
        (0..late).for_each(|_| hint::spin_loop());
        let status = in_child(|| {
            use_the_heap();
            // A child of a child finds the locks free as well.
            ensure(in_child(use_the_heap) == 0, 5);
        });
        ensure(status == 0, 6);
        use_the_heap();
        // The end of the scope does not wait for the threads' last steps, but this does.
        for thread in threads {
            ensure(thread.join().is_ok(), 11);
        }
    });
    check_the_heap();
}

const ROUNDS: u32 = 100;

/// Forks of processes without a heap, at moments that spread over the time in which it comes to be.
fn forks() {
    for round in 0..ROUNDS {
        let status = in_child(|| fork_beside_the_first_allocation(round * 50));
        assert_eq!(status, 0, "round {round} (14 is the deadline)");
    }
}

/// The handlers of somebody else allocate, from `ARMED` on.
static ARMED: AtomicBool = AtomicBool::new(false);

extern "C" fn foreign_handler() {
    if ARMED.load(Ordering::Relaxed) {
        use_the_heap();
    }
}

/// The handlers of somebody else, registered before theap's, make the heap in the middle of a fork.
fn heap_made_by_a_handler(prepare: bool, parent: bool, child: bool) {
    let handler = |on: bool| on.then_some(foreign_handler as unsafe extern "C" fn());
    // SAFETY: the handlers only use the heap.
    let done = unsafe { libc::pthread_atfork(handler(prepare), handler(parent), handler(child)) };
    ensure(done == 0, 7);
    raw::handle_forks();
    ARMED.store(true, Ordering::Relaxed);
    let status = in_child(|| {
        ARMED.store(false, Ordering::Relaxed);
        use_the_heap();
        check_the_heap();
        ensure(in_child(use_the_heap) == 0, 8);
        use_the_heap();
    });
    ARMED.store(false, Ordering::Relaxed);
    ensure(status == 0, 9);
    use_the_heap();
    check_the_heap();
    ensure(in_child(use_the_heap) == 0, 10);
    thread::scope(|scope| {
        scope.spawn(use_the_heap);
    });
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test first_fork"]
fn scenario() {
    match child::role().as_deref() {
        Some("handlers at load") => {
            raw::handle_forks();
            forks();
        }
        Some("handlers at the first call") => forks(),
        Some("made by handlers") => {
            for which in 1..8 {
                let status = in_child(|| {
                    heap_made_by_a_handler(which & 1 != 0, which & 2 != 0, which & 4 != 0);
                });
                assert_eq!(status, 0, "handlers {which:b}");
            }
        }
        _ => {}
    }
}

#[test]
fn threads_make_the_first_allocation_while_one_forks() {
    child::passes("handlers at load", &[("THEAP_PAGES", "small")]);
    child::passes("handlers at the first call", &[("THEAP_PAGES", "small")]);
}

#[test]
fn a_handler_makes_the_heap_in_the_middle_of_a_fork() {
    for variables in [
        &[("THEAP_PAGES", "small")][..],
        &[("THEAP_PAGES", "thp"), ("THEAP_PREFAULT", "ahead")],
        &[("THEAP_PAGES", "small"), ("THEAP_PUBLISH", "1")],
    ] {
        child::passes("made by handlers", variables);
    }
}
