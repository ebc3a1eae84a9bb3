#!/usr/bin/env bash
# Unit and property tests under Miri, which checks Rust's rules for references and raw memory: tests/miri.sh [FILTER ...].
# The heap runs on the fake platform, with memory of the standard library (platform/miri/) and the plain twins of arch/.
# Needs a nightly compiler with Miri (rustup +nightly component add miri rust-src); without, it says so and does nothing.
# A filter is a part of the names of theap's unit tests; without filters, the tests below that end in minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0 PROPTEST_CASES=1 RUST_BACKTRACE=0
# The heap keeps addresses as numbers, and leaks what lives as long as the process.
export MIRIFLAGS="-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks"
limit=${THEAP_MIRI_SECONDS:-300}

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "skipped: Miri (rustup has no component miri for the nightly compiler)"
    exit
fi
if ! cargo +nightly miri setup >/dev/null 2>&1; then
    echo "skipped: Miri (its standard library cannot be built: is the component rust-src there?)"
    exit
fi

[ $# -gt 0 ] || set -- classes:: config:: gate:: heap::stock pool::budget pool::decay pool::queue pool::stash pool::superslab
start=$SECONDS
under() { # PACKAGE ARGUMENTS...
    local left=$((limit - (SECONDS - start)))
    [ "$left" -gt 0 ] || left=1
    # Building counts too: 124 says that the time is over.
    timeout "$left" cargo +nightly miri test --quiet --target-dir target/miri -p "$@"
}

echo "under Miri: platform"
under theap-platform --features fake --lib
echo "under Miri: $*"
under theap --lib -- "$@"
