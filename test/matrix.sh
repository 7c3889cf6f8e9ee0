#!/usr/bin/env bash
# Runs the tests on the Erlang and the Rust of other Debian releases, each in a root file system of its own.
#
#   test/matrix.sh RELEASE [WORD ...]
#
# RELEASE is trixie (Debian 13) or sid (unstable); a WORD is one of the Makefile's, or `modes`: other modes of the VM.
# Without words, all that this release is for: on trixie all but what no VM takes part in (test-model, test-injection). The root has nothing but git, make, gcc, cargo and rustc, and what
# `setup.sh test` installs there. It is kept in MATRIX_ROOTS and made anew when it is missing, older than a week, or
# made for other packages or by another setup.sh. The sources are copied into it, with what is not committed yet.
# All mounts are made in a namespace of this run, so they go with it, however it ends.
#
# MATRIX_ROOTS    where the roots are (~/.cache/iommap/roots)
# DEBIAN_MIRROR   where Debian is (http://deb.debian.org/debian)
# SOAK_SECONDS    how long the soak takes (120)
# CARGO_PROFILE_* are passed on, as are proxies and the certificates that SSL_CERT_FILE or CARGO_HTTP_CAINFO names.
set -euo pipefail

unset CDPATH
cd "$(dirname "$0")/.."
roots=${MATRIX_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/iommap/roots}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
certificates=${CARGO_HTTP_CAINFO:-${SSL_CERT_FILE:-}}
packages=(git make gcc libc6-dev cargo rustc ca-certificates)

main() {
    release=${1:-}
    [ $# -gt 0 ] && shift
    case $release in
        trixie) words=(test-core test-eunit test-ct test-properties test-consumers analyse docs demo soak modes) ;;
        sid)    words=(test-eunit test-ct test-consumers analyse docs) ;;
        *) fail "unknown release '$release': test/matrix.sh trixie|sid [WORD ...]" ;;
    esac
    [ $# -eq 0 ] || words=("$@")
    [ "$(id -u)" -eq 0 ] || fail "$release: making and entering a root file system needs root: sudo make matrix"

    root=$roots/$release
    mkdir -p "$roots"
    in_a_namespace "$release" "$@"
    exec 9> "$root.lock"
    flock 9
    trap 'exit 130' INT TERM HUP
    make_root_if_needed
    run_words
}

# Starts this file again where its mounts and processes are its own: they end with it.
in_a_namespace() {
    [ -z "${MATRIX_INSIDE:-}" ] || return 0
    MATRIX_INSIDE=yes exec unshare --mount --pid --fork --kill-child --mount-proc "$PWD/test/matrix.sh" "$@"
}

# Roots

make_root_if_needed() {
    made_by=$(echo "${packages[*]}" | cat - setup.sh | cksum)
    if [ "$(cat "$root/made-by" 2>/dev/null)" = "$made_by" ] && [ -n "$(find "$root/made-by" -mtime -7)" ]; then
        enter_root || fail "the root of $release cannot be entered"
        return
    fi
    title "making a root of $release"
    if ! make_root; then
        # What is unstable may not be installable on some days. Nothing was tested then, and nothing failed.
        [ "$release" = sid ] || fail "no root of $release could be made"
        say "SKIPPED: sid: no root could be made today, for the reason above"
        exit 0
    fi
}

make_root() {
    rm -rf --one-file-system "$root" &&
    quietly debootstrap --variant=minbase "$release" "$root" "$mirror" &&
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d" && # no service is started
    chmod 755 "$root/usr/sbin/policy-rc.d" &&
    # A mirror that lags, or a clock that is ahead, is no reason not to test; signatures are checked all the same.
    echo 'Acquire::Check-Valid-Until "false";' > "$root/etc/apt/apt.conf.d/99matrix" &&
    enter_root &&
    quietly inside apt-get -qq install --no-install-recommends "${packages[@]}" &&
    quietly inside ./setup.sh test &&
    echo "$made_by" > "$root/made-by"
}

quietly() {
    "$@" > "$root.log" 2>&1 || { tail -n 20 "$root.log"; return 1; }
}

# Mounts what a root needs of this machine, and copies the sources, the addresses and the certificates.
enter_root() {
    local shared
    for shared in sys dev; do
        mountpoint -q "$root/$shared" || mount --rbind "/$shared" "$root/$shared" || return
    done
    mountpoint -q "$root/proc" || mount -t proc proc "$root/proc" || return
    cp -L --remove-destination /etc/resolv.conf /etc/hosts "$root/etc" || return
    [ ! -r "$certificates" ] || install -D -m 644 "$certificates" "$root/etc/ssl/machine.crt" || return
    rm -rf --one-file-system "$root/srv/iommap" "$root"/tmp/* && mkdir -p "$root/srv/iommap" || return
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
        tar --create --null --files-from=- --ignore-failed-read 2>/dev/null |
        tar --extract --no-same-owner --directory "$root/srv/iommap"
}

inside() {
    local settings=(PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive)
    local name
    for name in ${!CARGO_PROFILE_*} http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [ -z "${!name:-}" ] || settings+=("$name=${!name}")
    done
    if [ -r "$certificates" ]; then
        for name in SSL_CERT_FILE CARGO_HTTP_CAINFO GIT_SSL_CAINFO; do settings+=("$name=/etc/ssl/machine.crt"); done
    fi
    # shellcheck disable=SC2016 # expanded inside
    env --ignore-environment "${settings[@]}" \
        chroot "$root" sh -c 'cd /srv/iommap && exec "$@"' sh "$@" < /dev/null 9>&-
}

# Tests

run_words() {
    log=_build/matrix/$release.log
    mkdir -p "${log%/*}"
    : > "$log"
    what="OTP $(inside erl -noshell -eval 'io:put_chars(erlang:system_info(otp_release)), halt().')"
    what="$what, $(inside rustc --version | cut -d' ' -f1,2), $release"
    results=() status=0
    for word in "${words[@]}"; do
        if [ "$word" = modes ]; then modes; else run_word "$word" inside make "$word" "SECONDS=${SOAK_SECONDS:-120}"; fi
    done
    title "$what: closing lines"
    # What a runner says last, and what it left out.
    grep -hE '^test result:|tests?, 0 failures|^  Failed: |^All [0-9]+ tests|^Failed [0-9]+ tests|^Consumers:|^Properties: |^soak: |^Skipped: |skipped' "$log" |
        sort | uniq -c | sed 's/^ *1 /    /; s/^  */    /' || true
    title "$what"
    printf '%s\n' "${results[@]}"
    exit "$status"
}

run_word() {
    local name=$1 result=ok start=$SECONDS
    shift
    title "$what: $name"
    "$@" 2>&1 | tee -a "$log" || { result=FAILED; status=1; }
    results+=("$(printf '%-8s%-40s%5d s' "$result" "$name" $((SECONDS - start)))")
}

# EUnit and the suites of views in VMs that were started otherwise. VMs that the tests start are started so too.
modes() {
    local flags suite suites=
    for suite in test/faults/iommap_intact_SUITE test/faults/iommap_pattern_SUITE; do
        [ ! -f "$suite.erl" ] || suites+=,$suite
    done
    for flags in "+JPperf true" "-emu_flavor emu" "+S 1:1"; do
        # shellcheck disable=SC2086 # one word per flag
        if inside erl $flags -noshell -eval 'halt().' > /dev/null 2>&1; then
            run_word "erl $flags: EUnit" inside env ERL_AFLAGS="$flags" rebar3 eunit
            run_word "erl $flags: views" inside env ERL_AFLAGS="$flags" sh -c \
                "make -C test/faults all && rebar3 ct --readable=true --suite=${suites#,}"
        else
            results+=("SKIPPED erl $flags: $release packages no such VM")
        fi
    done
}

title() {
    printf '\n=== %s\n' "$1"
}

say() {
    printf 'matrix: %s\n' "$1" >&2
}

fail() {
    say "$1"
    exit 1
}

main "$@"
