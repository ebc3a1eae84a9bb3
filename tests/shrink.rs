//! To make a block smaller never fails: not when memory is out, and not when the heap is sealed.
//! The block is then larger than the size with which it is freed, which every way to free it, both
//! fronts and the checks of debug builds take. Each in a process of its own.
#![allow(unsafe_code)] // Calls the allocator directly.

mod child;

use std::alloc::{GlobalAlloc, Layout};
use theap::{Theap, raw};

const MIB: usize = 1 << 20;

/// From large to small, so that each size takes what the one before has left.
const FILL: [usize; 16] = [
    MIB, 262_144, 65_536, 16_384, 4096, 1024, 896, 768, 512, 256, 128, 112, 96, 64, 48, 16,
];

/// Sizes before and after, and the number of such blocks: more than a magazine takes, so that they
/// are drained and spilled too.
const SHRINKS: [(usize, usize, usize); 10] = [
    (1000, 800, 700),
    (1000, 17, 700),
    (128, 1, 1500),
    (5000, 4000, 80),
    (40_000, 100, 40),
    (200_000, 100_000, 8),
    (200_000, 600, 8),
    (MIB, 300_000, 4),
    (MIB, 70_000, 4),
    (MIB, 100, 4),
];

const HEAP: Theap = Theap::new();

/// A block of one of the three interfaces.
struct Block {
    start: *mut u8,
    layout: Layout,
    is_raw: bool,
}

impl Block {
    fn new(size: usize, align: usize, is_raw: bool) -> Self {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the layout has a size.
        let start = unsafe {
            match is_raw {
                true => raw::alloc_aligned(size, align),
                false => HEAP.alloc(layout),
            }
        };
        assert!(!start.is_null(), "no {size} bytes");
        // SAFETY: within the block.
        unsafe { start.write_bytes(size as u8, size) };
        Self {
            start,
            layout,
            is_raw,
        }
    }

    /// Makes the block smaller; its contents stay.
    fn shrink(&mut self, size: usize) {
        let old = self.layout.size();
        // SAFETY: a live block of this layout.
        let start = unsafe {
            match self.is_raw {
                true => raw::realloc(self.start, size),
                false => HEAP.realloc(self.start, self.layout, size),
            }
        };
        assert!(!start.is_null(), "{old} -> {size}");
        self.start = start;
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        assert!(start.addr().is_multiple_of(self.layout.align()) || self.is_raw);
        assert!(theap::usable_size(start) >= size);
        self.holds(old as u8);
    }

    fn holds(&self, byte: u8) {
        // SAFETY: within the block.
        let bytes = unsafe { std::slice::from_raw_parts(self.start, self.layout.size()) };
        assert!(bytes.iter().all(|&found| found == byte));
    }

    /// Frees the block with the size that its owner knows.
    fn free(self) {
        // SAFETY: a live block of this layout; the alignment of a raw block's free is not asked.
        unsafe {
            match self.is_raw {
                true if self.layout.align() > 16 => raw::free(self.start),
                true => raw::free_sized(self.start, self.layout.size()),
                false => HEAP.dealloc(self.start, self.layout),
            }
        }
    }
}

/// The blocks that are made smaller, of every alignment and interface.
fn blocks() -> Vec<(Block, usize)> {
    let mut blocks = Vec::new();
    for (from, to, count) in SHRINKS {
        for number in 0..count {
            let align = [1, 16, 64, 4096][number % 4].min(from.next_power_of_two());
            blocks.push((Block::new(from, align, number % 3 == 0), to));
        }
    }
    blocks
}

/// Allocates until there is nothing left.
fn fill() -> Vec<*mut u8> {
    let take = |size| std::iter::repeat_with(move || raw::alloc(size)).take_while(|b| !b.is_null());
    FILL.into_iter().flat_map(take).collect()
}

fn check_heap() {
    // SAFETY: no other thread uses the heap.
    #[cfg(debug_assertions)]
    unsafe { theap::is_valid() }.unwrap();
}

fn shrink_all(sealed: bool) {
    let _kept = raw::alloc(1);
    let mut blocks = blocks();
    if sealed {
        theap::seal();
    }
    let filled = fill();
    for (block, to) in &mut blocks {
        block.shrink(*to);
    }
    // Twice, from a size that is not the block's class.
    for (block, to) in &mut blocks {
        block.holds_first();
        block.shrink(to.div_ceil(2));
    }
    check_heap();
    let (here, there): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .map(|(block, _)| block)
        .enumerate()
        .partition(|(number, _)| number % 4 != 0);
    here.into_iter().for_each(|(_, block)| block.free());
    check_heap();
    // What was freed as a small block serves as one.
    let again: Vec<_> = [17, 100, 400, 600, 800]
        .into_iter()
        .flat_map(|size| (0..200).map(move |_| size))
        .map(|size| Block::new(size, 1, false))
        .collect();
    check_heap();
    again.into_iter().for_each(Block::free);
    let there: Vec<_> = there
        .into_iter()
        .map(|(_, block)| (block.start as usize, block.layout, block.is_raw))
        .collect();
    std::thread::spawn(move || {
        for (start, layout, is_raw) in there {
            let start = start as *mut u8;
            Block {
                start,
                layout,
                is_raw,
            }
            .free();
        }
    })
    .join()
    .unwrap();
    for block in filled {
        // SAFETY: live.
        unsafe { raw::free(block) };
    }
    theap::unseal();
    theap::collect();
    check_heap();
    let active = theap::stats().active;
    // Without the shared pool a class keeps its SuperSlab.
    let most = if cfg!(feature = "shared-pool") {
        2 << 16
    } else {
        MIB as u64
    };
    assert!(active <= most, "{active} bytes of slots are in use");
}

impl Block {
    /// The first byte is the last of what was written, whatever the block's size was.
    fn holds_first(&self) {
        // SAFETY: within the block.
        let byte = unsafe { self.start.read() };
        self.holds(byte);
        // SAFETY: within the block.
        unsafe {
            self.start
                .write_bytes(self.layout.size() as u8, self.layout.size())
        };
    }
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test shrink"]
fn scenario() {
    if let Some(role) = child::role() {
        shrink_all(role == "sealed");
    }
}

fn succeeds(role: &str, front: &str) {
    let options = [
        ("THEAP_ADDRESS_SPACE", "64M"),
        ("THEAP_PAGES", "small"),
        ("THEAP_FRONT", front),
    ];
    let output = child::run(role, &options);
    let said = child::text(&output.stdout) + &child::text(&output.stderr);
    assert!(output.status.success(), "{role}, {front}: {said}");
}

#[test]
fn a_smaller_size_is_served_when_memory_is_out() {
    for front in ["theap", "classic"] {
        succeeds("exhausted", front);
    }
}

#[test]
fn a_smaller_size_is_served_when_the_heap_is_sealed() {
    for front in ["theap", "classic"] {
        succeeds("sealed", front);
    }
}
