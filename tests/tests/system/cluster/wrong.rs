//! What somebody has done wrong: places, names, clocks, permissions, and what was written into the
//! tree by hand.

use crate::cluster::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_writes_into_the_tree_is_not_believed() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a", "b"], "", "").await?;
    let good = publish(
        &site.realm,
        &mut publisher(&members[0]).await,
        &os(),
        None,
        3,
        SIGNERS,
    )
    .await?;
    until_head(&members[1], &os(), 3).await;
    let client = by_hand(&ensemble, &site).await;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    let forged = site
        .realm
        .release(&os(), Some(good), "6.6", &["eve", "mallory"]);
    let node = "/settled/0-0-eve";
    let (old, _) = client.get_data(&format!("/heads/{}", os())).await?;
    client.create(node, &record(&forged, 3), &options).await?;
    client
        .set_data(
            &format!("/heads/{}", os()),
            forged.head().to_string().as_bytes(),
            None,
        )
        .await?;
    for member in &members {
        says(member, "cannot be followed").await;
        assert_eq!(head(member, &os()).await?, 3);
        let next = site.realm.release(&os(), Some(good), "1.4", SIGNERS);
        let (answer, _) = post(member, &next).await;
        assert!(
            answer.starts_with("441") && answer.contains("does not verify here"),
            "{answer}"
        );
    }
    // Other channels are not affected.
    publish(
        &site.realm,
        &mut publisher(&members[1]).await,
        &"test.app".parse()?,
        None,
        2,
        SIGNERS,
    )
    .await?;
    // No statement at all, and a head that is none.
    for junk in [&b"junk"[..], b"path\njunk", b""] {
        client.set_data(node, junk, None).await?;
        client
            .set_data(
                &format!("/heads/{}", os()),
                forged.head().to_string().as_bytes(),
                None,
            )
            .await?;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(head(&members[0], &os()).await?, 3);
    }
    client
        .set_data(&format!("/heads/{}", os()), b"junk", None)
        .await?;
    sleep(Duration::from_millis(300)).await;
    // The operator mends it.
    client.delete(node, None).await?;
    client
        .set_data(&format!("/heads/{}", os()), &old, None)
        .await?;
    says(&members[0], "can be followed again").await;
    let next = site.realm.release(&os(), Some(good), "1.4", SIGNERS);
    until("it goes on", async || {
        post(&members[0], &next).await.0.starts_with("240")
    })
    .await;
    all_have(&members, &os(), 4).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_place_is_refused_by_name() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let member = site.member("a", "", "")?;
    let _daemon = member.start()?;
    says(&member, "`tidingsd init-cluster` makes one").await;
    let statement = &site.realm.log[0];
    let (answer, _) = post(&member, statement).await;
    assert!(
        answer.starts_with("441") && answer.contains("nothing was stored"),
        "{answer}"
    );
    // Something else is there.
    let client = zk::Client::connect(&ensemble.servers[0].address.to_string()).await?;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    client.create(&site.root, b"", &options).await?;
    client
        .create(&format!("{}/queue", site.root), b"", &options)
        .await?;
    says(&member, "holds queue and no layout").await;
    client
        .create(&format!("{}/layout", site.root), b"tidings 9", &options)
        .await?;
    says(&member, r#"holds \"tidings 9\""#).await;
    client
        .delete(&format!("{}/layout", site.root), None)
        .await?;
    client.delete(&format!("{}/queue", site.root), None).await?;
    // The right place; once.
    site.init(&member)?;
    assert!(
        site.init(&member)
            .unwrap_err()
            .to_string()
            .contains("there is a cluster already")
    );
    site.publish_trust(&member).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_are_let_in_use_the_tree() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let directory = tempfile::tempdir()?;
    let password = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        format!(
            "user = \"tidings\"\npassword_file = \"{}\"\n",
            path.display()
        )
    };
    let (right, wrong) = (password("right", "secret\n"), password("wrong", "guess\n"));
    let (members, _daemons) = site.found(&["a"], &right, "").await?;
    publish(
        &site.realm,
        &mut publisher(&members[0]).await,
        &os(),
        None,
        2,
        SIGNERS,
    )
    .await?;
    for (name, login) in [("b", wrong.as_str()), ("c", "")] {
        let other = site.member(name, login, "")?;
        let _daemon = other.start()?;
        says(&other, "ZooKeeper does not let us use").await;
        assert_eq!(head(&other, &os()).await?, 0);
    }
    // Nor does somebody with the right address alone.
    let nobody = by_hand(&ensemble, &site).await;
    assert_eq!(
        nobody.get_data("/layout").await.unwrap_err(),
        zk::Error::NoAuth
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_with_one_name_are_noticed() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, mut daemons) = site.found(&["a"], "", "").await?;
    let twin = site.member("a", "", "")?;
    let _twin = twin.start()?;
    says(&twin, "another broker with this name is a member").await;
    assert!(twin.log().contains(&members[0].url()));
    // The same machine after kill -9 has to wait for its own session, and no longer.
    daemons[0].take().unwrap().kill()?;
    let again = Instant::now();
    says(&twin, "this broker is a member of its cluster").await;
    assert!(
        again.elapsed() < Duration::from_secs(3 * SESSION_SECONDS),
        "{:?}",
        again.elapsed()
    );
    Ok(())
}

/// The clocks of two brokers are an hour apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_wrong_clock_signs_no_beats_and_does_no_harm() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let keys = tempfile::tempdir()?;
    let beats = site.beats(keys.path())?;
    let wrong = |name: &str, by: &str| {
        let library =
            faketime().expect("libfaketime is missing: install Debian's package `libfaketime`");
        let preload = [
            "env".into(),
            format!("LD_PRELOAD={library}"),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
            format!("FAKETIME={by}"),
        ];
        let mut member = site.member(name, "", &beats).unwrap();
        member.launcher = preload.to_vec();
        member
    };
    // Both are there before the one whose clock is right.
    let (slow, fast) = (wrong("slow", "-30m"), wrong("fast", "+30m"));
    site.init(&slow)?;
    let _daemons: Vec<Daemon> = [slow.start()?, fast.start()?].into();
    says(
        &slow,
        "the clocks of this broker and of the cluster's servers are apart",
    )
    .await;
    says(
        &fast,
        "the clocks of this broker and of the cluster's servers are apart",
    )
    .await;
    site.publish_trust(&slow).await?;
    let client = by_hand(&ensemble, &site).await;
    assert_eq!(signer(&client).await, "-");
    let right = site.member("right", "", &beats)?;
    let _right = right.start()?;
    until("the right one signs", async || {
        signer(&client).await == "right"
    })
    .await;
    until_beats(&slow, &site.realm.anchor.namespace.beat(), 2).await;
    // Publishing is possible everywhere.
    let at = publish(
        &site.realm,
        &mut publisher(&slow).await,
        &os(),
        None,
        3,
        SIGNERS,
    )
    .await?;
    until_head(&fast, &os(), 3).await;
    publish(
        &site.realm,
        &mut publisher(&fast).await,
        &os(),
        Some(at),
        3,
        SIGNERS,
    )
    .await?;
    until_head(&right, &os(), 6).await;
    Ok(())
}

/// A member whose log was written by somebody else's cluster; and what becomes of it when that is
/// the branch that the operator decides for.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_between_members_is_an_alarm() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, mut daemons) = site.found(&["a"], "", "").await?;
    let mut at_a = publisher(&members[0]).await;
    publish(&site.realm, &mut at_a, &os(), None, 3, SIGNERS).await?;
    let other = site.member("b", "", "")?;
    other.configure("")?;
    let daemon = other.start()?;
    let mut at_other = publisher(&other).await;
    for statement in &site.realm.log {
        at_other.publish(statement).await?;
    }
    let mut theirs = site.realm.release(&os(), None, "other", SIGNERS);
    at_other.publish(&theirs).await?;
    daemon.signal("TERM")?;
    daemon.wait(Duration::from_secs(30))?;
    other.configure(&site.configuration(&other, "", ""))?;
    let daemon = other.start()?;
    says(&other, "cannot be followed").await;
    assert_eq!(heads_of(&other, &os()).await, [theirs.head()]);
    let next = site.realm.release(&os(), Some(theirs.head()), "2", SIGNERS);
    let (answer, _) = post(&other, &next).await;
    assert!(answer.starts_with("441"), "{answer}");
    assert_eq!(heads_of(&members[0], &os()).await.len(), 3);
    // The other branch grows by itself, and is decided for.
    daemon.signal("TERM")?;
    daemon.wait(Duration::from_secs(30))?;
    other.configure("")?;
    let daemon = other.start()?;
    let mut at_other = publisher(&other).await;
    for version in ["2", "3", "4", "5"] {
        theirs = site
            .realm
            .release(&os(), Some(theirs.head()), version, SIGNERS);
        at_other.publish(&theirs).await?;
    }
    daemon.signal("TERM")?;
    daemon.wait(Duration::from_secs(30))?;
    other.configure(&site.configuration(&other, "", ""))?;
    let set = std::process::Command::new(tidings_tests::binary("tidingsd"))
        .args(["set-head", os().as_str(), "--config"])
        .arg(other.config())
        .output()?;
    assert!(set.status.success(), "{set:?}");
    let client = by_hand(&ensemble, &site).await;
    assert_eq!(kept(&client, &os()).await, 0);
    // Whoever has the wrong one begins with nothing, and gets this one.
    let _other = other.start()?;
    until_head(&other, &os(), 5).await;
    daemons[0].take().unwrap().kill()?;
    let fresh = site.member("c", "", "")?;
    let _fresh = fresh.start()?;
    until_head(&fresh, &os(), 5).await;
    assert_eq!(heads_of(&fresh, &os()).await, heads_of(&other, &os()).await);
    Ok(())
}
