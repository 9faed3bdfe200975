//! The one place where chance is drawn.

/// A number that nobody can foretell; none where the system has no randomness.
pub(crate) fn draw() -> Option<u64> {
    #[cfg(feature = "simulated")]
    if let Some(drawn) = crate::simulated::draw() {
        return Some(drawn);
    }
    let mut octets = [0; 8];
    getrandom::fill(&mut octets).ok()?;
    Some(u64::from_le_bytes(octets))
}
