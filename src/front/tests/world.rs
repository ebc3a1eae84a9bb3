//! The world that the tests of the front act on: an arena behind a fake operating system, with a
//! ledger of its live blocks.
#![allow(unsafe_code)] // Makes and uses caches, and reads and writes blocks.

use crate::classes;
use crate::config::Config;
use crate::front::cache::{CACHE_BYTES, ThreadCache};
use crate::front::handle::Handle;
use crate::front::life::new_in;
use crate::front::nursery::each_nursery;
use crate::front::validity;
use crate::geometry::NodeIndex;
use crate::pool::Location;
use crate::pool::{Arena, Invalid};
use crate::stats::Counters;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;
use theap_platform::{Error, Fake, Os, Topology};

/// A topology of these parts, for a fake.
pub fn topology(parts: &[(u32, u32, u8)]) -> &'static Topology {
    Box::leak(Box::new(Topology::from_parts(parts)))
}

/// An arena behind a fake, with the blocks that are live in it.
pub struct World {
    pub fake: &'static Fake,
    pub arena: &'static Arena,
    /// Address -> size. Behind a lock, as several threads may use the world (`faults`).
    live: Mutex<BTreeMap<usize, usize>>,
}

/// The steps and questions of tests.
impl Handle {
    pub fn with<R>(self, step: impl FnOnce(&mut ThreadCache) -> R) -> R {
        // SAFETY: the tests' steps call only the cache, its heap and the arena.
        unsafe { self.step(step) }
    }

    pub fn node(self) -> NodeIndex {
        self.with(|cache| cache.node())
    }

    pub fn counters(self) -> &'static Counters {
        self.with(|cache| cache.heap.counters)
    }

    pub fn flush(self) {
        self.with(ThreadCache::flush);
    }

    /// Retires the cache: the test does not use this handle of it any more.
    pub fn end(self) {
        // SAFETY: no slot holds the caches of a world.
        unsafe { self.retire() };
    }
}

impl World {
    pub fn new(config: Config, prepare: impl FnOnce(&Fake)) -> Result<Self, Error> {
        let fake: &'static Fake = Box::leak(Box::new(Fake::new()));
        prepare(fake);
        let arena = Arena::create(Os::faked(fake), config, CACHE_BYTES)?;
        Ok(Self {
            fake,
            arena,
            live: Mutex::default(),
        })
    }

    /// A new cache for the calling thread.
    pub fn cache(&self) -> Option<Handle> {
        new_in(self.arena)
    }

    pub fn live(&self) -> MutexGuard<'_, BTreeMap<usize, usize>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocates, checks that the block is nobody else's, and writes its ends.
    pub fn alloc(&mut self, cache: Handle, size: usize, align: usize) -> Option<usize> {
        self.alloc_beside(cache, size, align)
    }

    /// Like `alloc`, while other threads do the same.
    pub fn alloc_beside(&self, cache: Handle, size: usize, align: usize) -> Option<usize> {
        let block = match classes::class_for(size, align) {
            Some(class) => cache.with(|cache| cache.alloc_class(class)),
            None => self
                .arena
                .runs()
                .acquire(cache.node(), size, align)
                .map_or(core::ptr::null_mut(), |r| r.0),
        };
        if block.is_null() {
            return None;
        }
        let address = block as usize;
        let is_run = || self.arena.runs().bytes_at(address).is_some();
        assert!(self.arena.addresses().contains(address) || is_run());
        assert!(address.is_multiple_of(align));
        let mut live = self.live();
        let below = live.range(..address + size).next_back();
        assert!(
            below.is_none_or(|(at, len)| at + len <= address),
            "a block was handed out twice"
        );
        // SAFETY: the block has `size` bytes and is ours.
        unsafe {
            block.write(address as u8);
            block.add(size - 1).write(size as u8);
        }
        live.insert(address, size);
        Some(address)
    }

    /// Checks that nobody has written to the block's ends, and frees it.
    pub fn free(&mut self, cache: Handle, address: usize) {
        self.free_beside(cache, address);
    }

    /// Like `free`, while other threads do the same.
    pub fn free_beside(&self, cache: Handle, address: usize) {
        let size = self.live().remove(&address).expect("live");
        let block = address as *mut u8;
        // SAFETY: a live block of the world.
        unsafe {
            assert_eq!(
                block.add(size - 1).read(),
                size as u8,
                "somebody wrote into a live block"
            );
            assert!(size == 1 || block.read() == address as u8);
        }
        match self.arena.addresses().locate(address) {
            Location::Free => panic!("a live block's slot is free"),
            Location::Foreign => {
                // SAFETY: the run is the world's, which forgets it.
                assert!(unsafe { self.arena.runs().outside().release(address) });
            }
            Location::Run(_) => {
                let slot = self.arena.addresses().run_at(address).expect("a run");
                // SAFETY: the run is the world's, which forgets it.
                assert!(unsafe { self.arena.runs().release(slot) });
            }
            // SAFETY: a live block of the class, which the world forgets.
            Location::Block(part) => cache.with(|cache| unsafe {
                cache.free_class(part.class, block);
            }),
        }
    }

    pub fn resize(&self, address: usize, size: usize) -> bool {
        // Runs outside of the range have tests of their own.
        let Some(slot) = self.arena.addresses().run_at(address) else {
            return false;
        };
        // SAFETY: the run is the world's.
        let resized = unsafe { self.arena.runs().resize(slot, size) };
        if resized {
            // SAFETY: the run has `size` bytes now.
            unsafe {
                (address as *mut u8).write(address as u8);
                ((address + size - 1) as *mut u8).write(size as u8);
            }
            self.live().insert(address, size);
        }
        resized
    }

    pub fn is_valid(&self) {
        self.check().expect("a valid heap");
    }

    pub fn check(&self) -> Result<(), Invalid> {
        // SAFETY: no thread takes a step of the world's caches now.
        unsafe { validity::check(self.arena) }
    }

    pub fn active(&self) -> u64 {
        self.arena.figures().board().unwrap().stats().active
    }

    /// Frees everything.
    pub fn free_all(&mut self, cache: Handle) {
        let left: Vec<_> = self.live().keys().copied().collect();
        left.into_iter()
            .for_each(|address| self.free(cache, address));
    }

    /// Has the nurseries give back what is wholly free.
    pub fn collect_nurseries(&self) {
        // SAFETY: the step calls only the heap and the arena.
        unsafe { each_nursery(self.arena, ThreadCache::collect) };
    }

    /// Frees everything, retires the caches, and finds every slot free again.
    pub fn end(&mut self, caches: Vec<Handle>) {
        match caches.first() {
            Some(cache) => self.free_all(*cache),
            None => assert!(self.live().is_empty(), "no block without a cache"),
        }
        caches.into_iter().for_each(Handle::end);
        self.collect_nurseries();
        self.arena.purge();
        self.is_valid();
        assert_eq!(self.active(), 0, "slots are lost");
        let stats = self.arena.figures().board().unwrap().stats();
        assert_eq!(stats.empty, 0, "memory is kept");
        assert_eq!(
            self.arena.policy().budget().spent(),
            0,
            "what was learned ends with the threads"
        );
        // SAFETY: nobody uses the arena any more.
        unsafe { Arena::destroy(self.arena) };
    }
}
