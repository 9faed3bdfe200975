//! The release to run: which one it is, and a command that applies it.

use std::{
    collections::BTreeMap,
    fs,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tidings_client::{
    Body, Channel, Clear, Clearance, Device, Profile, Release, Serial, SlotError, Slots, Verified,
};
use tidings_protocol::{Digest, Statement, slot::SlotName, statement::Apply as Way};
use tokio::{process::Child, signal::unix::SignalKind, time::Instant};

use super::{
    ends::Ends,
    exit::{CommandFailed, Exit},
    output,
    reader::{Reading, note_if_unknown},
    slot::SlotServers,
};

/// What this machine is: by this it knows which releases are for it, and when its turn comes.
#[derive(Args)]
struct Machine {
    /// A property of this machine, which `Target` and `cohort` of releases name; repeatable
    #[arg(long = "property", value_name = "KEY=VALUE")]
    properties: Vec<String>,
    /// What makes this machine another one than the rest of the fleet; it is hashed, and never
    /// sent. Without it, a hash of /etc/machine-id
    #[arg(long, value_name = "TEXT", env = "TIDINGS_IDENTITY")]
    identity: Option<String>,
}

impl Machine {
    fn profile(&self) -> anyhow::Result<Profile> {
        let property = |text: &String| {
            let wrong =
                || Exit::Usage.because(format!("--property: expected KEY=VALUE, found {text:?}"));
            let (key, value) = text
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(wrong)?;
            Ok((key.to_owned(), value.to_owned()))
        };
        let properties = self
            .properties
            .iter()
            .map(property)
            .collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        let identity = match &self.identity {
            Some(identity) if identity.contains('\n') || identity.is_empty() => {
                return Err(Exit::Usage.because("--identity: expected one line that is not empty"));
            }
            Some(identity) => identity.clone(),
            None => {
                let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
                // All machines without an id are one: they go together.
                Digest::of(format!("tidings identity\n{}", id.trim()).as_bytes()).to_string()
            }
        };
        Ok(Profile {
            identity,
            properties,
        })
    }
}

/// How many brokers must agree.
#[derive(Args)]
struct Quorum {
    /// How many of the brokers must have the same log; two names of one broker count as two
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    quorum: u8,
}

#[derive(Args)]
pub(super) struct Next {
    /// The channel
    channel: Channel,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    quorum: Quorum,
    #[command(flatten)]
    reading: Reading,
}

impl Next {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let device = self
            .reading
            .device_that_looks(std::slice::from_ref(&self.channel))?;
        let mut device = device
            .with_quorum(self.quorum.quorum.into())
            .with_profile(self.machine.profile()?);
        let statement = to_run(&mut device, &self.channel).await?;
        let trust = device.state().trust();
        output::answer(
            || output::json(&statement, trust),
            || output::summary(&statement, trust),
        );
        Ok(())
    }
}

/// The release to run; that there is none is no success.
async fn to_run(device: &mut Device, channel: &Channel) -> anyhow::Result<Verified<Statement>> {
    let target = device.target(channel).await;
    note_if_unknown(device, channel);
    match target? {
        Clear::Apply(statement) => Ok(statement),
        Clear::Nothing { next: Some((serial, due)), .. } => {
            Err(Exit::Waiting.because(format!("nothing of {channel} is to be run now: {serial} is due at {due}")))
        }
        Clear::Nothing { applied: Some(applied), .. } => Err(Exit::Nothing
            .because(format!("nothing of {channel} is to be run: {applied} is applied, and there is nothing newer for this machine"))),
        Clear::Nothing { .. } => {
            Err(Exit::Nothing.because(format!("nothing of {channel} is to be run: there is no release for this machine")))
        }
    }
}

#[derive(Args)]
pub(super) struct Apply {
    /// The channel
    channel: Channel,
    /// The serial of the release; without it, the release to run, whichever that is
    serial: Option<Serial>,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    quorum: Quorum,
    /// Keep that it is applied already, without running anything: after a reboot; with --node the
    /// slot is freed
    #[arg(long, conflicts_with = "command", requires = "serial")]
    applied: bool,
    /// The name of this machine: if the release names a group of slots, it takes a slot before the
    /// command is run, and frees it when that ends well; if the release reboots, after that, by
    /// --applied
    #[arg(long, value_name = "NAME", env = "TIDINGS_NODE")]
    node: Option<SlotName>,
    /// For how many seconds to wait for a slot; a group that is stopped, since machines have
    /// failed, is not waited for
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3_600,
        requires = "node"
    )]
    slot_wait: u64,
    #[command(flatten)]
    servers: SlotServers,
    #[command(flatten)]
    reading: Reading,
    /// What applies it; it gets the statement on standard input. Without it, only whether the
    /// release may be applied now
    #[arg(last = true)]
    command: Vec<String>,
}

impl Apply {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let state = || {
            Exit::Usage.because(
                "give --state FILE: what may be applied depends on what this device has seen",
            )
        };
        ensure!(self.reading.state.is_some(), state());
        let device = self
            .reading
            .device_that_applies(std::slice::from_ref(&self.channel))?;
        let mut device = device
            .with_quorum(self.quorum.quorum.into())
            .with_profile(self.machine.profile()?);
        if let (true, Some(serial)) = (self.applied, self.serial) {
            return self.note_applied(&mut device, serial).await;
        }
        let serial = match self.serial {
            Some(serial) => serial,
            None => to_run(&mut device, &self.channel).await?.serial(),
        };
        if self.command.is_empty() {
            let statement = device.may_apply(&self.channel, serial).await;
            note_if_unknown(&device, &self.channel);
            let statement = statement?;
            let trust = device.state().trust();
            output::answer(
                || output::json(&statement, trust),
                || format!("{} {serial} may be applied now", self.channel),
            );
            return Ok(());
        }
        let freed = device
            .apply(
                &self.channel,
                serial,
                async |cleared: &mut Clearance<'_>| self.in_turn(cleared).await,
            )
            .await;
        note_if_unknown(&device, &self.channel);
        let freed = freed?;
        freed.with_context(|| {
            format!(
                "{} {serial} is applied, but the slot could not be freed",
                self.channel
            )
        })
    }

    /// Keeps that a release is applied, and frees the slot of the machine that is back.
    async fn note_applied(&self, device: &mut Device, serial: Serial) -> anyhow::Result<()> {
        device.note_applied_serial(&self.channel, serial).await?;
        let channel = self.channel.as_str();
        output::answer(
            || json!({"channel": channel, "applied": serial.number()}),
            || format!("{channel} {serial} is kept as applied"),
        );
        let Some(node) = &self.node else {
            return Ok(());
        };
        let context =
            || format!("{channel} {serial} is kept as applied, but the slot is not freed");
        self.come_back(device, serial, node)
            .await
            .with_context(context)
    }

    /// Starts the command in a slot. The release may have been withdrawn while this machine has
    /// waited (attack 81), and the slot may be another one's (attack 75).
    async fn start_in_slot(
        &self,
        cleared: &mut Clearance<'_>,
        slots: &mut Slots,
        (group, node, token): (&SlotName, &SlotName, u64),
    ) -> anyhow::Result<Child> {
        cleared.confirm().await?;
        let held = slots.hold(group, node, token).await?;
        ensure!(
            Instant::now() < held.until,
            Exit::Waiting.because("the answer about the slot came too late")
        );
        start(&self.command)
    }

    /// Learning and fetching are for everybody at once; going down is not. What is within says
    /// whether the slot is free again.
    async fn in_turn(&self, cleared: &mut Clearance<'_>) -> anyhow::Result<anyhow::Result<()>> {
        let Body::Release(Release {
            slot: Some(group),
            apply,
            ..
        }) = cleared.body().clone()
        else {
            let child = start(&self.command)?;
            return Ok(Ok(finish(child, &self.command, cleared).await?));
        };
        let (group, serial): (SlotName, Serial) = (group.parse()?, cleared.serial());
        let which = || {
            Exit::Usage.because(format!(
                "the release wants a slot of the group {group} before a machine goes down; say with --node which machine this is"
            ))
        };
        let node = self.node.as_ref().ok_or_else(which)?;
        let mut slots = self.servers.slots(&self.reading.from.tls)?;
        // A slot that this machine has had before may be that of a command that failed halfway: it
        // is not given back for it.
        let had = slots.status(&group).await.is_ok_and(|status| {
            status
                .holders
                .iter()
                .any(|holder| holder.id == node.as_str())
        });
        let taken = slots
            .wait_for(&group, node, serial, Duration::from_secs(self.slot_wait))
            .await?;
        let slot = (&group, node, taken.token);
        let child = match self.start_in_slot(cleared, &mut slots, slot).await {
            Ok(child) => child,
            Err(error) => {
                // The machine has not gone down: others may.
                if !had && let Err(error) = slots.free(&group, node, taken.token).await {
                    output::note(&format!("the slot of {group} could not be freed: {error}"));
                }
                return Err(error);
            }
        };
        // From here on it counts as down until it says otherwise: what has failed halfway is for
        // its lease, and an operator.
        let context = || {
            format!(
                "the slot of {group} stays taken, and the machine counts as failed when its lease has run out"
            )
        };
        finish(child, &self.command, cleared)
            .await
            .with_context(context)?;
        match apply {
            Some(Way::Reboot | Way::Kexec) => {
                output::note(&format!(
                    "the slot of {group} is this machine's until it is back: `tidings apply {} {serial} --applied --node {node}` frees it then",
                    self.channel
                ));
                Ok(Ok(()))
            }
            // Whether it is free or not, the release is applied.
            _ => Ok(slots
                .free(&group, node, taken.token)
                .await
                .map_err(Into::into)),
        }
    }

    /// After a reboot: the slot that this machine has gone down with.
    async fn come_back(
        &self,
        device: &mut Device,
        serial: Serial,
        node: &SlotName,
    ) -> anyhow::Result<()> {
        let statements = device.history(&self.channel, serial).await?;
        let release = statements
            .iter()
            .find(|statement| statement.serial() == serial)
            .map(|statement| statement.body());
        let Some(Body::Release(Release {
            slot: Some(group), ..
        })) = release
        else {
            return Ok(());
        };
        let group: SlotName = group.parse()?;
        let mut slots = self.servers.slots(&self.reading.from.tls)?;
        match slots.take(&group, node, serial).await {
            Ok(slot) => slots.free(&group, node, slot.token).await?,
            // It has none any more; that its lease ran out, an operator is told.
            Err(error @ (SlotError::Wait { .. } | SlotError::Stopped(_))) => {
                output::note(&format!("this machine holds no slot of {group}: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Starts a local command, never anything from a statement, and never through a shell (attack 84).
fn start(command: &[String]) -> anyhow::Result<Child> {
    let child = tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .spawn();
    child.with_context(|| format!("cannot run {:?}", command[0]))
}

static BUSY: AtomicBool = AtomicBool::new(false);

/// Whether a command runs, which is told of signals and waited for.
pub(super) fn is_busy() -> bool {
    BUSY.load(Ordering::Relaxed)
}

/// Gives it the statement, and waits for its end. Who wants this program to end ends the command by
/// that, and the state file is this program's until it has: no second one is begun beside it.
async fn finish(
    mut child: Child,
    command: &[String],
    cleared: &Clearance<'_>,
) -> anyhow::Result<()> {
    let mut ends = Ends::new()?;
    BUSY.store(true, Ordering::Relaxed);
    let pid = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(mut input) = child.stdin.take() {
        // A command that does not read the statement closes its end; that is its own affair.
        drop(tokio::io::AsyncWriteExt::write_all(&mut input, cleared.octets()).await);
    }
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.with_context(|| format!("cannot wait for {:?}", command[0]))?,
            signal = ends.told() => {
                // A terminal tells the command too; and it may have ended by itself.
                if signal == SignalKind::terminate() {
                    let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
                }
            }
        }
    };
    BUSY.store(false, Ordering::Relaxed);
    if status.success() {
        return Ok(());
    }
    let by_signal =
        std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| signal + 128);
    let code = status
        .code()
        .or(by_signal)
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(Exit::Failed as u8);
    let text = format!(
        "{:?} ended with {status}; {} {} does not count as applied",
        command[0],
        cleared.channel(),
        cleared.serial()
    );
    Err(CommandFailed { code, text }.into())
}
