//! The world around a device: an honest origin with publishers, a signer of beats and ceremonies,
//! who may all crash, and an adversary between origin and device, with stolen keys or without.

use crate::{
    device::Device,
    facts::{
        Author, CHANNELS, Id, Ids, Keys, Kind, LAST, LIFE, Listed, Moment, NONE, PLAIN, ROLES,
        Role, Serial, Statement, Trust, TrustNo,
    },
    rules::{Rule, Setting},
};

/// What a ceremony does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ceremony {
    /// Takes the stolen keys away, with checkpoints.
    Remove,
    /// Renews, with or without checkpoints.
    Routine,
    /// Takes the stolen keys away, with one checkpoint that names a beat.
    RemoveByBeat,
    /// Closes the second channel.
    Close,
}

/// How far is explored.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) stolen: &'static [Role],
    pub(crate) beats: bool,
    /// The last serial of each channel.
    pub(crate) serials: [Serial; CHANNELS],
    pub(crate) time: Moment,
    /// Publishers that may race each other.
    pub(crate) publishers: usize,
    /// Beats that the honest signer makes.
    pub(crate) signs: Serial,
    /// Statements that the thief writes, and whether also without a key.
    pub(crate) forgeries: u8,
    pub(crate) inventions: bool,
    pub(crate) ceremonies: &'static [Ceremony],
    pub(crate) reboots: bool,
    /// It must heal without a new release, if the newest is not withdrawn.
    pub(crate) strict: bool,
    /// It must heal.
    pub(crate) heals: bool,
    pub(crate) withdrawals: bool,
    /// The releases that are published.
    pub(crate) releases: &'static [Kind],
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            stolen: &[],
            beats: true,
            serials: [3, 0],
            time: 4,
            publishers: 1,
            signs: 2,
            forgeries: 0,
            inventions: false,
            ceremonies: &[],
            reboots: false,
            strict: false,
            heals: true,
            withdrawals: true,
            releases: &[PLAIN],
        }
    }
}

impl Bounds {
    pub(crate) fn is_stolen(&self, role: Role) -> bool {
        self.stolen.contains(&role)
    }
}

/// No lag is known yet.
pub(crate) const UNKNOWN: Moment = 99;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct World {
    pub(crate) now: Moment,
    /// The origin: the trust in force and since when, the heads of the logs, and since when each
    /// place is taken (0: long).
    pub(crate) trust: TrustNo,
    pub(crate) trust_since: Moment,
    pub(crate) logs: [Id; CHANNELS],
    pub(crate) since: [[Moment; 10]; CHANNELS],
    /// What was on the log, and is filed away.
    pub(crate) filed: Ids,
    /// What was signed and left its machine, and is on no log.
    pub(crate) loose: Ids,
    /// What was signed and is still to be offered.
    pub(crate) outbox: [Id; 2],
    /// The newest beat of the signer, and those before that may still be shown.
    pub(crate) beat: Id,
    pub(crate) beats: Ids,
    pub(crate) forged: u8,
    pub(crate) ceremonies: u8,
    pub(crate) device: Device,
    /// What no party sees: how far the time of a device without a clock was behind when it first
    /// learned it since its start.
    pub(crate) lag: Moment,
    /// And whether brokers alone have made it go back on its own branch.
    pub(crate) taken_back: bool,
    /// And the honest withdrawals that the device has met.
    pub(crate) met: Ids,
}

impl World {
    /// The anchor is known everywhere, and nothing else has happened.
    pub(crate) fn new(s: &Setting, bounds: &Bounds) -> Self {
        let threshold = |role: Role| u32::from(role != Role::Beat || bounds.beats);
        let trust = s.book.write_trust(Trust {
            serial: 1,
            parent: 0,
            time: 0,
            expires: 100,
            roles: ROLES.map(|role| Listed {
                keys: role.key(0),
                threshold: threshold(role),
            }),
            lines: [NONE; CHANNELS],
            beat_line: NONE,
            closed: [false; CHANNELS],
        });
        let mut world = Self {
            trust,
            ..Self::default()
        };
        world.device.take_trust(s, trust, 0);
        world
    }

    /// An origin as a judge.
    pub(crate) fn origin(&self) -> Device {
        Device {
            trust: self.trust,
            settling: true,
            ..Device::default()
        }
    }

    fn honest_keys(&self, s: &Setting, role: Role) -> Keys {
        s.book.trust(self.trust).roles[role as usize].keys
    }

    /// The next statement of a channel above `parent`, signed under the trust in force.
    pub(crate) fn write(
        &self,
        s: &Setting,
        channel: usize,
        parent: Id,
        kind: Kind,
        author: Author,
    ) -> Id {
        let keys = self.honest_keys(s, kind.role());
        let serial = s.book.get(parent).serial + 1;
        s.book.write(Statement {
            channel,
            serial,
            parent,
            kind,
            under: s.book.trust(self.trust).serial,
            keys,
            author,
        })
    }

    /// What the origin does with what is offered: whether it is stored now.
    pub(crate) fn append(&mut self, s: &Setting, id: Id) -> bool {
        let statement = s.book.get(id);
        let channel = statement.channel;
        let trust = s.book.trust(self.trust);
        let fits = statement.parent == self.logs[channel];
        let stored =
            fits && trust.meets(&statement) && self.origin().judge(s, channel, &[id]).is_ok();
        if stored {
            self.logs[channel] = id;
            self.since[channel][usize::from(statement.serial)] = self.now;
            self.loose.retain(|other| other != id);
        }
        stored
    }

    /// S11: what is in an outbox is offered; it leaves when the log has it, or another in its
    /// place, or trust cannot take it.
    pub(crate) fn offer(&mut self, s: &Setting, publisher: usize) {
        let id = self.outbox[publisher];
        if id != NONE && !self.append(s, id) && !self.is_logged(s, id) {
            self.loose.insert(id);
        }
        self.outbox[publisher] = NONE;
    }

    pub(crate) fn is_logged(&self, s: &Setting, id: Id) -> bool {
        let statement = s.book.get(id);
        s.book.at(self.logs[statement.channel], statement.serial) == id
    }

    /// A publisher signs: on a proven head.
    pub(crate) fn may_extend(&self, s: &Setting, channel: usize) -> bool {
        let log = self.logs[channel];
        log == NONE
            || !s.has(Rule::ExtendsProven)
            || self.origin().judge(s, channel, &[log]).is_ok()
    }

    /// The signer's next beat: what the origin has stored.
    pub(crate) fn sign_beat(&mut self, s: &Setting, heads: [Id; CHANNELS]) -> Id {
        let trust = s.book.trust(self.trust);
        let kind = Kind::Beat {
            time: self.now,
            trust: self.trust,
            heads,
        };
        let serial = s.book.get(self.beat).serial + 1;
        let keys = self.honest_keys(s, Role::Beat);
        let id = Statement {
            channel: 2,
            serial,
            parent: NONE,
            kind,
            under: trust.serial,
            keys,
            author: Author::First,
        };
        let id = s.book.write(id);
        self.beat = id;
        self.beats.insert(id);
        id
    }

    /// The next trust statement comes into force at the origin: what is no longer proven above its
    /// checkpoints is filed away.
    pub(crate) fn bring_into_force(&mut self, s: &Setting, next: Trust) {
        self.trust = s.book.write_trust(Trust {
            parent: self.trust,
            serial: s.book.trust(self.trust).serial + 1,
            time: self.now,
            ..next
        });
        self.trust_since = self.now;
        self.ceremonies += 1;
        for channel in 0..CHANNELS {
            let checkpoint = self.origin().checkpoint(s, channel).unwrap_or(NONE);
            if checkpoint == NONE || !s.has(Rule::FiledAway) {
                continue;
            }
            let from = s.book.get(checkpoint).serial;
            let origin = self.origin();
            let all = s.book.chain(self.logs[channel]);
            let kept = all
                .iter()
                .copied()
                .find(|id| origin.judge(s, channel, &s.book.run(*id, from)).is_ok())
                .unwrap_or(checkpoint);
            for id in all.into_iter().take_while(|id| *id != kept) {
                self.filed.insert(id);
            }
            self.logs[channel] = kept;
        }
    }

    /// Whether under a trust a withdrawal of a release that stays would be lost.
    pub(crate) fn loses_withdrawal(&self, s: &Setting, before: &World) -> bool {
        let trust = s.book.trust(self.trust);
        (0..CHANNELS)
            .flat_map(|channel| s.book.chain(before.logs[channel]))
            .any(|id| {
                let statement = s.book.get(id);
                let Kind::Withdraw { release } = statement.kind else {
                    return false;
                };
                let honest = statement.author != Author::Thief;
                let proven = trust.meets(&statement) && !s.has(Rule::FiledIsLost);
                honest && self.is_logged(s, release) && !self.is_logged(s, id) && !proven
            })
    }

    /// The trust statements that a ceremony may come to.
    pub(crate) fn ceremony(&self, s: &Setting, bounds: &Bounds, what: Ceremony) -> Vec<World> {
        let trust = s.book.trust(self.trust);
        let mut next = trust;
        if what != Ceremony::Routine && what != Ceremony::Close {
            for role in ROLES.into_iter().filter(|role| bounds.is_stolen(*role)) {
                next.roles[role as usize].keys = role.key(1);
            }
        }
        let lines: Vec<[Id; CHANNELS]> = match what {
            Ceremony::Close => {
                next.closed[1] = true;
                vec![[trust.lines[0], NONE]]
            }
            Ceremony::RemoveByBeat => {
                next.beat_line = self.settling_beat(s).unwrap_or(NONE);
                if !s.has(Rule::CeremonyVerifies) && bounds.is_stolen(Role::Beat) {
                    next.beat_line = self.invented_beat(s);
                }
                if next.beat_line == NONE {
                    return vec![];
                }
                // The beat stands for the channels that have no line of their own.
                vec![[NONE, NONE]]
            }
            Ceremony::Remove if !s.has(Rule::CheckpointAtHead) => self.places(s, true),
            Ceremony::Remove => self.places(s, false),
            Ceremony::Routine => self.places(s, true),
        };
        let mut made = Vec::new();
        for lines in lines {
            let mut world = *self;
            world.bring_into_force(s, Trust { lines, ..next });
            if !s.has(Rule::WithdrawalsSurvive) || !world.loses_withdrawal(s, self) {
                made.push(world);
            }
        }
        made
    }

    /// A beat that a checkpoint may name: it names just the heads that were verified as the
    /// origin's own.
    fn settling_beat(&self, s: &Setting) -> Option<Id> {
        let Kind::Beat { heads, trust, .. } = s.book.get(self.beat).kind else {
            return None;
        };
        (heads == self.logs && trust == self.trust).then_some(self.beat)
    }

    /// A beat by the stolen key that names what nobody has signed.
    fn invented_beat(&self, s: &Setting) -> Id {
        let head = self.logs[0];
        let (serial, kind) = (s.book.get(head).serial + 1, PLAIN);
        let invented = Statement {
            channel: 0,
            serial,
            parent: head,
            kind,
            under: 1,
            keys: 0,
            author: Author::Thief,
        };
        let kind = Kind::Beat {
            time: self.now,
            trust: self.trust,
            heads: [s.book.write(invented), self.logs[1]],
        };
        s.book.write(Statement {
            channel: 2,
            serial: LAST,
            parent: NONE,
            kind,
            under: 1,
            keys: Role::Beat.key(0),
            author: Author::Thief,
        })
    }

    /// Where checkpoints may stand: at the heads; below what a thief has written; and, if nothing
    /// is taken away, anywhere or nowhere.
    fn places(&self, s: &Setting, anywhere: bool) -> Vec<[Id; CHANNELS]> {
        let of = |channel: usize| {
            let mut chain = s.book.chain(self.logs[channel]);
            chain.reverse();
            let foreign = chain
                .iter()
                .position(|id| s.book.get(*id).author == Author::Thief)
                .unwrap_or(chain.len());
            let mut places: Vec<Id> = match anywhere {
                true => chain
                    .iter()
                    .copied()
                    .chain([s.book.trust(self.trust).lines[channel]])
                    .collect(),
                false => [foreign, chain.len()]
                    .iter()
                    .filter(|at| **at > 0)
                    .map(|at| chain[at - 1])
                    .collect(),
            };
            if places.is_empty() {
                places.push(NONE);
            }
            places.sort_unstable();
            places.dedup();
            // A checkpoint is carried on or replaced by a later one.
            let before = s.book.get(s.book.trust(self.trust).lines[channel]).serial;
            places.retain(|id| s.book.get(*id).serial >= before);
            places
        };
        let second = of(1);
        of(0)
            .into_iter()
            .flat_map(|first| second.iter().map(move |second| [first, *second]))
            .collect()
    }

    /// What makes no difference is made the same.
    pub(crate) fn tidy(&mut self, s: &Setting) {
        let device = &mut self.device;
        for (channel, since) in self.since.iter_mut().enumerate() {
            let head = s.book.get(self.logs[channel]).serial;
            for (serial, since) in since.iter_mut().enumerate() {
                if s.clock.is_some() && *since + LIFE <= self.now || serial > usize::from(head) {
                    *since = 0;
                }
            }
        }
        if s.clock.is_some() && self.trust_since + LIFE <= self.now || device.trust == self.trust {
            self.trust_since = 0;
        }
        // Beats that the device is beyond have no effect, unless it forgets the one that it has.
        let (newest, known) = (self.beat, s.book.get(device.beat).serial);
        let trust = s.book.trust(device.trust);
        self.beats.retain(|id| {
            id == newest || s.book.get(id).serial > known && trust.meets(&s.book.get(id))
        });
        if s.clock == Some(0) && s.has(Rule::LifeFromTime) {
            (device.trust_seen, device.trust_time) = (trust.time, trust.time);
            device.beat_came = device.beat != NONE;
            if let Kind::Beat { time, .. } = s.book.get(device.beat).kind
                && time <= self.now
                && device.beat_time + (self.now - device.beat_seen) <= self.now
            {
                (device.beat_seen, device.beat_time) = (time, time);
            }
        }
    }
}
