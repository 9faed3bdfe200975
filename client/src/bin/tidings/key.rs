//! Keys: made, shown, read; a passphrase asked for where one is needed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::ensure;
use clap::Subcommand;
use serde_json::json;
pub(super) use tidings_client::keys::SigningKey;
use tidings_client::keys::{self, PublicKey};
use zeroize::Zeroizing;

use super::{exit::Exit, files, output};

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
        /// A private or public key
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

/// A private key; asks for its passphrase if it has one.
pub(super) fn private(file: &Path) -> anyhow::Result<SigningKey> {
    Ok(keys::read_private(file, || {
        passphrase(&format!("Passphrase of {}: ", file.display()))
    })?)
}

/// A public key, or the public half of a private one.
pub(super) fn public(file: &Path) -> anyhow::Result<PublicKey> {
    Ok(keys::read_public(file, || {
        passphrase(&format!("Passphrase of {}: ", file.display()))
    })?)
}

/// Several private keys.
pub(super) fn privates(files: &[PathBuf]) -> anyhow::Result<Vec<SigningKey>> {
    files.iter().map(|file| private(file)).collect()
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
