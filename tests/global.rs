//! theap as the global allocator of a test program: collections, threads, sizes from 0 to hundreds
//! of MiB.
#![allow(unsafe_code)] // Calls the allocator directly.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap};
use std::thread;
use theap::Theap;

#[global_allocator]
static HEAP: Theap = Theap::new();

#[test]
fn collections_live_on_the_heap() {
    let mut map = HashMap::new();
    let mut tree = BTreeMap::new();
    for i in 0..100_000u64 {
        map.insert(i, format!("value {i}"));
        tree.insert(
            i.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            vec![i; (i % 50) as usize],
        );
    }
    for i in (0..100_000u64).step_by(3) {
        map.remove(&i);
    }
    assert_eq!(map[&1], "value 1");
    assert!(theap::owns(map[&1].as_ptr()));
    assert_eq!(
        tree.values().map(Vec::len).sum::<usize>(),
        100_000 / 50 * (49 * 50 / 2)
    );
}

#[test]
fn every_size_is_usable_and_aligned() {
    let mut live = Vec::new();
    for shift in 0..=27 {
        for size in [
            (1usize << shift) - 1,
            1 << shift,
            (1 << shift) + 1,
            3 << shift,
        ] {
            for align in [1, 8, 16, 64, 4096, 65536, 1 << 21, 1 << 22] {
                if size > 1 << 26 && align > 16 {
                    continue;
                }
                let layout = Layout::from_size_align(size.max(1), align).unwrap();
                // SAFETY: the layout has a size; the block is written within it and freed below.
                unsafe {
                    let block = HEAP.alloc(layout);
                    assert!(
                        !block.is_null() && (block as usize).is_multiple_of(align),
                        "{layout:?}"
                    );
                    assert!(theap::usable_size(block) >= layout.size());
                    block.write(1);
                    block.add(layout.size() - 1).write(2);
                    live.push((block, layout));
                }
                if live.len() > 64 {
                    let (block, layout) = live.swap_remove(shift % 64);
                    // SAFETY: allocated above with this layout.
                    unsafe { HEAP.dealloc(block, layout) };
                }
            }
        }
    }
    for (block, layout) in live {
        // SAFETY: allocated above with this layout.
        unsafe { HEAP.dealloc(block, layout) };
    }
}

#[test]
fn vectors_grow_with_their_contents() {
    let mut vectors: Vec<Vec<u32>> = vec![Vec::new(); 3];
    for i in 0..20_000_000u32 {
        vectors[i as usize % 3].push(i);
    }
    for (k, vector) in vectors.iter().enumerate() {
        assert!(
            vector
                .iter()
                .enumerate()
                .all(|(i, &v)| v as usize == 3 * i + k)
        );
    }
}

#[test]
fn zeroed_is_zero_after_use() {
    for size in [1, 100, 5000, 40_000, 200_000, 1 << 20, 5 << 20] {
        for round in 0..20 {
            let mut zeroed = vec![0u8; size];
            assert!(
                zeroed.iter().all(|&b| b == 0),
                "{size} bytes, round {round}"
            );
            zeroed.fill(0xA5);
        }
    }
}

#[test]
fn threads_hand_blocks_over() {
    let (send, receive) = std::sync::mpsc::sync_channel::<Vec<Vec<u8>>>(4);
    let producer = thread::spawn(move || {
        for i in 0..2000usize {
            send.send(
                (0..100)
                    .map(|k| vec![(i + k) as u8; 16 + (i * k) % 900])
                    .collect(),
            )
            .unwrap();
        }
    });
    for (i, batch) in receive.into_iter().enumerate() {
        for (k, bytes) in batch.iter().enumerate() {
            assert!(bytes.iter().all(|&b| b == (i + k) as u8));
        }
    }
    producer.join().unwrap();
}
