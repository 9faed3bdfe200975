//! The store: a full disk, a damaged one, one that was restored.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tidings_client::Publisher;
use tidings_protocol::{Channel, Statement, nntp::code};
use tidings_tests::{Fixture, binary, release};

/// Everything that a store has of what was published, in order.
fn segment(fixture: &Fixture) -> std::path::PathBuf {
    fixture.directory.join("data/store/00000001.log")
}

/// Changes one octet of what stands in a file, behind everybody's back.
fn flip(file: &Path, what: &str) {
    let mut octets = fs::read(file).unwrap();
    let at = octets
        .windows(what.len())
        .position(|window| window == what.as_bytes())
        .unwrap();
    octets[at] ^= 1;
    fs::write(file, octets).unwrap();
}

pub(super) fn tidingsd(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary("tidingsd"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A broker that has been stopped, with a log of ten releases.
async fn ten_releases(fixture: &Fixture) -> Vec<Statement> {
    let daemon = fixture.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    publisher.publish(&fixture.trust).await.unwrap();
    let mut log: Vec<Statement> = Vec::new();
    for number in 0..10 {
        let head = log.last().map(Statement::head);
        let next = release(
            &"test.os.stable".parse().unwrap(),
            head,
            &format!("version-{number}"),
            0,
            &fixture.release,
        )
        .unwrap();
        publisher.publish(&next).await.unwrap();
        log.push(next);
    }
    daemon.signal("TERM").unwrap();
    assert_eq!(daemon.wait(Duration::from_secs(30)).unwrap(), Some(0));
    log
}

#[tokio::test]
async fn a_store_is_checked_and_what_can_be_read_is_exported() {
    let fixture = Fixture::new().unwrap();
    let log = ten_releases(&fixture).await;
    let (data, anchor) = (
        fixture.directory.join("data").display().to_string(),
        fixture.anchor.to_string(),
    );
    let check = ["check", &data, "--anchor", &anchor];
    let (code, _, said) = tidingsd(&check);
    assert!(
        code == Some(0) && said.contains("11 statements, 2 channels, 1 segments: whole and proven"),
        "{said}"
    );
    let (code, batch, said) = tidingsd(&["export", &data]);
    assert!(code == Some(0) && said.contains("exported"), "{said}");
    let exported = tidings_protocol::batch::read(batch.as_bytes()).unwrap();
    assert_eq!(exported.iter().map(Statement::id).collect::<Vec<_>>(), {
        std::iter::once(&fixture.trust)
            .chain(&log)
            .map(Statement::id)
            .collect::<Vec<_>>()
    });

    flip(&segment(&fixture), "version-4");
    let before = fs::read(segment(&fixture)).unwrap();
    let (code, _, said) = tidingsd(&check);
    assert!(
        code == Some(3)
            && said.contains("store/00000001.log octet ")
            && said.contains("(test.os.stable 5)"),
        "{said}"
    );
    let (code, batch, said) = tidingsd(&["export", &data]);
    assert!(code == Some(3) && said.contains("10 statements"), "{said}");
    assert_eq!(
        tidings_protocol::batch::read(batch.as_bytes())
            .unwrap()
            .len(),
        10
    );
    assert!(
        fs::read(segment(&fixture)).unwrap() == before,
        "nothing is changed"
    );

    // Another anchor proves nothing.
    let other = anchor.replace(&anchor[anchor.len() - 8..], "00000000");
    let (code, _, said) = tidingsd(&["check", &data, "--anchor", &other]);
    assert!(
        code == Some(3) && said.contains("test.trust 1 is not proven"),
        "{said}"
    );
    let _daemon = fixture.start().unwrap();
    let (code, _, said) = tidingsd(&check);
    assert!(code == Some(1) && said.contains("is in use"), "{said}");
    let (code, _, said) = tidingsd(&["check", "/nowhere", "--anchor", &anchor]);
    assert!(code == Some(1) && said.contains("/nowhere"), "{said}");
}

#[tokio::test]
async fn a_damaged_statement_is_one_403_and_is_fetched_again() {
    let fixture = Fixture::new().unwrap();
    let log = ten_releases(&fixture).await;
    flip(&segment(&fixture), "version-4");
    let daemon = fixture.start().unwrap();
    let mut connection = fixture.source().unwrap().connect().await.unwrap();
    let os: Channel = "test.os.stable".parse().unwrap();
    assert_eq!(
        connection.group(&os, None).await.unwrap().unwrap().0.high,
        10
    );
    for serial in 1..=10 {
        let response = connection.command(&format!("STAT {serial}")).await.unwrap();
        assert_eq!(
            response.code,
            if serial == 5 {
                code::INTERNAL
            } else {
                code::STAT
            },
            "{response}"
        );
    }
    assert!(
        fixture.log().contains("(test.os.stable 5)"),
        "{}",
        fixture.log()
    );
    drop(daemon);

    // One that has it: this one feeds it, and asks it.
    let other = fixture.mirror_of(&[], "").unwrap();
    other.configure("").unwrap();
    let _other = other.start().unwrap();
    let mut publisher = Publisher::connect(other.source().unwrap()).await.unwrap();
    publisher.publish(&fixture.trust).await.unwrap();
    for statement in &log {
        publisher.publish(statement).await.unwrap();
    }
    fixture
        .configure(&format!(
            "[[feed]]\nname = \"other\"\nto = \"{}\"\nchannels = \"*\"",
            other.url()
        ))
        .unwrap();
    let _daemon = fixture.start().unwrap();
    let mut connection = fixture.source().unwrap().connect().await.unwrap();
    let began = Instant::now();
    loop {
        connection.group(&os, None).await.unwrap().unwrap();
        if connection.command("STAT 5").await.unwrap().code == code::STAT {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{}",
            fixture.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let all = connection.articles(&os, 1..=10, usize::MAX).await.unwrap();
    assert_eq!(all[4].octets(), log[4].octets());
    assert!(
        fixture.log().contains("a damaged statement is whole again"),
        "{}",
        fixture.log()
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
    for entry in entries {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn attack_116_a_restored_origin_takes_what_others_have_more_before_it_takes_anything() {
    let fixture = Fixture::new().unwrap();
    let log = ten_releases(&fixture).await;
    let (data, backup) = (
        fixture.directory.join("data"),
        fixture.directory.join("backup"),
    );
    copy(&data, &backup);
    let os: Channel = "test.os.stable".parse().unwrap();
    let daemon = fixture.start().unwrap();
    let mirror = fixture.mirror_of(&[fixture.address], "").unwrap();
    let mirroring = mirror.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    let mut head = log[9].head();
    for number in 10..15 {
        let next = release(
            &os,
            Some(head),
            &format!("version-{number}"),
            0,
            &fixture.release,
        )
        .unwrap();
        publisher.publish(&next).await.unwrap();
        head = next.head();
    }
    let reached = async |fixture: &Fixture, high: u32| {
        let began = Instant::now();
        loop {
            if let Ok(mut connection) = fixture.source().unwrap().connect().await
                && connection
                    .group(&os, None)
                    .await
                    .is_ok_and(|found| found.is_some_and(|(group, _)| group.high >= high))
            {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{}",
                fixture.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    reached(&mirror, 15).await;
    drop((publisher, daemon, mirroring));

    // Five statements are lost. While the mirror is away nothing is taken, and then they come
    // first.
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    fixture.restore_from(&mirror).unwrap();
    let _daemon = fixture.start().unwrap();
    let mut connection = fixture.source().unwrap().connect().await.unwrap();
    let forked = release(
        &os,
        Some(log[9].head()),
        "version-10-again",
        0,
        &fixture.release,
    )
    .unwrap();
    let refused = connection.post(&forked).await.unwrap();
    assert!(
        refused
            .text
            .contains("looks first whether others have more"),
        "{refused}"
    );
    let _mirroring = mirror.start().unwrap();
    reached(&fixture, 15).await;
    let next = release(&os, Some(head), "version-15", 0, &fixture.release).unwrap();
    let began = Instant::now();
    while connection.post(&next).await.unwrap().code != code::POSTED {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{}",
            fixture.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lost = connection.post(&forked).await.unwrap();
    assert!(
        lost.code == code::POST_FAILED && !lost.text.contains("looks first"),
        "{lost}"
    );
}
