//! Watching: the same cursor, and a broker that tells.

use std::time::Duration;

use async_stream::stream;
use futures_core::Stream;
use tidings_protocol::{
    Channel, Statement, Verified,
    article::Incoming,
    log::{self, Place},
    statement::Kind,
    verify::VerifyError,
    view::{News, Refusal, freshness::Freshness},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Device, pace::jitter};
use crate::{
    Connection, Error,
    limits::{POLL, WATCH_WORTHWHILE},
    poll::{Asked, refused},
    source::{pauses, warn_of_critical},
};

impl Device {
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
                    Ok(news) => for statement in news {
                        self.returned.insert(statement.channel().clone(), statement.head());
                        yield Ok(statement);
                        if let Err(error) = self.save() {
                            yield Err(error);
                        }
                    }
                }
                let (bad, errors): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
                for error in errors.into_iter().chain(unreachable) {
                    yield Err(error);
                }
                let (began, mut told_something) = (Instant::now(), false);
                match self.begin_watch(&bad).await {
                    Ok(Some((mut connection, promised))) => {
                        let (audit, mut until) = self.ask_again(began);
                        loop {
                            match self.next_told(&mut connection, promised, audit, &mut until).await {
                                Ok(Some(statement)) => {
                                    told_something = true;
                                    yield Ok(statement);
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
                    Err(error) => tracing::debug!(%error, "cannot watch"),
                }
                // The next connection goes to another broker, if there is one; at once only if this
                // one was of use.
                self.connection = None;
                self.source.turn();
                match told_something || began.elapsed() > WATCH_WORTHWHILE {
                    true => waits = pauses(),
                    false => sleep(waits.next().unwrap_or(POLL)).await,
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

    /// Until when a watch that began then is believed at most, and until when if no beat comes.
    fn ask_again(&self, began: Instant) -> (Instant, Instant) {
        // Unknown channels are watched by name, and could begin just before the watch does: ask
        // soon.
        let unknown = self.channels.iter().any(|c| self.state.head(c).is_none());
        let audit = jitter(match unknown {
            true => self.pace.poll.min(self.pace.audit),
            false => self.pace.audit,
        });
        (began + audit, began + audit.min(self.until_stale()))
    }

    /// The next statement of the watch; none when it is time to ask instead: at `audit`, at
    /// `until`, which live beats put off, or when the watch says so.
    async fn next_told(
        &mut self,
        connection: &mut Connection,
        promised: Duration,
        audit: Instant,
        until: &mut Instant,
    ) -> Result<Option<Verified<Statement>>, Error> {
        while let Ok(told) = timeout_at(*until, self.told(connection, promised)).await {
            match told? {
                Some(Told::Beat) => {
                    let next = audit.min(Instant::now() + self.until_stale());
                    let mut channels = self.channels.iter();
                    // A beat that makes nothing current, a replayed one for instance, puts nothing
                    // off.
                    *until = match channels.all(|one| self.state.freshness(one).is_current()) {
                        true => next,
                        false => next.min(*until),
                    };
                }
                Some(Told::Statement(statement)) => {
                    self.returned
                        .insert(statement.channel().clone(), statement.head());
                    return Ok(Some(*statement));
                }
                None => break,
            }
        }
        Ok(None)
    }

    /// The next beat of a watch, or its next statement that follows our head; none when it is time
    /// to ask instead.
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
                    self.take_told_trust(statement)?;
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
                    self.state.note_fork(&fork)?;
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

    fn take_told_trust(&mut self, statement: Statement) -> Result<(), Error> {
        let (channel, serial) = (statement.channel().clone(), statement.serial());
        let taken = self
            .state
            .change(|view, now| view.take_trust([statement], now));
        match taken {
            Ok(()) => self.state.save()?,
            // We stay with the trust before.
            Err((_, VerifyError::Critical { field })) => {
                warn_of_critical(&channel, serial, &field);
            }
            Err((serial, source)) => {
                return Err(refused(&channel, Refusal::Verify { serial, source }));
            }
        }
        Ok(())
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

/// What a watch has brought.
enum Told {
    Statement(Box<Verified<Statement>>),
    Beat,
}
