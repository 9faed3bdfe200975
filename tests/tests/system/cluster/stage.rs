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

/// A node of what was settled at once.
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) zxid: i64,
    /// What it holds: `Path`, and the statement.
    pub(crate) entries: Vec<(String, Statement)>,
}

/// All of them, in the order in which they were settled.
pub(crate) async fn settled(client: &zk::Client) -> Vec<Node> {
    let mut nodes = Vec::new();
    for name in client.list_children("/settled").await.unwrap() {
        let path = format!("/settled/{name}");
        // One that goes meanwhile is none.
        let Ok((data, stat)) = client.get_data(&path).await else {
            continue;
        };
        let (mut entries, mut rest) = (Vec::new(), &data[..]);
        while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
            let line = String::from_utf8(rest[..end].to_vec()).unwrap();
            let words: Vec<&str> = line.splitn(6, ' ').collect();
            let [_, _, _, _, octets, path] = words[..] else {
                break;
            };
            let (entry, more) = rest[end + 1..].split_at(octets.parse().unwrap());
            if !entry.is_empty() {
                entries.push((path.to_owned(), Statement::parse(entry).unwrap()));
            }
            rest = more;
        }
        nodes.push(Node {
            path,
            zxid: stat.czxid,
            entries,
        });
    }
    nodes.sort_by_key(|node| node.zxid);
    nodes
}

/// How many statements of a channel the servers keep.
pub(crate) async fn kept(client: &zk::Client, channel: &Channel) -> usize {
    let nodes = settled(client).await;
    let entries = nodes.iter().flat_map(|node| &node.entries);
    entries.filter(|(_, one)| one.channel() == channel).count()
}

/// The servers forget all but the newest nodes, as they do when there are very many.
pub(crate) async fn forget(client: &zk::Client, newest: usize) {
    let nodes = settled(client).await;
    let old = nodes.len().saturating_sub(newest);
    for node in &nodes[..old] {
        client.delete(&node.path, None).await.unwrap();
    }
}

/// What a node holds of a statement, as a member writes it.
pub(crate) fn record(statement: &Statement, version: i32) -> Vec<u8> {
    let (channel, head, octets) = (statement.channel(), statement.head(), statement.octets());
    let line = format!(
        "{channel} {head} {version} {} x!not-for-mail\n",
        octets.len()
    );
    [line.as_bytes(), octets].concat()
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
