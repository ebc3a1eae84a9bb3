//! A range of block sizes.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An inclusive range of block sizes in bytes; never zero, at most [`Sizes::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(usize, usize)", into = "(usize, usize)")]
pub struct Sizes {
    min: usize,
    max: usize,
}

impl Sizes {
    /// The largest block size that a benchmark may ask for: 1 GiB.
    pub const MAX: usize = 1 << 30;

    /// Sizes from `min` to `max` bytes.
    ///
    /// # Errors
    /// Fails if the range is empty, holds 0, or passes [`Sizes::MAX`].
    pub fn new(min: usize, max: usize) -> Result<Self, Error> {
        if !Self::are_valid(min, max) {
            let limit = Self::MAX;
            return Err(Error::Setup(format!(
                "sizes {min}-{max} are no range of block sizes; give MIN-MAX within 1 to {limit} bytes"
            )));
        }
        Ok(Self { min, max })
    }

    /// Sizes from `min` to `max` bytes, for constants.
    ///
    /// # Panics
    /// Panics where [`Sizes::new`] fails, which stops the build of a constant.
    pub(crate) const fn constant(min: usize, max: usize) -> Self {
        assert!(Self::are_valid(min, max));
        Self { min, max }
    }

    const fn are_valid(min: usize, max: usize) -> bool {
        0 < min && min <= max && max <= Self::MAX
    }

    /// The smallest size in bytes.
    pub fn min(self) -> usize {
        self.min
    }

    /// The largest size in bytes.
    pub fn max(self) -> usize {
        self.max
    }

    /// Sizes from the smallest to the largest, about four to a doubling: in steps of an eighth to a
    /// quarter.
    pub(crate) fn ladder(self) -> impl Iterator<Item = usize> {
        let next = |&size: &usize| Some(size + ((size + 1).next_power_of_two() / 8).max(16));
        std::iter::successors(Some(self.min), next).take_while(move |&size| size <= self.max)
    }

    /// The mean in bytes of sizes that are evenly distributed over the range.
    pub(crate) const fn mean(self) -> usize {
        (self.min + self.max) / 2
    }
}

impl TryFrom<(usize, usize)> for Sizes {
    type Error = Error;

    fn try_from((min, max): (usize, usize)) -> Result<Self, Error> {
        Self::new(min, max)
    }
}

impl From<Sizes> for (usize, usize) {
    fn from(sizes: Sizes) -> Self {
        (sizes.min, sizes.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_meets_every_class() {
        let range = Sizes::new(16, 256 << 10).unwrap();
        assert_eq!(range.ladder().count(), 52);
        assert_eq!(
            range.ladder().take(13).collect::<Vec<_>>(),
            [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
        );
        assert_eq!(range.ladder().last(), Some(256 << 10));
    }
}
