//! The one type that proves a check, and why a check failed.

use alloc::string::String;
use core::ops::Deref;

use crate::{Channel, Namespace, Requirement, Serial, StatementId, Timestamp, statement::Kind};

/// Something that was verified. Only [`crate::trust`] makes these, and only these leave the client
/// library, enter a broker's log or are relayed.
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

/// Why a well-formed statement is not accepted; [`VerifyError::requirement`] says by which
/// requirement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The statement is of another channel.
    #[error("this is a statement of {found}, expected one of {expected}{}", self.cited())]
    Channel {
        /// The channel that was asked for.
        expected: Channel,
        /// The channel that the statement names.
        found: Channel,
    },
    /// The channel is not in the namespace, or a trust statement stands outside the trust log.
    #[error("{channel} is not a channel of namespace {namespace}{}", self.cited())]
    Namespace {
        /// The channel.
        channel: Channel,
        /// The namespace whose trust was asked.
        namespace: Namespace,
    },
    /// The channel is closed for good.
    #[error("{channel} is closed for good by trust {trust}{}", self.cited())]
    Closed {
        /// The channel.
        channel: Channel,
        /// The trust statement in force.
        trust: Serial,
    },
    /// It was signed under a trust statement that is not known here yet.
    #[error("it is signed under trust {needed}, the newest known here is {known}; fetch the trust log first{}", self.cited())]
    NewerTrust {
        /// The serial that it names.
        needed: Serial,
        /// The newest known serial.
        known: Serial,
    },
    /// Nobody may say such a thing there.
    #[error("no role in trust {trust} allows a {kind} in {channel}{}", self.cited())]
    NoRole {
        /// The trust statement that was asked.
        trust: Serial,
        /// The kind of the statement.
        kind: Kind,
        /// Its channel.
        channel: Channel,
    },
    /// Too few of those who may have signed.
    #[error("a {kind} in {channel} needs {threshold} signatures of {names} by trust {trust}, found {found} that hold{}", self.cited())]
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
    /// The trust statement at the anchor's serial is not the one that the anchor names.
    #[error("trust {serial} of {namespace} is {found}, the anchor names {expected}{}", self.cited())]
    Anchor {
        /// The namespace.
        namespace: Namespace,
        /// The serial.
        serial: Serial,
        /// The id that the anchor names.
        expected: StatementId,
        /// The id of the statement.
        found: StatementId,
    },
    /// A trust statement does not follow the one before.
    #[error("trust {found} does not follow trust {known}: expected serial and id to be those of its successor{}", self.cited())]
    TrustOrder {
        /// The newest known serial.
        known: Serial,
        /// The serial that was offered.
        found: Serial,
    },
    /// A trust statement opens what the one before has closed.
    #[error("trust {serial} lacks the line `Closed: {line}` of the one before; what is closed stays closed{}", self.cited())]
    StaysClosed {
        /// The serial.
        serial: Serial,
        /// What the line says.
        line: String,
    },
    /// A statement does not name its predecessor's id.
    #[error("statement {serial} has id {found}, its successor names {expected}{}", self.cited())]
    Link {
        /// The serial.
        serial: Serial,
        /// The id that the successor names.
        expected: StatementId,
        /// The id that it has.
        found: StatementId,
    },
    /// Something below the first statement of a log.
    #[error("statement {serial} is said to stand below the first of its log{}", self.cited())]
    Beginning {
        /// The serial.
        serial: Serial,
    },
    /// The trust in force has settled this place of the log otherwise.
    #[error("statement {serial} has id {found}, the trust in force has settled on {expected}{}", self.cited())]
    Checkpoint {
        /// The serial.
        serial: Serial,
        /// The id of the checkpoint.
        expected: StatementId,
        /// The id that it has.
        found: StatementId,
    },
    /// It has a field that must be understood and is not.
    #[error("it calls the field {field:?} critical, which this version does not know; a newer Tidings is needed{}", self.cited())]
    Critical {
        /// Its name.
        field: String,
    },
    /// A beat of the future.
    #[error("this beat is of {time}, more than a day ahead of the clock, {clock}{}", self.cited())]
    BeatFuture {
        /// Its time.
        time: Timestamp,
        /// The clock's.
        clock: Timestamp,
    },
}

impl VerifyError {
    /// The requirement that it is refused by.
    pub fn requirement(&self) -> Requirement {
        match self {
            Self::Channel { .. } => Requirement::Channel,
            Self::Namespace { .. } => Requirement::Namespace,
            Self::Closed { .. } => Requirement::Closed,
            Self::NewerTrust { .. } => Requirement::NewerTrust,
            Self::NoRole { .. } => Requirement::NoRole,
            Self::Threshold { .. } => Requirement::Threshold,
            Self::Anchor { .. } => Requirement::Anchor,
            Self::TrustOrder { .. } => Requirement::TrustOrder,
            Self::StaysClosed { .. } => Requirement::StaysClosed,
            Self::Link { .. } | Self::Beginning { .. } => Requirement::Link,
            Self::Checkpoint { .. } => Requirement::Checkpoint,
            Self::Critical { .. } => Requirement::Critical,
            Self::BeatFuture { .. } => Requirement::BeatFuture,
        }
    }

    fn cited(&self) -> String {
        alloc::format!(" ({})", self.requirement())
    }
}
