#!/bin/sh
# Everything at once, for SECONDS (1800): see iommap_soak.erl.
#
#   soak.sh [SECONDS]
#
# SOAK_LIBRARIES=a.so:b.so are the libraries to change between, SOAK_ERL the command that starts the VM;
# asan.sh sets both. A VM that hangs is a failure too: then what its threads were doing is printed.
set -eu

unset CDPATH
cd "$(dirname "$0")"
seconds=${1:-1800}
libraries=${SOAK_LIBRARIES:-$PWD/build/alternate_layout/iommap_nif.so:$PWD/build/iommap/priv/iommap_nif.so}

main() {
    make -s all alternate_layout
    directory=$(mktemp -d)
    vm= watch=
    trap clean_up EXIT
    trap 'exit 1' HUP INT TERM
    cp -r build/iommap "$directory/iommap"
    cp "${libraries##*:}" "$directory/iommap/priv/iommap_nif.so"

    echo "soak: $seconds seconds"
    ERL_CRASH_DUMP=/dev/null ${SOAK_ERL:-erl} -noshell -pa "$directory/iommap/ebin" -pa build/ebin \
        -s iommap_soak main -extra "$directory" "$libraries" "$seconds" &
    vm=$!
    watch_over $vm &
    watch=$!
    wait $vm
    vm=
    echo "soak: no crash, no wrong byte, no leak"
}

# A worker that hangs is reported by the VM itself, within minutes after the end; this is for a VM that cannot.
watch_over() {
    sleep $((seconds + 400)) &
    trap "kill $!; exit" TERM
    wait $!
    echo "soak: the VM hangs"
    for thread in "/proc/$1/task"/*; do
        echo "$(cat "$thread/comm"): $(cat "$thread/syscall" "$thread/stack" 2>&1 | tr '\n' ' ')"
    done
    if command -v gdb >/dev/null; then gdb -batch -p "$1" -ex 'thread apply all backtrace 20' 2>&1; fi
    kill -KILL "$1"
}

clean_up() {
    status=$?
    kill ${vm:+"$vm"} ${watch:+"$watch"} 2>/dev/null || true
    rm -rf "$directory"
    exit $status
}

main
