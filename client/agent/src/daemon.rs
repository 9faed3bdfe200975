//! The daemon: watches, does what a round wants, tells how things stand.

use std::{collections::BTreeMap, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::StreamExt;
use tidings_client::{
    Body, Channel, Clear, Clock, Device, Release, Serial, Slots, Source, Statement, Timestamp, Tls,
};
use tokio::time::{sleep, timeout};

use crate::{
    apply::boot,
    config::Config,
    fetch::Fetcher,
    here::Here,
    journal::Journal,
    round::{Intent, Task},
    status::{ChannelStatus, Overall, Status},
    want::{Wanted, choose},
    world::{End, go_on},
};

/// Where nothing is under way the agent is told; it looks up all the same.
const IDLE: Duration = Duration::from_secs(3_600);
/// When something is looked at again that may have changed.
const AGAIN: Duration = Duration::from_secs(60);
/// When the agent looks for what comes in a moment: a beat, or programs that begin anew.
const SOON: Duration = Duration::from_secs(1);
/// Why it does.
const UNCONFIRMED: &str = "no beat speaks for the newest statement yet";
/// The pause after brokers could not be used.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(3_600);

/// All that the agent has.
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) file: PathBuf,
    pub(crate) device: Device,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
    pub(crate) fetcher: Fetcher,
    pub(crate) slots: Slots,
    pub(crate) boot: String,
    /// What was handed over to the applier last: trust, beat and head.
    pub(crate) handed: BTreeMap<Channel, String>,
    /// Since when the machine is being judged, by the monotonic clock.
    pub(crate) judged: BTreeMap<Channel, u64>,
    /// The machine was told to go down, and does so in a moment.
    pub(crate) goes_down: bool,
    /// How often in a row a channel has had to wait without anything that came of it.
    waits: BTreeMap<Channel, u32>,
    status: Status,
}

impl Agent {
    /// One for this machine.
    ///
    /// # Errors
    /// What of its configuration or its files cannot be used.
    pub fn new(config: Config, file: PathBuf, clock: Clock) -> anyhow::Result<Self> {
        let own = &config.paths.agent;
        for directory in [own.clone(), own.join("hand"), config.paths.run.clone()] {
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let tls = config
            .roots
            .as_ref()
            .map_or_else(Tls::system, Tls::from_file)?;
        let source = Source::new(
            config.brokers.iter().map(String::as_str),
            &config.anchor.to_string(),
        )?
        .with_tls(tls);
        let state = tidings_client::State::open(own.join("state"), &config.anchor)?
            .with_clock(clock.clone());
        let device =
            Device::with_state(source, config.channels.iter().map(Channel::as_str), state)?
                .with_profile(config.profile()?)
                .with_quorum(config.quorum.into());
        Ok(Self {
            journal: Journal::open(own.join("journal"), Arc::new(|_| {}))?,
            fetcher: Fetcher::new(&config.fetch, &own.join("payload"))?,
            boot: boot(&config)?,
            slots: config.slots.slots()?,
            device,
            clock,
            file,
            handed: BTreeMap::new(),
            judged: BTreeMap::new(),
            goes_down: false,
            waits: BTreeMap::new(),
            status: Status::default(),
            config,
        })
    }

    /// For ever.
    ///
    /// # Errors
    /// If what is decided cannot be written down.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let wait = self.look().await?;
            self.wait(wait).await;
        }
    }

    /// Until the agent is told something, or for so long; brokers that cannot be used are given a
    /// pause.
    async fn wait(&mut self, wait: Duration) {
        let told = timeout(wait, pin!(self.device.watch()).next()).await;
        match told {
            Ok(Some(Ok(statement))) => {
                tracing::info!(channel = %statement.channel(), serial = %statement.serial(), "told of a {}", statement.kind());
                // Its beat comes in a moment, however long there was none before.
                self.waits.remove(statement.channel());
            }
            Ok(Some(Err(error))) => {
                tracing::warn!("{}", tidings_client::explain(&error));
                sleep(wait.min(PAUSE)).await;
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// Does all that can be done now in all channels; when to look again.
    ///
    /// # Errors
    /// If what is decided cannot be written down.
    pub async fn look(&mut self) -> anyhow::Result<Duration> {
        let mut soonest = IDLE;
        let mut rows = Vec::new();
        for channel in self.config.channels.clone() {
            let (why, wait) = self.look_at(&channel).await?;
            soonest = soonest.min(wait);
            rows.push(self.row(&channel, why));
        }
        self.tell(rows);
        Ok(soonest)
    }

    /// Why it waits, if it does, and for how long.
    async fn look_at(&mut self, channel: &Channel) -> anyhow::Result<(String, Duration)> {
        // What is new counts as delivered: what is to be done about it is asked for now.
        if let Err(error) = self.device.poll().await {
            tracing::debug!("{}", tidings_client::explain(&error));
        }
        let (wanted, trouble) = match self.device.target(channel).await {
            Ok(Clear::Apply(statement)) => (Wanted::Release(Box::new(statement)), None),
            Ok(Clear::Nothing {
                next: Some((serial, due)),
                ..
            }) => self.ahead(channel, serial, due).await,
            Ok(Clear::Nothing { next: None, .. }) => (Wanted::Nothing, None),
            Err(error) => (Wanted::after(&error), Some(tidings_client::explain(&error))),
        };
        let Some(mut task) = self.task(channel, &wanted)? else {
            // Whatever is to be run by the beats that are there, it may be another one in a moment.
            let soon = (!self.is_confirmed(channel)).then(|| UNCONFIRMED.to_owned());
            let Some(why) = trouble.or(soon) else {
                self.waits.remove(channel);
                return Ok((String::new(), IDLE));
            };
            // A beat often comes a moment after what it speaks for.
            let waits = self.waits.entry(channel.clone()).or_default();
            *waits = (*waits + 1).min(12);
            return Ok((why, Duration::from_secs(1 << (*waits - 1)).min(LONGEST / 6)));
        };
        let mut here = Here {
            agent: self,
            channel: channel.clone(),
            wait: None,
        };
        let end = go_on(&mut here, &mut task).await?;
        let wait = here.wait;
        self.after(channel, &task, end, wait).await
    }

    /// Whether a beat names the head: what is above counts for nothing yet.
    fn is_confirmed(&self, channel: &Channel) -> bool {
        let view = self.device.state().view();
        let Some(head) = view.head(channel) else {
            return true;
        };
        let names = |beat: &Statement| matches!(beat.body(), Body::Beat(beat) if beat.heads.iter().any(|(of, named)| of == channel && *named == head));
        !view.promises_beats(channel) || view.beats().any(|beat| names(&beat.statement))
    }

    /// A release that is known and not due yet is fetched and staged ahead.
    async fn ahead(
        &mut self,
        channel: &Channel,
        serial: Serial,
        due: Timestamp,
    ) -> (Wanted, Option<String>) {
        let found = match self.device.history(channel, serial).await {
            Ok(all) => all
                .into_iter()
                .find(|statement| statement.serial() == serial),
            Err(error) => return (Wanted::Unknown, Some(tidings_client::explain(&error))),
        };
        let Some(statement) = found else {
            return (Wanted::Nothing, None);
        };
        match self.device.may_finish(&statement).await {
            Ok(()) => (
                Wanted::Release(Box::new(statement)),
                Some(format!("{serial} is due at {due}")),
            ),
            Err(error) => (Wanted::after(&error), Some(tidings_client::explain(&error))),
        }
    }

    /// What is to be worked on, written down.
    fn task(&mut self, channel: &Channel, wanted: &Wanted) -> anyhow::Result<Option<Task>> {
        let records = &self.journal.records;
        let known = records.task.get(channel.as_str());
        let Some(task) = choose(known, wanted, &records.failed) else {
            return Ok(None);
        };
        if task.intent == Intent::Stage && known.is_none_or(|known| known.intent.is_end()) {
            let serial = Statement::parse(task.statement.as_bytes()).map(|of| of.serial());
            tracing::info!(%channel, serial = serial.ok().map(tracing::field::display), "begun");
        }
        self.journal
            .change(|records| drop(records.task.insert(channel.to_string(), task.clone())))?;
        Ok(Some(task))
    }

    /// Takes note of an end, and says when to look again.
    async fn after(
        &mut self,
        channel: &Channel,
        task: &Task,
        end: End,
        hint: Option<Duration>,
    ) -> anyhow::Result<(String, Duration)> {
        let statement = Statement::parse(task.statement.as_bytes())
            .context("the journal has no statement that can be read")?;
        let why = match end {
            End::Later(why) => why,
            End::Gone => {
                tracing::info!(%channel, serial = %statement.serial(), "the machine goes");
                self.waits.remove(channel);
                // Where only some programs begin anew, there is something to judge already.
                let wait = if self.goes_down { AGAIN } else { SOON };
                return Ok(("the machine goes".into(), wait));
            }
            End::Rest => {
                self.waits.remove(channel);
                self.fetcher.clean(&[])?;
                let id = statement.id().to_string();
                if task.intent == Intent::Failed && !self.journal.records.failed.contains(&id) {
                    self.journal.change(|records| records.failed.push(id))?;
                }
                if task.intent == Intent::Kept {
                    // Until brokers have confirmed it, the one before counts as applied.
                    if let Err(error) = self
                        .device
                        .note_applied_serial(channel, statement.serial())
                        .await
                    {
                        return Ok((tidings_client::explain(&error), AGAIN));
                    }
                }
                // What was dropped may have to make room for something newer at once, and what was
                // told of meanwhile is looked at when a beat speaks for it.
                let wait = match task.intent {
                    Intent::Left => Duration::ZERO,
                    _ if !self.is_confirmed(channel) => SOON,
                    _ => IDLE,
                };
                return Ok((task.why.clone(), wait));
            }
        };
        let waits = self.waits.entry(channel.clone()).or_default();
        let wait = hint.unwrap_or_else(|| (AGAIN / 2 * 2_u32.saturating_pow(*waits)).min(LONGEST));
        *waits = if hint.is_some() {
            0
        } else {
            (*waits + 1).min(8)
        };
        tracing::info!(%channel, serial = %statement.serial(), intent = task.intent.as_str(), "waits {} s: {why}", wait.as_secs());
        Ok((why, wait))
    }

    fn row(&self, channel: &Channel, why: String) -> ChannelStatus {
        let state = self.device.state();
        let applied = state.view().applied(channel);
        let is_withdrawn = applied.is_some_and(|applied| state.view().withdrawn(applied).is_some());
        let task = self.journal.records.task.get(channel.as_str());
        let statement = task.and_then(|task| Statement::parse(task.statement.as_bytes()).ok());
        let release = statement.as_ref().and_then(release_of);
        let freshness = self.device.freshness(channel);
        let overall = match task.map(|task| task.intent) {
            Some(Intent::Failed | Intent::Fail) => Overall::Failed,
            Some(intent) if !intent.is_end() => Overall::Waiting,
            _ if !freshness.is_current() && state.view().promises_beats(channel) => {
                Overall::Waiting
            }
            _ if is_withdrawn => Overall::Waiting,
            _ => Overall::Well,
        };
        let payload = task.and_then(|task| release?.payloads.get(task.payload?));
        ChannelStatus {
            channel: channel.to_string(),
            state: overall,
            freshness: freshness.as_str().to_owned(),
            head: state.head(channel).map(|head| head.serial.number()),
            applied: applied.map(|applied| applied.serial().number()),
            release: statement
                .as_ref()
                .map(|statement| statement.serial().number()),
            version: release.map(|release| release.version.clone()),
            intent: task.map(|task| task.intent.as_str().to_owned()),
            format: payload.map(|payload| payload.format.clone()),
            trials: task.map_or(0, |task| task.trials),
            why: if why.is_empty() {
                task.map_or(String::new(), |task| task.why.clone())
            } else {
                why
            },
        }
    }

    fn tell(&mut self, channels: Vec<ChannelStatus>) {
        let state = channels
            .iter()
            .map(|channel| channel.state)
            .max()
            .unwrap_or_default();
        let first = self.config.channels.first();
        let time = first.map_or(String::new(), |channel| {
            self.device.state().time(channel).to_string()
        });
        let same = self.status.channels == channels && !self.status.time.is_empty();
        self.status = Status {
            time,
            state,
            channels,
        };
        if same {
            return;
        }
        if let Err(error) = self.status.write(
            &self.config.paths.run,
            self.config.paths.textfile.as_deref(),
        ) {
            tracing::warn!("the status cannot be written: {error}");
        }
    }
}

/// The release in a statement.
pub(crate) fn release_of(statement: &Statement) -> Option<&Release> {
    match statement.body() {
        Body::Release(release) => Some(release),
        _ => None,
    }
}
