//! Real programs on theap as the global allocator: a search of many files by ripgrep's engine,
//! parallel compression, a large JSON document. Each test compares the result with one that it gets
//! in another way.

use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use grep_regex::RegexMatcher;
use grep_searcher::Searcher;
use grep_searcher::sinks::UTF8;
use ignore::{WalkBuilder, WalkState};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use theap::Theap;

#[global_allocator]
static HEAP: Theap = Theap::new();

const WORDS: [&str; 12] = [
    "span", "slot", "page", "block", "thread", "magazine", "refill", "drain", "purge", "owner",
    "node", "heap",
];

/// A text that looks random; the same seed gives the same text.
fn text(seed: usize, words: usize) -> String {
    let mut state = seed as u64;
    let mut text = String::new();
    for _ in 0..words {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text += WORDS[(state >> 33) as usize % WORDS.len()];
        text.push(if state >> 60 == 0 { '\n' } else { ' ' });
    }
    text
}

/// A directory of text files, which is removed when the value is dropped.
struct Tree(PathBuf);

impl Tree {
    fn new(files: usize) -> Self {
        let root = std::env::temp_dir().join(format!("theap-real-{}", std::process::id()));
        (0..files).into_par_iter().for_each(|i| {
            let directory = root.join(format!("{}/{}", i % 20, i % 7));
            fs::create_dir_all(&directory).unwrap();
            fs::write(
                directory.join(format!("{i}.txt")),
                text(i, 100 + i * 7 % 3000),
            )
            .unwrap();
        });
        Self(root)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The file, the line's number and the line of a match.
type Match = (PathBuf, u64, String);

/// The lines that ripgrep would print.
fn search(root: &Path, pattern: &str) -> BTreeSet<Match> {
    let found = Mutex::new(BTreeSet::new());
    let matcher = RegexMatcher::new(pattern).unwrap();
    WalkBuilder::new(root).threads(8).build_parallel().run(|| {
        let (mut searcher, matcher, found) = (Searcher::new(), matcher.clone(), &found);
        Box::new(move |entry| {
            let entry = entry.unwrap();
            if entry.file_type().is_some_and(|kind| kind.is_file()) {
                let sink = UTF8(|number, line| {
                    found.lock().unwrap().insert((
                        entry.path().to_owned(),
                        number,
                        line.trim_end().to_owned(),
                    ));
                    Ok(true)
                });
                searcher.search_path(&matcher, entry.path(), sink).unwrap();
            }
            WalkState::Continue
        })
    });
    found.into_inner().unwrap()
}

/// The lines in which the second word follows the first, found by reading one file after the other.
fn search_naively(directory: &Path, words: [&str; 2], found: &mut BTreeSet<Match>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search_naively(&path, words, found);
            continue;
        }
        for (number, line) in (1..).zip(fs::read_to_string(&path).unwrap().lines()) {
            let parts: Vec<_> = line.split(' ').collect();
            if parts.windows(2).any(|pair| pair == words) {
                found.insert((path.clone(), number, line.trim_end().to_owned()));
            }
        }
    }
}

#[test]
fn ripgrep_s_engine_finds_what_a_naive_search_finds() {
    let tree = Tree::new(150);
    let mut expected = BTreeSet::new();
    search_naively(&tree.0, ["magazine", "refill"], &mut expected);
    assert!(expected.len() > 200, "{}", expected.len());
    for _ in 0..3 {
        assert_eq!(search(&tree.0, r"\bmagazine +refill\b"), expected);
    }
}

#[test]
fn parallel_compression_gives_the_text_back() {
    let packed: Vec<(String, Vec<u8>)> = (0..40)
        .into_par_iter()
        .map(|i| {
            let (text, mut packed) = (text(i, 1000 + i * 250), Vec::new());
            DeflateEncoder::new(text.as_bytes(), Compression::new(i as u32 % 10))
                .read_to_end(&mut packed)
                .unwrap();
            (text, packed)
        })
        .collect();
    packed
        .into_par_iter()
        .enumerate()
        .for_each(|(i, (text, packed))| {
            assert!(i % 10 == 0 || packed.len() < text.len() / 2);
            let mut unpacked = String::new();
            DeflateDecoder::new(&packed[..])
                .read_to_string(&mut unpacked)
                .unwrap();
            assert_eq!(unpacked, text);
        });
}

#[test]
fn a_large_json_document_survives_the_round_trip() {
    let document: Value = (0..1200)
        .map(|i| {
            json!({
                "id": i,
                "words": text(i, i % 40).split_whitespace().collect::<Vec<_>>(),
                "nested": { "even": i % 2 == 0, "ratio": i as f64 / 8.0, "text": text(i, i % 30), "none": null },
            })
        })
        .collect();
    let written = serde_json::to_string(&document).unwrap();
    (0..4usize).into_par_iter().for_each(|round| {
        let mut read: Value = serde_json::from_str(&written).unwrap();
        assert!(read == document && serde_json::to_string(&read).unwrap() == written);
        // This thread drops half of the document, and the thread that ends the loop drops the rest.
        read.as_array_mut()
            .unwrap()
            .retain(|row| row["id"].as_u64().unwrap() as usize % 2 == round % 2);
        assert_eq!(read.as_array().unwrap().len(), 600);
        assert!(read[7]["words"].is_array() && read[7]["nested"]["none"].is_null());
    });
}
