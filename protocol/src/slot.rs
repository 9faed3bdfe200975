//! The names of groups of slots, and of the machines in them (spec part 6).

use alloc::{borrow::ToOwned, string::String};
use core::{fmt, str::FromStr};

use crate::limits::TOKEN_OCTETS;

/// The name of a group of machines, or of one machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

/// Why a text is no such name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a group and a node have a name of 1 to {TOKEN_OCTETS} letters, digits, `.`, `_`, `@`, `+` or `-`, beginning with a letter or digit"
)]
pub struct SlotNameError;

impl FromStr for SlotName {
    type Err = SlotNameError;
    fn from_str(text: &str) -> Result<Self, SlotNameError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '+' | '-');
        let fits = text.len() <= TOKEN_OCTETS
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(good);
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(SlotNameError)
        }
    }
}

impl SlotName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for good in ["web", "0a7c", "node-1.example.org", "a+b@c_d"] {
            assert_eq!(
                good.parse::<SlotName>()
                    .map(|name| name.as_str().to_owned()),
                Ok(good.into())
            );
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", &"a".repeat(129)] {
            assert_eq!(bad.parse::<SlotName>(), Err(SlotNameError), "{bad}");
        }
    }
}
