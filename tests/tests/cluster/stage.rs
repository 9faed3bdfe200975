//! What the tests of a cluster share.

pub(crate) use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

pub(crate) use tidings_client::{Channel, Head, Publisher, Statement};
pub(crate) use tidings_tests::{
    Daemon, Fixture,
    cluster::{SESSION_SECONDS, Site, until_acquainted},
    ensemble::Ensemble,
    http,
    realm::Realm,
    tree::{connect, head, os, publish, read_all, realm, releases, until, until_head},
};
pub(crate) use tokio::time::sleep;
pub(crate) use zookeeper_client as zk;

pub(crate) const SIGNERS: &[&str] = &["ann", "bob"];
/// Entries of a channel that the servers keep while several members are live.
pub(crate) const KEPT: usize = 64;

pub(crate) async fn heads_of(member: &Fixture, channel: &Channel) -> Vec<Head> {
    read_all(member, channel)
        .await
        .unwrap()
        .iter()
        .map(Statement::head)
        .collect()
}

/// All members have the same log, of so many statements.
pub(crate) async fn all_have(members: &[Fixture], channel: &Channel, count: u32) {
    let mut logs = Vec::new();
    for member in members {
        until_head(member, channel, count).await;
        logs.push(heads_of(member, channel).await);
    }
    assert!(
        logs.iter()
            .all(|log| *log == logs[0] && log.len() == count as usize),
        "{logs:?}"
    );
}

pub(crate) async fn publisher(member: &Fixture) -> Publisher {
    Publisher::connect(member.source().unwrap()).await.unwrap()
}

/// Somebody who writes into the tree by hand.
pub(crate) async fn by_hand(ensemble: &Ensemble, site: &Site) -> zk::Client {
    let client = zk::Client::connect(&ensemble.servers[0].address.to_string())
        .await
        .unwrap();
    client
        .chroot(site.root.clone())
        .unwrap_or_else(|_| panic!("no root"))
}

pub(crate) async fn says(member: &Fixture, what: &str) {
    until(&format!("{} says {what:?}", member.name), async || {
        member.log().contains(what)
    })
    .await;
}

/// POSTs once; the answer, and how long it took.
pub(crate) async fn post(member: &Fixture, statement: &Statement) -> (String, Duration) {
    let mut connection = connect(member).await.unwrap();
    let began = Instant::now();
    let response = connection.post(statement).await.unwrap();
    (response.to_string(), began.elapsed())
}

pub(crate) fn head_and_tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let (head, tail) = (lines.iter().take(40), lines.iter().rev().take(20).rev());
    head.chain(tail).copied().collect::<Vec<_>>().join("\n")
}

pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    http::get(address, path).unwrap()
}

pub(crate) async fn kept(client: &zk::Client, channel: &Channel) -> usize {
    client
        .list_children(&format!("/entries/{channel}"))
        .await
        .map_or(0, |entries| entries.len())
}

pub(crate) async fn signer(client: &zk::Client) -> String {
    let (data, _) = client.get_data("/term").await.unwrap();
    String::from_utf8(data)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

/// Serials and message-ids.
pub(crate) async fn beats_of(member: &Fixture, beat: &Channel) -> Vec<String> {
    let mut connection = connect(member).await.unwrap();
    connection.group(beat, None).await.unwrap();
    let listing = connection
        .listing("HDR Message-ID 1-", tidings_protocol::nntp::code::HDR)
        .await
        .unwrap();
    listing.lines().map(String::from).collect()
}

pub(crate) async fn until_beats(member: &Fixture, beat: &Channel, serial: u32) {
    until(&format!("beat {serial}"), async || {
        head(member, beat).await.unwrap_or(0) >= serial
    })
    .await;
}

pub(crate) fn faketime() -> Option<String> {
    let paths = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketime.so.1"));
    paths.into_iter().find(|path| Path::new(path).exists())
}
