//! How a call ends: a code, and why.

use std::{
    any::Any,
    ffi::{CStr, CString, c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::null,
};

use tidings_client::{Failure, StateError, explain};

use crate::pointer;

/// How a call has ended. The numbers are the exit codes of `tidings`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// All went well.
    Done = 0,
    /// Something else failed.
    Failed = 1,
    /// An argument is missing or wrong.
    Usage = 2,
    /// A rule forbids it: a signature, a role, the refusal of a broker.
    Refused = 3,
    /// Behind, stale, forked, or nothing confirms it.
    NotCurrent = 4,
    /// The release was withdrawn.
    Withdrawn = 5,
    /// Not yet: a state file in use by another program, a release that is not due.
    Waiting = 6,
    /// No broker could be used.
    NoBroker = 7,
    /// A file is missing, damaged, or of another namespace.
    BadFile = 8,
    /// There is nothing: no news within the time, no release to run.
    Nothing = 9,
}

/// Why a call has failed.
pub struct Error {
    code: Code,
    text: CString,
}

/// A failure on its way out.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl Failed {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Code::Usage, text)
    }
}

impl From<Failure> for Code {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Usage => Code::Usage,
            Failure::Refused => Code::Refused,
            Failure::NotCurrent => Code::NotCurrent,
            Failure::Withdrawn => Code::Withdrawn,
            Failure::Waiting => Code::Waiting,
            Failure::NoBroker => Code::NoBroker,
            Failure::BadFile => Code::BadFile,
        }
    }
}

impl From<tidings_client::Error> for Failed {
    fn from(error: tidings_client::Error) -> Self {
        Self::new(error.failure().into(), explain(&error))
    }
}

impl From<StateError> for Failed {
    fn from(error: StateError) -> Self {
        Self::new(error.failure().into(), explain(&error))
    }
}

/// Runs what a function does; a failure goes to `error`, unless that is null, and so does a panic.
pub(crate) fn call(error: *mut *mut Error, body: impl FnOnce() -> Result<(), Failed>) -> Code {
    let failed = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => None,
        Ok(Err(failed)) => Some(failed),
        Err(panic) => Some(Failed::new(
            Code::Failed,
            format!("a defect of the library: {}", said(&*panic)),
        )),
    };
    let code = failed.as_ref().map_or(Code::Done, |failed| failed.code);
    let told = failed.map(|Failed { code, text }| Error {
        code,
        text: pointer::c_string(text),
    });
    // A caller that passes null does not want to know.
    let _ = pointer::give_or_null(error, told);
    code
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied())
        .unwrap_or("it panicked")
}

/// The code of an error.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_error_code(error: *const Error) -> Code {
    pointer::object(error).map_or(Code::Done, |error| error.code)
}

/// Why, in one line of UTF-8, for people. It belongs to the error, and ends with it.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_error_text(error: *const Error) -> *const c_char {
    pointer::text_of(error, |error| Some(error.text.as_c_str()))
}

/// Ends an error. Null is none.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_error_free(error: *mut Error) {
    pointer::free(error);
}

/// The names of the codes, in their order.
const NAMES: [&CStr; 10] = [
    c"done",
    c"failed",
    c"usage",
    c"refused",
    c"not-current",
    c"withdrawn",
    c"waiting",
    c"no-broker",
    c"bad-file",
    c"nothing",
];

/// The name of a code, as `tidings` prints it: `no-broker`; null for what is none. It stays for
/// ever.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_code_name(code: c_int) -> *const c_char {
    // C may pass any number.
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or(null(), |name| name.as_ptr())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::ptr::null_mut;

    #[test]
    fn a_panic_is_an_error() {
        let mut error = null_mut();
        let code = call(&mut error, || panic!("nobody expects {}", 1));
        assert_eq!((code, tidings_error_code(error)), (Code::Failed, code));
        let text = pointer::text(tidings_error_text(error), "text").unwrap();
        assert_eq!(text, "a defect of the library: nobody expects 1");
        tidings_error_free(error);
        // What went well says so, and who does not ask is not told.
        assert_eq!(call(&mut error, || Ok(())), Code::Done);
        assert!(error.is_null());
        assert_eq!(call(null_mut(), || panic!("again")), Code::Failed);
    }

    #[test]
    fn a_code_has_its_name_and_another_number_none() {
        let name = |code| pointer::text(tidings_code_name(code), "name").unwrap();
        assert_eq!(name(Code::NoBroker as c_int), "no-broker");
        assert_eq!(name(Code::Nothing as c_int), "nothing");
        assert!(tidings_code_name(10).is_null() && tidings_code_name(-1).is_null());
    }
}
