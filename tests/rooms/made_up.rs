//! Tests of the checks on crates that are made up: a check names the files of a fault, and finds
//! none in a crate that keeps the rules.

use super::{Crate, circles, upward};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors of the crates in this file.
const FLOORS: &[&[&str]] = &[&["base"], &["pool"], &["front"], &["lib"]];

/// Writes a crate of these files into a directory of this name.
fn made(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("layers")
        .join(name);
    let _ = fs::remove_dir_all(&root);
    for (file, text) in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

/// The messages of both checks about a crate.
fn problems(name: &str, files: &[(&str, &str)]) -> Vec<String> {
    let root = made(name, files);
    let whole = Crate::read(&root, &root.join("lib.rs"));
    let graph = whole.graph(&FLOORS.concat());
    let mut found = upward(&graph, FLOORS);
    found.extend(circles(&graph));
    found
}

/// Asserts that there is one problem, and that its message has all these words.
fn one_problem(name: &str, files: &[(&str, &str)], words: &[&str]) {
    let found = problems(name, files);
    assert_eq!(found.len(), 1, "{found:?}");
    for word in words {
        assert!(found[0].contains(word), "{word}: {}", found[0]);
    }
}

const LIB: (&str, &str) = (
    "lib.rs",
    "mod base; mod pool; mod front; pub use front::Front;",
);
const BASE: (&str, &str) = ("base.rs", "pub struct Base;");
const POOL: (&str, &str) = ("pool/mod.rs", "mod span; pub use span::Span;");
const SPAN: (&str, &str) = (
    "pool/span.rs",
    "use crate::base::Base; pub struct Span(Base);",
);
const FRONT: (&str, &str) = (
    "front.rs",
    "use crate::{base, pool::Span}; pub struct Front(Span);",
);

#[test]
fn what_is_right_is_not_reported() {
    let found = problems("right", &[LIB, BASE, POOL, SPAN, FRONT]);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn an_import_upwards_is_reported() {
    let forms = [
        "use crate::front::Front;",
        "use crate::{base::Base, front::{self, Front}};",
        "use super::super::front::Front;",
        "fn f() { crate::front::Front::new(); }",
        "fn f(_: &crate::front::Front) {}",
        "fn f() { use crate::front as above; above::g() }",
        "fn f() { assert!(crate::front::g()); }",
        "macro_rules! m { () => { $crate::front::g() } }",
        "cfg_if! { if #[cfg(miri)] { use crate::front::*; } else { } }",
        // The root exports this name.
        "use crate::Front;",
        "type T = <crate::front::Front as Clone>::Owned;",
    ];
    for form in forms {
        let span = ("pool/span.rs", &*format!("pub struct Span;\n{form}"));
        let front = ("front.rs", "pub struct Front;");
        let words = [
            "upwards, pool -> front",
            "pool/span.rs:2 names ",
            "front.rs",
        ];
        one_problem("upwards", &[LIB, BASE, POOL, span, front], &words);
    }
}

#[test]
fn a_circle_is_reported() {
    // Both rooms stand on one floor, so no floor forbids the imports.
    let root = made(
        "circle",
        &[
            ("lib.rs", "mod one; mod two; mod three;"),
            ("one/mod.rs", "mod inner; pub fn f() { inner::g() }"),
            ("one/inner.rs", "use crate::two; pub fn g() { two::h() }"),
            ("two.rs", "pub fn h() { crate::three::i() }"),
            ("three.rs", "pub fn i() { crate::one::f() }"),
        ],
    );
    let found = circles(&Crate::read(&root, &root.join("lib.rs")).graph(&[]));
    assert_eq!(found.len(), 1, "{found:?}");
    for word in [
        "rooms in a circle: one, three, two",
        "one -> two: one/inner.rs:1 names crate::two (two.rs)",
        "two -> three: two.rs:1 names crate::three::i (three.rs)",
        "three -> one: three.rs:1 names crate::one::f (one/mod.rs)",
    ] {
        assert!(found[0].contains(word), "{word}: {}", found[0]);
    }
}

#[test]
fn a_directory_within_a_room_is_a_room() {
    let root = made(
        "nested",
        &[
            ("lib.rs", "mod pool;"),
            (
                "pool/mod.rs",
                "mod pages; pub const SLOT: usize = pages::SIZE;",
            ),
            ("pool/pages/mod.rs", "mod purge; pub const SIZE: usize = 1;"),
            ("pool/pages/purge.rs", "use crate::pool::SLOT;"),
        ],
    );
    let found = circles(&Crate::read(&root, &root.join("lib.rs")).graph(&[]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("rooms in a circle: pool, pool::pages"),
        "{}",
        found[0]
    );
}

/// `pool` and `base` name each other only through names that `pool` re-exports.
#[test]
fn a_reexport_is_followed_to_the_definition() {
    let handed_on = (
        "pool/mod.rs",
        "mod span; pub use span::Span; pub use crate::front::*;",
    );
    let files = [LIB, ("base.rs", "use crate::pool::Front;"), handed_on, SPAN];
    let root = made(
        "reexport",
        &[&files[..], &[("front.rs", "pub struct Front;")]].concat(),
    );
    let graph = Crate::read(&root, &root.join("lib.rs")).graph(&[]);
    let names: Vec<_> = graph["base"].keys().collect();
    assert_eq!(names, ["front"]);
    // A name of another crate leads to no room. A name that is found nowhere leads to the module in
    // which it should be.
    let files = [
        ("lib.rs", "mod base; pub use std::io::Error; mod made;"),
        ("base.rs", "use crate::Error; use crate::made::by_a_macro;"),
        ("made.rs", ""),
    ];
    let root = made("outside", &files);
    let graph = Crate::read(&root, &root.join("lib.rs")).graph(&[]);
    let names: Vec<_> = graph["base"].keys().collect();
    assert_eq!(names, ["made"]);
}

#[test]
fn tests_may_name_what_they_test() {
    let tests = "pub struct Base;
        #[cfg(test)] mod tests { use crate::front::Front; }
        #[cfg(all(test, not(loom)))] use crate::front::Front;
        #[cfg(test)] fn f() -> [u8; 2] { crate::front::f() }
        struct S { #[cfg(test)] front: crate::front::Front, base: Base }
        #[test] fn g() { super::front::f() }
        #[cfg(test)] mod more;
        // use crate::front;
        /// [`crate::front::Front`]
        const TEXT: &str = \"crate::front::Front\";";
    let more = ("base/more.rs", "use crate::front::Front; mod deeper;");
    let deeper = ("base/more/deeper.rs", "use crate::front::Front;");
    let found = problems(
        "tests",
        &[LIB, ("base.rs", tests), POOL, SPAN, FRONT, more, deeper],
    );
    assert!(found.is_empty(), "{found:?}");
    // The code after a test counts again.
    let after = (
        "base.rs",
        "#[cfg(test)] mod tests { }\n#[cfg(not(test))] use crate::front::Front;",
    );
    let words = ["upwards, base -> front", "base.rs:2"];
    let found = problems("behind", &[LIB, after, POOL, SPAN, FRONT]);
    assert!(
        words.iter().all(|word| found[0].contains(word)),
        "{found:?}"
    );
}

#[test]
fn rooms_and_floors_are_the_same() {
    let lib = ("lib.rs", "mod base; mod pool; mod front; mod annex;");
    let annex = ("annex.rs", "use crate::pool::Span;");
    let words = [
        "the room annex has no floor",
        "on the floor of pool, or above",
    ];
    one_problem("annex", &[lib, BASE, POOL, SPAN, FRONT, annex], &words);
    let lib = ("lib.rs", "mod base; mod pool;");
    one_problem(
        "gone",
        &[lib, BASE, POOL, SPAN],
        &["there is no room front"],
    );
}
