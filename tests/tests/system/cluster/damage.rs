//! What is lost from the tree, closed to us, or of an earlier version.

use crate::cluster::stage::*;

/// What is left in the tree, or lost from it, is put right or named, and nobody is busy with it.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_left_or_lost_are_mended_or_named() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a", "b"], "", "").await?;
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
    let client = by_hand(&ensemble, &site).await;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    // What was settled is gone; members have it.
    forget(&client, 0).await;
    let at = publish(
        &site.realm,
        &mut publisher(&members[0]).await,
        &os(),
        Some(at),
        1,
        SIGNERS,
    )
    .await?;
    until_head(&members[1], &os(), 4).await;
    // The head is gone; members have it.
    client.delete(&format!("/heads/{}", os()), None).await?;
    until("the head is there again", async || {
        client
            .check_stat(&format!("/heads/{}", os()))
            .await
            .unwrap()
            .is_some()
    })
    .await;
    let next = site.realm.release(&os(), Some(at), "5", SIGNERS);
    until("it goes on", async || {
        post(&members[1], &next).await.0.starts_with("240")
    })
    .await;
    until_head(&members[0], &os(), 5).await;
    // A node is there that nobody has settled: it is named, and passed over.
    client.create("/settled/0-0-x", b"junk", &options).await?;
    says(&members[0], "holds nothing that a member has settled").await;
    let six = site.realm.release(&os(), Some(next.head()), "6", SIGNERS);
    let (answer, _) = post(&members[0], &six).await;
    assert!(answer.starts_with("240"), "{answer}");
    until_head(&members[1], &os(), 6).await;
    // So is one that looks like it, and that no head names.
    let forged = site.realm.release(&os(), Some(six.head()), "6.6", &["eve"]);
    let node = "/settled/0-0-eve";
    client.create(node, &record(&forged, 6), &options).await?;
    says(&members[0], "cannot be followed").await;
    client.delete(node, None).await?;
    says(&members[0], "can be followed again").await;
    // A head is there that nobody has written.
    let path = format!("/heads/{}", os());
    let (good, _) = client.get_data(&path).await?;
    client.set_data(&path, b"junk", None).await?;
    let seven = site.realm.release(&os(), Some(six.head()), "7", SIGNERS);
    let (answer, took) = post(&members[0], &seven).await;
    assert!(
        answer.starts_with("441")
            && answer.contains("does not verify here")
            && took < Duration::from_secs(8),
        "{answer} after {took:?}"
    );
    // Members say once a second how they are; whoever tried again and again would write much more.
    let zxid = async |name: &str| {
        client
            .create(&format!("/{name}"), b"", &options)
            .await
            .unwrap()
            .0
            .czxid
    };
    let before = zxid("before").await;
    sleep(Duration::from_secs(3)).await;
    let written = zxid("after").await - before;
    assert!(
        written < 60,
        "{written} writes in three seconds: a broker is busy with it"
    );
    client.set_data(&path, &good, None).await?;
    until("it goes on", async || {
        post(&members[0], &seven).await.0.starts_with("240")
    })
    .await;
    Ok(())
}

/// Heads that are set while others are being read, trust logs above all, are all looked at; and one
/// that is closed to us stops nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn no_head_is_overlooked() -> anyhow::Result<()> {
    const NAMESPACES: usize = 80;
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let admin = tidings_tests::free_address()?;
    let member = site.member("a", "", &format!("[admin]\nlisten = [\"{admin}\"]\n"))?;
    let id = site.realm.anchor.head.id;
    let more: String = (0..NAMESPACES)
        .map(|n| format!("\"n{n} 1 {id}\", "))
        .collect();
    let text =
        fs::read_to_string(member.config())?.replace("anchors = [", &format!("anchors = [{more}"));
    fs::write(member.config(), text)?;
    site.init(&member)?;
    let daemon = member.start()?;
    site.publish_trust(&member).await?;
    let client = by_hand(&ensemble, &site).await;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    for n in 0..NAMESPACES {
        client
            .create(
                &format!("/heads/n{n}.trust"),
                format!("7 {id}").as_bytes(),
                &options,
            )
            .await?;
    }
    until("all are known to be lacking", async || {
        let (_, status) = get(admin, "/status");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["cluster"]["filled_from_members"]
            .as_array()
            .unwrap()
            .len()
            == NAMESPACES
    })
    .await;
    let closed = zk::AuthId::new("digest", "somebody:else");
    let acl = [zk::Acl::new(zk::Permission::READ, closed)];
    client
        .create(
            "/heads/test.closed",
            b"1 x",
            &zk::CreateMode::Persistent.with_acls(zk::Acls::new(&acl)),
        )
        .await?;
    // The servers tell nobody of what he may not read; whoever looks at everything finds it.
    daemon.kill()?;
    let _daemon = member.start()?;
    says(&member, "test.closed").await;
    publish(
        &site.realm,
        &mut publisher(&member).await,
        &os(),
        None,
        3,
        SIGNERS,
    )
    .await?;
    Ok(())
}

/// What an earlier version has made is refused by name, and carried over when all brokers are
/// stopped.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_tree_is_carried_over() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, mut daemons) = site.found(&["a"], "", "").await?;
    let mut at_a = publisher(&members[0]).await;
    let at = publish(&site.realm, &mut at_a, &os(), None, 70, SIGNERS).await?;
    let daemon = daemons[0].take().unwrap();
    daemon.signal("TERM")?;
    daemon.wait(Duration::from_secs(30))?;
    // As it was: heads with a third word, and a node for each statement, of which some are gone.
    let client = by_hand(&ensemble, &site).await;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    client.create("/entries", b"", &options).await?;
    for name in client.list_children("/heads").await? {
        let head = format!("/heads/{name}");
        let (data, _) = client.get_data(&head).await?;
        client
            .set_data(&head, &[&data[..], b" 1"].concat(), None)
            .await?;
        client
            .create(&format!("/entries/{name}"), b"", &options)
            .await?;
    }
    for node in settled(&client).await {
        for (path, statement) in &node.entries {
            let (channel, serial) = (statement.channel(), statement.serial().number());
            if *channel == os() && serial <= 20 {
                continue;
            }
            let entry = format!("/entries/{channel}/{serial:010}");
            let data = [path.as_bytes(), b"\n", statement.octets()].concat();
            client.create(&entry, &data, &options).await?;
        }
        client.delete(&node.path, None).await?;
    }
    client.delete("/settled", None).await?;
    client.set_data("/layout", b"tidings 2", None).await?;
    let again = members[0].start()?;
    says(&members[0], "was made by an earlier version (`tidings 2`)").await;
    assert_eq!(heads_of(&members[0], &os()).await.len(), 70);
    // Not while a broker of the earlier version may run.
    client.create("/members/old", b"", &options).await?;
    let refused = site.init(&members[0]).unwrap_err().to_string();
    assert!(refused.contains("while old still runs"), "{refused}");
    client.delete("/members/old", None).await?;
    site.init(&members[0])?;
    let (data, _) = client.get_data(&format!("/heads/{}", os())).await?;
    assert_eq!(data, at.to_string().as_bytes());
    assert!(client.check_stat("/entries").await?.is_none());
    assert_eq!(kept(&client, &os()).await, 50);
    // It goes on where it was, also for one that has nothing yet.
    let next = site.realm.release(&os(), Some(at), "71", SIGNERS);
    until("it goes on", async || {
        post(&members[0], &next).await.0.starts_with("240")
    })
    .await;
    let fresh = site.member("b", "", "")?;
    let _fresh = fresh.start()?;
    until_head(&fresh, &os(), 71).await;
    drop(again);
    Ok(())
}
