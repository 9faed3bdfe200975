//! Applying a release: the brokers are asked immediately before, whether the agent thinks of it or
//! not.

use std::ops::Deref;

use tidings_protocol::{
    Channel, Serial, Statement, Verified,
    trust::Trust,
    view::clearance::{Clear, NotNow},
};
use tokio::time::timeout;

use crate::{
    Connection, Device, Error,
    limits::BACKLOG_OCTETS,
    poll::{Answer, Asked, refused},
};

/// A release that may be applied now. Only [`Device::apply`] hands one out, and only for as long as
/// its closure runs.
pub struct Clearance<'a> {
    device: &'a mut Device,
    statement: Verified<Statement>,
}

impl Clearance<'_> {
    /// Looks again: before the machine goes down, or after a long fetch (attack 81). What was begun
    /// may be finished, as long as nothing withdraws it.
    ///
    /// # Errors
    /// What is withdrawn, and what keeps brokers from answering: stop then.
    pub async fn confirm(&mut self) -> Result<(), Error> {
        self.device.may_finish(&self.statement).await
    }
}

impl Deref for Clearance<'_> {
    type Target = Verified<Statement>;
    fn deref(&self) -> &Verified<Statement> {
        &self.statement
    }
}

/// How much of a log is read first, at most, where what was applied lies further down.
const STEP: u32 = 256;
/// How much is read first where nothing is known to be applied.
const FEW: u32 = 16;

/// Whether no other broker can say otherwise.
fn is_final(reason: &NotNow) -> bool {
    matches!(
        reason,
        NotNow::Withdrawn { .. } | NotNow::Critical { .. } | NotNow::Closed { .. }
    )
}

impl Device {
    /// The release to run in a channel: brokers are asked this moment. As many as
    /// [`Device::with_quorum`] says must agree; one that shows a withdrawal is enough to stop, and
    /// without beats one that proves a fork (attacks 29 and 81).
    ///
    /// # Errors
    /// [`Error::NotNow`] says why there is none; otherwise what kept brokers from answering.
    pub async fn target(&mut self, channel: &Channel) -> Result<Clear, Error> {
        self.agree(channel, None).await
    }

    /// Applies a release, if it is the release to run. There is no other way to a [`Clearance`].
    /// When `how` ends well it is kept as applied.
    ///
    /// ```no_run
    /// # use tidings_client::{Body, Device, Error, Verified, Statement};
    /// # async fn install(_: &Statement) -> Result<(), Error> { Ok(()) }
    /// # fn reboot() {}
    /// # async fn agent(device: &mut Device, release: Verified<Statement>) -> Result<(), Error> {
    /// device.apply(release.channel(), release.serial(), async |cleared| {
    ///     install(cleared).await?;
    ///     cleared.confirm().await?;
    ///     reboot();
    ///     Ok::<_, Error>(())
    /// }).await
    /// # }
    /// ```
    ///
    /// Cancel safe as far as `how` is.
    ///
    /// # Errors
    /// [`Error::NotNow`] says why it is not to be run; otherwise what kept brokers from answering,
    /// or the error of `how`.
    pub async fn apply<T, E: From<Error>>(
        &mut self,
        channel: &Channel,
        serial: Serial,
        how: impl AsyncFnOnce(&mut Clearance<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let statement = self.may_apply(channel, serial).await?;
        let result = how(&mut Clearance {
            device: self,
            statement: statement.clone(),
        })
        .await?;
        self.note_applied(&statement)?;
        Ok(result)
    }

    /// The release with this serial, if it is the release to run; [`Device::apply`] asks again.
    ///
    /// # Errors
    /// As [`Device::apply`].
    pub async fn may_apply(
        &mut self,
        channel: &Channel,
        serial: Serial,
    ) -> Result<Verified<Statement>, Error> {
        let run = match self.target(channel).await? {
            Clear::Apply(statement) if statement.serial() == serial => return Ok(statement),
            Clear::Apply(statement) => Some(statement.serial()),
            Clear::Nothing { applied, .. } => applied,
        };
        let reason = Box::new(NotNow::Other { asked: serial, run });
        Err(Error::NotNow {
            channel: channel.clone(),
            reason,
        })
    }

    /// Whether what was begun may be finished: nothing withdraws it.
    ///
    /// # Errors
    /// As [`Device::target`].
    pub async fn may_finish(&mut self, statement: &Verified<Statement>) -> Result<(), Error> {
        self.agree(statement.channel(), Some(statement))
            .await
            .map(drop)
    }

    /// Keeps that a release is applied: after the reboot that it needed, or since the machine came
    /// with it.
    ///
    /// # Errors
    /// If the state file cannot be written.
    pub fn note_applied(&mut self, statement: &Verified<Statement>) -> Result<(), Error> {
        self.state.change(|view, _| view.note_applied(statement));
        Ok(self.state.save()?)
    }

    /// Keeps the serial that the machine's image came with, as long as nothing was applied: nothing
    /// below it is installed.
    ///
    /// # Errors
    /// If the state file cannot be written.
    pub fn note_came_with(&mut self, channel: &Channel, serial: Serial) -> Result<(), Error> {
        self.state
            .change(|view, _| view.note_came_with(channel, serial));
        Ok(self.state.save()?)
    }

    /// Keeps as applied what stands at a serial of a channel, as brokers have it.
    ///
    /// # Errors
    /// If none of them has it, or the state file cannot be written.
    pub async fn note_applied_serial(
        &mut self,
        channel: &Channel,
        serial: Serial,
    ) -> Result<(), Error> {
        let history = self.history(channel, serial).await?;
        let missing = || Error::Missing {
            channel: channel.clone(),
            serial: serial.number(),
        };
        let statement = history
            .into_iter()
            .find(|statement| statement.serial() == serial)
            .ok_or_else(missing)?;
        self.note_applied(&statement)
    }

    async fn agree(
        &mut self,
        channel: &Channel,
        begun: Option<&Verified<Statement>>,
    ) -> Result<Clear, Error> {
        let mut agreed: Vec<Clear> = Vec::new();
        let mut failed = None;
        // One that was kept may be closed by now, after a long installation for one.
        self.connection = None;
        for _ in 0..self.source.brokers.len() {
            let ask = self.pace.ask;
            match timeout(ask, self.clear_one(channel, begun))
                .await
                .unwrap_or(Err(Error::Silent(ask)))
            {
                Ok(clear) => {
                    agreed.push(clear);
                    let same = agreed
                        .iter()
                        .filter(|other| Some(*other) == agreed.last())
                        .count();
                    if same >= self.quorum {
                        return agreed.pop().ok_or(Error::NoBroker);
                    }
                }
                Err(Error::Fork(fork)) => {
                    self.state.note_fork(&fork)?;
                    // Another broker may have the live beat that decides; without beats nothing but
                    // trust does.
                    if !self.state.view().promises_beats(channel) {
                        return Err(Error::Fork(fork));
                    }
                    failed = Some(Error::Fork(fork));
                }
                Err(Error::NotNow { channel, reason }) => {
                    let is_final = is_final(&reason);
                    let error = Error::NotNow { channel, reason };
                    if is_final {
                        return Err(error);
                    }
                    failed = Some(error);
                }
                Err(error) => {
                    self.connection = None;
                    failed = Some(self.source.passed_over(error));
                }
            }
            if self.source.brokers.len() > 1 {
                self.connection = None;
                self.source.turn();
            }
        }
        match failed {
            Some(error) if agreed.is_empty() => Err(error),
            _ => Err(Error::Quorum {
                agreed: agreed.len(),
                wanted: self.quorum,
            }),
        }
    }

    /// Brings trust, beats and the channel up to date at one broker, and reads down to the release
    /// to run.
    async fn clear_one(
        &mut self,
        channel: &Channel,
        begun: Option<&Verified<Statement>>,
    ) -> Result<Clear, Error> {
        let mut connection = self.connect().await?;
        self.ask_beat(&mut connection).await?;
        self.catch_up(&mut connection, channel).await?;
        let not_now = |reason| Error::NotNow {
            channel: channel.clone(),
            reason: Box::new(reason),
        };
        let Some(mut head) = self.state.head(channel) else {
            return Err(not_now(NotNow::NotCurrent(self.state.freshness(channel))));
        };
        let group = connection.group(channel, None).await?;
        let group = group.map(|(group, _)| group);
        let Some(group) = group.filter(|group| group.high >= head.serial.number()) else {
            let (from, head) = (head.serial, head.serial);
            return Err(not_now(NotNow::LogEnds { from, head }));
        };
        // What is to be run stands near the head as a rule; if it does not, twice as much is read.
        let mut step = self.reach(channel, head.serial);
        let lowest = begun.map_or(head.serial.number().saturating_sub(step - 1), |begun| {
            begun.serial().number()
        });
        let mut from = lowest.max(group.low);
        loop {
            let run = connection
                .articles(channel, from..=head.serial.number(), BACKLOG_OCTETS)
                .await?;
            let trust = self.state.trust().map(Trust::head);
            let run = self
                .state
                .change(|view, _| view.judge(channel, run))
                .map_err(|refusal| refused(channel, refusal))?;
            // What is decided is decided by all that any program on this machine has met.
            self.state.refresh()?;
            let latest = self.state.head(channel).unwrap_or(head);
            if latest != head || self.state.trust().map(Trust::head) != trust {
                (head, from) = (latest, from.min(latest.serial.number()));
                continue;
            }
            match self.clear_by(&run.statements, channel, begun) {
                Err(NotNow::LogEnds { from: wanted, .. })
                    if wanted.number() < from && from > group.low =>
                {
                    step = step.saturating_mul(2).max(FEW);
                    from = from
                        .saturating_sub(step)
                        .max(group.low)
                        .max(wanted.number());
                }
                cleared => {
                    self.connection = Some(connection);
                    return cleared.map_err(not_now);
                }
            }
        }
    }

    fn clear_by(
        &self,
        run: &[Verified<Statement>],
        channel: &Channel,
        begun: Option<&Verified<Statement>>,
    ) -> Result<Clear, NotNow> {
        let (view, now) = (self.state.view(), self.state.now());
        match begun {
            Some(begun) => view
                .may_finish(begun, run, &now)
                .map(|()| Clear::Apply(begun.clone())),
            None => view.clear(channel, run, &self.profile, &now),
        }
    }

    /// How many statements are read first: nothing below what was applied is cleared, so that the
    /// log need not reach further ([2-23]).
    fn reach(&self, channel: &Channel, head: Serial) -> u32 {
        let known = self.state.view().known(channel);
        let applied = known.and_then(|known| {
            let applied = known.applied.as_ref().map(|statement| statement.serial());
            applied.or(known.came_with)
        });
        applied.map_or(FEW, |applied| {
            // A head that a checkpoint has put below what was applied is read alone.
            let above = head.number().saturating_sub(applied.number());
            above.saturating_add(1).min(STEP)
        })
    }

    /// Takes note of what one broker has of a channel; nothing of it is delivered by this.
    async fn catch_up(
        &mut self,
        connection: &mut Connection,
        channel: &Channel,
    ) -> Result<(), Error> {
        if let Answer::News(news) = self
            .ask_channel(connection, channel, &Asked::default(), false)
            .await?
        {
            self.state.note([&news]);
        }
        Ok(())
    }
}
