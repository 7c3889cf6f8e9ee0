#!/usr/bin/env bash
# Runs the tests on the Erlang and the Rust of other Debian releases, each in a root file system of its own.
#
#   test/matrix.sh RELEASE [WORD ...]
#
# RELEASE is trixie (Debian 13) or sid (unstable); a WORD is one of the Makefile's, or `modes`: other modes of the VM.
# Without targets, all that this release is for: on trixie all but what no VM takes part in (test-model, test-injection). The root
# has nothing but git, make, gcc, cargo and rustc, and what `setup.sh test` installs there; the sources are copied into it, with
# what is not committed yet.
#
# SOAK_SECONDS    how long the soak takes (120)
# and the variables of test/root.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/root.sh"
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/run_targets.sh"

packages="git make gcc libc6-dev cargo rustc"
sources=/srv/iommap
views=test/faults/iommap_intact_SUITE,test/faults/iommap_pattern_SUITE # the suites that look at views

main() {
    in_a_namespace "$@"
    release=${1:-}
    [ $# -gt 0 ] && shift
    case $release in
        trixie) targets=(test-core test-eunit test-ct test-properties test-consumers analyse docs demo soak modes) ;;
        sid)    targets=(test-eunit test-ct test-consumers analyse docs) ;;
        *) fail "unknown release '$release': test/matrix.sh trixie|sid [WORD ...]" ;;
    esac
    [ $# -eq 0 ] || targets=("$@")
    trap 'exit 130' INT TERM HUP
    if ! make_root "$roots/$release" "$release" "$packages" "" setup.sh; then
        # What is unstable may not be installable on some days. Nothing was tested then, and nothing failed.
        [ "$release" = sid ] || fail "no root of $release could be made"
        say "SKIPPED: sid: no root could be made today, for the reason above"
        exit 0
    fi
    rm -rf --one-file-system "${root:?}$sources" "$root"/tmp/*
    copy_sources "$sources"
    run_targets
}

inside() {
    in_root env --chdir="$sources" "$@"
}

# Tests

run_targets() {
    logs=$checkout/_build/matrix/$release
    rm -rf "$logs"
    for target in "${targets[@]}"; do
        if [ "$target" = modes ]; then modes; else run_target "$target" inside env IOMMAP_PROFILE=release make "$target" "SECONDS=${SOAK_SECONDS:-120}"; fi
    done
    report "OTP $(inside erl -noshell -eval 'io:put_chars(erlang:system_info(otp_release)), halt().'), $(
        inside rustc --version | cut -d' ' -f1,2), $release"
}

# EUnit and the suites of views in VMs that were started otherwise. VMs that the tests start are started so too.
modes() {
    local flags
    for flags in "+JPperf true" "-emu_flavor emu" "+S 1:1"; do
        # shellcheck disable=SC2086 # one word per flag
        if inside erl $flags -noshell -eval 'halt().' > /dev/null 2>&1; then
            run_target "erl $flags: EUnit" inside env ERL_AFLAGS="$flags" rebar3 eunit
            run_target "erl $flags: views" inside env ERL_AFLAGS="$flags" sh -c \
                "make -C test/faults all && rebar3 ct --readable=true --suite=$views"
        else
            results+=("SKIPPED erl $flags: $release packages no such VM")
        fi
    done
}

main "$@"
