//! The warmer (`prefault=ahead`): a thread of each node that prepares SuperSlabs before they are
//! needed, gives back what was not needed for long, and puts small pages together where hugepages
//! were asked for. With `background=1` alone it gives back, and prepares nothing.
//!
//! It works in steps: it counts the SuperSlabs that are wholly free and populated (the stock), and
//! those that were begun since the last step; [`pace`] makes a target of that; then it prepares
//! some, or gives some back, or collapses one. Nobody wakes it: the next step comes after 1 to 100
//! ms.
//!
//! The thread may be kept from running at any moment, as everything else goes first but while it
//! changes mappings (`promptly`). So it holds nothing that a thread waits for which allocates or
//! frees: it claims what it maps by `claims`, gives back by the SP-SLOT word, and takes no lock but
//! its own. Sweeping the partial lists, which takes their locks, it leaves to the next thread that
//! searches for slots (`sweep_due`). A fork waits for the end of a step, and so does a thread that
//! purges hugetlb pages.
//!
//! It uses no thread-local variable (see `Os::start_worker`): its locks have no rank.
//!
//! It is started by the first growth beyond the first SuperSlab, ended by `park` (a sealed heap
//! makes no system call: the thread is gone), and not there in a forked child, whose next growth
//! starts it again.
#![allow(unsafe_code)] // Starts a thread, and frees locks by force after fork.

mod pace;
mod rounds;
#[cfg(test)]
mod tests;

use super::ground::Ground;
use super::pages::Pages;
use super::reclaim::Reclaim;
use super::supers::Supers;
use crate::config::{self, Prefault};
use crate::geometry::{NodeIndex, NodeSuper, SLOT, SLOTS, SUPER};
use crate::messages::{self, OnceMessage};
use crate::stats::board::NodeBoard;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use pace::{Limits, Pace, SHORTEST, Sight};
use rounds::Rounds;
use theap_platform::{Cpu, Cpus, Error, Mutex, Rank, RawMutex, Worker};

/// States: there is no thread, there is one, the system refused one, there must be none.
const NONE: u8 = 0;
const RUNNING: u8 = 1;
const REFUSED: u8 = 2;
const PARKED: u8 = 3;

/// Values of the gate, which tells the thread whether to go on.
const GO_ON: u32 = 0;
const END: u32 = 1;

/// SuperSlabs that a step gives back at most.
const STEP: usize = 4;
/// Spans that a step takes from heaps whose threads rest, at most.
const SPANS: usize = 64;
/// Nanoseconds of a step, of which the thread ran less than a quarter, that show that it is kept
/// from running.
const STARVED: u64 = 20_000_000;

/// The warmer of a node.
pub struct Warmer {
    ground: Ground,
    node: NodeIndex,
    pages: &'static Pages,
    supers: &'static Supers,
    board: &'static NodeBoard,
    reclaim: &'static Reclaim,
    /// Held while the thread is started or ended, and across fork.
    life: RawMutex,
    state: AtomicU8,
    gate: AtomicU32,
    worker: Worker,
    /// Before more is prepared, a thread that searches for slots should sweep the partial lists.
    sweep_due: AtomicBool,
    /// Bytes of memory that the process may use, as of the thread's start; 0 before.
    room: AtomicU64,
    pace: Mutex<(Pace, Rounds)>,
}

impl Warmer {
    /// The warmer of a node with these pages. There is no thread yet.
    pub fn new(
        ground: Ground,
        node: NodeIndex,
        pages: &'static Pages,
        reclaim: &'static Reclaim,
    ) -> Self {
        Self {
            ground,
            node,
            pages,
            supers: pages.supers(),
            board: ground.figures.node(node),
            reclaim,
            life: RawMutex::new(),
            state: AtomicU8::new(NONE),
            gate: AtomicU32::new(GO_ON),
            worker: Worker::default(),
            sweep_due: AtomicBool::new(false),
            room: AtomicU64::new(0),
            pace: Mutex::new(Rank::Unranked, <(Pace, Rounds)>::default()),
        }
    }

    fn set_state(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
        self.pages
            .set_has_warmer(state == RUNNING, self.works_ahead());
        if self.node.index() == 0 {
            self.reclaim.set_has_worker(state == RUNNING);
        }
    }

    /// Whether it prepares memory.
    fn works_ahead(&self) -> bool {
        self.ground.policy.config().prefault == Prefault::Ahead
    }

    /// Whether a thread should sweep the partial lists; true once each time that the warmer asks
    /// for it.
    pub fn take_sweep(&self) -> bool {
        self.sweep_due.load(Ordering::Relaxed) && self.sweep_due.swap(false, Ordering::Relaxed)
    }

    /// Starts the thread if the options want it and the node has more than its first SuperSlab.
    /// Never waits.
    pub fn start(&'static self) {
        let policy = self.ground.policy;
        if !(self.works_ahead() || policy.config().background)
            || self.state.load(Ordering::Relaxed) != NONE
            || self.pages.frontier().0 < 2
            || !self.life.try_lock()
        {
            return;
        }
        if self.state.load(Ordering::Relaxed) == NONE {
            let state = match self.start_thread() {
                Ok(()) => {
                    self.board.warmer_starts.fetch_add(1, Ordering::Relaxed);
                    RUNNING
                }
                Err(error) => {
                    if policy.first_to_say(OnceMessage::NoWarmer) {
                        messages::no_warmer(policy.os(), error);
                    }
                    REFUSED
                }
            };
            self.set_state(state);
        }
        // SAFETY: `try_lock` above gave this thread the lock.
        unsafe { self.life.unlock() };
    }

    fn start_thread(&'static self) -> Result<(), Error> {
        let argument = core::ptr::from_ref(self) as usize;
        let os = self.ground.policy.os();
        // SAFETY: under the lock of its life, in the state without a thread: the last one was
        // joined, or was the parent process's. The thread gets a warmer that lives for ever.
        unsafe { os.start_worker(&self.worker, work, argument) }
    }

    /// Ends the thread and lets none start until `unpark`; waits for the end of a step.
    pub fn park(&'static self) {
        let os = self.ground.policy.os();
        self.life.lock();
        if self.state.load(Ordering::Relaxed) == RUNNING {
            self.gate.store(END, Ordering::Release);
            os.wake(&self.gate);
            os.join_worker(&self.worker);
            self.gate.store(GO_ON, Ordering::Relaxed);
        }
        self.set_state(PARKED);
        // SAFETY: this thread took the lock above.
        unsafe { self.life.unlock() };
    }

    /// Lets the thread start again after `park`.
    pub fn unpark(&'static self) {
        let _ = (self.state).compare_exchange(PARKED, NONE, Ordering::Relaxed, Ordering::Relaxed);
        self.start();
    }

    /// Before fork: nobody is within a step from here on.
    pub fn lock(&self) {
        self.life.lock();
        self.pages.unmapping().lock_for_fork();
    }

    /// Frees what `lock` took, in the parent or in the child.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `lock` before.
    pub unsafe fn unlock(&self) {
        // SAFETY: this thread holds both locks, as this function's Safety section asks.
        unsafe {
            self.pages.unmapping().force_unlock();
            self.life.unlock();
        }
    }

    /// Whether there is the thread.
    pub fn exists(&self) -> bool {
        self.worker.exists()
    }

    /// In a forked child, whose parent had the thread. The caller holds all locks.
    pub fn forget(&self) {
        self.worker.forget();
        if self.state.load(Ordering::Relaxed) != PARKED {
            self.set_state(NONE);
        }
    }
}

/// The thread.
fn work(warmer: usize) {
    // SAFETY: `start_thread` passes a warmer, which lives as long as the process.
    let warmer = unsafe { &*(warmer as *const Warmer) };
    let (os, gate) = (warmer.ground.policy.os(), &warmer.gate);
    os.name_thread(c"theap-warmer");
    os.run_idle(true);
    warmer.settle();
    while gate.load(Ordering::Acquire) == GO_ON {
        match warmer.step() {
            0 => {}
            ns => os.sleep(gate, GO_ON, ns),
        }
    }
}

impl Warmer {
    /// Finds out what the process may use, and puts this thread where it should run: near the
    /// node's memory if possible.
    fn settle(&self) {
        let Ground {
            policy, affinity, ..
        } = self.ground;
        let (os, config) = (policy.os(), policy.config());
        // A stock beyond what its control group may use would get the process killed.
        let room = match config.pages {
            config::Pages::Hugetlb | config::Pages::Hugetlb1g => os.total_memory(),
            _ => os.memory_limit(),
        };
        self.room.store(room, Ordering::Relaxed);
        let (mut all, mut near) = (Cpus::none(), Cpus::none());
        for cpu in (0..affinity.cpus() as u32).map(Cpu) {
            all.add(cpu);
            if affinity.node_of_cpu(cpu) == Some(self.node) {
                near.add(cpu);
            }
        }
        let named = config.warmer_cpus;
        let wanted = named.unwrap_or_else(|| all.without(&os.pinned_to()));
        let settled = [wanted.and(&near), wanted]
            .iter()
            .any(|cpus| !cpus.is_empty() && os.run_on(cpus).is_ok());
        if settled {
            return;
        }
        // Where only the CPUs of the thread that grew are left, all are better.
        let _ = os.run_on(&all);
        if named.is_some() && policy.first_to_say(OnceMessage::WarmerCpus) {
            messages::warmer_cpus(os);
        }
    }

    fn limits(&self) -> Limits {
        let policy = self.ground.policy;
        let room = match self.room.load(Ordering::Relaxed) {
            0 => policy.os().total_memory(),
            room => room,
        };
        let nodes = self.ground.addresses.node_count();
        let ahead = policy.ahead().div_ceil(SUPER).min(self.supers.count());
        let most = room as usize / 8 / nodes / SUPER;
        let (ahead, most) = if self.works_ahead() {
            (ahead, most)
        } else {
            (0, 0)
        };
        Limits {
            ahead,
            most,
            floor: self.pages.floor().div_ceil(SLOTS),
            decay: policy.decay(),
        }
    }

    /// A step of the warmer. The nanoseconds until the next one. Tests take steps by themselves.
    pub fn step(&self) -> u64 {
        let limits = self.limits();
        let _unmapping = self.pages.unmapping().lock();
        let mut state = self.pace.lock();
        let (pace, rounds) = &mut *state;
        let (sight, cold) = self.sight();
        let now = self.ground.policy.os().now();
        pace.observe(now, sight, limits);
        self.pages.end_period(now);
        if self.is_pressed() {
            pace.press(sight);
        }
        let missing = pace.missing(limits, sight.ready);
        let sight = if missing > 0 {
            match self.promptly(|| self.prepare(missing, cold)) {
                Ok(()) => pace.served(),
                Err(_) => pace.refused(),
            }
            self.sight().0
        } else if pace.excess() > 0 {
            let count = pace.excess().min(STEP);
            let keep = pace.keep(limits);
            let _ = self.promptly(|| {
                self.give_back(keep, count);
                Ok(())
            });
            pace.gave_back(count);
            self.sight().0
        } else if self.has_idle_slots(pace, limits) {
            pace.worn = self.give_back_slots(pace.worn);
            sight
        } else {
            self.map_ahead();
            self.collapse_one(rounds, now, pace.rests());
            sight
        };
        let bytes = |supers: usize| (supers * SUPER) as u64;
        let (stock, target) = (bytes(sight.ready), bytes(pace.target(limits)));
        self.board.stock.store(stock, Ordering::Relaxed);
        self.board.stock_target.store(target, Ordering::Relaxed);
        let pause = pace.end(sight, limits);
        if self.reclaims(now) | self.has_idle_slots(pace, limits) {
            pause.min(SHORTEST)
        } else {
            pause.min(rounds.pause(now))
        }
    }

    /// Maps a step of growth where none is spare, so that threads need not. A pool of hugetlb pages
    /// would promise pages for that.
    fn map_ahead(&self) {
        let takes_hugetlb = self.ground.policy.config().pages.takes_hugetlb();
        if self.pages.wants_ahead(!takes_hugetlb) {
            let _ = self.promptly(|| {
                self.pages.map_bridge();
                if !takes_hugetlb {
                    self.pages.map_ahead();
                }
                Ok(())
            });
        }
    }

    /// Takes from heaps whose threads rest; the first node's warmer does so for all. Whether there
    /// is more.
    fn reclaims(&self, now: u64) -> bool {
        let mut more = false;
        if self.node.index() == 0 {
            // A thread that wakes up may wait for a heap's lock.
            let _ = self.promptly(|| {
                more = self.reclaim.work(now, SPANS);
                Ok(())
            });
        }
        more
    }

    /// Whether slots beyond the target are to be given back.
    fn has_idle_slots(&self, pace: &Pace, limits: Limits) -> bool {
        self.supers.decay().idle() > pace.target(limits) * SLOTS
    }

    /// Whether memory became short on the machine or in the group; a thread of the program acts on
    /// that, too. One warmer looks, and none of a forked child, which has its parent's descriptor.
    fn is_pressed(&self) -> bool {
        let policy = self.ground.policy;
        let looks = self.node.index() == 0 && !policy.is_child();
        let pressed = looks && policy.os().is_pressed(policy.pressure());
        if pressed {
            policy.limit().note();
        }
        pressed
    }

    /// Does what takes the kernel's lock on the address space, for which threads that grow may
    /// wait: as an ordinary thread, where it may become one. Where it may not and its CPUs are
    /// busy, that is an error: better no stock than a thread that is kept waiting.
    fn promptly(&self, what: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let policy = self.ground.policy;
        let os = policy.os();
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
            if policy.first_to_say(OnceMessage::Starved) {
                messages::starved(os);
            }
            return Err(Error::NoMemory);
        }
        done
    }

    /// The free SuperSlabs now, and one of them without pages, if there is one.
    fn sight(&self) -> (Sight, Option<NodeSuper>) {
        let mut sight = Sight {
            held: self.pages.promised_count(),
            mapped: self.pages.mapped_count(),
            ..Sight::default()
        };
        let mut cold = None;
        for i in self.supers.whole() {
            sight.whole += 1;
            sight.held += usize::from(self.pages.has_memory(i));
            if self.pages.is_populated(i) {
                sight.ready += 1;
            } else {
                cold = cold.or(Some(i));
            }
        }
        (sight, cold)
    }

    /// Prepares at least one SuperSlab: one that lost its pages, else a hole, else new ones.
    fn prepare(&self, missing: usize, cold: Option<NodeSuper>) -> Result<(), Error> {
        self.sweep_due.store(true, Ordering::Relaxed);
        let count = self.pages.prepare(missing, cold)?;
        let bytes = (count * SUPER) as u64;
        self.board.prepared.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Gives up to `count` free SuperSlabs back, but for the `keep` first ones.
    fn give_back(&self, keep: usize, count: usize) {
        let given_back = &self.board.given_back;
        self.pages.give_back(keep, count, |bytes| {
            self.supers.decay().gave_idle(bytes / SLOT);
            given_back.fetch_add(bytes as u64, Ordering::Relaxed);
        });
    }

    /// Gives idle slots of a SuperSlab in use back. Where the search goes on next time.
    fn give_back_slots(&self, cursor: usize) -> usize {
        let (given_back, mut next) = (&self.board.given_back, cursor);
        let _ = self.promptly(|| {
            next = self.pages.give_back_slots(cursor, |bytes| {
                given_back.fetch_add(bytes as u64, Ordering::Relaxed);
            });
            Ok(())
        });
        next
    }

    /// Looks for SuperSlabs that have been filled up for long and may be on small pages, where it
    /// is time, and asks for hugepages for one of them. A hugepage is charged to the control group
    /// before the small pages are free: one that would exceed the group's limit is not asked for.
    /// The kernel copies under its lock on the address space, so that waits until growth `rests`.
    fn collapse_one(&self, rounds: &mut Rounds, now: u64, rests: bool) {
        if let Some(over) = rounds.look(now, self.ground.policy.decay()) {
            rounds.ripe = self.pages.look_for_ripe(over);
        }
        if !rests || !rounds.collapses(now) {
            return;
        }
        let room = self.room.load(Ordering::Relaxed);
        let mapped = (self.pages.all_nodes().iter()).map(Pages::mapped_count);
        if room != 0 && ((mapped.sum::<usize>() + 1) * SUPER) as u64 > room {
            return rounds.refused(now);
        }
        let collapsed = (self.pages).collapse_one(rounds.cursor, |call| self.promptly(call));
        let Some((next, done)) = collapsed else {
            rounds.ripe = 0;
            return;
        };
        rounds.cursor = next;
        if done.is_ok() {
            rounds.served();
            let bytes = SUPER as u64;
            self.board.collapsed.fetch_add(bytes, Ordering::Relaxed);
        } else {
            rounds.refused(now);
        }
    }
}
