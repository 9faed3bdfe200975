//! A device: asks, or is told, with one cursor, and believes nobody.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_stream::stream;
use futures_core::Stream;
use tidings_protocol::{
    Anchor, Channel, Head, Serial, Statement, Verified,
    article::Incoming,
    log::{self, Place},
    statement::Kind,
    trust::Trust,
    verify::VerifyError,
    view::{News, Now, Refusal, clearance::Profile, freshness::Freshness},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    Connection, Error, Monitor, Source, State, chance,
    limits::{ASK, AUDIT, BACKLOG_OCTETS, POLL, WATCH_WORTHWHILE},
    poll::{Asked, refused},
    source::{pauses, warn_of_critical},
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
    /// Although it is being told, so that a connection that only looks alive hides nothing for
    /// long.
    pub audit: Duration,
    /// How long asking one broker for everything may take, before the next one is tried (attack
    /// 19).
    pub ask: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: POLL,
            audit: AUDIT,
            ask: ASK,
        }
    }
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
        let ask = self.pace.ask;
        let mut failed = Error::NoBroker;
        for _ in 0..self.source.brokers.len() {
            match timeout(ask, self.connect())
                .await
                .unwrap_or(Err(Error::Silent(ask)))
            {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return self.trusted();
                }
                Err(error) => failed = self.source.passed_over(error),
            }
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
        let ask = self.pace.ask;
        let mut failed = Error::NoBroker;
        for _ in 0..self.source.brokers.len() {
            match timeout(ask, self.read_history(channel, from))
                .await
                .unwrap_or(Err(Error::Silent(ask)))
            {
                Ok(history) => return Ok(history),
                Err(error) => failed = self.source.passed_over(error),
            }
            self.connection = None;
            self.source.turn();
        }
        Err(failed)
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

    /// Is told of what is new, for ever: catches up, then watches, and asks where it cannot be
    /// told. The cursor is that of [`Device::poll`]; both can be used in turn. Dropping the stream
    /// ends the watch.
    ///
    /// The state file has a statement when the next one is asked for, or after [`Device::save`]:
    /// what was not dealt with before a crash comes again.
    ///
    /// Errors are items: the stream goes on behind them with growing pauses and other brokers.
    pub fn watch(&mut self) -> impl Stream<Item = Result<Verified<Statement>, Error>> + '_ {
        stream! {
            let mut waits = pauses();
            loop {
                // Whoever asks for more has dealt with what was returned.
                if !self.returned.is_empty() && let Err(error) = self.save() {
                    yield Err(error);
                }
                let Asked { news, failed, unreachable, .. } = self.ask_brokers().await;
                match self.take_news(news) {
                    Err(error) => yield Err(error),
                    Ok(news) => {
                        for statement in news {
                            self.returned.insert(statement.channel().clone(), statement.head());
                            yield Ok(statement);
                            if let Err(error) = self.save() {
                                yield Err(error);
                            }
                        }
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
                        // Unknown channels are watched by name, and could begin just before the
                        // watch does: ask soon.
                        let unknown = self.channels.iter().any(|c| self.state.head(c).is_none());
                        let audit = if unknown { self.pace.poll.min(self.pace.audit) } else { self.pace.audit };
                        let audit = jitter(audit);
                        let mut until = began + audit.min(self.until_stale());
                        while let Ok(told) = timeout_at(until, self.told(&mut connection, promised)).await {
                            match told {
                                Ok(Some(Told::Beat)) => {
                                    let next = (began + audit).min(Instant::now() + self.until_stale());
                                    let current = self.channels.iter().all(|channel| self.state.freshness(channel).is_current());
                                    // A beat that makes nothing current, a replayed one for
                                    // instance, puts nothing off.
                                    until = if current { next } else { until.min(next) };
                                }
                                Ok(Some(Told::Statement(statement))) => {
                                    told_something = true;
                                    self.returned.insert(statement.channel().clone(), statement.head());
                                    yield Ok(*statement);
                                    if let Err(error) = self.save() {
                                        yield Err(error);
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
                    Err(error) => {
                        tracing::debug!(%error, "cannot watch");
                    }
                }
                // The next connection goes to another broker, if there is one; at once only if this
                // one was of use.
                self.connection = None;
                self.source.turn();
                if told_something || began.elapsed() > WATCH_WORTHWHILE {
                    waits = pauses();
                } else {
                    sleep(waits.next().unwrap_or(POLL)).await;
                }
            }
        }
    }

    /// A connection that watches, and the longest silence that its broker promises.
    async fn begin_watch(
        &mut self,
        without: &[Channel],
    ) -> Result<Option<(Connection, Duration)>, Error> {
        // While a channel is not current every broker was asked, and none is connected: being told
        // is quicker than asking again.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        if connection.is_capable("XWATCH").await? {
            let trust_log = self.source.anchor().namespace.trust_log();
            let mut targets = vec![format!("{trust_log}:{}", self.trusted()?.serial())];
            for channel in self.beat_channels() {
                // A beat by a key that was taken away is no cursor.
                let known = self
                    .state
                    .view()
                    .beats()
                    .find(|beat| *beat.statement.channel() == channel && beat.is_proven());
                targets.push(format!(
                    "{channel}:{}",
                    known.map_or(0, |beat| beat.statement.serial().number())
                ));
            }
            for channel in self.channels.iter().filter(|c| !without.contains(c)) {
                // What is unknown is sent from its first statement on, once it begins.
                targets.push(format!(
                    "{channel}:{}",
                    self.state
                        .head(channel)
                        .map_or(0, |head| head.serial.number())
                ));
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

    /// How long the channels are current without a further beat; then other brokers are asked
    /// (attacks 17 and 18).
    fn until_stale(&self) -> Duration {
        let with_beats = self
            .channels
            .iter()
            .filter(|channel| self.state.view().promises_beats(channel));
        let left = with_beats.map(|channel| match self.state.freshness(channel) {
            Freshness::Current { until } => Duration::from_secs(
                until
                    .seconds()
                    .saturating_sub(self.state.time(channel).seconds()),
            ),
            _ => jitter(self.pace.poll),
        });
        left.min().unwrap_or(self.pace.audit)
    }

    /// The next statement of the watch that follows our head; none when it is time to ask instead.
    async fn told(
        &mut self,
        connection: &mut Connection,
        promised: Duration,
    ) -> Result<Option<Told>, Error> {
        loop {
            let Some(Incoming { statement, .. }) = connection.event(promised).await? else {
                return Ok(None);
            };
            let (channel, serial) = (statement.channel().clone(), statement.serial());
            if channel == self.source.anchor().namespace.trust_log() {
                if serial > self.trusted()?.serial() {
                    match self
                        .state
                        .change(|view, now| view.take_trust([statement], now))
                    {
                        Ok(()) => self.state.save()?,
                        // We stay with the trust before.
                        Err((_, VerifyError::Critical { field })) => {
                            warn_of_critical(&channel, serial, &field)
                        }
                        Err((serial, source)) => {
                            return Err(refused(&channel, Refusal::Verify { serial, source }));
                        }
                    }
                }
                continue;
            }
            if statement.kind() == Kind::Beat {
                if self.take_beat(statement) {
                    self.state.save()?;
                    return Ok(Some(Told::Beat));
                }
                continue;
            }
            if !self.channels.contains(&channel) {
                continue;
            }
            match log::place(self.state.head(&channel), &statement) {
                Place::Known => continue,
                // Asking sorts it out: it reads what lies between, from the newest down.
                Place::Gap { .. } => return Ok(None),
                Place::Next | Place::Fork => {}
            }
            let news = match self.examine_told(&channel, statement) {
                Ok(news) => news,
                // Asking sorts it out.
                Err(Refusal::ReadFrom { .. }) => return Ok(None),
                Err(Refusal::Verify {
                    source:
                        VerifyError::NewerTrust { .. }
                        | VerifyError::Threshold { .. }
                        | VerifyError::NoRole { .. },
                    ..
                }) => return Ok(None),
                Err(Refusal::Fork(fork)) => {
                    self.state
                        .change(|view, now| view.note_fork((*fork).clone(), now));
                    self.state.save()?;
                    return Err(Error::Fork(fork));
                }
                Err(refusal) => return Err(refused(&channel, refusal)),
            };
            self.state.note([&news]);
            self.state.save()?;
            if let Some(statement) = news.into_statements().pop() {
                return Ok(Some(Told::Statement(Box::new(statement))));
            }
        }
    }

    fn examine_told(&mut self, channel: &Channel, statement: Statement) -> Result<News, Refusal> {
        let run = self
            .state
            .change(|view, _| view.judge(channel, vec![statement]))?;
        self.state
            .view()
            .place(channel, run, false, &self.state.now())
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

/// What a watch has brought.
enum Told {
    Statement(Box<Verified<Statement>>),
    Beat,
}

/// From half of a time to the whole, so that a fleet spreads.
fn jitter(time: Duration) -> Duration {
    // Without randomness the time is the whole: later, but not wrong.
    chance::draw().map_or(time, |drawn| jitter_from(time, drawn))
}

/// The same from a number that was drawn: in simulated time it can be drawn again.
pub fn jitter_from(time: Duration, drawn: u64) -> Duration {
    time.mul_f64(0.5 + (drawn >> 11) as f64 / (1_u64 << 54) as f64)
}
