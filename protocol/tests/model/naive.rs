//! A device that remembers everything and recomputes everything, by the words of parts 1 and 2. It
//! knows who has signed what because the world tells it, and checks no signature.

use std::collections::{BTreeMap, BTreeSet};

use tidings_protocol::{
    Head, Statement, StatementId,
    statement::{Body, Kind},
};

use crate::world::{self, BEATS, CHANNEL, LOG};

const DAY: u64 = 86_400;
const LINKS: usize = 64;

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

    /// Every statement of the run may have been said: by its role, by the checkpoint, or because
    /// one above it that is linked vouches.
    pub(crate) fn judge(&self, run: &[Statement]) -> Result<(), (u32, Refused)> {
        let trust = &self
            .trust
            .as_ref()
            .ok_or((run.first().map_or(0, serial), "1-19"))?
            .0;
        let settled = self.settled();
        let vouches = |statement: &Statement| {
            Some(place(statement)) == settled || statement.kind() == Kind::Release
        };
        for (i, statement) in run.iter().enumerate().rev() {
            let refused = |requirement| Err((serial(statement), requirement));
            if world::is_closed(trust) {
                return refused("1-22");
            }
            if statement.trust().unwrap() > trust.serial() {
                return refused("1-23");
            }
            let places = [Some(place(statement)), before(statement)];
            if places
                .iter()
                .flatten()
                .any(|there| settled.is_some_and(|c| c.0 == there.0 && c.1 != there.1))
            {
                return refused("1-24");
            }
            if run
                .get(i + 1)
                .is_some_and(|above| before(above) != Some(place(statement)))
            {
                return refused("2-5");
            }
            // Those above are proven, and linked, or this would not be looked at.
            let proven = Some(place(statement)) == settled || run[i + 1..].iter().any(vouches);
            if !proven && let Err(requirement) = meets(statement, trust) {
                return refused(requirement);
            }
        }
        Ok(())
    }

    fn note_withdrawals(&mut self, run: &[Statement]) {
        self.withdrawn.extend(run.iter().filter_map(withdraws));
    }

    // Where it stands.

    fn id_at(&self, serial: u32) -> Option<StatementId> {
        let named = self
            .head
            .as_ref()
            .and_then(before)
            .filter(|before| before.0 == serial)
            .map(|before| before.1);
        let standing = self
            .standing
            .as_ref()
            .map(at)
            .filter(|standing| standing.0 == serial)
            .map(|standing| standing.1);
        self.chain.get(&serial).copied().or(named).or(standing)
    }
    fn is_on_chain(&self, place: (u32, StatementId)) -> bool {
        self.id_at(place.0) == Some(place.1)
    }
    fn contradicts(&self, statement: &Statement) -> bool {
        let differs =
            |there: (u32, StatementId)| self.id_at(there.0).is_some_and(|id| id != there.1);
        let head = self.head.as_ref().map(serial);
        differs(place(statement))
            || before(statement).is_some_and(|before| Some(before.0) == head && differs(before))
    }
    fn is_head_proven(&self) -> bool {
        let (Some(head), Some((trust, _))) = (&self.head, &self.trust) else {
            return false;
        };
        self.settled() == Some(place(head)) || meets(head, trust).is_ok()
    }
    /// Whatever may be seen without reading.
    fn look(&mut self) {
        if let Some(settled) = self
            .settled()
            .filter(|settled| self.is_on_chain(*settled) && self.is_head_proven())
        {
            self.standing = Some(Head {
                serial: settled.0.to_string().parse().unwrap(),
                id: settled.1,
            });
        }
        if let Some((ours, theirs)) = &self.evidence {
            let low = serial(ours).min(serial(&theirs[0]));
            let stands = self
                .settled()
                .is_some_and(|c| self.standing.as_ref().map(at) == Some(c) && c.0 >= low);
            let named = self
                .live()
                .is_some_and(|named| named.0 >= low && self.is_on_chain(named));
            let both = self.judge(std::slice::from_ref(ours)).is_ok() && self.judge(theirs).is_ok();
            if stands || named || !both {
                self.evidence = None;
            }
        }
    }
    fn restart_from(&self) -> Option<u32> {
        self.head.as_ref()?;
        match self.checkpoint() {
            Err(()) => None,
            Ok(None) => (!self.is_head_proven()).then_some(1),
            Ok(Some(c)) => {
                (self.standing.as_ref().map(at) != Some(c) || !self.is_head_proven()).then_some(c.0)
            }
        }
    }

    /// What comes of a run.
    pub(crate) fn read(&mut self, run: &[Statement], hole: bool) -> String {
        if let Err((serial, requirement)) = self.judge(run) {
            return format!("refused {serial} {requirement}");
        }
        self.note_withdrawals(run);
        let (Some(first), Some(last)) = (run.first().map(serial), run.last().map(serial)) else {
            return "new none".into();
        };
        let has = |named: (u32, StatementId)| run.iter().any(|statement| place(statement) == named);
        let settled = self.settled();
        let Some(head) = self.head.clone() else {
            if let Some(c) = settled.filter(|c| first > c.0 && !hole) {
                return format!("from {}", c.0);
            }
            return self.replace(run);
        };
        let contradiction = run.iter().position(|statement| self.contradicts(statement));
        if let Some(restart) = self.restart_from() {
            let next = restart.min(serial(&head) + 1);
            let goes_on = settled.map_or(contradiction.is_none() && last > serial(&head), |c| {
                last < c.0
            });
            return if goes_on {
                if contradiction.is_some() {
                    "new none".into()
                } else {
                    self.append(run, hole)
                }
            } else if first > next && !hole {
                format!("from {next}")
            } else if last < serial(&head)
                && meets(&head, &self.trust.as_ref().unwrap().0).is_ok()
                && !self.live().is_some_and(has)
            {
                "new none".into()
            } else {
                self.replace(run)
            };
        }
        if let Some(named) = self.live().filter(|named| !self.is_on_chain(*named)) {
            let lowest = *self.chain.keys().next().unwrap();
            let stands = self
                .standing
                .is_some_and(|standing| named.0 <= standing.serial.number());
            let leads_below = first < serial(&head) && has(place(&head));
            let other = !leads_below && (named.0 <= serial(&head) || contradiction.is_some());
            if !stands && other {
                let next = lowest.min(named.0).min(settled.map_or(u32::MAX, |c| c.0));
                if first > next && !hole {
                    return format!("from {next}");
                }
                if has(named) {
                    return self.replace(run);
                }
            }
        }
        let Some(x) = contradiction else {
            return self.append(run, hole);
        };
        if settled.is_some_and(|c| serial(&run[x]) <= c.0) {
            return "new none".into();
        }
        if let Some(c) = settled.filter(|c| first > c.0 && !hole) {
            return format!("from {}", c.0);
        }
        if self.evidence.is_none() {
            // What proves it, and no more.
            let proves = |count: &usize| self.judge(&run[x..x + count]).is_ok();
            let count = (1..=run.len() - x).find(proves).unwrap();
            self.evidence = Some((head, run[x..x + count].to_vec()));
        }
        self.look();
        "fork".into()
    }

    fn append(&mut self, run: &[Statement], hole: bool) -> String {
        let head = serial(self.head.as_ref().unwrap());
        if serial(run.last().unwrap()) < head {
            return "new none".into();
        }
        if serial(&run[0]) > head + 1 && !hole {
            return format!("from {}", head + 1);
        }
        self.join(run);
        self.deliver("new", run)
    }

    fn replace(&mut self, run: &[Statement]) -> String {
        let head = self.head.as_ref().map(place);
        let goes_on = head.is_none_or(|head| {
            run.iter().any(|s| place(s) == head) || before(&run[0]) == Some(head)
        });
        if !goes_on {
            // What was delivered and is not on the other branch comes again from where they part.
            let shared = run
                .iter()
                .filter(|s| self.is_on_chain(place(s)))
                .map(serial)
                .max();
            let joined = before(&run[0])
                .filter(|before| self.is_on_chain(*before))
                .map(|before| before.0);
            self.delivered = self
                .delivered
                .min(shared.or(joined).unwrap_or(serial(&run[0]) - 1));
            self.evidence = None;
        }
        self.join(run);
        let through =
            |c: &(u32, StatementId)| run.iter().any(|s| place(s) == *c) || serial(&run[0]) > c.0;
        if let Some(c) = self.settled().filter(through) {
            self.standing = Some(Head {
                serial: c.0.to_string().parse().unwrap(),
                id: c.1,
            });
            self.look();
        }
        self.deliver(if goes_on { "new" } else { "other" }, run)
    }

    /// The run is on the chain from now on, and what it is linked to.
    fn join(&mut self, run: &[Statement]) {
        let mut chain: BTreeMap<u32, StatementId> = run.iter().map(place).collect();
        let linked = self.is_on_chain(place(&run[0]))
            || before(&run[0]).is_some_and(|before| self.chain.get(&before.0) == Some(&before.1));
        if self.head.is_none() {
            self.delivered = self.delivered.max(serial(&run[0]) - 1);
        }
        if linked {
            chain.extend(
                self.chain
                    .range(..serial(&run[0]))
                    .map(|(serial, id)| (*serial, *id)),
            );
        }
        while chain.len() > LINKS + 1 {
            chain.pop_first();
        }
        (self.chain, self.head) = (chain, run.last().cloned());
        self.look();
    }

    fn deliver(&mut self, how: &str, run: &[Statement]) -> String {
        let new: Vec<String> = run
            .iter()
            .map(serial)
            .filter(|serial| *serial > self.delivered)
            .map(|serial| serial.to_string())
            .collect();
        self.delivered = self.delivered.max(serial(run.last().unwrap()));
        format!(
            "{how} {}",
            if new.is_empty() {
                "none".into()
            } else {
                new.join(",")
            }
        )
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

    /// The serial up to which anything may be installed.
    fn cover(&self) -> Result<u32, Refused> {
        let (trust, _) = self.trust.as_ref().ok_or("1-19")?;
        if world::is_closed(trust) {
            return Err("1-22");
        }
        if self.time() >= world::rules(trust).expires.seconds() {
            return Err("2-24");
        }
        self.checkpoint().map_err(|()| "2-9")?;
        if self.restart_from().is_some() {
            return Err("2-14");
        }
        match (self.has_beats(), self.state()) {
            (true, "CURRENT") => Ok(self.live().unwrap().0),
            (true, _) => Err("2-25"),
            (false, "FORKED") => Err("2-16"),
            (false, _) => self.head.as_ref().map(serial).ok_or("2-25"),
        }
    }

    fn check_log(&mut self, log: &[Statement]) -> Result<u32, Refused> {
        self.judge(log).map_err(|(_, requirement)| requirement)?;
        self.note_withdrawals(log);
        self.cover()
    }

    pub(crate) fn clear(
        &mut self,
        log: &[Statement],
        matches: &dyn Fn(&Statement) -> bool,
    ) -> Result<Option<Statement>, Refused> {
        let top = self.check_log(log)?;
        let reaches = log.last().map(place) == self.head.as_ref().map(place)
            && log.iter().any(|statement| serial(statement) == top);
        if !reaches {
            return Err("2-28");
        }
        let trust = &self.trust.as_ref().unwrap().0;
        let proven = |applied: &&Statement| {
            log.iter().any(|s| place(s) == place(applied))
                || self.settled() == Some(place(applied))
                || meets(applied, trust).is_ok()
        };
        let applied = self.applied.as_ref().filter(proven);
        let floor = applied.map_or(0, serial);
        let stopped = |release: &Statement| {
            let counts = self.withdrawn.contains(&place(release))
                || log
                    .iter()
                    .filter_map(withdraws)
                    .any(|place_of| place_of == place(release));
            if counts { Err("2-33") } else { Ok(()) }
        };
        let fits = |s: &&Statement| {
            s.kind() == Kind::Release && (floor..=top).contains(&serial(s)) && matches(s)
        };
        let Some(mut release) = log.iter().filter(fits).max_by_key(|s| serial(s)) else {
            return if serial(&log[0]) > floor.max(1) {
                Err("2-28")
            } else {
                Ok(None)
            };
        };
        stopped(release)?;
        loop {
            let Body::Release(body) = release.body() else {
                panic!("no release")
            };
            let Some(barrier) = body
                .barrier
                .map(|serial| serial.number())
                .filter(|barrier| *barrier > floor)
            else {
                break;
            };
            if barrier < serial(&log[0]) {
                return Err("2-28");
            }
            release = log
                .iter()
                .find(|s| serial(s) == barrier && s.kind() == Kind::Release && matches(s))
                .ok_or("2-31")?;
            stopped(release)?;
        }
        Ok(applied
            .is_none_or(|applied| place(applied) != place(release))
            .then(|| release.clone()))
    }

    pub(crate) fn finish(&mut self, begun: &Statement, log: &[Statement]) -> Result<(), Refused> {
        self.check_log(log)?;
        let there = log.iter().any(|s| place(s) == place(begun))
            && log.last().map(place) == self.head.as_ref().map(place);
        if !there {
            return Err("2-28");
        }
        let counts = self.withdrawn.contains(&place(begun))
            || log
                .iter()
                .filter_map(withdraws)
                .any(|place_of| place_of == place(begun));
        if counts { Err("2-33") } else { Ok(()) }
    }
}
