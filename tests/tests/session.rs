//! Sessions with a real broker, as scripts: `C:` is sent, `S:` is expected, `…` stands for
//! anything.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

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
    let fixture = Fixture::new().unwrap();
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

struct Client {
    reader: BufReader<TcpStream>,
    script: String,
}

impl Client {
    fn connect(stage: &Stage) -> Self {
        let socket = TcpStream::connect(stage.fixture.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            reader: BufReader::new(socket),
            script: String::new(),
        }
    }
    /// One that is let in, as soon as the broker has noticed who has gone.
    fn admitted(stage: &Stage) -> Self {
        let began = std::time::Instant::now();
        loop {
            let mut client = Self::connect(stage);
            if client.line().starts_with("200 ") {
                return client;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{}",
                client.script
            );
        }
    }
    fn send(&mut self, octets: &[u8]) {
        self.reader.get_mut().write_all(octets).unwrap();
    }
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(
            line.is_empty() || line.ends_with("\r\n"),
            "{line:?} has no CR LF"
        );
        line.truncate(line.trim_end().len());
        self.script.push_str(&format!("S: {line}\n"));
        line
    }
    #[track_caller]
    fn run(&mut self, script: &str) {
        for step in script
            .lines()
            .map(str::trim_start)
            .filter(|l| !l.is_empty())
        {
            match step.split_at(2) {
                ("C:", line) => {
                    self.script.push_str(&format!("C:{line}\n"));
                    self.send(format!("{}\r\n", line.trim_start()).as_bytes());
                }
                ("S:", expected) => {
                    let found = self.line();
                    assert!(
                        fits(expected.trim_start(), &found),
                        "expected {expected:?}, found {found:?} in\n{}",
                        self.script
                    );
                }
                _ => panic!("a script has C: and S: lines, this is {step:?}"),
            }
        }
    }
    /// Whether the broker has closed the connection.
    fn is_closed(&mut self) -> bool {
        matches!(self.reader.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// `…` stands for anything.
fn fits(expected: &str, found: &str) -> bool {
    let mut rest = found;
    let parts: Vec<&str> = expected.split('…').collect();
    for (index, part) in parts.iter().enumerate() {
        let at = match index {
            0 => rest.starts_with(part).then_some(0),
            _ if index == parts.len() - 1 && part.is_empty() => Some(rest.len()),
            _ => rest.find(part),
        };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[test]
fn a_reader_reads() {
    let stage = stage("");
    let ids: Vec<String> = stage
        .statements
        .iter()
        .map(|s| s.message_id().to_string())
        .collect();
    let mut client = Client::connect(&stage);
    client.run(&format!(
        "S: 200 broker.invalid Tidings broker ready
         C: CAPABILITIES
         S: 101 capabilities follow
         S: VERSION 2
         S: IMPLEMENTATION Tidings …
         S: HDR
         S: LIST ACTIVE ACTIVE.TIMES COUNTS HEADERS NEWSGROUPS OVERVIEW.FMT SUBSCRIPTIONS
         S: NEWNEWS
         S: OVER MSGID
         S: POST
         S: READER
         S: XWATCH
         S: .
         C: mode reader
         S: 200 reader mode, as always
         C: DATE
         S: 111 20…
         C: ARTICLE
         S: 412 no channel selected, use GROUP
         C: ARTICLE 1
         S: 412 no channel selected, use GROUP
         C: GROUP test.nowhere
         S: 411 no channel test.nowhere here
         C: GROUP ../../etc/passwd
         S: 411 no channel ../../etc/passwd here
         C: GROUP test.os.stable
         S: 211 3 1 3 test.os.stable
         C: STAT
         S: 223 1 {one}
         C: LAST
         S: 422 this is the oldest here
         C: NEXT
         S: 223 2 {two}
         C: NEXT
         S: 223 3 {three}
         C: NEXT
         S: 421 this is the head
         C: LAST
         S: 223 2 {two}
         C: STAT 4
         S: 423 no such article number in this channel
         C: STAT 9999999999999999
         S: 423 no such article number in this channel
         C: STAT {three}
         S: 223 0 {three}
         C: STAT
         S: 223 2 {two}
         C: STAT <1.0@x>
         S: 430 no article with that message-id here
         C: HEAD 3
         S: 221 3 {three}
         S: Path: broker.invalid!not-for-mail
         S: From: tidings@test.os.stable.invalid
         S: Newsgroups: test.os.stable
         S: Subject: test.os.stable 1.3
         S: Date: …, … 20… +0000
         S: Message-ID: {three}
         S: MIME-Version: 1.0
         S: Content-Type: text/plain; charset=utf-8
         S: Content-Transfer-Encoding: 8bit
         S: .
         C: BODY {one}
         S: 222 0 {one}
         S: Tidings: 1 release
         S: Channel: test.os.stable
         S: Serial: 1
         S: Previous: -
         S: Time: …
         S: Trust: 1
         S: Version: 1.1
         S: Signature: ed25519:…
         S: .
         C: OVER 2-
         S: 224 overview follows
         S: 2	test.os.stable 1.2	tidings@test.os.stable.invalid	…	{two}		…	8	Xref: broker.invalid test.os.stable:2
         S: 3	test.os.stable 1.3	tidings@test.os.stable.invalid	…	{three}		…	8	Xref: broker.invalid test.os.stable:3
         S: .
         C: XOVER 1
         S: 224 overview follows
         S: 1	test.os.stable 1.1	…	{one}		…	8	Xref: broker.invalid test.os.stable:1
         S: .
         C: OVER 7-9
         S: 423 no such article number in this channel
         C: HDR Subject {two}
         S: 225 headers follow
         S: 0 test.os.stable 1.2
         S: .
         C: XHDR message-id 1-2
         S: 221 headers follow
         S: 1 {one}
         S: 2 {two}
         S: .
         C: HDR :lines 1
         S: 225 headers follow
         S: 1 8
         S: .
         C: HDR :colour 1
         S: 503 metadata here are :bytes and :lines
         C: LISTGROUP test.os.stable 2-
         S: 211 3 1 3 test.os.stable list follows
         S: 2
         S: 3
         S: .
         C: LIST
         S: 215 list follows
         S: test.os.stable 3 1 y
         S: test.trust 1 1 y
         S: .
         C: LIST ACTIVE *.trust
         S: 215 list follows
         S: test.trust 1 1 y
         S: .
         C: LIST NEWSGROUPS
         S: 215 list follows
         S: test.os.stable	Signed announcements of releases
         S: test.trust	Who may sign what in this namespace
         S: .
         C: LIST ACTIVE.TIMES
         S: 215 list follows
         S: test.os.stable … tidings
         S: test.trust … tidings
         S: .
         C: LIST OVERVIEW.FMT
         S: 215 fields of the overview
         S: Subject:
         S: From:
         S: Date:
         S: Message-ID:
         S: References:
         S: Bytes:
         S: Lines:
         S: Xref:full
         S: .
         C: LIST HEADERS
         S: 215 headers and metadata that HDR knows
         S: :
         S: :bytes
         S: :lines
         S: .
         C: LIST MOTD
         S: 503 this broker keeps no such list
         C: LIST COUNTS test.os.*
         S: 215 list follows
         S: test.os.stable 3 1 3 y
         S: .
         C: LIST SUBSCRIPTIONS
         S: 215 list follows
         S: test.os.stable
         S: .
         C: LIST DISTRIBUTIONS
         S: 503 this broker keeps no such list
         C: HDR Xref 2
         S: 225 …
         S: 2 broker.invalid test.os.stable:2
         S: .
         C: MODE STREAM
         S: 203 …
         C: CHECK <1@example.org>
         S: 480 …
         C: NEWGROUPS 20200101 000000 GMT
         S: 231 new channels follow
         S: test.os.stable 3 1 y
         S: test.trust 1 1 y
         S: .
         C: NEWGROUPS 20991231 000000 GMT
         S: 231 new channels follow
         S: .
         C: NEWNEWS test.os.* 20200101 000000 GMT
         S: 230 message-ids follow
         S: {one}
         S: {two}
         S: {three}
         S: .
         C: NEWNEWS * 20201301 000000
         S: 501 there is no such date
         C: FROBNICATE
         S: 500 unknown command \"FROBNICATE\"; HELP lists them
         C: GROUP
         S: 501 usage: GROUP CHANNEL
         C: LIST FOO
         S: 501 usage: LIST …
         C: QUIT
         S: 205 good-bye",
        one = ids[1],
        two = ids[2],
        three = ids[3]
    ));
    assert!(client.is_closed());
}

#[test]
fn pipelined_commands_are_answered_in_their_order() {
    let stage = stage("");
    let mut client = Client::connect(&stage);
    client.send(
        b"GROUP test.os.stable\r\nSTAT 1\r\nSTAT 2\r\nSTAT 9\r\nBODY 3\r\nDATE\r\nQUIT\r\nDATE\r\n",
    );
    client.run("S: 200 …\nS: 211 3 1 3 …\nS: 223 1 …\nS: 223 2 …\nS: 423 …\nS: 222 3 …");
    while client.line() != "." {}
    client.run("S: 111 …\nS: 205 …");
    assert!(client.is_closed(), "nothing is answered after QUIT");
}

#[test]
fn a_watch_begins_where_the_cursor_stands_and_ends_with_any_line() {
    let stage = stage("");
    let (two, three) = (
        stage.statements[2].message_id(),
        stage.statements[3].message_id(),
    );
    let mut client = Client::connect(&stage);
    client.run("S: 200 …\nC: XWATCH test.nowhere:0\nS: 290 …\nC: DATE\nS: .\nS: 111 …");
    client.run(&format!(
        "C: XWATCH test.os.stable:1\nS: 290 300 watching\nS: 2 {two} 18"
    ));
    let article: Vec<String> = (0..18).map(|_| client.line()).collect();
    assert_eq!(article[9], "", "the empty line");
    client.run(&format!("S: 3 {three} 18"));
    (0..18).for_each(|_| drop(client.line()));

    // A channel of the future, and one that goes on.
    client.run("C: XWATCH test.* test.trust:1\nS: .\nS: 290 300 watching");
    let next = release(
        &"test.os.stable".parse().unwrap(),
        Some(stage.statements[3].head()),
        "1.4",
        0,
        &stage.fixture.release,
    )
    .unwrap();
    let new = release(
        &"test.os.testing".parse().unwrap(),
        None,
        "2.0",
        0,
        &stage.fixture.release,
    )
    .unwrap();
    let mut other = Client::connect(&stage);
    other.run("S: 200 …");
    for (statement, serial) in [(&next, 4), (&new, 1)] {
        other.run("C: POST\nS: 340 …");
        other.send(&article::render(statement, "x").octets);
        other.run(&format!("C: .\nS: 240 {} stored", statement.message_id()));
        client.run(&format!("S: {serial} {} 18", statement.message_id()));
        (0..18).for_each(|_| drop(client.line()));
    }
    // What ends the watch is a command, even when it comes in the same write as the one that began
    // it.
    client.run("C: DATE\nS: .\nS: 111 …");
    client.send(b"XWATCH test.*\r\nDATE\r\nGROUP test.os.testing\r\n");
    client.run(
        "S: 290 300 watching\nS: .\nS: 111 …\nS: 211 1 1 1 test.os.testing\nC: QUIT\nS: 205 …",
    );
}

#[test]
fn a_silent_watch_is_told_that_the_broker_is_still_there() {
    let stage = stage("[limits]\nheartbeat_seconds = 2");
    let mut client = Client::connect(&stage);
    let began = std::time::Instant::now();
    client.run("S: 200 …\nC: XWATCH test.os.*\nS: 290 2 watching\nS: 0\nS: 0\nS: 0");
    assert!(began.elapsed() < Duration::from_secs(30));
    client.run("C: QUIT\nS: .\nS: 205 …");
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
