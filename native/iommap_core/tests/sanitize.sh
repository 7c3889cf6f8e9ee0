#!/usr/bin/env bash
# The core's tests under a tool that watches memory: tests/sanitize.sh address|thread|valgrind
#
# The C guard is built with the sanitizer too. Rust's sanitizers are not stable, hence RUSTC_BOOTSTRAP; the standard
# library is not instrumented, so tests/tsan.supp names what ThreadSanitizer cannot see in it. (Miri, where a nightly
# toolchain has it, is for what is pure: cargo miri test -p iommap_core --lib range.)
set -euo pipefail
cd "$(dirname "$0")/.."

tool=${1:?address, thread or valgrind}
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}/$tool
tests="--lib --test open --test resize --test residency --test concurrency --test faults"
skipped=

case $tool in
address)
    export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CFLAGS="-fsanitize=address"
    # SIGBUS is ours; places of threads are kept for ever, and what a test maps for a neighbour is not a leak.
    export ASAN_OPTIONS="handle_sigbus=0:detect_leaks=0"
    ;;
thread)
    export RUSTC_BOOTSTRAP=1 CFLAGS="-fsanitize=thread"
    export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
    export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp"
    # It calls handlers with the signal blocked, whatever their flags say, so after the guard's first jump the second
    # fault would end the process. The faults of views, which do not jump, are tested.
    skipped="--skip a_read_of_a_truncated --skip a_write_to_a_truncated --skip data_whose_own_file
             --skip thousands_of_faults --skip a_neighbours_fault"
    ;;
valgrind)
    runner=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$host")_RUNNER
    export "$runner=valgrind --quiet --error-exitcode=99 --fair-sched=yes"
    # It runs one thread at a time, so races are not for it.
    tests="--lib --test open --test resize --test residency"
    skipped="--skip millions --skip thousands"
    ;;
*)
    echo "unknown tool: $tool" >&2
    exit 2
    ;;
esac
[ -z "$skipped" ] || echo "$tool: skipped, for the reason given in this script:" $skipped
# The words of these are arguments.
# shellcheck disable=SC2086
exec nice cargo test --locked -p iommap_core --target "$host" --no-fail-fast $tests -- $skipped
