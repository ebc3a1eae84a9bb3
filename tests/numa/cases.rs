//! The work of the processes that the tests start. A case panics if memory is not where it should
//! be.

use super::kernel::{Replug, cpus, list, nodes, nodes_of, pin, plug, pluggable, without_memory};
use std::sync::mpsc::channel;
use std::{env, fs, thread};
use theap::raw;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The number of slow paths after which theap has followed a thread that moved, with a margin.
const FOLLOWED: usize = 64;

struct Block(*mut u8, usize);

// SAFETY: the value is the only owner of its block, and any thread may use and free a block.
unsafe impl Send for Block {}

impl Block {
    /// Allocates a block and writes to every page of it.
    fn new(size: usize) -> Self {
        let start = raw::alloc(size);
        assert!(!start.is_null(), "{size} bytes");
        // SAFETY: the block has `size` bytes.
        unsafe { start.write_bytes(1, size) };
        Self(start, size)
    }

    fn lies_on(&self) -> Vec<usize> {
        nodes_of(self.0, self.1)
    }

    fn free(self) {
        // SAFETY: the block is live, and this was its last use.
        unsafe { raw::free(self.0) };
    }
}

/// Blocks of all kinds, which have some MiB together.
fn some_blocks() -> Vec<Block> {
    let sizes = [(100, 2000), (10 * KIB, 100), (300 * KIB, 10), (5 * MIB, 1)];
    sizes
        .iter()
        .flat_map(|&(size, count)| (0..count).map(move |_| Block::new(size)))
        .collect()
}

fn assert_on(blocks: &[Block], node: usize) {
    for block in blocks {
        let found = block.lies_on();
        assert!(
            found.iter().all(|&on| on == node),
            "{} bytes on {found:?}, not {node}",
            block.1
        );
    }
}

/// theap's own account: each node with the bytes that are bound to it, resident, and strayed.
fn placement() -> Vec<(usize, u64, u64, u64)> {
    let placement = theap::placement().unwrap();
    let row = |row: &theap::NodePlacement| (row.node.into(), row.bound, row.resident, row.strayed);
    placement.nodes().iter().map(row).collect()
}

fn on_cpu<T: Send + 'static>(cpu: usize, what: impl FnOnce() -> T + Send + 'static) -> T {
    let pinned = move || {
        pin(cpu);
        what()
    };
    thread::spawn(pinned).join().unwrap()
}

pub fn local() {
    let homes = nodes();
    for &node in &homes {
        for cpu in cpus(node) {
            let blocks = on_cpu(cpu, some_blocks);
            assert_on(&blocks, node);
        }
    }
    let rows = placement();
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), homes);
    for (node, bound, resident, strayed) in rows {
        let least = 5 * MIB as u64;
        assert!(
            bound >= resident && resident > least && strayed == 0,
            "node {node}: {bound} {resident} {strayed}"
        );
    }
    let stats = theap::stats();
    match env::var("THEAP_PAGES").unwrap().as_str() {
        "hugetlb" => assert_eq!(stats.mapped(), stats.mapped_hugetlb),
        "thp" => {
            // Each node has a SuperSlab on small pages for its nurseries.
            let nursed = 2 * (MIB * homes.len()) as u64;
            assert!(stats.mapped_small <= nursed, "{stats:?}");
            assert_eq!(stats.mapped(), stats.mapped_thp + stats.mapped_small);
        }
        _ => assert_eq!(stats.mapped(), stats.mapped_small),
    }
}

pub fn interleave() {
    let homes = nodes();
    let cpu = cpus(homes[0])[0];
    let (run, blocks) = on_cpu(cpu, || (Block::new(24 * MIB), some_blocks()));
    // The run begins with a SuperSlab, and each 2 MiB of it lie on the next node.
    assert_eq!(run.0 as usize % (2 * MIB), 0);
    let mut before = None;
    for at in (0..run.1).step_by(2 * MIB) {
        // SAFETY: the address lies within the run.
        let on = nodes_of(unsafe { run.0.add(at) }, 2 * MIB);
        assert!(
            on.iter().all(|node| *node == on[0]) && before != Some(on[0]),
            "{before:?} {on:?}"
        );
        before = Some(on[0]);
    }
    let rows = placement();
    for &(node, bound, resident, strayed) in &rows {
        assert!(
            resident >= 8 * MIB as u64 && strayed == 0,
            "node {node}: {bound} {resident} {strayed}"
        );
    }
    let bound = rows.iter().map(|row| row.1);
    assert!(
        bound.clone().max().unwrap() - bound.min().unwrap() <= 2 * MIB as u64,
        "{rows:?}"
    );
    // The small blocks of one thread lie on all nodes after a while. A thread that frees them,
    // wherever it runs, caches them.
    let mut seen: Vec<_> = blocks.iter().flat_map(Block::lies_on).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, homes);
    on_cpu(cpus(homes[1])[0], || {
        blocks.into_iter().for_each(Block::free)
    });
    assert_eq!(theap::stats().totals.node_moves, 0);
}

pub fn off() {
    // The kernel's own rule holds: memory comes from the node of the thread that touches it first.
    // One part of the heap serves all threads.
    let homes = nodes();
    let all: Vec<Vec<_>> = homes
        .iter()
        .map(|&node| on_cpu(cpus(node)[0], some_blocks))
        .collect();
    assert_eq!(theap::stats().nodes.len(), 1);
    let rows = placement();
    assert!(
        rows.iter()
            .all(|&(_, bound, _, strayed)| bound == 0 && strayed == 0),
        "{rows:?}"
    );
    for (node, blocks) in homes.iter().zip(&all) {
        assert_on(&blocks[blocks.len() - 1..], *node);
        let resident = rows
            .iter()
            .find(|row| row.0 == *node)
            .map_or(0, |row| row.2);
        assert!(resident >= 5 * MIB as u64, "{rows:?}");
    }
}

fn mapped(node: usize) -> u64 {
    let stats = theap::stats();
    let row = stats
        .nodes
        .iter()
        .find(|row| row.node == node as u64)
        .unwrap();
    row.mapped_small + row.mapped_thp + row.mapped_hugetlb
}

pub fn moves() {
    let homes = nodes();
    let (here, there) = (homes[0], homes[1]);
    let (first, second) = (cpus(here)[0], cpus(there)[0]);
    let (send, receive) = channel();
    let mover = move || {
        pin(first);
        let before = some_blocks();
        assert_on(&before, here);
        pin(second);
        // theap notices the move during these allocations, each of which is a slow path, and they
        // may come from either node.
        let passing: Vec<_> = (0..FOLLOWED).map(|_| Block::new(300 * KIB)).collect();
        let after = some_blocks();
        assert_on(&after, there);
        assert_on(&before, here);
        assert_eq!(theap::stats().totals.node_moves, 1);
        // This thread frees these blocks from the other node: they go home, and serve a thread that
        // runs there.
        before.into_iter().chain(passing).for_each(Block::free);
        theap::collect();
        let mapped_before = mapped(here);
        let again = on_cpu(first, some_blocks);
        assert_on(&again, here);
        assert_eq!(
            mapped(here),
            mapped_before,
            "what went home serves its node"
        );
        // This thread has kept none of them.
        assert_on(&some_blocks(), there);
        send.send((again, after)).unwrap();
    };
    thread::spawn(mover).join().unwrap();
    let (again, after) = receive.recv().unwrap();
    assert!(placement().iter().all(|row| row.3 == 0));
    again.into_iter().chain(after).for_each(Block::free);
}

pub fn dry_pool_of_a_node() {
    let homes = nodes();
    let (rich, dry) = (homes[0], homes[1]);
    let blocks = on_cpu(cpus(dry)[0], || {
        (0..8).map(|_| Block::new(2 * MIB)).collect::<Vec<_>>()
    });
    let rows = placement();
    let strayed = rows.iter().find(|row| row.0 == dry).unwrap().3;
    let found = blocks
        .iter()
        .flat_map(Block::lies_on)
        .filter(|&node| node == rich)
        .count()
        * 4
        * KIB;
    assert!(
        found == 16 * MIB && strayed >= found as u64,
        "{found} {rows:?}"
    );
}

pub fn homeless() {
    let node = without_memory()[0];
    let text = fs::read_to_string(format!("/sys/devices/system/node/node{node}/distance")).unwrap();
    let distances: Vec<u32> = text
        .split_whitespace()
        .map(|d| d.parse().unwrap())
        .collect();
    let online = list("/sys/devices/system/node/online");
    let distance = |node: &usize| distances[online.iter().position(|o| o == node).unwrap()];
    let nearest = nodes().into_iter().min_by_key(distance).unwrap();
    assert_on(&on_cpu(cpus(node)[0], some_blocks), nearest);
    let rows = placement();
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), nodes());
    assert!(
        rows.iter()
            .all(|&(on, bound, _, strayed)| (bound > 0) == (on == nearest) && strayed == 0),
        "{rows:?}"
    );
}

/// Asserts that all memory is on the node that `ONLY_NODE` names, which is the only one that the
/// process may use.
pub fn only_one_node() {
    let only: usize = env::var("ONLY_NODE").unwrap().parse().unwrap();
    for node in nodes() {
        assert_on(&on_cpu(cpus(node)[0], some_blocks), only);
    }
    let rows = placement();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(
        rows[0].0 == only && rows[0].1 == 0 && rows[0].2 > 10 * MIB as u64,
        "{rows:?}"
    );
    assert_eq!(theap::stats().nodes.len(), 1);
}

pub fn replugged() {
    let (node, cpu) = pluggable();
    // Spans of this node wait in the CPU's stash: they were full, and then another thread freed one
    // block of each.
    let blocks = on_cpu(cpu, || {
        (0..640).map(|_| Block::new(KIB)).collect::<Vec<_>>()
    });
    let (half, kept): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .enumerate()
        .partition(|(i, _)| i % 2 == 0);
    on_cpu(cpu, move || {
        half.into_iter().for_each(|(_, block)| block.free())
    });
    // A thread that is pinned to the CPU lives on while the CPU is offline.
    let (go, gone) = channel();
    let (ready, running) = channel();
    let survivor = thread::spawn(move || {
        pin(cpu);
        let early = some_blocks();
        assert_on(&early, node);
        ready.send(()).unwrap();
        gone.recv().unwrap();
        let late = some_blocks();
        early.into_iter().chain(late).for_each(Block::free);
    });
    running.recv().unwrap();
    let replug = Replug(cpu);
    plug(cpu, false);
    go.send(()).unwrap();
    survivor.join().unwrap();
    let active = theap::stats().active;
    let other = cpus(node)[0];
    assert_ne!(other, cpu);
    let again = on_cpu(other, || {
        (0..300).map(|_| Block::new(KIB)).collect::<Vec<_>>()
    });
    assert_on(&again, node);
    let now = theap::stats().active;
    assert!(
        now <= active + 64 * KIB as u64,
        "{active} {now}: the unplugged CPU's spans were not found"
    );
    drop(replug);
    assert_on(&on_cpu(cpu, some_blocks), node);
    kept.into_iter()
        .map(|(_, block)| block)
        .chain(again)
        .for_each(Block::free);
}

/// The CPU that `LATE_CPU` names was offline when this process started.
pub fn late() {
    let number = |name| env::var(name).unwrap().parse::<usize>().unwrap();
    let (cpu, node) = (number("LATE_CPU"), number("LATE_NODE"));
    Block::new(100).free();
    plug(cpu, true);
    assert_on(&on_cpu(cpu, some_blocks), node);
    let (send, receive) = channel();
    on_cpu(cpus(nodes()[0])[0], move || {
        assert_on(&some_blocks(), nodes()[0]);
        pin(cpu);
        (0..FOLLOWED).for_each(|_| Block::new(3 * MIB).free());
        send.send(some_blocks()).unwrap();
    });
    assert_on(&receive.recv().unwrap(), node);
}
