//! The configuration as it is written.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;
use tidings_protocol::limits::HEARTBEAT_SECONDS;

/// The file as it is written. Every key has a default but `data_dir`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name that this broker puts in front of `Path`.
    #[serde(default = "default_name")]
    pub name: String,
    /// Where the store lives.
    pub data_dir: PathBuf,
    /// The anchors of the namespaces that it serves: `NAMESPACE SERIAL sha256:HEX`.
    #[serde(default)]
    pub anchors: Vec<String>,
    /// Whether statements are taken from publishers.
    #[serde(default = "yes")]
    pub posting: bool,
    /// Where it listens.
    #[serde(default)]
    pub listen: Listen,
    /// Certificate and key for `listen.nntps`.
    pub tls: Option<Tls>,
    /// What is copied from other brokers.
    pub mirror: Option<MirrorConfig>,
    /// The brokers that are one origin with this one.
    pub cluster: Option<ClusterConfig>,
    /// Brokers that may have more than this one, which was restored from a backup.
    #[serde(default)]
    pub restore_from: Vec<String>,
    /// Peers that statements are offered to.
    #[serde(default)]
    pub feed: Vec<FeedConfig>,
    /// Those who are known.
    #[serde(default)]
    pub peer: Vec<PeerConfig>,
    /// Who may read what; the first entry that matches a channel counts, and without one all may.
    #[serde(default)]
    pub access: Vec<AccessConfig>,
    /// Groups of machines that take turns going down.
    #[serde(default)]
    pub slot: Vec<SlotConfig>,
    /// Where those groups are served, over FleetLock.
    pub fleetlock: Option<FleetLockConfig>,
    /// For operators: health and metrics, over HTTP.
    #[serde(default)]
    pub admin: Admin,
    /// Namespaces whose beats this broker signs.
    #[serde(default)]
    pub beat: Vec<BeatConfig>,
    /// What is kept, for how long; the first entry that matches a channel counts.
    #[serde(default)]
    pub retention: Vec<RetentionConfig>,
    /// Limits on what peers can make grow.
    #[serde(default)]
    pub limits: Limits,
    /// What each namespace may use up.
    #[serde(default)]
    pub quota: Quota,
    /// The log.
    #[serde(default)]
    pub log: Log,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Addresses for clear text.
    pub nntp: Vec<SocketAddr>,
    /// Addresses for implicit TLS.
    pub nntps: Vec<SocketAddr>,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM: the certificate and those of its issuers.
    pub certificate_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
    /// PEM: what clients' certificates are checked with; without it none is asked for.
    pub client_ca_file: Option<PathBuf>,
}

/// How this broker makes itself known to others.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Login {
    /// PEM: the roots that their certificates are checked with; without it, those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM: our certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM: its key.
    pub key_file: Option<PathBuf>,
    /// The name for AUTHINFO.
    pub user: Option<String>,
    /// A file with the password, and nothing else.
    pub password_file: Option<PathBuf>,
}

/// `[mirror]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// Brokers, `nntps://HOST[:PORT]` or `nntp://HOST[:PORT]`; all are followed at once, and the
    /// first to have something wins.
    pub upstreams: Vec<String>,
    /// A wildmat of the channels that are copied, those of the future included; trust logs and
    /// beats come with them.
    #[serde(default = "everything")]
    pub channels: String,
    /// How this broker makes itself known to them.
    #[serde(default)]
    pub login: Login,
    /// How often an upstream without XWATCH is asked.
    #[serde(default = "default_poll")]
    pub poll_seconds: u64,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The ZooKeeper servers, `HOST:PORT` each.
    pub servers: Vec<String>,
    /// The node of their tree below which everything is.
    #[serde(default = "default_root")]
    pub root: String,
    /// Where the other members reach this broker, `nntps://HOST[:PORT]` or `nntp://HOST[:PORT]`.
    pub address: String,
    /// After how long without an answer from the servers this broker is no member any more.
    #[serde(default = "default_session")]
    pub session_seconds: u64,
    /// The name for ZooKeeper's digest authentication; nodes are then for those with this name and
    /// password alone.
    pub user: Option<String>,
    /// A file with the password, and nothing else.
    pub password_file: Option<PathBuf>,
    /// TLS to the servers.
    pub tls: Option<ClusterTls>,
    /// How this broker makes itself known to the other members.
    #[serde(default)]
    pub login: Login,
}

/// `[cluster.tls]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterTls {
    /// PEM: the roots that the servers' certificates are checked with.
    pub ca_file: PathBuf,
    /// PEM: our certificate, if they ask for one.
    pub certificate_file: Option<PathBuf>,
    /// PEM: its key.
    pub key_file: Option<PathBuf>,
}

fn default_root() -> String {
    "/tidings".into()
}

fn default_session() -> u64 {
    10
}

/// `[[feed]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedConfig {
    /// What the log and the cursors call it. With another name everything is offered again.
    pub name: String,
    /// The news server, `nntps://HOST[:PORT]` or `nntp://HOST[:PORT]`.
    pub to: String,
    /// A wildmat of the channels that are offered.
    #[serde(default = "everything")]
    pub channels: String,
    /// The name that it puts into `Path`: what has been there is not offered. Without it, the peer
    /// says itself what it has.
    pub path: Option<String>,
    /// How this broker makes itself known.
    #[serde(default)]
    pub login: Login,
}

/// `[[peer]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// What the log calls them, and AUTHINFO USER.
    pub name: String,
    /// Networks that they come from, if that is enough to know them.
    #[serde(default)]
    pub networks: Vec<String>,
    /// SHA-256 of their certificates, in hexadecimal digits.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// The hash of their password, as `openssl passwd -6` prints it.
    pub password: Option<String>,
    /// SHA-256 of their bearer tokens for FleetLock, in hexadecimal digits.
    #[serde(default)]
    pub tokens: Vec<String>,
    /// A wildmat of the channels that they may offer by IHAVE, CHECK and TAKETHIS.
    pub feeds: Option<String>,
}

/// `[[access]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// A wildmat of channels.
    pub channels: String,
    /// The peers that may read them; for everybody else they do not exist.
    pub readers: Vec<String>,
}

pub(super) fn everything() -> String {
    "*".into()
}

pub(super) fn default_poll() -> u64 {
    60
}

/// `[[slot]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotConfig {
    /// The group, as `Slot:` of a release names it.
    pub group: String,
    /// How many of its nodes may be down at once.
    #[serde(default = "one")]
    pub max: u32,
    /// For how long a node may be down before it counts as failed.
    #[serde(default = "default_lease")]
    pub lease_seconds: u64,
    /// With so many failed nobody gets a slot until an operator has looked.
    #[serde(default = "one")]
    pub failures: u32,
    /// The peers whose nodes may have slots; without it, everybody.
    pub takers: Option<Vec<String>>,
    /// The peers that may clear what has failed.
    #[serde(default)]
    pub operators: Vec<String>,
    /// Whether a node has to show a client certificate that names it.
    #[serde(default)]
    pub certificate: bool,
}

fn one() -> u32 {
    1
}

fn default_lease() -> u64 {
    1_800
}

/// `[fleetlock]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetLockConfig {
    /// Addresses for HTTP.
    pub listen: Vec<SocketAddr>,
    /// Whether it is HTTPS, with the certificate of `[tls]`.
    #[serde(default)]
    pub tls: bool,
}

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Addresses for HTTP, in clear text: keep them on loopback.
    pub listen: Vec<SocketAddr>,
    /// Names under which it may be asked, beside `localhost`, `name` and its addresses.
    pub names: Vec<String>,
}

/// `[[beat]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeatConfig {
    /// The namespace; one of those in `anchors`.
    pub namespace: String,
    /// PEM: a private key that the trust in force has a beat role for, without a passphrase.
    pub key_file: PathBuf,
    /// How often a beat is signed.
    #[serde(default = "default_every")]
    pub every_seconds: u64,
    /// For how long one proves that nothing is held back; a few times as long, so that one may be
    /// late.
    #[serde(default = "default_life")]
    pub life_seconds: u64,
}

fn default_every() -> u64 {
    300
}

fn default_life() -> u64 {
    900
}

/// `[[retention]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// A wildmat of channels. Trust logs are kept for ever, whatever matches.
    pub channels: String,
    /// How many statements of each are kept.
    pub count: Option<u32>,
    /// For how many days they are kept; the head always stays.
    pub age_days: Option<u32>,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one IPv4 address or one IPv6 /64.
    pub connections_per_address: usize,
    /// Connections that watch.
    pub watches: usize,
    /// How long a connection that does not watch may say nothing.
    pub idle_seconds: u64,
    /// How long a TLS handshake may take.
    pub handshake_seconds: u64,
    /// The longest silence of a watch.
    pub heartbeat_seconds: u64,
    /// For how long a channel that a feed has begun in the middle is not served, since what lies
    /// below may still come.
    pub gap_seconds: u64,
    /// For how many days a channel is kept that is closed for good.
    pub closed_days: u64,
}

/// `[quota]`: what each namespace may use up, so that none takes what others need.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Channels.
    pub channels: usize,
    /// Files of evidence: forks, and what has lost its place.
    pub evidence: usize,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as tracing has it.
    pub level: String,
    /// Where and how.
    pub format: LogFormat,
}

/// `log.format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines on standard error.
    #[default]
    Text,
    /// JSON objects on standard error.
    Json,
    /// The journal of systemd.
    Journald,
}

fn default_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn yes() -> bool {
    true
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            nntp: vec![SocketAddr::from(([127, 0, 0, 1], 119))],
            nntps: vec![],
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            connections_per_address: 1_000,
            watches: 50_000,
            idle_seconds: 600,
            handshake_seconds: 10,
            heartbeat_seconds: HEARTBEAT_SECONDS,
            gap_seconds: 3_600,
            closed_days: 30,
        }
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            channels: 20_000,
            evidence: 256,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::default(),
        }
    }
}
