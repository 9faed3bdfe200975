//! Statements of a small world, and who has truly signed each.

use std::{cell::RefCell, collections::HashMap, fmt::Write, sync::OnceLock};

use tidings_protocol::{
    Head, PublicKey, SigningKey, Statement, StatementId, Timestamp,
    statement::{Body, TrustRules},
};

pub(crate) const CHANNEL: &str = "model.os";
pub(crate) const BEATS: &str = "model.beat";
pub(crate) const LOG: &str = "model.trust";
/// When it begins: 2026-02-01T12:00:00Z.
pub(crate) const START: u64 = 1_769_947_200;

pub(crate) const ROOT: u8 = 1;
pub(crate) const DECOY: u8 = 2;
pub(crate) const MALLORY: u8 = 3;

/// The generations of the keys, and what else a trust statement says.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) release: u8,
    pub(crate) stop: u8,
    pub(crate) beat: Option<u8>,
    pub(crate) threshold: usize,
    pub(crate) checkpoints: Vec<(&'static str, Head)>,
    pub(crate) closed: Vec<&'static str>,
}

impl Rules {
    pub(crate) fn release_keys(&self) -> [u8; 2] {
        [10 + 2 * self.release, 11 + 2 * self.release]
    }
    pub(crate) fn stop_key(&self) -> u8 {
        60 + self.stop
    }
    pub(crate) fn beat_key(&self) -> u8 {
        80 + self.beat.unwrap_or(0)
    }
    fn lines(&self) -> String {
        let ([a, b], stop, beat) = (self.release_keys(), self.stop_key(), self.beat_key());
        let mut text = String::from("Expires: 2036-01-01T00:00:00Z\n");
        for key in [ROOT, DECOY, a, b, stop, beat] {
            writeln!(text, "Key: {} k{key}", public(key)).unwrap();
        }
        // The wide roles are traps: the more specific ones count.
        write!(text, "Role: trust * 1 k{ROOT}\nRole: release * 1 k{DECOY}\nRole: release model.* {} k{a} k{b}\n", self.threshold).unwrap();
        write!(
            text,
            "Role: withdraw model.os 1 k{stop}\nRole: withdraw model.* 1 k{DECOY}\n"
        )
        .unwrap();
        if self.beat.is_some() {
            writeln!(text, "Role: beat * 1 k{beat}").unwrap();
        }
        self.checkpoints
            .iter()
            .for_each(|(channel, head)| writeln!(text, "Checkpoint: {channel} {head}").unwrap());
        self.closed
            .iter()
            .for_each(|pattern| writeln!(text, "Closed: {pattern}").unwrap());
        text
    }
}

fn keys() -> &'static (Vec<SigningKey>, HashMap<PublicKey, u8>) {
    static KEYS: OnceLock<(Vec<SigningKey>, HashMap<PublicKey, u8>)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let keys: Vec<SigningKey> = (0..100).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
        let numbers = keys
            .iter()
            .zip(0..)
            .map(|(key, n)| (PublicKey::of(key), n))
            .collect();
        (keys, numbers)
    })
}

fn public(key: u8) -> PublicKey {
    PublicKey::of(&keys().0[usize::from(key)])
}

/// The number of a key; 255 is nobody's.
pub(crate) fn number_of(key: &PublicKey) -> u8 {
    keys().1.get(key).copied().unwrap_or(255)
}

thread_local! {
    static MADE: RefCell<HashMap<(String, Vec<u8>), Statement>> = RefCell::default();
    static SIGNERS: RefCell<HashMap<Vec<u8>, Vec<u8>>> = RefCell::default();
}

/// Forgets what earlier histories had, when it is much.
pub(crate) fn begin() {
    if MADE.with_borrow(HashMap::len) > 20_000 {
        MADE.take();
        SIGNERS.take();
    }
}

/// Who has truly signed it.
pub(crate) fn signers(statement: &Statement) -> Vec<u8> {
    SIGNERS
        .with_borrow(|all| all.get(statement.octets()).cloned())
        .expect("a statement of this world")
}

fn sign(text: String, signers: &[u8]) -> Statement {
    if let Some(made) = MADE.with_borrow(|all| all.get(&(text.clone(), signers.to_vec())).cloned())
    {
        return made;
    }
    let draft =
        Statement::parse_draft(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let made = signers.iter().fold(draft, |draft, key| {
        draft.sign(&keys().0[usize::from(*key)]).unwrap()
    });
    SIGNERS.with_borrow_mut(|all| all.insert(made.octets().to_vec(), signers.to_vec()));
    MADE.with_borrow_mut(|all| all.insert((text, signers.to_vec()), made.clone()));
    made
}

/// The same with a signature more, by a key that did not make it.
pub(crate) fn spoil(statement: &Statement, key: u8) -> Statement {
    let line = statement.octets()[statement.signed_part().len()..]
        .split(|&octet| octet == b'\n')
        .next()
        .unwrap();
    let signature = line.rsplit(|&octet| octet == b' ').next().unwrap();
    let mut octets = statement.octets().to_vec();
    octets.extend_from_slice(format!("Signature: {} ", public(key)).as_bytes());
    octets.extend_from_slice(signature);
    octets.push(b'\n');
    let Ok(spoilt) = Statement::parse(&octets) else {
        return statement.clone();
    };
    let signers = signers(statement);
    SIGNERS.with_borrow_mut(|all| all.insert(octets, signers));
    spoilt
}

fn first_lines(kind: &str, channel: &str, after: Option<Head>, time: u64) -> String {
    let (serial, previous) = after.map_or((1, "-".into()), |head| {
        (head.serial.number() + 1, head.id.to_string())
    });
    let time = Timestamp::from_seconds(time);
    format!(
        "Tidings: 1 {kind}\nChannel: {channel}\nSerial: {serial}\nPrevious: {previous}\nTime: {time}\n"
    )
}

pub(crate) fn trust(after: Option<Head>, time: u64, rules: &Rules, signers: &[u8]) -> Statement {
    sign(
        first_lines("trust", LOG, after, time) + &rules.lines(),
        signers,
    )
}

pub(crate) fn release(after: Option<Head>, under: u32, fields: &str, signers: &[u8]) -> Statement {
    sign(
        first_lines("release", CHANNEL, after, START)
            + &format!("Trust: {under}\nVersion: 1\n{fields}"),
        signers,
    )
}

pub(crate) fn withdraw(
    after: Option<Head>,
    under: u32,
    release: Head,
    signers: &[u8],
) -> Statement {
    sign(
        first_lines("withdraw", CHANNEL, after, START)
            + &format!("Trust: {under}\nWithdraws: {release}\nReason: bad\n"),
        signers,
    )
}

pub(crate) fn beat(
    serial: u32,
    time: u64,
    life: u64,
    under: u32,
    heads: &[(&str, Head)],
    signers: &[u8],
) -> Statement {
    let before = serial
        .checked_sub(1)
        .and_then(|n| n.to_string().parse().ok());
    let before = before.map(|serial| Head {
        serial,
        id: StatementId::of(b"whatever"),
    });
    let expires = Timestamp::from_seconds(time + life);
    let mut text =
        first_lines("beat", BEATS, before, time) + &format!("Trust: {under}\nExpires: {expires}\n");
    heads
        .iter()
        .for_each(|(channel, head)| writeln!(text, "Head: {channel} {head}").unwrap());
    sign(text, signers)
}

pub(crate) fn rules(trust: &Statement) -> &TrustRules {
    match trust.body() {
        Body::Trust(rules) => rules,
        _ => panic!("no trust"),
    }
}

pub(crate) fn checkpoint(trust: &Statement, channel: &str) -> Option<(u32, StatementId)> {
    let line = rules(trust)
        .checkpoints
        .iter()
        .find(|line| line.channel.as_str() == channel)?;
    Some((line.head.serial.number(), line.head.id))
}

/// Whether it closes the channel.
pub(crate) fn is_closed(trust: &Statement) -> bool {
    let hits = |pattern: &str| matches!(pattern, "*" | "model.*" | "model.os");
    rules(trust).closed.iter().any(|line| {
        hits(&line.pattern.to_string()) && !line.except.iter().any(|c| c.as_str() == CHANNEL)
    })
}
