//! A device: asks, or is told, with one cursor, and believes nobody.

use std::{path::PathBuf, time::Duration};

use async_stream::stream;
use futures_core::Stream;
use tidings_protocol::{
    Channel, Head, Serial, Statement, Verified,
    log::{self, Place},
    rollout,
    trust::Trust,
    verify::VerifyError,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    Connection, Error, Source, State,
    limits::{ASK, AUDIT, BACKLOG_OCTETS, POLL, WATCH_WORTHWHILE},
    source::walk_trust,
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

/// How often a device asks; each pause is drawn from half of it to the whole.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Where it cannot be told.
    pub poll: Duration,
    /// Although it is being told, so that a connection that only looks alive hides nothing for long.
    pub audit: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { poll: POLL, audit: AUDIT }
    }
}

/// What brokers have answered: what is new in each channel, verified, and what is wrong with others.
struct Asked {
    news: Vec<(Channel, Vec<Verified<Statement>>)>,
    failed: Vec<(Channel, Error)>,
    /// Why the last broker could not be used, if channels still wait.
    unreachable: Option<Error>,
}

/// Follows some channels of one namespace.
pub struct Device {
    source: Source,
    state: State,
    channels: Vec<Channel>,
    connection: Option<Connection>,
    start: Start,
    pace: Pace,
    by_hand: bool,
}

impl Device {
    /// A device whose state is kept in a file.
    ///
    /// # Errors
    /// If a channel is none or outside the namespace, or the state file cannot be used.
    pub fn open<'a>(source: Source, channels: impl IntoIterator<Item = &'a str>, state: impl Into<PathBuf>) -> Result<Self, Error> {
        let state = State::open(state, source.anchor())?;
        Self::with_state(source, channels, state)
    }

    /// A device with a state that was opened before, or that ends with the process.
    ///
    /// # Errors
    /// If a channel is none or outside the namespace.
    pub fn with_state<'a>(source: Source, channels: impl IntoIterator<Item = &'a str>, state: State) -> Result<Self, Error> {
        let channels = channels.into_iter().map(str::parse).collect::<Result<Vec<Channel>, _>>()?;
        let namespace = &source.anchor().namespace;
        if let Some(channel) = channels.iter().find(|c| !namespace.contains(c)) {
            return Err(Error::Namespace { channel: channel.clone(), namespace: namespace.clone() });
        }
        Ok(Self { source, state, channels, connection: None, start: Start::default(), pace: Pace::default(), by_hand: false })
    }

    /// Where unknown channels begin.
    #[must_use]
    pub fn with_start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// How often it asks.
    #[must_use]
    pub fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// [`Device::poll`] does not write the state file; [`Device::save`] does, when what was learnt is in safe hands.
    #[must_use]
    pub fn with_saving_by_hand(self) -> Self {
        Self { by_hand: true, ..self }
    }

    /// Writes the state file now.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self) -> Result<(), Error> {
        Ok(self.state.save()?)
    }

    /// What it knows for certain.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The trust in force, brought up to date first.
    ///
    /// # Errors
    /// If the broker that is first now cannot be used.
    pub async fn trust(&mut self) -> Result<&Trust, Error> {
        let connection = self.connect().await?;
        self.connection = Some(connection);
        self.trusted()
    }

    /// A connection whose broker's trust log was walked to its end.
    async fn connect(&mut self) -> Result<Connection, Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.source.connect().await?,
        };
        let known = self.state.trust.as_ref().map(Trust::serial);
        let trust = walk_trust(&mut connection, self.source.anchor(), self.state.trust.clone()).await?;
        if known != Some(trust.serial()) {
            self.state.set_trust(trust);
            self.state.save()?;
        }
        Ok(connection)
    }

    /// Asks once: what is new in all channels, oldest first in each. Every broker is tried once, the last good one first;
    /// a channel that cannot be verified, or is forked, does not keep back what is new in the others.
    ///
    /// When this returns, the state file has it, unless it is saved by hand. Cancel safe: what was not returned comes again.
    ///
    /// # Errors
    /// If nothing is new, and a channel is forked or no broker could be used for it.
    pub async fn poll(&mut self) -> Result<Vec<Verified<Statement>>, Error> {
        let Asked { news, failed, unreachable } = self.ask_brokers().await;
        // Nothing is awaited between this and the answer.
        let newest = news.iter().filter_map(|(_, run)| run.last());
        if self.by_hand {
            self.state.note(newest)
        } else {
            self.state.advance(newest)?
        }
        let news: Vec<_> = news.into_iter().flat_map(|(_, run)| run).collect();
        match failed.into_iter().map(|(_, error)| error).chain(unreachable).next() {
            Some(error) if news.is_empty() => Err(error),
            _ => Ok(news),
        }
    }

    /// Asks brokers in turn until every channel has its answer. The cursor stays where it is.
    async fn ask_brokers(&mut self) -> Asked {
        let mut asked = Asked { news: Vec::new(), failed: Vec::new(), unreachable: None };
        let mut waiting = self.channels.clone();
        for _ in 0..self.source.brokers.len() {
            let mut reused = self.connection.is_some();
            loop {
                let answer = timeout(ASK, self.ask_one(&mut waiting, &mut asked)).await.unwrap_or(Err(Error::Silent(ASK)));
                match answer {
                    Ok(()) if waiting.is_empty() => {
                        asked.unreachable = None;
                        return asked;
                    }
                    Ok(()) => {}
                    // A connection that was kept may have been closed meanwhile: that says nothing about the broker.
                    Err(_) if reused => {
                        (reused, self.connection) = (false, None);
                        continue;
                    }
                    Err(error) => {
                        let address = self.source.address().clone();
                        tracing::debug!(broker = %address, %error, "this broker cannot be used");
                        asked.unreachable = Some(Error::Unreachable { address, source: Box::new(error) });
                    }
                }
                break;
            }
            self.connection = None;
            self.source.turn();
        }
        asked
    }

    /// Asks the broker that is first now for the channels that still wait; those that need no other broker wait no more.
    async fn ask_one(&mut self, waiting: &mut Vec<Channel>, asked: &mut Asked) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        for channel in waiting.clone() {
            match self.ask_channel(&mut connection, &channel).await {
                Ok(run) => {
                    asked.failed.retain(|(failed, _)| *failed != channel);
                    waiting.retain(|c| *c != channel);
                    if !run.is_empty() {
                        asked.news.push((channel, run));
                    }
                }
                Err(error @ Error::Fork { .. }) => {
                    waiting.retain(|c| *c != channel);
                    asked.failed.push((channel, error));
                }
                Err(error @ Error::Verify { .. }) => {
                    let address = self.source.address().clone();
                    asked.failed.retain(|(failed, _)| *failed != channel);
                    asked.failed.push((channel, Error::Unreachable { address, source: Box::new(error) }));
                }
                Err(error) => return Err(error),
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    async fn ask_channel(&self, connection: &mut Connection, channel: &Channel) -> Result<Vec<Verified<Statement>>, Error> {
        let known = self.state.head(channel);
        // A channel that is not there yet, or a mirror that is behind, is no error (attack 24).
        let Some((group, id)) = connection.group(channel, known.map(|h| h.serial)).await? else { return Ok(vec![]) };
        let from = match known {
            Some(head) => {
                let here = format!("{}", tidings_protocol::MessageId { channel: channel.clone(), serial: head.serial, id: head.id });
                if id.is_some_and(|id| id != here) {
                    self.look_at_other(connection, channel, head).await?;
                }
                (head.serial.number() + 1).max(group.low)
            }
            None if self.start == Start::Newest => group.high,
            None => group.low,
        };
        if from > group.high {
            return Ok(vec![]);
        }
        let run = connection.articles(channel, from..=group.high, BACKLOG_OCTETS).await?;
        self.verify(channel, run)
    }

    /// The broker has another statement where ours is the head: a lie, or a fork.
    async fn look_at_other(&self, connection: &mut Connection, channel: &Channel, ours: Head) -> Result<(), Error> {
        let serial = ours.serial.number();
        let other = connection.articles(channel, serial..=serial, BACKLOG_OCTETS).await?;
        let Some(statement) = other.into_iter().find(|s| s.id() != ours.id) else { return Ok(()) };
        let theirs = self.trusted()?.verify(statement).map_err(refused(channel, ours.serial))?;
        Err(Error::Fork { ours: ours.id, theirs: Box::new(theirs) })
    }

    fn trusted(&self) -> Result<&Trust, Error> {
        self.state.trust.as_ref().ok_or_else(|| Error::NoTrustLog(self.source.anchor().namespace.trust_log()))
    }

    /// Verifies what follows our head, all or nothing.
    fn verify(&self, channel: &Channel, run: Vec<Statement>) -> Result<Vec<Verified<Statement>>, Error> {
        let news = self.trusted()?.verify_run(channel, run).map_err(|(serial, source)| refused(channel, serial)(source))?;
        let (Some(head), Some(first)) = (self.state.head(channel), news.first()) else { return Ok(news) };
        match log::place(Some(head), first) {
            Place::Fork => Err(Error::Fork { ours: head.id, theirs: Box::new(first.clone()) }),
            // A gap in what a broker has is one only if it has expired there: its low-water mark said so.
            Place::Next | Place::Gap { .. } => Ok(news),
            Place::Known => Ok(vec![]),
        }
    }

    /// The statements of a channel from a serial on up to the newest, whatever the device knows already; verified, but
    /// without moving the cursor.
    ///
    /// # Errors
    /// As [`Device::poll`].
    pub async fn history(&mut self, channel: &Channel, from: Serial) -> Result<Vec<Verified<Statement>>, Error> {
        let mut connection = self.connect().await?;
        let Some((group, _)) = connection.group(channel, None).await? else { return Ok(vec![]) };
        let run = connection.articles(channel, from.number().max(group.low)..=group.high, BACKLOG_OCTETS).await?;
        self.connection = Some(connection);
        self.trusted()?.verify_run(channel, run).map_err(|(serial, source)| refused(channel, serial)(source))
    }

    /// Is told of what is new, for ever: catches up, then watches, and asks where it cannot be told. The cursor is that
    /// of [`Device::poll`]; both can be used in turn. Dropping the stream ends the watch.
    ///
    /// The state file has a statement when the next one is asked for, or after [`Device::save`]: what was not dealt with
    /// before a crash comes again.
    ///
    /// Errors are items: the stream goes on behind them with growing pauses and other brokers.
    pub fn watch(&mut self) -> impl Stream<Item = Result<Verified<Statement>, Error>> + '_ {
        stream! {
            let mut pauses = Source::pauses();
            loop {
                let Asked { news, failed, unreachable } = self.ask_brokers().await;
                for statement in news.into_iter().flat_map(|(_, run)| run) {
                    self.state.note([&statement]);
                    yield Ok(statement);
                    if let Err(error) = self.state.save() {
                        yield Err(error.into());
                    }
                }
                let (bad, errors): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
                for error in errors.into_iter().chain(unreachable) {
                    yield Err(error);
                }
                let began = Instant::now();
                let mut told_something = false;
                match self.begin_watch(&bad).await {
                    Ok(Some((mut connection, promised))) => {
                        // Unknown channels are watched by name, and could begin just before the watch does: ask soon.
                        let unknown = self.channels.iter().any(|c| self.state.head(c).is_none());
                        let audit = if unknown { self.pace.poll.min(self.pace.audit) } else { self.pace.audit };
                        let until = began + jitter(audit);
                        while let Ok(told) = timeout_at(until, self.told(&mut connection, promised)).await {
                            match told {
                                Ok(Some(statement)) => {
                                    told_something = true;
                                    yield Ok(statement);
                                    if let Err(error) = self.state.save() {
                                        yield Err(error.into());
                                    }
                                }
                                Ok(None) => break,
                                Err(error) => {
                                    yield Err(error);
                                    break;
                                }
                            }
                        }
                        told_something |= Instant::now() >= until;
                    }
                    // It has no XWATCH, or no room: ask again later.
                    Ok(None) if self.connection.is_some() => {
                        sleep(jitter(self.pace.poll)).await;
                        continue;
                    }
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "cannot watch"),
                }
                // The next connection goes to another broker, if there is one; at once only if this one was of use.
                self.connection = None;
                self.source.turn();
                if told_something || began.elapsed() > WATCH_WORTHWHILE {
                    pauses = Source::pauses();
                } else {
                    sleep(pauses.next().unwrap_or(POLL)).await;
                }
            }
        }
    }

    /// A connection that watches, and the longest silence that its broker promises.
    async fn begin_watch(&mut self, without: &[Channel]) -> Result<Option<(Connection, Duration)>, Error> {
        let Some(mut connection) = self.connection.take() else { return Ok(None) };
        if connection.is_capable("XWATCH").await? {
            let trust_log = self.source.anchor().namespace.trust_log();
            let mut targets = vec![format!("{trust_log}:{}", self.trusted()?.serial())];
            for channel in self.channels.iter().filter(|c| !without.contains(c)) {
                targets.push(match self.state.head(channel) {
                    Some(head) => format!("{channel}:{}", head.serial),
                    // Its name alone is a wildmat: it is sent from its first statement on, once it begins.
                    None => channel.to_string(),
                });
            }
            match connection.watch(&targets.join(" ")).await {
                Ok(promised) => return Ok(Some((connection, promised))),
                Err(Error::Refused(response)) => tracing::debug!(%response, "cannot watch here"),
                Err(error) => return Err(error),
            }
        }
        self.connection = Some(connection);
        Ok(None)
    }

    /// The next statement of the watch that follows our head; none when it is time to ask instead.
    async fn told(&mut self, connection: &mut Connection, promised: Duration) -> Result<Option<Verified<Statement>>, Error> {
        loop {
            let Some(statement) = connection.event(promised).await? else { return Ok(None) };
            let (channel, serial) = (statement.channel().clone(), statement.serial());
            let trust = self.trusted()?;
            if channel == self.source.anchor().namespace.trust_log() {
                if serial > trust.serial() {
                    let next = trust.succeed(statement).map_err(refused(&channel, serial))?;
                    self.state.set_trust(next);
                    self.state.save()?;
                }
                continue;
            }
            if !self.channels.contains(&channel) {
                continue;
            }
            let place = log::place(self.state.head(&channel), &statement);
            let verified = match (place, trust.verify(statement)) {
                (Place::Known, _) => continue,
                // Asking sorts it out: it reads what lies between, from the newest down.
                (Place::Gap { .. }, Ok(_))
                | (_, Err(VerifyError::NewerTrust { .. } | VerifyError::Threshold { .. } | VerifyError::NoRole { .. })) => return Ok(None),
                (_, Err(source)) => return Err(refused(&channel, serial)(source)),
                (Place::Fork, Ok(theirs)) => {
                    let ours = self.state.head(&channel).map_or(theirs.id(), |h| h.id);
                    return Err(Error::Fork { ours, theirs: Box::new(theirs) });
                }
                (Place::Next, Ok(verified)) => verified,
            };
            self.state.note([&verified]);
            return Ok(Some(verified));
        }
    }
}

fn refused(channel: &Channel, serial: Serial) -> impl FnOnce(VerifyError) -> Error + use<> {
    let channel = channel.clone();
    move |source| Error::Verify { channel, serial, source }
}

/// From half of a time to the whole, so that a fleet spreads.
fn jitter(time: Duration) -> Duration {
    let mut octets = [0; 8];
    // Without randomness the time is the whole: later, but not wrong.
    if getrandom::fill(&mut octets).is_err() {
        return time;
    }
    time.mul_f64(0.5 + (u64::from_le_bytes(octets) >> 11) as f64 / (1_u64 << 54) as f64)
}

/// When this device may apply a release (spec section 4.1.3).
pub fn turn(statement: &Verified<Statement>, identity: &str) -> Option<tidings_protocol::Timestamp> {
    let tidings_protocol::statement::Body::Release(release) = statement.body() else { return None };
    release.rollout.as_ref().map(|r| rollout::turn(r, statement.channel(), statement.previous(), identity))
}
