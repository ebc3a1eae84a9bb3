//! Each mistake that a caller of free can make ends the process with SIGABRT and exactly one line.
//! The heap serves until it finds the mistake: in the free itself, or else in the drain, which the
//! test causes by `collect`. Both fronts find the same mistakes. The classic front also finds that
//! somebody has written to the link in a free block.
#![cfg(not(feature = "hardened"))] // tests/hardened.rs tests that feature.
#![allow(unsafe_code)] // Breaks the contract of free on purpose, in processes of their own.

mod child;

use std::os::unix::process::ExitStatusExt;
use std::thread;
use theap::raw;

const MIB: usize = 1 << 20;

const DOUBLE: &str = "double free of ";
const NO_BLOCK: &str =
    "free of a pointer to which no block belongs (inside a block, or freed before): ";
#[cfg(debug_assertions)]
const SIZE: &str = "free with a size that is not the block's: ";
const FOREIGN: &str = "free of a pointer that is not from this heap: ";
/// The end of each message, after the address.
const END: &str =
    "; theap ends the process (SIGABRT). More about the address: THEAP_CRASH_REPORT=1\n";

/// Set where a scenario leaves the checks to the end of the process.
const AT_END: &str = "MISUSE_AT_END";

/// The name of a mistake, the text of its message, and the mistake itself, which ends in
/// `wrong_free`.
const MISTAKES: &[(&str, &str, fn())] = &[
    ("a tiny block twice", DOUBLE, || twice(1)),
    ("a small block twice", DOUBLE, || twice(100)),
    (
        "a block of the largest class with several a span, twice",
        DOUBLE,
        || twice(256 << 10),
    ),
    ("a block that is a span twice", NO_BLOCK, || twice(2 * MIB)),
    ("a block twice, others in between", DOUBLE, || {
        let blocks: Vec<usize> = (0..500).map(|_| raw::alloc(64) as usize).collect();
        blocks.iter().for_each(|&block| free(block));
        wrong_free(blocks[250]);
    }),
    ("a block here and in another thread", DOUBLE, || {
        // The second block keeps the span: a span whose blocks are all free would be released.
        let (block, _kept) = (raw::alloc(3000) as usize, raw::alloc(3000));
        free(block);
        theap::collect();
        thread::spawn(move || wrong_free(block)).join().unwrap();
    }),
    ("a block in another thread and here", DOUBLE, || {
        let block = raw::alloc(3000) as usize;
        thread::spawn(move || free(block)).join().unwrap();
        wrong_free(block);
    }),
    ("inside a block", NO_BLOCK, || {
        wrong_free(raw::alloc(100) as usize + 16)
    }),
    ("inside a block at an odd address", NO_BLOCK, || {
        wrong_free(raw::alloc(100) as usize + 1)
    }),
    (
        "a block that is a span, here and in another thread",
        NO_BLOCK,
        || {
            let block = raw::alloc(MIB) as usize;
            free(block);
            thread::spawn(move || wrong_free(block)).join().unwrap();
        },
    ),
    ("a run twice", DOUBLE, || twice(3 * MIB)),
    ("a huge run twice", DOUBLE, || twice(9 * MIB)),
    ("a run that was purged", NO_BLOCK, || {
        let run = raw::alloc(3 * MIB) as usize;
        free(run);
        theap::purge();
        wrong_free(run);
    }),
    ("inside a run", NO_BLOCK, || {
        wrong_free(raw::alloc(MIB) as usize + 16)
    }),
    ("a slot inside a run", NO_BLOCK, || {
        wrong_free(raw::alloc(MIB) as usize + (64 << 10))
    }),
    ("far inside a huge run", NO_BLOCK, || {
        wrong_free(raw::alloc(40 * MIB) as usize + 32 * MIB)
    }),
    ("memory that was never used", NO_BLOCK, || {
        wrong_free(raw::alloc(1) as usize + (1 << 29));
    }),
    #[cfg(debug_assertions)]
    ("with a smaller class's size", SIZE, || {
        wrong_size(1000, 100)
    }),
    #[cfg(debug_assertions)]
    ("a run with a block's size", SIZE, || wrong_size(MIB, 100)),
    ("the stack", FOREIGN, || {
        let local = 0u64;
        wrong_free(&raw const local as usize);
    }),
    ("a block of another allocator", FOREIGN, || {
        wrong_free(Box::into_raw(Box::new([0u64; 20])) as usize)
    }),
    ("a block of another allocator made larger", FOREIGN, || {
        let block = Box::into_raw(Box::new([0u64; 2])).cast::<u8>();
        println!("{block:p}");
        // SAFETY: the call is not sound: the block is another allocator's, which is the mistake.
        unsafe { raw::realloc(block, 10) };
    }),
    ("before the first allocation", FOREIGN, || {
        wrong_free(0x1000)
    }),
];

const BROKEN: &str = "heap corruption: a block was written to after its free, or freed twice: ";

/// The mistakes that the classic front alone finds, when it follows the block's link.
const LINKS: &[(&str, &str, fn())] = &[
    ("zero is written after free", BROKEN, || {
        overwrite(listed(), |_| 0)
    }),
    ("an address is written after free", BROKEN, || {
        let blocks = listed();
        overwrite(blocks, |_| blocks[1]);
    }),
    ("one bit is changed after free", BROKEN, || {
        overwrite(listed(), |link| link ^ 1 << 20)
    }),
    ("a block on the list twice", BROKEN, || {
        let blocks: [_; 64] = tiny_blocks();
        let first = listed();
        free(first[0]);
        // The last of these frees puts the first block on the list again. From then on the links
        // make a ring, and the heap may name any block of it.
        blocks.iter().for_each(|&block| free(block));
        for block in first.iter().chain(&blocks) {
            println!("{block:#x}");
        }
        let _: [_; 200] = tiny_blocks();
    }),
];

fn tiny_blocks<const N: usize>() -> [usize; N] {
    std::array::from_fn(|_| raw::alloc(64) as usize)
}

/// Frees a hundred blocks and returns them: the first ones stand on the list.
fn listed() -> [usize; 100] {
    let blocks = tiny_blocks();
    blocks.iter().for_each(|&block| free(block));
    blocks
}

/// Changes the first word of the first block, and has the heap read the list.
fn overwrite(blocks: [usize; 100], change: impl Fn(usize) -> usize) {
    println!("{:#x}", blocks[0]);
    let word = blocks[0] as *mut usize;
    // SAFETY: the word is the heap's memory and mapped; the mistake is that the block is not ours
    // any more.
    unsafe { *word = change(*word) };
    theap::collect();
}

fn free(block: usize) {
    // SAFETY: the block is live, except where the mistake is that it is not.
    unsafe { raw::free(block as *mut u8) };
}

fn twice(size: usize) {
    let block = raw::alloc(size) as usize;
    free(block);
    wrong_free(block);
}

#[cfg(debug_assertions)]
fn wrong_size(size: usize, said: usize) {
    let block = raw::alloc(size);
    println!("{block:?}");
    // SAFETY: the block is live; the size is wrong, which is the mistake.
    unsafe { raw::free_sized(block, said) };
}

/// Prints the address of a wrong free, frees it, and lets the drain find it: at once, or at the
/// process's end.
fn wrong_free(address: usize) {
    println!("{address:#x}");
    free(address);
    if std::env::var_os(AT_END).is_none() {
        theap::collect();
    }
}

#[test]
#[ignore = "the other tests run it, in processes of their own: cargo test -p theap --test misuse"]
fn scenario() {
    let Some(role) = child::role() else { return };
    let mut mistakes = MISTAKES.iter().chain(LINKS);
    let (_, _, mistake) = mistakes.find(|(name, ..)| *name == role).unwrap();
    mistake();
    // The heap checks a block that another thread freed only when the span's owner takes it back.
    if std::env::var_os(AT_END).is_none() {
        theap::collect();
    }
}

/// Asserts that each mistake ends the process with its line, under this front.
fn all_end(front: &str, mistakes: &[(&str, &str, fn())], more: &[(&str, &str)]) {
    for (name, text, _) in mistakes {
        let output = child::run(name, &[&[("THEAP_FRONT", front)], more].concat());
        assert_eq!(
            output.status.signal(),
            Some(libc::SIGABRT),
            "{front}, {name}: {output:?}"
        );
        let stderr = child::text(&output.stderr);
        // A span that is wholly free at the end has no blocks any more.
        let late = if more.is_empty() { *text } else { NO_BLOCK };
        let address = stderr
            .strip_prefix("theap: ")
            .and_then(|line| line.strip_prefix(text).or(line.strip_prefix(late)))
            .and_then(|line| line.strip_suffix(END))
            .unwrap_or_else(|| panic!("{front}, {name}: {stderr:?}"));
        assert!(
            child::text(&output.stdout)
                .lines()
                .any(|line| line.ends_with(address)),
            "{front}, {name}: {output:?}"
        );
    }
}

#[test]
fn every_mistake_ends_the_process_with_its_line() {
    all_end("theap", MISTAKES, &[]);
}

#[test]
fn what_nobody_collects_is_found_when_the_process_ends() {
    all_end("theap", MISTAKES, &[(AT_END, "1")]);
    all_end("classic", MISTAKES, &[(AT_END, "1")]);
}

#[test]
fn the_classic_front_finds_the_same_and_broken_links() {
    all_end("classic", MISTAKES, &[]);
    all_end("classic", LINKS, &[]);
}
