//! The misuse that the feature `hardened` catches. Each mistake runs in a process of its own, which
//! must end by SIGABRT with the one line, and in the very step in which the mistake is to be found:
//! only that step runs between the line that announces it and the end.
#![cfg(feature = "hardened")]
#![allow(unsafe_code)] // Breaks every rule of the heap on purpose, in processes of their own.

mod child;

use std::os::unix::process::ExitStatusExt;
use std::thread;
use theap::{Front, raw};

const DOUBLE: &str = "double free of ";
const NO_BLOCK: &str =
    "free of a pointer to which no block belongs (inside a block, or freed before): ";
const FOREIGN: &str = "free of a pointer that is not from this heap: ";
const SIZE: &str = "free with a size that is not the block's: ";
const OVERFLOW: &str = "heap corruption: a block was written to beyond its end: ";
const AFTER_FREE: &str = "heap corruption: a block was written to after its free: ";
/// The end of each message, after the address.
const END: &str =
    "; theap ends the process (SIGABRT). More about the address: THEAP_CRASH_REPORT=1\n";

/// The name of a mistake, the text of its message, and the mistake itself, which ends in [`last`].
const MISTAKES: &[(&str, &str, fn())] = &[
    ("twice at once", DOUBLE, || twice(100, || ())),
    ("twice later", DOUBLE, || {
        twice(100, || {
            (0..5000).for_each(|_| free(raw::alloc(100) as usize))
        })
    }),
    ("twice, given to the spans in between", DOUBLE, || {
        twice(3000, theap::collect)
    }),
    ("twice, a large class", DOUBLE, || twice(200_000, || ())),
    ("twice, the second time in another thread", DOUBLE, || {
        let block = raw::alloc(48) as usize;
        free(block);
        thread::spawn(move || last(block, || free(block)))
            .join()
            .unwrap();
    }),
    ("twice, the first time in another thread", DOUBLE, || {
        let block = raw::alloc(48) as usize;
        thread::spawn(move || free(block)).join().unwrap();
        last(block, || free(block));
    }),
    ("twice, on the classic front", DOUBLE, || {
        theap::set_front(Front::Classic);
        twice(64, || ());
    }),
    ("a run twice", NO_BLOCK, || twice(1 << 20, || ())),
    ("resized after free", DOUBLE, || {
        let block = raw::alloc(64) as usize;
        free(block);
        last(block, || {
            // SAFETY: the call is not sound: the block was freed, which is the mistake.
            unsafe { raw::realloc(block as *mut u8, 4000) };
        });
    }),
    ("inside a block", NO_BLOCK, || {
        let inside = raw::alloc(100) as usize + 16;
        last(inside, || free(inside));
    }),
    ("the stack", FOREIGN, || {
        let local = 0u64;
        let address = &raw const local as usize;
        last(address, || free(address));
    }),
    ("what was never handed out", NO_BLOCK, || {
        let block = raw::alloc(1) as usize + (1 << 29);
        last(block, || free(block));
    }),
    ("a smaller size", SIZE, || wrong_size(1000, 100)),
    ("a larger size", SIZE, || wrong_size(100, 1000)),
    ("a run as a block", SIZE, || wrong_size(1 << 20, 100)),
    ("one byte too far", OVERFLOW, || overflow(200, 1)),
    ("a zero byte too far", OVERFLOW, || {
        let block = raw::alloc(200) as usize;
        write(block + usable(block), 0);
        last(block, || free(block));
    }),
    ("all over the canary", OVERFLOW, || overflow(3000, 8)),
    ("beyond a run", OVERFLOW, || overflow(1 << 20, 1)),
    ("one byte after free, at the start", AFTER_FREE, || {
        after_free(200, 0)
    }),
    ("one byte after free, in the middle", AFTER_FREE, || {
        after_free(200, 100)
    }),
    (
        "after free, in a block too large to wait",
        AFTER_FREE,
        || after_free(20_000, 1000),
    ),
    ("after free, on the classic front", AFTER_FREE, || {
        theap::set_front(Front::Classic);
        after_free(100, 50);
    }),
];

fn free(block: usize) {
    // SAFETY: the block is live, except where the mistake is that it is not.
    unsafe { raw::free(block as *mut u8) };
}

fn write(address: usize, byte: u8) {
    // SAFETY: the byte is the heap's memory and mapped; the mistake is to write there.
    unsafe { (address as *mut u8).write(byte) };
}

fn usable(block: usize) -> usize {
    theap::usable_size(block as *const u8)
}

/// Prints the address that the message must name, and takes the step in which the message must
/// come.
fn last(address: usize, step: impl FnOnce()) {
    println!("\n{address:#x}");
    step();
    println!("\nsurvived");
}

fn twice(size: usize, between: fn()) {
    let block = raw::alloc(size) as usize;
    let _kept = raw::alloc(size);
    free(block);
    between();
    last(block, || free(block));
}

fn wrong_size(size: usize, said: usize) {
    let block = raw::alloc(size);
    // SAFETY: the block is live; the size is wrong, which is the mistake.
    last(block as usize, || unsafe { raw::free_sized(block, said) });
}

fn overflow(size: usize, bytes: usize) {
    let block = raw::alloc(size) as usize;
    let end = block + usable(block);
    // The canary is random: what is written must differ from it.
    // SAFETY: as for `write`.
    let other = |at: usize| unsafe { (at as *const u8).read() } ^ 0x41;
    (end..end + bytes).for_each(|at| write(at, other(at)));
    last(block, || free(block));
}

/// Writes to a freed block. The heap finds this when the block leaves the quarantine, or when a
/// thread gets it again.
fn after_free(size: usize, at: usize) {
    // The second block keeps the span: the heap forgets a span whose blocks are all free, with what
    // was written to them.
    let (block, _kept) = (raw::alloc(size) as usize, raw::alloc(size));
    free(block);
    write(block + at, 0x41);
    last(block, || {
        theap::collect();
        for _ in 0..20_000 {
            raw::alloc(size);
        }
    });
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test hardened"]
fn scenario() {
    let Some(role) = child::role() else { return };
    let (_, _, mistake) = MISTAKES.iter().find(|(name, ..)| *name == role).unwrap();
    mistake();
}

#[test]
fn every_misuse_ends_the_process_in_its_step() {
    for (name, text, _) in MISTAKES {
        // A block of the nursery need not come back to the thread that wrote to it.
        let output = child::run(name, &[("THEAP_NURSERY", "0")]);
        let (stdout, stderr) = (child::text(&output.stdout), child::text(&output.stderr));
        let signal = output.status.signal();
        assert_eq!(signal, Some(libc::SIGABRT), "{name}: {stdout}{stderr}");
        let address = stdout.lines().rfind(|line| line.starts_with("0x")).unwrap();
        assert_eq!(stderr, format!("theap: {text}{address}{END}"), "{name}");
    }
}

/// A thread gets the blocks of a new span in another order each time, and not in the order of their
/// addresses.
#[test]
fn blocks_come_in_random_order() {
    let blocks: Vec<_> = (0..200).map(|_| raw::alloc(1000) as usize).collect();
    let upwards = blocks.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((60..140).contains(&upwards), "{upwards} of 199 go upwards");
    let apart =
        |pair: &[usize]| pair[0].abs_diff(pair[1]) != 1280 && pair[0].abs_diff(pair[1]) != 1024;
    assert!(blocks.windows(2).filter(|pair| apart(pair)).count() > 150);
    blocks.into_iter().for_each(free);
}

/// A thread that frees a block and allocates one of the same size gets another block.
#[test]
fn a_freed_block_waits() {
    let again = (0..1000).filter(|_| {
        let block = raw::alloc(100) as usize;
        free(block);
        let next = raw::alloc(100) as usize;
        free(next);
        next == block
    });
    let again = again.count();
    assert!(again < 50, "{again} of 1000 blocks came back at once");
}
