#!/usr/bin/env bash
# theap's own tests with theap built under AddressSanitizer and under ThreadSanitizer: tests/sanitizers.sh [address] [thread].
# Needs a nightly compiler (rustup toolchain install nightly), as stable ones have no sanitizers; says so and does
# nothing without. Two minutes with the build.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0 PROPTEST_CASES=8 RUST_BACKTRACE=0

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "skipped: sanitizers (no nightly compiler)"
    exit
fi

# The standard library comes without instrumentation: the flag says that this is meant.
under() { # SANITIZER
    RUSTFLAGS="-Zsanitizer=$1 -Cunsafe-allow-abi-mismatch=sanitizer" cargo +nightly test --quiet \
        -p theap --target x86_64-unknown-linux-gnu --target-dir "target/sanitizer-$1" \
        --test global --test threads --test property -- --test-threads=1 \
        --skip thousands_of_threads_come_and_go # How much it maps depends on the pace of its threads.
}

[ $# -gt 0 ] || set -- address thread
for sanitizer; do
    echo "under $sanitizer sanitizer"
    case $sanitizer in
        address) under address ;;
        thread) TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp" under thread ;;
        *) echo "unknown: $sanitizer" >&2 && exit 2 ;;
    esac
done
