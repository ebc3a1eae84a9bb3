//! The table of all SuperSlabs' metadata: where an entry lies, and how its memory comes and goes.
#![allow(unsafe_code)] // Metadata is found by address.

use super::{SpanMeta, SuperMeta};
use crate::geometry::{SpanId, SuperId};
use crate::pool::affinity::Affinity;
use crate::pool::policy::Policy;
use core::sync::atomic::{AtomicU8, Ordering};
use theap_platform::{Error, HUGE, PAGE};

/// The bytes by which the metadata begins before the end of a hugepage: those of the first
/// SuperSlab, which a short program never leaves. They are on small pages then, and all others on
/// hugepages from the start.
const FIRST: usize = size_of::<SuperMeta>();

/// SuperSlabs that 2 MiB of metadata describe, at most: the first and the last one in part.
pub const DESCRIBED: usize = HUGE / size_of::<SuperMeta>() + 2;

/// The metadata of all SuperSlabs. Immutable, and copied into every part of the pool that asks it
/// often.
#[derive(Clone, Copy)]
pub struct Metadata {
    policy: &'static Policy,
    affinity: &'static Affinity,
    metas: *const SuperMeta,
    /// Whether each 2 MiB of the metadata is accessible: 0 or 1.
    states: &'static [AtomicU8],
    supers: usize,
}

// SAFETY: the pointer leads to metadata of atomics.
unsafe impl Send for Metadata {}
// SAFETY: as for Send.
unsafe impl Sync for Metadata {}

impl Metadata {
    /// Bytes of the metadata of so many SuperSlabs: whole hugepages.
    pub const fn len(supers: usize) -> usize {
        (HUGE - FIRST + supers * size_of::<SuperMeta>()).next_multiple_of(HUGE)
    }

    /// The metadata of `supers` SuperSlabs, of which nothing is accessible yet.
    ///
    /// # Safety
    /// `metas` is a hugepage-aligned range of `len(supers)` bytes that lives as long as
    /// any copy of this and that nobody else uses; `states` has a zero for each 2 MiB of it.
    pub unsafe fn new(
        policy: &'static Policy,
        affinity: &'static Affinity,
        metas: usize,
        states: &'static [AtomicU8],
        supers: usize,
    ) -> Self {
        Self {
            policy,
            affinity,
            metas: (metas + HUGE - FIRST) as *const SuperMeta,
            states,
            supers,
        }
    }

    /// The metadata of a SuperSlab.
    ///
    /// # Safety
    /// The SuperSlab is or was mapped: growth commits the metadata before it publishes a slot, and
    /// never takes it back.
    #[inline]
    pub unsafe fn of(&self, super_id: SuperId) -> &'static SuperMeta {
        debug_assert!(super_id.index() < self.supers);
        // SAFETY: committed, as this function's Safety section has it; all fields are shared by
        // themselves, and zero is valid.
        unsafe { &*self.metas.add(super_id.index()) }
    }

    /// The metadata of the span that begins at a slot.
    ///
    /// # Safety
    /// The slot's SuperSlab is or was mapped.
    #[inline]
    pub unsafe fn span(&self, span: SpanId) -> &'static SpanMeta {
        let (super_id, slot) = span.split();
        // SAFETY: this function's own Safety section.
        &unsafe { self.of(super_id) }.spans[slot]
    }

    /// The address and the bytes of the metadata but for the first SuperSlab's: whole hugepages.
    pub fn beyond_first(&self) -> (usize, usize) {
        let first = self.metas as usize & !(HUGE - 1);
        (first + HUGE, (self.states.len() - 1) * HUGE)
    }

    /// The address and the bytes of the metadata of `count` SuperSlabs.
    pub fn range(&self, super_id: SuperId, count: usize) -> (usize, usize) {
        (
            self.metas as usize + super_id.index() * size_of::<SuperMeta>(),
            count * size_of::<SuperMeta>(),
        )
    }

    /// Makes the metadata of `count` SuperSlabs accessible, 2 MiB at a time, on the node that the
    /// SuperSlabs are bound to, whichever thread touches it first; with `huge` on hugepages, as
    /// nine faults a SuperSlab would be most of what a first touch costs.
    ///
    /// # Errors
    /// The system's error; nothing is lost.
    pub fn commit(&self, super_id: SuperId, count: usize, huge: bool) -> Result<(), Error> {
        let first = self.metas as usize & !(HUGE - 1);
        let (address, len) = self.range(super_id, count);
        for piece in (address - first) / HUGE..(address + len - first).div_ceil(HUGE) {
            if self.states[piece].load(Ordering::Acquire) == 0 {
                self.open(piece, first + piece * HUGE, huge)?;
            }
        }
        Ok(())
    }

    /// Makes a piece accessible, unless another thread does so first.
    fn open(&self, piece: usize, at: usize, huge: bool) -> Result<(), Error> {
        let (policy, state) = (self.policy, &self.states[piece]);
        let _opening = policy.opening();
        if state.load(Ordering::Acquire) == 0 {
            let from = at.max(self.metas as usize);
            let first = SuperId(((from - self.metas as usize) / size_of::<SuperMeta>()) as u32);
            let (len, bind) = (at + HUGE - from, self.affinity.binding(first));
            let huge = huge && len == HUGE;
            // SAFETY: a piece of the range that `new` was given, which nobody has opened before.
            unsafe { policy.open_on(from, len, huge, bind)? };
            self.bind_last(piece, at);
            state.store(1, Ordering::Release);
        }
        Ok(())
    }

    /// The last SuperSlab that a piece describes may be the first one of another node.
    fn bind_last(&self, piece: usize, at: usize) {
        let [before, last] = [piece * HUGE, (piece + 1) * HUGE - 1]
            .map(|byte| byte.saturating_sub(HUGE - FIRST) / FIRST)
            .map(|index| {
                self.affinity
                    .binding(SuperId(index.min(self.supers - 1) as u32))
            });
        if let Some(node) = last.filter(|_| last != before && !self.policy.is_plain()) {
            // Elsewhere it is slower, nothing else.
            let _ = self.policy.os().bind(at + HUGE - FIRST, FIRST, node);
        }
    }

    /// The bytes of the metadata of SuperSlabs that are accessible.
    #[cfg(any(test, debug_assertions))]
    pub fn opened(&self) -> usize {
        let first = self.metas as usize & (HUGE - 1);
        let is_open = |state: &AtomicU8| state.load(Ordering::Relaxed) != 0;
        let pieces = self.states.iter().filter(|state| is_open(state)).count();
        let before = if self.states.first().is_some_and(is_open) {
            first
        } else {
            0
        };
        pieces * HUGE - before
    }

    /// Touches the metadata of `count` SuperSlabs by this thread, without the system's help.
    pub fn touch(&self, super_id: SuperId, count: usize) {
        let (address, len) = self.range(super_id, count);
        for page in (address..address + len).step_by(PAGE) {
            // A write that changes nothing. The compiler would make a read of a `fetch_or(0)`,
            // which leaves the page to the next writer.
            // SAFETY: committed, and never taken back; metadata is of atomics.
            let byte = unsafe { &*(page as *const AtomicU8) };
            let _ = byte.compare_exchange(0, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Touches the metadata of `count` SuperSlabs.
    ///
    /// # Errors
    /// The system's error.
    pub fn populate(&self, super_id: SuperId, count: usize) -> Result<(), Error> {
        let (address, len) = self.range(super_id, count);
        // SAFETY: the metadata of what is or was mapped is committed; populating keeps contents.
        unsafe { self.policy.os().populate(address, len) }
    }

    /// The pieces of 2 MiB, by their numbers, that the metadata of a SuperSlab lies in.
    pub fn pieces_of(&self, super_id: SuperId) -> core::ops::RangeInclusive<usize> {
        let first = self.metas as usize & !(HUGE - 1);
        let (address, len) = self.range(super_id, 1);
        (address - first) / HUGE..=(address + len - 1 - first) / HUGE
    }

    /// The SuperSlabs that a piece describes, wholly or in part: the first, and the one after the
    /// last. `None` for the first piece, which is on small pages, and for those that are not whole.
    pub fn described_by(&self, piece: usize) -> Option<(SuperId, SuperId)> {
        let before = HUGE - FIRST;
        let from = (piece * HUGE).checked_sub(before)?;
        let (first, end) = (from / FIRST, (from + HUGE).div_ceil(FIRST));
        (end <= self.supers).then_some((SuperId(first as u32), SuperId(end as u32)))
    }

    /// Gives the memory of a piece back to the system; it reads zero afterwards.
    ///
    /// # Safety
    /// No slot of a SuperSlab that the piece describes is in use, and none can be taken meanwhile.
    pub unsafe fn purge_piece(&self, piece: usize) {
        let first = self.metas as usize & !(HUGE - 1);
        // SAFETY: nobody relies on the contents, as this function's Safety section asks; zero is
        // valid at any moment. What is not accessible yet has none.
        let _ = unsafe { self.policy.os().purge(first + piece * HUGE, HUGE) };
    }

    /// Gives the memory of a SuperSlab's metadata back to the system; it reads zero afterwards.
    ///
    /// # Safety
    /// No slot of the SuperSlab is in use, and none can be taken meanwhile.
    pub unsafe fn purge(&self, super_id: SuperId) {
        let (address, len) = self.range(super_id, 1);
        // SAFETY: nobody relies on the contents, as this function's Safety section asks; zero is
        // valid at any moment.
        let _ = unsafe { self.policy.os().purge(address, len) };
    }
}
