//! Configuration: TOML as it is written → checked settings.
//!
//! Unknown keys are refused, and the nearest known one is named. Units are in the keys.
//! `written.rs` is the file as it is written, the others are what is made of it.

mod access;
mod changed;
mod cluster;
mod files;
mod slots;
mod written;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tidings_client::Address;
use tidings_protocol::{
    Anchor, Namespace, StatementId, Wildmat,
    limits::{BEAT_LIFE_SECONDS, HEARTBEAT_SECONDS},
    slot::SlotName,
};
pub use written::*;

use crate::access::Access;

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
        let good_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        if config.name.is_empty() || config.name.len() > 128 || !config.name.bytes().all(good_name)
        {
            return Err(wrong(
                "name".into(),
                &"expected a host name: letters, digits, `.`, `-`, `_`",
            ));
        }
        let is_host =
            |name: &&String| !name.is_empty() && name.bytes().all(|b| b != b':' && good_name(b));
        if let Some(odd) = config.admin.names.iter().find(|name| !is_host(name)) {
            return Err(wrong(
                "admin.names".into(),
                &format!("expected host names without a port, found {odd:?}"),
            ));
        }
        let mut anchors: Vec<Anchor> = Vec::new();
        for (index, line) in config.anchors.iter().enumerate() {
            let anchor: Anchor = line
                .parse()
                .map_err(|e: tidings_protocol::NameError| wrong(format!("anchors[{index}]"), &e))?;
            if anchors
                .iter()
                .any(|known| known.namespace == anchor.namespace)
            {
                return Err(wrong(
                    format!("anchors[{index}]"),
                    &format!("{} has an anchor already", anchor.namespace),
                ));
            }
            anchors.push(anchor);
        }
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let level = config
            .log
            .level
            .split(',')
            .find(|part| !part.contains('=') && !levels.contains(part));
        if let Some(unknown) = level {
            return Err(wrong(
                "log.level".into(),
                &format!("expected error, warn, info, debug or trace, found {unknown:?}"),
            ));
        }
        if config.listen.nntp.is_empty() && config.listen.nntps.is_empty() {
            return Err(wrong(
                "listen".into(),
                &"expected at least one address in nntp or nntps",
            ));
        }
        let mut every = addresses(&config);
        every.retain(|address| address.port() != 0);
        every.sort();
        if let Some(twice) = every.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(wrong(
                "listen".into(),
                &format!("{} is named twice; each address is for one thing", twice[0]),
            ));
        }
        if !config.listen.nntps.is_empty() && config.tls.is_none() {
            return Err(wrong(
                "listen.nntps".into(),
                &"needs [tls] with certificate_file and key_file",
            ));
        }
        let limits = &config.limits;
        let ranges = [
            ("connections", limits.connections as u64, 1, 1_000_000),
            (
                "connections_per_address",
                limits.connections_per_address as u64,
                1,
                1_000_000,
            ),
            ("watches", limits.watches as u64, 0, 1_000_000),
            // RFC 3977 section 3.1 asks for three minutes at least.
            ("idle_seconds", limits.idle_seconds, 180, 86_400),
            ("handshake_seconds", limits.handshake_seconds, 1, 600),
            (
                "heartbeat_seconds",
                limits.heartbeat_seconds,
                2,
                HEARTBEAT_SECONDS,
            ),
            ("gap_seconds", limits.gap_seconds, 1, 30 * 86_400),
            ("closed_days", limits.closed_days, 0, 10_000),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(wrong(
                    format!("limits.{key}"),
                    &format!("expected {low} to {high}, found {value}"),
                ));
            }
        }
        for (key, value, most) in [
            ("channels", config.quota.channels, crate::limits::CHANNELS),
            ("evidence", config.quota.evidence, 100_000),
        ] {
            if !(1..=most).contains(&value) {
                return Err(wrong(
                    format!("quota.{key}"),
                    &format!("expected 1 to {most}, found {value}"),
                ));
            }
        }
        let mirror = config.mirror.as_ref().map(|mirror| {
            let wrong =
                |key: &str, reason: &dyn fmt::Display| wrong(format!("mirror.{key}"), reason);
            let upstreams: Result<Vec<Address>, _> = mirror
                .upstreams
                .iter()
                .map(|address| address.parse())
                .collect();
            let upstreams = upstreams.map_err(|e| wrong("upstreams", &e))?;
            if upstreams.is_empty() {
                return Err(wrong("upstreams", &"expected at least one broker"));
            }
            if !(1..=86_400).contains(&mirror.poll_seconds) {
                return Err(wrong(
                    "poll_seconds",
                    &format!("expected 1 to 86400, found {}", mirror.poll_seconds),
                ));
            }
            let channels = with_trust_and_beats(&mirror.channels, &anchors)
                .parse()
                .map_err(|e| wrong("channels", &e))?;
            Ok(Mirroring {
                upstreams,
                channels,
                login: mirror.login.clone(),
                poll: Duration::from_secs(mirror.poll_seconds),
            })
        });
        let mirror = mirror.transpose()?;
        let cluster = config
            .cluster
            .as_ref()
            .map(|cluster| cluster::clustering(cluster, &wrong))
            .transpose()?;
        let mut feeds: Vec<Feed> = Vec::new();
        for (index, feed) in config.feed.iter().enumerate() {
            let wrong = |key: &str, reason: &dyn fmt::Display| {
                wrong(format!("feed[{index}].{key}"), reason)
            };
            if feed.name.is_empty()
                || !feed.name.bytes().all(good_name)
                || feeds.iter().any(|other| other.name == feed.name)
            {
                return Err(wrong(
                    "name",
                    &"expected a name of its own: letters, digits, `.`, `-`, `_`",
                ));
            }
            feeds.push(Feed {
                name: feed.name.clone(),
                to: feed.to.parse().map_err(|e| wrong("to", &e))?,
                channels: feed.channels.parse().map_err(|e| wrong("channels", &e))?,
                path: feed.path.clone(),
                login: feed.login.clone(),
            });
        }
        let restore_from = config
            .restore_from
            .iter()
            .enumerate()
            .map(|(index, address)| {
                address
                    .parse::<Address>()
                    .map_err(|error| wrong(format!("restore_from[{index}]"), &error))
            });
        let restore_from = Mirroring {
            upstreams: restore_from.collect::<Result<_, _>>()?,
            channels: "*"
                .parse()
                .map_err(|error| wrong("restore_from".into(), &error))?,
            login: Login::default(),
            poll: crate::limits::RESTORE_AGAIN,
        };
        let access = access::access(&config, &wrong)?;
        let slots = slots::slots(&config, &access, &wrong)?;
        let mut beats: Vec<Beat> = Vec::new();
        for (index, beat) in config.beat.iter().enumerate() {
            let wrong = |key: &str, reason: &dyn fmt::Display| {
                wrong(format!("beat[{index}].{key}"), reason)
            };
            let Some(anchor) = anchors
                .iter()
                .find(|anchor| anchor.namespace.as_str() == beat.namespace)
            else {
                return Err(wrong(
                    "namespace",
                    &format!("{} has no anchor in anchors", beat.namespace),
                ));
            };
            let namespace = anchor.namespace.clone();
            if beats
                .iter()
                .any(|other| other.namespace == namespace && other.key_file == beat.key_file)
            {
                return Err(wrong(
                    "key_file",
                    &format!("{namespace} has a signer with this key already"),
                ));
            }
            if mirror
                .as_ref()
                .is_some_and(|mirror| mirror.channels.matches(namespace.beat().as_str()))
            {
                return Err(wrong(
                    "namespace",
                    &format!(
                        "the beats of {namespace} are copied by [mirror]; they are signed at the origin"
                    ),
                ));
            }
            let most = BEAT_LIFE_SECONDS;
            if !(1..most).contains(&beat.every_seconds) {
                return Err(wrong(
                    "every_seconds",
                    &format!("expected 1 to {}, found {}", most - 1, beat.every_seconds),
                ));
            }
            if !(beat.every_seconds + 1..=most).contains(&beat.life_seconds) {
                let expected = format!(
                    "expected more than every_seconds and at most {most}, found {}",
                    beat.life_seconds
                );
                return Err(wrong("life_seconds", &expected));
            }
            let (key_file, every) = (
                beat.key_file.clone(),
                Duration::from_secs(beat.every_seconds),
            );
            beats.push(Beat {
                namespace,
                key_file,
                every,
                life_seconds: beat.life_seconds,
            });
        }
        let mut retention = Vec::new();
        for (index, entry) in config.retention.iter().enumerate() {
            let channels = entry
                .channels
                .parse()
                .map_err(|e| wrong(format!("retention[{index}].channels"), &e))?;
            if entry.count == Some(0) || (entry.count.is_none() && entry.age_days.is_none()) {
                return Err(wrong(
                    format!("retention[{index}]"),
                    &"expected count (1 or more), age_days, or both",
                ));
            }
            retention.push(Retention {
                channels,
                count: entry.count,
                age: entry
                    .age_days
                    .map(|days| Duration::from_secs(u64::from(days) * 86_400)),
            });
        }
        let every_beat = "*.beat"
            .parse()
            .map_err(|e| wrong("retention".into(), &e))?;
        retention.push(Retention {
            channels: every_beat,
            count: Some(16),
            age: None,
        });
        Ok(Self {
            config,
            file: file.into(),
            anchors,
            mirror,
            cluster,
            restore_from,
            feeds,
            access,
            slots,
            beats,
            retention,
        })
    }
}

/// The channels of a mirror, and the trust logs and beats of the namespaces that they are in.
fn with_trust_and_beats(channels: &str, anchors: &[Anchor]) -> String {
    let literal = |pattern: &str| {
        pattern
            .split(['*', '?'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let wanted: Vec<String> = channels
        .split(',')
        .filter(|pattern| !pattern.starts_with('!'))
        .map(literal)
        .collect();
    let mut all = channels.to_owned();
    for Anchor { namespace, .. } in anchors {
        let within = format!("{namespace}.");
        if wanted
            .iter()
            .any(|literal| literal.starts_with(&within) || within.starts_with(literal.as_str()))
        {
            all.push_str(&format!(
                ",{namespace}.trust,{namespace}.beat,{namespace}.*.beat"
            ));
        }
    }
    all
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
