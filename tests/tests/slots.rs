//! Slots, on one machine and in a cluster: the same tests for both; over the wire, by FleetLock and
//! by the command.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Output},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tidings_client::{Publisher, Release, Serial, SlotError, Slots, Source, Tls};
use tidings_protocol::slot::SlotName;
use tidings_tests::{
    Daemon, Fixture,
    cluster::Site,
    ensemble::Ensemble,
    free_address, http,
    tree::{broker, connect, origin, os, realm, until},
};
use tokio::time::sleep;

const GROUPS: &str = "[[peer]]\nname = \"ops\"\nnetworks = [\"127.0.0.0/8\"]\n\
    [[slot]]\ngroup = \"web\"\nmax = 2\nlease_seconds = 600\noperators = [\"ops\"]\n\
    [[slot]]\ngroup = \"short\"\nmax = 2\nlease_seconds = 2\nfailures = 2\noperators = [\"ops\"]\n\
    [[slot]]\ngroup = \"single\"\nlease_seconds = 600\n";

fn name(text: &str) -> SlotName {
    text.parse().unwrap()
}

fn serial(number: u32) -> Serial {
    Serial::new(number).unwrap()
}

fn slots(fixture: &Fixture) -> Slots {
    Slots::new(fixture.source().unwrap())
}

/// What holds wherever slots are kept; the brokers are asked in turn.
async fn slots_are_slots(brokers: &[Fixture]) {
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        slots(&brokers[turn % brokers.len()])
    };
    let (web, [a, b, c]) = (name("web"), ["a", "b", "c"].map(name));
    let first = next().take(&web, &a, serial(7)).await.unwrap();
    let second = next().take(&web, &b, serial(7)).await.unwrap();
    assert!(second.token > first.token);
    assert!(matches!(
        next().take(&web, &c, serial(7)).await,
        Err(SlotError::Wait { before: 1, .. })
    ));
    // Back from its reboot: the same slot, another token, and the one before does not count any
    // more.
    let again = next().take(&web, &a, serial(7)).await.unwrap();
    assert!(matches!(
        next().hold(&web, &a, first.token).await,
        Err(SlotError::Lost(_))
    ));
    assert!(matches!(
        next().free(&web, &a, first.token).await,
        Err(SlotError::Lost(_))
    ));
    // Nobody frees what another one holds (attack 77).
    assert!(matches!(
        next().free(&web, &c, again.token).await,
        Err(SlotError::Lost(_))
    ));
    next().hold(&web, &a, again.token).await.unwrap();
    next().free(&web, &a, again.token).await.unwrap();
    next().free(&web, &a, again.token).await.unwrap();
    let third = next().take(&web, &c, serial(7)).await.unwrap();
    let list = next().list(&web).await.unwrap();
    assert!(
        list.starts_with("group 2 600 1\nholder b 7 ") && list.contains("\nholder c 7 "),
        "{list}"
    );
    assert!(
        !list.contains(&third.token.to_string()),
        "tokens are nobody else's business: {list}"
    );
    for (node, token) in [(&b, second.token), (&c, third.token)] {
        next().free(&web, node, token).await.unwrap();
    }
    let log = next().log(&web).await.unwrap();
    let events: Vec<&str> = log
        .lines()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(
        events,
        [
            "taken a",
            "taken b",
            "retaken a",
            "freed a",
            "taken c",
            "freed b",
            "freed c"
        ]
    );
    // Leases that run out are failures, and enough of them stop the group.
    let short = name("short");
    let late = next().take(&short, &a, serial(8)).await.unwrap();
    next().take(&short, &b, serial(8)).await.unwrap();
    until("two have failed", async || {
        next()
            .list(&short)
            .await
            .unwrap()
            .matches("failed ")
            .count()
            == 2
    })
    .await;
    assert!(matches!(
        next().hold(&short, &a, late.token).await,
        Err(SlotError::Lost(_))
    ));
    assert!(matches!(
        next().take(&short, &c, serial(8)).await,
        Err(SlotError::Stopped(_))
    ));
    let list = next().list(&short).await.unwrap();
    assert!(
        list.contains("failed a 8 2")
            && list
                .lines()
                .any(|line| line.starts_with("failed b") && line.ends_with(" -")),
        "{list}"
    );
    next().clear(&short, &a).await.unwrap();
    next().clear(&short, &b).await.unwrap();
    assert!(matches!(
        next().clear(&short, &b).await,
        Err(SlotError::Lost(_))
    ));
    let slot = next().take(&short, &c, serial(8)).await.unwrap();
    next().free(&short, &c, slot.token).await.unwrap();
    // Not everybody may clear, and what is not there is not there.
    assert!(matches!(
        next().clear(&name("single"), &a).await,
        Err(SlotError::Ask(_))
    ));
    assert!(matches!(
        next().take(&name("other"), &a, serial(1)).await,
        Err(SlotError::NoGroup(_))
    ));
    // Many at once, everywhere.
    let (single, mut tasks) = (name("single"), Vec::new());
    for n in 0..12 {
        let (mut slots, single) = (next(), single.clone());
        tasks.push(tokio::spawn(async move {
            slots
                .take(&single, &name(&format!("n{n}")), serial(9))
                .await
        }));
    }
    let mut taken = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => taken += 1,
            Err(SlotError::Wait { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(taken, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_on_one_machine() {
    let (fixture, daemon, _publisher) = origin(&realm(), GROUPS).await.unwrap();
    slots_are_slots(std::slice::from_ref(&fixture)).await;
    // They survive kill -9.
    let (web, a) = (name("web"), name("a"));
    let slot = slots(&fixture).take(&web, &a, serial(9)).await.unwrap();
    daemon.kill().unwrap();
    let _again = fixture.start().unwrap();
    slots(&fixture).hold(&web, &a, slot.token).await.unwrap();
    slots(&fixture).free(&web, &a, slot.token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_in_a_cluster() {
    let mut ensemble = Ensemble::start(3, "").unwrap();
    let site = Site::new(&ensemble, realm());
    let (members, mut daemons) = site.found(&["a", "b", "c"], "", GROUPS).await.unwrap();
    for member in &members {
        until("it is a member", async || {
            slots(member).list(&name("web")).await.is_ok()
        })
        .await;
    }
    slots_are_slots(&members).await;
    // What one member has given, another one knows, also after a kill -9.
    let (web, a) = (name("web"), name("a"));
    let slot = slots(&members[0]).take(&web, &a, serial(9)).await.unwrap();
    daemons[0].take().unwrap().kill().unwrap();
    slots(&members[1]).hold(&web, &a, slot.token).await.unwrap();
    // Without a majority nobody goes down (attack 78).
    ensemble.servers[0].kill().unwrap();
    ensemble.servers[1].kill().unwrap();
    until("nobody can decide", async || {
        matches!(
            slots(&members[1]).hold(&web, &a, slot.token).await,
            Err(SlotError::Ask(_))
        )
    })
    .await;
    ensemble.servers[0].start().unwrap();
    until("it goes on", async || {
        slots(&members[2]).hold(&web, &a, slot.token).await.is_ok()
    })
    .await;
}

/// The limits are those of the present configuration, whatever they were when somebody took a slot
/// (attack 76).
#[tokio::test(flavor = "multi_thread")]
async fn the_present_configuration_counts() {
    let (fixture, daemon, _publisher) = origin(&realm(), GROUPS).await.unwrap();
    let web = name("web");
    for node in ["a", "b"] {
        slots(&fixture)
            .take(&web, &name(node), serial(7))
            .await
            .unwrap();
    }
    let change = |daemon: Daemon, from: &str, to: &str| {
        daemon.signal("TERM").unwrap();
        daemon.wait(Duration::from_secs(30)).unwrap();
        fixture.configure(&GROUPS.replace(from, to)).unwrap();
        fixture.start().unwrap()
    };
    let daemon = change(
        daemon,
        "max = 2\nlease_seconds = 600",
        "max = 3\nlease_seconds = 600",
    );
    slots(&fixture)
        .take(&web, &name("c"), serial(7))
        .await
        .unwrap();
    let _daemon = change(
        daemon,
        "max = 2\nlease_seconds = 600",
        "max = 1\nlease_seconds = 600",
    );
    // Three are down where one may be: the next one waits until all are back.
    assert!(matches!(
        slots(&fixture).take(&web, &name("d"), serial(7)).await,
        Err(SlotError::Wait { before: 3, .. })
    ));
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    http::get(address, path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_speak_fleetlock_take_turns() {
    let address = free_address().unwrap();
    let more = format!("{GROUPS}[fleetlock]\nlisten = [\"{address}\"]\n");
    let (fixture, _daemon, _publisher) = origin(&realm(), &more).await.unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop/fleetlock.py");
    let output = Command::new("python3")
        .args([script, &format!("http://{address}"), "single"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    // They are the same slots.
    let single = name("single");
    let slot = slots(&fixture)
        .take(&single, &name("x"), serial(3))
        .await
        .unwrap();
    let body = r#"{"client_params": {"id": "x", "group": "single"}}"#;
    let post = |path: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nfleet-lock-protocol: true\r\n"
        );
        http::request(
            address,
            &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
        )
        .unwrap()
    };
    // Freeing by FleetLock, which has no token, frees nothing that was taken with one.
    assert_eq!(post("/v1/steady-state").0, 200);
    slots(&fixture)
        .hold(&single, &name("x"), slot.token)
        .await
        .unwrap();
    slots(&fixture)
        .free(&single, &name("x"), slot.token)
        .await
        .unwrap();
    assert_eq!(post("/v1/pre-reboot").0, 200);
    assert!(matches!(
        slots(&fixture).take(&single, &name("y"), serial(3)).await,
        Err(SlotError::Wait { .. })
    ));
    assert_eq!(post("/v1/steady-state").0, 200);
    // Too much is not read.
    let head = "POST /v1/pre-reboot HTTP/1.1\r\nHost: x\r\nConnection: close\r\nfleet-lock-protocol: true\r\nContent-Length: 99999999\r\n\r\n";
    let (status, refusal) =
        http::request(address, &format!("{head}{}", "x".repeat(20_000))).unwrap();
    let refusal: serde_json::Value = serde_json::from_str(&refusal).unwrap();
    assert_eq!(refusal["kind"], "malformed_request");
    assert_eq!(status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_how_it_stands() {
    let admin = free_address().unwrap();
    let more = format!("{GROUPS}[admin]\nlisten = [\"{admin}\"]\n");
    let (fixture, _daemon, mut publisher) = origin(&realm(), &more).await.unwrap();
    publisher
        .publish(&realm().release(&os(), None, "1", &["ann", "bob"]))
        .await
        .unwrap();
    slots(&fixture)
        .take(&name("web"), &name("a"), serial(1))
        .await
        .unwrap();
    assert_eq!(get(admin, "/healthz"), (200, "ok\n".into()));
    assert_eq!(get(admin, "/readyz"), (200, "ready\n".into()));
    assert_eq!(get(admin, "/other").0, 404);
    let (status, metrics) = get(admin, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "tidings_slot_holders{group=\"web\"} 1",
        "tidings_statements_published_total 2",
        "# TYPE tidings_connections gauge",
        "tidings_trust_serial{namespace=\"test\"} 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in {metrics}"
        );
    }
    // Every metric has a type and a help text.
    let named = |prefix: &str| {
        metrics
            .lines()
            .filter(|line| line.starts_with(prefix))
            .count()
    };
    assert!(
        named("# HELP ") == named("# TYPE ") && named("# HELP ") > 12,
        "{metrics}"
    );
    let (_, status) = get(admin, "/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (
            &status["channels"][1]["channel"],
            &status["channels"][0]["serial"]
        ),
        (&"test.trust".into(), &1.into())
    );
}

fn tidings(fixture: &Fixture, arguments: &[&str]) -> Output {
    fixture.tidings().args(arguments).output().unwrap()
}

/// `tidings apply` takes a slot, if the release wants one; `tidings slot` is for everything else.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_takes_turns() {
    let roles = ["trust * 1 root", "release * 1 ann", "withdraw * 1 ann"];
    let realm = tidings_tests::realm::Realm::new(&roles, &["root"]);
    let (fixture, _daemon, mut publisher) = origin(&realm, GROUPS).await.unwrap();
    let release = Release {
        version: "2".into(),
        slot: Some("single".into()),
        ..Release::default()
    };
    publisher
        .publish(&realm.release_with(&os(), None, release, &["ann"]))
        .await
        .unwrap();
    let state = fixture.directory.join("state");
    let state = state.to_str().unwrap();
    let apply = |more: &[&str]| {
        let arguments = [&["apply", "test.os.stable", "1", "--state", state], more].concat();
        tidings(&fixture, &arguments)
    };
    let without = apply(&["--", "true"]);
    assert!(
        !without.status.success() && String::from_utf8_lossy(&without.stderr).contains("--node"),
        "{without:?}"
    );
    let token = tidings(&fixture, &["slot", "take", "single", "other", "1"]);
    let token = String::from_utf8(token.stdout).unwrap();
    let waits = apply(&["--node", "me", "--slot-wait", "0", "--", "true"]);
    assert!(
        !waits.status.success()
            && String::from_utf8_lossy(&waits.stderr).contains("1 are before this node"),
        "{waits:?}"
    );
    assert!(
        tidings(&fixture, &["slot", "hold", "single", "other", token.trim()])
            .status
            .success()
    );
    assert!(
        tidings(&fixture, &["slot", "free", "single", "other", token.trim()])
            .status
            .success()
    );
    // A command that fails keeps the slot: nobody else goes down until the machine is well, or has
    // failed.
    assert!(!apply(&["--node", "me", "--", "false"]).status.success());
    let list = String::from_utf8(tidings(&fixture, &["slot", "list", "single"]).stdout).unwrap();
    assert!(list.contains("\nholder me 1 "), "{list}");
    assert!(apply(&["--node", "me", "--", "true"]).status.success());
    let list = String::from_utf8(tidings(&fixture, &["slot", "list", "single"]).stdout).unwrap();
    assert!(!list.contains("me"), "{list}");
    let log = String::from_utf8(tidings(&fixture, &["slot", "log", "single"]).stdout).unwrap();
    assert!(log.trim_end().ends_with("freed me"), "{log}");
    // What reboots keeps its slot until the machine is back.
    let channel: tidings_client::Channel = "test.os.kernel".parse().unwrap();
    let way = Some(tidings_protocol::statement::Apply::Reboot);
    let release = Release {
        version: "3".into(),
        slot: Some("single".into()),
        apply: way,
        ..Release::default()
    };
    publisher
        .publish(&realm.release_with(&channel, None, release, &["ann"]))
        .await
        .unwrap();
    let apply = |more: &[&str]| {
        let arguments = [
            &[
                "apply",
                "test.os.kernel",
                "1",
                "--state",
                state,
                "--node",
                "me",
            ],
            more,
        ]
        .concat();
        tidings(&fixture, &arguments)
    };
    let holds = || {
        String::from_utf8(tidings(&fixture, &["slot", "list", "single"]).stdout)
            .unwrap()
            .contains("\nholder me 1 ")
    };
    assert!(!apply(&["--", "/nonexistent/command"]).status.success() && !holds());
    let gone = apply(&["--", "true"]);
    assert!(
        gone.status.success()
            && String::from_utf8_lossy(&gone.stderr).contains("--applied --node me"),
        "{gone:?}"
    );
    assert!(holds());
    assert!(apply(&["--applied"]).status.success() && !holds());
    // Without a slot there is nothing to free.
    assert!(apply(&["--applied"]).status.success() && !holds());
}

/// A release that was withdrawn while a machine has waited for its turn is not applied (attack 81).
#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_while_a_machine_waits_is_not_applied() {
    let roles = ["trust * 1 root", "release * 1 ann", "withdraw * 1 ann"];
    let realm = tidings_tests::realm::Realm::new(&roles, &["root"]);
    let (fixture, _daemon, mut publisher) = origin(&realm, GROUPS).await.unwrap();
    let release = Release {
        version: "2".into(),
        slot: Some("short".into()),
        ..Release::default()
    };
    let release = realm.release_with(&os(), None, release, &["ann"]);
    publisher.publish(&release).await.unwrap();
    let short = name("short");
    let mut others = slots(&fixture);
    let (a, b) = (
        others.take(&short, &name("a"), serial(1)).await.unwrap(),
        others.take(&short, &name("b"), serial(1)).await.unwrap(),
    );
    let ran = fixture.directory.join("ran");
    let waiting = fixture
        .tidings()
        .args([
            "apply",
            "test.os.stable",
            "1",
            "--node",
            "me",
            "--state",
            fixture.directory.join("state").to_str().unwrap(),
            "--",
            "touch",
        ])
        .arg(&ran)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until("it waits", async || {
        others.list(&short).await.unwrap().contains("\nwaiting me ")
    })
    .await;
    publisher
        .publish(&realm.withdraw(&os(), release.head(), release.head(), &["ann"]))
        .await
        .unwrap();
    for (node, token) in [("a", a.token), ("b", b.token)] {
        others.free(&short, &name(node), token).await.unwrap();
    }
    let output = waiting.wait_with_output().unwrap();
    assert!(
        !output.status.success()
            && String::from_utf8_lossy(&output.stderr).contains("was withdrawn"),
        "{output:?}"
    );
    assert!(!ran.exists());
    // It has not gone down, and gives its turn to others.
    assert!(!others.list(&short).await.unwrap().contains("holder me"));
}

/// What has ended well counts as applied, and is not run again, although its lease has run out
/// meanwhile; and it is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_machine_has_applied_what_it_has_applied() {
    let realm = tidings_tests::realm::Realm::new(
        &["trust * 1 root", "release * 1 ann", "withdraw * 1 ann"],
        &["root"],
    );
    let (fixture, _daemon, mut publisher) = origin(&realm, GROUPS).await.unwrap();
    let release = Release {
        version: "2".into(),
        slot: Some("short".into()),
        ..Release::default()
    };
    publisher
        .publish(&realm.release_with(&os(), None, release, &["ann"]))
        .await
        .unwrap();
    let state = fixture.directory.join("state");
    let state = state.to_str().unwrap();
    let late = tidings(
        &fixture,
        &[
            "apply",
            "test.os.stable",
            "1",
            "--state",
            state,
            "--node",
            "me",
            "--",
            "sleep",
            "4",
        ],
    );
    let said = String::from_utf8_lossy(&late.stderr);
    assert!(
        !late.status.success()
            && said.contains("is applied, but the slot could not be freed")
            && said.contains("counts as failed"),
        "{late:?}"
    );
    let status = tidings(
        &fixture,
        &["status", "test.os.stable", "--json", "--state", state],
    );
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["channels"][0]["applied"], 1);
}

struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    /// Certificate and key for a name.
    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate().unwrap();
        (
            params.signed_by(&key, &self.0).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

/// Where a client certificate is asked for, a node is who its certificate says, and nobody else
/// (attack 80).
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_who_its_certificate_says() {
    let (authority, realm, tls) = (Authority::new(), realm(), free_address().unwrap());
    let fixture = broker(&realm, "").unwrap();
    let write = |name: &str, text: &str| {
        let path = fixture.directory.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = authority.issue("localhost");
    let (ca, server, server_key) = (
        write("ca.pem", &authority.1),
        write("server.pem", &certificate),
        write("server.key", &key),
    );
    let fleetlock = free_address().unwrap();
    let more = format!(
        "[tls]\ncertificate_file = {server:?}\nkey_file = {server_key:?}\nclient_ca_file = {ca:?}\n[fleetlock]\ntls = true\nlisten = [\"{fleetlock}\"]\n[[slot]]\ngroup = \"web\"\ncertificate = true\nmax = 5\n"
    );
    fixture.configure(&more).unwrap();
    let text = fs::read_to_string(fixture.config())
        .unwrap()
        .replace("[listen]\n", &format!("[listen]\nnntps = [\"{tls}\"]\n"));
    fs::write(fixture.config(), text).unwrap();
    let _daemon = fixture.start().unwrap();
    let source = |own: Option<&str>| {
        let own = own.map(|name| {
            let (certificate, key) = authority.issue(name);
            (
                write(&format!("{name}.pem"), &certificate),
                write(&format!("{name}.key"), &key),
            )
        });
        let tls_config = Tls::new(
            Some(&ca),
            own.as_ref()
                .map(|(certificate, key)| (certificate.as_path(), key.as_path())),
        )
        .unwrap();
        let url = format!("nntps://localhost:{}", tls.port());
        Slots::new(
            Source::new([url.as_str()], &realm.anchor.to_string())
                .unwrap()
                .with_tls(tls_config),
        )
    };
    let (web, node) = (name("web"), name("node1.example.org"));
    let slot = source(Some("node1.example.org"))
        .take(&web, &node, serial(1))
        .await
        .unwrap();
    // In another spelling it would be another node, with a vote of its own.
    for spelling in ["NODE1.example.org", "node1.example.org."] {
        let taken = source(Some("node1.example.org"))
            .take(&web, &name(spelling), serial(1))
            .await;
        assert!(matches!(taken, Err(SlotError::Ask(_))), "{spelling}");
    }
    for other in [Some("node2.example.org"), None] {
        assert!(matches!(
            source(other).take(&web, &node, serial(1)).await,
            Err(SlotError::Ask(_))
        ));
        assert!(matches!(
            source(other).free(&web, &node, slot.token).await,
            Err(SlotError::Ask(_))
        ));
    }
    // Nor in clear text, whatever is said there.
    let answer = connect(&fixture)
        .await
        .unwrap()
        .command("XSLOT TAKE web node1.example.org 1")
        .await
        .unwrap();
    assert_eq!(answer.code.0, 483);
    // FleetLock by the same rule.
    let curl = |name: &str| {
        let output = Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-H",
                "fleet-lock-protocol: true",
                "--cacert",
            ])
            .arg(&ca)
            .args([
                "--cert",
                fixture
                    .directory
                    .join(format!("{name}.pem"))
                    .to_str()
                    .unwrap(),
            ])
            .args([
                "--key",
                fixture
                    .directory
                    .join(format!("{name}.key"))
                    .to_str()
                    .unwrap(),
            ])
            .args([
                "-d",
                r#"{"client_params": {"id": "node2.example.org", "group": "web"}}"#,
            ])
            .arg(format!(
                "https://localhost:{}/v1/pre-reboot",
                fleetlock.port()
            ))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        (curl("node1.example.org"), curl("node2.example.org")),
        ("403".into(), "200".into())
    );
    source(Some("node1.example.org"))
        .free(&web, &node, slot.token)
        .await
        .unwrap();
}

/// A state that cannot be read is an alarm, not an empty group.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_writes_into_the_tree_gives_no_slot() {
    let ensemble = Ensemble::start(1, "").unwrap();
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a"], "", GROUPS).await.unwrap();
    let (web, a) = (name("web"), name("a"));
    slots(&members[0]).take(&web, &a, serial(1)).await.unwrap();
    let client = zookeeper_client::Client::connect(&ensemble.servers[0].address.to_string())
        .await
        .unwrap();
    client
        .set_data(&format!("{}/slots/web", site.root), b"junk", None)
        .await
        .unwrap();
    let refused = slots(&members[0]).take(&web, &name("b"), serial(1)).await;
    assert!(
        matches!(&refused, Err(SlotError::Ask(error)) if error.to_string().contains("cannot be read")),
        "{refused:?}"
    );
    sleep(Duration::from_millis(10)).await;
    // Publishing is not affected.
    let mut publisher = Publisher::connect(members[0].source().unwrap())
        .await
        .unwrap();
    publisher
        .publish(&site.realm.release(&os(), None, "1", &["ann", "bob"]))
        .await
        .unwrap();
}

/// A broker that is no member does not know the time that all share, and decides nothing: its own
/// clock may be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_no_member_decides_nothing() {
    let ensemble = Ensemble::start(1, "").unwrap();
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a"], "", GROUPS).await.unwrap();
    let (web, node) = (name("web"), name("n"));
    let slot = slots(&members[0])
        .take(&web, &node, serial(1))
        .await
        .unwrap();
    let twin = site.member("a", "", GROUPS).unwrap();
    let _twin = twin.start().unwrap();
    until("it has noticed", async || {
        twin.log()
            .contains("another broker with this name is a member")
    })
    .await;
    assert!(matches!(
        slots(&twin).hold(&web, &node, slot.token).await,
        Err(SlotError::Ask(_))
    ));
    assert!(matches!(
        slots(&twin).list(&web).await,
        Err(SlotError::Ask(_))
    ));
    slots(&members[0])
        .hold(&web, &node, slot.token)
        .await
        .unwrap();
}
