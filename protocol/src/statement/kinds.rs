//! The kinds of statements, and the values of their fields (spec parts 1 and 2).
//!
//! These types are plain data: publishers fill them in for a [`super::Draft`], whose text is then
//! read by the same grammar as everybody else's. Those inside a [`super::Statement`] have passed
//! it.

use alloc::{string::String, vec::Vec};

use super::fields::{Beat, Release, TrustRules, Withdraw};
use crate::{Channel, Digest, Head, Pattern, PublicKey, Timestamp};

/// What a statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Something new to install.
    Release,
    /// A release is called back.
    Withdraw,
    /// Who may say what.
    Trust,
    /// What is newest.
    Beat,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 4] = [Kind::Release, Kind::Withdraw, Kind::Trust, Kind::Beat];

    /// The word in a statement's first line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Release => "release",
            Kind::Withdraw => "withdraw",
            Kind::Trust => "trust",
            Kind::Beat => "beat",
        }
    }
    /// Whether statements of this kind belong into a channel, by its last part alone.
    pub fn fits(self, channel: &Channel) -> bool {
        match self {
            Kind::Trust => channel.is_trust(),
            Kind::Beat => channel.is_beat(),
            Kind::Release | Kind::Withdraw => !channel.is_trust() && !channel.is_beat(),
        }
    }
}

/// The part of a statement that depends on its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// See [`Release`].
    Release(Release),
    /// See [`Withdraw`].
    Withdraw(Withdraw),
    /// See [`TrustRules`].
    Trust(TrustRules),
    /// See [`Beat`].
    Beat(Beat),
}

impl Body {
    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Body::Release(_) => Kind::Release,
            Body::Withdraw(_) => Kind::Withdraw,
            Body::Trust(_) => Kind::Trust,
            Body::Beat(_) => Kind::Beat,
        }
    }
}

/// How soon a release wants to be applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// In its turn.
    #[default]
    Routine,
    /// It closes a hole.
    Security,
    /// It cannot wait.
    Critical,
}

impl Urgency {
    /// The word in the `Urgency:` field.
    pub fn as_str(self) -> &'static str {
        match self {
            Urgency::Routine => "routine",
            Urgency::Security => "security",
            Urgency::Critical => "critical",
        }
    }
}

/// One `Target:` line: hardware and system selectors that must all match.
pub type Target = Vec<(String, String)>;

/// Over which time a release spreads through the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// When the first device may apply it.
    pub start: Timestamp,
    /// How long after that the last one may.
    pub seconds: u64,
    /// Over how long fetching is spread, in seconds.
    pub spread: Option<u64>,
    /// The key of the local property that stands for the device's identity, so that cohorts go
    /// together.
    pub cohort: Option<String>,
}

/// What makes a release effective. A hint for the device's own policy; nothing here is ever
/// executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    /// Restart the machine.
    Reboot,
    /// Restart into the new kernel directly.
    Kexec,
    /// Restart these units.
    Restart(Vec<String>),
    /// In the running system.
    Live,
    /// Nothing to do.
    None,
}

/// One way to get what is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// What it is, e.g. `raw`, `delta`, `ostree`, `btrfs`, `zfs`, `rauc`, `bootc`, `rsync`.
    pub format: String,
    /// Octets to fetch.
    pub size: u64,
    /// SHA-256 of what is fetched (or what the format defines in its place).
    pub digest: Digest,
    /// Where it can be had; the digest decides, not the place.
    pub url: String,
    /// The version that it starts from.
    pub from: Option<String>,
    /// The digest of what it must be applied to.
    pub base: Option<Digest>,
    /// The digest of what must come out.
    pub result: Option<Digest>,
    /// Octets of memory needed to apply it.
    pub mem: Option<u64>,
    /// Further properties, for the format to define.
    pub more: Vec<(String, String)>,
}

/// A key with the name that roles use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    /// The key.
    pub key: PublicKey,
    /// Its name in this trust statement.
    pub name: String,
}

/// Who may sign statements of a kind in some channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The kind.
    pub kind: Kind,
    /// The channels; of several roles that match, the most specific one alone counts.
    pub pattern: Pattern,
    /// How many distinct keys must sign.
    pub threshold: usize,
    /// The names of the keys that may.
    pub names: Vec<String>,
}

/// A statement that is part of its channel's log by decree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The channel.
    pub channel: Channel,
    /// Serial and id.
    pub head: Head,
}

/// Channels that are closed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which.
    pub pattern: Pattern,
    /// Which of these are not.
    pub except: Vec<Channel>,
}
