//! Decodes the fuzzer's bytes to a sequence of operations, and runs them against the oracle of the
//! property tests.
#![no_main]

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    oracle::run(oracle::decode(bytes));
});
