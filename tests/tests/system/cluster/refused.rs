//! What a writer refuses is not settled either.

use std::sync::atomic::Ordering::SeqCst;

use futures_util::future::join_all;
use tidings_client::now;
use tidings_protocol::{
    article,
    limits::FUTURE_SECONDS,
    nntp::{Response, code},
};
use tidings_tests::realm::ROLES;

use crate::cluster::{stage::*, wire::*};

async fn ihave(member: &Fixture, statement: &Statement) -> Response {
    let mut peer = connect(member).await.unwrap();
    let command = format!("IHAVE {}", statement.message_id());
    let answer = peer.command(&command).await.unwrap();
    assert_eq!(answer.code, code::SEND_IT, "{answer}");
    let article = article::render(statement, "x!not-for-mail").octets;
    let sent = [article, b".\r\n".to_vec()].concat();
    peer.send_raw(&sent).await.unwrap();
    peer.answer().await.unwrap()
}

/// While the next trust statement is being settled, somebody posts what would follow it, and nobody
/// has signed that.
#[tokio::test(flavor = "multi_thread")]
async fn trust_that_nobody_has_verified_is_not_settled() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let wire = Wire::new(ensemble.servers[0].address).await?;
    let mut realm = realm();
    let site = Site {
        realm: Realm::clone_of(&realm),
        ..wire.site(&ensemble)
    };
    let (members, _daemons) = site.found(&["a"], "", "").await?;
    let second = realm.rotate(ROLES, &[], &["root1", "root2"]);
    let forged = realm.trust(ROLES, &[], &["eve", "mallory"]);
    let trust_log = site.realm.anchor.namespace.trust_log();
    wire.set(HOLD_MULTIS);
    let meanwhile = async {
        wire.until_held().await;
        let pass = async {
            sleep(Duration::from_millis(500)).await;
            wire.set(PASS);
        };
        tokio::join!(post(&members[0], &forged), pass).0.0
    };
    let ((taken, _), refused) = tokio::join!(post(&members[0], &second), meanwhile);
    assert!(taken.starts_with("240"), "{taken}");
    assert!(refused.starts_with("441"), "{refused}");
    let (refused, _) = post(&members[0], &forged).await;
    assert!(refused.starts_with("441"), "{refused}");
    assert_eq!(head(&members[0], &trust_log).await?, 2);
    // Its place is free.
    let third = realm.rotate(ROLES, &[], &["root1", "root2"]);
    let (taken, _) = post(&members[0], &third).await;
    assert!(taken.starts_with("240"), "{taken}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_channel_above_the_quota_is_begun_and_what_is_settled_is_stored() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let wire = Wire::new(ensemble.servers[0].address).await?;
    let site = wire.site(&ensemble);
    let quota = "[quota]\nchannels = 4\n";
    let (members, _daemons) = site.found(&["a", "b"], "", quota).await?;
    let first = |n: usize| {
        let channel = format!("test.c{n}").parse().unwrap();
        site.realm.release(&channel, None, "1", SIGNERS)
    };
    // Many at once, while there is room for three: no more are taken, and both store what is.
    wire.state.slow.store(500, SeqCst);
    let statements: Vec<Statement> = (0..8).map(first).collect();
    let posts = statements.iter().map(|one| post(&members[0], one));
    let answers = join_all(posts).await;
    wire.state.slow.store(0, SeqCst);
    let taken = |(answer, _): &&(String, _)| answer.starts_with("240");
    assert_eq!(answers.iter().filter(taken).count(), 3, "{answers:?}");
    for (statement, (answer, _)) in statements.iter().zip(&answers) {
        match answer.starts_with("240") {
            true => all_have(&members, statement.channel(), 1).await,
            false => assert!(answer.contains("keeps 4 channels of test"), "{answer}"),
        }
    }
    let client = by_hand(&ensemble, &site).await;
    for member in &members {
        let (answer, _) = post(member, &first(9)).await;
        assert!(answer.contains("keeps 4 channels of test"), "{answer}");
        let there = client.check_stat("/heads/test.c9").await?;
        assert_eq!(there, None);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_offers_of_the_future_is_not_settled() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let peer = "[[peer]]\nname = \"p\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"test.*\"\n";
    let (members, _daemons) = site.found(&["a"], "", peer).await?;
    let client = by_hand(&ensemble, &site).await;
    let (trust_log, app): (_, Channel) = (site.realm.anchor.namespace.trust_log(), os());
    let present = site.realm.release(&app, None, "1", SIGNERS);
    let answer = ihave(&members[0], &present).await;
    assert_eq!(answer.code, code::TRANSFERRED, "{answer}");
    let future = site.realm.later(now().plus(FUTURE_SECONDS + 3_600));
    for statement in [
        future.trust(ROLES, &[], &["root1", "root2"]),
        future.release(&app, Some(present.head()), "2", SIGNERS),
    ] {
        let answer = ihave(&members[0], &statement).await;
        assert_eq!(answer.code, code::TRANSFER_LATER, "{answer}");
        assert!(answer.to_string().contains("Time: "), "{answer}");
    }
    for channel in [trust_log, app] {
        let (there, _) = client.get_data(&format!("/heads/{channel}")).await?;
        assert!(there.starts_with(b"1 "), "{there:?}");
    }
    Ok(())
}
