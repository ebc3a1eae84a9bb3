//! Giving memory back to the system.
//!
//! A SuperSlab whose slots are all free is taken as a whole (all ABSENT), so nobody can take a slot of it meanwhile.
//! Small and transparent pages are dropped in place and the slots become FRESH; a hugetlb page goes back to its pool
//! and leaves a hole, since touching it again could meet an empty pool; a 1 GiB page is never given back. A SuperSlab in use gives its EMPTY slots back
//! only on small pages: splitting a hugepage would cost more than it brings.

use super::avail;
use super::node::Node;
use super::superslab::{SLOTS, Slots};
use super::{SLOT, SUPER};
use crate::stats::events::EventKind;
use core::sync::atomic::Ordering;
use theap_platform::PageMode;

/// SuperSlabs that a free gives back at once, beyond the one that it made free.
const AT_ONCE: usize = 2;
/// SuperSlabs that it looks at for that: untouched ones cannot be given back.
const LOOKED_AT: usize = 64;

impl Node {
    /// After SuperSlab `i` became free: purges it if the node keeps more warm memory than it should.
    pub(super) fn trim(&self, i: usize) {
        // What the warmer gives back, no other thread's free has to wait for.
        if self.warmer_runs() {
            return;
        }
        if self.has_too_much() {
            let bytes = self.purge_super(i, false);
            // Who retains nothing wants to see everything go.
            if self.arena.config.retain > 0 && self.arena.learns() {
                self.decay.gave(bytes / SLOT);
            }
        }
    }

    pub(super) fn has_too_much(&self) -> bool {
        let warm = self.empty.load(Ordering::Relaxed);
        warm > self.arena.config.retain / SLOT + self.decay.kept() && !self.arena.is_sealed()
    }

    /// After slots were given back: what the node has learned to keep and did not need for a while goes, a few
    /// SuperSlabs at a time, as the caller waits for it.
    #[cold]
    pub(super) fn trim_idle(&self) {
        let (arena, warm) = (self.arena, self.empty.load(Ordering::Relaxed));
        self.decay.look(
            arena.os.recently(),
            arena.decay(),
            warm,
            arena.config.retain / SLOT,
        );
        if !self.has_too_much() || self.warmer_runs() {
            return;
        }
        let (mut from, mut gone) = (0, 0);
        for _ in 0..LOOKED_AT {
            let Some(i) = self.avail.levels[avail::WHOLE].next(from) else {
                return;
            };
            // What was never used is there because somebody asked for it (`warm_up`, `reserve`).
            gone += usize::from(self.word(i).get().has_empty() && self.purge_super(i, false) > 0);
            if gone == AT_ONCE {
                return;
            }
            from = i + 1;
        }
    }

    /// For the warmer, which has the lock of its step: purges a free SuperSlab, also one that was never used.
    pub(super) fn purge_stock(&self, i: usize) -> usize {
        self.purge_super(i, true)
    }

    /// Gives all free memory of the node back, as far as pages allow. Bytes given back.
    pub fn purge(&self) -> usize {
        if self.arena.refuses() {
            return 0;
        }
        self.decay.forget();
        self.sweep_all();
        let mut bytes = 0;
        for i in self.mapped_supers() {
            bytes += match self.purge_super(i, false) {
                0 if self.mode(i) == Some(PageMode::Small) => self.purge_slots(i),
                whole => whole,
            };
        }
        bytes
    }

    /// Purges a SuperSlab whose slots are all free, its metadata included. `warmer`: the caller is it.
    fn purge_super(&self, i: usize, warmer: bool) -> usize {
        let Some(mode) = self.mode(i).filter(|&mode| mode != PageMode::Hugetlb1g) else {
            return 0;
        };
        let Some(before) = self
            .word(i)
            .begin_purge_all(warmer || mode == PageMode::Hugetlb)
        else {
            return 0;
        };
        let address = self.arena.address_of((self.first + i) * SLOTS);
        if mode == PageMode::Hugetlb {
            return self.unmap_super(i, before, address, warmer);
        }
        // SAFETY: all slots are ABSENT: nobody uses the SuperSlab.
        let purged = unsafe { self.arena.purge(address, SUPER, mode) }.is_ok();
        if purged {
            self.claims.unmark(i);
            if mode == PageMode::Small {
                self.purge_meta(i);
            }
            self.empty
                .fetch_sub(before.empty_count() as usize, Ordering::Relaxed);
        } else {
            self.empty.fetch_add(
                (SLOTS as u32 - before.empty_count()) as usize,
                Ordering::Relaxed,
            );
        }
        let (was, is) = self.word(i).end_purge(0, SLOTS, purged);
        self.avail.offer(i, was, is);
        if purged {
            (if warmer {
                SLOTS
            } else {
                before.empty_count() as usize
            }) * SLOT
        } else {
            0
        }
    }

    /// The metadata of a SuperSlab without spans means nothing, but for remote words, which are zero. On hugepages it
    /// stays: dropping 36 KiB of a hugepage splits it.
    fn purge_meta(&self, i: usize) {
        let (meta, len) = self.arena.meta_range(self.first + i, 1);
        // SAFETY: no slot of the SuperSlab is in use, so nobody relies on the contents; zero is valid at any moment.
        let _ = unsafe { self.arena.os.purge(meta, len) };
    }

    fn unmap_super(&self, i: usize, before: Slots, address: usize, warmer: bool) -> usize {
        // A fork that looks after hugetlb pages finds them all mapped.
        let step = (!warmer).then(|| self.warmer.step.0.lock());
        let begin = self.arena.begin_event();
        // SAFETY: all slots are ABSENT: nobody uses the SuperSlab.
        let unmapped = unsafe { self.arena.os.unmap(address, SUPER, PageMode::Hugetlb) };
        self.arena
            .note_event(begin, EventKind::Unmap, PageMode::Hugetlb as u8, SUPER);
        match unmapped {
            Ok(()) => {
                self.set_unmapped(i);
                self.empty
                    .fetch_sub(before.empty_count() as usize, Ordering::Relaxed);
                SUPER
            }
            Err(theap_platform::Error::Lost) => {
                self.set_lost(i);
                self.empty
                    .fetch_sub(before.empty_count() as usize, Ordering::Relaxed);
                0
            }
            Err(_) => {
                drop(step);
                self.empty.fetch_add(
                    (SLOTS as u32 - before.empty_count()) as usize,
                    Ordering::Relaxed,
                );
                let (was, is) = self.word(i).end_purge(0, SLOTS, false);
                self.avail.offer(i, was, is);
                0
            }
        }
    }

    fn purge_slots(&self, i: usize) -> usize {
        let mut bytes = 0;
        for (first, len) in self.word(i).begin_purge_empty() {
            let address = self.arena.address_of((self.first + i) * SLOTS + first);
            // SAFETY: the slots are ABSENT: nobody uses them.
            let purged = unsafe { self.arena.purge(address, len * SLOT, PageMode::Small) }.is_ok();
            if purged {
                self.claims.unmark(i);
                self.empty.fetch_sub(len, Ordering::Relaxed);
                bytes += len * SLOT;
            }
            let (was, is) = self.word(i).end_purge(first, len, purged);
            self.avail.offer(i, was, is);
        }
        bytes
    }
}
