#!/bin/sh
# The core's threads under ThreadSanitizer.
#
#   tsan.sh [SECONDS]        (30)
#
# Without truncated files: ThreadSanitizer blocks all signals while a handler runs, and so cannot follow the guard's
# jump out of it, which leaves the signal mask alone for speed.
set -eu

unset CDPATH
cd "$(dirname "$0")"
seconds=${1:-30}
target=$(uname -m)-unknown-linux-gnu

# See asan.sh; what the standard library hides from the sanitizer is in tsan.suppressions.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
export CC=clang CFLAGS="-fsanitize=thread -g" CARGO_TARGET_DIR="$PWD/../../target/faults/tsan"

cargo build --release --locked --target "$target" --manifest-path stress/Cargo.toml
TSAN_OPTIONS="suppressions=$PWD/tsan.suppressions" "$CARGO_TARGET_DIR/$target/release/stress" "$seconds" whole
echo "tsan: clean"
