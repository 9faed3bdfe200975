//! The table of commands. It drives parsing, arity errors, `HELP`, `CAPABILITIES` and the tests.

mod arguments;

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use arguments::{article, date_time, hdr, list, list_group, selector, xwatch};

use crate::{
    Channel, Serial, Timestamp, Wildmat, is_printable,
    limits::{COMMAND_OCTETS, XWATCH_OCTETS},
};

/// One row of the table.
pub struct Entry {
    /// The keyword, in capitals; perhaps two words.
    pub keyword: &'static str,
    /// Its arguments, as RFC 3977 writes them.
    pub syntax: &'static str,
    /// The capability that announces it; empty for those that every server has.
    pub capability: &'static str,
    /// Where it is specified.
    pub source: &'static str,
    /// What it does, for `HELP`.
    pub help: &'static str,
    arguments: (usize, usize),
    parse: fn(&[&str]) -> Option<Command>,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// ARTICLE, HEAD, BODY or STAT.
    Article(Part, Selector),
    /// AUTHINFO USER
    AuthinfoUser(String),
    /// AUTHINFO PASS
    AuthinfoPass(String),
    /// CAPABILITIES
    Capabilities,
    /// CHECK; the message-id may be none that could exist.
    Check(String),
    /// DATE
    Date,
    /// GROUP; the name may be none that could exist.
    Group(String),
    /// HDR, or XHDR, whose answer has another code.
    Hdr {
        /// The header or the item of the overview.
        field: Field,
        /// Of which articles.
        selector: Selector,
        /// Whether it came as XHDR.
        legacy: bool,
    },
    /// HELP
    Help,
    /// IHAVE; the message-id may be none that could exist.
    Ihave(String),
    /// LAST
    Last,
    /// LIST
    List(ListItem),
    /// LISTGROUP
    ListGroup {
        /// The group, or the current one.
        group: Option<String>,
        /// Its serials in this range only.
        range: Range,
    },
    /// MODE READER
    ModeReader,
    /// MODE STREAM
    ModeStream,
    /// NEWGROUPS
    NewGroups(DateTime),
    /// NEWNEWS
    NewNews(Wildmat, DateTime),
    /// NEXT
    Next,
    /// OVER or XOVER
    Over(Selector),
    /// POST
    Post,
    /// QUIT
    Quit,
    /// TAKETHIS; the article follows at once.
    TakeThis(String),
    /// XWATCH
    Xwatch(Vec<WatchTarget>),
}

/// Which part of an article.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Headers and body.
    Article,
    /// The headers.
    Head,
    /// The body: the statement.
    Body,
    /// Neither: only whether it is there.
    Stat,
}

/// Which articles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The current one.
    Current,
    /// Those with these numbers.
    Range(Range),
    /// The one with this message-id, in angle brackets; perhaps none that could exist.
    MessageId(String),
}

/// Article numbers, both ends included; `high` below `low` is an empty range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The lowest.
    pub low: u64,
    /// The highest.
    pub high: u64,
}

impl Range {
    /// All numbers.
    pub const ALL: Self = Self {
        low: 0,
        high: u64::MAX,
    };
}

/// What HDR is asked for: a header, or `:bytes` or `:lines`.
pub type Field = String;

/// What LIST is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListItem {
    /// ACTIVE: marks of the channels.
    Active(Option<Wildmat>),
    /// COUNTS: marks and numbers of articles (RFC 6048).
    Counts(Option<Wildmat>),
    /// SUBSCRIPTIONS: what a new reader may want (RFC 6048).
    Subscriptions(Option<Wildmat>),
    /// ACTIVE.TIMES: when the channels began.
    ActiveTimes(Option<Wildmat>),
    /// HEADERS: what HDR can be asked for.
    Headers,
    /// NEWSGROUPS: descriptions.
    Newsgroups(Option<Wildmat>),
    /// OVERVIEW.FMT: the fields of OVER.
    OverviewFmt,
    /// A keyword that RFC 3977 or 6048 knows and this broker has no data for.
    NotStored,
}

/// One argument of XWATCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchTarget {
    /// Everything after this serial, then live; `None` for `:0`, everything.
    After(Channel, Option<Serial>),
    /// Live only, channels of the future included.
    Live(Wildmat),
}

/// A date and time as NEWNEWS and NEWGROUPS have it; the century may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    year: u32,
    short_year: bool,
    rest: [u32; 5],
}

impl DateTime {
    /// The time meant; two-digit years lie in the hundred years up to now (RFC 3977 section 7.3.2).
    /// Earlier than 1970 is 1970.
    pub fn resolve(&self, now: Timestamp) -> Option<Timestamp> {
        let this = now.civil().year;
        let year = match self.short_year {
            false => self.year,
            true if this / 100 * 100 + self.year > this => this / 100 * 100 + self.year - 100,
            true => this / 100 * 100 + self.year,
        };
        let [month, day, hour, minute, second] = self.rest;
        // A leap second is the second before.
        Timestamp::from_civil(year.max(1970), month, day, hour, minute, second.min(59)).map(
            |time| {
                if year < 1970 {
                    Timestamp::from_seconds(0)
                } else {
                    time
                }
            },
        )
    }
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// No such keyword (code 500).
    #[error("unknown command {0:?}; HELP lists them")]
    Unknown(String),
    /// The arguments do not fit (code 501).
    #[error("usage: {0}")]
    Usage(String),
    /// The line is too long for its keyword (code 501).
    #[error("a command line has at most {0} octets")]
    TooLong(usize),
    /// Characters that no command has (code 501).
    #[error("a command line has printable UTF-8 only and ends with CR LF")]
    Characters,
}

macro_rules! table {
    ($($keyword:literal $syntax:literal, $capability:literal, $source:literal, $min:literal..=$max:literal, $help:literal, $parse:expr;)+) => {
        /// Every command of the profile, in the order of the alphabet.
        pub const COMMANDS: &[Entry] = &[$(Entry {
            keyword: $keyword, syntax: $syntax, capability: $capability, source: $source, help: $help,
            arguments: ($min, $max), parse: $parse,
        }),+];
    };
}

table! {
    "ARTICLE" "[MESSAGE-ID|NUMBER]", "READER", "RFC 3977 6.2.1", 0..=1, "headers and statement", |a| article(Part::Article, a);
    "AUTHINFO PASS" "PASSWORD", "AUTHINFO", "RFC 4643 2.3", 1..=1, "who you are, the second half", |a| Some(Command::AuthinfoPass(a[0].into()));
    "AUTHINFO USER" "NAME", "AUTHINFO", "RFC 4643 2.3", 1..=1, "who you are, over TLS only", |a| Some(Command::AuthinfoUser(a[0].into()));
    "BODY" "[MESSAGE-ID|NUMBER]", "READER", "RFC 3977 6.2.3", 0..=1, "the statement", |a| article(Part::Body, a);
    "CAPABILITIES" "[KEYWORD]", "", "RFC 3977 5.2", 0..=1, "what this broker can do", |_| Some(Command::Capabilities);
    "CHECK" "MESSAGE-ID", "STREAMING", "RFC 4644 2.4", 1..=1, "whether TAKETHIS would be of use", |a| Some(Command::Check(a[0].into()));
    "DATE" "", "READER", "RFC 3977 7.1", 0..=0, "the broker's time in UTC", |_| Some(Command::Date);
    "GROUP" "CHANNEL", "READER", "RFC 3977 6.1.1", 1..=1, "select a channel: count, low-water mark, head", |a| Some(Command::Group(a[0].into()));
    "HDR" "FIELD [RANGE|MESSAGE-ID]", "HDR", "RFC 3977 8.5", 1..=2, "one header of several articles", |a| hdr(false, a);
    "HEAD" "[MESSAGE-ID|NUMBER]", "READER", "RFC 3977 6.2.2", 0..=1, "the headers", |a| article(Part::Head, a);
    "HELP" "", "", "RFC 3977 7.2", 0..=0, "this text", |_| Some(Command::Help);
    "IHAVE" "MESSAGE-ID", "IHAVE", "RFC 3977 6.3.2", 1..=1, "offer a statement that another broker has", |a| Some(Command::Ihave(a[0].into()));
    "LAST" "", "READER", "RFC 3977 6.1.3", 0..=0, "step to the statement before", |_| Some(Command::Last);
    "LIST" "[ACTIVE|ACTIVE.TIMES|COUNTS|HEADERS|NEWSGROUPS|OVERVIEW.FMT|SUBSCRIPTIONS] [WILDMAT]", "LIST", "RFC 3977 7.6", 0..=2, "channels and what is known of them", list;
    "LISTGROUP" "[CHANNEL [RANGE]]", "READER", "RFC 3977 6.1.2", 0..=2, "select a channel and list its serials", list_group;
    "MODE READER" "", "MODE-READER", "RFC 3977 5.3", 0..=0, "nothing changes: this is a reader's broker", |_| Some(Command::ModeReader);
    "MODE STREAM" "", "STREAMING", "RFC 4644 2.3", 0..=0, "nothing changes: CHECK and TAKETHIS are always understood", |_| Some(Command::ModeStream);
    "NEWGROUPS" "[YY]YYMMDD HHMMSS [GMT]", "READER", "RFC 3977 7.3", 2..=3, "channels that began since", |a| Some(Command::NewGroups(date_time(a)?));
    "NEWNEWS" "WILDMAT [YY]YYMMDD HHMMSS [GMT]", "NEWNEWS", "RFC 3977 7.4", 3..=4, "message-ids of what arrived since", |a| Some(Command::NewNews(a[0].parse().ok()?, date_time(&a[1..])?));
    "NEXT" "", "READER", "RFC 3977 6.1.4", 0..=0, "step to the statement after", |_| Some(Command::Next);
    "OVER" "[RANGE|MESSAGE-ID]", "OVER", "RFC 3977 8.3", 0..=1, "the overview of several articles", |a| Some(Command::Over(selector(a)?));
    "POST" "", "POST", "RFC 3977 6.3.1", 0..=0, "publish a signed statement", |_| Some(Command::Post);
    "QUIT" "", "", "RFC 3977 5.4", 0..=0, "good-bye", |_| Some(Command::Quit);
    "STAT" "[MESSAGE-ID|NUMBER]", "READER", "RFC 3977 6.2.4", 0..=1, "whether a statement is here", |a| article(Part::Stat, a);
    "TAKETHIS" "MESSAGE-ID", "STREAMING", "RFC 4644 2.5", 1..=1, "a statement that another broker has, sent at once", |a| Some(Command::TakeThis(a[0].into()));
    "XHDR" "FIELD [RANGE|MESSAGE-ID]", "READER", "RFC 2980 2.6", 1..=2, "HDR under its older name", |a| hdr(true, a);
    "XOVER" "[RANGE]", "READER", "RFC 2980 2.8", 0..=1, "OVER under its older name", |a| Some(Command::Over(selector(a)?));
    "XWATCH" "CHANNEL:SERIAL|WILDMAT…", "XWATCH", "Tidings 8.5", 1..=256, "be told of statements as they come; any line ends it", xwatch;
}

/// Whether a text has characters that no command has.
fn has_controls(text: &str) -> bool {
    !is_printable(text.as_bytes()) && text.contains(|c: char| c.is_control() && c != '\t')
}

/// What stands between blanks.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut begin) = (Vec::with_capacity(4), 0);
    let blanks = memchr::memchr2_iter(b' ', b'\t', text.as_bytes());
    for end in blanks.chain([text.len()]) {
        if begin < end {
            words.push(&text[begin..end]);
        }
        begin = end + 1;
    }
    words
}

impl Entry {
    /// Whether these are the words of a line with this command.
    fn is_named_by(&self, words: &[&str]) -> bool {
        let Some(first) = words.first() else {
            return false;
        };
        match self.keyword.as_bytes().get(first.len()) {
            None => self.keyword.eq_ignore_ascii_case(first),
            Some(b' ') => {
                let (keyword, second) = self.keyword.split_at(first.len());
                keyword.eq_ignore_ascii_case(first)
                    && words
                        .get(1)
                        .is_some_and(|word| word.eq_ignore_ascii_case(&second[1..]))
            }
            Some(_) => false,
        }
    }
    /// The words of the keyword.
    fn words(&self) -> usize {
        1 + usize::from(self.keyword.contains(' '))
    }
    /// The most octets that a line with this command may have, its end included.
    pub fn max_octets(&self) -> usize {
        if self.keyword == "XWATCH" {
            XWATCH_OCTETS
        } else {
            COMMAND_OCTETS
        }
    }
    /// Keyword and arguments.
    pub fn usage(&self) -> String {
        if self.syntax.is_empty() {
            self.keyword.to_string()
        } else {
            alloc::format!("{} {}", self.keyword, self.syntax)
        }
    }
}

/// Reads a command line, without its line end.
///
/// # Errors
/// What the broker answers with 500 or 501.
pub fn parse_command(line: &[u8]) -> Result<Command, SyntaxError> {
    let text = core::str::from_utf8(line)
        .ok()
        .filter(|text| !has_controls(text));
    let text = text.ok_or(SyntaxError::Characters)?;
    let words = words(text);
    let first = words.first().copied().unwrap_or_default();
    let Some(entry) = COMMANDS.iter().find(|entry| entry.is_named_by(&words)) else {
        // `MODE` alone or with another word is known, only not in this form.
        let half = COMMANDS.iter().find(|e| {
            e.keyword
                .split(' ')
                .next()
                .is_some_and(|k| k.eq_ignore_ascii_case(first))
        });
        return Err(match half {
            Some(entry) => SyntaxError::Usage(entry.usage()),
            None => SyntaxError::Unknown(first.chars().take(32).collect()),
        });
    };
    if line.len() + 2 > entry.max_octets() {
        return Err(SyntaxError::TooLong(entry.max_octets()));
    }
    let arguments = &words[entry.words()..];
    let (min, max) = entry.arguments;
    let fits = (min..=max).contains(&arguments.len());
    let command = if fits { (entry.parse)(arguments) } else { None };
    command.ok_or_else(|| SyntaxError::Usage(entry.usage()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Command, SyntaxError>) {
        assert_eq!(parse_command(line.as_bytes()), expected, "{line}");
    }

    #[test]
    fn keywords_are_case_insensitive_and_blanks_separate() {
        check("group  a.b", Ok(Command::Group("a.b".into())));
        check("mode\treader", Ok(Command::ModeReader));
        check(
            "Article 07",
            Ok(Command::Article(
                Part::Article,
                Selector::Range(Range { low: 7, high: 7 }),
            )),
        );
        check(
            "xover 3-",
            Ok(Command::Over(Selector::Range(Range {
                low: 3,
                high: u64::MAX,
            }))),
        );
        check(
            "list active a.*",
            Ok(Command::List(ListItem::Active(Some(
                "a.*".parse().unwrap(),
            )))),
        );
        check(
            "XWATCH a.b:0 a.c:7 c.*",
            Ok(Command::Xwatch(alloc::vec![
                WatchTarget::After("a.b".parse().unwrap(), None),
                WatchTarget::After("a.c".parse().unwrap(), Serial::new(7)),
                WatchTarget::Live("c.*".parse().unwrap()),
            ])),
        );
    }

    #[test]
    fn what_is_no_command_gets_500_or_501() {
        check("", Err(SyntaxError::Unknown("".into())));
        check("FOO bar", Err(SyntaxError::Unknown("FOO".into())));
        check("GROUP", Err(SyntaxError::Usage("GROUP CHANNEL".into())));
        check("MODE X", Err(SyntaxError::Usage("MODE READER".into())));
        check(
            "ARTICLE 1-2",
            Err(SyntaxError::Usage("ARTICLE [MESSAGE-ID|NUMBER]".into())),
        );
        check(
            "ARTICLE 99999999999999999",
            Err(SyntaxError::Usage("ARTICLE [MESSAGE-ID|NUMBER]".into())),
        );
        check("GROUP a\u{7}", Err(SyntaxError::Characters));
        check(
            &alloc::format!("GROUP {}", "a".repeat(COMMAND_OCTETS)),
            Err(SyntaxError::TooLong(COMMAND_OCTETS)),
        );
        check(
            "XWATCH a.b:01",
            Err(SyntaxError::Usage("XWATCH CHANNEL:SERIAL|WILDMAT…".into())),
        );
    }

    #[test]
    fn short_years_are_of_the_last_hundred() {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let at = |date| {
            date_time(&[date, "000000"])
                .unwrap()
                .resolve(now)
                .map(|t| t.to_string())
        };
        assert_eq!(at("261121").as_deref(), Some("2026-11-21T00:00:00Z"));
        assert_eq!(at("990101").as_deref(), Some("1999-01-01T00:00:00Z"));
        assert_eq!(at("19510101").as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(at("20261301"), None);
    }

    #[test]
    fn the_table_is_sorted_and_every_usage_fits_a_response() {
        assert!(COMMANDS.is_sorted_by_key(|entry| entry.keyword));
        assert!(COMMANDS.iter().all(|entry| entry.usage().len() < 200));
    }
}
