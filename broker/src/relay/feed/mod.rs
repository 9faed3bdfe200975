//! Feeds: statements are offered to a peer by CHECK and TAKETHIS, or by IHAVE where it does not
//! stream (RFC 4644, RFC 3977).
//!
//! There is no spool: a feed is a cursor for each channel, up to which the peer has answered, and
//! the backlog is the log itself.

mod session;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use session::{Counts, Later, Progress, Session};
use tidings_client::{Error, pauses};
use tidings_protocol::{
    Serial,
    nntp::{Response, code},
};
use tokio::time::{Instant, sleep};

use crate::{
    config::Feed, limits::FEED_PAUSE, log::store::StoreError, logging::Safe,
    net::login::Credentials, shared::Shared,
};

/// Why a feed has to begin anew.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Connection(#[from] Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it answered {0}")]
    Unexpected(Response),
}

/// Feeds one peer until the broker shuts down.
pub(crate) async fn run(shared: Arc<Shared>, feed: Feed, credentials: Credentials) {
    let mut news = shared.logs.news();
    let mut waits = pauses();
    // Outlives connections: a statement that ends each of them keeps no other back.
    let mut later = Later::new();
    loop {
        news.mark_unchanged();
        let mut progress = false;
        let ended = tokio::select! {
            ended = once(&shared, &feed, &credentials, &mut later, &mut progress) => ended,
            () = shared.stop.cancelled() => return,
        };
        let pause = match ended {
            // Nothing is left to offer: the next news begins again.
            Ok(()) => {
                waits = pauses();
                let next = later.values().map(|(due, _)| *due).min();
                let put_off = async {
                    match next {
                        Some(due) => tokio::time::sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = news.changed() => continue,
                    () = put_off => continue,
                    () = shared.stop.cancelled() => return,
                }
            }
            Err(error) => {
                if progress {
                    waits = pauses();
                }
                tracing::warn!(feed = feed.name, peer = %feed.to, error = %Safe(&tidings_client::explain(&error)), "a feed has failed; it goes on later where it was");
                waits.next().unwrap_or(FEED_PAUSE).min(FEED_PAUSE)
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Whether nothing is to be offered now; what is answered for by now is not put off any more.
fn is_idle(progress: &[Progress], later: &mut Later) -> bool {
    // Only what is still to be answered for can be put off.
    later.retain(|(channel, serial), _| {
        let open = |one: &Progress| {
            one.log.channel == *channel
                && one.done < serial.number()
                && *serial <= one.log.marks().head.serial
        };
        progress
            .iter()
            .any(|one| open(one) && *serial >= one.log.marks().low)
    });
    let now = Instant::now();
    let waits = |one: &Progress, serial| {
        let key = Serial::new(serial).map(|serial| (one.log.channel.clone(), serial));
        key.and_then(|key| later.get(&key))
            .is_some_and(|(due, _)| *due > now)
    };
    progress.iter().all(|one| {
        (one.done + 1..=one.log.marks().head.serial.number()).all(|serial| waits(one, serial))
    })
}

/// One connection: everything that is to be offered, and what comes while it stands.
async fn once(
    shared: &Shared,
    feed: &Feed,
    credentials: &Credentials,
    later: &mut Later,
    has_progressed: &mut bool,
) -> Result<(), FeedError> {
    let mut news = shared.logs.news();
    let mut progress = Vec::new();
    look(shared, feed, &mut progress, &mut HashMap::new())?;
    if is_idle(&progress, later) {
        return Ok(());
    }
    let mut connection = credentials.connect(&feed.to).await?;
    let streaming = connection.command("MODE STREAM").await?.code == code::STREAMING;
    let mut session = Session {
        shared,
        feed,
        connection,
        streaming,
        progress: Vec::new(),
        places: HashMap::new(),
        under_way: VecDeque::new(),
        later,
        down: VecDeque::new(),
        sent_down: HashSet::new(),
        trust_again: None,
        counts: Counts::default(),
    };
    tracing::info!(feed = feed.name, peer = %feed.to, streaming, "feeding this peer");
    let ended = session.feed_all(&mut news).await;
    session.save()?;
    let Counts {
        taken,
        known,
        refused,
    } = session.counts;
    *has_progressed = taken + known > 0;
    tracing::info!(feed = feed.name, peer = %feed.to, taken, known, refused, "a feed has ended");
    if ended.is_ok() {
        // The peer may close at once; nothing is owed to it.
        let _ = session.connection.command("QUIT").await;
    }
    ended
}

/// Takes up the channels that have come since.
fn look(
    shared: &Shared,
    feed: &Feed,
    progress: &mut Vec<Progress>,
    places: &mut HashMap<usize, usize>,
) -> Result<(), StoreError> {
    for one in progress.iter_mut() {
        one.dead = shared
            .logs
            .get(one.log.channel.as_str())
            .is_none_or(|log| !Arc::ptr_eq(&log, &one.log));
    }
    let mut logs = shared.logs.all();
    logs.retain(|log| {
        feed.channels.matches(log.channel.as_str()) && !places.contains_key(&log.index)
    });
    // A peer without trust can take nothing else.
    logs.sort_by_key(|log| !log.channel.is_trust());
    for log in logs {
        let done = shared.store.feed_cursor(&feed.name, &log.channel)?;
        places.insert(log.index, progress.len());
        progress.push(Progress {
            log,
            done,
            offered: done,
            answered: BTreeMap::new(),
            saved: done,
            dead: false,
        });
    }
    Ok(())
}
