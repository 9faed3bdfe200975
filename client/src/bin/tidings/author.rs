//! Making statements: keys, trust, releases, withdrawals; signing and publishing them.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tidings_client::{
    Channel, Head, PublishError, Publisher, Serial, Statement, Timestamp,
    keys::{self, PublicKey, SigningKey},
    now,
};
use tidings_protocol::{
    Anchor, Digest, Namespace,
    statement::{Body, Draft, Kind, NamedKey, Role, TrustRules},
    trust::Trust as Rules,
};

use super::{From, output};

/// How often a lost race is run again.
const RACES: u32 = 10;

#[derive(Subcommand)]
pub(super) enum Key {
    /// Make a key: FILE is private (0600, PKCS#8 PEM), FILE.pub its public line
    New {
        /// Where the private key goes; it must not exist yet
        file: PathBuf,
    },
    /// Print the public line of a key
    Show {
        /// A private or public key
        file: PathBuf,
    },
}

impl Key {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let public = match self {
            Key::New { file } => {
                let key = keys::generate()?;
                keys::write_private(&file, &key)?;
                let public = PublicKey::of(&key);
                let path = append_extension(&file, "pub");
                fs::write(&path, format!("{public}\n")).with_context(|| format!("cannot write {}", path.display()))?;
                public
            }
            Key::Show { file } => keys::read_public(&file)?,
        };
        output::line(&public.to_string());
        Ok(())
    }
}

fn append_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

#[derive(Subcommand)]
pub(super) enum Trust {
    /// Make the first trust statement of a namespace, and print the anchor line for devices and brokers
    Init(TrustInit),
    /// Show what a trust statement says, who has signed it, and the anchor if it is the first
    Show {
        /// The statement
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(super) struct TrustInit {
    /// The namespace, e.g. baserock
    namespace: Namespace,
    /// A key and its name; public or private, repeatable
    #[arg(long = "key", value_name = "NAME=FILE", required = true)]
    keys: Vec<String>,
    /// Who signs what: `KIND PATTERN THRESHOLD NAME…`, e.g. 'release * 2 ann bob cem'; repeatable. Without any, every
    /// key may sign everything alone
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// For how many days it holds
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    expires: u32,
    /// Sign with those of the keys that are private
    #[arg(long)]
    sign: bool,
    /// Where the statement goes; it must not exist yet
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

impl Trust {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Trust::Init(init) => init.run(),
            Trust::Show { file, json } => show_trust(&read(&file)?, json),
        }
    }
}

impl TrustInit {
    fn run(self) -> anyhow::Result<()> {
        let time = now();
        let mut rules =
            TrustRules { expires: time.plus(u64::from(self.expires) * 86_400), keys: vec![], roles: vec![], checkpoints: vec![] };
        let mut signers = Vec::new();
        for key in &self.keys {
            let (name, file) = key.split_once('=').with_context(|| format!("--key: expected NAME=FILE, found {key:?}"))?;
            let file = Path::new(file);
            if self.sign && fs::read_to_string(file).is_ok_and(|text| text.starts_with("-----BEGIN")) {
                signers.push(keys::read_private(file)?);
            }
            rules.keys.push(NamedKey { key: keys::read_public(file)?, name: name.into() });
        }
        ensure!(!self.sign || !signers.is_empty(), "--sign: none of the keys is a private one; leave it out, and `tidings sign` later");
        rules.roles = if self.roles.is_empty() {
            let names: Vec<String> = rules.keys.iter().map(|k| k.name.clone()).collect();
            Kind::ALL
                .map(|kind| Ok(Role { kind, pattern: "*".parse()?, threshold: 1, names: names.clone() }))
                .into_iter()
                .collect::<anyhow::Result<_>>()?
        } else {
            self.roles.iter().map(|role| parse_role(role)).collect::<anyhow::Result<_>>()?
        };
        let draft = Draft { channel: self.namespace.trust_log(), after: None, time, trust: None, body: Body::Trust(rules) };
        let statement = sign_all(draft.write()?, &signers)?;
        write_new(&self.out, statement.octets())?;
        output::line(&Anchor { namespace: self.namespace, id: statement.id() }.to_string());
        Ok(())
    }
}

fn parse_role(text: &str) -> anyhow::Result<Role> {
    let wrong = || format!("--role: expected `KIND PATTERN THRESHOLD NAME…`, found {text:?}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, pattern, threshold, names @ ..] = &words[..] else { bail!(wrong()) };
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == *kind).with_context(wrong)?;
    let names = names.iter().map(|n| (*n).to_owned()).collect();
    Ok(Role { kind, pattern: pattern.parse()?, threshold: threshold.parse().with_context(wrong)?, names })
}

fn show_trust(statement: &Statement, as_json: bool) -> anyhow::Result<()> {
    let Body::Trust(rules) = statement.body() else { bail!("this is a {} statement, expected trust", statement.kind()) };
    let name = statement.channel().as_str().strip_suffix(".trust").unwrap_or_default();
    let anchor = (statement.serial() == Serial::FIRST)
        .then(|| name.parse().map(|namespace| Anchor { namespace, id: statement.id() }))
        .transpose()?;
    let signed = |key: &NamedKey| statement.is_signed_by(&key.key);
    if as_json {
        let mut value = output::json(statement, None);
        value["anchor"] = json!(anchor.map(|a| a.to_string()));
        value["signed_by"] = rules.keys.iter().filter(|k| signed(k)).map(|k| k.name.clone()).collect();
        output::line(&value.to_string());
        return Ok(());
    }
    output::line(&format!("{} {}, {}, until {}", statement.channel(), statement.serial(), statement.id(), rules.expires));
    let keys = rules.keys.iter().map(|k| vec![k.name.clone(), k.key.to_string(), if signed(k) { "has signed" } else { "" }.into()]);
    output::table(&["key", "", ""], keys.collect());
    let roles =
        rules.roles.iter().map(|r| vec![r.kind.to_string(), r.pattern.to_string(), format!("{} of {}", r.threshold, r.names.join(", "))]);
    output::table(&["role", "channels", "signatures"], roles.collect());
    if let Some(anchor) = anchor {
        match Rules::first(&anchor, statement.clone()) {
            Ok(_) => output::line(&format!("anchor: {anchor}")),
            Err(missing) => output::line(&format!("not in force: {missing}")),
        }
    }
    Ok(())
}

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
    /// The serial of the release to go back to
    #[arg(long, value_name = "SERIAL")]
    fallback: Option<Serial>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    finish: Finish,
}

impl Withdraw {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut fields = vec![("Withdraws", self.serial.to_string()), ("Reason", self.reason)];
        fields.extend(self.fallback.map(|serial| ("Fallback", serial.to_string())));
        finish(Kind::Withdraw, self.channel, fields, self.place, self.finish).await
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
    let signers = finish.keys.iter().map(|file| keys::read_private(file)).collect::<Result<Vec<_>, _>>()?;
    let mut publisher = match (&place.after, place.from.brokers.is_empty()) {
        (None, false) => Some(Publisher::connect(place.from.source()?).await?),
        _ => None,
    };
    for _ in 0..RACES {
        let (after, trust) = match (&mut publisher, &place) {
            (Some(publisher), _) => {
                let trust = publisher.trust().context("the broker has no trust statement yet; publish it first")?.serial();
                (publisher.newest(&channel).await?.map(|s| s.head()), trust)
            }
            (None, Place { after: Some(after), trust: Some(trust), .. }) => (parse_head(after)?, *trust),
            _ => bail!("where does it go? give --broker and --anchor, or --after and --trust"),
        };
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
            Err(PublishError::LostRace(_)) => {}
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

fn published(statement: &Statement, trust: Option<&Rules>, as_json: bool) {
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

#[derive(Args)]
pub(super) struct Sign {
    /// The statement; the signature is added to the file
    file: PathBuf,
    /// The private key
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
}

impl Sign {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let signers = self.keys.iter().map(|file| keys::read_private(file)).collect::<Result<Vec<_>, _>>()?;
        let statement = sign_all(read(&self.file)?, &signers)?;
        let directory = self.file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let context = || format!("cannot write {}", self.file.display());
        let mut new = tempfile::NamedTempFile::new_in(directory).with_context(context)?;
        new.write_all(statement.octets()).with_context(context)?;
        new.persist(&self.file).with_context(context)?;
        output::line(&format!("{} has {} signature(s)", statement.id(), statement.signatures().len()));
        Ok(())
    }
}

#[derive(Args)]
pub(super) struct Publish {
    /// The signed statements, in their order
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    from: From,
    /// Print JSON about what was published
    #[arg(long)]
    json: bool,
}

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // Everything is read and checked before anything is sent.
        let statements = self.files.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<_>>>()?;
        for (file, statement) in self.files.iter().zip(&statements) {
            ensure!(!statement.signatures().is_empty(), "{} is not signed; `tidings sign` adds a signature", file.display());
        }
        let mut publisher = Publisher::connect(self.from.source()?).await?;
        for statement in &statements {
            publisher.publish(statement).await?;
            published(statement, publisher.trust(), self.json);
        }
        Ok(())
    }
}

fn sign_all(mut statement: Statement, signers: &[SigningKey]) -> anyhow::Result<Statement> {
    for key in signers {
        statement = statement.sign(key)?;
    }
    Ok(statement)
}

pub(super) fn read(path: &Path) -> anyhow::Result<Statement> {
    let octets = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Statement::parse_draft(&octets).with_context(|| format!("{} is no statement", path.display()))
}

fn write_new(path: &Path, octets: &[u8]) -> anyhow::Result<()> {
    let context = || format!("cannot write {}; it must not exist yet", path.display());
    let mut file = fs::File::create_new(path).with_context(context)?;
    file.write_all(octets).with_context(context)
}
