//! The index of extents, alone.

use super::*;
use std::boxed::Box;
use std::vec::Vec;

const SUPERS: usize = 640;

fn zeros(count: usize) -> &'static [AtomicU64] {
    Box::leak((0..count).map(|_| AtomicU64::new(0)).collect())
}

fn bitmap() -> Bitmap<'static> {
    Bitmap {
        words: zeros(SUPERS / 64),
        summary: zeros(1),
    }
}

fn extents() -> Extents<'static> {
    let hints = zeros(Extents::words(SUPERS));
    Extents::new((bitmap(), bitmap()), (bitmap(), 0), hints)
}

/// The state of each SuperSlab, beside the index.
struct Model {
    extents: Extents<'static>,
    free: Vec<Option<Free>>,
}

impl Model {
    fn set(&mut self, i: usize, to: Option<Free>) {
        self.free[i] = to;
        let (at, extents) = (NodeSuper(i as u32), self.extents);
        match to {
            Some(Free::Whole) => {
                extents.take_hole(at);
                extents.whole.set(i);
                extents.offer_whole(at);
            }
            Some(_) => extents.offer_hole(at),
            // Who takes a whole one leaves the bit.
            None => extents.take_hole(at),
        }
    }

    fn is_free(&self, i: usize, len: usize, free: Free) -> bool {
        let of = |one: &Option<Free>| one.is_some_and(|one| free == Free::Mixed || one == free);
        i + len <= SUPERS && self.free[i..i + len].iter().all(of)
    }

    /// Searches as a thread does that corrects what it finds stale.
    fn find(&self, free: Free, want: Want) -> Option<usize> {
        self.extents.find((free, usize::MAX / 2), want, |i| {
            let i = i.index();
            assert_eq!((i + want.base) % want.align, 0);
            for at in i..(i + want.len).min(SUPERS) {
                if self.free[at].is_none() {
                    self.extents.whole.clear(at);
                }
            }
            self.is_free(i, want.len, free).then_some(i)
        })
    }
}

/// A sequence that depends on the seed alone.
fn numbers(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    }
}

#[test]
fn what_is_free_is_found() {
    let (mut number, mut found) = (numbers(16), [0, 0]);
    let mut model = Model {
        extents: extents(),
        free: std::vec![None; SUPERS],
    };
    for round in 0..20_000 {
        let (first, len) = (
            number(SUPERS),
            1 + number(if round % 50 == 0 { 300 } else { 9 }),
        );
        let to = [None, None, Some(Free::Whole), Some(Free::Mixed)][number(4)];
        for i in first..(first + len).min(SUPERS) {
            // A hole is mapped, and a SuperSlab is unmapped, when nobody has it.
            model.set(i, None);
            model.set(i, to);
        }
        let want = Want {
            len: 1 + number(if round % 9 == 0 { 200 } else { 12 }),
            align: [1, 1, 2, 8, 128][number(5)],
            base: number(1000),
        };
        for (nth, free) in [Free::Whole, Free::Mixed].into_iter().enumerate() {
            let mut places = (0..SUPERS).map(|i| want.aligned(i));
            let there = places.any(|i| model.is_free(i, want.len, free));
            let is_found = model.find(free, want).is_some();
            let whole = nth == 1 && model.find(Free::Whole, want).is_some();
            // Without a hole in it, an extent has no hint among those of mixed ones.
            assert!(is_found == there || whole, "{round} {want:?} {free:?}");
            found[nth] += usize::from(is_found);
        }
        if round % 100 == 0 {
            assert!((model.extents).keeps_promise(SUPERS, |i| model.free[i.index()]));
        }
    }
    assert!(found.iter().all(|&found| found > 5000), "{found:?}");
}

#[test]
fn an_extent_has_hints_wherever_it_lies() {
    for len in LENGTHS.into_iter().chain([65, 127, 129, 200]) {
        for first in [0, 1, 63, 64, 200, SUPERS - len] {
            let mut model = Model {
                extents: extents(),
                free: std::vec![None; SUPERS],
            };
            // From the middle outwards.
            let mut all: Vec<_> = (first..first + len).collect();
            all.sort_by_key(|&i| i.abs_diff(first + len / 2));
            all.into_iter()
                .for_each(|i| model.set(i, Some(Free::Whole)));
            let want = |len| Want {
                len,
                align: 1,
                base: 0,
            };
            assert_eq!(model.find(Free::Whole, want(len)), Some(first), "{len}");
            assert_eq!(model.find(Free::Whole, want(len + 1)), None, "{len}");
            assert_eq!(model.find(Free::Mixed, want(len)), None, "no hole");
        }
    }
}

#[test]
fn nursed_ones_are_left_alone() {
    let mut model = Model {
        extents: Extents {
            common: 66,
            ..extents()
        },
        free: std::vec![None; SUPERS],
    };
    [65, 66]
        .into_iter()
        .for_each(|i| model.extents.nursed.set(i));
    (64..67).for_each(|i| model.set(i, Some(Free::Whole)));
    let found = |len, free| {
        let want = Want {
            len,
            align: 1,
            base: 0,
        };
        model.extents.find_any(free, want, Some)
    };
    assert_eq!(found(2, Free::Whole), Some(NodeSuper(64)));
    assert_eq!(found(3, Free::Whole), None);
    assert_eq!(found(3, Free::All), Some(NodeSuper(64)));
}
