//! Who may say what: one trust statement in force, its successor, and what it authenticates (spec section 5).
//!
//! *Authenticated = signed by those who may say such a thing now, or hash-linked below a statement that they signed.*
//! [`Trust::verify`] is the first half for one statement, [`Trust::verify_run`] both for a run of them.

use alloc::{boxed::Box, string::String, vec::Vec};

use ed25519_dalek::VerifyingKey;

use crate::{
    Anchor, Channel, Head, Namespace, PublicKey, Serial, Statement, Timestamp, Verified,
    statement::{Body, Kind, Role, TrustRules},
    verify::VerifyError,
};

/// A verified trust statement, ready to judge others.
#[derive(Clone, Debug)]
pub struct Trust {
    namespace: Namespace,
    statement: Verified<Statement>,
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    public: PublicKey,
    verifying: VerifyingKey,
    name: String,
}

impl TrustRules {
    /// [4.3-1]: the role that decides about a kind in a channel: of those that match, the most specific.
    pub fn role(&self, kind: Kind, channel: &Channel) -> Option<&Role> {
        let matching = self.roles.iter().filter(|r| r.kind == kind && r.pattern.matches(channel));
        matching.max_by_key(|r| r.pattern.specificity())
    }
    /// The names of a role's keys that have truly signed a statement.
    pub fn signers<'a>(&'a self, role: &'a Role, statement: &Statement) -> Vec<&'a str> {
        let signed = |name: &&str| self.keys.iter().any(|key| key.name == *name && statement.is_truly_signed_by(&key.key));
        role.names.iter().map(String::as_str).filter(signed).collect()
    }
    /// [4.3-5]: whether these rules may no longer prove what others have proven in a channel: somebody who may sign there
    /// a release or a withdrawal would not be enough any more.
    pub fn narrows(&self, old: &TrustRules, channel: &Channel) -> bool {
        [Kind::Release, Kind::Withdraw].into_iter().any(|kind| {
            let Some(before) = old.role(kind, channel) else { return false };
            let Some(after) = self.role(kind, channel) else { return true };
            let keys = |rules: &TrustRules, role: &Role| -> Vec<PublicKey> {
                rules.keys.iter().filter(|key| role.names.contains(&key.name)).map(|key| key.key).collect()
            };
            let (lost, kept) = (keys(old, before), keys(self, after));
            after.threshold > before.threshold || lost.iter().any(|key| !kept.contains(key))
        })
    }
}

/// The names of the keys whose signatures under a statement hold.
struct Signers<'a>(Vec<&'a str>);

impl Signers<'_> {
    fn count(&self, role: &Role) -> usize {
        role.names.iter().filter(|name| self.0.contains(&name.as_str())).count()
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

/// A log on its way down: what was accepted so far decides what may come below it ([5.3-1] to [5.3-3]).
///
/// From the newest down, a statement is authenticated by its own signatures, or by the chain of ids from an
/// authenticated statement above whose signers may sign its kind too, or at and below a checkpoint.
#[derive(Clone, Debug)]
pub struct Descent {
    channel: Channel,
    vouched: Vec<Kind>,
    begun: bool,
    next: Option<Head>,
    signature_checks: usize,
}

impl Descent {
    /// One that takes any authenticated statement first.
    pub fn new(channel: Channel) -> Self {
        Self { channel, vouched: Vec::new(), begun: false, next: None, signature_checks: 0 }
    }

    /// Goes on below `lowest`, which an earlier life of this program has accepted below `top` and kept where nobody else writes.
    ///
    /// # Errors
    /// If the trust in force does not accept `top` any more.
    pub fn resume(trust: &Trust, top: &Statement, lowest: &Statement) -> Result<Self, VerifyError> {
        let mut descent = Self::new(top.channel().clone());
        descent.check(trust, top)?;
        descent.next = lowest.predecessor();
        Ok(descent)
    }

    /// Takes over what a descent that has come down to the beginning of this one has vouched for.
    pub fn follow(&mut self, above: &Self) {
        let more: Vec<Kind> = above.vouched.iter().filter(|kind| !self.vouched.contains(kind)).copied().collect();
        self.vouched.extend(more);
    }

    /// The statement that comes next, if there is one below.
    pub fn next(&self) -> Option<Head> {
        self.next
    }

    /// Accepts the next statement.
    ///
    /// # Errors
    /// Why it is not accepted; nothing has changed then.
    pub fn take(&mut self, trust: &Trust, statement: Statement) -> Result<Verified<Statement>, VerifyError> {
        self.check(trust, &statement)?;
        Ok(Verified::new(statement))
    }

    fn check(&mut self, trust: &Trust, statement: &Statement) -> Result<(), VerifyError> {
        let channel = &self.channel;
        if statement.channel() != channel {
            return Err(VerifyError::Channel { expected: channel.clone(), found: statement.channel().clone() });
        }
        trust.check_place(statement)?;
        match self.next {
            None if self.begun => return Err(VerifyError::Beginning(statement.serial())),
            Some(Head { id: expected, .. }) if expected != statement.id() => {
                return Err(VerifyError::Link { serial: statement.serial(), expected, found: statement.id() });
            }
            _ => {}
        }
        if trust.checkpoint(channel).is_some_and(|c| c.serial == statement.serial()) {
            // That it is the one was looked at with its place.
            self.vouched = Kind::ALL.into();
        }
        if !self.vouched.contains(&statement.kind()) {
            let signers = trust.signers(statement)?;
            trust.judge(statement, &signers)?;
            self.signature_checks += signers.0.len();
            let may_sign = |kind: &Kind| trust.role(*kind, channel).is_some_and(|role| signers.count(role) >= role.threshold);
            // In a trust log no link stands in for a check ([5.4-2]).
            self.vouched.extend(Kind::ALL.into_iter().filter(|kind| *kind != Kind::Trust).filter(may_sign));
        }
        (self.begun, self.next) = (true, statement.predecessor());
        Ok(())
    }
}

impl Trust {
    /// [5.4-1]: the first trust statement of a namespace: the anchor names its id, and it is signed by its own trust role.
    ///
    /// # Errors
    /// If it is another statement, or not signed as it demands itself.
    pub fn first(anchor: &Anchor, statement: Statement) -> Result<Self, VerifyError> {
        let expected = anchor.namespace.trust_log();
        if *statement.channel() != expected {
            return Err(VerifyError::Channel { expected, found: statement.channel().clone() });
        }
        if statement.id() != anchor.id {
            let (expected, found) = (anchor.id, statement.id());
            return Err(VerifyError::Anchor { namespace: anchor.namespace.clone(), expected, found });
        }
        let trust = Self::unproven(&anchor.namespace, statement)?;
        trust.check(&trust.statement)?;
        Ok(trust)
    }

    /// [5.4-2]: the trust statement that follows this one: signed by the trust threshold of both (attacks 11 and 16).
    ///
    /// # Errors
    /// If it is not the next one, or one of the two thresholds is not met.
    pub fn succeed(&self, statement: Statement) -> Result<Self, VerifyError> {
        if statement.channel() != self.statement.channel() {
            return Err(VerifyError::Channel { expected: self.statement.channel().clone(), found: statement.channel().clone() });
        }
        if statement.predecessor() != Some(self.head()) {
            return Err(VerifyError::TrustOrder { known: self.serial(), found: statement.serial() });
        }
        self.check(&statement)?;
        let next = Self::unproven(&self.namespace, statement)?;
        next.check(&next.statement)?;
        Ok(next)
    }

    /// Takes up a trust statement that was verified in an earlier life of this program and kept where nobody else writes.
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
            return Err(VerifyError::Channel { expected: channel, found: statement.channel().clone() });
        }
        if let Some(field) = statement.unknown_critical() {
            return Err(VerifyError::Critical(field.into()));
        }
        let Body::Trust(rules) = statement.body() else {
            return Err(VerifyError::NoRole { trust: statement.serial(), kind: statement.kind(), channel });
        };
        // The grammar has refused weak keys already, so that this loses none.
        let keys =
            rules.keys.iter().filter_map(|k| Some(Key { public: k.key, verifying: k.key.to_verifying_key().ok()?, name: k.name.clone() }));
        Ok(Self { namespace: namespace.clone(), keys: keys.collect(), statement: Verified::new(statement) })
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
    /// The place of a channel's log that it has settled.
    pub fn checkpoint(&self, channel: &Channel) -> Option<Head> {
        self.rules().checkpoints.iter().find(|c| c.channel == *channel).map(|c| c.head)
    }
    /// Whether a statement has good signatures that meet the role for some kind in its channel, perhaps another than its own.
    pub fn meets(&self, kind: Kind, statement: &Statement) -> bool {
        let role = self.role(kind, statement.channel());
        role.is_some_and(|role| self.signers(statement).is_ok_and(|signers| signers.count(role) >= role.threshold))
    }
    /// How many signatures are checked to judge a statement by itself: those of listed keys.
    pub fn signature_checks(&self, statement: &Statement) -> usize {
        statement.signatures().iter().filter(|signature| self.keys.iter().any(|key| key.public == signature.key)).count()
    }
    /// Whether nothing may be installed under it any more. Reading goes on.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.rules().expires
    }
    /// The name under which a key is listed.
    pub fn name_of(&self, key: &PublicKey) -> Option<&str> {
        self.keys.iter().find(|k| k.public == *key).map(|k| k.name.as_str())
    }
    /// [4.3-1]: the role that decides about a kind in a channel: of those that match, the most specific.
    pub fn role(&self, kind: Kind, channel: &Channel) -> Option<&Role> {
        self.rules().role(kind, channel)
    }

    /// Checks that those who may say such a thing now have signed it.
    ///
    /// # Errors
    /// Each variant of [`VerifyError`] names its step (spec section 5.2).
    pub fn verify(&self, statement: Statement) -> Result<Verified<Statement>, VerifyError> {
        self.check(&statement)?;
        Ok(Verified::new(statement))
    }

    /// As [`Trust::verify`]; a statement that is not accepted comes back.
    ///
    /// # Errors
    /// The statement, and why.
    pub fn verify_or_return(&self, statement: Statement) -> Result<Verified<Statement>, Box<(Statement, VerifyError)>> {
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
        self.judge(statement, &self.signers(statement)?)
    }

    /// [5.2-1], [5.2-2] and the refusal of [5.3-2].
    fn check_place(&self, statement: &Statement) -> Result<(), VerifyError> {
        let other_trust_log = statement.kind() == Kind::Trust && statement.channel() != self.statement.channel();
        if other_trust_log || !self.namespace.contains(statement.channel()) {
            return Err(VerifyError::Namespace { channel: statement.channel().clone(), namespace: self.namespace.clone() });
        }
        let settled = self.checkpoint(statement.channel()).filter(|settled| settled.serial == statement.serial());
        if let Some(other) = settled.filter(|settled| settled.id != statement.id()) {
            let (expected, found) = (other.id, statement.id());
            return Err(VerifyError::Checkpoint { serial: statement.serial(), expected, found });
        }
        // What follows another statement in that place belongs to a branch that was settled against: it is no fork.
        let other_branch = |(checkpoint, before): &(Head, Head)| checkpoint.serial == before.serial && checkpoint.id != before.id;
        if let Some((checkpoint, before)) = self.checkpoint(statement.channel()).zip(statement.predecessor()).filter(other_branch) {
            return Err(VerifyError::Checkpoint { serial: before.serial, expected: checkpoint.id, found: before.id });
        }
        match statement.trust() {
            Some(needed) if needed > self.serial() => Err(VerifyError::NewerTrust { needed, known: self.serial() }),
            _ => Ok(()),
        }
    }

    /// [5.2-3]: checks every signature by a known key; signatures by unknown keys say nothing (attacks 2, 4 and 5).
    fn signers(&self, statement: &Statement) -> Result<Signers<'_>, VerifyError> {
        let mut names = Vec::new();
        for signature in statement.signatures() {
            if let Some(key) = self.keys.iter().find(|k| k.public == signature.key) {
                if !signature.holds(&key.verifying, statement.signed_part()) {
                    return Err(VerifyError::BadSignature { name: key.name.clone() });
                }
                names.push(key.name.as_str());
            }
        }
        Ok(Signers(names))
    }

    /// [5.2-4]: distinct keys of the role, at least as many as its threshold.
    fn judge(&self, statement: &Statement, signers: &Signers<'_>) -> Result<(), VerifyError> {
        let (kind, channel, trust) = (statement.kind(), statement.channel(), self.serial());
        let role = self.role(kind, channel).ok_or_else(|| VerifyError::NoRole { trust, kind, channel: channel.clone() })?;
        let found = signers.count(role);
        if found >= role.threshold {
            return Ok(());
        }
        let (threshold, names) = (role.threshold, role.names.join(", "));
        Err(VerifyError::Threshold { trust, kind, channel: channel.clone(), threshold, names, found })
    }

    /// [5.3-1] to [5.3-3]: verifies consecutive statements of one channel, oldest first, with as few signature checks as there are kinds.
    ///
    /// # Errors
    /// The serial of the statement that is not accepted, and why. None is accepted then.
    pub fn verify_run(&self, channel: &Channel, run: Vec<Statement>) -> Result<Run, (Serial, VerifyError)> {
        let mut descent = Descent::new(channel.clone());
        for statement in run.iter().rev() {
            descent.check(self, statement).map_err(|error| (statement.serial(), error))?;
        }
        let signature_checks = descent.signature_checks;
        // Oldest first must also mean consecutive: each names its predecessor, so only the serials are left to check.
        if let Some(gap) = run.windows(2).find(|pair| pair[0].serial().next() != Some(pair[1].serial())) {
            let (serial, found) = (gap[0].serial(), gap[0].id());
            let expected = gap[1].previous().unwrap_or(found);
            return Err((serial, VerifyError::Link { serial, expected, found }));
        }
        Ok(Run { statements: run.into_iter().map(Verified::new).collect(), signature_checks })
    }
}
