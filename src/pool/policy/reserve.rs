//! How the heap's addresses come from the system.
//!
//! As a rule the heap reserves nothing ahead. It has chosen a place where the kernel itself maps
//! nothing (`Os::distant_place`), with room for everything that it may ever need, and reserves each
//! piece when the piece comes into use: a program that looks at its size, limits its addresses or
//! locks its memory meets only what the heap really has. A foreign mapping in the way costs the
//! SuperSlabs that it covers. Where no such place can be had, all of it is reserved from the start.
#![allow(unsafe_code)] // Reserves and commits ranges of addresses.

use super::Policy;
use core::sync::atomic::Ordering;
use theap_arch::valgrind;
use theap_platform::{Error, Guard, NodeId, PageMode};

impl Policy {
    /// Reserves a range that comes into use, if that was not done at the start.
    ///
    /// # Errors
    /// [`Error::Lost`] if something else is mapped there, or the system's refusal.
    ///
    /// # Safety
    /// The range is the heap's, and neither reserved since the start nor in use.
    pub unsafe fn reserve(&self, address: usize, len: usize) -> Result<(), Error> {
        if self.reserves_late {
            self.os.reserve_at(address, len)
        } else {
            Ok(())
        }
    }

    /// Gives a range back that `reserve` has reserved.
    ///
    /// # Safety
    /// Nobody refers to the range, which is reserved or mapped.
    pub unsafe fn unreserve(&self, address: usize, len: usize) {
        if self.reserves_late {
            // SAFETY: the heap's, and nobody's, as this function's Safety section asks.
            unsafe { self.os.unreserve(address, len) };
        }
    }

    /// Counts bytes against the limits, and has `open` map them or make them accessible.
    ///
    /// # Errors
    /// Out of memory beyond the limit, or the error of `open`; the bytes do not count then.
    pub fn charged<T>(
        &self,
        len: usize,
        open: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        if !self.limit().take(len) {
            return Err(Error::NoMemory);
        }
        open().inspect_err(|_| self.limit().give(len))
    }

    /// Makes a range of the metadata accessible.
    ///
    /// # Errors
    /// The errors of `reserve` and the system's, and out of memory beyond the limit; the range is
    /// as before.
    ///
    /// # Safety
    /// The conditions of `reserve`.
    pub unsafe fn open(&self, address: usize, len: usize) -> Result<(), Error> {
        // SAFETY: this function's own Safety section.
        self.charged(len, || unsafe { self.open_small(address, len) })
    }

    /// Makes a range accessible as `open` does, without counting it.
    ///
    /// # Errors
    /// The errors of `reserve` and the system's.
    ///
    /// # Safety
    /// The conditions of `reserve`.
    unsafe fn open_small(&self, address: usize, len: usize) -> Result<(), Error> {
        // SAFETY: this function's own Safety section.
        unsafe {
            if self.reserves_late {
                self.os.open_at(address, len)?;
            } else {
                self.os.open(address, len)?;
            }
            self.lock_memory(address, len);
        }
        self.count_metadata(len);
        valgrind::own(address, len);
        Ok(())
    }

    /// Counts bytes of metadata that became accessible.
    pub fn count_metadata(&self, bytes: usize) {
        let metadata = &self.header.metadata;
        metadata.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Gives a range of the metadata back that `open` has made accessible.
    ///
    /// # Safety
    /// The conditions of `unreserve`.
    pub unsafe fn close(&self, address: usize, len: usize) {
        let metadata = &self.header.metadata;
        metadata.fetch_sub(len as u64, Ordering::Relaxed);
        // SAFETY: this function's own Safety section.
        unsafe { self.unreserve(address, len) };
        self.limit().give(len);
    }

    /// Makes a range of the metadata accessible as `open` does, on memory of the node `bind`; on
    /// hugepages if `huge`, where the system has such.
    ///
    /// # Errors
    /// The errors of `open`.
    ///
    /// # Safety
    /// The conditions of `reserve`; the range is whole hugepages if `huge`.
    pub unsafe fn open_on(
        &self,
        address: usize,
        len: usize,
        huge: bool,
        bind: Option<NodeId>,
    ) -> Result<(), Error> {
        // All of it was advised at the start.
        if self.is_plain() || !huge && bind.is_none() {
            // SAFETY: this function's own Safety section.
            return unsafe { self.open(address, len) };
        }
        if !huge {
            // SAFETY: this function's own Safety section.
            unsafe { self.open(address, len)? };
            // Elsewhere it is slower, nothing else.
            let _ = bind.map(|node| self.os.bind(address, len, node));
            return Ok(());
        }
        // SAFETY: this function's own Safety section.
        self.charged(len, || unsafe { self.open_huge(address, len, bind) })
    }

    /// Makes a range accessible on hugepages, where the system has such, without counting it.
    ///
    /// # Errors
    /// The errors of `reserve` and the system's.
    ///
    /// # Safety
    /// The conditions of `reserve`; the range is whole hugepages.
    unsafe fn open_huge(
        &self,
        address: usize,
        len: usize,
        bind: Option<NodeId>,
    ) -> Result<(), Error> {
        // SAFETY: this function's own Safety section; what could not be mapped is only reserved,
        // unless it is lost.
        unsafe {
            self.reserve(address, len)?;
            match valgrind::quietly(|| self.os.map(address, len, PageMode::Thp, bind)) {
                Ok(()) => {}
                Err(Error::Lost) => return Err(Error::Lost),
                Err(_) => match self.os.open(address, len) {
                    Ok(()) => {}
                    Err(Error::Lost) => return Err(Error::Lost),
                    Err(error) => {
                        self.unreserve(address, len);
                        return Err(error);
                    }
                },
            }
            self.lock_memory(address, len);
        }
        self.count_metadata(len);
        valgrind::own(address, len);
        Ok(())
    }

    /// The lock of those who open the same range at the same moment.
    pub fn opening(&self) -> Guard<'_, ()> {
        self.opening.lock()
    }
}
