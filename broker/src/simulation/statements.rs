//! What the players of simulations sign.

use tidings_protocol::{
    Channel, Head, PublicKey, Serial, SigningKey, Statement, StatementId, Timestamp,
    statement::{Body, Checkpoint, Draft, Kind, NamedKey, Role, TrustRules},
};

/// Who may sign releases, in turn; none of them comes back soon.
const KEYS: [&str; 8] = ["ann", "dora", "c", "d", "e", "f", "g", "h"];

pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(StatementId::of(name.as_bytes()).octets())
}

/// Who may sign releases under the trust with this serial.
pub(crate) fn signer(trust: Serial) -> &'static str {
    KEYS[(trust.number() as usize - 1) % KEYS.len()]
}

/// The trust statement that follows, in force until a time.
pub(crate) fn trust(
    after: Option<Head>,
    time: Timestamp,
    expires: u64,
    checkpoints: Vec<Checkpoint>,
) -> Statement {
    let serial = after.map_or(Serial::FIRST, |head| head.serial.next().unwrap());
    let names = ["root", signer(serial), "beat"];
    let role = |kind, name: &str| Role {
        kind,
        pattern: "*".parse().unwrap(),
        threshold: 1,
        names: vec![name.into()],
    };
    let named = |name: &&str| NamedKey {
        key: PublicKey::of(&key(name)),
        name: (*name).into(),
    };
    let rules = TrustRules {
        expires: Timestamp::from_seconds(expires),
        keys: names.iter().map(named).collect(),
        roles: vec![
            role(Kind::Trust, names[0]),
            role(Kind::Release, names[1]),
            role(Kind::Withdraw, names[1]),
            role(Kind::Beat, names[2]),
        ],
        checkpoints,
        closed: Vec::new(),
    };
    let channel = "acme.trust".parse().unwrap();
    sign(channel, after, None, time, Body::Trust(rules), "root")
}

pub(crate) fn sign(
    channel: Channel,
    after: Option<Head>,
    trust: Option<Serial>,
    time: Timestamp,
    body: Body,
    by: &str,
) -> Statement {
    let draft = Draft {
        channel,
        after,
        time,
        trust,
        body,
    };
    draft.write().unwrap().sign(&key(by)).unwrap()
}
