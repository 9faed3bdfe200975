//! The next trust statement: as text in an editor, from a file, or by the options that scripts use.

mod change;

use std::{fs, io::IsTerminal, path::PathBuf};

use anyhow::{Context, ensure};
use change::Change;
use clap::Args;
use serde_json::json;
use tidings_client::{Channel, Source, Statement, Survey, survey};
use tidings_protocol::{
    Anchor, StatementError,
    limits::STATEMENT_OCTETS,
    statement::{Body, Draft, TrustRules},
    trust::Trust,
};

use super::{
    From, ceremony, checkpoints, editor,
    exit::Exit,
    files::{self, read_bundle, write_new},
    output,
    publishing::time,
    sign::trust_log,
    trust::{DAY, not_taken, read_log, usable},
};

/// The fields that are made anew, whatever the text says.
const FIXED: &[&str] = &["Tidings", "Channel", "Serial", "Previous", "Time"];
/// A channel that a new `Closed` line hits is shown, at most so many of them.
const SHOWN: usize = 20;

const HELP: &str = "\
# The next trust statement of the namespace: change what is to change, and leave the editor. Lines with # are left out.
#
#   Expires: TIME                        from then on nothing is installed until there is a newer statement
#   Key: ed25519:KEY NAME                `tidings key show FILE` prints the key
#   Role: KIND PATTERN THRESHOLD NAME…   trust, release, withdraw or beat; of several patterns that match, the most specific counts
#   Checkpoint: CHANNEL SERIAL ID        settles a fork: this statement is part of the log. Those that a lost key makes necessary
#                                        are added by themselves
#   Closed: PATTERN [CHANNEL…]           closes channels for good, but for those that are listed; such lines are never taken away
";

/// Where a change comes from and goes to.
#[derive(Args)]
struct Paper {
    /// The trust log, from `tidings trust log` or `tidings trust init`; without it, it is read from
    /// a broker
    log: Option<PathBuf>,
    /// Where the log with its new statement goes; it must not exist yet
    #[arg(long, short, value_name = "FILE", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// For how many days it holds, from now on, unless the text says otherwise
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    expires: u32,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask brokers; channels whose signers lose a key then cannot be verified by new devices
    /// until they have news
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    brokers: From,
}

/// What goes into the editor comes back as the draft of the next statement: checkpoints that it
/// needs are added, from the heads that all brokers show when the editor is left, the statements
/// that prove them go with it, and who has to sign is shown.
#[derive(Args)]
pub(super) struct Edit {
    #[command(flatten)]
    paper: Paper,
    /// Take the text from a file, not from an editor; `-` is standard input
    #[arg(long = "from", value_name = "FILE", conflicts_with = "change")]
    text: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

#[derive(Args)]
pub(super) struct Renew {
    #[command(flatten)]
    paper: Paper,
}

impl Renew {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        self.paper.write(|trust| self.paper.renewed(trust)).await
    }
}

impl Edit {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        self.paper.write(|trust| self.rules(trust)).await
    }

    /// What the next statement says, but for the checkpoints that are found.
    fn rules(&self, trust: &Trust) -> anyhow::Result<TrustRules> {
        let mut rules = self.paper.renewed(trust)?;
        if let Some(path) = &self.text {
            let text = match path.as_os_str().to_str() {
                Some("-") => std::io::read_to_string(std::io::stdin())
                    .context("cannot read the text from standard input")?,
                _ => fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?,
            };
            return parse(trust, &text)
                .with_context(|| format!("{} is no trust statement", path.display()));
        }
        if !self.change.is_empty() {
            self.change.apply(trust.rules(), &mut rules)?;
            return Ok(rules);
        }
        let how = || {
            Exit::Usage.because("nothing would change: without a terminal there is no editor; give --from FILE, or `tidings trust renew` to say the same for longer")
        };
        ensure!(
            std::io::stdin().is_terminal() || editor::named().is_some(),
            how()
        );
        in_editor(trust, &rules)
    }
}

impl Paper {
    fn renewed(&self, trust: &Trust) -> anyhow::Result<TrustRules> {
        Ok(TrustRules {
            expires: time()?.plus(u64::from(self.expires) * DAY),
            ..trust.rules().clone()
        })
    }

    async fn write(
        &self,
        rules: impl FnOnce(&Trust) -> anyhow::Result<TrustRules>,
    ) -> anyhow::Result<()> {
        let file = match &self.log {
            Some(path) => trust_log(read_bundle(path)?, &self.brokers)?,
            None => ceremony::walk(
                read_log(self.brokers.source()?).await?,
                self.brokers.anchor()?.as_ref(),
            )?,
        };
        if let Some(pending) = &file.pending {
            return Err(Exit::Refused.because(format!(
                "trust {} in the file still needs signatures (`tidings trust show`); a change follows a statement that is in force",
                pending.serial()
            )));
        }
        let trust = file
            .trust()
            .context("there is no trust in force in the file")?;
        let mut rules = rules(trust)?;
        let closed = new_closed(trust, &rules)?;
        no_step_back(trust, &rules)?;
        let survey = self.survey(&file.anchor).await?;
        let mut evidence = Vec::new();
        if let Some((source, survey)) = &survey {
            not_taken(survey, trust.statement().channel(), trust.serial().next())?;
            closed.iter().for_each(|line| show_closed(line, survey));
            let room = checkpoints::room(draft(trust, rules.clone())?.octets().len());
            evidence = checkpoints::add(source, trust, &mut rules, survey, room).await?;
            checkpoints::lost_withdrawals(source, trust, &rules, survey).await?;
        } else {
            output::note(
                "no broker was asked: no checkpoints for channels whose newest statement only a lost key has signed",
            );
        }
        checkpoints::advise(trust.rules(), &rules);
        let statement = draft(trust, rules)?;
        if survey.is_some() {
            checkpoints::verify(trust, &statement, &evidence)?;
        }
        if let (Some(out), false) = (&self.out, self.dry_run) {
            write_new(
                out,
                &files::bundle(file.log.iter().chain([&statement]).chain(&evidence)),
            )?;
        }
        if output::is_json() {
            let changes = ceremony::difference(trust.rules(), ceremony::rules(&statement)?);
            output::object(
                &json!({"statement": output::json(&statement, None), "changes": changes}),
            );
            return Ok(());
        }
        ceremony::print(Some(trust), &statement)
    }

    async fn survey(&self, anchor: &Anchor) -> anyhow::Result<Option<(Source, Survey)>> {
        if self.offline {
            return Ok(None);
        }
        let which = || {
            Exit::Usage.because("which brokers? their heads tell which checkpoints are needed, and that the serial is free: give --broker URL, or --offline")
        };
        ensure!(!self.brokers.brokers.is_empty(), which());
        let source = self.brokers.source_of(anchor)?;
        let survey = survey(&source, &[]).await;
        usable(&survey)?;
        for seen in &survey.0 {
            for (channel, error) in &seen.failed {
                output::note(&format!(
                    "{}: its newest statement of {channel} is not accepted now already, and vouched for by nobody: {error}",
                    seen.address
                ));
            }
        }
        Ok(Some((source, survey)))
    }
}

/// No checkpoint goes back, and none is given for what needs none.
fn no_step_back(trust: &Trust, rules: &TrustRules) -> anyhow::Result<()> {
    for line in rules
        .checkpoints
        .iter()
        .filter(|line| !trust.rules().checkpoints.contains(line))
    {
        let (channel, serial) = (&line.channel, line.head.serial);
        let before = trust
            .rules()
            .checkpoints
            .iter()
            .find(|known| known.channel == *channel);
        if let Some(known) = before.filter(|known| known.head.serial > serial) {
            return Err(Exit::Refused.because(format!(
                "--checkpoint: {channel} has one at {} already, and none goes back",
                known.head.serial
            )));
        }
        let none = "needs none: lines for beats are added by themselves where they are needed, and other namespaces have their own trust";
        ensure!(
            !channel.is_beat() && trust.namespace().contains(channel),
            Exit::Refused.because(format!("--checkpoint: {channel} {none}"))
        );
    }
    Ok(())
}

fn draft(trust: &Trust, rules: TrustRules) -> anyhow::Result<Statement> {
    let channel = trust.statement().channel().clone();
    let draft = Draft {
        channel,
        after: Some(trust.head()),
        time: time()?,
        trust: None,
        body: Body::Trust(rules),
    };
    draft
        .write()
        .with_context(|| format!("the change does not fit into a trust statement of {STATEMENT_OCTETS} octets, or contradicts itself"))
}

/// The lines of the editor: comments, and the fields that may be changed.
fn prefilled(trust: &Trust, rules: &TrustRules) -> anyhow::Result<String> {
    let statement = draft(trust, rules.clone())?;
    let text = String::from_utf8_lossy(statement.signed_part()).into_owned();
    let fields = text.lines().filter(|line| {
        !FIXED
            .iter()
            .any(|name| line.starts_with(&format!("{name}: ")))
    });
    Ok(HELP.to_owned() + "\n" + &fields.map(|line| format!("{line}\n")).collect::<String>())
}

/// From the lines of the editor to rules; a fault is named with its line there.
fn parse(trust: &Trust, text: &str) -> anyhow::Result<TrustRules> {
    let empty = draft(trust, trust.rules().clone())?;
    let head = String::from_utf8_lossy(empty.signed_part())
        .lines()
        .take(FIXED.len())
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    let mut whole = head;
    let mut places = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let fixed = FIXED
            .iter()
            .any(|name| line.starts_with(&format!("{name}: ")));
        if line.is_empty() || line.starts_with('#') || fixed {
            continue;
        }
        whole.push_str(&format!("{line}\n"));
        places.push(index + 1);
    }
    let in_text = |error: StatementError| {
        let at = error
            .line
            .checked_sub(FIXED.len() + 1)
            .and_then(|at| places.get(at).copied());
        StatementError {
            line: at.unwrap_or(text.lines().count() + 1),
            ..error
        }
    };
    let statement = Statement::parse_draft(whole.as_bytes()).map_err(in_text)?;
    Ok(ceremony::rules(&statement)?.clone())
}

/// Opens the editor until the text is a trust statement, or the editing is given up; then nothing
/// was written.
fn in_editor(trust: &Trust, rules: &TrustRules) -> anyhow::Result<TrustRules> {
    let mut text = prefilled(trust, rules)?;
    loop {
        text = editor::changed(&text, "tidings-trust-", ".txt")?;
        match parse(trust, &text) {
            Ok(rules) => return Ok(rules),
            Err(error) => {
                output::note(&tidings_client::explain(error.as_ref()));
                ceremony::ask("Edit it again?", "nothing was written")?;
            }
        }
    }
}

/// The `Closed` lines that are new; one that is there stays, to the octet.
fn new_closed<'a>(
    trust: &Trust,
    rules: &'a TrustRules,
) -> anyhow::Result<Vec<&'a tidings_protocol::statement::Closed>> {
    let old = &trust.rules().closed;
    if let Some(line) = old.iter().find(|line| !rules.closed.contains(line)) {
        return Err(Exit::Refused.because(format!(
            "`Closed: {line}` is missing: what is closed stays closed, and every later statement has this line as it is; a later line may close what it excepts"
        )));
    }
    Ok(rules
        .closed
        .iter()
        .filter(|line| !old.contains(line))
        .collect())
}

/// What a new line closes, of what there is.
fn show_closed(line: &tidings_protocol::statement::Closed, survey: &Survey) {
    let hit: Vec<Channel> = survey
        .channels()
        .into_iter()
        .filter(|channel| line.pattern.matches(channel) && !line.except.contains(channel))
        .collect();
    let shown = hit
        .iter()
        .take(SHOWN)
        .map(Channel::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let more = hit.len().saturating_sub(SHOWN);
    let names = match (hit.len(), more) {
        (0, _) => "no channel that there is".to_owned(),
        (_, 0) => shown,
        _ => format!("{shown} and {more} more"),
    };
    output::note(&format!(
        "`Closed: {line}` closes {names}, for good: nothing is published there or installed from there any more"
    ));
}
