//! An arena behind a fake operating system, for tests of the pool: no thread has a heap in it.

use super::{Arena, HeapBytes, Look};
use crate::config::Config;
use std::boxed::Box;
use theap_platform::{Fake, Os, PAGE};

/// An arena with these options, after `prepare` has set up the fake.
pub fn arena(config: Config, prepare: impl FnOnce(&Fake)) -> (&'static Fake, &'static Arena) {
    let fake: &'static Fake = Box::leak(Box::new(Fake::new()));
    prepare(fake);
    let bytes = HeapBytes {
        first: PAGE,
        whole: PAGE,
        take_idle: |_, _| Look::Done,
    };
    let arena = Arena::create(Os::faked(fake), config, bytes).unwrap();
    (fake, arena)
}
