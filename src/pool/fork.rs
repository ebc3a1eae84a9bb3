//! Fork with hugetlb pages.
//!
//! After a fork, parent and child share their pages until one of them writes, and the copy of a hugetlb page must come
//! from the pool. If the pool is dry, a writing child dies of SIGBUS, and a writing parent makes the kernel take the
//! page from the child. So before a fork the pool must have a free page for each copy that the fork makes possible;
//! where it has not, SuperSlabs move to other pages, which can always be copied. Each one moved also gives its page
//! back to the pool, so at most half of the heap has to move. Runs with all of the arena's locks held.
//!
//! What is free for copies must stay free: after a fork the parent grows on hugetlb pages only beyond what its shared
//! pages may need, and a child not at all.
//!
//! Another process may take the pool's pages between the check and a copy; nothing can be done about that.

use super::node::Node;
use super::{Arena, SLOTS, SUPER};
use crate::fatal::{self, Saying};
use core::sync::atomic::Ordering;
use theap_platform::PageMode;

/// Pages that copies may need, and pages that there are.
struct Account {
    need: usize,
    free: usize,
    /// Earlier forks: a page that is still shared may be copied once for each.
    forks: usize,
}

impl Account {
    fn copies(&self, shared: bool) -> usize {
        1 + if shared { self.forks } else { 0 }
    }
}

impl Arena {
    /// Sees to it that the copies of a fork can be made. The caller holds all locks.
    pub fn prepare_fork(&self) {
        let forks = self.forks.fetch_add(1, Ordering::Relaxed) as usize;
        for mode in [PageMode::Hugetlb, PageMode::Hugetlb1g] {
            self.provide_copies(mode, forks);
        }
    }

    fn provide_copies(&self, mode: PageMode, forks: usize) {
        let page = mode.page();
        let mapped: u64 = self.nodes().iter().map(|n| n.mapped_bytes(mode)).sum();
        let pages = mapped as usize / page;
        if pages == 0 {
            return;
        }
        let mut account = Account {
            need: 0,
            free: self.os.hugetlb_free(mode),
            forks,
        };
        for node in self.nodes() {
            node.each_hugetlb(mode, |_, address| {
                account.need += account.copies(forks > 0 && self.os.is_shared(address))
            });
        }
        let free = account.free;
        let (mut moved, mut left) = (0, 0);
        let workers = self.nodes().iter().filter(|node| node.has_warmer());
        let workers = workers.count();
        // Hugetlb pages count elsewhere than those that take their place: beyond its group's limit the process would be
        // killed, here and now.
        let mut room = self.os.memory_left() as usize / page;
        for node in self.nodes() {
            node.each_hugetlb(mode, |i, address| {
                if account.need <= account.free {
                    return;
                }
                let shared = forks > 0 && self.os.is_shared(address);
                let bind = self.binding(node.first + i);
                // SAFETY: the page is mapped so, and the locks keep it mapped and warmers from the heap.
                let demote = || unsafe { self.os.demote(address, page, bind, workers) };
                if room > 0 && demote().is_ok() {
                    room -= 1;
                    self.lock_memory(address, page);
                    (i..i + page / SUPER).for_each(|i| node.set_mode(i, PageMode::Thp));
                    account.need = account.need.saturating_sub(account.copies(shared));
                    account.free += usize::from(!shared);
                    moved += 1;
                } else {
                    left += 1;
                }
            });
        }
        if moved + left > 0 && !self.is_child() && self.first_to_say(Saying::Forked) {
            fatal::forked(self.os, pages, free, moved, left);
        }
    }

    /// Whether growth may take pages for `count` SuperSlabs from a hugetlb pool. 1 GiB pages only before any fork.
    pub(super) fn may_take_hugetlb(&self, mode: PageMode, count: usize) -> bool {
        let forks = self.forks.load(Ordering::Relaxed) as usize;
        if forks == 0 || self.is_child() || mode == PageMode::Hugetlb1g {
            return forks == 0;
        }
        let (mut owed, mut shared) = (0, false);
        for of in [PageMode::Hugetlb, PageMode::Hugetlb1g] {
            for node in self.nodes() {
                node.each_hugetlb(of, |_, address| {
                    let copies = forks * usize::from(self.os.is_shared(address));
                    owed += if of == mode { copies } else { 0 };
                    shared |= copies > 0;
                });
            }
        }
        if !shared {
            // All children are gone, or are other programs. No fork comes between: it takes all locks.
            self.forks.store(0, Ordering::Relaxed);
        }
        owed == 0 || self.os.hugetlb_free(mode) >= owed + count
    }
}

impl Node {
    /// Visits the hugetlb pages of a mode: the index of the first SuperSlab, and the address. Only who holds all locks
    /// can rely on their staying mapped.
    fn each_hugetlb(&self, mode: PageMode, mut each: impl FnMut(usize, usize)) {
        let supers = mode.page() / SUPER;
        let mut left = self.mapped_bytes(mode) as usize / mode.page();
        let mut i = 0;
        while i < self.supers && left > 0 {
            if self.mode(i) == Some(mode) {
                left -= 1;
                each(i, self.arena.address_of((self.first + i) * SLOTS));
                i += supers;
            } else {
                i += 1;
            }
        }
    }
}
