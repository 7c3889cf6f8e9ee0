#!/bin/sh
# The core under ThreadSanitizer: the tests that stand beside its sources, and its threads alone for a while.
#
#   tsan.sh [SECONDS]        of threads (30)
#
# Without truncated files: ThreadSanitizer blocks all signals while a handler runs, and so cannot follow the guard's
# jump out of it, which leaves the signal mask alone for speed.
set -eu

unset CDPATH
cd "$(dirname "$0")"
seconds=${1:-30}
root=$(cd ../.. && pwd)
target=$(uname -m)-unknown-linux-gnu

# See asan.sh; what the standard library hides from the sanitizer is in tsan.suppressions. A distribution's rustc comes without the
# sanitizer's runtime: then clang's of about the same age takes its place.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
library=$(rustc --print sysroot)/lib/rustlib
if ! ls "$library/$target"/lib/librustc*rt.tsan.a >/dev/null 2>&1; then
    RUSTFLAGS="$RUSTFLAGS -Zexternal-clangrt -Clinker=clang -Clink-arg=-fsanitize=thread"
fi
export CC=clang CFLAGS="-fsanitize=thread -g" CARGO_TARGET_DIR="$root/target/faults/tsan"
export TSAN_OPTIONS="suppressions=$PWD/tsan.suppressions"

# The tests wait for each other in the standard library, which has to be watched, too. Those in tests/ lose pages, replace functions
# that the sanitizer replaces, or take it for ever.
if [ -d "$library/src/rust/library" ]; then
    cargo test -Zbuild-std --target "$target" --manifest-path "$root/Cargo.toml" -p iommap_core --lib
else
    echo "tsan: skipped: cargo's tests in src/: there are no sources of the standard library (rustup component add rust-src)"
fi

cargo build --release --locked --target "$target" --manifest-path stress/Cargo.toml
"$CARGO_TARGET_DIR/$target/release/stress" "$seconds" whole
echo "tsan: clean"
