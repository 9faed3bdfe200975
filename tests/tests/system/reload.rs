//! What SIGHUP takes up, and what it says of the rest.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use rcgen::{CertificateParams, KeyPair};
use tidings_tests::{
    Fixture, free_address,
    tree::{origin, realm, until, until_head},
};

/// A self-signed certificate for this machine, and its key, in files.
fn certificate(at: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(at.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(at.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// An origin under TLS, whose certificate is `good`, and files to have trust in it.
async fn under_tls(at: &Path) -> (Fixture, tidings_tests::Daemon, String) {
    certificate(at, "good");
    certificate(at, "other");
    fs::copy(at.join("other.pem"), at.join("ca.pem")).unwrap();
    let (realm, address, shown) = (realm(), free_address().unwrap(), at.display());
    let (fixture, daemon, _publisher) = origin(
        &realm,
        &format!(
            "nntps = [\"{address}\"]\n[tls]\ncertificate_file = \"{shown}/good.pem\"\nkey_file = \"{shown}/good.key\"\n"
        ),
    )
    .await
    .unwrap();
    (fixture, daemon, format!("nntps://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_reads_again_whom_it_believes() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (origin, _origin, url) = under_tls(at).await;
    let mirror = origin.mirror_of(&[], "").unwrap();
    let ca = at.join("ca.pem");
    mirror
        .configure(&format!(
            "[mirror]\nupstreams = [\"{url}\"]\n[mirror.login]\nca_file = \"{}\"\n",
            ca.display()
        ))
        .unwrap();
    let daemon = mirror.start().unwrap();
    until(
        "it says whom it does not believe, and what to look at",
        async || {
            let log = mirror.log();
            log.contains("no TLS with nntps://") && log.contains("ca_file")
        },
    )
    .await;
    fs::copy(at.join("good.pem"), &ca).unwrap();
    daemon.signal("HUP").unwrap();
    let log = origin.anchor.namespace.trust_log();
    until_head(&mirror, &log, 1).await;
    // What cannot be used is said, with its key, and what was read before stays in use.
    fs::write(&ca, "nothing of use").unwrap();
    daemon.signal("HUP").unwrap();
    until("it names the key and the file", async || {
        let log = mirror.log();
        log.contains("mirror.login: there is no certificate in") && log.contains("ca.pem")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named() {
    let fixture = Fixture::new().unwrap();
    let groups = "[[slot]]\ngroup = \"web\"\n[fleetlock]\nlisten = [\"FREE-ADDRESS\"]\n";
    fixture.configure(groups).unwrap();
    let daemon = fixture.start().unwrap();
    let text = fs::read_to_string(fixture.config()).unwrap();
    fs::write(
        fixture.config(),
        text.replace("name = \"", "name = \"other-") + "[[slot]]\ngroup = \"db\"\n",
    )
    .unwrap();
    daemon.signal("HUP").unwrap();
    until("the keys are named", async || {
        let log = fixture.log();
        log.contains("need a restart") && log.contains("name, slot")
    })
    .await;
    fs::write(fixture.config(), "nonsense").unwrap();
    daemon.signal("HUP").unwrap();
    until("a configuration that cannot be used is said", async || {
        fixture.log().contains("and everything else")
    })
    .await;
}
