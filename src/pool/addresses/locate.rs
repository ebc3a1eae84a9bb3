//! The one decode of an address: which slot it lies in, what the class byte says, and to which span
//! or run it belongs. Every path goes through here but free's hit path, which needs the class byte
//! alone.

use super::AddressMap;
use crate::classes::{CLASSES, Class};
use crate::geometry::{ClassId, Kind, SLOT, SlotId, SpanId};

/// The largest distance to a first slot that the table of heads holds; beyond it a slot is just
/// "inside".
pub const FAR: usize = 255;

/// The place of an address in the heap, as the tables say.
#[derive(Clone, Copy, Debug)]
pub enum Location {
    /// The address is in no open part of the heap's range.
    Foreign,
    /// The slot is not in use.
    Free,
    /// The slot belongs to a run.
    Run(RunPart),
    /// The slot belongs to a span with blocks of a class.
    Block(SpanPart),
}

/// A slot of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunPart {
    /// The run's first slot; `None` where the table of heads does not reach back to it.
    pub first: Option<SlotId>,
    /// The address is the first byte of the run.
    pub at_start: bool,
}

/// A span, and what it takes to find blocks of it.
#[derive(Clone, Copy, Debug)]
pub struct SpanPart {
    /// The span.
    pub span: SpanId,
    /// The address of its first byte.
    pub base: usize,
    /// The class of its blocks.
    pub class: ClassId,
}

impl SpanPart {
    /// The class of the span's blocks.
    #[inline]
    pub fn info(&self) -> &'static Class {
        &CLASSES[self.class.index()]
    }

    /// The number of the block that starts at an address of the span; `None` if none starts there.
    #[inline]
    pub fn index_of(&self, address: usize) -> Option<usize> {
        self.info().index_of(address - self.base)
    }
}

impl AddressMap {
    /// Decodes an address by the tables.
    #[inline]
    pub fn locate(&self, address: usize) -> Location {
        if !self.contains(address) {
            return Location::Foreign;
        }
        let slot = self.slot_of(address);
        match self.kind(slot) {
            Kind::Free => Location::Free,
            Kind::Class(class) => {
                let first = slot.back(self.distance(slot));
                Location::Block(SpanPart {
                    span: first.span(),
                    base: self.address_of(first),
                    class,
                })
            }
            Kind::Large | Kind::Huge => {
                let distance = self.distance(slot);
                Location::Run(RunPart {
                    first: (distance < FAR).then(|| slot.back(distance)),
                    at_start: distance == 0 && address.is_multiple_of(SLOT),
                })
            }
        }
    }

    /// The span in which an address lies; `None` for everything else, foreign addresses included.
    #[inline]
    pub fn span_of(&self, address: usize) -> Option<SpanPart> {
        match self.locate(address) {
            Location::Block(part) => Some(part),
            _ => None,
        }
    }

    /// The first slot of the run that starts at the address; `None` for everything else.
    pub fn run_at(&self, address: usize) -> Option<SlotId> {
        match self.locate(address) {
            Location::Run(part) if part.at_start => part.first,
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code)] // Makes a map of two tables.
mod tests {
    use super::*;
    use crate::geometry::{NodeIndex, SUPER};
    use crate::pool::addresses::SlotRun;
    use core::sync::atomic::{AtomicU8, AtomicUsize};

    const BASE: usize = 1 << 40;
    const SLOT_COUNT: usize = 2048;

    fn map() -> AddressMap {
        let table = || {
            let bytes = (0..SLOT_COUNT)
                .map(|_| AtomicU8::new(0))
                .collect::<Vec<_>>();
            bytes.leak().as_ptr() as usize
        };
        let half = SLOT_COUNT * SLOT / 2;
        let open = Box::leak(Box::new([half, half].map(AtomicUsize::new)));
        // SAFETY: two zeroed tables of the right length that live for ever.
        unsafe { AddressMap::new(BASE, SLOT_COUNT * SLOT, (table(), table()), open) }
    }

    #[test]
    fn every_kind_of_address_is_told() {
        let map = map();
        let class = ClassId::new(20);
        // SAFETY: nobody else uses the map.
        let (span, run) = unsafe {
            (
                SlotRun::held(SlotId(5), 3, true),
                SlotRun::held(SlotId(64), 300, true),
            )
        };
        map.dress(&span, Kind::Class(class));
        map.dress(&run, Kind::Huge);
        assert!(matches!(map.locate(BASE - 1), Location::Foreign));
        assert!(matches!(
            map.locate(BASE + SLOT_COUNT * SLOT),
            Location::Foreign
        ));
        assert!(matches!(map.locate(BASE), Location::Free));
        let part = map.span_of(BASE + 7 * SLOT + 1).expect("a span");
        assert_eq!(
            (part.span, part.base, part.class),
            (SpanId(5), BASE + 5 * SLOT, class)
        );
        assert_eq!(part.index_of(part.base), Some(0));
        assert_eq!(part.index_of(part.base + 1), None);
        assert_eq!(map.run_at(BASE + 64 * SLOT), Some(SlotId(64)));
        assert_eq!(map.run_at(BASE + 64 * SLOT + 16), None);
        assert_eq!(map.run_at(BASE + 65 * SLOT), None);
        let inside = |slot: usize| match map.locate(BASE + slot * SLOT) {
            Location::Run(part) => part.first,
            _ => panic!("a run"),
        };
        assert_eq!((inside(100), inside(64 + 299)), (Some(SlotId(64)), None));
        map.undress(&span);
        assert!(map.span_of(BASE + 6 * SLOT).is_none());
    }

    #[test]
    fn parts_of_nodes_cover_the_range() {
        let map = map();
        let half = SLOT_COUNT * SLOT / 2;
        for (index, start) in [(0, BASE), (1, BASE + half)] {
            let node = NodeIndex(index);
            assert_eq!(map.part(node), (start, half));
            let (first, count) = map.supers_of(node);
            assert_eq!((map.address_of_super(first), count * SUPER), (start, half));
            assert_eq!(map.node_of(first.slot(0)), node);
        }
    }
}
