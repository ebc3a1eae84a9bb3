//! Rows of one thread that work through Rust's collections, on the process's global allocator. An
//! operation is one of the collection: an insertion, a removal or an appended piece.

use std::collections::{BTreeMap, HashMap, LinkedList};
use std::hint::black_box;

use super::Budget;
use crate::error::Error;
use crate::measure::Metric;
use crate::steps::{Random, SEED};

/// Operations between two looks at the clock.
const CHUNK: usize = 4096;

/// Keys of the maps; half of them are in the map at a time.
const KEYS: u64 = 20_000;

/// A string of 8 to 71 bytes, always the same for the same number.
fn text(number: u64) -> String {
    let mut text = format!("{number:08x}");
    let more = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize;
    text.extend(std::iter::repeat_n('.', more));
    text
}

/// A B-tree map from numbers to short vectors: a random key is removed, or inserted if it is not
/// there.
pub(super) fn btree(budget: Budget) -> Result<Vec<Metric>, Error> {
    let mut random = Random::new(SEED);
    let mut map = BTreeMap::new();
    budget.measure(|| {
        for _ in 0..CHUNK {
            let key = random.below(KEYS);
            if map.remove(&key).is_none() {
                map.insert(key, vec![key; 1 + key as usize % 16]);
            }
        }
        Ok(CHUNK as u64)
    })
}

/// A hash map from strings to strings: a random key is removed, or inserted if it is not there.
pub(super) fn strings(budget: Budget) -> Result<Vec<Metric>, Error> {
    let keys: Vec<String> = (0..KEYS).map(text).collect();
    let mut random = Random::new(SEED);
    let mut map = HashMap::new();
    budget.measure(|| {
        for _ in 0..CHUNK {
            let key = &keys[random.below(KEYS) as usize];
            if map.remove(key).is_none() {
                map.insert(key.clone(), key.clone());
            }
        }
        Ok(CHUNK as u64)
    })
}

/// Appends to random ones of 2000 vectors. A vector that has reached its length, 1 to 512 elements,
/// is dropped, and an empty one takes its place.
pub(super) fn vectors(budget: Budget) -> Result<Vec<Metric>, Error> {
    let mut random = Random::new(SEED);
    let mut vectors: Vec<Vec<u32>> = vec![Vec::new(); 2000];
    budget.measure(|| {
        for _ in 0..CHUNK {
            let at = random.below(vectors.len() as u64) as usize;
            if vectors[at].len() > at % 512 {
                vectors[at] = Vec::new();
            }
            vectors[at].push(at as u32);
        }
        Ok(CHUNK as u64)
    })
}

/// Appends to 16 lists in turn, reads each, and removes half of it from the front.
pub(super) fn lists(budget: Budget) -> Result<Vec<Metric>, Error> {
    let mut lists: Vec<LinkedList<[u64; 4]>> = vec![LinkedList::new(); 16];
    budget.measure(|| {
        let mut sum = 0;
        let mut ops = CHUNK;
        for nth in 0..CHUNK {
            let list = nth % lists.len();
            lists[list].push_back([nth as u64; 4]);
        }
        for list in &mut lists {
            sum += list.iter().map(|node| node[3]).sum::<u64>();
            let half = list.len() / 2;
            ops += half;
            for _ in 0..half {
                list.pop_front();
            }
        }
        black_box(sum);
        Ok(ops as u64)
    })
}

/// Eight vectors grow in turn by pieces of 512 bytes to 256 KiB each.
pub(super) fn growing_vectors(budget: Budget) -> Result<Vec<Metric>, Error> {
    let piece = [7u64; 64];
    budget.measure(|| {
        let mut vectors: Vec<Vec<u64>> = vec![Vec::new(); 8];
        for nth in 0..CHUNK {
            vectors[nth % 8].extend_from_slice(black_box(&piece));
        }
        black_box(&vectors);
        Ok(CHUNK as u64)
    })
}

/// 256 strings grow by pieces of 1 to 40 bytes to 1 KiB each, a random one at a time.
pub(super) fn growing_strings(budget: Budget) -> Result<Vec<Metric>, Error> {
    const PIECE: &str = "all work and no play makes for long runs";
    let mut random = Random::new(SEED);
    let mut strings = vec![String::new(); 256];
    budget.measure(|| {
        for _ in 0..CHUNK {
            let at = random.below(256) as usize;
            if strings[at].len() >= 1024 {
                strings[at] = String::new();
            }
            strings[at].push_str(&PIECE[..1 + random.below(40) as usize]);
        }
        Ok(CHUNK as u64)
    })
}

/// One vector grows by pieces of 64 KiB to 64 MiB.
pub(super) fn growing_large(budget: Budget) -> Result<Vec<Metric>, Error> {
    const PIECES: usize = 1024;
    let piece = vec![7u8; 64 << 10];
    budget.measure(|| {
        let mut vector: Vec<u8> = Vec::new();
        for _ in 0..PIECES {
            vector.extend_from_slice(black_box(&piece));
        }
        black_box(&vector);
        Ok(PIECES as u64)
    })
}
