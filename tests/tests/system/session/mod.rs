//! Sessions with a real broker, as scripts: `C:` is sent, `S:` is expected, `…` stands for
//! anything.
#![allow(clippy::unwrap_used)]

mod many;
mod read;
mod script;

use std::time::Duration;

use script::Client;
use tidings_client::{Publisher, Statement};
use tidings_protocol::{article, limits};
use tidings_tests::{Daemon, Fixture, release};

struct Stage {
    fixture: Fixture,
    daemon: Daemon,
    statements: Vec<Statement>,
}

/// A broker with a trust log and three releases.
fn stage(configuration: &str) -> Stage {
    stage_of(Fixture::new().unwrap(), configuration)
}

fn stage_of(fixture: Fixture, configuration: &str) -> Stage {
    fixture.configure(configuration).unwrap();
    let daemon = fixture.start().unwrap();
    let mut statements = vec![fixture.trust.clone()];
    let mut head = None;
    for number in 1..=3 {
        let statement = release(
            &"test.os.stable".parse().unwrap(),
            head,
            &format!("1.{number}"),
            0,
            &fixture.release,
        )
        .unwrap();
        head = Some(statement.head());
        statements.push(statement);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
        for statement in &statements {
            publisher.publish(statement).await.unwrap();
        }
    });
    Stage {
        fixture,
        daemon,
        statements,
    }
}

#[test]
fn publishing_is_verified_durable_and_idempotent() {
    let stage = stage("");
    let head = stage.statements[3].head();
    let channel = "test.os.stable".parse().unwrap();
    let next = release(&channel, Some(head), "1.4", 0, &stage.fixture.release).unwrap();
    let rival = release(&channel, Some(head), "1.4-rival", 0, &stage.fixture.release).unwrap();
    let ahead = release(
        &channel,
        Some(rival.head()),
        "1.5",
        0,
        &stage.fixture.release,
    )
    .unwrap();
    let mut client = Client::connect(&stage);
    client.run("S: 200 …");
    let mut post = |octets: &[u8], expected: &str| {
        client.run("C: POST\nS: 340 …");
        client.send(octets);
        client.run(&format!("C: .\nS: {expected}"));
    };
    let wire = |statement: &Statement| article::render(statement, "x").octets;
    post(&wire(&next), &format!("240 {} stored", next.message_id()));
    post(
        &wire(&next),
        &format!("240 {} was stored already", next.message_id()),
    );
    // Attack 32: a lost race names the head; so does a statement that runs ahead.
    post(&wire(&rival), &format!("441 head {}; …", next.head()));
    post(&wire(&ahead), &format!("441 head {}; …", next.head()));
    // Attacks 1 and 34.
    let stranger = tidings_protocol::SigningKey::from_bytes(&[9; 32]);
    let foreign = release(&channel, Some(next.head()), "6.6", 0, &stranger).unwrap();
    post(
        &wire(&foreign),
        "441 a release in test.os.stable needs 1 signatures of release by trust 1, found 0 that hold (spec 1-15)",
    );
    let text = String::from_utf8(wire(&next)).unwrap();
    post(
        text.replace("Newsgroups: test.os.stable", "Newsgroups: test.os.testing")
            .as_bytes(),
        "441 header line 3: Newsgroups: expected …",
    );
    let other: Statement = release(
        &"other.os.stable".parse().unwrap(),
        None,
        "1",
        0,
        &stage.fixture.release,
    )
    .unwrap();
    post(
        &wire(&other),
        "441 other.os.stable belongs to no namespace of this broker; …",
    );
    // Attack 38: control messages are read as any article: their body is what counts.
    post(
        b"Control: rmgroup test.os.stable\r\nNewsgroups: control.rmgroup\r\nFrom: x\r\n\r\nrm\r\n",
        "441 statement line 1: expected `Name: value` …",
    );
    post(
        b"no headers at all\r\n",
        "441 header: expected an empty line …",
    );
    post(b"a: b\r\n\r\nx\0y\r\n", "441 line 3 has a NUL, …");
    post(
        b"a: b\n\r\nx: y\r\n",
        "441 line 1 has a NUL, or a CR or LF that is not part of a line end",
    );
    // Attack 20: too large, but answered.
    let large = format!(
        "a: b\r\n\r\n{}",
        "Filler: x\r\n".repeat(limits::ARTICLE_OCTETS / 10)
    );
    post(
        large.as_bytes(),
        &format!("441 more than {} octets", limits::ARTICLE_OCTETS),
    );
    client.run("C: GROUP test.os.stable\nS: 211 4 1 4 test.os.stable\nC: QUIT\nS: 205 …");
}

#[test]
fn every_limit_has_an_answer() {
    let stage = stage("[limits]\nconnections_per_address = 3\nwatches = 1");
    let mut one = Client::admitted(&stage);
    one.run("C: XWATCH test.*\nS: 290 …");
    let mut two = Client::admitted(&stage);
    two.run("C: XWATCH test.*\nS: 490 too many watches, poll instead or try again later\nC: DATE\nS: 111 …");
    let mut three = Client::admitted(&stage);
    let mut four = Client::connect(&stage);
    four.run("S: 400 too many connections from your address, close some first");
    assert!(four.is_closed());

    two.send(&vec![b'x'; limits::XWATCH_OCTETS]);
    two.run("S: 501 a line of more than 4096 octets; good-bye");
    assert!(two.is_closed());
    three.send(format!("GROUP {}\r\n", "a".repeat(limits::COMMAND_OCTETS)).as_bytes());
    three.run("S: 501 a command line has at most 512 octets\nC: POST\nS: 340 …");
    three.send("x: y\r\n".repeat(limits::DISCARD_OCTETS / 6 + 1).as_bytes());
    three.run("S: 501 a block of more than 1048576 octets; good-bye");
    assert!(three.is_closed());
    // Attack 104: a line without an end is not held for long.
    let mut endless = Client::admitted(&stage);
    endless.run("C: POST\nS: 340 …");
    endless.send(&vec![b'x'; limits::BLOCK_LINE_OCTETS + 4]);
    endless.run("S: 501 a line of more than 2048 octets; good-bye");
    assert!(endless.is_closed());
    // A bare LF, CR or NUL ends nothing and starts nothing.
    let mut five = Client::admitted(&stage);
    five.send(b"DATE\nQUIT\r\n\0DATE\r\nDATE\rQUIT\r\n");
    let characters = "S: 501 a command line has printable UTF-8 only and ends with CR LF\n";
    five.run(&characters.repeat(3));
    five.run("C: DATE\nS: 111 …");
}

#[test]
fn retention_raises_the_low_water_mark_and_spares_head_and_trust() {
    // The first sweep comes with the start.
    let stage = stage("[[retention]]\nchannels = \"*\"\ncount = 1");
    let Stage {
        fixture, daemon, ..
    } = stage;
    daemon.signal("TERM").unwrap();
    assert_eq!(daemon.wait(Duration::from_secs(20)).unwrap(), Some(0));
    let daemon = fixture.start().unwrap();
    let stage = Stage {
        fixture,
        daemon,
        statements: vec![],
    };
    let began = std::time::Instant::now();
    loop {
        let mut client = Client::connect(&stage);
        client.run("S: 200 …\nC: GROUP test.os.stable");
        if client.line() == "211 1 3 3 test.os.stable" {
            client.run("C: STAT 1\nS: 423 …\nC: STAT 3\nS: 223 3 …\nC: LISTGROUP\nS: 211 …\nS: 3\nS: .\nC: GROUP test.trust\nS: 211 1 1 1 test.trust");
            // A cursor below the mark gets what is left.
            client.run("C: XWATCH test.os.stable:0\nS: 290 …\nS: 3 …");
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "nothing has expired"
        );
        std::thread::yield_now();
    }
    drop(stage.daemon);
}

#[test]
fn sigterm_drains_readers_and_watches() {
    let stage = stage("");
    let mut reader = Client::connect(&stage);
    reader.run("S: 200 …\nC: GROUP test.os.stable\nS: 211 …");
    let mut watcher = Client::connect(&stage);
    watcher.run("S: 200 …\nC: XWATCH test.os.*\nS: 290 …");
    stage.daemon.signal("TERM").unwrap();
    reader.run("S: 400 the broker is shutting down");
    watcher.run("S: .\nS: 400 the broker is shutting down");
    assert!(reader.is_closed() && watcher.is_closed());
    assert_eq!(stage.daemon.wait(Duration::from_secs(20)).unwrap(), Some(0));
}
