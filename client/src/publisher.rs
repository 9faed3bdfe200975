//! The publisher's half: reads the head first, then offers a signed statement.

use tidings_protocol::{
    Channel, Head, Serial, Statement, Verified, View,
    log::{self, Place},
    nntp::{LostRace, Response, code},
    trust::Trust,
    view::Refusal,
};

use crate::{
    Address, Connection, Error, OutboxError, Source, State,
    limits::{ASK, BACKLOG_OCTETS},
    poll::refused,
    source::walk_trust,
    survey,
    survey::list,
};

/// Why a statement was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker could not be used.
    #[error(transparent)]
    Client(#[from] Error),
    /// The outbox cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Somebody else was first, or the statement was made for another head.
    #[error("the head of the channel is {} now; make and sign the statement anew to follow it", show(.0.as_ref()))]
    LostRace(Option<Head>),
    /// The broker refused the statement.
    #[error("the broker refused: {0}")]
    Refused(Response),
}

fn show(head: Option<&Head>) -> String {
    head.map_or("empty".into(), |h| h.to_string())
}

/// A statement that is durably stored at the origin.
#[derive(Clone, Debug)]
pub struct Published {
    /// What the broker said.
    pub response: Response,
}

/// A connection to an origin.
pub struct Publisher {
    connection: Connection,
    source: Source,
    state: State,
}

impl Publisher {
    /// Connects to the first broker that can be used, and walks the trust log; it may be empty yet.
    ///
    /// # Errors
    /// If no broker can be used, or its trust log is not that of the anchor.
    pub async fn connect(mut source: Source) -> Result<Self, Error> {
        let (connection, state) = source.in_turn(ASK, Self::connect_one).await?;
        Ok(Self {
            connection,
            source,
            state,
        })
    }

    async fn connect_one(source: &Source) -> Result<(Connection, State), Error> {
        let mut connection = source.connect_to_post().await?;
        let mut state = State::ephemeral(source.anchor());
        match walk_trust(&mut connection, &mut state).await {
            Ok(()) | Err(Error::NoTrustLog(_) | Error::AnchorAhead { .. }) => {
                Ok((connection, state))
            }
            Err(error) => Err(error),
        }
    }

    /// The trust in force at the origin.
    pub fn trust(&self) -> Option<&Trust> {
        self.state.trust()
    }

    /// The newest statement of a channel at the origin, verified; none while it is empty.
    ///
    /// # Errors
    /// If the broker cannot be used, or its head is not signed by those who may.
    pub async fn newest(
        &mut self,
        channel: &Channel,
    ) -> Result<Option<Verified<Statement>>, Error> {
        let namespace = &self.source.anchor().namespace;
        if !namespace.contains(channel) {
            return Err(Error::Namespace {
                channel: channel.clone(),
                namespace: namespace.clone(),
            });
        }
        let Some((group, _)) = self.connection.group(channel, None).await? else {
            return Ok(None);
        };
        let run = self
            .connection
            .articles(channel, group.high..=group.high, BACKLOG_OCTETS)
            .await?;
        let trust = self
            .trust()
            .ok_or_else(|| Error::NoTrustLog(self.source.anchor().namespace.trust_log()))?;
        let refused = |(serial, source)| refused(channel, Refusal::Verify { serial, source });
        Ok(trust
            .verify_run(channel, run)
            .map_err(refused)?
            .statements
            .pop())
    }

    /// The broker.
    pub fn address(&self) -> &Address {
        self.connection.address()
    }

    /// Everything that the origin has of a channel from a serial on, verified, oldest first; and
    /// the lowest serial that it has.
    ///
    /// # Errors
    /// If the broker cannot be used, or its head is not proven.
    pub async fn log(
        &mut self,
        channel: &Channel,
        from: Serial,
    ) -> Result<(Vec<Verified<Statement>>, u32), Error> {
        let Some((group, _)) = self.connection.group(channel, None).await? else {
            return Ok((Vec::new(), 1));
        };
        let from = from.number().max(group.low);
        let run = self
            .connection
            .articles(channel, from..=group.high, BACKLOG_OCTETS)
            .await?;
        let refused = |(serial, source)| refused(channel, Refusal::Verify { serial, source });
        let trust = self
            .trust()
            .ok_or_else(|| Error::NoTrustLog(self.source.anchor().namespace.trust_log()))?;
        Ok((
            trust.verify_run(channel, run).map_err(refused)?.statements,
            group.low,
        ))
    }

    /// The lowest serial that the origin has of a channel.
    ///
    /// # Errors
    /// If the broker cannot be used.
    pub async fn low(&mut self, channel: &Channel) -> Result<Option<u32>, Error> {
        Ok(self
            .connection
            .group(channel, None)
            .await?
            .map(|(group, _)| group.low))
    }

    /// The channels that the origin has in the namespace.
    ///
    /// # Errors
    /// If the broker cannot be used.
    pub async fn channels(&mut self) -> Result<Vec<Channel>, Error> {
        Ok(list(&mut self.connection, &self.source)
            .await?
            .into_iter()
            .map(|(channel, _)| channel)
            .collect())
    }

    /// The newest beat of a channel, if the trust in force proves it: the next one names its
    /// channels first.
    ///
    /// # Errors
    /// If the broker cannot be used.
    pub async fn beat(&mut self, channel: &Channel) -> Result<Option<Verified<Statement>>, Error> {
        match self.newest(channel).await {
            Err(Error::Verify { .. }) => Ok(None),
            newest => newest,
        }
    }

    /// Serial and id of the newest beat of a channel, signed by those who may sign beats there, or
    /// might once: what the next one has to follow, also when the key that signed the last one was
    /// taken away.
    ///
    /// # Errors
    /// If the broker cannot be used, or nobody who ever might has signed it: then a beat that
    /// followed it would follow a lie.
    pub async fn beat_head(&mut self, channel: &Channel) -> Result<Option<Head>, Error> {
        let refused_now = match self.newest(channel).await {
            Ok(newest) => return Ok(newest.map(|statement| statement.head())),
            Err(error @ Error::Verify { .. }) => error,
            Err(error) => return Err(error),
        };
        let (anchor, known) = (
            self.source.anchor().clone(),
            self.trust().map_or(0, |trust| trust.serial().number()),
        );
        let log = anchor.namespace.trust_log();
        let Some((group, _)) = self.connection.group(channel, None).await? else {
            return Ok(None);
        };
        let last = self
            .connection
            .articles(channel, group.high..=group.high, BACKLOG_OCTETS)
            .await?;
        self.connection.group(&log, None).await?;
        let statements = self
            .connection
            .articles(&log, anchor.head.serial.number()..=known, BACKLOG_OCTETS)
            .await?;
        let mut walked = View::new(anchor);
        for statement in statements {
            walked
                .take_trust([statement], &self.state.now())
                .map_err(|(serial, source)| refused(&log, Refusal::Verify { serial, source }))?;
            let proven = last.iter().find(|beat| {
                walked
                    .trust()
                    .is_some_and(|trust| trust.check(beat).is_ok())
            });
            if let Some(beat) = proven {
                return Ok(Some(beat.head()));
            }
        }
        Err(refused_now)
    }

    /// [`Publisher::newest`], and a look at every other broker of the source: whether one of them
    /// has something that the origin does not have, as after a restored backup (attack 30). With
    /// one broker it costs nothing more.
    ///
    /// # Errors
    /// As [`Publisher::newest`], and if another broker is ahead, or has another statement in that
    /// place.
    pub async fn newest_anywhere(
        &mut self,
        channel: &Channel,
    ) -> Result<Option<Verified<Statement>>, Error> {
        let here = self.newest(channel).await?;
        if self.source.brokers.len() == 1 {
            return Ok(here);
        }
        let survey = survey(&self.source, std::slice::from_ref(channel)).await;
        for seen in &survey.0 {
            if let Err(error) = &seen.view {
                tracing::warn!(broker = %seen.address, %error, "this broker could not be asked whether it is ahead of the origin");
            }
        }
        let (serial, anywhere) = (here.as_ref().map(|s| s.serial()), survey.newest(channel)?);
        match anywhere.filter(|other| Some(other.serial()) > serial) {
            Some(other) => Err(Error::Survey(format!(
                "another broker has {channel} {} already, the origin {} has {}; nothing was signed: was the origin restored from a backup?",
                other.serial(),
                self.connection.address(),
                serial.map_or("nothing".into(), |serial| serial.to_string())
            ))),
            None => Ok(here),
        }
    }

    /// Offers a statement whose place was made for the head.
    ///
    /// # Errors
    /// [`PublishError::LostRace`] names the head that it does not follow; nothing was stored then.
    /// After a failed connection it may have been: publishing the same statement again is harmless.
    pub async fn publish(&mut self, statement: &Statement) -> Result<Published, PublishError> {
        let trust_log = self.source.anchor().namespace.trust_log();
        if *statement.channel() == trust_log {
            // Without one in force, the broker knows what it begins with.
            let fits =
                |head| log::place(Some(head), statement) == Place::Next || head == statement.head();
            if let Some(head) = self.trust().map(Trust::head).filter(|head| !fits(*head)) {
                return Err(PublishError::LostRace(Some(head)));
            }
        }
        let response = self.connection.post(statement).await?;
        match response.code {
            code::POSTED => {
                if *statement.channel() == trust_log {
                    match walk_trust(&mut self.connection, &mut self.state).await {
                        Ok(()) | Err(Error::NoTrustLog(_) | Error::AnchorAhead { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(Published { response })
            }
            code::POST_FAILED => match response.text.parse::<LostRace>() {
                Ok(LostRace(head)) => Err(PublishError::LostRace(Some(head))),
                Err(()) => Err(PublishError::Refused(response)),
            },
            _ => Err(PublishError::Refused(response)),
        }
    }
}
