//! Configuration: TOML as it is written → checked settings.
//!
//! Unknown keys are refused, and the nearest known one is named. Units are in the keys.
//! `written.rs` is the file as it is written, the others are what is made of it.

mod access;
mod changed;
mod cluster;
mod files;
mod namespaces;
mod plain;
mod relays;
mod slots;
mod written;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tidings_client::Address;
use tidings_protocol::{Anchor, Namespace, StatementId, Wildmat, slot::SlotName};
pub use written::*;

use crate::net::access::Access;

/// Says which key is wrong, and what was expected.
type Wrong<'a> = dyn Fn(String, &dyn fmt::Display) -> ConfigError + 'a;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, and what was expected there.
        reason: String,
    },
    /// A value cannot be used.
    #[error("{path}: {key}: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What was expected.
        reason: String,
    },
}

/// A namespace whose beats are signed here.
#[derive(Clone, Debug)]
pub struct Beat {
    /// The namespace.
    pub namespace: Namespace,
    /// Its key.
    pub key_file: PathBuf,
    /// How often.
    pub every: Duration,
    /// For how many seconds one proves that nothing is held back.
    pub life_seconds: u64,
}

/// What is copied from other brokers.
#[derive(Clone, Debug)]
pub struct Mirroring {
    /// The brokers.
    pub upstreams: Vec<Address>,
    /// The channels.
    pub channels: Wildmat,
    /// How we make ourselves known.
    pub login: Login,
    /// How often an upstream is asked that cannot tell.
    pub poll: Duration,
}

/// The brokers that are one origin with this one.
#[derive(Clone, Debug)]
pub struct Clustering {
    /// The ZooKeeper servers, as a client wants them.
    pub servers: String,
    /// The node below which everything is.
    pub root: String,
    /// Where the other members reach this broker.
    pub address: Address,
    /// After how long without an answer from the servers this broker is no member any more.
    pub session: Duration,
    /// The name for digest authentication, and where the password is.
    pub user: Option<(String, PathBuf)>,
    /// TLS to the servers.
    pub tls: Option<ClusterTls>,
    /// How what the servers have forgotten is copied from other members, but for their addresses.
    pub fill: Mirroring,
}

/// A peer that statements are offered to.
#[derive(Clone, Debug)]
pub struct Feed {
    /// What the log and the cursors call it.
    pub name: String,
    /// The news server.
    pub to: Address,
    /// The channels.
    pub channels: Wildmat,
    /// Its name in `Path`.
    pub path: Option<String>,
    /// How we make ourselves known.
    pub login: Login,
}

/// How a group takes turns; nothing of it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How many of its nodes may be down at once.
    pub max: usize,
    /// For how many seconds a node may be down.
    pub lease: u64,
    /// With so many failed nobody gets a slot.
    pub failures: usize,
}

/// Machines that take turns going down.
#[derive(Clone, Debug)]
pub struct SlotGroup {
    /// The group.
    pub name: SlotName,
    /// How.
    pub rules: Rules,
    /// Who may have slots, by their places among the peers; everybody without it.
    pub takers: Option<Vec<usize>>,
    /// Who may clear what has failed.
    pub operators: Vec<usize>,
    /// Whether a node has to show a certificate that names it.
    pub certificate: bool,
}

/// What is kept of some channels.
#[derive(Clone, Debug)]
pub struct Retention {
    /// The channels.
    pub channels: Wildmat,
    /// How many statements.
    pub count: Option<u32>,
    /// For how long.
    pub age: Option<Duration>,
}

/// The configuration after every value was checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As written.
    pub config: Config,
    /// The file that it came from, for messages.
    pub file: PathBuf,
    /// The anchors, parsed.
    pub anchors: Vec<Anchor>,
    /// What is copied, if anything is.
    pub mirror: Option<Mirroring>,
    /// Those who are one origin with this broker.
    pub cluster: Option<Clustering>,
    /// What is looked for elsewhere at the start, and the brokers that are named for it alone.
    pub restore_from: Mirroring,
    /// Who is offered what.
    pub feeds: Vec<Feed>,
    /// Who is known, and may read and offer what.
    pub access: Access,
    /// The groups of slots.
    pub slots: Vec<SlotGroup>,
    /// The namespaces whose beats are signed here.
    pub beats: Vec<Beat>,
    /// What is kept; beats are few and short-lived unless the file says otherwise.
    pub retention: Vec<Retention>,
}

fn addresses(config: &Config) -> Vec<SocketAddr> {
    let fleetlock = config.fleetlock.iter().flat_map(|f| &f.listen);
    let nntp = config.listen.nntp.iter().chain(&config.listen.nntps);
    nntp.chain(fleetlock)
        .chain(&config.admin.listen)
        .copied()
        .collect()
}

impl Settings {
    /// Reads and checks a file, and `conf.d/*.toml` beside it.
    ///
    /// # Errors
    /// Names the file, the line or key, what was expected, and for an unknown key the nearest known
    /// one.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::check(files::read(path)?, path)
    }

    /// All addresses on which this broker listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.config)
    }

    /// A digest of what is the same for all members of a cluster: anchors, and groups of slots.
    pub(crate) fn common(&self) -> String {
        let mut lines: Vec<String> = self.anchors.iter().map(ToString::to_string).collect();
        let group = |group: &SlotGroup| {
            format!(
                "{} {} {} {}",
                group.name, group.rules.max, group.rules.lease, group.rules.failures
            )
        };
        lines.extend(self.slots.iter().map(group));
        lines.sort();
        StatementId::of(lines.join("\n").as_bytes()).to_string()
    }

    /// Checks a configuration; `file` is used in messages only.
    ///
    /// # Errors
    /// Names the key and what was expected.
    pub fn check(config: Config, file: &Path) -> Result<Self, ConfigError> {
        let wrong = |key: String, reason: &dyn fmt::Display| ConfigError::Value {
            path: file.into(),
            key,
            reason: reason.to_string(),
        };
        plain::check(&config, &wrong)?;
        let anchors = namespaces::anchors(&config, &wrong)?;
        let mirror = config.mirror.as_ref();
        let mirror = mirror
            .map(|mirror| relays::mirroring(mirror, &anchors, &wrong))
            .transpose()?;
        let cluster = config.cluster.as_ref();
        let cluster = cluster
            .map(|cluster| cluster::clustering(cluster, &wrong))
            .transpose()?;
        let access = access::access(&config, &wrong)?;
        Ok(Self {
            cluster,
            restore_from: relays::restore_from(&config, &wrong)?,
            feeds: relays::feeds(&config, &wrong)?,
            slots: slots::slots(&config, &access, &wrong)?,
            beats: namespaces::beats(&config, &anchors, mirror.as_ref(), &wrong)?,
            retention: namespaces::retention(&config, &wrong)?,
            file: file.into(),
            anchors,
            mirror,
            access,
            config,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        fs::write(&path, text).unwrap();
        match Settings::read(&path) {
            Ok(_) => "good".into(),
            Err(error) => error.to_string().replace(&*path.to_string_lossy(), "FILE"),
        }
    }

    #[test]
    fn a_configuration_says_what_is_wrong_and_where() {
        assert_eq!(check("data_dir = 'x'"), "good");
        assert_eq!(
            check("data_dir = 'x'\ndatadir = 'y'"),
            "FILE: line 2: unknown key `datadir`; did you mean `data_dir`?"
        );
        assert_eq!(
            check("data_dir = 'x'\n[limits]\nidle_second = 3"),
            "FILE: line 3: unknown key `idle_second`; did you mean `idle_seconds`?"
        );
        assert_eq!(
            check("data_dir = 'x'\n[limits]\nidle_seconds = 3"),
            "FILE: limits.idle_seconds: expected 180 to 86400, found 3"
        );
        assert_eq!(
            check("data_dir = 'x'\n[log]\nformat = 'jsn'"),
            "FILE: line 3: unknown value `jsn`; did you mean `json`?"
        );
        assert_eq!(
            check("data_dir = 'x'\n[log]\nlevel = 'loud'"),
            "FILE: log.level: expected error, warn, info, debug or trace, found \"loud\""
        );
        assert_eq!(
            check("data_dir = 3"),
            "FILE: line 1: invalid type: integer `3`, expected path string"
        );
        assert_eq!(
            check("data_dir = 'x'\n[[beat]]\nnamespace = 'a'\nkey_file = 'k'"),
            "FILE: beat[0].namespace: a has no anchor in anchors"
        );
        assert!(
            check("data_dir = 'x'\nanchors = ['a b']")
                .starts_with("FILE: anchors[0]: an anchor is one line")
        );
        assert_eq!(
            check("data_dir = 'x'\n[listen]\nnntps = ['[::1]:563']"),
            "FILE: listen.nntps: needs [tls] with certificate_file and key_file"
        );
    }

    #[test]
    fn more_files_are_read_in_order_and_what_is_wrong_in_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        let more = dir.path().join("conf.d");
        fs::create_dir(&more).unwrap();
        let write = |name: &str, text: &str| fs::write(more.join(name), text).unwrap();
        fs::write(
            &path,
            "data_dir = 'x'\n[log]\nlevel = 'warn'\n[[peer]]\nname = 'a'",
        )
        .unwrap();
        write("20.toml", "name = 'second'\n[[peer]]\nname = 'b'");
        write(
            "10.toml",
            "name = 'first'\nposting = false\n[log]\nformat = 'json'",
        );
        write("30.toml.old", "this is not read");
        let config = Settings::read(&path).unwrap().config;
        assert_eq!((config.name.as_str(), config.posting), ("second", false));
        assert_eq!(
            (config.log.level.as_str(), config.log.format),
            ("warn", LogFormat::Json)
        );
        let peers: Vec<&str> = config.peer.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(peers, ["a", "b"]);

        let wrong = || {
            let text = Settings::read(&path).unwrap_err().to_string();
            text.replace(&*dir.path().to_string_lossy(), "DIR")
        };
        write("30.toml", "\nnmae = 'x'");
        assert_eq!(
            wrong(),
            "DIR/conf.d/30.toml: line 2: unknown key `nmae`; did you mean `name`?"
        );
        write("30.toml", "[[feed]]\nname = 'inn'");
        assert_eq!(wrong(), "DIR/t.toml: with conf.d: missing field `to`");
        write("30.toml", "name =");
        assert!(
            wrong().starts_with("DIR/conf.d/30.toml: line 1: "),
            "{}",
            wrong()
        );
        write("30.toml", "[listen]\nnntp = []");
        assert!(wrong().starts_with("DIR/t.toml: listen: "), "{}", wrong());
    }
}
