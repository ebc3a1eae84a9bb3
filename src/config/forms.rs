//! Forms: the kinds of values that options have, each with its unit, the values that it takes, and
//! its parser.

use super::{Calls, Foreign, Numa, Pages, Prefault};
use crate::gate::{Classes, Front};
use theap_platform::Cpus;

/// The form of the values of some options.
pub struct Form<T> {
    /// The unit of a number; empty for what is no number.
    pub unit: &'static str,
    /// The values that may be written, for people.
    pub values: &'static str,
    /// Reads a value; `None` if the text is none.
    pub parse: fn(&[u8]) -> Option<T>,
}

impl<T> Form<T> {
    const fn new(unit: &'static str, values: &'static str, parse: fn(&[u8]) -> Option<T>) -> Self {
        Self {
            unit,
            values,
            parse,
        }
    }
}

/// The unit of the form with this name, as a literal: also rustdoc shows it.
macro_rules! unit {
    (BYTES) => {
        "bytes"
    };
    (AUTO_BYTES) => {
        "bytes"
    };
    (MILLISECONDS) => {
        "milliseconds"
    };
    ($without:ident) => {
        ""
    };
}

pub(super) use unit;

pub const BYTES: Form<usize> = Form::new(unit!(BYTES), "bytes; K, M, G, T multiply by 1024", bytes);
pub const AUTO_BYTES: Form<Option<usize>> = Form::new(
    unit!(AUTO_BYTES),
    "auto, or bytes; K, M, G, T multiply by 1024",
    auto_bytes,
);
pub const MILLISECONDS: Form<u64> = Form::new(unit!(MILLISECONDS), "milliseconds", number);
pub const SWITCH: Form<bool> = Form::new(unit!(SWITCH), "0, 1", switch);
pub const PAGES: Form<Pages> = Form::new(unit!(PAGES), Pages::NAMES, Pages::parse);
pub const NUMA: Form<Numa> = Form::new(unit!(NUMA), Numa::NAMES, Numa::parse);
pub const PREFAULT: Form<Prefault> = Form::new(unit!(PREFAULT), Prefault::NAMES, Prefault::parse);
pub const CALLS: Form<Calls> = Form::new(unit!(CALLS), Calls::NAMES, Calls::parse);
pub const FOREIGN: Form<Foreign> = Form::new(unit!(FOREIGN), Foreign::NAMES, Foreign::parse);
pub const FRONT: Form<Front> = Form::new(unit!(FRONT), Front::NAMES, Front::parse);
pub const CLASSES: Form<Classes> = Form::new(
    unit!(CLASSES),
    "all, or numbers from 0 to 63 and ranges: 0-3,7",
    Classes::parse,
);
pub const CPUS: Form<Option<Cpus>> = Form::new(
    unit!(CPUS),
    "auto, or a list of CPUs below 1024 such as 2,4-7",
    cpus,
);

const _: () = assert!(
    Classes::COUNT == 64,
    "the values of CLASSES name the last class"
);

/// Reads a list of CPUs; `Some(None)` for `auto`.
const fn cpus(text: &[u8]) -> Option<Option<Cpus>> {
    match text {
        b"auto" => Some(None),
        list => match Cpus::parse(list) {
            None => None,
            cpus => Some(cpus),
        },
    }
}

/// The CPUs that a program names.
///
/// # Panics
/// If the text is neither a list of CPUs nor `auto`.
pub const fn listed_cpus(text: &str) -> Option<Cpus> {
    match cpus(text.as_bytes()) {
        None => panic!("not a list of CPUs below 1024"),
        Some(cpus) => cpus,
    }
}

fn switch(text: &[u8]) -> Option<bool> {
    match text {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

/// Reads a decimal number.
pub fn number(text: &[u8]) -> Option<u64> {
    bytes(text)
        .filter(|_| text.iter().all(u8::is_ascii_digit))
        .map(|n| n as u64)
}

/// Reads a size: decimal digits and an optional K, M, G or T (also KiB, MiB, …).
fn bytes(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return None;
    }
    let value = number.iter().try_fold(0usize, |sum, digit| {
        sum.checked_mul(10)?.checked_add(usize::from(digit - b'0'))
    })?;
    let shift = match unit {
        b"" => 0,
        b"K" | b"k" | b"KiB" => 10,
        b"M" | b"m" | b"MiB" => 20,
        b"G" | b"g" | b"GiB" => 30,
        b"T" | b"t" | b"TiB" => 40,
        _ => return None,
    };
    value.checked_mul(1 << shift)
}

/// Reads a size as [`bytes`] does; `Some(None)` for `auto`.
fn auto_bytes(text: &[u8]) -> Option<Option<usize>> {
    match text {
        b"auto" => Some(None),
        size => bytes(size).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_be_left_to_the_heap() {
        assert_eq!(auto_bytes(b"auto"), Some(None));
        assert_eq!(auto_bytes(b"4K"), Some(Some(4096)));
        assert_eq!(auto_bytes(b"Auto"), None);
        assert_eq!(auto_bytes(b""), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(b"0"), Some(0));
        assert_eq!(bytes(b"17"), Some(17));
        assert_eq!(bytes(b"4K"), Some(4096));
        assert_eq!(bytes(b"3GiB"), Some(3 << 30));
        assert_eq!(bytes(b"99999999999999999999"), None);
        assert_eq!(bytes(b"99999999999999T"), None);
        assert_eq!(bytes(b"K"), None);
        assert_eq!(bytes(b"1 K"), None);
        assert_eq!(bytes(b"-1"), None);
    }

    #[test]
    fn numbers_have_no_unit() {
        assert_eq!(number(b"10"), Some(10));
        assert_eq!(number(b"10K"), None);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for &pages in Pages::ALL {
            assert_eq!(Pages::parse(pages.name().as_bytes()), Some(pages));
        }
        assert_eq!(Pages::ALL.len(), 5);
        assert_eq!(Pages::NAMES, "auto, hugetlb, hugetlb-1g, thp, small");
        assert_eq!(Pages::parse(b"hugetlb_1g"), None);
        assert_eq!(Pages::parse(b"Auto"), None);
    }
}
