//! The first trust statement, by the anchor, and each successor, by the one before.

use alloc::{collections::BTreeMap, string::ToString, vec::Vec};

use super::{Key, Trust};
use crate::{Anchor, Namespace, Serial, Statement, Verified, statement::Body, verify::VerifyError};

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

    pub(super) fn unproven(
        namespace: &Namespace,
        statement: Statement,
    ) -> Result<Self, VerifyError> {
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
}
