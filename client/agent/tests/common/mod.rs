//! A namespace of its own, and a machine in a directory: two slots, a loader, and what the agent
//! and the applier keep.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "no test uses all of it"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidings_agent::{
    apply::{Applier, Request, hex},
    config::Config,
    handler::Answer,
    journal::{Journal, Point},
    round::Task,
    world::{Fetched, Health, Ready, World},
};
use tidings_client::{
    Anchor, Body, Channel, Clock, Head, Now, Release, State, Statement, Timestamp, Withdraw,
};
use tidings_protocol::{
    Digest, PublicKey, SigningKey,
    statement::{Beat, Draft, Kind, NamedKey, Payload, Role, TrustRules},
};

pub const TIME: &str = "2026-11-29T09:00:00Z";

pub fn time() -> Timestamp {
    TIME.parse().unwrap()
}

pub fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(Digest::of(name.as_bytes()).octets())
}

/// Signs everything.
pub struct Publisher {
    pub trust: Statement,
    pub older: Vec<Statement>,
    pub anchor: Anchor,
    pub channel: Channel,
    pub log: Vec<Statement>,
    pub time: Timestamp,
}

pub const ROLES: [(Kind, &str, &str); 4] = [
    (Kind::Trust, "*", "root"),
    (Kind::Release, "*", "ann"),
    (Kind::Withdraw, "*", "stop"),
    (Kind::Beat, "*", "beat"),
];

impl Publisher {
    pub fn new(time: Timestamp) -> Self {
        let channel: Channel = "acme.os.stable".parse().unwrap();
        let keys = ROLES
            .iter()
            .map(|(_, _, name)| NamedKey {
                key: PublicKey::of(&key(name)),
                name: (*name).into(),
            })
            .collect();
        let role = |(kind, pattern, name): &(Kind, &str, &str)| Role {
            kind: *kind,
            pattern: pattern.parse().unwrap(),
            threshold: 1,
            names: vec![(*name).into()],
        };
        let expires = time.plus(365 * 86_400);
        let rules = TrustRules {
            expires,
            keys,
            roles: ROLES.iter().map(role).collect(),
            checkpoints: vec![],
            closed: vec![],
        };
        let draft = Draft {
            channel: "acme.trust".parse().unwrap(),
            after: None,
            time,
            trust: None,
            body: Body::Trust(rules),
        };
        let trust = draft.write().unwrap().sign(&key("root")).unwrap();
        let anchor = format!("acme 1 {}", trust.id()).parse().unwrap();
        Self {
            trust,
            older: Vec::new(),
            anchor,
            channel,
            log: Vec::new(),
            time,
        }
    }

    pub fn head(&self) -> Option<Head> {
        self.log.last().map(|statement| statement.head())
    }

    fn say(&mut self, body: Body, signer: &str) -> Statement {
        let trust = Some(self.trust.serial());
        let draft = Draft {
            channel: self.channel.clone(),
            after: self.head(),
            time: self.time,
            trust,
            body,
        };
        let statement = draft.write().unwrap().sign(&key(signer)).unwrap();
        self.log.push(statement.clone());
        statement
    }

    pub fn release(&mut self, release: Release) -> Statement {
        self.say(Body::Release(release), "ann")
    }

    pub fn release_by(&mut self, signer: &str, release: Release) -> Statement {
        self.say(Body::Release(release), signer)
    }

    /// A trust statement after the present one, with other roles.
    pub fn rotate(&mut self, roles: &[(Kind, &str, &str)]) {
        let keys = roles
            .iter()
            .map(|(_, _, name)| NamedKey {
                key: PublicKey::of(&key(name)),
                name: (*name).into(),
            })
            .collect();
        let role = |(kind, pattern, name): &(Kind, &str, &str)| Role {
            kind: *kind,
            pattern: pattern.parse().unwrap(),
            threshold: 1,
            names: vec![(*name).into()],
        };
        let expires = self.time.plus(365 * 86_400);
        let rules = TrustRules {
            expires,
            keys,
            roles: roles.iter().map(role).collect(),
            checkpoints: vec![],
            closed: vec![],
        };
        let (channel, after) = ("acme.trust".parse().unwrap(), Some(self.trust.head()));
        let draft = Draft {
            channel,
            after,
            time: self.time,
            trust: None,
            body: Body::Trust(rules),
        };
        self.older.push(self.trust.clone());
        self.trust = draft.write().unwrap().sign(&key("root")).unwrap();
    }

    pub fn withdraw(&mut self, withdraws: Head) -> Statement {
        self.say(
            Body::Withdraw(Withdraw {
                withdraws,
                reason: "it is bad".into(),
            }),
            "stop",
        )
    }

    /// A beat that names the head.
    pub fn beat(&self, serial: u32) -> Statement {
        self.beat_by(serial, "beat")
    }

    pub fn beat_by(&self, serial: u32, signer: &str) -> Statement {
        let heads = vec![
            ("acme.trust".parse().unwrap(), self.trust.head()),
            (self.channel.clone(), self.head().unwrap()),
        ];
        let after = (serial > 1).then(|| Head {
            serial: (serial - 1).to_string().parse().unwrap(),
            id: self.trust.id(),
        });
        let body = Body::Beat(Beat {
            expires: self.time.plus(600),
            heads,
        });
        let (channel, trust) = ("acme.beat".parse().unwrap(), Some(self.trust.serial()));
        Draft {
            channel,
            after,
            time: self.time,
            trust,
            body,
        }
        .write()
        .unwrap()
        .sign(&key(signer))
        .unwrap()
    }

    /// What an honest agent hands over.
    pub fn news(&self) -> Vec<u8> {
        let beat = self.beat(u32::try_from(self.older.len() * 100 + self.log.len()).unwrap());
        let all = self
            .older
            .iter()
            .chain([&self.trust, &beat])
            .chain(&self.log);
        all.flat_map(|statement| statement.octets().to_vec())
            .collect()
    }
}

/// A payload with a digest.
pub fn payload(format: &str, octets: &[u8]) -> Payload {
    Payload {
        format: format.into(),
        size: octets.len() as u64,
        digest: Digest::of(octets),
        url: "https://payloads.example/x".into(),
        from: None,
        base: None,
        result: None,
        mem: None,
        more: Vec::new(),
    }
}

/// Octets that look like chance, and are the same each time.
pub fn octets(seed: &str, count: usize) -> Vec<u8> {
    let block = |n: usize| *Digest::of(format!("{seed} {n}").as_bytes()).octets();
    (0..count.div_ceil(32))
        .flat_map(block)
        .take(count)
        .collect()
}

/// A machine in a directory.
#[derive(Clone)]
pub struct Machine {
    pub root: PathBuf,
    pub config: Config,
    pub path: String,
    pub time: Timestamp,
}

impl Machine {
    /// A new one, which runs slot A.
    pub fn new(root: &Path, anchor: &Anchor, image: &[u8], slot_octets: usize) -> Self {
        let machine = Self::at(root, anchor);
        for directory in [
            "etc/apply.d",
            "etc/health.d",
            "agent/hand",
            "agent/payload",
            "applier",
            "run",
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for slot in ["A", "B"] {
            let mut whole = if slot == "A" {
                image.to_vec()
            } else {
                Vec::new()
            };
            whole.resize(slot_octets, 0);
            fs::write(machine.slot(slot), whole).unwrap();
        }
        fs::write(root.join("env"), "primary=A\nnext=\n").unwrap();
        fs::write(root.join("booted"), "A\n").unwrap();
        fs::write(root.join("boots"), "0").unwrap();
        write_program(
            &root.join("etc/apply.d/reboot"),
            "#!/bin/sh\n[ \"$1\" != go ] || : > \"$T_ETC/../went\"\n",
        );
        machine.write_conf();
        machine
    }

    /// One that is there.
    pub fn at(root: &Path, anchor: &Anchor) -> Self {
        let text = format!(
            "anchor = \"{anchor}\"\nbrokers = [\"nntp://127.0.0.1:1\"]\nchannels = [\"acme.os.stable\"]\nidentity = \"m\"\n\
             [fetch]\nschemes = [\"file\", \"http\"]\n\
             [paths]\nagent = \"{0}/agent\"\napplier = \"{0}/applier\"\nrun = \"{0}/run\"\netc = \"{0}/etc\"\nlib = \"{1}/handlers\"\n",
            root.display(),
            env!("CARGO_MANIFEST_DIR"),
        );
        let config: Config = toml::from_str(&text).unwrap();
        Self {
            root: root.into(),
            config,
            path: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".into(),
            time: time(),
        }
    }

    pub fn write_conf(&self) {
        let m = self.root.display();
        let loader = format!("LOADER=file\nLOADER_ENV={m}/env\nLOADER_RUNNING={m}/booted\n");
        fs::write(self.root.join("etc/loader.conf"), loader).unwrap();
        fs::write(
            self.root.join("etc/slots.conf"),
            format!("SLOT_A={m}/A.img\nSLOT_B={m}/B.img\n"),
        )
        .unwrap();
    }

    pub fn slot(&self, slot: &str) -> PathBuf {
        self.root.join(format!("{slot}.img"))
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root.join(name)).unwrap_or_default()
    }

    pub fn variable(&self, name: &str) -> String {
        let text = self.read("env");
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
            .to_owned()
    }

    /// The loader chooses: `next` once, else `primary`.
    pub fn boot(&self, point: &Point) -> String {
        let (primary, next) = (self.variable("primary"), self.variable("next"));
        let slot = if next.is_empty() {
            primary.clone()
        } else {
            next
        };
        fs::write(self.root.join("env"), format!("primary={primary}\nnext=\n")).unwrap();
        point("the loader has cleared next");
        fs::write(self.root.join("booted"), format!("{slot}\n")).unwrap();
        let boots: u32 = self.read("boots").parse().unwrap();
        fs::write(self.root.join("boots"), (boots + 1).to_string()).unwrap();
        slot
    }

    pub fn hand_over(&self, news: &[u8]) {
        fs::write(self.config.paths.agent.join("hand/acme.os.stable"), news).unwrap();
    }

    pub fn put_payload(&self, octets: &[u8]) {
        fs::write(
            self.config
                .paths
                .agent
                .join("payload")
                .join(hex(&Digest::of(octets))),
            octets,
        )
        .unwrap();
    }

    pub fn applier(&self, point: Point) -> Applier {
        let now = Now {
            clock: Some(self.time),
            monotonic: 1_000,
            boot: self.read("boots").parse().unwrap(),
        };
        let clock = Clock::new(move || now);
        let state = State::open(self.config.paths.applier.join("state"), &self.config.anchor)
            .unwrap()
            .with_clock(clock);
        Applier::new(
            self.config.clone(),
            state,
            format!("boot-{}", self.read("boots")),
            point,
        )
        .unwrap()
        .with_path(self.path.clone())
    }

    pub fn ask(&self, line: &str) -> Answer {
        self.applier(Arc::new(|_| {})).answer(line)
    }

    pub fn journal(&self, point: Point) -> Journal {
        Journal::open(self.config.paths.agent.join("journal"), point).unwrap()
    }
}

/// A script, written by another process: what another thread starts in that moment would have it
/// open for writing until it is another program, and nobody could run it.
pub fn write_program(path: &Path, text: &str) {
    use std::{io::Write, process::Stdio};
    let mut install = std::process::Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut into = install.stdin.take().unwrap();
    into.write_all(text.as_bytes()).unwrap();
    drop(into);
    assert!(install.wait().unwrap().success());
}

/// What happens around the agent.
#[derive(Clone, Default)]
pub struct Story {
    /// What can be fetched, by digest.
    pub served: Vec<(Digest, Vec<u8>)>,
    pub news: Vec<u8>,
    /// In slot B the machine is not well.
    pub ill: bool,
    /// In slot B it does not come up at all.
    pub dead: bool,
    /// It is withdrawn while the agent waits for its turn.
    pub withdrawn: bool,
}

/// The agent's world on such a machine; only brokers are left out.
pub struct TestWorld<'a> {
    pub machine: &'a Machine,
    pub story: &'a Story,
    pub point: Point,
    pub journal: Journal,
}

impl World for TestWorld<'_> {
    fn boot(&self) -> String {
        format!("boot-{}", self.machine.read("boots"))
    }
    async fn ask(&mut self, request: &Request) -> Answer {
        self.machine
            .applier(self.point.clone())
            .answer(request.write().trim_end())
    }
    async fn fetch(&mut self, _: &Statement, payload: &Payload) -> Fetched {
        let path = self
            .machine
            .config
            .paths
            .agent
            .join("payload")
            .join(hex(&payload.digest));
        let Some((_, octets)) = self
            .story
            .served
            .iter()
            .find(|(digest, _)| *digest == payload.digest)
        else {
            return Fetched::Wrong("404".into());
        };
        (self.point)("before fetching");
        fs::write(&path, &octets[..octets.len() / 2]).unwrap();
        (self.point)("half is fetched");
        fs::write(&path, octets).unwrap();
        (self.point)("fetched");
        if Digest::of(octets) == payload.digest {
            Fetched::Whole
        } else {
            Fetched::Wrong("another digest".into())
        }
    }
    async fn ready(&mut self, _: &Task, _: &Statement) -> Ready {
        match self.story.withdrawn {
            true => Ready::Leave("it was withdrawn".into()),
            false => Ready::Go {
                slot: Some(7),
                ill: vec![],
            },
        }
    }
    async fn health(&mut self, _: &Task) -> Health {
        let ill = self.story.ill && self.machine.read("booted").trim() == "B";
        if ill {
            Health::Ill("test".into())
        } else {
            Health::Well
        }
    }
    async fn free(&mut self, _: u64, _: &Statement) -> bool {
        fs::write(self.machine.root.join("freed"), "").unwrap();
        (self.point)("the slot is free");
        true
    }
    fn save(&mut self, task: &Task) -> std::io::Result<()> {
        self.journal
            .change(|records| drop(records.task.insert("acme.os.stable".into(), task.clone())))
    }
}
