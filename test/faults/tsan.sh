#!/bin/sh
# The core's threads under ThreadSanitizer: cargo's tests of the core, and its threads alone for a while.
#
#   tsan.sh [SECONDS]        of threads (30)
#
# Without truncated files: ThreadSanitizer blocks all signals while a handler runs, and so cannot follow the guard's
# jump out of it, which leaves the signal mask alone for speed. So tests in which a page is lost are left out, too.
set -eu

unset CDPATH
cd "$(dirname "$0")"
seconds=${1:-30}
root=$(cd ../.. && pwd)
target=$(uname -m)-unknown-linux-gnu

# See asan.sh; what the standard library hides from the sanitizer is in tsan.suppressions. The runtime is clang's: not every rustc
# comes with its own.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer -Zexternal-clangrt -Clinker=clang -Clink-arg=-fsanitize=thread"
export CC=clang CFLAGS="-fsanitize=thread -g" CARGO_TARGET_DIR="$root/target/faults/tsan"
export TSAN_OPTIONS="suppressions=$PWD/tsan.suppressions"

# The tests wait for each other in the standard library, which has to be watched, too.
if [ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ]; then
    echo "tsan: skipped: tests/faults.rs: the guard's jump; tests/injection.rs: it replaces functions that the sanitizer replaces"
    tests=$(cd "$root/native/iommap_core/tests" && ls -- *.rs | sed -n '/^faults\|^injection/d; s/^\(.*\)\.rs$/--test \1/p')
    # shellcheck disable=SC2086 # one word per test
    cargo test -Zbuild-std --target "$target" --manifest-path "$root/Cargo.toml" -p iommap_core --no-fail-fast --lib $tests
else
    echo "tsan: skipped: cargo's tests of the core: there are no sources of the standard library (rustup component add rust-src)"
fi

cargo build --release --locked --target "$target" --manifest-path stress/Cargo.toml
"$CARGO_TARGET_DIR/$target/release/stress" "$seconds" whole
echo "tsan: clean"
