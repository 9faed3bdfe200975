//! What goes with a tree of brokers: who may read what, air gaps, and looking at all of it.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use tidings_client::{Address, Channel, Connection, Tls};
use tidings_protocol::nntp::code;
use tidings_tests::{
    Fixture, free_address,
    realm::Realm,
    tree::{broker, connect, head, origin, os, publish, read_all, realm, until_head},
};

fn tidings(realm: &Realm, brokers: &[&Fixture], arguments: &[&str]) -> Output {
    let urls: Vec<String> = brokers.iter().map(|fixture| fixture.url()).collect();
    let mut command = tidings_tests::tidings(&std::env::temp_dir());
    if !urls.is_empty() {
        command.env("TIDINGS_BROKERS", urls.join(","));
    }
    command
        .args(arguments)
        .env("TIDINGS_ANCHOR", realm.anchor.to_string());
    command.output().unwrap()
}

#[track_caller]
fn good(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A certificate for the loopback address that signs itself, by `openssl`.
fn certificate(directory: &Path, name: &str) -> (String, String) {
    let (certificate, key) = (
        directory.join(format!("{name}.pem")),
        directory.join(format!("{name}.key")),
    );
    let text = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    let mut openssl = Command::new("openssl");
    openssl
        .args(text.split(' '))
        .args(["-subj", &format!("/CN={name}")])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    assert!(
        openssl.output().unwrap().status.success(),
        "is openssl installed?"
    );
    (certificate.display().to_string(), key.display().to_string())
}

fn output(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(
        Command::new(program)
            .args(arguments)
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap()
    .trim()
    .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_may_not_read_does_not_exist_for_him() {
    let realm = realm();
    let keys = tempfile::tempdir().unwrap();
    let (server, server_key) = certificate(keys.path(), "server");
    let (client, client_key) = certificate(keys.path(), "client");
    let print = output(
        "openssl",
        &["x509", "-in", &client, "-noout", "-fingerprint", "-sha256"],
    );
    let print = print.split_once('=').unwrap().1;
    let hash = output("openssl", &["passwd", "-6", "secret"]);
    let address = free_address().unwrap();
    let fixture = broker(
        &realm,
        &format!(
            r#"nntps = ["{address}"]
[tls]
certificate_file = "{server}"
key_file = "{server_key}"
client_ca_file = "{client}"
[[peer]]
name = "ann"
password = "{hash}"
[[peer]]
name = "region"
certificates = ["{print}"]
[[access]]
channels = "test.secret.*"
readers = ["ann", "region"]
"#
        ),
    )
    .unwrap();
    let _daemon = fixture.start().unwrap();
    let mut publisher = tidings_client::Publisher::connect(fixture.source().unwrap())
        .await
        .unwrap();
    publisher.publish(&realm.log[0]).await.unwrap();
    let secret: Channel = "test.secret.one".parse().unwrap();
    let told = realm.release(&secret, None, "1", &["ann", "bob"]);
    publisher.publish(&told).await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 1, &["ann", "bob"])
        .await
        .unwrap();

    // A stranger: nowhere is it to be seen.
    let mut stranger = connect(&fixture).await.unwrap();
    for command in [
        "LIST ACTIVE",
        "LIST NEWSGROUPS",
        "LIST COUNTS",
        "NEWGROUPS 20200101 000000 GMT",
        "NEWNEWS * 20200101 000000 GMT",
    ] {
        let expected = if command.starts_with("NEWG") {
            code::NEWGROUPS
        } else if command.starts_with("NEWN") {
            code::NEWNEWS
        } else {
            code::LIST
        };
        let listing = stranger.listing(command, expected).await.unwrap();
        assert!(
            listing.contains("test.os.stable") && !listing.contains("secret"),
            "{command}: {listing}"
        );
    }
    assert_eq!(
        stranger
            .command("GROUP test.secret.one")
            .await
            .unwrap()
            .code,
        code::NO_SUCH_GROUP
    );
    assert_eq!(
        stranger
            .command(&format!("ARTICLE {}", told.message_id()))
            .await
            .unwrap()
            .code,
        code::NO_SUCH_ID
    );
    // A watch of it is a watch of nothing.
    let mut watches = connect(&fixture).await.unwrap();
    watches
        .watch("test.secret.one:0 test.secret.new:0 test.*")
        .await
        .unwrap();
    assert_eq!(
        stranger.command("AUTHINFO USER ann").await.unwrap().code,
        code::NEEDS_TLS
    );

    // Somebody with a password, over TLS.
    let tls: Address = format!("nntps://{address}").parse().unwrap();
    let mut ann = Connection::open(&tls, &Tls::from_file(&server).unwrap())
        .await
        .unwrap();
    assert!(ann.is_capable("AUTHINFO").await.unwrap());
    assert_eq!(
        ann.command("AUTHINFO PASS secret").await.unwrap().code,
        code::OUT_OF_SEQUENCE
    );
    assert!(ann.login("ann", "Secret").await.is_err());
    assert_eq!(
        ann.command("GROUP test.secret.one").await.unwrap().code,
        code::NO_SUCH_GROUP
    );
    ann.login("ann", "secret").await.unwrap();
    assert_eq!(
        ann.command("GROUP test.secret.one").await.unwrap().code,
        code::GROUP
    );

    // The same with the command, by password and by certificate.
    let password = keys.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    let password = password.display().to_string();
    let url = tls.to_string();
    let read = ["log", "test.secret.one", "--broker", &url, "--ca", &server];
    for known in [
        ["--user", "ann", "--password-file", &password],
        ["--certificate", &client, "--certificate-key", &client_key],
    ] {
        assert!(
            good(&tidings(&realm, &[], &[&read[..], &known[..]].concat())).starts_with("1 "),
            "{known:?}"
        );
    }
    assert_eq!(good(&tidings(&realm, &[], &read)), "");

    // A mirror with a certificate: it copies, and tells of what is new.
    let leaf = fixture.mirror_of(&[], "").unwrap();
    leaf.configure(&format!(
        "[mirror]\nupstreams = [\"{tls}\"]\n[mirror.login]\nca_file = \"{server}\"\ncertificate_file = \"{client}\"\nkey_file = \"{client_key}\"\n"
    ))
    .unwrap();
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &secret, 1).await;
    publisher
        .publish(&realm.release(&secret, Some(told.head()), "2", &["ann", "bob"]))
        .await
        .unwrap();
    publisher
        .publish(&realm.release(
            &"test.secret.new".parse().unwrap(),
            None,
            "1",
            &["ann", "bob"],
        ))
        .await
        .unwrap();
    until_head(&leaf, &secret, 2).await;
    until_head(&leaf, &"test.secret.new".parse().unwrap(), 1).await;

    let told = tokio::time::timeout(
        Duration::from_secs(1),
        watches.event(Duration::from_secs(30)),
    )
    .await;
    assert!(told.is_err(), "{told:?}");

    // Guessing ends.
    let mut guesser = Connection::open(&tls, &Tls::from_file(&server).unwrap())
        .await
        .unwrap();
    let mut tries = 0;
    while guesser
        .login("ann", "guess")
        .await
        .is_err_and(|error| error.to_string().contains("481"))
    {
        tries += 1;
    }
    assert_eq!(tries, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_air_gap_is_crossed_with_a_file() {
    let mut realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    let old = publish(&realm, &mut publisher, &os(), None, 100, &["ann", "bob"])
        .await
        .unwrap();
    // The keys of the history are retired.
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 dora",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    let rotated = realm.rotate(&roles, &[(&os(), old)], &["root1", "root2"]);
    publisher.publish(&rotated).await.unwrap();
    publish(&realm, &mut publisher, &os(), Some(old), 5, &["dora"])
        .await
        .unwrap();
    let stick = tempfile::tempdir().unwrap();
    let file = |name: &str| stick.path().join(name).display().to_string();
    good(&tidings(
        &realm,
        &[&origin],
        &[
            "export",
            "test.os.stable",
            "--to-serial",
            "60",
            "--out",
            &file("one"),
        ],
    ));
    good(&tidings(
        &realm,
        &[&origin],
        &[
            "export",
            "test.os.stable",
            "--from-serial",
            "61",
            "--out",
            &file("two"),
        ],
    ));

    let peer = "gap_seconds = 1\n[[peer]]\nname = \"stick\"\nnetworks = [\"127.0.0.1\"]\nfeeds = \"test.*\"\n";
    let far = broker(&realm, &format!("[limits]\n{peer}")).unwrap();
    let _far = far.start().unwrap();
    // Half of it does not prove itself any more: its signers are gone, and what vouches for it is
    // in the other half.
    let half = tidings(&realm, &[&far], &["import", &file("one")]);
    assert!(!half.status.success());
    assert_eq!(head(&far, &os()).await.unwrap(), 0);
    let all = good(&tidings(
        &realm,
        &[&far],
        &["import", &file("two"), &file("one")],
    ));
    assert_eq!(all, "107 new, 0 there already\n");
    assert_eq!(
        read_all(&far, &os()).await.unwrap(),
        read_all(&origin, &os()).await.unwrap()
    );
    assert_eq!(
        good(&tidings(
            &realm,
            &[&far],
            &["import", &file("one"), &file("two")]
        )),
        "0 new, 107 there already\n"
    );
    // A broker that never gets the first half begins where the second does.
    let late = broker(&realm, &format!("[limits]\n{peer}")).unwrap();
    let _late = late.start().unwrap();
    let gap = tidings(&realm, &[&late], &["import", &file("two")]);
    assert!(
        !gap.status.success() && String::from_utf8_lossy(&gap.stderr).contains("gap"),
        "{gap:?}"
    );
    until_head(&late, &os(), 105).await;
    assert_eq!(read_all(&late, &os()).await.unwrap().len(), 45);

    // One octet changed on the way, a file cut short, and a broker that does not know us.
    let octets = fs::read(file("two")).unwrap();
    let changed = String::from_utf8_lossy(&octets).replace("Version: 1.70", "Version: 6.66");
    fs::write(file("changed"), changed).unwrap();
    fs::write(file("short"), &octets[..octets.len() - 10]).unwrap();
    for (name, expected) in [("changed", "Message-ID"), ("short", "copied whole")] {
        let refused = tidings(&realm, &[&far], &["import", &file(name)]);
        assert!(
            !refused.status.success()
                && String::from_utf8_lossy(&refused.stderr).contains(expected),
            "{refused:?}"
        );
    }
    let stranger = tidings(&realm, &[&origin], &["import", &file("two"), &file("one")]);
    assert!(
        String::from_utf8_lossy(&stranger.stderr).contains("[[peer]]"),
        "{stranger:?}"
    );
}

/// Beats have no links: a later one ends those before it, in a batch too.
#[tokio::test(flavor = "multi_thread")]
async fn several_beats_cross_an_air_gap() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    let newest = publish(&realm, &mut publisher, &os(), None, 3, &["ann", "bob"])
        .await
        .unwrap();
    let mut last = None;
    for _ in 0..3 {
        let beat = realm.beat(last, &[(&os(), newest)], 600, &["beat"]);
        publisher.publish(&beat).await.unwrap();
        last = Some(beat.head());
    }
    let stick = tempfile::tempdir().unwrap();
    let file = stick.path().join("batch").display().to_string();
    let export = ["export", "test.os.stable", "test.beat", "--out", &file];
    good(&tidings(&realm, &[&origin], &export));
    let peer = "[[peer]]\nname = \"stick\"\nnetworks = [\"127.0.0.1\"]\nfeeds = \"test.*\"\n";
    let far = broker(&realm, peer).unwrap();
    let _far = far.start().unwrap();
    let import = || good(&tidings(&realm, &[&far], &["import", &file]));
    assert_eq!(import(), "7 new, 0 there already\n");
    assert_eq!(import(), "0 new, 7 there already\n");
    let beats: Channel = "test.beat".parse().unwrap();
    assert_eq!(head(&far, &beats).await.unwrap(), 3);
    // One that has the last of them already has no use for the others.
    let last = stick.path().join("last").display().to_string();
    let export = ["export", "test.beat", "--from-serial", "3", "--out", &last];
    good(&tidings(&realm, &[&origin], &export));
    let late = broker(&realm, peer).unwrap();
    let _late = late.start().unwrap();
    let import = |file: &str| good(&tidings(&realm, &[&late], &["import", file]));
    assert_eq!(import(&last), "2 new, 0 there already\n");
    assert_eq!(import(&file), "3 new, 4 there already\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_shows_tiers_heads_and_lags() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    let first = publish(&realm, &mut publisher, &os(), None, 3, &["ann", "bob"])
        .await
        .unwrap();
    let region = origin.mirror_of(&[origin.address], "").unwrap();
    let _region = region.start().unwrap();
    let leaf = origin.mirror_of(&[region.address], "").unwrap();
    let leaf_daemon = leaf.start().unwrap();
    until_head(&leaf, &os(), 3).await;
    let all = [&origin, &region, &leaf];
    let urls: Vec<String> = all.iter().map(|fixture| fixture.url()).collect();
    let arguments: Vec<&str> = std::iter::once("status")
        .chain(urls.iter().map(String::as_str))
        .collect();
    let table = good(&tidings(&realm, &[], &arguments));
    let expected = format!(
        "broker\ttier\ttest.os.stable\n{}\t0\t3\n{}\t1\t3\n{}\t2\t3\n",
        urls[0], urls[1], urls[2]
    );
    assert_eq!(table, expected);

    // The same again and again, until it is interrupted.
    let mut watch = tidings_tests::tidings(&std::env::temp_dir())
        .args(&arguments)
        .arg("--watch")
        .env("TIDINGS_ANCHOR", realm.anchor.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let twice: Vec<String> = lines.by_ref().take(8).map(Result::unwrap).collect();
    assert_eq!(
        (twice[..4].join("\n") + "\n", &twice[..4]),
        (expected, &twice[4..])
    );
    assert!(
        Command::new("kill")
            .args(["-INT", &watch.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert!(watch.wait().unwrap().success());

    // One is stopped, and comes back with an upstream that is not there: it is behind, and it is
    // told by how much.
    leaf_daemon.kill().unwrap();
    let gone = tidings(&realm, &[], &arguments);
    assert!(
        !gone.status.success()
            && String::from_utf8_lossy(&gone.stdout).contains(&format!("{}\t-\t?", urls[2])),
        "{gone:?}"
    );
    leaf.mirror(&[free_address().unwrap()], "").unwrap();
    let _leaf = leaf.start().unwrap();
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(first),
        2,
        &["ann", "bob"],
    )
    .await
    .unwrap();
    until_head(&region, &os(), 5).await;
    let behind = tidings(&realm, &[], &arguments);
    assert!(
        String::from_utf8_lossy(&behind.stdout).contains("\t3 (-2, "),
        "{behind:?}"
    );
    let json = tidings(&realm, &all, &["status", "--json", &urls[0]]);
    assert!(good(&json).contains("\"tier\":0"));
}
