//! Programs that treat pages: one by one in page-aligned blocks, in every page mode, or all of
//! them, as an ordinary user who may lock little memory.
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

#[test]
fn an_ordinary_user_locks_all_memory() {
    let program = compile("locked.c", "locked", &["-pthread"]);
    for pages in ["small", "thp", "auto"] {
        for flags in ["current", "future", "both", "onfault"] {
            let mut command = preloaded(60, &program);
            succeed(command.arg(flags).env("THEAP_PAGES", pages));
        }
    }
}
