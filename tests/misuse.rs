//! What a caller of free can do wrong ends the process with SIGABRT and exactly one line, and nothing before it: the
//! heap serves until the mistake is found, which is in the drain (here: `collect`) where it is not found at once.
#![allow(unsafe_code)] // Breaks the contract of free on purpose, in processes of their own.

mod child;

use std::os::unix::process::ExitStatusExt;
use std::thread;
use theap::raw;

const MIB: usize = 1 << 20;

const DOUBLE: &str = "double free of ";
const NO_BLOCK: &str = "free of a pointer to which no block belongs: ";
const FOREIGN: &str = "free of a pointer that is not from this heap: ";

/// The name of a mistake, what the message says, and the mistake: it ends in `wrong_free`.
const MISTAKES: &[(&str, &str, fn())] = &[
    ("a tiny block twice", DOUBLE, || twice(1)),
    ("a small block twice", DOUBLE, || twice(100)),
    ("a block of the largest class twice", DOUBLE, || {
        twice(256 << 10)
    }),
    ("a block twice, others in between", DOUBLE, || {
        let blocks: Vec<usize> = (0..500).map(|_| raw::alloc(64) as usize).collect();
        blocks.iter().for_each(|&block| free(block));
        wrong_free(blocks[250]);
    }),
    ("a block here and in another thread", DOUBLE, || {
        // Another block keeps the span from being released.
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
    ("a run twice", NO_BLOCK, || twice(MIB)),
    ("a huge run twice", NO_BLOCK, || twice(9 * MIB)),
    ("a run that was purged", NO_BLOCK, || {
        let run = raw::alloc(MIB) as usize;
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
        wrong_free(raw::alloc(1) as usize + (1 << 30));
    }),
    ("the stack", FOREIGN, || {
        let local = 0u64;
        wrong_free(&raw const local as usize);
    }),
    ("a block of another allocator", FOREIGN, || {
        wrong_free(Box::into_raw(Box::new([0u64; 20])) as usize)
    }),
    ("before the first allocation", FOREIGN, || {
        wrong_free(0x1000)
    }),
];

fn free(block: usize) {
    // SAFETY: a live block, as far as the mistake wants.
    unsafe { raw::free(block as *mut u8) };
}

fn twice(size: usize) {
    let block = raw::alloc(size) as usize;
    free(block);
    wrong_free(block);
}

/// Says what is freed wrongly, frees it and lets the drain find it.
fn wrong_free(address: usize) {
    println!("{address:#x}");
    free(address);
    theap::collect();
}

#[test]
#[ignore = "the other test runs it, in processes of their own"]
fn scenario() {
    let Some(role) = child::role() else { return };
    let (_, _, mistake) = MISTAKES.iter().find(|(name, ..)| *name == role).unwrap();
    mistake();
    // What another thread freed is looked at when it comes home.
    theap::collect();
}

#[test]
fn every_mistake_ends_the_process_with_its_line() {
    for (name, text, _) in MISTAKES {
        let output = child::run(name, &[]);
        assert_eq!(
            output.status.signal(),
            Some(libc::SIGABRT),
            "{name}: {output:?}"
        );
        let stderr = child::text(&output.stderr);
        let address = stderr
            .strip_prefix("theap: ")
            .and_then(|line| line.strip_prefix(text))
            .and_then(|line| line.strip_suffix('\n'))
            .unwrap_or_else(|| panic!("{name}: {stderr:?}"));
        assert!(
            child::text(&output.stdout)
                .lines()
                .any(|line| line.ends_with(address)),
            "{name}: {output:?}"
        );
    }
}
