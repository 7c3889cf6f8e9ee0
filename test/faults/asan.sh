#!/bin/sh
# The guard, the core and the NIFs under AddressSanitizer: cargo's tests of the core, its threads alone, then the soak in a VM.
#
#   asan.sh [SECONDS]        of soak (120)
set -eu

unset CDPATH
cd "$(dirname "$0")"
seconds=${1:-120}
root=$(cd ../.. && pwd)
build=$root/target/faults/asan
target=$(uname -m)-unknown-linux-gnu
runtime=$(clang -print-file-name="libclang_rt.asan-$(uname -m).so")

# The compiler's sanitizers are there in every release, but not yet for everybody; the standard library is
# used as it is.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer"
export CC=clang CFLAGS="-fsanitize=address -fno-omit-frame-pointer -g"

export CARGO_TARGET_DIR="$build"
echo "asan: skipped: fails_anywhere, during_a_growth_stays, at_the_limit_of_mappings: the sanitizer needs the memory that the test has refused"
echo "asan: skipped: cannot_lock_them_as_they_come, a_refused_unlock, refused_halfway: the sanitizer makes nothing of mlock(2) and munlock(2)"
# Some tests leave what they have to the end of their process.
ASAN_OPTIONS=detect_stack_use_after_return=1:handle_sigbus=0:detect_leaks=0 \
    cargo test --locked --target "$target" --manifest-path "$root/Cargo.toml" -p iommap_core --no-fail-fast -- \
    --skip fails_anywhere --skip during_a_growth_stays --skip at_the_limit_of_mappings \
    --skip cannot_lock_them_as_they_come --skip a_refused_unlock --skip refused_halfway
cargo build --release --locked --target "$target" --manifest-path stress/Cargo.toml
ASAN_OPTIONS=detect_stack_use_after_return=1:handle_sigbus=0 \
    "$build/$target/release/stress" $((seconds / 4 + 1))

cargo build --release --locked --target "$target" --manifest-path "$root/Cargo.toml" -p iommap_nif
cp "$build/$target/release/libiommap_nif.so" "$build/same.so"
cargo build --release --locked --target "$target" --manifest-path "$root/Cargo.toml" -p iommap_nif --features alternate_layout
cp "$build/$target/release/libiommap_nif.so" "$build/alternate_layout.so"
unset RUSTC_BOOTSTRAP RUSTFLAGS CC CFLAGS CARGO_TARGET_DIR

# The VM's signals are its own; what it allocates for ever is no leak of ours; each image has the same globals.
SOAK_LIBRARIES=$build/alternate_layout.so:$build/same.so \
SOAK_ERL="env LD_PRELOAD=$runtime ASAN_OPTIONS=handle_segv=0:handle_sigbus=0:use_sigaltstack=0:detect_leaks=0:detect_odr_violation=0:quarantine_size_mb=16 erl" \
    ./soak.sh "$seconds"
echo "asan: clean"
