//! Asking brokers in turn until every channel has its answer; none of them is believed.

use std::collections::BTreeSet;

use tidings_protocol::{
    Channel, Head, MessageId, Serial, Statement, View,
    trust::{Settled, Trust},
    verify::VerifyError,
    view::{News, Now, Refusal},
};
use tokio::time::timeout;

use crate::{
    Connection, Device, Error, Start, connection::Group, limits::BACKLOG_OCTETS, source::walk_trust,
};

/// What brokers have answered: what is new in each channel, verified, and what is wrong with
/// others.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) news: Vec<News>,
    pub(crate) failed: Vec<(Channel, Error)>,
    /// Why the last broker could not be used, if channels still wait for their first answer.
    pub(crate) unreachable: Option<Error>,
    /// Channels that have an answer, if perhaps not the best.
    answered: BTreeSet<Channel>,
    /// Channels of which a broker says that what follows our head has expired there.
    gaps: BTreeSet<Channel>,
    /// The trust by which all of this was judged.
    trust: Option<Serial>,
}

impl Asked {
    /// What a device will know of a channel when it has taken note of everything so far.
    fn ahead(&self, view: &View, channel: &Channel, now: &Now) -> View {
        let mut ahead = view.of(channel);
        for news in self.news.iter().filter(|news| news.channel() == channel) {
            ahead.note(news, now);
            // What one broker has brought, another need not bring again.
            if let Some(last) = news.statements().last() {
                ahead.note_delivered(channel, last.head());
            }
        }
        ahead
    }

    fn fail(&mut self, channel: &Channel, error: Error) {
        self.failed.retain(|(failed, _)| failed != channel);
        self.failed.push((channel.clone(), error));
    }
}

/// What one broker has of one channel.
pub(crate) enum Answer {
    News(News),
    /// Nothing, and no lie: it does not have the channel, or is behind.
    Nothing,
    /// What follows our head has expired here, or so it says (attack 26).
    Gap,
}

impl Device {
    /// Asks brokers in turn until nothing more is to be expected of the others. The cursors stay
    /// where they are.
    ///
    /// A channel is done with when a live beat names its head, or, in a namespace without beats,
    /// when one broker has answered. A hole in the log is taken for expired only if no broker can
    /// fill it ([2-13]).
    pub(crate) async fn ask_brokers(&mut self) -> Asked {
        let mut asked = Asked {
            trust: self.state.trust().map(Trust::serial),
            ..Asked::default()
        };
        let channels = self.channels.clone();
        self.ask_all(channels, &mut asked, false).await;
        let gaps: Vec<Channel> = std::mem::take(&mut asked.gaps).into_iter().collect();
        if !gaps.is_empty() {
            self.ask_all(gaps, &mut asked, true).await;
        }
        asked
    }

    async fn ask_all(&mut self, mut waiting: Vec<Channel>, asked: &mut Asked, accept_gaps: bool) {
        for _ in 0..self.source.brokers.len() {
            let mut reused = self.connection.is_some();
            loop {
                let ask = self.pace.ask;
                let answer = timeout(ask, self.ask_one(&mut waiting, asked, accept_gaps))
                    .await
                    .unwrap_or(Err(Error::Silent(ask)));
                match answer {
                    Ok(()) => {}
                    // A connection that was kept may have been closed meanwhile: that says nothing
                    // about the broker.
                    Err(_) if reused => {
                        (reused, self.connection) = (false, None);
                        continue;
                    }
                    Err(error) => {
                        asked.unreachable = Some(self.source.passed_over(error));
                        self.connection = None;
                    }
                }
                break;
            }
            if waiting
                .iter()
                .all(|channel| asked.answered.contains(channel))
            {
                asked.unreachable = None;
            }
            if waiting.is_empty() {
                return;
            }
            if self.source.brokers.len() > 1 {
                self.connection = None;
                self.source.turn();
            }
        }
    }

    /// A connection whose broker's trust log was walked to its end.
    pub(crate) async fn connect(&mut self) -> Result<Connection, Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.source.connect().await?,
        };
        walk_trust(&mut connection, &mut self.state).await?;
        Ok(connection)
    }

    /// What was judged by another trust than the one in force now is judged anew: a key that was
    /// taken away meanwhile has no say (attack 13).
    fn forget_if_trust_changed(&self, waiting: &mut Vec<Channel>, asked: &mut Asked) {
        let trust = self.state.trust().map(Trust::serial);
        if asked.trust != trust {
            let again: Vec<Channel> = asked
                .answered
                .iter()
                .filter(|channel| !waiting.contains(channel))
                .cloned()
                .collect();
            waiting.extend(again);
            *asked = Asked {
                trust,
                ..Asked::default()
            };
        }
    }

    /// Asks the broker that is first now for the channels that still wait; those that need no other
    /// broker wait no more.
    async fn ask_one(
        &mut self,
        waiting: &mut Vec<Channel>,
        asked: &mut Asked,
        accept_gaps: bool,
    ) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        self.forget_if_trust_changed(waiting, asked);
        // Before the channels, so that it does not name what is published in between.
        self.ask_beat(&mut connection).await?;
        let mut due: Vec<Channel> = waiting.iter().rev().cloned().collect();
        while let Some(channel) = due.pop() {
            let answer = self
                .ask_channel(&mut connection, &channel, asked, accept_gaps)
                .await;
            if answer.is_err() {
                // Answers to what was asked ahead may still be under way there.
                connection = self.source.connect().await?;
            }
            if matches!(
                &answer,
                Err(Error::Verify {
                    source: VerifyError::NewerTrust { .. },
                    ..
                })
            ) {
                // It was signed under a trust statement that came after we had walked the log, or
                // so it says.
                walk_trust(&mut connection, &mut self.state).await?;
                if asked.trust != self.state.trust().map(Trust::serial) {
                    self.forget_if_trust_changed(waiting, asked);
                    self.ask_beat(&mut connection).await?;
                    due = waiting.iter().rev().cloned().collect();
                    continue;
                }
            }
            self.take_answer(channel, answer, waiting, asked, accept_gaps)?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    fn take_answer(
        &mut self,
        channel: Channel,
        answer: Result<Answer, Error>,
        waiting: &mut Vec<Channel>,
        asked: &mut Asked,
        accept_gaps: bool,
    ) -> Result<(), Error> {
        match answer {
            Ok(Answer::Gap) => drop(asked.gaps.insert(channel)),
            Ok(answer) => {
                asked.failed.retain(|(failed, _)| *failed != channel);
                asked.answered.insert(channel.clone());
                // A broker that is behind fills no hole of another.
                let mut filled = !asked.gaps.contains(&channel) && !accept_gaps;
                if let Answer::News(news) = answer {
                    asked.gaps.remove(&channel);
                    asked.news.push(news);
                    filled = true;
                }
                let current = self.is_done(asked, &channel);
                if current && self.state.view().promises_beats(&channel) {
                    asked.gaps.remove(&channel);
                    filled = true;
                }
                if filled && current {
                    waiting.retain(|c| *c != channel);
                }
            }
            Err(Error::Fork(fork)) => {
                self.state.note_fork(&fork)?;
                asked.answered.insert(channel.clone());
                // A live beat decides: the one that is known already, or one that this broker is
                // hiding.
                if self.state.view().fork(&channel).is_some() {
                    asked.fail(&channel, Error::Fork(fork));
                } else {
                    tracing::warn!(%channel, theirs = %fork.theirs.id(), "this broker has the branch that the live beat does not name");
                }
                if self.is_done(asked, &channel) {
                    waiting.retain(|c| *c != channel);
                }
            }
            // What is wrong with one channel keeps nothing back from another.
            Err(error @ (Error::Verify { .. } | Error::Missing { .. } | Error::Backlog(_))) => {
                if !asked.answered.contains(&channel) {
                    let address = self.source.address().clone();
                    asked.fail(&channel, error.at(&address));
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether no other broker has to be asked for a channel (attack 17): a live beat names its
    /// head; or there are no beats, and it does not wait for what a checkpoint names.
    fn is_done(&self, asked: &Asked, channel: &Channel) -> bool {
        let (view, now) = (self.state.view(), self.state.now());
        let ahead = asked.ahead(view, channel, &now);
        if view.promises_beats(channel) {
            ahead.freshness(channel, &now).is_current()
        } else {
            ahead.restart(channel).is_none()
        }
    }

    /// The first serial that is read of a channel of which nothing is known.
    fn beginning(&self, view: &View, channel: &Channel, group: Group) -> u32 {
        if self.start == Start::Oldest {
            return group.low;
        }
        let checkpoint = match view.trust().map(|trust| trust.checkpoint(channel)) {
            Some(Settled::At(checkpoint)) => checkpoint.serial.number(),
            _ => group.high,
        };
        checkpoint.min(group.high).max(group.low)
    }

    pub(crate) async fn ask_channel(
        &mut self,
        connection: &mut Connection,
        channel: &Channel,
        asked: &Asked,
        accept_gaps: bool,
    ) -> Result<Answer, Error> {
        let now = self.state.now();
        let mut view = asked.ahead(self.state.view(), channel, &now);
        if let Some(head) = self.returned.get(channel) {
            // What was returned comes again in the next life of this program, not in this one.
            view.note_delivered(channel, *head);
        }
        let known = view.head(channel);
        // A channel that is not there yet, or a mirror that is behind, is no error (attack 24).
        let Some((group, id)) = connection.group(channel, known.map(|h| h.serial)).await? else {
            return Ok(Answer::Nothing);
        };
        let mut from = match (view.read_from(channel, &now), known) {
            (Some(from), Some(head)) => {
                let ours = message_id(channel, head).to_string();
                // Another statement where ours is the head: a lie, a fork, or the branch that a
                // checkpoint or a beat has chosen.
                match id.is_some_and(|id| id != ours) {
                    true => from.min(head.serial).number(),
                    false => from.number(),
                }
            }
            _ => self.beginning(&view, channel, group),
        };
        if from > group.high {
            return Ok(Answer::Nothing);
        }
        loop {
            let mut gap = false;
            if from < group.low {
                if !accept_gaps {
                    return Ok(Answer::Gap);
                }
                if lacks_checkpoint(connection, &view, channel, group).await? {
                    return Ok(Answer::Gap);
                }
                tracing::warn!(%channel, from, low = group.low, "what lies between is not to be had from any broker that could be asked");
                (from, gap) = (group.low, true);
            }
            let run = connection
                .articles(channel, from..=group.high, BACKLOG_OCTETS)
                .await?;
            let run = self
                .state
                .change(|view, _| view.judge(channel, run))
                .map_err(|refusal| refused(channel, refusal))?;
            match view.place(channel, run, gap, &now) {
                Ok(news) if news.is_empty() => return Ok(Answer::Nothing),
                Ok(news) => return Ok(Answer::News(news)),
                Err(Refusal::ReadFrom { serial }) if serial.number() < from && !gap => {
                    from = serial.number()
                }
                Err(refusal) => return Err(refused(channel, refusal)),
            }
        }
    }

    /// The beat channels that speak for our channels, each once.
    pub(crate) fn beat_channels(&self) -> Vec<Channel> {
        let Some(trust) = self.state.trust() else {
            return Vec::new();
        };
        let mut channels: Vec<Channel> = self
            .channels
            .iter()
            .filter_map(|channel| trust.beat_channel(channel))
            .collect();
        channels.sort();
        channels.dedup();
        channels
    }

    /// The beats that checkpoints name for our channels and that are not at hand; what they name
    /// for others is nothing to us.
    fn missing_beats(&self) -> Vec<(Channel, Head)> {
        let Some(trust) = self.state.trust() else {
            return Vec::new();
        };
        let unsettled =
            |channel: &&Channel| matches!(trust.checkpoint(channel), Settled::Missing(_));
        let ours: BTreeSet<Channel> = self
            .channels
            .iter()
            .filter(unsettled)
            .filter_map(|channel| trust.beat_channel(channel))
            .collect();
        let missing = trust.missing_beats();
        missing
            .filter(|(channel, _)| ours.contains(*channel))
            .map(|(channel, head)| (channel.clone(), head))
            .collect()
    }

    /// Reads the newest beats that speak for our channels, and those that checkpoints name for
    /// them.
    ///
    /// What is wrong with them makes no channel fail: without a live beat it is stale, and other
    /// brokers are asked.
    pub(crate) async fn ask_beat(&mut self, connection: &mut Connection) -> Result<(), Error> {
        for (channel, head) in self.missing_beats() {
            let id = MessageId {
                channel,
                serial: head.serial,
                id: head.id,
            };
            for incoming in connection.fetch([id]).await?.into_iter().flatten() {
                self.state
                    .change(|view, _| view.take_settled_beat(incoming.statement));
            }
        }
        for channel in self.beat_channels() {
            let known = self
                .state
                .view()
                .beats()
                .find(|beat| *beat.statement.channel() == channel);
            let known = known
                .filter(|beat| beat.is_proven())
                .map_or(0, |beat| beat.statement.serial().number());
            if let Some((group, _)) = connection.group(&channel, None).await?
                && group.high > known
            {
                let newest = connection
                    .articles(&channel, group.high..=group.high, BACKLOG_OCTETS)
                    .await?;
                for statement in newest {
                    self.take_beat(statement);
                }
            }
        }
        self.state.save()?;
        Ok(())
    }

    /// Whether it was a beat that counts.
    pub(crate) fn take_beat(&mut self, statement: Statement) -> bool {
        let taken = self
            .state
            .change(|view, now| view.take_beat(statement, now));
        if let Err(error) = &taken {
            tracing::warn!(broker = %self.source.address(), %error, "a beat is not accepted");
        }
        taken.is_ok()
    }
}

/// A refusal as the error of a device.
fn message_id(channel: &Channel, head: Head) -> MessageId {
    MessageId {
        channel: channel.clone(),
        serial: head.serial,
        id: head.id,
    }
}

/// A gap above a checkpoint is accepted only with the checkpoint itself: whether a broker does not
/// have it.
async fn lacks_checkpoint(
    connection: &mut Connection,
    view: &View,
    channel: &Channel,
    group: Group,
) -> Result<bool, Error> {
    let settled = view
        .trust()
        .and_then(|trust| trust.checkpoint(channel).head());
    let missing = settled
        .filter(|settled| view.restart(channel).is_some() && settled.serial.number() < group.low);
    let Some(missing) = missing else {
        return Ok(false);
    };
    let found = connection.fetch([message_id(channel, missing)]).await?;
    let mut found = found.into_iter().flatten();
    Ok(found.all(|found| found.statement.head() != missing))
}

pub(crate) fn refused(channel: &Channel, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Verify { serial, source } => Error::Verify {
            channel: channel.clone(),
            serial,
            source,
        },
        Refusal::Fork(fork) => Error::Fork(fork),
        // Another broker may have everything from there on.
        Refusal::ReadFrom { serial } => Error::Missing {
            channel: channel.clone(),
            serial: serial.number(),
        },
        Refusal::NoTrust => Error::NoTrustLog(channel.clone()),
    }
}
