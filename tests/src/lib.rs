//! What the whole-system tests share: a namespace with keys, a broker as a process, and statements
//! to publish.

pub mod bench;
pub mod cables;
pub mod clock;
pub mod cluster;
mod daemon;
pub mod ensemble;
pub mod forgetful;
pub mod forgetting;
pub mod http;
pub mod inn;
pub mod monitoring;
pub mod realm;
pub mod relay;
pub mod schema;
pub mod slots;
pub mod tree;
pub mod webdriver;

pub use daemon::{Daemon, cpu_seconds};

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tidings_client::{Slots, Source, Statement, Tls, keys, now};
use tidings_protocol::{
    Anchor, Channel, Head, PublicKey, Serial, SigningKey,
    statement::{Body, Draft, Kind, NamedKey, Release, Role, TrustRules},
};

/// How long a broker may take to answer after its start.
const START: Duration = Duration::from_secs(30);

/// Stands in a configuration for an address that nobody listens on.
pub const FREE_ADDRESS: &str = "FREE-ADDRESS";

/// The namespace of all tests.
pub const NAMESPACE: &str = "test";

/// A binary of this workspace, built beside the tests.
///
/// # Panics
/// If it was not built.
pub fn binary(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    let beside = here
        .ancestors()
        .skip(1)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    beside.unwrap_or_else(|| panic!("{name} is not built; run `cargo build --workspace` first"))
}

/// `tidings`, run in a directory, with an outbox of its own there, so that no test meets what
/// another one has signed.
pub fn tidings(directory: &Path) -> Command {
    let mut command = Command::new(binary("tidings"));
    command
        .current_dir(directory)
        .env("TIDINGS_OUTBOX", directory.join("outbox"));
    command
}

/// A directory with keys, the first trust statement, and a configuration.
pub struct Fixture {
    /// Where everything is.
    pub directory: PathBuf,
    /// May sign trust statements.
    pub root: SigningKey,
    /// May sign releases and withdrawals.
    pub release: SigningKey,
    /// The first trust statement.
    pub trust: Statement,
    /// The anchor of the namespace.
    pub anchor: Anchor,
    /// The name that it puts into `Path`, and that it is a member of a cluster by.
    pub name: String,
    /// Where the broker will listen.
    pub address: SocketAddr,
    /// What stands before the broker on its command line, e.g. `ip netns exec NAME`.
    pub launcher: Vec<String>,
    _directory: Option<tempfile::TempDir>,
}

/// An address that nobody listens on, and that no outgoing connection can take while a broker is
/// away: below the range from which Linux draws those, and never given twice by one process.
///
/// # Errors
/// If the machine has no port left there.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..10_000 {
        let number = std::process::id()
            .wrapping_mul(61)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(20_000 + number % 12_000)?));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port between 20000 and 32000 is free")
}

/// A trust statement with two keys: `root` for trust, `release` for the rest.
///
/// # Errors
/// Never, unless this crate is broken.
pub fn trust(root: &SigningKey, release: &SigningKey) -> anyhow::Result<Statement> {
    let role = |kind, name: &str| {
        anyhow::Ok(Role {
            kind,
            pattern: "*".parse()?,
            threshold: 1,
            names: vec![name.into()],
        })
    };
    let key = |key, name: &str| NamedKey {
        key: PublicKey::of(key),
        name: name.into(),
    };
    let rules = TrustRules {
        expires: now().plus(365 * 86_400),
        keys: vec![key(root, "root"), key(release, "release")],
        roles: vec![
            role(Kind::Trust, "root")?,
            role(Kind::Release, "release")?,
            role(Kind::Withdraw, "release")?,
        ],
        checkpoints: vec![],
        closed: vec![],
    };
    let draft = Draft {
        channel: format!("{NAMESPACE}.trust").parse()?,
        after: None,
        time: now(),
        trust: None,
        body: Body::Trust(rules),
    };
    Ok(draft.write()?.sign(root)?)
}

/// A release of about `octets` octets that follows a head.
///
/// # Errors
/// If the channel is full.
pub fn release(
    channel: &Channel,
    after: Option<Head>,
    version: &str,
    octets: usize,
    key: &SigningKey,
) -> anyhow::Result<Statement> {
    let mut release = Release {
        version: version.into(),
        ..Release::default()
    };
    if octets > 500 {
        release.summary = Some("x".repeat((octets - 450).min(800)));
    }
    let draft = Draft {
        channel: channel.clone(),
        after,
        time: now(),
        trust: Some(Serial::FIRST),
        body: Body::Release(release),
    };
    Ok(draft.write()?.sign(key)?)
}

impl Fixture {
    /// A new one in a directory that goes away with it.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let fixture = Self::in_directory(directory.path())?;
        Ok(Self {
            _directory: Some(directory),
            ..fixture
        })
    }

    /// A new one in a given directory.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn in_directory(directory: &Path) -> anyhow::Result<Self> {
        let (root, release) = (keys::generate()?, keys::generate()?);
        let trust = trust(&root, &release)?;
        let anchor = Anchor {
            namespace: NAMESPACE.parse()?,
            head: trust.head(),
        };
        keys::write_private(&directory.join("root.key"), &root, None)?;
        keys::write_private(&directory.join("release.key"), &release, None)?;
        let fixture = Self {
            directory: directory.into(),
            root,
            release,
            trust,
            anchor,
            name: "broker.invalid".into(),
            address: free_address()?,
            launcher: vec![],
            _directory: None,
        };
        fixture.configure("")?;
        Ok(fixture)
    }

    /// Where the configuration is.
    pub fn config(&self) -> PathBuf {
        self.directory.join("tidingsd.toml")
    }

    /// Writes the configuration anew, with more at its end.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, more: &str) -> anyhow::Result<()> {
        let data = self.directory.join("data");
        let text = format!(
            "name = \"{}\"\ndata_dir = \"{}\"\nanchors = [\"{}\"]\n[listen]\nnntp = [\"{}\"]\n{more}\n",
            self.name,
            data.display(),
            self.anchor,
            self.address
        );
        let text = match text.contains(FREE_ADDRESS) {
            true => text.replace(FREE_ADDRESS, &free_address()?.to_string()),
            false => text,
        };
        Ok(fs::write(self.config(), text)?)
    }

    /// Where it serves slots, as its configuration says.
    ///
    /// # Errors
    /// If it does not.
    pub fn slot_address(&self) -> anyhow::Result<SocketAddr> {
        let text = fs::read_to_string(self.config())?;
        let (_, listen) = text
            .split_once("[fleetlock]\nlisten = [\"")
            .context("no [fleetlock]")?;
        Ok(listen.split('"').next().context("no address")?.parse()?)
    }

    /// What asks it for slots.
    ///
    /// # Errors
    /// If it has no address for that.
    pub fn slots(&self) -> anyhow::Result<Slots> {
        let server = format!("http://{}", self.slot_address()?).parse()?;
        Ok(Slots::new(vec![server], Tls::system()?))
    }

    /// Writes the configuration anew: whatever another broker has more comes from there first.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn restore_from(&self, other: &Self) -> anyhow::Result<()> {
        self.configure("")?;
        let text = fs::read_to_string(self.config())?;
        Ok(fs::write(
            self.config(),
            format!("restore_from = [\"{}\"]\n{text}", other.url()),
        )?)
    }

    /// A broker that copies everything from others.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn mirror_of(&self, upstreams: &[SocketAddr], more: &str) -> anyhow::Result<Self> {
        let mirror = Self {
            anchor: self.anchor.clone(),
            ..Self::new()?
        };
        mirror.mirror(upstreams, more)?;
        Ok(mirror)
    }

    /// Writes the configuration of a mirror anew.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn mirror(&self, upstreams: &[SocketAddr], more: &str) -> anyhow::Result<()> {
        let upstreams: Vec<String> = upstreams
            .iter()
            .map(|address| format!("\"nntp://{address}\""))
            .collect();
        self.configure(&format!(
            "[mirror]\nupstreams = [{}]\npoll_seconds = 1\n{more}",
            upstreams.join(", ")
        ))
    }

    /// What the broker has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("tidingsd.log")).unwrap_or_default()
    }

    /// The broker as a source for clients.
    ///
    /// # Errors
    /// Never, unless this crate is broken.
    pub fn source(&self) -> anyhow::Result<Source> {
        Ok(Source::new(
            [format!("nntp://{}", self.address).as_str()],
            &self.anchor.to_string(),
        )?)
    }

    /// The address as the commands want it.
    pub fn url(&self) -> String {
        format!("nntp://{}", self.address)
    }

    /// `tidings` in its directory, with this broker and its anchor.
    pub fn tidings(&self) -> Command {
        let mut command = tidings(&self.directory);
        command
            .env("TIDINGS_BROKERS", self.url())
            .env("TIDINGS_ANCHOR", self.anchor.to_string());
        if let Ok(address) = self.slot_address() {
            command.env("TIDINGS_SLOT_SERVERS", format!("http://{address}"));
        }
        command
    }

    /// Starts the broker, and does not wait for it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self) -> anyhow::Result<Daemon> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("tidingsd.log"))?;
        let program = binary("tidingsd").display().to_string();
        let mut words = self.launcher.iter().chain([&program]);
        let child = Command::new(words.next().context("no program")?)
            .args(words)
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Daemon { child })
    }

    /// Starts the broker and waits until it answers.
    ///
    /// # Errors
    /// What it said, if it ended instead.
    pub fn start(&self) -> anyhow::Result<Daemon> {
        let mut daemon = self.spawn()?;
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!(
                    "tidingsd ended with {status}: {}",
                    fs::read_to_string(self.directory.join("tidingsd.log"))?
                );
            }
            ensure!(
                began.elapsed() < START,
                "tidingsd does not listen after {START:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }
}

/// A small generator with a seed, so that a run can be repeated (SplitMix64).
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    /// A number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}
