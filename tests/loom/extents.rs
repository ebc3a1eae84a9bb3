//! The index of extents: adjacent free SuperSlabs are found, whoever frees them, takes them or
//! corrects the index meanwhile.

use crate::{explore, join};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use theap::geometry::NodeSuper;
use theap::pool::pages::claims::Claims;
use theap::pool::supers::avail::{Avail, Bitmap, LEVELS, WHOLE};
use theap::pool::supers::extents::{Extents, Free, STEPS, Want};
use theap::pool::supers::slot_word::SlotWord;
use theap::sync::{AtomicU8, AtomicU64};

fn zeros(count: usize) -> &'static [AtomicU64] {
    Box::leak((0..count).map(|_| AtomicU64::new(0)).collect())
}

fn bitmap(words: usize) -> Bitmap<'static> {
    Bitmap {
        words: zeros(words),
        summary: zeros(1),
    }
}

/// An index over so many words, and its bits of whole SuperSlabs.
pub fn index(words: usize) -> (Extents<'static>, Bitmap<'static>) {
    let (whole, hints) = (bitmap(words), zeros(Extents::words(words * 64)));
    let bitmaps = (whole, bitmap(words));
    (Extents::new(bitmaps, (bitmap(words), 0), hints), whole)
}

const PAIR: Want = Want {
    len: 2,
    align: 1,
    base: 0,
};

/// Two threads free neighbours, the last SuperSlab of a word and the first of the next one: one of
/// them sees both, and notes the extent.
#[test]
pub fn neighbours_make_an_extent() {
    neighbours(63);
}

/// The same in one word.
#[test]
pub fn neighbours_of_a_word_make_an_extent() {
    neighbours(8);
}

fn neighbours(first: usize) {
    explore(move || {
        let (extents, whole) = index(2);
        // Other bits, so that the threads do not meet at the summary, which would order them.
        [1, 126].into_iter().for_each(|i| whole.set(i));
        let free = |i: usize| {
            thread::spawn(move || {
                whole.set(i);
                extents.offer_whole(NodeSuper(i as u32));
            })
        };
        join([first, first + 1].map(free));
        let found = extents.find((Free::Whole, STEPS), PAIR, Some);
        let first = NodeSuper(first as u32);
        assert_eq!(found, Some(first), "an extent that nobody finds");
    });
}

/// The same with a SuperSlab that becomes a hole.
#[test]
pub fn a_hole_makes_an_extent() {
    explore(|| {
        let (extents, whole) = index(2);
        let freer = thread::spawn(move || {
            whole.set(63);
            extents.offer_whole(NodeSuper(63));
        });
        extents.offer_hole(NodeSuper(64));
        freer.join().unwrap();
        let found = extents.find((Free::Mixed, STEPS), PAIR, Some);
        assert_eq!(found, Some(NodeSuper(63)), "an extent that nobody finds");
    });
}

/// A thread that searches finds a hint stale and withdraws it, while another makes it true.
#[test]
pub fn an_extent_is_never_forgotten() {
    explore(|| {
        let (extents, whole) = index(1);
        // An old hint: SuperSlab 1 is in use again.
        [0, 1].into_iter().for_each(|i| whole.set(i));
        extents.offer_whole(NodeSuper(1));
        whole.clear(1);
        let freer = thread::spawn(move || {
            whole.set(1);
            extents.offer_whole(NodeSuper(1));
        });
        let _ = extents.find((Free::Whole, STEPS), PAIR, |_| None::<()>);
        freer.join().unwrap();
        let found = extents.find((Free::Whole, STEPS), PAIR, Some);
        assert_eq!(found, Some(NodeSuper(0)), "an extent that nobody finds");
    });
}

/// A SuperSlab becomes a hole while another thread takes its bit, an old one, away.
#[test]
pub fn a_hole_is_never_forgotten() {
    explore(|| {
        let (claims, extents) = claims(2);
        assert!(claims.claim(NodeSuper(0), 1) && claims.claim(NodeSuper(1), 1));
        // The bit of an earlier hole.
        extents.offer_hole(NodeSuper(0));
        let corrector = {
            let claims = claims.clone();
            thread::spawn(move || claims.withdraw(NodeSuper(0)))
        };
        claims.give_up(NodeSuper(0), 1);
        corrector.join().unwrap();
        assert_eq!(claims.claim_hole(), Some(NodeSuper(0)), "nobody finds it");
    });
}

/// A thread claims two holes and finds the second one claimed, while another thread corrects the
/// bit of the first.
#[test]
pub fn a_hole_outlives_a_claim_in_vain() {
    explore(|| {
        let (claims, _) = claims(3);
        assert!(claims.claim(NodeSuper(2), 1) && claims.claim(NodeSuper(1), 1));
        let corrector = {
            let claims = claims.clone();
            thread::spawn(move || claims.withdraw(NodeSuper(0)))
        };
        assert!(!claims.claim(NodeSuper(0), 2));
        corrector.join().unwrap();
        assert_eq!(claims.claim_hole(), Some(NodeSuper(0)), "nobody finds it");
    });
}

/// A step of growth is given up while another thread grows beyond it and corrects the bit: what
/// lies before is a hole, and found, whoever moves the frontier first.
#[test]
pub fn a_step_in_vain_leaves_holes() {
    a_step_in_vain(1);
}

/// The same where a third thread corrects the bit.
#[test]
#[ignore = "4 minutes: RUSTFLAGS=\"--cfg loom\" cargo test --release --test loom -- --ignored"]
pub fn a_step_in_vain_leaves_holes_beside_a_third() {
    a_step_in_vain(2);
}

fn a_step_in_vain(others: usize) {
    explore(move || {
        let (claims, _) = claims(2);
        assert!(claims.claim(NodeSuper(0), 1));
        let other = {
            let claims = claims.clone();
            thread::spawn(move || {
                assert!(claims.claim(NodeSuper(1), 1));
                if others == 1 {
                    claims.withdraw(NodeSuper(0));
                }
            })
        };
        let third = (others > 1).then(|| {
            let claims = claims.clone();
            thread::spawn(move || claims.withdraw(NodeSuper(0)))
        });
        claims.give_up(NodeSuper(0), 1);
        other.join().unwrap();
        third.map(|third| third.join().unwrap());
        assert_eq!(claims.claim_hole(), Some(NodeSuper(0)), "nobody finds it");
        assert_eq!((claims.holes(), claims.count_holes()), (0, 0));
    });
}

fn claims(supers: usize) -> (Arc<Claims<'static>>, Extents<'static>) {
    let bytes: &'static [AtomicU8] = Box::leak((0..supers).map(|_| AtomicU8::new(0)).collect());
    let (extents, _) = index(1);
    (Arc::new(Claims::new(bytes, extents)), extents)
}

/// Two SuperSlabs, what their words say, and the index over them. A thread that has one writes to
/// its cell, so loom reports two threads that have the same one.
struct Node {
    words: [SlotWord; 2],
    cells: [UnsafeCell<()>; 2],
    extents: Extents<'static>,
    whole: Bitmap<'static>,
}

impl Node {
    /// SuperSlab 0 is free and 1 is in use.
    fn new() -> Arc<Self> {
        let (extents, whole) = index(1);
        let node = Self {
            words: [(); 2].map(|()| SlotWord::new()),
            cells: [(); 2].map(UnsafeCell::new),
            extents,
            whole,
        };
        node.words[0].publish_fresh(0);
        node.words[1].publish_fresh(32);
        node.offer(0);
        Arc::new(node)
    }

    fn offer(&self, i: usize) {
        self.whole.set(i);
        self.extents.offer_whole(NodeSuper(i as u32));
    }

    /// Does what `Supers::release` does.
    fn release(&self, i: usize) {
        self.cells[i].with_mut(|_| ());
        self.words[i].release(0, 32);
        self.offer(i);
    }

    /// Does what `Pages::take_mapped` and `take_parts` do.
    fn take_pair(&self) -> bool {
        let take = |i: NodeSuper| {
            assert_eq!(i, NodeSuper(0));
            let used = (0..2).rev().find(|&k| !self.words[k].get().has_run(32));
            if let Some(k) = used {
                self.withdraw(k);
                return None;
            }
            self.words[0].take_exact(0, 32)?;
            self.cells[0].with_mut(|_| ());
            if self.words[1].take_exact(0, 32).is_none() {
                self.release(0);
                return None;
            }
            self.cells[1].with_mut(|_| ());
            Some(())
        };
        (self.extents.find((Free::Whole, STEPS), PAIR, take)).is_some()
    }

    /// Does what `Supers::withdraw` does.
    fn withdraw(&self, i: usize) {
        let avail = Avail {
            levels: [self.whole; LEVELS],
        };
        let i_th = NodeSuper(i as u32);
        if avail.withdraw(i_th, WHOLE, &self.words[i]) {
            self.extents.offer_whole(i_th);
        }
    }

    /// Does what a thread does that needs a slot.
    fn take_one(&self, i: usize) -> bool {
        let taken = self.words[i].take_run(32, 1).is_some();
        if taken {
            self.cells[i].with_mut(|_| ());
        }
        taken
    }
}

/// A thread takes a run of two SuperSlabs while another gives one of them back.
#[test]
pub fn a_run_is_taken_or_found_later() {
    explore(|| {
        let node = Node::new();
        // An old bit, and a hint that it makes.
        node.offer(1);
        let freer = {
            let node = node.clone();
            thread::spawn(move || node.release(1))
        };
        let early = node.take_pair();
        freer.join().unwrap();
        assert!(
            early != node.take_pair(),
            "a run that nobody finds, or found twice"
        );
    });
}

/// A thread takes a run of two SuperSlabs while another takes one of them.
#[test]
pub fn a_run_has_one_taker() {
    explore(|| {
        let node = Node::new();
        node.release(1);
        let taker = {
            let node = node.clone();
            thread::spawn(move || node.take_one(1).then(|| node.release(1)))
        };
        let mine = node.take_pair();
        let other = taker.join().unwrap();
        assert!(mine || other.is_some(), "both were free");
        assert!(mine || node.take_pair(), "a run that nobody finds");
        assert_eq!(node.words[0].get().active_count(), 32);
    });
}
