//! From octets to a statement: lines, the fixed first lines, the fields of each kind, the
//! signatures (spec part 1).

use alloc::{format, string::String, vec::Vec};

use nom::{
    IResult, Parser,
    bytes::complete::{tag, take_while, take_while1},
    combinator::all_consuming,
    sequence::separated_pair,
};

use super::{
    Statement, StatementError,
    fields::{Beat, COMMON, Release, TrustRules, Withdraw, rows},
    kinds::{Body, Kind},
    value::{self, Parsed},
};
use crate::{
    Channel, Serial, Signature, StatementId, Timestamp, is_printable,
    limits::{FIELD_NAME_OCTETS, LINE_OCTETS, SIGNATURES, STATEMENT_OCTETS},
};

// Requirements [1-2] to [1-12] are kept here and in `rules.rs`, and nowhere else.

/// Whether this version gives a field a meaning.
pub(super) fn is_known(name: &str) -> bool {
    rows().any(|row| row.name == name)
}

/// What most statements have room in.
const FIELDS: usize = 16;

/// One line of a statement.
pub(super) struct Field<'a> {
    pub(super) line: usize,
    pub(super) name: &'a str,
    value: &'a str,
}

impl Field<'_> {
    pub(super) fn error(&self, reason: impl Into<String>) -> StatementError {
        StatementError::new(self.line, self.name, reason)
    }
    /// The whole value by a grammar, or what was expected.
    pub(super) fn value<'a, T>(
        &'a self,
        grammar: fn(&'a str) -> Parsed<'a, T>,
        expected: &str,
    ) -> Result<T, StatementError> {
        let parsed = all_consuming(grammar).parse(self.value);
        parsed
            .map(|(_, value)| value)
            .map_err(|_| self.error(format!("expected {expected}, found {:?}", self.value)))
    }
    /// The value of a field that may stand only once.
    pub(super) fn once<'a, T>(
        &'a self,
        slot: &mut Option<T>,
        grammar: fn(&'a str) -> Parsed<'a, T>,
        expected: &str,
    ) -> Result<(), StatementError> {
        if slot.is_some() {
            return Err(self.error("expected once, found again"));
        }
        *slot = Some(self.value(grammar, expected)?);
        Ok(())
    }
}

/// Name and value of a line; none if it is no `Name: value`.
fn line(text: &str) -> Option<(&str, &str)> {
    let colon = memchr::memchr(b':', text.as_bytes())?;
    let (name, value) = (&text[..colon], text[colon..].strip_prefix(": ")?);
    let of_a_name = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
    let octets = name.as_bytes();
    let good = octets.first().is_some_and(u8::is_ascii_alphabetic)
        && octets.len() <= FIELD_NAME_OCTETS
        && octets.iter().all(of_a_name)
        && !value.is_empty()
        && !value.starts_with(' ')
        && !value.ends_with(' ');
    good.then_some((name, value))
}

fn fields(octets: &[u8]) -> Result<Vec<Field<'_>>, StatementError> {
    let mut found = Vec::with_capacity(FIELDS);
    let mut left = octets;
    while !left.is_empty() {
        let number = found.len() + 1;
        let wrong = |reason: &str| StatementError::new(number, "", reason);
        let end = memchr::memchr(b'\n', left)
            .ok_or_else(|| wrong("expected a line feed at the end of the line"))?;
        if end > LINE_OCTETS {
            return Err(wrong(&format!(
                "expected at most {LINE_OCTETS} octets, found {end}"
            )));
        }
        let text = core::str::from_utf8(&left[..end]).map_err(|_| wrong("expected UTF-8"))?;
        let control = match is_printable(text.as_bytes()) {
            true => None,
            false => text.chars().find(|c| c.is_control()),
        };
        if let Some(control) = control {
            return Err(wrong(&format!(
                "expected no control character, found U+{:04X}",
                u32::from(control)
            )));
        }
        let expected = "expected `Name: value` with one space and none at the ends";
        let (name, value) =
            line(text).ok_or_else(|| wrong(&format!("{expected}, found {text:?}")))?;
        found.push(Field {
            line: number,
            name,
            value,
        });
        left = &left[end + 1..];
        if octets.len() - left.len() > STATEMENT_OCTETS {
            return Err(wrong(&format!(
                "expected at most {STATEMENT_OCTETS} octets in all"
            )));
        }
    }
    Ok(found)
}

/// The fixed first lines, taken one by one.
struct First<'a>(core::slice::Iter<'a, Field<'a>>);

impl<'a> First<'a> {
    fn take(&mut self, name: &str) -> Result<&'a Field<'a>, StatementError> {
        let field = self.0.next().ok_or_else(|| {
            let place = COMMON.iter().position(|row| row.name == name);
            let line = place.map_or(1, |place| place + 1);
            StatementError::new(line, name, "expected this field here, found the end")
        })?;
        if field.name == name {
            Ok(field)
        } else {
            Err(StatementError::new(
                field.line,
                name,
                format!("expected this field here, found {:?}", field.name),
            ))
        }
    }
}

fn version_and_kind(input: &str) -> IResult<&str, (&str, &str)> {
    let digits = take_while1(|c: char| c.is_ascii_digit());
    separated_pair(
        digits,
        tag(" "),
        take_while(|c: char| c.is_ascii_lowercase()),
    )
    .parse(input)
}

/// What the fixed first lines say.
struct Opening {
    kind: Kind,
    channel: Channel,
    serial: Serial,
    previous: Option<StatementId>,
    time: Timestamp,
    trust: Option<Serial>,
}

impl Opening {
    fn read(first: &mut First<'_>) -> Result<Self, StatementError> {
        let kind = kind(first.take("Tidings")?)?;
        let channel = channel(first.take("Channel")?, kind)?;
        let serial = first.take("Serial")?.value(
            value::serial,
            "a number from 1 to 2147483647 without leading zeros",
        )?;
        let previous_field = first.take("Previous")?;
        let previous = previous_field.value(
            value::previous,
            "`-` or `sha256:` and 64 lower-case hex digits",
        )?;
        if previous.is_none() != (serial == Serial::FIRST) {
            return Err(
                previous_field.error("expected `-` for serial 1, and an id for every other")
            );
        }
        let time = first
            .take("Time")?
            .value(value::time, "YYYY-MM-DDTHH:MM:SSZ")?;
        let trust = match kind {
            Kind::Trust => None,
            _ => Some(
                first
                    .take("Trust")?
                    .value(value::serial, "the serial of a trust statement")?,
            ),
        };
        Ok(Self {
            kind,
            channel,
            serial,
            previous,
            time,
            trust,
        })
    }
}

fn kind(field: &Field<'_>) -> Result<Kind, StatementError> {
    let (_, (version, word)) = all_consuming(version_and_kind)
        .parse(field.value)
        .map_err(|_| field.error(format!("expected `1 KIND`, found {:?}", field.value)))?;
    if version != "1" {
        return Err(field.error(format!(
            "expected version 1, found {version:?}; a newer Tidings is needed to read this"
        )));
    }
    word.parse()
        .map_err(|expected| field.error(format!("{expected}, found {word:?}")))
}

fn channel(field: &Field<'_>, kind: Kind) -> Result<Channel, StatementError> {
    let channel: Channel = field
        .value
        .parse()
        .map_err(|e: crate::NameError| field.error(format!("expected a channel: {e}")))?;
    if !kind.fits(&channel) {
        let reason = format!(
            "expected {}, found {channel}",
            match kind {
                Kind::Trust => "a trust log, NAMESPACE.trust, for a trust statement",
                Kind::Beat => "a beat channel, NAMESPACE…beat, for a beat",
                _ => "a channel that does not end in .trust or .beat",
            }
        );
        return Err(field.error(reason));
    }
    Ok(channel)
}

/// The names of the fields that a reader has to understand, which are all there.
fn critical(said: &[Field<'_>]) -> Result<Vec<String>, StatementError> {
    let mut critical = None;
    let mut lines = said.iter().filter(|field| field.name == "Critical");
    let first = lines.clone().next();
    lines.try_for_each(|field| {
        field.once(
            &mut critical,
            value::names,
            "names of fields of this statement",
        )
    })?;
    let critical = critical.unwrap_or_default();
    let is_there = |name: &str| name != "Critical" && said.iter().any(|field| field.name == name);
    match first.zip(critical.iter().find(|name| !is_there(name))) {
        Some((field, wrong)) => Err(field.error(format!(
            "expected names of other fields of this statement, found {wrong:?}"
        ))),
        None => Ok(critical),
    }
}

pub(super) fn statement(octets: &[u8]) -> Result<Statement, StatementError> {
    let fields = fields(octets)?;
    let mut first = First(fields.iter());
    let opening = Opening::read(&mut first)?;
    let left = first.0.as_slice();
    let said = left
        .iter()
        .position(|f| f.name == "Signature")
        .unwrap_or(left.len());
    let (said, signed_by) = left.split_at(said);
    said.iter()
        .try_for_each(|field| check_name(field, opening.kind))?;
    let critical = critical(said)?;
    let frame = Frame {
        end: fields.len() + 1 - signed_by.len(),
        channel: &opening.channel,
        serial: opening.serial,
        time: opening.time,
    };
    let body = frame.body(opening.kind, said)?;
    let signatures = signatures(signed_by)?;

    let signed: usize = octets.len()
        - signed_by
            .iter()
            .map(|f| f.name.len() + 2 + f.value.len() + 1)
            .sum::<usize>();
    let id = StatementId::of(&octets[..signed]);
    Ok(Statement {
        octets: octets.into(),
        signed,
        id,
        channel: opening.channel,
        serial: opening.serial,
        previous: opening.previous,
        time: opening.time,
        trust: opening.trust,
        critical,
        body,
        signatures,
    })
}

/// [1-11]: refuses fields of other kinds, repeated first lines, and names that only look like known
/// ones (attack 41).
fn check_name(field: &Field<'_>, kind: Kind) -> Result<(), StatementError> {
    if rows().any(|row| row.kind == Some(kind) && row.name == field.name)
        || field.name == "Critical"
    {
        return Ok(());
    }
    if is_known(field.name) {
        return Err(field.error(format!("expected no such field here in a {kind} statement")));
    }
    match rows().find(|row| row.name.eq_ignore_ascii_case(field.name)) {
        Some(row) => Err(field.error(format!("expected the name to be written {:?}", row.name))),
        None => Ok(()),
    }
}

fn signatures(fields: &[Field<'_>]) -> Result<Vec<Signature>, StatementError> {
    let mut signatures: Vec<Signature> = Vec::new();
    for field in fields {
        if field.name != "Signature" {
            return Err(field.error("expected nothing but signatures after the first signature"));
        }
        let signature: Signature = field
            .value
            .parse()
            .map_err(|e| field.error(format!("expected `ed25519:KEY SIGNATURE`: {e}")))?;
        if signatures.iter().any(|s| s.key == signature.key) {
            return Err(field.error("expected one signature of each key, found a second"));
        }
        if signatures.len() == SIGNATURES {
            return Err(field.error(format!("expected at most {SIGNATURES} signatures")));
        }
        signatures.push(signature);
    }
    Ok(signatures)
}

/// What the fields of a kind are checked against.
pub(super) struct Frame<'a> {
    /// The line after the last field, where a missing one would stand.
    pub(super) end: usize,
    pub(super) channel: &'a Channel,
    pub(super) serial: Serial,
    pub(super) time: Timestamp,
}

impl Frame<'_> {
    pub(super) fn required<T>(&self, slot: Option<T>, name: &str) -> Result<T, StatementError> {
        slot.ok_or_else(|| StatementError::new(self.end, name, "expected this field, found none"))
    }

    /// First each field by its grammar, then what they have to do with each other.
    fn body(&self, kind: Kind, fields: &[Field<'_>]) -> Result<Body, StatementError> {
        Ok(match kind {
            Kind::Release => {
                let release = Release::read(fields, self)?;
                self.release(fields, &release)?;
                Body::Release(release)
            }
            Kind::Withdraw => {
                let withdraw = Withdraw::read(fields, self)?;
                self.withdraw(fields, &withdraw)?;
                Body::Withdraw(withdraw)
            }
            Kind::Trust => {
                let rules = TrustRules::read(fields, self)?;
                self.trust(fields, &rules)?;
                Body::Trust(rules)
            }
            Kind::Beat => {
                let beat = Beat::read(fields, self)?;
                self.beat(fields, &beat)?;
                Body::Beat(beat)
            }
        })
    }
}
