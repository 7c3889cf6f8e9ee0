//! Pins the library in memory: a signal handler and other images' objects may point into it for ever.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if target != "macos" {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
