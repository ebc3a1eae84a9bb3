//! The sides of a comparison.

use theap_bench::{Column, Record};

use crate::pages::PageMode;

/// One side of a comparison: an allocator and, if that is theap, its page mode.
pub struct Side {
    /// The allocator's name.
    pub allocator: String,
    /// theap's page mode; nothing for another allocator.
    pub mode: Option<PageMode>,
}

impl Side {
    /// A side of this name.
    pub fn new(allocator: &str, mode: Option<PageMode>) -> Self {
        Self {
            allocator: allocator.into(),
            mode,
        }
    }

    /// The name of the side's pages in figures.
    pub fn pages(&self) -> &'static str {
        self.mode.map_or("default", PageMode::name)
    }

    /// The side's column in tables.
    pub fn column(&self) -> Column {
        Column {
            allocator: self.allocator.clone(),
            pages: self.pages().into(),
        }
    }

    /// The side's name in messages.
    pub fn title(&self) -> String {
        format!("{} ({} pages)", self.allocator, self.pages())
    }

    /// Whether the record is of this side.
    pub fn measured(&self, record: &Record) -> bool {
        record.allocator == self.allocator && record.pages == self.pages()
    }
}
