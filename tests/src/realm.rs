//! A namespace with as many keys and roles as a test wants, its trust log, and what they sign.

use tidings_client::{Channel, Head, Serial, Statement, Timestamp, now};
use tidings_protocol::{
    Anchor, PublicKey, SigningKey,
    statement::{Beat, Body, Checkpoint, Draft, NamedKey, Release, Role, TrustRules, Withdraw},
};

use crate::NAMESPACE;

/// The key of somebody, always the same.
pub fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(tidings_protocol::StatementId::of(name.as_bytes()).octets())
}

/// The trust log of the test namespace, and those who sign.
pub struct Realm {
    /// All trust statements, oldest first.
    pub log: Vec<Statement>,
    /// The anchor.
    pub anchor: Anchor,
    /// When its statements are made; the real time unless a test has its own.
    pub time: Timestamp,
    /// For how many seconds each trust statement holds.
    pub expires: u64,
}

/// The rules of a trust statement from lines like `release * 2 ann bob`; every name has its
/// [`key`].
///
/// # Panics
/// If a line is no role.
pub fn rules(roles: &[&str], expires: Timestamp, checkpoints: &[(&Channel, Head)]) -> TrustRules {
    let mut names: Vec<String> = Vec::new();
    let read = |line: &&str| {
        let role: Role = line
            .parse()
            .unwrap_or_else(|_| panic!("{line:?} is no role"));
        let new = role.names.iter().filter(|name| !names.contains(name));
        let new: Vec<String> = new.cloned().collect();
        names.extend(new);
        role
    };
    let roles = roles.iter().map(read).collect();
    let keys = names
        .iter()
        .map(|name| NamedKey {
            key: PublicKey::of(&key(name)),
            name: name.clone(),
        })
        .collect();
    let checkpoints = checkpoints
        .iter()
        .map(|(channel, head)| Checkpoint {
            channel: (*channel).clone(),
            head: *head,
        })
        .collect();
    TrustRules {
        expires,
        keys,
        roles,
        checkpoints,
        closed: vec![],
    }
}

/// A statement, signed by some.
///
/// # Panics
/// If it is none.
pub fn sign(draft: &Draft, signers: &[&str]) -> Statement {
    let statement = draft.write().unwrap_or_else(|error| panic!("{error}"));
    signers.iter().fold(statement, |statement, name| {
        statement
            .sign(&key(name))
            .unwrap_or_else(|error| panic!("{error}"))
    })
}

/// What most tests want: two keys for each thing that matters, one for each that does not.
pub const ROLES: &[&str] = &[
    "trust * 2 root1 root2 root3",
    "release * 2 ann bob",
    "withdraw * 1 stop",
    "beat * 1 beat",
];

impl Realm {
    /// A namespace whose first trust statement has these roles and is signed by these.
    ///
    /// # Panics
    /// If there is something wrong with them.
    pub fn new(roles: &[&str], signers: &[&str]) -> Self {
        Self::at(now(), roles, signers)
    }

    /// The same, made at another time.
    ///
    /// # Panics
    /// As [`Realm::new`].
    pub fn at(time: Timestamp, roles: &[&str], signers: &[&str]) -> Self {
        Self::expiring(time, 365 * 86_400, roles, signers)
    }

    /// The same, with trust statements that hold for so many seconds.
    ///
    /// # Panics
    /// As [`Realm::new`].
    pub fn expiring(time: Timestamp, expires: u64, roles: &[&str], signers: &[&str]) -> Self {
        let namespace: tidings_protocol::Namespace =
            NAMESPACE.parse().unwrap_or_else(|_| panic!("no namespace"));
        let head = Head {
            serial: Serial::FIRST,
            id: tidings_protocol::StatementId::of(b""),
        };
        let mut realm = Self {
            log: vec![],
            anchor: Anchor { namespace, head },
            time,
            expires,
        };
        let first = realm.trust(roles, &[], signers);
        realm.anchor.head = first.head();
        realm.log.push(first);
        realm
    }

    /// The same at another time.
    #[must_use]
    pub fn later(&self, time: Timestamp) -> Self {
        Self {
            time,
            ..Self::clone_of(self)
        }
    }

    /// The same, to go another way from here.
    pub fn clone_of(other: &Self) -> Self {
        Self {
            log: other.log.clone(),
            anchor: other.anchor.clone(),
            time: other.time,
            expires: other.expires,
        }
    }

    /// A trust statement that would follow the newest, without taking it up.
    pub fn trust(
        &self,
        roles: &[&str],
        checkpoints: &[(&Channel, Head)],
        signers: &[&str],
    ) -> Statement {
        self.trust_of(
            rules(roles, self.time.plus(self.expires), checkpoints),
            signers,
        )
    }

    /// The same with rules of a test's own.
    pub fn trust_of(&self, rules: TrustRules, signers: &[&str]) -> Statement {
        let (after, body) = (self.log.last().map(Statement::head), Body::Trust(rules));
        sign(
            &Draft {
                channel: self.anchor.namespace.trust_log(),
                after,
                time: self.time,
                trust: None,
                body,
            },
            signers,
        )
    }

    /// The same, taken up.
    pub fn rotate(
        &mut self,
        roles: &[&str],
        checkpoints: &[(&Channel, Head)],
        signers: &[&str],
    ) -> Statement {
        let next = self.trust(roles, checkpoints, signers);
        self.log.push(next.clone());
        next
    }

    fn draft(&self, channel: &Channel, after: Option<Head>, body: Body) -> Draft {
        Draft {
            channel: channel.clone(),
            after,
            time: self.time,
            trust: self.log.last().map(Statement::serial),
            body,
        }
    }

    /// A release.
    pub fn release(
        &self,
        channel: &Channel,
        after: Option<Head>,
        version: &str,
        signers: &[&str],
    ) -> Statement {
        let release = Release {
            version: version.into(),
            ..Release::default()
        };
        sign(&self.draft(channel, after, Body::Release(release)), signers)
    }

    /// A release with more to say.
    pub fn release_with(
        &self,
        channel: &Channel,
        after: Option<Head>,
        release: Release,
        signers: &[&str],
    ) -> Statement {
        sign(&self.draft(channel, after, Body::Release(release)), signers)
    }

    /// A withdrawal of a release, which follows a head.
    pub fn withdraw(
        &self,
        channel: &Channel,
        after: Head,
        release: Head,
        signers: &[&str],
    ) -> Statement {
        let body = Body::Withdraw(Withdraw {
            withdraws: release,
            reason: "it does not boot".into(),
        });
        sign(&self.draft(channel, Some(after), body), signers)
    }

    /// A beat of the role `*` that names the trust log's head, and some others.
    pub fn beat(
        &self,
        after: Option<Head>,
        heads: &[(&Channel, Head)],
        life: u64,
        signers: &[&str],
    ) -> Statement {
        self.beat_in(&self.anchor.namespace.beat(), after, heads, life, signers)
    }

    /// The same in the beat channel of another role.
    pub fn beat_in(
        &self,
        beats: &Channel,
        after: Option<Head>,
        heads: &[(&Channel, Head)],
        life: u64,
        signers: &[&str],
    ) -> Statement {
        let trust = self
            .log
            .last()
            .map(|trust| (trust.channel().clone(), trust.head()));
        let heads = trust.into_iter().chain(
            heads
                .iter()
                .map(|(channel, head)| ((*channel).clone(), *head)),
        );
        let body = Body::Beat(Beat {
            expires: self.time.plus(life),
            heads: heads.collect(),
        });
        sign(&self.draft(beats, after, body), signers)
    }
}
