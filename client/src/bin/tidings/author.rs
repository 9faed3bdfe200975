//! Making statements: releases, withdrawals; signing and publishing them.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};
use tidings_client::{Body, Channel, Device, Head, PublishError, Publisher, Serial, State, Statement, Timestamp, now};
use tidings_protocol::{Digest, StatementId, statement::Kind, trust::Trust as Rules};

use super::{
    From,
    files::{sign_all, write_new},
    key, output,
};

/// How often a lost race is run again.
const RACES: u32 = 50;
/// How often, and how long each time, a broker is given time to show the statement that was first.
const WAITS: u32 = 5;
const WAIT: std::time::Duration = std::time::Duration::from_millis(100);

/// Where a new statement goes in its channel: read from a broker, or given.
#[derive(Args)]
pub(super) struct Place {
    #[command(flatten)]
    from: From,
    /// Instead of asking a broker: the channel's head, `SERIAL sha256:HEX`, or `-` for an empty channel
    #[arg(long, value_name = "HEAD", requires = "trust")]
    after: Option<String>,
    /// Instead of asking a broker: the serial of the trust statement in force
    #[arg(long, value_name = "SERIAL", requires = "after")]
    trust: Option<Serial>,
}

/// What is done with a new statement.
#[derive(Args)]
pub(super) struct Finish {
    /// Sign with this private key; repeatable
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Where the statement goes; it must not exist yet. Without it and --publish, standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Publish it; when another statement comes first, it is made and signed anew
    #[arg(long, requires = "keys", conflicts_with = "after")]
    publish: bool,
    /// Print JSON about what was published
    #[arg(long, requires = "publish")]
    json: bool,
}

#[derive(Args)]
pub(super) struct Release {
    /// The channel
    channel: Channel,
    /// The version, a token without spaces; order is by serial alone
    #[arg(long)]
    version: String,
    /// One line for people
    #[arg(long)]
    summary: Option<String>,
    /// Where people can read more
    #[arg(long, value_name = "URL")]
    details: Option<String>,
    /// routine, security or critical
    #[arg(long)]
    urgency: Option<String>,
    /// Selectors that must all match, `KEY=VALUE…`; repeatable as alternatives
    #[arg(long = "target", value_name = "SELECTORS")]
    targets: Vec<String>,
    /// The serial that must have been applied first
    #[arg(long, value_name = "SERIAL")]
    barrier: Option<String>,
    /// Not to be applied before, YYYY-MM-DDTHH:MM:SSZ
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// To be applied by, YYYY-MM-DDTHH:MM:SSZ
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// The window in which it spreads, `START SECONDS [spread=SECONDS] [cohort=KEY]`
    #[arg(long, value_name = "WINDOW")]
    rollout: Option<String>,
    /// The group in which a slot is needed before going down
    #[arg(long, value_name = "GROUP")]
    slot: Option<String>,
    /// reboot, kexec, `restart UNIT…`, live or none
    #[arg(long)]
    apply: Option<String>,
    /// A way to get it, `FORMAT FILE URL [KEY=VALUE…]`; size and SHA-256 are those of FILE, and `base=@FILE` or
    /// `result=@FILE` become the SHA-256 of that file. Repeatable
    #[arg(long = "payload", value_name = "PAYLOAD")]
    payloads: Vec<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    finish: Finish,
}

impl Release {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut fields = vec![("Version", self.version)];
        let mut add = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
        add("Summary", self.summary);
        add("Details", self.details);
        add("Urgency", self.urgency);
        self.targets.into_iter().for_each(|target| add("Target", Some(target)));
        add("Barrier", self.barrier);
        add("Not-Before", self.not_before);
        add("Deadline", self.deadline);
        add("Rollout", self.rollout);
        add("Slot", self.slot);
        add("Apply", self.apply);
        for payload in &self.payloads {
            add("Payload", Some(measure(payload)?));
        }
        finish(Kind::Release, self.channel, fields, self.place, self.finish).await
    }
}

#[derive(Args)]
pub(super) struct Withdraw {
    /// The channel
    channel: Channel,
    /// The serial of the release that is called back
    serial: Serial,
    /// Why, for people
    #[arg(long)]
    reason: String,
    /// Its id, where no broker is asked
    #[arg(long, value_name = "ID", requires = "after")]
    id: Option<StatementId>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    finish: Finish,
}

impl Withdraw {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let release = match self.id {
            Some(id) => Head { serial: self.serial, id },
            None => self.look_up().await?,
        };
        let fields = vec![("Withdraws", release.to_string()), ("Reason", self.reason)];
        finish(Kind::Withdraw, self.channel, fields, self.place, self.finish).await
    }
}

impl Withdraw {
    async fn look_up(&self) -> anyhow::Result<Head> {
        ensure!(self.place.after.is_none(), "which release is it? give --id, as `tidings log --json` shows it");
        let source = self.place.from.source()?;
        let state = State::ephemeral(source.anchor());
        let log = Device::with_state(source, [], state)?.history(&self.channel, self.serial).await?;
        let there = log.first().filter(|statement| statement.serial() == self.serial);
        let there = there.with_context(|| format!("there is no {} {}; `tidings log` shows what there is", self.channel, self.serial))?;
        let (channel, serial, kind) = (&self.channel, self.serial, there.kind());
        ensure!(kind == Kind::Release, "{channel} {serial} is a {kind}, and only a release can be withdrawn");
        let withdraws = |by: &Statement| matches!(by.body(), Body::Withdraw(withdraw) if withdraw.withdraws == there.head());
        if let Some(by) = log.iter().find(|by| withdraws(by)) {
            bail!("{channel} {serial} is withdrawn already, by {}", by.serial());
        }
        Ok(there.head())
    }
}

/// From fields to text; the grammar says what does not fit, with its line.
fn compose(
    kind: Kind,
    channel: &Channel,
    after: Option<Head>,
    trust: Serial,
    time: Timestamp,
    fields: &[(&str, String)],
) -> anyhow::Result<Statement> {
    let serial = after.map_or(Some(Serial::FIRST), |head| head.serial.next()).context("the channel is full: its last serial is taken")?;
    let previous = after.map_or("-".into(), |head| head.id.to_string());
    let mut text = format!("Tidings: 1 {kind}\nChannel: {channel}\nSerial: {serial}\nPrevious: {previous}\nTime: {time}\nTrust: {trust}\n");
    for (name, value) in fields {
        ensure!(!value.contains('\n'), "{name}: expected one line, found several");
        text.push_str(&format!("{name}: {value}\n"));
    }
    Ok(Statement::parse_draft(text.as_bytes())?)
}

async fn finish(kind: Kind, channel: Channel, fields: Vec<(&str, String)>, place: Place, finish: Finish) -> anyhow::Result<()> {
    let signers = key::privates(&finish.keys)?;
    let mut publisher = match (&place.after, place.from.brokers.is_empty()) {
        (None, false) => Some(Publisher::connect(place.from.source()?).await?),
        _ => None,
    };
    let mut signed_after: Option<Option<Head>> = None;
    let (mut waits, mut races) = (0, 0);
    while races < RACES {
        let (after, trust) = match (&mut publisher, &place) {
            (Some(publisher), _) => {
                let trust = publisher.trust().context("the broker has no trust statement yet; publish it first")?.serial();
                (publisher.newest_anywhere(&channel).await?.map(|s| s.head()), trust)
            }
            (None, Place { after: Some(after), trust: Some(trust), .. }) => (parse_head(after)?, *trust),
            _ => bail!("where does it go? give --broker and --anchor, or --after and --trust"),
        };
        // A broker that speaks of another head, and shows the same, would have us sign one place again and again. It may need
        // a moment to show what it speaks of.
        if signed_after == Some(after) && waits < WAITS {
            waits += 1;
            tokio::time::sleep(WAIT).await;
            continue;
        }
        ensure!(
            signed_after != Some(after),
            "the broker says that another statement came first, and does not show it; nothing more is signed for {channel} there"
        );
        waits = 0;
        signed_after = Some(after);
        let statement = sign_all(compose(kind, &channel, after, trust, now(), &fields)?, &signers)?;
        let Some(publisher) = publisher.as_mut().filter(|_| finish.publish) else {
            return match &finish.out {
                Some(path) => write_new(path, statement.octets()),
                None => Ok(std::io::stdout().write_all(statement.octets())?),
            };
        };
        match publisher.publish(&statement).await {
            Ok(_) => {
                if let Some(path) = &finish.out {
                    write_new(path, statement.octets())?;
                }
                published(&statement, publisher.trust(), finish.json);
                return Ok(());
            }
            Err(PublishError::LostRace(_)) => races += 1,
            Err(error) => return Err(error.into()),
        }
    }
    bail!("other publishers were first {RACES} times; try again")
}

fn parse_head(text: &str) -> anyhow::Result<Option<Head>> {
    if text == "-" {
        return Ok(None);
    }
    let (serial, id) = text.split_once(' ').with_context(|| format!("--after: expected `SERIAL sha256:HEX` or `-`, found {text:?}"))?;
    Ok(Some(Head { serial: serial.parse()?, id: id.parse()? }))
}

pub(super) fn published(statement: &Statement, trust: Option<&Rules>, as_json: bool) {
    if as_json {
        output::line(&output::json(statement, trust).to_string());
    } else {
        output::line(&format!("published {}", statement.message_id()));
    }
}

/// From `FORMAT FILE URL [KEY=VALUE…]` to the value of a `Payload` field.
fn measure(payload: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = payload.split_whitespace().collect();
    let [format, file, url, properties @ ..] = &words[..] else {
        bail!("--payload: expected `FORMAT FILE URL [KEY=VALUE…]`, found {payload:?}");
    };
    let (size, digest) = hash(Path::new(file))?;
    let mut value = format!("{format} {size} {digest} {url}");
    for property in properties {
        match property.split_once("=@") {
            Some((key, file)) => value.push_str(&format!(" {key}={}", hash(Path::new(file))?.1)),
            None => value.push_str(&format!(" {property}")),
        }
    }
    Ok(value)
}

/// Size and SHA-256 of a file, with a bar on a terminal.
fn hash(path: &Path) -> anyhow::Result<(u64, Digest)> {
    let context = || format!("cannot read the payload {}", path.display());
    let mut file = fs::File::open(path).with_context(context)?;
    let bar = ProgressBar::new(file.metadata().with_context(context)?.len());
    bar.set_style(ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")?);
    bar.set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).with_context(context)?;
        if n == 0 {
            break;
        }
        sum.update(&buffer[..n]);
        size += n as u64;
        bar.set_position(size);
    }
    bar.finish_and_clear();
    Ok((size, Digest::from_octets(sum.finalize().into())))
}
