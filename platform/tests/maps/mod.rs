//! Reads this process's mappings as the kernel lists them.

use std::fs;
use std::ops::Range;

/// One mapping of `/proc/self/smaps`.
pub struct Mapping {
    pub range: Range<usize>,
    pub perms: String,
    fields: Vec<(String, String)>,
}

impl Mapping {
    /// The value of a size such as `Rss` or `AnonHugePages`, in KiB.
    pub fn kib(&self, field: &str) -> usize {
        self.text(field).split(' ').next().unwrap().parse().unwrap()
    }

    /// Whether the kernel has set this two-letter flag (`hg`: huge, `nh`: never huge, `ht`:
    /// hugetlb).
    pub fn flag(&self, flag: &str) -> bool {
        self.text("VmFlags").split(' ').any(|f| f == flag)
    }

    fn text(&self, field: &str) -> &str {
        let found = self.fields.iter().find(|(name, _)| name == field);
        found.map_or("0 kB", |(_, value)| value)
    }
}

/// All mappings, in order of address.
pub fn all() -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(field) = head.strip_suffix(':') {
            let value = (field.to_owned(), rest.trim().to_owned());
            mappings.last_mut().unwrap().fields.push(value);
        } else {
            let (start, end) = head.split_once('-').unwrap();
            let hex = |digits| usize::from_str_radix(digits, 16).unwrap();
            mappings.push(Mapping {
                range: hex(start)..hex(end),
                perms: rest[..4].to_owned(),
                fields: Vec::new(),
            });
        }
    }
    mappings
}

/// The mapping that contains `addr`, if any.
pub fn at(addr: usize) -> Option<Mapping> {
    all().into_iter().find(|m| m.range.contains(&addr))
}

/// The mappings that overlap `len` bytes from `addr`.
pub fn within(addr: usize, len: usize) -> Vec<Mapping> {
    all()
        .into_iter()
        .filter(|m| m.range.start < addr + len && addr < m.range.end)
        .collect()
}

/// Whether all of the range is mapped without access.
pub fn reserved(addr: usize, len: usize) -> bool {
    let parts = within(addr, len);
    let covered: usize = parts
        .iter()
        .map(|m| m.range.end.min(addr + len) - m.range.start.max(addr))
        .sum();
    covered == len && parts.iter().all(|m| m.perms == "---p")
}
