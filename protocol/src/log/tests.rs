use alloc::{collections::BTreeMap, format, string::ToString, vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::{
    Anchor, Namespace, PublicKey, SigningKey,
    statement::{
        Beat, Body, Checkpoint, Draft, Kind, NamedKey, Release, Role, TrustRules, Withdraw,
    },
    trust::Settled,
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

/// Offers statements one by one, and what is put off again, until nothing changes any more.
fn offer_all(broker: &mut Broker, mut order: Vec<Statement>) -> Vec<Statement> {
    loop {
        let before = order.len();
        order.retain(|statement| {
            match broker.take(core::slice::from_ref(statement), Begin::Backfill) {
                Ok(()) => false,
                Err(Refused::Gap { .. } | Refused::Verify(..)) => true,
                Err(other) => panic!("{other}"),
            }
        });
        if order.is_empty() || order.len() == before {
            return order;
        }
    }
}

proptest! {
    #[test]
    fn any_order_ends_in_the_same_log(seed in proptest::collection::vec(any::<prop::sample::Index>(), 24), runs in 1_usize..5) {
        let all = releases(None, 24, "1.", "ann");
        let mut left: Vec<Vec<Statement>> = all.chunks(runs).map(<[Statement]>::to_vec).collect();
        let mut order = Vec::new();
        for index in seed.iter().take(left.len()) {
            order.push(left.remove(index.index(left.len())));
        }
        let mut broker = broker();
        while !order.is_empty() {
            let before = order.len();
            order.retain(|run| broker.take(run, Begin::Backfill).is_err());
            prop_assert!(order.len() < before, "nothing goes on, {:?} is there", broker.serials());
        }
        prop_assert_eq!(broker.visible(), all);
        prop_assert_eq!(broker.log.backfill(), None);
    }

    #[test]
    fn retired_history_is_proven_from_above_in_any_order(seed in proptest::collection::vec(any::<prop::sample::Index>(), 12)) {
        let old = releases(None, 10, "1.", "ann");
        let new = releases(Some(old[9].head()), 2, "2.", "dora");
        let mut broker = Broker::new(os(), next_trust(&first_trust(), LATER, &[]));
        let all: Vec<Statement> = old.into_iter().chain(new).collect();
        let mut left = all.clone();
        let order = seed.iter().map(|index| left.remove(index.index(left.len()))).collect();
        let rest = offer_all(&mut broker, order);
        prop_assert!(rest.is_empty(), "{} are left", rest.len());
        prop_assert_eq!(broker.visible(), all);
    }

    #[test]
    fn a_crash_between_offer_and_apply_changes_nothing(crashes in proptest::collection::vec(any::<bool>(), 64), seed in any::<u64>()) {
        let all = releases(None, 12, "1.", "ann");
        let mut broker = broker();
        let mut next = seed;
        for crash in crashes {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(next >> 33).unwrap() % all.len();
            let (before, store) = (broker.log.clone(), broker.store.clone());
            if let Ok(step) = broker.offer(&all[at..=at], Begin::Backfill) {
                if crash {
                    // After the restart, the same as before; what was stored is judged anew.
                    prop_assert_eq!((&broker.log, &broker.store), (&before, &store));
                    let backfill = broker.log.backfill().map(|backfill| Backfill::stored(backfill.top, &broker.store[&backfill.lowest]));
                    broker.log = Log::stored(os(), broker.log.span(), backfill, None);
                } else {
                    broker.commit(&step);
                }
            }
        }
        offer_all(&mut broker, all.clone());
        prop_assert_eq!(broker.visible(), all);
    }

    #[test]
    fn a_beat_channel_has_the_highest_proven_serial_whatever_comes(order in proptest::collection::vec(1_u32..40, 1..30)) {
        let channel: Channel = "acme.beat".parse().unwrap();
        let mut broker = Broker::new(channel.clone(), first_trust());
        for serial in &order {
            let beat = beat(*serial, "beat");
            let _ = broker.take(&[beat], Begin::Nothing);
        }
        let highest = order.iter().max().copied();
        prop_assert_eq!(broker.log.head().map(|head| head.serial.number()), highest);
    }
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
fn what_follows_is_taken_and_what_is_there_is_known() {
    let (mut broker, all) = (broker(), releases(None, 3, "1.", "ann"));
    broker.take(&all[..2], Begin::Nothing).unwrap();
    assert!(
        broker
            .offer(&all[..1], Begin::Nothing)
            .unwrap()
            .is_nothing(&broker.log)
    );
    let step = broker.offer(&all, Begin::Nothing).unwrap();
    assert_eq!(
        (step.insert.len(), step.shown(&broker.log)),
        (1, Some(all[2].serial()..=all[2].serial()))
    );
    // Unsigned, by others, not linked.
    let other = release(Some(all[1].head()), "x", "eve");
    assert!(matches!(
        broker.offer(&[other], Begin::Nothing),
        Err(Refused::Verify(_, VerifyError::Threshold { .. }))
    ));
    let unlinked = [all[0].clone(), all[2].clone()];
    assert!(matches!(
        broker.offer(&unlinked, Begin::Nothing),
        Err(Refused::Verify(_, VerifyError::Link { .. }))
    ));
}

#[test]
fn a_gap_waits_and_one_backfill_grows_down_until_it_meets_the_head() {
    let (mut broker, all) = (broker(), releases(None, 10, "1.", "ann"));
    broker.take(&all[..2], Begin::Nothing).unwrap();
    assert_eq!(
        broker.offer(&all[8..9], Begin::Nothing),
        Err(Refused::Gap {
            from: all[2].serial()
        })
    );
    broker.take(&all[7..9], Begin::Backfill).unwrap();
    assert_eq!(broker.serials(), [1, 2]);
    // There is one, and it wants what lies below it.
    assert_eq!(
        broker.offer(&all[4..5], Begin::Backfill),
        Err(Refused::Gap {
            from: all[6].serial()
        })
    );
    broker.take(&all[5..7], Begin::Backfill).unwrap();
    broker.take(&all[9..], Begin::Backfill).unwrap();
    broker.take(&all[2..5], Begin::Backfill).unwrap();
    assert_eq!((broker.visible(), broker.log.backfill()), (all, None));
}

#[test]
fn a_log_begins_where_nothing_below_is_to_be_had_and_is_filled_below_later() {
    let (mut broker, all) = (broker(), releases(None, 10, "1.", "ann"));
    broker.take(&all[5..8], Begin::Log).unwrap();
    assert_eq!(broker.serials(), [6, 7, 8]);
    // Attack 111: what lies below comes from another one.
    assert_eq!(
        broker.offer(&all[..3], Begin::Nothing),
        Err(Refused::Expired(all[2].serial()))
    );
    broker.take(&all[2..5], Begin::Nothing).unwrap();
    assert_eq!(broker.serials(), [3, 4, 5, 6, 7, 8]);
    let forged = release(Some(all[0].head()), "x", "ann");
    assert!(matches!(
        broker.offer(&[forged], Begin::Nothing),
        Err(Refused::Verify(_, VerifyError::Link { .. }))
    ));
    // A hole is accepted only if it has to be.
    let far = releases(Some(all[9].head()), 3, "2.", "ann");
    broker.take(&far[1..], Begin::Log).unwrap();
    assert_eq!(broker.serials(), [3, 4, 5, 6, 7, 8]);
    broker.take(&far[1..], Begin::Anew).unwrap();
    assert_eq!(broker.serials(), [12, 13]);
}

#[test]
fn attack_028_two_branches_are_evidence_and_ours_stays() {
    let (mut broker, all) = (broker(), releases(None, 3, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let theirs = releases(Some(all[1].head()), 2, "x", "ann");
    for run in [&theirs[..1], &theirs[..], &theirs[1..]] {
        assert!(
            matches!(broker.offer(run, Begin::Backfill), Err(Refused::Fork(_))),
            "{}",
            run.len()
        );
    }
    // What nobody who may has signed is no evidence.
    let forged = release(Some(all[1].head()), "x", "eve");
    assert!(matches!(
        broker.offer(&[forged], Begin::Backfill),
        Err(Refused::Verify(..))
    ));
}

#[test]
fn the_live_beat_decides_at_a_mirror_down_to_where_the_branches_part() {
    let (mut broker, all) = (broker(), releases(None, 6, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let theirs = releases(Some(all[1].head()), 6, "x", "ann");
    broker.live = Some(theirs[4].head());
    // In one run, or from above downwards.
    let mut whole = broker.clone();
    whole.take(&theirs, Begin::Backfill).unwrap();
    assert_eq!(whole.visible()[2..], theirs[..]);
    for chunk in theirs.chunks(2).rev() {
        broker.take(chunk, Begin::Backfill).unwrap();
    }
    assert_eq!(broker.visible()[2..], theirs[..]);
    assert_eq!(broker.filed.len(), 4);
    // An origin leaves its branch for a checkpoint only: nothing is handed in that decides.
    let mut origin = self::broker();
    origin.take(&all, Begin::Nothing).unwrap();
    assert!(matches!(
        origin.offer(&theirs, Begin::Backfill),
        Err(Refused::Fork(_))
    ));
}

#[test]
fn a_checkpoint_decides_and_the_places_above_are_free() {
    let (mut broker, all) = (broker(), releases(None, 4, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let theirs = releases(Some(all[1].head()), 3, "x", "ann");
    let settled = next_trust(&broker.trust, ROLES, &[(os(), theirs[1].head())]);
    assert!(matches!(settled.checkpoint(&os()), Settled::At(_)));
    broker.bring_into_force(settled);
    assert_eq!(broker.serials(), [1, 2, 3]);
    broker.take(&theirs, Begin::Nothing).unwrap();
    assert_eq!(broker.visible()[2..], theirs[..]);
    assert_eq!(broker.filed.len(), 2);
    // The other branch is refused for good.
    assert!(matches!(
        broker.offer(&all[3..], Begin::Nothing),
        Err(Refused::Verify(_, VerifyError::Checkpoint { .. }))
    ));
}

#[test]
fn attack_119_what_a_thief_put_above_the_checkpoint_is_filed_away() {
    let (mut broker, all) = (broker(), releases(None, 4, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let rotated = next_trust(&broker.trust, LATER, &[(os(), all[1].head())]);
    broker.bring_into_force(rotated);
    assert_eq!((broker.serials(), broker.filed.len()), (vec![1, 2], 2));
    broker
        .take(
            &releases(Some(all[1].head()), 1, "2.", "dora"),
            Begin::Nothing,
        )
        .unwrap();
    assert_eq!(broker.serials(), [1, 2, 3]);
    // Without a checkpoint nothing is taken away: a ceremony that forgets one must not empty logs.
    let mut forgetful = self::broker();
    forgetful.take(&all, Begin::Nothing).unwrap();
    let rotated = next_trust(&forgetful.trust, LATER, &[]);
    forgetful.bring_into_force(rotated);
    assert_eq!(forgetful.serials(), [1, 2, 3, 4]);
}

#[test]
fn a_withdrawal_of_a_release_that_stays_is_issued_anew_first() {
    let trust = first_trust();
    let (mut broker, all) = (broker(), releases(None, 3, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let withdrawal = withdraw(all[2].head(), all[1].head());
    broker
        .take(std::slice::from_ref(&withdrawal), Begin::Nothing)
        .unwrap();
    let lost = |broker: &Broker, next: &Trust| {
        let stored = |serial| Ok(broker.store.get(&serial).cloned());
        broker.log.would_lose(&broker.trust, next, &stored).unwrap()
    };
    // The checkpoint lies below a thief's release, and the withdrawal above it.
    let below = next_trust(&trust, LATER, &[(os(), all[1].head())]);
    assert_eq!(lost(&broker, &below), Some(withdrawal.head()));
    let above = next_trust(&trust, LATER, &[(os(), withdrawal.head())]);
    assert_eq!(lost(&broker, &above), None);
    // Of a release that does not stay nothing has to be said.
    let all_gone = next_trust(&trust, LATER, &[(os(), all[0].head())]);
    assert_eq!(lost(&broker, &all_gone), None);
}

#[test]
fn attack_110_what_is_of_the_future_is_put_off_unless_it_is_vouched_for() {
    let (mut broker, all) = (broker(), releases(None, 2, "1.", "ann"));
    broker.until = Some(Timestamp::from_seconds(NOW - 1));
    assert!(matches!(
        broker.offer(&all, Begin::Nothing),
        Err(Refused::Future { .. })
    ));
    broker.trust = next_trust(&broker.trust, ROLES, &[(os(), all[1].head())]);
    broker.take(&all, Begin::Nothing).unwrap();
    // A broker whose clock is none judges nothing by it.
    let mut timeless = self::broker();
    timeless.take(&all, Begin::Nothing).unwrap();
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
fn a_backfill_that_hangs_on_another_branch_is_given_up_with_evidence() {
    let (mut broker, all) = (broker(), releases(None, 6, "1.", "ann"));
    let theirs = releases(Some(all[1].head()), 4, "x", "ann");
    broker.take(&all[..2], Begin::Nothing).unwrap();
    broker.take(&theirs[2..], Begin::Backfill).unwrap();
    let step = broker.offer(&all[2..5], Begin::Nothing).unwrap();
    assert!(step.evidence.is_some());
    broker.commit(&step);
    assert_eq!(
        (broker.serials(), broker.log.backfill()),
        (vec![1, 2, 3, 4, 5], None)
    );
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
