//! A machine's life with a real broker, the real agent and the real applier: installed, fallen
//! back, withdrawn.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use common::{Machine, ROLES, key, octets, payload, write_program};
use tidings_agent::{
    journal::Point,
    status::{ChannelStatus, Overall, Status},
};
use tidings_broker::{Broker, Config, Settings};
use tidings_client::{
    Body, Channel, Head, Publisher, Release, Serial, Slots, Source, Statement, Tls, Withdraw, keys,
    now,
};
use tidings_protocol::{
    PublicKey,
    statement::{Draft, Kind, NamedKey, Role, TrustRules},
};
use tokio::time::{Instant, sleep};

/// How long anything may take; nothing is waited for that does not come.
const PATIENCE: Duration = Duration::from_secs(60);

struct Origin {
    broker: Broker,
    publisher: Publisher,
    trust: Statement,
    channel: Channel,
}

impl Origin {
    async fn start(directory: &Path) -> Self {
        let role = |(kind, pattern, name): &(Kind, &str, &str)| Role {
            kind: *kind,
            pattern: pattern.parse().unwrap(),
            threshold: 1,
            names: vec![(*name).into()],
        };
        let keys = ROLES
            .iter()
            .map(|(_, _, name)| NamedKey {
                key: PublicKey::of(&key(name)),
                name: (*name).into(),
            })
            .collect();
        let expires = now().plus(365 * 86_400);
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
            time: now(),
            trust: None,
            body: Body::Trust(rules),
        };
        let trust = draft.write().unwrap().sign(&key("root")).unwrap();
        let beat = directory.join("beat.key");
        keys::write_private(&beat, &key("beat"), None).unwrap();
        let text = format!(
            "name = \"origin.invalid\"\ndata_dir = \"{0}/data\"\nanchors = [\"acme 1 {1}\"]\nposting = true\n\
             [listen]\nnntp = [\"127.0.0.1:0\"]\n[[beat]]\nnamespace = \"acme\"\nkey_file = \"{0}/beat.key\"\nevery_seconds = 1\nlife_seconds = 60\n\
             [[slot]]\ngroup = \"web\"\n[fleetlock]\nlisten = [\"127.0.0.1:0\"]\n",
            directory.display(),
            trust.id()
        );
        let config: Config = toml::from_str(&text).unwrap();
        let broker = Broker::bind(Settings::check(config, Path::new("the test")).unwrap()).unwrap();
        let source = Source::new(
            [format!("nntp://{}", broker.nntp[0]).as_str()],
            &format!("acme 1 {}", trust.id()),
        )
        .unwrap();
        let mut publisher = Publisher::connect(source).await.unwrap();
        publisher.publish(&trust).await.unwrap();
        Self {
            broker,
            publisher,
            trust,
            channel: "acme.os.stable".parse().unwrap(),
        }
    }

    async fn say(&mut self, body: Body, signer: &str) -> Head {
        let after = self
            .publisher
            .newest(&self.channel)
            .await
            .unwrap()
            .map(|statement| statement.head());
        let draft = Draft {
            channel: self.channel.clone(),
            after,
            time: now(),
            trust: Some(self.trust.serial()),
            body,
        };
        let statement = draft.write().unwrap().sign(&key(signer)).unwrap();
        self.publisher.publish(&statement).await.unwrap();
        statement.head()
    }

    async fn release(&mut self, version: &str, image: &[u8], more: Release) -> Head {
        let mut whole = payload("raw", image);
        whole.url = format!("file://{}", self.place(version, image).display());
        let release = Release {
            version: version.into(),
            payloads: vec![whole],
            ..more
        };
        self.say(Body::Release(release), "ann").await
    }

    async fn withdraw(&mut self, release: Head) -> Head {
        let withdraw = Withdraw {
            withdraws: release,
            reason: "it is bad".into(),
        };
        self.say(Body::Withdraw(withdraw), "stop").await
    }

    fn place(&self, version: &str, image: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!(
            "tidings-agent-{}-{version}.img",
            std::process::id()
        ));
        fs::write(&path, image).unwrap();
        path
    }
}

/// The agent's process, ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn configure(machine: &Machine, origin: &Origin) -> PathBuf {
    let root = machine.root.display();
    let text = format!(
        "anchor = \"acme 1 {}\"\nbrokers = [\"nntp://127.0.0.1:1\", \"nntp://{}\"]\nchannels = [\"acme.os.stable\"]\nidentity = \"m\"\nhealth_seconds = 0\n\
         node = \"m\"\n[slots]\nservers = [\"http://{}\"]\n[fetch]\nschemes = [\"file\"]\n\
         [paths]\nagent = \"{root}/agent\"\napplier = \"{root}/applier\"\nrun = \"{root}/run\"\netc = \"{root}/etc\"\nlib = \"{}/handlers\"\n\
         apply = \"{}\"\nboot_id = \"{root}/boots\"\n",
        origin.trust.id(),
        origin.broker.nntp[0],
        origin.broker.fleetlock[0],
        env!("CARGO_MANIFEST_DIR"),
        env!("CARGO_BIN_EXE_tidings-apply"),
    );
    let file = machine.root.join("agent.toml");
    fs::write(&file, text).unwrap();
    file
}

fn start(file: &Path) -> Process {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(file.with_file_name("log"))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-agent"));
    Process(
        command
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap(),
    )
}

/// Until it is so, or the test has failed.
async fn until<T>(machine: &Machine, what: &str, mut so: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = so() {
            return found;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "never: {what}\n{}\n{}",
            machine.read("log"),
            machine.read("run/status.json")
        );
        sleep(Duration::from_millis(20)).await;
    }
}

async fn until_status(
    machine: &Machine,
    what: &str,
    so: impl Fn(&ChannelStatus) -> bool,
) -> Status {
    let run = machine.root.join("run");
    until(machine, what, || {
        Status::read(&run)
            .ok()
            .filter(|status| status.channels.iter().any(&so))
    })
    .await
}

/// The machine goes: everything ends, the loader chooses, everything begins.
async fn reboot(machine: &Machine, file: &Path, agent: Process) -> (String, Process) {
    let went = machine.root.join("went");
    until(machine, "it goes", || went.exists().then_some(())).await;
    drop(agent);
    fs::remove_file(&went).unwrap();
    let silent: Point = Arc::new(|_| {});
    (machine.boot(&silent), start(file))
}

fn status_code(file: &Path) -> Option<i32> {
    Command::new(env!("CARGO_BIN_EXE_tidings-agent"))
        .arg("--config")
        .arg(file)
        .arg("status")
        .output()
        .unwrap()
        .status
        .code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_installs_falls_back_and_heeds_a_withdrawal() {
    let scratch = tempfile::tempdir().unwrap();
    let mut origin = Origin::start(scratch.path()).await;
    let anchor = format!("acme 1 {}", origin.trust.id()).parse().unwrap();
    let root = scratch.path().join("machine");
    let images: Vec<Vec<u8>> = (1..=4)
        .map(|n| octets(&format!("image {n}"), 60_000))
        .collect();
    let machine = Machine::new(&root, &anchor, &images[0], 65_536);
    let file = configure(&machine, &origin);
    let health = "#!/bin/sh\nread -r slot < \"${0%/*}/../../booted\"\n[ ! -e \"${0%/*}/../../ill-in-$slot\" ]\n";
    write_program(&root.join("etc/health.d/slot"), health);

    // A good release: staged, tried, kept.
    origin.release("2", &images[1], Release::default()).await;
    let agent = start(&file);
    let (slot, agent) = reboot(&machine, &file, agent).await;
    assert_eq!(slot, "B");
    let status = until_status(&machine, "2 is kept", |channel| {
        channel.intent.as_deref() == Some("kept") && channel.applied == Some(1)
    })
    .await;
    assert_eq!(
        (status.state, machine.variable("primary").as_str()),
        (Overall::Well, "B")
    );
    assert_eq!(status_code(&file), Some(0));

    // One that is staged ahead of its time, and withdrawn: nothing of it is left (attack 81).
    let later = Release {
        not_before: Some(now().plus(86_400)),
        ..Release::default()
    };
    let head = origin.release("3", &images[2], later).await;
    // One dead broker of two does not keep it from being told.
    until(&machine, "it is told of 3", || {
        machine
            .read("log")
            .contains("told of a release")
            .then_some(())
    })
    .await;
    until_status(&machine, "3 is staged", |channel| {
        channel.intent.as_deref() == Some("go") && channel.release == Some(2)
    })
    .await;
    assert!(fs::read(machine.slot("A")).unwrap().starts_with(&images[2]));
    assert_eq!(status_code(&file), Some(1));
    origin.withdraw(head).await;
    until_status(&machine, "3 is left", |channel| {
        channel.intent.as_deref() == Some("left")
    })
    .await;
    assert!(!machine.root.join("went").exists(), "it never went for it");
    assert_eq!(machine.variable("next"), "");
    // One that is not well: the machine goes back by itself, and does not try it again.
    fs::write(root.join("ill-in-A"), "").unwrap();
    origin.release("4", &images[3], Release::default()).await;
    let (slot, agent) = reboot(&machine, &file, agent).await;
    assert_eq!(slot, "A");
    let (slot, agent) = reboot(&machine, &file, agent).await;
    assert_eq!(slot, "B");
    let status = until_status(&machine, "4 has failed", |channel| {
        channel.intent.as_deref() == Some("failed")
    })
    .await;
    assert_eq!(
        (status.state, machine.variable("primary").as_str()),
        (Overall::Failed, "B")
    );
    assert!(status.channels[0].why.contains("slot fail"), "{status:?}");
    assert_eq!(status_code(&file), Some(2));

    drop(agent);
    drop(origin.publisher);
    assert!(origin.broker.shutdown(PATIENCE).await);
}

/// Nothing else is to be run: it stays, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_that_what_runs_was_withdrawn() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut origin, machine, _slots) = machine_with_turns(scratch.path()).await;
    let file = configure(&machine, &origin);
    let head = origin
        .release("2", &octets("image 2", 60_000), Release::default())
        .await;
    let (_, agent) = reboot(&machine, &file, start(&file)).await;
    until_status(&machine, "2 is kept", |channel| {
        channel.intent.as_deref() == Some("kept") && channel.applied == Some(1)
    })
    .await;
    assert_eq!(status_code(&file), Some(0));
    origin.withdraw(head).await;
    let status = until_status(&machine, "2 is known to be withdrawn", |channel| {
        channel.why.contains("1 was withdrawn by 2: it is bad")
    })
    .await;
    assert_eq!(status.state, Overall::Waiting);
    assert_eq!(status_code(&file), Some(1));
    drop(agent);
    drop(origin.publisher);
    assert!(origin.broker.shutdown(PATIENCE).await);
}

/// An origin, a machine that runs something, and who gives it its turn.
async fn machine_with_turns(scratch: &Path) -> (Origin, Machine, Slots) {
    let origin = Origin::start(scratch).await;
    let anchor = format!("acme 1 {}", origin.trust.id()).parse().unwrap();
    let old = octets("old", 60_000);
    let machine = Machine::new(&scratch.join("machine"), &anchor, &old, 65_536);
    let server = format!("http://{}", origin.broker.fleetlock[0]);
    let slots = Slots::new(vec![server.parse().unwrap()], Tls::system().unwrap());
    (origin, machine, slots)
}

/// It waits until another machine is back, is told at once, goes, and gives its slot back when it
/// is well.
#[tokio::test(flavor = "multi_thread")]
async fn attack_78_a_machine_that_has_no_slot_does_not_go() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut origin, machine, mut slots) = machine_with_turns(scratch.path()).await;
    let (file, new) = (configure(&machine, &origin), octets("new", 60_000));
    let (web, other) = ("web".parse().unwrap(), "other".parse().unwrap());
    let held = slots.take(&web, &other, Serial::FIRST).await.unwrap();
    let release = Release {
        slot: Some("web".into()),
        ..Release::default()
    };
    origin.release("turns", &new, release).await;
    let agent = start(&file);
    let began = Instant::now();
    while slots.status(&web).await.unwrap().waiting.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{}", machine.read("log"));
        sleep(Duration::from_millis(20)).await;
    }
    assert!(!machine.root.join("went").exists());
    slots.free(&web, &other, held.token).await.unwrap();
    let (_, agent) = reboot(&machine, &file, agent).await;
    until_status(&machine, "it is kept", |channel| {
        channel.intent.as_deref() == Some("kept")
    })
    .await;
    let began = Instant::now();
    loop {
        let status = slots.status(&web).await.unwrap();
        if status.holders.is_empty() {
            let last = &status.history[status.history.len() - 1];
            assert_eq!((last.what.as_str(), last.id.as_str()), ("freed", "m"));
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{}", machine.read("log"));
        sleep(Duration::from_millis(20)).await;
    }
    drop(agent);
    drop(origin.publisher);
    assert!(origin.broker.shutdown(PATIENCE).await);
}

/// Withdrawn when the machine has been told to go and is still up: the loader does not take it, and
/// the slot is given back when the machine is there again, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_goes_keeps_its_slot_although_the_release_is_withdrawn() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut origin, machine, mut slots) = machine_with_turns(scratch.path()).await;
    let (file, new) = (configure(&machine, &origin), octets("new", 60_000));
    let web = "web".parse().unwrap();
    let release = Release {
        slot: Some("web".into()),
        ..Release::default()
    };
    let withdraws = origin.release("gone", &new, release).await;
    let agent = start(&file);
    until_status(&machine, "it goes", |channel| {
        channel.why == "the machine goes"
    })
    .await;
    origin.withdraw(withdraws).await;
    until_status(&machine, "it is left", |channel| {
        channel.intent.as_deref() == Some("left")
    })
    .await;
    assert_eq!(machine.variable("next"), "");
    let held = slots.status(&web).await.unwrap();
    assert_eq!(held.holders.len(), 1, "{:?}", held.history);
    let (slot, agent) = reboot(&machine, &file, agent).await;
    assert_eq!(slot, "A");
    let began = Instant::now();
    while !slots.status(&web).await.unwrap().holders.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{}", machine.read("log"));
        sleep(Duration::from_millis(20)).await;
    }
    drop(agent);
    drop(origin.publisher);
    assert!(origin.broker.shutdown(PATIENCE).await);
}
