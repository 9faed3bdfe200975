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
    /// A statement is of the channel that was asked for.
    Channel = "1-20";
    /// It lies in the namespace of the anchor; trust statements lie in the namespace's trust log.
    Namespace = "1-21";
    /// The trust that it was signed under is known.
    NewerTrust = "1-22";
    /// A role allows its kind in its channel.
    NoRole = "1-23";
    /// As many distinct keys of the role as its threshold says have signed.
    Threshold = "1-24";
    /// The trust statement at the anchor's serial is the anchor's.
    Anchor = "1-25";
    /// A trust statement follows the one in force.
    TrustOrder = "1-26";
    /// A trust statement keeps what its predecessor has closed.
    StaysClosed = "1-27";
    /// Consecutive statements name each other's ids.
    Link = "1-28";
    /// A statement agrees with the checkpoint of its channel.
    Checkpoint = "1-29";
    /// A critical field is understood.
    Critical = "1-30";
    /// The channel is not closed.
    Closed = "1-31";
    /// A beat is not of the future.
    BeatFuture = "2-1";
    /// A log is read from where a checkpoint or a beat decides.
    ReadFrom = "2-2";
    /// Two statements for one place stop a channel.
    Fork = "2-3";
    /// The trust in force has not expired.
    Expired = "2-4";
    /// The channel is current.
    NotCurrent = "2-5";
    /// No withdrawal counts against the release.
    Withdrawn = "2-6";
    /// The log at hand reaches from the release to the head.
    LogEnds = "2-7";
    /// The barrier comes first.
    Barrier = "2-8";
    /// What a checkpoint names is at hand.
    Unsettled = "2-9";
    /// The trust log is read first.
    NoTrust = "2-10";
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spec {}", self.number())
    }
}
