//! The limits of the heap as a C program meets them.
#![allow(missing_docs)]

mod library;

use library::{compile, preloaded, text};

#[test]
fn a_program_is_told_and_gets_null() {
    let program = compile("limits.c", "limits", &["-ldl"]);
    for pages in ["small", "thp", "auto"] {
        for front in ["theap", "classic"] {
            let said = text(
                preloaded(60, &program)
                    .env("THEAP_PAGES", pages)
                    .env("THEAP_FRONT", front)
                    .env("THEAP_LIMIT", "128M")
                    .env("THEAP_SOFT_LIMIT", "64M"),
            );
            assert_eq!(said, "done\n");
        }
    }
}
