//! Random sequences of operations against an oracle that knows every live block.
#![allow(unsafe_code)] // Calls the allocator directly.

mod oracle;

use oracle::{Freeing, HANDS, Op};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::alloc::Layout;
use std::thread;
use theap::Front;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

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
        // Only the C functions give out empty blocks, and they take no alignment.
        Layout::from_size_align(size, if size == 0 { 1 } else { align }).unwrap()
    });
    let freeing = prop_oneof![
        Just(Freeing::Layout),
        Just(Freeing::Pointer),
        Just(Freeing::Sized)
    ];
    prop_oneof![
        80 => (layout, prop::bool::weighted(0.2)).prop_map(|(layout, zeroed)| Op::Alloc { layout, zeroed }),
        24 => (any::<usize>(), sizes(), any::<bool>())
            .prop_map(|(which, size, as_c)| Op::Realloc { which, size, as_c }),
        60 => (any::<usize>(), freeing).prop_map(|(which, how)| Op::Free { which, how }),
        4 => Just(Op::Collect),
        2 => Just(Op::Purge),
        2 => Just(Op::Exit),
        1 => any::<bool>().prop_map(Op::Seal),
        1 => any::<bool>().prop_map(Op::Starve),
        1 => prop_oneof![Just(Front::Classic), Just(Front::Theap)].prop_map(Op::Front),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn one_thread(ops in prop::collection::vec(ops(), 1..400)) {
        oracle::run(ops.into_iter().map(|op| (0, op)));
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 1..1500)) {
        oracle::run(oracle::decode(&bytes));
    }

    #[test]
    fn several_threads(ops in prop::collection::vec((0..HANDS, ops()), 1..400)) {
        oracle::run(ops);
    }
}

/// `one_thread` once found this fault: a block that had been made smaller in place went into the
/// magazine of its new size when it was freed with that size, and an aligned allocation of that
/// class took it.
#[test]
fn a_block_made_smaller_is_not_taken_for_an_aligned_one() {
    // SAFETY: every block is live until it is freed, with the size that was last asked for.
    oracle::in_turn(|| unsafe {
        let blocks = [(); 8].map(|()| theap::raw::realloc(theap::raw::alloc(640), 500));
        let _ = blocks.map(|block| theap::raw::free_sized(block, 500));
        for block in [(); 8].map(|()| theap::raw::alloc_aligned(500, 256)) {
            assert!((block as usize).is_multiple_of(256), "{block:?}");
            theap::raw::free(block);
        }
    });
}

/// `several_threads` once found this fault: `purge` gave back the pages of free blocks inside of a
/// span, and the hardened build took the zeros there for a write after free.
#[test]
fn a_block_whose_pages_went_back_is_handed_out_again() {
    // SAFETY: every block is live until it is freed.
    oracle::in_turn(|| unsafe {
        let fill = || {
            let block = theap::raw::alloc(16_000);
            block.write_bytes(1, 16_000);
            block as usize
        };
        let free = |block: &usize| theap::raw::free(*block as *mut u8);
        // The thread that ends leaves its spans, in which blocks are live, to the pool.
        let rest = thread::scope(|scope| {
            let leaver = scope.spawn(|| {
                let (stay, go) = (0..256)
                    .map(|_| fill())
                    .partition::<Vec<_>, _>(|block| (block >> 14).is_multiple_of(8));
                go.iter().for_each(free);
                stay
            });
            leaver.join().unwrap()
        });
        theap::purge();
        let again = [(); 256].map(|()| fill());
        again.iter().chain(&rest).for_each(free);
    });
}
