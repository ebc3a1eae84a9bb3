//! Sequences of operations on the process's heap against an oracle that knows every live block. The
//! property tests, the fuzz targets and the replay of their corpus use it.
//!
//! The oracle keeps blocks in an ordered map by address. After every operation, in whichever
//! thread, live blocks are disjoint up to their usable size, aligned, and the heap's own. They keep
//! their contents, also across reallocation, and zeroed blocks are zero. The heap may answer null
//! only while it is sealed or starved. In debug builds the oracle asks the heap after each step
//! whether it is valid. At the end every block is freed and no slot may be in use.
//!
//! Each operation names one of [`HANDS`] threads, and the oracle waits for it, so a sequence runs
//! the same way each time.
#![allow(unsafe_code)] // Calls the allocator directly, and setrlimit.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::{slice, thread};
use theap::{Config, Front, Theap};

mod decode;
pub use decode::decode;

pub static HEAP: Theap = Theap::with(Config::new().messages(false));
/// The most bytes that are live at once. This limits the memory of a run, not the faults that it
/// can find.
const LIVE: usize = 256 << 20;
/// The number of threads: the caller and others, which start when an operation names them and end
/// with [`Op::Exit`].
pub const HANDS: usize = 3;

/// The call that frees a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeing {
    /// `dealloc` with the block's layout.
    Layout,
    /// The C function `free`.
    Pointer,
    /// C++'s `delete` with the size, where the alignment allows it.
    Sized,
}

/// An operation. `which` chooses a live block by its place, modulo the number of live blocks.
#[derive(Clone, Debug)]
pub enum Op {
    Alloc {
        layout: Layout,
        zeroed: bool,
    },
    Realloc {
        which: usize,
        size: usize,
        as_c: bool,
    },
    Free {
        which: usize,
        how: Freeing,
    },
    Collect,
    Purge,
    /// The heap is sealed or unsealed.
    Seal(bool),
    /// From now on the system gives the heap no memory, or it gives memory again.
    Starve(bool),
    /// The thread ends. For the caller's thread this does nothing.
    Exit,
    /// Makes this the front that serves.
    Front(Front),
}

/// An order to another thread, which answers when it has carried the order out.
type Task = Box<dyn FnOnce() + Send>;

/// A thread that carries out orders.
struct Hand {
    tasks: Sender<Task>,
    done: Receiver<()>,
    thread: thread::JoinHandle<()>,
}

impl Hand {
    fn new() -> Self {
        let (tasks, receive) = channel::<Task>();
        let (answer, done) = channel();
        let thread = thread::spawn(move || {
            for task in receive {
                task();
                answer.send(()).unwrap();
            }
        });
        Self {
            tasks,
            done,
            thread,
        }
    }

    fn exit(self) {
        drop(self.tasks);
        self.thread.join().unwrap();
    }
}

/// A live block, and the seed of the bytes that were written to it.
#[derive(Clone, Copy, Debug)]
struct Block {
    address: usize,
    layout: Layout,
    seed: u64,
}

/// The places where contents are written and compared: all bytes below 4 KiB, else 1024 places and
/// the last byte.
fn probes(size: usize) -> impl Iterator<Item = usize> {
    let step = if size < 4096 { 1 } else { size / 1024 };
    (0..size).step_by(step).chain(size.checked_sub(1))
}

fn pattern(seed: u64, at: usize) -> u8 {
    ((seed ^ at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

impl Block {
    fn fill(&self) {
        for at in probes(self.layout.size()) {
            // SAFETY: the byte lies within a live block.
            unsafe {
                (self.address as *mut u8)
                    .add(at)
                    .write(pattern(self.seed, at))
            };
        }
    }

    /// Compares the first `len` bytes.
    fn check(&self, len: usize) {
        for at in probes(self.layout.size()).filter(|&at| at < len) {
            // SAFETY: the byte lies within a live block.
            let found = unsafe { (self.address as *const u8).add(at).read() };
            assert_eq!(found, pattern(self.seed, at), "byte {at} of {self:?}");
        }
    }

    fn free(&self, how: Freeing) {
        self.check(self.layout.size());
        let block = self.address as *mut u8;
        // SAFETY: the block is live and has this layout, and the oracle has forgotten it.
        unsafe {
            match how {
                Freeing::Pointer => theap::raw::free(block),
                _ if self.layout.size() == 0 => theap::raw::free(block),
                Freeing::Sized if self.layout.align() <= 16 => {
                    theap::raw::free_sized(block, self.layout.size());
                }
                _ => HEAP.dealloc(block, self.layout),
            }
        }
    }
}

/// The live blocks by address, each with the end of its usable bytes, and the state of the run.
#[derive(Default)]
pub struct Oracle {
    live: BTreeMap<usize, (usize, Block)>,
    bytes: usize,
    seed: u64,
    hands: [Option<Hand>; HANDS - 1],
    sealed: bool,
    starved: bool,
}

/// Runs a sequence, which begins and ends with an empty heap. Each operation runs in the thread
/// that it names.
pub fn run(ops: impl IntoIterator<Item = (usize, Op)> + Send) {
    in_turn(|| {
        let mut oracle = Oracle::default();
        for (hand, op) in ops {
            oracle.apply(hand % HANDS, &op);
            oracle.is_valid(&op);
        }
        oracle.end();
    });
}

/// Does something with the process's one heap while nobody else does, on a thread of its own. The
/// turn ends with that thread: a thread that ends gives back what its heap holds, which is no
/// moment to check all.
pub fn in_turn(work: impl FnOnce() + Send) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let done = thread::scope(|scope| scope.spawn(work).join());
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

impl Oracle {
    fn apply(&mut self, hand: usize, op: &Op) {
        match *op {
            Op::Alloc { layout, zeroed } => {
                if self.bytes + layout.size() <= LIVE {
                    self.alloc(hand, layout, zeroed);
                }
            }
            Op::Realloc { which, size, as_c } => {
                if let Some(block) = self.pick(which)
                    && self.bytes + size <= LIVE
                {
                    self.realloc(hand, block, size.max(1), as_c);
                }
            }
            Op::Free { which, how } => {
                if let Some(block) = self.pick(which) {
                    self.forget(block);
                    self.ask(hand, move || block.free(how));
                }
            }
            Op::Collect => self.ask(hand, theap::collect),
            Op::Purge => {
                self.ask(hand, theap::purge);
            }
            Op::Seal(on) => {
                self.sealed = on;
                if on { theap::seal() } else { theap::unseal() }
            }
            Op::Starve(on) => self.starved = on,
            Op::Front(front) => theap::set_front(front),
            Op::Exit => {
                if let Some(hand) = hand.checked_sub(1).and_then(|i| self.hands[i].take()) {
                    hand.exit();
                }
            }
        }
    }

    /// Has a thread carry out `what`, and returns the answer.
    fn ask<T: Send + 'static>(
        &mut self,
        hand: usize,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let starved = self.starved;
        let task = move || {
            let _limit = starved.then(Limit::set);
            what()
        };
        let Some(i) = hand.checked_sub(1) else {
            return task();
        };
        let hand = self.hands[i].get_or_insert_with(Hand::new);
        let (answer, answered) = channel();
        hand.tasks
            .send(Box::new(move || answer.send(task()).unwrap()))
            .unwrap();
        let got = answered.recv().unwrap();
        hand.done.recv().unwrap();
        got
    }

    fn is_valid(&self, after: &Op) {
        #[cfg(debug_assertions)]
        // SAFETY: sequences take turns, and the other threads of this one wait.
        if let Err(wrong) = unsafe { theap::is_valid() } {
            panic!("{wrong} after {after:?}");
        }
        let _ = after;
    }

    fn pick(&self, which: usize) -> Option<Block> {
        let index = which.checked_rem(self.live.len())?;
        self.live.values().nth(index).map(|&(_, block)| block)
    }

    /// Whether an allocation succeeded. It may fail only while the heap gets nothing from the
    /// system.
    fn got(&self, address: usize, what: impl std::fmt::Debug) -> bool {
        assert!(
            address != 0 || self.sealed || self.starved,
            "null for {what:?}"
        );
        address != 0
    }

    fn alloc(&mut self, hand: usize, layout: Layout, zeroed: bool) {
        let address = self.ask(hand, move || match (layout.size(), zeroed) {
            (0, _) => theap::raw::alloc(0) as usize,
            // SAFETY: the layout has a size.
            (_, true) => unsafe { HEAP.alloc_zeroed(layout) as usize },
            // SAFETY: the layout has a size.
            (_, false) => unsafe { HEAP.alloc(layout) as usize },
        });
        if !self.got(address, layout) {
            return;
        }
        if zeroed {
            // SAFETY: the block is live and has this size.
            let bytes = unsafe { slice::from_raw_parts(address as *const u8, layout.size()) };
            let clean = bytes
                .chunks(4096)
                .all(|chunk| chunk == &[0; 4096][..chunk.len()]);
            assert!(clean, "zeroed {layout:?} has other bytes");
        }
        self.adopt(address, layout);
    }

    fn realloc(&mut self, hand: usize, block: Block, size: usize, as_c: bool) {
        self.forget(block);
        let layout = Layout::from_size_align(size, block.layout.align()).unwrap();
        // SAFETY: the block is live and has this layout. The new size is not 0, and the old one is
        // not 0 where the trait's function gets it.
        let moved = self.ask(hand, move || unsafe {
            let old = block.address as *mut u8;
            if layout.align() <= 16 && (as_c || block.layout.size() == 0) {
                theap::raw::realloc(old, size) as usize
            } else {
                HEAP.realloc(old, block.layout, size) as usize
            }
        });
        if !self.got(moved, layout) {
            return self.adopt(block.address, block.layout);
        }
        let kept = Block {
            address: moved,
            ..block
        };
        kept.check(block.layout.size().min(size));
        self.adopt(moved, layout);
    }

    /// Compares a new block with its neighbours, notes it, and fills it.
    fn adopt(&mut self, address: usize, layout: Layout) {
        self.seed += 1;
        let block = Block {
            address,
            layout,
            seed: self.seed,
        };
        let usable = theap::usable_size(address as *const u8);
        assert!(
            usable >= layout.size(),
            "{usable} bytes usable of {block:?}"
        );
        assert!(address.is_multiple_of(layout.align()), "{block:?}");
        assert!(
            theap::owns(address as *const u8) && theap::owns((address + usable - 1) as *const u8)
        );
        if let Some((_, (end, below))) = self.live.range(..=address).next_back() {
            assert!(*end <= address, "{block:?} lies in {below:?}");
        }
        if let Some((start, (_, above))) = self.live.range(address..).next() {
            assert!(
                address + usable <= *start,
                "{block:?} reaches into {above:?}"
            );
        }
        block.fill();
        self.bytes += layout.size();
        self.live.insert(address, (address + usable, block));
    }

    fn forget(&mut self, block: Block) {
        self.bytes -= block.layout.size();
        self.live.remove(&block.address);
    }

    /// Frees everything, ends the threads, and asserts that no slot is in use.
    fn end(mut self) {
        theap::unseal();
        theap::set_front(Front::Theap);
        (self.sealed, self.starved) = (false, false);
        for (_, (_, block)) in std::mem::take(&mut self.live) {
            block.free(Freeing::Layout);
        }
        self.hands
            .iter_mut()
            .filter_map(Option::take)
            .for_each(Hand::exit);
        theap::purge();
        self.is_valid(&Op::Purge);
        let stats = theap::stats();
        assert_eq!(stats.active, 0, "{stats:?}");
    }
}

/// Sets RLIMIT_DATA of the process to 0 while the value lives: the kernel then makes no more memory
/// writable. The test itself gets along with the memory that the C library has already.
struct Limit(libc::rlimit);

impl Limit {
    fn set() -> Self {
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the calls read and write structures that are live.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_DATA, &mut before), 0);
            let none = libc::rlimit {
                rlim_cur: 0,
                ..before
            };
            assert_eq!(libc::setrlimit(libc::RLIMIT_DATA, &none), 0);
        }
        Self(before)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // SAFETY: the call only reads a structure that is live.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &self.0) }, 0);
    }
}
