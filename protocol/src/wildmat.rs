//! Wildmats: which channels a command means (RFC 3977 section 4).

use alloc::{boxed::Box, string::String};
use core::{fmt, str::FromStr};

use crate::limits::WILDMAT_OCTETS;

/// Why a wildmat was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a wildmat has patterns of letters, digits, `.`, `*` and `?`, each perhaps after `!`, between commas; this is {0:?}"
)]
pub struct WildmatError(String);

/// Patterns between commas; the last that matches decides, and `!` makes it a refusal. It is kept
/// as it was written: a watch has many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildmat(Box<str>);

impl FromStr for Wildmat {
    type Err = WildmatError;
    fn from_str(text: &str) -> Result<Self, WildmatError> {
        let good = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b'!' | b'[' | b']' | b'\\');
        let is_pattern = |part: &str| {
            let pattern = part.strip_prefix('!').unwrap_or(part);
            !pattern.is_empty() && pattern.bytes().all(good)
        };
        let right = text.len() <= WILDMAT_OCTETS && text.split(',').all(is_pattern);
        if right {
            Ok(Self(text.into()))
        } else {
            Err(WildmatError(text.into()))
        }
    }
}

impl fmt::Display for Wildmat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Wildmat {
    /// How many patterns it has.
    pub fn patterns(&self) -> usize {
        self.0.bytes().filter(|b| *b == b',').count() + 1
    }
    /// What it costs to match a name, in octets looked at, at most.
    pub fn cost(&self, name: &str) -> usize {
        self.0.len() * name.len()
    }
    /// Whether a name is meant.
    pub fn matches(&self, name: &str) -> bool {
        let of = |part: &str| match part.strip_prefix('!') {
            Some(pattern) => glob(pattern.as_bytes(), name.as_bytes()).then_some(false),
            None => glob(part.as_bytes(), name.as_bytes()).then_some(true),
        };
        self.0.rsplit(',').find_map(of).unwrap_or(false)
    }
}

/// Greedy with one point of return: linear in the product of the lengths, whatever the pattern.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wildmat: &str, name: &str, expected: bool) {
        assert_eq!(
            wildmat.parse::<Wildmat>().unwrap().matches(name),
            expected,
            "{wildmat} {name}"
        );
    }

    #[test]
    fn as_rfc_3977_section_4_4_has_it() {
        check("*", "a.b", true);
        check("a*", "aaa", true);
        check("a*,!*b", "aaa", true);
        check("a*,!*b", "abb", false);
        check("a*,!*b,c*", "cb", true);
        check("a*,c*,!*b", "cb", false);
        check("?a*", "xa", true);
        check("?a*", "a", false);
        check("*.x86_64", "a.b.x86_64", true);
        check("a.b", "a.b.c", false);
        check("a*b*c", "axxbxxbyyc", true);
    }

    #[test]
    fn refused() {
        for text in ["", ",", "a,", "!", "a!b", "a b", "[a]", "a\\b"] {
            assert!(text.parse::<Wildmat>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn attack_65_a_costly_wildmat_is_cheap() {
        let pattern = "*a".repeat(200);
        check(&pattern, &"a".repeat(128), false);
    }
}
