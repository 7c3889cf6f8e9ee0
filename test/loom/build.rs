//! What is compiled here is a model.

fn main() {
    println!("cargo::rustc-cfg=loom");
}
