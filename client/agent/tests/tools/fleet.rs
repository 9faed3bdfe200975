//! Fifty agents, each a process with a machine in a directory, against one `tidingsd`: ten groups
//! of slots, a release in waves, machines that do not come back, a withdrawal. It is judged from
//! the outside: by what the machines' own handlers write down when they go and when they are back,
//! and by what the slot server says has happened.

mod story;

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tidings_agent::{
    config::Config,
    journal::Point,
    status::{ChannelStatus, Status},
};
use tidings_client::{
    Body, Channel, Publisher, Release, SlotServer, SlotStatus, Slots, Source, Statement, Timestamp,
    Tls, keys, now,
};
use tidings_protocol::{
    slot::SlotName,
    statement::{Draft, Rollout},
};
use tokio::time::{Instant, sleep};

use super::{
    built,
    common::{self, Machine, key, octets, payload, write_program},
};

const GROUPS: usize = 10;
const MACHINES: usize = 50;
/// So many of a group may be down at once.
const PLACES: usize = 2;
/// Groups in which a machine does not come back: 3 % of all, rounded up.
const DEAD: usize = 2;
/// For how long a machine may be down before it counts as failed; one failure stops its group.
const LEASE: u64 = 20;
/// When the first may go after a release is published, and over how long all go.
const WAVES: (u64, u64) = (5, 45);
const BEAT: u64 = 5;
/// The slot server counts whole seconds from a whole second: what it writes down was so long ago at
/// most.
const LATE: u64 = 2;
const SECOND: u128 = 1_000_000_000;
/// How much longer than it should anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// How long a machine that goes is still up, and its agent is told what happens.
const GOING: Duration = Duration::from_millis(500);

/// Ended with the trial.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &Path, config: &Path) -> Process {
    let log = config.with_extension("log");
    let log = fs::File::options().create(true).append(true).open(log);
    let mut command = Command::new(program);
    command.arg("--config").arg(config).stdin(Stdio::null());
    Process(command.stderr(log.unwrap()).spawn().unwrap())
}

struct Node {
    name: String,
    group: usize,
    machine: Machine,
    file: PathBuf,
    agent: Option<Process>,
    /// When nothing runs any more on a machine that goes.
    goes: Option<Instant>,
    /// When it boots again.
    back: Option<Instant>,
    is_dead: bool,
}

impl Node {
    fn status(&self) -> Option<ChannelStatus> {
        let status = Status::read(&self.machine.config.paths.run).ok()?;
        status.channels.into_iter().next()
    }

    fn start(&mut self) {
        let agent = Path::new(env!("CARGO_BIN_EXE_tidings-agent"));
        self.agent = Some(start(agent, &self.file));
    }

    /// From when to when it was down, in nanoseconds, as its handlers have written it.
    fn downs(&self) -> Vec<(u128, u128)> {
        let mut downs: Vec<(u128, u128)> = Vec::new();
        let mut before = "";
        let times = self.machine.read("times");
        for line in times.lines() {
            let (what, when) = line.split_once(' ').unwrap();
            let when = when.parse().unwrap();
            match (what, before, downs.last_mut()) {
                ("down" | "back", _, _) => downs.push((when, u128::MAX)),
                // It is up when it is looked whether it is well, if there is anything to look at.
                ("booted", _, Some((_, up))) | ("up", "booted", Some((_, up))) => *up = when,
                _ => {}
            }
            before = what;
        }
        downs
    }

    /// When it has gone for a release, and not back from one.
    fn gone(&self) -> Vec<u128> {
        let times = self.machine.read("times");
        let lines = times.lines().filter_map(|line| line.strip_prefix("down "));
        lines.map(|when| when.parse().unwrap()).collect()
    }
}

struct Fleet {
    nodes: Vec<Node>,
    slots: Slots,
    publisher: Publisher,
    trust: Statement,
    broker: Process,
    /// The groups in which the first that goes does not come back.
    deadly: Vec<usize>,
    booted: u32,
}

fn group(number: usize) -> SlotName {
    format!("g{number}").parse().unwrap()
}

fn channel(number: usize) -> Channel {
    format!("acme.os.g{number}").parse().unwrap()
}

/// As `date` says it, whose words it is compared with.
#[allow(clippy::disallowed_methods)]
fn nanoseconds() -> u128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_nanos()
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// One that has the trust statement, and ten groups of slots.
fn broker(place: &Path, anchor: &str, nntp: u16, fleetlock: u16) -> Process {
    keys::write_private(&place.join("beat.key"), &key("beat"), None).unwrap();
    let mut text = format!(
        "name = \"origin.invalid\"\ndata_dir = \"{0}/data\"\nanchors = [\"{anchor}\"]\n\
         [listen]\nnntp = [\"127.0.0.1:{nntp}\"]\n[fleetlock]\nlisten = [\"127.0.0.1:{fleetlock}\"]\n\
         [limits]\nconnections_per_address = 1000\n\
         [[beat]]\nnamespace = \"acme\"\nkey_file = \"{0}/beat.key\"\nevery_seconds = {BEAT}\nlife_seconds = 60\n",
        place.display()
    );
    for number in 0..GROUPS {
        text.push_str(&format!(
            "[[slot]]\ngroup = \"g{number}\"\nmax = {PLACES}\nlease_seconds = {LEASE}\nfailures = 1\n"
        ));
    }
    let file = place.join("tidingsd.toml");
    fs::write(&file, text).unwrap();
    start(&built("tidingsd"), &file)
}

fn node(place: &Path, number: usize, publisher: &common::Publisher, ports: (u16, u16)) -> Node {
    let name = format!("node{number:02}");
    let group = number % GROUPS;
    let root = place.join(&name);
    let machine = Machine::new(&root, &publisher.anchor, &octets("old", 60_000), 65_536);
    write_program(
        &root.join("etc/apply.d/reboot"),
        "#!/bin/sh\n[ \"$1\" = go ] || exit 0\n\
         grep -q next=. \"$T_ETC/../env\" && what=down || what=back\n\
         echo \"$what $(date +%s%N)\" >> \"$T_ETC/../times\"\n: > \"$T_ETC/../went\"\n",
    );
    write_program(
        &root.join("etc/health.d/up"),
        "#!/bin/sh\necho \"up $(date +%s%N)\" >> \"${0%/*}/../../times\"\n",
    );
    let text = format!(
        "anchor = \"{}\"\nbrokers = [\"nntp://127.0.0.1:{}\"]\nchannels = [\"{}\"]\nidentity = \"{name}\"\n\
         node = \"{name}\"\nhealth_seconds = 0\n[slots]\nservers = [\"http://127.0.0.1:{}\"]\n\
         [fetch]\nschemes = [\"file\"]\n[paths]\nagent = \"{root}/agent\"\napplier = \"{root}/applier\"\n\
         run = \"{root}/run\"\netc = \"{root}/etc\"\nlib = \"{}/handlers\"\napply = \"{}\"\nboot_id = \"{root}/boots\"\n",
        publisher.anchor,
        ports.0,
        channel(group),
        ports.1,
        env!("CARGO_MANIFEST_DIR"),
        env!("CARGO_BIN_EXE_tidings-apply"),
        root = root.display(),
    );
    let file = root.join("agent.toml");
    fs::write(&file, text).unwrap();
    let mut node = Node {
        name,
        group,
        machine,
        file,
        agent: None,
        goes: None,
        back: None,
        is_dead: false,
    };
    node.start();
    node
}

impl Fleet {
    async fn start(place: &Path) -> Self {
        let first = common::Publisher::new(now());
        let ports = (free_port(), free_port());
        let anchor = first.anchor.to_string();
        let broker = broker(place, &anchor, ports.0, ports.1);
        let url = format!("nntp://127.0.0.1:{}", ports.0);
        let began = Instant::now();
        let mut publisher = loop {
            let source = Source::new([url.as_str()], &anchor).unwrap();
            match Publisher::connect(source).await {
                Ok(publisher) => break publisher,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            sleep(LOOK).await;
        };
        publisher.publish(&first.trust).await.unwrap();
        let server: SlotServer = format!("http://127.0.0.1:{}", ports.1).parse().unwrap();
        Self {
            nodes: (0..MACHINES)
                .map(|number| node(place, number, &first, ports))
                .collect(),
            slots: Slots::new(vec![server], Tls::system().unwrap()),
            publisher,
            trust: first.trust,
            broker,
            deadly: Vec::new(),
            booted: 0,
        }
    }

    async fn say(&mut self, number: usize, body: Body, signer: &str) -> Statement {
        let channel = channel(number);
        let newest = self.publisher.newest(&channel).await.unwrap();
        let draft = Draft {
            channel,
            after: newest.map(|statement| statement.head()),
            time: now(),
            trust: Some(self.trust.serial()),
            body,
        };
        let statement = draft.write().unwrap().sign(&key(signer)).unwrap();
        self.publisher.publish(&statement).await.unwrap();
        statement
    }

    /// In all groups; the statements.
    async fn release(&mut self, place: &Path, version: &str, start: Timestamp) -> Vec<Statement> {
        let image = octets(version, 60_000);
        let file = place.join(version);
        fs::write(&file, &image).unwrap();
        let mut all = Vec::new();
        for number in 0..GROUPS {
            let mut whole = payload("raw", &image);
            whole.url = format!("file://{}", file.display());
            let release = Release {
                version: version.into(),
                slot: Some(group(number).to_string()),
                rollout: Some(Rollout {
                    start,
                    seconds: WAVES.1,
                    spread: None,
                    cohort: None,
                }),
                payloads: vec![whole],
                ..Release::default()
            };
            all.push(self.say(number, Body::Release(release), "ann").await);
        }
        all
    }

    /// When each machine may go, in seconds.
    fn due(&self, releases: &[Statement]) -> Vec<u64> {
        let due = |node: &Node| {
            let statement = &releases[node.group];
            let Body::Release(release) = statement.body() else {
                panic!("it is a release")
            };
            let profile = Config::read(&node.file).unwrap().profile().unwrap();
            profile.due(statement, release).unwrap().seconds()
        };
        self.nodes.iter().map(due).collect()
    }

    /// Those that go are down for a moment, and boot; or they do not come back.
    fn look(&mut self) {
        for number in 0..MACHINES {
            let group = self.nodes[number].group;
            let is_first = self.nodes.iter().all(|of| of.group != group || !of.is_dead);
            let node = &mut self.nodes[number];
            let went = node.machine.root.join("went");
            let now = Instant::now();
            if node.agent.is_some() && node.goes.is_none() && went.exists() {
                node.goes = Some(now + GOING);
            }
            if node.goes.is_some_and(|goes| goes <= now) {
                (node.goes, node.agent) = (None, None);
                fs::remove_file(went).unwrap();
                if self.deadly.contains(&group) && is_first {
                    node.is_dead = true;
                } else {
                    self.booted += 1;
                    let millis = 1_000 + 500 * u64::from(self.booted % 8);
                    node.back = Some(now + Duration::from_millis(millis));
                }
            }
            if node.back.is_some_and(|back| back <= now) {
                node.back = None;
                let silent: Point = Arc::new(|_| {});
                node.machine.boot(&silent);
                let times = node.machine.root.join("times");
                let mut times = fs::File::options().append(true).open(times).unwrap();
                writeln!(times, "booted {}", nanoseconds()).unwrap();
                node.start();
            }
        }
    }

    /// Until it is so.
    async fn until(&mut self, what: &str, end: u64, so: impl Fn(&Self) -> bool) {
        loop {
            self.look();
            if so(self) {
                return;
            }
            let late = now().seconds().saturating_sub(end);
            assert!(late < PATIENCE.as_secs(), "never: {what}\n{}", self.told());
            sleep(LOOK).await;
        }
    }

    fn told(&self) -> String {
        let line = |node: &Node| format!("{} {:?}\n", node.name, node.status());
        self.nodes.iter().map(line).collect()
    }

    fn intent(&self, number: usize) -> Option<String> {
        self.nodes[number].status()?.intent
    }

    async fn groups(&mut self) -> Vec<SlotStatus> {
        let mut all = Vec::new();
        for number in 0..GROUPS {
            all.push(self.slots.status(&group(number)).await.unwrap());
        }
        all
    }

    fn of_group(&self, group: usize) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.group == group)
    }
}

#[tokio::test]
#[ignore = "some minutes: cargo xtask agent fleet"]
async fn fifty_agents_take_turns_stop_and_heed_a_withdrawal() {
    // It stays where the trial fails: each machine's log is in it.
    let place = tempfile::tempdir().unwrap().keep();
    eprintln!("in {}", place.display());
    let mut fleet = Fleet::start(&place).await;
    fleet.rolls_out(&place).await;
    let most = fleet.judge().await;
    // Else nothing was judged.
    assert_eq!(most, PLACES, "no group was ever full");
    fleet.is_withdrawn(&place).await;
    let most = fleet.judge().await;
    eprintln!("never more than {PLACES} of a group were down at once; {most} were");
    assert!(
        fleet.broker.0.try_wait().unwrap().is_none(),
        "tidingsd has ended"
    );
    drop(fleet);
    fs::remove_dir_all(place).unwrap();
}
