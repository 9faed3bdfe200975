//! The release to run: asked immediately before something is applied, and again before the machine
//! goes down for it.

use alloc::{collections::BTreeMap, string::String};

use super::{Now, View, Withdrawal, freshness::Freshness};
use crate::{
    Channel, Head, Requirement, Serial, Statement, Timestamp, Verified, rollout,
    statement::{Body, Release},
    trust::{Settled, Trust},
};

/// What a device is: by this it knows what is for it, and when its turn comes.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// What makes it another one than the rest of the fleet. It is hashed, and never sent.
    pub identity: String,
    /// Its properties, which `Target` and `cohort` name.
    pub properties: BTreeMap<String, String>,
}

impl Profile {
    /// Whether a release is for this device: all selectors of one of its targets match, or it has
    /// no target.
    pub fn matches(&self, release: &Release) -> bool {
        let is = |(key, value): &(String, String)| self.properties.get(key) == Some(value);
        release.targets.is_empty() || release.targets.iter().any(|target| target.iter().all(is))
    }

    /// From when on this device may apply a release: `Not-Before`, and its turn in the rollout
    /// unless the deadline comes first.
    pub fn due(&self, statement: &Statement, release: &Release) -> Option<Timestamp> {
        let turn = release.rollout.as_ref().map(|rollout| {
            let cohort = rollout
                .cohort
                .as_ref()
                .and_then(|key| self.properties.get(key));
            let turn = rollout::turn(
                rollout,
                statement.channel(),
                statement.previous(),
                cohort.unwrap_or(&self.identity),
            );
            release.deadline.map_or(turn, |deadline| turn.min(deadline))
        });
        turn.max(release.not_before)
    }
}

/// Why there is no release to run now; [`NotNow::requirement`] says by which requirement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// There is no trust yet.
    #[error("the trust log has to be read first")]
    NoTrust,
    /// The trust in force has expired.
    #[error("the trust in force, {trust}, has expired at {expires}; the namespace has to renew it")]
    Expired {
        /// Its serial.
        trust: Serial,
        /// When.
        expires: Timestamp,
    },
    /// The channel is closed.
    #[error("{channel} is closed for good by trust {trust}")]
    Closed {
        /// The channel.
        channel: Channel,
        /// The trust in force.
        trust: Serial,
    },
    /// What a checkpoint names is not at hand.
    #[error("the checkpoint of this channel stands in beat {0}, which no broker has shown")]
    Unsettled(Serial),
    /// The channel is being read anew.
    #[error("a checkpoint decides what this channel is: it has to be read from {0} on first")]
    Restart(Serial),
    /// Two statements stand in one place, and no beat can decide.
    #[error("the channel is forked, and nobody signs beats for it: a checkpoint has to decide")]
    Undecided,
    /// Forked, behind or stale.
    #[error("{0}")]
    NotCurrent(Freshness),
    /// A part of the log is missing.
    #[error(
        "the log at hand does not have everything from {from} to {head}: the broker is behind, or hides something"
    )]
    LogEnds {
        /// The lowest serial that is wanted.
        from: Serial,
        /// The head.
        head: Serial,
    },
    /// It was called back.
    #[error("{release} was withdrawn by {by}: {reason}")]
    Withdrawn {
        /// The serial of the release.
        release: Serial,
        /// The serial of the withdrawal.
        by: Serial,
        /// Why.
        reason: String,
    },
    /// It has a field that must be understood.
    #[error(
        "{release} calls the field {field:?} critical, which this version does not know; a newer Tidings is needed"
    )]
    Critical {
        /// The serial of the release.
        release: Serial,
        /// The field.
        field: String,
    },
    /// Its barrier is no release for this device.
    #[error(
        "{release} asks for {barrier} to be applied first, which is no release for this device"
    )]
    Barrier {
        /// The serial of the release.
        release: Serial,
        /// What it names.
        barrier: Serial,
    },
    /// Another release is the one to run, or none.
    #[error("{asked} is not the release to run now{}", other(*.run))]
    Other {
        /// What was asked for.
        asked: Serial,
        /// What is to be run.
        run: Option<Serial>,
    },
    /// Its barrier is not due.
    #[error("{release} asks for {barrier} to be applied first, which is not due before {due}")]
    BarrierNotDue {
        /// The serial of the release.
        release: Serial,
        /// What it names.
        barrier: Serial,
        /// When it is.
        due: Timestamp,
    },
}

fn other(run: Option<Serial>) -> String {
    run.map_or_else(String::new, |run| alloc::format!("; {run} is"))
}

impl NotNow {
    /// The requirement that it is refused by.
    pub fn requirement(&self) -> Requirement {
        match self {
            Self::NoTrust => Requirement::NoTrust,
            Self::Expired { .. } => Requirement::Expired,
            Self::Closed { .. } => Requirement::Closed,
            Self::Unsettled(_) => Requirement::Unsettled,
            Self::Restart(_) => Requirement::Restart,
            Self::Undecided => Requirement::Undecided,
            Self::NotCurrent(_) => Requirement::NotCurrent,
            Self::LogEnds { .. } => Requirement::LogEnds,
            Self::Withdrawn { .. } => Requirement::Withdrawn,
            Self::Critical { .. } => Requirement::Critical,
            Self::Other { .. } => Requirement::NoRelease,
            Self::Barrier { .. } | Self::BarrierNotDue { .. } => Requirement::Barrier,
        }
    }
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "made once for each look, and taken apart at once"
)]
pub enum Clear {
    /// This release is to be applied.
    Apply(Verified<Statement>),
    /// What was applied last is the release to run; none if there is none for this device yet.
    Nothing {
        /// The serial that was applied last.
        applied: Option<Serial>,
        /// When the next release that is known becomes due.
        next: Option<(Serial, Timestamp)>,
    },
}

impl View {
    /// The release to run in a channel: the newest that the live beat covers, that is for this
    /// device and due; or what it asks to be applied first. `log` is what was read this moment:
    /// proven, oldest first, up to the head.
    ///
    /// # Errors
    /// Why there is none.
    pub fn clear(
        &self,
        channel: &Channel,
        log: &[Verified<Statement>],
        profile: &Profile,
        now: &Now,
    ) -> Result<Clear, NotNow> {
        let cover = self.cover(channel, now)?;
        let time = self.time(channel, now);
        let lowest = log.first().map_or(cover.serial, |first| first.serial());
        let ends = |from: Serial| NotNow::LogEnds {
            from,
            head: cover.serial,
        };
        let complete = log.last().map(|last| last.head()) == self.head(channel)
            && log.iter().any(|s| s.head() == cover);
        if !complete {
            return Err(ends(cover.serial));
        }
        let applied = self.applied_in(channel, log);
        let covered = log
            .iter()
            .rev()
            .filter(|statement| statement.serial() <= cover.serial)
            .take_while(|statement| Some(statement.serial()) >= applied);
        let (found, next) = newest_due(covered, profile, time);
        let Some((mut statement, mut release)) = found else {
            // Nothing below what was applied is cleared, so that the log need not reach further.
            let reaches =
                lowest == Serial::FIRST || applied.is_some_and(|applied| lowest <= applied);
            return if reaches {
                Ok(Clear::Nothing { applied, next })
            } else {
                Err(ends(Serial::FIRST))
            };
        };
        loop {
            self.check_stopped(statement, log)?;
            let Some(barrier) = release.barrier.filter(|barrier| applied < Some(*barrier)) else {
                break;
            };
            if barrier < lowest {
                return Err(ends(barrier));
            }
            (statement, release) = at_barrier(statement.serial(), barrier, log, profile, time)?;
        }
        // Another statement of that serial is another release.
        let known = self.known(channel).and_then(|known| known.applied.as_ref());
        let done = known.map_or(applied == Some(statement.serial()), |known| {
            applied.is_some() && known.head() == statement.head()
        });
        if done {
            return Ok(Clear::Nothing { applied, next });
        }
        Ok(Clear::Apply(statement.clone()))
    }

    /// Whether what was begun may be finished although another release would be chosen now: the
    /// channel is as it has to be for any, `log` has the release and all that lies above it up to
    /// the head, and nothing withdraws it.
    ///
    /// # Errors
    /// Why not.
    pub fn may_finish(
        &self,
        statement: &Statement,
        log: &[Verified<Statement>],
        now: &Now,
    ) -> Result<(), NotNow> {
        let (channel, serial) = (statement.channel(), statement.serial());
        self.cover(channel, now)?;
        let head = self.head(channel);
        let there = log.iter().any(|there| there.head() == statement.head());
        if !there || log.last().map(|last| last.head()) != head {
            return Err(NotNow::LogEnds {
                from: serial,
                head: head.map_or(serial, |head| head.serial),
            });
        }
        self.check_stopped(statement, log)
    }

    fn check_trust(&self, channel: &Channel, now: &Now) -> Result<&Trust, NotNow> {
        let trust = self.trust().ok_or(NotNow::NoTrust)?;
        if trust.rules().is_closed(channel) {
            return Err(NotNow::Closed {
                channel: channel.clone(),
                trust: trust.serial(),
            });
        }
        if trust.is_expired(self.time(channel, now)) {
            return Err(NotNow::Expired {
                trust: trust.serial(),
                expires: trust.rules().expires,
            });
        }
        Ok(trust)
    }

    /// The last statement that may be installed from: what the live beat names, or the head where
    /// nobody promises beats.
    fn cover(&self, channel: &Channel, now: &Now) -> Result<Head, NotNow> {
        let trust = self.check_trust(channel, now)?;
        if let Settled::Missing(beat) = trust.checkpoint(channel) {
            return Err(NotNow::Unsettled(beat.serial));
        }
        if let Some(from) = self.restart(channel) {
            return Err(NotNow::Restart(from));
        }
        let freshness = self.freshness(channel, now);
        let head = self.head(channel).ok_or(NotNow::NotCurrent(freshness))?;
        if trust.beat_channel(channel).is_some() {
            let live = self.live(channel, now).map(|(named, _)| named);
            return live
                .filter(|_| freshness.is_current())
                .ok_or(NotNow::NotCurrent(freshness));
        }
        if freshness == Freshness::Forked {
            Err(NotNow::Undecided)
        } else {
            Ok(head)
        }
    }

    /// The serial of the release that was applied last, while it is proven: by its own signatures,
    /// in its place in the log, or as checkpoint. Before anything was applied it is that which the
    /// image came with.
    fn applied_in(&self, channel: &Channel, log: &[Verified<Statement>]) -> Option<Serial> {
        let known = self.known(channel)?;
        let Some(applied) = &known.applied else {
            return known.came_with;
        };
        let trust = self.trust()?;
        let linked = log
            .iter()
            .any(|statement| statement.head() == applied.head());
        let settled = trust.checkpoint(channel).head() == Some(applied.head());
        (linked || settled || trust.meets(applied)).then(|| applied.serial())
    }

    fn check_stopped(
        &self,
        statement: &Statement,
        log: &[Verified<Statement>],
    ) -> Result<(), NotNow> {
        #[cfg(feature = "simulated")]
        if crate::simulated::has(crate::simulated::Fault::Withdrawals) {
            return Ok(());
        }
        let release = statement.serial();
        let mut here = log
            .iter()
            .filter_map(|by| Withdrawal::of(by))
            .filter(|by| by.release == statement.head());
        if let Some(Withdrawal { by, reason, .. }) =
            here.next().or_else(|| self.withdrawn(statement).cloned())
        {
            return Err(NotNow::Withdrawn {
                release,
                by,
                reason,
            });
        }
        match statement.unknown_critical() {
            Some(field) => Err(NotNow::Critical {
                release,
                field: field.into(),
            }),
            None => Ok(()),
        }
    }

    /// The withdrawal that is kept against a release.
    pub fn withdrawn(&self, release: &Statement) -> Option<&Withdrawal> {
        let kept = &self.known(release.channel())?.withdrawals;
        kept.iter().find(|kept| kept.release == release.head())
    }
}

/// A release in a log.
type Found<'a> = (&'a Verified<Statement>, &'a Release);

/// Of statements from the newest on, the first release that is for this device and due; and the
/// last of those before it that are not due yet, with when they are.
fn newest_due<'a>(
    statements: impl Iterator<Item = &'a Verified<Statement>>,
    profile: &Profile,
    time: Timestamp,
) -> (Option<Found<'a>>, Option<(Serial, Timestamp)>) {
    let mut next = None;
    for statement in statements {
        let Body::Release(release) = statement.body() else {
            continue;
        };
        if !profile.matches(release) {
            continue;
        }
        match profile.due(statement, release).filter(|due| *due > time) {
            Some(due) => next = Some((statement.serial(), due)),
            None => return (Some((statement, release)), next),
        }
    }
    (None, next)
}

/// The release at a barrier, which is to be applied first.
fn at_barrier<'a>(
    release: Serial,
    barrier: Serial,
    log: &'a [Verified<Statement>],
    profile: &Profile,
    time: Timestamp,
) -> Result<Found<'a>, NotNow> {
    let wrong = || NotNow::Barrier { release, barrier };
    let there = log
        .iter()
        .find(|statement| statement.serial() == barrier)
        .ok_or_else(wrong)?;
    let Body::Release(first) = there.body() else {
        return Err(wrong());
    };
    if !profile.matches(first) {
        return Err(wrong());
    }
    match profile.due(there, first).filter(|due| *due > time) {
        Some(due) => Err(NotNow::BarrierNotDue {
            release,
            barrier,
            due,
        }),
        None => Ok((there, first)),
    }
}
