//! The one type that proves a check, and why a check failed (spec section 5).

use alloc::string::String;
use core::ops::Deref;

use crate::{Channel, Namespace, Serial, StatementId, statement::Kind};

/// Something that was verified. Only [`crate::trust::Trust`] makes these, and only these leave the client library,
/// enter a broker's log or are relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }
    /// What was verified, without the proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Why a well-formed statement is not accepted, each with its step of the procedure in spec section 5.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Step 2: the statement is of another channel.
    #[error("this is a statement of {found}, expected one of {expected} (spec 5.2-1)")]
    Channel {
        /// The channel that was asked for.
        expected: Channel,
        /// The channel that the statement names.
        found: Channel,
    },
    /// Step 2: the channel is not in the namespace.
    #[error("{channel} is not a channel of namespace {namespace} (spec 5.2-1)")]
    Namespace {
        /// The channel.
        channel: Channel,
        /// The namespace whose trust was asked.
        namespace: Namespace,
    },
    /// Step 3: it was signed under a trust statement that is not known here yet.
    #[error("it is signed under trust {needed}, the newest known here is {known}; fetch the trust log first (spec 5.2-2)")]
    NewerTrust {
        /// The serial that it names.
        needed: Serial,
        /// The newest known serial.
        known: Serial,
    },
    /// Step 4: a known key with a bad signature spoils everything (attack 4).
    #[error("the signature by {name:?} is wrong (spec 5.2-3)")]
    BadSignature {
        /// The name of the key.
        name: String,
    },
    /// Step 5: nobody may say such a thing there.
    #[error("no role in trust {trust} allows a {kind} in {channel} (spec 5.2-4)")]
    NoRole {
        /// The trust statement that was asked.
        trust: Serial,
        /// The kind of the statement.
        kind: Kind,
        /// Its channel.
        channel: Channel,
    },
    /// Step 5: too few of those who may have signed.
    #[error("a {kind} in {channel} needs {threshold} signatures of {names} by trust {trust}, found {found} (spec 5.2-4)")]
    Threshold {
        /// The trust statement that was asked.
        trust: Serial,
        /// The kind of the statement.
        kind: Kind,
        /// Its channel.
        channel: Channel,
        /// How many distinct keys must sign.
        threshold: usize,
        /// Whose.
        names: String,
        /// How many have.
        found: usize,
    },
    /// The first trust statement is not the one that the anchor names.
    #[error("the first trust statement of {namespace} is {found}, the anchor names {expected} (spec 5.4-1)")]
    Anchor {
        /// The namespace.
        namespace: Namespace,
        /// The id that the anchor names.
        expected: StatementId,
        /// The id of the statement.
        found: StatementId,
    },
    /// A trust statement does not follow the one before.
    #[error("trust {found} does not follow trust {known}: expected serial and id to be those of its successor (spec 5.4-2)")]
    TrustOrder {
        /// The newest known serial.
        known: Serial,
        /// The serial that was offered.
        found: Serial,
    },
    /// A statement does not name its predecessor's id.
    #[error("statement {serial} has id {found}, its successor names {expected} (spec 5.3-1)")]
    Link {
        /// The serial.
        serial: Serial,
        /// The id that the successor names.
        expected: StatementId,
        /// The id that it has.
        found: StatementId,
    },
    /// Something below the first statement of a log.
    #[error("statement {0} is said to stand below the first of its log (spec 5.3-1)")]
    Beginning(Serial),
    /// The trust in force has settled this place of the log otherwise.
    #[error("statement {serial} has id {found}, the trust in force has settled on {expected} (spec 5.3-2)")]
    Checkpoint {
        /// The serial.
        serial: Serial,
        /// The id of the checkpoint.
        expected: StatementId,
        /// The id that it has.
        found: StatementId,
    },
    /// It has a field that must be understood and is not.
    #[error("it calls the field {0:?} critical, which this version does not know; a newer Tidings is needed (spec 3.3-1)")]
    Critical(String),
}
