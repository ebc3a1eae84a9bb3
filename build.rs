//! Generates the size-class table (`classes.rs` in OUT_DIR) and asserts every property that the
//! allocator relies on.
//!
//! Classes go in 16-byte steps to 128 bytes, then four per doubling up to 2 MiB. A span of a class
//! up to 256 KiB has the smallest number of 64 KiB slots that holds `min_blocks` blocks, wastes at
//! most 5 % and fills seven eighths of a SuperSlab that has spans of this class alone. Above that a
//! span is one block, which wastes nothing of it.

use std::fmt::Write as _;
use std::{env, fs, path::Path};

/// Bytes of a slot, and slots of a SuperSlab: `src/geometry.rs` has the same, which the compiler
/// checks.
const SLOT: usize = 64 << 10;
const SLOTS: usize = 32;
/// Bytes of a block of the largest class.
const MAX: usize = SLOTS * SLOT;
/// Bytes of a block of the largest class whose spans have several blocks.
const SHARED_MAX: usize = 256 << 10;
/// Free bits of a slot: one for every 16 bytes.
const BITS_PER_SLOT: usize = 4096;
/// Offsets within a span are below 2^21, sizes at most 2^21: with a shift of 42 the reciprocal is
/// exact.
const RECIPROCAL_SHIFT: u32 = 42;
/// Most bytes of blocks that a magazine holds before it learns.
const MAGAZINE_BYTES: usize = 64 << 10;
/// Most blocks that a magazine holds before it learns: the bits of eight words of free bits.
const MAGAZINE_CAP: usize = 512;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let sizes = sizes();
    let mut out = String::new();
    writeln!(
        out,
        "/// Number of size classes.\npub const CLASS_COUNT: usize = {};",
        sizes.len()
    )
    .unwrap();
    writeln!(
        out,
        "/// Shift of the reciprocals.\npub const RECIPROCAL_SHIFT: u32 = {RECIPROCAL_SHIFT};"
    )
    .unwrap();
    writeln!(
        out,
        "const TABLE_SLOT: usize = {SLOT};\nconst TABLE_SLOTS: usize = {SLOTS};"
    )
    .unwrap();
    writeln!(
        out,
        "/// The size classes, smallest first.\npub static CLASSES: [Class; CLASS_COUNT] = ["
    )
    .unwrap();
    for &size in &sizes {
        let slots = slots_for(size);
        let blocks = slots * SLOT / size;
        assert!(blocks <= BITS_PER_SLOT * slots && blocks >= min_blocks(size));
        assert!(
            (slots * SLOT - blocks * size) * 20 <= slots * SLOT,
            "class {size} wastes more than 5 %"
        );
        let reciprocal = reciprocal(size);
        check_reciprocal(size, reciprocal, slots * SLOT);
        let least = least_capacity(size);
        let magazine = (MAGAZINE_BYTES / size).clamp(least.max(1), MAGAZINE_CAP);
        writeln!(
            out,
            "    Class {{ size: {size}, blocks: {blocks}, slots: {slots}, reciprocal: {reciprocal}, least: {least}, magazine: {magazine} }},"
        )
        .unwrap();
    }
    writeln!(out, "];").unwrap();
    let dir = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&dir).join("classes.rs"), out).expect("OUT_DIR is writable");
}

fn sizes() -> Vec<usize> {
    let mut sizes: Vec<usize> = (1..=8).map(|i| i * 16).collect();
    let mut base = 128;
    while base < MAX {
        sizes.extend((1..=4).map(|q| base + q * base / 4));
        base *= 2;
    }
    assert_eq!(sizes.len(), 64);
    assert_eq!(sizes.last(), Some(&MAX));
    assert!(sizes.is_sorted() && sizes.iter().all(|s| s % 16 == 0));
    let worst = sizes
        .windows(2)
        .skip(8)
        .map(|w| (w[1] - w[0] - 1) * 100 / w[1])
        .max();
    assert!(worst <= Some(20), "internal waste above 20 %");
    sizes
}

fn min_blocks(size: usize) -> usize {
    if size <= SLOT {
        8
    } else if size <= SHARED_MAX {
        4
    } else {
        1
    }
}

fn slots_for(size: usize) -> usize {
    let fits = |slots: usize| {
        let blocks = slots * SLOT / size;
        blocks >= min_blocks(size) && (slots * SLOT - blocks * size) * 20 <= slots * SLOT
    };
    // A SuperSlab of spans of this class alone wastes at most an eighth.
    let packs =
        |slots: usize| (SLOTS / slots) * (slots * SLOT / size) * size * 8 >= SLOTS * SLOT * 7;
    (1..=SLOTS)
        .find(|&slots| fits(slots) && (size > SHARED_MAX || packs(slots)))
        .expect("a class fits a SuperSlab")
}

fn reciprocal(size: usize) -> u64 {
    (1u64 << RECIPROCAL_SHIFT).div_ceil(size as u64)
}

fn check_reciprocal(size: usize, reciprocal: u64, span: usize) {
    let index = |offset: usize| ((offset as u64 * reciprocal) >> RECIPROCAL_SHIFT) as usize;
    for offset in (0..span)
        .step_by(size)
        .flat_map(|o| [o, o + 1, o + size - 1])
    {
        assert_eq!(
            index(offset),
            offset / size,
            "reciprocal of {size} at {offset}"
        );
    }
}

/// The least capacity of a magazine in blocks: few of the large ones, since each may keep memory
/// from other threads. A magazine holds a block that is a whole span only if it has learned to.
fn least_capacity(size: usize) -> usize {
    match size {
        0..=8192 => 16,
        8193..=32768 => 8,
        32769..=SHARED_MAX => 4,
        _ => 0,
    }
}
