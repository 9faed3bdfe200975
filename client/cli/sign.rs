//! Signing what others have written, and publishing what is signed.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use tidings_client::{Head, Serial, Statement};
use tidings_protocol::{statement::Kind, trust::Trust};

use super::{
    From,
    ceremony::{self, TrustLogFile},
    checkpoints,
    exit::Exit,
    files::{self, read_bundle},
    key::{self, Signer},
    output,
    publishing::{Desk, OutboxArgs, published},
    trust,
};

#[derive(Args)]
pub(super) struct Sign {
    /// The statement, or a trust log whose last statement is signed; the signature is added to the
    /// file
    file: PathBuf,
    /// The private key: a file, `-` for standard input, `env:NAME` for a variable, or
    /// `agent:[KEY]` for an Ed25519 key of ssh-agent, by its comment or public line
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Sign although this machine has signed another statement for the same place
    #[arg(long)]
    another: bool,
    #[command(flatten)]
    outbox: OutboxArgs,
    /// Look at the brokers first: a serial of a trust log that one of them has already is not
    /// signed again. Without brokers (on a machine without network) nothing can be asked
    #[command(flatten)]
    from: From,
}

impl Sign {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let statements = read_bundle(&self.file)?;
        if statements
            .iter()
            .any(|statement| statement.kind() == Kind::Trust)
        {
            return self.sign_trust(statements).await;
        }
        let several = || {
            Exit::Usage.because(format!(
                "{} has several statements; one at a time is signed",
                self.file.display()
            ))
        };
        let [statement] = &statements[..] else {
            return Err(several());
        };
        if !output::is_json() {
            String::from_utf8_lossy(statement.signed_part())
                .lines()
                .for_each(output::line);
        }
        ceremony::confirm("Sign this?")?;
        let signed =
            self.outbox
                .sign(statement.clone(), &key::signers(&self.keys)?, self.another)?;
        files::replace(&self.file, signed.octets())?;
        let count = signed.signatures().len();
        output::answer(
            || output::json(&signed, None),
            || format!("{} has {count} signature(s)", signed.id()),
        );
        Ok(())
    }

    async fn sign_trust(&self, statements: Vec<Statement>) -> anyhow::Result<()> {
        let anchor = self.from.anchor()?;
        let (log, evidence): (Vec<_>, Vec<_>) = statements
            .into_iter()
            .partition(|statement| statement.kind() == Kind::Trust);
        let alone = || {
            format!(
                "{} has this statement alone; sign it together with its trust log, so that it is plain what it changes",
                self.file.display()
            )
        };
        ensure!(
            log.len() > 1 || log[0].serial() == Serial::FIRST,
            Exit::Refused.because(alone())
        );
        let file = ceremony::walk(log.clone(), anchor.as_ref())?;
        let (Some(statement), before) = file.newest() else {
            return Err(Exit::BadFile.because("there is no statement in the file"));
        };
        // Everything is looked at under the trust before, by each who signs (S7).
        if let Some(before) = before {
            checkpoints::verify(before, statement, &evidence)?;
        }
        if !self.from.brokers.is_empty() && anchor.is_some() {
            trust::check_serial(&self.from.source()?, statement).await?;
        }
        if !output::is_json() {
            ceremony::print(before, statement)?;
        }
        ceremony::confirm("Sign this?")?;
        let keys = key::signers(&self.keys)?;
        note_strangers(before, statement, &keys)?;
        let signed = self.outbox.sign(statement.clone(), &keys, self.another)?;
        let below = log
            .iter()
            .filter(|statement| statement.serial() < signed.serial());
        files::replace(
            &self.file,
            &files::bundle(below.chain([&signed]).chain(&evidence)),
        )?;
        let thresholds = ceremony::thresholds(before, &signed)?;
        match output::is_json() {
            true => output::object(&ceremony::as_json(&signed, thresholds)),
            false => ceremony::print_thresholds(thresholds),
        }
        Ok(())
    }
}

fn note_strangers(
    before: Option<&Trust>,
    statement: &Statement,
    keys: &[Signer],
) -> anyhow::Result<()> {
    let publics: Vec<_> = keys.iter().map(Signer::public).collect();
    ceremony::strangers(before, statement, &publics)?.iter().for_each(|public| {
        output::note(&format!("{public} has no trust role before or after this change: its signature counts for nothing"));
    });
    Ok(())
}

#[derive(Args)]
pub(super) struct Publish {
    /// The signed statements, in their order; of a trust log those that the broker does not have
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    from: From,
    /// Begin a channel that is not there yet
    #[arg(long)]
    new_channel: bool,
    /// Publish trust although it does not prove the newest statement of some channel
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    outbox: OutboxArgs,
}

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // Everything is read and checked before anything is sent.
        let (mut statements, mut evidence) = (Vec::new(), Vec::new());
        for file in &self.files {
            let mut bundle = read_bundle(file)?;
            if bundle
                .iter()
                .filter(|statement| statement.kind() == Kind::Trust)
                .count()
                > 1
            {
                // What goes round with a change of trust is there already.
                evidence.extend(bundle.extract_if(.., |statement| statement.kind() != Kind::Trust));
            }
            let unsigned = bundle
                .iter()
                .any(|statement| statement.signatures().is_empty());
            ensure!(
                !unsigned,
                Exit::Refused.because(format!(
                    "{} is not signed; `tidings sign` adds a signature",
                    file.display()
                ))
            );
            statements.extend(bundle);
        }
        files::once(&statements).context("nothing was published")?;
        let mut desk = Desk::open(&self.from, &self.outbox).await?;
        let (log, others): (Vec<_>, Vec<_>) = statements
            .into_iter()
            .partition(|statement| statement.kind() == Kind::Trust);
        let mut log = if log.len() > 1 {
            ceremony::missing(&desk.publisher, log)?
        } else {
            log
        };
        let anchored = self.from.must_anchor()?.head.serial;
        let below = log
            .iter()
            .filter(|statement| statement.serial() < anchored)
            .count();
        if below > 0 && log.len() > below {
            output::note(&format!(
                "{below} statement(s) below the anchor are not published; `tidings import` brings them"
            ));
            log.drain(..below);
        }
        if log.is_empty() && others.is_empty() {
            output::note("the broker has all of it already");
        }
        if !log.is_empty() && !self.anyway {
            checkpoints::check_heads(&self.from, &desk.publisher, &log, &evidence).await?;
        }
        for statement in log.iter().chain(&others) {
            self.publish(&mut desk, statement).await?;
        }
        Ok(())
    }

    async fn publish(&self, desk: &mut Desk, statement: &Statement) -> anyhow::Result<()> {
        let channel = statement.channel();
        let begun = desk.begin(channel).await?;
        if begun
            .published
            .is_some_and(|settled| settled.id() == statement.id())
        {
            return published(statement, desk.publisher.trust());
        }
        if !channel.is_trust() && !channel.is_beat() {
            let head: Option<Head> = desk
                .publisher
                .newest_anywhere(channel)
                .await?
                .map(|newest| newest.head());
            desk.may_follow(channel, head, self.new_channel).await?;
        }
        desk.publish(statement).await??;
        published(statement, desk.publisher.trust())
    }
}

/// For those who read a trust log in a file as a bundle: what it is without what goes round with
/// it.
pub(super) fn trust_log(statements: Vec<Statement>, from: &From) -> anyhow::Result<TrustLogFile> {
    let log = statements
        .into_iter()
        .filter(|statement| statement.kind() == Kind::Trust)
        .collect();
    ceremony::walk(log, from.anchor()?.as_ref())
}
