//! Serials, statement ids, heads and message-ids (spec part 1 and 7).

use alloc::string::String;
use core::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::{Channel, limits::SERIAL_LAST};

/// Why a serial, an id or a message-id was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a decimal number from 1 to [`SERIAL_LAST`] without leading zeros.
    #[error("a serial is a number from 1 to {SERIAL_LAST} without leading zeros; this is {0:?}")]
    Serial(String),
    /// Not `sha256:` and 64 lower-case hex digits.
    #[error("an id is `sha256:` and 64 lower-case hex digits; this is {0:?}")]
    Id(String),
    /// Not `<SERIAL.HEX@CHANNEL>`.
    #[error("a message-id is `<SERIAL.HEX@CHANNEL>`; this is {0:?}")]
    MessageId(String),
}

/// The place of a statement in its channel, 1 to [`SERIAL_LAST`]; the article number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(u32);

impl Serial {
    /// The first serial of every channel.
    pub const FIRST: Self = Self(1);

    /// A serial, if the number is one.
    pub fn new(number: u32) -> Option<Self> {
        (1..=SERIAL_LAST).contains(&number).then_some(Self(number))
    }
    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }
    /// The serial after this one, unless this is the last.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

impl FromStr for Serial {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Serial(text.into());
        let good = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        good.then(|| text.parse().ok())
            .flatten()
            .and_then(Self::new)
            .ok_or_else(wrong)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SHA-256; written `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some octets.
    pub fn of(octets: &[u8]) -> Self {
        Self(Sha256::digest(octets).into())
    }
    /// A digest computed elsewhere.
    pub fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }
    /// The 32 octets.
    pub fn octets(&self) -> &[u8; 32] {
        &self.0
    }
    fn from_hex(hex: &str) -> Option<Self> {
        let mut octets = [0; 32];
        let read = base16ct::lower::decode(hex, &mut octets).ok()?.len();
        (read == octets.len()).then_some(Self(octets))
    }
    fn write_hex(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = [0; 64];
        f.write_str(base16ct::lower::encode_str(&self.0, &mut hex).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix("sha256:")
            .and_then(Self::from_hex)
            .ok_or_else(|| IdError::Id(text.into()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.write_hex(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The [`Digest`] of the signed part of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(Digest);

impl StatementId {
    /// The id of a signed part.
    pub fn of(signed_part: &[u8]) -> Self {
        Self(Digest::of(signed_part))
    }
    /// An id from its 32 octets, as a store keeps it.
    pub fn from_octets(octets: [u8; 32]) -> Self {
        Self(Digest(octets))
    }
    /// The 32 octets.
    pub fn octets(&self) -> &[u8; 32] {
        &self.0.0
    }
}

impl FromStr for StatementId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Serial and id of a statement, above all of a channel's newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The serial.
    pub serial: Serial,
    /// The id.
    pub id: StatementId,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.serial, self.id)
    }
}

/// `<SERIAL.HEX@CHANNEL>`: everything needed to find a statement and to know it when found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The channel.
    pub channel: Channel,
    /// The serial in that channel.
    pub serial: Serial,
    /// The id of the statement.
    pub id: StatementId,
}

impl MessageId {
    /// The head that a message-id names, and what it says of the channel.
    pub(crate) fn parts(text: &str) -> Option<(Head, &str)> {
        let (left, channel) = text.strip_prefix('<')?.strip_suffix('>')?.split_once('@')?;
        let (serial, hex) = left.split_once('.')?;
        let (serial, id) = (serial.parse().ok()?, StatementId(Digest::from_hex(hex)?));
        Some((Head { serial, id }, channel))
    }
}

impl FromStr for MessageId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let whole = || {
            let (Head { serial, id }, channel) = Self::parts(text)?;
            let channel = channel.parse().ok()?;
            Some(Self {
                channel,
                serial,
                id,
            })
        };
        whole().ok_or_else(|| IdError::MessageId(text.into()))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}.", self.serial)?;
        self.id.0.write_hex(f)?;
        write!(f, "@{}>", self.channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn attack_48_numbers_that_are_no_serials_are_refused() {
        for text in [
            "",
            "0",
            "01",
            "-1",
            "+1",
            "2147483648",
            "4294967297",
            "18446744073709551617",
            "1 ",
            "1e3",
            "\u{661}",
        ] {
            assert!(text.parse::<Serial>().is_err(), "{text:?}");
        }
        assert_eq!("2147483647".parse::<Serial>().unwrap().next(), None);
        assert_eq!(Serial::FIRST.next().unwrap().number(), 2);
    }

    #[test]
    fn a_message_id_names_channel_serial_and_id() {
        let id = StatementId::of(b"x");
        let message = MessageId {
            channel: "a.b".parse().unwrap(),
            serial: "42".parse().unwrap(),
            id,
        };
        let text = message.to_string();
        assert_eq!(text.parse(), Ok(message));
        assert!(text.to_uppercase().parse::<MessageId>().is_err());
        assert!(text.replace("<42", "<042").parse::<MessageId>().is_err());
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
