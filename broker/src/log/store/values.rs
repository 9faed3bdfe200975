//! What is kept beside the logs: cursors of feeds, groups of slots.

use tidings_protocol::Channel;

use super::{
    Batch, Store, StoreError,
    changes::{feed_key, group_key},
};

impl Store {
    /// The last serial of a channel that a peer has answered for; 0 if it was offered nothing yet.
    pub(crate) fn feed_cursor(&self, peer: &str, channel: &Channel) -> Result<u32, StoreError> {
        let value = self.value(&feed_key(peer, channel));
        Ok(value
            .and_then(|value| value.first_chunk().copied())
            .map_or(0, u32::from_be_bytes))
    }

    /// Moves such cursors, durably; on a full disk not: a peer that is asked again says that it
    /// knows.
    pub(crate) fn set_feed_cursors<'a>(
        &self,
        peer: &str,
        cursors: impl Iterator<Item = (&'a Channel, u32)>,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        cursors.for_each(|(channel, serial)| {
            batch.put(feed_key(peer, channel), Some(serial.to_be_bytes().into()))
        });
        match batch.is_empty() || self.missing_octets()?.is_some() {
            true => Ok(()),
            false => self.commit(batch),
        }
    }

    /// Has every feed offer a channel from its beginning, from this batch on.
    pub(crate) fn forget_feed_cursors(
        &self,
        batch: &mut Batch,
        channel: &Channel,
    ) -> Result<(), StoreError> {
        let end = [&[0], channel.as_str().as_bytes()].concat();
        let index = self.index();
        let cursors = index
            .values
            .keys()
            .filter(|key| key.first() == Some(&b'p') && key.ends_with(&end));
        cursors.for_each(|key| batch.put(key.to_vec(), None));
        Ok(())
    }

    /// What is kept of a group of slots, and its version.
    pub(crate) fn slots(&self, group: &str) -> Result<Option<(Vec<u8>, i32)>, StoreError> {
        let Some(value) = self.value(&group_key(group)) else {
            return Ok(None);
        };
        let (version, data) = value
            .split_first_chunk()
            .ok_or_else(|| StoreError::Damaged(format!("slots of {group}")))?;
        Ok(Some((data.to_vec(), i32::from_be_bytes(*version))))
    }

    /// Replaces that, durably, if it still has the version that was read; whether it had.
    pub(crate) fn set_slots(
        &self,
        group: &str,
        data: &[u8],
        after: Option<i32>,
    ) -> Result<bool, StoreError> {
        // Held from reading to replacing.
        let mut log = self.log()?;
        if self.slots(group)?.map(|(_, version)| version) != after {
            return Ok(false);
        }
        let next = after
            .map_or(0, |version| version.wrapping_add(1))
            .to_be_bytes();
        let mut batch = Batch::default();
        batch.put(group_key(group), Some([&next, data].concat()));
        log.commit(&self.0.index, &mut batch)?;
        Ok(true)
    }
}
