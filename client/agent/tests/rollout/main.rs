//! A release over a fleet: a thousand agents in ten groups, hours in seconds. Each has its own view
//! of the log and the agent's own decisions, and asks the broker's own groups for its turn;
//! network, disk, loader and time are simulated. A seed repeats a run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
mod machine;

use std::{cmp::Reverse, collections::BinaryHeap};

use common::{Publisher, payload, time};
use machine::{Fate, Here, Machine};
use tidings_agent::{
    round::{Fact, Intent, Task},
    want::{Wanted, choose},
    world::{End, go_on},
};
use tidings_broker::turns::Turns;
use tidings_client::{Head, Release, Statement, Timestamp};
use tidings_protocol::statement::Rollout;

const GROUPS: usize = 10;
const MACHINES: usize = 1_000;
/// So many of a group may be down at once.
const MAX: usize = 4;
/// For how long, before a machine counts as failed.
const LEASE: u64 = 900;
/// With so many failed a group stops.
const FAILURES: usize = 3;
const BEAT_EVERY: u64 = 120;
/// As long as a beat of [`Publisher`] lives.
const BEAT_LIFE: u64 = 600;

/// When the waves begin, and how long they take.
const WAVES: (u64, u64) = (900, 1_800);
const END: u64 = 2 * 3_600;
/// Whoever waits for a slot asks again, before it loses its place.
const AGAIN: u64 = 14;

const RELEASED: u64 = 100;

/// The namespace of one group: what was said, and when.
struct Channel {
    publisher: Publisher,
    said: Vec<u64>,
    beats: Vec<(u64, Statement)>,
}

struct Fleet {
    now: u64,
    random: u64,
    channels: Vec<Channel>,
    turns: Vec<Turns>,
    machines: Vec<Machine>,
    wakes: BinaryHeap<Reverse<(u64, usize)>>,
    /// When a machine went down for the release: time, machine.
    gone: Vec<(u64, usize)>,
    most_down: usize,
}

fn at(seconds: u64) -> Timestamp {
    time().plus(seconds)
}

impl Channel {
    fn new() -> Self {
        Self {
            publisher: Publisher::new(time()),
            said: Vec::new(),
            beats: Vec::new(),
        }
    }

    fn says(&mut self, now: u64, say: impl FnOnce(&mut Publisher)) {
        self.publisher.time = at(now);
        say(&mut self.publisher);
        self.said.push(now);
        self.beat(now);
    }

    fn beat(&mut self, now: u64) {
        if self.said.is_empty() {
            return;
        }
        self.publisher.time = at(now);
        let beat = self
            .publisher
            .beat(u32::try_from(self.beats.len() + 1).unwrap());
        self.beats.push((now, beat));
    }
}

/// An even number below `below`.
fn draw(random: &mut u64, below: u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random % below
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let channels: Vec<_> = (0..GROUPS).map(|_| Channel::new()).collect();
        let machines = (0..MACHINES)
            .map(|number| Machine::new(number, &channels[number % GROUPS], &mut random))
            .collect();
        let mut fleet = Self {
            now: 0,
            random,
            channels,
            turns: (0..GROUPS)
                .map(|_| Turns::new(MAX, LEASE, FAILURES))
                .collect(),
            machines,
            wakes: BinaryHeap::new(),
            gone: Vec::new(),
            most_down: 0,
        };
        for number in 0..MACHINES {
            let when = draw(&mut fleet.random, 60);
            fleet.wake(number, when);
        }
        fleet
    }

    /// Everybody who is there is told, each by his own mirror.
    fn say(&mut self, say: impl Fn(&mut Publisher)) {
        for channel in &mut self.channels {
            channel.says(self.now, &say);
        }
        for number in 0..MACHINES {
            self.wake(number, self.now + self.machines[number].lag);
        }
    }

    /// A machine that is up looks then, unless it does so earlier.
    fn wake(&mut self, number: usize, when: u64) {
        let machine = &mut self.machines[number];
        if !machine.is_down && when < machine.next {
            machine.next = when;
            self.wakes.push(Reverse((when, number)));
        }
    }

    /// Until a moment, and what is said by then is said at its time.
    fn run_until(&mut self, end: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        while let Some(Reverse((when, _))) = self.wakes.peek().copied()
            && when < end
        {
            let Some(Reverse((_, number))) = self.wakes.pop() else {
                break;
            };
            if self.machines[number].next != when {
                continue;
            }
            while self.now / BEAT_EVERY < when / BEAT_EVERY {
                self.now = (self.now / BEAT_EVERY + 1) * BEAT_EVERY;
                for channel in &mut self.channels {
                    channel.beat(self.now);
                }
            }
            self.now = when;
            self.machines[number].next = u64::MAX;
            if self.machines[number].is_down && !self.comes_back(number) {
                continue;
            }
            runtime.block_on(self.look(number));
            self.check(number);
        }
        self.now = end;
    }

    /// The loader chooses; false if nothing comes up.
    fn comes_back(&mut self, number: usize) -> bool {
        let machine = &mut self.machines[number];
        let is_new = machine.fact == Fact::Armed;
        if is_new && machine.fate == Fate::Dead {
            return false;
        }
        machine.fact = match machine.fact {
            Fact::Armed if machine.fate == Fate::FallsBack => Fact::Staged,
            Fact::Armed => Fact::Running,
            _ if machine.goes_back => Fact::None,
            fact => fact,
        };
        (machine.is_down, machine.goes_back) = (false, false);
        machine.boot += 1;
        true
    }

    async fn look(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        let group = machine.group;
        let mut here = Here {
            machine,
            channel: &self.channels[group],
            turns: &mut self.turns[group],
            now: self.now,
            wait: None,
        };
        let wanted = here.wanted().await;
        let Some(mut task) = choose(here.machine.task.as_ref(), &wanted, &here.machine.failed)
        else {
            if matches!(wanted, Wanted::Unknown) {
                self.wake(number, self.now + 30);
            }
            return;
        };
        here.machine.task = Some(task.clone());
        let end = go_on(&mut here, &mut task).await.unwrap();
        let wait = here.wait;
        let again = match end {
            End::Gone => {
                let machine = &mut self.machines[number];
                machine.is_down = true;
                if machine.fact == Fact::Armed {
                    self.gone.push((self.now, number));
                }
                self.now + 30 + draw(&mut self.random, 120)
            }
            End::Later(_) => wait.unwrap_or(self.now + AGAIN).max(self.now + 1),
            End::Rest => {
                self.rests(number, &task);
                return;
            }
        };
        self.machines[number].next = again;
        self.wakes.push(Reverse((again, number)));
        // Whoever waits is told when its turn has come.
        for node in self.turns[group].due() {
            let node: usize = node.trim_start_matches("node").parse().unwrap();
            self.wake(node, self.now + 1);
        }
    }

    fn rests(&mut self, number: usize, task: &Task) {
        let machine = &mut self.machines[number];
        let statement = Statement::parse(task.statement.as_bytes()).unwrap();
        match task.intent {
            Intent::Failed => machine.failed.push(statement.id().to_string()),
            Intent::Kept => {
                let log = &machine.log;
                let proven = log.iter().find(|there| there.head() == statement.head());
                machine.view.note_applied(proven.unwrap());
            }
            _ => {}
        }
    }

    /// Whatever happens, no group has more machines down than it may.
    fn check(&mut self, number: usize) {
        let group = self.machines[number].group;
        let of_group = self
            .machines
            .iter()
            .filter(|machine| machine.group == group);
        let down = of_group.filter(|machine| machine.is_down).count();
        assert!(
            down <= MAX,
            "at {} {down} of group {group} are down",
            self.now
        );
        self.most_down = self.most_down.max(down);
    }

    fn release(&mut self) -> Vec<Statement> {
        self.run_until(RELEASED);
        let rollout = Rollout {
            start: at(WAVES.0),
            seconds: WAVES.1,
            spread: None,
            cohort: None,
        };
        let release = Release {
            version: "2.0".into(),
            rollout: Some(rollout),
            slot: Some("web".into()),
            payloads: vec![payload("raw", b"the image")],
            ..Release::default()
        };
        self.say(|publisher| drop(publisher.release(release.clone())));
        let newest = |channel: &Channel| channel.publisher.log.last().unwrap().clone();
        self.channels.iter().map(newest).collect()
    }

    fn intent(&self, number: usize) -> Option<Intent> {
        Some(self.machines[number].task.as_ref()?.intent)
    }

    fn of_group(&self, group: usize) -> impl Iterator<Item = usize> {
        (0..MACHINES).filter(move |number| self.machines[*number].group == group)
    }

    /// No machine has gone before its turn.
    fn check_turns(&self, releases: &[Statement]) {
        for (when, number) in &self.gone {
            let machine = &self.machines[*number];
            let statement = &releases[machine.group];
            let tidings_client::Body::Release(release) = statement.body() else {
                panic!("it is a release")
            };
            let due = machine.profile.due(statement, release).unwrap();
            assert!(at(*when) >= due, "{} went before its turn", machine.name);
        }
    }
}

/// More by hand: `ROLLOUT_SEEDS=100`.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let wanted = std::env::var("ROLLOUT_SEEDS").map(|text| text.parse().unwrap());
    1..=wanted.unwrap_or(1)
}

#[test]
fn a_release_reaches_all_machines_of_a_group_or_stops_it() {
    let (mut stopped, mut whole) = (0, 0);
    for seed in seeds() {
        let mut fleet = Fleet::new(seed);
        let releases = fleet.release();
        fleet.run_until(END);
        fleet.check_turns(&releases);
        for group in 0..GROUPS {
            let bad = |number: &usize| fleet.machines[*number].fate != Fate::Well;
            let kept = fleet
                .of_group(group)
                .filter(|number| fleet.intent(*number) == Some(Intent::Kept))
                .count();
            let tried = fleet.gone.iter().map(|(_, number)| *number);
            let lost = tried
                .filter(|number| fleet.machines[*number].group == group)
                .filter(bad)
                .collect::<std::collections::BTreeSet<_>>();
            if fleet.turns[group].is_stopped() {
                stopped += 1;
                assert!(fleet.turns[group].failures() >= FAILURES);
                // Those that were down already come back, and nobody else goes.
                assert!(lost.len() <= FAILURES + MAX, "seed {seed}: {lost:?}");
            } else {
                whole += 1;
                let frozen = fleet
                    .of_group(group)
                    .filter(|number| fleet.machines[*number].frozen < u64::MAX)
                    .count();
                assert!(lost.len() < FAILURES);
                assert!(
                    kept + lost.len() + frozen >= MACHINES / GROUPS,
                    "seed {seed}, group {group}: {kept} kept"
                );
            }
        }
    }
    assert!(stopped > 0 && whole > 0, "{stopped} stopped, {whole} done");
}

#[test]
fn a_withdrawal_stops_the_rest_within_a_beat() {
    for seed in seeds() {
        let mut fleet = Fleet::new(seed);
        let releases = fleet.release();
        let withdrawn = WAVES.0 + WAVES.1 / 2;
        fleet.run_until(withdrawn);
        let before = fleet.gone.len();
        fleet.say(|publisher| {
            let head: Head = publisher.log.last().unwrap().head();
            drop(publisher.withdraw(head));
        });
        fleet.run_until(END);
        fleet.check_turns(&releases);
        assert!(before > 0 && before < MACHINES, "{before} had gone");
        for (when, number) in &fleet.gone {
            let machine = &fleet.machines[*number];
            // A mirror that hides it is believed as long as its last beat lives, and no longer.
            let last = match machine.frozen < withdrawn {
                true => machine.frozen + BEAT_LIFE,
                false => withdrawn + machine.lag,
            };
            assert!(*when <= last, "{} went at {when}", machine.name);
        }
        for number in 0..MACHINES {
            let machine = &fleet.machines[number];
            let gone = fleet.gone.iter().any(|(_, of)| *of == number);
            let left = matches!(fleet.intent(number), Some(Intent::Left) | None);
            assert!(
                gone || left || machine.frozen < u64::MAX,
                "{}: {:?}",
                machine.name,
                fleet.intent(number)
            );
        }
    }
}
