//! The numbered requirements of the specification that something is refused by, as values.

use core::fmt;

macro_rules! requirements {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal;)+) => {
        /// A requirement of the specification; its number is `PART-NUMBER`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Requirement {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Requirement {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its number.
            pub fn number(self) -> &'static str {
                match self {
                    $(Self::$name => $number,)+
                }
            }
        }
    };
}

requirements! {
    /// A statement has the form that the grammar and the rules of its fields ask for; nothing is
    /// repaired.
    Grammar = "1-8";
    /// A critical field is understood.
    Critical = "1-13";
    /// A role allows its kind in its channel.
    NoRole = "1-14";
    /// As many distinct keys of the role as its threshold says have signed.
    Threshold = "1-15";
    /// The trust statement at the anchor's serial is the anchor's.
    Anchor = "1-16";
    /// A trust statement follows the one in force.
    TrustOrder = "1-17";
    /// A trust statement keeps what its predecessor has closed.
    StaysClosed = "1-18";
    /// The trust log is read first.
    NoTrust = "1-19";
    /// A statement is of the channel that was asked for.
    Channel = "1-20";
    /// It lies in the namespace of the anchor; trust statements lie in the namespace's trust log.
    Namespace = "1-21";
    /// The channel is not closed.
    Closed = "1-22";
    /// The trust that it was signed under is known.
    NewerTrust = "1-23";
    /// A statement agrees with the checkpoint of its channel.
    Checkpoint = "1-24";
    /// Consecutive statements name each other's ids.
    Link = "2-5";
    /// The beat that a checkpoint names is at hand.
    Unsettled = "2-9";
    /// A beat is not of the future.
    BeatFuture = "2-11";
    /// A log is read without holes, and from where a checkpoint or a beat decides.
    ReadFrom = "2-13";
    /// A channel whose checkpoint is another than before is read from there first.
    Restart = "2-14";
    /// Two statements for one place stop a channel.
    Fork = "2-15";
    /// Without beats a fork stops a channel until trust decides.
    Undecided = "2-16";
    /// The trust in force has not expired.
    Expired = "2-24";
    /// The channel is current.
    NotCurrent = "2-25";
    /// A release is the newest that is for this device and due.
    NoRelease = "2-27";
    /// The log at hand reaches from the release to the head.
    LogEnds = "2-28";
    /// The barrier comes first.
    Barrier = "2-31";
    /// Nothing below what was applied is installed.
    BelowApplied = "2-32";
    /// No withdrawal counts against the release.
    Withdrawn = "2-33";
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spec {}", self.number())
    }
}
