//! The tree in ZooKeeper: what is where, and how it is reached.
//!
//! | node | data |
//! | --- | --- |
//! | `/layout` | `tidings 3` |
//! | `/heads/CHANNEL` | serial and id of the head; its version is what an append checks |
//! | `/settled/SESSION-NUMBER-NAME` | what a member has settled at once (`kept.rs`); the newest are kept |
//! | `/members/NAME` | ephemeral: where the others reach this member, and a digest of what is the same for all |
//! | `/term` | name and zxid of the member that signs beats; its version is the term |
//! | `/slots/GROUP` | who is down, who waits, who has failed |

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};

use tidings_protocol::{Channel, Head};
use zookeeper_client as zk;

use super::{
    batch::Seen,
    session::{self, Change, Node, Servers, Session},
};
use crate::config::Clustering;

pub(super) const LAYOUT: &[u8] = b"tidings 3";
const OLD_LAYOUT: &[u8] = b"tidings 2";

/// Why the tree cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// No server answers.
    #[error(
        "none of the ZooKeeper servers {servers} answers, or no majority of them is up: {source}"
    )]
    Connect {
        /// Which.
        servers: String,
        /// Why.
        source: zk::Error,
    },
    /// A certificate, a key or a password.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// They cannot be used.
    #[error("cluster.tls cannot be used: {0}")]
    Tls(zk::Error),
    /// Nothing is there.
    #[error(
        "there is no cluster at {0} of these ZooKeeper servers; if this is the right place, `tidingsd init-cluster` makes one"
    )]
    Nothing(String),
    /// It is there already.
    #[error("there is a cluster already at {0} of these ZooKeeper servers; start its brokers")]
    Exists(String),
    /// Something else is there.
    #[error(
        "{root} of these ZooKeeper servers holds {found}, and not what this tidingsd knows (`tidings 3`); correct cluster.root, or use the version that made it"
    )]
    Foreign {
        /// The node.
        root: String,
        /// What it holds.
        found: String,
    },
    /// What an earlier version has made.
    #[error(
        "{0} of these ZooKeeper servers was made by an earlier version (`tidings 2`): stop all brokers of the cluster, run `tidingsd init-cluster`, which carries it over, and start them again"
    )]
    Old(String),
    /// It cannot be carried over now.
    #[error("{0} cannot be carried over while {1} still runs: stop all brokers of the cluster")]
    InUse(String, String),
    /// The servers do not let us.
    #[error(
        "ZooKeeper does not let us use {0}: cluster.user and its password are not those that made the tree, or its ACLs were changed"
    )]
    Permission(String),
    /// Somebody has written into the tree by hand.
    #[error(
        "the node {0} does not hold what it should; somebody has written into the tree by hand"
    )]
    Damaged(String),
    /// The session ended.
    #[error(
        "the session with the ZooKeeper servers has ended: they did not hear of this broker for too long"
    )]
    Ended,
    /// The connection broke, or the servers refuse.
    #[error("ZooKeeper: {0}")]
    Session(#[from] zk::Error),
}

impl From<zk::MultiWriteError> for TreeError {
    fn from(error: zk::MultiWriteError) -> Self {
        TreeError::Session(error.into())
    }
}

impl TreeError {
    pub(super) fn of(error: zk::Error, root: &str) -> Self {
        match error {
            zk::Error::NoAuth | zk::Error::AuthFailed => TreeError::Permission(root.into()),
            error => TreeError::Session(error),
        }
    }
}

/// Two sessions with the servers, at the root of our tree: within one, what is read waits for what
/// was written before.
pub(super) struct Tree {
    /// Reads, watches, and is the member.
    pub(super) client: Arc<dyn Session>,
    /// Appends.
    pub(super) appending: Arc<dyn Session>,
    pub(super) root: String,
    /// Counts the nodes that were made in the session that appends.
    pub(super) made: AtomicU64,
}

pub(super) fn head_path(channel: &Channel) -> String {
    format!("/heads/{channel}")
}
pub(super) fn settled_path(name: &str) -> String {
    format!("/settled/{name}")
}

/// Sets a channel's head in the tree; see [`Tree::force_head`].
///
/// # Errors
/// If the tree cannot be used.
pub(crate) async fn set_head(
    settings: &Clustering,
    channel: &Channel,
    head: Head,
) -> Result<(), TreeError> {
    let tree = Tree::join(settings, &settings.root).await?;
    tree.force_head(channel, head).await
}

/// Makes an empty tree, or carries over what an earlier version has made.
///
/// # Errors
/// If there is one already, or the servers do not let us.
pub(crate) async fn init(settings: &Clustering) -> Result<(), TreeError> {
    let session = session::begin(settings, true).await?;
    match session.change(empty()).await.map_err(zk::Error::from) {
        Ok(_) => Ok(()),
        Err(zk::Error::NodeExists) => {
            match Tree::open(settings, &settings.root, OLD_LAYOUT).await {
                Ok(old) => old.carry_over().await,
                Err(TreeError::Foreign { found, .. }) if found == quoted(LAYOUT) => {
                    Err(TreeError::Exists(settings.root.clone()))
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(TreeError::of(error, &settings.root)),
    }
}

/// What makes an empty tree.
pub(super) fn empty() -> Vec<Change> {
    let node = |path: &str, data: &[u8]| Change::Create(path.into(), data.into());
    let nodes = ["/heads", "/settled", "/members", "/slots"].map(|path| node(path, b""));
    let mut all = vec![node("/layout", LAYOUT), node("/term", b"-")];
    all.extend(nodes);
    all
}

impl Tree {
    /// Connects, and looks whether it is our tree.
    pub(super) async fn join(servers: &dyn Servers, root: &str) -> Result<Self, TreeError> {
        Self::open(servers, root, LAYOUT).await
    }

    async fn open(servers: &dyn Servers, root: &str, layout: &[u8]) -> Result<Self, TreeError> {
        let tree = Self {
            client: servers.connect().await?,
            appending: servers.connect().await?,
            root: root.into(),
            made: AtomicU64::new(0),
        };
        let foreign = |found| TreeError::Foreign {
            root: root.into(),
            found,
        };
        match tree.get("/layout").await {
            Ok((data, _)) if data == layout => Ok(tree),
            Ok((data, _)) if data == OLD_LAYOUT => Err(TreeError::Old(tree.root)),
            Ok((data, _)) => Err(foreign(quoted(&data))),
            Err(zk::Error::NoNode) => match tree.client.children("/").await {
                Ok(children) if !children.is_empty() => {
                    Err(foreign(format!("{} and no layout", children.join(", "))))
                }
                Ok(_) | Err(zk::Error::NoNode) => Err(TreeError::Nothing(tree.root)),
                Err(error) => Err(tree.explain(error)),
            },
            Err(error) => Err(tree.explain(error)),
        }
    }

    pub(super) fn explain(&self, error: zk::Error) -> TreeError {
        TreeError::of(error, &self.root)
    }

    /// Whether a server with a majority behind it answers, as far as is known now.
    pub(super) fn is_live(&self) -> bool {
        self.client.is_connected() && self.appending.is_connected()
    }

    /// Whether it can only be begun anew.
    pub(super) fn has_ended(&self) -> bool {
        self.client.has_ended() || self.appending.has_ended()
    }

    /// One node.
    pub(super) async fn get(&self, path: &str) -> Node {
        let mut nodes = self.client.read(&[path.to_owned()]).await?;
        nodes.pop().unwrap_or(Err(zk::Error::NoNode))
    }

    /// One change; what is there then of what was created or set.
    pub(super) async fn change(&self, change: Change) -> Result<Option<zk::Stat>, zk::Error> {
        Ok(self.client.change(vec![change]).await?.pop().flatten())
    }
}

/// As it is shown to people.
fn quoted(octets: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(octets))
}

pub(super) fn write_head(head: Head) -> Vec<u8> {
    head.to_string().into_bytes()
}

pub(super) fn read_head(octets: &[u8], stat: &zk::Stat) -> Option<Seen> {
    let (serial, id) = std::str::from_utf8(octets).ok()?.split_once(' ')?;
    let head = Head {
        serial: serial.parse().ok()?,
        id: id.parse().ok()?,
    };
    Some(Seen {
        head,
        version: stat.version,
        zxid: stat.mzxid,
    })
}
