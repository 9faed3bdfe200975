//! A mirror: a device that serves on. It follows every upstream at once, verifies all it takes with
//! its own anchors, and gives it to the one writer; the first to bring something wins, and what
//! comes twice is a duplicate.
//!
//! `upstream.rs` follows one upstream, `filling` fills one log from it.

mod filling;
mod upstream;

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidings_client::{Address, pauses};
use tidings_protocol::{Channel, Head, Statement, statement::Body};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Mirroring,
    limits::{MIRROR_CLAIM, MIRROR_PAUSE, WILDMAT_PATTERNS},
    log::logs::Logs,
    logging::Safe,
    net::login::{Credentials, LoginError},
    shared::Shared,
};

/// Whether a channel is wanted now.
pub(crate) type Only = dyn Fn(&Channel) -> bool + Send + Sync;

/// What is copied, and from where.
pub(crate) struct Mirror {
    pub(crate) settings: Mirroring,
    pub(crate) upstreams: Vec<Upstream>,
    /// Of those, what is wanted now: among members of a cluster, where what none of them has is
    /// waited for, since another one has it, and is away.
    only: Option<Box<Only>>,
    /// Channels that are being filled from some upstream.
    claims: Mutex<HashMap<Channel, Holder>>,
    /// Logs that could go on only behind a hole, and since when.
    holes: Mutex<HashMap<Channel, (u32, Instant)>>,
}

/// Who fills a channel, since when without having stored anything, and which upstreams wait for
/// their turn.
struct Holder {
    number: u64,
    since: Instant,
    waiting: Vec<usize>,
}

/// One upstream.
pub(crate) struct Upstream {
    index: usize,
    pub(crate) address: Address,
    credentials: Credentials,
    standing: Mutex<Standing>,
    /// Channels that have more than we do, or might, and when they are looked at.
    due: Mutex<BTreeMap<Channel, Instant>>,
    wake: Notify,
}

/// How an upstream stands.
#[derive(Default)]
pub(crate) struct Standing {
    /// Whether it tells, and is not only asked; none while it is not connected.
    pub(crate) telling: Option<bool>,
    /// Why it was given up last.
    pub(crate) trouble: Option<String>,
    /// `Path` of what it told last.
    path: Option<String>,
    /// Whether it was looked at as a whole since it is connected.
    looked: bool,
    /// What it has: lowest and highest serial.
    pub(crate) marks: HashMap<Channel, (u32, u32)>,
    /// Channels of which it has less than we do.
    pub(crate) behind: usize,
    behind_since: Option<Instant>,
    /// Channels that it had wrong, and when.
    wrong: HashMap<Channel, Instant>,
    /// Channels of which it was asked for what a checkpoint names, and when.
    asked_for_named: HashMap<Channel, Instant>,
}

impl Standing {
    /// What it has of a channel was asked for, also what a checkpoint names.
    fn note_filled(&mut self, channel: &Channel) {
        self.asked_for_named.insert(channel.clone(), Instant::now());
    }
    /// What it claims to have of a channel, unless it had that wrong.
    fn claims(&self, channel: &Channel) -> Option<&(u32, u32)> {
        self.marks
            .get(channel)
            .filter(|_| !self.wrong.contains_key(channel))
    }
}

/// The same for operators.
pub(crate) struct UpstreamStatus {
    pub(crate) address: Address,
    /// Whether it tells, and is not only asked; none while it is not connected.
    pub(crate) telling: Option<bool>,
    /// Why it is not connected, if that is known.
    pub(crate) trouble: Option<String>,
    /// The way that its news took to it, as it says: its own name first.
    pub(crate) path: Option<String>,
    /// What it has and we do not.
    pub(crate) statements_to_come: u64,
    pub(crate) channels_to_come: u64,
    /// Channels of which it has less than we do, and that it had wrong.
    pub(crate) behind: usize,
    pub(crate) wrong: usize,
}

impl UpstreamStatus {
    /// How it stands, in a word of a closed set.
    pub(crate) fn state(&self) -> &'static str {
        match self.telling {
            Some(true) => "tells",
            Some(false) => "is asked",
            None => "is not connected",
        }
    }
}

/// A channel that nobody else fills meanwhile, for as long as it makes progress.
struct Claim<'a> {
    mirror: &'a Mirror,
    channel: Channel,
    number: u64,
}

impl Claim<'_> {
    /// Something was stored.
    fn renew(&self) {
        if let Some(holder) = lock(&self.mirror.claims)
            .get_mut(&self.channel)
            .filter(|holder| holder.number == self.number)
        {
            holder.since = Instant::now();
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claims = lock(&self.mirror.claims);
        if claims
            .get(&self.channel)
            .is_none_or(|holder| holder.number != self.number)
        {
            return;
        }
        let waiting = claims
            .remove(&self.channel)
            .map_or(Vec::new(), |holder| holder.waiting);
        drop(claims);
        // They may have more of it.
        waiting
            .into_iter()
            .for_each(|index| self.mirror.upstreams[index].ask_for(&self.channel));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mirror {
    pub(crate) fn new(settings: &Mirroring, only: Option<Box<Only>>) -> Result<Self, LoginError> {
        let credentials = Credentials::read(&settings.login)?;
        let upstream = |(index, address): (usize, &Address)| Upstream {
            index,
            address: address.clone(),
            credentials: credentials.clone(),
            standing: Mutex::default(),
            due: Mutex::default(),
            wake: Notify::new(),
        };
        let upstreams = settings
            .upstreams
            .iter()
            .enumerate()
            .map(upstream)
            .collect();
        Ok(Self {
            settings: settings.clone(),
            only,
            upstreams,
            claims: Mutex::default(),
            holes: Mutex::default(),
        })
    }

    /// What upstreams are shown.
    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.upstreams.first().map(|upstream| &upstream.credentials)
    }

    /// Whether a channel is copied now.
    fn takes(&self, channel: &Channel) -> bool {
        self.settings.channels.matches(channel.as_str())
            && self.only.as_ref().is_none_or(|only| only(channel))
    }

    /// What an upstream is asked for: if that is more than a wildmat may be, everything, and what
    /// is not wanted is passed over.
    fn asks(&self) -> String {
        let channels = &self.settings.channels;
        if channels.patterns() > WILDMAT_PATTERNS {
            "*".into()
        } else {
            channels.to_string()
        }
    }

    /// How many upstreams are connected.
    pub(crate) fn connected(&self) -> usize {
        let is_there = |upstream: &&Upstream| upstream.standing().telling.is_some();
        self.upstreams.iter().filter(is_there).count()
    }

    /// How every upstream stands.
    pub(crate) fn statuses(&self, logs: &Logs) -> Vec<UpstreamStatus> {
        let lag = |(channel, (_, high)): (&Channel, &(u32, u32))| {
            let ours = logs
                .get(channel.as_str())
                .map_or(0, |log| log.marks().head.serial.number());
            u64::from(high.saturating_sub(ours))
        };
        let status = |upstream: &Upstream| {
            let standing = upstream.standing();
            let lags = standing.marks.iter().map(lag).filter(|lag| *lag > 0);
            let (channels_to_come, statements_to_come) =
                lags.fold((0, 0), |(n, sum), lag| (n + 1, sum + lag));
            UpstreamStatus {
                address: upstream.address.clone(),
                telling: standing.telling,
                trouble: standing
                    .trouble
                    .clone()
                    .filter(|_| standing.telling.is_none()),
                path: standing.path.clone(),
                statements_to_come,
                channels_to_come,
                behind: standing.behind,
                wrong: standing.wrong.len(),
            }
        };
        self.upstreams.iter().map(status).collect()
    }

    /// A channel for one upstream alone; if another one has it, this one is told when it is free,
    /// or no progress is made.
    fn claim(&self, channel: &Channel, upstream: &Upstream) -> Option<Claim<'_>> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let holder = Holder {
            number,
            since: Instant::now(),
            waiting: Vec::new(),
        };
        match lock(&self.claims).entry(channel.clone()) {
            Entry::Vacant(free) => drop(free.insert(holder)),
            Entry::Occupied(mut stuck) if stuck.get().since.elapsed() >= MIRROR_CLAIM => {
                let waiting = std::mem::replace(stuck.get_mut(), holder).waiting;
                stuck.get_mut().waiting = waiting;
            }
            Entry::Occupied(mut taken) => {
                taken.get_mut().waiting.push(upstream.index);
                upstream.ask_later(channel, MIRROR_CLAIM);
                return None;
            }
        }
        Some(Claim {
            mirror: self,
            channel: channel.clone(),
            number,
        })
    }

    /// What was wrong under the trust before is looked at anew; and what it has taken away from
    /// logs is asked for.
    fn trust_has_changed(&self, shared: &Shared) {
        let head = |channel: &Channel| {
            shared
                .logs
                .get(channel.as_str())
                .map_or(0, |log| log.marks().head.serial.number())
        };
        for upstream in &self.upstreams {
            let due: Vec<Channel> = {
                let mut standing = upstream.standing();
                standing.asked_for_named.clear();
                let wrong = std::mem::take(&mut standing.wrong).into_keys();
                let ahead = standing
                    .marks
                    .iter()
                    .filter(|(channel, (_, high))| *high > head(channel))
                    .map(|(channel, _)| channel.clone());
                wrong.chain(ahead).collect()
            };
            due.iter().for_each(|channel| upstream.ask_for(channel));
        }
    }

    /// What a beat names.
    fn heads_of(&self, statement: &Statement) -> Vec<(Channel, Head)> {
        match statement.body() {
            Body::Beat(beat) => beat.heads.clone(),
            _ => Vec::new(),
        }
    }

    /// Where a beat that was stored names another statement than ours, its branch is asked for,
    /// also of those who had it wrong.
    fn beat_has_come(&self, shared: &Shared, heads: &[(Channel, Head)]) {
        let contradicts = |channel: &Channel, head: Head| {
            let log = shared
                .logs
                .get(channel.as_str())
                .filter(|log| head.serial <= log.marks().head.serial);
            log.is_some_and(|log| log.contradicts(head))
        };
        for (channel, head) in heads {
            if self.takes(channel) && !channel.is_trust() && contradicts(channel, *head) {
                for upstream in &self.upstreams {
                    upstream.standing().wrong.remove(channel);
                    upstream.ask_for(channel);
                }
            }
        }
    }

    /// Whether a log that we have may go on behind a hole: only if nobody has what follows our
    /// head. Of an upstream that is away, or numbers articles by itself, that is not known, and the
    /// hole has to have been there for a while.
    fn accepts_hole(&self, channel: &Channel, next: u32, patience: Duration) -> bool {
        if self.only.is_some() {
            return false;
        }
        let has = |(low, high): &(u32, u32)| (*low..=*high).contains(&next);
        if self
            .upstreams
            .iter()
            .any(|upstream| upstream.standing().claims(channel).is_some_and(has))
        {
            lock(&self.holes).remove(channel);
            return false;
        }
        let all_known = self
            .upstreams
            .iter()
            .all(|upstream| upstream.standing().looked);
        let mut holes = lock(&self.holes);
        let (at, since) = holes
            .entry(channel.clone())
            .or_insert_with(|| (next, Instant::now()));
        if *at != next {
            (*at, *since) = (next, Instant::now());
        }
        all_known || since.elapsed() > patience
    }

    /// Whether a log that we do not have may begin with a serial: only if nobody who can be asked
    /// has more of it.
    fn may_begin(&self, channel: &Channel, low: u32) -> bool {
        if self.only.is_some() {
            return false;
        }
        self.upstreams.iter().all(|upstream| {
            let standing = upstream.standing();
            let known =
                standing.looked || standing.telling == Some(false) || standing.trouble.is_some();
            known
                && standing
                    .claims(channel)
                    .is_none_or(|(theirs, _)| *theirs >= low)
        })
    }
}

impl Standing {
    /// Notes of how many channels it has less than we do, and tells for how long it has been
    /// behind.
    fn note_behind(&mut self, channels: usize) -> Duration {
        self.behind = channels;
        self.behind_since = (channels > 0).then(|| self.behind_since.unwrap_or_else(Instant::now));
        self.behind_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Upstream {
    /// How it stands now.
    pub(crate) fn standing(&self) -> MutexGuard<'_, Standing> {
        lock(&self.standing)
    }

    fn ask_for(&self, channel: &Channel) {
        lock(&self.due).insert(channel.clone(), Instant::now());
        self.wake.notify_one();
    }

    /// Unless it is asked for sooner.
    fn ask_later(&self, channel: &Channel, pause: Duration) {
        lock(&self.due)
            .entry(channel.clone())
            .or_insert_with(|| Instant::now() + pause);
        self.wake.notify_one();
    }

    /// What is due now, and when the next is.
    fn take_due(&self) -> (Vec<Channel>, Option<Instant>) {
        let (mut due, now) = (lock(&self.due), Instant::now());
        let ready: Vec<Channel> = due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(channel, _)| channel.clone())
            .collect();
        due.retain(|_, at| *at > now);
        (ready, due.values().min().copied())
    }
}

/// Follows some brokers for a while, until it is told to stop.
pub(crate) fn follow_for_a_while(
    shared: &Arc<Shared>,
    settings: &Mirroring,
    only: Box<Only>,
) -> Result<CancellationToken, LoginError> {
    let mirror = Arc::new(Mirror::new(settings, Some(only))?);
    let stop = shared.stop.child_token();
    for index in 0..mirror.upstreams.len() {
        let (own, mirror, stop) = (shared.clone(), mirror.clone(), stop.clone());
        shared.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = run(own, mirror, index) => {}
                () = stop.cancelled() => {}
            }
        });
    }
    Ok(stop)
}

/// Follows one upstream until the broker shuts down.
pub(crate) async fn run(shared: Arc<Shared>, mirror: Arc<Mirror>, index: usize) {
    let upstream = &mirror.upstreams[index];
    let mut waits = pauses();
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            biased;
            ended = upstream::follow(&shared, &mirror, upstream) => ended,
            () = shared.stop.cancelled() => return,
        };
        let why = match ended {
            Ok(()) => "it ended the watch".into(),
            Err(error) => tidings_client::explain(&error),
        };
        {
            let mut standing = upstream.standing();
            standing.telling = None;
            standing.marks.clear();
            standing.looked = false;
            // Once, not at every attempt.
            if standing.trouble.as_ref() != Some(&why) {
                tracing::warn!(upstream = %upstream.address, why = %Safe(&why), "this upstream cannot be followed; it is tried again, others are not affected");
            }
            standing.trouble = Some(why);
        }
        #[cfg(test)]
        if tidings_protocol::simulated::has(tidings_protocol::simulated::Fault::Upstream) {
            return;
        }
        if began.elapsed() > MIRROR_PAUSE {
            waits = pauses();
        }
        let pause = waits.next().unwrap_or(MIRROR_PAUSE).min(MIRROR_PAUSE);
        tokio::select! {
            biased;
            () = sleep(pause) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}
