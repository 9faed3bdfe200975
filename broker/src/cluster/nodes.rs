//! Reading and writing what stands in the tree.

use std::{sync::atomic::Ordering, time::Duration};

use tidings_protocol::{Channel, Head};
use zookeeper_client as zk;

use super::{
    batch::{Batch, Check, Seen},
    kept,
    session::{Change, Events, Node},
    tree::{Tree, TreeError, head_path, read_head, settled_path, write_head},
};
use crate::limits::{CLUSTER_ABREAST, CLUSTER_BATCH, CLUSTER_READS};

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

/// An operation of a batch.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Check(usize),
    Node,
    Set(usize),
    /// Which of the nodes that go.
    Going(usize),
}

/// Why a batch was not made.
pub(super) enum NotMade {
    /// This operation of it could not be done, so that none was.
    At(Part, zk::Error),
    Refused(zk::Error),
    /// It is not known whether it was made.
    Unknown(zk::Error),
}

impl Tree {
    /// What has been settled by others is seen by the next reads.
    pub(super) async fn sync(&self) -> Result<(), TreeError> {
        Ok(self.client.sync("/settled").await?)
    }

    /// Tells of everything that is settled from now on, and how the session stands.
    pub(super) async fn watch_settled(&self) -> Result<Box<dyn Events>, TreeError> {
        let watch = self.client.watch("/settled").await;
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
        channels: impl Iterator<Item = &Channel>,
    ) -> Result<Vec<Result<Option<Seen>, TreeError>>, TreeError> {
        let paths: Vec<String> = channels.map(head_path).collect();
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
        self.sync().await?;
        let mut heads = self.heads(std::iter::once(channel)).await?;
        heads.pop().unwrap_or(Ok(None))
    }

    /// The names of all nodes of what was settled.
    pub(super) async fn settled(&self) -> Result<Vec<String>, TreeError> {
        Ok(self.client.children("/settled").await?)
    }

    /// What some of them hold, and when that was settled; none for those that are gone.
    pub(super) async fn read_settled(
        &self,
        names: &[String],
    ) -> Result<Vec<Option<(Vec<u8>, i64)>>, TreeError> {
        // Each by a request of its own: together they may be large.
        let paths: Vec<String> = names.iter().map(|name| settled_path(name)).collect();
        let paths = paths.chunks(1);
        let requests: Vec<_> = paths.map(|path| self.client.read(path)).collect();
        let mut all = Vec::with_capacity(names.len());
        for request in requests {
            let mut nodes = request.await.map_err(|error| self.explain(error))?;
            all.push(match nodes.pop().unwrap_or(Err(zk::Error::NoNode)) {
                Ok((data, stat)) => Some((data, stat.czxid)),
                Err(zk::Error::NoNode | zk::Error::NoAuth) => None,
                Err(error) => return Err(self.explain(error)),
            });
        }
        Ok(all)
    }

    /// A name for a node of what is settled.
    pub(super) fn new_name(&self, member: &str) -> String {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        kept::name(self.appending.id(), number, member)
    }

    /// One multi-operation: all of it, or nothing. What the heads are then.
    pub(super) async fn commit(
        &self,
        batch: &Batch,
        (name, node): (&str, Vec<u8>),
        going: &[String],
    ) -> Result<Vec<(Channel, Seen)>, NotMade> {
        let check = |check: &Check| match check {
            Check::Term(term) => Change::Check("/term".into(), *term),
            Check::Trust(log, version) => Change::Check(head_path(log), *version),
        };
        let mut changes: Vec<Change> = batch.checks.iter().map(check).collect();
        changes.push(Change::Create(settled_path(name), node));
        changes.extend(batch.sets.iter().map(|set| {
            let (path, data) = (head_path(&set.channel), write_head(set.head));
            match set.after {
                Some(version) => Change::Set(path, data, Some(version)),
                None => Change::Create(path, data),
            }
        }));
        changes.extend(going.iter().map(|name| Change::Delete(settled_path(name))));
        use zk::Error::{
            BadArguments, InvalidAcl, MarshallingError, NoAuth, NotReadOnly, QuotaExceeded,
        };
        let made = self.appending.change(changes).await;
        let heads = batch.checks.len() + 1;
        let made = made.map_err(|error| match error {
            zk::MultiWriteError::OperationFailed { index, source } => {
                NotMade::At(batch.part(index), source)
            }
            zk::MultiWriteError::RequestFailed { source } => match source {
                NoAuth | InvalidAcl | QuotaExceeded | MarshallingError | NotReadOnly
                | BadArguments(_) => NotMade::Refused(source),
                // Everything else may have happened after it was made.
                source => NotMade::Unknown(source),
            },
        })?;
        let heads = batch.sets.iter().zip(made.into_iter().skip(heads));
        let seen = |(set, stat): (&super::batch::Set, Option<zk::Stat>)| {
            let seen = Seen {
                head: set.head,
                version: set.version(),
                // Servers before 3.7 do not say of what is created.
                zxid: stat.map_or(0, |stat| stat.mzxid.max(0)),
            };
            (set.channel.clone(), seen)
        };
        Ok(heads.map(seen).collect())
    }

    /// Sets heads to what no statement in the tree says, where they have this version, and tells
    /// all members of it.
    async fn set_bare(
        &self,
        heads: &[(Channel, Head)],
        after: Option<i32>,
    ) -> Result<(), zk::MultiWriteError> {
        let mut node = Vec::new();
        let set = |(channel, head): &(Channel, Head)| {
            kept::write(&mut node, (channel, *head, -1), None);
            let (path, data) = (head_path(channel), write_head(*head));
            match after {
                Some(_) => Change::Set(path, data, after),
                None => Change::Create(path, data),
            }
        };
        let mut changes: Vec<Change> = heads.iter().map(set).collect();
        changes.push(Change::Create(settled_path(&self.new_name("-")), node));
        self.appending.change(changes).await.map(drop)
    }

    /// Begins channels without entries: with what a member has had before there was a cluster.
    /// Those that another member has begun meanwhile are left alone.
    pub(super) async fn begin(&self, mut heads: Vec<(Channel, Head)>) -> Result<(), TreeError> {
        while !heads.is_empty() {
            let some = heads.len().min(CLUSTER_BATCH);
            match self.set_bare(&heads[..some], None).await {
                Ok(()) => drop(heads.drain(..some)),
                Err(zk::MultiWriteError::OperationFailed { index, source })
                    if source == zk::Error::NodeExists && index < some =>
                {
                    heads.remove(index);
                }
                Err(error) => return Err(self.explain(error.into())),
            }
        }
        Ok(())
    }

    /// Sets a head to what an operator has decided for, and takes out of the tree what it has of
    /// that channel: whoever lacks some of it gets it from who has that head.
    pub(super) async fn force_head(&self, channel: &Channel, head: Head) -> Result<(), TreeError> {
        loop {
            self.sync().await?;
            let after = match self.get(&head_path(channel)).await {
                Ok((_, stat)) => Some(stat.version),
                Err(zk::Error::NoNode) => None,
                Err(error) => return Err(self.explain(error)),
            };
            let set = self.set_bare(&[(channel.clone(), head)], after).await;
            match set.map_err(zk::Error::from) {
                Ok(()) => break,
                // A member was quicker: it is set all the same.
                Err(zk::Error::BadVersion | zk::Error::NodeExists | zk::Error::NoNode) => {}
                Err(error) => return Err(self.explain(error)),
            }
        }
        for name in self.settled().await? {
            let node = self.read_settled(std::slice::from_ref(&name)).await?.pop();
            let Some((data, _)) = node.flatten() else {
                continue;
            };
            let records = kept::read(&data).unwrap_or_default();
            let is_its = |one: &&kept::Record| one.channel == *channel && one.entry.is_some();
            if !records.iter().any(|one| is_its(&one)) {
                continue;
            }
            let mut rest = Vec::new();
            for one in records.iter().filter(|one| !is_its(one)) {
                let entry = one.entry.as_ref();
                let entry = entry.map(|(statement, path)| (statement, path.as_str()));
                kept::write(&mut rest, (&one.channel, one.head, one.version), entry);
            }
            let set = Change::Set(settled_path(&name), rest, None);
            match self.change(set).await {
                Ok(_) | Err(zk::Error::NoNode) => {}
                Err(error) => return Err(self.explain(error)),
            }
        }
        Ok(())
    }

    /// Removes nodes one by one; those that are gone, or stay.
    pub(super) async fn remove_settled(&self, names: &[String]) -> Result<(), TreeError> {
        for name in names {
            match self.change(Change::Delete(settled_path(name))).await {
                Ok(_) | Err(zk::Error::NoNode | zk::Error::NotEmpty | zk::Error::NoAuth) => {}
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
