//! The rules, each with a switch, and what everybody goes by.

use crate::facts::{Book, Moment, Serial};

/// Rules that can be switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// S1: signatures are counted.
    Signatures,
    /// S2: a withdrawal proves only itself.
    WithdrawalProvesItself,
    /// The checkpoint settles its place: another statement there is refused.
    CheckpointSettles,
    /// What contradicts our chain at the checkpoint or below is no fork.
    SettledIsNoFork,
    /// S3: a withdrawal that was met is kept, whatever becomes of its branch.
    WithdrawalsKept,
    /// S3: of too many, those of releases that were read are kept first.
    KeepsWhatWasRead,
    /// S3: it counts against an id, not against whatever has the serial.
    WithdrawalById,
    /// S3: it counts whatever becomes of its key.
    WithdrawalStays,
    /// S4: a beat must name the trust in force.
    BeatNamesTrust,
    /// S4: the beat must name our head, or what is below it by links.
    BeatNamesChain,
    /// S5a: another checkpoint makes the device read from there.
    Restart,
    /// S5a: unless links lead down to it from a head that is proven.
    ChainStands,
    /// S5a: so does a head that is not proven any more by its own signatures.
    UnprovenHeadRestarts,
    /// S5a: the head stays until its serial is reached.
    HeadStays,
    /// S5a: unless its own signatures no longer meet their role.
    UnprovenHeadYields,
    /// S5a: or the live beat names what was read.
    BeatEndsRestart,
    /// S5a: until then nothing is installed.
    RestartInstallsNothing,
    /// S5b: the live beat decides between branches.
    BeatDecides,
    /// S5b: also where the links that were read do not reach down to what it names.
    BeatDecidesUnlinked,
    /// S5: without a live beat evidence of a fork stops.
    EvidenceStops,
    /// S7: a beat that a checkpoint names must be at hand.
    BeatAtHand,
    /// S7: a line of the channel's own goes before.
    OwnLineFirst,
    /// S8: no beat of the future.
    NoFutureBeats,
    /// S8: a beat is live for its life from its `Time`.
    LifeFromTime,
    /// S8: and for as long from first sight.
    LifeFromSight,
    /// S8: without a clock, only if it came since the machine started.
    SinceStart,
    /// S8: a clock far behind is none.
    ClockBehindIsNone,
    /// S8: time runs on by the monotonic clock.
    TimeRunsOn,
    /// S9: nothing is cleared that is not CURRENT, where there are beats.
    CurrentOnly,
    /// S9: what the live beat covers.
    Covered,
    /// S9: only what is due hides an older one.
    DueOnly,
    /// S9: none, if a withdrawal counts against it.
    NoneIfWithdrawn,
    /// S9: none, if it has an unknown critical field.
    NoneIfCritical,
    /// S9: nothing below applied.
    NotBelowApplied,
    /// S9: applied counts while it is proven.
    AppliedProven,
    /// S9: the barrier first.
    BarrierFirst,
    /// S11: what was signed is offered first, in later runs too.
    Outbox,
    /// S4: a signer names only what the origin has stored.
    NamesStoredOnly,
    /// S5: above a checkpoint what is no longer proven is filed away.
    FiledAway,
    /// S5: a publisher extends only a proven head.
    ExtendsProven,
    /// S7: each head of a beat is verified before a checkpoint names the beat.
    CeremonyVerifies,
    /// S5: a ceremony that takes a key away puts its checkpoint at the head.
    CheckpointAtHead,
    /// S5: a trust statement under which a withdrawal would be lost is refused.
    WithdrawalsSurvive,
    /// S5: so is one that is filed away, although it is proven still.
    FiledIsLost,
    /// S13: closed channels.
    Closed,
}

/// What everybody goes by.
pub(crate) struct Setting {
    pub(crate) book: Book,
    pub(crate) off: u64,
    /// Whether the device has a clock, and how far it is behind.
    pub(crate) clock: Option<Moment>,
    /// `CHAIN_LINKS`.
    pub(crate) links: Serial,
    /// `WITHDRAWALS_KEPT`.
    pub(crate) kept: usize,
    /// Whether nobody asked has what lies in a hole, so that it is accepted (6-2).
    pub(crate) holes: bool,
}

impl Setting {
    pub(crate) fn new(clock: Option<Moment>) -> Self {
        Self {
            book: Book::default(),
            off: 0,
            clock,
            links: 64,
            kept: 8,
            holes: false,
        }
    }
    #[must_use]
    pub(crate) fn without(self, rule: Rule) -> Self {
        Self {
            off: self.off | 1 << rule as u64,
            ..self
        }
    }
    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.off & (1 << rule as u64) == 0
    }
}
