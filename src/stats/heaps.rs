//! The figures of each heap, with the thread that has it.

use super::board::{Board, HeapBoard};
use super::figures::Metric;
use crate::classes::CLASSES;
use crate::geometry::ClassId;
use crate::sync::Ordering;
use core::fmt;

/// Bytes of a thread's name, as the kernel has it: the last one is zero.
const NAME: usize = 16;

/// The name of a thread; empty where nobody has asked for it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadName([u8; NAME]);

impl ThreadName {
    /// A name, of which the kernel's 15 bytes are kept.
    pub fn new(name: &[u8]) -> Self {
        let mut kept = [0; NAME];
        let len = name.len().min(NAME - 1);
        kept[..len].copy_from_slice(&name[..len]);
        Self(kept)
    }
}

/// Writes a name as it may stand in every format: a byte that is no printing ASCII character, a
/// quotation mark and a backslash become a question mark.
impl fmt::Display for ThreadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = [0; NAME];
        let len = self.0.iter().take_while(|&&byte| byte != 0).count();
        for (to, &byte) in shown.iter_mut().zip(&self.0[..len]) {
            let plain = (byte == b' ' || byte.is_ascii_graphic()) && !b"\"\\<>&".contains(&byte);
            *to = if plain { byte } else { b'?' };
        }
        f.pad(core::str::from_utf8(&shown[..len]).unwrap_or_default())
    }
}

impl fmt::Debug for ThreadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The table of the figures of a heap, each with the width of its column and its meaning.
macro_rules! heap_figures {
    ($($(#[doc = $doc:literal])+ $name:ident: $width:literal, $metric:ident;)+) => {
        /// The figures of a heap. Sizes are in bytes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct HeapStats {
            /// The number of the heap. Heap 0 is that of the threads that can have none.
            pub heap: u64,
            /// The kernel's number of the thread that has the heap, in the thread's own namespace;
            /// 0 for a nursery's heap, for heap 0, and for one that waits for a thread.
            pub thread: u64,
            /// The thread's name, where somebody has asked for it.
            pub name: ThreadName,
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        const HEAP_FIGURES: usize = [$(stringify!($name)),+].len();

        impl HeapStats {
            /// The figures of a heap: name, width of the column, kind of metric, and meaning.
            pub(super) const FIGURES: [(&'static str, usize, Metric, &'static str); HEAP_FIGURES] =
                [$((stringify!($name), $width, Metric::$metric, concat!($($doc),+).trim_ascii()),)+];

            /// The sizes in bytes, with their names.
            pub fn list(&self) -> [(&'static str, u64); HEAP_FIGURES] {
                [$((stringify!($name), self.$name),)+]
            }
        }
    };
}

heap_figures! {
    /// Bytes of the spans that the heap owns.
    span_bytes: 14, Gauge;
    /// Bytes of the wholly free spans among them.
    kept: 14, Gauge;
    /// Bytes of blocks that the thread's cache held when their last batch moved.
    cached: 14, Gauge;
    /// Bytes of blocks that the magazines of the heap's thread may hold now, by their capacities.
    allowed: 14, Gauge;
    /// Bytes of blocks that were taken out of the heap's spans.
    refilled: 16, Counter;
    /// Bytes of blocks that the thread has returned to spans, its own and others'.
    drained: 16, Counter;
}

impl HeapStats {
    /// The figures of a heap, by its board.
    fn read(index: usize, board: &HeapBoard) -> Self {
        let mut this = Self {
            heap: index as u64,
            thread: board.thread.load(Ordering::Relaxed),
            span_bytes: board.span_bytes.get(),
            kept: board.kept.get(),
            allowed: board.allowed.get(),
            ..Self::default()
        };
        for class in ClassId::all() {
            let size = u64::from(CLASSES[class.index()].size);
            let counters = board.class(class);
            let add = |sum: &mut u64, blocks: u64| {
                *sum = sum.wrapping_add(blocks.wrapping_mul(size));
            };
            add(&mut this.cached, counters.cached_blocks.get());
            add(&mut this.refilled, counters.refilled_blocks.get());
            add(&mut this.drained, counters.drained_blocks.get());
        }
        this
    }

    /// Whether a thread has the heap, or anything is left in it.
    pub fn is_used(&self) -> bool {
        self.thread != 0 || self.span_bytes != 0 || self.cached != 0
    }
}

impl<'a> Board<'a> {
    /// The figures of each heap that is used.
    pub fn heaps(&self) -> impl Iterator<Item = HeapStats> + Clone + use<'a> {
        let heaps = self.heaps.iter().enumerate();
        heaps
            .map(|(index, board)| HeapStats::read(index, board))
            .filter(HeapStats::is_used)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_every_format() {
        let shown = |name: &[u8]| ThreadName::new(name).to_string();
        assert_eq!(shown(b"worker 1"), "worker 1");
        assert_eq!(shown(b"a\"b\\c\n\xFF<>&"), "a?b?c?????");
        assert_eq!(shown(b"longer than the kernel keeps"), "longer than the");
        assert_eq!(shown(b""), "");
    }
}
