//! Those who use the cluster meanwhile: publishers, subscribers, machines that take turns, and an
//! operator.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidings_client::{Channel, Connection, Head, Serial, SlotError, Slots, Tls};
use tidings_protocol::{nntp::code, slot::SlotName};
use tidings_tests::{Random, realm::Realm};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::history::{History, Outcome};

/// How long a channel may take to begin, faults included.
const BEGIN: Duration = Duration::from_secs(120);

/// What everybody knows.
pub(crate) struct World {
    pub(crate) realm: Realm,
    pub(crate) urls: Vec<String>,
    /// Where they give slots.
    pub(crate) slot_servers: Vec<String>,
    pub(crate) channels: Vec<Channel>,
    /// How many of them subscribers watch, and are published in most: the first ones.
    pub(crate) watched: usize,
    /// How many have begun, or are about to.
    pub(crate) begun: AtomicUsize,
    pub(crate) history: History,
    pub(crate) stop: CancellationToken,
}

impl World {
    async fn connect(&self, broker: usize) -> anyhow::Result<Connection> {
        Ok(timeout(
            Duration::from_secs(3),
            Connection::open(&self.urls[broker].parse()?, &Tls::system()?),
        )
        .await??)
    }

    fn pick(&self, random: &mut Random) -> (usize, Channel) {
        let below = |random: &mut Random, bound: usize| {
            usize::try_from(random.below(bound as u64)).unwrap_or(0)
        };
        let channels = match random.below(2) {
            0 => self.channels.len(),
            _ => self.watched,
        };
        (
            below(random, self.urls.len()),
            self.channels[below(random, channels)].clone(),
        )
    }
}

/// Begins channels, one after the other, until all have begun, whatever happens meanwhile.
///
/// # Errors
/// If one cannot be begun for long.
pub(crate) async fn pioneer(world: Arc<World>, number: usize) -> anyhow::Result<()> {
    loop {
        let next = world.begun.fetch_add(1, Ordering::Relaxed);
        let Some(channel) = world.channels.get(next) else {
            return Ok(());
        };
        let (began, mut count) = (Instant::now(), 0);
        let broker = (number + next) % world.urls.len();
        // Another statement each time: what was refused is not what is there afterwards.
        while !matches!(
            publish(&world, broker, channel, &format!("first{count}")).await,
            Ok(Outcome::Stored)
        ) {
            anyhow::ensure!(began.elapsed() < BEGIN, "{channel} cannot be begun");
            count += 1;
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Publishes what follows the head, at any broker, until it is told to stop.
pub(crate) async fn publisher(world: Arc<World>, number: u64, seed: u64) {
    let mut random = Random::new(seed ^ number.wrapping_mul(0x9e37_79b9));
    let mut count = 0;
    while !world.stop.is_cancelled() {
        let (broker, channel) = world.pick(&mut random);
        count += 1;
        if publish(&world, broker, &channel, &format!("{number}.{count}"))
            .await
            .is_err()
        {
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_millis(random.below(40))).await;
    }
}

async fn head(connection: &mut Connection, channel: &Channel) -> anyhow::Result<Option<Head>> {
    let Some((group, _)) = connection.group(channel, None).await? else {
        return Ok(None);
    };
    let mut newest = connection
        .articles(channel, group.high..=group.high, 1 << 20)
        .await?;
    Ok(newest.pop().map(|statement| statement.head()))
}

/// One POST, and what became of it.
///
/// # Errors
/// If nothing was posted.
pub(crate) async fn publish(
    world: &World,
    broker: usize,
    channel: &Channel,
    version: &str,
) -> anyhow::Result<Outcome> {
    let mut connection = world.connect(broker).await?;
    let after = timeout(Duration::from_secs(5), head(&mut connection, channel)).await??;
    let statement = world.realm.release(channel, after, version, &["ann"]);
    let answer = timeout(Duration::from_secs(25), connection.post(&statement)).await;
    let outcome = match answer {
        Ok(Ok(response)) if response.code == code::POSTED => Outcome::Stored,
        Ok(Ok(response)) if response.text.contains("not known whether") => Outcome::Unknown,
        Ok(Ok(response)) if response.code == code::POST_FAILED => Outcome::Refused,
        _ => Outcome::Unknown,
    };
    world.history.post(channel, statement.head(), outcome);
    Ok(outcome)
}

/// Watches everything at one broker, from the beginning, and goes on where it was.
pub(crate) async fn subscriber(world: Arc<World>, broker: usize) {
    let name = format!("the subscriber of broker {broker}");
    let mut cursors: HashMap<Channel, u32> = HashMap::new();
    loop {
        let watching = async {
            let mut connection = world.connect(broker).await?;
            let targets: Vec<String> = world.channels[..world.watched]
                .iter()
                .map(|channel| format!("{channel}:{}", cursors.get(channel).copied().unwrap_or(0)))
                .collect();
            let promised =
                timeout(Duration::from_secs(5), connection.watch(&targets.join(" "))).await??;
            loop {
                // Two heartbeats are missing: it is gone.
                let event = timeout(Duration::from_secs(7), connection.event(promised)).await??;
                if let Some(incoming) = event {
                    let (channel, head) = (
                        incoming.statement.channel().clone(),
                        incoming.statement.head(),
                    );
                    world.history.got(&name, &channel, head);
                    cursors.insert(channel, head.serial.number());
                }
            }
        };
        let _: anyhow::Result<()> = watching.await;
        sleep(Duration::from_millis(200)).await;
    }
}

/// How many may be down at once, for how long, and how many may fail.
pub(crate) const SLOTS: &str = "[[peer]]\nname = \"ops\"\nnetworks = [\"10.77.0.0/24\"]\n[[slot]]\ngroup = \"web\"\nmax = 2\nlease_seconds = 3\nfailures = 2\noperators = [\"ops\"]\n[fleetlock]\nlisten = [\"FREE-ADDRESS\"]\n";
const MAX: usize = 2;
const FAILURES: usize = 2;

/// Who is down now, as the machines themselves see it.
#[derive(Default)]
pub(crate) struct Down(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Until when; the dead have no end.
    acting: HashMap<String, Option<Instant>>,
    /// First slots that were given: when they were asked for, when they came.
    given: Vec<(Instant, Instant)>,
    /// How many have gone down, and died.
    went: usize,
    died: usize,
    stopped: usize,
}

impl Down {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, history: &History, node: &SlotName, until: Option<Instant>) {
        let mut inner = self.lock();
        let now = Instant::now();
        inner
            .acting
            .retain(|_, until| until.is_none_or(|until| until > now));
        inner.acting.insert(node.to_string(), until);
        inner.went += 1;
        if inner.acting.len() > MAX {
            history.wrong(format!(
                "{:?} are down at once, {MAX} may be",
                inner.acting.keys()
            ));
        }
    }

    fn leave(&self, node: &str) {
        self.lock().acting.remove(node);
    }

    /// What has happened, in words.
    pub(crate) fn describe(&self) -> String {
        let inner = self.lock();
        format!(
            "{} slots were used, {} machines died, the group stopped {} times",
            inner.went, inner.died, inner.stopped
        )
    }
}

fn slots(world: &World, broker: usize) -> anyhow::Result<Slots> {
    let server = world.slot_servers[broker].parse()?;
    Ok(Slots::new(vec![server], Tls::system()?))
}

/// A machine that goes down again and again, and sometimes dies.
pub(crate) async fn machine(
    world: Arc<World>,
    down: Arc<Down>,
    number: u64,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = Random::new(seed ^ number.wrapping_mul(0x51_7cc1));
    let (group, node): (SlotName, SlotName) = ("web".parse()?, format!("m{number}").parse()?);
    let serial = Serial::FIRST;
    let mut may_hold = false;
    while !world.stop.is_cancelled() {
        sleep(Duration::from_millis(100 + random.below(400))).await;
        let broker = world.pick(&mut random).0;
        let asked = Instant::now();
        let Ok(taken) = timeout(
            Duration::from_secs(12),
            slots(&world, broker)?.take(&group, &node, serial),
        )
        .await
        else {
            may_hold = true;
            continue;
        };
        let slot = match taken {
            Ok(slot) => slot,
            Err(SlotError::Ask { .. }) => {
                may_hold = true;
                continue;
            }
            Err(_) => continue,
        };
        if !may_hold {
            down.lock().given.push((asked, Instant::now()));
        }
        // Time goes by before it is ready to go down, sometimes too much; then the token is asked
        // about, wherever.
        let most = if random.below(8) == 0 { 5_000 } else { 300 };
        sleep(Duration::from_millis(random.below(most))).await;
        let broker = world.pick(&mut random).0;
        let held = timeout(
            Duration::from_secs(12),
            slots(&world, broker)?.hold(&group, &node, slot.token),
        )
        .await;
        let Ok(Ok(slot)) = held else {
            may_hold = true;
            continue;
        };
        if Instant::now() >= slot.until {
            may_hold = true;
            continue;
        }
        if random.below(10) == 0 {
            down.enter(&world.history, &node, None);
            down.lock().died += 1;
            // It comes back when an operator has looked at it.
            while down.lock().acting.contains_key(node.as_str()) && !world.stop.is_cancelled() {
                sleep(Duration::from_millis(100)).await;
            }
            may_hold = true;
            continue;
        }
        down.enter(&world.history, &node, Some(slot.until));
        sleep(
            Duration::from_millis(random.below(800))
                .min(slot.until.saturating_duration_since(Instant::now())),
        )
        .await;
        down.leave(node.as_str());
        let mut freed = false;
        for _ in 0..5 {
            let broker = world.pick(&mut random).0;
            match timeout(
                Duration::from_secs(12),
                slots(&world, broker)?.free(&group, &node, slot.token),
            )
            .await
            {
                Ok(Ok(()) | Err(SlotError::Lost(_))) => {
                    freed = true;
                    break;
                }
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
        may_hold = !freed;
    }
    Ok(())
}

/// Looks at those that have failed when the group has stopped, and sees that it has stopped indeed.
pub(crate) async fn operator(world: Arc<World>, down: Arc<Down>, seed: u64) -> anyhow::Result<()> {
    let mut random = Random::new(!seed);
    let group: SlotName = "web".parse()?;
    while !world.stop.is_cancelled() {
        sleep(Duration::from_millis(200)).await;
        let broker = world.pick(&mut random).0;
        let mut slots = slots(&world, broker)?;
        let Ok(Ok(status)) = timeout(Duration::from_secs(5), slots.status(&group)).await else {
            continue;
        };
        let failed = status.failed.into_iter();
        let found: Vec<String> = failed.map(|failure| failure.id).collect();
        if found.len() < FAILURES {
            continue;
        }
        let begun = Instant::now();
        sleep(Duration::from_millis(700)).await;
        let ended = Instant::now();
        {
            let mut inner = down.lock();
            inner.stopped += 1;
            if inner
                .given
                .iter()
                .any(|(asked, given)| *asked > begun && *given < ended)
            {
                world
                    .history
                    .wrong(format!("a slot was given although {found:?} have failed"));
            }
        }
        for node in found {
            // What it looks at is not down any more, whether the answer comes or not.
            let name: SlotName = node.parse()?;
            down.leave(&node);
            let _ = timeout(Duration::from_secs(12), slots.clear(&group, &name)).await;
        }
    }
    Ok(())
}
