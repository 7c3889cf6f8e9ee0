# shellcheck shell=bash
# Debian systems of their own, in which other Erlangs run, and other processors and systems are built for: made by debootstrap,
# kept outside the checkout, made anew when they are gone, older than a week, or hold other packages. To be sourced by a bash
# script that has a `main`.
#
# MATRIX_ROOTS    where the roots are (~/.cache/iommap/roots)
# DEBIAN_MIRROR   where Debian is (http://deb.debian.org/debian)
# CARGO_PROFILE_* are passed on, as are proxies and the certificates that SSL_CERT_FILE or CARGO_HTTP_CAINFO names.

unset CDPATH
roots=${MATRIX_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/iommap/roots}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
certificates=${CARGO_HTTP_CAINFO:-${SSL_CERT_FILE:-}}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Runs this script again where its mounts and processes are its own: they end with it.
in_a_namespace() {
    [ -z "${IOMMAP_INSIDE:-}" ] || return 0
    [ "$(id -u)" -eq 0 ] || fail "making and entering a root file system needs root"
    IOMMAP_INSIDE=yes exec unshare --mount --pid --fork --kill-child --mount-proc "$0" "$@"
}

# make_root DIRECTORY RELEASE PACKAGES [ARCHITECTURE [COMMAND]]: a Debian with those packages, some of them of another
# architecture, in which the command of the checkout was run once.
make_root() {
    root=$1
    local made_by
    made_by="$3 $(cd "$checkout" && cksum ${5:+"$5"} </dev/null)"
    mkdir -p "$roots"
    exec 9>"$root.lock"
    flock 9
    if [ "$(cat "$root/made-by" 2>/dev/null)" = "$made_by" ] && [ -n "$(find "$root/made-by" -mtime -7)" ]; then
        enter_root
        return
    fi
    command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
    say "making a root of Debian $2"
    # shellcheck disable=SC2086 # one word per package
    rm -rf --one-file-system "$root" &&
        quietly debootstrap --variant=minbase --include=ca-certificates "$2" "$root" "$mirror" &&
        quietly chroot "$root" dpkg --add-architecture "${4:-$(dpkg --print-architecture)}" &&
        printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" && # no service is started
        chmod 755 "$root/usr/sbin/policy-rc.d" &&
        # A mirror that lags, or a clock that is ahead, is no reason not to test; signatures are checked all the same.
        echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/99iommap" &&
        enter_root &&
        quietly in_root apt-get -qq update &&
        quietly in_root apt-get -qq --no-install-recommends install $3 &&
        if [ -n "${5:-}" ]; then
            copy_sources /srv/iommap && quietly in_root env --chdir=/srv/iommap "./$5" test
        fi &&
        printf '%s\n' "$made_by" >"$root/made-by"
}

# Mounts what a root needs of this machine, and copies its addresses and certificates, and what apt is told of mirrors.
enter_root() {
    mount --bind "$root" "$root" || return # so that / is a mount there, as tests of mount namespaces want it
    for shared in sys dev; do mount --rbind "/$shared" "$root/$shared" || return; done
    mount -t proc proc "$root/proc" &&
        cp -L --remove-destination /etc/resolv.conf /etc/hosts "$root/etc" || return
    grep -ls '^Acquire' /etc/apt/apt.conf.d/* | while read -r file; do cp "$file" "$root/etc/apt/apt.conf.d" || return; done
    [ ! -r "$certificates" ] || cp -L "$certificates" "$root/etc/ssl/machine.crt"
}

# Runs a command in the root, with what it needs of this machine's environment.
in_root() {
    local name settings=(PATH=/opt/iommap/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive)
    for name in ${!CARGO_PROFILE_*} http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL; do
        [ -z "${!name:-}" ] || settings+=("$name=${!name}")
    done
    if [ -r "$certificates" ]; then
        for name in SSL_CERT_FILE CARGO_HTTP_CAINFO GIT_SSL_CAINFO PIP_CERT; do settings+=("$name=/etc/ssl/machine.crt"); done
    fi
    env --ignore-environment "${settings[@]}" chroot "$root" "$@" </dev/null 9>&-
}

# Copies the sources, and nothing that was built, to DIRECTORY of the root; what was built there stays. A file that differs from the
# one there is as new as the copy: what was built of another checkout's is of no use, however old this one is.
copy_sources() {
    local new=$root$1.new
    rm -rf "$new"
    mkdir -p "$root$1" "$new"
    git -C "$checkout" -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
        tar --create --directory "$checkout" --ignore-failed-read --null --files-from=- 2>/dev/null |
        tar --extract --no-same-owner --touch --directory "$new"
    (cd "$new" && find . -type f | while read -r file; do
        ! cmp -s "$file" "$root$1/$file" || touch -r "$root$1/$file" "$file"
    done)
    (cd "$root$1" && find . -mindepth 1 -maxdepth 1 ! -name _build ! -name target ! -name priv -exec rm -rf {} +)
    cp -R --preserve=mode,timestamps "$new/." "$root$1"
    rm -rf "$new"
}

# is_a_nif FILE PATTERN...: a library that the VM can load and that is never unloaded; readelf shows the patterns too.
is_a_nif() {
    [ -f "$1" ] || fail "$1 is missing"
    elf=$(readelf --wide --file-header --dynamic --dyn-syms "$1")
    for pattern in 'Type: *DYN' 'NODELETE' 'FUNC *GLOBAL *DEFAULT *[0-9]* nif_init$' "${@:2}"; do
        printf '%s\n' "$elf" | grep -q "$pattern" || fail "$1: readelf shows no '$pattern'"
    done
}

# Shows the end of what a command says, if it fails.
quietly() {
    "$@" >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; return 1; }
}

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

fail() {
    say "$@"
    exit 1
}
