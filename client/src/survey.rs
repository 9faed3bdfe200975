//! What several brokers have, side by side: before something is signed, so that nothing is signed
//! twice (attack 30).

use std::{cmp::Ordering, collections::BTreeSet};

use tidings_protocol::{
    Channel, Statement, Verified, View,
    nntp::code,
    statement::Kind,
    trust::Trust,
    view::{News, Refusal},
};
use tokio::time::timeout;

use crate::{
    Address, Connection, Error, Source, State,
    limits::{BACKLOG_OCTETS, LOOK},
    poll::refused,
    source::walk_trust,
};

/// What one broker has.
pub struct Seen {
    /// The broker.
    pub address: Address,
    /// The newest statement of each channel, judged by the newest trust of all brokers; or why it
    /// cannot be used.
    pub view: Result<View, Error>,
    /// Channels that it has shown this time, as they are in the view.
    pub confirmed: BTreeSet<Channel>,
    /// Channels whose newest statement is not accepted, and why.
    pub failed: Vec<(Channel, Error)>,
    /// The way that its newest statement of a channel has come, as it says: broker by broker,
    /// itself first.
    pub path: Option<String>,
    /// How many brokers stand above it on that way; an origin has tier 0.
    pub tier: Option<usize>,
}

impl Seen {
    fn nothing_of(address: &Address) -> Self {
        let (confirmed, failed) = (BTreeSet::new(), Vec::new());
        Self {
            address: address.clone(),
            view: Err(Error::NoBroker),
            confirmed,
            failed,
            path: None,
            tier: None,
        }
    }
}

/// What all brokers of a source have.
pub struct Survey(pub Vec<Seen>);

/// Looks at every broker of a source again and again, and reads only what is new there.
pub struct Lookout(Vec<(Source, State)>);

impl Lookout {
    /// One that has seen nothing yet.
    pub fn new(source: &Source) -> Self {
        Self(
            source
                .each()
                .map(|one| (one, State::ephemeral(source.anchor()).unmonitored()))
                .collect(),
        )
    }

    /// Asks every broker for the newest statement of these channels; without any, of all channels
    /// of the namespace that are neither trust logs nor beats. What a broker had before, and does
    /// not show now, is known all the same.
    pub async fn look(&mut self, channels: &[Channel]) -> Survey {
        let mut connections = Vec::new();
        for (source, state) in &mut self.0 {
            connections.push(
                timeout(LOOK, walk(source, state))
                    .await
                    .unwrap_or(Err(Error::Silent(LOOK))),
            );
        }
        // A broker that shows an old trust log has no say in who may sign.
        let newest = self
            .0
            .iter()
            .filter_map(|(_, state)| state.trust())
            .max_by_key(|trust| trust.serial())
            .cloned();
        let mut all = Vec::new();
        for ((source, state), connection) in self.0.iter_mut().zip(connections) {
            if let Some(newest) = newest
                .as_ref()
                .filter(|newest| state.trust().map(Trust::serial) < Some(newest.serial()))
            {
                state.change(|view, _| {
                    *view = View::new(source.anchor().clone())
                        .resume(Some(newest.clone()), view.trust_seen())
                });
            }
            let mut seen = Seen::nothing_of(source.address());
            let looked = match connection {
                Ok(connection) => {
                    timeout(LOOK, look(connection, source, state, channels, &mut seen))
                        .await
                        .unwrap_or(Err(Error::Silent(LOOK)))
                }
                Err(error) => Err(error),
            };
            seen.view = looked.map(|()| state.view().clone());
            all.push(seen);
        }
        Survey(all)
    }
}

/// One look at every broker of a source.
pub async fn survey(source: &Source, channels: &[Channel]) -> Survey {
    Lookout::new(source).look(channels).await
}

async fn walk(source: &Source, state: &mut State) -> Result<Connection, Error> {
    let mut connection = source.connect().await?;
    match walk_trust(&mut connection, state).await {
        Ok(()) | Err(Error::NoTrustLog(_) | Error::AnchorAhead { .. }) => Ok(connection),
        Err(error) => Err(error),
    }
}

/// The channels that a broker lists, but for those that it has as it had them.
async fn what_is_new(
    connection: &mut Connection,
    source: &Source,
    state: &State,
    seen: &mut Seen,
) -> Result<Vec<Channel>, Error> {
    let mut new = Vec::new();
    for (channel, high) in list(connection, source).await? {
        match state
            .head(&channel)
            .map(|head| head.serial.number().cmp(&high))
        {
            Some(Ordering::Equal) if state.newest(&channel).is_some() => {
                seen.confirmed.insert(channel);
            }
            // It has less than it had.
            Some(Ordering::Greater) if state.newest(&channel).is_some() => {}
            _ => new.push(channel),
        }
    }
    Ok(new)
}

/// The way that a statement has come to a broker, as it says.
async fn note_path(
    connection: &mut Connection,
    statement: &Statement,
    seen: &mut Seen,
) -> Result<(), Error> {
    connection.group(statement.channel(), None).await?;
    if let Ok(listing) = connection
        .listing(&format!("HDR Path {}", statement.serial()), code::HDR)
        .await
        && let Some((_, path)) = listing.lines().next().and_then(|line| line.split_once(' '))
    {
        seen.tier = Some(path.split('!').count().saturating_sub(2));
        seen.path = Some(path.to_owned());
    }
    Ok(())
}

async fn look(
    mut connection: Connection,
    source: &Source,
    state: &mut State,
    channels: &[Channel],
    seen: &mut Seen,
) -> Result<(), Error> {
    let wanted = match channels {
        [] => what_is_new(&mut connection, source, state, seen).await?,
        channels => channels.to_vec(),
    };
    let mut found = Vec::new();
    for channel in wanted {
        match newest(&mut connection, state, &channel).await {
            Ok(news) => {
                seen.confirmed
                    .extend(news.is_some().then(|| channel.clone()));
                found.extend(news);
            }
            Err(
                error @ (Error::Verify { .. }
                | Error::Fork(_)
                | Error::Missing { .. }
                | Error::Backlog(_)),
            ) => {
                seen.failed.push((channel, error));
                connection = source.connect().await?;
            }
            Err(error) => return Err(error),
        }
    }
    state.note(&found);
    for news in &found {
        // Nobody waits for what is only looked at.
        if let Some(head) = state.head(news.channel()) {
            state.change(|view, _| view.note_delivered(news.channel(), head));
        }
    }
    // Of what was published last: the way that news take now.
    let channels = state
        .view()
        .channels()
        .filter_map(|channel| state.newest(channel));
    if let Some(newest) = channels
        .filter(|statement| statement.kind() != Kind::Beat)
        .max_by_key(|statement| statement.time())
    {
        note_path(&mut connection, &newest, seen).await?;
    }
    Ok(())
}

/// The newest statement, and what lies between only where a checkpoint wants it.
async fn newest(
    connection: &mut Connection,
    state: &mut State,
    channel: &Channel,
) -> Result<Option<News>, Error> {
    let Some((group, _)) = connection.group(channel, None).await? else {
        return Ok(None);
    };
    let mut from = group.high;
    loop {
        let run = connection
            .articles(channel, from..=group.high, BACKLOG_OCTETS)
            .await?;
        let run = state.change(|view, _| view.judge(channel, run));
        match run.and_then(|run| state.view().place(channel, run, false, &state.now())) {
            Ok(news) => return Ok(Some(news)),
            Err(Refusal::ReadFrom { serial })
                if serial.number() < from && serial.number() >= group.low =>
            {
                from = serial.number()
            }
            Err(Refusal::NoTrust) => {
                return Err(Error::NoTrustLog(state.anchor().namespace.trust_log()));
            }
            Err(refusal) => return Err(refused(channel, refusal)),
        }
    }
}

/// The channels of the namespace that a broker has, but for trust logs and beats, and their last
/// serials.
///
/// # Errors
/// If it does not say.
pub async fn list(
    connection: &mut Connection,
    source: &Source,
) -> Result<Vec<(Channel, u32)>, Error> {
    let namespace = &source.anchor().namespace;
    let listing = connection
        .listing(&format!("LIST ACTIVE {namespace}.*"), code::LIST)
        .await?;
    let entry = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        Some((
            name.parse::<Channel>().ok()?,
            rest.split(' ').next()?.parse().ok()?,
        ))
    };
    let all = listing.lines().filter_map(entry);
    Ok(all
        .filter(|(channel, _)| {
            namespace.contains(channel) && !channel.is_trust() && !channel.is_beat()
        })
        .collect())
}

impl Survey {
    /// The views of the brokers that could be used.
    pub fn views(&self) -> impl Iterator<Item = (&Address, &View)> {
        self.0
            .iter()
            .filter_map(|seen| Some((&seen.address, seen.view.as_ref().ok()?)))
    }

    /// The newest trust that any broker has.
    pub fn trust(&self) -> Option<&Trust> {
        self.views()
            .filter_map(|(_, view)| view.trust())
            .max_by_key(|trust| trust.serial())
    }

    /// All channels that any broker has.
    pub fn channels(&self) -> Vec<Channel> {
        let failed = self
            .0
            .iter()
            .flat_map(|seen| seen.failed.iter().map(|(channel, _)| channel));
        let mut all: Vec<Channel> = self
            .views()
            .flat_map(|(_, view)| view.channels())
            .chain(failed)
            .cloned()
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// The newest statement of a channel that any broker has, verified by the newest trust.
    ///
    /// # Errors
    /// If two brokers have different statements for its place, or one follows another than one that
    /// is known: a fork.
    pub fn newest(&self, channel: &Channel) -> Result<Option<Verified<Statement>>, Error> {
        let forked = self
            .0
            .iter()
            .flat_map(|seen| &seen.failed)
            .find(|(failed, error)| failed == channel && matches!(error, Error::Fork(_)));
        if let Some((_, error)) = forked {
            return Err(Error::Survey(error.to_string()));
        }
        let mut newest: Option<(&Address, Verified<Statement>)> = None;
        for (address, view) in self.views() {
            let Some(statement) = view.newest(channel) else {
                continue;
            };
            match &newest {
                Some((other, known))
                    if known.serial() == statement.serial() && known.id() != statement.id() =>
                {
                    return Err(Error::Survey(format!(
                        "{channel} {} is forked: {other} has {}, {address} has {}; settle it with a checkpoint (`tidings trust edit`)",
                        known.serial(),
                        known.id(),
                        statement.id()
                    )));
                }
                Some((_, known)) if known.serial() >= statement.serial() => {}
                _ => newest = Some((address, statement)),
            }
        }
        Ok(newest.map(|(_, statement)| statement))
    }

    /// The newest statement of a channel, if every broker that could be asked has the very same.
    ///
    /// # Errors
    /// If they have not: which has what.
    pub fn agreed(&self, channel: &Channel) -> Result<Option<Verified<Statement>>, Error> {
        let newest = self.newest(channel)?;
        let other = self.views().find(|(_, view)| {
            view.newest(channel).map(|s| s.head()) != newest.as_ref().map(|s| s.head())
        });
        match (other, &newest) {
            (Some((address, view)), Some(newest)) => {
                let has = view
                    .head(channel)
                    .map_or("none of it".into(), |head| head.serial.to_string());
                Err(Error::Survey(format!(
                    "brokers disagree about the head of {channel}: there is {}, and {address} has {has}; wait until all have the same, leave that broker out, or say with --checkpoint what the log is",
                    newest.serial()
                )))
            }
            _ => Ok(newest),
        }
    }

    /// Whether some broker has shown a channel's newest statement this time.
    pub fn is_confirmed(&self, channel: &Channel) -> bool {
        self.0
            .iter()
            .any(|seen| seen.view.is_ok() && seen.confirmed.contains(channel))
    }
}
