//! Reading and writing what stands in the tree.

use std::time::Duration;

use tidings_protocol::{Channel, Head, Serial, Statement};
use zookeeper_client as zk;

use super::{
    batch::{Op, Seen},
    session::{Change, Events, Node},
    tree::{Tree, TreeError, directory, entry_path, head_path, read_head, write_head},
};
use crate::limits::{CLUSTER_ABREAST, CLUSTER_READS};

/// An entry as the tree has it.
pub(super) struct Found {
    pub(super) statement: Statement,
    pub(super) path: String,
    pub(super) zxid: i64,
}

/// A live member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) address: String,
    /// Since when; also what tells two lives of one name apart.
    pub(crate) zxid: i64,
    /// A digest of what is the same for all.
    pub(crate) common: String,
    pub(crate) ours: bool,
}

/// Who signs beats.
pub(super) struct Term {
    pub(super) name: String,
    /// When it became a member.
    pub(super) zxid: i64,
    pub(super) term: i32,
}

/// Why a batch was not made.
pub(super) enum NotMade {
    /// This operation of it could not be done, so that none was.
    At(usize, zk::Error),
    Refused(zk::Error),
    /// It is not known whether it was made.
    Unknown(zk::Error),
}

impl Tree {
    /// What has been settled by others is seen by the next reads.
    pub(super) async fn sync(&self) -> Result<(), TreeError> {
        Ok(self.client.sync("/heads").await?)
    }

    /// Tells of every head that is set from now on, and how the session stands.
    pub(super) async fn watch_heads(&self) -> Result<Box<dyn Events>, TreeError> {
        let watch = self.client.watch("/heads").await;
        watch.map_err(|error| self.explain(error))
    }

    /// The same of groups of slots.
    pub(super) async fn watch_slots(&self) -> Result<Box<dyn Events>, TreeError> {
        let watch = self.client.watch("/slots").await;
        watch.map_err(|error| self.explain(error))
    }

    /// All channels that there are.
    pub(super) async fn channels(&self) -> Result<Vec<Channel>, TreeError> {
        let names = self.client.children("/heads").await?;
        // What is no channel was written by hand, and is nobody's.
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Many nodes, in requests of some each that are under way at once.
    async fn read(&self, paths: &[String]) -> Result<Vec<Node>, TreeError> {
        let mut all = Vec::with_capacity(paths.len());
        for some in paths.chunks(CLUSTER_ABREAST) {
            let requests: Vec<_> = some
                .chunks(CLUSTER_READS)
                .map(|few| self.client.read(few))
                .collect();
            for request in requests {
                all.extend(request.await.map_err(|error| self.explain(error))?);
            }
        }
        Ok(all)
    }

    /// The heads of channels; none for those that are not there.
    pub(super) async fn heads(
        &self,
        channels: &[Channel],
    ) -> Result<Vec<Result<Option<Seen>, TreeError>>, TreeError> {
        let paths: Vec<String> = channels.iter().map(head_path).collect();
        let reads = self.read(&paths).await?.into_iter().zip(paths);
        reads
            .map(|(read, path)| match read {
                Ok((data, stat)) => Ok(match read_head(&data, &stat) {
                    Some(seen) => Ok(Some(seen)),
                    None => Err(TreeError::Damaged(path)),
                }),
                Err(zk::Error::NoNode) => Ok(Ok(None)),
                // One node that somebody has closed to us stops one channel.
                Err(zk::Error::NoAuth) => Ok(Err(TreeError::Damaged(path))),
                Err(error) => Err(self.explain(error)),
            })
            .collect()
    }

    /// The head of a channel as it is now, whatever the server that we ask has heard of.
    pub(super) async fn newest(&self, channel: &Channel) -> Result<Option<Seen>, TreeError> {
        self.client.sync("/heads").await?;
        let mut heads = self.heads(std::slice::from_ref(channel)).await?;
        heads.pop().unwrap_or(Ok(None))
    }

    /// Entries; none for those that are not there any more.
    pub(super) async fn entries(
        &self,
        places: &[(Channel, Serial)],
    ) -> Result<Vec<Option<Result<Found, TreeError>>>, TreeError> {
        let paths = places.iter().map(|(channel, at)| entry_path(channel, *at));
        let reads = self.read(&paths.collect::<Vec<_>>()).await?;
        let reads = reads.into_iter().zip(places);
        reads
            .map(|(read, (channel, serial))| match read {
                Ok((data, stat)) => Ok(Some(read_entry(&data, channel, *serial, stat.czxid))),
                Err(zk::Error::NoNode) => Ok(None),
                Err(zk::Error::NoAuth) => {
                    Ok(Some(Err(TreeError::Damaged(entry_path(channel, *serial)))))
                }
                Err(error) => Err(self.explain(error)),
            })
            .collect()
    }

    /// The lowest serial from which on all entries up to this one are there.
    pub(super) async fn lowest_entry(
        &self,
        channel: &Channel,
        head: Serial,
    ) -> Result<u32, TreeError> {
        let names = match self.client.children(&directory(channel)).await {
            Err(zk::Error::NoNode) => Vec::new(),
            names => names?,
        };
        let there: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let mut low = head.number() + 1;
        while there.contains(&(low - 1)) {
            low -= 1;
        }
        Ok(low)
    }

    /// One multi-operation: all of it, or nothing. What the heads are then.
    pub(super) async fn commit(
        &self,
        ops: &[Op],
        entry: impl Fn(usize) -> Vec<u8>,
    ) -> Result<Vec<(Channel, Seen)>, NotMade> {
        let change = |op: &Op| match op {
            Op::Term(term) => Change::Check("/term".into(), *term),
            Op::Trust(log, version) => Change::Check(head_path(log), *version),
            Op::Begin(channel) => Change::Create(directory(channel), Vec::new()),
            Op::Entry(channel, serial, item) => {
                Change::Create(entry_path(channel, *serial), entry(*item))
            }
            Op::Head {
                channel,
                head,
                low,
                after,
            } => {
                let (path, data) = (head_path(channel), write_head(*head, *low));
                match after {
                    Some(version) => Change::Set(path, data, Some(*version)),
                    None => Change::Create(path, data),
                }
            }
            Op::Forget(channel, serial) => Change::Delete(entry_path(channel, *serial)),
        };
        use zk::Error::{
            BadArguments, InvalidAcl, MarshallingError, NoAuth, NotReadOnly, QuotaExceeded,
        };
        let made = self.appending.change(ops.iter().map(change).collect());
        let made = made.await.map_err(|error| match error {
            zk::MultiWriteError::OperationFailed { index, source } => NotMade::At(index, source),
            zk::MultiWriteError::RequestFailed { source } => match source {
                NoAuth | InvalidAcl | QuotaExceeded | MarshallingError | NotReadOnly
                | BadArguments(_) => NotMade::Refused(source),
                // Everything else may have happened after it was made.
                source => NotMade::Unknown(source),
            },
        })?;
        let heads = ops.iter().zip(made).filter_map(|(op, stat)| {
            let (
                Op::Head {
                    channel, head, low, ..
                },
                stat,
            ) = (op, stat?)
            else {
                return None;
            };
            let seen = Seen {
                head: *head,
                low: *low,
                // Servers before 3.7 say neither of what is created.
                version: stat.version.max(0),
                zxid: stat.mzxid.max(0),
            };
            Some((channel.clone(), seen))
        });
        Ok(heads.collect())
    }

    /// Makes the place for the entries of a channel, if it is missing; whether it was.
    pub(super) async fn make_directory(&self, channel: &Channel) -> bool {
        let make = Change::Create(directory(channel), Vec::new());
        self.appending.change(vec![make]).await.is_ok()
    }

    /// Removes the place for the entries of a channel, if there are none; whether it did.
    pub(super) async fn remove_directory(&self, channel: &Channel) -> bool {
        let remove = Change::Delete(directory(channel));
        self.appending.change(vec![remove]).await.is_ok()
    }

    /// Begins a channel without entries: with what a member has had before there was a cluster.
    /// False if another member was quicker.
    pub(super) async fn begin(&self, channel: &Channel, head: Head) -> Result<bool, TreeError> {
        let make = Change::Create(directory(channel), Vec::new());
        match self.change(make).await {
            Ok(_) | Err(zk::Error::NodeExists) => {}
            Err(error) => return Err(self.explain(error)),
        }
        let low = self.lowest_entry(channel, head.serial).await?;
        let begin = Change::Create(head_path(channel), write_head(head, low));
        match self.change(begin).await {
            Ok(_) => Ok(true),
            Err(zk::Error::NodeExists) => Ok(false),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Sets a head to what an operator has decided for, and removes what was above it.
    pub(super) async fn force_head(&self, channel: &Channel, head: Head) -> Result<(), TreeError> {
        self.sync().await?;
        let names = match self.client.children(&directory(channel)).await {
            Err(zk::Error::NoNode) => Vec::new(),
            names => names?,
        };
        if !self.begin(channel, head).await? {
            // Whatever it holds.
            let data = write_head(head, self.lowest_entry(channel, head.serial).await?);
            self.change(Change::Set(head_path(channel), data, None))
                .await?;
        }
        let above = names.iter().filter(|name| {
            name.parse()
                .is_ok_and(|serial: u32| serial > head.serial.number())
        });
        for name in above {
            let remove = Change::Delete(format!("{}/{name}", directory(channel)));
            match self.change(remove).await {
                Ok(_) | Err(zk::Error::NoNode) => {}
                Err(error) => return Err(self.explain(error)),
            }
        }
        Ok(())
    }

    /// Is a member, or becomes one: the servers' time then; none if the name is taken, or they do
    /// not say.
    pub(super) async fn be_member(
        &self,
        name: &str,
        data: &str,
        is_member: bool,
    ) -> Result<Option<Duration>, TreeError> {
        let (path, data) = (format!("/members/{name}"), Vec::from(data));
        // What is created does not say when; what is set does.
        let create = Change::CreateEphemeral(path.clone(), data.clone());
        let mut changes = vec![Change::Set(path, data, None)];
        if !is_member {
            changes.insert(0, create);
        }
        let made = self.client.change(changes).await;
        match made.map_err(zk::Error::from) {
            Ok(mut stats) => Ok(stats
                .pop()
                .flatten()
                .and_then(|stat| u64::try_from(stat.mtime).ok())
                .filter(|time| *time > 0)
                .map(Duration::from_millis)),
            Err(zk::Error::NodeExists | zk::Error::NoNode) => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// The live members, those who have been it for longest first.
    pub(super) async fn members(&self) -> Result<Vec<Member>, TreeError> {
        let names = self.client.children("/members").await?;
        let paths: Vec<String> = names
            .iter()
            .map(|name| format!("/members/{name}"))
            .collect();
        let mut members = Vec::new();
        for (read, name) in self.read(&paths).await?.into_iter().zip(names) {
            let (data, stat) = match read {
                // It has just gone.
                Err(zk::Error::NoNode) => continue,
                read => read.map_err(|error| self.explain(error))?,
            };
            let data = String::from_utf8_lossy(&data).into_owned();
            let (address, common) = data.split_once(' ').unwrap_or((&data, ""));
            members.push(Member {
                name,
                address: address.into(),
                zxid: stat.czxid,
                common: common.into(),
                ours: stat.ephemeral_owner == self.client.id(),
            });
        }
        members.sort_by_key(|member| member.zxid);
        Ok(members)
    }

    /// Who signs.
    pub(super) async fn term(&self) -> Result<Term, TreeError> {
        let read = self.get("/term").await;
        let (data, stat) = read.map_err(|error| self.explain(error))?;
        let text = String::from_utf8_lossy(&data).into_owned();
        let (name, zxid) = text.split_once(' ').unwrap_or((&text, ""));
        Ok(Term {
            name: name.into(),
            zxid: zxid.parse().unwrap_or(0),
            term: stat.version,
        })
    }

    /// Begins a new term after another one, or ends ours: the new term, unless another member was
    /// quicker.
    pub(super) async fn begin_term(
        &self,
        member: Option<&Member>,
        after: i32,
    ) -> Result<Option<i32>, TreeError> {
        let data = member.map_or("-".into(), |member| {
            format!("{} {}", member.name, member.zxid)
        });
        let set = Change::Set("/term".into(), data.into_bytes(), Some(after));
        match self.change(set).await {
            Ok(stat) => Ok(stat.map(|stat| stat.version)),
            Err(zk::Error::BadVersion) => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// What is kept under `/slots`, and its version; none if there is nothing.
    pub(super) async fn slots(&self, group: &str) -> Result<Option<(Vec<u8>, i32)>, zk::Error> {
        // What another member has changed before is seen.
        self.client.sync("/slots").await?;
        match self.get(&format!("/slots/{group}")).await {
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
            Some(version) => Change::Set(path, data.into(), Some(version)),
            None => Change::Create(path, data.into()),
        };
        match self.change(set).await {
            Ok(_) => Ok(true),
            Err(zk::Error::BadVersion | zk::Error::NodeExists | zk::Error::NoNode) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn read_entry(
    data: &[u8],
    channel: &Channel,
    serial: Serial,
    zxid: i64,
) -> Result<Found, TreeError> {
    let damaged = || TreeError::Damaged(entry_path(channel, serial));
    let end = data.iter().position(|octet| *octet == b'\n');
    let end = end.ok_or_else(damaged)?;
    let path = String::from_utf8(data[..end].into()).map_err(|_| damaged())?;
    let statement = Statement::parse(&data[end + 1..]).map_err(|_| damaged())?;
    if statement.channel() != channel || statement.serial() != serial {
        return Err(damaged());
    }
    Ok(Found {
        statement,
        path,
        zxid,
    })
}
