mod branches;
mod order;

use alloc::{collections::BTreeMap, format, string::ToString, vec::Vec};

use super::*;
use crate::{
    Anchor, Namespace, PublicKey, SigningKey,
    statement::{
        Beat, Body, Checkpoint, Draft, Kind, NamedKey, Release, Role, TrustRules, Withdraw,
    },
};

const NOW: u64 = 1_800_000_000;

fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(crate::StatementId::of(name.as_bytes()).octets())
}

fn os() -> Channel {
    "acme.os.stable".parse().unwrap()
}

fn sign(
    channel: Channel,
    after: Option<Head>,
    trust: Option<u32>,
    body: Body,
    by: &str,
) -> Statement {
    let (time, trust) = (Timestamp::from_seconds(NOW), trust.and_then(Serial::new));
    Draft {
        channel,
        after,
        time,
        trust,
        body,
    }
    .write()
    .unwrap()
    .sign(&key(by))
    .unwrap()
}

/// Roles like `release * ann`, each with one key.
fn trust_body(roles: &[&str], checkpoints: &[(Channel, Head)]) -> Body {
    let mut names: Vec<&str> = Vec::new();
    let read = |line: &&'static str| {
        let words: Vec<&str> = line.split(' ').collect();
        let kind = words[0].parse::<Kind>().unwrap();
        names.extend(
            words[2..]
                .iter()
                .filter(|name| !names.contains(name))
                .copied()
                .collect::<Vec<_>>(),
        );
        Role {
            kind,
            pattern: words[1].parse().unwrap(),
            threshold: 1,
            names: words[2..].iter().map(ToString::to_string).collect(),
        }
    };
    let lines: Vec<&'static str> = roles
        .iter()
        .map(|line| -> &'static str { alloc::string::String::from(*line).leak() })
        .collect();
    let roles = lines.iter().map(read).collect();
    let keys = names
        .iter()
        .map(|name| NamedKey {
            key: PublicKey::of(&key(name)),
            name: (*name).into(),
        })
        .collect();
    let checkpoints = checkpoints
        .iter()
        .map(|(channel, head)| Checkpoint {
            channel: channel.clone(),
            head: *head,
        })
        .collect();
    Body::Trust(TrustRules {
        expires: Timestamp::from_seconds(NOW + 86_400),
        keys,
        roles,
        checkpoints,
        closed: vec![],
    })
}

const ROLES: &[&str] = &[
    "trust * root",
    "release * ann",
    "withdraw * stop",
    "beat * beat",
];
const LATER: &[&str] = &[
    "trust * root",
    "release * dora",
    "withdraw * stop",
    "beat * beat2",
];

fn trust_statement(
    after: Option<Head>,
    roles: &[&str],
    checkpoints: &[(Channel, Head)],
) -> Statement {
    sign(
        "acme.trust".parse().unwrap(),
        after,
        None,
        trust_body(roles, checkpoints),
        "root",
    )
}

fn anchor(head: Head) -> Anchor {
    Anchor {
        namespace: "acme".parse::<Namespace>().unwrap(),
        head,
    }
}

fn first_trust() -> Trust {
    let statement = trust_statement(None, ROLES, &[]);
    Trust::first(&anchor(statement.head()), statement).unwrap()
}

fn next_trust(before: &Trust, roles: &[&str], checkpoints: &[(Channel, Head)]) -> Trust {
    before
        .succeed(trust_statement(Some(before.head()), roles, checkpoints))
        .unwrap()
}

fn release(after: Option<Head>, version: &str, by: &str) -> Statement {
    let body = Body::Release(Release {
        version: version.into(),
        ..Release::default()
    });
    sign(os(), after, Some(1), body, by)
}

fn withdraw(after: Head, what: Head) -> Statement {
    sign(
        os(),
        Some(after),
        Some(1),
        Body::Withdraw(Withdraw {
            withdraws: what,
            reason: "it does not boot".into(),
        }),
        "stop",
    )
}

fn releases(after: Option<Head>, count: usize, prefix: &str, by: &str) -> Vec<Statement> {
    let mut all: Vec<Statement> = Vec::new();
    for number in 0..count {
        let after = all.last().map(Statement::head).or(after);
        all.push(release(after, &format!("{prefix}{number}"), by));
    }
    all
}

/// A broker in small: a log, and what it has stored.
#[derive(Clone)]
struct Broker {
    log: Log,
    store: BTreeMap<Serial, Statement>,
    filed: Vec<Statement>,
    trust: Trust,
    live: Option<Head>,
    until: Option<Timestamp>,
}

impl Broker {
    fn new(channel: Channel, trust: Trust) -> Self {
        Self {
            log: Log::new(channel),
            store: BTreeMap::new(),
            filed: vec![],
            trust,
            live: None,
            until: None,
        }
    }
    fn offer(&self, run: &[Statement], begin: Begin) -> Result<Step, Refused> {
        let stored = |serial| Ok(self.store.get(&serial).cloned());
        let judge = Judge {
            trust: &self.trust,
            live: self.live,
            until: self.until,
        };
        match self.log.channel().is_beat() {
            true => self
                .log
                .offer_beat(judge, Offered::Unproven(run[0].clone())),
            false => self.log.offer(
                judge,
                run.iter().cloned().map(Offered::Unproven).collect(),
                begin,
                &stored,
            ),
        }
    }
    fn commit(&mut self, step: &Step) {
        if let Some((from, to)) = step.filed {
            self.filed.extend(
                self.store
                    .range(from..=to)
                    .map(|(_, statement)| statement.clone()),
            );
        }
        for (from, to) in &step.drop {
            self.store.retain(|serial, _| serial < from || serial > to);
        }
        for statement in &step.insert {
            self.store.insert(statement.serial(), (**statement).clone());
        }
        self.log.apply(step);
        self.check();
    }
    fn take(&mut self, run: &[Statement], begin: Begin) -> Result<(), Refused> {
        let step = self.offer(run, begin)?;
        self.commit(&step);
        Ok(())
    }
    fn bring_into_force(&mut self, trust: Trust) {
        let store = self.store.clone();
        let stored = |serial| Ok(store.get(&serial).cloned());
        self.trust = trust;
        if let Some(step) = self.log.settle(&self.trust, &stored).unwrap() {
            self.commit(&step);
        }
    }
    /// What always holds: no hole, no unlinked neighbours, one backfill, nothing stored beside.
    fn check(&self) {
        let mut expected: Vec<Serial> = Vec::new();
        let ranges = self
            .log
            .span()
            .map(|span| (span.low, span.head))
            .into_iter();
        let ranges = ranges.chain(
            self.log
                .backfill()
                .map(|backfill| (backfill.lowest, backfill.top)),
        );
        for (low, top) in ranges {
            assert_eq!(self.store.get(&top.serial).map(Statement::head), Some(top));
            for serial in serials(low.number()..=top.serial.number()) {
                let statement = self
                    .store
                    .get(&serial)
                    .unwrap_or_else(|| panic!("{serial} is missing"));
                if serial > low && !self.log.channel().is_beat() {
                    assert_eq!(
                        statement.predecessor(),
                        below(serial)
                            .and_then(|before| self.store.get(&before))
                            .map(Statement::head)
                    );
                }
                expected.push(serial);
            }
        }
        expected.extend(self.log.kept().map(|kept| kept.serial));
        expected.sort();
        assert_eq!(self.store.keys().copied().collect::<Vec<_>>(), expected);
    }
    fn visible(&self) -> Vec<Statement> {
        let Some(span) = self.log.span() else {
            return vec![];
        };
        self.store
            .range(span.low..=span.head.serial)
            .map(|(_, statement)| statement.clone())
            .collect()
    }
    fn serials(&self) -> Vec<u32> {
        self.visible()
            .iter()
            .map(|statement| statement.serial().number())
            .collect()
    }
}

fn broker() -> Broker {
    Broker::new(os(), first_trust())
}

fn beat(serial: u32, by: &str) -> Statement {
    let body = Body::Beat(Beat {
        expires: Timestamp::from_seconds(NOW + 900),
        heads: vec![],
    });
    let after = Serial::new(serial - 1).map(|serial| Head {
        serial,
        id: crate::StatementId::of(&serial.number().to_be_bytes()),
    });
    sign("acme.beat".parse().unwrap(), after, Some(1), body, by)
}

#[test]
fn a_change_of_trust_judges_the_backfill_anew() {
    let (mut broker, all) = (broker(), releases(None, 8, "1.", "ann"));
    broker.take(&all[..1], Begin::Nothing).unwrap();
    broker.take(&all[5..7], Begin::Backfill).unwrap();
    broker.trust = next_trust(&broker.trust, LATER, &[]);
    // Nobody vouches for it any more: it does not grow, and does not join.
    assert!(broker.take(&all[1..5], Begin::Backfill).is_err());
    let by_dora = release(Some(all[6].head()), "2", "dora");
    broker
        .take(std::slice::from_ref(&by_dora), Begin::Backfill)
        .unwrap();
    broker.take(&all[1..5], Begin::Backfill).unwrap();
    assert_eq!(broker.serials(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn retention_removes_from_below_and_never_the_head_or_a_checkpoint() {
    let (mut broker, all) = (broker(), releases(None, 9, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    assert_eq!(broker.log.trim(Serial::FIRST, None), None);
    let trimmed = broker
        .log
        .trim(all[5].serial(), Some(all[2].head()))
        .unwrap();
    broker.commit(&trimmed);
    assert_eq!(
        (broker.serials(), broker.log.kept()),
        (vec![6, 7, 8, 9], Some(all[2].head()))
    );
    // Another checkpoint takes its place.
    let trimmed = broker
        .log
        .trim(all[8].serial(), Some(all[6].head()))
        .unwrap();
    broker.commit(&trimmed);
    assert_eq!(
        (broker.serials(), broker.log.kept()),
        (vec![9], Some(all[6].head()))
    );
    assert_eq!(broker.log.trim(Serial::new(10).unwrap(), None), None);
}

#[test]
fn what_a_checkpoint_names_is_kept_below_a_gap() {
    let all = releases(None, 9, "1.", "ann");
    let channel = all[0].channel().clone();
    let named = |at: usize| [(channel.clone(), all[at].head())];
    let mut mirror = broker();
    let trust = next_trust(&mirror.trust, ROLES, &named(3));
    mirror.bring_into_force(trust);
    mirror.take(&all[6..], Begin::Log).unwrap();
    // What nobody names has no place there; and it comes alone.
    assert!(mirror.take(&all[2..3], Begin::Backfill).is_err());
    assert!(mirror.take(&all[2..4], Begin::Backfill).is_err());
    // Who only publishes it again changes nothing.
    assert!(mirror.take(&all[3..4], Begin::Nothing).is_err());
    mirror.take(&all[3..4], Begin::Backfill).unwrap();
    mirror.take(&all[3..4], Begin::Backfill).unwrap();
    assert_eq!(
        (mirror.serials(), mirror.log.kept()),
        (vec![7, 8, 9], Some(all[3].head()))
    );
    // The next checkpoint takes its place.
    let trust = next_trust(&mirror.trust, ROLES, &named(4));
    mirror.bring_into_force(trust);
    mirror.take(&all[4..5], Begin::Backfill).unwrap();
    assert_eq!(mirror.log.kept(), Some(all[4].head()));
    // Where the log comes to reach down to it, it is a part of that.
    mirror.take(&all[2..6], Begin::Nothing).unwrap();
    assert_eq!(
        (mirror.serials(), mirror.log.kept()),
        (vec![3, 4, 5, 6, 7, 8, 9], None)
    );
}

#[test]
fn a_beat_that_a_checkpoint_names_is_kept_below_the_others() {
    let channel: Channel = "acme.beat".parse().unwrap();
    let old = beat(3, "beat");
    let mut broker = Broker::new(channel.clone(), first_trust());
    for serial in [2, 3, 4] {
        broker
            .take(&[beat(serial, "beat")], Begin::Nothing)
            .unwrap();
    }
    assert_eq!(broker.serials(), [2, 3, 4]);
    // Older ones, and a beat of a key without a role, have no effect.
    assert!(broker.take(&[beat(1, "beat")], Begin::Nothing).is_err());
    assert!(broker.take(&[beat(9, "eve")], Begin::Nothing).is_err());
    // Its key goes: what it has signed gives way to what is proven, but for the beat that is
    // settled.
    let settled = next_trust(&broker.trust, LATER, &[(channel.clone(), old.head())]);
    broker.bring_into_force(settled.clone());
    assert_eq!(broker.serials(), [2, 3]);
    broker.take(&[beat(9, "beat2")], Begin::Nothing).unwrap();
    assert_eq!(
        (broker.serials(), broker.log.kept()),
        (vec![9], Some(old.head()))
    );
    broker.take(&[beat(10, "beat2")], Begin::Nothing).unwrap();
    let trimmed = broker
        .log
        .trim(Serial::new(10).unwrap(), Some(old.head()))
        .unwrap();
    broker.commit(&trimmed);
    assert_eq!(
        (broker.serials(), broker.log.kept()),
        (vec![10], Some(old.head()))
    );
    // A mirror that has it not takes it below what it has.
    let mut mirror = Broker::new(channel, settled);
    mirror.take(&[beat(10, "beat2")], Begin::Nothing).unwrap();
    assert!(mirror.take(&[beat(4, "beat")], Begin::Nothing).is_err());
    mirror
        .take(std::slice::from_ref(&old), Begin::Nothing)
        .unwrap();
    assert_eq!(
        (mirror.serials(), mirror.log.kept()),
        (vec![10], Some(old.head()))
    );
}

#[test]
fn a_trust_log_begins_at_the_anchor_and_is_filled_below() {
    let mut statements = vec![trust_statement(None, ROLES, &[])];
    for _ in 0..4 {
        statements.push(trust_statement(
            statements.last().map(Statement::head),
            ROLES,
            &[],
        ));
    }
    let anchor = anchor(statements[2].head());
    let log = Log::new("acme.trust".parse().unwrap());
    let nothing = |_| Ok(None);
    let all = |serial: Serial| Ok(statements.get(serial.number() as usize - 1).cloned());
    // In one go.
    let taken = log
        .offer_trust(&anchor, None, statements.clone(), &nothing)
        .unwrap();
    assert_eq!(taken.trust.map(|trust| trust.serial().number()), Some(5));
    assert_eq!(
        (
            taken.step.insert.len(),
            taken.step.after.span().unwrap().low
        ),
        (5, Serial::FIRST)
    );
    // What the anchor names first, the rest above and below it.
    assert_eq!(
        log.offer_trust(&anchor, None, statements[..1].to_vec(), &nothing)
            .err(),
        Some(Refused::Gap {
            from: anchor.head.serial
        })
    );
    let mut log = log;
    let first = log
        .offer_trust(&anchor, None, statements[2..3].to_vec(), &nothing)
        .unwrap();
    log.apply(&first.step);
    let trust = first.trust.unwrap();
    let below = log
        .offer_trust(&anchor, Some(&trust), statements[..2].to_vec(), &all)
        .unwrap();
    assert_eq!((below.step.insert.len(), below.trust.is_none()), (2, true));
    log.apply(&below.step);
    let above = log
        .offer_trust(&anchor, Some(&trust), statements[3..].to_vec(), &all)
        .unwrap();
    assert_eq!(above.trust.map(|trust| trust.serial().number()), Some(5));
    // What is not linked below the anchor is nothing, and another one in its place is not the
    // anchor's.
    let other = trust_statement(None, LATER, &[]);
    assert!(
        log.offer_trust(&anchor, Some(&trust), vec![other.clone()], &all)
            .is_err()
    );
    let wrong = self::anchor(Head {
        serial: Serial::FIRST,
        ..statements[2].head()
    });
    assert!(matches!(
        Log::new("acme.trust".parse().unwrap()).offer_trust(&wrong, None, vec![other], &nothing),
        Err(Refused::Verify(..))
    ));
}
