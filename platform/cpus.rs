//! Sets of CPUs.

use crate::Cpu;

/// Words of a set: the kernel's interface for a thread's CPUs, too, has room for 1024.
const WORDS: usize = 1024 / 64;

/// A set of CPUs with numbers below 1024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpus([u64; WORDS]);

impl Cpus {
    /// No CPU.
    pub const fn none() -> Self {
        Cpus([0; WORDS])
    }

    /// Reads a list like `2,4-7`. `None` if the text is no such list, or names a CPU beyond 1023.
    pub const fn parse(text: &[u8]) -> Option<Self> {
        let mut set = Self::none();
        let mut at = 0;
        loop {
            let (first, after) = match number(text, at) {
                Some(found) => found,
                None => return None,
            };
            let (last, end) = if after < text.len() && text[after] == b'-' {
                match number(text, after + 1) {
                    Some(found) => found,
                    None => return None,
                }
            } else {
                (first, after)
            };
            if first > last {
                return None;
            }
            let mut cpu = first;
            while cpu <= last {
                set.0[cpu / 64] |= 1 << (cpu % 64);
                cpu += 1;
            }
            if end == text.len() {
                return Some(set);
            }
            if text[end] != b',' {
                return None;
            }
            at = end + 1;
        }
    }

    /// Adds a CPU; a number beyond 1023 changes nothing.
    pub fn add(&mut self, cpu: Cpu) {
        if let Some(word) = self.0.get_mut(cpu.0 as usize / 64) {
            *word |= 1 << (cpu.0 % 64);
        }
    }

    /// Whether the CPU is in the set.
    pub fn has(&self, cpu: Cpu) -> bool {
        self.0
            .get(cpu.0 as usize / 64)
            .is_some_and(|word| word >> (cpu.0 % 64) & 1 == 1)
    }

    /// Whether no CPU is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// The CPUs that are in this set and in `other`.
    pub fn and(&self, other: &Self) -> Self {
        Cpus(core::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// The CPUs that are in this set and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        Cpus(core::array::from_fn(|i| self.0[i] & !other.0[i]))
    }
}

/// The number at a place of the text, and where it ends.
const fn number(text: &[u8], start: usize) -> Option<(usize, usize)> {
    let (mut value, mut at) = (0, start);
    while at < text.len() && text[at].is_ascii_digit() {
        value = value * 10 + (text[at] - b'0') as usize;
        if value >= WORDS * 64 {
            return None;
        }
        at += 1;
    }
    if at == start { None } else { Some((value, at)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn parsed(text: &[u8]) -> Option<Vec<u32>> {
        let set = Cpus::parse(text)?;
        Some((0..2000).filter(|&cpu| set.has(Cpu(cpu))).collect())
    }

    #[test]
    fn lists_are_parsed() {
        assert_eq!(parsed(b"2,4-7"), Some([2, 4, 5, 6, 7].into()));
        assert_eq!(parsed(b"1023,0"), Some([0, 1023].into()));
        for wrong in [
            &b""[..],
            b",",
            b"1,",
            b"-1",
            b"1-",
            b"3-1",
            b"1024",
            b"99999999999999999999999",
            b"1 2",
            b"x",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sets() {
        let (a, b) = (Cpus::parse(b"0-3").unwrap(), Cpus::parse(b"2-9").unwrap());
        assert_eq!(Some(a.and(&b)), Cpus::parse(b"2-3"));
        assert_eq!(Some(a.without(&b)), Cpus::parse(b"0-1"));
        assert!(a.without(&a).is_empty() && !a.is_empty());
    }
}
