//! Attack 69: a disk that is full. It is full for forty seconds; among the first tests these pass
//! beside the others.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tidings_client::{Body, Publisher, Release, now};
use tidings_protocol::{
    Channel, Head, Serial, SigningKey, Statement, nntp::code, statement::Draft,
};
use tidings_tests::Fixture;

/// A file system of its own that is too small.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, mebibytes: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(at)
            .status()
            .unwrap();
        assert!(
            status.success(),
            "a small file system cannot be mounted; run the tests as root, or in `unshare --user --map-root-user --mount`"
        );
        Self(at)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // A mount that stays is visible, and harmless.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn attack_69_on_a_full_disk_publishing_is_refused_and_reading_goes_on() {
    let fixture = Fixture::new().unwrap();
    let data = fixture.directory.join("data");
    fixture
        .configure(
            "[[retention]]\nchannels = \"test.os.*\"\ncount = 100\n[limits]\ngap_seconds = 40",
        )
        .unwrap();
    // Two segments of 64 MiB, and what is made ahead next has no room.
    let _disk = SmallDisk::mount(&data, 224);
    let daemon = fixture.start().unwrap();
    let channel = "test.os.stable".parse().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    publisher.publish(&fixture.trust).await.unwrap();
    let mut connection = fixture.source().unwrap().connect().await.unwrap();
    let filler = data.join("filler");
    fs::write(&filler, vec![1; 70 << 20]).unwrap();

    // Retention is applied every forty seconds: until then the disk is full.
    let mut head = None;
    let (mut refused, mut published) = (None, 0);
    while refused.is_none() {
        let summary = big_release(&channel, head, published, &fixture.release);
        let response = connection.post(&summary).await.unwrap();
        match response.code {
            code::POSTED => (head, published) = (Some(summary.head()), published + 1),
            _ => refused = Some(response.to_string()),
        }
        assert!(published < 10_000, "the disk has never been full");
    }
    let refused = refused.unwrap();
    assert!(
        refused.contains("the broker's disk is full, ")
            && refused.contains("octets are missing; nothing was stored"),
        "{refused}"
    );
    assert_eq!(
        publisher.newest(&channel).await.unwrap().unwrap().head(),
        head.unwrap(),
        "reading goes on"
    );
    assert!(
        fixture.log().contains("the disk is full"),
        "{}",
        fixture.log()
    );

    // Retention frees what is dead, and publishing goes on without a restart.
    let began = Instant::now();
    let next = loop {
        let next = big_release(&channel, head, published, &fixture.release);
        if connection.post(&next).await.unwrap().code == code::POSTED {
            break next;
        }
        assert!(
            began.elapsed() < Duration::from_secs(100),
            "retention has freed nothing"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    drop(publisher);
    daemon.kill().unwrap();
    let _daemon = fixture.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    assert_eq!(
        publisher.newest(&channel).await.unwrap().unwrap().id(),
        next.id()
    );
}

/// A release of some 60 KiB.
fn big_release(channel: &Channel, after: Option<Head>, number: u32, key: &SigningKey) -> Statement {
    let release = Release {
        version: number.to_string(),
        ..Release::default()
    };
    let draft = Draft {
        channel: channel.clone(),
        after,
        time: now(),
        trust: Some(Serial::FIRST),
        body: Body::Release(release),
    };
    let filler = format!("Filler: {}\n", "x".repeat(850)).repeat(70);
    Statement::parse_draft(&[draft.write().unwrap().octets(), filler.as_bytes()].concat())
        .unwrap()
        .sign(key)
        .unwrap()
}
