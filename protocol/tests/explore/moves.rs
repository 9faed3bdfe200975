//! All that may happen next: to the honest, by the thief, and to the device.

use crate::{
    facts::{
        Author, CHANNELS, FUTURE, Id, Kind, LAST, LOST, NONE, PLAIN, Role, Serial, Statement,
        TrustNo,
    },
    rules::{Rule, Setting},
    world::{Bounds, UNKNOWN, World},
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Move {
    Tick,
    Sign {
        publisher: usize,
        id: Id,
    },
    Offer {
        publisher: usize,
    },
    Crash {
        publisher: usize,
    },
    SignBeat {
        id: Id,
    },
    Ceremony {
        trust: TrustNo,
    },
    Forge {
        id: Id,
    },
    Post {
        id: Id,
    },
    GiveTrust,
    GiveSettling,
    GiveBeat {
        id: Id,
    },
    GiveRun {
        channel: usize,
        top: Id,
        from: Serial,
    },
    Apply {
        channel: usize,
        id: Id,
    },
    Reboot,
}

pub(crate) type Successors = Vec<(Move, World)>;

impl World {
    pub(crate) fn successors(&self, s: &Setting, bounds: &Bounds) -> Successors {
        let mut all = Vec::new();
        self.honest(s, bounds, &mut all);
        self.thief(s, bounds, &mut all);
        self.given(s, bounds, &mut all);
        for (_, world) in &mut all {
            world.tidy(s);
        }
        all
    }

    fn honest(&self, s: &Setting, bounds: &Bounds, all: &mut Successors) {
        let mut go = |by: Move, f: &mut dyn FnMut(&mut World)| {
            let mut world = *self;
            f(&mut world);
            all.push((by, world));
        };
        if self.now < bounds.time {
            go(Move::Tick, &mut |world| world.now += 1);
        }
        for publisher in 0..bounds.publishers {
            if self.outbox[publisher] != NONE {
                go(Move::Offer { publisher }, &mut |world| {
                    world.offer(s, publisher)
                });
                if !s.has(Rule::Outbox) {
                    go(Move::Crash { publisher }, &mut |world| {
                        world.loose.insert(self.outbox[publisher]);
                        world.outbox[publisher] = NONE;
                    });
                }
                continue;
            }
            for channel in (0..CHANNELS).filter(|channel| self.may_extend(s, *channel)) {
                if s.book.get(self.logs[channel]).serial >= bounds.serials[channel]
                    || s.book.trust(self.trust).closed[channel]
                {
                    continue;
                }
                for kind in self.kinds(s, bounds, channel, self.logs[channel], bounds.releases) {
                    let author = if publisher == 0 {
                        Author::First
                    } else {
                        Author::Second
                    };
                    let id = self.write(s, channel, self.logs[channel], kind, author);
                    if !self.loose.contains(id) && !self.filed.contains(id) {
                        go(Move::Sign { publisher, id }, &mut |world| {
                            world.outbox[publisher] = id
                        });
                    }
                }
            }
        }
        let newest = s.book.get(self.beat);
        if bounds.beats && newest.serial < bounds.signs {
            let said = Kind::Beat {
                time: self.now,
                trust: self.trust,
                heads: self.logs,
            };
            let mut names = vec![self.logs];
            if !s.has(Rule::NamesStoredOnly) {
                names.extend(
                    self.loose
                        .iter()
                        .chain(self.outbox)
                        .filter(|id| s.book.get(*id).channel == 0)
                        .map(|id| [id, self.logs[1]]),
                );
            }
            for heads in names {
                if newest.kind != said || heads != self.logs {
                    go(Move::SignBeat { id: NONE }, &mut |world| {
                        world.sign_beat(s, heads);
                    });
                }
            }
        }
        if let Some(what) = bounds.ceremonies.get(usize::from(self.ceremonies)) {
            for world in self.ceremony(s, bounds, *what) {
                go(Move::Ceremony { trust: world.trust }, &mut |next| {
                    *next = world
                });
            }
        }
    }

    /// What may be said above a head.
    fn kinds(
        &self,
        s: &Setting,
        bounds: &Bounds,
        channel: usize,
        head: Id,
        releases: &[Kind],
    ) -> Vec<Kind> {
        let serial = s.book.get(head).serial + 1;
        let mut kinds: Vec<Kind> = releases
            .iter()
            .copied()
            .filter(|kind| !matches!(kind, Kind::Release { barrier, .. } if *barrier >= serial))
            .collect();
        if bounds.withdrawals && channel == 0 {
            let chain = s.book.chain(head);
            let withdrawn: Vec<Kind> = chain.iter().map(|id| s.book.get(*id).kind).collect();
            let stop = chain.iter().map(|id| Kind::Withdraw { release: *id });
            kinds.extend(
                stop.zip(&chain)
                    .filter(|(kind, id)| {
                        s.book.get(**id).kind.is_release() && !withdrawn.contains(kind)
                    })
                    .map(|(kind, _)| kind),
            );
        }
        kinds
    }

    /// Every statement of a channel that the adversary has.
    pub(crate) fn seen(&self, s: &Setting, channel: usize) -> Vec<Id> {
        let of = |id: &Id| *id > LOST && s.book.get(*id).channel == channel;
        let settling = match s.book.get(s.book.trust(self.trust).beat_line).kind {
            Kind::Beat { heads, .. } => heads[channel],
            _ => NONE,
        };
        let tops = self
            .loose
            .iter()
            .chain([settling])
            .chain(self.filed.iter())
            .chain(self.outbox)
            .chain([self.logs[channel], self.device.channels[channel].head]);
        let mut all: Vec<Id> = tops.filter(of).flat_map(|id| s.book.chain(id)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn thief(&self, s: &Setting, bounds: &Bounds, all: &mut Successors) {
        let seen = self.seen(s, 0);
        if self.forged < bounds.forgeries {
            let mut parents = seen.clone();
            parents.push(LOST);
            for parent in parents.into_iter().chain([NONE]) {
                // With an invented `Previous` it may stand where the log never comes to.
                let serial = if parent == LOST {
                    bounds.serials[0] + 3
                } else {
                    s.book.get(parent).serial + 1
                };
                if parent != LOST && serial > bounds.serials[0] {
                    continue;
                }
                let mut kinds = vec![PLAIN];
                kinds.extend(
                    seen.iter()
                        .filter(|id| s.book.get(**id).kind.is_release())
                        .map(|id| Kind::Withdraw { release: *id }),
                );
                if s.kept < 8 {
                    let release = Statement {
                        channel: 0,
                        serial: bounds.serials[0] + 1,
                        parent: LOST,
                        kind: PLAIN,
                        under: 1,
                        keys: 0,
                        author: Author::Thief,
                    };
                    kinds.push(Kind::Withdraw {
                        release: s.book.write(release),
                    });
                }
                for kind in kinds {
                    let stolen = bounds.is_stolen(kind.role());
                    // Without a key it can only be invented; one such thing is as good as another.
                    if !(stolen || bounds.inventions && kind == PLAIN) {
                        continue;
                    }
                    let keys = if stolen { kind.role().key(0) } else { 0 };
                    let id = Statement {
                        channel: 0,
                        serial,
                        parent,
                        kind,
                        under: 1,
                        keys,
                        author: Author::Thief,
                    };
                    let id = s.book.write(id);
                    if !seen.contains(&id) {
                        let mut world = *self;
                        world.forged += 1;
                        world.loose.insert(id);
                        all.push((Move::Forge { id }, world));
                    }
                }
            }
        }
        // Whatever was signed may be offered by whoever has it.
        for id in self
            .loose
            .iter()
            .filter(|id| s.book.get(*id).channel < CHANNELS)
        {
            let mut world = *self;
            if world.append(s, id) {
                all.push((Move::Post { id }, world));
            }
        }
    }

    /// What the adversary lets the device have, and what it does by itself.
    fn given(&self, s: &Setting, bounds: &Bounds, all: &mut Successors) {
        let now = self.now;
        if let Some(next) = self.next_trust(s) {
            let mut world = *self;
            world.device.take_trust(s, next, now);
            all.push((Move::GiveTrust, world));
        }
        if s.book.trust(self.device.trust).beat_line != NONE && !self.device.settling {
            let mut world = *self;
            world.device.take_settling(s, world.now);
            all.push((Move::GiveSettling, world));
        }
        for id in self.beats.iter().chain(self.forged_beats(s, bounds)) {
            let mut world = *self;
            if world.device.take_beat(s, id, now).is_ok() && world.device != self.device {
                if world.lag == UNKNOWN {
                    world.lag = now.saturating_sub(world.device.time(s, now));
                }
                all.push((Move::GiveBeat { id }, world));
            }
        }
        for channel in (0..CHANNELS).filter(|channel| bounds.serials[*channel] > 0) {
            self.given_runs(s, channel, all);
            self.applied(s, channel, all);
        }
        if bounds.reboots && (self.device.beat_came || self.device.beat_seen != now) {
            let mut world = *self;
            world.device.reboot(s, now);
            world.lag = UNKNOWN;
            all.push((Move::Reboot, world));
        }
    }

    /// The trust statement after the one that the device has.
    pub(crate) fn next_trust(&self, s: &Setting) -> Option<TrustNo> {
        std::iter::successors(Some(self.trust), |no| Some(s.book.trust(*no).parent))
            .take_while(|no| *no != 0)
            .find(|no| s.book.trust(*no).parent == self.device.trust)
    }

    fn given_runs(&self, s: &Setting, channel: usize, all: &mut Successors) {
        let known = self.device.channels[channel];
        let head = s.book.get(known.head).serial;
        let checkpoint = s
            .book
            .get(self.device.checkpoint(s, channel).unwrap_or(NONE))
            .serial;
        for top in self.seen(s, channel) {
            let serial = s.book.get(top).serial;
            let mut froms = [1, checkpoint, head + 1, serial];
            froms.sort_unstable();
            for (at, from) in froms.into_iter().enumerate() {
                if from == 0 || from > serial || at > 0 && froms[at - 1] == from {
                    continue;
                }
                let mut world = *self;
                if world.take_run(s, channel, &s.book.run(top, from)) && world != *self {
                    all.push((Move::GiveRun { channel, top, from }, world));
                }
            }
        }
    }

    /// The device takes a run, and what it met is written down.
    pub(crate) fn take_run(&mut self, s: &Setting, channel: usize, run: &[Id]) -> bool {
        let before = self.device;
        let taken = self.device.take_run(s, channel, run, self.now).is_ok();
        let (old, new) = (
            before.channels[channel].head,
            self.device.channels[channel].head,
        );
        let back = old != new && old != NONE && s.book.at(old, s.book.get(new).serial) == new;
        let spoken = before.live(s, self.now)
            && before
                .named(s, channel)
                .is_some_and(|named| run.contains(&named));
        self.taken_back |= back && !spoken && s.book.trust(before.trust).meets(&s.book.get(old));
        for id in run.iter().filter(|id| {
            taken
                && self.device.stands_on(s, channel, **id)
                    | s.book.trust(self.device.trust).meets(&s.book.get(**id))
        }) {
            let statement = s.book.get(*id);
            let Kind::Withdraw { release } = statement.kind else {
                continue;
            };
            let read = self.device.ours(s, channel, s.book.get(release).serial) == release;
            // Where memory is short, only what was read is promised.
            if statement.author != Author::Thief && (s.kept >= 8 || read) {
                self.met.insert(*id);
            }
        }
        taken
    }

    fn applied(&self, s: &Setting, channel: usize, all: &mut Successors) {
        if let Some(id) = self
            .device
            .clear(s, channel, 1, self.now)
            .filter(|id| *id != self.device.channels[channel].applied)
        {
            let mut world = *self;
            world.device.channels[channel].applied = id;
            all.push((Move::Apply { channel, id }, world));
        }
    }

    /// Beats by a stolen key: what stops a device, and what leads it to anything that somebody has
    /// signed.
    fn forged_beats(&self, s: &Setting, bounds: &Bounds) -> Vec<Id> {
        if !bounds.is_stolen(Role::Beat) {
            return vec![];
        }
        let head = s.book.get(self.device.channels[0].head);
        let invented = |serial: Serial| {
            s.book.write(Statement {
                channel: 0,
                serial,
                parent: LOST,
                kind: PLAIN,
                under: 1,
                keys: 0,
                author: Author::Thief,
            })
        };
        let mut names = self.seen(s, 0);
        names.extend([invented(head.serial.max(1)), invented(head.serial + 1)]);
        let known = s.book.get(self.device.beat);
        let mut serials = vec![(LAST, self.now + FUTURE)];
        if known.author != Author::Thief {
            serials.push((known.serial + 1, self.now));
        }
        let beat = |serial, time, trust, named| {
            let kind = Kind::Beat {
                time,
                trust,
                heads: [named, self.logs[1]],
            };
            s.book.write(Statement {
                channel: 2,
                serial,
                parent: NONE,
                kind,
                under: 1,
                keys: Role::Beat.key(0),
                author: Author::Thief,
            })
        };
        let all = serials.iter().flat_map(|(serial, time)| {
            names
                .iter()
                .map(move |named| beat(*serial, *time, self.device.trust, *named))
        });
        all.collect()
    }
}
