//! What statements say, kind by kind (spec part 1).
//!
//! These types are plain data: publishers fill them in for a [`super::Draft`], whose text is then
//! read by the same grammar as everybody else's. Those inside a [`super::Statement`] have passed
//! it.

use alloc::{string::String, vec::Vec};

use crate::{Channel, Digest, Head, Pattern, PublicKey, Serial, Timestamp};

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

impl core::fmt::Display for Kind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
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

/// Something new to install.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// An opaque token; order is by serial, never by version.
    pub version: String,
    /// One line for people.
    pub summary: Option<String>,
    /// Where people can read more.
    pub details: Option<String>,
    /// How soon.
    pub urgency: Urgency,
    /// For whom: any of these; none means all.
    pub targets: Vec<Target>,
    /// The serial that must have been applied first.
    pub barrier: Option<Serial>,
    /// Not to be applied earlier.
    pub not_before: Option<Timestamp>,
    /// To be applied by then at the latest.
    pub deadline: Option<Timestamp>,
    /// The window in which it spreads.
    pub rollout: Option<Rollout>,
    /// The group in which a slot is needed before going down.
    pub slot: Option<String>,
    /// What makes it effective.
    pub apply: Option<Apply>,
    /// The ways to get it.
    pub payloads: Vec<Payload>,
}

/// A release is called back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdraw {
    /// Serial and id of the release: a withdrawal counts against this statement, on whatever branch
    /// it was met.
    pub withdraws: Head,
    /// Why, for people.
    pub reason: String,
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

impl core::fmt::Display for Closed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.pattern)?;
        self.except
            .iter()
            .try_for_each(|channel| write!(f, " {channel}"))
    }
}

/// Who may say what in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustRules {
    /// From then on nothing is installed under this statement; reading goes on.
    pub expires: Timestamp,
    /// The keys.
    pub keys: Vec<NamedKey>,
    /// The roles.
    pub roles: Vec<Role>,
    /// Settled places of logs.
    pub checkpoints: Vec<Checkpoint>,
    /// Channels that are closed for good.
    pub closed: Vec<Closed>,
}

/// What was newest at the statement's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Until then this beat proves that nobody holds news back.
    pub expires: Timestamp,
    /// The heads of the channels it speaks for.
    pub heads: Vec<(Channel, Head)>,
}
