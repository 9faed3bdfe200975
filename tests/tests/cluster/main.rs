//! Several brokers that are one origin: a real ensemble, real brokers.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tidings_client::{Channel, Head, Publisher, Statement};
use tidings_tests::{
    Daemon, Fixture,
    cluster::{SESSION_SECONDS, Site},
    ensemble::Ensemble,
    realm::Realm,
    tree::{connect, head, os, publish, read_all, realm, releases, until, until_head},
};
use tokio::time::sleep;
use zookeeper_client as zk;

const SIGNERS: &[&str] = &["ann", "bob"];

async fn heads_of(member: &Fixture, channel: &Channel) -> Vec<Head> {
    read_all(member, channel).await.unwrap().iter().map(Statement::head).collect()
}

/// All members have the same log, of so many statements.
async fn all_have(members: &[Fixture], channel: &Channel, count: u32) {
    let mut logs = Vec::new();
    for member in members {
        until_head(member, channel, count).await;
        logs.push(heads_of(member, channel).await);
    }
    assert!(logs.iter().all(|log| *log == logs[0] && log.len() == count as usize), "{logs:?}");
}

async fn publisher(member: &Fixture) -> Publisher {
    Publisher::connect(member.source().unwrap()).await.unwrap()
}

/// Somebody who writes into the tree by hand.
async fn by_hand(ensemble: &Ensemble, site: &Site) -> zk::Client {
    let client = zk::Client::connect(&ensemble.servers[0].address.to_string()).await.unwrap();
    client.chroot(site.root.clone()).unwrap_or_else(|_| panic!("no root"))
}

async fn says(member: &Fixture, what: &str) {
    until(&format!("{} says {what:?}", member.name), async || member.log().contains(what)).await;
}

/// POSTs once; the answer, and how long it took.
async fn post(member: &Fixture, statement: &Statement) -> (String, Duration) {
    let mut connection = connect(member).await.unwrap();
    let began = Instant::now();
    let response = connection.post(statement).await.unwrap();
    (response.to_string(), began.elapsed())
}

fn head_and_tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let (head, tail) = (lines.iter().take(40), lines.iter().rev().take(20).rev());
    head.chain(tail).copied().collect::<Vec<_>>().join("\n")
}

fn get(address: std::net::SocketAddr, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

async fn kept(client: &zk::Client, channel: &Channel) -> usize {
    client.list_children(&format!("/entries/{channel}")).await.map_or(0, |entries| entries.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_member_takes_all_have_and_the_servers_forget() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(3, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a", "b", "c"], "", "").await?;
    let channels: [Channel; 2] = [os(), "test.app".parse()?];
    let mut heads = [None, None];
    for round in 0..9 {
        let mut publisher = publisher(&members[round % 3]).await;
        for (channel, head) in channels.iter().zip(&mut heads) {
            until_head(&members[round % 3], channel, head.map_or(0, |head: Head| head.serial.number())).await;
            *head = Some(publish(&site.realm, &mut publisher, channel, *head, 5, SIGNERS).await?);
        }
    }
    for channel in &channels {
        all_have(&members, channel, 45).await;
    }
    let client = by_hand(&ensemble, &site).await;
    until("the servers forget", async || kept(&client, &os()).await == 0).await;
    // An operator sees who is there.
    let urls: Vec<String> = members.iter().map(Fixture::url).collect();
    let status = std::process::Command::new(tidings_tests::binary("tidings"))
        .args(["status", "--json"])
        .args(&urls)
        .env("TIDINGS_ANCHOR", site.realm.anchor.to_string())
        .output()?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    let standing = status["brokers"][1]["standing"].to_string();
    for name in ["a", "b", "c"] {
        assert!(standing.contains(&format!("member {name} at nntp://")), "{standing}");
    }
    assert!(
        standing.contains(" b is a member; 0 statements of 0 channels are still to come; ") && standing.contains(" signs beats and trims"),
        "{standing}"
    );
    // And it goes on.
    publish(&site.realm, &mut publisher(&members[1]).await, &os(), heads[0], 1, SIGNERS).await?;
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
        let offers: Vec<Statement> =
            (0..members.len()).map(|n| site.realm.release(&os(), after, &format!("{round}.{n}"), SIGNERS)).collect();
        let posts = members.iter().zip(&offers).map(|(member, offer)| post(member, offer));
        let answers: Vec<String> = futures_util::future::join_all(posts).await.into_iter().map(|(answer, _)| answer).collect();
        let won: Vec<usize> = (0..offers.len()).filter(|n| answers[*n].starts_with("240")).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let head = offers[won[0]].head();
        assert!(
            answers.iter().enumerate().all(|(n, answer)| n == won[0] || answer.starts_with(&format!("441 head {head};"))),
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
    let (members, mut daemons) = site.found(&["a", "b", "c"], "keep_entries = 16\n", "").await?;
    let mut at_a = publisher(&members[0]).await;
    let first = publish(&realm, &mut at_a, &os(), None, 10, SIGNERS).await?;
    until_head(&members[2], &os(), 10).await;
    // One is away, for a rotation of keys and more than the servers keep.
    daemons[2].take().unwrap().kill()?;
    let before = publish(&realm, &mut at_a, &os(), Some(first), 40, SIGNERS).await?;
    let roles = ["trust * 2 root1 root2 root3", "release * 2 ann cem", "withdraw * 1 stop", "beat * 1 beat"];
    let rotation = realm.rotate(&roles, &[(&os(), before)], &["root1", "root2"]);
    at_a.publish(&rotation).await?;
    let after = publish(&realm, &mut at_a, &os(), Some(before), 40, &["ann", "cem"]).await?;
    let client = by_hand(&ensemble, &site).await;
    until("the servers forget", async || kept(&client, &os()).await <= 16).await;
    // It comes back; another one comes with nothing at all.
    daemons[2] = Some(members[2].start()?);
    let fresh = site.member("d", "keep_entries = 16\n", "")?;
    let _fresh = fresh.start()?;
    for member in [&members[2], &fresh] {
        until_head(member, &os(), 90).await;
        assert_eq!(heads_of(member, &os()).await, heads_of(&members[0], &os()).await);
        says(member, "comes from other members").await;
    }
    // And they are members like the others.
    publish(&realm, &mut publisher(&fresh).await, &os(), Some(after), 5, &["ann", "cem"]).await?;
    for member in members.iter().chain([&fresh]) {
        until_head(member, &os(), 95).await;
    }
    Ok(())
}

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
    let at = publish(&site.realm, &mut publisher(&members[0]).await, &os(), None, 3, SIGNERS).await?;
    until_head(&members[1], &os(), 3).await;
    until("it is ready", async || get(admin, "/readyz").starts_with("HTTP/1.1 200")).await;
    ensemble.servers[0].kill()?;
    ensemble.servers[1].kill()?;
    let next = site.realm.release(&os(), Some(at), "1.4", SIGNERS);
    // The first answer may come from before it was known; soon it is known at once.
    until("it is known", async || {
        let (answer, took) = post(&members[0], &next).await;
        assert!(answer.starts_with("441") && took < Duration::from_secs(15), "{answer} after {took:?}");
        answer.contains("nothing was stored") && took < Duration::from_millis(500)
    })
    .await;
    assert!(get(admin, "/readyz").starts_with("HTTP/1.1 503") && get(admin, "/healthz").starts_with("HTTP/1.1 200"));
    let metrics = get(admin, "/metrics");
    assert!(metrics.contains("tidings_cluster_state{state=\"member\"} 0") && metrics.contains("tidings_cluster_signs 0"), "{metrics}");
    assert_eq!(heads_of(&members[0], &os()).await.len(), 3);
    let mut watch = connect(&members[1]).await?;
    let promised = watch.watch(&format!("{}:2", os())).await?;
    assert_eq!(watch.event(promised).await?.unwrap().statement.serial().number(), 3);
    let motd = connect(&members[0]).await?.listing("LIST MOTD", tidings_protocol::nntp::code::LIST).await?;
    assert!(motd.contains("does not reach a majority") || motd.contains("is not connected"), "{motd}");
    // A member that starts now serves what it has.
    ensemble.servers[0].start()?;
    until("it goes on", async || post(&members[0], &next).await.0.starts_with("240")).await;
    // It comes through the watch that has been there all the time.
    assert_eq!(watch.event(promised).await?.unwrap().statement.id(), next.id());
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
        let statement = site.realm.release(&os(), after, &format!("1.{count}"), SIGNERS);
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

async fn signer(client: &zk::Client) -> String {
    let (data, _) = client.get_data("/term").await.unwrap();
    String::from_utf8(data).unwrap().split(' ').next().unwrap().to_owned()
}

/// Sessions that end: the signer is paused for longer than its session, and comes back when another one signs.
#[tokio::test(flavor = "multi_thread")]
async fn one_member_signs_beats_and_a_paused_one_cannot_contradict_it() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let keys = tempfile::tempdir()?;
    let (members, daemons) = site.found(&["a", "b"], "", &site.beats(keys.path())?).await?;
    publish(&site.realm, &mut publisher(&members[0]).await, &os(), None, 3, SIGNERS).await?;
    let beat = site.realm.anchor.namespace.beat();
    until_beats(&members[0], &beat, 2).await;
    let client = by_hand(&ensemble, &site).await;
    for _ in 0..2 {
        let first = signer(&client).await;
        let n = members.iter().position(|member| member.name == first).unwrap();
        daemons[n].as_ref().unwrap().signal("STOP")?;
        until("another one signs", async || !["-", &first].contains(&signer(&client).await.as_str())).await;
        let other = &members[1 - n];
        let there = head(other, &beat).await?;
        until_beats(other, &beat, there + 2).await;
        daemons[n].as_ref().unwrap().signal("CONT")?;
        says(&members[n], "this member does not sign beats and trim any more").await;
        let there = head(other, &beat).await?;
        until_beats(other, &beat, there + 3).await;
        // What the former signer serves is the same log.
        let (one, two) = (beats_of(&members[0], &beat).await, beats_of(&members[1], &beat).await);
        let both: Vec<&String> = one.iter().filter(|line| two.contains(line)).collect();
        assert!(both.len() + 2 > one.len().min(two.len()) && both.len() > 5, "{one:?} {two:?}");
        assert!(!members.iter().any(|member| member.directory.join("data/forks").exists()));
    }
    Ok(())
}

/// Serials and message-ids.
async fn beats_of(member: &Fixture, beat: &Channel) -> Vec<String> {
    let mut connection = connect(member).await.unwrap();
    connection.group(beat, None).await.unwrap();
    let listing = connection.listing("HDR Message-ID 1-", tidings_protocol::nntp::code::HDR).await.unwrap();
    listing.lines().map(String::from).collect()
}

async fn until_beats(member: &Fixture, beat: &Channel, serial: u32) {
    until(&format!("beat {serial}"), async || head(member, beat).await.unwrap_or(0) >= serial).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_writes_into_the_tree_is_not_believed() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a", "b"], "", "").await?;
    let good = publish(&site.realm, &mut publisher(&members[0]).await, &os(), None, 3, SIGNERS).await?;
    until_head(&members[1], &os(), 3).await;
    let client = by_hand(&ensemble, &site).await;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    let forged = site.realm.release(&os(), Some(good), "6.6", &["eve", "mallory"]);
    let entry = format!("/entries/{}/0000000004", os());
    let (old, _) = client.get_data(&format!("/heads/{}", os())).await?;
    client.create(&entry, &[b"x!not-for-mail\n", forged.octets()].concat(), &options).await?;
    client.set_data(&format!("/heads/{}", os()), forged.head().to_string().as_bytes(), None).await?;
    for member in &members {
        says(member, "cannot be followed").await;
        assert_eq!(head(member, &os()).await?, 3);
        let next = site.realm.release(&os(), Some(good), "1.4", SIGNERS);
        let (answer, _) = post(member, &next).await;
        assert!(answer.starts_with("441") && answer.contains("does not verify here"), "{answer}");
    }
    // Other channels are not affected.
    publish(&site.realm, &mut publisher(&members[1]).await, &"test.app".parse()?, None, 2, SIGNERS).await?;
    // No statement at all, and a head that is none.
    for junk in [&b"junk"[..], b"path\njunk", b""] {
        client.set_data(&entry, junk, None).await?;
        client.set_data(&format!("/heads/{}", os()), forged.head().to_string().as_bytes(), None).await?;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(head(&members[0], &os()).await?, 3);
    }
    client.set_data(&format!("/heads/{}", os()), b"junk", None).await?;
    sleep(Duration::from_millis(300)).await;
    // The operator mends it.
    client.delete(&entry, None).await?;
    client.set_data(&format!("/heads/{}", os()), &old, None).await?;
    says(&members[0], "can be followed again").await;
    let next = site.realm.release(&os(), Some(good), "1.4", SIGNERS);
    until("it goes on", async || post(&members[0], &next).await.0.starts_with("240")).await;
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
    assert!(answer.starts_with("441") && answer.contains("nothing was stored"), "{answer}");
    // Something else is there.
    let client = zk::Client::connect(&ensemble.servers[0].address.to_string()).await?;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    client.create(&site.root, b"", &options).await?;
    client.create(&format!("{}/queue", site.root), b"", &options).await?;
    says(&member, "holds queue and no layout").await;
    client.create(&format!("{}/layout", site.root), b"tidings 9", &options).await?;
    says(&member, r#"holds \"tidings 9\""#).await;
    client.delete(&format!("{}/layout", site.root), None).await?;
    client.delete(&format!("{}/queue", site.root), None).await?;
    // The right place; once.
    site.init(&member)?;
    assert!(site.init(&member).unwrap_err().to_string().contains("there is a cluster already"));
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
        format!("user = \"tidings\"\npassword_file = \"{}\"\n", path.display())
    };
    let (right, wrong) = (password("right", "secret\n"), password("wrong", "guess\n"));
    let (members, _daemons) = site.found(&["a"], &right, "").await?;
    publish(&site.realm, &mut publisher(&members[0]).await, &os(), None, 2, SIGNERS).await?;
    for (name, login) in [("b", wrong.as_str()), ("c", "")] {
        let other = site.member(name, login, "")?;
        let _daemon = other.start()?;
        says(&other, "ZooKeeper does not let us use").await;
        assert_eq!(head(&other, &os()).await?, 0);
    }
    // Nor does somebody with the right address alone.
    let nobody = by_hand(&ensemble, &site).await;
    assert_eq!(nobody.get_data("/layout").await.unwrap_err(), zk::Error::NoAuth);
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
    assert!(again.elapsed() < Duration::from_secs(3 * SESSION_SECONDS), "{:?}", again.elapsed());
    Ok(())
}

fn faketime() -> Option<String> {
    let paths = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|machine| format!("/usr/lib/{machine}/faketime/libfaketime.so.1"));
    paths.into_iter().find(|path| Path::new(path).exists())
}

/// The clocks of two brokers are an hour apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_wrong_clock_signs_no_beats_and_does_no_harm() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let keys = tempfile::tempdir()?;
    let beats = site.beats(keys.path())?;
    let wrong = |name: &str, by: &str| {
        let library = faketime().expect("libfaketime is missing: install Debian's package `libfaketime`");
        let preload = ["env".into(), format!("LD_PRELOAD={library}"), "FAKETIME_DONT_FAKE_MONOTONIC=1".into(), format!("FAKETIME={by}")];
        let mut member = site.member(name, "", &beats).unwrap();
        member.launcher = preload.to_vec();
        member
    };
    // Both are there before the one whose clock is right.
    let (slow, fast) = (wrong("slow", "-30m"), wrong("fast", "+30m"));
    site.init(&slow)?;
    let _daemons: Vec<Daemon> = [slow.start()?, fast.start()?].into();
    says(&slow, "the clocks of this broker and of the cluster's servers are apart").await;
    says(&fast, "the clocks of this broker and of the cluster's servers are apart").await;
    site.publish_trust(&slow).await?;
    let client = by_hand(&ensemble, &site).await;
    assert_eq!(signer(&client).await, "-");
    let right = site.member("right", "", &beats)?;
    let _right = right.start()?;
    until("the right one signs", async || signer(&client).await == "right").await;
    until_beats(&slow, &site.realm.anchor.namespace.beat(), 2).await;
    // Publishing is possible everywhere.
    let at = publish(&site.realm, &mut publisher(&slow).await, &os(), None, 3, SIGNERS).await?;
    until_head(&fast, &os(), 3).await;
    publish(&site.realm, &mut publisher(&fast).await, &os(), Some(at), 3, SIGNERS).await?;
    until_head(&right, &os(), 6).await;
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
    publish(&site.realm, &mut publisher(&second).await, &os(), Some(at), 3, SIGNERS).await?;
    all_have(&[single, second], &os(), 303).await;
    Ok(())
}

/// A member whose log was written by somebody else's cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_between_members_is_an_alarm() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a"], "", "").await?;
    publish(&site.realm, &mut publisher(&members[0]).await, &os(), None, 3, SIGNERS).await?;
    let other = site.member("b", "", "")?;
    other.configure("")?;
    let daemon = other.start()?;
    let mut at_other = publisher(&other).await;
    for statement in &site.realm.log {
        at_other.publish(statement).await?;
    }
    let theirs = site.realm.release(&os(), None, "other", SIGNERS);
    at_other.publish(&theirs).await?;
    daemon.signal("TERM")?;
    daemon.wait(Duration::from_secs(30))?;
    other.configure(&site.configuration(&other, "", ""))?;
    let _other = other.start()?;
    says(&other, "cannot be followed").await;
    assert_eq!(heads_of(&other, &os()).await, [theirs.head()]);
    let (answer, _) = post(&other, &site.realm.release(&os(), Some(theirs.head()), "2", SIGNERS)).await;
    assert!(answer.starts_with("441"), "{answer}");
    assert_eq!(heads_of(&members[0], &os()).await.len(), 3);
    Ok(())
}

/// The bound of what the servers keep holds although one channel cannot be filled by anybody, and an operator has a way out.
#[tokio::test(flavor = "multi_thread")]
async fn one_channel_that_nobody_can_fill_stops_nothing_else() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let keys = tempfile::tempdir()?;
    let (members, mut daemons) = site.found(&["a", "b"], "keep_entries = 16\n", &site.beats(keys.path())?).await?;
    let app: Channel = "test.app".parse()?;
    let mut at_a = publisher(&members[0]).await;
    let at = publish(&site.realm, &mut at_a, &app, None, 3, SIGNERS).await?;
    until_head(&members[1], &app, 3).await;
    let client = by_hand(&ensemble, &site).await;
    let far = site.realm.release(&app, Some(Head { serial: "98".parse()?, ..at }), "99", SIGNERS);
    client.set_data(&format!("/heads/{app}"), far.head().to_string().as_bytes(), None).await?;
    let (answer, took) = {
        until("it is noticed", async || {
            post(&members[0], &site.realm.release(&app, Some(at), "4", SIGNERS)).await.1 < Duration::from_secs(1)
        })
        .await;
        post(&members[0], &site.realm.release(&app, Some(at), "4", SIGNERS)).await
    };
    assert!(answer.contains("has not yet got all of test.app") && took < Duration::from_secs(5), "{answer} after {took:?}");
    publish(&site.realm, &mut at_a, &os(), None, 60, SIGNERS).await?;
    until_head(&members[1], &os(), 60).await;
    until("the servers forget", async || kept(&client, &os()).await == 0).await;
    let beat = site.realm.anchor.namespace.beat();
    let there = head(&members[0], &beat).await?;
    until_beats(&members[0], &beat, there + 3).await;
    // The way out.
    daemons[0].take().unwrap().signal("TERM")?;
    until("it is stopped", async || connect(&members[0]).await.is_err()).await;
    let set = || {
        let command = ["set-head", "test.app", "--config"];
        std::process::Command::new(tidings_tests::binary("tidingsd")).args(command).arg(members[0].config()).output().unwrap()
    };
    until("the store is free", async || set().status.success()).await;
    daemons[0] = Some(members[0].start()?);
    let next = site.realm.release(&app, Some(at), "4", SIGNERS);
    until("it goes on", async || post(&members[1], &next).await.0.starts_with("240")).await;
    all_have(&members, &app, 4).await;
    Ok(())
}

/// What is left in the tree, or lost from it, is put right or named, and nobody is busy with it.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_left_or_lost_are_mended_or_named() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a", "b"], "", "").await?;
    let at = publish(&site.realm, &mut publisher(&members[0]).await, &os(), None, 3, SIGNERS).await?;
    until_head(&members[1], &os(), 3).await;
    let client = by_hand(&ensemble, &site).await;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    until("the servers forget", async || kept(&client, &os()).await == 0).await;
    // The place for entries is gone; it is made anew.
    client.delete(&format!("/entries/{}", os()), None).await?;
    let at = publish(&site.realm, &mut publisher(&members[0]).await, &os(), Some(at), 1, SIGNERS).await?;
    until_head(&members[1], &os(), 4).await;
    // The head is gone; members have it.
    client.delete(&format!("/heads/{}", os()), None).await?;
    until("the head is there again", async || client.check_stat(&format!("/heads/{}", os())).await.unwrap().is_some()).await;
    let next = site.realm.release(&os(), Some(at), "5", SIGNERS);
    until("it goes on", async || post(&members[1], &next).await.0.starts_with("240")).await;
    until_head(&members[0], &os(), 5).await;
    // An entry is there that nobody has settled.
    client.create(&format!("/entries/{}/0000000006", os()), b"junk", &options).await?;
    let six = site.realm.release(&os(), Some(next.head()), "6", SIGNERS);
    let (answer, took) = post(&members[0], &six).await;
    assert!(
        answer.starts_with("441") && answer.contains("does not verify here") && took < Duration::from_secs(8),
        "{answer} after {took:?}"
    );
    says(&members[0], "`tidingsd set-head` mends it").await;
    // Members say once a second how they are; whoever tried again and again would write much more.
    let zxid = async |name: &str| client.create(&format!("/{name}"), b"", &options).await.unwrap().0.czxid;
    let before = zxid("before").await;
    sleep(Duration::from_secs(3)).await;
    let written = zxid("after").await - before;
    assert!(written < 60, "{written} writes in three seconds: a broker is busy with it");
    client.delete(&format!("/entries/{}/0000000006", os()), None).await?;
    until("it goes on", async || post(&members[0], &six).await.0.starts_with("240")).await;
    Ok(())
}

/// Heads that are set while others are being read, trust logs above all, are all looked at; and one that is closed to us stops nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn no_head_is_overlooked() -> anyhow::Result<()> {
    const NAMESPACES: usize = 80;
    let ensemble = Ensemble::start(1, "")?;
    let site = Site::new(&ensemble, realm());
    let admin = tidings_tests::free_address()?;
    let member = site.member("a", "", &format!("[admin]\nlisten = [\"{admin}\"]\n"))?;
    let id = site.realm.anchor.id;
    let more: String = (0..NAMESPACES).map(|n| format!("\"n{n} {id}\", ")).collect();
    let text = fs::read_to_string(member.config())?.replace("anchors = [", &format!("anchors = [{more}"));
    fs::write(member.config(), text)?;
    site.init(&member)?;
    let daemon = member.start()?;
    site.publish_trust(&member).await?;
    let client = by_hand(&ensemble, &site).await;
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    for n in 0..NAMESPACES {
        client.create(&format!("/heads/n{n}.trust"), format!("7 {id}").as_bytes(), &options).await?;
    }
    until("all are known to be lacking", async || {
        let status = get(admin, "/status");
        let status: serde_json::Value = serde_json::from_str(status.split_once("\r\n\r\n").unwrap().1).unwrap();
        status["cluster"]["filled_from_members"].as_array().unwrap().len() == NAMESPACES
    })
    .await;
    let closed = zk::AuthId::new("digest", "somebody:else");
    let acl = [zk::Acl::new(zk::Permission::READ, closed)];
    client.create("/heads/test.closed", b"1 x", &zk::CreateMode::Persistent.with_acls(zk::Acls::new(&acl))).await?;
    // The servers tell nobody of what he may not read; whoever looks at everything finds it.
    daemon.kill()?;
    let _daemon = member.start()?;
    says(&member, "test.closed").await;
    publish(&site.realm, &mut publisher(&member).await, &os(), None, 3, SIGNERS).await?;
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
    let at = publish(&site.realm, &mut publisher(&members[0]).await, &os(), None, 20, SIGNERS).await?;
    until_head(&members[1], &os(), 20).await;
    let client = by_hand(&ensemble, &site).await;
    until("the servers forget", async || kept(&client, &os()).await == 0).await;
    // One is left, so that the next are kept; then none.
    daemons[1].take().unwrap().kill()?;
    until("it is gone", async || client.check_stat("/members/b").await.unwrap().is_none()).await;
    let at = publish(&site.realm, &mut publisher(&members[0]).await, &os(), Some(at), 5, SIGNERS).await?;
    daemons[0].take().unwrap().kill()?;
    daemons[2] = Some(members[2].start()?);
    says(&members[2], "this broker is a member").await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(head(&members[2], &os()).await?, 0);
    let (answer, _) = post(&members[2], &site.realm.release(&os(), Some(at), "x", SIGNERS)).await;
    assert!(answer.starts_with("441"), "{answer}");
    daemons[0] = Some(members[0].start()?);
    until_head(&members[2], &os(), 25).await;
    assert_eq!(heads_of(&members[2], &os()).await, heads_of(&members[0], &os()).await);
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
        let rival = site.realm.release(&os(), Some(pair[0].head()), "rival", SIGNERS);
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
    let at = publish(&realm, &mut publisher(&members[0]).await, &os(), None, 3, SIGNERS).await?;
    until_head(&members[1], &os(), 3).await;
    let stolen: Vec<Statement> = releases(&realm, &os(), Some(at), 1, SIGNERS);
    let roles = ["trust * 2 root1 root2 root3", "release * 2 ann cem", "withdraw * 1 stop", "beat * 1 beat"];
    let rotation = realm.rotate(&roles, &[(&os(), at)], &["root1", "root2"]);
    // The rotation is settled at one member; the thief asks the other in the same moment.
    assert!(post(&members[0], &rotation).await.0.starts_with("240"));
    let (answer, _) = post(&members[1], &stolen[0]).await;
    assert!(answer.starts_with("441"), "{answer}");
    publish(&realm, &mut publisher(&members[1]).await, &os(), Some(at), 3, &["ann", "cem"]).await?;
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
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
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
    let site = Site { servers: format!("\"{secure}\""), ..Site::new(&ensemble, realm()) };
    let login = |name: &str, issuer: &Issuer<'static, KeyPair>, ca: &str| {
        let (certificate, key) = issue(issuer, name);
        let (certificate, key) = (write(&format!("{name}.pem"), &certificate), write(&format!("{name}.key"), &key));
        format!("[cluster.tls]\nca_file = \"{ca}\"\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n")
    };
    let (members, _daemons) = site.found(&["a", "b"], &login("a", &ours.0, &ca), "").await?;
    publish(&site.realm, &mut publisher(&members[0]).await, &os(), None, 3, SIGNERS).await?;
    all_have(&members, &os(), 3).await;
    // A certificate of another authority, or servers whose certificate is none of ours: nothing is read, nothing is stored.
    let other = write("other.pem", &theirs.1);
    for (name, tls) in [("stranger", login("stranger", &theirs.0, &ca)), ("deceived", login("deceived", &ours.0, &other))] {
        let member = site.member(name, &tls, "")?;
        let _daemon = member.start()?;
        says(&member, "none of the ZooKeeper servers").await;
        assert_eq!(head(&member, &os()).await?, 0);
    }
    Ok(())
}
