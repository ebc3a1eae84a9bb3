//! The figures that other threads and other processes read: the ring of events, and the board.

use crate::explore;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::{AtomicBool, Ordering as Std};
use theap::stats::Stats;
use theap::stats::board::{Board, Extent, Header, HeapBoard, NodeBoard, Unreadable};
use theap::stats::ring::{RECORDS, Ring};
use theap::sync::Ordering;

/// A reader reads the ring while a writer overwrites it. Each record that it gets is whole, the
/// records are in order, and the read and the lost ones together are all that were written.
#[test]
pub fn ring_overwritten_while_it_is_read() {
    const WRITTEN: u64 = RECORDS as u64 + 1;
    static LOST: AtomicBool = AtomicBool::new(false);
    explore(|| {
        let ring = Arc::new(Ring::new());
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || (1..=WRITTEN).for_each(|n| ring.push([n; 3])))
        };
        let (mut from, mut last, mut got) = (0, 0, 0);
        let mut look = |from: &mut u64| {
            ring.read(from, |[a, b, c]| {
                assert!(a == b && b == c, "a torn record");
                assert!(a > last, "records are in order");
                last = a;
                got += 1;
            })
        };
        let mut lost = look(&mut from);
        let met = lost > 0;
        writer.join().unwrap();
        lost += look(&mut from);
        assert_eq!((from, last), (WRITTEN, WRITTEN));
        assert_eq!(got + lost, WRITTEN);
        LOST.fetch_or(met, Std::Relaxed);
    });
    assert!(
        LOST.load(Std::Relaxed),
        "no execution met the writer at the reader's record"
    );
}

/// The addresses of the heap whose board it is.
const MEMORY: Extent = Extent {
    metadata: 1 << 44,
    blocks: 1 << 45,
    len: 1 << 36,
};

/// A board with one node and room for two heaps, laid out as `Places` says. The first heap is no
/// thread's, and is there from the start.
#[repr(C)]
struct Page {
    header: Header,
    node: NodeBoard,
    heaps: Aligned,
}

#[repr(C, align(4096))]
struct Aligned([HeapBoard; 2]);

impl Page {
    /// Makes a page of zeros.
    fn new() -> Box<Self> {
        let mut page = Box::<Self>::new_uninit();
        let at = page.as_mut_ptr();
        // SAFETY: the three parts are all of the page, and each is written here.
        unsafe {
            (&raw mut (*at).header).write(Header::new());
            (&raw mut (*at).node).write(NodeBoard::new());
            (&raw mut (*at).heaps.0).write([HeapBoard::new(), HeapBoard::new()]);
            page.assume_init()
        }
    }
}

struct Shared {
    page: Box<Page>,
    /// The place of the heap's figures, which becomes accessible before the board counts the heap.
    place: UnsafeCell<()>,
}

impl Shared {
    /// The figures that a reader gets; `None` before there is a board.
    fn look(&self) -> Option<Stats> {
        // SAFETY: the page lives longer than `board`, and is nothing but atomics.
        let board = unsafe { Board::at((&raw const *self.page).cast(), size_of::<Page>()) };
        let stats = match board {
            Err(Unreadable::NotABoard) => return None,
            board => board.expect("a board is whole once it shows").stats(),
        };
        assert_eq!((stats.nodes.len(), stats.address_space), (1, 1 << 36));
        if stats.heaps > 0 {
            self.place.with(|_| ());
        }
        Some(stats)
    }
}

/// Words of the stack of a reading thread: [`Stats`] are large, and a panic needs room too.
const STACK: usize = 1 << 16;

/// A reader reads the board while the writer opens it, makes a heap, and counts.
#[test]
pub fn board_read_while_it_is_written() {
    explore(|| {
        let reader = thread::Builder::new().stack_size(STACK);
        reader.spawn(read_a_board).unwrap().join().unwrap();
    });
}

fn read_a_board() {
    let shared = Arc::new(Shared {
        page: Page::new(),
        place: UnsafeCell::new(()),
    });
    let writer = {
        let shared = shared.clone();
        thread::spawn(move || {
            let Page {
                header,
                node,
                heaps,
            } = &*shared.page;
            header.heap_made(1);
            header.open([1, 2, 0], MEMORY);
            shared.place.with_mut(|_| ());
            header.heap_made(2);
            heaps.0[1].counters.refills.add(1);
            heaps.0[1].counters.refills.add(1);
            node.run_slots.fetch_add(3, Ordering::Relaxed);
        })
    };
    let mut seen = 0;
    for _ in 0..2 {
        if let Some(stats) = shared.look() {
            assert!((seen..=2).contains(&stats.totals.refills));
            seen = stats.totals.refills;
            assert!([0, 3 << 16].contains(&stats.active));
        }
    }
    writer.join().unwrap();
    let stats = shared.look().expect("a board");
    assert_eq!((stats.heaps, stats.totals.refills), (1, 2));
    assert_eq!(stats.active, 3 << 16);
}
