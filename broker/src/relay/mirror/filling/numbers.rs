//! Which statements an upstream has, and their octets, a chunk at a time.

use std::collections::BTreeMap;

use tidings_client::Connection;
use tidings_protocol::{
    Channel, MessageId, Serial,
    article::{Incoming, prepend_hop},
    nntp::code,
};

use super::FillError;
use crate::{log::append::Copy, shared::Shared};

/// Where an upstream has which serial: under that number, or under one of its own.
pub(super) enum Numbers {
    Serials { low: u32, high: u32 },
    Own(BTreeMap<u32, String>),
}

impl Numbers {
    pub(super) fn high(&self) -> u32 {
        match self {
            Numbers::Serials { high, .. } => *high,
            Numbers::Own(ids) => ids.keys().next_back().copied().unwrap_or(0),
        }
    }
    /// The lowest serial from which on, up to `serial`, nothing is missing; the one above it, if it
    /// is missing itself.
    pub(super) fn low(&self, serial: u32) -> u32 {
        match self {
            Numbers::Serials { low, .. } => *low,
            Numbers::Own(ids) => (1..=serial)
                .rev()
                .take_while(|serial| ids.contains_key(serial))
                .last()
                .unwrap_or(serial + 1),
        }
    }
    /// What ARTICLE is asked for.
    fn name(&self, serial: u32) -> String {
        match self {
            Numbers::Serials { .. } => serial.to_string(),
            Numbers::Own(ids) => ids
                .get(&serial)
                .cloned()
                .unwrap_or_else(|| "<0@invalid>".into()),
        }
    }
}

/// Between which serials a log is filled, and what its lowest may begin.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) floor: u32,
    pub(super) high: u32,
    /// Whether nothing below the floor is to be had, or wanted.
    pub(super) ends: bool,
}

pub(super) async fn numbers(
    asking: &mut Connection,
    channel: &Channel,
    numbers_are_serials: bool,
) -> Result<Option<Numbers>, FillError> {
    if numbers_are_serials {
        let group = asking.group(channel, None).await?;
        return Ok(group.map(|(group, _)| Numbers::Serials {
            low: group.low,
            high: group.high,
        }));
    }
    let response = asking.command(&format!("GROUP {channel}")).await?;
    if response.code != code::GROUP {
        return Ok(None);
    }
    let marks: Vec<u64> = response
        .text
        .split(' ')
        .take(3)
        .filter_map(|n| n.parse().ok())
        .collect();
    let [_, low, high] = marks[..] else {
        return Ok(None);
    };
    if high < low {
        return Ok(None);
    }
    let listing = asking
        .listing(&format!("XHDR Message-ID {low}-{high}"), code::HEAD)
        .await?;
    let ids = listing
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim().parse::<MessageId>().ok());
    let ids: BTreeMap<u32, String> = ids
        .filter(|id| id.channel == *channel)
        .map(|id| (id.serial.number(), id.to_string()))
        .collect();
    Ok((!ids.is_empty()).then_some(Numbers::Own(ids)))
}

/// One statement, by its id.
pub(super) async fn by_id(
    shared: &Shared,
    asking: &mut Connection,
    id: &MessageId,
) -> Result<Copy, FillError> {
    let found = asking.fetch([id.to_string()]).await?.pop().flatten();
    let Incoming { statement, path } = found.ok_or(FillError::Missing(id.serial))?;
    if statement.message_id() != *id {
        return Err(FillError::Other {
            expected: id.serial,
            found: statement.serial(),
        });
    }
    let path = prepend_hop(&shared.settings.config.name, path.as_deref());
    Ok(Copy::unproven(statement, path))
}

/// Statements from `lowest` up to `wanted`.
pub(super) async fn chunk(
    shared: &Shared,
    asking: &mut Connection,
    channel: &Channel,
    numbers: &Numbers,
    wanted: u32,
    lowest: u32,
) -> Result<Vec<Copy>, FillError> {
    let serials = lowest..=wanted;
    let found = asking
        .fetch(serials.clone().map(|serial| numbers.name(serial)))
        .await?;
    let mut copies = Vec::with_capacity(found.len());
    for (serial, incoming) in serials.filter_map(Serial::new).zip(found) {
        let Incoming { statement, path } = incoming.ok_or(FillError::Missing(serial))?;
        if statement.serial() != serial || statement.channel() != channel {
            return Err(FillError::Other {
                expected: serial,
                found: statement.serial(),
            });
        }
        copies.push(Copy::unproven(
            statement,
            prepend_hop(&shared.settings.config.name, path.as_deref()),
        ));
    }
    Ok(copies)
}
