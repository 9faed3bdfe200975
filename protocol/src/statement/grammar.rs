//! From octets to a statement: lines, the fixed first lines, the fields of each kind, the
//! signatures (spec part 1).

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use nom::{
    IResult, Parser,
    bytes::complete::{tag, take_while, take_while1},
    combinator::{all_consuming, rest, verify},
    sequence::separated_pair,
};

use super::{
    Statement, StatementError,
    kinds::{Beat, Body, Kind, Release, Role, TrustRules, Withdraw},
    value::{self, Parsed},
};
use crate::{
    Channel, Head, Serial, Signature, StatementId, Timestamp,
    limits::{FIELD_NAME_OCTETS, LINE_OCTETS, SIGNATURES, STATEMENT_OCTETS},
};

// Requirements [1-2] to [1-12], and the rules of the tables of fields are kept here, and nowhere
// else.

/// The fields of each kind, after the fixed ones; a known field in a statement of another kind is
/// refused.
const FIELDS: &[(Kind, &[&str])] = &[
    (
        Kind::Release,
        &[
            "Version",
            "Summary",
            "Details",
            "Urgency",
            "Target",
            "Barrier",
            "Not-Before",
            "Deadline",
            "Rollout",
            "Slot",
            "Apply",
            "Payload",
        ],
    ),
    (Kind::Withdraw, &["Withdraws", "Reason"]),
    (
        Kind::Trust,
        &["Expires", "Key", "Role", "Checkpoint", "Closed"],
    ),
    (Kind::Beat, &["Expires", "Head"]),
];

/// The fields that every kind has: the first lines in their order, the list of critical fields, the
/// signatures.
const COMMON: &[&str] = &[
    "Tidings",
    "Channel",
    "Serial",
    "Previous",
    "Time",
    "Trust",
    "Critical",
    "Signature",
];

/// Whether this version gives a field a meaning.
pub(super) fn is_known(name: &str) -> bool {
    COMMON.contains(&name) || FIELDS.iter().any(|(_, fields)| fields.contains(&name))
}

/// One line of a statement.
struct Field<'a> {
    line: usize,
    name: &'a str,
    value: &'a str,
}

impl Field<'_> {
    fn error(&self, reason: impl Into<String>) -> StatementError {
        StatementError::new(self.line, self.name, reason)
    }
    /// The whole value by a grammar, or what was expected.
    fn value<'a, T>(
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
    fn once<'a, T>(
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

fn line(input: &str) -> IResult<&str, (&str, &str)> {
    let letter = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.len() <= FIELD_NAME_OCTETS
    };
    let name = verify(
        take_while1(|c: char| c.is_ascii_alphanumeric() || c == '-'),
        letter,
    );
    let value = verify(rest, |v: &str| {
        !v.is_empty() && !v.starts_with(' ') && !v.ends_with(' ')
    });
    separated_pair(name, tag(": "), value).parse(input)
}

fn fields(octets: &[u8]) -> Result<Vec<Field<'_>>, StatementError> {
    let mut found = Vec::new();
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
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(wrong(&format!(
                "expected no control character, found U+{:04X}",
                u32::from(control)
            )));
        }
        let expected = "expected `Name: value` with one space and none at the ends";
        let (_, (name, value)) =
            line(text).map_err(|_| wrong(&format!("{expected}, found {text:?}")))?;
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
        let line = COMMON.iter().position(|n| *n == name).map_or(1, |p| p + 1);
        let field = self.0.next().ok_or_else(|| {
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

pub(super) fn statement(octets: &[u8]) -> Result<Statement, StatementError> {
    let fields = fields(octets)?;
    let mut first = First(fields.iter());

    let kind_field = first.take("Tidings")?;
    let (_, (version, word)) = all_consuming(version_and_kind)
        .parse(kind_field.value)
        .map_err(|_| {
            kind_field.error(format!("expected `1 KIND`, found {:?}", kind_field.value))
        })?;
    if version != "1" {
        return Err(kind_field.error(format!(
            "expected version 1, found {version:?}; a newer Tidings is needed to read this"
        )));
    }
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == word);
    let kind = kind.ok_or_else(|| {
        kind_field.error(format!(
            "expected release, withdraw, trust or beat, found {word:?}"
        ))
    })?;

    let channel_field = first.take("Channel")?;
    let channel: Channel = channel_field
        .value
        .parse()
        .map_err(|e: crate::NameError| channel_field.error(format!("expected a channel: {e}")))?;
    if !kind.fits(&channel) {
        let reason = format!(
            "expected {}, found {channel}",
            match kind {
                Kind::Trust => "a trust log, NAMESPACE.trust, for a trust statement",
                Kind::Beat => "a beat channel, NAMESPACE…beat, for a beat",
                _ => "a channel that does not end in .trust or .beat",
            }
        );
        return Err(channel_field.error(reason));
    }
    let serial_field = first.take("Serial")?;
    let serial = serial_field.value(
        value::serial,
        "a number from 1 to 2147483647 without leading zeros",
    )?;
    let previous_field = first.take("Previous")?;
    let previous = previous_field.value(
        value::previous,
        "`-` or `sha256:` and 64 lower-case hex digits",
    )?;
    if previous.is_none() != (serial == Serial::FIRST) {
        return Err(previous_field.error("expected `-` for serial 1, and an id for every other"));
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

    let left = first.0.as_slice();
    let said = left
        .iter()
        .position(|f| f.name == "Signature")
        .unwrap_or(left.len());
    let (said, signed_by) = left.split_at(said);

    let mut critical = None;
    for field in said {
        check_name(field, kind)?;
        if field.name == "Critical" {
            field.once(
                &mut critical,
                value::names,
                "names of fields of this statement",
            )?;
        }
    }
    let critical = critical.unwrap_or_default();
    if let Some(field) = said.iter().find(|f| f.name == "Critical")
        && let Some(wrong) = critical
            .iter()
            .find(|name| *name == "Critical" || !said.iter().any(|f| f.name == **name))
    {
        return Err(field.error(format!(
            "expected names of other fields of this statement, found {wrong:?}"
        )));
    }
    let frame = Frame {
        end: fields.len() + 1 - signed_by.len(),
        channel: &channel,
        serial,
        time,
    };
    let body = match kind {
        Kind::Release => Body::Release(frame.release(said)?),
        Kind::Withdraw => Body::Withdraw(frame.withdraw(said)?),
        Kind::Trust => Body::Trust(frame.trust(said)?),
        Kind::Beat => Body::Beat(frame.beat(said)?),
    };
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
        channel,
        serial,
        previous,
        time,
        trust,
        critical,
        body,
        signatures,
    })
}

/// [1-11]: refuses fields of other kinds, repeated first lines, and names that only look like known
/// ones (attack 41).
fn check_name(field: &Field<'_>, kind: Kind) -> Result<(), StatementError> {
    let of_this_kind = FIELDS
        .iter()
        .any(|(k, names)| *k == kind && names.contains(&field.name));
    if of_this_kind || field.name == "Critical" {
        return Ok(());
    }
    if is_known(field.name) {
        return Err(field.error(format!("expected no such field here in a {kind} statement")));
    }
    let known = COMMON
        .iter()
        .chain(FIELDS.iter().flat_map(|(_, names)| names.iter()));
    match known
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case(field.name))
    {
        Some(name) => Err(field.error(format!("expected the name to be written {name:?}"))),
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
struct Frame<'a> {
    /// The line after the last field, where a missing one would stand.
    end: usize,
    channel: &'a Channel,
    serial: Serial,
    time: Timestamp,
}

impl Frame<'_> {
    fn required<T>(&self, slot: Option<T>, name: &str) -> Result<T, StatementError> {
        slot.ok_or_else(|| StatementError::new(self.end, name, "expected this field, found none"))
    }
    fn earlier(
        &self,
        fields: &[Field<'_>],
        name: &str,
        serial: Option<Serial>,
    ) -> Result<(), StatementError> {
        match fields.iter().find(|f| f.name == name) {
            Some(field) if serial >= Some(self.serial) => {
                Err(field.error(format!("expected a serial below {}", self.serial)))
            }
            _ => Ok(()),
        }
    }
    fn later(
        &self,
        fields: &[Field<'_>],
        name: &str,
        time: Timestamp,
        than: Timestamp,
    ) -> Result<(), StatementError> {
        match fields.iter().find(|f| f.name == name) {
            Some(field) if time <= than => {
                Err(field.error(format!("expected a time after {than}, found {time}")))
            }
            _ => Ok(()),
        }
    }

    fn release(&self, fields: &[Field<'_>]) -> Result<Release, StatementError> {
        let mut release = Release::default();
        let (mut version, mut urgency) = (None, None);
        for f in fields {
            match f.name {
                "Version" => f.once(
                    &mut version,
                    value::token,
                    "a token of up to 128 graphic ASCII characters",
                )?,
                "Summary" => f.once(&mut release.summary, value::text, "text")?,
                "Details" => f.once(&mut release.details, value::url, "a URL")?,
                "Urgency" => f.once(
                    &mut urgency,
                    value::urgency,
                    "routine, security or critical",
                )?,
                "Target" => release.targets.push(f.value(value::target, "KEY=VALUE…")?),
                "Barrier" => f.once(&mut release.barrier, value::serial, "a serial")?,
                "Not-Before" => {
                    f.once(&mut release.not_before, value::time, "YYYY-MM-DDTHH:MM:SSZ")?
                }
                "Deadline" => f.once(&mut release.deadline, value::time, "YYYY-MM-DDTHH:MM:SSZ")?,
                "Rollout" => f.once(
                    &mut release.rollout,
                    value::rollout,
                    "START SECONDS [spread=SECONDS] [cohort=KEY]",
                )?,
                "Slot" => f.once(&mut release.slot, value::word, "a group's name")?,
                "Apply" => f.once(
                    &mut release.apply,
                    value::apply,
                    "reboot, kexec, restart UNIT…, live or none",
                )?,
                "Payload" => release
                    .payloads
                    .push(f.value(value::payload, "FORMAT SIZE sha256:HEX URL [KEY=VALUE…]")?),
                _ => {}
            }
        }
        release.version = self.required(version, "Version")?;
        release.urgency = urgency.unwrap_or_default();
        self.earlier(fields, "Barrier", release.barrier)?;
        if let (Some(deadline), Some(start)) = (release.deadline, release.not_before) {
            self.later(fields, "Deadline", deadline, start)?;
        }
        Ok(release)
    }

    fn withdraw(&self, fields: &[Field<'_>]) -> Result<Withdraw, StatementError> {
        let (mut withdraws, mut reason) = (None, None);
        for f in fields {
            match f.name {
                "Withdraws" => f.once(&mut withdraws, value::head, "SERIAL ID")?,
                "Reason" => f.once(&mut reason, value::text, "text")?,
                _ => {}
            }
        }
        self.earlier(fields, "Withdraws", withdraws.map(|head: Head| head.serial))?;
        Ok(Withdraw {
            withdraws: self.required(withdraws, "Withdraws")?,
            reason: self.required(reason, "Reason")?,
        })
    }

    fn trust(&self, fields: &[Field<'_>]) -> Result<TrustRules, StatementError> {
        let mut expires = None;
        let mut rules = TrustRules {
            expires: self.time,
            keys: Vec::new(),
            roles: Vec::new(),
            checkpoints: Vec::new(),
            closed: Vec::new(),
        };
        for f in fields {
            match f.name {
                "Expires" => f.once(&mut expires, value::time, "YYYY-MM-DDTHH:MM:SSZ")?,
                "Key" => {
                    let key = f.value(value::named_key, "ed25519:KEY NAME")?;
                    key.key
                        .to_verifying_key()
                        .map_err(|e| f.error(format!("expected a usable key: {e}")))?;
                    if rules
                        .keys
                        .iter()
                        .any(|k| k.key == key.key || k.name == key.name)
                    {
                        return Err(f.error("expected each key and each name once (attack 3)"));
                    }
                    rules.keys.push(key);
                }
                "Role" => rules.roles.push(self.role(f, &rules)?),
                "Checkpoint" => {
                    let checkpoint = f.value(value::checkpoint, "CHANNEL SERIAL ID")?;
                    if checkpoint.channel.is_trust() {
                        return Err(f.error(
                            "expected a channel that is no trust log: there every step is signed",
                        ));
                    }
                    if rules
                        .checkpoints
                        .iter()
                        .any(|c| c.channel == checkpoint.channel)
                    {
                        return Err(f.error("expected one checkpoint for each channel"));
                    }
                    rules.checkpoints.push(checkpoint);
                }
                "Closed" => {
                    let closed = f.value(value::closed, "PATTERN [CHANNEL…]")?;
                    if let Some(channel) = closed
                        .except
                        .iter()
                        .find(|channel| !closed.pattern.matches(channel))
                    {
                        return Err(f.error(format!(
                            "expected channels that {} matches, found {channel}",
                            closed.pattern
                        )));
                    }
                    if rules.closed.contains(&closed) {
                        return Err(f.error("expected each such line once"));
                    }
                    rules.closed.push(closed);
                }
                _ => {}
            }
        }
        rules.expires = self.required(expires, "Expires")?;
        self.later(fields, "Expires", rules.expires, self.time)?;
        if !rules
            .roles
            .iter()
            .any(|r| r.kind == Kind::Trust && r.pattern.matches(self.channel))
        {
            return Err(StatementError::new(
                self.end,
                "Role",
                format!("expected a trust role that covers {}", self.channel),
            ));
        }
        Ok(rules)
    }

    fn role(&self, f: &Field<'_>, rules: &TrustRules) -> Result<Role, StatementError> {
        let role = f.value(value::role, "KIND PATTERN THRESHOLD NAME…")?;
        if let Some(name) = role
            .names
            .iter()
            .find(|name| !rules.keys.iter().any(|k| k.name == **name))
        {
            return Err(f.error(format!(
                "expected names of keys in the lines above, found {name:?}"
            )));
        }
        let repeated = role
            .names
            .iter()
            .enumerate()
            .any(|(i, name)| role.names[..i].contains(name));
        if repeated || !(1..=role.names.len().min(SIGNATURES)).contains(&role.threshold) {
            return Err(f.error("expected distinct names, and a threshold from 1 to their number"));
        }
        if rules
            .roles
            .iter()
            .any(|r| r.kind == role.kind && r.pattern == role.pattern)
        {
            return Err(f.error("expected one role for each kind and pattern"));
        }
        let namespace = self
            .channel
            .as_str()
            .strip_suffix(".trust")
            .and_then(|name| name.parse().ok());
        if role.kind == Kind::Beat
            && namespace.is_none_or(|namespace| role.pattern.beat_channel(&namespace).is_none())
        {
            return Err(f.error(format!(
                "expected `*` or `NAME.*` below the namespace for beats, found {:?}",
                role.pattern.to_string()
            )));
        }
        Ok(role)
    }

    fn beat(&self, fields: &[Field<'_>]) -> Result<Beat, StatementError> {
        let (mut expires, mut heads) = (None, Vec::new());
        for f in fields {
            match f.name {
                "Expires" => f.once(&mut expires, value::time, "YYYY-MM-DDTHH:MM:SSZ")?,
                "Head" => {
                    let head = f.value(value::checkpoint, "CHANNEL SERIAL ID")?;
                    if heads.iter().any(|(channel, _)| *channel == head.channel) {
                        return Err(f.error("expected one head for each channel"));
                    }
                    heads.push((head.channel, head.head));
                }
                _ => {}
            }
        }
        let expires = self.required(expires, "Expires")?;
        self.later(fields, "Expires", expires, self.time)?;
        Ok(Beat { expires, heads })
    }
}
