//! Several statements in one file, one after the other (spec part 5).
//!
//! Every statement begins with its `Tidings` line and no other line may, so that `cat` makes
//! bundles and nothing has to stand between.

use alloc::vec::Vec;

use crate::{Statement, StatementError};

/// Reads a bundle of statements, signed or not yet; a single statement is a bundle of one.
///
/// # Errors
/// As [`Statement::parse_draft`]; the line is that of the whole file.
pub fn parse(octets: &[u8]) -> Result<Vec<Statement>, StatementError> {
    let mut found = Vec::new();
    let mut before = 0;
    for part in split(octets) {
        let statement = Statement::parse_draft(part).map_err(|error| StatementError {
            line: error.line + before,
            ..error
        })?;
        found.push(statement);
        before += part.iter().filter(|&&octet| octet == b'\n').count();
    }
    Ok(found)
}

/// The parts that begin with a `Tidings` line; all of it where there is none.
fn split(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts: Vec<usize> = memchr::memmem::find_iter(octets, b"\nTidings: ")
        .map(|at| at + 1)
        .collect();
    starts.insert(0, 0);
    let ends: Vec<usize> = starts
        .iter()
        .skip(1)
        .copied()
        .chain([octets.len()])
        .collect();
    starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| &octets[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "Tidings: 1 beat\nChannel: a.beat\nSerial: 1\nPrevious: -\nTime: 2026-01-01T00:00:00Z\nTrust: 1\nExpires: 2026-01-01T00:05:00Z\n";

    #[test]
    fn what_stands_one_after_the_other_is_a_bundle() {
        let two = [FIRST, FIRST].concat();
        let statements = parse(two.as_bytes()).unwrap();
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[0].octets(), FIRST.as_bytes());
        assert_eq!(parse(FIRST.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn a_fault_has_the_line_of_the_whole_file() {
        let bad = [FIRST, &FIRST.replace("Serial: 1", "Serial: 0")].concat();
        assert_eq!(parse(bad.as_bytes()).unwrap_err().line, 7 + 3);
        assert_eq!(parse(b"").unwrap_err().line, 1);
        assert_eq!(parse(b"x\nTidings: 1 beat\n").unwrap_err().line, 1);
    }
}
