//! One machine: its view, and the agent's own decisions in a world that is simulated.

use std::collections::BTreeMap;

use tidings_agent::{
    apply::{Request, Verb},
    handler::{Answer, DONE},
    round::{Fact, Task},
    turn::{Turn, may_go},
    want::Wanted,
    world::{Fetched, Health, Ready, World},
};
use tidings_broker::turns::Turns;
use tidings_client::{Clear, Error, Now, Profile, Statement, Timestamp, Verified};
use tidings_protocol::{statement::Payload, view::View};

use super::{Channel, GROUPS, WAVES, at, common::time, draw};

/// How much later than the origin a mirror may have something.
const LAG: u64 = 20;

/// And where a group has stopped.
const STOPPED: u64 = 300;

/// What becomes of a machine that takes the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Well,
    /// It does not come back.
    Dead,
    /// The loader falls back, each time.
    FallsBack,
    /// It comes back, and is not well.
    Ill,
}

pub(super) struct Machine {
    pub(super) name: String,
    pub(super) group: usize,
    pub(super) fate: Fate,
    pub(super) profile: Profile,
    pub(super) view: View,
    pub(super) log: Vec<Verified<Statement>>,
    /// Its mirror's lag, and from when on the mirror shows nothing new.
    pub(super) lag: u64,
    pub(super) frozen: u64,
    pub(super) beat: usize,
    pub(super) task: Option<Task>,
    pub(super) failed: Vec<String>,
    pub(super) boot: u64,
    pub(super) fact: Fact,
    pub(super) is_down: bool,
    /// When it looks again.
    pub(super) next: u64,
    /// The handler was told to go all the way back.
    pub(super) goes_back: bool,
}

impl Machine {
    pub(super) fn new(number: usize, channel: &Channel, random: &mut u64) -> Self {
        let name = format!("node{number:04}");
        let fate = match draw(random, 100) {
            0..3 => Fate::Dead,
            3 => Fate::FallsBack,
            4 => Fate::Ill,
            _ => Fate::Well,
        };
        let mut view = View::new(channel.publisher.anchor.clone());
        let clock = Now::at(time());
        view.take_trust([channel.publisher.trust.clone()], &clock)
            .unwrap();
        Self {
            group: number % GROUPS,
            fate,
            profile: Profile {
                identity: name.clone(),
                properties: BTreeMap::new(),
            },
            name,
            view,
            log: Vec::new(),
            lag: draw(random, LAG),
            frozen: match draw(random, 50) {
                0 => WAVES.0 + draw(random, WAVES.1),
                _ => u64::MAX,
            },
            beat: 0,
            task: None,
            failed: Vec::new(),
            boot: 1,
            fact: Fact::None,
            is_down: false,
            next: u64::MAX,
            goes_back: false,
        }
    }

    fn clock(&self, now: u64) -> Now {
        Now {
            clock: Some(at(now)),
            monotonic: 1_000 + now,
            boot: self.boot,
        }
    }

    /// Asks its mirror.
    fn poll(&mut self, channel: &Channel, now: u64) {
        let seen = now.saturating_sub(self.lag).min(self.frozen);
        let clock = self.clock(now);
        let name = &channel.publisher.channel;
        let there = channel.said.partition_point(|when| *when <= seen);
        if there > self.log.len() {
            let run = channel.publisher.log[..there].to_vec();
            let run = self.view.judge(name, run).unwrap();
            self.log.clone_from(&run.statements);
            let news = self.view.place(name, run, false, &clock).unwrap();
            self.view.note(&news, &clock);
        }
        let there = channel.beats.partition_point(|(when, _)| *when <= seen);
        if there > self.beat {
            self.beat = there;
            let _ = self
                .view
                .take_beat(channel.beats[there - 1].1.clone(), &clock);
        }
    }
}

/// One machine at one moment.
pub(super) struct Here<'a> {
    pub(super) machine: &'a mut Machine,
    pub(super) channel: &'a Channel,
    pub(super) turns: &'a mut Turns,
    pub(super) now: u64,
    pub(super) wait: Option<u64>,
}

impl World for Here<'_> {
    fn boot(&self) -> String {
        self.machine.boot.to_string()
    }

    async fn ask(&mut self, request: &Request) -> Answer {
        let machine = &mut *self.machine;
        match request.verb {
            Verb::State => return Answer::new(DONE, machine.fact.as_str()),
            Verb::Can | Verb::Go => {}
            Verb::Stage => machine.fact = Fact::Staged,
            Verb::Arm => machine.fact = Fact::Armed,
            Verb::Keep => machine.fact = Fact::Kept,
            Verb::Drop if machine.fact == Fact::Running => machine.goes_back = true,
            Verb::Drop => machine.fact = Fact::None,
        }
        Answer::new(DONE, "1")
    }

    async fn fetch(&mut self, _: &Statement, _: &Payload) -> Fetched {
        Fetched::Whole
    }

    async fn ready(&mut self, _: &Task, statement: &Statement) -> Ready {
        may_go(self, statement).await
    }

    async fn health(&mut self, _: &Task) -> Health {
        match self.machine.fate {
            Fate::Ill => Health::Ill("it is made so".into()),
            _ => Health::Well,
        }
    }

    async fn free(&mut self, token: u64, _: &Statement) -> bool {
        self.turns.free(at(self.now), &self.machine.name, token);
        true
    }

    fn save(&mut self, task: &Task) -> std::io::Result<()> {
        self.machine.task = Some(task.clone());
        Ok(())
    }
}

impl Turn for Here<'_> {
    async fn target(&mut self) -> Result<Clear, Error> {
        self.machine.poll(self.channel, self.now);
        let channel = &self.channel.publisher.channel;
        let machine = &*self.machine;
        let clock = machine.clock(self.now);
        let clear = machine
            .view
            .clear(channel, &machine.log, &machine.profile, &clock);
        clear.map_err(|reason| Error::NotNow {
            channel: channel.clone(),
            reason: Box::new(reason),
        })
    }

    fn time(&self) -> Timestamp {
        at(self.now)
    }

    fn opens(&self) -> Timestamp {
        at(self.now)
    }

    fn wait_until(&mut self, when: Timestamp) {
        self.wait = Some(when.seconds() - time().seconds());
    }

    async fn failing(&mut self) -> Vec<String> {
        Vec::new()
    }

    async fn take_slot(&mut self, statement: &Statement) -> Result<Option<u64>, Ready> {
        let name = &self.machine.name;
        let token = self.turns.take(at(self.now), name, statement.serial());
        if token.is_none() && self.turns.is_stopped() {
            self.wait = Some(self.now + STOPPED);
        }
        token
            .map(Some)
            .ok_or_else(|| Ready::Wait("others are down".into()))
    }

    async fn hold_slot(&mut self, token: u64, _: &Statement) -> Result<(), Ready> {
        match self.turns.hold(at(self.now), &self.machine.name, token) {
            true => Ok(()),
            false => Err(Ready::Wait("the slot is lost".into())),
        }
    }
}

impl Here<'_> {
    /// As the daemon does it: what is wanted, and what is worked on then.
    pub(super) async fn wanted(&mut self) -> Wanted {
        match self.target().await {
            Ok(Clear::Apply(statement)) => Wanted::Release(Box::new(statement)),
            Ok(Clear::Nothing {
                next: Some((serial, _)),
                ..
            }) => {
                let machine = &*self.machine;
                let ahead = machine.log.iter().find(|there| there.serial() == serial);
                let clock = machine.clock(self.now);
                let may = ahead
                    .filter(|ahead| machine.view.may_finish(ahead, &machine.log, &clock).is_ok());
                may.map_or(Wanted::Unknown, |ahead| {
                    Wanted::Release(Box::new(ahead.clone()))
                })
            }
            Ok(Clear::Nothing { .. }) => Wanted::Nothing,
            Err(error) => Wanted::after(&error),
        }
    }
}
