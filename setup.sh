#!/bin/sh
# Makes sure that this machine has the tools of a job: setup.sh build|test|cover|docs|bench|cluster|sanitizers|roots
#
# What is missing is installed on Debian and its relatives, as root or with a sudo that asks nothing. Elsewhere, and
# where that is not allowed, this says what to install. Rust itself is never installed.
set -eu

PATH=$PATH:/usr/sbin:/sbin
missing=
debian=
homebrew=
freebsd=
optional=

main() {
    job=${1:-build}
    if [ "$job" = roots ]; then
        # The rest is installed in the roots.
        need git         "git"          "" ""
        need debootstrap "debootstrap"  "" ""
    else
        need_rust # before minutes go by with the rest
        need cc      "gcc libc6-dev"                    "gcc"      ""
        need git     "git"                              "git"      "git"
        need erl     "erlang-base erlang-crypto"        "erlang"   "erlang"
        need rebar3  "rebar3"                           "rebar3"   "rebar3"
    fi
    case $job in
        build | cluster | roots) ;;
        test | cover)
            need mix         "elixir"                           "elixir"   "elixir"
            need proper      "erlang-proper erlang-proper-dev"  ""         ""
            need python3     "python3"                          "python3"  "python3"
            want fuse3       "libfuse3-dev fuse3 pkg-config"
            want mkfs.ext4   "e2fsprogs"
            want mkfs.xfs    "xfsprogs"
            want mkfs.btrfs  "btrfs-progs"
            want mkfs.vfat   "dosfstools"
            want setfacl     "acl"
            want fincore     "util-linux-extra"
            want gdb         "gdb"
            [ "$job" = test ] || need_llvm "$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')"
            ;;
        docs) need markdown-it  "python3-markdown-it"   ""  "" ;;
        bench)
            need gnuplot     "gnuplot-nox"                      "gnuplot"  "gnuplot"
            want fuse3       "libfuse3-dev fuse3 pkg-config"
            want fincore     "util-linux-extra"
            want gdb         "gdb"
            ;;
        sanitizers)
            need clang       "clang libclang-rt-dev"         "llvm"     ""
            need valgrind    "valgrind"                         ""         "valgrind"
            [ "$(command -v rustc)" != /usr/bin/rustc ] || want rust-src "rust-src" # rustup has its own
            ;;
        *) echo "setup.sh: unknown job '$job'" >&2; exit 2 ;;
    esac

    if [ -n "$missing$optional" ]; then install_missing; fi
    if [ "$job" = cluster ]; then test/cluster/unpack; fi
}

need_rust() {
    is_there "${CARGO:-cargo}" && return
    echo "iommap: Rust is missing. Install it: https://rustup.rs, brew install rust, or pkg install rust" >&2
    exit 1
}

need() {
    is_there "$1" && return
    missing="$missing $1"
    debian="$debian $2"
    homebrew="$homebrew $3"
    freebsd="$freebsd $4"
}

# What clang and rustc count is understood by the tools of the same LLVM alone.
need_llvm() {
    need "clang-$1"         "clang-$1"  "llvm@$1"  "llvm$1"
    need "llvm-profdata-$1" "llvm-$1"   ""         ""
}

# The tests of what is not there are skipped, with a note.
want() {
    is_there "$1" || optional="$optional $2"
}

is_there() {
    case $1 in
        proper) erl -noshell -eval 'halt(case code:lib_dir(proper) of {error, _} -> 1; _ -> 0 end).' ;;
        fuse3) pkg-config --exists fuse3 ;;
        rust-src) [ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ] ;;
        markdown-it) python3 -c 'import markdown_it' || /usr/bin/python3 -c 'import markdown_it' ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

install_missing() {
    if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
        apt_install env
    elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
        apt_install sudo -n env
    elif [ -n "$missing" ]; then
        say_what_to_install
    fi
}

apt_install() {
    echo "iommap: installing$debian$optional"
    "$@" apt-get -qq -o DPkg::Lock::Timeout=300 update
    # shellcheck disable=SC2086 # one word per package
    "$@" DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends $debian $optional </dev/null >/dev/null
}

say_what_to_install() {
    cat >&2 <<END
iommap: this machine lacks$missing. Install:
    Debian     apt-get install$debian
    macOS      brew install$homebrew
    FreeBSD    pkg install$freebsd
END
    case $missing in
        *markdown-it*) echo "    and python3 -m pip install markdown-it-py" >&2 ;;
        *proper*) echo "    PropEr     https://github.com/proper-testing/proper, its directory named in ERL_LIBS" >&2 ;;
    esac
    exit 1
}

on() {
    [ "$(uname)" = "$1" ]
}

main "$@"
