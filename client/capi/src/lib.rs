//! Tidings for programs in other languages: `include/tidings.h` and `libtidings`.
//!
//! Every function takes pointers that its caller answers for, and returns a code. No panic leaves
//! the library: it becomes the code `Failed`. How the functions hang together stands in
//! `docs/guide/languages.md`.

mod device;
mod error;
mod options;
mod pointer;
mod statement;
mod trust;

use std::ffi::c_char;

/// The version of the library, `MAJOR.MINOR.PATCH`. It stays for ever.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
