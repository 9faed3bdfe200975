//! What several brokers have, side by side: before something is signed, so that nothing is signed twice (attack 30).

use tidings_protocol::{
    Channel, Statement, Verified, View,
    nntp::code,
    trust::Trust,
    view::{News, Refusal},
};
use tokio::time::timeout;

use crate::{
    Address, Connection, Error, Source, State,
    asking::refused,
    limits::{ASK, BACKLOG_OCTETS},
    source::walk_trust,
};

/// What one broker has.
pub struct Seen {
    /// The broker.
    pub address: Address,
    /// Its trust log, walked to the end, and the newest statement of each channel; or why it cannot be used.
    pub view: Result<View, Error>,
    /// Channels whose newest statement is not accepted, and why.
    pub failed: Vec<(Channel, Error)>,
}

/// What all brokers of a source have.
pub struct Survey(pub Vec<Seen>);

/// Looks at every broker of a source again and again, and reads only what is new there.
pub struct Lookout(Vec<(Source, State)>);

impl Lookout {
    /// One that has seen nothing yet.
    pub fn new(source: &Source) -> Self {
        Self(source.each().map(|one| (one, State::ephemeral(source.anchor()))).collect())
    }

    /// Asks every broker for the newest statement of these channels; without any, of all channels of the namespace that
    /// are neither trust logs nor beats. What a broker had before, and does not show now, counts all the same.
    pub async fn look(&mut self, channels: &[Channel]) -> Survey {
        let mut all = Vec::new();
        for (source, state) in &mut self.0 {
            let mut seen = Seen { address: source.address().clone(), view: Err(Error::NoBroker), failed: Vec::new() };
            let looked = timeout(ASK, look(source, state, channels, &mut seen.failed)).await;
            seen.view = looked.unwrap_or(Err(Error::Silent(ASK))).map(|()| state.view().clone());
            all.push(seen);
        }
        Survey(all)
    }
}

/// One look at every broker of a source.
pub async fn survey(source: &Source, channels: &[Channel]) -> Survey {
    Lookout::new(source).look(channels).await
}

async fn look(source: &Source, state: &mut State, channels: &[Channel], failed: &mut Vec<(Channel, Error)>) -> Result<(), Error> {
    let mut connection = source.connect().await?;
    match walk_trust(&mut connection, state).await {
        Ok(()) | Err(Error::NoTrustLog(_)) => {}
        Err(error) => return Err(error),
    }
    let mut wanted = channels.to_vec();
    if channels.is_empty() {
        let is_new = |(channel, high): &(Channel, u32)| state.head(channel).is_none_or(|head| head.serial.number() < *high);
        wanted.extend(list(&mut connection, source).await?.into_iter().filter(is_new).map(|(channel, _)| channel));
    }
    let mut found = Vec::new();
    for channel in wanted {
        match newest(&mut connection, state.view(), &channel).await {
            Ok(news) => found.extend(news),
            Err(error @ (Error::Verify { .. } | Error::Fork(_) | Error::Missing { .. })) => failed.push((channel, error)),
            Err(error) => return Err(error),
        }
    }
    state.note(&found);
    Ok(())
}

/// The newest statement alone: what lies between is of no interest here.
async fn newest(connection: &mut Connection, view: &View, channel: &Channel) -> Result<Option<News>, Error> {
    let Some((group, _)) = connection.group(channel, None).await? else { return Ok(None) };
    let run = connection.articles(channel, group.high..=group.high, BACKLOG_OCTETS).await?;
    match view.examine(channel, run) {
        Ok(news) => Ok(Some(news)),
        Err(Refusal::NoTrust) => Err(Error::NoTrustLog(view.anchor().namespace.trust_log())),
        Err(refusal) => Err(refused(channel, refusal)),
    }
}

/// The channels of the namespace that a broker has, but for trust logs and beats, and their last serials.
async fn list(connection: &mut Connection, source: &Source) -> Result<Vec<(Channel, u32)>, Error> {
    let namespace = &source.anchor().namespace;
    let listing = connection.listing(&format!("LIST ACTIVE {namespace}.*"), code::LIST).await?;
    let entry = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        Some((name.parse::<Channel>().ok()?, rest.split(' ').next()?.parse().ok()?))
    };
    let all = listing.lines().filter_map(entry);
    Ok(all.filter(|(channel, _)| namespace.contains(channel) && !channel.is_trust() && !channel.is_beat()).collect())
}

impl Survey {
    /// The views of the brokers that could be used.
    pub fn views(&self) -> impl Iterator<Item = (&Address, &View)> {
        self.0.iter().filter_map(|seen| Some((&seen.address, seen.view.as_ref().ok()?)))
    }

    /// The newest trust that any broker has.
    pub fn trust(&self) -> Option<&Trust> {
        self.views().filter_map(|(_, view)| view.trust()).max_by_key(|trust| trust.serial())
    }

    /// All channels that any broker has.
    pub fn channels(&self) -> Vec<Channel> {
        let failed = self.0.iter().flat_map(|seen| seen.failed.iter().map(|(channel, _)| channel));
        let mut all: Vec<Channel> = self.views().flat_map(|(_, view)| view.channels()).chain(failed).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// The newest statement of a channel that any broker has, verified.
    ///
    /// # Errors
    /// If two brokers have different statements for its place: a fork.
    pub fn newest(&self, channel: &Channel) -> Result<Option<&Verified<Statement>>, Error> {
        let mut newest: Option<(&Address, &Verified<Statement>)> = None;
        for (address, view) in self.views() {
            let Some(statement) = view.newest(channel) else { continue };
            match newest {
                Some((other, known)) if known.serial() == statement.serial() && known.id() != statement.id() => {
                    return Err(Error::Survey(format!(
                        "{channel} {} is forked: {other} has {}, {address} has {}; settle it with a checkpoint (`tidings trust change --checkpoint`)",
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
}
