//! At its start an origin looks whether others have more of what it has signed or settled than
//! itself (attack 116).
//!
//! If it was restored from a backup, they do. It takes that first, verified, and signs and accepts
//! nothing before: it would give serials once more that devices know with other statements.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use tidings_client::{Connection, Error};
use tidings_protocol::{Channel, Serial, Statement, Wildmat, nntp::code, trust::Trust};
use tokio::time::Instant;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    config::{Login, Mirroring},
    limits::{RESTORE_AGAIN, RESTORE_PATIENCE},
    log::append::{Answer, AppendError},
    logging::Safe,
    origin::{New, Origin},
    relay::{mirror, repair::Other},
    shared::Shared,
};

/// An origin that is closed until it has compared itself.
pub(crate) struct Comparing {
    origin: Arc<dyn Origin>,
    is_done: watch::Sender<bool>,
}

impl Comparing {
    pub(crate) fn new(origin: Arc<dyn Origin>) -> Self {
        Self {
            origin,
            is_done: watch::Sender::new(false),
        }
    }

    /// Most often it takes no longer than a round trip: whoever publishes meanwhile waits.
    async fn open(&self) -> Result<(), AppendError> {
        let mut news = self.is_done.subscribe();
        let opened = timeout(RESTORE_PATIENCE, news.wait_for(|is_done| *is_done)).await;
        opened
            .is_ok_and(|opened| opened.is_ok())
            .then_some(())
            .ok_or(AppendError::Comparing)
    }
}

impl Origin for Comparing {
    fn append(&self, new: New) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            self.open().await?;
            self.origin.append(new).await
        })
    }
    fn append_trust(
        &self,
        statement: Statement,
        path: String,
        posted: bool,
    ) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            self.open().await?;
            self.origin.append_trust(statement, path, posted).await
        })
    }
    fn catch_up(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move { self.open().await.is_ok() && self.origin.catch_up().await })
    }
    fn term(&self) -> Option<i32> {
        self.origin.term().filter(|_| *self.is_done.borrow())
    }
}

/// Somebody to compare with.
pub(crate) struct Source {
    pub(crate) other: Other,
    pub(crate) login: Login,
    pub(crate) channels: Wildmat,
    /// In `restore_from`: without its answer nothing goes on.
    pub(crate) is_needed: bool,
}

/// Compares with all, takes what they have more, and opens the origin.
pub(crate) async fn run(shared: Arc<Shared>, sources: Vec<Source>, origin: Arc<Comparing>) {
    let all = join_all(sources.iter().map(|source| settle(&shared, source)));
    tokio::select! {
        _ = all => {}
        () = shared.stop.cancelled() => return,
    }
    tracing::info!(
        brokers = sources.len(),
        "no other broker has more than this one: statements are accepted"
    );
    origin.is_done.send_replace(true);
}

async fn settle(shared: &Arc<Shared>, source: &Source) {
    loop {
        match look(shared, source).await {
            Ok(more) if more.is_empty() => return,
            Ok(more) => take(shared, source, &more).await,
            Err(error) if !source.is_needed => {
                tracing::warn!(broker = %source.other.address, error = %Safe(&error), "this broker could not be compared with; it may have more than this one, if that was restored");
                return;
            }
            Err(error) => {
                tracing::error!(broker = %source.other.address, error = %Safe(&error), "this broker of restore_from cannot be compared with: nothing is accepted or signed until it can, or is not named there any more");
                sleep(RESTORE_AGAIN).await;
            }
        }
    }
}

/// What it has more of, proven: each channel, and its head there.
async fn look(shared: &Shared, source: &Source) -> Result<Vec<(Channel, u32)>, String> {
    let ask = async {
        let mut connection = source
            .other
            .credentials
            .connect(&source.other.address)
            .await?;
        // Others have numbers of their own, which say nothing.
        let listing = match connection.is_capable("XWATCH").await? {
            true => {
                connection
                    .listing(&format!("LIST ACTIVE {}", source.channels), code::LIST)
                    .await?
            }
            false => String::new(),
        };
        Ok::<_, Error>((connection, listing))
    };
    let asked = timeout(RESTORE_PATIENCE, ask)
        .await
        .map_err(|_| format!("no answer in {RESTORE_PATIENCE:?}"))?;
    let (mut connection, listing) = asked.map_err(|error| tidings_client::explain(&error))?;
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        Some((
            words.next()?.parse::<Channel>().ok()?,
            words.next()?.parse::<u32>().ok()?,
        ))
    };
    let mirrored = |channel: &Channel| {
        shared
            .settings
            .mirror
            .as_ref()
            .is_some_and(|mirror| mirror.channels.matches(channel.as_str()))
    };
    let mut more = Vec::new();
    for (channel, high) in listing.lines().filter_map(entry) {
        let ours = shared
            .logs
            .get(channel.as_str())
            .map_or(0, |log| log.marks().head.serial.number());
        if high <= ours || mirrored(&channel) || !source.channels.matches(channel.as_str()) {
            continue;
        }
        match is_proven(shared, &mut connection, &channel, ours, high).await {
            Ok(true) => more.push((channel, high)),
            Ok(false) => {
                tracing::warn!(broker = %source.other.address, %channel, high, ours, "this broker claims to have more, and nothing proves it");
            }
            Err(error) => return Err(tidings_client::explain(&error)),
        }
    }
    Ok(more)
}

/// Whether somebody signed what it has more, who may: any broker can claim a number.
async fn is_proven(
    shared: &Shared,
    connection: &mut Connection,
    channel: &Channel,
    ours: u32,
    high: u32,
) -> Result<bool, Error> {
    let Some(provisioned) = shared.namespaces.of(channel) else {
        return Ok(false);
    };
    let (trust, is_trust) = (
        provisioned.trust.load_full(),
        provisioned.anchor.namespace.trust_log() == *channel,
    );
    let wanted = if is_trust { ours + 1 } else { high };
    if connection.group(channel, None).await?.is_none() {
        return Ok(false);
    }
    let found = connection
        .fetch([wanted])
        .await?
        .into_iter()
        .flatten()
        .next();
    let Some(statement) = found.map(|incoming| incoming.statement) else {
        return Ok(false);
    };
    if statement.channel() != channel || Some(statement.serial()) != Serial::new(wanted) {
        return Ok(false);
    }
    Ok(match (trust, is_trust) {
        (None, true) => Trust::first(&provisioned.anchor, statement).is_ok(),
        (Some(trust), true) => trust.succeed(statement).is_ok(),
        (Some(trust), false) => trust.check(&statement).is_ok(),
        // Once the trust log is here, it is looked at again.
        (None, false) => false,
    })
}

/// Copies as a mirror does, until everything is here.
async fn take(shared: &Arc<Shared>, source: &Source, more: &[(Channel, u32)]) {
    const COMPLAINT: Duration = Duration::from_secs(60);
    for (channel, high) in more {
        tracing::warn!(broker = %source.other.address, %channel, high, "this broker has more than this one, which was restored from a backup, then: it is copied before anything is accepted or signed");
    }
    let only: HashSet<Channel> = more.iter().map(|(channel, _)| channel.clone()).collect();
    let (upstreams, channels) = (vec![source.other.address.clone()], source.channels.clone());
    let settings = Mirroring {
        upstreams,
        channels,
        login: source.login.clone(),
        ..shared.settings.restore_from.clone()
    };
    let stop = match mirror::follow_for_a_while(
        shared,
        &settings,
        Box::new(move |channel| only.contains(channel)),
    ) {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!(broker = %source.other.address, %error, "what this broker has more cannot be copied");
            return sleep(RESTORE_AGAIN).await;
        }
    };
    let mut news = shared.logs.news();
    let mut since = Instant::now();
    loop {
        let reached = |(channel, high): &&(Channel, u32)| {
            shared
                .logs
                .get(channel.as_str())
                .is_some_and(|log| log.marks().head.serial.number() >= *high)
        };
        let Some((channel, high)) = more.iter().find(|one| !reached(one)) else {
            break;
        };
        match timeout(RESTORE_AGAIN, news.changed()).await {
            Ok(_) => since = Instant::now(),
            Err(_) if since.elapsed() > COMPLAINT => {
                since = Instant::now();
                tracing::error!(
                    broker = %source.other.address, %channel, high,
                    "what this broker has more cannot be taken: is it another branch? Nothing is accepted or signed here until it is settled by a checkpoint, or that broker is not named in the configuration any more"
                );
            }
            Err(_) => {}
        }
    }
    stop.cancel();
}
