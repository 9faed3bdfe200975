//! Filling one log from one upstream: the newest statement first, the rest backwards, each checked against the id that
//! its successor names, in chunks that survive an interruption.

use std::{collections::BTreeMap, time::Duration};

use tidings_client::{Connection, Error};
use tidings_protocol::{
    Channel, MessageId, Serial,
    article::{Incoming, prepend_hop},
    nntp::code,
};

use super::{Claim, Mirror, Upstream, lock};
use crate::{
    append::{AppendError, Appended, Copied, Offer, Run},
    limits::{MIRROR_AGAIN, MIRROR_BEATS, MIRROR_CHUNK},
    shared::Shared,
};

/// Why a log is not filled from an upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum FillError {
    /// The connection is of no more use.
    #[error(transparent)]
    Connection(Error),
    /// What it sends is no statement, or not the one that was asked for.
    #[error(transparent)]
    Content(Error),
    #[error("it claims to have {0}, and does not send it")]
    Missing(Serial),
    #[error("it sends serial {found} where {expected} was asked for")]
    Other { expected: Serial, found: Serial },
    #[error(transparent)]
    Append(AppendError),
    /// We are going down.
    #[error("the broker is shutting down")]
    Closed,
}

impl From<Error> for FillError {
    fn from(error: Error) -> Self {
        match error {
            Error::Article(_) | Error::Block(_) => FillError::Content(error),
            error => FillError::Connection(error),
        }
    }
}

impl From<AppendError> for FillError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Closed => FillError::Closed,
            error => FillError::Append(error),
        }
    }
}

impl FillError {
    /// Whether answers may still be under way.
    pub(super) fn spoils_connection(&self) -> bool {
        matches!(self, FillError::Content(_))
    }
}

/// Where an upstream has which serial: under that number, or under one of its own.
enum Numbers {
    Serials { low: u32, high: u32 },
    Own(BTreeMap<u32, String>),
}

impl Numbers {
    fn high(&self) -> u32 {
        match self {
            Numbers::Serials { high, .. } => *high,
            Numbers::Own(ids) => ids.keys().next_back().copied().unwrap_or(0),
        }
    }
    /// The lowest serial from which on, up to `serial`, nothing is missing.
    fn low(&self, serial: u32) -> u32 {
        match self {
            Numbers::Serials { low, .. } => *low,
            Numbers::Own(ids) => (1..=serial).rev().find(|serial| !ids.contains_key(&(serial - 1))).unwrap_or(1),
        }
    }
    /// What ARTICLE is asked for.
    fn name(&self, serial: u32) -> String {
        match self {
            Numbers::Serials { .. } => serial.to_string(),
            Numbers::Own(ids) => ids.get(&serial).cloned().unwrap_or_else(|| "<0@invalid>".into()),
        }
    }
}

/// What came of filling.
pub(super) enum Filled {
    /// Nothing is left to do for now.
    Whole,
    /// There was progress, and there is more.
    More,
    /// One chunk fills the gap: it is left to the caller, so that many can be stored at once.
    Offer(Run),
}

/// Reads what an upstream has more of a channel than we do, and stores it chunk by chunk.
pub(super) async fn fill(
    shared: &Shared,
    mirror: &Mirror,
    upstream: &Upstream,
    asking: &mut Connection,
    numbers_are_serials: bool,
    channel: &Channel,
    claim: Option<&Claim<'_>>,
) -> Result<Filled, FillError> {
    let Some(provisioned) = shared.namespaces.of(channel).filter(|_| mirror.takes(channel)) else { return Ok(Filled::Whole) };
    let Some(numbers) = numbers(asking, channel, numbers_are_serials).await? else { return Ok(Filled::Whole) };
    let high = numbers.high();
    if numbers_are_serials {
        lock(&upstream.standing).marks.insert(channel.clone(), (numbers.low(1), high));
    }
    if *channel == provisioned.anchor.namespace.trust_log() {
        return walk_trust(shared, mirror, asking, channel, &numbers).await.map(|()| Filled::Whole);
    }
    let head = || shared.logs.get(channel.as_str()).map_or(0, |log| log.marks().head.serial.number());
    let from = head();
    // What is half filled goes on where it was, if this upstream has that.
    let asks = Run { channel: channel.clone(), copies: vec![], is_floor: false, accept_gap: false };
    let half_filled = match shared.appender.copy(asks).await? {
        Copied::Wants { next, top } if next.number() <= high => Some((next.number(), top.number())),
        _ => None,
    };
    // A claim of upstream's is not the top that retention counts from.
    let top = half_filled.map_or(high, |(_, top)| high.min(top));
    let (own, theirs) = (own_floor(shared, channel, top), numbers.low(high));
    let floor = own.max(theirs);
    // What retention does not keep is not wanted; what upstream does not have has to be missing everywhere.
    let patience = Duration::from_secs(shared.settings.config.limits.gap_seconds);
    if theirs <= from + 1 {
        lock(&mirror.holes).remove(channel);
    }
    // What members of a cluster have removed by age, we would remove too.
    let aged = mirror.only.is_some() && (channel.is_beat() || has_age(shared, channel));
    let ends_at_floor = match from {
        _ if aged => true,
        0 => own >= theirs || mirror.may_begin(channel, theirs),
        _ => floor > from + 1 && (own > from + 1 || mirror.accepts_hole(channel, from + 1, patience)),
    };
    if !ends_at_floor && theirs > from + 1 {
        // Others may have what this one lacks, once they are asked.
        upstream.ask_later(channel, MIRROR_AGAIN);
    }
    let run =
        |copies, lowest| Run { channel: channel.clone(), copies, is_floor: ends_at_floor && lowest == floor, accept_gap: ends_at_floor };
    let (mut wanted, resumed) = match half_filled {
        Some((next, _)) if next >= floor => (next, true),
        // Down to the floor it is here: one statement more tells that this is enough.
        Some(_) if ends_at_floor => (floor.min(high), true),
        Some(_) => return Ok(Filled::Whole),
        None => (high, false),
    };
    let (mut ahead, mut lowest_so_far) = (None, u32::MAX);
    while (floor..=high).contains(&wanted) && wanted < lowest_so_far {
        let lowest = floor.max(wanted.saturating_sub(MIRROR_CHUNK - 1));
        let lowest = if wanted > head() { lowest.max(head() + 1) } else { wanted };
        lowest_so_far = lowest;
        let copies = match ahead.take() {
            Some((from, to, copies)) if (from, to) == (wanted, lowest) => copies,
            _ => chunk(shared, asking, channel, &numbers, wanted, lowest).await?,
        };
        if !resumed && wanted == high && lowest == floor.max(from + 1) {
            return Ok(Filled::Offer(run(copies, lowest)));
        }
        // The next chunk is read while this one is stored.
        let next = lowest.saturating_sub(1);
        let stored = shared.appender.copy(run(copies, lowest));
        let copied = if next >= floor && next > from {
            let below = floor.max(next.saturating_sub(MIRROR_CHUNK - 1)).max(from + 1);
            let (copied, read) = tokio::join!(stored, chunk(shared, asking, channel, &numbers, next, below));
            ahead = Some((next, below, read?));
            copied?
        } else {
            stored.await?
        };
        if let Some(claim) = claim {
            claim.renew();
        }
        match copied {
            Copied::Wants { next, .. } => wanted = next.number(),
            Copied::New | Copied::Known => break,
        }
    }
    // What was half filled is whole now; what came since then is the next gap.
    let more = (from + 1..high).contains(&head());
    Ok(if more { Filled::More } else { Filled::Whole })
}

/// Whether our retention removes what has become old.
fn has_age(shared: &Shared, channel: &Channel) -> bool {
    let retention = shared.settings.retention.iter().find(|r| r.channels.matches(channel.as_str()));
    retention.is_some_and(|retention| retention.age.is_some())
}

/// Below this nothing is wanted: what retention would remove at once.
fn own_floor(shared: &Shared, channel: &Channel, high: u32) -> u32 {
    let retention = shared.settings.retention.iter().find(|r| r.channels.matches(channel.as_str()));
    let count = retention.and_then(|retention| retention.count);
    let count = if channel.is_beat() { Some(count.map_or(MIRROR_BEATS, |count| count.min(MIRROR_BEATS))) } else { count };
    let settled = shared.namespaces.trust(channel).and_then(|trust| trust.checkpoint(channel).head()).map(|c| c.serial.number());
    let low = count.map_or(1, |count| (high + 1).saturating_sub(count).max(1));
    settled.map_or(low, |settled| low.min(settled))
}

async fn numbers(asking: &mut Connection, channel: &Channel, numbers_are_serials: bool) -> Result<Option<Numbers>, FillError> {
    if numbers_are_serials {
        let group = asking.group(channel, None).await?;
        return Ok(group.map(|(group, _)| Numbers::Serials { low: group.low, high: group.high }));
    }
    let response = asking.command(&format!("GROUP {channel}")).await?;
    if response.code != code::GROUP {
        return Ok(None);
    }
    let marks: Vec<u64> = response.text.split(' ').take(3).filter_map(|n| n.parse().ok()).collect();
    let [_, low, high] = marks[..] else { return Ok(None) };
    if high < low {
        return Ok(None);
    }
    let listing = asking.listing(&format!("XHDR Message-ID {low}-{high}"), code::HEAD).await?;
    let ids = listing.lines().filter_map(|line| line.split_once(' ')?.1.trim().parse::<MessageId>().ok());
    let ids: BTreeMap<u32, String> = ids.filter(|id| id.channel == *channel).map(|id| (id.serial.number(), id.to_string())).collect();
    Ok((!ids.is_empty()).then_some(Numbers::Own(ids)))
}

/// Statements from `wanted` down to `lowest`.
async fn chunk(
    shared: &Shared,
    asking: &mut Connection,
    channel: &Channel,
    numbers: &Numbers,
    wanted: u32,
    lowest: u32,
) -> Result<Vec<(Offer, String)>, FillError> {
    let serials = (lowest..=wanted).rev();
    let found = asking.fetch(serials.clone().map(|serial| numbers.name(serial))).await?;
    let mut copies = Vec::with_capacity(found.len());
    for (serial, incoming) in serials.filter_map(Serial::new).zip(found) {
        let Incoming { statement, path } = incoming.ok_or(FillError::Missing(serial))?;
        if statement.serial() != serial || statement.channel() != channel {
            return Err(FillError::Other { expected: serial, found: statement.serial() });
        }
        copies.push((Offer::Unproven(statement), prepend_hop(&shared.settings.config.name, path.as_deref())));
    }
    Ok(copies)
}

/// Trust statements, oldest first, each checked by signature.
async fn walk_trust(shared: &Shared, mirror: &Mirror, asking: &mut Connection, log: &Channel, numbers: &Numbers) -> Result<(), FillError> {
    let known = shared.logs.get(log.as_str()).map_or(0, |log| log.marks().head.serial.number());
    let mut from = known + 1;
    while from <= numbers.high() {
        let until = numbers.high().min(from + MIRROR_CHUNK - 1);
        for (offer, path) in chunk(shared, asking, log, numbers, until, from).await?.into_iter().rev() {
            let Offer::Unproven(statement) = offer else { continue };
            match shared.appender.append_trust(statement, path).await {
                Ok(Appended::New) => mirror.trust_has_changed(),
                Ok(Appended::Known) => {}
                // Another upstream was quicker.
                Err(AppendError::LostRace(head)) if head.serial.number() >= from => {}
                Err(error) => return Err(error.into()),
            }
        }
        from = until + 1;
    }
    if known == numbers.high() {
        // The same height: it is a fork, or the same.
        let (offer, path) = chunk(shared, asking, log, numbers, known, known).await?.remove(0);
        if let Offer::Unproven(statement) = offer {
            shared.appender.append_trust(statement, path).await?;
        }
    }
    Ok(())
}
