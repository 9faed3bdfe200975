//! How a command ends: one table of codes for all commands, and what each error comes to.

use std::fmt;

use tidings_client::{
    DeliveryError, Error, Failure, OutboxError, PublishError, SignedError, SlotError,
    SlotServerError, StateError, TlsError, keys::KeyFileError, pem::PemError,
};
use tidings_protocol::{NameError, Requirement, StatementError, verify::VerifyError};

macro_rules! exits {
    ($($name:ident = $code:literal, $word:literal, $meaning:literal;)+) => {
        /// How a command ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Exit {
            $(#[doc = $meaning] $name = $code,)+
        }

        impl Exit {
            /// Code, name and meaning of each.
            pub(super) const ALL: &[(u8, &str, &str)] = &[$(($code, $word, $meaning)),+];

            pub(super) fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

exits! {
    Done = 0, "done", "all went well";
    Failed = 1, "failed", "something else failed";
    Usage = 2, "usage", "an argument is unknown, missing or wrong";
    Refused = 3, "refused", "a rule forbids it: a signature, a role, a broker's refusal";
    NotCurrent = 4, "not-current", "behind, stale, forked, or nothing confirms it";
    Withdrawn = 5, "withdrawn", "the release was withdrawn";
    Waiting = 6, "waiting", "busy, or not yet: a slot, the outbox, a state file in use, a release that is not due";
    NoBroker = 7, "no-broker", "no broker could be used";
    BadFile = 8, "bad-file", "a file is missing, damaged, of another namespace, or no such file";
    Nothing = 9, "nothing", "there is nothing to run";
}

impl Exit {
    /// The table, for the help.
    pub(super) fn help() -> String {
        let one = |(code, word, meaning): &(u8, &str, &str)| format!("{code} {word}: {meaning}");
        let all = Self::ALL.iter().map(one).collect::<Vec<_>>().join("; ");
        format!("Exit codes: {all}. `apply` ends with the code of its command, if that fails.")
    }

    /// An error that ends the command in this way.
    pub(super) fn because(self, text: impl Into<String>) -> anyhow::Error {
        Because {
            exit: self,
            text: text.into(),
            told: false,
        }
        .into()
    }

    /// The same where the answer, as JSON, has told it already.
    pub(super) fn as_told(self, text: impl Into<String>) -> anyhow::Error {
        Because {
            exit: self,
            text: text.into(),
            told: true,
        }
        .into()
    }
}

impl From<Exit> for (u8, &'static str) {
    fn from(exit: Exit) -> Self {
        (exit as u8, exit.word())
    }
}

/// An error of the command's own, with its way to end.
#[derive(Debug)]
struct Because {
    exit: Exit,
    text: String,
    told: bool,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Because {}

/// The code that the command of `apply` has ended with.
#[derive(Debug)]
pub(super) struct CommandFailed {
    pub(super) code: u8,
    pub(super) text: String,
}

impl fmt::Display for CommandFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CommandFailed {}

/// What an error comes to: the outermost cause that says so decides.
pub(super) fn code(error: &anyhow::Error) -> (u8, &'static str) {
    for cause in error.chain() {
        if let Some(CommandFailed { code, .. }) = cause.downcast_ref() {
            return (*code, "command");
        }
        if let Some(exit) = exit(cause) {
            return (exit as u8, exit.word());
        }
    }
    (Exit::Failed as u8, Exit::Failed.word())
}

/// Whether the answer has told it already.
pub(super) fn is_told(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Because { told: true, .. }))
}

/// The requirement of the specification that something is refused by.
pub(super) fn requirement(error: &anyhow::Error) -> Option<Requirement> {
    error.chain().find_map(|cause| {
        match (
            cause.downcast_ref::<Error>(),
            cause.downcast_ref::<VerifyError>(),
        ) {
            (Some(Error::NotNow { reason, .. }), _) => Some(reason.requirement()),
            (Some(Error::Verify { source, .. }), _) | (None, Some(source)) => {
                Some(source.requirement())
            }
            (Some(Error::Fork(_)), _) => Some(Requirement::Fork),
            _ => None,
        }
    })
}

fn exit(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(Because { exit, .. }) = cause.downcast_ref() {
        return Some(*exit);
    }
    if let Some(error) = cause.downcast_ref::<Error>() {
        return Some(error.failure().into());
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(match error {
            PublishError::Client(error) => error.failure().into(),
            PublishError::Outbox(error) => of_outbox(error),
            PublishError::LostRace(_) | PublishError::Refused(_) => Exit::Refused,
        });
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(of_outbox(error));
    }
    if let Some(error) = cause.downcast_ref::<StateError>() {
        return Some(error.failure().into());
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(match error {
            DeliveryError::Client(error) => error.failure().into(),
            DeliveryError::NoTrust(_) | DeliveryError::Twice(..) => Exit::BadFile,
            _ => Exit::Refused,
        });
    }
    if cause.is::<TlsError>() || cause.is::<PemError>() {
        return Some(Exit::BadFile);
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(match error {
            SlotError::Wait { .. } | SlotError::Stopped(_) => Exit::Waiting,
            SlotError::Lost(_) | SlotError::NoGroup(_) => Exit::Refused,
            SlotError::NoServer => Exit::Usage,
            SlotError::Ask { source, .. } => of_slot_server(source),
        });
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(of_slot_server(error));
    }
    if cause.is::<KeyFileError>() || cause.is::<StatementError>() || cause.is::<std::io::Error>() {
        return Some(Exit::BadFile);
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(if matches!(error, SignedError::Another { .. }) {
            Exit::Refused
        } else {
            Exit::BadFile
        });
    }
    if cause.is::<VerifyError>() {
        return Some(Exit::Refused);
    }
    cause.is::<NameError>().then_some(Exit::Usage)
}

fn of_slot_server(error: &SlotServerError) -> Exit {
    match error {
        SlotServerError::Address(_) | SlotServerError::ClearText => Exit::Usage,
        SlotServerError::Refused { status, .. } if *status < 500 => Exit::Refused,
        _ => Exit::NoBroker,
    }
}

impl From<Failure> for Exit {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Usage => Exit::Usage,
            Failure::Refused => Exit::Refused,
            Failure::NotCurrent => Exit::NotCurrent,
            Failure::Withdrawn => Exit::Withdrawn,
            Failure::Waiting => Exit::Waiting,
            Failure::NoBroker => Exit::NoBroker,
            Failure::BadFile => Exit::BadFile,
        }
    }
}

fn of_outbox(error: &OutboxError) -> Exit {
    match error {
        OutboxError::Waiting(..) | OutboxError::InUse(_) => Exit::Waiting,
        _ => Exit::BadFile,
    }
}
