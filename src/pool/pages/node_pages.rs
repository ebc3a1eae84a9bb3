//! The state of a node's pages, and the questions about it.
#![allow(unsafe_code)] // Maps and populates ranges of memory; finds the pages of the other nodes.

use super::claims::{self, Claims, EXAMINED, LOST, MODE, POPULATED, PREPARING};
use super::shelf::Shelf;
use super::spare::Spare;
use crate::geometry::{NodeIndex, NodeSuper, SUPER};
use crate::pool::addresses::SlotRun;
use crate::pool::ground::Ground;
use crate::pool::supers::Supers;
use crate::stats::board::NodeBoard;
use crate::stats::events::EventKind;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use theap_arch::valgrind;
use theap_platform::{Error, Mutex, NodeId, PAGE, PageMode, Rank};

/// Pages of one question where they lie.
const BATCH: usize = 128;

/// The pages of a node.
pub struct Pages {
    pub(super) ground: Ground,
    pub(super) supers: &'static Supers,
    pub(super) claims: Claims<'static>,
    /// SuperSlabs mapped now, by `PageMode`.
    mapped: &'static [AtomicUsize; PageMode::COUNT],
    /// The growth lock: of several threads that found no slots, one grows.
    pub(super) growth: Mutex<()>,
    pub(super) shelf: Shelf,
    pub(super) spare: Spare,
    /// Spare SuperSlabs on small pages, for threads that outrun the warmer: two steps, so that one
    /// is there while the other is mapped.
    pub(super) bridge: [Spare; 2],
    /// The flag says that what was mapped last came from a hugetlb pool.
    pub(super) from_pool: AtomicBool,
    /// Bytes that have bridged so far.
    pub(super) bridged: &'static AtomicU64,
    /// While this lock is held, no SuperSlab is unmapped: held for a step of the warmer, and across
    /// fork.
    unmapping: Mutex<()>,
    /// The warmer of the node runs, and prepares memory.
    has_warmer: AtomicBool,
    /// It runs.
    has_thread: AtomicBool,
    /// The pages of all nodes, this one's among them: the first and their number.
    all: (*const Pages, usize),
}

// SAFETY: `all` leads to an array of `Pages` that lives as long as the heap; the other fields are
// shared by themselves.
unsafe impl Send for Pages {}
// SAFETY: as for Send.
unsafe impl Sync for Pages {}

impl Pages {
    /// The pages of a node of which nothing is mapped.
    ///
    /// # Safety
    /// `all` are the place of the first of all nodes' pages and their number; all are written
    /// before any of them is used, and live as long as the heap.
    pub unsafe fn new(
        ground: Ground,
        supers: &'static Supers,
        claims: Claims<'static>,
        board: &'static NodeBoard,
        all: (*const Pages, usize),
    ) -> Self {
        Self {
            ground,
            supers,
            claims,
            mapped: &board.mapped,
            growth: Mutex::new(Rank::Growth, ()),
            shelf: Shelf::new(),
            spare: Spare::new(),
            bridge: [Spare::new(), Spare::new()],
            from_pool: AtomicBool::new(ground.policy.config().pages.takes_hugetlb()),
            bridged: &board.bridged,
            unmapping: Mutex::new(Rank::Unranked, ()),
            has_warmer: AtomicBool::new(false),
            has_thread: AtomicBool::new(false),
            all,
        }
    }

    /// The pages of all nodes.
    pub fn all_nodes(&self) -> &'static [Pages] {
        // SAFETY: `new` was promised that the array is complete before any of it is used, and lives
        // long enough.
        unsafe { core::slice::from_raw_parts(self.all.0, self.all.1) }
    }

    /// The node.
    pub(super) fn node(&self) -> NodeIndex {
        self.ground.addresses.node_of(self.supers.first().slot(0))
    }

    /// The page mode of a SuperSlab; `None` if it is not mapped.
    pub fn mode(&self, i: NodeSuper) -> Option<PageMode> {
        PageMode::from_number(self.claims.byte(i).load(Ordering::Acquire) & MODE)
    }

    /// The name of a SuperSlab's page mode, or why it has none, for a report.
    pub fn mode_name(&self, i: NodeSuper) -> &'static str {
        match (self.mode(i), self.claims.byte(i).load(Ordering::Relaxed)) {
            (_, PREPARING) => "not in use yet",
            (_, LOST) => "addresses lost",
            (Some(mode), _) => mode.name(),
            (None, _) => "reserved, not mapped",
        }
    }

    /// Notes that a SuperSlab is mapped in this mode now.
    ///
    /// # Safety
    /// It is, and the caller has claimed it, or its pages were replaced by others just now.
    pub(super) unsafe fn set_mode(&self, i: NodeSuper, mode: PageMode) {
        self.uncount(i);
        self.mapped[mode as usize].fetch_add(1, Ordering::Relaxed);
        self.claims.set_mode(i, mode as u8);
    }

    /// Notes that a SuperSlab was unmapped: it is a hole.
    ///
    /// # Safety
    /// The caller has unmapped it.
    pub(super) unsafe fn set_unmapped(&self, i: NodeSuper) {
        self.uncount_mapped(i);
        self.give_up(i, 1);
    }

    /// Gives claimed SuperSlabs back that are not mapped, and are nobody's.
    pub(super) fn give_up(&self, first: NodeSuper, count: usize) {
        // The index of extents leaves out what is nursed.
        (0..count).for_each(|k| self.supers.nursed().mark(first.add(k), false));
        self.claims.give_up(first, count);
    }

    /// Never uses a SuperSlab again: its addresses went to a foreign mapping.
    ///
    /// # Safety
    /// The caller has claimed the SuperSlab, or holds all its slots.
    pub unsafe fn set_lost(&self, i: NodeSuper) {
        self.uncount_mapped(i);
        self.claims.byte(i).store(LOST, Ordering::Release);
    }

    /// Counts a SuperSlab that is not mapped any more, if it was.
    fn uncount_mapped(&self, i: NodeSuper) {
        if self.mode(i).is_some() {
            self.ground.policy.limit().give(SUPER);
        }
        self.uncount(i);
    }

    fn uncount(&self, i: NodeSuper) {
        if let Some(mode) = self.mode(i) {
            self.mapped[mode as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether all pages of a SuperSlab were there at one moment since it was mapped or purged.
    pub fn is_populated(&self, i: NodeSuper) -> bool {
        self.claims.has(i, POPULATED)
    }

    pub(super) fn is_examined(&self, i: NodeSuper) -> bool {
        self.claims.has(i, EXAMINED)
    }

    /// No SuperSlab from here on is mapped.
    pub fn frontier(&self) -> NodeSuper {
        self.claims.frontier()
    }

    /// The SuperSlabs that are mapped.
    pub fn mapped_supers(&self) -> impl Iterator<Item = NodeSuper> + '_ {
        claims::below(self.frontier()).filter(|&i| self.mode(i).is_some())
    }

    /// The number of SuperSlabs mapped, in all modes.
    pub fn mapped_count(&self) -> usize {
        self.mapped.iter().map(|m| m.load(Ordering::Relaxed)).sum()
    }

    /// The bytes that are mapped in a page mode.
    pub fn mapped_bytes(&self, mode: PageMode) -> u64 {
        (self.mapped[mode as usize].load(Ordering::Relaxed) * SUPER) as u64
    }

    /// The bytes that can be taken without growth.
    pub fn free_bytes(&self) -> usize {
        self.mapped_supers()
            .map(|i| self.supers.slots(i).free_count() as usize * crate::geometry::SLOT)
            .sum()
    }

    /// The bytes that can be taken without growth and whose pages are there.
    pub fn ready_bytes(&self) -> usize {
        self.mapped_supers()
            .filter(|&i| self.is_populated(i))
            .map(|i| self.supers.slots(i).free_count() as usize * crate::geometry::SLOT)
            .sum()
    }

    /// The slots of the node.
    pub fn supers(&self) -> &'static Supers {
        self.supers
    }

    /// The first address of a SuperSlab.
    pub(super) fn address(&self, i: NodeSuper) -> usize {
        self.ground.addresses.address_of_super(self.supers.id(i))
    }

    /// Gives slots of the node back, and memory to the system where the node keeps too much.
    pub fn release_slots(&self, run: SlotRun) {
        let last = run.slot().add(run.len().max(1) - 1).split().0;
        self.ground.addresses.undress(&run);
        let mut any_idle = false;
        self.supers.release(run, |i| any_idle |= self.trim(i));
        if self.supers.decay().kept() != 0 || self.has_too_much() {
            self.trim_idle();
            self.shed(self.supers.local(last));
        } else if any_idle {
            self.trim_idle();
        }
    }

    /// Gives slots back that nobody has needed for long: their memory is idle. This makes no
    /// system call.
    pub fn release_idle(&self, run: SlotRun) {
        let slots = run.len();
        self.ground.addresses.undress(&run);
        self.supers.release(run, |_| {});
        let most = self.supers.warm().saturating_sub(self.floor());
        self.supers.decay().add_idle(slots, most);
    }

    /// Tells whether the warmer of the node runs, and whether it prepares memory.
    pub fn set_has_warmer(&self, runs: bool, prepares: bool) {
        self.has_thread.store(runs, Ordering::Relaxed);
        self.has_warmer.store(runs && prepares, Ordering::Relaxed);
    }

    /// Whether the warmer of the node runs, and prepares memory.
    pub fn has_warmer(&self) -> bool {
        self.has_warmer.load(Ordering::Relaxed)
    }

    /// Whether the warmer of the node runs: it gives back what is idle.
    pub fn has_thread(&self) -> bool {
        self.has_thread.load(Ordering::Relaxed)
    }

    /// The lock that keeps SuperSlabs mapped while it is held.
    pub fn unmapping(&self) -> &Mutex<()> {
        &self.unmapping
    }

    /// The growth lock.
    pub fn growth_lock(&self) -> &Mutex<()> {
        &self.growth
    }

    /// Maps SuperSlabs with their binding, `touched` of which get their hugetlb pages at once. A
    /// kernel or a container that refuses the binding serves without it.
    ///
    /// # Errors
    /// The errors of [`Os::map`](theap_platform::Os::map).
    ///
    /// # Safety
    /// The SuperSlabs are reserved and not mapped, and the caller has claimed them.
    pub(super) unsafe fn map(
        &self,
        i: NodeSuper,
        (count, touched): (usize, usize),
        mode: PageMode,
    ) -> Result<(), Error> {
        let (os, address) = (self.ground.policy.os(), self.address(i));
        let lens = (count * SUPER, touched * SUPER);
        if self.ground.policy.is_plain() {
            // SAFETY: this function's own Safety section. The advice was given at the start.
            return unsafe { os.open(address, lens.0) };
        }
        let bind = self.ground.affinity.binding(self.supers.id(i));
        // Memcheck would report the question whether the range is locked.
        // SAFETY: reserved and the caller's, as this function's Safety section asks; after an error
        // other than Lost the range is still reserved.
        let map = |bind| valgrind::quietly(|| unsafe { os.map_ahead(address, lens, mode, bind) });
        match map(bind) {
            Err(Error::Other(_)) if bind.is_some() => map(None),
            answer => answer,
        }
    }

    /// Populates a range as [`Os::populate`](theap_platform::Os::populate) does, and records that.
    ///
    /// # Errors
    /// The system's error.
    ///
    /// # Safety
    /// The range is mapped or committed.
    pub(super) unsafe fn populate(&self, address: usize, len: usize) -> Result<(), Error> {
        let Ground {
            policy, figures, ..
        } = self.ground;
        // SAFETY: mapped or committed, as this function's Safety section asks.
        figures.recorded(EventKind::Populate, 0, len, || unsafe {
            policy.os().populate(address, len)
        })
    }

    /// Touches the metadata of SuperSlabs, and records that.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn populate_metadata(&self, first: NodeSuper, count: usize) -> Result<(), Error> {
        let (id, metadata) = (self.supers.id(first), self.ground.metadata);
        let (_, len) = metadata.range(id, count);
        let populate = || metadata.populate(id, count);
        (self.ground.figures).recorded(EventKind::Populate, 0, len, populate)
    }

    /// Calls `each` with every piece of memory that is touched: its SuperSlab, the node it lies on,
    /// and its bytes.
    ///
    /// # Errors
    /// The errors of [`Os::nodes_of`](theap_platform::Os::nodes_of).
    pub fn each_resident(&self, mut each: impl FnMut(NodeSuper, NodeId, u64)) -> Result<(), Error> {
        for i in self.mapped_supers() {
            let address = self.address(i);
            // A hugetlb page is one; what looks like a transparent one may be in pieces.
            let (step, pages) = match self.mode(i) {
                Some(mode) if mode.is_hugetlb() => (SUPER, 1),
                _ => (PAGE, BATCH),
            };
            for at in (0..SUPER).step_by(step * pages) {
                let mut nodes = [None; BATCH];
                let os = self.ground.policy.os();
                os.nodes_of(address + at, step, &mut nodes[..pages])?;
                for on in nodes.into_iter().flatten() {
                    each(i, on, step as u64);
                }
            }
        }
        Ok(())
    }

    /// Counts the node's mapped SuperSlabs and EMPTY slots anew. Nobody else is inside the
    /// allocator.
    pub fn recount(&self) {
        let mut mapped = [0; PageMode::COUNT];
        for mode in self.mapped_supers().filter_map(|i| self.mode(i)) {
            mapped[mode as usize] += 1;
        }
        for (count, mapped) in self.mapped.iter().zip(mapped) {
            count.store(mapped, Ordering::Relaxed);
        }
        self.supers
            .recount(self.mapped_supers(), self.shelf.slots());
    }

    /// The slots of freed runs on the shelf, while nobody else is at it.
    #[cfg(any(test, debug_assertions))]
    pub fn shelved(&self) -> usize {
        self.shelf.slots()
    }

    /// Tells whether the count of holes is right and all extents are offered, while nobody else is
    /// at it.
    #[cfg(any(test, debug_assertions))]
    pub fn counts_holes(&self) -> bool {
        let is_hole = |i| self.claims.is_free(i);
        self.claims.holes() == self.claims.count_holes()
            && (self.supers).keeps_extents(self.frontier().index(), is_hole)
    }
}
