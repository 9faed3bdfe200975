//! A device that slept through a thousand trust rotations and ten thousand releases, and wakes up
//! between a hostile mirror and an honest one (attack 12): what it costs to catch up in one go.

use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use tidings_client::{Channel, Device, Publisher, Source, Start, State, Statement};
use tidings_protocol::Digest;
use tidings_tests::{Fixture, realm::Realm, relay};

/// How much happened while it slept.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Trust rotations
    #[arg(long, default_value_t = 1_000)]
    rotations: u32,
    /// Releases
    #[arg(long, default_value_t = 10_000)]
    releases: u32,
}

/// Root keys that take turns: each rotation takes the oldest away and brings a new one.
fn roles(turn: u32) -> Vec<String> {
    let root = |n: u32| format!("root{n}");
    vec![
        format!(
            "trust * 2 {} {} {}",
            root(turn),
            root(turn + 1),
            root(turn + 2)
        ),
        "release * 2 ann bob".into(),
        "withdraw * 1 stop".into(),
        "beat * 1 beat".into(),
    ]
}

fn rotate(realm: &mut Realm, turn: u32) {
    let roles = roles(turn);
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    // Two of the old and two of the new: the two that are in both.
    let signers = [format!("root{turn}"), format!("root{}", turn + 1)];
    realm.rotate(&roles, &[], &[&signers[0], &signers[1]]);
}

#[tokio::main]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let channel: Channel = "test.os.stable".parse()?;
    let first = roles(0);
    let mut realm = Realm::new(
        &first.iter().map(String::as_str).collect::<Vec<_>>(),
        &["root0", "root1"],
    );
    (1..=arguments.rotations).for_each(|turn| rotate(&mut realm, turn));

    let mut fixture = Fixture::new()?;
    fixture.anchor = realm.anchor.clone();
    fixture.configure("")?;
    let _daemon = fixture.start()?;
    let mut publisher = Publisher::connect(fixture.source()?).await?;
    for statement in &realm.log {
        publisher.publish(statement).await?;
    }
    let mut log: Vec<Statement> = Vec::new();
    while log.len() < arguments.releases as usize {
        let head = log.last().map(Statement::head);
        log.push(realm.release(&channel, head, &format!("1.{}", log.len()), &["ann", "bob"]));
    }
    let newest = log.last().map(Statement::head);
    let newest = newest.ok_or_else(|| anyhow::anyhow!("no releases"))?;
    let withdrawal = realm.withdraw(&channel, newest, log[0].head(), &["stop"]);
    for statement in log.iter().chain([&withdrawal]) {
        publisher.publish(statement).await?;
    }
    let beat = realm.beat(None, &[(&channel, withdrawal.head())], 600, &["beat"]);
    publisher.publish(&beat).await?;

    // The hostile mirror: half-way, a trust statement by a stranger; and a release changed in the
    // middle of the log.
    let half = realm.log.len() / 2;
    let mut coup = Realm {
        log: realm.log[..half].to_vec(),
        anchor: realm.anchor.clone(),
        ..realm
    };
    let lies = coup.rotate(
        &["trust * 1 mallory", "release * 1 mallory"],
        &[],
        &["mallory"],
    );
    let mut trust = coup.log[..half].to_vec();
    trust.push(lies);
    let hostile = relay::substitute(fixture.address, "test.trust", &trust).await;

    let urls = [format!("nntp://{hostile}"), fixture.url()];
    let source = Source::new(urls.iter().map(String::as_str), &realm.anchor.to_string())?;
    let mut device =
        Device::with_state(source, [channel.as_str()], State::ephemeral(&realm.anchor))?
            .with_start(Start::Oldest);
    let began = Instant::now();
    let news = device.poll().await?;
    let took = began.elapsed();
    ensure!(
        news.len() == log.len() + 1,
        "{} statements came",
        news.len()
    );
    ensure!(
        news.iter()
            .zip(&log)
            .all(|(got, sent)| got.octets() == sent.octets()),
        "something else came"
    );
    ensure!(
        device.freshness(&channel).is_current(),
        "{}",
        device.freshness(&channel)
    );
    let checks = device.state().view().signature_checks();
    // Each rotation: two signatures, checked by the old rules and by the new; the first by its own
    // alone.
    let by_trust = u64::from(arguments.rotations) * 4 + 2;
    ensure!(
        checks == by_trust + 2 + 1 + 1,
        "{checks} signature checks, {by_trust} of them for trust"
    );

    let octets: usize = log.iter().map(|statement| statement.octets().len()).sum();
    let began = Instant::now();
    let hashed = log
        .iter()
        .filter(|statement| {
            Digest::of(statement.signed_part()).to_string() == statement.id().to_string()
        })
        .count();
    let hashing = began.elapsed();
    ensure!(hashed == log.len(), "a hash is another");
    let began = Instant::now();
    let parsed: Vec<Statement> = log
        .iter()
        .map(|statement| Statement::parse(statement.octets()))
        .collect::<Result<_, _>>()?;
    let parsing = began.elapsed();
    let trust = device.trust().await?.clone();
    let began = Instant::now();
    let run = trust
        .verify_run(&channel, parsed)
        .map_err(|(serial, error)| anyhow::anyhow!("{serial}: {error}"))?;
    let verifying = began.elapsed();
    println!(
        "{} rotations and {} releases: {:.2} s from one mirror that lies and one that does not, {} octets received, {checks} signature checks",
        arguments.rotations,
        arguments.releases,
        took.as_secs_f64(),
        device.received()
    );
    println!(
        "the releases alone ({octets} octets): {} signature checks; parsing {:.1} ms (hashing in it, {:.1} ms by itself), verifying {:.1} ms",
        run.signature_checks,
        parsing.as_secs_f64() * 1e3,
        hashing.as_secs_f64() * 1e3,
        verifying.as_secs_f64() * 1e3
    );
    Ok(())
}
