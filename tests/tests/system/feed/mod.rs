//! Feeds between brokers: IHAVE, CHECK and TAKETHIS, offered and taken; what comes out of order,
//! twice, or in a ring.
#![allow(clippy::unwrap_used)]

mod interrupted;
mod order;
mod refused;

use tidings_client::{Connection, Statement};
use tidings_protocol::{
    article,
    nntp::{Response, code},
};
use tidings_tests::{
    Daemon, Fixture,
    realm::Realm,
    tree::{broker, os, publish, publish_trust, read_all, realm, until_head},
};

/// Takes what anybody on this machine offers.
const PEER: &str =
    "[[peer]]\nname = \"neighbour\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"test.*\"\n";

fn named(fixture: &Fixture, name: &str, more: &str) {
    fixture.configure(more).unwrap();
    let text = std::fs::read_to_string(fixture.config())
        .unwrap()
        .replace("broker.invalid", name);
    std::fs::write(fixture.config(), text).unwrap();
}

/// A broker that only takes.
fn taker(realm: &Realm) -> (Fixture, Daemon) {
    let fixture = broker(realm, PEER).unwrap();
    let daemon = fixture.start().unwrap();
    (fixture, daemon)
}

fn sent(statement: &Statement, path: &str) -> Vec<u8> {
    [article::render(statement, path).octets, b".\r\n".to_vec()].concat()
}

async fn ihave(connection: &mut Connection, statement: &Statement) -> Response {
    let answer = connection
        .command(&format!("IHAVE {}", statement.message_id()))
        .await
        .unwrap();
    if answer.code != code::SEND_IT {
        return answer;
    }
    connection
        .send_raw(&sent(statement, "x!not-for-mail"))
        .await
        .unwrap();
    connection.answer().await.unwrap()
}

async fn take_these(connection: &mut Connection, statements: &[&Statement]) -> Vec<u16> {
    let mut octets = Vec::new();
    for statement in statements {
        octets.extend_from_slice(format!("TAKETHIS {}\r\n", statement.message_id()).as_bytes());
        octets.extend_from_slice(&sent(statement, "x!not-for-mail"));
    }
    connection.send_raw(&octets).await.unwrap();
    let mut codes = Vec::new();
    for _ in statements {
        codes.push(connection.answer().await.unwrap().code.0);
    }
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_37_63_a_ring_of_three_and_what_is_published_goes_round_once() {
    let realm = realm();
    let ring: Vec<Fixture> = (0..3).map(|_| broker(&realm, "").unwrap()).collect();
    for (index, fixture) in ring.iter().enumerate() {
        // Twice to the next, and once back: loops and duplicate links.
        let (next, before) = (&ring[(index + 1) % 3], &ring[(index + 2) % 3]);
        let feed = |name: &str, to: &Fixture| {
            format!("[[feed]]\nname = \"{name}\"\nto = \"{}\"\n", to.url())
        };
        named(
            fixture,
            &format!("n{index}.invalid"),
            &format!(
                "{PEER}{}{}{}",
                feed("a", next),
                feed("b", next),
                feed("c", before)
            ),
        );
    }
    let _daemons: Vec<Daemon> = ring
        .iter()
        .map(|fixture| fixture.start().unwrap())
        .collect();
    let mut publisher = tidings_client::Publisher::connect(ring[0].source().unwrap())
        .await
        .unwrap();
    publish_trust(&realm, &mut publisher).await.unwrap();
    let head = publish(&realm, &mut publisher, &os(), None, 40, &["ann", "bob"])
        .await
        .unwrap();
    for fixture in &ring {
        until_head(fixture, &os(), 40).await;
        assert_eq!(read_all(fixture, &os()).await.unwrap().len(), 40);
    }
    // What comes last has gone round behind everything else.
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(head),
        1,
        &["ann", "bob"],
    )
    .await
    .unwrap();
    for fixture in &ring {
        until_head(fixture, &os(), 41).await;
        // While its neighbours start they refuse connections.
        let log = fixture
            .log()
            .replace("Connection refused", "")
            .replace("refused=0", "");
        assert!(!log.contains("fork") && !log.contains("refused"), "{log}");
    }
}
