//! Random sequences of operations against an oracle that knows every live block.
//!
//! The oracle keeps blocks in an ordered map by address. Whatever is done, live blocks are disjoint up to their usable
//! size, aligned, the heap's own, and keep their contents, also across reallocation; zeroed ones are zero.
#![allow(unsafe_code)] // Calls the allocator directly.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::{slice, thread};
use theap::Theap;

static HEAP: Theap = Theap::new();
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Blocks live at once, in bytes: bounds the test's memory, not what it finds.
const LIVE: usize = 256 * MIB;

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        layout: Layout,
        zeroed: bool,
    },
    /// `which` of the live blocks, modulo their number.
    Realloc {
        which: usize,
        size: usize,
        as_c: bool,
    },
    Free {
        which: usize,
        /// Without the size.
        as_c: bool,
    },
    Collect,
    Purge,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        12 => 0..=1024usize,
        6 => 1025..=32 * KIB,
        4 => 32 * KIB..=256 * KIB,
        3 => 256 * KIB..=2 * MIB,
        1 => 2 * MIB..=8 * MIB,
        1 => (1..=64usize).prop_map(|mib| mib * MIB),
        4 => (0..=26u32, 0..3usize).prop_map(|(shift, off)| (1usize << shift) + off - 1),
    ]
}

fn aligns() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..=4u32,
        3 => 5..=16u32,
        1 => 17..=22u32,
    ]
    .prop_map(|shift| 1 << shift)
}

fn ops() -> impl Strategy<Value = Op> {
    let layout = (sizes(), aligns()).prop_map(|(size, align)| {
        // An empty block is the C functions' business, which know no alignment.
        Layout::from_size_align(size, if size == 0 { 1 } else { align }).unwrap()
    });
    prop_oneof![
        40 => (layout, prop::bool::weighted(0.2)).prop_map(|(layout, zeroed)| Op::Alloc { layout, zeroed }),
        12 => (any::<usize>(), sizes(), any::<bool>())
            .prop_map(|(which, size, as_c)| Op::Realloc { which, size, as_c }),
        30 => (any::<usize>(), any::<bool>()).prop_map(|(which, as_c)| Op::Free { which, as_c }),
        2 => Just(Op::Collect),
        1 => Just(Op::Purge),
    ]
}

/// A live block and the seed of what was written to it.
#[derive(Clone, Copy, Debug)]
struct Block {
    address: usize,
    layout: Layout,
    seed: u64,
}

/// Where contents are written and compared: everywhere below 4 KiB, else in 1024 places and the last byte.
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
            // SAFETY: within a live block.
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
            // SAFETY: within a live block.
            let found = unsafe { (self.address as *const u8).add(at).read() };
            assert_eq!(found, pattern(self.seed, at), "byte {at} of {self:?}");
        }
    }

    fn free(&self, as_c: bool) {
        self.check(self.layout.size());
        let block = self.address as *mut u8;
        // SAFETY: a live block of this layout, forgotten by the oracle.
        unsafe {
            if as_c || self.layout.size() == 0 {
                theap::raw::free(block);
            } else {
                HEAP.dealloc(block, self.layout);
            }
        }
    }
}

/// All live blocks: the address and the end of what is usable.
#[derive(Default)]
struct Oracle {
    live: BTreeMap<usize, (usize, Block)>,
    bytes: usize,
    seed: u64,
    /// Who frees, if it is not this thread.
    freer: Option<Sender<(Block, bool)>>,
}

impl Oracle {
    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Alloc { layout, zeroed } => {
                if self.bytes + layout.size() <= LIVE {
                    self.alloc(layout, zeroed);
                }
            }
            Op::Realloc { which, size, as_c } => {
                if let Some(block) = self.pick(which) {
                    self.realloc(block, size.max(1), as_c);
                }
            }
            Op::Free { which, as_c } => {
                if let Some(block) = self.pick(which) {
                    self.forget(block);
                    match &self.freer {
                        Some(freer) => freer.send((block, as_c)).unwrap(),
                        None => block.free(as_c),
                    }
                }
            }
            Op::Collect => theap::collect(),
            Op::Purge => {
                theap::purge();
            }
        }
    }

    /// Debug builds look at the whole heap after each step.
    fn is_valid(&self) {
        #[cfg(debug_assertions)]
        if self.freer.is_none() {
            // SAFETY: the tests take turns, and no freer runs.
            unsafe { theap::is_valid() }.unwrap();
        }
    }

    fn pick(&self, which: usize) -> Option<Block> {
        let index = which.checked_rem(self.live.len())?;
        self.live.values().nth(index).map(|&(_, block)| block)
    }

    fn alloc(&mut self, layout: Layout, zeroed: bool) {
        let block = match (layout.size(), zeroed) {
            (0, _) => theap::raw::alloc(0),
            // SAFETY: the layout has a size.
            (_, true) => unsafe { HEAP.alloc_zeroed(layout) },
            // SAFETY: as above.
            (_, false) => unsafe { HEAP.alloc(layout) },
        };
        assert!(!block.is_null(), "{layout:?}");
        if zeroed {
            // SAFETY: a live block of this size.
            let bytes = unsafe { slice::from_raw_parts(block, layout.size()) };
            let clean = bytes
                .chunks(4096)
                .all(|chunk| chunk == &[0; 4096][..chunk.len()]);
            assert!(clean, "zeroed {layout:?} has other bytes");
        }
        self.adopt(block as usize, layout);
    }

    fn realloc(&mut self, block: Block, size: usize, as_c: bool) {
        self.forget(block);
        let layout = Layout::from_size_align(size, block.layout.align()).unwrap();
        let old = block.address as *mut u8;
        // SAFETY: a live block of this layout; the new size is not zero, nor is the old one for the trait.
        let moved = unsafe {
            if layout.align() <= 16 && (as_c || block.layout.size() == 0) {
                theap::raw::realloc(old, size)
            } else {
                HEAP.realloc(old, block.layout, size)
            }
        };
        assert!(!moved.is_null(), "{block:?} to {size}");
        let kept = Block {
            address: moved as usize,
            ..block
        };
        kept.check(block.layout.size().min(size));
        self.adopt(moved as usize, layout);
    }

    /// Notes a new block, after comparing it with its neighbours, and fills it.
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

    fn free_all(&mut self) {
        for (_, (_, block)) in std::mem::take(&mut self.live) {
            block.free(false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn one_thread(ops in prop::collection::vec(ops(), 1..400)) {
        let mut oracle = Oracle::default();
        ops.iter().for_each(|op| oracle.apply(op));
        oracle.free_all();
    }

    #[test]
    fn another_thread_frees(ops in prop::collection::vec(ops(), 1..400)) {
        let (send, receive) = channel::<(Block, bool)>();
        let freer = thread::spawn(move || receive.into_iter().for_each(|(block, as_c)| block.free(as_c)));
        let mut oracle = Oracle { freer: Some(send), ..Oracle::default() };
        ops.iter().for_each(|op| oracle.apply(op));
        oracle.free_all();
        drop(oracle);
        freer.join().unwrap();
    }
}

/// What `one_thread` once found: a block that was made smaller in place went into the magazine of its size when it was
/// freed with the size, and an aligned allocation of that class took it.
#[test]
fn a_block_made_smaller_is_not_taken_for_an_aligned_one() {
    // SAFETY: every block is live until it is freed, with the size that was last asked for.
    unsafe {
        let blocks = [(); 8].map(|()| theap::raw::realloc(theap::raw::alloc(640), 500));
        let _ = blocks.map(|block| theap::raw::free_sized(block, 500));
        for block in [(); 8].map(|()| theap::raw::alloc_aligned(500, 256)) {
            assert!((block as usize).is_multiple_of(256), "{block:?}");
            theap::raw::free(block);
        }
    }
}
