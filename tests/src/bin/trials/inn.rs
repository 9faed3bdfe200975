//! Tidings and INN, the news server: an origin feeds `innd`, `innd` feeds a broker, a mirror pulls
//! from it, `nnrpd` reads, and `rnews` takes what was exported. INN numbers articles by itself;
//! everything is verified at the far ends all the same.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use tidings_client::{Channel, Statement};
use tidings_protocol::article;
use tidings_tests::{
    Fixture, binary,
    inn::Inn,
    realm::Realm,
    tree::{broker, os, publish, read_all, realm},
};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct Arguments {
    /// The script that runs INN without installing it
    #[arg(long, default_value = "interop/inn.sh")]
    script: PathBuf,
    /// How many releases go round
    #[arg(long, default_value_t = 2_000)]
    releases: u32,
}

/// Waits until a broker has everything that the origin has, to the octet.
async fn until_same(
    what: &str,
    fixture: &Fixture,
    expected: &[Statement],
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let there = read_all(fixture, &os()).await.unwrap_or_default();
        if there == expected {
            return Ok(began.elapsed());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "{what} has {} of {} statements; its log: {}",
            there.len(),
            expected.len(),
            fixture.log()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

async fn go_round(arguments: &Arguments) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir_in("/tmp")?;
    // INN runs as a user of its own, who has to get there.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    let mut realm: Realm = realm();
    let peer = "[[peer]]\nname = \"inn\"\nnetworks = [\"127.0.0.1\"]\nfeeds = \"test.*\"\n";
    let far = broker(&realm, peer)?;
    let _far = far.start()?;
    const GROUPS: &[&str] = &["test.trust", "test.os.stable"];
    let inn = Inn::start(
        &arguments.script,
        scratch.path(),
        "a",
        far.address.port(),
        GROUPS,
    )?;
    println!(
        "INN runs, unpacked and not installed: {}",
        inn.connect().await?.command("MODE READER").await?.text
    );

    // Something else stands in the group, and is carried too: INN's numbers are not our serials,
    // and not all is ours.
    let foreign = "Path: x!not-for-mail\r\nFrom: a@example.org\r\nNewsgroups: test.os.stable\r\nSubject: hello\r\nDate: DATE\r\nMessage-ID: <hello@example.org>\r\n\r\nhello\r\n.\r\n";
    inn.ihave(
        "<hello@example.org>",
        foreign
            .replace("DATE", &article::date(tidings_client::now()))
            .as_bytes(),
    )
    .await?;

    let feed = format!(
        "[[feed]]\nname = \"inn\"\nto = \"nntp://127.0.0.1:{}\"\n",
        inn.port
    );
    let (origin, _origin, mut publisher) = tidings_tests::tree::origin(&realm, &feed).await?;
    let half = publish(
        &realm,
        &mut publisher,
        &os(),
        None,
        arguments.releases / 2,
        &["ann", "bob"],
    )
    .await?;
    // Keys change on the way.
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 dora",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    let rotated = realm.rotate(&roles, &[(&os(), half)], &["root1", "root2"]);
    let expected = read_all(&origin, &os()).await?;
    let took = until_same("the far broker, before keys change,", &far, &expected).await?;
    println!(
        "origin → innd → innfeed → broker: {} statements, {:.1} s after the last was published",
        expected.len(),
        took.as_secs_f64()
    );
    publisher.publish(&rotated).await?;
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(half),
        arguments.releases - arguments.releases / 2,
        &["dora"],
    )
    .await?;
    let expected = read_all(&origin, &os()).await?;
    let took = until_same("the far broker", &far, &expected).await?;
    println!(
        "and {} after a rotation of keys, {:.1} s after the last; a device verifies all of them",
        expected.len(),
        took.as_secs_f64()
    );
    ensure!(!far.log().contains("fork"), "{}", far.log());

    // Readers see them in INN, under numbers of its own.
    let mut reader = inn.connect().await?;
    reader.command("MODE READER").await?;
    let group = reader.command("GROUP test.os.stable").await?;
    let count = arguments.releases + 1;
    ensure!(
        group.text.starts_with(&format!("{count} 1 {count} ")),
        "{group}"
    );
    let last = expected.last().context("nothing was published")?;
    let by_number = reader
        .fetch([count])
        .await?
        .remove(0)
        .context("no article")?;
    let by_id = reader
        .fetch([last.message_id().to_string()])
        .await?
        .remove(0)
        .context("no article")?;
    ensure!(
        by_number.statement == *last && by_id.statement == *last,
        "nnrpd shows something else"
    );
    println!(
        "nnrpd has serial {} as article {count}, octet for octet; Path: {}",
        last.serial(),
        by_id.path.unwrap_or_default()
    );

    // A mirror that asks INN, which knows no XWATCH and no serials.
    let leaf = origin.mirror_of(&[([127, 0, 0, 1], inn.port).into()], "")?;
    let _leaf = leaf.start()?;
    let took = until_same("the mirror of INN", &leaf, &expected).await?;
    println!(
        "a mirror that polls INN has all {} of them after {:.1} s",
        expected.len(),
        took.as_secs_f64()
    );
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(last.head()),
        1,
        &["dora"],
    )
    .await?;
    let expected = read_all(&origin, &os()).await?;
    until_same("the mirror of INN, of one release more,", &leaf, &expected).await?;

    // A file on a stick, and INN's own program for such files.
    let second = Inn::start(&arguments.script, scratch.path(), "b", 0, GROUPS)?;
    let batch = scratch.path().join("batch").display().to_string();
    let export = Command::new(binary("tidings"))
        .args(["export", "test.os.stable", "--out", &batch])
        .env("TIDINGS_BROKERS", origin.url())
        .env("TIDINGS_ANCHOR", realm.anchor.to_string())
        .output()?;
    ensure!(export.status.success(), "{export:?}");
    second.run(&["rnews", &second.directory, &batch])?;
    let mut reader = second.connect().await?;
    reader.command("MODE READER").await?;
    let channel: Channel = os();
    let group = reader.command(&format!("GROUP {channel}")).await?;
    ensure!(
        group.text.starts_with(&format!("{} ", expected.len())),
        "{group}"
    );
    println!("rnews takes the exported batch: {group}");
    Ok(())
}

#[tokio::main]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    go_round(&arguments).await
}
