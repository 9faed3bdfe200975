//! What an error means for a caller that has no use for its text: an exit code, another language.

use tidings_protocol::view::clearance::NotNow;

use crate::{Error, StateError};

/// What kind of failure an error is; the numbers are the exit codes of `tidings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An argument is wrong.
    Usage = 2,
    /// A rule forbids it: a signature, a role, the refusal of a broker.
    Refused = 3,
    /// Behind, stale, forked, or nothing confirms it.
    NotCurrent = 4,
    /// The release was withdrawn.
    Withdrawn = 5,
    /// Not yet: in use by another program, or not due.
    Waiting = 6,
    /// No broker could be used.
    NoBroker = 7,
    /// A file is missing, damaged, or of another namespace.
    BadFile = 8,
}

impl Error {
    /// What kind of failure this is.
    pub fn failure(&self) -> Failure {
        match self {
            Error::Address(_)
            | Error::Name(_)
            | Error::Namespace { .. }
            | Error::Own(_)
            | Error::ClearText(_) => Failure::Usage,
            Error::State(error) => error.failure(),
            Error::NotNow { reason, .. } => of_reason(reason),
            Error::Fork(_) => Failure::NotCurrent,
            Error::Verify { .. } | Error::Refused(_) | Error::Survey(_) => Failure::Refused,
            Error::Unreachable { source, .. } if matches!(**source, Error::Verify { .. }) => {
                Failure::Refused
            }
            _ => Failure::NoBroker,
        }
    }
}

impl StateError {
    /// What kind of failure this is.
    pub fn failure(&self) -> Failure {
        match self {
            StateError::InUse(..) => Failure::Waiting,
            _ => Failure::BadFile,
        }
    }
}

fn of_reason(reason: &NotNow) -> Failure {
    match reason {
        NotNow::Withdrawn { .. } => Failure::Withdrawn,
        NotNow::BarrierNotDue { .. } => Failure::Waiting,
        NotNow::Closed { .. }
        | NotNow::Critical { .. }
        | NotNow::Barrier { .. }
        | NotNow::Other { .. } => Failure::Refused,
        _ => Failure::NotCurrent,
    }
}
