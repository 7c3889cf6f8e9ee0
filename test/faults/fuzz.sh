#!/bin/sh
# Random operations against the model: see iommap_fuzz.erl.
#
#   fuzz.sh [SECONDS [SEED [FS [FAILURES]]]]
#
# FS is one file system of those in iommap_fuzz.erl, or "all"; it ends after so many FAILURES (1). In a mount namespace
# of its own, so that nothing stays mounted whatever happens.
set -eu

unset CDPATH
cd "$(dirname "$0")"
if [ -z "${FUZZ_INSIDE:-}" ]; then
    make -s all
    export FUZZ_INSIDE=1
    if unshare --mount true 2>/dev/null; then exec unshare --mount "./${0##*/}" "$@"; fi
fi

directory=$(mktemp -d)
clean_up() {
    status=$?
    for point in "$directory"/*/* "$directory"/*/*; do
        if mountpoint -q "$point"; then umount -l "$point"; fi
    done
    rm -rf --one-file-system "$directory"
    exit $status
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
erl -noshell -pa build/ebin -s iommap_fuzz main -extra "$directory" "${1:-600}" "${2:-random}" "${3:-all}" "${4:-1}"
