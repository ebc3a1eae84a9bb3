#!/usr/bin/env bash
# Unit and property tests under Miri, which checks Rust's rules for references and raw memory:
# tests/miri.sh [FILTER ...]. The heap runs on the fake platform, with memory of the standard
# library (platform/miri/) and the plain twins of arch/, whose own test runs first.
# Miri comes with a nightly compiler (rustup +nightly component add miri rust-src). Without it this
# script says that it skips Miri, and does nothing. A filter is a part of the names of theap's unit
# tests; without filters, those below run, which end in five minutes.
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

[ $# -gt 0 ] || set -- \
    geometry:: gate:: heap::keeping pool::addresses pool::policy pool::spans pool::supers \
    warmer::tests::growth_beyond warmer::tests::without_a_thread warmer::tests::the_target \
    broken_heaps_are_not_valid a_sealed_heap_has_no_blank_fronts random_lives_lose_nothing
start=$SECONDS
under() { # PACKAGE ARGUMENTS...
    local left=$((limit - (SECONDS - start)))
    [ "$left" -gt 0 ] || left=1
    # Building counts too: 124 says that the time is over.
    timeout "$left" cargo +nightly miri test --quiet --target-dir target/miri -p "$@"
}

# One test is left out: the classes of all sizes are safe arithmetic, and take minutes.
echo "under Miri: arch"
under theap-arch --test twins -- --skip every_size_has_the_same_class
echo "under Miri: platform"
under theap-platform --features fake --lib
# A filter that finds nothing would pass: a test was renamed.
names=$(under theap --lib -- --list 2>/dev/null)
for filter; do
    grep -qF -- "$filter" <<<"$names" ||
        { echo "no test has '$filter' in its name" >&2; exit 2; }
done
echo "under Miri: $*"
under theap --lib -- "$@"
