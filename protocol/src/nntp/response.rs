//! Response codes and lines (RFC 3977 section 3.2; spec part 4).

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str::FromStr};

use crate::{Head, is_printable, limits::RESPONSE_OCTETS};

/// The three digits that begin a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal, $meaning:literal;)+) => {
        /// The codes by name.
        pub mod code {
            use super::Code;
            $(#[doc = $meaning] pub const $name: Code = Code($number);)+
        }
        /// Every code that a broker sends, with its meaning.
        pub const RESPONSES: &[(Code, &str)] = &[$((Code($number), $meaning)),+];
    };
}

codes! {
    HELP = 100, "help text follows";
    CAPABILITIES = 101, "the list of capabilities follows";
    DATE = 111, "the broker's time, YYYYMMDDhhmmss in UTC";
    READY = 200, "ready, posting allowed";
    READY_NO_POSTING = 201, "ready, posting not allowed";
    STREAMING = 203, "CHECK and TAKETHIS are understood";
    GOODBYE = 205, "the connection is about to be closed";
    GROUP = 211, "count, low-water mark, head and name of the channel; after LISTGROUP its serials follow";
    LIST = 215, "the list follows";
    ARTICLE = 220, "number and message-id; headers and statement follow";
    HEAD = 221, "number and message-id; the headers follow; also the answer to XHDR";
    BODY = 222, "number and message-id; the statement follows";
    STAT = 223, "number and message-id";
    OVERVIEW = 224, "overview lines follow";
    HDR = 225, "header lines follow";
    NEWNEWS = 230, "message-ids follow";
    NEWGROUPS = 231, "new channels follow";
    TRANSFERRED = 235, "after IHAVE: the statement is verified and durably stored";
    WANTED = 238, "the message-id; send it by TAKETHIS";
    TAKEN = 239, "the message-id; the statement is verified and durably stored";
    POSTED = 240, "the statement is verified and durably stored";
    AUTHENTICATED = 281, "you are known";
    WATCHING = 290, "the longest silence in seconds; events follow";
    SEND_IT = 335, "after IHAVE: send it";
    SEND_ARTICLE = 340, "send the article";
    PASSWORD_DUE = 381, "the password is wanted";
    UNAVAILABLE = 400, "the broker cannot serve this connection now; it is closed";
    INTERNAL = 403, "an internal fault keeps the broker from answering; the log names it";
    NO_SUCH_GROUP = 411, "no such channel here";
    NO_GROUP = 412, "no channel selected";
    NO_CURRENT = 420, "the current article number is invalid";
    NO_NEXT = 421, "no next article in this channel";
    NO_PREVIOUS = 422, "no previous article in this channel";
    NO_SUCH_NUMBER = 423, "no article with that number, or none in that range";
    NO_SUCH_ID = 430, "no article with that message-id";
    CHECK_LATER = 431, "the message-id; offer it again later";
    NOT_WANTED = 435, "after IHAVE: it is not wanted, now or later";
    TRANSFER_LATER = 436, "after IHAVE: offer it again later";
    TRANSFER_REFUSED = 437, "after IHAVE: it was not stored, and why; do not offer it again";
    CHECK_NOT_WANTED = 438, "the message-id; it is not wanted, now or later";
    TAKE_REFUSED = 439, "the message-id, and why it was not stored; do not offer it again";
    POST_REFUSED = 440, "posting is not permitted here";
    POST_FAILED = 441, "the statement was not stored, and why";
    WHO_ARE_YOU = 480, "only those who are known may do this";
    NOT_AUTHENTICATED = 481, "name and password are not those of anybody here";
    OUT_OF_SEQUENCE = 482, "AUTHINFO USER comes first, and once";
    NEEDS_TLS = 483, "only over TLS";
    WATCH_REFUSED = 490, "the broker holds as many watches as it may";
    UNKNOWN = 500, "unknown command";
    SYNTAX = 501, "syntax error, and what the command looks like";
    NOT_PERMITTED = 502, "not now, or not for you";
    NOT_STORED = 503, "the broker does not keep such data";
}

/// The reason behind 435 and 438 for a statement that is stored, or was: whoever offers it has
/// nothing more to do.
pub const HERE: &str = "it is here, or was";

/// One response line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The code.
    pub code: Code,
    /// The text after it, perhaps with arguments.
    pub text: String,
}

impl Response {
    /// A response; text that would make the line longer than [`RESPONSE_OCTETS`] is cut, line ends
    /// become spaces.
    pub fn new(code: Code, text: impl fmt::Display) -> Self {
        let mut text = text.to_string();
        if !is_printable(text.as_bytes()) {
            text = text.replace(|c: char| c.is_control(), " ");
        }
        let room = RESPONSE_OCTETS - "200 \r\n".len();
        if text.len() > room {
            text.truncate(
                (0..=room)
                    .rev()
                    .find(|&end| text.is_char_boundary(end))
                    .unwrap_or(0),
            );
        }
        Self { code, text }
    }

    /// Writes it as a line.
    pub fn write(&self, into: &mut Vec<u8>) {
        let digit = |number: u16| b'0' + u8::try_from(number % 10).unwrap_or(0);
        let Code(code) = self.code;
        into.extend_from_slice(&[digit(code / 100), digit(code / 10), digit(code), b' ']);
        into.extend_from_slice(self.text.as_bytes());
        into.extend_from_slice(b"\r\n");
    }
}

impl FromStr for Response {
    type Err = ();
    fn from_str(line: &str) -> Result<Self, ()> {
        let (digits, rest) = line.split_at_checked(3).ok_or(())?;
        let good = digits.bytes().all(|b| b.is_ascii_digit())
            && (rest.is_empty() || rest.starts_with(' '));
        let code = digits.parse().ok().filter(|_| good).ok_or(())?;
        Ok(Self {
            code: Code(code),
            text: rest.trim_start_matches(' ').into(),
        })
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// The text of a 441 after a lost race: `head SERIAL ID; …`, so that the publisher can sign again
/// at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRace(pub Head);

impl fmt::Display for LostRace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "head {}; another statement is there already, sign again to follow it",
            self.0
        )
    }
}

impl FromStr for LostRace {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (head, _) = text
            .strip_prefix("head ")
            .and_then(|t| t.split_once(';'))
            .ok_or(())?;
        let (serial, id) = head.split_once(' ').ok_or(())?;
        Ok(Self(Head {
            serial: serial.parse().map_err(drop)?,
            id: id.parse().map_err(drop)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let response = Response::new(code::POST_FAILED, "\u{e4}".repeat(600));
        assert!(alloc::format!("{response}\r\n").len() <= RESPONSE_OCTETS);
        assert_eq!(
            Response::new(code::POST_FAILED, "a\r\n200 b").text,
            "a  200 b"
        );
    }

    #[test]
    fn a_lost_race_names_the_head() {
        let head = Head {
            serial: crate::Serial::FIRST,
            id: crate::StatementId::of(b""),
        };
        assert_eq!(LostRace(head).to_string().parse(), Ok(LostRace(head)));
    }
}
