//! Keys: made, shown, read; a passphrase asked for where one is needed.
//!
//! Where a command wants the file of a key, `-` is standard input, `env:NAME` a variable of the
//! environment, and `agent:` or `agent:KEY` an `ssh-agent`. A file of such a name is `./-`.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, ensure};
use clap::Subcommand;
use serde_json::json;
pub(super) use tidings_client::keys::SigningKey;
use tidings_client::{
    Statement,
    keys::{self, PublicKey},
};
use zeroize::Zeroizing;

use super::{exit::Exit, files, output, ssh_agent::AgentKey};

/// Where the passphrase of keys is read from, if nobody is to be asked.
const PASSPHRASE_FILE: &str = "TIDINGS_PASSPHRASE_FILE";

#[derive(Subcommand)]
pub(super) enum Key {
    /// Make a key: FILE is private (0600, PKCS#8 PEM), FILE.pub its public line
    New {
        /// Where the private key goes; it must not exist yet
        file: PathBuf,
        /// Encrypt it under a passphrase, which is asked for, or read from the file that
        /// TIDINGS_PASSPHRASE_FILE names
        #[arg(long)]
        encrypt: bool,
    },
    /// Print the public line of a key
    Show {
        /// A private or public key; or -, env:NAME, agent:[KEY], as --key of other commands
        file: PathBuf,
    },
}

impl Key {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let public = match self {
            Key::New { file, encrypt } => {
                let there = || {
                    Exit::BadFile.because(format!(
                        "cannot write the key {}: it exists already",
                        file.display()
                    ))
                };
                ensure!(!file.exists(), there());
                let passphrase = if encrypt {
                    Some(new_passphrase(&file)?)
                } else {
                    None
                };
                PublicKey::of(&write_pair(&file, passphrase.as_ref().map(|p| p.as_str()))?)
            }
            Key::Show { file } => public(&file)?,
        };
        output::answer(
            || json!({"public": public.to_string()}),
            || public.to_string(),
        );
        Ok(())
    }
}

/// Makes a key: the private half in one file, the public line in another beside it.
pub(super) fn write_pair(file: &Path, passphrase: Option<&str>) -> anyhow::Result<SigningKey> {
    let key = keys::generate()?;
    keys::write_private(file, &key, passphrase)?;
    let mut path = file.to_owned().into_os_string();
    path.push(".pub");
    files::replace(
        Path::new(&path),
        format!("{}\n", PublicKey::of(&key)).as_bytes(),
    )?;
    Ok(key)
}

/// More than any key has.
const KEY_OCTETS: u64 = 1 << 16;

/// Where a key is.
enum Place<'a> {
    File(&'a Path),
    StandardInput,
    Variable(&'a str),
    Agent(&'a str),
}

impl<'a> Place<'a> {
    fn of(file: &'a Path) -> Self {
        match file.to_str() {
            Some("-") => Self::StandardInput,
            Some(name) => match (name.strip_prefix("env:"), name.strip_prefix("agent:")) {
                (Some(name), _) => Self::Variable(name),
                (_, Some(name)) => Self::Agent(name),
                _ => Self::File(file),
            },
            None => Self::File(file),
        }
    }
}

/// Whoever can sign: a key that was read, or an agent that has it.
pub(super) enum Signer {
    Key(SigningKey),
    Agent(AgentKey),
}

impl Signer {
    pub(super) fn public(&self) -> PublicKey {
        match self {
            Self::Key(key) => PublicKey::of(key),
            Self::Agent(key) => key.public,
        }
    }

    /// The statement with one more signature.
    pub(super) fn sign(&self, statement: &Statement) -> anyhow::Result<Statement> {
        match self {
            Self::Key(key) => Ok(statement.sign(key)?),
            Self::Agent(key) => key.sign(statement),
        }
    }
}

/// A private key that signs here, again and again: an agent is not asked for this.
pub(super) fn private(file: &Path) -> anyhow::Result<SigningKey> {
    let text = match Place::of(file) {
        Place::File(file) => {
            return Ok(keys::read_private(file, || {
                passphrase(&format!("Passphrase of {}: ", file.display()))
            })?);
        }
        Place::StandardInput => standard_input()?,
        Place::Variable(name) => variable(name)?,
        Place::Agent(_) => {
            return Err(Exit::Usage.because(
                "this command signs by itself, again and again, and asks no agent: give it a key \
                 of its own in a file",
            ));
        }
    };
    let name = match Place::of(file) {
        Place::Variable(name) => format!("the variable {name}"),
        _ => "standard input".into(),
    };
    Ok(keys::parse_private(&text, name.as_ref(), || {
        passphrase(&format!("Passphrase of the key in {name}: "))
    })?)
}

/// Read once: there is nothing more afterwards.
fn standard_input() -> anyhow::Result<Zeroizing<String>> {
    static WAS_READ: AtomicBool = AtomicBool::new(false);
    let again = || Exit::Usage.because("standard input has one key; give the others as files");
    ensure!(!WAS_READ.swap(true, Ordering::Relaxed), again());
    let input = io::stdin();
    let shown = || {
        Exit::Usage.because(
            "standard input is a terminal, which would show the key: give it by a pipe or a file",
        )
    };
    ensure!(!input.is_terminal(), shown());
    let mut text = Zeroizing::new(String::new());
    let read = input.lock().take(KEY_OCTETS).read_to_string(&mut text);
    read.context("cannot read the key from standard input")?;
    Ok(text)
}

fn variable(name: &str) -> anyhow::Result<Zeroizing<String>> {
    let none = || {
        Exit::Usage.because(format!(
            "env:{name}: there is no such variable, or it is empty; \
             env:NAME wants the name of the variable that has the key"
        ))
    };
    // What is no name may be a key that was put here by mistake: it is not quoted.
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    ensure!(
        !name.is_empty() && name.chars().all(is_name),
        Exit::Usage.because("env:NAME: expected the name of a variable, letters, digits and _")
    );
    let text = std::env::var(name).unwrap_or_default();
    ensure!(!text.is_empty(), none());
    Ok(Zeroizing::new(text))
}

/// Whoever can sign with a key.
pub(super) fn signer(file: &Path) -> anyhow::Result<Signer> {
    match Place::of(file) {
        Place::Agent(name) => AgentKey::find(name).map(Signer::Agent),
        _ => private(file).map(Signer::Key),
    }
}

/// Whether a private key is meant, or in a file.
pub(super) fn is_private(file: &Path) -> bool {
    match Place::of(file) {
        Place::File(file) => {
            fs::read_to_string(file).is_ok_and(|text| text.contains("PRIVATE KEY-----"))
        }
        _ => true,
    }
}

/// A public key, or the public half of a private one.
pub(super) fn public(file: &Path) -> anyhow::Result<PublicKey> {
    match Place::of(file) {
        Place::File(file) => Ok(keys::read_public(file, || {
            passphrase(&format!("Passphrase of {}: ", file.display()))
        })?),
        _ => Ok(signer(file)?.public()),
    }
}

/// Several who can sign.
pub(super) fn signers(files: &[PathBuf]) -> anyhow::Result<Vec<Signer>> {
    files.iter().map(|file| signer(file)).collect()
}

fn passphrase(prompt: &str) -> io::Result<Zeroizing<String>> {
    let Some(file) = std::env::var_os(PASSPHRASE_FILE) else {
        let hint = |e: io::Error| {
            io::Error::new(
                e.kind(),
                format!("{e}; without a terminal, {PASSPHRASE_FILE} names a file with it"),
            )
        };
        return rpassword::prompt_password(prompt)
            .map(Zeroizing::new)
            .map_err(hint);
    };
    let text = fs::read_to_string(&file).map_err(|e| {
        io::Error::new(
            e.kind(),
            format!("{PASSPHRASE_FILE}: {}: {e}", file.display()),
        )
    })?;
    Ok(Zeroizing::new(
        text.lines().next().unwrap_or_default().to_owned(),
    ))
}

pub(super) fn new_passphrase(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let first = passphrase(&format!("New passphrase for {}: ", file.display()))?;
    let empty = || {
        Exit::Usage
            .because("an empty passphrase protects nothing; leave --encrypt out if that is meant")
    };
    ensure!(!first.is_empty(), empty());
    let second = passphrase("The same again: ")?;
    ensure!(
        first == second,
        Exit::Usage.because("the two passphrases are not the same; nothing was written")
    );
    Ok(first)
}
