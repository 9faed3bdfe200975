//! One history: honest publishers and thieves, a device, and brokers that show it whatever there
//! is.

mod publishers;

use tidings_protocol::{Statement, Timestamp};

use crate::{
    Dice,
    device::Device,
    naive::Naive,
    world::{self, CHANNEL, DECOY, ROOT, Rules, START},
};

const DAY: u64 = 86_400;

pub(crate) struct History {
    dice: Dice,
    told: bool,
    rules: Rules,
    trusts: Vec<Statement>,
    /// All statements of the channel that somebody has made.
    pool: Vec<Statement>,
    /// The honest log.
    log: Vec<Statement>,
    beats: Vec<Statement>,
    /// Keys that a thief has, whatever trust says of them.
    stolen: Vec<u8>,
    device: Device,
    naive: Naive,
    now: u64,
    begun: Option<Statement>,
    targeted: bool,
    pub(crate) steps: u64,
    pub(crate) released: u64,
    pub(crate) healed: u64,
}

impl History {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        world::begin();
        let mut dice = Dice::new(seed);
        let beat = (!dice.one_in(3)).then_some(0);
        let threshold = 1 + usize::from(dice.one_in(3));
        let rules = Rules {
            release: 0,
            stop: 0,
            beat,
            threshold,
            checkpoints: vec![],
            closed: vec![],
        };
        let first = world::trust(None, START - 30 * DAY, &rules, &[ROOT]);
        let [a, b] = rules.release_keys();
        let stolen = match dice.below(7) {
            0 => vec![],
            1 => vec![rules.stop_key()],
            2 => vec![rules.beat_key()],
            3 => vec![a],
            4 => vec![a, b],
            5 => vec![a, b, rules.beat_key()],
            _ => vec![rules.stop_key(), rules.beat_key(), DECOY],
        };
        let device = Device::new(&format!("model {}", first.head()));
        let naive = Naive::new(first.head());
        let (targeted, now) = (dice.one_in(2), START);
        Self {
            dice,
            told,
            rules,
            trusts: vec![first],
            pool: vec![],
            log: vec![],
            beats: vec![],
            stolen,
            device,
            naive,
            now,
            begun: None,
            targeted,
            steps: 0,
            released: 0,
            healed: 0,
        }
    }

    fn tell(&self, what: &str, statements: &[Statement]) {
        if self.told {
            let all: Vec<String> = statements
                .iter()
                .map(|s| format!("{} {} {}", s.kind(), s.serial(), &s.id().to_string()[7..11]))
                .collect();
            println!("{what} [{}]", all.join(", "));
        }
    }

    /// The library and the model answer alike, and are in the same state afterwards.
    fn same(&mut self, step: &str, statements: &[Statement], expected: &str) {
        let found = self.device.answer(step, statements.to_vec());
        self.tell(&format!("{step} => {found}"), statements);
        assert_eq!(found, expected, "{step}: the library, and the model");
        let (state, expected) = (
            self.device.answer(&format!("state {CHANNEL}"), vec![]),
            self.naive.state(),
        );
        self.tell(&format!("    {state}"), &[]);
        assert_eq!(
            state, expected,
            "the state after {step}: the library, and the model"
        );
        self.steps += 1;
    }

    pub(crate) fn run(&mut self) {
        self.set_clock(true);
        self.take_trust(0);
        self.publish();
        if !self.dice.one_in(4) {
            self.read(&self.pool.clone(), false);
        }
        for _ in 0..6 + self.dice.below(8) {
            self.act();
        }
        self.heal();
    }

    fn act(&mut self) {
        match self.dice.below(26) {
            0..4 => self.publish(),
            4..7 => self.steal(),
            7 => self.race(),
            8 | 9 => self.rotate(),
            10 | 11 => self.say(),
            12 => self.say_falsely(),
            13..15 => self.take_trust(1),
            15..18 => self.take_beat(),
            18..22 => self.read_something(),
            22..24 => self.clear(),
            24 => self.finish(),
            _ => self.time(),
        }
    }

    // What the device is shown.

    fn give_trust(&mut self, statement: &Statement) {
        let expected = match self.naive.take_trust(statement) {
            Ok(()) => format!("taken {}", statement.serial()),
            Err(requirement) => format!("refused {} {requirement}", statement.serial()),
        };
        self.same("trust", std::slice::from_ref(statement), &expected);
    }
    fn take_trust(&mut self, least: usize) {
        if self.trusts.len() < least {
            return;
        }
        let upto = if self.dice.one_in(4) {
            self.dice.below(self.trusts.len())
        } else {
            self.trusts.len() - 1
        };
        for at in 0..=upto {
            let statement = self.trusts[at].clone();
            let known = self.device.trust_serial();
            if statement.serial().number() > known || at == upto {
                self.give_trust(&statement);
            }
        }
    }
    fn take_beat(&mut self) {
        if self.beats.is_empty() {
            return self.say();
        }
        let newest = !self.dice.one_in(3);
        let at = if newest {
            self.beats.len() - 1
        } else {
            self.dice.below(self.beats.len())
        };
        let beat = self.beats[at].clone();
        if self.dice.one_in(3) {
            let expected = if self.naive.take_settled_beat(&beat) {
                "taken"
            } else {
                "refused"
            };
            self.same("settled-beat", &[beat], expected);
        } else {
            let expected = self
                .naive
                .take_beat(&beat)
                .map_or_else(|by| format!("refused {by}"), |()| "taken".into());
            self.same("beat", &[beat], &expected);
        }
    }
    /// A statement and those below it, oldest first.
    fn down(&self, top: &Statement, most: usize) -> Vec<Statement> {
        let mut run = vec![top.clone()];
        while run.len() < most {
            let Some(below) = run
                .last()
                .and_then(Statement::predecessor)
                .and_then(|head| self.pool.iter().find(|s| s.head() == head))
            else {
                break;
            };
            run.push(below.clone());
        }
        run.reverse();
        run
    }
    fn read(&mut self, run: &[Statement], hole: bool) {
        let expected = self.naive.read(run, hole);
        self.same(
            &format!("{} {CHANNEL}", if hole { "hole" } else { "read" }),
            run,
            &expected,
        );
    }
    fn read_something(&mut self) {
        let top = match self.dice.below(3) {
            0 => self.pool[self.dice.below(self.pool.len())].clone(),
            1 => self.pool.last().unwrap().clone(),
            _ => self.log.last().unwrap().clone(),
        };
        let most = self.dice.pick(&[1, 2, 3, 99, 99]);
        let mut run = self.down(&top, most);
        if self.dice.one_in(10) {
            let at = self.dice.below(run.len());
            match self.dice.below(4) {
                0 => drop(run.remove(at)),
                1 => run.swap(at, 0),
                2 => run.insert(at, run[at].clone()),
                _ => run[at] = world::spoil(&run[at], self.dice.pick(&[10, 11, 12, 60, DECOY])),
            }
        }
        let hole = self.dice.one_in(6);
        self.read(&run, hole);
    }
    fn log_at_hand(&mut self) -> Vec<Statement> {
        let top = match self.naive.head.clone() {
            Some(head) if !self.dice.one_in(8) => head,
            _ => self.pool[self.dice.below(self.pool.len())].clone(),
        };
        let most = if self.dice.one_in(4) { 2 } else { 99 };
        self.down(&top, most)
    }
    fn clear(&mut self) {
        let log = self.log_at_hand();
        self.clear_by(&log);
    }
    fn clear_by(&mut self, log: &[Statement]) -> Option<Statement> {
        let of_others = |statement: &Statement| {
            statement
                .octets()
                .windows(12)
                .any(|w| w == b"Target: n=1\n")
        };
        let outcome = self.naive.clear(log, &|statement| !of_others(statement));
        let expected = match &outcome {
            Ok(Some(release)) => release.serial().to_string(),
            Ok(None) => "nothing".into(),
            Err(by) => format!("none {by}"),
        };
        self.same(&format!("run {CHANNEL}"), log, &expected);
        let release = outcome.ok().flatten()?;
        self.released += 1;
        self.begun = Some(release.clone());
        if self.dice.one_in(2) {
            self.device
                .answer(&format!("applied {CHANNEL}"), vec![release.clone()]);
            self.tell("applied", std::slice::from_ref(&release));
            self.naive.applied = Some(release.clone());
        }
        Some(release)
    }
    fn finish(&mut self) {
        let Some(begun) = self.begun.clone() else {
            return;
        };
        let log = self.log_at_hand();
        let expected = self
            .naive
            .finish(&begun, &log)
            .map_or_else(|by| format!("no {by}"), |()| "yes".into());
        self.same(
            &format!("finish {CHANNEL} {}", begun.head()),
            &log,
            &expected,
        );
    }
    fn set_clock(&mut self, good: bool) {
        let clock = match self.dice.below(if good { 3 } else { 6 }) {
            0 => None,
            1 | 2 => Some(self.now),
            3 => Some(0),
            4 => Some(self.now - DAY),
            _ => Some(self.now - 2 * DAY),
        };
        self.naive.set_clock(clock);
        let text = clock.map_or("none".into(), |clock| {
            Timestamp::from_seconds(clock).to_string()
        });
        self.same(&format!("clock {text}"), &[], "");
    }
    fn time(&mut self) {
        match self.dice.below(5) {
            0 => self.set_clock(false),
            1 => {
                self.naive.restart();
                self.same("restart", &[], "");
            }
            _ => {
                let seconds = self.dice.pick(&[300, 599, 600, DAY - 1, DAY]);
                self.now += seconds;
                self.naive.passes(seconds);
                self.same(&format!("passes {seconds}"), &[], "");
            }
        }
    }

    /// The stolen keys are taken away, and an honest broker answers: every device becomes current
    /// and has something to run.
    fn heal(&mut self) {
        if self.rules.closed.is_empty() {
            let mut next = self.rules.clone();
            (next.release, next.stop, next.beat) = (
                next.release + 1,
                next.stop + 1,
                next.beat.map(|beat| beat + 1),
            );
            next.checkpoints = self
                .log
                .last()
                .map(|last| (CHANNEL, last.head()))
                .into_iter()
                .collect();
            self.now += 60;
            self.rules = next;
            let made = world::trust(
                self.trusts.last().map(Statement::head),
                self.now,
                &self.rules,
                &[ROOT],
            );
            self.trusts.push(made);
            let keys = self.rules.release_keys();
            let made = world::release(
                self.log.last().map(Statement::head),
                self.under(),
                "",
                &keys[..self.rules.threshold],
            );
            self.log.push(made.clone());
            self.pool.push(made.clone());
            self.set_clock(true);
            for at in self.device.trust_serial() as usize..self.trusts.len() {
                let statement = self.trusts[at].clone();
                self.give_trust(&statement);
            }
            let heads = self.heads(Some(&made), self.trusts.last().unwrap());
            let beat = world::beat(
                1,
                self.now,
                600,
                self.under(),
                &heads,
                &[self.rules.beat_key()],
            );
            let log = self.log.clone();
            let first = self.dice.one_in(2);
            for read in [first, !first] {
                if read {
                    self.read(&log, false);
                } else if self.rules.beat.is_some() {
                    let expected = self
                        .naive
                        .take_beat(&beat)
                        .map_or_else(|by| format!("refused {by}"), |()| "taken".into());
                    self.same("beat", std::slice::from_ref(&beat), &expected);
                }
            }
            assert_eq!(
                self.naive.state(),
                if self.rules.beat.is_some() {
                    "CURRENT"
                } else {
                    "STALE"
                },
                "after the keys were changed"
            );
            let release = self
                .clear_by(&log)
                .expect("something to run after the keys were changed");
            assert_eq!(release.head(), made.head());
            self.healed += 1;
        }
    }
}
