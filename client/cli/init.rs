//! `tidings init`: keys, the first trust statement, an origin's and a device's configuration in one
//! go.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tidings_client::{
    Anchor,
    keys::{PublicKey, SigningKey},
};
use tidings_protocol::{
    Namespace,
    statement::{Kind, NamedKey, Role},
};

use super::{
    exit::Exit,
    files::write_new,
    key::{self, Signer},
    output, trust,
};

/// Each key, what it may sign, and where it belongs.
const KEYS: [(&str, Kind, &str); 4] = [
    (
        "root",
        Kind::Trust,
        "offline, in a safe, with a copy elsewhere: it decides who may sign",
    ),
    (
        "release",
        Kind::Release,
        "where releases are signed, and nowhere else",
    ),
    (
        "withdraw",
        Kind::Withdraw,
        "apart from the key of releases: it can stop a rollout when that one was stolen",
    ),
    (
        "beat",
        Kind::Beat,
        "at the origin: it is online, and can do nothing but make devices stop",
    ),
];

#[derive(Args)]
pub(super) struct Init {
    /// The namespace, e.g. baserock: what all its channels begin with
    namespace: Namespace,
    /// The directory for all of it; it must not exist yet. Without it, one with the name of the
    /// namespace
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The name under which devices reach the origin
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    host: String,
    /// Encrypt the keys of trust, releases and withdrawals under one passphrase, which is asked
    /// for, or read from the file that TIDINGS_PASSPHRASE_FILE names
    #[arg(long)]
    encrypt: bool,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let dir = self
            .dir
            .clone()
            .unwrap_or_else(|| self.namespace.as_str().into());
        let passphrase = if self.encrypt {
            Some(key::new_passphrase(&dir)?)
        } else {
            None
        };
        if dir.exists() {
            return Err(Exit::BadFile.because(format!(
                "{} exists already; nothing was written",
                dir.display()
            )));
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = dir
            .canonicalize()
            .with_context(|| format!("cannot find {}", dir.display()))?;
        let (named, roles, made) = new_keys(&dir, passphrase.as_ref().map(|text| text.as_str()))?;
        let root: Vec<Signer> = made.into_iter().take(1).map(Signer::Key).collect();
        let statement = trust::first(&self.namespace, named, roles, 365, &root)?;
        let anchor = Anchor {
            namespace: self.namespace.clone(),
            head: statement.head(),
        };
        write_new(&dir.join("trust.1"), statement.octets())?;
        write_new(&dir.join("anchor"), format!("{anchor}\n").as_bytes())?;
        self.write_configurations(&dir, &anchor)?;
        self.report(&dir, &anchor);
        Ok(())
    }

    /// What a broker and a device of the namespace are set up with.
    fn write_configurations(&self, dir: &Path, anchor: &Anchor) -> anyhow::Result<()> {
        let quoted =
            |path: &str| toml::Value::String(dir.join(path).display().to_string()).to_string();
        let origin = format!(
            "name = {}\ndata_dir = {}\nanchors = [\"{anchor}\"]\n\n[listen]\nnntp = [\"127.0.0.1:1119\"]\n# nntps = [\"[::]:563\"]  # for other machines; needs [tls]\n\n[[beat]]\nnamespace = \"{}\"\nkey_file = {}\n",
            toml::Value::String(self.host.clone()),
            quoted("data"),
            self.namespace,
            quoted("beat.key")
        );
        write_new(&dir.join("tidingsd.toml"), origin.as_bytes())?;
        let broker = if self.host == "localhost" {
            "nntp://127.0.0.1:1119".to_owned()
        } else {
            format!("nntps://{}", self.host)
        };
        let device = format!("TIDINGS_BROKERS={broker}\nTIDINGS_ANCHOR=\"{anchor}\"\n");
        write_new(&dir.join("device.env"), device.as_bytes())?;
        Ok(())
    }

    fn report(&self, dir: &std::path::Path, anchor: &Anchor) {
        let text = || {
            let mut text = format!("{anchor}\n\nin {}:\n", dir.display());
            for (name, _, place) in KEYS {
                text.push_str(&format!("  {:<14} {place}\n", format!("{name}.key")));
            }
            for (name, what) in [
                ("trust.1", "the first trust statement: publish it first"),
                (
                    "anchor",
                    "the line with which brokers and devices are provisioned; `tidings anchor` prints the newest",
                ),
                ("tidingsd.toml", "the origin: `tidingsd --config FILE`"),
                (
                    "device.env",
                    "for devices and publishers: `set -a; . ./device.env`, or EnvironmentFile= of a unit",
                ),
            ] {
                text.push_str(&format!("  {name:<14} {what}\n"));
            }
            text.push_str(&format!(
                "\nnext: start the origin; `tidings publish {0}/trust.1`; `tidings release {1}.NAME --new-channel --version 1 --key {0}/release.key --publish`;\nthen take root.key (and withdraw.key) off this machine",
                dir.display(),
                self.namespace
            ));
            text
        };
        output::answer(
            || json!({"anchor": anchor.to_string(), "directory": dir}),
            text,
        );
    }
}

/// A pair for each of [`KEYS`], written down, with the roles that it has.
fn new_keys(
    dir: &Path,
    passphrase: Option<&str>,
) -> anyhow::Result<(Vec<NamedKey>, Vec<Role>, Vec<SigningKey>)> {
    let (mut named, mut roles, mut made) = (Vec::new(), Vec::new(), Vec::new());
    for (name, kind, _) in KEYS {
        // The broker signs beats by itself.
        let passphrase = passphrase.filter(|_| kind != Kind::Beat);
        let key = key::write_pair(&dir.join(format!("{name}.key")), passphrase)?;
        named.push(NamedKey {
            key: PublicKey::of(&key),
            name: name.into(),
        });
        roles.push(Role {
            kind,
            pattern: "*".parse()?,
            threshold: 1,
            names: vec![name.into()],
        });
        made.push(key);
    }
    Ok((named, roles, made))
}
