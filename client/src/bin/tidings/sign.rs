//! Signing what others have written, and publishing what is signed.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tidings_client::{Publisher, Serial, Statement, keys::PublicKey, survey};
use tidings_protocol::statement::Kind;

use super::{
    From,
    author::published,
    ceremony,
    files::{read_bundle, sign_all},
    key, output, trust,
};

#[derive(Args)]
pub(super) struct Sign {
    /// The statement, or a trust log whose last statement is signed; the signature is added to the file
    file: PathBuf,
    /// The private key
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Look at the brokers first: a serial of a trust log that one of them has already is not signed again. Without
    /// brokers (on a machine without network) nothing can be asked
    #[command(flatten)]
    from: From,
}

impl Sign {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut statements = read_bundle(&self.file)?;
        let statement = statements.pop().context("there is no statement in the file")?;
        if statement.kind() != Kind::Trust {
            ensure!(statements.is_empty(), "{} has several statements; one at a time is signed", self.file.display());
        }
        let mut before = None;
        if statement.kind() == Kind::Trust {
            let all = statements.iter().cloned().chain([statement.clone()]).collect();
            // Everything below must be in force, and the new one must follow it.
            let alone = statements.is_empty() && statement.serial() != Serial::FIRST;
            ensure!(
                !alone,
                "{} has this statement alone; sign it together with its trust log, so that it is plain what it changes",
                self.file.display()
            );
            let anchor = self.from.anchor()?;
            ceremony::walk(all, anchor.as_ref())?;
            before = if statements.is_empty() { None } else { ceremony::walk(statements.clone(), anchor.as_ref())?.trust().cloned() };
            if !self.from.brokers.is_empty() && self.from.anchor.is_some() {
                trust::check_serial(&self.from.source()?, &statement).await?;
            }
        }
        if statement.kind() == Kind::Trust {
            ceremony::print(before.as_ref(), &statement)?;
            ceremony::confirm("Sign this?")?;
        }
        if statement.kind() != Kind::Trust {
            String::from_utf8_lossy(statement.signed_part()).lines().for_each(|line| output::line(&output::safe(line)));
            ceremony::confirm("Sign this?")?;
        }
        let keys = key::privates(&self.keys)?;
        if statement.kind() == Kind::Trust {
            let publics: Vec<_> = keys.iter().map(PublicKey::of).collect();
            ceremony::strangers(before.as_ref(), &statement, &publics)?.iter().for_each(|public| {
                output::note(&format!("{public} has no trust role before or after this change: its signature counts for nothing"));
            });
        }
        let signed = sign_all(statement, &keys)?;
        if signed.kind() == Kind::Trust {
            // A signature that does not hold, of whomever, is better found now.
            ceremony::walk(statements.iter().cloned().chain([signed.clone()]).collect(), self.from.anchor()?.as_ref())?;
        }
        let octets: Vec<u8> = statements.iter().chain([&signed]).flat_map(|s| s.octets().iter().copied()).collect();
        let directory = self.file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let context = || format!("cannot write {}", self.file.display());
        let mut new = tempfile::NamedTempFile::new_in(directory).with_context(context)?;
        new.write_all(&octets).with_context(context)?;
        new.persist(&self.file).with_context(context)?;
        if signed.kind() == Kind::Trust {
            return ceremony::thresholds(before.as_ref(), &signed).map(ceremony::print_thresholds);
        }
        output::line(&format!("{} has {} signature(s)", signed.id(), signed.signatures().len()));
        Ok(())
    }
}

#[derive(Args)]
pub(super) struct Publish {
    /// The signed statements, in their order; of a trust log those that the broker does not have
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    from: From,
    /// Publish trust although it does not prove the newest statement of some channel
    #[arg(long)]
    anyway: bool,
    /// Print JSON about what was published
    #[arg(long)]
    json: bool,
}

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // Everything is read and checked before anything is sent.
        let mut statements = Vec::new();
        for file in &self.files {
            let bundle = read_bundle(file)?;
            let unsigned = bundle.iter().any(|statement| statement.signatures().is_empty());
            ensure!(!unsigned, "{} is not signed; `tidings sign` adds a signature", file.display());
            statements.extend(bundle);
        }
        let mut publisher = Publisher::connect(self.from.source()?).await?;
        let (log, others): (Vec<_>, Vec<_>) = statements.into_iter().partition(|statement| statement.kind() == Kind::Trust);
        let log = if log.len() > 1 { ceremony::missing(&publisher, log)? } else { log };
        if log.is_empty() && others.is_empty() {
            output::note("the broker has all of it already");
        }
        if let (Some(newest), false) = (log.last(), self.anyway) {
            self.check_heads(&publisher, &log, newest).await?;
        }
        for statement in log.iter().chain(&others) {
            publisher.publish(statement).await?;
            published(statement, publisher.trust(), self.json);
        }
        Ok(())
    }
}

impl Publish {
    /// Between the making of a change and its end there are hours: what was published meanwhile by a key that goes would
    /// stop its channel.
    async fn check_heads(&self, publisher: &Publisher, log: &[Statement], newest: &Statement) -> anyhow::Result<()> {
        // Signatures are for the broker to judge; here it is about heads.
        let Some(mut trust) = publisher.trust().cloned() else { return Ok(()) };
        for statement in log {
            match trust.succeed(statement.clone()) {
                Ok(next) => trust = next,
                Err(_) => return Ok(()),
            }
        }
        let source = self.from.source()?;
        for checkpoint in &trust.rules().checkpoints {
            ensure!(
                trust::find(&source, &checkpoint.channel, checkpoint.head).await,
                "no broker that was asked has {} {}, which trust {} settles on (has it expired?): devices could not find it. Nothing was published. Begin the change anew with `tidings trust change`, or say --anyway",
                checkpoint.channel,
                checkpoint.head,
                newest.serial()
            );
        }
        let survey = survey(&source, &[]).await;
        for channel in survey.channels() {
            let Ok(Some(head)) = survey.newest(&channel) else { continue };
            if let Err((_, error)) = trust.verify_run(&channel, vec![(*head).clone()]) {
                let serial = head.serial();
                bail!(
                    "{channel} is at {serial} now, which trust {} would not prove: {error}. Nothing was published. Begin the change anew with `tidings trust change`, or say --anyway",
                    newest.serial()
                );
            }
        }
        Ok(())
    }
}
