//! A device that remembers everything and recomputes everything, by the words of parts 1 and 2. It
//! knows who has signed what because the world tells it, and checks no signature.

mod clearance;
mod log;

use std::collections::{BTreeMap, BTreeSet};

use tidings_protocol::{
    Head, Statement, StatementId,
    statement::{Body, Kind},
};

use crate::world::{self, BEATS, CHANNEL, LOG};

const DAY: u64 = 86_400;

/// When something was seen first, and the signed time then.
#[derive(Clone, Copy)]
struct Seen {
    time: u64,
    clock: Option<u64>,
    monotonic: u64,
    boot: u64,
}

pub(crate) struct Naive {
    anchor: Head,
    trust: Option<(Statement, Seen)>,
    beat: Option<(Statement, Seen)>,
    settling: Vec<Statement>,
    clock: Option<u64>,
    monotonic: u64,
    boot: u64,
    pub(crate) head: Option<Statement>,
    /// The head, and what links lead to below it.
    chain: BTreeMap<u32, StatementId>,
    standing: Option<Head>,
    evidence: Option<(Statement, Vec<Statement>)>,
    withdrawn: BTreeSet<(u32, StatementId)>,
    pub(crate) applied: Option<Statement>,
    delivered: u32,
}

type Refused = &'static str;

fn at(head: &Head) -> (u32, StatementId) {
    (head.serial.number(), head.id)
}
fn serial(statement: &Statement) -> u32 {
    statement.serial().number()
}
fn place(statement: &Statement) -> (u32, StatementId) {
    (serial(statement), statement.id())
}
fn before(statement: &Statement) -> Option<(u32, StatementId)> {
    statement.previous().map(|id| (serial(statement) - 1, id))
}
fn withdraws(statement: &Statement) -> Option<(u32, StatementId)> {
    match statement.body() {
        Body::Withdraw(withdraw) => Some(at(&withdraw.withdraws)),
        _ => None,
    }
}

/// Whether those have signed who may, by the rules of a trust statement.
fn meets(statement: &Statement, trust: &Statement) -> Result<(), Refused> {
    let Body::Trust(rules) = trust.body() else {
        panic!("no trust")
    };
    let channel = statement.channel().as_str();
    let weight = |pattern: &str| match pattern.strip_suffix('*') {
        Some(stem) if channel.starts_with(stem) => Some((0, stem.len())),
        None if pattern == channel => Some((1, 0)),
        _ => None,
    };
    let of_kind = rules
        .roles
        .iter()
        .filter(|role| role.kind == statement.kind());
    let role = if statement.kind() == Kind::Beat {
        of_kind
            .into_iter()
            .find(|role| role.pattern.to_string() == "*" && channel == BEATS)
    } else {
        let matching = of_kind.filter_map(|role| Some((weight(&role.pattern.to_string())?, role)));
        matching
            .max_by_key(|(weight, _)| *weight)
            .map(|(_, role)| role)
    };
    let role = role.ok_or("1-14")?;
    let signers = world::signers(statement);
    let listed = rules.keys.iter().filter(|key| {
        role.names.contains(&key.name) && signers.contains(&world::number_of(&key.key))
    });
    let count = listed.map(|key| key.key).collect::<BTreeSet<_>>().len();
    if count >= role.threshold {
        Ok(())
    } else {
        Err("1-15")
    }
}

impl Naive {
    pub(crate) fn new(anchor: Head) -> Self {
        Self {
            anchor,
            trust: None,
            beat: None,
            settling: vec![],
            clock: None,
            monotonic: 0,
            boot: 0,
            head: None,
            chain: BTreeMap::new(),
            standing: None,
            evidence: None,
            withdrawn: BTreeSet::new(),
            applied: None,
            delivered: 0,
        }
    }

    pub(crate) fn set_clock(&mut self, clock: Option<u64>) {
        self.clock = clock;
    }
    pub(crate) fn passes(&mut self, seconds: u64) {
        self.monotonic += seconds;
        self.clock = self.clock.map(|clock| clock + seconds);
    }
    pub(crate) fn restart(&mut self) {
        (self.monotonic, self.boot) = (5, self.boot + 1);
    }

    // Time.

    fn ran(&self, seen: &Seen) -> Option<u64> {
        (seen.boot == self.boot).then(|| self.monotonic - seen.monotonic)
    }
    fn running(&self, statement: &Statement, seen: &Seen) -> u64 {
        self.ran(seen)
            .map_or(statement.time().seconds(), |ran| seen.time + ran)
    }
    /// Since first sight, by the monotonic clock, or by the clock after a new start.
    fn elapsed(&self, seen: &Seen) -> u64 {
        let by_clock = self
            .clock
            .zip(seen.clock)
            .map_or(0, |(now, then)| now.saturating_sub(then));
        self.ran(seen).unwrap_or(by_clock)
    }
    fn signed_time(&self, of_beats: bool) -> u64 {
        let trust = self
            .trust
            .as_ref()
            .map_or(0, |(trust, seen)| self.running(trust, seen));
        let beat = self
            .newest_beat()
            .filter(|_| of_beats)
            .map_or(0, |(beat, seen)| self.running(beat, seen));
        trust.max(beat)
    }
    fn good_clock(&self, of_beats: bool) -> Option<u64> {
        self.clock
            .filter(|clock| clock + DAY >= self.signed_time(of_beats))
    }
    fn has_beats(&self) -> bool {
        self.trust.as_ref().is_some_and(|(trust, _)| {
            world::rules(trust)
                .roles
                .iter()
                .any(|role| role.kind == Kind::Beat)
        })
    }
    fn time(&self) -> u64 {
        let of_beats = self.has_beats();
        self.signed_time(of_beats)
            .max(self.good_clock(of_beats).unwrap_or(0))
    }
    fn see(&self, time: u64, clock: Option<u64>) -> Seen {
        Seen {
            time,
            clock,
            monotonic: self.monotonic,
            boot: self.boot,
        }
    }

    // Trust and beats.

    pub(crate) fn take_trust(&mut self, statement: &Statement) -> Result<(), Refused> {
        if let Some((trust, _)) = &self.trust {
            if place(trust) == place(statement) {
                return Ok(());
            }
            if before(statement) != Some(place(trust)) {
                return Err("1-17");
            }
            meets(statement, trust)?;
            meets(statement, statement)?;
            let closed = &world::rules(statement).closed;
            if world::rules(trust)
                .closed
                .iter()
                .any(|line| !closed.contains(line))
            {
                return Err("1-18");
            }
        } else {
            if place(statement) != at(&self.anchor) {
                return Err("1-16");
            }
            meets(statement, statement)?;
        }
        let seen = self.see(
            statement.time().seconds().max(self.signed_time(false)),
            None,
        );
        self.trust = Some((statement.clone(), seen));
        self.look();
        Ok(())
    }

    fn newest_beat(&self) -> Option<&(Statement, Seen)> {
        let trust = &self.trust.as_ref()?.0;
        self.beat
            .as_ref()
            .filter(|(beat, _)| meets(beat, trust).is_ok())
    }

    pub(crate) fn take_beat(&mut self, beat: &Statement) -> Result<(), Refused> {
        let (trust, _) = self.trust.as_ref().ok_or("1-19")?;
        if beat.trust().unwrap() > trust.serial() {
            return Err("1-23");
        }
        meets(beat, trust)?;
        let clock = self.good_clock(true);
        if clock.is_some_and(|clock| beat.time().seconds() > clock + DAY) {
            return Err("2-11");
        }
        let known = self.newest_beat();
        if known.is_none_or(|(known, _)| known.serial() < beat.serial()) {
            let running = known.map_or(0, |(known, seen)| self.running(known, seen));
            self.beat = Some((
                beat.clone(),
                self.see(beat.time().seconds().max(running), clock),
            ));
            self.look();
        }
        Ok(())
    }

    pub(crate) fn take_settled_beat(&mut self, beat: &Statement) -> bool {
        let named = self
            .trust
            .as_ref()
            .is_some_and(|(trust, _)| world::checkpoint(trust, BEATS) == Some(place(beat)));
        if named {
            self.settling.push(beat.clone());
            self.look();
        }
        named
    }

    /// What the newest beat names, and whether it is live.
    fn named(&self) -> Option<((u32, StatementId), bool)> {
        let (statement, seen) = self.newest_beat()?;
        let Body::Beat(beat) = statement.body() else {
            panic!("no beat")
        };
        let of = |name: &str| {
            beat.heads
                .iter()
                .find(|(channel, _)| channel.as_str() == name)
                .map(|(_, head)| at(head))
        };
        let life = (beat.expires.seconds() - statement.time().seconds()).min(DAY);
        let counts = seen.boot == self.boot || self.good_clock(true).is_some();
        let trust = self.trust.as_ref().map(|(trust, _)| place(trust));
        let lives = self.time() < statement.time().seconds() + life && self.elapsed(seen) < life;
        Some((of(CHANNEL)?, counts && of(LOG) == trust && lives))
    }
    fn live(&self) -> Option<(u32, StatementId)> {
        self.named()
            .filter(|(_, live)| *live)
            .map(|(named, _)| named)
    }
    fn trust_named(&self) -> Option<(u32, StatementId)> {
        let Body::Beat(beat) = self.newest_beat()?.0.body() else {
            panic!("no beat")
        };
        beat.heads
            .iter()
            .find(|(channel, _)| channel.as_str() == LOG)
            .map(|(_, head)| at(head))
    }

    // What is proven.

    /// A place, none, or that the beat that says so is missing.
    fn checkpoint(&self) -> Result<Option<(u32, StatementId)>, ()> {
        let Some((trust, _)) = &self.trust else {
            return Ok(None);
        };
        if let Some(own) = world::checkpoint(trust, CHANNEL) {
            return Ok(Some(own));
        }
        let Some(named) = world::checkpoint(trust, BEATS).filter(|_| self.has_beats()) else {
            return Ok(None);
        };
        let beat = self
            .settling
            .iter()
            .find(|beat| place(beat) == named)
            .ok_or(())?;
        let Body::Beat(beat) = beat.body() else {
            panic!("no beat")
        };
        Ok(beat
            .heads
            .iter()
            .find(|(channel, _)| channel.as_str() == CHANNEL)
            .map(|(_, head)| at(head)))
    }
    fn settled(&self) -> Option<(u32, StatementId)> {
        self.checkpoint().ok().flatten()
    }

    // The state, and the release to run.

    pub(crate) fn state(&self) -> &'static str {
        let Some((trust, _)) = &self.trust else {
            return "STALE";
        };
        let named = self.named();
        let trust_named = self.trust_named();
        if named.is_some_and(|(named, _)| self.id_at(named.0).is_some_and(|id| id != named.1))
            || trust_named.is_some_and(|named| named.0 == serial(trust) && named.1 != trust.id())
            || self.evidence.is_some() && self.live().is_none()
        {
            return "FORKED";
        }
        if trust_named.is_some_and(|named| named.0 > serial(trust))
            || named.is_some_and(|(named, _)| {
                self.head.as_ref().is_none_or(|head| named.0 > serial(head))
            })
        {
            return "BEHIND";
        }
        let current = self.live().is_some_and(|named| self.is_on_chain(named))
            && self.restart_from().is_none();
        if current { "CURRENT" } else { "STALE" }
    }
}
