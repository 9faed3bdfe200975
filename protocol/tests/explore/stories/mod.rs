//! The ways in which an earlier wording of the rules was broken, each played against the rules of
//! now; and, where a rule alone bars the way, against the rules without it. Serials are small here:
//! where a story speaks of 40, 41 and 42 it is 1, 2 and 3.

mod branches;
mod releases;
mod signers;
mod since;
mod time;
mod trust;

use crate::{
    device::{Device, Freshness, Place, Refusal},
    facts::{
        Author, FUTURE, Id, Kind, LAST, LIFE, LOST, Listed, NONE, PLAIN, Role, Serial, Statement,
        Trust,
    },
    rules::{Rule, Setting},
    world::{Bounds, Ceremony, World},
};

pub(super) struct Stage {
    pub(super) s: Setting,
    bounds: Bounds,
    pub(super) w: World,
}

impl Stage {
    pub(super) fn new(s: Setting, bounds: Bounds) -> Self {
        let w = World::new(&s, &bounds);
        Self { s, bounds, w }
    }
    pub(super) fn with_beats() -> Self {
        Self::new(Setting::new(Some(0)), Bounds::default())
    }
    pub(super) fn without_beats() -> Self {
        Self::new(
            Setting::new(Some(0)),
            Bounds {
                beats: false,
                ..Bounds::default()
            },
        )
    }
    /// The same without some rules.
    pub(super) fn without(mut self, rules: &[Rule]) -> Self {
        for rule in rules {
            self.s = self.s.without(*rule);
        }
        self
    }
    /// An honest statement that the origin stores.
    pub(super) fn says(&mut self, kind: Kind) -> Id {
        let id = self
            .w
            .write(&self.s, 0, self.w.logs[0], kind, Author::First);
        assert!(self.w.append(&self.s, id));
        id
    }
    pub(super) fn release(&mut self) -> Id {
        self.says(PLAIN)
    }
    /// Something signed that no log has.
    pub(super) fn signs(&self, parent: Id, kind: Kind, author: Author) -> Id {
        self.w.write(&self.s, 0, parent, kind, author)
    }
    /// The same at any serial, with a `Previous` that nobody has.
    pub(super) fn signs_at(&self, serial: Serial, kind: Kind) -> Id {
        let keys = kind.role().key(0);
        self.s.book.write(Statement {
            channel: 0,
            serial,
            parent: LOST,
            kind,
            under: 1,
            keys,
            author: Author::Thief,
        })
    }
    pub(super) fn invents(&self, parent: Id) -> Id {
        let serial = self.s.book.get(parent).serial + 1;
        self.s.book.write(Statement {
            channel: 0,
            serial,
            parent,
            kind: PLAIN,
            under: 1,
            keys: 0,
            author: Author::Thief,
        })
    }
    /// The honest signer's beat.
    pub(super) fn signer(&mut self) -> Id {
        self.w.sign_beat(&self.s, self.w.logs)
    }
    /// A beat that says anything, by the key that is listed.
    pub(super) fn beat(&self, serial: Serial, time: u8, trust: u16, named: Id) -> Id {
        let kind = Kind::Beat {
            time,
            trust,
            heads: [named, NONE],
        };
        let under = self.s.book.trust(self.w.trust).serial;
        let keys = self.s.book.trust(self.w.trust).roles[Role::Beat as usize].keys;
        self.s.book.write(Statement {
            channel: 2,
            serial,
            parent: NONE,
            kind,
            under,
            keys,
            author: Author::Thief,
        })
    }
    pub(super) fn takes_beat(&mut self, id: Id) -> Result<(), Refusal> {
        self.w.device.take_beat(&self.s, id, self.w.now)
    }
    pub(super) fn reads(&mut self, top: Id, from: Serial) -> Result<Place, Refusal> {
        let run = self.s.book.run(top, from);
        self.w.device.take_run(&self.s, 0, &run, self.w.now)
    }
    pub(super) fn reads_log(&mut self) {
        let _ = self.reads(self.w.logs[0], 1);
    }
    /// Another trust statement at the origin.
    pub(super) fn trust(&mut self, change: impl FnOnce(&mut Trust)) {
        let mut next = self.s.book.trust(self.w.trust);
        change(&mut next);
        self.w.bring_into_force(&self.s, next);
    }
    pub(super) fn walks(&mut self) {
        while let Some(next) = self.w.next_trust(&self.s) {
            self.w.device.take_trust(&self.s, next, self.w.now);
        }
    }
    pub(super) fn head(&self) -> Id {
        self.w.device.channels[0].head
    }
    pub(super) fn applies(&mut self, id: Id) {
        self.w.device.channels[0].applied = id;
    }
    pub(super) fn state(&self) -> Freshness {
        self.w.device.freshness(&self.s, 0, self.w.now)
    }
    pub(super) fn clears(&self) -> Option<Id> {
        self.w.device.clear(&self.s, 0, 1, self.w.now)
    }
    pub(super) fn becomes_current(&mut self) {
        let beat = self.signer();
        self.takes_beat(beat).unwrap();
        self.reads_log();
        assert_eq!(self.state(), Freshness::Current);
    }
    pub(super) fn ceremony(&self, stolen: &'static [Role], what: Ceremony) -> Vec<World> {
        self.w.ceremony(
            &self.s,
            &Bounds {
                stolen,
                ..self.bounds.clone()
            },
            what,
        )
    }
}

pub(super) fn remove(trust: &mut Trust, role: Role) {
    trust.roles[role as usize].keys = role.key(1);
}
