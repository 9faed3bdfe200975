//! What a cluster is for: one log, whoever is asked.

use tidings_tests::{monitoring, schema::Schema};

use crate::cluster::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_one_member_takes_all_have() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(3, "")?;
    let site = Site::new(&ensemble, realm());
    let admin = tidings_tests::free_address()?;
    let with_admin = |name| {
        if name == "b" {
            format!("[admin]\nlisten = [\"{admin}\"]\n")
        } else {
            String::new()
        }
    };
    let members: Vec<Fixture> = ["a", "b", "c"]
        .map(|name| site.member(name, "", &with_admin(name)))
        .into_iter()
        .collect::<Result<_, _>>()?;
    site.init(&members[0])?;
    let _daemons = members
        .iter()
        .map(|member| member.start().map(Some))
        .collect::<Result<Vec<_>, _>>()?;
    site.publish_trust(&members[0]).await?;
    until_acquainted(&members).await;
    let channels: [Channel; 2] = [os(), "test.app".parse()?];
    let mut heads = [None, None];
    for round in 0..9 {
        let mut publisher = publisher(&members[round % 3]).await;
        for (channel, head) in channels.iter().zip(&mut heads) {
            until_head(
                &members[round % 3],
                channel,
                head.map_or(0, |head: Head| head.serial.number()),
            )
            .await;
            *head = Some(publish(&site.realm, &mut publisher, channel, *head, 5, SIGNERS).await?);
        }
    }
    for channel in &channels {
        all_have(&members, channel, 45).await;
    }
    let client = by_hand(&ensemble, &site).await;
    until("the tree has them", async || {
        kept(&client, &os()).await == 45
    })
    .await;
    // An operator sees who is there.
    let (_, status) = get(admin, "/status");
    let status: serde_json::Value = serde_json::from_str(&status)?;
    assert_eq!(Schema::read("status").wrong("status", &status), None);
    // What alerts and the dashboard name of a cluster is there.
    let (_, metrics) = get(admin, "/metrics");
    let mut named = monitoring::named()?;
    named.retain(|name| name.starts_with("tidings_cluster_"));
    assert!(!named.is_empty());
    let exported = monitoring::exported(&metrics);
    let missing: Vec<_> = named.difference(&exported).collect();
    assert!(missing.is_empty(), "{missing:?} are not in {metrics}");
    let cluster = &status["cluster"];
    let names: Vec<_> = cluster["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "b", "c"], "{status}");
    assert_eq!(
        (
            cluster["state"].as_str(),
            cluster["statements_to_come"].as_u64()
        ),
        (Some("member"), Some(0)),
        "{status}"
    );
    assert!(cluster["signs"].as_str().is_some(), "{status}");
    // And it goes on.
    publish(
        &site.realm,
        &mut publisher(&members[1]).await,
        &os(),
        heads[0],
        1,
        SIGNERS,
    )
    .await?;
    all_have(&members, &os(), 46).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_publishers_at_several_members_one_wins() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a", "b", "c"], "", "").await?;
    for member in &members {
        until_head(member, &site.realm.anchor.namespace.trust_log(), 1).await;
    }
    let mut after = None;
    for round in 0..20 {
        let offers: Vec<Statement> = (0..members.len())
            .map(|n| {
                site.realm
                    .release(&os(), after, &format!("{round}.{n}"), SIGNERS)
            })
            .collect();
        let posts = members
            .iter()
            .zip(&offers)
            .map(|(member, offer)| post(member, offer));
        let answers: Vec<String> = futures_util::future::join_all(posts)
            .await
            .into_iter()
            .map(|(answer, _)| answer)
            .collect();
        let won: Vec<usize> = (0..offers.len())
            .filter(|n| answers[*n].starts_with("240"))
            .collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let head = offers[won[0]].head();
        assert!(
            answers
                .iter()
                .enumerate()
                .all(|(n, answer)| n == won[0] || answer.starts_with(&format!("441 head {head};"))),
            "{answers:?}"
        );
        // Asking again gets the same answer, wherever.
        let (again, _) = post(&members[(won[0] + 1) % 3], &offers[won[0]]).await;
        assert!(again.starts_with("240"), "{again}");
        after = Some(head);
    }
    all_have(&members, &os(), 20).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_servers_have_forgotten_comes_from_a_member() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let mut realm = realm();
    let site = Site::new(&ensemble, Realm::clone_of(&realm));
    let (members, mut daemons) = site.found(&["a", "b", "c"], "", "").await?;
    let mut at_a = publisher(&members[0]).await;
    let first = publish(&realm, &mut at_a, &os(), None, 10, SIGNERS).await?;
    until_head(&members[2], &os(), 10).await;
    // One is away, for a rotation of keys and more than the servers keep.
    daemons[2].take().unwrap().kill()?;
    let before = publish(&realm, &mut at_a, &os(), Some(first), 50, SIGNERS).await?;
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 2 ann cem",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    let rotation = realm.rotate(&roles, &[(&os(), before)], &["root1", "root2"]);
    at_a.publish(&rotation).await?;
    let after = publish(&realm, &mut at_a, &os(), Some(before), 50, &["ann", "cem"]).await?;
    let client = by_hand(&ensemble, &site).await;
    forget(&client, 20).await;
    // It comes back; another one comes with nothing at all.
    daemons[2] = Some(members[2].start()?);
    let fresh = site.member("d", "", "")?;
    let _fresh = fresh.start()?;
    for member in [&members[2], &fresh] {
        until_head(member, &os(), 110).await;
        assert_eq!(
            heads_of(member, &os()).await,
            heads_of(&members[0], &os()).await
        );
        says(member, "comes from other members").await;
    }
    // And they are members like the others.
    publish(
        &realm,
        &mut publisher(&fresh).await,
        &os(),
        Some(after),
        5,
        &["ann", "cem"],
    )
    .await?;
    for member in members.iter().chain([&fresh]) {
        until_head(member, &os(), 115).await;
    }
    Ok(())
}

/// A broker that was alone is joined by others; what it has had before is theirs too.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_origin_becomes_a_cluster() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let single = site.member("a", "", "")?;
    single.configure("")?;
    let daemon = single.start()?;
    let mut at_single = publisher(&single).await;
    for statement in &site.realm.log {
        at_single.publish(statement).await?;
    }
    let at = publish(&site.realm, &mut at_single, &os(), None, 300, SIGNERS).await?;
    daemon.signal("TERM")?;
    daemon.wait(Duration::from_secs(30))?;
    single.configure(&site.configuration(&single, "", ""))?;
    site.init(&single)?;
    let _first = single.start()?;
    let second = site.member("b", "", "")?;
    let _second = second.start()?;
    until_head(&second, &os(), 300).await;
    publish(
        &site.realm,
        &mut publisher(&second).await,
        &os(),
        Some(at),
        3,
        SIGNERS,
    )
    .await?;
    all_have(&[single, second], &os(), 303).await;
    Ok(())
}

/// A publisher that sends what follows before what it follows, to several members at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_its_time_is_stored_by_nobody_alone() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a", "b"], "", "").await?;
    until_head(&members[1], &site.realm.anchor.namespace.trust_log(), 1).await;
    let statements = releases(&site.realm, &os(), None, 60, SIGNERS);
    for pair in statements.chunks(2) {
        let settled = async {
            let mut answers = Vec::new();
            // Later and later against each other.
            answers.push(post(&members[1], &pair[0]).await.0);
            answers
        };
        let early = async {
            let mut answer = post(&members[0], &pair[1]).await.0;
            while !answer.starts_with("240") {
                answer = post(&members[0], &pair[1]).await.0;
            }
        };
        let (answers, ()) = tokio::join!(settled, early);
        assert!(answers[0].starts_with("240"), "{answers:?}");
        let rival = site
            .realm
            .release(&os(), Some(pair[0].head()), "rival", SIGNERS);
        assert!(post(&members[1], &rival).await.0.starts_with("441"));
    }
    all_have(&members, &os(), 60).await;
    Ok(())
}

/// A trust statement ends what the key of a publisher may do, at every member at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_away_is_refused_everywhere() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let mut realm = realm();
    let site = Site::new(&ensemble, Realm::clone_of(&realm));
    let (members, _daemons) = site.found(&["a", "b"], "", "").await?;
    until_head(&members[1], &site.realm.anchor.namespace.trust_log(), 1).await;
    let at = publish(
        &realm,
        &mut publisher(&members[0]).await,
        &os(),
        None,
        3,
        SIGNERS,
    )
    .await?;
    until_head(&members[1], &os(), 3).await;
    let stolen: Vec<Statement> = releases(&realm, &os(), Some(at), 1, SIGNERS);
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 2 ann cem",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    let rotation = realm.rotate(&roles, &[(&os(), at)], &["root1", "root2"]);
    // The rotation is settled at one member; the thief asks the other in the same moment.
    assert!(post(&members[0], &rotation).await.0.starts_with("240"));
    let (answer, _) = post(&members[1], &stolen[0]).await;
    assert!(answer.starts_with("441"), "{answer}");
    publish(
        &realm,
        &mut publisher(&members[1]).await,
        &os(),
        Some(at),
        3,
        &["ann", "cem"],
    )
    .await?;
    all_have(&members, &os(), 6).await;
    Ok(())
}

/// The servers speak TLS alone, and ask for certificates.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_are_reached_over_tls() -> anyhow::Result<()> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let directory = tempfile::tempdir()?;
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), pem)
    };
    let issue = |issuer: &Issuer<'static, KeyPair>, name: &str| {
        let mut params =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (
            params.signed_by(&key, issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    };
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let ca = write("ca.pem", &ours.1);
    let (certificate, key) = issue(&ours.0, "server");
    let store = write("server.pem", &format!("{key}{certificate}"));
    let secure = tidings_tests::free_address()?;
    let more = format!(
        "secureClientPort={}\nsecureClientPortAddress=127.0.0.1\nserverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
         ssl.keyStore.location={store}\nssl.keyStore.type=PEM\nssl.trustStore.location={ca}\nssl.trustStore.type=PEM\nssl.clientAuth=need\n",
        secure.port()
    );
    let ensemble = Ensemble::start(1, &more)?;
    let site = Site {
        servers: format!("\"{secure}\""),
        ..Site::new(&ensemble, realm())
    };
    let login = |name: &str, issuer: &Issuer<'static, KeyPair>, ca: &str| {
        let (certificate, key) = issue(issuer, name);
        let (certificate, key) = (
            write(&format!("{name}.pem"), &certificate),
            write(&format!("{name}.key"), &key),
        );
        format!(
            "[cluster.tls]\nca_file = \"{ca}\"\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n"
        )
    };
    let (members, _daemons) = site
        .found(&["a", "b"], &login("a", &ours.0, &ca), "")
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
    all_have(&members, &os(), 3).await;
    // A certificate of another authority, or servers whose certificate is none of ours: nothing is
    // read, nothing is stored.
    let other = write("other.pem", &theirs.1);
    for (name, tls) in [
        ("stranger", login("stranger", &theirs.0, &ca)),
        ("deceived", login("deceived", &ours.0, &other)),
    ] {
        let member = site.member(name, &tls, "")?;
        let _daemon = member.start()?;
        says(&member, "none of the ZooKeeper servers").await;
        assert_eq!(head(&member, &os()).await?, 0);
    }
    Ok(())
}
