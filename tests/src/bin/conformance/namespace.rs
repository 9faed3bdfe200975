//! A namespace whose keys everybody has, and its statements.

use std::{
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use tidings_protocol::{Anchor, Head, PublicKey, SigningKey, Statement, Timestamp, article};

pub(crate) const ROOT: u8 = 101;
pub(crate) const RELEASE: u8 = 102;
pub(crate) const STOP: u8 = 103;
pub(crate) const BEAT: u8 = 104;
pub(crate) const LATER: u8 = 105;
pub(crate) const STRANGER: u8 = 106;
pub(crate) const LOG: &str = "conformance.trust";
pub(crate) const BEATS: &str = "conformance.beat";
const NAMES: [&str; 6] = ["root", "release", "stop", "beat", "later", "stranger"];

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn public(number: u8) -> PublicKey {
    PublicKey::of(&key(number))
}

/// Signs a text; it has to be a statement.
pub(crate) fn sign(text: &str, signers: &[u8]) -> anyhow::Result<Statement> {
    let mut statement = Statement::parse_draft(text.as_bytes())?;
    for signer in signers {
        statement = statement.sign(&key(*signer))?;
    }
    Ok(statement)
}

/// The date, a moment ago: it is what the broker's clock is compared with.
pub(crate) fn now() -> Timestamp {
    #[allow(clippy::disallowed_methods)] // the one place of this program
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Timestamp::from_seconds(seconds.saturating_sub(5))
}

pub(crate) fn first_lines(
    kind: &str,
    channel: &str,
    after: Option<Head>,
    time: Timestamp,
) -> String {
    let (serial, previous) = after.map_or((1, "-".into()), |head| {
        (head.serial.number() + 1, head.id.to_string())
    });
    format!(
        "Tidings: 1 {kind}\nChannel: {channel}\nSerial: {serial}\nPrevious: {previous}\nTime: {time}\n"
    )
}

/// A trust statement in which some keys may release, and with further lines.
pub(crate) fn trust(
    after: Option<Head>,
    time: Timestamp,
    release: &[u8],
    more: &str,
    signers: &[u8],
) -> anyhow::Result<Statement> {
    let mut text = first_lines("trust", LOG, after, time) + "Expires: 9000-01-01T00:00:00Z\n";
    let name = |key: u8| NAMES[usize::from(key - ROOT)];
    let mut keys = vec![ROOT, STOP, BEAT];
    keys.extend(release);
    for key in keys {
        writeln!(text, "Key: {} {}", public(key), name(key))?;
    }
    let release: Vec<&str> = release.iter().map(|key| name(*key)).collect();
    write!(
        text,
        "Role: trust * 1 root\nRole: release * 1 {}\n",
        release.join(" ")
    )?;
    write!(text, "Role: withdraw * 1 stop\nRole: beat * 1 beat\n{more}")?;
    sign(&text, signers)
}

/// The first trust statement; it is the same each time.
pub(crate) fn first() -> anyhow::Result<Statement> {
    trust(
        None,
        "2026-01-01T00:00:00Z".parse()?,
        &[RELEASE],
        "",
        &[ROOT],
    )
}

pub(crate) fn anchor() -> anyhow::Result<Anchor> {
    Ok(Anchor {
        namespace: "conformance".parse()?,
        head: first()?.head(),
    })
}

pub(crate) fn release(
    channel: &str,
    after: Option<Head>,
    under: u32,
    fields: &str,
    signers: &[u8],
) -> anyhow::Result<Statement> {
    release_at(channel, after, now(), under, fields, signers)
}

pub(crate) fn release_at(
    channel: &str,
    after: Option<Head>,
    time: Timestamp,
    under: u32,
    fields: &str,
    signers: &[u8],
) -> anyhow::Result<Statement> {
    sign(
        &(first_lines("release", channel, after, time)
            + &format!("Trust: {under}\nVersion: 1\n{fields}")),
        signers,
    )
}

pub(crate) fn beat(
    serial: u32,
    under: u32,
    heads: &[(&str, Head)],
    signers: &[u8],
) -> anyhow::Result<Statement> {
    let before = serial
        .checked_sub(1)
        .filter(|serial| *serial > 0)
        .map(|serial| serial.to_string().parse())
        .transpose()?;
    let before = before.map(|serial| Head {
        serial,
        id: tidings_protocol::StatementId::of(b"nobody has this"),
    });
    let mut text = first_lines("beat", BEATS, before, now())
        + &format!("Trust: {under}\nExpires: {}\n", now().plus(600));
    heads
        .iter()
        .try_for_each(|(channel, head)| writeln!(text, "Head: {channel} {head}"))?;
    sign(&text, signers)
}

/// The same statement with a line that somebody has appended.
pub(crate) fn appended(statement: &Statement, by: u8) -> anyhow::Result<Statement> {
    let other = sign(
        "Tidings: 1 release\nChannel: conformance.x\nSerial: 1\nPrevious: -\nTime: 2026-01-01T00:00:00Z\nTrust: 1\nVersion: 1\n",
        &[by],
    )?;
    let line = std::str::from_utf8(&other.octets()[other.signed_part().len()..])?;
    Ok(Statement::parse(
        &[statement.octets(), line.as_bytes()].concat(),
    )?)
}

/// The article of a statement, its lines ended by LF, as a publisher sends it.
pub(crate) fn article(statement: &Statement) -> anyhow::Result<String> {
    let rendered = article::render(statement, "not-for-mail");
    Ok(String::from_utf8(rendered.octets)
        .context("an article is UTF-8")?
        .replace("\r\n", "\n"))
}
