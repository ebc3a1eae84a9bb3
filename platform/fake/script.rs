//! The calls that a test has ordered to fail.

use super::Call;
use crate::{Error, PageMode};

/// The orders, and two counts of calls: of all calls, and of the calls of the kind `only` since a
/// test gave the last order.
pub(super) struct Script {
    pub calls: u64,
    pub failed: u64,
    pub only: Option<Call>,
    pub error: Option<Error>,
    /// One bit a [`PageMode`].
    pub refused: u8,
    seen: u64,
    /// The first call to fail, and the first to succeed again.
    from: u64,
    until: u64,
}

impl Script {
    pub const fn new() -> Self {
        Script {
            calls: 0,
            failed: 0,
            only: None,
            error: None,
            refused: 0,
            seen: 0,
            from: 0,
            until: 0,
        }
    }

    pub fn arm(&mut self, from: u64, until: u64) {
        self.seen = 0;
        self.from = from;
        self.until = until;
    }

    pub fn heal(&mut self) {
        *self = Script {
            calls: self.calls,
            ..Script::new()
        };
    }

    pub fn check(&mut self, call: Call) -> Result<(), Error> {
        self.calls += 1;
        if self.only.is_some_and(|only| only != call) {
            return Ok(());
        }
        let hit = (self.from..self.until).contains(&self.seen);
        self.seen += 1;
        if !hit {
            return Ok(());
        }
        self.failed += 1;
        Err(self.error.unwrap_or(match call {
            Call::Bind => Error::Other(libc::EPERM),
            _ => Error::NoMemory,
        }))
    }

    pub fn check_mode(&mut self, mode: PageMode) -> Result<(), Error> {
        if self.refused & 1 << mode as u8 == 0 {
            return Ok(());
        }
        self.failed += 1;
        Err(match mode {
            PageMode::Small => Error::NoMemory,
            PageMode::Thp => Error::Unsupported,
            PageMode::Hugetlb | PageMode::Hugetlb1g => Error::NoHugepages,
        })
    }
}
