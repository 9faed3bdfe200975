//! The nodes of the model, as they are now and as they were: a session that lags reads what was.

use std::{collections::BTreeMap, sync::Arc};

use zookeeper_client::{Error, MultiWriteError, Stat};

use super::super::session::Change;

type Znode = Option<(Arc<Vec<u8>>, Stat)>;

/// What becomes of some nodes by one multi-operation; none if one goes.
pub(super) type Made = BTreeMap<String, Znode>;

#[derive(Default)]
pub(super) struct Znodes {
    /// What a node was from a zxid on.
    versions: BTreeMap<String, Vec<(i64, Znode)>>,
    changed: Vec<(i64, String)>,
    pub(super) zxid: i64,
}

impl Znodes {
    /// What was last changed at a node, whoever has seen it.
    pub(super) fn newest(&self, path: &str) -> Znode {
        self.at(path, self.zxid)
    }

    pub(super) fn at(&self, path: &str, zxid: i64) -> Znode {
        let versions = self.versions.get(path)?;
        let before = versions.partition_point(|(from, _)| *from <= zxid);
        versions[..before].last()?.1.clone()
    }

    pub(super) fn children(&self, path: &str, zxid: i64) -> Vec<String> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let names = self.versions.range(below.clone()..);
        let names = names.take_while(|(path, _)| path.starts_with(&below));
        let names = names.filter_map(|(path, _)| {
            let name = path.strip_prefix(&below)?;
            (!name.contains('/') && self.at(path, zxid).is_some()).then(|| name.to_owned())
        });
        names.collect()
    }

    /// The paths below one that were changed after one zxid, and not after another.
    pub(super) fn changed(&self, below: &str, from: i64, to: i64) -> Vec<(i64, String)> {
        let begin = self.changed.partition_point(|(zxid, _)| *zxid <= from);
        let new = self.changed[begin..].iter();
        let new = new.take_while(|(zxid, _)| *zxid <= to);
        new.filter(|(_, path)| path.starts_with(below))
            .cloned()
            .collect()
    }

    /// What becomes of a multi-operation: all of it, or nothing.
    pub(super) fn plan(
        &self,
        owner: i64,
        mtime: i64,
        changes: &[Change],
    ) -> Result<(Made, Vec<Option<Stat>>), MultiWriteError> {
        let (mut made, mut stats) = (Made::new(), Vec::new());
        for (index, change) in changes.iter().enumerate() {
            let one = self.try_change(owner, mtime, &made, change);
            let (path, node) =
                one.map_err(|source| MultiWriteError::OperationFailed { index, source })?;
            let is_check = matches!(change, Change::Check(..));
            let stat = node.as_ref().map(|(_, stat)| *stat);
            stats.push(stat.filter(|_| !is_check));
            if !is_check {
                made.insert(path, node);
            }
        }
        Ok((made, stats))
    }

    pub(super) fn make(&mut self, made: Made) {
        self.zxid += 1;
        for (path, node) in made {
            self.changed.push((self.zxid, path.clone()));
            let versions = self.versions.entry(path).or_default();
            versions.push((self.zxid, node));
        }
    }

    fn try_change(
        &self,
        owner: i64,
        mtime: i64,
        made: &Made,
        change: &Change,
    ) -> Result<(String, Znode), Error> {
        let zxid = self.zxid + 1;
        let find = |path: &String| made.get(path).cloned().unwrap_or_else(|| self.newest(path));
        let create = |path: &String, data: &Vec<u8>, ephemeral_owner| {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            if !parent.is_empty() && find(&parent.to_owned()).is_none() {
                return Err(Error::NoNode);
            }
            if find(path).is_some() {
                return Err(Error::NodeExists);
            }
            let stat = Stat {
                czxid: zxid,
                mzxid: zxid,
                pzxid: zxid,
                ctime: mtime,
                mtime,
                version: 0,
                cversion: 0,
                aversion: 0,
                ephemeral_owner,
                data_length: 0,
                num_children: 0,
            };
            Ok((path.clone(), Some((Arc::new(data.clone()), stat))))
        };
        match change {
            Change::Check(path, version) => match find(path).ok_or(Error::NoNode)? {
                (_, stat) if stat.version != *version => Err(Error::BadVersion),
                there => Ok((path.clone(), Some(there))),
            },
            Change::Create(path, data) => create(path, data, 0),
            Change::CreateEphemeral(path, data) => create(path, data, owner),
            Change::Set(path, data, version) => {
                let (_, mut stat) = find(path).ok_or(Error::NoNode)?;
                if version.is_some_and(|version| version != stat.version) {
                    return Err(Error::BadVersion);
                }
                (stat.version, stat.mzxid, stat.mtime) = (stat.version + 1, zxid, mtime);
                Ok((path.clone(), Some((Arc::new(data.clone()), stat))))
            }
            Change::Delete(path) => {
                find(path).ok_or(Error::NoNode)?;
                let has_children = self.children(path, self.zxid).into_iter();
                let has_children = has_children.map(|name| format!("{path}/{name}"));
                match has_children.filter_map(|path| find(&path)).next() {
                    Some(_) => Err(Error::NotEmpty),
                    None => Ok((path.clone(), None)),
                }
            }
        }
    }
}
