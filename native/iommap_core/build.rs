//! Compiles the fault guard.

fn main() {
    let source = "../../c_src/guard.c";
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rerun-if-changed=../../c_src/guard.h");
    cc::Build::new()
        .file(source)
        .std("c11")
        .define("_GNU_SOURCE", None)
        .flag_if_supported("-fno-stack-protector")
        .flag_if_supported("-Wextra")
        // Nothing that may be clobbered is used after the jump.
        .flag_if_supported("-Wno-clobbered")
        .opt_level(2)
        .compile("iommap_guard");
}
