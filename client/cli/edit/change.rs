//! The options that change a trust statement.

use anyhow::{Context, ensure};
use clap::Args;
use tidings_client::{Channel, Head};
use tidings_protocol::statement::{Role, TrustRules};

use crate::{
    checkpoints::settle,
    exit::Exit,
    trust::{named_key, role},
};

/// For scripts: without an editor.
#[derive(Args)]
#[group(id = "change", multiple = true)]
pub(super) struct Change {
    /// A new key and its name; repeatable
    #[arg(long = "add-key", value_name = "NAME=FILE")]
    add_keys: Vec<String>,
    /// The name of a key that goes, from all roles too; repeatable
    #[arg(long = "remove-key", value_name = "NAME")]
    remove_keys: Vec<String>,
    /// A new role, or one that replaces that of the same kind and pattern: `KIND PATTERN THRESHOLD
    /// NAME…`; repeatable
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A role that goes: `KIND PATTERN`; repeatable
    #[arg(long = "remove-role", value_name = "ROLE")]
    remove_roles: Vec<String>,
    /// Settle a fork: `CHANNEL SERIAL ID` is part of the log; repeatable
    #[arg(long = "checkpoint", value_name = "PLACE")]
    pub(super) checkpoints: Vec<String>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        [
            &self.add_keys,
            &self.remove_keys,
            &self.roles,
            &self.remove_roles,
            &self.checkpoints,
        ]
        .iter()
        .all(|one| one.is_empty())
    }

    pub(super) fn apply(&self, old: &TrustRules, new: &mut TrustRules) -> anyhow::Result<()> {
        self.change_keys(old, new)?;
        self.change_roles(new)?;
        for text in &self.checkpoints {
            let (channel, head) = checkpoint(text)?;
            settle(new, channel, head);
        }
        Ok(())
    }

    fn change_keys(&self, old: &TrustRules, new: &mut TrustRules) -> anyhow::Result<()> {
        for name in &self.remove_keys {
            let before = new.keys.len();
            new.keys.retain(|key| key.name != *name);
            let names = || {
                let names = old.keys.iter().map(|key| key.name.as_str());
                names.collect::<Vec<_>>().join(", ")
            };
            ensure!(
                new.keys.len() < before,
                wrong(format!(
                    "--remove-key: there is no key {name:?}; there are {}",
                    names()
                ))
            );
            new.roles
                .iter_mut()
                .for_each(|role| role.names.retain(|known| known != name));
        }
        for text in &self.add_keys {
            let named = named_key(text).context("--add-key")?;
            let same = new
                .keys
                .iter()
                .find(|key| key.name == named.name || key.key == named.key);
            ensure!(
                same.is_none(),
                wrong(format!(
                    "--add-key: {:?} is there already, as name or as key",
                    named.name
                ))
            );
            new.keys.push(named);
        }
        Ok(())
    }

    fn change_roles(&self, new: &mut TrustRules) -> anyhow::Result<()> {
        for text in &self.remove_roles {
            let words: Vec<&str> = text.split_whitespace().collect();
            let before = new.roles.len();
            new.roles
                .retain(|role| [role.kind.as_str(), &role.pattern.to_string()] != words[..]);
            let none = || {
                wrong(format!(
                    "--remove-role: expected `KIND PATTERN` of a role that is there, found {text:?}"
                ))
            };
            ensure!(new.roles.len() < before, none());
        }
        for text in &self.roles {
            let role: Role = role(text)?;
            match new
                .roles
                .iter_mut()
                .find(|known| known.kind == role.kind && known.pattern == role.pattern)
            {
                Some(known) => *known = role,
                None => new.roles.push(role),
            }
        }
        let unmet = |role: &&Role| role.names.len() < role.threshold;
        if let Some(role) = new.roles.iter().find(unmet) {
            let (kind, pattern, needed, left) =
                (role.kind, &role.pattern, role.threshold, role.names.len());
            return Err(wrong(format!(
                "the role `{kind} {pattern}` needs {needed} signatures and has {left} key(s) left; say with --role who signs there now, or --remove-role"
            )));
        }
        Ok(())
    }
}

fn wrong(text: String) -> anyhow::Error {
    Exit::Usage.because(text)
}

pub(super) fn checkpoint(text: &str) -> anyhow::Result<(Channel, Head)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let read = || {
        let [channel, serial, id] = &words[..] else {
            return None;
        };
        Some((
            channel.parse().ok()?,
            Head {
                serial: serial.parse().ok()?,
                id: id.parse().ok()?,
            },
        ))
    };
    read().ok_or_else(|| {
        wrong(format!(
            "--checkpoint: expected `CHANNEL SERIAL ID` (the id is sha256:HEX), found {text:?}"
        ))
    })
}
