//! Statements, as C sees them. Each of them was verified.

use std::{
    ffi::{CString, c_char},
    ptr::null,
};

use tidings_client::Verified;

use crate::pointer::{self, c_string};

/// A verified statement. There are no others.
pub struct Statement {
    kind: CString,
    channel: CString,
    serial: u32,
    id: CString,
    time: CString,
    octets: Vec<u8>,
    fields: Vec<(CString, CString)>,
}

/// Several of them, oldest first in each channel.
pub struct Statements(Vec<Statement>);

impl From<&Verified<tidings_client::Statement>> for Statement {
    fn from(statement: &Verified<tidings_client::Statement>) -> Self {
        let text = String::from_utf8_lossy(statement.signed_part());
        let fields = text.lines().filter_map(|line| line.split_once(": "));
        Self {
            kind: c_string(statement.kind().as_str()),
            channel: c_string(statement.channel().as_str()),
            serial: statement.serial().number(),
            id: c_string(statement.id().to_string()),
            time: c_string(statement.time().to_string()),
            octets: statement.octets().to_vec(),
            fields: fields.map(|(n, v)| (c_string(n), c_string(v))).collect(),
        }
    }
}

impl From<&[Verified<tidings_client::Statement>]> for Statements {
    fn from(all: &[Verified<tidings_client::Statement>]) -> Self {
        Self(all.iter().map(Statement::from).collect())
    }
}

/// `release`, `withdraw`, `trust` or `beat`.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_kind(statement: *const Statement) -> *const c_char {
    pointer::text_of(statement, |statement| Some(&statement.kind))
}

/// The channel.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_channel(statement: *const Statement) -> *const c_char {
    pointer::text_of(statement, |statement| Some(&statement.channel))
}

/// Its place in the channel, from 1 on; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_serial(statement: *const Statement) -> u32 {
    pointer::object(statement).map_or(0, |statement| statement.serial)
}

/// `sha256:` and 64 digits.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_id(statement: *const Statement) -> *const c_char {
    pointer::text_of(statement, |statement| Some(&statement.id))
}

/// When it was signed, as it says: `2026-01-31T12:00:00Z`.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_time(statement: *const Statement) -> *const c_char {
    pointer::text_of(statement, |statement| Some(&statement.time))
}

/// All its octets, with the signatures, and how many they are. No NUL follows them.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_octets(
    statement: *const Statement,
    length: *mut usize,
) -> *const u8 {
    let octets = pointer::object(statement).map(|statement| statement.octets.as_slice());
    pointer::write(length, octets.map_or(0, <[u8]>::len));
    octets.map_or(null(), <[u8]>::as_ptr)
}

/// How many fields it has. A field may stand there several times, `Payload` for instance.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_fields(statement: *const Statement) -> usize {
    pointer::object(statement).map_or(0, |statement| statement.fields.len())
}

/// The name of a field, by its place from 0 on; null behind the last.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_field_name(
    statement: *const Statement,
    place: usize,
) -> *const c_char {
    pointer::text_of(statement, |s| Some(&s.fields.get(place)?.0))
}

/// The value of a field, by its place from 0 on; null behind the last.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_field_value(
    statement: *const Statement,
    place: usize,
) -> *const c_char {
    pointer::text_of(statement, |s| Some(&s.fields.get(place)?.1))
}

/// The first value of a field, by its name, `Version` for instance; null if it is not there.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_value(
    statement: *const Statement,
    name: *const c_char,
) -> *const c_char {
    let Ok(name) = pointer::text(name, "name") else {
        return null();
    };
    pointer::text_of(statement, |statement| {
        let mut fields = statement.fields.iter();
        let field = fields.find(|(known, _)| known.to_bytes() == name.as_bytes())?;
        Some(field.1.as_c_str())
    })
}

/// Ends a statement that was given alone, and all texts of it. Null is none.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statement_free(statement: *mut Statement) {
    pointer::free(statement);
}

/// How many there are.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statements_count(statements: *const Statements) -> usize {
    pointer::object(statements).map_or(0, |statements| statements.0.len())
}

/// One of them, from 0 on; null behind the last. It belongs to them, and ends with them.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statements_at(
    statements: *const Statements,
    place: usize,
) -> *const Statement {
    let statement = pointer::object(statements).and_then(|statements| statements.0.get(place));
    statement.map_or(null(), std::ptr::from_ref)
}

/// Ends them all. Null is none.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_statements_free(statements: *mut Statements) {
    pointer::free(statements);
}
