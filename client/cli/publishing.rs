//! From what is to be said to the log: a place, signatures, the outbox, a broker.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tempfile::TempDir;
use tidings_client::{
    Channel, Head, Outbox, OutboxLock, PublishError, Publisher, Serial, Settled, SignedPlaces,
    Source, Statement, Timestamp, now,
};
use tidings_protocol::{Namespace, statement::Kind, trust::Trust as Rules};

use super::{
    From,
    exit::Exit,
    files::{sign_all, write_new},
    key::{self, Signer},
    output,
};

/// How often a lost race is run again.
const RACES: u32 = 50;
/// How often, and how long each time, a broker is given time to show the statement that was first.
const WAITS: u32 = 5;
const WAIT: Duration = Duration::from_millis(100);
/// A clock before this version's time is none: 2026-01-01, in seconds.
const EARLIEST: u64 = 1_767_225_600;
/// Names that are near are shown, at most so many.
const NEAR: usize = 3;

/// Where a person's programs keep what they remember.
fn state_home() -> Option<PathBuf> {
    let var = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    var("XDG_STATE_HOME").or_else(|| Some(var("HOME")?.join(".local/state")))
}

/// The outboxes of all namespaces, where no other place is given.
pub(super) fn outboxes() -> Vec<PathBuf> {
    let all = state_home().and_then(|home| std::fs::read_dir(home.join("tidings/outbox")).ok());
    let entries = all.into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Where signed statements wait until the log has them.
#[derive(Args)]
pub(super) struct OutboxArgs {
    /// Where signed statements wait until the log has them, and where it is remembered what was
    /// signed here; without it, below XDG_STATE_HOME or ~/.local/state
    #[arg(long, value_name = "DIR", env = "TIDINGS_OUTBOX")]
    outbox: Option<PathBuf>,
}

impl OutboxArgs {
    fn directory(&self, below: &str) -> anyhow::Result<PathBuf> {
        if let Some(directory) = &self.outbox {
            return Ok(directory.clone());
        }
        let ask = || {
            Exit::Usage.because("where shall signed statements be kept? set HOME, XDG_STATE_HOME or TIDINGS_OUTBOX, or give --outbox DIR")
        };
        Ok(state_home().ok_or_else(ask)?.join("tidings").join(below))
    }

    pub(super) fn open(&self, namespace: &Namespace) -> anyhow::Result<Outbox> {
        Ok(Outbox::open(
            self.directory(&format!("outbox/{namespace}"))?,
            namespace,
        )?)
    }

    /// For a program that may have no place of its own: beats have no forks, and one that is lost
    /// is followed by the next.
    pub(super) fn open_or_temporary(
        &self,
        namespace: &Namespace,
    ) -> anyhow::Result<(Outbox, Option<TempDir>)> {
        match self.open(namespace) {
            Ok(outbox) => Ok((outbox, None)),
            Err(error) if self.outbox.is_some() => Err(error),
            Err(error) => {
                output::note(&format!(
                    "{}; beats wait in a temporary place instead; TIDINGS_OUTBOX names one that lasts",
                    tidings_client::explain(error.as_ref())
                ));
                let directory =
                    tempfile::tempdir().context("cannot make a directory for beats that wait")?;
                Ok((Outbox::open(directory.path(), namespace)?, Some(directory)))
            }
        }
    }

    fn signed(&self) -> anyhow::Result<SignedPlaces> {
        Ok(SignedPlaces::open(self.directory("signed")?)?)
    }

    /// Signs, unless this machine has signed another statement for the same place, and remembers
    /// that it has.
    pub(super) fn sign(
        &self,
        statement: Statement,
        keys: &[Signer],
        another: bool,
    ) -> anyhow::Result<Statement> {
        if keys.is_empty() {
            return Ok(statement);
        }
        let places = self.signed()?;
        if !another {
            places
                .may_sign(&statement)
                .context("--another signs this one too: only if the other was never published, and never will be")?;
        }
        let signed = sign_all(statement, keys)?;
        places.note(&signed)?;
        Ok(signed)
    }
}

/// The time of a new statement; a clock that is none signs nothing.
pub(super) fn time() -> anyhow::Result<Timestamp> {
    let time = now();
    ensure!(
        time.seconds() >= EARLIEST,
        Exit::Failed.because(format!("the clock of this machine shows {time}, which cannot be; set it before anything is signed"))
    );
    Ok(time)
}

/// Where a new statement goes in its channel: read from a broker, or given.
#[derive(Args)]
pub(super) struct Place {
    #[command(flatten)]
    pub(super) from: From,
    /// Instead of asking a broker: the channel's head, `SERIAL sha256:HEX`, or `-` for an empty
    /// channel
    #[arg(long, value_name = "HEAD", requires = "trust")]
    pub(super) after: Option<String>,
    /// Instead of asking a broker: the serial of the trust statement in force
    #[arg(long, value_name = "SERIAL", requires = "after")]
    trust: Option<Serial>,
}

/// What is done with a new statement.
#[derive(Args)]
pub(super) struct Finish {
    /// Sign with this private key; repeatable. For pipelines `-` is standard input, `env:NAME` a
    /// variable (which other processes of yours can read: prefer a file or a pipe), and
    /// `agent:[KEY]` an Ed25519 key of ssh-agent, by its comment or public line
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Where the statement goes; it must not exist yet. Without it and --publish, standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Publish it; when another statement comes first, it is made and signed anew
    #[arg(long, requires = "keys", conflicts_with = "after")]
    publish: bool,
    /// Begin a channel that is not there yet
    #[arg(long)]
    new_channel: bool,
    /// Sign although this machine has signed another statement for the same place
    #[arg(long)]
    another: bool,
    #[command(flatten)]
    pub(super) outbox: OutboxArgs,
}

/// What is said: the fields between the fixed ones and the signatures.
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) channel: Channel,
    pub(super) fields: Vec<(String, String)>,
}

impl Draft {
    /// From fields to text; the grammar says what does not fit, with its line.
    fn compose(
        &self,
        after: Option<Head>,
        trust: Serial,
        time: Timestamp,
    ) -> anyhow::Result<Statement> {
        let Self {
            kind,
            channel,
            fields,
        } = self;
        let full = || Exit::Refused.because(format!("{channel} is full: its last serial is taken"));
        let serial = after
            .map_or(Some(Serial::FIRST), |head| head.serial.next())
            .ok_or_else(full)?;
        let previous = after.map_or("-".into(), |head| head.id.to_string());
        let mut text = format!(
            "Tidings: 1 {kind}\nChannel: {channel}\nSerial: {serial}\nPrevious: {previous}\nTime: {time}\nTrust: {trust}\n"
        );
        for (name, value) in fields {
            ensure!(
                !value.contains('\n'),
                Exit::Usage.because(format!("{name}: expected one line, found several"))
            );
            text.push_str(&format!("{name}: {value}\n"));
        }
        Ok(Statement::parse_draft(text.as_bytes())?)
    }

    fn says_the_same(&self, statement: &Statement) -> bool {
        statement.kind() == self.kind && said(statement) == self.fields
    }
}

/// The fields of a statement between the fixed ones and the signatures.
pub(super) fn said(statement: &Statement) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(statement.signed_part());
    let fixed = if statement.trust().is_some() { 6 } else { 5 };
    let fields = text
        .lines()
        .skip(fixed)
        .filter_map(|line| line.split_once(": "));
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A channel to which this program alone publishes.
pub(super) struct Begun {
    _lock: OutboxLock,
    /// What had waited, and is published now.
    pub(super) published: Option<Statement>,
}

/// An origin, and the outbox through which everything goes there.
pub(super) struct Desk {
    pub(super) publisher: Publisher,
    pub(super) outbox: Outbox,
}

impl Desk {
    pub(super) async fn open(from: &From, outbox: &OutboxArgs) -> anyhow::Result<Self> {
        let source = from.source()?;
        let outbox = outbox.open(&source.anchor().namespace)?;
        Self::with(source, outbox).await
    }

    pub(super) async fn with(source: Source, outbox: Outbox) -> anyhow::Result<Self> {
        Ok(Self {
            publisher: Publisher::connect(source).await?,
            outbox,
        })
    }

    pub(super) fn trust(&self) -> anyhow::Result<&Rules> {
        let none =
            || Exit::NoBroker.because("the broker has no trust statement yet; publish it first");
        self.publisher.trust().ok_or_else(none)
    }

    /// Offers what waits for a channel; until it is settled nothing else is signed for it, by other
    /// programs neither.
    pub(super) async fn begin(&mut self, channel: &Channel) -> anyhow::Result<Begun> {
        let _lock = self.outbox.lock(channel).await?;
        let published = match self.settle(channel).await? {
            Some(Settled::Published(statement)) => {
                output::note(&format!(
                    "{channel} {}, which waited in the outbox, is published",
                    statement.serial()
                ));
                Some(statement)
            }
            Some(Settled::Dropped(statement, why)) => {
                output::note(&format!(
                    "{channel} {}, which waited in the outbox, was dropped: {why}",
                    statement.serial()
                ));
                None
            }
            None => None,
        };
        Ok(Begun { _lock, published })
    }

    /// A broker may need a moment to show what it speaks of.
    async fn settle(&mut self, channel: &Channel) -> anyhow::Result<Option<Settled>> {
        let mut waits = 0;
        loop {
            match self.publisher.settle(&self.outbox, channel).await {
                Err(PublishError::LostRace(_)) if waits < WAITS => waits += 1,
                Err(error @ PublishError::LostRace(_)) => {
                    return Err(error).with_context(|| {
                        format!("the broker says that another statement came first, and does not show it; what was signed for {channel} waits in the outbox (`tidings outbox`), and nothing more is signed for it")
                    });
                }
                Err(error @ PublishError::Outbox(_)) => return Err(error.into()),
                settled => {
                    return settled.with_context(|| {
                        format!("what waits in the outbox for {channel} could not be settled")
                    });
                }
            }
            tokio::time::sleep(WAIT).await;
        }
    }

    /// Publishes a signed statement; not, if another one has its place in the log.
    pub(super) async fn publish(
        &mut self,
        statement: &Statement,
    ) -> anyhow::Result<Result<(), PublishError>> {
        if let Some(trust) = self
            .publisher
            .trust()
            .filter(|_| statement.kind() != Kind::Trust)
        {
            trust.check(statement).context("nothing was published")?;
        }
        match self.publisher.publish_by(&self.outbox, statement).await {
            Ok(_) => Ok(Ok(())),
            Err(error @ PublishError::LostRace(_)) => match self.settle(statement.channel()).await?
            {
                Some(Settled::Published(_)) => Ok(Ok(())),
                Some(Settled::Dropped(..)) | None => Ok(Err(error)),
            },
            Err(error) => {
                let waits = self.outbox.waiting(statement.channel())?.is_some();
                let context = if waits {
                    "it waits in the outbox, and is offered first by the next command for this channel"
                } else {
                    "nothing was published"
                };
                Err(error).context(context)
            }
        }
    }

    /// A channel is begun on purpose only (S13): a slip of the pen would be there for good.
    pub(super) async fn may_follow(
        &mut self,
        channel: &Channel,
        head: Option<Head>,
        new_channel: bool,
    ) -> anyhow::Result<()> {
        let trust = self.trust()?;
        let closed = || {
            Exit::Refused.because(format!(
                "{channel} is closed for good by trust {}",
                trust.serial()
            ))
        };
        ensure!(!trust.rules().is_closed(channel), closed());
        match head {
            Some(head) if new_channel => output::note(&format!(
                "{channel} has {} already; --new-channel begins nothing",
                head.serial
            )),
            Some(_) => {}
            None if new_channel => {}
            None => {
                let known = self.publisher.channels().await?;
                let near = near(channel, &known);
                let meant = if near.is_empty() {
                    String::new()
                } else {
                    format!("did you mean {}? ", near.join(" or "))
                };
                return Err(
                    Exit::Refused.because(format!("there is no channel {channel} yet; {meant}--new-channel begins it, and for good"))
                );
            }
        }
        Ok(())
    }
}

/// Names that are written nearly alike.
fn near(channel: &Channel, known: &[Channel]) -> Vec<String> {
    let mut all: Vec<(usize, &str)> = known
        .iter()
        .map(|other| {
            (
                strsim::damerau_levenshtein(channel.as_str(), other.as_str()),
                other.as_str(),
            )
        })
        .collect();
    all.sort_unstable();
    let close = |(distance, name): &(usize, &str)| *distance <= 3.max(name.len() / 4);
    all.into_iter()
        .filter(close)
        .take(NEAR)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Signs without a broker, for a place that was given.
pub(super) fn finish_offline(draft: &Draft, place: &Place, finish: &Finish) -> anyhow::Result<()> {
    let Place {
        after: Some(after),
        trust: Some(trust),
        ..
    } = place
    else {
        return Err(Exit::Usage
            .because("where does it go? give --broker and --anchor, or --after and --trust"));
    };
    let statement = draft.compose(parse_head(after)?, *trust, time()?)?;
    write_out(
        &finish
            .outbox
            .sign(statement, &key::signers(&finish.keys)?, finish.another)?,
        finish,
    )
}

fn write_out(statement: &Statement, finish: &Finish) -> anyhow::Result<()> {
    match &finish.out {
        Some(path) => write_new(path, statement.octets()),
        None => {
            output::raw(statement.octets());
            Ok(())
        }
    }
}

/// Puts a draft behind the head that an origin shows, signs it, and publishes it if that is wanted.
pub(super) async fn finish(
    desk: &mut Desk,
    begun: Begun,
    draft: Draft,
    finish: &Finish,
) -> anyhow::Result<()> {
    let channel = &draft.channel;
    let signers = key::signers(&finish.keys)?;
    if let Some(settled) = begun
        .published
        .as_ref()
        .filter(|settled| finish.publish && draft.says_the_same(settled))
    {
        output::note("it says what was to be said; nothing more is signed");
        return published(settled, desk.publisher.trust());
    }
    for _ in 0..RACES {
        let head = desk
            .publisher
            .newest_anywhere(channel)
            .await?
            .map(|statement| statement.head());
        desk.may_follow(channel, head, finish.new_channel).await?;
        let statement = draft.compose(head, desk.trust()?.serial(), time()?)?;
        if !finish.publish {
            return write_out(
                &finish.outbox.sign(statement, &signers, finish.another)?,
                finish,
            );
        }
        // The outbox sees to it that nothing else is signed for this place.
        let statement = finish.outbox.sign(statement, &signers, true)?;
        if desk.publish(&statement).await?.is_ok() {
            if let Some(path) = &finish.out {
                write_new(path, statement.octets())?;
            }
            return published(&statement, desk.publisher.trust());
        }
    }
    bail!("other publishers were first {RACES} times; try again")
}

fn parse_head(text: &str) -> anyhow::Result<Option<Head>> {
    if text == "-" {
        return Ok(None);
    }
    let wrong = || {
        Exit::Usage.because(format!(
            "--after: expected `SERIAL sha256:HEX` or `-`, found {text:?}"
        ))
    };
    let (serial, id) = text.split_once(' ').ok_or_else(wrong)?;
    Ok(Some(Head {
        serial: serial.parse()?,
        id: id.parse()?,
    }))
}

pub(super) fn published(statement: &Statement, trust: Option<&Rules>) -> anyhow::Result<()> {
    output::answer(
        || output::json(statement, trust),
        || format!("published {}", statement.message_id()),
    );
    Ok(())
}
