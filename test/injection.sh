#!/usr/bin/env bash
# Fails every system call in turn with the files on several file systems: native/iommap_core/tests/injection.rs.
#
#   test/injection.sh [FS ...]    FS is ext4, xfs, btrfs or tmpfs; all without
#
# All file systems at once: most of the time goes by in waiting. In a mount namespace of its own, so that nothing stays
# mounted however it ends.
set -euo pipefail

unset CDPATH
cd "$(dirname "$0")/.."
export RUST_BACKTRACE=0

main() {
    [ "$(id -u)" -eq 0 ] || { echo "Skipped: injection on other file systems: mounting needs root"; exit 0; }
    in_a_namespace "$@"
    directory=$(mktemp -d)
    trap 'rm -rf --one-file-system "$directory"' EXIT
    trap 'exit 1' HUP INT TERM
    [ $# -gt 0 ] || set -- ext4 xfs btrfs tmpfs
    ${CARGO:-cargo} test --locked --package iommap_core --test injection --no-run
    local system status=0 running=()
    for system; do
        inject "$system" & running+=($!)
    done
    for process in "${running[@]}"; do wait "$process" || status=1; done
    exit "$status"
}

in_a_namespace() {
    [ -z "${INJECTION_INSIDE:-}" ] || return 0
    INJECTION_INSIDE=yes exec unshare --mount "test/${0##*/}" "$@"
}

inject() {
    local system=$1 point=$directory/$1 log=$directory/$1.log status=0
    mkdir "$point"
    mount_at "$system" "$point"
    TMPDIR=$point ${CARGO:-cargo} test --locked --package iommap_core --test injection > "$log" 2>&1 || status=1
    umount --lazy "$point"
    [ "$status" -eq 0 ] || cat "$log"
    sed -n "s/^test result:/injection on $system:/p" "$log"
    return "$status"
}

mount_at() {
    local image=$directory/$1.image
    case $1 in
        tmpfs) mount -t tmpfs -o size=64m iommap-test "$2"; return ;;
        ext4)  truncate -s 64M "$image" && mkfs.ext4 -q "$image" ;;
        *)     truncate -s 320M "$image" && "mkfs.$1" -q "$image" ;;
    esac
    mount -o loop "$image" "$2"
}

main "$@"
