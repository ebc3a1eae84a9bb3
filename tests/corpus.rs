//! Runs the inputs that fuzzing found worth keeping (`fuzz/corpus`) again, without the fuzzer, in
//! every combination of features.

mod oracle;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/operations");
    let mut seeds: Vec<_> = fs::read_dir(&corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty());
    for seed in seeds {
        println!("{}", seed.display());
        oracle::run(oracle::decode(&fs::read(&seed).unwrap()));
    }
}
