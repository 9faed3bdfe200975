//! `/etc/tidings/agent.toml` and `agent.d/*.toml`, checked. The agent and the applier read the
//! same.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize;
use tidings_client::{Anchor, Channel, Profile, SlotServer, Slots, Tls};
use tidings_protocol::{Digest, slot::SlotName};

use crate::windows::Windows;

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What proves everything: `NAMESPACE SERIAL ID`.
    #[serde(deserialize_with = "parsed")]
    pub anchor: Anchor,
    /// `nntps://HOST[:PORT]`, in the order in which they are asked.
    pub brokers: Vec<String>,
    /// What this machine follows.
    #[serde(deserialize_with = "all_parsed")]
    pub channels: Vec<Channel>,
    /// How many brokers must have the same log before anything is installed.
    #[serde(default = "one")]
    pub quorum: u8,
    /// Roots for TLS with brokers, in a file; the system's if absent.
    pub roots: Option<PathBuf>,
    /// What makes this machine another one than the rest of the fleet; the machine's id if absent.
    /// It is hashed, and never sent.
    pub identity: Option<String>,
    /// `model = "x"`, or `model = { file = "/sys/…" }`.
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
    /// When the machine may go, in UTC: `Mon..Fri 02:00-04:00`; at any time if there is none.
    #[serde(default)]
    pub windows: Windows,
    /// How this machine is called where slots are given.
    #[serde(default, deserialize_with = "maybe_parsed")]
    pub node: Option<SlotName>,
    /// Where slots are given.
    #[serde(default)]
    pub slots: SlotConfig,
    /// What may be used to make a release effective; a stronger way may take the place of a weaker
    /// one.
    #[serde(default = "all_ways")]
    pub ways: Vec<Way>,
    /// How long the machine may take to be well with a release.
    #[serde(default = "health_seconds")]
    pub health_seconds: u64,
    /// How payloads are fetched.
    #[serde(default)]
    pub fetch: Fetch,
    /// Where everything lies.
    #[serde(default)]
    pub paths: Paths,
}

/// Where slots are given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlotConfig {
    /// `https://HOST[:PORT]`: brokers that are members of one cluster, or one; in the order in
    /// which they are asked.
    pub servers: Vec<String>,
    /// Roots for TLS with them, in a file; the system's if absent.
    pub roots: Option<PathBuf>,
    /// A certificate that names this machine, if they want one.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// A file with the bearer token by which they know this machine.
    pub bearer_file: Option<PathBuf>,
}

impl SlotConfig {
    /// What asks them.
    ///
    /// # Errors
    /// If an address is none, or a file cannot be used.
    pub fn slots(&self) -> anyhow::Result<Slots> {
        let servers = self.servers.iter().map(|url| url.parse::<SlotServer>());
        let servers = servers.collect::<Result<_, _>>().context("slots.servers")?;
        let own = self.certificate.as_deref().zip(self.key.as_deref());
        let tls = Tls::new(self.roots.as_deref(), own).context("slots")?;
        let slots = Slots::new(servers, tls);
        let Some(file) = &self.bearer_file else {
            return Ok(slots);
        };
        let token = fs::read_to_string(file)
            .with_context(|| format!("slots.bearer_file: cannot read {}", file.display()))?;
        Ok(slots.with_bearer(token.trim()))
    }
}

/// A property of the machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Property {
    /// As it is.
    Value(String),
    /// The first line of a file.
    File(PropertyFile),
}

/// Where a property stands.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropertyFile {
    file: PathBuf,
}

/// What makes a release effective, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Nothing has to be done.
    None,
    /// In the running system.
    Live,
    /// Units are restarted.
    Restart,
    /// All of user space, under the same kernel.
    SoftReboot,
    /// Into the new kernel directly.
    Kexec,
    /// All of the machine.
    Reboot,
}

impl Way {
    /// The weakest first.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Live,
        Self::Restart,
        Self::SoftReboot,
        Self::Kexec,
        Self::Reboot,
    ];

    /// The name of its handler.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Live => "live",
            Self::Restart => "restart",
            Self::SoftReboot => "soft-reboot",
            Self::Kexec => "kexec",
            Self::Reboot => "reboot",
        }
    }
}

/// How payloads are fetched.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fetch {
    /// `https`, `http`, `file`.
    pub schemes: Vec<String>,
    /// At most; as fast as it comes if 0.
    pub octets_per_second: u64,
    /// Otherwise that of the environment: `https_proxy` and so on.
    pub proxy: Option<String>,
    /// Roots for HTTPS, in a file; the system's if absent.
    pub roots: Option<PathBuf>,
}

impl Default for Fetch {
    fn default() -> Self {
        Self {
            schemes: vec!["https".into(), "http".into()],
            octets_per_second: 0,
            proxy: None,
            roots: None,
        }
    }
}

/// Where everything lies.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// The agent's own: its state, its journal, and what it has fetched.
    pub agent: PathBuf,
    /// The applier's own, for root alone.
    pub applier: PathBuf,
    /// Where the status is.
    pub run: PathBuf,
    /// Handlers and what configures them, of this machine.
    pub etc: PathBuf,
    /// Handlers as they were shipped.
    pub lib: PathBuf,
    /// The applier's socket, or its program, which is then started by the agent itself.
    pub apply: PathBuf,
    /// Where the kernel says which life of the machine this is.
    pub boot_id: PathBuf,
    /// For node_exporter's textfile collector.
    pub textfile: Option<PathBuf>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            agent: "/var/lib/tidings-agent".into(),
            applier: "/var/lib/tidings-apply".into(),
            run: "/run/tidings".into(),
            etc: "/etc/tidings".into(),
            lib: "/usr/lib/tidings".into(),
            apply: "/run/tidings-apply.sock".into(),
            boot_id: "/proc/sys/kernel/random/boot_id".into(),
            textfile: None,
        }
    }
}

impl Config {
    /// Reads a file, and `agent.d/*.toml` beside it, in the order of their names; a later one wins.
    ///
    /// # Errors
    /// What is wrong, and in which file; keys that are not known are refused.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut files = vec![path.to_owned()];
        let more = path.with_file_name("agent.d");
        if let Ok(entries) = fs::read_dir(&more) {
            let mut found: Vec<PathBuf> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect();
            found.retain(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            });
            found.sort();
            files.extend(found);
        }
        let mut all = toml::Table::new();
        for file in &files {
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            // The line is named and not quoted: it may have a proxy's password.
            let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
                let before = error.span().and_then(|span| text.get(..span.start));
                let line = before.map_or(1, |before| before.matches('\n').count() + 1);
                anyhow::anyhow!(
                    "{} is no TOML: line {line}: {}",
                    file.display(),
                    error.message()
                )
            })?;
            merge(&mut all, table);
        }
        let config: Self = all
            .try_into()
            .map_err(|error: toml::de::Error| anyhow::anyhow!("{}", error.message()))
            .with_context(|| format!("{} (with agent.d) cannot be used", path.display()))?;
        config
            .check()
            .with_context(|| format!("{} (with agent.d) cannot be used", path.display()))?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.brokers.is_empty(), "brokers: name one at least");
        ensure!(!self.channels.is_empty(), "channels: name one at least");
        ensure!(
            self.quorum >= 1 && usize::from(self.quorum) <= self.brokers.len(),
            "quorum: from 1 to the number of brokers"
        );
        ensure!(
            self.slots.certificate.is_some() == self.slots.key.is_some(),
            "slots: certificate and key go together"
        );
        for url in &self.slots.servers {
            url.parse::<SlotServer>().context("slots.servers")?;
        }
        let known = |scheme: &String| matches!(scheme.as_str(), "https" | "http" | "file");
        ensure!(
            self.fetch.schemes.iter().all(known),
            "fetch.schemes: https, http and file are known"
        );
        Ok(())
    }

    /// What this machine is.
    ///
    /// # Errors
    /// If a file with a property, or the machine's id, cannot be read.
    pub fn profile(&self) -> anyhow::Result<Profile> {
        let first_line = |path: &Path| -> anyhow::Result<String> {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(text.lines().next().unwrap_or_default().trim().to_owned())
        };
        let identity = match &self.identity {
            Some(identity) => identity.clone(),
            None => first_line(Path::new("/etc/machine-id")).context("set `identity`")?,
        };
        ensure!(
            !identity.is_empty(),
            "this machine has no identity: set `identity`, or give it a machine-id"
        );
        let property = |(key, property): (&String, &Property)| {
            let value = match property {
                Property::Value(value) => value.clone(),
                Property::File(file) => {
                    first_line(&file.file).with_context(|| format!("properties.{key}"))?
                }
            };
            Ok((key.clone(), value))
        };
        let properties = self
            .properties
            .iter()
            .map(property)
            .collect::<anyhow::Result<_>>()?;
        // The id of a machine is no secret of ours to give away, not even in a file of ours.
        let identity = Digest::of(format!("tidings identity\n{identity}").as_bytes()).to_string();
        Ok(Profile {
            identity,
            properties,
        })
    }
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn one() -> u8 {
    1
}
fn health_seconds() -> u64 {
    300
}
fn all_ways() -> Vec<Way> {
    Way::ALL.into()
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>, E: serde::de::Error>(
    text: &str,
) -> Result<T, E> {
    text.parse()
        .map_err(|error| E::custom(format!("{text:?}: {error}")))
}
fn parsed<'de, D: serde::Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    from: D,
) -> Result<T, D::Error> {
    parse(&String::deserialize(from)?)
}
fn maybe_parsed<'de, D: serde::Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    parsed(from).map(Some)
}
fn all_parsed<'de, D: serde::Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    Vec::<String>::deserialize(from)?
        .iter()
        .map(|text| parse(text))
        .collect()
}
