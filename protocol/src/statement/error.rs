use alloc::string::String;
use core::fmt;

/// Where a text stops being a statement, and what should stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementError {
    /// The number of the line, from 1.
    pub line: usize,
    /// The field of that line, if it has one.
    pub field: String,
    /// What was expected, and what was found.
    pub reason: String,
}

impl StatementError {
    pub(crate) fn new(line: usize, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            line,
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

impl core::error::Error for StatementError {}
