//! What there is to talk about: statements and trust statements. Each has a number for its id, and
//! the number stands for the content: whoever makes the same statement again gets the same number.

use std::{cell::RefCell, collections::HashMap};

/// The id of a statement. `NONE` is none, `LOST` one of which nobody has the statement.
pub(crate) type Id = u16;
pub(crate) const NONE: Id = 0;
pub(crate) const LOST: Id = 1;
/// The number of a trust statement; 0 is none.
pub(crate) type TrustNo = u16;
/// A place in a channel.
pub(crate) type Serial = u8;
/// A step of true time.
pub(crate) type Moment = u8;

/// The channels that are looked at closely; beats and trust have logs of their own.
pub(crate) const CHANNELS: usize = 2;
/// How long a beat is live.
pub(crate) const LIFE: Moment = 2;
/// How far ahead of a clock a beat may be.
pub(crate) const FUTURE: Moment = 2;
/// The last serial of all.
pub(crate) const LAST: Serial = 200;

/// Keys, as bits: of each role one that is listed at first, and one that replaces it. A statement
/// has the keys whose signatures hold.
pub(crate) type Keys = u16;
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    Release,
    Withdraw,
    Beat,
}
pub(crate) const ROLES: [Role; 3] = [Role::Release, Role::Withdraw, Role::Beat];
impl Role {
    /// The key of a generation, from 0.
    pub(crate) fn key(self, generation: u8) -> Keys {
        1 << (4 * self as u16 + u16::from(generation))
    }
}

/// Who wrote a statement: nothing that a device could see, but it makes two statements two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) enum Author {
    First,
    Second,
    Thief,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    Release {
        barrier: Serial,
        not_before: Moment,
        matches: bool,
        critical: bool,
    },
    Withdraw {
        release: Id,
    },
    Beat {
        time: Moment,
        trust: TrustNo,
        heads: [Id; CHANNELS],
    },
}
/// A release for everybody, due at once.
pub(crate) const PLAIN: Kind = Kind::Release {
    barrier: 0,
    not_before: 0,
    matches: true,
    critical: false,
};

impl Kind {
    pub(crate) fn role(self) -> Role {
        match self {
            Kind::Release { .. } => Role::Release,
            Kind::Withdraw { .. } => Role::Withdraw,
            Kind::Beat { .. } => Role::Beat,
        }
    }
    pub(crate) fn is_release(self) -> bool {
        self.role() == Role::Release
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Statement {
    /// 0 and 1 are channels, 2 is the beat channel.
    pub(crate) channel: usize,
    pub(crate) serial: Serial,
    /// `Previous`.
    pub(crate) parent: Id,
    pub(crate) kind: Kind,
    /// `Trust`: the serial of the trust statement that it is signed under.
    pub(crate) under: Serial,
    pub(crate) keys: Keys,
    pub(crate) author: Author,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Listed {
    pub(crate) keys: Keys,
    /// 0: there is no such role.
    pub(crate) threshold: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Trust {
    pub(crate) serial: Serial,
    pub(crate) parent: TrustNo,
    pub(crate) time: Moment,
    pub(crate) expires: Moment,
    pub(crate) roles: [Listed; 3],
    /// `Checkpoint` lines of the channels.
    pub(crate) lines: [Id; CHANNELS],
    /// A `Checkpoint` line that names a beat.
    pub(crate) beat_line: Id,
    pub(crate) closed: [bool; CHANNELS],
}

impl Trust {
    /// S1: distinct listed keys whose signatures hold; nothing else has any effect.
    pub(crate) fn meets(&self, statement: &Statement) -> bool {
        let role = self.roles[statement.kind.role() as usize];
        role.threshold > 0 && (role.keys & statement.keys).count_ones() >= role.threshold
    }
    /// S13: what was closed stays closed.
    pub(crate) fn may_follow(&self, before: &Trust) -> bool {
        before
            .closed
            .iter()
            .zip(self.closed)
            .all(|(before, now)| now || !before)
    }
    pub(crate) fn has_beats(&self) -> bool {
        self.roles[Role::Beat as usize].threshold > 0
    }
}

/// Everything that was ever signed, in any history.
pub(crate) struct Book {
    statements: RefCell<(Vec<Statement>, HashMap<Statement, Id>)>,
    trusts: RefCell<(Vec<Trust>, HashMap<Trust, TrustNo>)>,
}

impl Default for Book {
    fn default() -> Self {
        let nothing = Statement {
            channel: 9,
            serial: 0,
            parent: NONE,
            kind: PLAIN,
            under: 0,
            keys: 0,
            author: Author::First,
        };
        let nobody = Listed {
            keys: 0,
            threshold: 0,
        };
        let none = Trust {
            serial: 0,
            parent: 0,
            time: 0,
            expires: 0,
            roles: [nobody; 3],
            lines: [NONE; CHANNELS],
            beat_line: NONE,
            closed: [false; CHANNELS],
        };
        Self {
            statements: RefCell::new((vec![nothing; 2], HashMap::new())),
            trusts: RefCell::new((vec![none], HashMap::new())),
        }
    }
}

impl Book {
    pub(crate) fn write(&self, statement: Statement) -> Id {
        let (all, index) = &mut *self.statements.borrow_mut();
        *index.entry(statement).or_insert_with(|| {
            all.push(statement);
            Id::try_from(all.len() - 1).expect("fewer than 65,536 statements")
        })
    }
    pub(crate) fn get(&self, id: Id) -> Statement {
        self.statements.borrow().0[usize::from(id)]
    }
    pub(crate) fn write_trust(&self, trust: Trust) -> TrustNo {
        let (all, index) = &mut *self.trusts.borrow_mut();
        *index.entry(trust).or_insert_with(|| {
            all.push(trust);
            TrustNo::try_from(all.len() - 1).expect("fewer than 65,536 trust statements")
        })
    }
    pub(crate) fn trust(&self, no: TrustNo) -> Trust {
        self.trusts.borrow().0[usize::from(no)]
    }
    /// The statement at a serial of the chain that ends in `head`, or `NONE` where nobody knows it.
    pub(crate) fn at(&self, head: Id, serial: Serial) -> Id {
        let all = &self.statements.borrow().0;
        let mut id = head;
        while id > LOST && all[usize::from(id)].serial > serial {
            id = all[usize::from(id)].parent;
        }
        if id > LOST && all[usize::from(id)].serial == serial {
            id
        } else {
            NONE
        }
    }
    /// The statements from `head` down, newest first.
    pub(crate) fn chain(&self, head: Id) -> Vec<Id> {
        std::iter::successors(Some(head), |id| Some(self.get(*id).parent))
            .take_while(|id| *id > LOST)
            .collect()
    }
    /// The run from a serial up to `head`, oldest first.
    pub(crate) fn run(&self, head: Id, from: Serial) -> Vec<Id> {
        let mut run: Vec<Id> = self
            .chain(head)
            .into_iter()
            .take_while(|id| self.get(*id).serial >= from)
            .collect();
        run.reverse();
        run
    }
}

/// A few ids, in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Ids {
    len: u8,
    ids: [Id; 12],
}

impl Ids {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Id> + '_ {
        self.ids[..usize::from(self.len)].iter().copied()
    }
    pub(crate) fn contains(&self, id: Id) -> bool {
        self.iter().any(|other| other == id)
    }
    pub(crate) fn insert(&mut self, id: Id) {
        if !self.contains(id) {
            assert!(
                usize::from(self.len) < self.ids.len(),
                "the bounds of the model are wider than its memory"
            );
            let at = self.iter().filter(|other| *other < id).count();
            self.ids.copy_within(at..usize::from(self.len), at + 1);
            self.ids[at] = id;
            self.len += 1;
        }
    }
    pub(crate) fn retain(&mut self, keep: impl Fn(Id) -> bool) {
        *self = self.iter().filter(|id| keep(*id)).collect();
    }
}

impl FromIterator<Id> for Ids {
    fn from_iter<T: IntoIterator<Item = Id>>(ids: T) -> Self {
        let mut all = Self::default();
        ids.into_iter().for_each(|id| all.insert(id));
        all
    }
}

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
