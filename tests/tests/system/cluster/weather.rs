//! What goes wrong by itself: servers, members and connections that stop, and come back.

use tidings_tests::realm::key;

use crate::cluster::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_reading_goes_on_and_publishing_says_so() -> anyhow::Result<()> {
    let mut ensemble = Ensemble::start(3, "")?;
    let site = Site::new(&ensemble, realm());
    let admin = tidings_tests::free_address()?;
    let a = site.member("a", "", &format!("[admin]\nlisten = [\"{admin}\"]\n"))?;
    site.init(&a)?;
    let b = site.member("b", "", "")?;
    let _daemons = [a.start()?, b.start()?];
    let members = [a, b];
    site.publish_trust(&members[0]).await?;
    let at = publish(
        &site.realm,
        &mut publisher(&members[0]).await,
        &os(),
        None,
        3,
        SIGNERS,
    )
    .await?;
    until_head(&members[1], &os(), 3).await;
    until("it is ready", async || get(admin, "/readyz").0 == 200).await;
    ensemble.servers[0].kill()?;
    ensemble.servers[1].kill()?;
    let next = site.realm.release(&os(), Some(at), "1.4", SIGNERS);
    // The first answer may come from before it was known; soon it is known at once.
    until("it is known", async || {
        let (answer, took) = post(&members[0], &next).await;
        assert!(
            answer.starts_with("441") && took < Duration::from_secs(15),
            "{answer} after {took:?}"
        );
        answer.contains("nothing was stored") && took < Duration::from_millis(500)
    })
    .await;
    // The last server may take sessions until it has noticed that it is alone.
    until("it is said", async || {
        let (_, metrics) = get(admin, "/metrics");
        get(admin, "/readyz").0 == 503
            && metrics.contains("tidings_cluster_state{state=\"member\"} 0")
            && metrics.contains("tidings_cluster_signs 0")
    })
    .await;
    assert_eq!(get(admin, "/healthz").0, 200);
    assert_eq!(heads_of(&members[0], &os()).await.len(), 3);
    let mut watch = connect(&members[1]).await?;
    let promised = watch.watch(&format!("{}:2", os())).await?;
    assert_eq!(
        watch
            .event(promised)
            .await?
            .unwrap()
            .statement
            .serial()
            .number(),
        3
    );
    // A member that starts now serves what it has.
    ensemble.servers[0].start()?;
    until("it goes on", async || {
        post(&members[0], &next).await.0.starts_with("240")
    })
    .await;
    // It comes through the watch that has been there all the time.
    assert_eq!(
        watch.event(promised).await?.unwrap().statement.id(),
        next.id()
    );
    all_have(&members, &os(), 4).await;
    Ok(())
}

/// The servers and the members restart, one after the other, while somebody publishes.
#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_of_either_side_lose_nothing() -> anyhow::Result<()> {
    let mut ensemble = Ensemble::start(3, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, mut daemons) = site.found(&["a", "b", "c"], "", "").await?;
    let (mut after, mut count) = (None, 0);
    let mut publish_at = async |member: &Fixture| {
        let statement = site
            .realm
            .release(&os(), after, &format!("1.{count}"), SIGNERS);
        let mut answer = String::new();
        let began = Instant::now();
        while !answer.starts_with("240") {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{} does not take {count}: {answer}; its log: {}",
                member.name,
                head_and_tail(&member.log())
            );
            sleep(Duration::from_millis(200)).await;
            answer = post(member, &statement).await.0;
        }
        (after, count) = (Some(statement.head()), count + 1);
    };
    for n in 0..3 {
        ensemble.servers[n].kill()?;
        for member in &members {
            publish_at(member).await;
        }
        ensemble.servers[n].start()?;
        ensemble.until_serving()?;
    }
    for n in 0..3 {
        let daemon = daemons[n].take().unwrap();
        daemon.signal("TERM")?;
        assert_eq!(daemon.wait(Duration::from_secs(30))?, Some(0));
        publish_at(&members[(n + 1) % 3]).await;
        daemons[n] = Some(members[n].start()?);
        publish_at(&members[n]).await;
    }
    // The whole ensemble at once.
    for server in &mut ensemble.servers {
        server.kill()?;
    }
    for server in &mut ensemble.servers {
        server.start()?;
    }
    publish_at(&members[0]).await;
    all_have(&members, &os(), 16).await;
    Ok(())
}

/// Sessions that end: the signer is paused for longer than its session, and comes back when another
/// one signs.
#[tokio::test(flavor = "multi_thread")]
async fn one_member_signs_beats_and_a_paused_one_cannot_contradict_it() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let keys = tempfile::tempdir()?;
    let (members, daemons) = site
        .found(&["a", "b"], "", &site.beats(keys.path())?)
        .await?;
    publish(
        &site.realm,
        &mut publisher(&members[0]).await,
        &os(),
        None,
        3,
        SIGNERS,
    )
    .await?;
    let beat = site.realm.anchor.namespace.beat();
    until_beats(&members[0], &beat, 2).await;
    let client = by_hand(&ensemble, &site).await;
    for _ in 0..2 {
        let first = signer(&client).await;
        let n = members
            .iter()
            .position(|member| member.name == first)
            .unwrap();
        daemons[n].as_ref().unwrap().signal("STOP")?;
        until("another one signs", async || {
            !["-", &first].contains(&signer(&client).await.as_str())
        })
        .await;
        let other = &members[1 - n];
        let there = head(other, &beat).await?;
        until_beats(other, &beat, there + 2).await;
        daemons[n].as_ref().unwrap().signal("CONT")?;
        says(&members[n], "this member does not sign beats any more").await;
        let there = head(other, &beat).await?;
        until_beats(other, &beat, there + 3).await;
        // What the former signer serves is the same log.
        let (one, two) = (
            beats_of(&members[0], &beat).await,
            beats_of(&members[1], &beat).await,
        );
        let both: Vec<&String> = one.iter().filter(|line| two.contains(line)).collect();
        assert!(
            both.len() + 2 > one.len().min(two.len()) && both.len() > 5,
            "{one:?} {two:?}"
        );
        assert!(
            !members
                .iter()
                .any(|member| member.directory.join("data/forks").exists())
        );
    }
    Ok(())
}

/// The bound of what the servers keep of other channels holds although one cannot be filled by
/// anybody, and an operator has a way out.
#[tokio::test(flavor = "multi_thread")]
async fn one_channel_that_nobody_can_fill_stops_nothing_else() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let keys = tempfile::tempdir()?;
    let (members, mut daemons) = site
        .found(&["a", "b"], "", &site.beats(keys.path())?)
        .await?;
    let app: Channel = "test.app".parse()?;
    let mut at_a = publisher(&members[0]).await;
    let at = publish(&site.realm, &mut at_a, &app, None, 3, SIGNERS).await?;
    until_head(&members[1], &app, 3).await;
    let client = by_hand(&ensemble, &site).await;
    let far = site.realm.release(
        &app,
        Some(Head {
            serial: "98".parse()?,
            ..at
        }),
        "99",
        SIGNERS,
    );
    client
        .set_data(
            &format!("/heads/{app}"),
            far.head().to_string().as_bytes(),
            None,
        )
        .await?;
    let (answer, took) = {
        until("it is noticed", async || {
            post(
                &members[0],
                &site.realm.release(&app, Some(at), "4", SIGNERS),
            )
            .await
            .1 < Duration::from_secs(1)
        })
        .await;
        post(
            &members[0],
            &site.realm.release(&app, Some(at), "4", SIGNERS),
        )
        .await
    };
    assert!(
        answer.contains("has not yet got all of test.app") && took < Duration::from_secs(5),
        "{answer} after {took:?}"
    );
    publish(&site.realm, &mut at_a, &os(), None, 80, SIGNERS).await?;
    until_head(&members[1], &os(), 80).await;
    let beat = site.realm.anchor.namespace.beat();
    let there = head(&members[0], &beat).await?;
    until_beats(&members[0], &beat, there + 3).await;
    // The way out.
    daemons[0].take().unwrap().signal("TERM")?;
    until("it is stopped", async || {
        connect(&members[0]).await.is_err()
    })
    .await;
    let set = || {
        let command = ["set-head", "test.app", "--config"];
        std::process::Command::new(tidings_tests::binary("tidingsd"))
            .args(command)
            .arg(members[0].config())
            .output()
            .unwrap()
    };
    until("the store is free", async || set().status.success()).await;
    daemons[0] = Some(members[0].start()?);
    let next = site.realm.release(&app, Some(at), "4", SIGNERS);
    until("it goes on", async || {
        post(&members[1], &next).await.0.starts_with("240")
    })
    .await;
    all_have(&members, &app, 4).await;
    Ok(())
}

/// A member that lacks the beginning, and has nobody to ask, waits for those who have it.
#[tokio::test(flavor = "multi_thread")]
async fn no_member_begins_a_log_in_the_middle() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let more = "[limits]\ngap_seconds = 1\n";
    let (members, mut daemons) = site.found(&["a", "b", "c"], "", more).await?;
    daemons[2].take().unwrap().kill()?;
    let at = publish(
        &site.realm,
        &mut publisher(&members[0]).await,
        &os(),
        None,
        90,
        SIGNERS,
    )
    .await?;
    until_head(&members[1], &os(), 90).await;
    let client = by_hand(&ensemble, &site).await;
    forget(&client, 20).await;
    // Then all are gone that have it.
    daemons[1].take().unwrap().kill()?;
    daemons[0].take().unwrap().kill()?;
    daemons[2] = Some(members[2].start()?);
    says(&members[2], "this broker is a member").await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(head(&members[2], &os()).await?, 0);
    let (answer, _) = post(
        &members[2],
        &site.realm.release(&os(), Some(at), "x", SIGNERS),
    )
    .await;
    assert!(answer.starts_with("441"), "{answer}");
    daemons[0] = Some(members[0].start()?);
    until_head(&members[2], &os(), 90).await;
    assert_eq!(
        heads_of(&members[2], &os()).await,
        heads_of(&members[0], &os()).await
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_has_settled_alone_another_one_finds_in_the_tree() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a"], "", "").await?;
    let client = by_hand(&ensemble, &site).await;
    let mut at_a = publisher(&members[0]).await;
    let at = publish(&site.realm, &mut at_a, &os(), None, 200, SIGNERS).await?;
    assert_eq!(kept(&client, &os()).await, 200);
    // The other one has nothing, and needs nothing but the servers.
    let other = site.member("b", "", "")?;
    let _other = other.start()?;
    until_head(&other, &os(), 200).await;
    assert!(!other.log().contains("comes from other members"));
    let members = [members.into_iter().next().unwrap(), other];
    until_acquainted(&members).await;
    publish(&site.realm, &mut at_a, &os(), Some(at), 3, SIGNERS).await?;
    all_have(&members, &os(), 203).await;
    Ok(())
}

/// Above its share a member removes its oldest nodes; others have them by then, and a new one gets
/// them from those.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_forget_what_is_old() -> anyhow::Result<()> {
    const SHARE: usize = 16 << 20;
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a", "b"], "", "").await?;
    let client = by_hand(&ensemble, &site).await;
    let mut at_a = publisher(&members[0]).await;
    let filler = format!("Filler: {}\n", "x".repeat(880)).repeat(68);
    let (mut after, mut octets) = (None, 0);
    let mut count = 0;
    while octets < SHARE + SHARE / 8 {
        count += 1;
        let draft = site.realm.release(&os(), after, &count.to_string(), &[]);
        let draft = [draft.octets(), filler.as_bytes()].concat();
        let large = Statement::parse_draft(&draft)?
            .sign(&key("ann"))?
            .sign(&key("bob"))?;
        octets += large.octets().len();
        after = Some(large.head());
        at_a.publish(&large).await?;
    }
    let nodes = settled(&client).await;
    let entries = nodes.iter().flat_map(|node| &node.entries);
    let kept: usize = entries.map(|(_, one)| one.octets().len()).sum();
    assert!(kept > SHARE / 2 && kept < SHARE, "{kept} of {octets}");
    all_have(&members, &os(), count).await;
    let fresh = site.member("c", "", "")?;
    let _fresh = fresh.start()?;
    until_head(&fresh, &os(), count).await;
    assert!(fresh.log().contains("comes from other members"));
    Ok(())
}
