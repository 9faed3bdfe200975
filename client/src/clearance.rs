//! Applying a release: the head is looked at again immediately before, whether the agent thinks of it or not.

use std::ops::Deref;

use tidings_protocol::{Channel, Serial, Statement, Verified, view::clearance::NotNow};
use tokio::time::timeout;

use crate::{Device, Error, asking::refused, limits::BACKLOG_OCTETS};

/// A release that may be applied now. Only [`Device::apply`] hands one out, and only for as long as its closure runs.
pub struct Clearance<'a> {
    device: &'a mut Device,
    statement: Verified<Statement>,
}

impl Clearance<'_> {
    /// Looks again: before the machine goes down, or after a long fetch ([4.2-1], attack 81).
    ///
    /// # Errors
    /// As [`Device::apply`]: stop then.
    pub async fn confirm(&mut self) -> Result<(), Error> {
        let (channel, serial) = (self.statement.channel().clone(), self.statement.serial());
        self.device.clear(&channel, serial).await.map(drop)
    }
}

impl Deref for Clearance<'_> {
    type Target = Verified<Statement>;
    fn deref(&self) -> &Verified<Statement> {
        &self.statement
    }
}

impl Device {
    /// Applies a release, if it may be applied now: asks brokers this moment, and goes through the steps of spec
    /// section 5.6. There is no other way to a [`Clearance`]. When `how` ends well the serial is kept as applied.
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
    /// [`Error::NotNow`] says which step refuses; otherwise what kept brokers from answering, or the error of `how`.
    pub async fn apply<T, E: From<Error>>(
        &mut self,
        channel: &Channel,
        serial: Serial,
        how: impl AsyncFnOnce(&mut Clearance<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let statement = self.clear(channel, serial).await?;
        let result = how(&mut Clearance { device: self, statement }).await?;
        self.note_applied(channel, serial)?;
        Ok(result)
    }

    /// Whether a release may be applied now, for somebody who only wants to know; [`Device::apply`] asks again.
    ///
    /// # Errors
    /// As [`Device::apply`].
    pub async fn may_apply(&mut self, channel: &Channel, serial: Serial) -> Result<(), Error> {
        self.clear(channel, serial).await.map(drop)
    }

    /// Keeps that a release is applied: after the reboot that it needed, or since the machine came with it.
    ///
    /// # Errors
    /// If the state file cannot be written.
    pub fn note_applied(&mut self, channel: &Channel, serial: Serial) -> Result<(), Error> {
        Ok(self.state.note_applied(channel, serial)?)
    }

    /// As many brokers as [`Device::with_quorum`] asks for must agree; those that are behind or lie are passed over, but
    /// one that proves a fork or shows a withdrawal is enough to stop (attacks 29 and 81).
    pub(crate) async fn clear(&mut self, channel: &Channel, serial: Serial) -> Result<Verified<Statement>, Error> {
        let mut agreed = 0;
        let mut failed = None;
        // One that was kept may be closed by now, after a long installation for one.
        self.connection = None;
        for _ in 0..self.source.brokers.len() {
            let ask = self.pace.ask;
            match timeout(ask, self.clear_one(channel, serial)).await.unwrap_or(Err(Error::Silent(ask))) {
                Ok(statement) => {
                    agreed += 1;
                    if agreed >= self.quorum {
                        return Ok(statement);
                    }
                }
                Err(Error::Fork(fork)) => {
                    self.state.change(|view| view.note_fork((*fork).clone()));
                    self.state.save_learnt()?;
                    return Err(Error::Fork(fork));
                }
                Err(error @ Error::NotNow { .. }) => {
                    let Error::NotNow { reason, .. } = &error else { return Err(error) };
                    let another_may_know_better =
                        matches!(**reason, NotNow::Incomplete { .. } | NotNow::NotCurrent(_) | NotNow::Refused(_));
                    if !another_may_know_better {
                        return Err(error);
                    }
                    failed = Some(error);
                }
                Err(error) => {
                    self.connection = None;
                    failed = Some(Error::Unreachable { address: self.source.address().clone(), source: Box::new(error) });
                }
            }
            if self.source.brokers.len() > 1 {
                self.connection = None;
                self.source.turn();
            }
        }
        match failed {
            Some(error) if agreed == 0 => Err(error),
            _ => Err(Error::Quorum { agreed, wanted: self.quorum }),
        }
    }

    async fn clear_one(&mut self, channel: &Channel, serial: Serial) -> Result<Verified<Statement>, Error> {
        if self.quorum > 1 {
            // The very broker that is counted, and none that it has named instead.
            self.connection = Some(self.source.connect().await?);
        }
        let mut connection = self.connect().await?;
        self.ask_beat(&mut connection).await?;
        let not_now = |reason| Error::NotNow { channel: channel.clone(), serial, reason: Box::new(reason) };
        let known = self.state.head(channel).map_or(serial, |head| head.serial);
        let found = connection.group(channel, None).await?;
        let Some((group, _)) = found.filter(|(group, _)| group.low <= serial.number() && group.high >= known.number()) else {
            return Err(not_now(NotNow::Incomplete { from: serial, head: known }));
        };
        let run = connection.articles(channel, serial.number()..=group.high, BACKLOG_OCTETS).await?;
        let cleared = self.state.view().clear(channel, serial, run, self.state.clock(), self.state.now());
        if let Err(NotNow::Withdrawn { by, .. }) = &cleared {
            self.state.change(|view| view.note_stopped(channel, *by));
            self.state.save_learnt()?;
        }
        self.connection = Some(connection);
        cleared.map_err(|reason| match reason {
            NotNow::Refused(refusal @ tidings_protocol::view::Refusal::Fork(_)) => refused(channel, refusal),
            reason => not_now(reason),
        })
    }
}
