//! The name by which programs ask for the shared library; its number changes with the ABI.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libtidings.so.0");
    println!("cargo:rerun-if-changed=build.rs");
}
