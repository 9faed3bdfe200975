//! Trust: who may say what, made once, looked at, and as files that go round among people who never
//! meet.
//!
//! A trust log is a bundle of all its statements; the last of them may still lack signatures, and
//! what its checkpoints name may follow. That one file goes round.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use tidings_client::{Anchor, Channel, Device, Serial, Source, State, Statement, Survey, survey};
use tidings_protocol::{
    Namespace,
    statement::{Body, Draft, Kind, NamedKey, Role, TrustRules},
};

use super::{
    From,
    ceremony::{self, difference, namespace, rules, thresholds},
    edit::{Edit, Renew},
    exit::Exit,
    files::{self, read_bundle, sign_all, write_new},
    key, output,
    publishing::time,
    sign::trust_log,
};

pub(super) const DAY: u64 = 86_400;

#[derive(Subcommand)]
pub(super) enum Trust {
    /// Make the first trust statement of a namespace, and print the anchor line for devices and
    /// brokers
    Init(Init),
    /// Write the trust log of a namespace, from a broker, into a file
    Log(Log),
    /// Add the next statement to a trust log, as text in an editor, for its signers to sign
    #[command(alias = "change")]
    Edit(Box<Edit>),
    /// Add a statement that says the same for longer to a trust log, for its signers to sign
    Renew(Box<Renew>),
    /// Show what the newest trust statement of a file says and changes, who has signed it, and who
    /// is missing
    Show {
        /// A trust log, or one statement
        file: PathBuf,
        #[command(flatten)]
        from: Box<From>,
    },
}

#[derive(Args)]
pub(super) struct Init {
    /// The namespace, e.g. baserock
    namespace: Namespace,
    /// A key and its name; public or private, repeatable. NAME=agent:[KEY] is one of ssh-agent
    #[arg(long = "key", value_name = "NAME=FILE", required = true)]
    keys: Vec<String>,
    /// Who signs what: `KIND PATTERN THRESHOLD NAME…`, e.g. 'release * 2 ann bob cem'; repeatable.
    /// Without any, every key may sign everything alone
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

#[derive(Args)]
pub(super) struct Log {
    #[command(flatten)]
    from: From,
    /// Where it goes; it must not exist yet
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

impl Trust {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Trust::Init(init) => init.run(),
            Trust::Log(log) => log.run().await,
            Trust::Edit(edit) => edit.run().await,
            Trust::Renew(renew) => renew.run().await,
            Trust::Show { file, from } => show(read_bundle(&file)?, &from),
        }
    }
}

fn name_and_file(text: &str) -> anyhow::Result<(&str, &Path)> {
    let (name, file) = text
        .split_once('=')
        .with_context(|| format!("expected NAME=FILE, found {text:?}"))?;
    Ok((name, file.as_ref()))
}

pub(super) fn named_key(text: &str) -> anyhow::Result<NamedKey> {
    let (name, file) = name_and_file(text)?;
    Ok(NamedKey {
        key: key::public(file)?,
        name: name.into(),
    })
}

pub(super) fn role(text: &str) -> anyhow::Result<Role> {
    let wrong = || {
        Exit::Usage.because(format!(
            "--role: expected `KIND PATTERN THRESHOLD NAME…`, found {text:?}"
        ))
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, pattern, threshold, names @ ..] = &words[..] else {
        return Err(wrong());
    };
    let kind = kind.parse().map_err(|_| wrong())?;
    let names = names.iter().map(|n| (*n).to_owned()).collect();
    Ok(Role {
        kind,
        pattern: pattern.parse()?,
        threshold: threshold.parse().map_err(|_| wrong())?,
        names,
    })
}

/// The first statement of a namespace, signed by those of its keys that are here.
pub(super) fn first(
    namespace: &Namespace,
    keys: Vec<NamedKey>,
    roles: Vec<Role>,
    days: u32,
    signers: &[key::Signer],
) -> anyhow::Result<Statement> {
    let time = time()?;
    let rules = TrustRules {
        expires: time.plus(u64::from(days) * DAY),
        keys,
        roles,
        checkpoints: vec![],
        closed: vec![],
    };
    let draft = Draft {
        channel: namespace.trust_log(),
        after: None,
        time,
        trust: None,
        body: Body::Trust(rules),
    };
    sign_all(draft.write()?, signers)
}

impl Init {
    fn run(self) -> anyhow::Result<()> {
        let (mut keys, mut signers) = (Vec::new(), Vec::new());
        for text in &self.keys {
            let (name, file) = name_and_file(text).context("--key")?;
            let key = if self.sign && key::is_private(file) {
                let signer = key::signer(file)?;
                let public = signer.public();
                signers.push(signer);
                public
            } else {
                key::public(file)?
            };
            keys.push(NamedKey {
                key,
                name: name.into(),
            });
        }
        let none = || {
            Exit::Usage.because(
                "--sign: none of the keys is a private one; leave it out, and `tidings sign` later",
            )
        };
        ensure!(!self.sign || !signers.is_empty(), none());
        let roles = if self.roles.is_empty() {
            let names: Vec<String> = keys.iter().map(|k| k.name.clone()).collect();
            let every = |kind| {
                Ok(Role {
                    kind,
                    pattern: "*".parse()?,
                    threshold: 1,
                    names: names.clone(),
                })
            };
            Kind::ALL
                .map(every)
                .into_iter()
                .collect::<anyhow::Result<_>>()?
        } else {
            self.roles
                .iter()
                .map(|text| role(text))
                .collect::<anyhow::Result<_>>()?
        };
        let statement = first(&self.namespace, keys, roles, self.expires, &signers)?;
        write_new(&self.out, statement.octets())?;
        print_anchor(&Anchor {
            namespace: self.namespace,
            head: statement.head(),
        });
        Ok(())
    }
}

fn print_anchor(anchor: &Anchor) {
    output::answer(
        || json!({"anchor": anchor.to_string()}),
        || anchor.to_string(),
    );
}

/// Print the anchor line that new devices and brokers get: the newest trust statement of a
/// namespace
///
/// Every trust statement can be an anchor; with the newest, keys that were taken away before have
/// no power over a device that begins with it.
#[derive(Args)]
pub(super) struct ShowAnchor {
    /// A trust log in a file; without it, a broker is asked
    file: Option<PathBuf>,
    #[command(flatten)]
    from: From,
}

impl ShowAnchor {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        if let Some(path) = &self.file {
            let log = trust_log(read_bundle(path)?, &self.from)?;
            let none = || {
                Exit::Refused.because(format!(
                    "no trust statement in {} is in force: signatures are missing",
                    path.display()
                ))
            };
            let head = log.trust().ok_or_else(none)?.head();
            print_anchor(&Anchor {
                namespace: log.anchor.namespace,
                head,
            });
            return Ok(());
        }
        let source = self.from.source()?;
        let (namespace, state) = (
            source.anchor().namespace.clone(),
            State::ephemeral(source.anchor()),
        );
        let mut device = Device::with_state(source, [], state)?;
        let head = device.trust().await?.head();
        print_anchor(&Anchor { namespace, head });
        Ok(())
    }
}

/// The trust log of the namespace, as a broker has it, from its first statement on.
pub(super) async fn read_log(source: Source) -> anyhow::Result<Vec<Statement>> {
    let channel = source.anchor().namespace.trust_log();
    let state = State::ephemeral(source.anchor());
    let log = Device::with_state(source, [], state)?
        .history(&channel, Serial::FIRST)
        .await?;
    Ok(log
        .into_iter()
        .map(|statement| statement.into_inner())
        .collect())
}

impl Log {
    async fn run(self) -> anyhow::Result<()> {
        let source = self.from.source()?;
        let channel = source.anchor().namespace.trust_log();
        let log = read_log(source).await?;
        write_new(&self.out, &files::bundle(&log))?;
        let count = log.len();
        output::answer(
            || json!({"channel": channel.as_str(), "statements": count}),
            || format!("{count} statement(s) of {channel}"),
        );
        Ok(())
    }
}

/// Says which brokers could not be asked; fails if none could.
pub(super) fn usable(survey: &Survey) -> anyhow::Result<()> {
    for seen in &survey.0 {
        if let Err(error) = &seen.view {
            output::note(&format!("{} could not be asked: {error}", seen.address));
        }
    }
    ensure!(
        survey.views().next().is_some(),
        Exit::NoBroker.because("no broker could be asked; nothing was signed")
    );
    Ok(())
}

/// Refuses to go on if a broker has this serial of a trust log already (attack 30).
pub(super) fn not_taken(
    survey: &Survey,
    log: &Channel,
    serial: Option<Serial>,
) -> anyhow::Result<()> {
    let ahead = survey.views().find(|(_, view)| {
        view.trust()
            .is_some_and(|trust| Some(trust.serial()) >= serial)
    });
    if let (Some((address, view)), Some(serial)) = (ahead, serial) {
        let has = view.trust().map_or(serial, |trust| trust.serial());
        let text = format!(
            "{address} has {log} {has} already: {serial} must not be signed again; begin with `tidings trust log`"
        );
        return Err(Exit::Refused.because(text));
    }
    Ok(())
}

/// Before a signature is added to a statement of a trust log: whether a broker has its serial
/// already.
pub(super) async fn check_serial(source: &Source, statement: &Statement) -> anyhow::Result<()> {
    let survey = survey(source, &[source.anchor().namespace.trust_log()]).await;
    usable(&survey)?;
    not_taken(&survey, statement.channel(), Some(statement.serial()))
}

fn show(mut statements: Vec<Statement>, from: &From) -> anyhow::Result<()> {
    statements.retain(|statement| statement.kind() == Kind::Trust);
    let statement = statements
        .last()
        .cloned()
        .context("there is no trust statement in the file")?;
    // A statement alone can be shown, but not what it changes.
    let log = if statements.len() == 1 {
        None
    } else {
        Some(trust_log(statements, from)?)
    };
    let alone = log.is_none() && statement.serial() != Serial::FIRST;
    let before = log.as_ref().and_then(|log| log.newest().1);
    let thresholds = thresholds(before, &statement)?;
    let enough = !alone
        && thresholds
            .iter()
            .all(|threshold| threshold.have.len() >= threshold.needed);
    let in_force = match &log {
        Some(log) => log.trust().map(|trust| trust.head()),
        None => (!alone).then(|| statement.head()),
    };
    let anchor = in_force.map(|head| {
        let namespace = namespace(&statement)?;
        Ok::<_, anyhow::Error>(Anchor { namespace, head })
    });
    let anchor = anchor.transpose()?;
    let rules = rules(&statement)?;
    if output::is_json() {
        let mut value = ceremony::as_json(&statement, thresholds);
        value["anchor"] = json!(anchor.map(|a| a.to_string()));
        let signed = rules
            .keys
            .iter()
            .filter(|key| statement.is_truly_signed_by(&key.key));
        value["signed_by"] = signed.map(|key| key.name.clone()).collect();
        value["enough"] = json!(enough);
        value["changes"] = json!(before.map(|before| difference(before.rules(), rules)));
        output::object(&value);
        return Ok(());
    }
    ceremony::print(before, &statement)?;
    print_rules(&statement, rules);
    if let Some(anchor) = anchor {
        output::line(&format!("anchor: {anchor}"));
    }
    if alone {
        output::line(
            "what it changes, and whether the trust before allows it, is only to be seen in one file with its trust log",
        );
    } else if !enough {
        output::line("not in force: signatures are missing");
    }
    Ok(())
}

/// Keys, and roles.
fn print_rules(statement: &Statement, rules: &TrustRules) {
    let signed = |key: &NamedKey| {
        if statement.is_truly_signed_by(&key.key) {
            "has signed"
        } else {
            ""
        }
    };
    let keys = rules
        .keys
        .iter()
        .map(|key| vec![key.name.clone(), key.key.to_string(), signed(key).into()]);
    output::table(&["key", "", ""], keys.collect());
    let roles = rules.roles.iter().map(|r| {
        vec![
            r.kind.to_string(),
            r.pattern.to_string(),
            format!("{} of {}", r.threshold, r.names.join(", ")),
        ]
    });
    output::table(&["role", "channels", "signatures"], roles.collect());
}
