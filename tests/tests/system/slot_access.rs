//! Who may have slots: certificates, bearer tokens, and what is guessed.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tidings_client::{Serial, SlotError, SlotServerError, Slots, Tls};
use tidings_protocol::slot::SlotName;
use tidings_tests::{
    Daemon, FREE_ADDRESS, Fixture,
    tree::{broker, realm, until},
};

fn name(text: &str) -> SlotName {
    text.parse().unwrap()
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

    /// Certificate and key for a name, which end after so many seconds.
    fn issue(&self, name: &str, seconds: Option<i64>) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        if let Some(seconds) = seconds {
            let now = i64::try_from(tidings_client::now().seconds()).unwrap();
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + time(now + seconds);
        }
        let key = KeyPair::generate().unwrap();
        (
            params.signed_by(&key, &self.0).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

fn time(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap())
}

/// A broker that serves slots over TLS.
struct Served {
    fixture: Fixture,
    authority: Authority,
    url: String,
    _daemon: Daemon,
}

impl Served {
    fn new(groups: &str) -> Self {
        let (authority, fixture) = (Authority::new(), broker(&realm(), "").unwrap());
        let write = |name: &str, text: &str| {
            let path = fixture.directory.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) = authority.issue("localhost", None);
        let (ca, server, server_key) = (
            write("ca.pem", &authority.1),
            write("server.pem", &certificate),
            write("server.key", &key),
        );
        let more = format!(
            "[tls]\ncertificate_file = {server:?}\nkey_file = {server_key:?}\nclient_ca_file = {ca:?}\n{groups}[fleetlock]\nlisten = [\"{FREE_ADDRESS}\"]\ntls = true\n"
        );
        fixture.configure(&more).unwrap();
        let daemon = fixture.start().unwrap();
        let url = format!(
            "https://localhost:{}",
            fixture.slot_address().unwrap().port()
        );
        Self {
            fixture,
            authority,
            url,
            _daemon: daemon,
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.fixture.directory.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// What asks, with a certificate for this name.
    fn slots(&self, own: Option<(&str, Option<i64>)>) -> Slots {
        let own = own.map(|(name, seconds)| {
            let (certificate, key) = self.authority.issue(name, seconds);
            (
                self.write(&format!("{name}.pem"), &certificate),
                self.write(&format!("{name}.key"), &key),
            )
        });
        let tls = Tls::new(
            Some(&self.fixture.directory.join("ca.pem")),
            own.as_ref()
                .map(|(certificate, key)| (certificate.as_path(), key.as_path())),
        )
        .unwrap();
        Slots::new(vec![self.url.parse().unwrap()], tls)
    }
}

fn is_refused<T>(answer: &Result<T, SlotError>) -> bool {
    let Err(SlotError::Ask { source, .. }) = answer else {
        return false;
    };
    matches!(&**source, SlotServerError::Refused { status: 403, kind, .. } if kind == "not_allowed")
}

/// Where a client certificate is asked for, a node is who its certificate says, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn attacks_77_80_a_node_is_who_its_certificate_says() {
    let served = Served::new("[[slot]]\ngroup = \"web\"\ncertificate = true\nmax = 5\n");
    let (web, node) = (name("web"), name("node1.example.org"));
    let one = || served.slots(Some(("node1.example.org", None)));
    let slot = one().take(&web, &node, Serial::FIRST).await.unwrap();
    // In another spelling it would be another node, with a vote of its own.
    for spelling in ["NODE1.example.org", "node1.example.org."] {
        let taken = one().take(&web, &name(spelling), Serial::FIRST).await;
        assert!(is_refused(&taken), "{spelling}");
    }
    for other in [Some(("node2.example.org", None)), None] {
        let taken = served.slots(other).take(&web, &node, Serial::FIRST).await;
        assert!(is_refused(&taken), "{other:?}");
        let freed = served.slots(other).free(&web, &node, slot.token).await;
        assert!(is_refused(&freed), "{other:?}");
        // Its certificate is renewed: it is the same node.
        assert_eq!(
            served.slots(other).status(&web).await.is_ok(),
            other.is_some()
        );
    }
    one().free(&web, &node, slot.token).await.unwrap();
}

/// A session that is resumed brings the certificate with which it began: its end is looked at each
/// time.
#[tokio::test(flavor = "multi_thread")]
async fn attack_80_a_certificate_that_has_ended_is_none() {
    let served = Served::new("[[slot]]\ngroup = \"web\"\ncertificate = true\nmax = 5\n");
    let (web, node) = (name("web"), name("node1.example.org"));
    let mut slots = served.slots(Some((node.as_str(), Some(8))));
    slots.take(&web, &node, Serial::FIRST).await.unwrap();
    until("its end is noticed", async || {
        slots.take(&web, &node, Serial::FIRST).await.is_err()
    })
    .await;
}

/// Peers with bearer tokens: those that `takers` names have slots, `operators` clear, and a token
/// cannot be guessed over many connections.
#[tokio::test(flavor = "multi_thread")]
async fn attacks_80_115_bearer_tokens() {
    use std::fmt::Write as _;
    let hash = |token: &str| tidings_protocol::Digest::of(token.as_bytes()).to_string();
    let mut groups = String::new();
    for (peer, token) in [("fleet", "token of the fleet"), ("ops", "token of ops")] {
        writeln!(
            groups,
            "[[peer]]\nname = \"{peer}\"\ntokens = [\"{}\"]",
            hash(token)
        )
        .unwrap();
    }
    groups.push_str("[[slot]]\ngroup = \"web\"\ntakers = [\"fleet\"]\noperators = [\"ops\"]\n");
    let served = Served::new(&groups);
    let (web, a) = (name("web"), name("a"));
    let with = |token: &str| served.slots(None).with_bearer(token);
    with("token of the fleet")
        .take(&web, &a, Serial::FIRST)
        .await
        .unwrap();
    assert!(is_refused(&served.slots(None).status(&web).await));
    assert!(is_refused(
        &with("token of the fleet").clear(&web, &a).await
    ));
    assert!(is_refused(
        &with("token of ops").take(&web, &a, Serial::FIRST).await
    ));
    with("token of ops").clear(&web, &a).await.unwrap();
    assert_eq!(
        with("token of ops").status(&web).await.unwrap().state,
        "idle"
    );
    // Each guess by a connection of its own; then the right one is none either, from there.
    for guess in 0..25 {
        assert!(is_refused(&with(&guess.to_string()).status(&web).await));
    }
    assert!(is_refused(&with("token of ops").status(&web).await));
    assert!(!served.fixture.log().contains("token of"));
}

#[test]
fn groups_that_could_not_be_used_as_they_are_written_are_refused_at_the_start() {
    let fixture = broker(&realm(), "").unwrap();
    let file = fixture.directory.join("any.pem").display().to_string();
    let tls = format!(
        "[tls]\ncertificate_file = \"{file}\"\nkey_file = \"{file}\"\nclient_ca_file = \"{file}\"\n"
    );
    let group = "[[slot]]\ngroup = \"web\"\n";
    let served = "[fleetlock]\nlisten = [\"127.0.0.1:1\"]\n";
    for (text, why) in [
        (
            group.to_owned(),
            "fleetlock.listen: groups of slots are served by FleetLock",
        ),
        (
            format!("{group}[fleetlock]\nlisten = []\n"),
            "fleetlock.listen",
        ),
        (
            format!("{group}certificate = true\n{served}"),
            "needs tls.client_ca_file",
        ),
        (
            format!("{group}certificate = true\n{served}{tls}"),
            "needs fleetlock.tls",
        ),
        (
            format!("{group}{served}[[peer]]\nname = \"a\"\ntokens = [\"x\"]\n"),
            "tokens: expected 64",
        ),
        (
            format!(
                "{group}[fleetlock]\nlisten = [\"0.0.0.0:1\"]\n[[peer]]\nname = \"a\"\ntokens = [\"{}\"]\n",
                "0".repeat(64)
            ),
            "fleetlock.tls: peers have bearer tokens, which are not for clear text",
        ),
    ] {
        fixture.configure(&text).unwrap();
        let output = std::process::Command::new(tidings_tests::binary("tidingsd"))
            .args(["--check", "--config"])
            .arg(fixture.config())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(why),
            "{text}: {said}"
        );
    }
}
