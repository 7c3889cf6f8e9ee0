#!/bin/sh
# The C of the guard and of the handler under UndefinedBehaviorSanitizer: cargo's tests of the core, in a build in which what C leaves
# undefined ends the process (SIGILL). Rust's own preconditions are checked as in each of these builds (`debug_assertions`).
set -eu

unset CDPATH
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)

export CC=clang CFLAGS="-fsanitize=undefined -fsanitize-trap=undefined -g" CARGO_TARGET_DIR="$root/target/faults/ubsan"
cargo test --locked --manifest-path "$root/Cargo.toml" -p iommap_core --no-fail-fast
echo "ubsan: clean"
