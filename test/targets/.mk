#!/usr/bin/env bash
# Checks that everything compiles for systems and processors that this machine is not: make check-targets [TARGETS="..."]
#
# The crates and the core's tests are type-checked with a standard library that is made of Debian unstable's rust-src, and
# the guard is compiled by zig, which has every system's C headers. A library for musl is linked, and looked at. 32 bits are
# refused.
#
# The root is not test/matrix.sh's: rustc and rust-src must be of one day.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/root.sh"

zig_version=0.17.0
packages="gcc libc6-dev cargo rustc rust-src python3-pip binutils"
# Rust's name of a target, and zig's.
targets="
aarch64-apple-darwin        aarch64-macos
x86_64-apple-darwin         x86_64-macos
x86_64-unknown-freebsd      x86_64-freebsd
aarch64-unknown-freebsd     aarch64-freebsd
x86_64-unknown-openbsd      x86_64-openbsd
x86_64-unknown-linux-musl   x86_64-linux-musl
aarch64-unknown-linux-musl  aarch64-linux-musl
riscv64gc-unknown-linux-gnu riscv64-linux-gnu
s390x-unknown-linux-gnu     s390x-linux-gnu
"
sources=/build/iommap-targets

main() {
    in_a_namespace "$@"
    if ! make_root "$roots/targets" sid "$packages"; then
        # What is unstable may not be installable on some days. Nothing was checked then, and nothing failed.
        say "SKIPPED: no root of Debian unstable could be made today, for the reason above"
        exit 0
    fi
    install_zig; exit 0
    copy_sources "$sources"
    check_types "${TARGETS:-$(echo "$targets" | cut -s -d' ' -f1)}"
    refuse_32_bits
    link_for_musl x86_64-unknown-linux-musl
    say "all of it compiles, and 32 bits are refused"
}

# zig as a C compiler for each target, under a name that says which.
install_zig() {
    [ "$(in_root cat /opt/iommap/zig-version 2>/dev/null)" = $zig_version ] ||
        quietly in_root pip install --quiet --break-system-packages --root-user-action=ignore --upgrade \
                        --target /opt/iommap/zig "ziglang==$zig_version"
    mkdir -p "$root/opt/iommap/bin"
    echo $zig_version >"$root/opt/iommap/zig-version"
    echo "$targets" | while read -r rust zig; do
        [ -n "$rust" ] || continue
        cat >"$root/opt/iommap/bin/$rust-cc" <<END
#!/bin/sh
# What cargo's cc calls the target is left out: zig has names of its own.
for argument; do
    shift
    case \$argument in
        --target=* | -mmacosx-version-min=*) ;;
        *) set -- "\$@" "\$argument" ;;
    esac
done
exec /opt/iommap/zig/ziglang/zig cc -target $zig "\$@"
END
        chmod +x "$root/opt/iommap/bin/$rust-cc"
    done
}

# cargo, with the standard library's sources as part of what is built, which no stable cargo is asked for by others.
cargo_with_std() {
    compilers=$(echo "$targets" | while read -r rust _; do [ -z "$rust" ] || echo "CC_${rust//-/_}=$rust-cc"; done)
    # shellcheck disable=SC2086 # one assignment per word
    in_root env --chdir="$sources" RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind,proc_macro,test \
        AR=ar $compilers "$@"
}

# Warnings are errors, in Rust and in C.
check_types() {
    say "checking for" "$@"
    # shellcheck disable=SC2046,SC2086 # one option per word
    cargo_with_std CARGO_BUILD_WARNINGS=deny CFLAGS="-Wall -Wextra -Werror" \
        cargo check --quiet --locked --workspace --tests --keep-going $(printf -- '--target %s ' $1)
}

refuse_32_bits() {
    if said=$(cargo_with_std cargo check --quiet --locked --package iommap_core --target i686-unknown-linux-gnu 2>&1); then
        fail "it compiles for 32 bits"
    fi
    [[ $said == *"iommap needs a processor of 64 bits"* ]] || fail "32 bits are refused by other words: $said"
}

# As a user builds it: native/build.sh finds out by itself what a library for musl needs, also if there are flags.
link_for_musl() {
    linker=CARGO_TARGET_$(echo "${1//-/_}" | tr '[:lower:]' '[:upper:]')_LINKER=$1-cc
    for flags in "" "RUSTFLAGS=-Copt-level=1"; do
        say "linking for $1 ${flags:+with $flags}"
        # shellcheck disable=SC2086 # nothing or a word
        cargo_with_std "$linker" CARGO_BUILD_TARGET="$1" CARGO_PROFILE_RELEASE_LTO=off \
            CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 $flags native/build.sh
        is_a_nif "$root$sources/priv/iommap_nif.so" 'NEEDED.*\[libc.so\]'
    done
}

main "$@"
