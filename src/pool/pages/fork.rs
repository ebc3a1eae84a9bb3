//! Fork with hugetlb pages.
//!
//! After a fork, parent and child share their pages until one of them writes, and the copy of a
//! hugetlb page must come from the pool. If the pool is dry, a writing child dies of SIGBUS, and a
//! writing parent makes the kernel take the page from the child. So before a fork the pool must
//! have a free page for each copy that the fork makes possible; where it has not, SuperSlabs move
//! to other pages, which can always be copied. Each one moved also gives its page back to the pool,
//! so at most half of the heap has to move. Runs with all of the heap's locks held. The pages that
//! are free for copies must stay free: after a fork the parent grows on hugetlb pages only beyond
//! what its shared pages may need, and a child not at all.
//!
//! Another process may take the pool's pages between the check and a copy; nothing can be done
//! about that.
#![allow(unsafe_code)] // Replaces the pages of mapped memory.

use super::Pages;
use super::claims::below;
use crate::geometry::{NodeSuper, SUPER};
use crate::messages::{self, OnceMessage};
use theap_platform::PageMode;

/// The pages that copies may need, the pages that there are, and what was done about the
/// difference.
struct Account {
    need: usize,
    free: usize,
    /// Earlier forks: a page that is still shared may be copied once for each.
    forks: usize,
    /// Pages that may still be moved: hugetlb pages count elsewhere than those that take their
    /// place, and beyond its group's limit the process would be killed, here and now.
    room: usize,
    moved: usize,
    left: usize,
}

impl Account {
    fn copies(&self, shared: bool) -> usize {
        1 + if shared { self.forks } else { 0 }
    }
}

/// Sees to it that the copies of a fork can be made. The caller holds all locks of the heap. `all`
/// are the pages of all nodes, `workers` the number of warmer threads there are.
pub fn prepare(all: &[Pages], workers: usize) {
    let Some(first) = all.first() else {
        return;
    };
    // The copies need what the pool has promised to spare SuperSlabs; and the child, to which
    // nothing is promised, must not meet such mappings.
    all.iter().for_each(Pages::drop_promised);
    let forks = first.ground.policy.begin_fork();
    for mode in [PageMode::Hugetlb, PageMode::Hugetlb1g] {
        provide_copies(all, mode, forks, workers);
    }
}

fn provide_copies(all: &[Pages], mode: PageMode, forks: usize, workers: usize) {
    let policy = all[0].ground.policy;
    let (os, page) = (policy.os(), mode.page());
    let mapped: u64 = all.iter().map(|pages| pages.mapped_bytes(mode)).sum();
    let pages = mapped as usize / page;
    if pages == 0 {
        return;
    }
    let free = os.hugetlb_free(mode);
    let mut account = Account {
        need: 0,
        free,
        forks,
        room: os.memory_left() as usize / page,
        moved: 0,
        left: 0,
    };
    for node in all {
        node.each_hugetlb(mode, |_, address| {
            account.need += account.copies(forks > 0 && os.is_shared(address));
        });
    }
    for node in all {
        node.each_hugetlb(mode, |i, address| {
            if account.need > account.free {
                let shared = forks > 0 && os.is_shared(address);
                node.move_off(i, mode, workers, shared, &mut account);
            }
        });
    }
    let Account { moved, left, .. } = account;
    if moved + left > 0 && !policy.is_child() && policy.first_to_say(OnceMessage::Forked) {
        messages::forked(os, pages, free, moved, left);
    }
}

impl Pages {
    /// Moves a hugetlb page's contents to other pages.
    fn move_off(
        &self,
        i: NodeSuper,
        mode: PageMode,
        workers: usize,
        shared: bool,
        account: &mut Account,
    ) {
        let (policy, page, address) = (self.ground.policy, mode.page(), self.address(i));
        let bind = self.ground.affinity.binding(self.supers.id(i));
        // SAFETY: the page is mapped so, and the locks, which the caller of `prepare` holds, keep
        // it mapped and warmers from the heap.
        let demote = || unsafe { policy.os().demote(address, page, bind, workers) };
        if account.room == 0 || demote().is_err() {
            account.left += 1;
            return;
        }
        account.room -= 1;
        // SAFETY: mapped, on other pages.
        unsafe { policy.lock_memory(address, page) };
        // SAFETY: it is on these pages now.
        (0..page / SUPER).for_each(|k| unsafe { self.set_mode(i.add(k), PageMode::Thp) });
        account.need = account.need.saturating_sub(account.copies(shared));
        account.free += usize::from(!shared);
        account.moved += 1;
    }

    /// Whether growth may take pages for `count` SuperSlabs from a hugetlb pool. 1 GiB pages only
    /// before any fork.
    pub(super) fn may_take_hugetlb(&self, mode: PageMode, count: usize) -> bool {
        let policy = self.ground.policy;
        let (forks, os) = (policy.forks(), policy.os());
        if forks == 0 || policy.is_child() || mode == PageMode::Hugetlb1g {
            return forks == 0;
        }
        let (mut owed, mut shared) = (0, false);
        for of in [PageMode::Hugetlb, PageMode::Hugetlb1g] {
            for node in self.all_nodes() {
                node.each_hugetlb(of, |_, address| {
                    let copies = forks * usize::from(os.is_shared(address));
                    owed += if of == mode { copies } else { 0 };
                    shared |= copies > 0;
                });
            }
        }
        if !shared {
            // All children are gone, or are other programs. No fork comes between: it takes all
            // locks.
            policy.forget_forks();
        }
        owed == 0 || os.hugetlb_free(mode) >= owed + count
    }

    /// Visits the hugetlb pages of a mode: the first SuperSlab, and the address. Only a thread that
    /// holds all locks can rely on their staying mapped.
    fn each_hugetlb(&self, mode: PageMode, mut each: impl FnMut(NodeSuper, usize)) {
        let mut left = self.mapped_bytes(mode) as usize / mode.page();
        let mut next = 0;
        for i in below(self.frontier()) {
            if left == 0 {
                return;
            }
            if i.0 >= next && self.mode(i) == Some(mode) {
                left -= 1;
                each(i, self.address(i));
                next = i.0 + (mode.page() / SUPER) as u32;
            }
        }
    }
}
