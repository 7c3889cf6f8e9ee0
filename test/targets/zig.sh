# shellcheck shell=bash
# zig, which has every system's C headers and C libraries, as compiler and linker in a root; and cargo with a standard library
# that is made of Debian's rust-src. To be sourced after root.sh by a script that has `sources`, and `targets`: lines of Rust's
# name of a target and zig's.

zig_version=0.17.0

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
