//! This machine, as the rounds see it.

use std::time::Duration;

use tidings_client::{Channel, Clear, Error, Serial, SlotError, Statement, Timestamp};
use tidings_protocol::{
    rollout,
    slot::SlotName,
    statement::{Body, Payload},
};
use tokio::time::Instant;

use crate::{
    apply::{Request, Verb},
    config::Way,
    daemon::{Agent, release_of},
    fetch::places,
    handler::Answer,
    health, journal, link,
    round::Task,
    turn::{Turn, may_go},
    world::{Fetched, Health, Ready, World},
};

/// For how long the agent waits for a slot before it looks at its channels again.
const SLOT_LOOK: Duration = Duration::from_secs(20);
/// How long it listens for news before it waits for the slot again; its place is kept for longer.
const SLOT_PAUSE: Duration = Duration::from_secs(2);
/// How often health is looked at while the machine may become well.
const HEALTH_AGAIN: Duration = Duration::from_secs(5);

/// The agent, at work in one channel.
pub(crate) struct Here<'a> {
    pub(crate) agent: &'a mut Agent,
    pub(crate) channel: Channel,
    /// For how long there is nothing to do, if that is known.
    pub(crate) wait: Option<Duration>,
}

impl Here<'_> {
    /// Lets the applier know what we know, if that has changed: trust, the newest beats, and the
    /// log.
    async fn hand_over(&mut self) -> Result<(), Error> {
        let agent = &mut *self.agent;
        let state = agent.device.state();
        let beats = || {
            state.view().beats().map(|beat| &beat.statement).chain(
                state
                    .trust()
                    .into_iter()
                    .flat_map(|trust| trust.settled_beats()),
            )
        };
        let stamp = format!(
            "{:?} {:?} {:?}",
            state.trust().map(|trust| trust.head()),
            state.head(&self.channel),
            beats().map(|beat| beat.head()).collect::<Vec<_>>()
        );
        if agent.handed.get(&self.channel) == Some(&stamp) {
            return Ok(());
        }
        let from = state
            .view()
            .applied(&self.channel)
            .map_or(Serial::FIRST, |applied| applied.serial());
        let mut octets: Vec<u8> = beats().flat_map(|beat| beat.octets().to_vec()).collect();
        let trust_log = state.anchor().namespace.trust_log();
        let first = state.anchor().head.serial;
        let trust = agent.device.history(&trust_log, first).await?;
        let log = agent.device.history(&self.channel, from).await?;
        octets.splice(
            0..0,
            trust
                .iter()
                .flat_map(|statement| statement.octets().to_vec()),
        );
        octets.extend(log.iter().flat_map(|statement| statement.octets().to_vec()));
        let path = agent
            .config
            .paths
            .agent
            .join("hand")
            .join(self.channel.as_str());
        let point: journal::Point = std::sync::Arc::new(|_| {});
        journal::replace(&path, &octets, &point)?;
        agent.handed.insert(self.channel.clone(), stamp);
        Ok(())
    }

    /// The group that has to give a slot, and this machine's name there.
    fn seat(&self, statement: &Statement) -> Option<(SlotName, SlotName)> {
        let group = release_of(statement)?.slot.as_ref()?.parse().ok()?;
        Some((group, self.agent.config.node.clone()?))
    }
}

/// Whether all of user space ends in this way, which the applier names first.
fn goes_down(answer: &str) -> bool {
    let name = answer.split(' ').next();
    let way = Way::ALL.iter().find(|way| Some(way.as_str()) == name);
    way.is_some_and(|way| *way >= Way::SoftReboot)
}

impl Turn for Here<'_> {
    async fn target(&mut self) -> Result<Clear, Error> {
        self.agent.device.target(&self.channel).await
    }

    fn time(&self) -> Timestamp {
        self.agent.device.state().time(&self.channel)
    }

    fn opens(&self) -> Timestamp {
        self.agent.config.windows.next(self.time())
    }

    fn wait_until(&mut self, when: Timestamp) {
        // The applier's time is its own, and in whole seconds: it may be one behind. What it
        // refuses keeps a slot waiting.
        let seconds = when.seconds().saturating_sub(self.time().seconds());
        self.wait = Some(Duration::from_secs(seconds + 1));
    }

    async fn failing(&mut self) -> Vec<String> {
        health::failing(&self.agent.config.paths.etc).await
    }

    async fn take_slot(&mut self, statement: &Statement) -> Result<Option<u64>, Ready> {
        let Some(group) = release_of(statement).and_then(|release| release.slot.clone()) else {
            return Ok(None);
        };
        let wait = |why: String| Err(Ready::Wait(why));
        let Ok(group) = group.parse::<SlotName>() else {
            return wait(format!("{group:?} is no name of a group"));
        };
        let Some(node) = self.agent.config.node.clone() else {
            return wait(format!(
                "the release wants a slot of {group}: set `node` in agent.toml"
            ));
        };
        // The server says at once when its turn has come; between two requests the agent looks at
        // its channels.
        let slots = &mut self.agent.slots;
        let turn = slots.wait_for(&group, &node, statement.serial(), SLOT_LOOK);
        match turn.await {
            Ok(slot) => Ok(Some(slot.token)),
            Err(error @ SlotError::Wait { .. }) => {
                self.wait = Some(SLOT_PAUSE);
                wait(error.to_string())
            }
            // Without an answer the machine does not go, whatever the deadline says (attack 78).
            Err(error) => wait(format!(
                "no slot of {group}: {}",
                tidings_client::explain(&error)
            )),
        }
    }

    async fn hold_slot(&mut self, token: u64, statement: &Statement) -> Result<(), Ready> {
        let Some((group, node)) = self.seat(statement) else {
            return Ok(());
        };
        match self.agent.slots.hold(&group, &node, token).await {
            Ok(slot) if Instant::now() < slot.until => Ok(()),
            Ok(_) => Err(Ready::Wait(
                "the answer about the slot came too late".into(),
            )),
            Err(error) => Err(Ready::Wait(tidings_client::explain(&error))),
        }
    }
}

impl World for Here<'_> {
    fn boot(&self) -> String {
        self.agent.boot.clone()
    }

    async fn ask(&mut self, request: &Request) -> Answer {
        if matches!(request.verb, Verb::Can | Verb::Stage | Verb::Arm)
            && let Err(error) = self.hand_over().await
        {
            tracing::warn!(channel = %self.channel, "not handed over: {}", tidings_client::explain(&error));
        }
        let answer = link::ask(&self.agent.config.paths.apply, &self.agent.file, request).await;
        if request.verb == Verb::Go && answer.is_done() && goes_down(&answer.line) {
            self.agent.goes_down = true;
        }
        if request.verb != Verb::State {
            tracing::info!(channel = %self.channel, serial = %request.serial, code = answer.code, "{}: {}", request.verb.as_str(), answer.line);
        }
        answer
    }

    async fn fetch(&mut self, statement: &Statement, payload: &Payload) -> Fetched {
        let Body::Release(release) = statement.body() else {
            return Fetched::Wrong("it is no release".into());
        };
        let state = self.agent.device.state();
        let time = state.time(&self.channel);
        // A site's uplink is not everybody's at once (attack 89).
        if let Some(spread) = release.rollout.as_ref().and_then(|rollout| rollout.spread)
            && release.deadline.is_none_or(|deadline| time < deadline)
            && let Ok(profile) = self.agent.config.profile()
        {
            let share = rollout::share(
                statement.channel(),
                statement.previous(),
                &profile.identity,
                spread,
            );
            let turn = statement.time().plus(share);
            if turn > time {
                self.wait_until(turn);
                return Fetched::Later(format!(
                    "fetching is spread: this machine begins at {turn}"
                ));
            }
        }
        let urls: Vec<String> = places(&release.payloads, payload)
            .unwrap_or_default()
            .iter()
            .map(|url| (*url).to_owned())
            .collect();
        let (fetcher, size, digest) = (self.agent.fetcher.clone(), payload.size, payload.digest);
        let fetching = tokio::task::spawn_blocking(move || {
            let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
            fetcher.fetch(&urls, size, &digest)
        });
        let fetched = fetching
            .await
            .unwrap_or_else(|error| Fetched::Later(error.to_string()));
        if matches!(&fetched, Fetched::Later(why) if why.ends_with("octets are fetched")) {
            self.wait = Some(Duration::ZERO);
        }
        fetched
    }

    async fn ready(&mut self, _: &Task, statement: &Statement) -> Ready {
        may_go(self, statement).await
    }

    async fn health(&mut self, task: &Task) -> Health {
        let now = self.agent.clock.now().monotonic;
        let since = *self.agent.judged.entry(self.channel.clone()).or_insert(now);
        let failing = health::failing(&self.agent.config.paths.etc).await;
        let new: Vec<String> = failing
            .into_iter()
            .filter(|check| !task.ill_before.contains(check))
            .collect();
        if new.is_empty() {
            self.agent.judged.remove(&self.channel);
            return Health::Well;
        }
        let why = format!("{} fail, and did not before", new.join(", "));
        if now.saturating_sub(since) < self.agent.config.health_seconds {
            self.wait = Some(HEALTH_AGAIN);
            return Health::NotYet(why);
        }
        self.agent.judged.remove(&self.channel);
        Health::Ill(why)
    }

    async fn free(&mut self, token: u64, statement: &Statement) -> bool {
        let Some((group, node)) = self.seat(statement) else {
            return true;
        };
        // Whatever becomes of the release meanwhile, for the others this machine is down.
        if self.agent.goes_down {
            return false;
        }
        match self.agent.slots.free(&group, &node, token).await {
            Ok(()) => true,
            // Its lease has run out: it counts as failed, and an operator looks.
            Err(SlotError::Lost(why)) => {
                tracing::warn!(%group, "the slot was lost: {why}");
                true
            }
            Err(error) => {
                tracing::warn!(%group, "the slot is not given back yet: {}", tidings_client::explain(&error));
                false
            }
        }
    }

    fn save(&mut self, task: &Task) -> std::io::Result<()> {
        let serial = Statement::parse(task.statement.as_bytes())
            .map_or(0, |statement| statement.serial().number());
        tracing::info!(channel = %self.channel, serial, intent = task.intent.as_str(), "{}", task.why);
        self.agent
            .journal
            .change(|records| drop(records.task.insert(self.channel.to_string(), task.clone())))
    }
}
