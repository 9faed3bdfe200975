//! All that is unsafe: pointers of a caller become references, and ours become theirs.
//!
//! The caller answers for each: a pointer that is not null has come from a function of this library
//! and was not freed, or leads to what the header says; it is not used by another thread at the
//! same time. The functions of the ABI are plain `extern "C"` functions, since no caller of theirs
//! is Rust; what they rely on stands here, once.

use std::{
    ffi::{CStr, CString, c_char},
    ptr::null,
    slice,
};

use crate::error::Failed;

/// The object that a pointer leads to; none for null.
pub(crate) fn object<'a, T>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: null, or an object of this library that was not freed, as the header demands.
    unsafe { pointer.as_ref() }
}

/// The same, to be changed.
pub(crate) fn object_mut<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T, Failed> {
    // SAFETY: as above, and no other thread uses it at the same time.
    unsafe { pointer.as_mut() }.ok_or_else(|| missing(name))
}

/// A text that has to be there.
pub(crate) fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Failed> {
    if pointer.is_null() {
        return Err(missing(name));
    }
    // SAFETY: it is not null, and the header demands a text that ends with a NUL.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str()
        .map_err(|_| Failed::usage(format!("{name} is not UTF-8")))
}

/// Octets that have to be there.
pub(crate) fn octets<'a>(pointer: *const u8, length: usize) -> Result<&'a [u8], Failed> {
    if pointer.is_null() || isize::try_from(length).is_err() {
        return Err(missing("octets"));
    }
    // SAFETY: it is not null, and the header demands that so many octets can be read there.
    Ok(unsafe { slice::from_raw_parts(pointer, length) })
}

/// Where something can be put.
pub(crate) struct Place<T>(*mut *mut T);

impl<T> Place<T> {
    /// It is null until something is put there.
    pub(crate) fn new(to: *mut *mut T, name: &str) -> Result<Self, Failed> {
        match give_or_null(to, None) {
            true => Ok(Self(to)),
            false => Err(missing(name)),
        }
    }

    /// The caller owns it from here on.
    pub(crate) fn put(self, value: T) {
        give_or_null(self.0, Some(value));
    }
}

/// Puts a new object, or null, where the caller wants it; whether there is such a place.
pub(crate) fn give_or_null<T>(to: *mut *mut T, value: Option<T>) -> bool {
    // SAFETY: null, or a place for a pointer, as the header demands.
    let Some(to) = (unsafe { to.as_mut() }) else {
        return false;
    };
    *to = value.map_or(std::ptr::null_mut(), |value| Box::into_raw(Box::new(value)));
    true
}

/// Writes a number where the caller wants it, if that is anywhere.
pub(crate) fn write<T>(to: *mut T, value: T) {
    // SAFETY: null, or a place for such a number, as the header demands.
    if let Some(to) = unsafe { to.as_mut() } {
        *to = value;
    }
}

/// Ends an object that was given to the caller.
pub(crate) fn free<T>(pointer: *mut T) {
    if pointer.is_null() {
        return;
    }
    // SAFETY: it is not null, `give_or_null` has made it, and the caller frees it once.
    let object = unsafe { Box::from_raw(pointer) };
    // What its end does must not unwind into C.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(object)));
}

/// A text that belongs to an object; null if there is none.
pub(crate) fn text_of<'a, T: 'a>(
    pointer: *const T,
    of: impl FnOnce(&'a T) -> Option<&'a CStr>,
) -> *const c_char {
    object(pointer).and_then(of).map_or(null(), CStr::as_ptr)
}

/// A text for C. No text of ours has a NUL in it; one that had would end there.
pub(crate) fn c_string(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let end = error.nul_position();
        let mut octets = error.into_vec();
        octets.truncate(end);
        CString::new(octets).unwrap_or_default()
    })
}

fn missing(name: &str) -> Failed {
    Failed::usage(format!("{name} is null"))
}
