//! A release over a fleet: a thousand agents in ten groups, hours in seconds. Each has its own view
//! of the log and the agent's own decisions, and asks the broker's own groups for its turn;
//! network, disk, loader and time are simulated. A seed repeats a run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use common::{Publisher, payload, time};
use tidings_agent::{
    apply::{Request, Verb},
    handler::{Answer, DONE},
    round::{Fact, Intent, Task},
    turn::{Turn, may_go},
    want::{Wanted, choose},
    world::{End, Fetched, Health, Ready, World, go_on},
};
use tidings_broker::turns::Turns;
use tidings_client::{Clear, Error, Head, Now, Profile, Release, Statement, Timestamp, Verified};
use tidings_protocol::{
    statement::{Payload, Rollout},
    view::View,
};

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
/// How much later than the origin a mirror may have something.
const LAG: u64 = 20;
/// When the waves begin, and how long they take.
const WAVES: (u64, u64) = (900, 1_800);
const END: u64 = 2 * 3_600;
/// Whoever waits for a slot asks again, before it loses its place.
const AGAIN: u64 = 14;
/// And where a group has stopped.
const STOPPED: u64 = 300;
const RELEASED: u64 = 100;

/// What becomes of a machine that takes the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    /// It does not come back.
    Dead,
    /// The loader falls back, each time.
    FallsBack,
    /// It comes back, and is not well.
    Ill,
}

struct Machine {
    name: String,
    group: usize,
    fate: Fate,
    profile: Profile,
    view: View,
    log: Vec<Verified<Statement>>,
    /// Its mirror's lag, and from when on the mirror shows nothing new.
    lag: u64,
    frozen: u64,
    beat: usize,
    task: Option<Task>,
    failed: Vec<String>,
    boot: u64,
    fact: Fact,
    is_down: bool,
    /// When it looks again.
    next: u64,
    /// The handler was told to go all the way back.
    goes_back: bool,
}

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

impl Machine {
    fn new(number: usize, channel: &Channel, random: &mut u64) -> Self {
        let name = format!("node{number:04}");
        let fate = match draw(random, 100) {
            0..3 => Fate::Dead,
            3 => Fate::FallsBack,
            4 => Fate::Ill,
            _ => Fate::Well,
        };
        let mut view = View::new(channel.publisher.anchor.clone());
        let clock = Now::at(time());
        view.take_trust([channel.publisher.trust.clone()], &clock)
            .unwrap();
        Self {
            group: number % GROUPS,
            fate,
            profile: Profile {
                identity: name.clone(),
                properties: BTreeMap::new(),
            },
            name,
            view,
            log: Vec::new(),
            lag: draw(random, LAG),
            frozen: match draw(random, 50) {
                0 => WAVES.0 + draw(random, WAVES.1),
                _ => u64::MAX,
            },
            beat: 0,
            task: None,
            failed: Vec::new(),
            boot: 1,
            fact: Fact::None,
            is_down: false,
            next: u64::MAX,
            goes_back: false,
        }
    }

    fn clock(&self, now: u64) -> Now {
        Now {
            clock: Some(at(now)),
            monotonic: 1_000 + now,
            boot: self.boot,
        }
    }

    /// Asks its mirror.
    fn poll(&mut self, channel: &Channel, now: u64) {
        let seen = now.saturating_sub(self.lag).min(self.frozen);
        let clock = self.clock(now);
        let name = &channel.publisher.channel;
        let there = channel.said.partition_point(|when| *when <= seen);
        if there > self.log.len() {
            let run = channel.publisher.log[..there].to_vec();
            let run = self.view.judge(name, run).unwrap();
            self.log.clone_from(&run.statements);
            let news = self.view.place(name, run, false, &clock).unwrap();
            self.view.note(&news, &clock);
        }
        let there = channel.beats.partition_point(|(when, _)| *when <= seen);
        if there > self.beat {
            self.beat = there;
            let _ = self
                .view
                .take_beat(channel.beats[there - 1].1.clone(), &clock);
        }
    }
}

/// One machine at one moment.
struct Here<'a> {
    machine: &'a mut Machine,
    channel: &'a Channel,
    turns: &'a mut Turns,
    now: u64,
    wait: Option<u64>,
}

impl World for Here<'_> {
    fn boot(&self) -> String {
        self.machine.boot.to_string()
    }

    async fn ask(&mut self, request: &Request) -> Answer {
        let machine = &mut *self.machine;
        match request.verb {
            Verb::State => return Answer::new(DONE, machine.fact.as_str()),
            Verb::Can | Verb::Go => {}
            Verb::Stage => machine.fact = Fact::Staged,
            Verb::Arm => machine.fact = Fact::Armed,
            Verb::Keep => machine.fact = Fact::Kept,
            Verb::Drop if machine.fact == Fact::Running => machine.goes_back = true,
            Verb::Drop => machine.fact = Fact::None,
        }
        Answer::new(DONE, "1")
    }

    async fn fetch(&mut self, _: &Statement, _: &Payload) -> Fetched {
        Fetched::Whole
    }

    async fn ready(&mut self, _: &Task, statement: &Statement) -> Ready {
        may_go(self, statement).await
    }

    async fn health(&mut self, _: &Task) -> Health {
        match self.machine.fate {
            Fate::Ill => Health::Ill("it is made so".into()),
            _ => Health::Well,
        }
    }

    async fn free(&mut self, token: u64, _: &Statement) -> bool {
        self.turns.free(at(self.now), &self.machine.name, token);
        true
    }

    fn save(&mut self, task: &Task) -> std::io::Result<()> {
        self.machine.task = Some(task.clone());
        Ok(())
    }
}

impl Turn for Here<'_> {
    async fn target(&mut self) -> Result<Clear, Error> {
        self.machine.poll(self.channel, self.now);
        let channel = &self.channel.publisher.channel;
        let machine = &*self.machine;
        let clock = machine.clock(self.now);
        let clear = machine
            .view
            .clear(channel, &machine.log, &machine.profile, &clock);
        clear.map_err(|reason| Error::NotNow {
            channel: channel.clone(),
            reason: Box::new(reason),
        })
    }

    fn time(&self) -> Timestamp {
        at(self.now)
    }

    fn opens(&self) -> Timestamp {
        at(self.now)
    }

    fn wait_until(&mut self, when: Timestamp) {
        self.wait = Some(when.seconds() - time().seconds());
    }

    async fn failing(&mut self) -> Vec<String> {
        Vec::new()
    }

    async fn take_slot(&mut self, statement: &Statement) -> Result<Option<u64>, Ready> {
        let name = &self.machine.name;
        let token = self.turns.take(at(self.now), name, statement.serial());
        if token.is_none() && self.turns.is_stopped() {
            self.wait = Some(self.now + STOPPED);
        }
        token
            .map(Some)
            .ok_or_else(|| Ready::Wait("others are down".into()))
    }

    async fn hold_slot(&mut self, token: u64, _: &Statement) -> Result<(), Ready> {
        match self.turns.hold(at(self.now), &self.machine.name, token) {
            true => Ok(()),
            false => Err(Ready::Wait("the slot is lost".into())),
        }
    }
}

impl Here<'_> {
    /// As the daemon does it: what is wanted, and what is worked on then.
    async fn wanted(&mut self) -> Wanted {
        match self.target().await {
            Ok(Clear::Apply(statement)) => Wanted::Release(Box::new(statement)),
            Ok(Clear::Nothing {
                next: Some((serial, _)),
                ..
            }) => {
                let machine = &*self.machine;
                let ahead = machine.log.iter().find(|there| there.serial() == serial);
                let clock = machine.clock(self.now);
                let may = ahead
                    .filter(|ahead| machine.view.may_finish(ahead, &machine.log, &clock).is_ok());
                may.map_or(Wanted::Unknown, |ahead| {
                    Wanted::Release(Box::new(ahead.clone()))
                })
            }
            Ok(Clear::Nothing { .. }) => Wanted::Nothing,
            Err(error) => Wanted::after(&error),
        }
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
