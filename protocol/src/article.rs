//! The envelope: an article whose body is a statement and whose headers follow from it (spec part
//! 4).

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::Write;

use crate::{
    Statement, StatementError, Timestamp,
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
    /// Headers, an empty line, the statement.
    pub octets: Vec<u8>,
    /// Where the empty line begins.
    pub headers: usize,
    /// The lines of the whole article.
    pub lines: usize,
}

/// The `Subject` of a statement: channel, and what it says in a few words.
pub fn subject(statement: &Statement) -> String {
    let mut subject = statement.channel().to_string();
    // Writing to a string cannot fail.
    let _ = match statement.body() {
        Body::Release(r) if r.urgency == Urgency::Routine => write!(subject, " {}", r.version),
        Body::Release(r) => write!(subject, " {} [{}]", r.version, r.urgency.as_str()),
        Body::Withdraw(w) => write!(subject, " withdraws {}", w.withdraws),
        Body::Trust(_) => write!(subject, " {}", statement.serial()),
        Body::Beat(beat) => write!(subject, " until {}", beat.expires),
    };
    subject
}

/// The `From` of a statement: nobody's mailbox, made of the channel.
pub fn from(statement: &Statement) -> String {
    alloc::format!("tidings@{}.invalid", statement.channel())
}

/// A `Date` as RFC 5536 section 3.1.1 has it.
pub fn date(time: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let c = time.civil();
    let (day, month) = (
        DAYS[c.weekday as usize % 7],
        MONTHS[c.month as usize % 13 - 1],
    );
    alloc::format!(
        "{day}, {:02} {month} {:04} {:02}:{:02}:{:02} +0000",
        c.day,
        c.year,
        c.hour,
        c.minute,
        c.second
    )
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

/// The value of one header; `None` for a header that these articles do not have.
pub fn header(statement: &Statement, path: &str, name: &str) -> Option<String> {
    let known = HEADERS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name))?;
    Some(match *known {
        "Path" => path.to_string(),
        "From" => from(statement),
        "Newsgroups" => statement.channel().to_string(),
        "Subject" => subject(statement),
        "Date" => date(statement.time()),
        "Message-ID" => statement.message_id().to_string(),
        "MIME-Version" => "1.0".to_string(),
        "Content-Type" => "text/plain; charset=utf-8".to_string(),
        _ => "8bit".to_string(),
    })
}

/// [4-1]: the article that carries a statement.
pub fn render(statement: &Statement, path: &str) -> Rendered {
    let mut octets = Vec::with_capacity(statement.octets().len() + 1024);
    for name in HEADERS {
        let value = header(statement, path, name).unwrap_or_default();
        octets.extend_from_slice(alloc::format!("{name}: {value}\r\n").as_bytes());
    }
    let headers = octets.len();
    octets.extend_from_slice(b"\r\n");
    let mut lines = HEADERS.len() + 1;
    for line in statement.octets().split_inclusive(|&b| b == b'\n') {
        octets.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        octets.extend_from_slice(b"\r\n");
        lines += 1;
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
        _ => memchr::memmem::find(octets, b"\n\n").ok_or(ArticleError::NoBody)? + 1,
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
    let check = |name: &str, found: &Named, expected: &str| match found {
        Some((line, value)) if value != expected => Err(ArticleError::Header {
            line: *line,
            reason: alloc::format!(
                "{name}: expected {expected} as in the statement, found {value:?}"
            ),
        }),
        _ => Ok(()),
    };
    check(
        "Message-ID",
        &named.message_id,
        &statement.message_id().to_string(),
    )?;
    check(
        "Newsgroups",
        &named.newsgroups,
        statement.channel().as_str(),
    )?;
    Ok(Incoming {
        statement,
        path: named.path.map(|(_, value)| value),
    })
}

type Named = Option<(usize, String)>;

#[derive(Default)]
struct NamedHeaders {
    path: Named,
    message_id: Named,
    newsgroups: Named,
}

fn read_headers(octets: &[u8]) -> Result<NamedHeaders, ArticleError> {
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
            .filter(|v| v.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
        *slot = Some((
            index + 1,
            value
                .ok_or_else(|| wrong("expected printable ASCII"))?
                .into(),
        ));
        read_before = true;
    }
    Ok(found)
}
