//! The system under Miri, which knows neither system calls nor assembly: memory from the standard
//! library, no second process, no worker thread, no environment.
//!
//! The modules have the names and functions of `linux/`. Tests put a fake in front of them for what
//! they want to see of nodes, CPUs, time and failures.

pub mod map;
pub mod process;
/// The stack: Miri has no unwinder to ask.
pub mod stack {
    use crate::Frame;

    /// See [`crate::Os::stack`].
    pub fn capture(_into: &mut [usize]) -> usize {
        0
    }

    /// See [`crate::Os::frame`].
    pub fn frame(_address: usize) -> Option<Frame> {
        None
    }
}

#[path = "../linux/thread_exit.rs"]
pub mod thread_exit;
pub mod worker;

use crate::{Error, NodeId, PageMode};

/// Hugetlb pages: there are none.
pub mod huge {
    use crate::Error;

    /// See [`crate::Os::fill`].
    ///
    /// # Safety
    /// None.
    pub unsafe fn fill(_addr: usize, _len: usize, _step: usize) -> Result<(), Error> {
        Err(Error::NoHugepages)
    }

    /// See [`crate::Os::hugetlb_serves`].
    pub fn hugetlb_serves(_len: usize) -> bool {
        false
    }
}

/// Libraries: there are none.
pub mod library {
    /// See [`crate::Os::pin_library`].
    pub fn pin() {}
}

/// Moulds: nothing needs any.
pub mod mould {
    use crate::{NodeId, PageMode};

    /// See [`crate::Os::make_mould`].
    pub fn make(_mode: PageMode, _bind: Option<NodeId>) {}
}

/// CPUs: a thread may run on any.
pub mod affinity {
    use crate::{Cpus, Error};

    /// See [`crate::Os::run_on`].
    pub fn run_on(_cpus: &Cpus) -> Result<(), Error> {
        Ok(())
    }

    /// See [`crate::Os::pinned_to`].
    pub fn pinned_to() -> Cpus {
        Cpus::parse(b"0-1023").unwrap_or_default()
    }
}

/// Control groups: there are none.
pub mod cgroup {
    /// The lowest limit of memory in bytes: none.
    pub fn memory_limit() -> u64 {
        u64::MAX
    }

    /// The bytes that the groups leave: all.
    pub fn memory_left() -> u64 {
        u64::MAX
    }
}

/// Signals: Miri has none.
pub mod crash {
    #![allow(unsafe_code)] // The signature is that of `linux/crash.rs`.

    use crate::Error;
    use crate::signal::Crash;

    /// Installs nothing, as no signal comes.
    ///
    /// # Errors
    /// None.
    ///
    /// # Safety
    /// This has no precondition; under Linux `hook` is async-signal-safe.
    pub unsafe fn install(_hook: fn(Crash)) -> Result<(), Error> {
        Ok(())
    }
}

/// Standard error, which nobody exchanges.
pub mod stderr {
    use std::io::Write;

    /// See [`crate::Os::note_stderr`].
    pub fn note() {}

    /// See [`crate::Os::remark`].
    pub fn remark(bytes: &[u8]) {
        write(bytes);
    }

    /// See [`crate::Os::stderr`].
    pub fn write(bytes: &[u8]) {
        let _ = std::io::stderr().write_all(bytes);
    }
}

/// Moving off hugetlb pages, of which there are none.
pub mod demote {
    #![allow(unsafe_code)] // The signature is that of `linux/demote.rs`.

    use super::{Error, NodeId};

    /// See [`crate::Os::demote`].
    ///
    /// # Safety
    /// This has no precondition.
    pub unsafe fn demote(
        _addr: usize,
        _len: usize,
        _bind: Option<NodeId>,
        _workers: usize,
    ) -> Result<(), Error> {
        Err(Error::Unsupported)
    }
}

/// Files of /proc and /sys: a machine with one node and four CPUs. What is checked for each CPU
/// would take minutes with the 4096 of a topology that nobody can read.
pub mod file {
    const FILES: [(&[u8], &[u8]); 3] = [
        (b"/sys/devices/system/node/online", b"0"),
        (b"/sys/devices/system/node/node0/cpulist", b"0-3"),
        (b"/sys/devices/system/cpu/possible", b"0-3"),
    ];

    /// Reads the beginning of a file, as much as the buffer takes; `None` if there is no such file.
    pub fn read<'a>(path: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let (_, text) = FILES.iter().find(|(name, _)| *name == path)?;
        let read = buffer.get_mut(..text.len())?;
        read.copy_from_slice(text);
        Some(read)
    }
}

/// Forks: there are none.
pub mod fork {
    use super::Error;

    /// Registers nothing, as no fork comes.
    ///
    /// # Errors
    /// None.
    pub fn register(
        _prepare: extern "C" fn(),
        _parent: extern "C" fn(),
        _child: extern "C" fn(),
    ) -> Result<(), Error> {
        Ok(())
    }
}

/// Waiting for a word in memory to change: other threads get their turn, and the caller looks
/// again.
pub mod futex {
    use core::sync::atomic::AtomicU32;

    /// Lets other threads run.
    pub fn wait(_word: &AtomicU32, _value: u32, _ns: Option<u64>) {
        std::thread::yield_now();
    }

    /// Wakes nobody, as nobody sleeps.
    pub fn wake(_word: &AtomicU32) {}
}

/// Pressure on memory: nothing tells it.
pub mod pressure {
    use crate::Pressure;

    /// See [`crate::Os::watch_pressure`].
    pub fn watch() -> Pressure {
        Pressure::NONE
    }

    /// See [`crate::Os::is_pressed`].
    pub fn is_pressed(_pressure: &Pressure) -> bool {
        false
    }
}

/// The pools of hugetlb pages: there are none.
pub mod hugetlb {
    use super::PageMode;

    /// See [`crate::Os::hugetlb_free`].
    pub fn free(_mode: PageMode) -> usize {
        0
    }
}

/// NUMA nodes: there is one.
pub mod numa {
    use super::{Error, NodeId};
    use crate::Cpu;
    use crate::node_set::NodeSet;

    /// See [`crate::Os::bind`].
    pub fn bind(_addr: usize, _len: usize, _node: NodeId) -> Result<(), Error> {
        Ok(())
    }

    /// See [`crate::Os::node_of`].
    pub fn node_of(_addr: usize) -> Result<NodeId, Error> {
        Err(Error::Unsupported)
    }

    /// The nodes whose memory this thread may use: all.
    pub fn allowed() -> NodeSet {
        NodeSet::ALL
    }

    /// See [`crate::Os::nodes_of`].
    pub fn nodes_of(
        _addr: usize,
        _step: usize,
        _nodes: &mut [Option<NodeId>],
    ) -> Result<(), Error> {
        Err(Error::Unsupported)
    }

    /// See [`crate::Os::current_place`].
    pub fn current_place() -> Option<(Cpu, NodeId)> {
        None
    }
}

/// Memory that other processes may read: there are no others.
pub mod share {
    #![allow(unsafe_code)] // The signatures are those of `linux/share.rs`.

    use super::Error;

    /// No file.
    #[derive(Debug)]
    pub struct Shared(());

    impl Shared {
        /// No file.
        pub const fn none() -> Self {
            Shared(())
        }

        /// Whether there is a file.
        pub fn is_some(&self) -> bool {
            false
        }
    }

    /// See [`crate::Os::share`].
    ///
    /// # Safety
    /// This has no precondition.
    pub unsafe fn share(_addr: usize, _len: usize) -> Result<Shared, Error> {
        Err(Error::Unsupported)
    }

    /// See [`crate::Os::share_anew`].
    ///
    /// # Safety
    /// This has no precondition.
    pub unsafe fn share_anew(_shared: &Shared, _addr: usize, _len: usize, _used: usize) -> bool {
        false
    }
}

/// The mappings of the process: Miri has no such file.
pub mod smaps {
    use crate::{Error, Mapping};

    /// See [`crate::Os::each_mapping`].
    pub fn each(_each: &mut dyn FnMut(&Mapping)) -> Result<(), Error> {
        Err(Error::Unsupported)
    }
}
