//! The envelope: an article whose body is a statement and whose headers follow from it (spec part
//! 4).

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::Write;

use crate::{
    MessageId, Statement, StatementError, Timestamp, is_printable,
    limits::HEADER_OCTETS,
    statement::{Body, Urgency},
};

/// The headers of an article in the order in which they are written; all but `Path` follow from the
/// statement.
pub const HEADERS: &[&str] = &[
    "Path",
    "From",
    "Newsgroups",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// What most envelopes have room in.
const ENVELOPE_OCTETS: usize = 640;

/// The longest `Path` that is passed on; a longer one loses its oldest hops.
const PATH_OCTETS: usize = 512;

/// Why an article holds no statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArticleError {
    /// There is no empty line between headers and body.
    #[error("header: expected an empty line between the headers and the statement")]
    NoBody,
    /// A header that this profile reads is repeated, folded or malformed (attack 40).
    #[error("header line {line}: {reason}")]
    Header {
        /// The number of the line, from 1.
        line: usize,
        /// What was expected.
        reason: String,
    },
    /// The body is no statement.
    #[error("statement {0}")]
    Statement(#[from] StatementError),
}

/// A statement as it came in an article, and the way it came.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The body.
    pub statement: Statement,
    /// The `Path` header, if there was one; a hint, no more (attack 37).
    pub path: Option<String>,
}

/// An article in the form in which it is sent: lines end with CR LF, no line begins with a dot.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// What stood before it, headers, an empty line, the statement.
    pub octets: Vec<u8>,
    /// Where the empty line begins.
    pub headers: usize,
    /// The lines of the whole article.
    pub lines: usize,
}

/// The `Subject` of a statement: channel, and what it says in a few words.
pub fn subject(statement: &Statement) -> String {
    let mut subject = String::new();
    write_subject(statement, &mut subject);
    subject
}

fn write_subject(statement: &Statement, into: &mut String) {
    into.push_str(statement.channel().as_str());
    into.push(' ');
    match statement.body() {
        Body::Release(release) => {
            into.push_str(&release.version);
            if release.urgency != Urgency::Routine {
                for part in [" [", release.urgency.as_str(), "]"] {
                    into.push_str(part);
                }
            }
        }
        Body::Withdraw(withdraw) => write(into, format_args!("withdraws {}", withdraw.withdraws)),
        Body::Trust(_) => write(into, format_args!("{}", statement.serial())),
        Body::Beat(beat) => write(into, format_args!("until {}", beat.expires)),
    }
}

fn write(into: &mut String, text: core::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = into.write_fmt(text);
}

/// A `Date` as RFC 5536 section 3.1.1 has it.
pub fn date(time: Timestamp) -> String {
    let mut date = String::new();
    write_date(time, &mut date);
    date
}

fn write_date(time: Timestamp, into: &mut String) {
    const DAYS: [&str; 7] = [
        "Sun, ", "Mon, ", "Tue, ", "Wed, ", "Thu, ", "Fri, ", "Sat, ",
    ];
    const MONTHS: [&str; 12] = [
        " Jan ", " Feb ", " Mar ", " Apr ", " May ", " Jun ", " Jul ", " Aug ", " Sep ", " Oct ",
        " Nov ", " Dec ",
    ];
    let c = time.civil();
    into.push_str(DAYS[c.weekday as usize % 7]);
    two_digits(c.day, into);
    into.push_str(MONTHS[c.month as usize % 13 - 1]);
    two_digits(c.year / 100, into);
    two_digits(c.year % 100, into);
    for (before, number) in [(' ', c.hour), (':', c.minute), (':', c.second)] {
        into.push(before);
        two_digits(number, into);
    }
    into.push_str(" +0000");
}

fn two_digits(number: u32, into: &mut String) {
    let digit = |number: u32| char::from_digit(number % 10, 10).unwrap_or('0');
    into.push(digit(number / 10));
    into.push(digit(number));
}

/// The `Path` with one hop more in front.
pub fn prepend_hop(host: &str, path: Option<&str>) -> String {
    let mut path = alloc::format!("{host}!{}", path.unwrap_or("not-for-mail"));
    if path.len() > PATH_OCTETS {
        path.truncate(
            (0..=PATH_OCTETS)
                .rev()
                .find(|&end| path.is_char_boundary(end))
                .unwrap_or(0),
        );
        path.truncate(path.rfind('!').unwrap_or(path.len()));
    }
    path
}

/// One header of [`HEADERS`], by its name.
fn write_header(statement: &Statement, path: &str, name: &str, into: &mut String) {
    into.push_str(name);
    into.push_str(": ");
    match name {
        "Path" => into.push_str(path),
        // Nobody's mailbox, made of the channel.
        "From" => {
            for part in ["tidings@", statement.channel().as_str(), ".invalid"] {
                into.push_str(part);
            }
        }
        "Newsgroups" => into.push_str(statement.channel().as_str()),
        "Subject" => write_subject(statement, into),
        "Date" => write_date(statement.time(), into),
        "Message-ID" => write(into, format_args!("{}", statement.message_id())),
        "MIME-Version" => into.push_str("1.0"),
        "Content-Type" => into.push_str("text/plain; charset=utf-8"),
        _ => into.push_str("8bit"),
    }
    into.push_str("\r\n");
}

/// The lines of the article that carries a statement.
pub fn lines(statement: &Statement) -> usize {
    HEADERS.len() + 1 + memchr::memchr_iter(b'\n', statement.octets()).count()
}

/// [4-1]: the article that carries a statement.
pub fn render(statement: &Statement, path: &str) -> Rendered {
    render_after(String::new(), statement, path)
}

/// The same behind what is written already, in octets that have no room for more.
pub fn render_after(before: String, statement: &Statement, path: &str) -> Rendered {
    let mut headers = before;
    headers.reserve(ENVELOPE_OCTETS);
    for name in HEADERS {
        write_header(statement, path, name, &mut headers);
    }
    headers.push_str("\r\n");
    let (body, mut begin, lines) = (statement.octets(), 0, lines(statement));
    let line_feeds = lines - HEADERS.len() - 1;
    let mut octets = Vec::with_capacity(headers.len() + body.len() + line_feeds);
    octets.extend_from_slice(headers.as_bytes());
    let headers = octets.len() - 2;
    for end in memchr::memchr_iter(b'\n', body) {
        octets.extend_from_slice(&body[begin..end]);
        octets.extend_from_slice(b"\r\n");
        begin = end + 1;
    }
    Rendered {
        octets,
        headers,
        lines,
    }
}

/// [4-2]: reads an article whose lines end with LF. Headers are not believed: those that name the
/// statement must agree with it, `Path` is taken as a hint, all others are ignored (attacks 1, 34,
/// 38).
///
/// # Errors
/// Names the header or the line of the statement that does not fit.
pub fn parse(octets: &[u8]) -> Result<Incoming, ArticleError> {
    let end = match octets.first() {
        Some(b'\n') => 0,
        _ => {
            memchr::memchr_iter(b'\n', octets)
                .find(|end| octets.get(end + 1) == Some(&b'\n'))
                .ok_or(ArticleError::NoBody)?
                + 1
        }
    };
    let (headers, body) = (&octets[..end], &octets[end + 1..]);
    if headers.len() > HEADER_OCTETS {
        return Err(ArticleError::Header {
            line: 1,
            reason: alloc::format!("expected at most {HEADER_OCTETS} octets of headers"),
        });
    }
    let named = read_headers(headers)?;
    let statement = Statement::parse(body)?;
    let channel = statement.channel().as_str();
    let is_it = |text: &str| MessageId::parts(text) == Some((statement.head(), channel));
    let other = |name: &str, (line, found): (usize, &str), expected: &str| ArticleError::Header {
        line,
        reason: alloc::format!("{name}: expected {expected} as in the statement, found {found:?}"),
    };
    if let Some(found) = named.message_id.filter(|(_, text)| !is_it(text)) {
        let expected = statement.message_id().to_string();
        return Err(other("Message-ID", found, &expected));
    }
    if let Some(found) = named.newsgroups.filter(|(_, text)| *text != channel) {
        return Err(other("Newsgroups", found, channel));
    }
    Ok(Incoming {
        statement,
        path: named.path.map(|(_, value)| value.into()),
    })
}

/// A header's line and value.
type Named<'a> = Option<(usize, &'a str)>;

#[derive(Default)]
struct NamedHeaders<'a> {
    path: Named<'a>,
    message_id: Named<'a>,
    newsgroups: Named<'a>,
}

fn read_headers(octets: &[u8]) -> Result<NamedHeaders<'_>, ArticleError> {
    let mut found = NamedHeaders::default();
    let mut read_before = false;
    for (index, line) in octets
        .split(|&b| b == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
    {
        let wrong = |reason: &str| ArticleError::Header {
            line: index + 1,
            reason: reason.into(),
        };
        if matches!(line[0], b' ' | b'\t') {
            // A folded header is read by nobody here, unless it continues one that is.
            if read_before || index == 0 {
                return Err(wrong("expected this header on one line"));
            }
            continue;
        }
        let colon = memchr::memchr(b':', line)
            .filter(|&c| c > 0)
            .ok_or_else(|| wrong("expected `Name: value`"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let slot = match () {
            () if name.eq_ignore_ascii_case(b"Path") => &mut found.path,
            () if name.eq_ignore_ascii_case(b"Message-ID") => &mut found.message_id,
            () if name.eq_ignore_ascii_case(b"Newsgroups") => &mut found.newsgroups,
            () => {
                read_before = false;
                continue;
            }
        };
        if slot.is_some() {
            return Err(wrong("expected this header once"));
        }
        let value = core::str::from_utf8(value)
            .ok()
            .filter(|v| is_printable(v.as_bytes()));
        *slot = Some((
            index + 1,
            value.ok_or_else(|| wrong("expected printable ASCII"))?,
        ));
        read_before = true;
    }
    Ok(found)
}
