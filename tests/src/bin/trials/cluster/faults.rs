//! What goes wrong: one thing, or several at once, and what becomes of it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tidings_tests::{
    Daemon, Fixture, Random, cables, cluster::SESSION_SECONDS, ensemble::Ensemble,
};
use tokio::time::sleep;

use super::{
    NODES, address,
    lines::{BROKER, Lines, SERVER, SERVERS},
};

/// A disk that has room for two segments of a store, and not for a third one.
const DISK_MEBIBYTES: u32 = 160;
/// Kinds of faults.
const KINDS: usize = 15;
/// Those that a schedule of a few is to have one of: the last ones.
const NEWER: usize = 5;

/// The kind of the first fault of a schedule.
fn first_kind(seed: u64) -> usize {
    KINDS - NEWER + usize::try_from(seed % NEWER as u64).unwrap_or(0)
}

/// Everything that can go wrong.
pub(crate) struct Stage<'a> {
    pub(crate) ensemble: &'a mut Ensemble,
    pub(crate) members: Vec<Fixture>,
    pub(crate) daemons: Vec<Option<Daemon>>,
    pub(crate) random: Random,
    pub(crate) lines: Lines,
    /// What is late, or held.
    pub(crate) ports: &'static [u16],
    /// Whose disk is small.
    pub(crate) small: usize,
}

impl Stage<'_> {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap_or(0)
    }

    /// One thing, or several at once, that go wrong, and what becomes of it.
    ///
    /// The first one of a schedule is one of the newer kinds, by its seed.
    pub(crate) async fn fault(&mut self, first: Option<u64>) -> anyhow::Result<String> {
        let node = self.below(NODES);
        let other = (node + 1 + self.below(NODES - 1)) % NODES;
        let pause = Duration::from_millis(500 + self.random.below(5_000));
        let kind = self.below(KINDS);
        match first.map_or(kind, first_kind) {
            kind @ 0..=4 => self.of_brokers(kind, node, other, pause).await,
            kind @ 5..=9 => self.of_servers(kind, node, other, pause).await,
            kind => self.of_lines(kind, node, pause).await,
        }
    }

    async fn of_brokers(
        &mut self,
        kind: usize,
        node: usize,
        other: usize,
        pause: Duration,
    ) -> anyhow::Result<String> {
        let seconds = pause.as_secs_f64();
        Ok(match kind {
            0 => {
                self.kill(node)?;
                sleep(pause / 2).await;
                self.start(node)?;
                format!(
                    "broker {node} was killed, and started again after {:.1} s",
                    seconds / 2.0
                )
            }
            1 => {
                self.kill(node)?;
                self.kill(other)?;
                sleep(pause / 2).await;
                self.start(node)?;
                self.start(other)?;
                format!(
                    "brokers {node} and {other} were killed, and started again after {:.1} s",
                    seconds / 2.0
                )
            }
            2 => {
                self.signal(node, "STOP")?;
                sleep(pause * 2).await;
                self.signal(node, "CONT")?;
                format!("broker {node} was paused for {:.1} s", seconds * 2.0)
            }
            3 => {
                cables::cut(node)?;
                sleep(pause).await;
                cables::heal(node)?;
                format!("node {node} was cut off for {seconds:.1} s")
            }
            _ => {
                cables::cut(node)?;
                self.kill(other)?;
                sleep(pause).await;
                self.start(other)?;
                cables::heal(node)?;
                format!("node {node} was cut off and broker {other} killed for {seconds:.1} s")
            }
        })
    }

    async fn of_servers(
        &mut self,
        kind: usize,
        node: usize,
        other: usize,
        pause: Duration,
    ) -> anyhow::Result<String> {
        let seconds = pause.as_secs_f64();
        Ok(match kind {
            5 => {
                self.ensemble.servers[node].kill()?;
                sleep(pause).await;
                self.ensemble.servers[node].start()?;
                format!(
                    "ZooKeeper server {node} was killed, and started again after {seconds:.1} s"
                )
            }
            6 => {
                self.ensemble.servers[node].signal("STOP")?;
                sleep(pause).await;
                self.ensemble.servers[node].signal("CONT")?;
                format!("ZooKeeper server {node} was paused for {seconds:.1} s")
            }
            7 => {
                self.ensemble.servers[node].kill()?;
                self.ensemble.servers[other].kill()?;
                sleep(pause).await;
                self.ensemble.servers[node].start()?;
                self.ensemble.servers[other].start()?;
                format!(
                    "ZooKeeper servers {node} and {other} were killed, and started again after \
                     {seconds:.1} s"
                )
            }
            8 => {
                self.ensemble.servers[node].signal("STOP")?;
                self.signal(other, "STOP")?;
                sleep(pause).await;
                self.ensemble.servers[node].signal("CONT")?;
                self.signal(other, "CONT")?;
                format!("ZooKeeper server {node} and broker {other} were paused for {seconds:.1} s")
            }
            _ => {
                cables::cut_ports(node, &[SERVER, SERVERS[0], SERVERS[1]])?;
                sleep(pause).await;
                cables::heal(node)?;
                format!(
                    "node {node} has reached no other ZooKeeper server for {seconds:.1} s, nor \
                     they it"
                )
            }
        })
    }

    async fn of_lines(
        &mut self,
        kind: usize,
        node: usize,
        pause: Duration,
    ) -> anyhow::Result<String> {
        let seconds = pause.as_secs_f64();
        let said = match kind {
            10 => {
                let delay = Duration::from_millis(5 + self.random.below(200));
                self.lines.slow(node, self.ports, delay);
                sleep(pause * 2).await;
                format!(
                    "between node {node} and the others everything took {delay:?} to twice that \
                     for {:.1} s",
                    seconds * 2.0
                )
            }
            11 => {
                let percent = 5 + self.random.below(25);
                cables::lose(node, "in", percent)?;
                cables::lose(node, "out", percent)?;
                sleep(pause).await;
                cables::heal(node)?;
                format!("node {node} has lost {percent} of 100 packets for {seconds:.1} s")
            }
            12 => {
                self.lines.hold(node, self.ports);
                sleep(pause).await;
                self.lines.cut(node);
                format!(
                    "what node {node} and others said was held for {seconds:.1} s, and then their \
                     connections broke"
                )
            }
            13 => {
                // The servers settle what they are sent, and this broker does not hear of it
                // before its session has ended.
                let silence = Duration::from_secs(SESSION_SECONDS) + pause;
                self.lines.hold_answers(node, &[SERVER]);
                self.ensemble.servers[node].signal("STOP")?;
                sleep(silence).await;
                self.lines.cut(node);
                self.ensemble.servers[node].signal("CONT")?;
                format!(
                    "broker {node} has heard no answer for {:.1} s, longer than its session lasts",
                    silence.as_secs_f64()
                )
            }
            _ => self.full_disk(pause * 2).await?,
        };
        self.lines.heal();
        Ok(said)
    }

    /// A broker finds its disk full when it starts again; then there is room.
    async fn full_disk(&mut self, pause: Duration) -> anyhow::Result<String> {
        let (small, seconds) = (self.small, pause.as_secs_f64());
        self.kill(small)?;
        let filler = fill(&self.members[small])?;
        self.start(small)?;
        sleep(pause).await;
        fs::remove_file(filler)?;
        // It needs room for a segment to start.
        let starts = TcpStream::connect(address(small, BROKER)).is_ok();
        if !starts {
            self.kill(small)?;
            self.start(small)?;
        }
        Ok(format!(
            "broker {small} was killed, and had a full disk for {seconds:.1} s, with which it {}",
            if starts { "ran" } else { "did not start" }
        ))
    }

    fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        self.daemons[node].take().map_or(Ok(()), Daemon::kill)
    }

    fn start(&mut self, node: usize) -> anyhow::Result<()> {
        self.daemons[node] = Some(self.members[node].spawn()?);
        Ok(())
    }

    fn signal(&self, node: usize, name: &str) -> anyhow::Result<()> {
        self.daemons[node]
            .as_ref()
            .map_or(Ok(()), |daemon| daemon.signal(name))
    }
}

/// A disk of a broker's own.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// What the broker has is on it from now on.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub(crate) fn mount(member: &Fixture) -> anyhow::Result<Self> {
        let at = member.directory.join("data");
        fs::create_dir_all(&at)?;
        let at_path = at.display();
        cables::run(&format!(
            "mount -t tmpfs -o size={DISK_MEBIBYTES}m tmpfs {at_path}"
        ))?;
        Ok(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It ends with the namespace in any case.
        let _ = cables::run(&format!("umount -l {}", self.0.display()));
    }
}

/// Fills the disk of a broker that is not running; what fills it.
///
/// The broker was killed before it had made the segment that comes next, whose room it would keep.
fn fill(member: &Fixture) -> anyhow::Result<PathBuf> {
    let data = member.directory.join("data");
    let next = newest_segment(&data)?;
    let mut begin = Vec::new();
    File::open(&next)?.take(64).read_to_end(&mut begin)?;
    // Otherwise the next one was not made: the disk is full already.
    if begin.iter().all(|octet| *octet == 0) {
        fs::remove_file(&next)?;
    }
    let filler = data.join("filler");
    let mut file = File::create(&filler)?;
    while file.write_all(&[0; 1 << 20]).is_ok() {}
    Ok(filler)
}

/// The segment with the highest number: it is made ahead, and holds nothing yet.
fn newest_segment(data: &Path) -> anyhow::Result<PathBuf> {
    let mut segments = Vec::new();
    let mut directories = vec![data.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                segments.push(path);
            }
        }
    }
    segments
        .into_iter()
        .max()
        .context("the store has no segments")
}
