//! Histories on a disk that forgets: whatever was answered for is there, and nothing else is.

mod cuts;
mod damage;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, OnceLock},
};

use tidings_protocol::{
    Channel, Head, Serial, SigningKey, Statement, Timestamp,
    statement::{Body, Draft, Release},
};

use super::{
    Batch, Limits, Marks, Store, StoreError,
    simulated::{Model, Random, SimulatedDisk},
};

const SMALL: Limits = Limits {
    segment: 12 * 1024,
    slice: 2048,
};
const CHANNELS: usize = 4;
const SERIALS: u32 = 60;

fn channel(at: usize) -> Channel {
    format!("test.store.c{at}").parse().unwrap()
}

fn serial(number: u32) -> Serial {
    Serial::new(number).unwrap()
}

/// Consecutive statements of each channel, on two branches.
fn statement(branch: usize, of: usize, number: u32) -> &'static Statement {
    static ALL: OnceLock<Vec<Vec<Statement>>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let key = SigningKey::from_bytes(&[7; 32]);
        let log = |at: usize| {
            let mut head: Option<Head> = None;
            let next = |number: u32| {
                let release = Release {
                    version: format!("{}.{number}", at / CHANNELS),
                    ..Release::default()
                };
                let time = Timestamp::from_seconds(1_800_000_000 + u64::from(number));
                let draft = Draft {
                    channel: channel(at % CHANNELS),
                    after: head,
                    time,
                    trust: Some(Serial::FIRST),
                    body: Body::Release(release),
                };
                let statement = draft.write().unwrap().sign(&key).unwrap();
                head = Some(statement.head());
                statement
            };
            (1..=SERIALS).map(next).collect()
        };
        (0..2 * CHANNELS).map(log).collect()
    });
    &all[branch * CHANNELS + of][number as usize - 1]
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    statements: BTreeMap<(usize, u32), (Vec<u8>, String, u64)>,
    marks: BTreeMap<usize, Marks>,
    backfills: BTreeMap<usize, (u32, u32)>,
    cursors: BTreeMap<usize, u32>,
    slots: Option<(Vec<u8>, i32)>,
}

/// What a store answers; statements that it says are damaged are listed apart.
fn read(store: &Store) -> (Content, Vec<(usize, u32)>) {
    let (mut content, mut damaged) = (Content::default(), Vec::new());
    let at = |name: &Channel| (0..CHANNELS).find(|at| channel(*at) == *name).unwrap();
    for of in 0..CHANNELS {
        for number in store.serials(&channel(of)) {
            // As `get` does, but for parsing, which takes most of its time.
            let index = store.index();
            let place = index.place(channel(of).as_str(), number.number()).unwrap();
            let octets = super::read_value(&index, place);
            drop(index);
            match octets
                .as_deref()
                .and_then(|octets| super::Value::read(place.segment, place.at, octets))
            {
                Some(value) => {
                    let value = (
                        value.statement.to_vec(),
                        value.path.into(),
                        value.arrived.seconds(),
                    );
                    content.statements.insert((of, number.number()), value);
                }
                None => {
                    assert!(matches!(
                        store.get(&channel(of), number),
                        Err(StoreError::Damaged(_))
                    ));
                    damaged.push((of, number.number()));
                }
            }
        }
        let cursor = store.feed_cursor("peer", &channel(of)).unwrap();
        if cursor > 0 {
            content.cursors.insert(of, cursor);
        }
    }
    content.marks = store
        .channels()
        .unwrap()
        .into_iter()
        .map(|(name, marks)| (at(&name), marks))
        .collect();
    let backfills = store.backfills().unwrap();
    content.backfills = backfills
        .into_iter()
        .map(|(name, top, low)| (at(&name), (top.number(), low.number())))
        .collect();
    content.slots = store.slots("group").unwrap();
    (content, damaged)
}

/// A store in use, beside what it should hold.
struct Life {
    random: Random,
    /// What was answered for, and what it will be if what is under way succeeds.
    content: Content,
    next: Content,
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            content: Content::default(),
            next: Content::default(),
        }
    }

    fn insert(&mut self, batch: &mut Batch, branch: usize, of: usize, number: u32) {
        let (statement, path) = (
            statement(branch, of, number),
            format!("b{}.invalid", self.random.below(3)),
        );
        let arrived = 1_800_000_000 + self.random.below(1000) as u64;
        batch.insert(statement, Timestamp::from_seconds(arrived), &path);
        self.next
            .statements
            .insert((of, number), (statement.octets().to_vec(), path, arrived));
    }

    fn append(&mut self, batch: &mut Batch) {
        let mut marks = BTreeMap::new();
        for _ in 0..1 + self.random.below(8) {
            let of = self.random.below(CHANNELS);
            let before = self.next.marks.get(&of).copied();
            let number = before.map_or(1, |marks| marks.head.serial.number() + 1);
            if number > SERIALS - 8 {
                continue;
            }
            let branch = self.random.below(2);
            self.insert(batch, branch, of, number);
            let head = statement(branch, of, number).head();
            let new = Marks {
                low: head.serial,
                head,
                created: Timestamp::from_seconds(1_800_000_000),
            };
            let after = before.map_or(new, |before| Marks { head, ..before });
            self.next.marks.insert(of, after);
            marks.insert(of, after);
        }
        marks
            .iter()
            .for_each(|(of, marks)| batch.set_marks(&channel(*of), marks));
    }

    /// The oldest of a channel go, or all of it.
    fn expire(&mut self, batch: &mut Batch, of: usize) {
        let Some(marks) = self.next.marks.get(&of).copied() else {
            return;
        };
        let (low, head) = (marks.low.number(), marks.head.serial.number());
        let keep = 1 + u32::try_from(self.random.below(4)).unwrap();
        let new = low.max(head.saturating_sub(keep));
        for number in low..new {
            batch.remove(&channel(of), serial(number));
            self.next.statements.remove(&(of, number));
        }
        let marks = Marks {
            low: serial(new),
            ..marks
        };
        batch.set_marks(&channel(of), &marks);
        self.next.marks.insert(of, marks);
    }

    fn begin_anew(&mut self, store: &Store, batch: &mut Batch, of: usize) {
        batch.remove_marks(&channel(of));
        store.forget_feed_cursors(batch, &channel(of)).unwrap();
        self.next.marks.remove(&of);
        self.next.cursors.remove(&of);
        self.insert(batch, 1, of, 1);
        let head = statement(1, of, 1).head();
        let marks = Marks {
            low: head.serial,
            head,
            created: Timestamp::from_seconds(1_800_000_000),
        };
        batch.set_marks(&channel(of), &marks);
        self.next.marks.insert(of, marks);
    }

    fn fill(&mut self, batch: &mut Batch, of: usize) {
        let (top, lowest) = self
            .next
            .backfills
            .get(&of)
            .copied()
            .unwrap_or((SERIALS, SERIALS + 1));
        if lowest <= SERIALS - 7 || self.random.below(8) == 0 {
            self.next.backfills.remove(&of);
            return batch.set_backfill(&channel(of), None);
        }
        self.insert(batch, 0, of, lowest - 1);
        self.next.backfills.insert(of, (top, lowest - 1));
        batch.set_backfill(&channel(of), Some((serial(top), serial(lowest - 1))));
    }

    /// One thing more; what is answered for counts, what is not may have happened.
    fn step(&mut self, store: &Store) -> Result<(), StoreError> {
        self.next = self.content.clone();
        let (mut batch, of) = (Batch::default(), self.random.below(CHANNELS));
        match self.random.below(14) {
            0..7 => {
                self.append(&mut batch);
                store.commit(batch)?;
            }
            7..9 => {
                (0..CHANNELS).for_each(|of| self.expire(&mut batch, of));
                store.commit(batch)?;
            }
            9 => {
                self.begin_anew(store, &mut batch, of);
                self.append(&mut batch);
                store.commit(batch)?;
            }
            10 => {
                self.fill(&mut batch, of);
                store.commit(batch)?;
            }
            11 => {
                let cursor = 1 + u32::try_from(self.random.below(50)).unwrap();
                self.next.cursors.insert(of, cursor);
                store.set_feed_cursors("peer", std::iter::once((&channel(of), cursor)))?;
            }
            12 => {
                let after = self.content.slots.as_ref().map(|(_, version)| *version);
                let data = vec![7; self.random.below(300)];
                self.next.slots = Some((data.clone(), after.map_or(0, |version| version + 1)));
                assert!(store.set_slots("group", &data, after)?);
                assert!(!store.set_slots("group", b"late", after)?);
            }
            _ => store.settle()?,
        }
        self.content = self.next.clone();
        Ok(())
    }

    /// What was answered for is there; what was under way is there whole, or not at all.
    #[track_caller]
    fn check(&mut self, store: &Store, about: &str) {
        let (found, damaged) = read(store);
        assert!(damaged.is_empty(), "{about}: {damaged:?}");
        assert!(
            self.fits(&found),
            "{about}: {:?}\n\nshould be {:?}",
            keys(&found),
            keys(&self.content)
        );
    }

    fn fits(&mut self, found: &Content) -> bool {
        if *found == self.next {
            self.content = self.next.clone();
        }
        *found == self.content
    }
}

fn keys(content: &Content) -> impl std::fmt::Debug {
    (
        content.statements.keys().collect::<Vec<_>>(),
        &content.marks,
        &content.backfills,
        &content.cursors,
        &content.slots,
    )
}

fn open(disk: &SimulatedDisk) -> Result<Store, StoreError> {
    Store::open_on(Arc::new(disk.clone()), SMALL)
}

/// The operations of a history on a disk that does all of them.
fn operations(seed: u64, steps: usize) -> (usize, usize) {
    let disk = SimulatedDisk::new(Model::Posix);
    let (mut life, store) = (Life::new(seed), open(&disk).unwrap());
    (0..steps).for_each(|_| life.step(&store).unwrap());
    drop(store);
    disk.operations()
}

#[test]
fn segments_come_and_go() {
    let disk = SimulatedDisk::new(Model::Posix);
    let (mut life, mut seen) = (Life::new(3), HashSet::new());
    for _ in 0..20 {
        let store = open(&disk).unwrap();
        for _ in 0..40 {
            life.step(&store).unwrap();
            seen.extend(disk.all().into_keys());
        }
        life.check(&store, "without a fault");
        drop(store);
        life.check(&open(&disk).unwrap(), "after a restart");
    }
    assert!(seen.len() > 30, "{seen:?}");
    let left = disk.all();
    assert!(
        left.len() < 20 && !left.contains_key("store/00000001.log"),
        "{:?}",
        left.keys()
    );
}
