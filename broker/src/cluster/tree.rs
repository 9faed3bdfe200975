//! The tree in ZooKeeper: what is where, and how it is written.
//!
//! | node | data |
//! | --- | --- |
//! | `/layout` | `tidings 1` |
//! | `/heads/CHANNEL` | serial and id of the head; its version is what an append checks |
//! | `/entries/CHANNEL/SERIAL` | `Path`, LF, the statement; until every member has it |
//! | `/members/NAME` | ephemeral: where the others reach this member, and a digest of what is the same for all |
//! | `/held/NAME` | ephemeral: the zxid up to which it holds everything, and the channels for which that is not so |
//! | `/term` | name and zxid of the member that signs beats and trims; its version is the term |
//! | `/slots/GROUP` | who is down, who waits, who has failed |

use std::{fs, path::PathBuf, time::Duration};

use futures_util::future::join_all;
use tidings_protocol::{Channel, Head, Serial, Statement};
use zk::{Acls, AddWatchMode, CreateMode, PersistentWatcher, SessionState};
use zookeeper_client as zk;

use crate::config::Clustering;

const LAYOUT: &[u8] = b"tidings 1";

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
        "{root} of these ZooKeeper servers holds {found}, and not what this tidingsd knows (`tidings 1`); correct cluster.root, or use the version that made it"
    )]
    Foreign {
        /// The node.
        root: String,
        /// What it holds.
        found: String,
    },
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

/// A head as the tree has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) head: Head,
    /// Of the node: what an append that follows this head checks.
    pub(super) version: i32,
    /// When it was set.
    pub(super) zxid: i64,
}

/// An entry as the tree has it.
pub(super) struct Found {
    pub(super) statement: Statement,
    pub(super) path: String,
    pub(super) zxid: i64,
    pub(super) octets: usize,
}

/// A live member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) address: String,
    /// Since when; also what tells two lives of one name apart.
    pub(crate) zxid: i64,
    /// Up to where it holds everything, but for what it lacks.
    pub(crate) held: i64,
    /// Channels that it has not whole, or cannot follow.
    pub(crate) lacks: Vec<String>,
    /// A digest of what is the same for all.
    pub(crate) common: String,
    pub(crate) ours: bool,
}

/// Who signs and trims.
pub(super) struct Term {
    pub(super) name: String,
    /// When it became a member.
    pub(super) zxid: i64,
    /// Whether it is only there because nobody better was; the first who is may take over.
    pub(super) weak: bool,
    pub(super) term: i32,
}

/// What an append changes.
pub(super) struct Append<'a> {
    pub(super) statement: &'a Statement,
    pub(super) path: &'a str,
    /// The head that it follows.
    pub(super) after: Option<Seen>,
    /// The trust log that has verified it, if that is another one, and its version.
    pub(super) trust: Option<(&'a Channel, i32)>,
    pub(super) term: Option<i32>,
}

/// Why an append was not made.
pub(super) enum NotAppended {
    /// The head, or the trust, is another one by now.
    Race,
    /// Another member signs.
    Term,
    /// A node is where none can be, or is not there.
    Damaged(String),
    /// It is not known whether it was made.
    Unknown(zk::Error),
    Refused(zk::Error),
}

/// Two sessions with the servers, at the root of our tree: within one, what is read waits for what
/// was written before.
pub(super) struct Tree {
    /// Reads, watches, and is the member.
    client: zk::Client,
    /// Appends.
    appending: zk::Client,
    root: String,
    acls: Acls<'static>,
}

fn head_path(channel: &Channel) -> String {
    format!("/heads/{channel}")
}
fn entry_path(channel: &Channel, serial: Serial) -> String {
    format!("/entries/{channel}/{:010}", serial.number())
}

fn write_head(head: Head) -> Vec<u8> {
    head.to_string().into_bytes()
}
fn read_head(octets: &[u8]) -> Option<Head> {
    let (serial, id) = std::str::from_utf8(octets).ok()?.split_once(' ')?;
    Some(Head {
        serial: serial.parse().ok()?,
        id: id.parse().ok()?,
    })
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
    Tree::open(settings).await?.force_head(channel, head).await
}

/// Makes an empty tree.
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
    for node in ["/heads", "/entries", "/members", "/held", "/slots"] {
        writer.add_create(node, b"", &options)?;
    }
    writer.add_create("/term", b"-", &options)?;
    match writer.commit().await {
        Ok(_) => Ok(()),
        Err(zk::MultiWriteError::OperationFailed {
            source: zk::Error::NodeExists,
            ..
        }) => Err(TreeError::Exists(settings.root.clone())),
        Err(error) => Err(explain(error.into())),
    }
}

impl Tree {
    /// Connects, and looks whether it is our tree.
    pub(super) async fn open(settings: &Clustering) -> Result<Self, TreeError> {
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
            Ok((data, _)) if data == LAYOUT => Ok(tree),
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

    fn explain(&self, error: zk::Error) -> TreeError {
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

    /// What has been settled by others is seen by the next reads.
    pub(super) async fn sync(&self) -> Result<(), TreeError> {
        Ok(self.client.sync("/heads").await?)
    }

    /// Tells of every head that is set from now on, and how the session stands.
    pub(super) async fn watch_heads(&self) -> Result<PersistentWatcher, TreeError> {
        self.client
            .watch("/heads", AddWatchMode::PersistentRecursive)
            .await
            .map_err(|error| self.explain(error))
    }

    /// All channels that there are.
    pub(super) async fn channels(&self) -> Result<Vec<Channel>, TreeError> {
        let names = self.client.list_children("/heads").await?;
        // What is no channel was written by hand, and is nobody's.
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The heads of channels; none for those that are not there.
    pub(super) async fn heads(
        &self,
        channels: &[Channel],
    ) -> Result<Vec<Result<Option<Seen>, TreeError>>, TreeError> {
        let mut all = Vec::with_capacity(channels.len());
        for some in channels.chunks(CHUNK) {
            let reads = some
                .iter()
                .map(|channel| (channel, self.client.get_data(&head_path(channel))));
            let reads: Vec<_> = reads.collect();
            for (channel, read) in reads {
                all.push(match read.await {
                    Ok((data, stat)) => match read_head(&data) {
                        Some(head) => Ok(Some(Seen {
                            head,
                            version: stat.version,
                            zxid: stat.mzxid,
                        })),
                        None => Err(TreeError::Damaged(head_path(channel))),
                    },
                    Err(zk::Error::NoNode) => Ok(None),
                    // One node that somebody has closed to us stops one channel.
                    Err(zk::Error::NoAuth) => Err(TreeError::Damaged(head_path(channel))),
                    Err(error) => return Err(self.explain(error)),
                });
            }
        }
        Ok(all)
    }

    /// The entries with these serials; none for those that are not there any more.
    pub(super) async fn entries(
        &self,
        channel: &Channel,
        serials: &[Serial],
    ) -> Result<Vec<Option<Result<Found, TreeError>>>, TreeError> {
        let reads: Vec<_> = serials
            .iter()
            .map(|serial| self.client.get_data(&entry_path(channel, *serial)))
            .collect();
        let mut all = Vec::with_capacity(reads.len());
        for (serial, read) in serials.iter().zip(join_all(reads).await) {
            all.push(match read {
                Ok((data, stat)) => Some(read_entry(&data, channel, *serial, stat.czxid)),
                Err(zk::Error::NoNode) => None,
                Err(zk::Error::NoAuth) => {
                    Some(Err(TreeError::Damaged(entry_path(channel, *serial))))
                }
                Err(error) => return Err(self.explain(error)),
            });
        }
        Ok(all)
    }

    /// Everything that the servers keep: where, since when, and how much.
    pub(super) async fn kept(&self) -> Result<Vec<(i64, String, usize)>, TreeError> {
        let mut all = Vec::new();
        for channel in self.client.list_children("/entries").await? {
            let paths = match self
                .client
                .list_children(&format!("/entries/{channel}"))
                .await
            {
                Err(zk::Error::NoAuth | zk::Error::NoNode) => continue,
                paths => paths?,
            };
            let paths: Vec<String> = paths
                .iter()
                .map(|serial| format!("/entries/{channel}/{serial}"))
                .collect();
            for some in paths.chunks(CHUNK) {
                let stats = join_all(some.iter().map(|path| self.client.check_stat(path))).await;
                for (path, stat) in some.iter().zip(stats) {
                    if let Some(stat) = stat? {
                        all.push((
                            stat.czxid,
                            path.clone(),
                            usize::try_from(stat.data_length).unwrap_or(0),
                        ));
                    }
                }
            }
        }
        Ok(all)
    }

    /// Removes entries.
    pub(super) async fn forget(&self, paths: &[String]) -> Result<(), TreeError> {
        for gone in join_all(paths.iter().map(|path| self.client.delete(path, None))).await {
            match gone {
                Ok(()) | Err(zk::Error::NoNode) => {}
                Err(error) => return Err(self.explain(error)),
            }
        }
        Ok(())
    }

    /// One multi-operation: the trust is still the one that has verified the statement, the head
    /// still the one that it follows; then the entry is created and the head set.
    pub(super) async fn append(&self, append: Append<'_>) -> Result<(), NotAppended> {
        let Append {
            statement,
            path,
            after,
            trust,
            term,
        } = append;
        let (channel, head) = (statement.channel(), statement.head());
        let options = CreateMode::Persistent.with_acls(self.acls);
        let data = [path.as_bytes(), b"\n", statement.octets()].concat();
        let mut writer = self.appending.new_multi_writer();
        let mut prepare = || {
            if let Some(term) = term {
                writer.add_check_version("/term", term)?;
            }
            if let Some((log, version)) = trust {
                writer.add_check_version(&head_path(log), version)?;
            }
            match after {
                Some(seen) => writer.add_set_data(
                    &head_path(channel),
                    &write_head(head),
                    Some(seen.version),
                )?,
                None => {
                    writer.add_create(&head_path(channel), &write_head(head), &options)?;
                    writer.add_create(&format!("/entries/{channel}"), b"", &options)?;
                }
            }
            writer.add_create(&entry_path(channel, head.serial), &data, &options)
        };
        prepare().map_err(NotAppended::Refused)?;
        let (first, entry) = (
            usize::from(term.is_some()) + usize::from(trust.is_some()),
            entry_path(channel, head.serial),
        );
        use zk::Error::{
            BadArguments, BadVersion, InvalidAcl, MarshallingError, NoAuth, NoNode, NodeExists,
            NotReadOnly, QuotaExceeded,
        };
        match writer.commit().await {
            Ok(_) => Ok(()),
            Err(zk::MultiWriteError::OperationFailed {
                index: 0,
                source: BadVersion,
            }) if term.is_some() => Err(NotAppended::Term),
            Err(zk::MultiWriteError::OperationFailed {
                index,
                source: NodeExists | NoNode,
            }) if index > first => {
                // The head was as it should be, so it is no race. What is only missing, or left
                // over from another time, is put right.
                match after {
                    Some(_)
                        if self
                            .appending
                            .create(&format!("/entries/{channel}"), b"", &options)
                            .await
                            .is_ok() =>
                    {
                        Err(NotAppended::Race)
                    }
                    None if self
                        .appending
                        .delete(&format!("/entries/{channel}"), None)
                        .await
                        .is_ok() =>
                    {
                        Err(NotAppended::Race)
                    }
                    _ => Err(NotAppended::Damaged(entry)),
                }
            }
            Err(error) => match zk::Error::from(error) {
                BadVersion | NodeExists | NoNode => Err(NotAppended::Race),
                error @ (NoAuth | InvalidAcl | QuotaExceeded | MarshallingError | NotReadOnly
                | BadArguments(_)) => Err(NotAppended::Refused(error)),
                // Everything else may have happened after it was made.
                error => Err(NotAppended::Unknown(error)),
            },
        }
    }

    /// Sets a head without an entry: what a member has had before there was a cluster, or has kept
    /// when the servers forgot it. False if another member was quicker.
    pub(super) async fn set_head(
        &self,
        channel: &Channel,
        head: Head,
        after: Option<Seen>,
    ) -> Result<bool, TreeError> {
        let options = CreateMode::Persistent.with_acls(self.acls);
        let mut writer = self.client.new_multi_writer();
        match after {
            Some(seen) => {
                writer.add_set_data(&head_path(channel), &write_head(head), Some(seen.version))?
            }
            None => {
                writer.add_create(&head_path(channel), &write_head(head), &options)?;
                writer.add_create(&format!("/entries/{channel}"), b"", &options)?;
            }
        }
        match writer.commit().await {
            Ok(_) => Ok(true),
            // Entries are left of a head that somebody has removed.
            Err(zk::MultiWriteError::OperationFailed {
                index: 1,
                source: zk::Error::NodeExists,
            }) => {
                let set = self
                    .client
                    .create(&head_path(channel), &write_head(head), &options)
                    .await;
                Ok(set.is_ok())
            }
            Err(error) => match zk::Error::from(error) {
                zk::Error::BadVersion | zk::Error::NodeExists => Ok(false),
                error => Err(self.explain(error)),
            },
        }
    }

    /// Sets a head to what an operator has decided for, and removes what was above it.
    pub(super) async fn force_head(&self, channel: &Channel, head: Head) -> Result<(), TreeError> {
        self.sync().await?;
        let seen = self.heads(std::slice::from_ref(channel)).await?.pop();
        let entries = match self
            .client
            .list_children(&format!("/entries/{channel}"))
            .await
        {
            Err(zk::Error::NoNode) => Vec::new(),
            entries => entries?,
        };
        let above = entries.iter().filter(|name| {
            name.parse()
                .is_ok_and(|serial: u32| serial > head.serial.number())
        });
        let above: Vec<String> = above
            .map(|name| format!("/entries/{channel}/{name}"))
            .collect();
        match seen {
            Some(Ok(None)) => match self.set_head(channel, head, None).await? {
                true => {}
                false => return Err(TreeError::Session(zk::Error::BadVersion)),
            },
            // Whatever it holds.
            _ => drop(
                self.client
                    .set_data(&head_path(channel), &write_head(head), None)
                    .await?,
            ),
        }
        self.forget(&above).await
    }

    /// Becomes a member; whether the name was free.
    pub(super) async fn join(
        &self,
        name: &str,
        address: &str,
        common: &str,
    ) -> Result<bool, TreeError> {
        let options = CreateMode::Ephemeral.with_acls(self.acls);
        match self
            .client
            .create(
                &format!("/members/{name}"),
                format!("{address} {common}").as_bytes(),
                &options,
            )
            .await
        {
            Ok(_) => Ok(true),
            Err(zk::Error::NodeExists) => Ok(false),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Says up to where this member holds everything, but for some channels; the servers' time
    /// then.
    pub(super) async fn hold(
        &self,
        name: &str,
        zxid: i64,
        lacks: &[String],
    ) -> Result<Duration, TreeError> {
        let (path, data) = (
            format!("/held/{name}"),
            format!("{zxid} {}", lacks.join(" ")),
        );
        let stat = match self.client.set_data(&path, data.as_bytes(), None).await {
            Err(zk::Error::NoNode) => {
                self.client
                    .create(
                        &path,
                        data.as_bytes(),
                        &CreateMode::Ephemeral.with_acls(self.acls),
                    )
                    .await?
                    .0
            }
            set => set.map_err(|error| self.explain(error))?,
        };
        Ok(Duration::from_millis(
            u64::try_from(stat.mtime).unwrap_or(0),
        ))
    }

    /// The live members, those who have been it for longest first.
    pub(super) async fn members(&self) -> Result<Vec<Member>, TreeError> {
        let names = self.client.list_children("/members").await?;
        let mut members = Vec::new();
        for name in names {
            let (member, held) = (format!("/members/{name}"), format!("/held/{name}"));
            let (member, held) = (self.client.get_data(&member), self.client.get_data(&held));
            let (address, stat) = match member.await {
                // It has just gone.
                Err(zk::Error::NoNode) => continue,
                member => member?,
            };
            let held = match held.await {
                Err(zk::Error::NoNode) => None,
                held => Some(held?),
            };
            let held = held.filter(|(_, held)| held.ephemeral_owner == stat.ephemeral_owner);
            let held = held
                .map(|(data, _)| String::from_utf8_lossy(&data).into_owned())
                .unwrap_or_default();
            let (zxid, lacks) = held.split_once(' ').unwrap_or((&held, ""));
            let lacks = lacks.split_ascii_whitespace().map(String::from).collect();
            let address = String::from_utf8_lossy(&address).into_owned();
            let (address, common) = address.split_once(' ').unwrap_or((&address, ""));
            let ours = stat.ephemeral_owner == self.client.session_id().0;
            members.push(Member {
                name,
                address: address.into(),
                zxid: stat.czxid,
                held: zxid.parse().unwrap_or(0),
                lacks,
                common: common.into(),
                ours,
            });
        }
        members.sort_by_key(|member| member.zxid);
        Ok(members)
    }

    /// Who signs and trims.
    pub(super) async fn term(&self) -> Result<Term, TreeError> {
        let (data, stat) = self
            .client
            .get_data("/term")
            .await
            .map_err(|error| self.explain(error))?;
        let text = String::from_utf8_lossy(&data).into_owned();
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default().into();
        let zxid = words.next().and_then(|zxid| zxid.parse().ok()).unwrap_or(0);
        Ok(Term {
            name,
            zxid,
            weak: words.next() == Some("weak"),
            term: stat.version,
        })
    }

    /// Begins a new term after another one, perhaps a weak one, or ends ours: the new term, unless
    /// somebody was quicker.
    pub(super) async fn begin_term(
        &self,
        member: Option<(&Member, bool)>,
        after: i32,
    ) -> Result<Option<i32>, TreeError> {
        let data = member.map_or("-".into(), |(member, weak)| {
            let weak = if weak { " weak" } else { "" };
            format!("{} {}{weak}", member.name, member.zxid)
        });
        match self
            .client
            .set_data("/term", data.as_bytes(), Some(after))
            .await
        {
            Ok(stat) => Ok(Some(stat.version)),
            Err(zk::Error::BadVersion) => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// What is kept under `/slots`, and its version; none if there is nothing.
    pub(super) async fn slots(&self, group: &str) -> Result<Option<(Vec<u8>, i32)>, zk::Error> {
        // What another member has changed before is seen.
        self.client.sync("/slots").await?;
        match self.client.get_data(&format!("/slots/{group}")).await {
            Ok((data, stat)) => Ok(Some((data, stat.version))),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces it, if its version is still this one; whether it was.
    pub(super) async fn set_slots(
        &self,
        group: &str,
        data: &[u8],
        after: Option<i32>,
    ) -> Result<bool, zk::Error> {
        let path = format!("/slots/{group}");
        let set = match after {
            Some(version) => self
                .client
                .set_data(&path, data, Some(version))
                .await
                .map(drop),
            None => self
                .client
                .create(&path, data, &CreateMode::Persistent.with_acls(self.acls))
                .await
                .map(drop),
        };
        match set {
            Ok(()) => Ok(true),
            Err(zk::Error::BadVersion | zk::Error::NodeExists | zk::Error::NoNode) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

const CHUNK: usize = crate::limits::CLUSTER_ABREAST;

fn read_entry(
    data: &[u8],
    channel: &Channel,
    serial: Serial,
    zxid: i64,
) -> Result<Found, TreeError> {
    let damaged = || TreeError::Damaged(entry_path(channel, serial));
    let end = data
        .iter()
        .position(|octet| *octet == b'\n')
        .ok_or_else(damaged)?;
    let path = String::from_utf8(data[..end].into()).map_err(|_| damaged())?;
    let statement = Statement::parse(&data[end + 1..]).map_err(|_| damaged())?;
    if statement.channel() != channel || statement.serial() != serial {
        return Err(damaged());
    }
    Ok(Found {
        statement,
        path,
        zxid,
        octets: data.len(),
    })
}
