//! Reading: commands and their answers, watches.

use std::time::Duration;

use tidings_protocol::article;
use tidings_tests::release;

use super::{script::Client, stage};

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
