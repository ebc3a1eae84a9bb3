//! The times at which the warmer looks for SuperSlabs to collapse, and collapses one: arithmetic
//! alone, in nanoseconds.

const MS: u64 = 1_000_000;
/// Looks in a round, which takes the time of `decay`.
const LOOKS: u64 = 8;
/// The pause between two SuperSlabs, which leaves the lock on the address space to others.
const PAUSE: u64 = 10 * MS;
/// The wait after the system refused; it doubles from the first to the last.
const FIRST_RETRY: u64 = 1000 * MS;
const LAST_RETRY: u64 = 600 * FIRST_RETRY;

/// The rounds of the warmer's looks. All-zero before the first.
#[derive(Debug, Default)]
pub struct Rounds {
    /// When the round began, and when the last look was.
    began: u64,
    looked: u64,
    /// SuperSlabs that were ripe at the last look and have not been tried since.
    pub ripe: usize,
    /// Where the search for them goes on.
    pub cursor: usize,
    retry: u64,
    retry_at: u64,
}

impl Rounds {
    /// Whether it is time for a look, and if so, whether a round of `decay` is over with it.
    pub fn look(&mut self, now: u64, decay: u64) -> Option<bool> {
        if now.saturating_sub(self.looked) < decay / LOOKS {
            return None;
        }
        self.looked = now;
        let over = now.saturating_sub(self.began) >= decay;
        if over {
            self.began = now;
        }
        Some(over)
    }

    /// Whether to collapse one now.
    pub fn collapses(&self, now: u64) -> bool {
        self.ripe > 0 && now >= self.retry_at
    }

    /// The longest pause until the next step.
    pub fn pause(&self, now: u64) -> u64 {
        if self.collapses(now) { PAUSE } else { u64::MAX }
    }

    /// Notes that one was collapsed.
    pub fn served(&mut self) {
        self.ripe -= 1;
        self.retry = 0;
    }

    /// Notes that one was refused: the next one is tried later.
    pub fn refused(&mut self, now: u64) {
        self.ripe -= 1;
        self.retry = (2 * self.retry).clamp(FIRST_RETRY, LAST_RETRY);
        self.retry_at = now + self.retry;
    }
}
