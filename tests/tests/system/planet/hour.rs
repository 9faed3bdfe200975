//! The same tree as it runs: an hour of simulated time, with devices as counters. Nothing here
//! uses a formula of the page.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use tidings_broker::limits::{BEAT_EARLY, BEAT_LOOK, MIRROR_AUDIT};
use tidings_client::{
    jitter_from,
    limits::{AUDIT, POLL, WATCH_WORTHWHILE},
    pauses_from,
};
use tidings_protocol::limits::HEARTBEAT_SECONDS;
use tidings_tests::Random;

use crate::planet::{
    plan::{AWAY, BEAT_EVERY, DOWN, HEALTH, Plan, ROTATION, SPREAD, Traffic},
    sizes::Sizes,
};

/// Simulated time in milliseconds; the hour that is counted begins at [`START`].
type Time = u64;
const SECOND: Time = 1_000;
const START: Time = 3_600 * SECOND;
const END: Time = 2 * START;
const DEVICES: usize = 3;

/// What is left out, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// A tier is told of nothing.
    Tier(usize),
    /// A new head waits for the period of beats.
    NotEarly,
    /// Devices ask when the whole of a time has passed.
    NoJitter,
    /// Nobody reads what a rotation has settled.
    NotSettled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Release(u32),
    /// A role's signer, unless it has signed since this was foreseen.
    Beat(u32, u32),
    Trust,
    Look(u8),
    Tick(u32),
    Ask(u32, u32),
    /// A device looks at a release, the first time or a later one.
    LookAt(u32, u8),
    Down,
    Up,
}

/// The channels of one role for beats, and what its signer has said.
struct Group {
    last: Time,
    /// Whether a head is new since then.
    dirty: bool,
    foreseen: u32,
    /// Under which trust statement the last beat was.
    trust: u32,
    devices: f64,
}

struct Device {
    channel: u32,
    /// Two edges, the present one first.
    edges: [u32; 2],
    /// Its place among those at its edge.
    place: u32,
    began: Time,
    foreseen: u32,
    /// Whether it lacks the beat that the trust in force names for its role.
    unsettled: bool,
}

pub(crate) struct Hour<'a> {
    plan: &'a Plan,
    sizes: &'a Sizes,
    fault: Fault,
    random: Random,
    now: Time,
    due: BinaryHeap<Reverse<(Time, Event)>>,
    groups: Vec<Group>,
    devices: Vec<Device>,
    /// Devices of each channel, and when its last release was.
    channels: Vec<(Vec<u32>, Time)>,
    /// Lines on which mirrors of each tier are told.
    lines: [f64; 4],
    /// Devices at each edge.
    edges: Vec<Vec<u32>>,
    down: bool,
    trust: u32,
    traffic: [Traffic; 4],
    made: BTreeMap<(u32, Time), u32>,
    /// Devices of the edge that restarts.
    moved: f64,
    /// Devices that have read what the rotation has settled, in each second.
    settled: BTreeMap<Time, f64>,
}

/// Runs an hour; what each tier was sent, and how the restart went.
pub(crate) fn run<'a>(plan: &'a Plan, sizes: &'a Sizes, seed: u64, fault: Fault) -> Hour<'a> {
    let mut hour = Hour::new(plan, sizes, seed, fault);
    while let Some(Reverse((at, event))) = hour.due.pop() {
        if at >= END {
            break;
        }
        hour.now = at;
        hour.handle(event);
    }
    hour
}

fn millis(time: Duration) -> Time {
    Time::try_from(time.as_millis()).unwrap()
}

impl<'a> Hour<'a> {
    fn new(plan: &'a Plan, sizes: &'a Sizes, seed: u64, fault: Fault) -> Self {
        let mut hour = Self {
            plan,
            sizes,
            fault,
            random: Random::new(seed),
            now: 0,
            due: BinaryHeap::new(),
            groups: Vec::new(),
            devices: Vec::new(),
            channels: vec![(Vec::new(), 0); plan.channels as usize],
            lines: [0.0; 4],
            edges: vec![Vec::new(); plan.mirrors[2] as usize],
            down: false,
            trust: 1,
            traffic: [Traffic::default(); 4],
            made: BTreeMap::new(),
            moved: 0.0,
            settled: BTreeMap::new(),
        };
        hour.foresee_all();
        hour
    }

    fn at(&mut self, at: Time, event: Event) {
        self.due.push(Reverse((at, event)));
    }

    fn below(&mut self, bound: Time) -> Time {
        self.random.below(bound)
    }

    fn jittered(&mut self, time: Duration) -> Time {
        let drawn = self.random.below(u64::MAX);
        match self.fault {
            Fault::NoJitter => millis(time),
            _ => millis(jitter_from(time, drawn)),
        }
    }

    /// Releases at random times of each hour, beats from the first second on, looks and ticks
    /// wherever they are in their period.
    fn foresee_all(&mut self) {
        for channel in 0..self.plan.channels {
            let at = self.below(START);
            self.at(at, Event::Release(channel));
        }
        for group in 0..self.plan.groups() {
            self.groups.push(Group {
                last: 0,
                dirty: false,
                foreseen: 0,
                trust: 1,
                devices: 0.0,
            });
            let at = self.below(BEAT_EVERY as Time) * SECOND;
            self.at(at, Event::Beat(group, 0));
        }
        for number in 0..self.plan.devices {
            self.add_device(number);
        }
        for edge in 0..self.plan.mirrors[2] {
            let at = START + self.below(HEARTBEAT_SECONDS * SECOND / 3);
            self.at(at, Event::Tick(edge));
        }
        for (tier, mirrors) in (0..3).zip(self.plan.mirrors) {
            for _ in 0..mirrors * self.plan.upstreams {
                self.add_line(tier);
            }
        }
        let second = |seconds: f64| START + seconds as Time * SECOND;
        self.at(second(ROTATION), Event::Trust);
        self.at(second(DOWN), Event::Down);
        self.at(second(DOWN + AWAY), Event::Up);
    }

    /// A mirror is told by one of its upstreams, and looks at what that has.
    fn add_line(&mut self, tier: u8) {
        self.lines[usize::from(tier)] += 1.0;
        self.traffic[usize::from(tier)].standing += 2.0;
        let at = START + self.below(millis(MIRROR_AUDIT));
        self.at(at, Event::Look(tier));
    }

    /// One that watches from the beginning of the hour before.
    fn add_device(&mut self, number: u32) {
        let edges = self.plan.mirrors[2];
        let channel = number % self.plan.channels;
        let mut edges = [number % edges, (number + 1) % edges];
        if self.below(2) == 1 {
            edges.reverse();
        }
        self.devices.push(Device {
            channel,
            edges,
            place: 0,
            began: 0,
            foreseen: 0,
            unsettled: false,
        });
        self.channels[channel as usize].0.push(number);
        self.groups[(channel / self.plan.group) as usize].devices += 1.0;
        self.enter(number);
        self.watch(number, AUDIT);
    }

    fn enter(&mut self, device: u32) {
        let row = &mut self.devices[device as usize];
        let edge = &mut self.edges[row.edges[0] as usize];
        row.place = u32::try_from(edge.len()).unwrap();
        edge.push(device);
        self.traffic[DEVICES].standing += 1.0;
    }

    fn leave(&mut self, device: u32) {
        let row = &self.devices[device as usize];
        let (edge, place) = (row.edges[0] as usize, row.place);
        self.edges[edge].swap_remove(place as usize);
        if let Some(&moved) = self.edges[edge].get(place as usize) {
            self.devices[moved as usize].place = place;
        }
        self.traffic[DEVICES].standing -= 1.0;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Release(channel) => self.release(channel),
            Event::Beat(group, foreseen) => self.beat(group, foreseen),
            Event::Trust => self.rotate(),
            Event::Look(tier) => {
                self.traffic[usize::from(tier)].asked += self.sizes.look;
                self.at(self.now + millis(MIRROR_AUDIT), Event::Look(tier));
            }
            Event::Tick(edge) => self.tick(edge),
            Event::Ask(device, foreseen) => {
                if self.devices[device as usize].foreseen == foreseen {
                    self.ask(device);
                }
            }
            Event::LookAt(device, time) => self.look_at(device, time),
            Event::Down => self.go_down(),
            Event::Up => {
                self.down = false;
                // It is told and asks again, and looks at everything first.
                let again = f64::from(self.plan.upstreams);
                self.traffic[2].made += 2.0 * again;
                self.traffic[2].asked += again * self.sizes.look;
            }
        }
    }

    /// Sends an event on every line of the mirrors, and on so many of devices.
    fn tell(&mut self, octets: [f64; 4], devices: f64, counter: fn(&mut Traffic) -> &mut f64) {
        if self.now < START {
            return;
        }
        let mut lines = self.lines;
        lines[2] -= if self.down {
            f64::from(self.plan.upstreams)
        } else {
            0.0
        };
        lines[DEVICES] = devices;
        for (tier, (lines, octets)) in lines.into_iter().zip(octets).enumerate() {
            if self.fault != Fault::Tier(tier) {
                *counter(&mut self.traffic[tier]) += lines;
                self.traffic[tier].told += lines * octets;
            }
        }
    }

    fn release(&mut self, channel: u32) {
        self.at(self.now + START, Event::Release(channel));
        self.channels[channel as usize].1 = self.now;
        let devices = self.channels[channel as usize].0.clone();
        self.tell(self.sizes.release, devices.len() as f64, |t| {
            &mut t.releases
        });
        for device in devices {
            self.at(self.now, Event::LookAt(device, 0));
        }
        self.has_new_head(channel / self.plan.group);
    }

    /// The signer names it at its next look, but not before a tenth of its period is over.
    fn has_new_head(&mut self, number: u32) {
        let group = &mut self.groups[number as usize];
        if group.dirty || self.fault == Fault::NotEarly {
            return;
        }
        (group.dirty, group.foreseen) = (true, group.foreseen + 1);
        let early = BEAT_EVERY as Time * SECOND / Time::from(BEAT_EARLY);
        let at = self.now.next_multiple_of(millis(BEAT_LOOK));
        let beat = Event::Beat(number, group.foreseen);
        let at = at.max(group.last + early);
        self.at(at, beat);
    }

    fn beat(&mut self, number: u32, foreseen: u32) {
        let group = &mut self.groups[number as usize];
        if group.foreseen != foreseen {
            return;
        }
        (group.last, group.dirty, group.foreseen) = (self.now, false, foreseen + 1);
        group.trust = self.trust;
        let devices = group.devices;
        let next = Event::Beat(number, group.foreseen);
        self.at(self.now + BEAT_EVERY as Time * SECOND, next);
        self.tell(self.sizes.beat, devices, |t| &mut t.beats);
    }

    fn rotate(&mut self) {
        self.trust += 1;
        let all = f64::from(self.plan.devices);
        self.tell(self.sizes.trust, all, |t| &mut t.trust);
        let unsettled = self.fault != Fault::NotSettled;
        for device in &mut self.devices {
            device.unsettled = unsettled;
        }
        (0..self.plan.groups()).for_each(|group| self.has_new_head(group));
    }

    /// Connections of one device to an edge, and what it is sent on them.
    fn connect(&mut self, edge: u32, connections: u32, octets: f64) {
        if self.now < START {
            return;
        }
        *self.made.entry((edge, self.now / SECOND)).or_default() += connections;
        self.traffic[DEVICES].made += f64::from(connections);
        self.traffic[DEVICES].asked += octets;
    }

    /// Whoever asks is sent the beat that a checkpoint names for its role, if it lacks it.
    fn settle(&mut self, number: u32) {
        if std::mem::take(&mut self.devices[number as usize].unsettled) {
            let traffic = &mut self.traffic[DEVICES];
            traffic.settled += self.sizes.settled;
            traffic.asked += self.sizes.settled;
            *self.settled.entry(self.now / SECOND).or_default() += 1.0;
        }
    }

    /// A device watches, and asks after a while.
    fn watch(&mut self, number: u32, pause: Duration) {
        let next = self.now + self.jittered(pause);
        let device = &mut self.devices[number as usize];
        (device.began, device.foreseen) = (self.now, device.foreseen + 1);
        let ask = Event::Ask(number, device.foreseen);
        self.at(next, ask);
    }

    /// A device asks, at its other edge if that is there, and watches there.
    fn ask(&mut self, number: u32) {
        self.leave(number);
        let [here, there] = self.devices[number as usize].edges;
        let stays = self.down && there == 0;
        let edges = if stays { [here, there] } else { [there, here] };
        self.devices[number as usize].edges = edges;
        self.enter(number);
        self.connect(edges[0], 1, self.sizes.ask);
        self.settle(number);
        let group = self.devices[number as usize].channel / self.plan.group;
        let is_current = self.groups[group as usize].trust == self.trust;
        if !is_current {
            // No beat is under this trust yet: it asks the other one too, and comes back.
            self.connect(edges[1], 1, self.sizes.ask);
            self.connect(edges[0], 1, self.sizes.ask);
        }
        self.watch(number, if is_current { AUDIT } else { POLL });
    }

    /// A device looks at a release, and watches on: when it is told, a second later when a beat has
    /// come, before it goes, and when it is back.
    fn look_at(&mut self, number: u32, time: u8) {
        let edge = self.devices[number as usize].edges[0];
        // It asks first, but before it goes.
        let connections = if time == 2 { 1 } else { 2 };
        self.connect(edge, connections, self.sizes.install);
        self.settle(number);
        self.watch(number, AUDIT);
        let then = match time {
            0 => SECOND,
            1 => self.below(SPREAD as Time * SECOND),
            2 => HEALTH as Time * SECOND,
            _ => return,
        };
        self.at(self.now + then, Event::LookAt(number, time + 1));
    }

    /// Who was sent nothing since the last tick is sent a sign of life.
    fn tick(&mut self, edge: u32) {
        let period = HEARTBEAT_SECONDS * SECOND / 3;
        self.at(self.now + period, Event::Tick(edge));
        let before = self.now - period;
        let silent = |number: &&u32| {
            let device = &self.devices[**number as usize];
            let group = &self.groups[(device.channel / self.plan.group) as usize];
            let (_, release) = self.channels[device.channel as usize];
            device.began.max(group.last).max(release) <= before
        };
        let silent = self.edges[edge as usize].iter().filter(silent).count() as f64;
        if self.fault != Fault::Tier(DEVICES) {
            self.traffic[DEVICES].heartbeats += silent;
            self.traffic[DEVICES].told += silent * "0\r\n".len() as f64;
        }
    }

    /// The first edge restarts: its devices go to their other one, at once if their watch was worth
    /// it.
    fn go_down(&mut self) {
        self.down = true;
        for number in self.edges[0].clone() {
            self.moved += 1.0;
            let device = &mut self.devices[number as usize];
            let watched = self.now - device.began;
            device.foreseen += 1;
            let ask = Event::Ask(number, device.foreseen);
            let pause = if watched > millis(WATCH_WORTHWHILE) {
                Duration::ZERO
            } else {
                pauses_from(self.random.below(u64::MAX)).next().unwrap()
            };
            self.at(self.now + millis(pause), ask);
        }
    }

    pub(crate) fn traffic(&self) -> &[Traffic; 4] {
        &self.traffic
    }

    /// Devices that read what the rotation has settled in the busiest second, but for that in which
    /// the edge goes down.
    pub(crate) fn busiest(&self) -> f64 {
        let down = START / SECOND + DOWN as Time;
        let others = self.settled.iter().filter(|(at, _)| **at != down);
        others.map(|(_, devices)| *devices).fold(0.0, f64::max)
    }

    /// What became of the devices of the edge that restarted: how many there were, and how many
    /// connections another edge got in the second after, at most.
    pub(crate) fn storm(&self) -> (f64, f64) {
        let second = (START / SECOND) + DOWN as Time;
        let made = self.made.iter().filter(|((_, at), _)| *at == second);
        let most = made.map(|(_, made)| *made).max().unwrap_or(0);
        (self.moved, f64::from(most))
    }
}
