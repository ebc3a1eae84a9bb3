//! Page-aligned blocks whose pages a program treats one by one, in every page mode.
#![allow(missing_docs)]

mod library;

use library::{Hugepages, compile, preloaded, succeed};

#[test]
fn single_pages_can_be_protected() {
    let program = compile("pages.c", "pages", &[]);
    let _pool = Hugepages::take(64);
    for pages in ["small", "thp", "auto", "hugetlb"] {
        let mut command = preloaded(60, &program);
        succeed(command.env("THEAP_PAGES", pages).env("THEAP_MESSAGES", "0"));
    }
}
