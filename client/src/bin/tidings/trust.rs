//! The ceremony: who may say what, changed by people who never have to meet on one machine.
//!
//! A trust log is a bundle of all its statements; the last of them may still lack signatures. That one file goes round.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use tidings_client::{Channel, Head, Serial, Source, Statement, Survey, now, survey};
use tidings_protocol::{
    Anchor, MessageId, Namespace,
    limits::STATEMENT_OCTETS,
    statement::{Body, Checkpoint, Draft, Kind, NamedKey, Role, TrustRules},
};

use super::{
    From, ceremony,
    ceremony::{difference, namespace, rules, thresholds, walk},
    files::{read_bundle, sign_all, write_new},
    key, output,
};

const DAY: u64 = 86_400;

#[derive(Subcommand)]
pub(super) enum Trust {
    /// Make the first trust statement of a namespace, and print the anchor line for devices and brokers
    Init(Init),
    /// Write the trust log of a namespace, from a broker, into a file: what a change begins with
    Log(Log),
    /// Add a change of keys, roles or checkpoints to a trust log, for its signers to sign
    Change(Change),
    /// Add a statement that says the same for longer to a trust log, for its signers to sign
    Renew(Renew),
    /// Show what the newest trust statement of a file says and changes, who has signed it, and who is missing
    Show {
        /// A trust log, or one statement
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(super) struct Init {
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

#[derive(Args)]
pub(super) struct Log {
    #[command(flatten)]
    from: From,
    /// Where it goes; it must not exist yet
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

/// Where a change comes from and goes to.
#[derive(Args)]
struct Paper {
    /// The trust log, from `tidings trust log`, or the file of `tidings trust init`
    log: PathBuf,
    /// Where the log with its new statement goes; it must not exist yet
    #[arg(long, short, value_name = "FILE", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// For how many days it holds, from now on
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    expires: u32,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    from: From,
}

#[derive(Args)]
pub(super) struct Change {
    #[command(flatten)]
    paper: Paper,
    /// A new key and its name; repeatable
    #[arg(long = "add-key", value_name = "NAME=FILE")]
    add_keys: Vec<String>,
    /// The name of a key that goes, from all roles too; repeatable
    #[arg(long = "remove-key", value_name = "NAME")]
    remove_keys: Vec<String>,
    /// A new role, or one that replaces that of the same kind and pattern: `KIND PATTERN THRESHOLD NAME…`; repeatable
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A role that goes: `KIND PATTERN`; repeatable
    #[arg(long = "remove-role", value_name = "ROLE")]
    remove_roles: Vec<String>,
    /// Settle a fork: `CHANNEL SERIAL ID` is part of the log; repeatable. Those that a lost key makes necessary are found by
    /// asking the brokers
    #[arg(long = "checkpoint", value_name = "PLACE")]
    checkpoints: Vec<String>,
    /// Do not ask brokers; channels whose signers lose a key then cannot be verified by new devices until they have news
    #[arg(long)]
    offline: bool,
}

#[derive(Args)]
pub(super) struct Renew {
    #[command(flatten)]
    paper: Paper,
}

impl Trust {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Trust::Init(init) => init.run(),
            Trust::Log(log) => log.run().await,
            Trust::Change(change) => change.run().await,
            Trust::Renew(Renew { paper }) => {
                let change = Change {
                    paper,
                    add_keys: vec![],
                    remove_keys: vec![],
                    roles: vec![],
                    remove_roles: vec![],
                    checkpoints: vec![],
                    offline: false,
                };
                change.renew().await
            }
            Trust::Show { file, json } => show(&read_bundle(&file)?, json),
        }
    }
}

fn named_key(text: &str) -> anyhow::Result<(NamedKey, PathBuf)> {
    let (name, file) = text.split_once('=').with_context(|| format!("expected NAME=FILE, found {text:?}"))?;
    Ok((NamedKey { key: key::public(file.as_ref())?, name: name.into() }, file.into()))
}

fn role(text: &str) -> anyhow::Result<Role> {
    let wrong = || format!("--role: expected `KIND PATTERN THRESHOLD NAME…`, found {text:?}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, pattern, threshold, names @ ..] = &words[..] else { bail!(wrong()) };
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == *kind).with_context(wrong)?;
    let names = names.iter().map(|n| (*n).to_owned()).collect();
    Ok(Role { kind, pattern: pattern.parse()?, threshold: threshold.parse().with_context(wrong)?, names })
}

impl Init {
    fn run(self) -> anyhow::Result<()> {
        let time = now();
        let mut rules = TrustRules {
            expires: time.plus(u64::from(self.expires) * DAY),
            keys: vec![],
            roles: vec![],
            checkpoints: vec![],
            closed: vec![],
        };
        let mut signers = Vec::new();
        for text in &self.keys {
            let (named, file) = named_key(text).context("--key")?;
            if self.sign && fs::read_to_string(&file).is_ok_and(|text| text.starts_with("-----BEGIN")) {
                signers.push(key::private(&file)?);
            }
            rules.keys.push(named);
        }
        ensure!(!self.sign || !signers.is_empty(), "--sign: none of the keys is a private one; leave it out, and `tidings sign` later");
        rules.roles = if self.roles.is_empty() {
            let names: Vec<String> = rules.keys.iter().map(|k| k.name.clone()).collect();
            let every = |kind| Ok(Role { kind, pattern: "*".parse()?, threshold: 1, names: names.clone() });
            Kind::ALL.map(every).into_iter().collect::<anyhow::Result<_>>()?
        } else {
            self.roles.iter().map(|text| role(text)).collect::<anyhow::Result<_>>()?
        };
        let draft = Draft { channel: self.namespace.trust_log(), after: None, time, trust: None, body: Body::Trust(rules) };
        let statement = sign_all(draft.write()?, &signers)?;
        write_new(&self.out, statement.octets())?;
        output::line(&Anchor { namespace: self.namespace, head: statement.head() }.to_string());
        Ok(())
    }
}

impl Log {
    async fn run(self) -> anyhow::Result<()> {
        let source = self.from.source()?;
        let channel = source.anchor().namespace.trust_log();
        let state = tidings_client::State::ephemeral(source.anchor());
        let mut device = tidings_client::Device::with_state(source, [], state)?;
        let log = device.history(&channel, Serial::FIRST).await?;
        let octets: Vec<u8> = log.iter().flat_map(|statement| statement.octets().iter().copied()).collect();
        write_new(&self.out, &octets)?;
        output::line(&format!("{} statement(s) of {channel}", log.len()));
        Ok(())
    }
}

impl Change {
    fn is_empty(&self) -> bool {
        self.add_keys.is_empty()
            && self.remove_keys.is_empty()
            && self.roles.is_empty()
            && self.remove_roles.is_empty()
            && self.checkpoints.is_empty()
    }

    async fn run(self) -> anyhow::Result<()> {
        ensure!(!self.is_empty(), "nothing would change; `tidings trust renew` makes it hold for longer");
        self.write().await
    }

    async fn renew(self) -> anyhow::Result<()> {
        self.write().await
    }

    async fn write(self) -> anyhow::Result<()> {
        let work = walk(read_bundle(&self.paper.log)?, self.paper.from.anchor()?.as_ref())?;
        ensure!(
            work.pending.is_none(),
            "the last statement in {} still needs signatures (`tidings trust show`); a change follows a statement that is in force",
            self.paper.log.display()
        );
        let trust = work.trust().context("there is no trust in force in the file")?;
        let old = trust.rules();
        let mut new = self.edit(old)?;
        let survey = self.survey(&work.anchor).await?;
        if let Some(survey) = &survey {
            not_taken(survey, &trust.statement().channel().clone(), trust.serial().next())?;
            self.look_up(&work.anchor, old).await?;
            let found = checkpoints(survey, &work.anchor.namespace, old, &mut new)?;
            found.iter().for_each(|line| output::note(line));
            if !found.is_empty() {
                output::note("a checkpoint vouches for what it names and all below: withdraw first what should not be there");
            }
        } else if new.keys.len() < old.keys.len() || !self.remove_keys.is_empty() {
            output::note("no broker was asked: no checkpoints for channels whose newest statement only a lost key has signed");
        }
        for kind in [Kind::Release, Kind::Withdraw, Kind::Beat] {
            let has = |rules: &TrustRules| rules.roles.iter().any(|role| role.kind == kind);
            if has(old) && !has(&new) {
                let what =
                    if kind == Kind::Beat { "; devices will install without any confirmation that nothing is held back" } else { "" };
                output::note(&format!("nobody may sign a {kind} any more{what}"));
            }
        }
        let body = Body::Trust(new);
        let draft = Draft { channel: trust.statement().channel().clone(), after: Some(trust.head()), time: now(), trust: None, body };
        let statement = draft.write().with_context(|| {
            format!("the change does not fit into a trust statement of {STATEMENT_OCTETS} octets, or contradicts itself")
        })?;
        if let (Some(out), false) = (&self.paper.out, self.paper.dry_run) {
            let mut octets: Vec<u8> = work.log.iter().flat_map(|statement| statement.octets().iter().copied()).collect();
            octets.extend_from_slice(statement.octets());
            write_new(out, &octets)?;
        }
        ceremony::print(Some(trust), &statement)?;
        Ok(())
    }

    fn edit(&self, old: &TrustRules) -> anyhow::Result<TrustRules> {
        let mut new = TrustRules { expires: now().plus(u64::from(self.paper.expires) * DAY), ..old.clone() };
        for name in &self.remove_keys {
            let before = new.keys.len();
            new.keys.retain(|key| key.name != *name);
            ensure!(new.keys.len() < before, "--remove-key: there is no key {name:?}; there are {}", names(old));
            new.roles.iter_mut().for_each(|role| role.names.retain(|known| known != name));
        }
        for text in &self.add_keys {
            let (named, _) = named_key(text).context("--add-key")?;
            let same = new.keys.iter().find(|key| key.name == named.name || key.key == named.key);
            ensure!(same.is_none(), "--add-key: {:?} is there already, as name or as key", named.name);
            new.keys.push(named);
        }
        for text in &self.remove_roles {
            let words: Vec<&str> = text.split_whitespace().collect();
            let before = new.roles.len();
            new.roles.retain(|role| [role.kind.as_str(), &role.pattern.to_string()] != words[..]);
            ensure!(new.roles.len() < before, "--remove-role: expected `KIND PATTERN` of a role that is there, found {text:?}");
        }
        for text in &self.roles {
            let role = role(text)?;
            match new.roles.iter_mut().find(|known| known.kind == role.kind && known.pattern == role.pattern) {
                Some(known) => *known = role,
                None => new.roles.push(role),
            }
        }
        if let Some(role) = new.roles.iter().find(|role| role.names.len() < role.threshold) {
            bail!(
                "the role `{} {}` needs {} signatures and has {} key(s) left; say with --role who signs there now, or --remove-role",
                role.kind,
                role.pattern,
                role.threshold,
                role.names.len()
            );
        }
        for text in &self.checkpoints {
            let (channel, head) = checkpoint(text)?;
            settle(&mut new, channel, head);
        }
        Ok(new)
    }

    async fn survey(&self, anchor: &Anchor) -> anyhow::Result<Option<Survey>> {
        if self.offline {
            return Ok(None);
        }
        ensure!(
            !self.paper.from.brokers.is_empty(),
            "which brokers? their heads tell which checkpoints are needed, and that the serial is free: give --broker URL, or --offline"
        );
        let source = self.paper.from.source_of(anchor)?;
        let survey = survey(&source, &[]).await;
        usable(&survey)?;
        Ok(Some(survey))
    }
}

impl Change {
    /// What is called a checkpoint must be there: a wrong one stops its channel for everybody.
    async fn look_up(&self, anchor: &Anchor, old: &TrustRules) -> anyhow::Result<()> {
        for text in &self.checkpoints {
            let (channel, head) = checkpoint(text)?;
            if let Some(known) = old.checkpoints.iter().find(|known| known.channel == channel && known.head.serial > head.serial) {
                bail!("--checkpoint: {channel} has one at {} already, and none goes back", known.head.serial);
            }
            ensure!(
                !channel.is_beat() && anchor.namespace.contains(&channel),
                "--checkpoint: {channel} needs none: it is a beat, or of another namespace"
            );
            let source = self.paper.from.source_of(anchor)?;
            ensure!(
                find(&source, &channel, head).await,
                "--checkpoint: no broker that was asked has {channel} {head}; a checkpoint that nobody has stops the channel for everybody"
            );
        }
        Ok(())
    }
}

fn checkpoint(text: &str) -> anyhow::Result<(Channel, Head)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [channel, serial, id] = &words[..] else { bail!("--checkpoint: expected `CHANNEL SERIAL ID`, found {text:?}") };
    Ok((channel.parse()?, Head { serial: serial.parse()?, id: id.parse()? }))
}

/// Whether some broker has the very statement.
pub(super) async fn find(source: &Source, channel: &Channel, head: Head) -> bool {
    let id = MessageId { channel: channel.clone(), serial: head.serial, id: head.id }.to_string();
    for one in source.each() {
        let asked = async {
            let mut connection = one.connect().await?;
            connection.group(channel, Some(head.serial)).await
        };
        if let Ok(Some((_, Some(found)))) = asked.await
            && found == id
        {
            return true;
        }
    }
    false
}

/// Says which brokers could not be asked; fails if none could.
fn usable(survey: &Survey) -> anyhow::Result<()> {
    for seen in &survey.0 {
        if let Err(error) = &seen.view {
            output::note(&format!("{} could not be asked: {error}", seen.address));
        }
    }
    ensure!(survey.views().next().is_some(), "no broker could be asked; nothing was signed");
    Ok(())
}

fn names(rules: &TrustRules) -> String {
    rules.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn settle(rules: &mut TrustRules, channel: Channel, head: Head) {
    rules.checkpoints.retain(|known| known.channel != channel);
    rules.checkpoints.push(Checkpoint { channel, head });
}

/// Refuses to go on if a broker has this serial of a trust log already (attack 30).
fn not_taken(survey: &Survey, log: &Channel, serial: Option<Serial>) -> anyhow::Result<()> {
    let ahead = survey.views().find(|(_, view)| view.trust().is_some_and(|trust| Some(trust.serial()) >= serial));
    if let (Some((address, view)), Some(serial)) = (ahead, serial) {
        let has = view.trust().map_or(serial, |trust| trust.serial());
        bail!("{address} has {log} {has} already: {serial} must not be signed again; begin with `tidings trust log`");
    }
    Ok(())
}

/// [3-13]: a checkpoint for each channel whose signers lose a key, at the head on which all brokers agree.
fn checkpoints(survey: &Survey, namespace: &Namespace, old: &TrustRules, new: &mut TrustRules) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for seen in &survey.0 {
        for (channel, error) in &seen.failed {
            output::note(&format!(
                "{}: its newest statement of {channel} is not accepted now already, and vouched for by nobody: {error}",
                seen.address
            ));
        }
    }
    for channel in survey.channels() {
        let explicit = new.checkpoints.iter().any(|c| c.channel == channel && !old.checkpoints.contains(c));
        // What only an earlier checkpoint proves needs one in every statement to come; those are carried on.
        if explicit || !new.narrows(old, &channel, namespace) {
            continue;
        }
        let Some(newest) = survey.agreed(&channel)? else { continue };
        settle(new, channel.clone(), newest.head());
        found.push(format!("checkpoint for {channel}, whose signers lose a key: {}", output::summary(&newest, survey.trust())));
    }
    Ok(found)
}

fn show(statements: &[Statement], as_json: bool) -> anyhow::Result<()> {
    let statement = statements.last().context("there is no statement in the file")?;
    let rules = rules(statement)?;
    // A statement alone can be shown, but not what it changes.
    let work = if statements.len() == 1 { None } else { Some(walk(statements.to_vec(), None)?) };
    let alone = work.is_none() && statement.serial() != Serial::FIRST;
    let before = work.as_ref().and_then(|work| work.newest().1.cloned());
    let in_force = work.as_ref().map_or((!alone).then(|| statement.head()), |work| work.trust().map(|trust| trust.head()));
    let anchor = in_force.map(|head| Ok::<_, anyhow::Error>(Anchor { namespace: namespace(statement)?, head })).transpose()?;
    let thresholds = thresholds(before.as_ref(), statement)?;
    let enough = !alone && thresholds.iter().all(|threshold| threshold.have.len() >= threshold.needed);
    if as_json {
        let mut value = output::json(statement, None);
        value["anchor"] = json!(anchor.map(|a| a.to_string()));
        let signed = rules.keys.iter().filter(|key| statement.is_truly_signed_by(&key.key));
        value["signed_by"] = signed.map(|key| key.name.clone()).collect();
        value["enough"] = json!(enough);
        value["missing"] = thresholds.iter().filter(|t| t.have.len() < t.needed).flat_map(|t| t.missing.clone()).collect();
        value["changes"] = json!(before.as_ref().map(|before| difference(before.rules(), rules)));
        output::line(&value.to_string());
        return Ok(());
    }
    ceremony::print(before.as_ref(), statement)?;
    let signed = |key: &NamedKey| if statement.is_truly_signed_by(&key.key) { "has signed" } else { "" };
    let keys = rules.keys.iter().map(|key| vec![key.name.clone(), key.key.to_string(), signed(key).into()]);
    output::table(&["key", "", ""], keys.collect());
    let roles =
        rules.roles.iter().map(|r| vec![r.kind.to_string(), r.pattern.to_string(), format!("{} of {}", r.threshold, r.names.join(", "))]);
    output::table(&["role", "channels", "signatures"], roles.collect());
    if let Some(anchor) = anchor {
        output::line(&format!("anchor: {anchor}"));
    }
    if alone {
        output::line("what it changes, and whether the trust before allows it, is only to be seen in one file with its trust log");
    } else if !enough {
        output::line("not in force: signatures are missing");
    }
    Ok(())
}

/// Before a signature is added to a statement of a trust log: whether a broker has its serial already.
pub(super) async fn check_serial(source: &Source, statement: &Statement) -> anyhow::Result<()> {
    let survey = survey(source, &[source.anchor().namespace.trust_log()]).await;
    usable(&survey)?;
    not_taken(&survey, statement.channel(), Some(statement.serial()))
}
