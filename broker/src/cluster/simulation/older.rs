//! An earlier tree is carried over, and interrupted at each change.

use std::sync::{Arc, Mutex};

use futures_util::{FutureExt, future::BoxFuture};
use tidings_protocol::{
    Channel, Head, Serial, Statement, Timestamp,
    statement::{Body, Release},
};
use zookeeper_client::{Error, MultiWriteError, Stat};

use super::{
    super::{
        kept,
        session::{Change, Events, Node, Session},
        tree::{LAYOUT, Tree, TreeError, head_path, write_head},
    },
    lock,
    znodes::Znodes,
};
use crate::simulation::statements::sign;

type Nodes = Arc<Mutex<Znodes>>;

/// A session whose connection breaks for good at one of its changes.
struct Breaking {
    id: i64,
    nodes: Nodes,
    /// So many changes are answered.
    left: Mutex<usize>,
    /// Whether the one after them is made, which nobody is told.
    is_made: bool,
}

fn make(nodes: &Nodes, changes: &[Change]) -> Result<Vec<Option<Stat>>, MultiWriteError> {
    let mut nodes = lock(nodes);
    let (made, stats) = nodes.plan(0, 0, changes)?;
    nodes.make(made);
    Ok(stats)
}

impl Session for Breaking {
    fn id(&self) -> i64 {
        self.id
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn read(&self, paths: &[String]) -> BoxFuture<'_, Result<Vec<Node>, Error>> {
        let nodes = lock(&self.nodes);
        let one = |path: &String| {
            let (data, stat) = nodes.newest(path).ok_or(Error::NoNode)?;
            Ok((data.to_vec(), stat))
        };
        let found = paths.iter().map(one).collect();
        async { Ok(found) }.boxed()
    }

    fn children(&self, path: &str) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        let nodes = lock(&self.nodes);
        let found = nodes.newest(path).ok_or(Error::NoNode);
        let found = found.map(|_| nodes.children(path, nodes.zxid));
        async { found }.boxed()
    }

    fn change(
        &self,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Vec<Option<Stat>>, MultiWriteError>> {
        let mut left = lock(&self.left);
        let answer = match *left {
            usize::MAX => Err(Error::ConnectionLoss.into()),
            0 => {
                *left = usize::MAX;
                if self.is_made {
                    drop(make(&self.nodes, &changes));
                }
                Err(Error::ConnectionLoss.into())
            }
            _ => {
                *left -= 1;
                make(&self.nodes, &changes)
            }
        };
        async { answer }.boxed()
    }

    fn sync<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        async { Ok(()) }.boxed()
    }

    fn watch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn Events>, Error>> {
        unreachable!("nothing is watched");
    }
}

/// Two logs with their statements.
fn logs() -> Vec<Vec<Statement>> {
    let log = |channel: &str, count| {
        let channel: Channel = channel.parse().unwrap();
        let mut log = Vec::<Statement>::new();
        for version in 0..count {
            let release = Release {
                version: version.to_string(),
                ..Release::default()
            };
            let (after, time) = (
                log.last().map(Statement::head),
                Timestamp::from_seconds(1_800_000_000),
            );
            let (channel, trust) = (channel.clone(), Some(Serial::FIRST));
            let body = Body::Release(release);
            log.push(sign(channel, after, trust, time, body, "ann"));
        }
        log
    };
    vec![log("a.x", 3), log("a.y", 2)]
}

fn head(log: &[Statement]) -> Head {
    log.last().unwrap().head()
}

/// What an earlier version has made of them.
fn old(logs: &[Vec<Statement>]) -> Nodes {
    let create = |path: &str, data: &[u8]| Change::Create(path.into(), data.into());
    let mut changes = vec![create("/layout", b"tidings 2"), create("/term", b"-")];
    changes.extend(["/heads", "/entries", "/members", "/slots"].map(|path| create(path, b"")));
    for log in logs {
        let (channel, head) = (log[0].channel(), head(log));
        let third = [&write_head(head)[..], b" 7"].concat();
        changes.push(create(&head_path(channel), &third));
        changes.push(create(&format!("/entries/{channel}"), b""));
        for statement in log {
            let path = format!("/entries/{channel}/{:010}", statement.serial().number());
            changes.push(create(&path, &[b"a!b\n", statement.octets()].concat()));
        }
    }
    let nodes = Nodes::default();
    make(&nodes, &changes).unwrap();
    nodes
}

async fn carry_over(nodes: &Nodes, id: i64, left: usize, is_made: bool) -> Result<(), TreeError> {
    let session = Arc::new(Breaking {
        id,
        nodes: nodes.clone(),
        left: Mutex::new(left),
        is_made,
    });
    let tree = Tree {
        client: session.clone(),
        appending: session,
        root: "/".into(),
        made: 0.into(),
    };
    tree.carry_over().await
}

/// The present layout, with everything that there was.
fn check(nodes: &Nodes, logs: &[Vec<Statement>], about: &str) {
    let nodes = lock(nodes);
    let data = |path: &str| nodes.newest(path).map(|(data, _)| data.to_vec());
    assert_eq!(data("/layout").as_deref(), Some(LAYOUT), "{about}");
    assert!(data("/entries").is_none(), "{about}");
    let mut found = Vec::new();
    for name in nodes.children("/settled", nodes.zxid) {
        let records = kept::read(&data(&format!("/settled/{name}")).unwrap()).unwrap();
        found.extend(records.into_iter().filter_map(|record| record.entry));
    }
    for log in logs {
        let there = data(&head_path(log[0].channel()));
        assert_eq!(there, Some(write_head(head(log))), "{about}");
        for statement in log {
            let is_there = found
                .iter()
                .any(|(one, path)| one == statement && path == "a!b");
            assert!(is_there, "{about}: {}", statement.head());
        }
    }
}

#[tokio::test]
async fn what_was_interrupted_is_begun_again() {
    let logs = logs();
    for is_made in [false, true] {
        let mut count = 0;
        loop {
            let nodes = old(&logs);
            let whole = carry_over(&nodes, 1, count, is_made).await.is_ok();
            if !whole {
                carry_over(&nodes, 2, 1_000, false).await.unwrap();
            }
            check(&nodes, &logs, &format!("after {count} changes, {is_made}"));
            if whole {
                break;
            }
            count += 1;
        }
        assert!(count > 4, "{count}");
    }
}
