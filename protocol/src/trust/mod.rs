//! Who may say what: one trust statement in force, its successor, and what it proves.
//!
//! *Authenticated = signed by those who may say such a thing now, or hash-linked below what is
//! authenticated that way.* [`Trust::verify`] is the first half for one statement,
//! [`Trust::verify_run`] both for a run of them.

mod descent;
mod rules;
mod settled;
mod succession;

pub use descent::Descent;
pub use settled::Settled;

use alloc::{boxed::Box, collections::BTreeMap, string::String, vec::Vec};

use ed25519_dalek::VerifyingKey;

use crate::{
    Channel, Head, Namespace, PublicKey, Serial, Statement, Timestamp, Verified,
    statement::{Body, Kind, Role, TrustRules},
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

/// Consecutive statements that were verified together, and what that has cost.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Oldest first.
    pub statements: Vec<Verified<Statement>>,
    /// Signatures that were checked; everything else was proven by hashing.
    pub signature_checks: usize,
}

impl Trust {
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
