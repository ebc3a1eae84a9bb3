//! This module asks the kernel about a running process: its mappings, and the names of its threads.

use std::collections::HashMap;

use anyhow::{Context, Result};
use procfs::process::{MemoryMap, Process};
use theap::{Board, HeapStats, Mapping, Resident, ThreadName};

/// The memory that the kernel has for the heap of a process. The kernel walks through the tables of
/// the process's pages for that, and keeps those of its threads waiting meanwhile that map memory.
///
/// # Errors
/// Fails if the kernel does not show the mappings.
pub fn resident(process: &Process, board: &Board<'_>) -> Result<Resident> {
    let maps = process.smaps();
    let maps = maps.with_context(|| format!("cannot read /proc/{}/smaps", process.pid()))?;
    Ok(board.resident(maps.into_iter().map(|map| mapping(&map))))
}

fn mapping(map: &MemoryMap) -> Mapping {
    let bytes = |name: &str| map.extension.map.get(name).copied().unwrap_or(0);
    Mapping {
        start: map.address.0 as usize,
        end: map.address.1 as usize,
        rss: bytes("Rss"),
        thp: bytes("AnonHugePages") + bytes("ShmemPmdMapped"),
        hugetlb: bytes("Private_Hugetlb") + bytes("Shared_Hugetlb"),
        swapped: bytes("Swap"),
    }
}

/// The heaps of a process with the names of their threads. A thread that has ended has no name.
pub fn named_heaps(process: &Process, board: &Board<'_>) -> Vec<HeapStats> {
    let names = thread_names(process);
    let named = board.heaps().map(|mut heap| {
        let name = names.get(&heap.thread);
        heap.name = name.map_or_else(ThreadName::default, |name| ThreadName::new(name.as_bytes()));
        heap
    });
    named.collect()
}

/// The names of the threads by the numbers that they have in their own namespace.
fn thread_names(process: &Process) -> HashMap<u64, String> {
    let tasks = process.tasks().into_iter().flatten();
    let names = tasks.filter_map(|task| {
        let status = task.ok()?.status().ok()?;
        let inner = status.nspid.and_then(|pids| pids.last().copied());
        Some((inner.unwrap_or(status.pid) as u64, status.name))
    });
    names.collect()
}
