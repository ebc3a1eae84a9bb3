//! Slots of a SuperSlab, and the bitmaps in which threads find SuperSlabs with free slots.

use crate::{explore, join};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use theap::geometry::NodeSuper;
use theap::pool::supers::avail::{Avail, Bitmap, LEVELS};
use theap::pool::supers::slot_word::{SlotWord, Slots, Taken};
use theap::sync::AtomicU64;

/// A SuperSlab and its slots. A thread that has a slot writes to it, so loom reports two threads
/// that have the same slot.
struct Super {
    word: SlotWord,
    slots: [UnsafeCell<()>; 32],
}

impl Super {
    fn new(active: usize) -> Arc<Self> {
        let this = Self {
            word: SlotWord::new(),
            slots: [(); 32].map(UnsafeCell::new),
        };
        this.word.publish_fresh(active);
        Arc::new(this)
    }

    fn write(&self, first: usize, len: usize) {
        (first..first + len).for_each(|i| self.slots[i].with_mut(|_| ()));
    }

    fn take(&self, len: usize) -> Option<Taken> {
        let taken = self.word.take_run(len, 1);
        if let Some(Taken { first, .. }) = taken {
            self.write(first, len);
        }
        taken
    }

    fn release(&self, first: usize, len: usize) -> (Slots, Slots) {
        self.write(first, len);
        self.word.release(first, len)
    }
}

#[test]
pub fn slots_have_one_taker() {
    explore(|| {
        let this = Super::new(29);
        let takers = [1, 2].map(|len| {
            let this = this.clone();
            thread::spawn(move || this.take(len).map_or(0, |t| ((1u32 << len) - 1) << t.first))
        });
        this.release(0, 1);
        let taken = join(takers);
        assert_eq!(taken[0] & taken[1], 0, "one slot in two hands");
        let active = taken[0].count_ones() + taken[1].count_ones() + 28;
        assert_eq!(this.word.get().active_count(), active);
    });
}

#[test]
pub fn purge_takes_no_slot_in_use() {
    explore(|| {
        let this = Super::new(2);
        this.release(0, 2);
        let taker = {
            let this = this.clone();
            thread::spawn(move || this.take(1))
        };
        if this.word.begin_purge_all(false).is_some() {
            assert_eq!(this.word.get(), Slots(0));
            this.write(0, 32);
            this.word.end_purge(0, 32, true);
        }
        let taken = taker.join().unwrap();
        assert_eq!(this.word.get().active_count(), u32::from(taken.is_some()));
        assert_eq!(
            this.word.get().free_count(),
            32 - u32::from(taken.is_some())
        );
    });
}

#[test]
pub fn empty_slots_are_purged_beside_a_taker() {
    explore(|| {
        let this = Super::new(32);
        this.release(0, 2);
        let taker = {
            let this = this.clone();
            thread::spawn(move || this.take(1))
        };
        let stretches: Vec<_> = this.word.begin_purge_empty().collect();
        for (first, len) in stretches {
            this.write(first, len);
            this.word.end_purge(first, len, true);
        }
        let taken = taker.join().unwrap();
        let active = 30 + u32::from(taken.is_some());
        assert_eq!(this.word.get().active_count(), active);
        assert_eq!(this.word.get().free_count(), 32 - active);
    });
}

struct Room {
    slots: Arc<Super>,
    bits: Vec<AtomicU64>,
    summary: Vec<AtomicU64>,
}

impl Room {
    fn avail(&self) -> Avail<'_> {
        Avail {
            levels: core::array::from_fn(|level| Bitmap {
                words: &self.bits[2 * level..2 * level + 2],
                summary: &self.summary[level..=level],
            }),
        }
    }
}

#[test]
pub fn room_is_never_forgotten() {
    releases_against_a_withdrawal::<2>();
}

#[test]
pub fn one_room_is_never_forgotten() {
    releases_against_a_withdrawal::<1>();
}

/// Threads release slots of a SuperSlab while another withdraws it from the bitmap. The SuperSlab's
/// bit is in the second word, which the summary leads to. With one releaser the taker has found no
/// slot before the model begins.
fn releases_against_a_withdrawal<const RELEASERS: usize>() {
    const ONE: usize = 1;
    const SUPER: usize = 64;
    explore(|| {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        let room = Arc::new(Room {
            slots: Super::new(32),
            bits: zeros(2 * LEVELS),
            summary: zeros(LEVELS),
        });
        // This bit is an old hint: the SuperSlab has no free slot any more.
        room.avail().levels[ONE].set(SUPER);
        let releasers: [_; RELEASERS] = core::array::from_fn(|slot| {
            let room = room.clone();
            thread::spawn(move || {
                let (before, after) = room.slots.release(slot, 1);
                room.avail().offer(NodeSuper(SUPER as u32), before, after);
            })
        });
        if RELEASERS == 1 || room.slots.take(1).is_none() {
            room.avail()
                .withdraw(NodeSuper(SUPER as u32), ONE, &room.slots.word);
        }
        let _ = join(releasers);
        assert!(room.slots.word.get().has_run(1));
        assert_eq!(
            room.avail().levels[ONE].next(0),
            Some(SUPER),
            "free slots that nobody finds"
        );
    });
}
