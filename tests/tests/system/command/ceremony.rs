//! Ceremonies: trust as text, the checkpoints that a change needs, and what proves them to each who
//! signs.

use tidings_client::{Channel, Device, Head, Serial, Statement};
use tidings_protocol::{StatementId, bundle, statement::Kind};
use tidings_tests::realm::{Realm, key};

use crate::command::desk::{Desk, NO_BEATS, REFUSED, ROLES, os};

/// A change that takes the key of releases away, prepared and signed; what was said of it.
fn take_ann_away(desk: &Desk) -> crate::command::desk::Said {
    let _ = std::fs::remove_file(desk.path("new"));
    desk.run(&[
        "trust",
        "edit",
        "--remove-key",
        "ann",
        "--add-key",
        "cem=cem.key",
        "--role",
        "release * 1 cem",
        "--out",
        "new",
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_118_each_signer_verifies_the_head_of_a_checkpoint_from_the_statements() {
    let mut desk = Desk::new(NO_BEATS).await;
    let all = desk.releases(&os(), 2).await;
    let change = take_ann_away(&desk);
    change.good(&format!("+ checkpoint test.os.stable 2 {}", all[1].id()));
    change.good("close the origin for publishers until this is in force");
    let whole = desk.read("new");
    let parts = bundle::parse(whole.as_bytes()).unwrap();
    assert_eq!(
        parts.iter().map(Statement::kind).collect::<Vec<_>>(),
        [Kind::Trust, Kind::Trust, Kind::Release]
    );
    let write = |statements: &[&Statement]| {
        let octets: Vec<u8> = statements
            .iter()
            .flat_map(|statement| statement.octets().to_vec())
            .collect();
        std::fs::write(desk.path("other"), &octets).unwrap();
        octets
    };
    // Without the statement, and with one that its signers have not signed, nothing is signed.
    let alone = write(&[&parts[0], &parts[1]]);
    let sign = || desk.run(&["sign", "--key", "root.key", "other"]);
    sign().bad(
        REFUSED,
        "and that statement is not in the file: what a checkpoint names goes round with the draft",
    );
    assert_eq!(std::fs::read(desk.path("other")).unwrap(), alone);
    let invented = desk
        .realm
        .release(&os(), Some(all[0].head()), "evil", &["stop"]);
    let mut rules = match parts[1].body() {
        tidings_client::Body::Trust(rules) => rules.clone(),
        _ => panic!("the draft is no trust statement"),
    };
    rules.checkpoints[0].head = invented.head();
    let draft = desk.realm.trust_of(rules, &[]);
    write(&[&parts[0], &draft, &invented]);
    sign().bad(
        REFUSED,
        "which trust 1 does not prove: a release in test.os.stable needs 1 signatures of ann",
    );
    // As it was made it is signed, and published: what goes round is not published again.
    desk.run(&["sign", "--key", "root.key", "new"])
        .good("by trust 2: 1 needed, signed by root: enough");
    desk.run(&["publish", "new"]).good("published <2.");
    let anchor = desk.run(&["anchor"]).text;
    assert!(anchor.starts_with("test 2 sha256:"), "{anchor}");
    // New devices get the newest anchor, and the log below it is proven by links.
    let mut with = desk.command(&[desk.fixture.address], &["trust", "log", "--out", "whole"]);
    let output =
        tokio::task::block_in_place(|| with.env("TIDINGS_ANCHOR", anchor.trim()).output().unwrap());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        bundle::parse(desk.read("whole").as_bytes()).unwrap().len(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s05_what_is_published_meanwhile_makes_a_ceremony_begin_anew() {
    let mut desk = Desk::new(NO_BEATS).await;
    let all = desk.releases(&os(), 1).await;
    take_ann_away(&desk).good("+ checkpoint test.os.stable 1");
    desk.run(&["sign", "--key", "root.key", "new"])
        .good("enough");
    let meanwhile = desk
        .realm
        .release(&os(), Some(all[0].head()), "2", &["ann"]);
    desk.publish(&[meanwhile]).await;
    let says = "test.os.stable is at 2 now, which trust 2 would not prove";
    desk.run(&["publish", "new"]).bad(REFUSED, says);
    assert_eq!(
        desk.run(&["anchor"]).text,
        format!("{}\n", desk.realm.anchor),
        "nothing was published"
    );
    take_ann_away(&desk).good("+ checkpoint test.os.stable 2");
    // The other draft for the same place is signed by the same machine when it is told so.
    desk.run(&["sign", "--key", "root.key", "new"]).bad(
        REFUSED,
        "this machine has signed another statement for test.trust 2",
    );
    desk.run(&["sign", "--key", "root.key", "new", "--another"])
        .good("enough");
    desk.run(&["publish", "new"]).good("published <2.");
}

#[tokio::test(flavor = "multi_thread")]
async fn s05_a_withdrawal_that_would_be_lost_is_issued_anew_first() {
    let mut desk = Desk::new(NO_BEATS).await;
    let first = desk.releases(&os(), 1).await;
    let other = Desk::with(Realm::clone_of(&desk.realm), "").await;
    let mut other = other;
    other.publish(&first).await;
    // Two branches: one withdraws what both have, the other goes on.
    let withdrawal = desk
        .realm
        .withdraw(&os(), first[0].head(), first[0].head(), &["stop"]);
    let goes_on = desk
        .realm
        .release(&os(), Some(first[0].head()), "2", &["ann"]);
    desk.publish(&[withdrawal]).await;
    other.publish(std::slice::from_ref(&goes_on)).await;
    let both = [desk.fixture.address, other.fixture.address];
    let settle = format!("test.os.stable 2 {}", goes_on.id());
    let edit = ["trust", "edit", "--checkpoint", &settle, "--out", "new"];
    let says = "under this trust the withdrawal test.os.stable 2 of 1, which stays, would be lost; issue it anew first";
    desk.run_at(&both, &edit).bad(REFUSED, says);
    assert!(!desk.path("new").exists());
    let again = desk
        .realm
        .withdraw(&os(), goes_on.head(), first[0].head(), &["stop"]);
    other.publish(std::slice::from_ref(&again)).await;
    let settle = format!("test.os.stable 3 {}", again.id());
    desk.run_at(
        &both,
        &["trust", "edit", "--checkpoint", &settle, "--out", "new"],
    )
    .good("+ checkpoint test.os.stable 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn s13_what_is_closed_stays_closed() {
    let mut desk = Desk::new(NO_BEATS).await;
    for name in ["test.old.a", "test.old.b", "test.new"] {
        let first = desk
            .realm
            .release(&name.parse().unwrap(), None, "1", &["ann"]);
        desk.publish(&[first]).await;
    }
    std::fs::write(
        desk.path("editor"),
        "#!/bin/sh\necho 'Closed: test.old.* test.old.b' >> \"$1\"\n",
    )
    .unwrap();
    std::process::Command::new("chmod")
        .arg("+x")
        .arg(desk.path("editor"))
        .status()
        .unwrap();
    let mut edit = desk.command(&[desk.fixture.address], &["trust", "edit", "--out", "new"]);
    let said: crate::command::desk::Said =
        tokio::task::block_in_place(|| edit.env("EDITOR", "./editor").output().unwrap()).into();
    said.good("`Closed: test.old.* test.old.b` closes test.old.a, for good");
    desk.run(&["sign", "--key", "root.key", "new"])
        .good("enough");
    desk.run(&["publish", "new"]).good("published <2.");
    let release = |channel: &str| {
        desk.run(&[
            "release",
            channel,
            "--version",
            "2",
            "--key",
            "ann.key",
            "--publish",
            "--new-channel",
        ])
    };
    release("test.old.a").bad(REFUSED, "test.old.a is closed for good by trust 2");
    release("test.old.c").bad(REFUSED, "test.old.c is closed for good by trust 2");
    release("test.old.b").good("published <2.");
    std::fs::write(desk.path("text"), "Expires: 2040-01-01T00:00:00Z\n").unwrap();
    desk.run(&["trust", "edit", "--from", "text", "--out", "open"])
        .bad(
            8,
            "line 2: Role: expected a trust role that covers test.trust",
        );
    let mut open = desk.command(&[desk.fixture.address], &["trust", "edit", "--out", "open"]);
    let said: crate::command::desk::Said =
        tokio::task::block_in_place(|| open.env("EDITOR", "sed -i /^Closed/d").output().unwrap())
            .into();
    said.bad(
        REFUSED,
        "`Closed: test.old.* test.old.b` is missing: what is closed stays closed",
    );
}

fn name(number: usize) -> Channel {
    format!("test.a-product-with-a-name-that-is-long-{number:03}.stable")
        .parse()
        .unwrap()
}

/// More channels than there is room for lines of their own: one beat stands for them all, and its
/// heads are looked at first.
#[tokio::test(flavor = "multi_thread")]
async fn attacks_99_and_118_a_beat_stands_for_the_channels_that_have_no_room() {
    const COUNT: usize = 480;
    let mut desk = Desk::new(ROLES).await;
    let mut heads: Vec<(Channel, Head)> = Vec::new();
    for number in 0..COUNT {
        let channel = name(number);
        let first = desk.realm.release(&channel, None, "1", &["ann"]);
        heads.push((channel, first.head()));
        desk.publish(&[first]).await;
    }
    // The thief of the beat key has invented a head; the last channel has gone on since.
    let invented = Head {
        serial: Serial::new(2).unwrap(),
        id: StatementId::of(b"invented"),
    };
    let mut named: Vec<(&Channel, Head)> = heads
        .iter()
        .map(|(channel, head)| (channel, *head))
        .collect();
    named[0].1 = invented;
    let beat = desk.realm.beat(None, &named, 600, &["beat"]);
    let last = desk
        .realm
        .release(&heads[COUNT - 1].0, Some(heads[COUNT - 1].1), "2", &["ann"]);
    desk.publish(&[beat.clone(), last.clone()]).await;
    let change = take_ann_away(&desk);
    change.good(&format!("+ checkpoint test.beat 1 {}", beat.id()));
    // These two have lines of their own, at the heads that the origin has.
    change.good(&format!("+ checkpoint {} 1 {}", heads[0].0, heads[0].1.id));
    change.good(&format!(
        "+ checkpoint {} 2 {}",
        heads[COUNT - 1].0,
        last.id()
    ));
    assert_eq!(
        change.text.matches("+ checkpoint").count(),
        3,
        "{}",
        change.text
    );
    // Whoever takes such a line away is found out by those who sign.
    let text = desk.read("new");
    let own = text
        .lines()
        .find(|line| line.starts_with(&format!("Checkpoint: {} ", heads[0].0)))
        .unwrap();
    std::fs::write(desk.path("other"), text.replace(&format!("{own}\n"), "")).unwrap();
    desk.run(&["sign", "--key", "root.key", "other"])
        .bad(REFUSED, "the draft settles on");
    desk.run(&["sign", "--key", "root.key", "new"])
        .good("enough");
    desk.run(&["publish", "new"]).good("published <2.");
    // A new device has its channel, although nobody who signed it may any more.
    let channel = heads[7].0.to_string();
    let state = tidings_client::State::ephemeral(&desk.realm.anchor);
    let mut device =
        Device::with_state(desk.fixture.source().unwrap(), [channel.as_str()], state).unwrap();
    let news = device.poll().await.unwrap();
    assert_eq!(
        news.iter()
            .map(|statement| statement.head())
            .collect::<Vec<_>>(),
        [heads[7].1]
    );
    let _ = key("ann");
}
