//! Names: channels, namespaces, role patterns, and the anchor that provisions a device (spec part
//! 1).

use alloc::{boxed::Box, string::String};
use core::{borrow::Borrow, fmt, str::FromStr};

use crate::{Head, limits::CHANNEL_OCTETS};

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than [`CHANNEL_OCTETS`], or empty.
    #[error("a name has 1 to {CHANNEL_OCTETS} octets, this one has {0}")]
    Length(usize),
    /// A part between dots is empty or has a character outside `a-z 0-9 + - _`, or begins with a
    /// sign.
    #[error(
        "{0:?} is no part of a name: parts are a-z, 0-9, '+', '-', '_' and begin with a letter or digit"
    )]
    Component(String),
    /// A part that netnews reserves (RFC 5536 section 3.1.4), or one of digits alone.
    #[error("{0:?} is reserved in netnews or consists of digits alone; choose another part")]
    Reserved(String),
    /// A channel has a namespace and at least one part more.
    #[error("{0:?} has one part only; a channel is NAMESPACE.NAME…")]
    NoNamespace(String),
    /// An anchor that is not `NAMESPACE SERIAL sha256:HEX`.
    #[error(
        "an anchor is one line, `NAMESPACE SERIAL sha256:` and 64 lower-case hex digits; this is {0:?}"
    )]
    Anchor(String),
    /// A role pattern that is not `*`, `NAME.*` or a channel.
    #[error("a role pattern is `*`, `NAME.*` or a channel; this is {0:?}")]
    Pattern(String),
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > CHANNEL_OCTETS {
        return Err(NameError::Length(name.len()));
    }
    for (place, part) in name.split('.').enumerate() {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let octets = part.as_bytes();
        if octets.is_empty()
            || !good(octets[0])
            || !octets
                .iter()
                .all(|&b| good(b) || matches!(b, b'+' | b'-' | b'_'))
        {
            return Err(NameError::Component(part.into()));
        }
        let reserved = matches!(part, "all" | "ctl")
            || place == 0 && matches!(part, "to" | "control" | "junk" | "poster")
            || octets.iter().all(u8::is_ascii_digit);
        if reserved {
            return Err(NameError::Reserved(part.into()));
        }
    }
    Ok(())
}

macro_rules! name_type {
    ($type:ident) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// An ordered log of statements; on the wire a newsgroup, e.g. `baserock.os.stable.x86_64`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Box<str>);
name_type!(Channel);

impl FromStr for Channel {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        check(name)?;
        if !name.contains('.') {
            return Err(NameError::NoNamespace(name.into()));
        }
        Ok(Self(name.into()))
    }
}

impl Channel {
    /// Whether this is a namespace's trust log: its last part is `trust`.
    pub fn is_trust(&self) -> bool {
        self.0.ends_with(".trust")
    }
    /// Whether this is a beat channel: its last part is `beat`.
    pub fn is_beat(&self) -> bool {
        self.0.ends_with(".beat")
    }
}

/// The dotted prefix that an anchor names, e.g. `baserock` or `org.baserock`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Box<str>);
name_type!(Namespace);

impl FromStr for Namespace {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        check(name)?;
        // Room for `.trust`, so that the trust log is a channel.
        if name.len() + ".trust".len() > CHANNEL_OCTETS {
            return Err(NameError::Length(name.len()));
        }
        Ok(Self(name.into()))
    }
}

impl Namespace {
    /// The channel that carries this namespace's trust statements.
    pub fn trust_log(&self) -> Channel {
        Channel(alloc::format!("{}.trust", self.0).into())
    }
    /// The channel that carries this namespace's beats.
    pub fn beat(&self) -> Channel {
        Channel(alloc::format!("{}.beat", self.0).into())
    }
    /// Whether a channel lies below this prefix.
    pub fn contains(&self, channel: &Channel) -> bool {
        below(&self.0, channel.as_str())
    }
    /// Of several namespaces, the one that a channel belongs to: the longest prefix.
    pub fn longest<'a>(
        all: impl IntoIterator<Item = &'a Namespace>,
        channel: &Channel,
    ) -> Option<&'a Namespace> {
        all.into_iter()
            .filter(|n| n.contains(channel))
            .max_by_key(|n| n.0.len())
    }
}

fn below(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The channels that a role covers: `*`, `NAME.*`, or one channel. Nothing else, so that "most
/// specific" has one meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

impl FromStr for Pattern {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = match text.strip_suffix(".*") {
            _ if text == "*" => true,
            Some(prefix) => check(prefix).is_ok(),
            None => text.parse::<Channel>().is_ok(),
        };
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Pattern(text.into()))
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Whether a channel is covered.
    pub fn matches(&self, channel: &Channel) -> bool {
        match self.0.strip_suffix(".*") {
            _ if &*self.0 == "*" => true,
            Some(prefix) => below(prefix, channel.as_str()),
            None => *self.0 == *channel.as_str(),
        }
    }
    /// [1-14]: the channel of the beats that a role with this pattern allows: `*` those in
    /// NAMESPACE`.beat`, `P.*` those in P`.beat`, P being below the namespace. No other pattern has
    /// one.
    pub fn beat_channel(&self, namespace: &Namespace) -> Option<Channel> {
        if &*self.0 == "*" {
            return Some(namespace.beat());
        }
        let prefix = self
            .0
            .strip_suffix(".*")
            .filter(|prefix| below(&namespace.0, prefix))?;
        alloc::format!("{prefix}.beat").parse().ok()
    }
    /// Of two patterns that match one channel, the more specific has the larger value.
    pub fn specificity(&self) -> usize {
        // An exact name is longer than any `NAME.*` above it, counted without the star.
        if self.0.ends_with('*') {
            self.0.len() - 1
        } else {
            self.0.len() + 1
        }
    }
}

/// The one line with which a device or broker is provisioned: a namespace, and serial and id of one
/// of its trust statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The namespace.
    pub namespace: Namespace,
    /// The statement of its trust log with which trust begins.
    pub head: Head,
}

impl FromStr for Anchor {
    type Err = NameError;
    fn from_str(line: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Anchor(line.into());
        let mut parts = line.trim_ascii().split(' ');
        let (Some(namespace), Some(serial), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let head = Head {
            serial: serial.parse().map_err(|_| wrong())?,
            id: id.parse().map_err(|_| wrong())?,
        };
        Ok(Self {
            namespace: namespace.parse()?,
            head,
        })
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.namespace, self.head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_46_and_47_odd_names_are_refused() {
        for name in [
            "",
            ".",
            "a",
            "a.",
            ".a",
            "a..b",
            "../etc",
            "a./b",
            "a.B",
            "a.\u{e4}",
            "a.all",
            "to.x",
            "control.cancel",
            "a.24",
            "a.-b",
            "a b",
            "a.b\0",
        ] {
            assert!(name.parse::<Channel>().is_err(), "{name:?}");
        }
        let long = alloc::format!("a.{}", "b".repeat(CHANNEL_OCTETS));
        assert_eq!(
            long.parse::<Channel>(),
            Err(NameError::Length(CHANNEL_OCTETS + 2))
        );
        for name in ["a.b", "baserock.os.stable.x86_64", "a.24b", "a.c++"] {
            assert_eq!(name.parse::<Channel>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_channel_belongs_to_the_longest_prefix() {
        let (org, base): (Namespace, Namespace) =
            ("org".parse().unwrap(), "org.baserock".parse().unwrap());
        let all = [org.clone(), base.clone()];
        assert_eq!(
            Namespace::longest(&all, &"org.baserock.os".parse().unwrap()),
            Some(&base)
        );
        assert_eq!(
            Namespace::longest(&all, &"org.baserocks.os".parse().unwrap()),
            Some(&org)
        );
        assert_eq!(Namespace::longest(&all, &"com.x".parse().unwrap()), None);
    }

    #[test]
    fn patterns_are_ordered_by_specificity() {
        let channel: Channel = "a.b.c".parse().unwrap();
        let values = ["*", "a.*", "a.b.*", "a.b.c"].map(|text| {
            let pattern: Pattern = text.parse().unwrap();
            assert!(pattern.matches(&channel), "{text}");
            pattern.specificity()
        });
        assert!(values.is_sorted_by(|a, b| a < b), "{values:?}");
        assert!(
            !"a.b.*"
                .parse::<Pattern>()
                .unwrap()
                .matches(&"a.bc.d".parse().unwrap())
        );
        assert!("a*".parse::<Pattern>().is_err());
    }
}
