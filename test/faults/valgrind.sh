#!/bin/sh
# The core's threads under valgrind's memcheck, leaks counting as errors.
#
#   valgrind.sh [SECONDS]    (30)
#
# Without truncated files: memcheck takes the guard's jump from the signal stack for a large frame of the thread's
# own stack. asan.sh has them.
set -eu

unset CDPATH
cd "$(dirname "$0")"
seconds=${1:-30}

export CARGO_TARGET_DIR="$PWD/../../target/faults/stress"
cargo build --release --locked --manifest-path stress/Cargo.toml
valgrind --quiet --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=1 \
    "$CARGO_TARGET_DIR/release/stress" "$seconds" whole
echo "valgrind: clean"
