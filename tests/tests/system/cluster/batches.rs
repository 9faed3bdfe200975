//! Many statements in one multi-operation: what becomes of each.

use std::{collections::HashSet, sync::atomic::Ordering::SeqCst};

use futures_util::future::join_all;
use tidings_tests::realm::key;

use crate::cluster::{stage::*, wire::*};

fn channels(count: usize) -> Vec<Channel> {
    (0..count)
        .map(|n| format!("test.c{n}").parse().unwrap())
        .collect()
}

/// What follows in each channel.
fn next(
    site: &Site,
    channels: &[Channel],
    after: &[Option<Head>],
    version: &str,
) -> Vec<Statement> {
    let each = channels.iter().zip(after);
    each.map(|(channel, after)| site.realm.release(channel, *after, version, SIGNERS))
        .collect()
}

fn heads(statements: &[Statement]) -> Vec<Option<Head>> {
    statements.iter().map(|one| Some(one.head())).collect()
}

/// Servers that wait for long before they take a member for gone.
const PATIENT: &str = "maxSessionTimeout=60000";

async fn post_all(member: &Fixture, statements: &[Statement]) -> Vec<String> {
    let posts = statements.iter().map(|statement| post(member, statement));
    let answers = join_all(posts).await;
    answers.into_iter().map(|(answer, _)| answer).collect()
}

/// The transactions that have settled statements.
async fn zxids(client: &zk::Client, statements: &[Statement]) -> Vec<i64> {
    let nodes = settled(client).await;
    let of = |statement: &Statement| {
        let has = |node: &&Node| node.entries.iter().any(|(_, one)| one == statement);
        nodes.iter().find(has).unwrap().zxid
    };
    statements.iter().map(of).collect()
}

fn all_taken(answers: &[String]) {
    assert!(
        answers.iter().all(|answer| answer.starts_with("240")),
        "{answers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_channels_are_settled_by_one_operation() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, PATIENT)?;
    let wire = Wire::new(ensemble.servers[0].address).await?;
    let mut site = wire.site(&ensemble);
    site.session_seconds = 60;
    let (members, _daemons) = site.found(&["a", "b"], "", "").await?;
    let client = by_hand(&ensemble, &site).await;
    let channels = channels(40);
    // The servers are slow, and are said to be; so the first goes alone, or a few, and the others
    // together.
    wire.state.slow.store(1_200, SeqCst);
    let statements = next(&site, &channels, &vec![None; 40], "1");
    all_taken(&post_all(&members[0], &statements).await);
    wire.state.slow.store(0, SeqCst);
    let operations = zxids(&client, &statements).await;
    let operations: HashSet<i64> = operations.into_iter().collect();
    assert!(operations.len() < 20, "{operations:?}");
    says(&members[0], "the cluster's servers answer slowly").await;
    // And the others have them, in their own stores.
    for channel in &channels {
        all_have(&members, channel, 1).await;
    }
    // What is gone from the tree stops nobody who has it.
    let more = releases(&site.realm, &os(), None, 70, SIGNERS);
    let mut at_a = publisher(&members[0]).await;
    for (n, statement) in more.iter().enumerate() {
        at_a.publish(statement).await?;
        if n == 10 {
            forget(&client, 0).await;
        }
    }
    all_have(&members, &os(), 70).await;
    Ok(())
}

/// A head has another version than the member knows: that channel waits, the rest of the operation
/// is settled meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_loser_of_a_race_is_taken_out_and_the_rest_is_settled() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, PATIENT)?;
    let wire = Wire::new(ensemble.servers[0].address).await?;
    let mut site = wire.site(&ensemble);
    site.session_seconds = 60;
    let (members, _daemons) = site.found(&["a"], "", "").await?;
    let client = by_hand(&ensemble, &site).await;
    let channels = channels(20);
    let mut statements = next(&site, &channels, &vec![None; 20], "first");
    all_taken(&post_all(&members[0], &statements).await);
    let mut was_seen = false;
    for round in 0..10 {
        statements = next(&site, &channels, &heads(&statements), &format!("{round}"));
        wire.set(HOLD_EVENTS);
        let head = format!("/heads/{}", channels[0]);
        let (data, _) = client.get_data(&head).await?;
        client.set_data(&head, &data, None).await?;
        let others = async {
            let answers = post_all(&members[0], &statements[1..]).await;
            wire.set(PASS);
            answers
        };
        let (first, others) = tokio::join!(post(&members[0], &statements[0]), others);
        all_taken(&others);
        all_taken(&[first.0]);
        let zxids = zxids(&client, &statements).await;
        was_seen |= zxids[1..].iter().all(|other| *other < zxids[0]);
        if was_seen {
            break;
        }
    }
    assert!(was_seen, "the head that was changed never lost a race");
    for channel in &channels {
        let log = heads_of(&members[0], channel).await;
        let kept = kept(&client, channel).await;
        assert_eq!(log.len(), kept, "{channel}");
    }
    Ok(())
}

/// Many publish at one member what has lost its race already: it takes up what another one has
/// settled all the same, and does not try each of theirs first.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_lose_races_do_not_keep_a_member_behind() -> anyhow::Result<()> {
    const RIVALS: usize = 30;
    let ensemble = Ensemble::start(1, PATIENT)?;
    let wire = Wire::new(ensemble.servers[0].address).await?;
    let mut site = wire.site(&ensemble);
    site.session_seconds = 60;
    let direct = Site {
        realm: Realm::clone_of(&site.realm),
        servers: ensemble.servers(),
        root: site.root.clone(),
        session_seconds: site.session_seconds,
    };
    let members = [site.member("a", "", "")?, direct.member("b", "", "")?];
    site.init(&members[0])?;
    let _daemons = [members[0].start()?, members[1].start()?];
    site.publish_trust(&members[0]).await?;
    until_acquainted(&members).await;
    let mut at_a = publisher(&members[0]).await;
    let at = publish(&site.realm, &mut at_a, &os(), None, 1, SIGNERS).await?;
    until_head(&members[1], &os(), 1).await;
    // What this member settles takes its time, and it does not hear of others meanwhile.
    wire.set(HOLD_MULTIS);
    let next = |version: &str| site.realm.release(&os(), Some(at), version, SIGNERS);
    let rivals: Vec<Statement> = (0..RIVALS).map(|n| next(&format!("rival{n}"))).collect();
    let wins = async {
        wire.until_held().await;
        let (answer, _) = post(&members[1], &next("wins")).await;
        wire.state.slow.store(500, SeqCst);
        wire.set(PASS);
        let began = Instant::now();
        until_head(&members[0], &os(), 2).await;
        (answer, began.elapsed())
    };
    let ((answer, took), _) = tokio::join!(wins, post_all(&members[0], &rivals));
    all_taken(&[answer]);
    // One after the other they take fifteen seconds, and half of them wait for ten.
    assert!(took < Duration::from_secs(6), "{took:?}");
    all_have(&members, &os(), 2).await;
    Ok(())
}

/// The connection, or the session, is lost in the middle of a multi-operation: before the servers
/// have it, or after.
#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_an_operation_is_looked_up() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let wire = Wire::new(ensemble.servers[0].address).await?;
    let site = wire.site(&ensemble);
    let (members, _daemons) = site.found(&["a"], "", "").await?;
    let client = by_hand(&ensemble, &site).await;
    let channels = channels(12);
    let mut statements = next(&site, &channels, &vec![None; 12], "first");
    all_taken(&post_all(&members[0], &statements).await);
    for (round, (mode, ends)) in [
        (HOLD_ANSWERS, false),
        (HOLD_MULTIS, false),
        (HOLD_ANSWERS, true),
    ]
    .into_iter()
    .enumerate()
    {
        statements = next(&site, &channels, &heads(&statements), &format!("{round}"));
        let before = client.check_stat("/heads/test.c0").await?.unwrap();
        wire.set(mode);
        let cut = async {
            wire.until_held().await;
            if mode == HOLD_ANSWERS {
                // Some of them are settled, and the member does not know it.
                until("an entry is there", async || {
                    let mut there = false;
                    for channel in &channels {
                        there |= kept(&client, channel).await == round + 2;
                    }
                    there
                })
                .await;
            }
            wire.state.refuses.store(ends, SeqCst);
            wire.cut();
            if ends {
                says(&members[0], "this broker is not in its cluster").await;
                wire.state.refuses.store(false, SeqCst);
            }
        };
        let (answers, ()) = tokio::join!(post_all(&members[0], &statements), cut);
        // What was under way is looked up; what came later is told at once that it is not stored.
        for (answer, channel) in answers.iter().zip(&channels) {
            let there = kept(&client, channel).await;
            match answer {
                answer if answer.starts_with("240") => assert_eq!(there, round + 2),
                answer if answer.contains("nothing was stored") => assert_eq!(there, round + 1),
                answer => assert!(ends && answer.contains("not known whether"), "{answer}"),
            }
        }
        assert!(ends || answers.iter().any(|answer| answer.starts_with("240")));
        until("all are taken", async || {
            let answers = post_all(&members[0], &statements).await;
            answers.iter().all(|answer| answer.starts_with("240"))
        })
        .await;
        let after = client.check_stat("/heads/test.c0").await?.unwrap();
        assert_eq!(after.version, before.version + 1, "it was settled twice");
    }
    for channel in &channels {
        all_have(&members, channel, 4).await;
    }
    Ok(())
}

/// `jute.maxbuffer` of the servers is smaller than what waits: it goes in several operations, and
/// the operator is told.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_take_little_at_once_get_little() -> anyhow::Result<()> {
    let ensemble = Ensemble::start_with(1, "", &["-Djute.maxbuffer=16384"])?;
    let wire = Wire::new(ensemble.servers[0].address).await?;
    let site = wire.site(&ensemble);
    let (members, _daemons) = site.found(&["a"], "", "").await?;
    let channels = channels(60);
    let statements = next(&site, &channels, &vec![None; 60], "first");
    wire.state.slow.store(500, SeqCst);
    let answers = post_all(&members[0], &statements).await;
    wire.state.slow.store(0, SeqCst);
    // What comes after the servers have refused a batch may find the connection broken.
    let client = by_hand(&ensemble, &site).await;
    for (answer, channel) in answers.iter().zip(&channels) {
        let there = kept(&client, channel).await;
        match answer {
            answer if answer.starts_with("240") => assert_eq!(there, 1),
            answer if answer.contains("nothing was stored") => assert_eq!(there, 0),
            answer => assert!(answer.contains("not known whether"), "{answer}"),
        }
    }
    until("all are taken", async || {
        let answers = post_all(&members[0], &statements).await;
        answers.iter().all(|answer| answer.starts_with("240"))
    })
    .await;
    says(&members[0], "`jute.maxbuffer` of the servers").await;
    for channel in &channels {
        all_have(&members, channel, 1).await;
    }
    Ok(())
}

/// One statement alone is larger than the servers take: its publisher is not told that it is
/// stored, the operator is told why, and other channels go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_the_servers_do_not_take_is_named() -> anyhow::Result<()> {
    let ensemble = Ensemble::start_with(1, "", &["-Djute.maxbuffer=16384"])?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a"], "", "").await?;
    let filler = format!("Filler: {}\n", "x".repeat(800)).repeat(50);
    let draft = site.realm.release(&os(), None, "1", &[]);
    let draft = [draft.octets(), filler.as_bytes()].concat();
    let large = Statement::parse_draft(&draft)?
        .sign(&key("ann"))?
        .sign(&key("bob"))?;
    assert!(large.octets().len() > 2 * 16_384);
    let (answer, took) = post(&members[0], &large).await;
    assert!(answer.starts_with("441"), "{answer}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    says(&members[0], "`jute.maxbuffer` of the servers").await;
    let small = site.realm.release(&"test.app".parse()?, None, "1", SIGNERS);
    until("another channel goes on", async || {
        post(&members[0], &small).await.0.starts_with("240")
    })
    .await;
    assert_eq!(head(&members[0], &os()).await?, 0);
    Ok(())
}

/// The servers take longer than a publisher waits: it is told that nobody knows, and what is
/// settled afterwards is there once.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_answer_too_late_are_named() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, PATIENT)?;
    let wire = Wire::new(ensemble.servers[0].address).await?;
    let mut site = wire.site(&ensemble);
    site.session_seconds = 60;
    let (members, _daemons) = site.found(&["a"], "", "").await?;
    let statement = site.realm.release(&os(), None, "1", SIGNERS);
    wire.set(HOLD_MULTIS);
    let (answer, took) = post(&members[0], &statement).await;
    assert!(answer.contains("not known whether"), "{answer}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    says(&members[0], "the cluster's servers answer slowly").await;
    wire.set(PASS);
    until("it is taken", async || {
        post(&members[0], &statement).await.0.starts_with("240")
    })
    .await;
    all_have(&members, &os(), 1).await;
    Ok(())
}

/// A statement is settled, and the member that has settled it has no answer yet when it hears of
/// trust that was settled later: it stores the statement first, as the others do.
#[tokio::test(flavor = "multi_thread")]
async fn trust_that_was_settled_later_is_stored_later() -> anyhow::Result<()> {
    settle_trust_later(|wire| wire.set(PASS)).await
}

/// The same if it never gets the answer.
#[tokio::test(flavor = "multi_thread")]
async fn trust_is_stored_after_what_was_perhaps_settled_before() -> anyhow::Result<()> {
    settle_trust_later(Wire::cut).await
}

async fn settle_trust_later(then: impl Fn(&Wire)) -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, PATIENT)?;
    let wire = Wire::new(ensemble.servers[0].address).await?;
    let mut realm = realm();
    let mut site = wire.site(&ensemble);
    site.session_seconds = 60;
    let direct = Site {
        realm: Realm::clone_of(&realm),
        servers: ensemble.servers(),
        root: site.root.clone(),
        session_seconds: site.session_seconds,
    };
    let members = [site.member("a", "", "")?, direct.member("b", "", "")?];
    site.init(&members[0])?;
    let _daemons = [members[0].start()?, members[1].start()?];
    site.publish_trust(&members[0]).await?;
    until_acquainted(&members).await;
    let mut at_a = publisher(&members[0]).await;
    let at = publish(&site.realm, &mut at_a, &os(), None, 3, SIGNERS).await?;
    until_head(&members[1], &os(), 3).await;
    let next = site.realm.release(&os(), Some(at), "4", SIGNERS);
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 2 ann cem",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    let rotation = realm.rotate(&roles, &[], &["root1", "root2"]);
    wire.set(HOLD_ANSWERS);
    let later = async {
        wire.until_held().await;
        until_head(&members[1], &os(), 4).await;
        let answer = post(&members[1], &rotation).await.0;
        // The other one hears of it, and waits.
        sleep(Duration::from_millis(300)).await;
        then(&wire);
        answer
    };
    let ((posted, _), rotated) = tokio::join!(post(&members[0], &next), later);
    all_taken(&[posted, rotated]);
    until_head(&members[0], &site.realm.anchor.namespace.trust_log(), 2).await;
    for member in &members {
        until_head(member, &os(), 4).await;
    }
    assert!(!members[0].log().contains("cannot be followed"));
    Ok(())
}
