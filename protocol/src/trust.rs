//! Who may say what: one trust statement in force, its successor, and what it proves.
//!
//! *Authenticated = signed by those who may say such a thing now, or hash-linked below what is
//! authenticated that way.* [`Trust::verify`] is the first half for one statement,
//! [`Trust::verify_run`] both for a run of them.

use alloc::{boxed::Box, collections::BTreeMap, string::String, string::ToString, vec::Vec};

use ed25519_dalek::VerifyingKey;

use crate::{
    Anchor, Channel, Head, Namespace, PublicKey, Serial, Statement, Timestamp, Verified,
    statement::{Beat, Body, Kind, Role, TrustRules},
    verify::VerifyError,
};

/// A verified trust statement, ready to judge others.
#[derive(Clone, Debug)]
pub struct Trust {
    namespace: Namespace,
    statement: Verified<Statement>,
    keys: Vec<Key>,
    /// The beats that its checkpoints name, as far as they are at hand.
    beats: BTreeMap<Channel, Statement>,
}

#[derive(Clone, Debug)]
struct Key {
    public: PublicKey,
    verifying: VerifyingKey,
    name: String,
}

/// What a trust statement has settled about a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing.
    Nothing,
    /// This statement is part of it.
    At(Head),
    /// What the beat with this head names, and that beat is not at hand: nothing is installed from
    /// the channel before it is.
    Missing(Head),
}

impl Settled {
    /// What it has settled on, as far as that is at hand.
    pub fn head(self) -> Option<Head> {
        match self {
            Self::At(head) => Some(head),
            Self::Nothing | Self::Missing(_) => None,
        }
    }
}

impl TrustRules {
    /// Of the roles of a kind whose patterns match a channel, the most specific alone counts. A
    /// beat is allowed in the beat channel of a role only, and by that role.
    pub fn role(&self, kind: Kind, channel: &Channel, namespace: &Namespace) -> Option<&Role> {
        let of_kind = self.roles.iter().filter(|role| role.kind == kind);
        if kind == Kind::Beat {
            return of_kind
                .into_iter()
                .find(|role| role.pattern.beat_channel(namespace).as_ref() == Some(channel));
        }
        of_kind
            .filter(|role| role.pattern.matches(channel))
            .max_by_key(|role| role.pattern.specificity())
    }
    /// The channel of the beats that speak for a channel: that of its most specific beat role.
    pub fn beat_channel(&self, channel: &Channel, namespace: &Namespace) -> Option<Channel> {
        let matches = |role: &&Role| {
            role.kind == Kind::Beat && role.pattern.matches(channel) && namespace.contains(channel)
        };
        let matching = self.roles.iter().filter(matches);
        matching
            .max_by_key(|role| role.pattern.specificity())?
            .pattern
            .beat_channel(namespace)
    }
    /// Whether a channel is closed for good. Trust logs and beats never are.
    pub fn is_closed(&self, channel: &Channel) -> bool {
        let closes = |line: &crate::statement::Closed| {
            line.pattern.matches(channel) && !line.except.contains(channel)
        };
        !channel.is_trust() && !channel.is_beat() && self.closed.iter().any(closes)
    }
    /// The names of a role's keys that have truly signed a statement.
    pub fn signers<'a>(&'a self, role: &'a Role, statement: &Statement) -> Vec<&'a str> {
        let signed = |name: &&str| {
            self.keys
                .iter()
                .any(|key| key.name == *name && statement.is_truly_signed_by(&key.key))
        };
        role.names
            .iter()
            .map(String::as_str)
            .filter(signed)
            .collect()
    }
    /// Whether these rules may no longer prove what others have proven in a channel: somebody who
    /// may sign there a release or a withdrawal would not be enough any more.
    pub fn narrows(&self, old: &TrustRules, channel: &Channel, namespace: &Namespace) -> bool {
        [Kind::Release, Kind::Withdraw].into_iter().any(|kind| {
            let Some(before) = old.role(kind, channel, namespace) else {
                return false;
            };
            let Some(after) = self.role(kind, channel, namespace) else {
                return true;
            };
            let keys = |rules: &TrustRules, role: &Role| -> Vec<PublicKey> {
                rules
                    .keys
                    .iter()
                    .filter(|key| role.names.contains(&key.name))
                    .map(|key| key.key)
                    .collect()
            };
            let (lost, kept) = (keys(old, before), keys(self, after));
            after.threshold > before.threshold || lost.iter().any(|key| !kept.contains(key))
        })
    }
}

/// Consecutive statements that were verified together, and what that has cost.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Oldest first.
    pub statements: Vec<Verified<Statement>>,
    /// Signatures that were checked; everything else was proven by hashing.
    pub signature_checks: usize,
}

/// A log on its way down: what was accepted so far proves what may come below it.
///
/// A statement is proven by its own signatures, or because a release that meets its role, or a
/// checkpoint, stands above it and an unbroken chain of ids leads down from there. A withdrawal
/// proves only itself.
#[derive(Clone, Debug)]
pub struct Descent {
    channel: Channel,
    vouched: bool,
    begun: bool,
    next: Option<Head>,
    signature_checks: usize,
}

impl Descent {
    /// One that takes any proven statement first.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            vouched: false,
            begun: false,
            next: None,
            signature_checks: 0,
        }
    }

    /// Goes on below `lowest`, which an earlier life of this program has accepted below `top` and
    /// kept where nobody else writes.
    ///
    /// # Errors
    /// If the trust in force does not accept `top` any more.
    pub fn resume(trust: &Trust, top: &Statement, lowest: &Statement) -> Result<Self, VerifyError> {
        let mut descent = Self::new(top.channel().clone());
        descent.check(trust, top)?;
        descent.next = lowest.predecessor();
        Ok(descent)
    }

    /// Goes on below a statement that was accepted, whose predecessor is `next`.
    pub(crate) fn below(channel: Channel, next: Option<Head>, vouched: bool) -> Self {
        Self {
            channel,
            vouched,
            begun: true,
            next,
            signature_checks: 0,
        }
    }

    /// Whether what comes below is proven by its link alone.
    pub fn vouches(&self) -> bool {
        self.vouched
    }

    /// The statement that comes next, if there is one below.
    pub fn next(&self) -> Option<Head> {
        self.next
    }

    /// Accepts the next statement.
    ///
    /// # Errors
    /// Why it is not accepted; nothing has changed then.
    pub fn take(
        &mut self,
        trust: &Trust,
        statement: Statement,
    ) -> Result<Verified<Statement>, VerifyError> {
        self.check(trust, &statement)?;
        Ok(Verified::new(statement))
    }

    /// Accepts the next statement, which this very trust has verified by its own signatures.
    ///
    /// # Errors
    /// As [`Descent::take`].
    pub(crate) fn take_verified(
        &mut self,
        trust: &Trust,
        statement: Verified<Statement>,
    ) -> Result<Verified<Statement>, VerifyError> {
        self.check_link(trust, &statement)?;
        self.advance(trust, &statement);
        Ok(statement)
    }

    pub(crate) fn check(
        &mut self,
        trust: &Trust,
        statement: &Statement,
    ) -> Result<(), VerifyError> {
        self.check_link(trust, statement)?;
        if !self.vouched && !self.is_settled(trust, statement) {
            let (role, signers) = trust.count(statement)?;
            self.signature_checks += signers;
            trust.judge(statement, role, signers)?;
        }
        self.advance(trust, statement);
        Ok(())
    }

    /// That it is the very statement that a checkpoint names is looked at with its place.
    fn is_settled(&self, trust: &Trust, statement: &Statement) -> bool {
        matches!(trust.checkpoint(&self.channel), Settled::At(head) if head.serial == statement.serial())
    }

    fn advance(&mut self, trust: &Trust, statement: &Statement) {
        self.vouched |= self.is_settled(trust, statement) || statement.kind() == Kind::Release;
        (self.begun, self.next) = (true, statement.predecessor());
    }

    fn check_link(&self, trust: &Trust, statement: &Statement) -> Result<(), VerifyError> {
        let channel = &self.channel;
        if statement.channel() != channel {
            return Err(VerifyError::Channel {
                expected: channel.clone(),
                found: statement.channel().clone(),
            });
        }
        trust.check_place(statement)?;
        #[cfg(feature = "simulated")]
        if crate::simulated::has(crate::simulated::Fault::Links) {
            return Ok(());
        }
        match self.next {
            None if self.begun => Err(VerifyError::Beginning {
                serial: statement.serial(),
            }),
            Some(Head { id: expected, .. }) if expected != statement.id() => {
                Err(VerifyError::Link {
                    serial: statement.serial(),
                    expected,
                    found: statement.id(),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Trust {
    /// The trust statement that the anchor names; it is signed by its own trust role.
    ///
    /// # Errors
    /// If it is another statement, or not signed as it demands itself.
    pub fn first(anchor: &Anchor, statement: Statement) -> Result<Self, VerifyError> {
        let expected = anchor.namespace.trust_log();
        if *statement.channel() != expected {
            return Err(VerifyError::Channel {
                expected,
                found: statement.channel().clone(),
            });
        }
        if statement.head() != anchor.head {
            return Err(VerifyError::Anchor {
                namespace: anchor.namespace.clone(),
                serial: anchor.head.serial,
                expected: anchor.head.id,
                found: statement.id(),
            });
        }
        let trust = Self::unproven(&anchor.namespace, statement)?;
        trust.check(&trust.statement)?;
        Ok(trust)
    }

    /// Proves what lies below the anchor in its trust log, oldest first, by links alone. It gives
    /// no rights.
    ///
    /// # Errors
    /// Which statement is not linked.
    pub fn verify_below(
        anchor: &Anchor,
        run: Vec<Statement>,
    ) -> Result<Vec<Verified<Statement>>, (Serial, VerifyError)> {
        let log = anchor.namespace.trust_log();
        let mut above = anchor
            .head
            .serial
            .next()
            .map(|serial| (serial, anchor.head.id));
        for statement in run.iter().rev() {
            let (serial, found) = (statement.serial(), statement.id());
            let Some((successor, expected)) = above else {
                return Err((serial, VerifyError::Beginning { serial }));
            };
            if *statement.channel() != log || serial.next() != Some(successor) || found != expected
            {
                return Err((
                    serial,
                    VerifyError::Link {
                        serial,
                        expected,
                        found,
                    },
                ));
            }
            above = statement.previous().map(|id| (serial, id));
        }
        Ok(run.into_iter().map(Verified::new).collect())
    }

    /// The trust statement that follows this one: signed by the trust threshold of both (attacks 11
    /// and 16), and closing what this one closes.
    ///
    /// # Errors
    /// If it is not the next one, one of the two thresholds is not met, or it opens what is closed.
    pub fn succeed(&self, statement: Statement) -> Result<Self, VerifyError> {
        if statement.channel() != self.statement.channel() {
            return Err(VerifyError::Channel {
                expected: self.statement.channel().clone(),
                found: statement.channel().clone(),
            });
        }
        if statement.predecessor() != Some(self.head()) {
            return Err(VerifyError::TrustOrder {
                known: self.serial(),
                found: statement.serial(),
            });
        }
        self.check(&statement)?;
        let next = Self::unproven(&self.namespace, statement)?;
        next.check(&next.statement)?;
        if let Some(line) = self
            .rules()
            .closed
            .iter()
            .find(|line| !next.rules().closed.contains(line))
        {
            return Err(VerifyError::StaysClosed {
                serial: next.serial(),
                line: line.to_string(),
            });
        }
        Ok(next)
    }

    /// Takes up a trust statement that was verified in an earlier life of this program and kept
    /// where nobody else writes.
    ///
    /// # Errors
    /// If it is no trust statement of the namespace, or does not meet its own threshold.
    pub fn resume(namespace: &Namespace, statement: Statement) -> Result<Self, VerifyError> {
        let trust = Self::unproven(namespace, statement)?;
        trust.check(&trust.statement)?;
        Ok(trust)
    }

    fn unproven(namespace: &Namespace, statement: Statement) -> Result<Self, VerifyError> {
        let channel = namespace.trust_log();
        if *statement.channel() != channel {
            return Err(VerifyError::Channel {
                expected: channel,
                found: statement.channel().clone(),
            });
        }
        if let Some(field) = statement.unknown_critical() {
            return Err(VerifyError::Critical {
                field: field.into(),
            });
        }
        let Body::Trust(rules) = statement.body() else {
            return Err(VerifyError::NoRole {
                trust: statement.serial(),
                kind: statement.kind(),
                channel,
            });
        };
        // The grammar has refused weak keys already, so that this loses none.
        let keys = rules.keys.iter().filter_map(|k| {
            Some(Key {
                public: k.key,
                verifying: k.key.to_verifying_key().ok()?,
                name: k.name.clone(),
            })
        });
        Ok(Self {
            namespace: namespace.clone(),
            keys: keys.collect(),
            statement: Verified::new(statement),
            beats: BTreeMap::new(),
        })
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
    /// Its serial in the trust log.
    pub fn serial(&self) -> Serial {
        self.statement.serial()
    }
    /// Serial and id.
    pub fn head(&self) -> Head {
        self.statement.head()
    }
    /// The statement itself.
    pub fn statement(&self) -> &Verified<Statement> {
        &self.statement
    }
    /// What it says.
    pub fn rules(&self) -> &TrustRules {
        match self.statement.body() {
            Body::Trust(rules) => rules,
            _ => unreachable!("`unproven` accepts trust statements only"),
        }
    }
    /// What it has settled about a channel's log: by a line of the channel's own, or else by what
    /// the beat says that a line names, for the channels that beats of that channel may speak for.
    pub fn checkpoint(&self, channel: &Channel) -> Settled {
        let line = |channel: &Channel| {
            self.rules()
                .checkpoints
                .iter()
                .find(|c| c.channel == *channel)
                .map(|c| c.head)
        };
        if channel.is_trust() || channel.is_beat() {
            return Settled::Nothing;
        }
        if let Some(head) = line(channel) {
            return Settled::At(head);
        }
        let Some((beats, head)) = self
            .beat_channel(channel)
            .and_then(|beats| Some((line(&beats)?, beats)))
            .map(|(h, b)| (b, h))
        else {
            return Settled::Nothing;
        };
        match self.beats.get(&beats).map(Statement::body) {
            Some(Body::Beat(beat)) => beat.head(channel).map_or(Settled::Nothing, Settled::At),
            _ => Settled::Missing(head),
        }
    }
    /// The beats that its checkpoints name and that are not at hand: they are to be read, each at
    /// the very serial.
    pub fn missing_beats(&self) -> impl Iterator<Item = (&Channel, Head)> {
        let of_a_role = |channel: &Channel| self.role(Kind::Beat, channel).is_some();
        let named = self
            .rules()
            .checkpoints
            .iter()
            .filter(move |c| c.channel.is_beat() && of_a_role(&c.channel));
        named
            .filter(|c| !self.beats.contains_key(&c.channel))
            .map(|c| (&c.channel, c.head))
    }
    /// The beat of a beat channel that a checkpoint names.
    pub fn named_beat(&self, channel: &Channel) -> Option<Head> {
        let named = self
            .rules()
            .checkpoints
            .iter()
            .find(|c| c.channel == *channel)?;
        (channel.is_beat() && self.role(Kind::Beat, channel).is_some()).then_some(named.head)
    }
    /// Proves a beat that a checkpoint names: its id is the proof.
    pub fn verify_settled_beat(&self, statement: Statement) -> Option<Verified<Statement>> {
        let named = self.named_beat(statement.channel()) == Some(statement.head())
            && statement.kind() == Kind::Beat;
        named.then(|| Verified::new(statement))
    }
    /// Takes a beat that a checkpoint names; its id is the proof, and another one is not taken.
    pub fn take_settled_beat(&mut self, statement: Statement) -> bool {
        let named = self
            .rules()
            .checkpoints
            .iter()
            .any(|c| c.channel == *statement.channel() && c.head == statement.head());
        let taken =
            named && statement.kind() == Kind::Beat && statement.unknown_critical().is_none();
        if taken {
            self.beats.insert(statement.channel().clone(), statement);
        }
        taken
    }
    /// The beats that its checkpoints name, as far as they are at hand.
    pub fn settled_beats(&self) -> impl Iterator<Item = &Statement> {
        self.beats.values()
    }
    /// What a beat says, as far as it may: its heads of channels whose most specific beat role is
    /// that of its channel, and that of the trust log.
    pub fn named<'a>(
        &'a self,
        beats: &'a Channel,
        beat: &'a Beat,
    ) -> impl Iterator<Item = (&'a Channel, Head)> {
        let may = |channel: &Channel| {
            self.beat_channel(channel).as_ref() == Some(beats)
                || channel == self.statement.channel()
        };
        beat.heads
            .iter()
            .filter(move |(channel, _)| may(channel))
            .map(|(channel, head)| (channel, *head))
    }
    /// How many signatures are checked to judge a statement by itself: those of keys that its role
    /// lists.
    pub fn signature_checks(&self, statement: &Statement) -> usize {
        let Some(role) = self.role(statement.kind(), statement.channel()) else {
            return 0;
        };
        statement
            .signatures()
            .iter()
            .filter(|signature| self.listed(role, &signature.key).is_some())
            .count()
    }
    /// Whether nothing may be installed under it any more. Reading goes on.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.rules().expires
    }
    /// The name under which a key is listed.
    pub fn name_of(&self, key: &PublicKey) -> Option<&str> {
        self.keys
            .iter()
            .find(|k| k.public == *key)
            .map(|k| k.name.as_str())
    }
    /// The role that decides about a kind in a channel.
    pub fn role(&self, kind: Kind, channel: &Channel) -> Option<&Role> {
        self.rules().role(kind, channel, &self.namespace)
    }
    /// The channel of the beats that speak for a channel; none if nobody promises any.
    pub fn beat_channel(&self, channel: &Channel) -> Option<Channel> {
        self.rules().beat_channel(channel, &self.namespace)
    }
    /// Whether a signature is by a key of the role that decides about a statement, and holds: then
    /// it counts.
    pub fn counts(&self, statement: &Statement, key: &PublicKey) -> bool {
        let Some(role) = self.role(statement.kind(), statement.channel()) else {
            return false;
        };
        self.listed(role, key).is_some() && statement.is_truly_signed_by(key)
    }

    /// Whether a statement's own signatures meet the role for its kind in its channel, wherever it
    /// stands.
    pub fn meets(&self, statement: &Statement) -> bool {
        self.count(statement)
            .is_ok_and(|(role, found)| found >= role.threshold)
    }

    /// Checks that those who may say such a thing now have signed it.
    ///
    /// # Errors
    /// [`VerifyError::requirement`] names what it does not meet.
    pub fn verify(&self, statement: Statement) -> Result<Verified<Statement>, VerifyError> {
        self.check(&statement)?;
        Ok(Verified::new(statement))
    }

    /// As [`Trust::verify`]; a statement that is not accepted comes back.
    ///
    /// # Errors
    /// The statement, and why.
    pub fn verify_or_return(
        &self,
        statement: Statement,
    ) -> Result<Verified<Statement>, Box<(Statement, VerifyError)>> {
        match self.check(&statement) {
            Ok(()) => Ok(Verified::new(statement)),
            Err(error) => Err(Box::new((statement, error))),
        }
    }

    /// As [`Trust::verify`], without keeping the statement.
    ///
    /// # Errors
    /// As [`Trust::verify`].
    pub fn check(&self, statement: &Statement) -> Result<(), VerifyError> {
        self.check_place(statement)?;
        let (role, signers) = self.count(statement)?;
        self.judge(statement, role, signers)
    }

    /// Everything but the signatures.
    fn check_place(&self, statement: &Statement) -> Result<(), VerifyError> {
        let channel = statement.channel();
        let other_trust_log =
            statement.kind() == Kind::Trust && channel != self.statement.channel();
        if other_trust_log || !self.namespace.contains(channel) {
            return Err(VerifyError::Namespace {
                channel: channel.clone(),
                namespace: self.namespace.clone(),
            });
        }
        if self.rules().is_closed(channel) {
            return Err(VerifyError::Closed {
                channel: channel.clone(),
                trust: self.serial(),
            });
        }
        if let Some(needed) = statement.trust().filter(|needed| *needed > self.serial()) {
            return Err(VerifyError::NewerTrust {
                needed,
                known: self.serial(),
            });
        }
        let Settled::At(checkpoint) = self.checkpoint(channel) else {
            return Ok(());
        };
        // What follows another statement in that place belongs to a branch that was settled
        // against: it is no fork.
        let places = [Some(statement.head()), statement.predecessor()];
        match places
            .into_iter()
            .flatten()
            .find(|head| head.serial == checkpoint.serial && head.id != checkpoint.id)
        {
            Some(other) => Err(VerifyError::Checkpoint {
                serial: other.serial,
                expected: checkpoint.id,
                found: other.id,
            }),
            None => Ok(()),
        }
    }

    fn listed(&self, role: &Role, key: &PublicKey) -> Option<&Key> {
        self.keys
            .iter()
            .find(|known| known.public == *key && role.names.contains(&known.name))
    }

    /// [S1] The distinct keys of the role whose signatures hold; no other signature has any effect
    /// (attacks 2 to 5).
    fn count(&self, statement: &Statement) -> Result<(&Role, usize), VerifyError> {
        let (kind, channel, trust) = (statement.kind(), statement.channel(), self.serial());
        let role = self
            .role(kind, channel)
            .ok_or_else(|| VerifyError::NoRole {
                trust,
                kind,
                channel: channel.clone(),
            })?;
        // The grammar allows one signature of each key.
        let holds = |key: &Key, signature: &crate::Signature| {
            signature.holds(&key.verifying, statement.signed_part())
        };
        let signers = statement
            .signatures()
            .iter()
            .filter(|s| self.listed(role, &s.key).is_some_and(|key| holds(key, s)));
        Ok((role, signers.take(role.threshold).count()))
    }

    fn judge(&self, statement: &Statement, role: &Role, found: usize) -> Result<(), VerifyError> {
        #[cfg(feature = "simulated")]
        if crate::simulated::has(crate::simulated::Fault::Signatures) {
            return Ok(());
        }
        if found >= role.threshold {
            return Ok(());
        }
        let (kind, channel, trust) = (statement.kind(), statement.channel().clone(), self.serial());
        let (threshold, names) = (role.threshold, role.names.join(", "));
        Err(VerifyError::Threshold {
            trust,
            kind,
            channel,
            threshold,
            names,
            found,
        })
    }

    /// Verifies consecutive statements of one channel, oldest first, with as few signature checks
    /// as there can be. Beats prove themselves one by one, linked or not.
    ///
    /// # Errors
    /// The serial of the statement that is not accepted, and why. None is accepted then.
    pub fn verify_run(
        &self,
        channel: &Channel,
        run: Vec<Statement>,
    ) -> Result<Run, (Serial, VerifyError)> {
        if channel.is_beat() {
            let mut signature_checks = 0;
            for statement in &run {
                if statement.channel() != channel {
                    let (expected, found) = (channel.clone(), statement.channel().clone());
                    return Err((statement.serial(), VerifyError::Channel { expected, found }));
                }
                signature_checks += self.signature_checks(statement);
                self.check(statement)
                    .map_err(|error| (statement.serial(), error))?;
            }
            return Ok(Run {
                statements: run.into_iter().map(Verified::new).collect(),
                signature_checks,
            });
        }
        let mut descent = Descent::new(channel.clone());
        for statement in run.iter().rev() {
            descent
                .check(self, statement)
                .map_err(|error| (statement.serial(), error))?;
        }
        let signature_checks = descent.signature_checks;
        // Oldest first must also mean consecutive: each names its predecessor, so only the serials
        // are left to check.
        if let Some(gap) = run
            .windows(2)
            .find(|pair| pair[0].serial().next() != Some(pair[1].serial()))
        {
            let (serial, found) = (gap[0].serial(), gap[0].id());
            let expected = gap[1].previous().unwrap_or(found);
            return Err((
                serial,
                VerifyError::Link {
                    serial,
                    expected,
                    found,
                },
            ));
        }
        Ok(Run {
            statements: run.into_iter().map(Verified::new).collect(),
            signature_checks,
        })
    }
}
