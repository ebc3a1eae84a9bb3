//! An arena: everything that a process (or a test) allocates from, put together of its parts.
//!
//! One range of addresses holds the blocks, another one the metadata, with the arena at its front;
//! the arena is never moved.
#![allow(unsafe_code)] // Lays out raw memory.

#[cfg(test)]
mod apart;

use super::addresses::AddressMap;
use super::affinity::Affinity;
use super::figures::{self, Figures};
use super::ground::Ground;
use super::heaps::{HeapBytes, Heaps};
use super::layout::{Layout, Places, Shape};
use super::metadata::{Metadata, Tables};
use super::node::Node;
use super::pages::{Pages, SMALL, fork};
use super::policy::Policy;
use super::reclaim::Reclaim;
use super::runs::Runs;
use super::spans::{NodeLists, Spans};
use super::supers::Supers;
use super::warmer::Warmer;
use crate::config::{self, Calls, Config, Numa, SHARE};
use crate::geometry::{NodeIndex, SUPER};
use crate::stats::board::Extent;
use core::sync::atomic::Ordering;
use theap_arch::valgrind;
use theap_platform::{Error, HUGE, HUGE_1G, Os, PageMode, Topology};

/// A range is never smaller.
const LEAST: usize = 64 << 20;

/// An arena. Its parts have contracts of their own; what concerns several of them is a method here.
pub struct Arena {
    ground: Ground,
    nodes: &'static [Node],
    spans: &'static Spans,
    runs: Runs,
    heaps: &'static Heaps,
    reclaim: &'static Reclaim,
    memory: Memory,
    /// Bytes at the beginning of the metadata that have the parts and the stashes, in whole pages.
    front: usize,
}

/// Places that are tried before everything is reserved where the kernel likes.
const PLACES: usize = 4;

/// The addresses of an arena: those of its blocks and those of its metadata.
#[derive(Clone, Copy)]
struct Memory {
    base: usize,
    len: usize,
    meta: usize,
    meta_len: usize,
    /// Only so many bytes of the metadata are reserved, the rest when it comes into use.
    late: Option<usize>,
}

impl Memory {
    /// Addresses for a layout and a range of `len` bytes. Almost nothing of them is reserved, if a
    /// place can be had where that is enough.
    fn find(os: Os, len: usize, align: usize, layout: &Layout, plain: bool) -> Result<Self, Error> {
        // Plain calls are enough only where nothing has to be reserved later.
        let places = if plain { 0 } else { PLACES };
        (0..places)
            .find_map(|_| Self::place(os, len, align, layout))
            .map_or_else(|| Self::reserve(os, len, align, layout.total()), Ok)
    }

    fn place(os: Os, len: usize, align: usize, layout: &Layout) -> Option<Self> {
        let meta_len = layout.total().next_multiple_of(align);
        let meta = os.distant_place(meta_len + len, align)?;
        #[cfg(test)]
        if !apart::claim(meta..meta + meta_len + len) {
            return None;
        }
        os.reserve_at(meta, layout.reserved()).ok()?;
        Some(Self {
            base: meta + meta_len,
            len,
            meta,
            meta_len,
            late: Some(layout.reserved()),
        })
    }

    /// Reserves everything.
    fn reserve(os: Os, len: usize, align: usize, meta_len: usize) -> Result<Self, Error> {
        let base = os.reserve(len, align)?;
        match os.reserve(meta_len, HUGE) {
            Ok(meta) => Ok(Self {
                base,
                len,
                meta,
                meta_len,
                late: None,
            }),
            Err(error) => {
                // SAFETY: reserved above, not used yet.
                unsafe { os.unreserve(base, len) };
                Err(error)
            }
        }
    }

    fn extent(&self) -> Extent {
        Extent {
            metadata: self.meta,
            blocks: self.base,
            len: self.len,
        }
    }

    /// Gives back what was reserved before an arena came to be.
    ///
    /// # Safety
    /// Nothing refers to it, but for the metadata if `why` is [`Error::Lost`]: that may be somebody
    /// else's in part, and stays.
    unsafe fn give_back(self, os: Os, why: Error) {
        // SAFETY: reserved, and not used, as this function's Safety section asks.
        unsafe {
            if why != Error::Lost {
                os.unreserve(self.meta, self.late.unwrap_or(self.meta_len));
            }
            #[cfg(test)]
            apart::release(self.meta);
            if self.late.is_none() {
                os.unreserve(self.base, self.len);
            }
        }
    }
}

/// Creation.
impl Arena {
    /// Makes an arena with a range and metadata. `heap_bytes` is what a heap's memory takes.
    ///
    /// # Errors
    /// The system's error when it refused even the smallest range.
    #[inline(never)] // Nor is this function's frame to lie below that of reading the options.
    pub fn create(
        os: Os,
        mut config: Config,
        heap_bytes: HeapBytes,
    ) -> Result<&'static Arena, Error> {
        let topology = os.topology();
        let mut shape = Shape {
            len: wanted(os, &config),
            nodes: match config.numa {
                Numa::Local if cfg!(feature = "numa") => topology.nodes(),
                _ => 1,
            },
            cpus: topology.cpus().max(1),
            heap_bytes,
            publish: config.publish,
        };
        let align = match config.pages {
            config::Pages::Hugetlb1g => HUGE_1G,
            _ => SUPER,
        };
        let room = if config.heeds_room() {
            os.memory_limit()
        } else {
            u64::MAX
        };
        let told = config.retain.is_some();
        config = config.within(room, shape.nodes);
        let plain = config.calls == Calls::Plain;
        loop {
            let layout = Layout::new(shape);
            let reserved = Memory::find(os, shape.len, align, &layout, plain);
            let may_publish = reserved.is_ok();
            let made = reserved.and_then(|memory| {
                // SAFETY: found just now for this layout.
                unsafe { Self::lay_out(os, (config, room, told), topology, memory, layout) }
            });
            match made {
                Ok(arena) => return Ok(arena),
                // A heap without figures for others is better than none.
                Err(_) if may_publish && config.publish => {
                    (config.publish, shape.publish) = (false, false);
                }
                Err(_) if shape.len > LEAST => shape.len /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Publishes and commits what must be there from the start, and puts the parts in their places.
    /// Beside the options is what the process may use, and whether `retain` is one of those that
    /// were set.
    ///
    /// # Safety
    /// `memory` was found for this layout, and nobody uses it yet.
    unsafe fn lay_out(
        os: Os,
        (config, room, told): (Config, u64, bool),
        topology: &'static Topology,
        memory: Memory,
        layout: Layout,
    ) -> Result<&'static Arena, Error> {
        let (meta, dense) = (memory.meta, layout.dense());
        // SAFETY: both are reserved, the dense part being the front of the metadata.
        let prepared = unsafe {
            figures::publish(os, &config, layout.board(meta))
                .and_then(|published| os.open(meta, dense).map(|()| published))
        };
        let published = match prepared {
            Ok(published) => published,
            Err(error) => {
                // SAFETY: nothing refers to the memory yet.
                unsafe { memory.give_back(os, error) };
                return Err(error);
            }
        };
        valgrind::own(meta, dense);
        // SAFETY: reserved, the dense part committed and so zero; the parts are put below once
        // each.
        let places = unsafe { Places::new(meta, layout) };
        // SAFETY: the front of the board is committed.
        let header = unsafe { places.board().header() };
        let late = memory.late.is_some();
        let policy = Policy::new(os, config, memory.len, late, header).bounding_all(told);
        let policy = places.put_policy(policy);
        policy.count_metadata(dense);
        // SAFETY: the dense part was committed just now.
        unsafe { policy.lock_memory(meta, dense) };
        // SAFETY: the board lies in the metadata, zero and committed as far as it must be.
        let figures = unsafe { Figures::open(policy, places.board(), published, memory.extent()) };
        let figures = places.put_figures(figures);
        let ground = Self::lay_ground(policy, figures, topology, memory, &places);
        Self::advise(ground);
        if policy.config().budget == 0 {
            (policy.budget()).at_most(usize::try_from(room).unwrap_or(usize::MAX) / SHARE);
        }
        Ok(Self::build(ground, memory, &places))
    }

    /// Gives the advice that growth needs while everything may still be asked for: to all addresses
    /// at once if only plain calls shall follow, else to moulds.
    fn advise(ground: Ground) {
        let Ground {
            policy,
            addresses,
            affinity,
            ..
        } = ground;
        let (os, pages) = (policy.os(), policy.config().pages);
        let modes: &[PageMode] = match pages {
            config::Pages::Small => &[PageMode::Small],
            _ => &[PageMode::Thp, PageMode::Small],
        };
        for node in 0..affinity.bound_nodes() {
            let node = NodeIndex(node as u8);
            let bind = (affinity.bound_nodes() > 1).then(|| affinity.kernel_node(node));
            if !policy.is_plain() {
                modes.iter().for_each(|&mode| os.make_mould(mode, bind));
                continue;
            }
            let (first, len) = addresses.part(node);
            // SAFETY: the heap's, reserved, and not in use yet.
            unsafe { os.advise(first, len, modes[0], bind) };
            if pages == config::Pages::Auto {
                let small = len.min(SMALL * SUPER);
                // SAFETY: as above.
                unsafe { os.advise(first, small, PageMode::Small, bind) };
            }
        }
        if policy.is_plain() {
            let (metas, len) = ground.metadata.beyond_first();
            // SAFETY: as above.
            unsafe { os.advise(metas, len, modes[0], None) };
        }
    }

    /// Puts the parts that all nodes share in their places.
    fn lay_ground(
        policy: &'static Policy,
        figures: &'static Figures,
        topology: &'static Topology,
        memory: Memory,
        places: &Places,
    ) -> Ground {
        let Memory { base, len, .. } = memory;
        let stretches = places.stretches();
        let [_, _, kinds, heads] = stretches.map(|table| table.address);
        // SAFETY: the tables lie in the metadata with a byte for each slot, of which those of the
        // open SuperSlabs are dense, and zero.
        let addresses = unsafe { AddressMap::new(base, len, (kinds, heads), places.open()) };
        let affinity = Affinity::new(policy, addresses, topology, places.learned());
        let affinity = places.put_affinity(affinity);
        let (metas, states) = places.metas();
        // SAFETY: the layout has room for the metadata of all SuperSlabs, not used yet.
        let metadata = unsafe { Metadata::new(policy, affinity, metas, states, len / SUPER) };
        // SAFETY: the layout has placed the tables, and none but the dense ones are open yet.
        let tables = unsafe { Tables::new(policy, addresses, stretches) };
        Ground {
            policy,
            figures,
            affinity,
            addresses,
            metadata,
            tables,
        }
    }

    /// Puts the parts of each node in their places, and the arena above them.
    fn build(ground: Ground, memory: Memory, places: &Places) -> &'static Arena {
        for index in 0..ground.addresses.node_count() {
            let node = NodeIndex(index as u8);
            let board = ground.figures.node(node);
            if ground.addresses.has_parts() {
                let kernel_node = u64::from(ground.affinity.kernel_node(node).0);
                board.kernel_node.store(kernel_node, Ordering::Relaxed);
            }
            let (first, _) = ground.addresses.supers_of(node);
            let common = match ground.policy.config().pages {
                config::Pages::Auto => SMALL,
                _ => 0,
            };
            let (words, hints) = (places.words(index), places.hints(index, common));
            let claims = places.claims(index, hints.1);
            let supers = Supers::new(first, words, hints, &board.empty, ground.metadata);
            let supers = places.put_supers(index, supers);
            // SAFETY: the pages of all nodes are put into this array before the arena is given
            // away.
            let pages = unsafe { Pages::new(ground, supers, claims, board, places.pages()) };
            let pages = places.put_pages(index, pages);
            places.put_lists(index, NodeLists::new(ground, pages, board));
        }
        let (entries, shared, heaps) = places.heaps();
        let (nurseries, bytes) = (places.put_nurseries(), places.heap_bytes());
        // SAFETY: the layout has room for as many heaps as there are entries; the first part of
        // heap 0 is dense.
        let heaps = unsafe { Heaps::new(ground, entries, nurseries, shared, heaps, bytes) };
        let heaps = places.put_heaps(heaps);
        let spans = places.put_spans(Spans::new(ground, places.stashes(), places.lists()));
        let reclaim = places.put_reclaim(Reclaim::new(ground, heaps, spans));
        for (index, lists) in places.lists().iter().enumerate() {
            let node = NodeIndex(index as u8);
            let warmer = Warmer::new(ground, node, lists.pages(), reclaim);
            places.put_node(index, Node::new(lists, reclaim, warmer));
        }
        places.put_arena(Arena {
            ground,
            nodes: places.nodes(),
            spans,
            // SAFETY: the layout has room for the table, which is not used yet.
            runs: unsafe { Runs::new(ground, places.nodes(), places.outside()) },
            heaps,
            reclaim,
            memory,
            front: places.front(),
        })
    }

    /// Gives everything back to the system.
    ///
    /// # Safety
    /// The pointer is an arena's. Nobody uses the arena, a heap of it or a block of it any more,
    /// and no reference to it is an argument of a running function: the arena lies in the memory
    /// that goes.
    #[cfg(test)]
    pub unsafe fn destroy(arena: *const Arena) {
        // SAFETY: an arena, as this function's Safety section asks; nothing of it is read after
        // this line.
        let (os, memory) = unsafe { ((*arena).os(), (*arena).memory) };
        // SAFETY: nothing refers to the memory, as this function's Safety section asks. Nobody maps
        // anything in the middle of the addresses of a test's arena.
        unsafe {
            os.unreserve(memory.meta, memory.meta_len);
            os.unreserve(memory.base, memory.len);
        }
        apart::release(memory.meta);
    }
}

/// Bytes of addresses that the options ask for: a power of two.
fn wanted(os: Os, config: &Config) -> usize {
    let bytes = match config.address_space {
        0 => (os.total_memory() as usize)
            .saturating_mul(4)
            .clamp(64 << 30, 1 << 45),
        bytes => bytes.clamp(LEAST, 1 << 46),
    };
    bytes.next_power_of_two()
}

/// The parts.
impl Arena {
    /// The operating system.
    #[inline]
    pub fn os(&self) -> Os {
        self.ground.policy.os()
    }

    /// Options and switches.
    #[inline]
    pub fn policy(&self) -> &'static Policy {
        self.ground.policy
    }

    /// The board, and the pool's events.
    pub fn figures(&self) -> &'static Figures {
        self.ground.figures
    }

    /// CPUs and NUMA nodes.
    pub fn affinity(&self) -> &'static Affinity {
        self.ground.affinity
    }

    /// The range and its tables.
    #[inline]
    pub fn addresses(&self) -> &AddressMap {
        &self.ground.addresses
    }

    /// The metadata of SuperSlabs and spans.
    #[inline]
    pub fn metadata(&self) -> &Metadata {
        &self.ground.metadata
    }

    /// All nodes.
    pub fn nodes(&self) -> &'static [Node] {
        self.nodes
    }

    /// A node.
    #[inline]
    pub fn node(&self, node: NodeIndex) -> &'static Node {
        &self.nodes[node.index()]
    }

    /// Spans without an owner.
    #[inline]
    pub fn spans(&self) -> &'static Spans {
        self.spans
    }

    /// Large and huge blocks.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The memory of heaps.
    pub fn heaps(&self) -> &'static Heaps {
        self.heaps
    }

    /// What takes from heaps whose threads rest.
    #[inline]
    pub fn reclaim(&self) -> &'static Reclaim {
        self.reclaim
    }
}

/// Actions that concern several parts.
impl Arena {
    /// Forbids or allows asking the system for anything. The warmers' threads end before it is
    /// forbidden.
    pub fn set_sealed(&self, on: bool) {
        if on {
            self.park_warmers();
        }
        self.policy().set_sealed(on);
        if on {
            // Who reclaims now may be about to give pages back.
            let _ = self.reclaim.pause();
        } else {
            self.unpark_warmers();
        }
    }

    /// Ends the warmers' threads, and lets none start until `unpark_warmers`.
    pub fn park_warmers(&self) {
        self.nodes.iter().for_each(|node| node.warmer().park());
    }

    /// Lets the warmers' threads start again.
    pub fn unpark_warmers(&self) {
        self.nodes.iter().for_each(|node| node.warmer().unpark());
    }

    /// Gives back the spans that are the pool's and wholly free, as their blocks have come home by
    /// remote frees, and the runs on the shelves.
    pub fn sweep(&self) {
        self.spans.empty_stashes();
        self.nodes.iter().for_each(Node::sweep);
    }

    /// Moves sparse SuperSlabs off their hugetlb pages, where the option `demote` allows it.
    pub fn demote_sparse(&self) {
        let workers = self.nodes.iter().filter(|node| node.warmer().exists());
        let workers = workers.count();
        (self.nodes.iter()).for_each(|node| node.pages().demote_sparse(workers));
    }

    /// Gives all free memory of the heap back to the system, and the memory of heaps that no thread
    /// has. The bytes given back of the heap.
    pub fn purge(&self) -> usize {
        if self.policy().refuses() {
            return 0;
        }
        self.heaps.purge();
        self.spans.empty_stashes();
        let bytes = self.reclaim.purge();
        bytes + self.nodes.iter().map(Node::purge).sum::<usize>()
    }

    /// Does what `purge` does, and unmaps the SuperSlabs that are wholly free then, so that they no
    /// longer count against the limits.
    pub fn shrink(&self) {
        self.purge();
        self.nodes.iter().for_each(|node| {
            node.unmap_free();
        });
    }

    /// Touches the parts of the arena, its stashes, and the figures of the whole heap, of all heaps
    /// made and of the next ones.
    ///
    /// # Errors
    /// The system's error.
    pub fn touch_figures(&self) -> Result<(), Error> {
        // SAFETY: the front of the metadata is committed from the start; populating keeps contents.
        unsafe { self.os().populate(self.memory.meta, self.front)? };
        self.figures().touch(self.heaps.made())
    }

    /// Before fork: takes every lock, and sees to it that the copies of hugetlb pages can be made.
    pub fn before_fork(&self) {
        self.lock();
        let workers = self.nodes.iter().filter(|node| node.warmer().exists());
        fork::prepare(self.all_pages(), workers.count());
    }

    /// Takes every lock.
    pub fn lock(&self) {
        self.nodes.iter().for_each(|node| node.warmer().lock());
        self.reclaim.lock();
        self.heaps.lock();
        for node in self.nodes {
            node.lists().lock();
            node.pages().growth_lock().lock_for_fork();
        }
        self.runs.outside().lock();
        self.figures().lock();
    }

    fn all_pages(&self) -> &'static [Pages] {
        self.nodes[0].pages().all_nodes()
    }

    /// In a forked child, before `after_fork`: notes that this is a child, whose one thread has
    /// claimed so many bytes of the budget, and gives it figures of its own.
    ///
    /// # Safety
    /// The caller is the thread that forked, which called `before_fork` or `lock` before.
    pub unsafe fn become_child(&self, claimed: usize) {
        self.policy().set_child();
        self.policy().budget().restart(claimed);
        self.nodes.iter().for_each(|node| node.warmer().forget());
        // SAFETY: this thread holds all locks, as this function's Safety section asks.
        let own = unsafe {
            let made = self.heaps.made_locked();
            let own = self.figures().publish_again(made);
            self.figures().forget_threads(made, own);
            own
        };
        if own {
            self.nodes.iter().for_each(Node::recount);
            self.policy().limit().show_again();
        }
    }

    /// After fork, in the parent and in the child: frees what `before_fork` or `lock` took.
    ///
    /// # Safety
    /// This thread (or in a child, the thread that forked) called `before_fork` or `lock`.
    pub unsafe fn after_fork(&self) {
        // SAFETY: this thread holds all locks, as this function's Safety section asks.
        unsafe {
            self.figures().unlock();
            self.runs.outside().unlock();
            for node in self.nodes {
                node.pages().growth_lock().force_unlock();
                node.lists().unlock();
            }
            self.heaps.unlock();
            self.reclaim.unlock();
            self.nodes.iter().for_each(|node| node.warmer().unlock());
        }
    }
}
