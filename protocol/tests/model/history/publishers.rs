//! What honest publishers and thieves do.

use tidings_protocol::{Head, Statement, StatementId, statement::Kind};

use super::{DAY, History};
use crate::world::{self, BEATS, CHANNEL, DECOY, LOG, MALLORY, ROOT};

impl History {
    // Publishers and thieves.

    pub(super) fn under(&self) -> u32 {
        self.trusts.len() as u32
    }
    fn fields(&mut self, after: Option<&Statement>) -> String {
        let serial = after.map_or(1, |after| after.serial().number() + 1);
        let target = if self.targeted && self.dice.one_in(3) {
            "Target: n=1\n"
        } else {
            ""
        };
        let barrier = if serial > 1 && self.dice.one_in(5) {
            format!("Barrier: {}\n", 1 + self.dice.below(serial as usize - 1))
        } else {
            String::new()
        };
        format!("{target}{barrier}")
    }
    /// One of the releases below a place, as its branch has it.
    fn release_below(&mut self, top: &Statement) -> Option<Head> {
        let releases: Vec<Head> = self
            .down(top, 99)
            .iter()
            .filter(|s| s.kind() == Kind::Release)
            .map(Statement::head)
            .collect();
        (!releases.is_empty()).then(|| releases[self.dice.below(releases.len())])
    }
    fn make(&mut self, after: Option<Statement>, release: &[u8], stop: &[u8]) -> Option<Statement> {
        let (under, head) = (self.under(), after.as_ref().map(Statement::head));
        if let Some(withdrawn) = after
            .as_ref()
            .filter(|_| !stop.is_empty())
            .and_then(|after| self.release_below(after))
        {
            return Some(world::withdraw(head, under, withdrawn, stop));
        }
        let fields = self.fields(after.as_ref());
        (!release.is_empty()).then(|| world::release(head, under, &fields, release))
    }
    pub(super) fn publish(&mut self) {
        let stop = if self.dice.one_in(3) {
            vec![self.rules.stop_key()]
        } else {
            vec![]
        };
        let release = self.rules.release_keys();
        let made = self
            .make(
                self.log.last().cloned(),
                &release[..self.rules.threshold],
                &stop,
            )
            .unwrap();
        self.tell("published", std::slice::from_ref(&made));
        self.log.push(made.clone());
        self.pool.push(made);
    }
    /// An honest statement for a place that is taken, or will be.
    pub(super) fn race(&mut self) {
        let at = self.dice.below(self.log.len());
        let after = at.checked_sub(1).map(|before| self.log[before].clone());
        let stop = if self.dice.one_in(3) {
            vec![self.rules.stop_key()]
        } else {
            vec![]
        };
        let [a, b] = self.rules.release_keys();
        let made = self
            .make(after, &[b, a][..self.rules.threshold], &stop)
            .unwrap();
        self.tell("raced", std::slice::from_ref(&made));
        self.pool.push(made);
    }
    pub(super) fn steal(&mut self) {
        let far = Head {
            serial: "90".parse().unwrap(),
            id: StatementId::of(b"invented"),
        };
        let after =
            (!self.dice.one_in(5)).then(|| self.pool[self.dice.below(self.pool.len())].clone());
        let (mut release, mut stop) = (self.stolen.clone(), vec![]);
        if self.dice.one_in(2) {
            (stop, release) = (release, vec![MALLORY]);
        } else if release.is_empty() {
            release = vec![MALLORY];
        }
        let made = match self.make(after.clone(), &release, &stop) {
            Some(made) if self.dice.one_in(8) => {
                world::spoil(&made, self.dice.pick(&self.rules.release_keys()))
            }
            Some(made) => made,
            None => return,
        };
        let made = if self.dice.one_in(9) {
            world::release(Some(far), self.under(), "", &release)
        } else {
            made
        };
        self.tell("forged", std::slice::from_ref(&made));
        self.pool.push(made);
    }
    pub(super) fn rotate(&mut self) {
        let mut next = self.rules.clone();
        match self.dice.below(8) {
            0 | 1 => next.release += 1,
            2 => next.stop += 1,
            3 => next.beat = next.beat.map(|beat| beat + 1),
            4 => next.threshold = 3 - next.threshold,
            5 if self.dice.one_in(3) => next.closed = vec!["model.*"],
            _ => {}
        }
        match self.dice.below(6) {
            0..3 => {
                next.checkpoints = self
                    .log
                    .last()
                    .map(|last| (CHANNEL, last.head()))
                    .into_iter()
                    .collect()
            }
            3 => {
                next.checkpoints =
                    vec![(CHANNEL, self.pool[self.dice.below(self.pool.len())].head())]
            }
            4 if !self.beats.is_empty() => {
                next.checkpoints =
                    vec![(BEATS, self.beats[self.dice.below(self.beats.len())].head())]
            }
            _ => {}
        }
        if self.dice.one_in(8) {
            next.checkpoints.clear();
        }
        let signer = if self.dice.one_in(8) {
            self.dice.pick(&[MALLORY, DECOY])
        } else {
            ROOT
        };
        if signer == ROOT && self.dice.one_in(20) {
            next.closed.clear();
        }
        let made = world::trust(
            self.trusts.last().map(Statement::head),
            self.now,
            &next,
            &[signer],
        );
        self.tell("trust", std::slice::from_ref(&made));
        if signer == ROOT
            && self
                .rules
                .closed
                .iter()
                .all(|line| next.closed.contains(line))
        {
            self.rules = next;
            self.trusts.push(made);
        } else {
            self.give_trust(&made);
        }
    }

    pub(super) fn heads(
        &self,
        head: Option<&Statement>,
        trust: &Statement,
    ) -> Vec<(&'static str, Head)> {
        let head = head.map(|head| (CHANNEL, head.head()));
        [(LOG, trust.head())].into_iter().chain(head).collect()
    }
    pub(super) fn say(&mut self) {
        let heads = self.heads(self.log.last(), self.trusts.last().unwrap());
        let serial = self
            .beats
            .iter()
            .map(|beat| beat.serial().number())
            .filter(|serial| *serial < 1000)
            .max()
            .unwrap_or(0)
            + 1;
        let made = world::beat(
            serial,
            self.now,
            600,
            self.under(),
            &heads,
            &[self.rules.beat_key()],
        );
        self.tell("beat", std::slice::from_ref(&made));
        self.beats.push(made);
    }
    pub(super) fn say_falsely(&mut self) {
        if self.stolen.is_empty() {
            return;
        }
        let head = self.pool[self.dice.below(self.pool.len())].clone();
        let trust = self.trusts[self.dice.below(self.trusts.len())].clone();
        let named = (!self.dice.one_in(6)).then_some(&head);
        let mut heads = self.heads(named, &trust);
        if self.dice.one_in(6) {
            heads.remove(0);
        }
        let serial = self.dice.pick(&[1, 2, 3, 5, 900]);
        let time = self.dice.pick(&[
            self.now,
            self.now - 300,
            self.now + DAY,
            self.now + DAY + 1,
            self.now + 9 * DAY,
        ]);
        let life = self.dice.pick(&[600, 3 * DAY]);
        let key = self.dice.below(self.stolen.len());
        let made = world::beat(
            serial,
            time,
            life,
            trust.serial().number(),
            &heads,
            &[self.stolen[key]],
        );
        self.tell("false beat", std::slice::from_ref(&made));
        self.beats.push(made);
    }
}
