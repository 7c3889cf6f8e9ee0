#!/bin/sh
# Puts the native library at priv/iommap_nif.so. rebar3's compile and clean hooks call it.
#
#   native/build.sh          build what changed, or take a ready library
#   native/build.sh clean    remove what was built
#
# IOMMAP_PREBUILT=... takes a ready library and builds nothing: a file, a directory or a URL. See native/prebuilt.
# IOMMAP_PROFILE=dev builds in about two seconds what is slower and checks itself; else release.
# CARGO, CARGO_TARGET_DIR, CARGO_BUILD_TARGET and CC mean what they mean to cargo.
set -eu

unset CDPATH
cd "$(dirname "$0")/.."
library=priv/iommap_nif.so
cargo=${CARGO:-cargo}
profile=${IOMMAP_PROFILE:-release}
cc=${CC:-cc}

main() {
    case ${1:-build} in
        build) build ;;
        clean) clean ;;
        *) fail "unknown argument '$1': native/build.sh [build|clean]" ;;
    esac
}

build() {
    if [ -n "${IOMMAP_PREBUILT:-}" ]; then
        take_prebuilt
        return
    fi
    lacking=$(what_is_lacking)
    if [ -z "$lacking" ]; then
        built=$(cargo_build)
        put_in_place "$built"
    elif [ -f "$library" ]; then
        say "$lacking. The library that is already there serves: $library"
    else
        fail "cannot build the native library: $lacking." "$(how_to_get_it)"
    fi
}

take_prebuilt() {
    mkdir -p priv
    taken=priv/taken.$$.so
    trap 'rm -f "$taken"' EXIT
    escript native/prebuilt take "$IOMMAP_PREBUILT" "$taken" || exit 1
    status=0
    # A shell tells of a signal, too: in words that help nobody.
    { said=$(escript native/prebuilt load "$taken" "$IOMMAP_PREBUILT" 2>&1); } 2>/dev/null || status=$?
    [ "$status" -le 128 ] || fail "IOMMAP_PREBUILT=$IOMMAP_PREBUILT is broken: a VM that loads it ends."
    [ "$status" -eq 0 ] || { printf '%s\n' "$said" >&2; exit 1; }
    put_in_place "$taken"
}

# cargo itself tells where it put the library, so its own settings and any target directory count.
cargo_build() {
    link_to_the_systems_musl
    messages=$("$cargo" build --profile "$profile" --locked --package iommap_nif --config "$for_musl" \
                        --message-format=json-render-diagnostics) || without_crates $?
    printf '%s\n' "$messages" |
        sed -n 's/.*"filenames":.*"\([^"]*libiommap_nif\.so\)".*/\1/p
                s/.*"filenames":.*"\([^"]*libiommap_nif\.dylib\)".*/\1/p'
}

# cargo told why it failed. If that is for want of crates, there are ways without.
without_crates() {
    "$cargo" tree --quiet --locked --offline --package iommap_nif --edges normal,build >/dev/null 2>&1 ||
        say "the crates that the library is made of are neither on this machine nor within reach." "$(how_to_do_without)"
    exit "$1"
}

# Makes a library for musl use the C library of the VM that loads it (-C target-feature=-crt-static): Rust's musl targets
# have one of their own in all they build, and make no library that can be loaded. Flags in the environment hide those of
# any configuration from cargo, and so are added to.
link_to_the_systems_musl() {
    dynamic=-Ctarget-feature=-crt-static
    for_musl="target.'cfg(target_env=\"musl\")'.rustflags=['$dynamic']"
    [ -n "${CARGO_ENCODED_RUSTFLAGS+set}${RUSTFLAGS+set}" ] || return 0
    case ${CARGO_BUILD_TARGET:-$("$cargo" --version --verbose | sed -n 's/^host: //p')} in
        *-musl*)
            if [ -n "${CARGO_ENCODED_RUSTFLAGS+set}" ]; then
                separator=${CARGO_ENCODED_RUSTFLAGS:+$(printf '\037')}
                export CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS$separator$dynamic"
            else
                export RUSTFLAGS="$RUSTFLAGS $dynamic"
            fi
            ;;
    esac
}

# A rename, never a write into the old file: a running VM has that one mapped.
put_in_place() {
    cmp -s "$1" "$library" && return
    mkdir -p priv
    trap 'rm -f "$library.$$" "${taken:-}"' EXIT
    cp "$1" "$library.$$"
    mv -f "$library.$$" "$library"
}

# A target directory that the user named is the user's to empty.
clean() {
    rm -rf "$library" target
}

what_is_lacking() {
    needed=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)
    if ! version=$("$cargo" --version 2>/dev/null); then
        echo "no cargo (tried '$cargo', Rust $needed or later is needed)"
    elif is_older "$(printf '%s' "$version" | sed 's/^cargo \([0-9.]*\).*/\1/')" "$needed"; then
        echo "$version is too old (Rust $needed or later is needed)"
    elif ! printf '%s\n' '#include <signal.h>' '_Static_assert(sizeof(siginfo_t), "C11");' |
            $cc -std=c11 -D_GNU_SOURCE -fsyntax-only -x c - 2>/dev/null; then
        echo "no working C11 compiler (tried '$cc')"
    fi
}

is_older() {
    [ "$1" != "$2" ] &&
        [ "$(printf '%s\n' "$1" "$2" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)" = "$1" ]
}

how_to_get_it() {
    cat <<'END'
Install Rust and a C compiler:
    Rust          https://rustup.rs, or: brew install rust (macOS), pkg install rust (FreeBSD)
    C compiler    apt-get install gcc libc6-dev (Debian), xcode-select --install (macOS)
END
    how_to_do_without
}

how_to_do_without() {
    cat <<'END'
Without Rust: IOMMAP_PREBUILT=FILE, DIRECTORY or URL names a ready library.
Without network: the archive of `make dist` has all crates in it. See guides/without-rust.md.
END
}

say() {
    printf 'iommap: %s\n' "$1" >&2
    shift
    for line; do printf '%s\n' "$line" >&2; done
}

fail() {
    say "$@"
    exit 1
}

main "$@"
