//! The tree in ZooKeeper: what is where, and how it is reached.
//!
//! | node | data |
//! | --- | --- |
//! | `/layout` | `tidings 2` |
//! | `/heads/CHANNEL` | serial and id of the head, and the lowest serial that has an entry; its version is what an append checks |
//! | `/entries/CHANNEL/SERIAL` | `Path`, LF, the statement; from that lowest serial to the head |
//! | `/members/NAME` | ephemeral: where the others reach this member, and a digest of what is the same for all |
//! | `/term` | name and zxid of the member that signs beats; its version is the term |
//! | `/slots/GROUP` | who is down, who waits, who has failed |

use std::{fs, path::PathBuf};

use tidings_protocol::{Channel, Head, Serial};
use zk::{Acls, CreateMode, SessionState};
use zookeeper_client as zk;

use super::batch::Seen;
use crate::config::Clustering;

const LAYOUT: &[u8] = b"tidings 2";
const OLD_LAYOUT: &[u8] = b"tidings 1";

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
        "{root} of these ZooKeeper servers holds {found}, and not what this tidingsd knows (`tidings 2`); correct cluster.root, or use the version that made it"
    )]
    Foreign {
        /// The node.
        root: String,
        /// What it holds.
        found: String,
    },
    /// What an earlier version has made.
    #[error(
        "{0} of these ZooKeeper servers was made by an earlier version (`tidings 1`): stop all brokers of the cluster, run `tidingsd init-cluster`, which carries it over, and start them again"
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

/// Two sessions with the servers, at the root of our tree: within one, what is read waits for what
/// was written before.
pub(super) struct Tree {
    /// Reads, watches, and is the member.
    pub(super) client: zk::Client,
    /// Appends.
    pub(super) appending: zk::Client,
    root: String,
    pub(super) acls: Acls<'static>,
}

pub(super) fn head_path(channel: &Channel) -> String {
    format!("/heads/{channel}")
}
pub(super) fn directory(channel: &Channel) -> String {
    format!("/entries/{channel}")
}
pub(super) fn entry_path(channel: &Channel, serial: Serial) -> String {
    format!("/entries/{channel}/{:010}", serial.number())
}

async fn connect(settings: &Clustering) -> Result<(zk::Client, Acls<'static>), TreeError> {
    let read = |path: &PathBuf| {
        fs::read_to_string(path).map_err(|source| TreeError::File {
            path: path.clone(),
            source,
        })
    };
    let mut connector = zk::Client::connector().with_session_timeout(settings.session);
    let mut acls = Acls::anyone_all();
    if let Some((user, file)) = &settings.user {
        connector = connector.with_auth(
            "digest",
            format!("{user}:{}", read(file)?.trim_end()).as_bytes(),
        );
        acls = Acls::creator_all();
    }
    let connecting = async {
        match &settings.tls {
            None => connector.connect(&settings.servers).await,
            Some(tls) => {
                let mut options = zk::TlsOptions::new()
                    .with_pem_ca(&read(&tls.ca_file)?)
                    .map_err(TreeError::Tls)?;
                if let (Some(certificate), Some(key)) = (&tls.certificate_file, &tls.key_file) {
                    options = options
                        .with_pem_identity(&read(certificate)?, &read(key)?)
                        .map_err(TreeError::Tls)?;
                }
                connector
                    .with_tls(options)
                    .secure_connect(&settings.servers)
                    .await
            }
        }
        .map_err(|source| match source {
            zk::Error::AuthFailed => TreeError::Permission(settings.root.clone()),
            source => TreeError::Connect {
                servers: settings.servers.clone(),
                source,
            },
        })
    };
    let client = tokio::time::timeout(settings.session * 2, connecting).await;
    let client = client.unwrap_or_else(|_| {
        Err(TreeError::Connect {
            servers: settings.servers.clone(),
            source: zk::Error::Timeout,
        })
    })?;
    Ok((client, acls))
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
    let tree = Tree::open(settings, LAYOUT).await?;
    tree.force_head(channel, head).await
}

/// Makes an empty tree, or carries over what an earlier version has made.
///
/// # Errors
/// If there is one already, or the servers do not let us.
pub(crate) async fn init(settings: &Clustering) -> Result<(), TreeError> {
    let (client, acls) = connect(settings).await?;
    let options = CreateMode::Persistent.with_acls(acls);
    let explain = |error: zk::Error| match error {
        zk::Error::NoAuth => TreeError::Permission(settings.root.clone()),
        error => TreeError::Session(error),
    };
    client
        .mkdir(&settings.root, &options)
        .await
        .map_err(explain)?;
    let root = client
        .chroot(settings.root.as_str())
        .map_err(|_| TreeError::Nothing(settings.root.clone()))?;
    let mut writer = root.new_multi_writer();
    writer.add_create("/layout", LAYOUT, &options)?;
    for node in ["/heads", "/entries", "/members", "/slots"] {
        writer.add_create(node, b"", &options)?;
    }
    writer.add_create("/term", b"-", &options)?;
    match writer.commit().await {
        Ok(_) => Ok(()),
        Err(zk::MultiWriteError::OperationFailed {
            source: zk::Error::NodeExists,
            ..
        }) => match Tree::open(settings, OLD_LAYOUT).await {
            Ok(old) => old.carry_over().await,
            Err(_) => Err(TreeError::Exists(settings.root.clone())),
        },
        Err(error) => Err(explain(error.into())),
    }
}

impl Tree {
    /// Connects, and looks whether it is our tree.
    pub(super) async fn join(settings: &Clustering) -> Result<Self, TreeError> {
        Self::open(settings, LAYOUT).await
    }

    async fn open(settings: &Clustering, layout: &[u8]) -> Result<Self, TreeError> {
        let ((client, acls), (appending, _)) = (connect(settings).await?, connect(settings).await?);
        let root = settings.root.clone();
        let at_root = |client: zk::Client| {
            client
                .chroot(root.clone())
                .map_err(|_| TreeError::Nothing(root.clone()))
        };
        let tree = Self {
            client: at_root(client)?,
            appending: at_root(appending)?,
            root: root.clone(),
            acls,
        };
        match tree.client.get_data("/layout").await {
            Ok((data, _)) if data == layout => Ok(tree),
            Ok((data, _)) if data == OLD_LAYOUT => Err(TreeError::Old(tree.root)),
            Ok((data, _)) => Err(TreeError::Foreign {
                root: tree.root,
                found: format!("{:?}", String::from_utf8_lossy(&data)),
            }),
            Err(zk::Error::NoNode) => match tree.client.list_children("/").await {
                Ok(children) if !children.is_empty() => Err(TreeError::Foreign {
                    root: tree.root,
                    found: format!("{} and no layout", children.join(", ")),
                }),
                Ok(_) | Err(zk::Error::NoNode) => Err(TreeError::Nothing(tree.root)),
                Err(error) => Err(tree.explain(error)),
            },
            Err(error) => Err(tree.explain(error)),
        }
    }

    pub(super) fn explain(&self, error: zk::Error) -> TreeError {
        match error {
            zk::Error::NoAuth | zk::Error::AuthFailed => TreeError::Permission(self.root.clone()),
            error => TreeError::Session(error),
        }
    }

    /// Whether a server with a majority behind it answers, as far as is known now.
    pub(super) fn is_live(&self) -> bool {
        [&self.client, &self.appending]
            .iter()
            .all(|client| client.state() == SessionState::SyncConnected)
    }

    /// Whether it can only be begun anew.
    pub(super) fn has_ended(&self) -> bool {
        [&self.client, &self.appending]
            .iter()
            .any(|client| client.state().is_terminated())
    }

    /// Makes of the earlier layout the present one: heads say from where on there are entries.
    async fn carry_over(&self) -> Result<(), TreeError> {
        if let Some(member) = self.client.list_children("/members").await?.pop() {
            return Err(TreeError::InUse(self.root.clone(), member));
        }
        let channels = self.channels().await?;
        for channel in channels {
            let path = head_path(&channel);
            let (data, stat) = self.client.get_data(&path).await?;
            // One that was carried over before an interruption, or cannot be read, stays.
            let Some(head) = read_old_head(&data) else {
                continue;
            };
            let low = self.lowest_entry(&channel, head.serial).await?;
            let data = write_head(head, low);
            self.client
                .set_data(&path, &data, Some(stat.version))
                .await?;
        }
        let mut writer = self.client.new_multi_writer();
        if self.client.check_stat("/held").await?.is_some() {
            writer.add_delete("/held", None)?;
        }
        writer.add_set_data("/layout", LAYOUT, None)?;
        writer.commit().await?;
        Ok(())
    }
}

pub(super) fn write_head(head: Head, low: u32) -> Vec<u8> {
    format!("{head} {low}").into_bytes()
}

fn read_old_head(octets: &[u8]) -> Option<Head> {
    let (serial, id) = std::str::from_utf8(octets).ok()?.split_once(' ')?;
    Some(Head {
        serial: serial.parse().ok()?,
        id: id.parse().ok()?,
    })
}

pub(super) fn read_head(octets: &[u8], stat: &zk::Stat) -> Option<Seen> {
    let space = octets.iter().rposition(|octet| *octet == b' ')?;
    let head = read_old_head(&octets[..space])?;
    let low = std::str::from_utf8(&octets[space + 1..])
        .ok()?
        .parse()
        .ok()?;
    (low <= head.serial.number() + 1).then_some(Seen {
        head,
        low,
        version: stat.version,
        zxid: stat.mzxid,
    })
}
