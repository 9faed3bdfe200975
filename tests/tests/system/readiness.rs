//! What `/readyz` tells of logs; what it tells of a cluster is in that one's tests.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use tidings_client::Publisher;
use tidings_tests::{
    FREE_ADDRESS, Fixture,
    clock::faketime,
    http::get,
    realm::{ROLES, Realm},
    tree::{broker, origin, os, realm, until},
};

const ROOTS: &[&str] = &["root1", "root2"];
const SIGNERS: &[&str] = &["ann", "bob"];

fn admin() -> String {
    format!("[admin]\nlisten = [\"{FREE_ADDRESS}\"]\n")
}

fn address(fixture: &Fixture) -> SocketAddr {
    let text = std::fs::read_to_string(fixture.config()).unwrap();
    let (_, listen) = text.split_once("[admin]\nlisten = [\"").unwrap();
    listen.split('"').next().unwrap().parse().unwrap()
}

/// Waits for an answer with this code that says this; gives what `/metrics` says.
async fn until_readyz(fixture: &Fixture, code: u16, says: &str) -> String {
    let at = address(fixture);
    until(says, async || {
        get(at, "/readyz").is_ok_and(|(found, text)| found == code && text.contains(says))
    })
    .await;
    get(at, "/metrics").unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_without_an_upstream_is_not_ready() {
    let (upstream, daemon, _publisher) = origin(&realm(), "").await.unwrap();
    let mirror = upstream.mirror_of(&[upstream.address], &admin()).unwrap();
    let _mirror = mirror.start().unwrap();
    let metrics = until_readyz(&mirror, 200, "ready").await;
    assert!(
        metrics.contains("tidings_upstreams_connected 1\n"),
        "{metrics}"
    );
    daemon.kill().unwrap();
    let metrics = until_readyz(&mirror, 503, "none of 1 upstreams is connected").await;
    assert!(
        metrics.contains("tidings_upstreams 1\n")
            && metrics.contains("tidings_upstreams_connected 0\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_told_until_a_checkpoint_settles_it() {
    let mut realm = realm();
    let (fixture, daemon, mut publisher) = origin(&realm, &admin()).await.unwrap();
    let next = |after: &tidings_client::Statement, version: &str| {
        realm.release(&os(), Some(after.head()), version, SIGNERS)
    };
    let first = realm.release(&os(), None, "1", SIGNERS);
    let (second, rival) = (next(&first, "2"), next(&first, "2-other"));
    let (third, fork) = (next(&second, "3"), next(&rival, "3-other"));
    for statement in [&first, &second, &third] {
        publisher.publish(statement).await.unwrap();
    }
    until_readyz(&fixture, 200, "ready").await;
    assert!(publisher.publish(&fork).await.is_err());
    let forked = "test.os.stable is forked: settle it with a checkpoint";
    let metrics = until_readyz(&fixture, 503, forked).await;
    assert!(metrics.contains("tidings_forked_channels 1\n"), "{metrics}");
    // It is told by the evidence, and so after a restart too.
    daemon.kill().unwrap();
    let _daemon = fixture.start().unwrap();
    until_readyz(&fixture, 503, forked).await;
    let settled = realm.rotate(ROLES, &[(&os(), third.head())], ROOTS);
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    publisher.publish(&settled).await.unwrap();
    let metrics = until_readyz(&fixture, 200, "ready").await;
    assert!(metrics.contains("tidings_forked_channels 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_that_has_expired_is_told() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut fixture = broker(&realm, &admin()).unwrap();
    // The broker's clock is moved while it runs.
    let time = fixture.directory.join("time");
    std::fs::write(&time, "+0s").unwrap();
    fixture.launcher = vec![
        "env".into(),
        format!("LD_PRELOAD={}", faketime().display()),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        "FAKETIME_NO_CACHE=1".into(),
        format!("FAKETIME_TIMESTAMP_FILE={}", time.display()),
    ];
    let _daemon = fixture.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    for statement in &realm.log {
        publisher.publish(statement).await.unwrap();
    }
    until_readyz(&fixture, 200, "ready").await;
    std::fs::write(&time, "+400d").unwrap();
    until_readyz(&fixture, 503, "the trust of test has expired: ").await;
}
