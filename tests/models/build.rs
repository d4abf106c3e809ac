//! Chooses `src/sync.rs` of this package in the crate.

fn main() {
    println!("cargo:rustc-cfg=models");
}
