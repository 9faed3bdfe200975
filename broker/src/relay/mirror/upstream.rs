//! Following one upstream: being told by a watch, and looking at everything it has once in a while.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tidings_client::{Connection, Error};
use tidings_protocol::{
    Channel, Head, MessageId, Statement,
    article::{Incoming, prepend_hop},
    limits::SERIAL_LAST,
    log::Begin,
    nntp::code,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    Mirror, Upstream, filling,
    filling::{FillError, Filled, Filling},
};
use crate::{
    limits::{MIRROR_ABREAST, MIRROR_AGAIN, MIRROR_AUDIT, MIRROR_AVOID, MIRROR_LAG, NAMED_ABREAST},
    log::{
        append::{AppendError, Appended, Copied, Copy, Run},
        namespaces::Provisioned,
        store::Marks,
    },
    logging::Safe,
    shared::Shared,
};

/// A news server wants to be told that it is asked, not fed (RFC 3977 section 5.3).
const MODE_READER: &str = "MODE READER";

/// One connection to ask on, and one to be told on, until either fails.
pub(super) async fn follow(
    shared: &Shared,
    mirror: &Mirror,
    upstream: &Upstream,
) -> Result<(), Error> {
    let mut asking = connect(upstream).await?;
    // Servers without CAPABILITIES, and those that number articles by themselves, are asked in
    // another way.
    let tells = asking.is_capable("XWATCH").await.unwrap_or(false);
    if !tells {
        asking.command(MODE_READER).await?;
        upstream.standing().telling = Some(false);
        return ask(
            shared,
            mirror,
            upstream,
            &mut asking,
            mirror.settings.poll,
            false,
        )
        .await;
    }
    let mut watching = connect(upstream).await?;
    // Before the first look, so that nothing falls between the two.
    match watching.watch(&mirror.asks()).await {
        Ok(promised) => {
            upstream.standing().telling = Some(true);
            tracing::info!(upstream = %upstream.address, "following this upstream");
            tokio::select! {
                biased;
                ended = listen(shared, mirror, upstream, &mut watching, promised) => ended,
                ended = ask(shared, mirror, upstream, &mut asking, MIRROR_AUDIT, true) => ended,
            }
        }
        Err(Error::Refused(why)) => {
            let why = why.to_string();
            tracing::warn!(upstream = %upstream.address, why = %Safe(&why), "this upstream refuses a watch; it is asked instead");
            upstream.standing().telling = Some(false);
            ask(
                shared,
                mirror,
                upstream,
                &mut asking,
                mirror.settings.poll,
                true,
            )
            .await
        }
        Err(error) => Err(error),
    }
}

async fn connect(upstream: &Upstream) -> Result<Connection, Error> {
    upstream.credentials.connect(&upstream.address).await
}

/// Gives the writer one statement that a watch has brought.
async fn take(
    shared: &Shared,
    mirror: &Mirror,
    provisioned: &Provisioned,
    statement: Statement,
    path: String,
) -> Result<Copied, AppendError> {
    let channel = statement.channel().clone();
    if channel == provisioned.anchor.namespace.trust_log() {
        let taken = shared.appender.append_trust(statement, path).await;
        if matches!(taken, Ok(Appended::New)) {
            mirror.trust_has_changed(shared);
        }
        return taken.map(|_| Copied::New);
    }
    let trust = provisioned.trust.load_full();
    let heads = mirror.heads_of(&statement);
    let copy = match trust.as_deref() {
        Some(trust) => match trust.verify_or_return(statement) {
            Ok(verified) => Copy::proven(verified, trust.serial(), path),
            Err(refused) => Copy::unproven(refused.0, path),
        },
        None => Copy::unproven(statement, path),
    };
    let run = Run {
        channel,
        copies: vec![copy],
        begin: Begin::Nothing,
    };
    let taken = shared.appender.copy(run).await;
    if taken.is_ok() {
        mirror.beat_has_come(shared, &heads);
    }
    taken
}

/// Takes what a watch brings; what does not follow our heads is asked for.
async fn listen(
    shared: &Shared,
    mirror: &Mirror,
    upstream: &Upstream,
    watching: &mut Connection,
    promised: Duration,
) -> Result<(), Error> {
    while let Some(Incoming { statement, path }) = watching.event(promised).await? {
        let (channel, head) = (statement.channel().clone(), statement.head());
        let Some(provisioned) = shared
            .namespaces
            .of(&channel)
            .filter(|_| mirror.takes(&channel))
        else {
            continue;
        };
        let known = shared.logs.get(channel.as_str()).map(|log| log.marks());
        if known.is_some_and(|marks| marks.head == head) {
            continue;
        }
        let own = prepend_hop(&shared.settings.config.name, path.as_deref());
        upstream.standing().path = path;
        let path = own;
        match take(shared, mirror, provisioned, statement, path).await {
            Ok(Copied::New | Copied::Known) => {}
            Ok(Copied::Wants { .. })
            | Err(AppendError::AnchorFirst(_) | AppendError::LostRace(_) | AppendError::Gap(_)) => {
                upstream.ask_for(&channel);
            }
            Err(AppendError::Future { .. }) => upstream.ask_later(&channel, MIRROR_AGAIN),
            Err(AppendError::Closed) => return Ok(()),
            // It may be good under a newer trust, or below a newer head: a look at the whole will
            // tell.
            Err(AppendError::NoTrust(_) | AppendError::Verify(_) | AppendError::Fork(..)) => {
                upstream.ask_for(&provisioned.anchor.namespace.trust_log());
                upstream.ask_for(&channel);
            }
            Err(error) => {
                tracing::warn!(upstream = %upstream.address, %channel, serial = %head.serial, %error, "not stored")
            }
        }
    }
    Ok(())
}

/// Looks at everything at once and then in its time, and at what is due in between.
async fn ask(
    shared: &Shared,
    mirror: &Mirror,
    upstream: &Upstream,
    asking: &mut Connection,
    every: Duration,
    numbers_are_serials: bool,
) -> Result<(), Error> {
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = HashMap::new();
    let mut next = None;
    loop {
        let pause = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        let due: Vec<Channel> = tokio::select! {
            biased;
            _ = looks.tick() => {
                let due = look(shared, mirror, upstream, asking, numbers_are_serials, &mut seen).await?;
                upstream.standing().trouble = None;
                due
            }
            () = upstream.wake.notified() => Vec::new(),
            () = pause => Vec::new(),
        };
        let (more, later) = upstream.take_due();
        next = later;
        let due = if due.is_empty() {
            more
        } else {
            due.into_iter().chain(more).collect()
        };
        fill_all(shared, mirror, upstream, asking, numbers_are_serials, due).await?;
    }
}

/// What an upstream says that it has: each channel, its lowest and its highest number; trust logs
/// come first.
async fn listed(
    shared: &Shared,
    mirror: &Mirror,
    upstream: &Upstream,
    asking: &mut Connection,
) -> Result<Vec<(Channel, u32, u32)>, Error> {
    let listing = asking
        .listing(&format!("LIST ACTIVE {}", mirror.asks()), code::LIST)
        .await?;
    let mut nonsense = Vec::new();
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (channel, high, low) = (
            words.next()?.parse::<Channel>().ok()?,
            words.next()?,
            words.next()?,
        );
        let number = |text: &str| text.parse().ok().filter(|number| *number <= SERIAL_LAST);
        let Some((low, high)) = number(low).zip(number(high)) else {
            nonsense.push((channel, format!("{low} to {high}")));
            return None;
        };
        Some((channel, low, high))
    };
    let wanted = |(channel, ..): &(Channel, u32, u32)| {
        mirror.takes(channel) && shared.namespaces.of(channel).is_some()
    };
    let mut marks: Vec<_> = listing.lines().filter_map(entry).filter(wanted).collect();
    for (channel, numbers) in nonsense {
        tracing::warn!(upstream = %upstream.address, %channel, numbers = %Safe(&numbers), "this upstream claims numbers that no log can have");
    }
    // Without trust nothing else can be taken.
    marks.sort_by_key(|(channel, ..)| (!channel.is_trust(), !channel.is_beat()));
    Ok(marks)
}

/// Whether a log lacks what an upstream with these numbers may have: a beat that a checkpoint
/// names, or what lies below.
fn lacks(shared: &Shared, channel: &Channel, ours: Option<Marks>, (low, high): (u32, u32)) -> bool {
    let trust = shared.namespaces.trust(channel);
    if trust.is_some_and(|trust| filling::missing_beat(&trust, channel).is_some()) {
        return true;
    }
    let is_lower = |ours: Marks| {
        ours.low.number() > low && high >= ours.low.number() - 1 && !channel.is_beat()
    };
    let wants = |ours: Marks| {
        filling::own_floor(shared, channel, ours.head.serial.number()) < ours.low.number()
    };
    ours.is_some_and(|ours| is_lower(ours) && wants(ours)) && !filling::has_age(shared, channel)
}

/// Some of the channels whose logs begin here above what a checkpoint names, and lack that; each is
/// asked for now and then.
fn lacking_named(
    shared: &Shared,
    upstream: &Upstream,
    marks: &[(Channel, u32, u32)],
    due: &[Channel],
) -> Vec<Channel> {
    let mut standing = upstream.standing();
    let asked = &mut standing.asked_for_named;
    asked.retain(|_, since| since.elapsed() < MIRROR_AVOID);
    let there: HashSet<&Channel> = marks.iter().map(|(channel, ..)| channel).collect();
    let due: HashSet<&Channel> = due.iter().collect();
    let mut lacking = Vec::new();
    for trust_log in there.iter().filter(|channel| channel.is_trust()) {
        let Some(trust) = shared.namespaces.trust(trust_log) else {
            continue;
        };
        let named = trust.checkpoints().filter(|(channel, head)| {
            there.contains(channel)
                && !due.contains(channel)
                && !asked.contains_key(*channel)
                && shared.namespaces.is_of(channel, trust.namespace())
                && filling::lacks_named(shared, channel, *head)
        });
        lacking.extend(named.map(|(channel, _)| channel.clone()));
    }
    lacking.truncate(NAMED_ABREAST);
    lacking
}

/// A channel of a news server that has something new, perhaps: its numbers say no more. What it had
/// wrong is new later still.
fn changed(
    upstream: &Upstream,
    channel: &Channel,
    (low, high): (u32, u32),
    seen: &mut HashMap<Channel, u32>,
) -> Option<Channel> {
    let is_wrong = upstream.standing().wrong.contains_key(channel);
    let is_new = !is_wrong && seen.insert(channel.clone(), high) != Some(high);
    (is_new && high >= low).then(|| channel.clone())
}

/// The channels of which an upstream has more than we do; trust logs come first, and are brought up
/// to date at once.
async fn look(
    shared: &Shared,
    mirror: &Mirror,
    upstream: &Upstream,
    asking: &mut Connection,
    numbers_are_serials: bool,
    seen: &mut HashMap<Channel, u32>,
) -> Result<Vec<Channel>, Error> {
    let marks = listed(shared, mirror, upstream, asking).await?;
    let mut due = Vec::new();
    let (mut behind, mut same) = (0, Vec::new());
    for (channel, low, high) in &marks {
        if !numbers_are_serials {
            due.extend(changed(upstream, channel, (*low, *high), seen));
            continue;
        }
        let ours = shared.logs.get(channel.as_str()).map(|log| log.marks());
        if lacks(shared, channel, ours, (*low, *high)) {
            due.push(channel.clone());
        }
        match ours.map(|ours| ours.head) {
            Some(head) if head.serial.number() > *high => behind += 1,
            Some(head) if head.serial.number() == *high => same.push((channel.clone(), head)),
            _ if high >= low && *low > 0 => due.push(channel.clone()),
            _ => {}
        }
    }
    let lacking = lacking_named(shared, upstream, &marks, &due);
    due.extend(lacking);
    // The same height need not be the same statement. Many are asked for at a time: one round trip
    // for each would take longer than a look may.
    let other = |channel: &Channel, head: Head, theirs: Option<String>| {
        let ours = MessageId {
            channel: channel.clone(),
            serial: head.serial,
            id: head.id,
        };
        if theirs.is_some_and(|id| id != ours.to_string()) {
            due.push(channel.clone());
        }
    };
    asking.each_id(&same, other).await?;
    let mut standing = upstream.standing();
    standing
        .wrong
        .retain(|_, since| since.elapsed() < MIRROR_AVOID);
    if numbers_are_serials {
        standing.marks = marks
            .into_iter()
            .map(|(channel, low, high)| (channel, (low, high)))
            .collect();
    }
    standing.looked = numbers_are_serials;
    if standing.note_behind(behind) > MIRROR_LAG {
        tracing::warn!(upstream = %upstream.address, channels = behind, "this upstream is behind the others");
    }
    due.retain(|channel| !standing.wrong.contains_key(channel));
    due.dedup();
    Ok(due)
}

/// Fills channels one after the other, the writer working on some while others are read.
async fn fill_all(
    shared: &Shared,
    mirror: &Mirror,
    upstream: &Upstream,
    asking: &mut Connection,
    numbers_are_serials: bool,
    mut due: Vec<Channel>,
) -> Result<(), Error> {
    due.sort_by_key(|channel| !channel.is_trust());
    let mut offers = FuturesUnordered::new();
    for channel in due {
        // Walking a trust log twice does no harm, and everything waits for it.
        let claim = mirror.claim(&channel, upstream);
        if claim.is_none() && !channel.is_trust() {
            continue;
        }
        let filling = Filling {
            shared,
            mirror,
            upstream,
            channel: &channel,
            claim: claim.as_ref(),
        };
        let filled = filling.fill(asking, numbers_are_serials).await;
        if !matches!(filled, Ok(Filled::Offer(_) | Filled::More)) {
            upstream.standing().note_filled(&channel);
        }
        match filled {
            Ok(Filled::Whole) => {}
            Ok(Filled::More) => upstream.ask_for(&channel),
            Ok(Filled::Offer(run)) => {
                // The writer has it now, and works on it while the next channel is read.
                let stored = shared.appender.offer(run).await;
                offers.push(async move {
                    let copied = stored.await;
                    drop(claim);
                    (copied, channel)
                });
            }
            Err(FillError::Connection(error)) => return Err(error),
            Err(FillError::Closed) => return Ok(()),
            Err(error) => {
                avoid(upstream, &channel, &error);
                if error.spoils_connection() {
                    *asking = connect(upstream).await?;
                    if !numbers_are_serials {
                        asking.command(MODE_READER).await?;
                    }
                }
            }
        }
        while offers.len() >= MIRROR_ABREAST {
            settle(upstream, offers.next().await);
        }
    }
    while !offers.is_empty() {
        settle(upstream, offers.next().await);
    }
    Ok(())
}

fn settle(upstream: &Upstream, done: Option<(Result<Copied, AppendError>, Channel)>) {
    match done {
        None | Some((Ok(Copied::New | Copied::Known), _)) => {}
        // It should have been whole: something contradicts our head, or came meanwhile.
        Some((Ok(Copied::Wants { .. }), channel)) => upstream.ask_for(&channel),
        Some((Err(error), channel)) => avoid(upstream, &channel, &FillError::Append(error)),
    }
}

/// What an upstream has wrong is not asked of it again for a while; its other channels are, and
/// other upstreams. What is our own affair, or waits for trust, is only put off.
fn avoid(upstream: &Upstream, channel: &Channel, error: &FillError) {
    if let FillError::Append(error) = error
        && error.is_passing()
    {
        tracing::debug!(upstream = %upstream.address, %channel, %error, "put off");
        return upstream.ask_later(channel, MIRROR_AGAIN);
    }
    let error = error.to_string();
    tracing::warn!(upstream = %upstream.address, %channel, error = %Safe(&error), "this upstream has a channel wrong; it is not asked for it for a while");
    upstream
        .standing()
        .wrong
        .insert(channel.clone(), Instant::now());
}
