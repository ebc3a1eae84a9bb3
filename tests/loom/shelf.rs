//! The freed huge runs of a node that wait for the next request.

use crate::{explore, join};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use theap::geometry::SlotId;
use theap::pool::pages::shelf::Shelf;

const RUNS: usize = 2;
const LEN: usize = 64;

/// A shelf, and a cell for each run, which belongs to the thread that has the run.
struct Node {
    shelf: Shelf,
    runs: [UnsafeCell<()>; RUNS],
}

impl Node {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            shelf: Shelf::new(),
            runs: [(); RUNS].map(UnsafeCell::new),
        })
    }

    fn write(&self, slot: SlotId) -> u32 {
        self.runs[slot.index()].with_mut(|_| ());
        slot.0
    }

    fn put(&self, run: u32) -> Option<u32> {
        self.write(SlotId(run));
        let gone = self.shelf.put(SlotId(run), LEN);
        gone.map(|(slot, _)| self.write(slot))
    }

    fn take(&self) -> Option<u32> {
        self.shelf
            .take(LEN, |_| true)
            .map(|(slot, _)| self.write(slot))
    }

    /// Takes a run off the shelf, whichever it is, as a purge does.
    fn take_any(&self) -> Option<u32> {
        self.shelf.take_any().map(|(slot, _)| self.write(slot))
    }

    /// Checks that each run was either taken or is left, once.
    fn check(&self, taken: impl IntoIterator<Item = Option<u32>>) {
        let mut all: Vec<u32> = taken.into_iter().flatten().collect();
        all.extend(core::iter::from_fn(|| self.take_any()));
        all.sort_unstable();
        assert_eq!(all, [0, 1], "a run is lost or twice there");
    }
}

/// One thread takes a run, uses it and puts it again, while others take one and clear the shelf.
#[test]
pub fn a_shelved_run_has_one_taker() {
    explore(|| {
        let node = Node::new();
        assert_eq!((node.put(0), node.put(1)), (None, None));
        let again = {
            let node = node.clone();
            thread::spawn(move || {
                let mine = node.take()?;
                node.put(mine)
            })
        };
        let purge = {
            let node = node.clone();
            thread::spawn(move || node.take_any())
        };
        let mine = node.take();
        let [again, purged] = join([again, purge]);
        node.check([mine, again, purged]);
    });
}

/// Two threads put a run each while one takes.
#[test]
pub fn a_shelf_loses_no_run() {
    explore(|| {
        let node = Node::new();
        let putters = [0, 1].map(|run| {
            let node = node.clone();
            thread::spawn(move || node.put(run))
        });
        let mine = node.take();
        let [one, two] = join(putters);
        node.check([mine, one, two]);
    });
}
