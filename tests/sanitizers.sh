#!/usr/bin/env bash
# Runs theap's own tests with theap built under AddressSanitizer and under ThreadSanitizer.
# usage: tests/sanitizers.sh [address] [thread]
#
# The sanitizers need a nightly compiler (rustup toolchain install nightly). Without one the script
# says so and does nothing. With the standard library's source (rustup component add rust-src
# --toolchain nightly) the script builds the library under the sanitizer, too. Without it the script
# says so, uses the library as it is, and suppresses the library's reports by tests/tsan.supp.
# Each sanitizer takes two minutes with the build.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0 PROPTEST_CASES=8 RUST_BACKTRACE=0

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "skipped: sanitizers (no nightly compiler)"
    exit
fi

if [ -e "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; then
    library=(-Zbuild-std)
    flags=
    suppressions=
else
    echo "skipped: the standard library under the sanitizers (no component rust-src)"
    library=()
    # The flag says that a library without instrumentation is meant.
    flags=-Cunsafe-allow-abi-mismatch=sanitizer
    suppressions=suppressions=$PWD/tests/tsan.supp
fi

under() { # SANITIZER
    RUSTFLAGS="-Zsanitizer=$1 $flags" TSAN_OPTIONS=$suppressions \
        cargo +nightly test --quiet "${library[@]}" \
        -p theap --target x86_64-unknown-linux-gnu --target-dir "target/sanitizer-$1" \
        --test global --test threads --test property -- --test-threads=1 \
        --skip thousands_of_threads_come_and_go # How much it maps depends on its threads' pace.
}

[ $# -gt 0 ] || set -- address thread
for sanitizer; do
    case $sanitizer in
        address | thread) ;;
        *) echo "unknown: $sanitizer" >&2 && exit 2 ;;
    esac
    echo "under $sanitizer sanitizer"
    under "$sanitizer"
done
