//! A device: asks, or is told, with one cursor, and believes nobody.

mod pace;
mod watch;

pub use pace::{Pace, jitter_from};

use std::{collections::BTreeMap, path::PathBuf};

use tidings_protocol::{
    Anchor, Channel, Head, Serial, Statement, Verified,
    trust::Trust,
    view::{News, Now, Refusal, clearance::Profile, freshness::Freshness},
};
use tokio::time::timeout;

use crate::{
    Connection, Error, Monitor, Source, State,
    limits::BACKLOG_OCTETS,
    poll::{Asked, refused},
};

/// Where a channel begins for a device that knows nothing of it yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With its newest statement: what a device wants that only has to be up to date.
    #[default]
    Newest,
    /// With the oldest that the broker has.
    Oldest,
}

/// Follows some channels of one namespace.
pub struct Device {
    pub(crate) source: Source,
    pub(crate) state: State,
    pub(crate) channels: Vec<Channel>,
    pub(crate) connection: Option<Connection>,
    pub(crate) start: Start,
    pub(crate) pace: Pace,
    pub(crate) quorum: usize,
    pub(crate) profile: Profile,
    by_hand: bool,
    /// The last of each channel that was returned; it is noted as delivered when the application
    /// says so.
    pub(crate) returned: BTreeMap<Channel, Head>,
}

impl Device {
    /// A device whose state is kept in a file.
    ///
    /// # Errors
    /// If a channel is none or outside the namespace, or the state file cannot be used.
    pub fn open<'a>(
        source: Source,
        channels: impl IntoIterator<Item = &'a str>,
        state: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        let state = State::open(state, source.anchor())?;
        Self::with_state(source, channels, state)
    }

    /// A device with a state that was opened before, or that ends with the process.
    ///
    /// # Errors
    /// If a channel is none, outside the namespace, or one that every device follows by itself.
    pub fn with_state<'a>(
        source: Source,
        channels: impl IntoIterator<Item = &'a str>,
        state: State,
    ) -> Result<Self, Error> {
        let channels = channels
            .into_iter()
            .map(str::parse)
            .collect::<Result<Vec<Channel>, _>>()?;
        let namespace = &source.anchor().namespace;
        if let Some(channel) = channels.iter().find(|c| !namespace.contains(c)) {
            return Err(Error::Namespace {
                channel: channel.clone(),
                namespace: namespace.clone(),
            });
        }
        if let Some(channel) = channels.iter().find(|c| c.is_trust() || c.is_beat()) {
            return Err(Error::Own(channel.clone()));
        }
        Ok(Self {
            source,
            state,
            channels,
            connection: None,
            start: Start::default(),
            pace: Pace::default(),
            quorum: 1,
            profile: Profile::default(),
            by_hand: false,
            returned: BTreeMap::new(),
        })
    }

    /// Where unknown channels begin.
    #[must_use]
    pub fn with_start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// What this device is: by this it knows which releases are for it, and when its turn comes.
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    /// How often it asks.
    #[must_use]
    pub fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Asks other brokers from now on; what is known stays.
    ///
    /// # Errors
    /// If their anchor is another.
    pub fn set_source(&mut self, source: Source) -> Result<(), Error> {
        if source.anchor() != self.source.anchor() {
            let (path, expected, found) = (
                PathBuf::new(),
                source.anchor().clone(),
                self.source.anchor().to_string(),
            );
            return Err(crate::StateError::OtherAnchor {
                path,
                expected,
                found,
            }
            .into());
        }
        (self.source, self.connection) = (source, None);
        Ok(())
    }

    /// How many brokers must have the same log before [`Device::apply`] goes on: with two or more,
    /// no single one can show this device a log of its own (attack 29). Where there are fewer,
    /// nothing is applied. Two names of one broker count as two.
    #[must_use]
    pub fn with_quorum(self, brokers: usize) -> Self {
        Self {
            quorum: brokers.max(1),
            ..self
        }
    }

    /// What [`Device::poll`] returns is delivered when [`Device::save`] is called, and comes again
    /// otherwise.
    #[must_use]
    pub fn with_saving_by_hand(self) -> Self {
        Self {
            by_hand: true,
            ..self
        }
    }

    /// Notes durably that what was returned has been dealt with.
    ///
    /// # Errors
    /// If the state file cannot be written.
    pub fn save(&mut self) -> Result<(), Error> {
        #[cfg(feature = "simulated")]
        if tidings_protocol::simulated::has(tidings_protocol::simulated::Fault::Delivered) {
            self.returned.clear();
        }
        for (channel, head) in std::mem::take(&mut self.returned) {
            self.state
                .change(|view, _| view.note_delivered(&channel, head));
        }
        Ok(self.state.save()?)
    }

    /// What it knows for certain.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The state of a channel at this moment: CURRENT, BEHIND, STALE or FORKED .
    pub fn freshness(&self, channel: &Channel) -> Freshness {
        self.state.freshness(channel)
    }

    /// Tells the same while this device is busy with [`Device::watch`].
    pub fn monitor(&self) -> Monitor {
        self.state.monitor()
    }

    /// Octets that brokers have sent so far.
    pub fn received(&self) -> u64 {
        self.source.received()
    }

    /// The trust in force, brought up to date first.
    ///
    /// # Errors
    /// If no broker can be used.
    pub async fn trust(&mut self) -> Result<&Trust, Error> {
        self.any(async |device| {
            device.connection = Some(device.connect().await?);
            Ok(())
        })
        .await?;
        self.trusted()
    }

    /// Asks brokers in turn until one has an answer.
    async fn any<T>(
        &mut self,
        ask: impl AsyncFn(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let each = self.pace.ask;
        let mut failed = Error::NoBroker;
        for _ in 0..self.source.brokers.len() {
            match timeout(each, ask(self))
                .await
                .unwrap_or(Err(Error::Silent(each)))
            {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = self.source.passed_over(error),
            }
            self.connection = None;
            self.source.turn();
        }
        Err(failed)
    }

    /// Asks for trust and beats alone, so that [`Device::freshness`] tells how things stand; no
    /// cursor moves.
    ///
    /// # Errors
    /// If no broker can be used.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        let mut result = Err(Error::NoBroker);
        self.connection = None;
        for _ in 0..self.source.brokers.len() {
            let ask = self.pace.ask;
            let one = async {
                let mut connection = self.connect().await?;
                self.ask_beat(&mut connection).await?;
                self.connection = Some(connection);
                Ok(())
            };
            match timeout(ask, one).await.unwrap_or(Err(Error::Silent(ask))) {
                Ok(()) => result = Ok(()),
                Err(error) => {
                    let error = self.source.passed_over(error);
                    result = result.or(Err(error));
                }
            }
            if self
                .channels
                .iter()
                .all(|channel| self.freshness(channel).is_current())
            {
                break;
            }
            self.connection = None;
            self.source.turn();
        }
        result
    }

    /// Asks once: what is new in all channels, oldest first in each. Every broker is tried once,
    /// the last good one first; a channel that cannot be verified, or is forked, does not keep back
    /// what is new in the others.
    ///
    /// When this returns, the state file has it, unless it is saved by hand. Cancel safe: what was
    /// not returned comes again.
    ///
    /// # Errors
    /// If nothing is new, and a channel is forked or no broker could be used for it.
    pub async fn poll(&mut self) -> Result<Vec<Verified<Statement>>, Error> {
        if !self.by_hand && !self.returned.is_empty() {
            self.save()?;
        }
        let Asked {
            news,
            failed,
            unreachable,
            ..
        } = self.ask_brokers().await;
        // Nothing is awaited between this and the answer.
        let news = self.take_news(news)?;
        self.returned.extend(
            news.iter()
                .map(|statement| (statement.channel().clone(), statement.head())),
        );
        if !self.by_hand {
            self.save()?;
        }
        match failed
            .into_iter()
            .map(|(_, error)| error)
            .chain(unreachable)
            .next()
        {
            Some(error) if news.is_empty() => Err(error),
            _ => Ok(news),
        }
    }

    /// What is known moves on at once; what is delivered, when the application has dealt with it.
    fn take_news(&mut self, news: Vec<News>) -> Result<Vec<Verified<Statement>>, Error> {
        if news.is_empty() {
            return Ok(Vec::new());
        }
        self.state.note(&news);
        self.state.save()?;
        Ok(news.into_iter().flat_map(News::into_statements).collect())
    }

    /// The statements of a channel from a serial on up to the newest, whatever the device knows
    /// already; verified, but without moving the cursor.
    ///
    /// # Errors
    /// As [`Device::poll`].
    pub async fn history(
        &mut self,
        channel: &Channel,
        from: Serial,
    ) -> Result<Vec<Verified<Statement>>, Error> {
        let channel = channel.clone();
        self.any(async move |device: &mut Self| device.read_history(&channel, from).await)
            .await
    }

    /// Whether the broker that is asked first has a channel at all, now.
    ///
    /// # Errors
    /// If it cannot be used.
    pub async fn has(&mut self, channel: &Channel) -> Result<bool, Error> {
        let mut connection = self.connect().await?;
        let found = connection.group(channel, None).await?.is_some();
        self.connection = Some(connection);
        Ok(found)
    }

    async fn read_history(
        &mut self,
        channel: &Channel,
        from: Serial,
    ) -> Result<Vec<Verified<Statement>>, Error> {
        let mut connection = self.connect().await?;
        let Some((group, _)) = connection.group(channel, None).await? else {
            return Ok(vec![]);
        };
        let from = from.number().max(group.low);
        let is_trust_log = *channel == self.source.anchor().namespace.trust_log();
        let first = if is_trust_log { group.low } else { from };
        let run = connection
            .articles(channel, first..=group.high, BACKLOG_OCTETS)
            .await?;
        self.connection = Some(connection);
        if is_trust_log {
            let all = walk_log(self.source.anchor(), run, &self.state.now())?;
            return Ok(all
                .into_iter()
                .filter(|statement| statement.serial().number() >= from)
                .collect());
        }
        let refused = |(serial, source)| refused(channel, Refusal::Verify { serial, source });
        Ok(self
            .trusted()?
            .verify_run(channel, run)
            .map_err(refused)?
            .statements)
    }

    pub(crate) fn trusted(&self) -> Result<&Trust, Error> {
        self.state
            .trust()
            .ok_or_else(|| Error::NoTrustLog(self.source.anchor().namespace.trust_log()))
    }
}

/// A trust log as a broker has it: from the anchor on each step is signed, what lies below is
/// linked.
fn walk_log(
    anchor: &Anchor,
    mut run: Vec<Statement>,
    now: &Now,
) -> Result<Vec<Verified<Statement>>, Error> {
    let log = anchor.namespace.trust_log();
    let refused = |(serial, source)| refused(&log, Refusal::Verify { serial, source });
    let above =
        run.split_off(run.partition_point(|statement| statement.serial() <= anchor.head.serial));
    let mut all = Trust::verify_below(anchor, run).map_err(refused)?;
    // The one that the anchor names is the first that gives rights.
    let above = all.pop().map(Verified::into_inner).into_iter().chain(above);
    let mut walked = tidings_protocol::View::new(anchor.clone());
    for statement in above {
        walked.take_trust([statement], now).map_err(refused)?;
        all.extend(walked.trust().map(|trust| trust.statement().clone()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is awaited in a task that may move to another thread.
    #[test]
    fn a_device_may_be_awaited_in_any_task() {
        fn is_send(_: impl Send) {}
        fn each(device: &mut Device, channel: &Channel) {
            is_send(device.poll());
            is_send(device.trust());
            is_send(device.refresh());
            is_send(device.history(channel, Serial::FIRST));
        }
        let _ = each;
    }
}
