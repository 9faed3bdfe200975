//! Several brokers that are one origin: a real ensemble, real brokers.

use tidings_client::{Channel, Publisher, Statement};
use tidings_tests::{
    cluster::Site,
    ensemble::Ensemble,
    tree::{os, publish, read_all, realm, until_head},
};

const SIGNERS: &[&str] = &["ann", "bob"];

#[tokio::test(flavor = "multi_thread")]
async fn what_one_member_takes_all_have() -> anyhow::Result<()> {
    let ensemble = Ensemble::start(3, "")?;
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a", "b", "c"], "", "").await?;
    let channels: [Channel; 2] = [os(), "test.app".parse()?];
    let mut heads = [None, None];
    for round in 0..9 {
        let mut publisher = Publisher::connect(members[round % 3].source()?).await?;
        for (channel, head) in channels.iter().zip(&mut heads) {
            until_head(&members[round % 3], channel, head.map_or(0, |head: tidings_client::Head| head.serial.number())).await;
            *head = Some(publish(&site.realm, &mut publisher, channel, *head, 5, SIGNERS).await?);
        }
    }
    for channel in &channels {
        let mut logs = Vec::new();
        for member in &members {
            until_head(member, channel, 45).await;
            logs.push(read_all(member, channel).await?.iter().map(Statement::head).collect::<Vec<_>>());
        }
        assert_eq!(logs[0].len(), 45);
        assert!(logs.iter().all(|log| *log == logs[0]), "{logs:?}");
    }
    Ok(())
}
