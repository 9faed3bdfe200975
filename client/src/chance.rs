//! The one place where chance is drawn.

/// A number that nobody can foretell; none where the system has no randomness.
pub(crate) fn draw() -> Option<u64> {
    let mut octets = [0; 8];
    getrandom::fill(&mut octets).ok()?;
    Some(u64::from_le_bytes(octets))
}
