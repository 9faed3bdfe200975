//! Attacks on brokers: what they have to keep, to refuse, to put off, and to pay for.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tidings_client::{Channel, Connection, Serial, Statement, keys};
use tidings_protocol::{
    article,
    nntp::code,
    statement::{Body, Closed},
};
use tidings_tests::{
    Fixture,
    realm::{ROLES, Realm, key, rules},
    relay::{self, Act},
    tree::{broker, connect, head, origin, os, publish, read_all, realm, until, until_head},
};

use crate::attacks::bounds::until_closed;

const SIGNERS: &[&str] = &["ann", "bob"];
const ROOTS: &[&str] = &["root1", "root2"];

fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

fn peer(name: &str) -> String {
    format!("[[peer]]\nname = \"{name}\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"*\"\n")
}

async fn ihave(connection: &mut Connection, statement: &Statement) -> u16 {
    let answer = connection
        .command(&format!("IHAVE {}", statement.message_id()))
        .await
        .unwrap();
    if answer.code != code::SEND_IT {
        return answer.code.0;
    }
    connection
        .send_raw(
            &[
                article::render(statement, "x!not-for-mail").octets,
                b".\r\n".to_vec(),
            ]
            .concat(),
        )
        .await
        .unwrap();
    connection.answer().await.unwrap().code.0
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_091_a_worthless_signature_that_was_appended_is_not_kept_and_replaces_nothing() {
    let realm = realm();
    let (fixture, _daemon, mut publisher) = origin(&realm, "").await.unwrap();
    let clean = realm.release(&os(), None, "1", SIGNERS);
    // A key that is listed for something else, and may be listed for this one day.
    let grafted = clean.sign(&key("beat")).unwrap();
    publisher.publish(&grafted).await.unwrap();
    assert_eq!(
        read_all(&fixture, &os()).await.unwrap(),
        std::slice::from_ref(&clean)
    );
    // The clean copy is the same statement.
    publisher.publish(&clean).await.unwrap();
    // A mirror keeps it as it came, and never replaces it.
    let far = broker(&realm, &peer("x")).unwrap();
    let _far = far.start().unwrap();
    let mut neighbour = connect(&far).await.unwrap();
    for statement in [&realm.log[0], &grafted, &clean] {
        ihave(&mut neighbour, statement).await;
    }
    assert_eq!(read_all(&far, &os()).await.unwrap(), [grafted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_100_one_key_uses_up_the_channels_of_its_namespace_alone() {
    let realm = realm();
    let (_fixture, _daemon, mut publisher) =
        origin(&realm, "[quota]\nchannels = 4\n").await.unwrap();
    let mut refused = None;
    for number in 0..5 {
        let statement = realm.release(&channel(&format!("test.c{number}")), None, "1", SIGNERS);
        refused = publisher.publish(&statement).await.err().or(refused);
    }
    let refused = refused.unwrap().to_string();
    assert!(
        refused.contains("keeps 4 channels of test") && refused.contains("quota.channels"),
        "{refused}"
    );
    // What is there goes on.
    let first = realm.release(&channel("test.c0"), None, "1", SIGNERS);
    publisher
        .publish(&realm.release(&channel("test.c0"), Some(first.head()), "2", SIGNERS))
        .await
        .unwrap();
}

/// The configuration of a signer of beats with this period.
fn beat(directory: &Path, every: u64) -> String {
    let file = directory.join("beat.key");
    keys::write_private(&file, &key("beat"), None).unwrap();
    format!(
        "[[beat]]\nnamespace = \"test\"\nkey_file = \"{}\"\nevery_seconds = {every}\nlife_seconds = {}\n",
        file.display(),
        every * 2
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_101_new_heads_bring_beats_early_and_at_most_every_tenth_of_a_period() {
    const EVERY: u64 = 60;
    const CHANNELS: usize = 40;
    let (realm, directory) = (realm(), tempfile::tempdir().unwrap());
    let (fixture, _daemon, mut publisher) = origin(&realm, &beat(directory.path(), EVERY))
        .await
        .unwrap();
    let beats = channel("test.beat");
    until_head(&fixture, &beats, 1).await;
    for number in 0..CHANNELS {
        publisher
            .publish(&realm.release(&channel(&format!("test.c{number}")), None, "1", SIGNERS))
            .await
            .unwrap();
    }
    // One comes before its time that names all of them.
    let all = async || {
        let (log, _) = publisher.log(&beats, Serial::FIRST).await.unwrap();
        let Some(Body::Beat(newest)) = log.last().map(|beat| beat.body()) else {
            return None;
        };
        (newest.heads.len() > CHANNELS).then_some(log)
    };
    let mut log = None;
    let mut all = all;
    until("a beat names all", async || {
        log = all().await;
        log.is_some()
    })
    .await;
    // By the signer's own clock, however slow this machine is.
    for pair in log.unwrap().windows(2) {
        let between = pair[1].time().seconds() - pair[0].time().seconds();
        assert!((EVERY / 10..EVERY).contains(&between), "{between} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_110_a_statement_of_the_future_is_put_off_by_feeds_too() {
    let realm = realm();
    let (fixture, _daemon, _publisher) = origin(&realm, &peer("x")).await.unwrap();
    let far = realm
        .later(realm.time.plus(300 * 86_400))
        .release(&os(), None, "1", SIGNERS);
    let mut neighbour = connect(&fixture).await.unwrap();
    assert_eq!(ihave(&mut neighbour, &far).await, 436);
    assert_eq!(head(&fixture, &os()).await.unwrap(), 0);
    assert_eq!(
        ihave(&mut neighbour, &realm.release(&os(), None, "1", SIGNERS)).await,
        235
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_111_a_mirror_fills_below_what_an_upstream_that_comes_later_has() {
    let realm = realm();
    let (origin, daemon, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 600, SIGNERS)
        .await
        .unwrap();
    let short = origin
        .mirror_of(
            &[origin.address],
            "[[retention]]\nchannels = \"test.os.*\"\ncount = 3\n",
        )
        .unwrap();
    let _short = short.start().unwrap();
    until_head(&short, &os(), 600).await;
    daemon.kill().unwrap();
    let leaf = origin
        .mirror_of(&[short.address, origin.address], "")
        .unwrap();
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &os(), 600).await;
    assert_eq!(read_all(&leaf, &os()).await.unwrap().len(), 3);
    let _daemon = origin.start().unwrap();
    until("the rest comes from the other", async || {
        read_all(&leaf, &os()).await.unwrap().len() == 600
    })
    .await;
    assert_eq!(
        read_all(&leaf, &os()).await.unwrap(),
        read_all(&origin, &os()).await.unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_112_what_other_brokers_answer_is_no_more_than_text_in_a_log() {
    let (fixture, _daemon, _publisher) = origin(&realm(), "").await.unwrap();
    let hostile = |command: &str, answer: Vec<u8>| match command.starts_with("LIST ACTIVE") {
        true => Act::Send("503 \u{1b}]0;owned\u{7} \u{9b}31m \u{202e}txt\r\n".into()),
        false => Act::Send(answer),
    };
    let liar = relay::start(&[fixture.address], hostile).await.unwrap();
    for format in ["text", "json"] {
        let mirror = fixture
            .mirror_of(&[liar], &format!("[log]\nformat = \"{format}\"\n"))
            .unwrap();
        let _daemon = mirror.start().unwrap();
        // At its start it compares itself, and then it follows.
        for says in ["could not be compared with", "cannot be followed"] {
            until(says, async || mirror.log().contains(says)).await;
        }
        let log = mirror.log();
        assert!(log.matches("]0;owned").count() >= 2, "{log}");
        let odd = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!log.contains(odd), "{log:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_113_what_is_hidden_is_told_by_no_answer() {
    let realm = realm();
    let hidden = "[[peer]]\nname = \"ops\"\nnetworks = [\"192.0.2.1\"]\n[[peer]]\nname = \"x\"\nnetworks = [\"127.0.0.1\"]\nfeeds = \"test.web.*\"\n[[access]]\nchannels = \"test.*\"\nreaders = [\"ops\"]\n";
    let (fixture, daemon, mut publisher) = origin(&realm, "").await.unwrap();
    let first = realm.release(&os(), None, "1", SIGNERS);
    publisher.publish(&first).await.unwrap();
    daemon.kill().unwrap();
    fixture.configure(hidden).unwrap();
    let _daemon = fixture.start().unwrap();
    let mut stranger = connect(&fixture).await.unwrap();
    // The same words for a namespace that is not there and for one that is hidden.
    // The same keys an hour ago: another log of the same name.
    let other = Realm::at(
        tidings_client::Timestamp::from_seconds(tidings_client::now().seconds() - 3600),
        ROLES,
        ROOTS,
    );
    let forged = |name: &str| realm.release(&channel(name), None, "1", &["eve"]);
    let said = |text: String, name: &str| text.replace(name, "NAME");
    let (there, nowhere) = (forged("test.os.stable"), forged("nowhere.os.stable"));
    let answers = [
        said(
            stranger.post(&there).await.unwrap().to_string(),
            "test.os.stable",
        ),
        said(
            stranger.post(&nowhere).await.unwrap().to_string(),
            "nowhere.os.stable",
        ),
    ];
    assert_eq!(answers[0], answers[1]);
    let second = other.trust(ROLES, &[], ROOTS);
    let answer = stranger.post(&second).await.unwrap().to_string();
    assert!(
        !answer.contains("head") && answer.contains("no namespace of this broker"),
        "{answer}"
    );
    // Whatever else is asked: word for word the same of a channel that is hidden and of none.
    for there in [&first, &realm.log[0]] {
        let address = fixture.address;
        let ask = |namespace: &str| {
            let name = there.channel().as_str().replacen("test", namespace, 1);
            let id = there.message_id().to_string();
            let train = ASKED
                .replace("ID", &id.replace(there.channel().as_str(), &name))
                .replace("NAME", &name);
            let said = tokio::task::spawn_blocking(move || until_closed(address, train.as_bytes()));
            async move { said.await.unwrap().replace(&name, "NAME") }
        };
        let (hidden, nowhere) = (ask("test").await, ask("nowhere").await);
        assert_eq!(hidden, nowhere);
        assert!(hidden.contains("not wanted from you"), "{hidden}");
        assert!(hidden.ends_with("205 good-bye\r\n"), "{hidden}");
    }
}

/// What tells of a channel and of a statement, if they are there.
const ASKED: &str = "GROUP NAME\r\nSTAT 1\r\nLISTGROUP NAME\r\nLIST ACTIVE NAME\r\nLIST ACTIVE.TIMES NAME\r\n\
    LIST COUNTS NAME\r\nLIST NEWSGROUPS NAME\r\nLIST SUBSCRIPTIONS NAME\r\n\
    NEWNEWS NAME 20200101 000000 GMT\r\nNEWGROUPS 20200101 000000 GMT\r\n\
    ARTICLE ID\r\nHEAD ID\r\nBODY ID\r\nSTAT ID\r\nOVER ID\r\nHDR Subject ID\r\n\
    CHECK ID\r\nIHAVE ID\r\nQUIT\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn attack_116_a_restored_origin_signs_no_beat_before_it_has_compared_itself() {
    let (realm, directory) = (realm(), tempfile::tempdir().unwrap());
    let signer = beat(directory.path(), 1);
    let (fixture, daemon, _publisher) = origin(&realm, &signer).await.unwrap();
    let beats = channel("test.beat");
    let at = async |fixture: &Fixture| head(fixture, &beats).await.unwrap_or(0);
    until("a beat", async || at(&fixture).await > 0).await;
    daemon.kill().unwrap();
    let (data, backup) = (
        fixture.directory.join("data"),
        fixture.directory.join("backup"),
    );
    let copied = Command::new("cp").arg("-a").args([&data, &backup]).status();
    assert!(copied.unwrap().success());
    let daemon = fixture.start().unwrap();
    let before = at(&fixture).await;
    let mirror = fixture.mirror_of(&[fixture.address], "").unwrap();
    let mirroring = mirror.start().unwrap();
    until("more beats", async || at(&mirror).await > before + 2).await;
    daemon.kill().unwrap();
    let lost = at(&mirror).await;
    mirroring.kill().unwrap();
    // The backup is put back, and the mirror is away: nothing is taken, and nothing is signed.
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    fixture.restore_from(&mirror).unwrap();
    let text = std::fs::read_to_string(fixture.config()).unwrap();
    std::fs::write(fixture.config(), text + &signer).unwrap();
    let _daemon = fixture.start().unwrap();
    let restored = at(&fixture).await;
    // This is answered when it has been waited for, for longer than beats are apart.
    let mut connection = connect(&fixture).await.unwrap();
    let refused = connection
        .post(&realm.release(&os(), None, "1", SIGNERS))
        .await
        .unwrap();
    assert!(
        refused
            .text
            .contains("looks first whether others have more"),
        "{refused}"
    );
    assert!(restored <= before && at(&fixture).await == restored);
    let says = "nothing is accepted or signed until it can, or is not named there any more";
    assert!(fixture.log().contains(says), "{}", fixture.log());
    // What is signed afterwards stands above what was lost.
    let _mirroring = mirror.start().unwrap();
    until("beats go on", async || at(&fixture).await > lost).await;
    assert_eq!(
        std::fs::read_dir(data.join("forks")).map_or(0, Iterator::count),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_119_a_thiefs_releases_above_the_checkpoint_are_in_nobodys_way() {
    let mut realm = realm();
    let (fixture, _daemon, mut publisher) = origin(&realm, "").await.unwrap();
    let mirror = fixture.mirror_of(&[fixture.address], "").unwrap();
    let _mirror = mirror.start().unwrap();
    let honest = publish(&realm, &mut publisher, &os(), None, 2, SIGNERS)
        .await
        .unwrap();
    publish(&realm, &mut publisher, &os(), Some(honest), 3, SIGNERS)
        .await
        .unwrap();
    until_head(&mirror, &os(), 5).await;
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 dora",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    publisher
        .publish(&realm.rotate(&roles, &[(&os(), honest)], ROOTS))
        .await
        .unwrap();
    until_head(&fixture, &os(), 2).await;
    let next = realm.release(&os(), Some(honest), "2", &["dora"]);
    publisher.publish(&next).await.unwrap();
    let began = Instant::now();
    while !read_all(&mirror, &os())
        .await
        .is_ok_and(|log| log.last() == Some(&next))
    {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{}",
            mirror.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        read_all(&mirror, &os()).await.unwrap(),
        read_all(&fixture, &os()).await.unwrap()
    );
    for fixture in [&fixture, &mirror] {
        let lost = std::fs::read_dir(fixture.directory.join("data/forks")).unwrap();
        assert_eq!(
            lost.filter(|file| file
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|kind| kind == "lost"))
                .count(),
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_122_closed_channels_take_nothing_and_trust_and_beats_go_on() {
    let mut realm = realm();
    let (fixture, _daemon, mut publisher) = origin(&realm, &peer("x")).await.unwrap();
    let first = publish(&realm, &mut publisher, &os(), None, 1, SIGNERS)
        .await
        .unwrap();
    let mut closing = rules(ROLES, realm.time.plus(86_400), &[]);
    closing.closed = vec![Closed {
        pattern: "*".parse().unwrap(),
        except: vec![],
    }];
    let statement = realm.trust_of(closing, ROOTS);
    publisher.publish(&statement).await.unwrap();
    realm.log.push(statement);
    let refused = publisher
        .publish(&realm.release(&os(), Some(first), "2", SIGNERS))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("closed for good"), "{refused}");
    let mut neighbour = connect(&fixture).await.unwrap();
    assert_eq!(
        ihave(
            &mut neighbour,
            &realm.release(&channel("test.new"), None, "1", SIGNERS)
        )
        .await,
        437
    );
    publisher
        .publish(&realm.beat(None, &[], 600, &["beat"]))
        .await
        .unwrap();
    // It cannot be opened again.
    let opening = realm.trust(ROLES, &[], ROOTS);
    assert!(matches!(opening.body(), Body::Trust(_)));
    let refused = publisher.publish(&opening).await.unwrap_err();
    assert!(
        refused.to_string().contains("what is closed stays closed"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_sends_history_that_only_later_statements_prove_from_the_newest_down() {
    let mut realm = realm();
    let far = broker(&realm, &peer("x")).unwrap();
    let feed = format!("[[feed]]\nname = \"far\"\nto = \"{}\"\n", far.url());
    let (fixture, _daemon, mut publisher) = origin(&realm, &feed).await.unwrap();
    let old = publish(&realm, &mut publisher, &os(), None, 300, SIGNERS)
        .await
        .unwrap();
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 dora",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    publisher
        .publish(&realm.rotate(&roles, &[], ROOTS))
        .await
        .unwrap();
    publish(&realm, &mut publisher, &os(), Some(old), 2, &["dora"])
        .await
        .unwrap();
    let _far = far.start().unwrap();
    until_head(&far, &os(), 302).await;
    assert_eq!(
        read_all(&far, &os()).await.unwrap(),
        read_all(&fixture, &os()).await.unwrap()
    );
}
