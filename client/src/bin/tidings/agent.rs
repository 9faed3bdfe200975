//! Acting on what was learnt: is it current, may it be applied now, and what if two were signed for one place.

use std::{io::Write, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use tidings_client::{Body, Channel, Clearance, Device, Freshness, Release, Serial, SlotError, Slots, Start, State};
use tidings_protocol::{Anchor, slot::SlotName, statement::Apply as Way};
use tokio::{process::Child, time::Instant};

use super::{From, files::write_new, fleet, output, reader::Reading};

/// For how many days before its end the expiry of trust is pointed out.
const EXPIRY_WARNING_DAYS: u64 = 30;

#[derive(Args)]
pub(super) struct Status {
    /// The channels; without any, all that the state file knows. Or brokers, nntp://HOST or nntps://HOST: then their heads
    /// are compared, of all channels or of those that are named too
    #[arg(value_name = "CHANNEL|BROKER")]
    what: Vec<String>,
    /// Compare brokers again and again until Ctrl-C; without naming any, all of --broker
    #[arg(long, conflicts_with = "state")]
    watch: bool,
    #[command(flatten)]
    reading: Reading,
}

impl Status {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (brokers, channels): (Vec<String>, Vec<String>) = self.what.iter().cloned().partition(|what| what.contains("://"));
        let mut channels = channels.iter().map(|name| name.parse()).collect::<Result<Vec<Channel>, _>>()?;
        if self.watch || !brokers.is_empty() {
            let mut from = self.reading.from;
            if !brokers.is_empty() {
                from.brokers = brokers;
            }
            return fleet::compare(&from, &channels, self.watch, self.reading.json).await;
        }
        if let (Some(path), true) = (&self.reading.state, channels.is_empty()) {
            let anchor = self.reading.from.anchor()?.context("what proves it? give --anchor LINE, or set TIDINGS_ANCHOR")?;
            ensure!(path.exists(), "there is no state file {}; name the channels, or correct the path", path.display());
            let known = State::look(path, &anchor)?;
            channels.extend(known.view().channels().filter(|channel| !channel.is_beat()).cloned());
        }
        ensure!(!channels.is_empty(), "which channels? name them, or give --state FILE of a device that knows some");
        let mut device = self.reading.device(&channels, Start::Newest)?.with_saving_by_hand();
        // With a state file: how the device stands. Without one: how the brokers stand.
        let asked = match &self.reading.state {
            Some(_) => device.refresh().await,
            None => device.poll().await.map(drop),
        };
        if let Err(error) = &asked {
            output::note(&error.to_string());
        }
        let states: Vec<(Channel, Freshness)> = channels.iter().map(|channel| (channel.clone(), device.freshness(channel))).collect();
        if self.reading.json {
            output::line(&self.json(&device, &states).to_string());
        } else {
            self.print(&device, &states);
        }
        let bad = states.iter().filter(|(_, freshness)| !freshness.is_current()).count();
        ensure!(bad == 0, "{bad} of {} not CURRENT", states.len());
        let withdrawn = states.iter().filter(|(channel, _)| recalled(device.state(), channel).is_some()).count();
        ensure!(withdrawn == 0, "what is applied in {withdrawn} channel(s) was withdrawn");
        Ok(())
    }

    fn json(&self, device: &Device, states: &[(Channel, Freshness)]) -> serde_json::Value {
        let state = device.state();
        let row = |(channel, freshness): &(Channel, Freshness)| {
            let until = match freshness {
                Freshness::Current { until } => Some(until.to_string()),
                _ => None,
            };
            let behind = match freshness {
                Freshness::Behind { head } => Some(head.serial.number()),
                _ => None,
            };
            json!({
                "channel": channel.as_str(),
                "state": freshness.as_str(),
                "until": until,
                "beats": state.view().promises_beats(channel),
                "behind": behind,
                "serial": state.head(channel).map(|head| head.serial.number()),
                "id": state.head(channel).map(|head| head.id.to_string()),
                "applied": state.view().applied(channel).map(|applied| applied.serial().number()),
                "withdrawn_by": recalled(state, channel).map(Serial::number),
                "fork": state.view().fork(channel).map(|fork| json!({
                    "serial": fork.serial().number(), "ours": fork.ours.id().to_string(), "theirs": fork.theirs.id().to_string()
                })),
            })
        };
        let trust = state.trust().map(|trust| {
            json!({"serial": trust.serial().number(), "expires": trust.rules().expires.to_string(), "expired": trust.is_expired(state.time(&state.anchor().namespace.trust_log()))})
        });
        json!({
            "time": state.time(&state.anchor().namespace.trust_log()).to_string(),
            "trust": trust,
            "channels": states.iter().map(row).collect::<Vec<_>>(),
        })
    }

    fn print(&self, device: &Device, states: &[(Channel, Freshness)]) {
        let state = device.state();
        let serial = |serial: Option<Serial>| serial.map_or("-".into(), |serial| serial.to_string());
        let row = |(channel, freshness): &(Channel, Freshness)| {
            let (head, applied) =
                (state.head(channel).map(|head| head.serial), state.view().applied(channel).map(|applied| applied.serial()));
            let recalled = recalled(state, channel).map_or(String::new(), |by| format!(", WITHDRAWN by {by}"));
            vec![channel.to_string(), freshness.to_string(), serial(head), serial(applied) + &recalled]
        };
        output::table(&["channel", "state", "head", "applied"], states.iter().map(row).collect());
        for fork in states.iter().filter_map(|(channel, _)| state.view().fork(channel)) {
            let channel = fork.ours.channel();
            output::line(&format!(
                "{channel} at {}: {} or {}; `tidings evidence {channel}` writes the proof",
                fork.serial(),
                fork.ours.id(),
                fork.theirs.id()
            ));
        }
        match state.trust() {
            Some(trust) if trust.is_expired(state.time(&state.anchor().namespace.trust_log())) => {
                output::line(&format!(
                    "trust {} has EXPIRED at {}: nothing is installed until it is renewed",
                    trust.serial(),
                    trust.rules().expires
                ));
            }
            Some(trust) => {
                let left =
                    trust.rules().expires.seconds().saturating_sub(state.time(&state.anchor().namespace.trust_log()).seconds()) / 86_400;
                let soon =
                    if left < EXPIRY_WARNING_DAYS { format!(", in {left} days: renew it (`tidings trust renew`)") } else { String::new() };
                output::line(&format!("trust {} until {}{soon}", trust.serial(), trust.rules().expires));
            }
            None => output::line("no trust is known yet"),
        }
        for (channel, _) in states.iter().filter(|(channel, _)| !state.view().promises_beats(channel)) {
            output::line(&format!("{channel} has no role for beats: nothing can confirm its head"));
        }
    }
}

/// The withdrawal that has called back what is applied.
fn recalled(state: &State, channel: &Channel) -> Option<Serial> {
    let applied = state.view().applied(channel)?;
    state.view().withdrawn(applied).map(|withdrawn| withdrawn.by)
}

#[derive(Args)]
pub(super) struct Apply {
    /// The channel
    channel: Channel,
    /// The serial of the release
    serial: Serial,
    /// How many of the brokers must have the same log; two names of one broker count as two
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    quorum: u8,
    /// Keep that it is applied already, without running anything: after a reboot, or since the machine came with it; with --node the slot is freed
    #[arg(long, conflicts_with = "command")]
    applied: bool,
    /// The name of this machine: if the release names a group of slots, it takes a slot before the command is run, and frees it when that ends
    /// well; if the release reboots, after that, by --applied
    #[arg(long, value_name = "NAME", env = "TIDINGS_NODE")]
    node: Option<SlotName>,
    /// For how many seconds to wait for a slot; a group that is stopped, since machines have failed, is not waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600, requires = "node")]
    slot_wait: u64,
    #[command(flatten)]
    reading: Reading,
    /// What applies it; it gets the statement on standard input. Without it, only whether the release may be applied now
    #[arg(last = true)]
    command: Vec<String>,
}

impl Apply {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        ensure!(self.reading.state.is_some(), "give --state FILE: what may be applied depends on what this device has seen");
        let channels = std::slice::from_ref(&self.channel);
        let mut device = self.reading.device(channels, Start::Newest)?.with_quorum(self.quorum.into());
        if self.applied {
            device.note_applied_serial(&self.channel, self.serial).await?;
            return match &self.node {
                Some(node) => {
                    let context = || format!("{} {} is kept as applied, but the slot is not freed", self.channel, self.serial);
                    self.come_back(&mut device, node).await.with_context(context)
                }
                None => Ok(()),
            };
        }
        // What is new since the last look counts too, and is not lost on who looks.
        match device.poll().await {
            Ok(news) => news.iter().for_each(|statement| {
                output::note(&format!("new in {}: {}", statement.channel(), output::summary(statement, device.state().trust())));
            }),
            Err(error) => output::note(&error.to_string()),
        }
        if self.command.is_empty() {
            device.may_apply(&self.channel, self.serial).await?;
            output::line(&format!("{} {} may be applied now", self.channel, self.serial));
            return Ok(());
        }
        let freed = device.apply(&self.channel, self.serial, async |cleared: &mut Clearance<'_>| self.in_turn(cleared).await).await?;
        freed.with_context(|| format!("{} {} is applied, but the slot could not be freed", self.channel, self.serial))
    }

    /// Learning and fetching are for everybody at once; going down is not. What is within says whether the slot is free again.
    async fn in_turn(&self, cleared: &mut Clearance<'_>) -> anyhow::Result<anyhow::Result<()>> {
        let Body::Release(Release { slot: Some(group), apply, .. }) = cleared.body().clone() else {
            let child = start(&self.command)?;
            return Ok(Ok(finish(child, &self.command, cleared).await?));
        };
        let group: SlotName = group.parse()?;
        let Some(node) = &self.node else {
            anyhow::bail!("the release wants a slot of the group {group} before a machine goes down; say with --node which machine this is")
        };
        let mut slots = Slots::new(self.reading.from.source()?);
        let taken = slots.wait_for(&group, node, self.serial, Duration::from_secs(self.slot_wait)).await?;
        // It may have been withdrawn while this machine has waited (attack 81), and the slot may be another one's (attack 75).
        let started = async {
            cleared.confirm().await?;
            let held = slots.hold(&group, node, taken.token).await?;
            ensure!(Instant::now() < held.until, "the answer about the slot came too late");
            start(&self.command)
        };
        let child = match started.await {
            Ok(child) => child,
            Err(error) => {
                // The machine has not gone down: others may.
                if let Err(error) = slots.free(&group, node, taken.token).await {
                    output::note(&format!("the slot of {group} could not be freed: {error}"));
                }
                return Err(error);
            }
        };
        // From here on it counts as down until it says otherwise: what has failed halfway is for its lease, and an operator.
        let context = || format!("the slot of {group} stays taken, and the machine counts as failed when its lease has run out");
        finish(child, &self.command, cleared).await.with_context(context)?;
        match apply {
            Some(Way::Reboot | Way::Kexec) => {
                output::note(&format!(
                    "the slot of {group} is this machine's until it is back: `tidings apply {} {} --applied --node {node}` frees it then",
                    self.channel, self.serial
                ));
                Ok(Ok(()))
            }
            // Whether it is free or not, the release is applied.
            _ => Ok(slots.free(&group, node, taken.token).await.map_err(Into::into)),
        }
    }

    /// After a reboot: the slot that this machine has gone down with.
    async fn come_back(&self, device: &mut Device, node: &SlotName) -> anyhow::Result<()> {
        let statements = device.history(&self.channel, self.serial).await?;
        let release = statements.iter().find(|statement| statement.serial() == self.serial).map(|statement| statement.body());
        let Some(Body::Release(Release { slot: Some(group), .. })) = release else { return Ok(()) };
        let group: SlotName = group.parse()?;
        let mut slots = Slots::new(self.reading.from.source()?);
        match slots.take(&group, node, self.serial).await {
            Ok(slot) => slots.free(&group, node, slot.token).await?,
            // It has none any more; that its lease ran out, an operator is told.
            Err(error @ (SlotError::Wait { .. } | SlotError::Stopped(_))) => {
                output::note(&format!("this machine holds no slot of {group}: {error}"))
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Starts a local command, never anything from a statement, and never through a shell (attack 84).
fn start(command: &[String]) -> anyhow::Result<Child> {
    let child = tokio::process::Command::new(&command[0]).args(&command[1..]).stdin(Stdio::piped()).spawn();
    child.with_context(|| format!("cannot run {:?}", command[0]))
}

/// Gives it the statement, and waits for its end.
async fn finish(mut child: Child, command: &[String], cleared: &Clearance<'_>) -> anyhow::Result<()> {
    if let Some(mut input) = child.stdin.take() {
        // A command that does not read the statement closes its end; that is its own affair.
        drop(tokio::io::AsyncWriteExt::write_all(&mut input, cleared.octets()).await);
    }
    let status = child.wait().await.with_context(|| format!("cannot wait for {:?}", command[0]))?;
    ensure!(status.success(), "{:?} ended with {status}; {} {} does not count as applied", command[0], cleared.channel(), cleared.serial());
    Ok(())
}

#[derive(Args)]
pub(super) struct Evidence {
    /// The forked channel
    channel: Channel,
    /// The state file of the device that has seen the fork
    #[arg(long, value_name = "FILE", env = "TIDINGS_STATE")]
    state: PathBuf,
    /// Where the evidence goes; it must not exist yet
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    from: From,
}

impl Evidence {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let anchor: Anchor = self.from.anchor()?.context("what proves it? give --anchor LINE, or set TIDINGS_ANCHOR")?;
        let state = State::look(&self.state, &anchor)?;
        let fork =
            state.view().fork(&self.channel).with_context(|| format!("{} is not forked as far as this device knows", self.channel))?;
        let mut octets = Vec::new();
        if self.from.brokers.is_empty() {
            output::note(
                "no broker was given: the evidence has no trust log in it, and whoever verifies it needs that from elsewhere (--trust)",
            );
        } else {
            let mut device = Device::with_state(self.from.source()?, [], State::ephemeral(&anchor))?;
            let log = device.history(&anchor.namespace.trust_log(), Serial::FIRST).await?;
            log.iter().for_each(|statement| octets.extend_from_slice(statement.octets()));
        }
        for statement in [&fork.ours, &fork.theirs].into_iter().chain(&fork.above) {
            octets.extend_from_slice(statement.octets());
        }
        write_new(&self.out, &octets)?;
        std::io::stdout().flush()?;
        output::line(&format!("evidence that {} is forked at {}; `tidings verify` proves it", self.channel, fork.serial()));
        let head = state.head(&self.channel).map_or(String::new(), |head| head.to_string());
        output::line(&format!(
            "to settle it, give the checkpoint at the present head of the branch that is right, on which all brokers then have to be; ours is --checkpoint '{} {head}'",
            self.channel
        ));
        Ok(())
    }
}
