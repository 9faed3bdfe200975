//! The brokers whose pages are looked at.

use std::{net::SocketAddr, time::Instant};

use anyhow::ensure;
use serde_json::json;
use tidings_client::{Channel, Publisher, Release, Statement, Timestamp, keys, now};
use tidings_protocol::{article, nntp::code, statement::Rollout};
use tidings_tests::{
    Daemon, Fixture, free_address, http,
    realm::{Realm, key},
    tree::{broker, connect, os, publish_trust, until_head},
};

use crate::mirrors::send_all;

/// Channels of one product, which have a role for beats of their own.
const PRODUCT: usize = 500;

/// A broker with an admin port, which runs.
pub(super) struct Running {
    pub(super) fixture: Fixture,
    pub(super) admin: SocketAddr,
    pub(super) daemon: Option<Daemon>,
}

impl Running {
    pub(super) fn page(&self) -> String {
        format!("http://{}/", self.admin)
    }
}

fn start(mut fixture: Fixture, name: &str, more: &str) -> anyhow::Result<Running> {
    fixture.name = name.into();
    let admin = free_address()?;
    let file = fixture.directory.join("beat.key");
    keys::write_private(&file, &key("beat"), None)?;
    let more = more.replace("BEAT-KEY", &file.display().to_string());
    fixture.configure(&format!("[admin]\nlisten = [\"{admin}\"]\n{more}"))?;
    let daemon = fixture.start()?;
    Ok(Running {
        fixture,
        admin,
        daemon: Some(daemon),
    })
}

const BEATS: &str = "[[beat]]\nnamespace = \"test\"\nkey_file = \"BEAT-KEY\"\nevery_seconds = 2\n\
    life_seconds = 600\n";
const SLOTS: &str = "[[slot]]\ngroup = \"web\"\nmax = 2\n[[slot]]\ngroup = \"database\"\n\
    [fleetlock]\nlisten = [\"FREE-ADDRESS\"]\n";
const ROLES: &[&str] = &[
    "trust * 1 root",
    "release * 1 ann",
    "withdraw * 1 ann",
    "beat test.os.* 1 beat",
    "beat test.app.* 1 beat",
];

/// An origin, a mirror of it, and a mirror of the mirror.
pub(super) struct Tree {
    pub(super) realm: Realm,
    pub(super) publisher: Publisher,
    pub(super) origin: Running,
    _mirror: Running,
    pub(super) leaf: Running,
}

impl Tree {
    pub(super) async fn new() -> anyhow::Result<Self> {
        let realm = Realm::new(ROLES, &["root"]);
        let origin = broker(&realm, "")?;
        let origin = start(origin, "origin.example.org", &format!("{BEATS}{SLOTS}"))?;
        let mut publisher = Publisher::connect(origin.fixture.source()?).await?;
        publish_trust(&realm, &mut publisher).await?;
        let below = |above: &Running, name| {
            let upstream = format!("[mirror]\nupstreams = [\"{}\"]\n", above.fixture.url());
            let mirror = above.fixture.mirror_of(&[above.fixture.address], "")?;
            start(mirror, name, &upstream)
        };
        let mirror = below(&origin, "mirror.example.org")?;
        let leaf = below(&mirror, "leaf.example.org")?;
        Ok(Self {
            realm,
            publisher,
            origin,
            _mirror: mirror,
            leaf,
        })
    }

    /// What there is to be seen: channels of several kinds, a rollout, nodes with slots.
    pub(super) async fn fill(&mut self) -> anyhow::Result<()> {
        let by = ["ann"];
        let release = Release {
            version: "2026.11".into(),
            summary: Some("Security fixes for the kernel and for OpenSSL".into()),
            rollout: Some(Rollout {
                start: now_minus(1_200),
                seconds: 3_600,
                spread: None,
                cohort: None,
            }),
            ..Release::default()
        };
        let first = self.realm.release(&os(), None, "2026.10", &by);
        let second = self
            .realm
            .release_with(&os(), Some(first.head()), release, &by);
        let app: Channel = "test.app.beta".parse()?;
        let bad = self.realm.release(&app, None, "7.0", &by);
        let withdrawn = self.realm.withdraw(&app, bad.head(), bad.head(), &by);
        let lonely = self.realm.release(&"test.lab".parse()?, None, "0.1", &by);
        // Nothing in it where a line could be broken.
        let long: Channel = format!("test.os.{}", "x".repeat(110)).parse()?;
        let long = self.realm.release(&long, None, "1", &by);
        for statement in [&first, &second, &bad, &withdrawn, &lonely, &long] {
            self.publisher.publish(statement).await?;
        }
        for node in ["web-01.example.org", "web-02.example.org"] {
            let body = json!({"client_params": {"id": node, "group": "web"}}).to_string();
            let request = format!(
                "POST /v1/pre-reboot HTTP/1.1\r\nHost: localhost\r\nfleet-lock-protocol: true\r\n\
                 Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n\
                 {body}",
                body.len()
            );
            let (status, said) = http::request(self.origin.fixture.slot_address()?, &request)?;
            ensure!(status == 200, "no slot: {said}");
        }
        until_head(&self.leaf.fixture, &os(), 2).await;
        Ok(())
    }

    /// A fork, which the origin refuses and keeps the evidence of.
    pub(super) async fn fork(&mut self) -> anyhow::Result<()> {
        let (channel, by): (Channel, _) = ("test.os.forked".parse()?, ["ann"]);
        let next = |after: &Statement, version: &str| {
            self.realm
                .release(&channel, Some(after.head()), version, &by)
        };
        let first = self.realm.release(&channel, None, "1", &by);
        let (second, rival) = (next(&first, "2"), next(&first, "2-other"));
        let (third, fork) = (next(&second, "3"), next(&rival, "3-other"));
        for statement in [&first, &second, &third] {
            self.publisher.publish(statement).await?;
        }
        let refused = self.publisher.publish(&fork).await;
        ensure!(refused.is_err(), "the origin has taken a fork");
        Ok(())
    }
}

fn now_minus(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(now().seconds() - seconds)
}

/// A broker with many channels, whose trust log came by way of `hop`.
pub(super) async fn large(channels: usize, hop: &str) -> anyhow::Result<Running> {
    let products = channels.div_ceil(PRODUCT);
    let lines: Vec<String> = ["trust * 1 root", "release * 1 ann", "withdraw * 1 ann"]
        .map(str::to_owned)
        .into_iter()
        .chain((0..products).map(|product| format!("beat test.p{product:02}.* 1 beat")))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let realm = Realm::new(&lines, &["root"]);
    let more = format!(
        "[[peer]]\nname = \"loader\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"test.*\"\n\
         {BEATS}[quota]\nchannels = {}\n",
        2 * channels
    );
    let large = start(broker(&realm, "")?, "large.example.org", &more)?;
    let mut peer = connect(&large.fixture).await?;
    for trust in &realm.log {
        let article = article::render(trust, &format!("{hop}!not-for-mail")).octets;
        let line = format!("TAKETHIS {}\r\n", trust.message_id());
        let octets = [line.as_bytes(), &article, b".\r\n"].concat();
        peer.send_raw(&octets).await?;
        let answer = peer.answer().await?;
        ensure!(answer.code == code::TAKEN, "{answer}");
    }
    let release = |number: usize| {
        let channel = format!("test.p{:02}.machine-{number:05}.stable", number / PRODUCT);
        Ok(realm.release(&channel.parse()?, None, "1", &["ann"]))
    };
    let releases = (0..channels)
        .map(release)
        .collect::<anyhow::Result<Vec<Statement>>>()?;
    let began = Instant::now();
    send_all(&mut peer, &releases).await?;
    println!(
        "{channels} channels were loaded in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(large)
}
