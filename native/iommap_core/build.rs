//! Compiles the fault guard, for processors that iommap can run on.

fn main() {
    // Before the C compiler speaks, which may lack that processor's headers.
    let width = std::env::var("CARGO_CFG_TARGET_POINTER_WIDTH");
    assert!(
        width.as_deref() == Ok("64"),
        "iommap needs a processor of 64 bits: on this one files are longer than addresses"
    );
    let sources = ["../../c_src/guard.c", "../../c_src/handler.c"];
    for file in sources.into_iter().chain(["../../c_src/guard.h"]) {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut guard = cc::Build::new();
    guard
        .files(sources)
        .std("c11")
        .define("_GNU_SOURCE", None)
        .flag_if_supported("-fno-stack-protector")
        .flag_if_supported("-Wextra")
        .opt_level(2);
    if !guard.get_compiler().is_like_clang() {
        // Nothing that may be clobbered is used after the jump. (Clang has no such warning, and warns of that.)
        guard.flag_if_supported("-Wno-clobbered");
    }
    guard.compile("iommap_guard");
}
