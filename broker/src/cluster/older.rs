//! Carries over the tree of an earlier version, in which each statement was a node of its own:
//! `/entries/CHANNEL/SERIAL`, and a head had a third word.

use tidings_protocol::{Channel, Statement};
use zookeeper_client as zk;

use super::{
    kept,
    session::Change,
    tree::{LAYOUT, Tree, TreeError, head_path, read_head, settled_path, write_head},
};
use crate::limits::{CLUSTER_ABREAST, CLUSTER_BATCH_OCTETS};

/// A statement as it was kept, and when it was settled.
struct Old {
    zxid: i64,
    path: String,
    statement: Statement,
}

impl Tree {
    /// Makes of the earlier layout the present one. What was interrupted is begun again: statements
    /// that stand there twice do no harm.
    pub(super) async fn carry_over(&self) -> Result<(), TreeError> {
        if let Some(member) = self.client.children("/members").await?.pop() {
            return Err(TreeError::InUse(self.root.clone(), member));
        }
        let settled = Change::Create("/settled".into(), Vec::new());
        match self.change(settled).await {
            Ok(_) | Err(zk::Error::NodeExists) => {}
            Err(error) => return Err(self.explain(error)),
        }
        let (mut all, mut old_nodes) = (Vec::new(), Vec::new());
        for channel in self.channels().await? {
            self.carry_over_one(&channel, &mut all, &mut old_nodes)
                .await?;
        }
        all.sort_by_key(|old| (old.zxid, old.statement.serial()));
        let mut node = Vec::new();
        for (number, old) in all.iter().enumerate() {
            // Which version its head had is not known any more: members look for themselves.
            let place = (old.statement.channel(), old.statement.head(), -1);
            kept::write(&mut node, place, Some((&old.statement, &old.path)));
            if node.len() > CLUSTER_BATCH_OCTETS || number + 1 == all.len() {
                let path = settled_path(&self.new_name("-"));
                self.change(Change::Create(path, std::mem::take(&mut node)))
                    .await?;
            }
        }
        for some in old_nodes.chunks(CLUSTER_ABREAST) {
            let gone = some
                .iter()
                .map(|path: &String| Change::Delete(path.clone()));
            self.client.change(gone.collect()).await?;
        }
        // What somebody has written there by hand stays.
        drop(self.change(Change::Delete("/entries".into())).await);
        self.change(Change::Set("/layout".into(), LAYOUT.into(), None))
            .await?;
        Ok(())
    }

    async fn carry_over_one(
        &self,
        channel: &Channel,
        all: &mut Vec<Old>,
        old_nodes: &mut Vec<String>,
    ) -> Result<(), TreeError> {
        let path = head_path(channel);
        let (data, stat) = self.get(&path).await?;
        let two_words = |data: &[u8]| {
            let end = data.iter().rposition(|octet| *octet == b' ')?;
            read_head(&data[..end], &stat)
        };
        // One that was carried over before an interruption has two words already; what cannot be
        // read stays as it is.
        let Some(seen) = two_words(&data).or_else(|| read_head(&data, &stat)) else {
            return Ok(());
        };
        if data != write_head(seen.head) {
            let set = Change::Set(path, write_head(seen.head), Some(stat.version));
            self.change(set).await?;
        }
        let directory = format!("/entries/{channel}");
        let names = match self.client.children(&directory).await {
            Err(zk::Error::NoNode) => return Ok(()),
            names => names?,
        };
        for name in names {
            let path = format!("{directory}/{name}");
            let (data, entry) = self.get(&path).await?;
            old_nodes.push(path);
            let end = data.iter().position(|octet| *octet == b'\n');
            let found = end.and_then(|end| {
                let path = String::from_utf8(data[..end].into()).ok()?;
                Some((path, Statement::parse(&data[end + 1..]).ok()?))
            });
            // What was above the head, or is none, was nobody's.
            let is_its =
                |one: &Statement| one.channel() == channel && one.serial() <= seen.head.serial;
            if let Some((path, statement)) = found.filter(|(_, one)| is_its(one)) {
                all.push(Old {
                    zxid: entry.czxid,
                    path,
                    statement,
                });
            }
        }
        old_nodes.push(directory);
        Ok(())
    }
}
