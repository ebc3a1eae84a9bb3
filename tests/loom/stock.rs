//! The threads that may map a SuperSlab, and the way of a SuperSlab that the warmer has prepared to
//! the threads that look for slots.

use crate::extents::index;
use crate::{explore, join};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use theap::geometry::NodeSuper;
use theap::pool::pages::claims::{Claims, POPULATED, PREPARING};
use theap::pool::pages::spare::{Mapped, Spare};
use theap::pool::supers::avail::{Avail, Bitmap, LEVELS, level_for};
use theap::pool::supers::slot_word::{SlotWord, Slots};
use theap::sync::{AtomicU8, AtomicU64, Ordering};

/// The SuperSlabs of a node.
const SUPERS: usize = 2;
/// The number of a page mode, whichever it is.
const MODE: u8 = 3;

fn claims(supers: usize) -> Arc<Claims<'static>> {
    let bytes: &'static [AtomicU8] = Box::leak((0..supers).map(|_| AtomicU8::new(0)).collect());
    Arc::new(Claims::new(bytes, index(1).0))
}

/// Two threads claim SuperSlabs at the same time: no SuperSlab is claimed twice, and the count of
/// holes is right, also when one thread gives its step up while the other goes on.
#[test]
pub fn claims_of_superslabs() {
    claims_beside_a_step_of(1);
}

/// The same where the step has two SuperSlabs.
#[test]
#[ignore = "4 minutes: RUSTFLAGS=\"--cfg loom\" cargo test --release --test loom -- --ignored"]
pub fn claims_of_more_superslabs() {
    claims_beside_a_step_of(2);
}

fn claims_beside_a_step_of(supers: usize) {
    explore(move || {
        let claims = claims(4);
        let warmer = {
            let claims = claims.clone();
            thread::spawn(move || {
                if let Some((first, len)) = claims.claim_ahead(supers, 4) {
                    // The system refuses to map the step.
                    claims.give_up(first, len);
                }
            })
        };
        let (first, len) = claims.claim_ahead(1, 4).unwrap();
        assert_eq!(claims.byte(first).swap(1, Ordering::AcqRel), PREPARING);
        assert_eq!(len, 1);
        warmer.join().unwrap();
        assert_eq!(claims.byte(first).load(Ordering::Relaxed), 1);
        assert!(first < claims.frontier());
        assert_eq!(claims.holes(), claims.count_holes());
    });
}

#[test]
pub fn one_hole_has_one_taker() {
    explore(|| {
        let claims = claims(2);
        assert!(claims.claim(NodeSuper(1), 1));
        assert_eq!(claims.holes(), 1);
        let other = {
            let claims = claims.clone();
            thread::spawn(move || claims.claim_hole().is_some())
        };
        let mine = claims.claim_hole().is_some();
        assert!(mine != other.join().unwrap());
        assert_eq!((claims.holes(), claims.count_holes()), (0, 0));
    });
}

/// A node: its claims, its SuperSlabs, and the bitmaps in which threads find them. `memory` says
/// whether a SuperSlab has its pages. A thread changes it only while it has the whole SuperSlab,
/// and a thread that has a slot reads it.
struct Node {
    claims: Arc<Claims<'static>>,
    words: [SlotWord; SUPERS],
    memory: [UnsafeCell<bool>; SUPERS],
    bits: Vec<AtomicU64>,
    /// The error that a thread found. `check` panics with it when all threads have ended, because
    /// loom aborts if a thread panics earlier.
    wrong: std::sync::Mutex<Option<&'static str>>,
}

impl Node {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            claims: claims(SUPERS),
            words: [(); SUPERS].map(|()| SlotWord::new()),
            memory: [(); SUPERS].map(|()| UnsafeCell::new(false)),
            bits: (0..2 * LEVELS).map(|_| AtomicU64::new(0)).collect(),
            wrong: std::sync::Mutex::default(),
        })
    }

    fn avail(&self) -> Avail<'_> {
        Avail {
            levels: core::array::from_fn(|level| Bitmap {
                words: &self.bits[2 * level..=2 * level],
                summary: &self.bits[2 * level + 1..=2 * level + 1],
            }),
        }
    }

    fn expect(&self, holds: bool, what: &'static str) {
        if !holds {
            *self.wrong.lock().unwrap() = Some(what);
        }
    }

    fn is_there(&self, i: NodeSuper) -> bool {
        self.memory[i.index()].with(|m| unsafe { *m })
    }

    /// Does what `Pages::map_claimed` does with a claimed SuperSlab.
    fn map(&self, i: NodeSuper, taken: usize) {
        let was = self.memory[i.index()].with_mut(|m| unsafe { core::mem::replace(&mut *m, true) });
        self.expect(!was, "mapped twice");
        self.claims.set_mode(i, MODE);
        self.claims.mark(i, POPULATED);
        self.words[i.index()].publish_fresh(taken);
        let word = &self.words[i.index()];
        self.avail().offer(i, Slots(0), word.get());
    }

    /// Does what `Pages::prepare` does, in the warmer.
    fn prepare(&self) -> bool {
        let claimed = self.claims.claim_ahead(1, SUPERS);
        if let Some((i, _)) = claimed {
            self.map(i, 0);
        }
        claimed.is_some()
    }

    /// Does what `Pages::give_back` does, in the warmer, with a hugetlb page.
    fn give_back(&self, i: NodeSuper) -> bool {
        let all = self.words[i.index()].begin_purge_all(true).is_some();
        if all {
            self.memory[i.index()].with_mut(|m| unsafe { *m = false });
            self.claims.give_up(i, 1);
        }
        all
    }

    /// Does what `Supers::find` does: takes a slot of a mapped SuperSlab.
    fn find(&self) -> Option<NodeSuper> {
        let level = level_for(1);
        let i = self.avail().next(level, NodeSuper(0))?;
        let word = &self.words[i.index()];
        if word.take_run(1, 1).is_none() {
            self.avail().withdraw(i, level, word);
            return None;
        }
        self.expect(self.is_there(i), "a slot without memory");
        self.expect(self.claims.has(i, POPULATED), "a slot that faults");
        Some(i)
    }

    /// Does what `Node::acquire_slots` does: takes a slot of a mapped SuperSlab, else of a new one.
    fn take(&self) -> Option<NodeSuper> {
        self.find().or_else(|| {
            let hole = self.claims.claim_hole();
            let i = hole.or_else(|| self.claims.claim_ahead(1, SUPERS).map(|(i, _)| i))?;
            self.map(i, 1);
            Some(i)
        })
    }

    /// Asserts that each SuperSlab is in one state, and that none is lost.
    fn check(&self, in_use: u32) {
        assert_eq!(*self.wrong.lock().unwrap(), None);
        let mapped = |i| self.claims.byte(i).load(Ordering::Relaxed) == MODE | POPULATED;
        for (i, word) in self.words.iter().enumerate() {
            let i = NodeSuper(i as u32);
            assert_eq!(self.is_there(i), mapped(i));
            let slots = word.get().free_count() + word.get().active_count();
            assert_eq!(slots, if mapped(i) { 32 } else { 0 });
            assert!(self.avail().keeps_promise(i, word));
        }
        let active: u32 = self.words.iter().map(|w| w.get().active_count()).sum();
        assert_eq!(active, in_use);
        assert_eq!(self.claims.holes(), self.claims.count_holes());
    }
}

/// The warmer prepares a SuperSlab while an old hint leads a thread to it that needs a slot. The
/// thread gets a slot of the prepared SuperSlab or none, and later the stock is found.
#[test]
pub fn stock_is_taken_once_it_is_prepared() {
    explore(|| {
        let node = Node::new();
        node.avail().levels[level_for(1)].set(0);
        let warmer = {
            let node = node.clone();
            thread::spawn(move || node.prepare())
        };
        let early = node.find();
        assert!(warmer.join().unwrap());
        node.check(u32::from(early.is_some()));
        assert_eq!(node.find(), Some(NodeSuper(0)), "nobody finds the stock");
    });
}

/// The warmer gives back the SuperSlab in stock, which lies below one in use, while a thread takes
/// a slot of it, or maps the hole anew.
#[test]
pub fn stock_is_given_back_or_taken() {
    explore(|| {
        let node = Node::new();
        assert!(node.prepare() && node.claims.claim(NodeSuper(1), 1));
        node.map(NodeSuper(1), 32);
        let warmer = {
            let node = node.clone();
            thread::spawn(move || node.give_back(NodeSuper(0)))
        };
        let mine = node.take();
        let gone = warmer.join().unwrap();
        assert!(mine.is_some() || gone, "there was something in stock");
        node.check(32 + u32::from(mine.is_some()));
    });
}

/// A thread releases a slot while the warmer looks for memory to give back. Then another thread
/// needs a slot.
#[test]
pub fn stock_comes_back_and_goes() {
    explore(|| {
        let node = Node::new();
        assert_eq!(node.take(), Some(NodeSuper(0)));
        let freer = {
            let node = node.clone();
            thread::spawn(move || {
                node.expect(node.is_there(NodeSuper(0)), "a slot without memory");
                let (before, after) = node.words[0].release(0, 1);
                node.avail().offer(NodeSuper(0), before, after);
            })
        };
        node.give_back(NodeSuper(0));
        freer.join().unwrap();
        node.check(0);
        assert!(node.take().is_some());
        node.check(1);
    });
}

/// `warm_up` has touched a SuperSlab and marks it while another thread unmaps it: the mark must not
/// bring the byte back.
#[test]
pub fn a_mark_raises_nothing() {
    explore(|| {
        let claims = claims(1);
        assert!(claims.claim(NodeSuper(0), 1));
        claims.set_mode(NodeSuper(0), MODE);
        let toucher = {
            let claims = claims.clone();
            thread::spawn(move || claims.mark(NodeSuper(0), POPULATED))
        };
        claims.give_up(NodeSuper(0), 1);
        toucher.join().unwrap();
        assert!(claims.is_free(NodeSuper(0)));
    });
}

/// The same where the mark is taken back.
#[test]
pub fn a_mark_that_goes_raises_nothing() {
    explore(|| {
        let claims = claims(1);
        assert!(claims.claim(NodeSuper(0), 1));
        claims.set_mode(NodeSuper(0), MODE | POPULATED);
        let looker = {
            let claims = claims.clone();
            thread::spawn(move || claims.unmark_some(NodeSuper(0), POPULATED))
        };
        claims.give_up(NodeSuper(0), 1);
        looker.join().unwrap();
        assert!(claims.is_free(NodeSuper(0)));
    });
}

/// Spare SuperSlabs, and whether each is mapped and nobody's: whoever takes one sees it so, and is
/// the only one.
struct Step {
    spare: Spare,
    memory: [UnsafeCell<bool>; 3],
    /// The number of SuperSlabs that were not there for a thread that took them.
    wrong: std::sync::Mutex<usize>,
}

impl Step {
    fn use_up(&self, taken: Option<Mapped>) -> usize {
        let Some(Mapped { first, count, mode }) = taken else {
            return 0;
        };
        assert_eq!(mode, MODE);
        for memory in &self.memory[first.index()..first.index() + count] {
            let was = memory.with_mut(|m| unsafe { core::mem::take(&mut *m) });
            *self.wrong.lock().unwrap() += usize::from(!was);
        }
        count
    }
}

/// A thread makes a step of growth spare, while another one takes a SuperSlab, and a third one a
/// SuperSlab or all of them.
#[test]
pub fn each_spare_superslab_has_one_taker() {
    for takes_all in [false, true] {
        explore(move || {
            let step = Arc::new(Step {
                spare: Spare::new(),
                memory: [(); 3].map(|()| UnsafeCell::new(false)),
                wrong: std::sync::Mutex::default(),
            });
            let takers = [false, takes_all].map(|all| {
                let step = step.clone();
                thread::spawn(move || {
                    step.use_up(if all {
                        step.spare.take_all()
                    } else {
                        step.spare.take()
                    })
                })
            });
            for memory in &step.memory {
                memory.with_mut(|m| unsafe { *m = true });
            }
            assert!(step.spare.put(Mapped {
                first: NodeSuper(0),
                count: 3,
                mode: MODE,
            }));
            let taken = join(takers).into_iter().sum::<usize>();
            assert_eq!(step.spare.count(), 3 - taken);
            let rest = step.use_up(step.spare.take_all());
            assert_eq!((taken + rest, *step.wrong.lock().unwrap()), (3, 0));
        });
    }
}
