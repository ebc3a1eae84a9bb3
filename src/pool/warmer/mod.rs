//! The warmer (`prefault=ahead`): a thread of each node that prepares SuperSlabs before they are needed, gives back
//! what was not needed for long, and puts small pages together where hugepages were asked for.
//!
//! It works in steps: it looks how many SuperSlabs are wholly free and populated (the stock), and how many were begun
//! since the last look; [`pace`] makes a target of that; then it prepares some, or gives some back, or collapses one.
//! Nobody wakes it: it looks again after 1 to 100 ms.
//!
//! The thread may be kept from running at any moment, as everything else goes first but while it changes mappings
//! (`promptly`). So it holds nothing that a thread
//! waits for which allocates or frees: it claims what it maps by `claims`, gives back by the SP-SLOT word, and takes no
//! lock but its own. Sweeping the partial lists, which takes their locks, it leaves to the next thread that looks for
//! slots (`sweep_due`). A fork waits for the end of a step, and so does who purges hugetlb pages.
//!
//! It uses no thread-local variable (see `Os::start_worker`): its locks have no rank.
//!
//! It is started by the first growth beyond the first SuperSlab, ended by `park` (a sealed heap makes no system call:
//! the thread is gone), and not there in a forked child, whose next growth starts it again.

mod pace;
#[cfg(test)]
mod tests;

use super::avail::WHOLE;
use super::claims::{EXAMINED, POPULATED};
use super::node::Node;
use super::superslab::SLOTS;
use super::{SUPER, kind};
use crate::config::{Pages, Prefault};
use crate::fatal::{self, Saying};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use pace::{Limits, Pace, Sight};
use theap_platform::{Cpu, Cpus, Error, Mutex, PageMode, Rank, RawMutex, Worker};

/// States: there is no thread, there is one, the system refused one, there must be none.
const NONE: u8 = 0;
const RUNNING: u8 = 1;
const REFUSED: u8 = 2;
const PARKED: u8 = 3;

/// What the gate says to the thread.
const GO_ON: u32 = 0;
const END: u32 = 1;

/// SuperSlabs that a step prepares at most in a small heap, and gives back at most.
const STEP: usize = 4;
/// SuperSlabs that a step looks at in search of small pages.
const LOOKS: usize = 64;
/// Nanoseconds of a step, of which the thread ran less than a quarter, that show that it is kept from running.
const STARVED: u64 = 20_000_000;
/// Free slots up to which a SuperSlab counts as filled up.
const FULL: u32 = 8;

/// A node's warmer.
#[derive(Default)]
pub struct Warmer {
    /// Held while the thread is started or ended, and across fork.
    life: RawMutex,
    /// Held for a step, while a hugetlb page is unmapped, and across fork.
    pub(super) step: Step,
    state: AtomicU8,
    gate: AtomicU32,
    worker: Worker,
    /// Before more is prepared, somebody should sweep the partial lists.
    sweep_due: AtomicBool,
    /// Bytes of memory that the process may use, as of the thread's start; 0 before.
    room: AtomicU64,
}

/// The lock of a step.
pub struct Step(pub Mutex<Pace>);

impl Default for Step {
    fn default() -> Self {
        Self(Mutex::new(Rank(0), Pace::default()))
    }
}

impl Node {
    /// Whether the warmer is there.
    pub(super) fn warmer_runs(&self) -> bool {
        self.warmer.state.load(Ordering::Relaxed) == RUNNING
    }

    /// Whether somebody should sweep, asked once.
    pub(super) fn take_sweep(&self) -> bool {
        self.warmer.sweep_due.load(Ordering::Relaxed)
            && self.warmer.sweep_due.swap(false, Ordering::Relaxed)
    }

    /// Starts the warmer if the options want it and the heap has more than its first SuperSlab. Never waits.
    pub(super) fn start_warmer(&self) {
        let warmer = &self.warmer;
        if self.arena.config.prefault != Prefault::Ahead
            || warmer.state.load(Ordering::Relaxed) != NONE
            || self.claims.frontier() < 2
            || !warmer.life.try_lock()
        {
            return;
        }
        if warmer.state.load(Ordering::Relaxed) == NONE {
            let state = match self.start_thread() {
                Ok(()) => {
                    self.board.warmer_starts.fetch_add(1, Ordering::Relaxed);
                    RUNNING
                }
                Err(error) => {
                    if self.arena.first_to_say(Saying::NoWarmer) {
                        fatal::no_warmer(self.arena.os, error);
                    }
                    REFUSED
                }
            };
            warmer.state.store(state, Ordering::Relaxed);
        }
        // SAFETY: `try_lock` above gave this thread the lock.
        unsafe { warmer.life.unlock() };
    }

    fn start_thread(&self) -> Result<(), Error> {
        // SAFETY: nodes lie in the arena's metadata and live as long as the process.
        let node: &'static Node = unsafe { &*core::ptr::from_ref(self) };
        let argument = core::ptr::from_ref(node) as usize;
        // SAFETY: under the lock of its life, in the state without a thread: the last one was joined, or was the
        // parent process's.
        unsafe {
            node.arena
                .os
                .start_worker(&node.warmer.worker, work, argument)
        }
    }

    /// Ends the warmer and lets none start until `unpark_warmer`; waits for the end of a step.
    pub(super) fn park_warmer(&self) {
        let warmer = &self.warmer;
        warmer.life.lock();
        if warmer.state.load(Ordering::Relaxed) == RUNNING {
            warmer.gate.store(END, Ordering::Release);
            self.arena.os.wake(&warmer.gate);
            self.arena.os.join_worker(&warmer.worker);
            warmer.gate.store(GO_ON, Ordering::Relaxed);
        }
        warmer.state.store(PARKED, Ordering::Relaxed);
        // SAFETY: this thread took the lock above.
        unsafe { warmer.life.unlock() };
    }

    /// Ends what `park_warmer` began.
    pub(super) fn unpark_warmer(&self) {
        let state = &self.warmer.state;
        let _ = state.compare_exchange(PARKED, NONE, Ordering::Relaxed, Ordering::Relaxed);
        self.start_warmer();
    }

    /// Before fork: nobody is within a step from here on.
    pub(super) fn lock_warmer(&self) {
        self.warmer.life.lock();
        self.warmer.step.0.lock_for_fork();
    }

    /// # Safety
    /// As for `Arena::unlock_all`.
    pub(super) unsafe fn unlock_warmer(&self) {
        // SAFETY: `lock_warmer` took both locks on this thread, as the caller promises.
        unsafe {
            self.warmer.step.0.force_unlock();
            self.warmer.life.unlock();
        }
    }

    /// Whether there is the thread.
    pub(super) fn has_warmer(&self) -> bool {
        self.warmer.worker.exists()
    }

    /// In a forked child, whose parent had the thread. The caller holds all locks.
    pub(super) fn forget_warmer(&self) {
        let warmer = &self.warmer;
        warmer.worker.forget();
        if warmer.state.load(Ordering::Relaxed) != PARKED {
            warmer.state.store(NONE, Ordering::Relaxed);
        }
    }
}

/// What the thread does.
fn work(node: usize) {
    // SAFETY: `start_thread` passes a node, which lives as long as the process.
    let node = unsafe { &*(node as *const Node) };
    let (os, gate) = (node.arena.os, &node.warmer.gate);
    os.name_thread(c"theap-warmer");
    os.run_idle(true);
    node.settle();
    while gate.load(Ordering::Acquire) == GO_ON {
        match node.warm_step() {
            0 => {}
            ns => os.sleep(gate, GO_ON, ns),
        }
    }
}

impl Node {
    /// Looks what the process may use, and puts this thread where it should run: near the node's memory if possible.
    fn settle(&self) {
        let (arena, os) = (self.arena, self.arena.os);
        // A stock beyond what its control group may use would get the process killed.
        let room = match arena.config.pages {
            Pages::Hugetlb | Pages::Hugetlb1g => os.total_memory(),
            _ => os.memory_limit(),
        };
        self.warmer.room.store(room, Ordering::Relaxed);
        let (mut all, mut near) = (Cpus::none(), Cpus::none());
        for cpu in (0..arena.cpus() as u32).map(Cpu) {
            all.add(cpu);
            if arena.node_of_cpu(cpu) == Some(self.first / self.supers) {
                near.add(cpu);
            }
        }
        let named = arena.config.warmer_cpus;
        let wanted = named.unwrap_or_else(|| all.without(&os.pinned_to()));
        let settled = [wanted.and(&near), wanted]
            .iter()
            .any(|cpus| !cpus.is_empty() && os.run_on(cpus).is_ok());
        if settled {
            return;
        }
        // Where only the CPUs of the thread that grew are left, all are better.
        let _ = os.run_on(&all);
        if named.is_some() && arena.first_to_say(Saying::WarmerCpus) {
            fatal::warmer_cpus(os);
        }
    }

    fn limits(&self) -> Limits {
        let config = &self.arena.config;
        let room = match self.warmer.room.load(Ordering::Relaxed) {
            0 => self.arena.os.total_memory(),
            room => room,
        };
        Limits {
            ahead: config.ahead.div_ceil(SUPER).min(self.supers),
            most: room as usize / 8 / self.arena.node_count() / SUPER,
            retain: config.retain / SUPER,
            decay: config.decay.saturating_mul(1_000_000),
        }
    }

    /// A step of the warmer. When it wants to do the next one: in so many nanoseconds. Tests take it by themselves.
    pub fn warm_step(&self) -> u64 {
        let limits = self.limits();
        let mut pace = self.warmer.step.0.lock();
        let (sight, cold) = self.look();
        pace.observe(self.arena.os.now(), sight, limits);
        let missing = pace.missing(limits, sight.ready);
        let sight = if missing > 0 {
            match self.promptly(|| self.prepare(missing, cold)) {
                Ok(()) => pace.served(),
                Err(_) => pace.refused(),
            }
            self.look().0
        } else if pace.excess() > 0 {
            let count = pace.excess().min(STEP);
            let _ = self.promptly(|| {
                self.give_back(pace.target(limits).max(limits.retain), count);
                Ok(())
            });
            pace.gave_back(count);
            self.look().0
        } else {
            pace.cursor = self.collapse_one(pace.cursor);
            sight
        };
        let bytes = |supers: usize| (supers * SUPER) as u64;
        self.board
            .stock
            .store(bytes(sight.ready), Ordering::Relaxed);
        self.board
            .stock_target
            .store(bytes(pace.target(limits)), Ordering::Relaxed);
        pace.end(sight, limits)
    }

    /// Does what takes the kernel's lock on the address space, for which threads that grow may wait: as an ordinary
    /// thread, where it may become one. Where it may not and its CPUs are busy, that is an error: better no stock than
    /// a thread that is kept waiting.
    fn promptly(&self, what: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let os = self.arena.os;
        let ordinary = os.run_idle(false);
        let (begun, ran) = (os.now(), os.thread_time());
        let done = what();
        let (took, ran) = (
            os.now().saturating_sub(begun),
            os.thread_time().saturating_sub(ran),
        );
        if ordinary {
            os.run_idle(true);
        } else if took > STARVED && ran < took / 4 {
            if self.arena.first_to_say(Saying::Starved) {
                fatal::starved(os);
            }
            return Err(Error::NoMemory);
        }
        done
    }

    /// What is free, and a free SuperSlab without pages, if there is one.
    fn look(&self) -> (Sight, Option<usize>) {
        let mut sight = Sight {
            mapped: self.mapped.iter().map(|m| m.load(Ordering::Relaxed)).sum(),
            ..Sight::default()
        };
        let mut cold = None;
        for i in self.whole_supers() {
            sight.whole += 1;
            sight.held += usize::from(self.has_memory(i));
            if self.claims.has(i, POPULATED) {
                sight.ready += 1;
            } else {
                cold = cold.or(Some(i));
            }
        }
        (sight, cold)
    }

    /// Whether a free SuperSlab has pages: the warmer's, or what threads touched.
    fn has_memory(&self, i: usize) -> bool {
        self.claims.has(i, POPULATED) || self.word(i).get().has_empty()
    }

    /// SuperSlabs of which nothing is in use.
    fn whole_supers(&self) -> impl Iterator<Item = usize> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let i = self.avail.levels[WHOLE].next(from)?;
            from = i + 1;
            Some(i)
        })
        .filter(|&i| self.word(i).get().free_count() as usize == SLOTS)
    }

    /// Prepares at least one SuperSlab: one that lost its pages, else a hole, else new ones.
    fn prepare(&self, missing: usize, cold: Option<usize>) -> Result<(), Error> {
        self.warmer.sweep_due.store(true, Ordering::Relaxed);
        let before = self.claims.frontier();
        let (first, count) = if let Some(i) = cold {
            self.populate_super(i)?;
            (i, 1)
        } else if let Some(i) = self.claims.claim_hole() {
            self.map_claimed(i, 1, 0)?;
            (i, 1)
        } else if let Some(i) = self.add_gigantic(0) {
            (i, self.claims.frontier().saturating_sub(i))
        } else {
            let mut count = missing.min(STEP.max(before / 64)).min(self.step_limit());
            if self.arena.config.pages.takes_hugetlb() {
                // A step that the hugetlb pool can serve only in part would go to other pages as a whole.
                count = count
                    .min(self.arena.os.hugetlb_free(PageMode::Hugetlb))
                    .max(1);
            }
            let (first, count) = self.claims.claim_ahead(count).ok_or(Error::NoMemory)?;
            match self.map_claimed(first, count, 0) {
                Err(_) if count > 1 => {
                    let (first, one) = self.claims.claim_ahead(1).ok_or(Error::NoMemory)?;
                    self.map_claimed(first, one, 0)?;
                    (first, one)
                }
                done => done.map(|()| (first, count))?,
            }
        };
        self.board
            .prepared
            .fetch_add((count * SUPER) as u64, Ordering::Relaxed);
        // What cannot be populated is not in the stock: without this the next step would follow at once.
        if self.claims.has(first, POPULATED) {
            Ok(())
        } else {
            Err(Error::NoMemory)
        }
    }

    /// The pages of a mapped SuperSlab and of its metadata. What is taken of it meanwhile does not mind.
    fn populate_super(&self, i: usize) -> Result<(), Error> {
        let (meta, len) = self.arena.meta_range(self.first + i, 1);
        let address = self.arena.address_of((self.first + i) * SLOTS);
        // SAFETY: the metadata of what was ever mapped is committed. The SuperSlab was mapped when it was found, on pages
        // that are not unmapped but by who has the lock of the step.
        unsafe {
            self.arena.os.populate(meta, len)?;
            self.arena.os.populate(address, SUPER)?;
        }
        self.claims.mark(i, POPULATED);
        Ok(())
    }

    /// Gives up to `count` free SuperSlabs back, but for the `keep` first ones.
    fn give_back(&self, keep: usize, count: usize) {
        let beyond = self.whole_supers().filter(|&i| self.has_memory(i));
        for i in beyond.skip(keep).take(count) {
            let bytes = self.purge_stock(i);
            self.board
                .given_back
                .fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Asks for hugepages for the next SuperSlab that is filled up and may be on small pages, once. Where to go on.
    fn collapse_one(&self, cursor: usize) -> usize {
        let pages = self.arena.config.pages;
        let frontier = self.claims.frontier();
        for k in 0..LOOKS.min(frontier) {
            let i = (cursor + k) % frontier;
            let may = match self.mode(i) {
                Some(PageMode::Small) => pages == Pages::Auto,
                Some(PageMode::Thp) => true,
                _ => false,
            };
            let slot = (self.first + i) * SLOTS;
            // The pages of a huge run may be moved by its owner at any moment.
            let huge = self.arena.kind(slot).load(Ordering::Relaxed) == kind::HUGE;
            if !may
                || huge
                || self.claims.has(i, EXAMINED)
                || self.word(i).get().free_count() > FULL
            {
                continue;
            }
            // SAFETY: mapped on small or transparent pages, which stay mapped.
            let collapse = || unsafe { self.arena.os.collapse(self.arena.address_of(slot), SUPER) };
            if self.promptly(collapse).is_ok() {
                self.set_mode(i, PageMode::Thp);
                self.claims.mark(i, POPULATED);
                self.board
                    .collapsed
                    .fetch_add(SUPER as u64, Ordering::Relaxed);
            }
            self.claims.mark(i, EXAMINED);
            return i + 1;
        }
        if frontier == 0 {
            0
        } else {
            (cursor + LOOKS) % frontier
        }
    }
}
