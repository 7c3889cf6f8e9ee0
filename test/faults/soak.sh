#!/bin/sh
# Everything at once, for SECONDS (1800): see iommap_soak.erl.
#
#   soak.sh [SECONDS]
#
# SOAK_LIBRARIES=a.so:b.so are the libraries to change between, SOAK_ERL the command that starts the VM;
# asan.sh sets both.
set -eu

unset CDPATH
cd "$(dirname "$0")"
seconds=${1:-1800}
libraries=${SOAK_LIBRARIES:-$PWD/build/relayout/iommap_nif.so:$PWD/build/iommap/priv/iommap_nif.so}

make -s all relayout
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cp -r build/iommap "$directory/iommap"
cp "${libraries##*:}" "$directory/iommap/priv/iommap_nif.so"

echo "soak: $seconds seconds"
ERL_CRASH_DUMP=/dev/null ${SOAK_ERL:-erl} -noshell -pa "$directory/iommap/ebin" -pa build/ebin \
    -s iommap_soak main -extra "$directory" "$libraries" "$seconds"
echo "soak: no crash, no wrong byte, no leak"
