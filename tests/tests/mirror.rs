//! Pull mirrors: they copy, they verify all of it, and they serve nothing that they cannot prove.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use tidings_client::Channel;
use tidings_protocol::nntp::code;
use tidings_tests::tree::{connect, origin, os, publish, read_all, realm, until_head};

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_a_mirror_has_everything_and_tells_of_what_is_new() {
    let mut realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    // The history was signed by keys that are retired: only what came later vouches for it.
    let old = publish(&realm, &mut publisher, &os(), None, 300, &["ann", "bob"]).await.unwrap();
    let roles = ["trust * 2 root1 root2 root3", "release * 1 dora", "withdraw * 1 stop", "beat * 1 beat"];
    let rotated = realm.rotate(&roles, &[(&os(), old)], &["root1", "root2"]);
    publisher.publish(&rotated).await.unwrap();
    let head_of_300 = publish(&realm, &mut publisher, &os(), Some(old), 5, &["dora"]).await.unwrap();

    let region = origin.mirror_of(&[origin.address], "").unwrap();
    let _region = region.start().unwrap();
    let leaf = origin.mirror_of(&[region.address], "").unwrap();
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &os(), 305).await;
    let copied = read_all(&leaf, &os()).await.unwrap();
    assert_eq!(copied.len(), 305);
    assert_eq!(copied, read_all(&origin, &os()).await.unwrap());

    // What is new comes within moments, and a channel of the future comes by itself.
    let began = Instant::now();
    publish(&realm, &mut publisher, &os(), Some(head_of_300), 1, &["dora"]).await.unwrap();
    until_head(&leaf, &os(), 306).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let new: Channel = "test.new.channel".parse().unwrap();
    publish(&realm, &mut publisher, &new, None, 3, &["dora"]).await.unwrap();
    until_head(&leaf, &new, 3).await;

    // The way that it came can be seen.
    let mut connection = connect(&leaf).await.unwrap();
    connection.group(&os(), None).await.unwrap();
    let headers = connection.listing("HEAD 306", code::HEAD).await.unwrap();
    assert!(headers.starts_with("Path: broker.invalid!broker.invalid!broker.invalid!not-for-mail\n"), "{headers}");

    // A mirror begins nothing itself.
    let next = realm.release(&new, Some(read_all(&leaf, &new).await.unwrap()[2].head()), "2", &["dora"]);
    let refused = connect(&leaf).await.unwrap().post(&next).await.unwrap();
    assert_eq!((refused.code, refused.text.contains("origin")), (code::POST_FAILED, true), "{refused}");
}
