//! What must hold in every state, and that from every state there is a way back.

use crate::{
    device::Freshness,
    facts::{Author, CHANNELS, FUTURE, Id, Kind, LIFE, NONE, PLAIN, Role, Serial, Trust},
    rules::{Rule, Setting},
    world::{Bounds, Ceremony, UNKNOWN, World},
};

/// What is broken in a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) enum Broken {
    /// Something unsigned was accepted.
    Unsigned,
    /// Something is cleared that was never on the origin's log.
    NotOnLog,
    /// Something is cleared that was known as withdrawn.
    Withdrawn,
    /// Something is cleared below what was applied, while that is on the log.
    BelowApplied,
    /// CURRENT, and something newer is older than a beat's life.
    Current,
    /// Something else is cleared than the newest release that is due, or the barrier before it.
    Steered,
    /// Something is cleared that is not for this device now: not due, another target, an unknown
    /// critical field, a barrier that was not applied, a closed channel.
    Unfit,
    /// An honest withdrawal was on the log, and nobody is told of it any more.
    Untold,
    /// Brokers alone made the device forget a head that is still proven.
    TakenBack,
    /// With beats, and their key not stolen, an honest broker alone does not make it CURRENT.
    Stopped,
    /// One publisher, no thief, and something that was signed is on no log.
    Orphan,
    /// With honest brokers and without the thief it does not become CURRENT.
    Wedged,
    /// It heals, but only with a new release, although the newest is not withdrawn.
    NeedsRelease,
    /// It becomes CURRENT, and does not clear the newest honest release.
    NotCleared,
}

/// The invariants of one state.
pub(crate) fn check(s: &Setting, bounds: &Bounds, world: &World) -> Result<(), Broken> {
    signed(s, bounds, world)?;
    if bounds.publishers == 1
        && bounds.stolen.is_empty()
        && !bounds.inventions
        && bounds.ceremonies.is_empty()
        && world.loose.iter().next().is_some()
    {
        return Err(Broken::Orphan);
    }
    if world.taken_back {
        return Err(Broken::TakenBack);
    }
    for channel in 0..CHANNELS {
        current(s, bounds, world, channel)?;
        let head = s.book.get(world.device.channels[channel].head).serial;
        for from in 1..=head {
            if let Some(id) = world.device.clear(s, channel, from, world.now) {
                cleared(s, bounds, world, channel, id)?;
            }
        }
    }
    Ok(())
}

/// Nothing unsigned is accepted.
fn signed(s: &Setting, bounds: &Bounds, world: &World) -> Result<(), Broken> {
    for known in &world.device.channels {
        let chain = s.book.run(known.head, known.low);
        for id in chain
            .into_iter()
            .chain(known.kept())
            .chain([known.applied, world.device.beat])
        {
            let statement = s.book.get(id);
            let forged =
                statement.author == Author::Thief && !bounds.is_stolen(statement.kind.role());
            if id != NONE && (statement.keys == 0 || forged) {
                return Err(Broken::Unsigned);
            }
        }
    }
    Ok(())
}

fn current(s: &Setting, bounds: &Bounds, world: &World, channel: usize) -> Result<(), Broken> {
    let device = &world.device;
    let asked = !bounds.is_stolen(Role::Beat) && s.clock.is_none_or(|behind| behind == 0);
    if !asked || device.freshness(s, channel, world.now) != Freshness::Current {
        return Ok(());
    }
    let log = world.logs[channel];
    // Who has no clock is behind by what it was behind when it started, and no more.
    let lag = if s.clock.is_none() && world.lag != UNKNOWN {
        world.lag
    } else {
        0
    };
    let old = |since: u8| since + LIFE + lag <= world.now;
    let hidden = |id: &Id| {
        !device.stands_on(s, channel, *id)
            && old(world.since[channel][usize::from(s.book.get(*id).serial)])
    };
    if s.book.chain(log).iter().any(hidden) || device.trust != world.trust && old(world.trust_since)
    {
        return Err(Broken::Current);
    }
    Ok(())
}

fn cleared(
    s: &Setting,
    bounds: &Bounds,
    world: &World,
    channel: usize,
    id: Id,
) -> Result<(), Broken> {
    let (device, release) = (&world.device, s.book.get(id));
    let thieves = [
        bounds.is_stolen(Role::Beat),
        bounds.is_stolen(Role::Release),
    ];
    let was_logged = world.is_logged(s, id) || world.filed.contains(id);
    let honest = release.author != Author::Thief;
    let fine = match thieves {
        [true, true] => true,
        // Who has the beat key may choose among what was signed.
        [true, false] => was_logged || honest,
        // Without beats a release is what its key says.
        [false, true] => was_logged || !bounds.beats,
        [false, false] => was_logged || honest && !bounds.beats,
    };
    if !fine {
        return Err(Broken::NotOnLog);
    }
    if world
        .met
        .iter()
        .any(|met| s.book.get(met).kind == Kind::Withdraw { release: id })
    {
        return Err(Broken::Withdrawn);
    }
    let told = device.trust != world.trust
        || !world.filed.iter().any(|met| {
            s.book.get(met).kind == Kind::Withdraw { release: id }
                && s.book.get(met).author != Author::Thief
        });
    if !told {
        return Err(Broken::Untold);
    }
    let applied = device.channels[channel].applied;
    let Kind::Release {
        barrier,
        not_before,
        matches,
        critical,
    } = release.kind
    else {
        return Err(Broken::Unfit);
    };
    // Who has the beat key may set time ahead by as much as a beat may be.
    let ahead = if bounds.is_stolen(Role::Beat) {
        FUTURE
    } else {
        0
    };
    let passed = barrier == 0 || applied != NONE && s.book.get(applied).serial >= barrier;
    if !matches
        || critical
        || !passed
        || s.clock == Some(0) && not_before > world.now + ahead
        || s.book.trust(device.trust).closed[channel]
    {
        return Err(Broken::Unfit);
    }
    if applied != NONE && world.is_logged(s, applied) && s.book.get(applied).serial > release.serial
    {
        return Err(Broken::BelowApplied);
    }
    if !bounds.beats || bounds.is_stolen(Role::Beat) {
        return Ok(());
    }
    // The newest that is due of what the beat names; or what it needs first.
    let named = device.named(s, channel).unwrap_or(NONE);
    let due = |other: &Id| matches!(s.book.get(*other).kind, Kind::Release { not_before, matches: true, .. } if not_before <= world.now);
    let Some(newest) = s.book.chain(named).into_iter().find(due) else {
        return Err(Broken::Steered);
    };
    let needs = |other: Id| match s.book.get(other).kind {
        Kind::Release { barrier, .. } => barrier,
        _ => 0,
    };
    let mut right = newest;
    while right != id && needs(right) > 0 {
        right = s.book.at(right, needs(right));
    }
    if right != id {
        Err(Broken::Steered)
    } else {
        Ok(())
    }
}

/// The stolen keys are taken away, an honest broker answers, and releases are published until one
/// reaches the serial of what the device holds by honest signatures: it is CURRENT and clears the
/// newest. Says how many releases were needed.
pub(crate) fn heals(s: &Setting, bounds: &Bounds, world: &World) -> Result<usize, Broken> {
    if !bounds.heals {
        return Ok(0);
    }
    if bounds.beats && !bounds.is_stolen(Role::Beat) {
        let mut now = *world;
        now.sign_beat(s, now.logs);
        if !honest_contact(s, bounds, &mut now, 0) {
            return Err(Broken::Stopped);
        }
    }
    let mut world = *world;
    for publisher in 0..bounds.publishers {
        world.offer(s, publisher);
    }
    if !bounds.beats {
        return heal_by_checkpoint(s, bounds, &world);
    }
    let removed = bounds
        .stolen
        .iter()
        .all(|role| s.book.trust(world.trust).roles[*role as usize].keys == role.key(1));
    if removed {
        return heal_one(s, bounds, world);
    }
    let ways = world.ceremony(s, bounds, Ceremony::Remove);
    if ways.is_empty() {
        return Err(Broken::Wedged);
    }
    ways.into_iter()
        .try_fold(0, |needed, way| Ok(needed.max(heal_one(s, bounds, way)?)))
}

/// Without beats: the keys are taken away, the log grows beyond what the device holds, and a
/// checkpoint is put at its head.
fn heal_by_checkpoint(s: &Setting, bounds: &Bounds, world: &World) -> Result<usize, Broken> {
    for mut way in world.ceremony(s, bounds, Ceremony::Remove) {
        let mut newest = NONE;
        for _ in 0..MOST_NEW_RELEASES {
            newest = publish(s, &mut way).ok_or(Broken::Wedged)?;
        }
        // One ceremony is enough, unless something honest that is proven contradicts the log.
        let proven = |id: &Id| {
            s.book.trust(way.trust).meets(&s.book.get(*id))
                && s.book.get(*id).author != Author::Thief
        };
        if !way
            .loose
            .iter()
            .chain(way.filed.iter())
            .any(|id| proven(&id))
        {
            let mut first = way;
            if !honest_contact(s, bounds, &mut first, 0) {
                return Err(Broken::Wedged);
            }
        }
        let lines = way.logs;
        way.bring_into_force(
            s,
            Trust {
                lines,
                ..s.book.trust(way.trust)
            },
        );
        if !honest_contact(s, bounds, &mut way, 0) {
            return Err(Broken::Wedged);
        }
        // What was settled against cannot be shown again to stop anybody.
        for id in world.seen(s, 0) {
            let _ = way.device.take_run(s, 0, &[id], way.now);
        }
        if !clears(s, &way, newest) {
            return Err(Broken::NotCleared);
        }
    }
    Ok(MOST_NEW_RELEASES)
}

fn heal_one(s: &Setting, bounds: &Bounds, mut world: World) -> Result<usize, Broken> {
    let mut found = Broken::Wedged;
    for needed in 0..=MOST_NEW_RELEASES {
        let mut expected = NONE;
        if needed > 0 {
            expected = publish(s, &mut world).ok_or(Broken::Wedged)?;
        }
        if bounds.beats {
            world.sign_beat(s, world.logs);
        }
        let current = honest_contact(s, bounds, &mut world, 0);
        if needed == 0 {
            expected = newest(s, &world, 0);
        }
        match current {
            true if expected != NONE && clears(s, &world, expected) => return Ok(needed),
            _ if bounds.strict && needed == 0 && expected != NONE => {
                return Err(Broken::NeedsRelease);
            }
            true => found = Broken::NotCleared,
            false => found = Broken::Wedged,
        }
    }
    Err(found)
}

/// How many new releases it may take: as many as the log is behind what the device has applied.
const MOST_NEW_RELEASES: usize = 2;

fn publish(s: &Setting, world: &mut World) -> Option<Id> {
    if !world.may_extend(s, 0) {
        return None;
    }
    let of = |author| world.write(s, 0, world.logs[0], PLAIN, author);
    let gone = |id: &Id| world.filed.contains(*id) || world.loose.contains(*id);
    let release = [of(Author::First), of(Author::Second)]
        .into_iter()
        .find(|id| !gone(id))?;
    world.append(s, release).then_some(release)
}

/// It clears that, if need be by way of its barriers.
fn clears(s: &Setting, world: &World, release: Id) -> bool {
    let mut device = world.device;
    for _ in 0..4 {
        match device.clear(s, 0, 1, world.now) {
            Some(id) if id == release => return true,
            Some(id) => device.channels[0].applied = id,
            None => return false,
        }
    }
    false
}

/// The newest release of the log that is due, unless something of the log withdraws it.
fn newest(s: &Setting, world: &World, channel: usize) -> Id {
    let chain = s.book.chain(world.logs[channel]);
    let due = |id: &&Id| matches!(s.book.get(**id).kind, Kind::Release { not_before, matches: true, critical: false, .. } if not_before <= world.now);
    let Some(newest) = chain.iter().find(due) else {
        return NONE;
    };
    let trust = s.book.trust(world.trust);
    let stops = |id: Id| s.book.get(id).kind == Kind::Withdraw { release: *newest };
    let kept = world.device.channels[channel];
    let stopped = chain.iter().any(|id| stops(*id))
        || kept
            .kept()
            .any(|id| stops(id) && (s.has(Rule::WithdrawalStays) || trust.meets(&s.book.get(id))));
    if stopped { NONE } else { *newest }
}

/// A device asks a broker that has everything. Whether it is CURRENT then.
pub(crate) fn honest_contact(
    s: &Setting,
    bounds: &Bounds,
    world: &mut World,
    channel: usize,
) -> bool {
    let now = world.now;
    while let Some(next) = world.next_trust(s) {
        world.device.take_trust(s, next, now);
    }
    if s.book.trust(world.device.trust).beat_line != NONE {
        world.device.take_settling(s, world.now);
    }
    if bounds.beats {
        let _ = world.device.take_beat(s, world.beat, now);
    }
    let log = world.logs[channel];
    let mut from: Serial = s.book.get(world.device.channels[channel].head).serial + 1;
    for _ in 0..4 {
        if world.device.freshness(s, channel, now) == Freshness::Current
            && world.device.stands_on(s, channel, log)
        {
            return true;
        }
        // Without a place of its own to begin at it reads all; a broker that has less than it asks
        // for shows its head.
        let run = s.book.run(log, from.min(s.book.get(log).serial).max(1));
        if run.is_empty() {
            break;
        }
        match world.device.take_run(s, channel, &run, now) {
            Ok(crate::device::Place::ReadFrom(serial)) => from = serial,
            _ => from = from.saturating_sub(1).max(1),
        }
    }
    let known = world.device.channels[channel];
    if bounds.beats {
        world.device.freshness(s, channel, now) == Freshness::Current || s.book.get(log).serial == 0
    } else {
        known.head == log
            && known.evidence == [NONE; 2]
            && world.device.restart(s, channel).is_none()
    }
}
