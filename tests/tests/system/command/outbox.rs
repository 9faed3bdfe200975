//! The outbox: one statement for a place, whatever breaks off, and one program at a time.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tidings_tests::relay::{self, Act, substitute};

use crate::command::desk::{Desk, NO_BEATS, NO_BROKER, REFUSED, os};

/// A relay that is cut off when it has the answer to what the first connection posts: before the
/// broker has it, or after.
async fn cut(desk: &Desk, before: bool) -> std::net::SocketAddr {
    let mischief = move |command: &str, answer: Vec<u8>| match command {
        "POST" if before == answer.starts_with(b"340") => Act::Last(Vec::new()),
        _ => Act::Send(answer),
    };
    relay::start(&[desk.fixture.address], mischief)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_092_a_publisher_that_is_cut_off_signs_one_statement_for_a_place() {
    let mut desk = Desk::new(NO_BEATS).await;
    desk.releases(&os(), 1).await;
    let again = [
        "release",
        "test.os.stable",
        "--key",
        "ann.key",
        "--publish",
        "--version",
        "2",
    ];
    for (round, before) in [(2, true), (3, false)] {
        let version = round.to_string();
        let again = [&again[..6], &[version.as_str()]].concat();
        let cut = cut(&desk, before).await;
        desk.run_at(&[cut], &again).bad(
            NO_BROKER,
            "it waits in the outbox, and is offered first by the next command for this channel",
        );
        let waits = desk.run(&["outbox"]);
        waits.good(&format!("test.os.stable\t{round}\trelease\t"));
        let id = waits.text.split('\t').nth(3).unwrap().to_owned();
        // The same again: it is published, once. For another channel nothing is offered.
        let said = desk.run(&again);
        said.good("which waited in the outbox, is published");
        said.good("it says what was to be said; nothing more is signed");
        assert!(said.text.contains(&id[7..]), "{}", said.text);
        desk.run(&["outbox"]).good("");
        assert_eq!(
            desk.run(&["log", "test.os.stable"]).text.lines().count(),
            round,
            "one statement for each place"
        );
    }
    // Something else: what waits comes first, and then its own place.
    let cut = cut(&desk, true).await;
    desk.run_at(&[cut], &[&again[..6], &["4"]].concat())
        .bad(NO_BROKER, "it waits in the outbox");
    desk.release(&["--version", "5"])
        .good("test.os.stable 4, which waited in the outbox, is published");
    let log = desk.run(&["log", "test.os.stable"]).text;
    assert!(
        log.lines().nth(3).unwrap().contains("release 4")
            && log.lines().nth(4).unwrap().contains("release 5"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_092_what_has_lost_its_place_is_dropped_and_what_is_in_it_is_not() {
    let mut desk = Desk::new(NO_BEATS).await;
    let all = desk.releases(&os(), 1).await;
    let cut = cut(&desk, true).await;
    desk.run_at(
        &[cut],
        &[
            "release",
            "test.os.stable",
            "--key",
            "ann.key",
            "--publish",
            "--version",
            "mine",
        ],
    )
    .bad(NO_BROKER, "outbox");
    // Another machine is first.
    let theirs = desk
        .realm
        .release(&os(), Some(all[0].head()), "theirs", &["ann"]);
    desk.publish(&[theirs]).await;
    let said = desk.release(&["--version", "mine"]);
    said.good("test.os.stable 2, which waited in the outbox, was dropped: another statement has its place");
    assert!(said.text.contains("published <3."), "{}", said.text);
    desk.run(&["outbox"]).good("");
    desk.run(&["outbox", "--drop", "test.os.stable", "--yes"])
        .bad(9, "nothing waits in the outbox for test.os.stable");
}

/// A broker that speaks of another head, and does not show it, gets no second signature for the
/// place.
#[tokio::test(flavor = "multi_thread")]
async fn attack_32_a_broker_that_only_says_that_others_were_first_gets_one_statement_for_a_place() {
    let mut desk = Desk::new(NO_BEATS).await;
    let first = desk.releases(&os(), 1).await;
    let (id, posts) = (first[0].id(), Arc::new(AtomicU32::new(0)));
    let count = posts.clone();
    let lie = move |command: &str, answer: Vec<u8>| match command {
        "POST" if answer.starts_with(b"240") || answer.starts_with(b"441") => {
            count.fetch_add(1, Ordering::Relaxed);
            Act::Send(
                format!("441 head 2 {id}; another statement is there already\r\n").into_bytes(),
            )
        }
        _ => Act::Send(answer),
    };
    // The relay swallows what was stored, so that the head stays where it was.
    let behind = substitute(desk.fixture.address, "test.os.stable", &first).await;
    let liar = relay::start(&[behind], lie).await.unwrap();
    let publish = |version: &str| {
        desk.run_at(
            &[liar],
            &[
                "release",
                "test.os.stable",
                "--key",
                "ann.key",
                "--publish",
                "--version",
                version,
            ],
        )
    };
    let says = "the broker says that another statement came first, and does not show it";
    publish("2").bad(REFUSED, says);
    assert!(posts.load(Ordering::Relaxed) >= 1);
    let waits = desk.run(&["outbox"]).text;
    publish("3").bad(REFUSED, says);
    assert_eq!(desk.run(&["outbox"]).text, waits, "nothing else was signed");
    assert_eq!(waits.lines().count(), 1);
    // An honest broker has it: it was stored.
    desk.release(&["--version", "3"])
        .good("test.os.stable 2, which waited in the outbox, is published");
    assert_eq!(desk.run(&["log", "test.os.stable"]).text.lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_program_of_a_machine_publishes_to_a_channel_at_a_time() {
    let mut desk = Desk::new(NO_BEATS).await;
    desk.releases(&os(), 1).await;
    let outbox = tidings_client::Outbox::open(
        desk.path("state/tidings/outbox/test"),
        &"test".parse().unwrap(),
    )
    .unwrap();
    let lock = outbox.lock(&os()).await.unwrap();
    let address = [desk.fixture.address];
    let mut waiting = desk.command(
        &address,
        &[
            "release",
            "test.os.stable",
            "--key",
            "ann.key",
            "--publish",
            "--version",
            "2",
        ],
    );
    let mut child = waiting
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Another channel is another matter.
    desk.run(&[
        "release",
        "test.web",
        "--key",
        "ann.key",
        "--publish",
        "--version",
        "1",
        "--new-channel",
    ])
    .good("published <1.");
    assert!(child.try_wait().unwrap().is_none(), "it waits for its turn");
    drop(lock);
    assert!(tokio::task::block_in_place(|| child.wait().unwrap()).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_outbox_and_one_of_another_machine_stop_a_publisher_and_are_left() {
    let mut desk = Desk::new(NO_BEATS).await;
    let all = desk.releases(&os(), 1).await;
    let directory = desk.path("state/tidings/outbox/test");
    let waits = desk
        .realm
        .release(&os(), Some(all[0].head()), "2", &["ann"]);
    let outbox = tidings_client::Outbox::open(&directory, &"test".parse().unwrap()).unwrap();
    let path = directory.join("test.os.stable.statement");
    let refused = |octets: &[u8], says: &str| {
        std::fs::write(&path, octets).unwrap();
        desk.release(&["--version", "3"]).bad(8, says);
        assert_eq!(std::fs::read(&path).unwrap(), octets);
        assert_eq!(
            desk.run(&["log", "test.os.stable"]).text.lines().count(),
            1,
            "nothing was published"
        );
    };
    outbox.put(&waits).unwrap();
    let octets = std::fs::read(&path).unwrap();
    refused(&octets[..octets.len() - 1], "of the outbox is damaged");
    let elsewhere = outbox.clone().on_machine("another");
    std::fs::remove_file(&path).unwrap();
    elsewhere.put(&waits).unwrap();
    let octets = std::fs::read(&path).unwrap();
    refused(&octets, "of the outbox was made on another machine");
}
