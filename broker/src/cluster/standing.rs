//! How a member stands: what is shown to operators.

use std::collections::BTreeMap;

use tidings_protocol::{Channel, Head};
use tokio::time::Instant;

use super::Member;

/// How this broker stands to its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not connected yet, or the session has ended.
    Connecting(String),
    /// Connected a moment ago; whether to a minority is not known.
    Suspended,
    /// Everything is as it should be.
    Member,
    /// Another live broker has our name.
    NameTaken(String),
}

impl State {
    /// Every word for it.
    pub(crate) const ALL: &[&str] = &["connecting", "suspended", "member", "name_taken"];

    /// One word for it.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            State::Connecting(_) => "connecting",
            State::Suspended => "suspended",
            State::Member => "member",
            State::NameTaken(_) => "name_taken",
        }
    }
}

/// What the servers have forgotten, and we have not.
pub(crate) struct Gap {
    pub(super) since: Instant,
    /// Our head when it was last looked at.
    pub(super) head: Option<Head>,
}

/// What is known of the cluster.
pub(crate) struct Standing {
    pub(crate) state: State,
    pub(crate) members: Vec<Member>,
    /// Who signs beats.
    pub(crate) signer: Option<String>,
    /// What cannot be followed, and why.
    pub(crate) unsound: BTreeMap<Channel, String>,
    /// Channels that are filled from another member.
    pub(crate) gaps: BTreeMap<Channel, Gap>,
    /// Since when nobody signs.
    pub(crate) vacant: Option<Instant>,
    /// How far our clock is ahead of the servers', in seconds.
    pub(crate) clock_ahead: i64,
    /// Sessions that have ended.
    pub(crate) sessions_lost: u64,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self {
            state: State::Connecting("the broker has just started".into()),
            members: Vec::new(),
            signer: None,
            unsound: BTreeMap::new(),
            gaps: BTreeMap::new(),
            vacant: None,
            clock_ahead: 0,
            sessions_lost: 0,
        }
    }
}
