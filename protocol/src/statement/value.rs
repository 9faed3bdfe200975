//! The grammars of field values, with nom (spec part 1 and appendix A), and how each is written.
//!
//! Each parser takes a whole value; [`super::grammar::Field::value`] refuses what is left over.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::{tag, take_while1},
    character::complete::char,
    combinator::{
        all_consuming, map, map_opt, map_res, opt, recognize, rest, success, value, verify,
    },
    multi::{many0, separated_list1},
    sequence::{preceded, separated_pair, terminated},
};

use super::kinds::{
    Apply, Checkpoint, Closed, Kind, NamedKey, Payload, Role, Rollout, Target, Urgency,
};
use crate::{Channel, Digest, Head, Serial, StatementId, Timestamp, limits::TOKEN_OCTETS};

pub(super) type Parsed<'a, T> = IResult<&'a str, T>;

/// Any text: people read it.
pub(super) fn text(input: &str) -> Parsed<'_, String> {
    map(rest, String::from).parse(input)
}

/// Graphic ASCII up to the next space.
fn graphic(input: &str) -> Parsed<'_, &str> {
    take_while1(|c: char| c.is_ascii_graphic()).parse(input)
}

/// What can be parsed from the graphic ASCII up to the next space.
fn from_graphic<T: FromStr>(input: &str) -> Parsed<'_, T> {
    map_res(graphic, str::parse).parse(input)
}

pub(super) fn token(input: &str) -> Parsed<'_, String> {
    map(
        verify(graphic, |t: &str| t.len() <= TOKEN_OCTETS),
        String::from,
    )
    .parse(input)
}

/// A name for keys, groups, formats and properties.
pub(super) fn word(input: &str) -> Parsed<'_, String> {
    let word = take_while1(|c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '+' | '-')
    });
    let good =
        |w: &str| w.len() <= TOKEN_OCTETS && w.starts_with(|c: char| c.is_ascii_alphanumeric());
    map(verify(word, good), String::from).parse(input)
}

/// Decimal without leading zeros, below 2^64.
pub(super) fn number(input: &str) -> Parsed<'_, u64> {
    let digits = take_while1(|c: char| c.is_ascii_digit());
    map_res(
        verify(digits, |d: &str| d == "0" || !d.starts_with('0')),
        str::parse,
    )
    .parse(input)
}

pub(super) fn serial(input: &str) -> Parsed<'_, Serial> {
    from_graphic(input)
}

pub(super) fn time(input: &str) -> Parsed<'_, Timestamp> {
    from_graphic(input)
}

pub(super) fn channel(input: &str) -> Parsed<'_, Channel> {
    from_graphic(input)
}

pub(super) fn previous(input: &str) -> Parsed<'_, Option<StatementId>> {
    alt((value(None, char('-')), map(from_graphic, Some))).parse(input)
}

/// A scheme, a colon, and no character that RFC 3986 leaves out.
pub(super) fn url(input: &str) -> Parsed<'_, String> {
    let scheme = verify(
        take_while1(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')),
        |s: &str| s.starts_with(|c: char| c.is_ascii_alphabetic()),
    );
    let allowed = |c: char| {
        c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '{' | '}' | '|' | '\\' | '^' | '`')
    };
    map(
        recognize((scheme, char(':'), take_while1(allowed))),
        String::from,
    )
    .parse(input)
}

pub(super) fn urgency(input: &str) -> Parsed<'_, Urgency> {
    let all = [Urgency::Routine, Urgency::Security, Urgency::Critical];
    map_opt(graphic, |w| all.into_iter().find(|u| u.as_str() == w)).parse(input)
}

pub(super) fn kind(input: &str) -> Parsed<'_, Kind> {
    map_opt(graphic, |w| Kind::ALL.into_iter().find(|k| k.as_str() == w)).parse(input)
}

pub(super) fn names(input: &str) -> Parsed<'_, Vec<String>> {
    separated_list1(char(' '), word).parse(input)
}

fn property(input: &str) -> Parsed<'_, (String, String)> {
    separated_pair(word, char('='), map(graphic, String::from)).parse(input)
}

pub(super) fn target(input: &str) -> Parsed<'_, Target> {
    separated_list1(char(' '), property).parse(input)
}

pub(super) fn rollout(input: &str) -> Parsed<'_, Rollout> {
    let spread = opt(preceded(tag(" spread="), number));
    let cohort = opt(preceded(tag(" cohort="), word));
    map(
        (terminated(time, char(' ')), number, spread, cohort),
        |(start, seconds, spread, cohort)| Rollout {
            start,
            seconds,
            spread,
            cohort,
        },
    )
    .parse(input)
}

fn unit(input: &str) -> Parsed<'_, String> {
    let unit = take_while1(|c: char| {
        c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@')
    });
    map(
        verify(unit, |u: &str| {
            u.len() <= TOKEN_OCTETS && !u.starts_with('-')
        }),
        String::from,
    )
    .parse(input)
}

pub(super) fn apply(input: &str) -> Parsed<'_, Apply> {
    alt((
        value(Apply::Reboot, tag("reboot")),
        value(Apply::Kexec, tag("kexec")),
        map(
            preceded(tag("restart "), separated_list1(char(' '), unit)),
            Apply::Restart,
        ),
        value(Apply::Live, tag("live")),
        value(Apply::None, tag("none")),
    ))
    .parse(input)
}

fn digest(input: &str) -> Parsed<'_, Digest> {
    from_graphic(input)
}

pub(super) fn payload(input: &str) -> Parsed<'_, Payload> {
    let mut what = (
        terminated(word, char(' ')),
        terminated(number, char(' ')),
        terminated(digest, char(' ')),
        url,
    );
    let (input, (format, size, digest, url)) = what.parse(input)?;
    let (input, properties) = many0(preceded(char(' '), property)).parse(input)?;
    let bare = Payload {
        format,
        size,
        digest,
        url,
        from: None,
        base: None,
        result: None,
        mem: None,
        more: Vec::new(),
    };
    map_opt(success(()), |()| {
        let mut made = bare.clone();
        properties
            .iter()
            .all(|(key, value)| set(&mut made, key, value))
            .then_some(made)
    })
    .parse(input)
}

/// Sets a property once; a known one must parse.
fn set(payload: &mut Payload, key: &str, value: &str) -> bool {
    fn once<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
        let good = slot.is_none() && value.is_some();
        *slot = value;
        good
    }
    match key {
        "from" => once(
            &mut payload.from,
            (value.len() <= TOKEN_OCTETS).then(|| value.to_string()),
        ),
        "base" => once(&mut payload.base, value.parse().ok()),
        "result" => once(&mut payload.result, value.parse().ok()),
        "mem" => once(
            &mut payload.mem,
            number(value)
                .ok()
                .filter(|(left, _)| left.is_empty())
                .map(|(_, n)| n),
        ),
        _ if payload.more.iter().any(|(known, _)| known == key) => false,
        _ => {
            payload.more.push((key.into(), value.into()));
            true
        }
    }
}

pub(super) fn named_key(input: &str) -> Parsed<'_, NamedKey> {
    map(
        separated_pair(from_graphic, char(' '), word),
        |(key, name)| NamedKey { key, name },
    )
    .parse(input)
}

pub(super) fn role(input: &str) -> Parsed<'_, Role> {
    let threshold = map_res(number, usize::try_from);
    let fields = (
        terminated(kind, char(' ')),
        terminated(from_graphic, char(' ')),
        terminated(threshold, char(' ')),
        names,
    );
    map(fields, |(kind, pattern, threshold, names)| Role {
        kind,
        pattern,
        threshold,
        names,
    })
    .parse(input)
}

pub(super) fn head(input: &str) -> Parsed<'_, Head> {
    map(
        separated_pair(serial, char(' '), from_graphic),
        |(serial, id)| Head { serial, id },
    )
    .parse(input)
}

pub(super) fn closed(input: &str) -> Parsed<'_, Closed> {
    map(
        (from_graphic, many0(preceded(char(' '), channel))),
        |(pattern, except)| Closed { pattern, except },
    )
    .parse(input)
}

pub(super) fn checkpoint(input: &str) -> Parsed<'_, Checkpoint> {
    map(place, |(channel, head)| Checkpoint { channel, head }).parse(input)
}

pub(super) fn place(input: &str) -> Parsed<'_, (Channel, Head)> {
    separated_pair(channel, char(' '), head).parse(input)
}

/// A text that is no value of this sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueError(&'static str);

impl Display for ValueError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl core::error::Error for ValueError {}

macro_rules! read_by {
    ($($type:ty: $grammar:path, $expected:literal;)*) => {$(
        impl FromStr for $type {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                let parsed = all_consuming($grammar).parse(text);
                parsed.map(|(_, value)| value).map_err(|_| ValueError($expected))
            }
        }
    )*};
}

read_by! {
    Kind: kind, "release, withdraw, trust or beat";
    Urgency: urgency, "routine, security or critical";
    Rollout: rollout, "START SECONDS [spread=SECONDS] [cohort=KEY]";
    Apply: apply, "reboot, kexec, restart UNIT…, live or none";
    Payload: payload, "FORMAT SIZE sha256:HEX URL [KEY=VALUE…]";
    NamedKey: named_key, "ed25519:KEY NAME";
    Role: role, "KIND PATTERN THRESHOLD NAME…";
    Checkpoint: checkpoint, "CHANNEL SERIAL ID";
    Closed: closed, "PATTERN [CHANNEL…]";
    Head: head, "SERIAL ID";
}

/// How a value stands in its line.
pub(super) trait Written {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result;
}

/// A value as it stands in its line.
pub(super) struct Line<'a, T>(pub(super) &'a T);

impl<T: Written> Display for Line<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

macro_rules! written_as_shown {
    ($($type:ty),*) => {$(
        impl Written for $type {
            fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
                self.fmt(f)
            }
        }
    )*};
}

written_as_shown!(
    String, Serial, Timestamp, Head, Urgency, Rollout, Apply, Payload, NamedKey, Role, Checkpoint,
    Closed
);

impl Written for (Channel, Head) {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

impl Written for Target {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (key, value) in self {
            write!(f, "{space}{key}={value}")?;
            space = " ";
        }
        Ok(())
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for Urgency {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What may be left out.
fn optional<T: Display>(f: &mut Formatter<'_>, key: &str, value: &Option<T>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {key}={value}"),
        None => Ok(()),
    }
}

impl Display for Rollout {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.start, self.seconds)?;
        optional(f, "spread", &self.spread)?;
        optional(f, "cohort", &self.cohort)
    }
}

impl Display for Apply {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Apply::Reboot => f.write_str("reboot"),
            Apply::Kexec => f.write_str("kexec"),
            Apply::Restart(units) => write!(f, "restart {}", units.join(" ")),
            Apply::Live => f.write_str("live"),
            Apply::None => f.write_str("none"),
        }
    }
}

impl Display for Payload {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (format, size, digest, url) = (&self.format, self.size, self.digest, &self.url);
        write!(f, "{format} {size} {digest} {url}")?;
        optional(f, "from", &self.from)?;
        optional(f, "base", &self.base)?;
        optional(f, "result", &self.result)?;
        optional(f, "mem", &self.mem)?;
        let mut more = self.more.iter();
        more.try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

impl Display for NamedKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.name)
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (kind, pattern, threshold) = (self.kind, &self.pattern, self.threshold);
        write!(f, "{kind} {pattern} {threshold} {}", self.names.join(" "))
    }
}

impl Display for Checkpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.channel, self.head)
    }
}

impl Display for Closed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pattern)?;
        let mut except = self.except.iter();
        except.try_for_each(|channel| write!(f, " {channel}"))
    }
}
