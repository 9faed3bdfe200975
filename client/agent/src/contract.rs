//! The contract that every handler keeps, as a test of anybody's: `tidings-agent check-handler
//! FILE`.
//!
//! What a handler is told to do depends on the machine, so that the test runs it with a payload
//! that its author gives, on a machine (or a file that stands for one) that may be changed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use sha2::{Digest as _, Sha256};

use crate::{
    handler::{Answer, Call, DONE, FAILED, Handlers, LATER, UNUSABLE},
    round::Fact,
};

/// What is tested, and with what.
pub struct Contract {
    /// The handler, in its directory `format.d`.
    pub handler: PathBuf,
    /// A payload that it can use.
    pub payload: PathBuf,
    /// `T_…` and others, as `KEY=VALUE`; size and digest are added.
    pub environment: Vec<(String, String)>,
    /// Where `loader.d` and the shipped handlers are.
    pub lib: PathBuf,
    /// Where its configuration is.
    pub etc: PathBuf,
}

impl Contract {
    /// Runs the test; a line for each thing that holds.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self, mut say: impl FnMut(&str)) -> anyhow::Result<()> {
        let scratch = tempfile::tempdir()?;
        let work = scratch.path().join("work");
        fs::create_dir(&work)?;
        let test = Test {
            contract: self,
            work,
            statement: scratch.path().join("statement"),
            environment: self.environment()?,
        };
        fs::write(&test.statement, "")?;
        test.unusable(&mut say)?;
        test.tampered(&mut say)?;
        test.verbs(&mut say)
    }

    fn environment(&self) -> anyhow::Result<Vec<(String, String)>> {
        let octets = fs::read(&self.payload)
            .with_context(|| format!("cannot read {}", self.payload.display()))?;
        let digest: String = Sha256::digest(&octets)
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        let name = self
            .handler
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let own = [
            ("T_FORMAT", name),
            ("T_SIZE", octets.len().to_string()),
            ("T_DIGEST", digest),
        ];
        let fixed = [
            ("T_SERIAL", "7"),
            ("T_CHANNEL", "check.os"),
            ("T_VERSION", "check"),
        ]
        .map(|(key, value)| (key, value.to_owned()));
        let mut all: Vec<(String, String)> = own
            .into_iter()
            .chain(fixed)
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        all.extend(self.environment.iter().cloned());
        Ok(all)
    }
}

struct Test<'a> {
    contract: &'a Contract,
    work: PathBuf,
    statement: PathBuf,
    environment: Vec<(String, String)>,
}

impl Test<'_> {
    fn call(
        &self,
        verb: &str,
        payload: Option<&Path>,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let directory = self.contract.handler.parent().context("it lies nowhere")?;
        let folder = directory
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        ensure!(
            folder == "format.d",
            "put it into a directory format.d, as it is installed"
        );
        let base = directory.parent().context("format.d lies nowhere")?;
        let mut handlers = Handlers::new(&self.contract.etc, &self.contract.lib);
        let name = self
            .contract
            .handler
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if handlers
            .find("format.d", &name)?
            .is_none_or(|found| found != self.contract.handler)
        {
            handlers.etc = base.into();
        }
        let file = payload.map(fs::File::open).transpose()?;
        let mut environment = self.environment.clone();
        environment.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        if handlers.etc != self.contract.etc {
            environment.push(("T_ETC".into(), self.contract.etc.display().to_string()));
        }
        let (folder, name) = (folder.as_str(), name.as_str());
        let call = Call {
            folder,
            name,
            verb,
            environment: &environment,
            work: &self.work,
            statement: &self.statement,
            payload: file.as_ref(),
        };
        let answer = handlers.call(&call)?;
        ensure!(
            [DONE, FAILED, UNUSABLE, LATER].contains(&answer.code),
            "{verb} ends with {}: 0, 1, 2 or 75 are known",
            answer.code
        );
        Ok(answer)
    }

    fn expect(&self, verb: &str, facts: &[Fact]) -> anyhow::Result<()> {
        let payload = (verb == "stage").then_some(self.contract.payload.as_path());
        for time in ["once", "twice"] {
            let answer = self.call(verb, payload, &[])?;
            ensure!(
                answer.is_done(),
                "{verb}, {time}: {} {}",
                answer.code,
                answer.line
            );
            let state = self.call("state", None, &[])?;
            let fact = Fact::read(&state.line).filter(|_| state.is_done());
            let known: Vec<&str> = facts.iter().map(|fact| fact.as_str()).collect();
            ensure!(
                fact.is_some_and(|fact| facts.contains(&fact)),
                "after {verb}, {time}, state says {:?}, not {}",
                state.line,
                known.join(" or ")
            );
        }
        Ok(())
    }

    fn unusable(&self, say: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        let answer = self.call("no-such-verb", None, &[])?;
        ensure!(
            answer.code == UNUSABLE,
            "a verb that it does not know ends with {}, not {UNUSABLE}",
            answer.code
        );
        say("an unknown verb is refused");
        let answer = self.call("can", None, &[])?;
        ensure!(
            answer.is_done() && answer.line.trim().parse::<u64>().is_ok(),
            "can: {} {:?}; the octets to fetch are expected",
            answer.code,
            answer.line
        );
        say("can says what it costs");
        self.expect("drop", &[Fact::None])?;
        say("drop, where nothing is, leaves nothing");
        Ok(())
    }

    /// Another payload than was signed never becomes a result, even if it reached the handler.
    fn tampered(&self, say: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        let mut octets = fs::read(&self.contract.payload)?;
        let middle = octets.len() / 2;
        *octets.get_mut(middle).context("the payload is empty")? ^= 0xff;
        let path = self.work.with_file_name("tampered");
        fs::write(&path, octets)?;
        let answer = self.call("stage", Some(&path), &[])?;
        ensure!(
            answer.code == UNUSABLE,
            "stage of a changed payload ends with {} {:?}, not {UNUSABLE}",
            answer.code,
            answer.line
        );
        let state = self.call("state", None, &[])?;
        ensure!(
            matches!(Fact::read(&state.line), Some(Fact::None | Fact::Partial)),
            "after a changed payload, state says {:?}",
            state.line
        );
        say("a changed payload is found by what comes out of it");
        let base: String = "0".repeat(64);
        if self.environment.iter().any(|(key, _)| key == "T_BASE") {
            let answer = self.call("can", None, &[("T_BASE", &base)])?;
            ensure!(
                answer.code == UNUSABLE,
                "another base: can ends with {}, not {UNUSABLE}",
                answer.code
            );
            say("another base is refused");
        }
        Ok(())
    }

    fn verbs(&self, say: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        self.expect("stage", &[Fact::Staged])?;
        say("stage, once and twice: staged");
        self.expect("drop", &[Fact::None])?;
        say("drop from staged: none");
        self.expect("stage", &[Fact::Staged])?;
        // What needs no reboot may run at once.
        self.expect("arm", &[Fact::Armed, Fact::Running])?;
        say("arm, once and twice: armed, or running where no reboot is needed");
        self.expect("stage", &[Fact::Staged, Fact::Armed, Fact::Running])?;
        say("stage from armed changes nothing for the worse");
        self.expect("drop", &[Fact::None, Fact::Running])?;
        say("drop from armed: none");
        Ok(())
    }
}
