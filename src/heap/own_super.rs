//! Without the shared pool: the SuperSlab that each class of a heap takes slots from.

use crate::classes::CLASS_COUNT;
use crate::geometry::{ClassId, SlotId, SuperId};
use crate::pool::{Arena, SlotRun};

/// The SuperSlabs of a heap, one a class.
pub struct OwnSupers([Option<SuperId>; CLASS_COUNT]);

/// The tag of a SuperSlab that serves this class of this heap.
fn tag(heap: u64, class: ClassId) -> u32 {
    ((heap as u32) << 8) | class.index() as u32
}

impl OwnSupers {
    /// No SuperSlabs.
    pub fn new() -> Self {
        Self([None; CLASS_COUNT])
    }

    /// Notes that the class takes slots of the SuperSlab of this slot from now on.
    pub fn adopt(&mut self, arena: &Arena, class: ClassId, heap: u64, slot: SlotId) {
        let (own, _) = slot.split();
        let node = arena.node(arena.addresses().node_of(slot));
        node.supers().set_tag(node.local(own), tag(heap, class));
        self.0[class.index()] = Some(own);
    }

    /// Takes slots of the class's own SuperSlab. It may have become free and somebody else's
    /// meanwhile; whoever takes a whole SuperSlab clears the tag before it offers the rest, so the
    /// tag read after the take is the truth.
    pub fn take(
        &mut self,
        arena: &Arena,
        class: ClassId,
        heap: u64,
        slots: usize,
    ) -> Option<SlotRun> {
        let own = self.0[class.index()]?;
        let node = arena.node(arena.addresses().node_of(own.slot(0)));
        let run = node.supers().take_in(node.local(own), slots)?;
        if node.supers().tag(node.local(own)) != tag(heap, class) {
            node.pages().release_slots(run);
            self.0[class.index()] = None;
            return None;
        }
        Some(run)
    }

    /// Forgets all SuperSlabs.
    pub fn forget(&mut self) {
        *self = Self::new();
    }
}
