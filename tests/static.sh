#!/usr/bin/env bash
# theap in static programs of musl: tests/static.sh
# Without the target (rustup target add x86_64-unknown-linux-musl), which it tries to install, this
# script says that it skips, and does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(uname -m)-unknown-linux-musl

if ! rustup target list --installed 2>/dev/null | grep -qx "$target" &&
    ! rustup target add "$target" >/dev/null 2>&1; then
    echo "skipped: musl (rustup has no target $target)"
    exit
fi
cargo test --quiet -p theap --target "$target" --test global --test threads --test guest \
    --test outside --test shrink --test misuse --test fork \
    --test faults --test crash --test memory --test steady
