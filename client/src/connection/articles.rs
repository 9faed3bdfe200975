//! Groups and articles: one, or very many on one connection.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
};

use tidings_protocol::{
    Channel, Head, Serial, Statement,
    article::{self, Incoming},
    limits::{ARTICLE_OCTETS, SERIAL_LAST},
    nntp::{code, codec::CodecError},
    verify::VerifyError,
};

use super::Connection;
use crate::{Error, limits::PIPELINE};

/// Count, low-water mark and head of a channel, as a broker claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The lowest serial that it has.
    pub low: u32,
    /// The highest.
    pub high: u32,
}

impl Connection {
    /// Selects a channel, and asks for the id of the article with a known serial in the same round
    /// trip.
    ///
    /// Returns nothing where the broker has no such channel, and with the marks the message-id at
    /// `known`, if it has it.
    ///
    /// # Errors
    /// If the connection fails or the broker does not speak the protocol.
    pub async fn group(
        &mut self,
        channel: &Channel,
        known: Option<Serial>,
    ) -> Result<Option<(Group, Option<String>)>, Error> {
        let mut commands = format!("GROUP {channel}\r\n");
        if let Some(serial) = known {
            commands.push_str(&format!("STAT {serial}\r\n"));
        }
        self.send(commands.as_bytes()).await?;
        self.group_answer(known.is_some()).await
    }

    /// Asks the same of many channels, [`PIPELINE`] at a time, and hands the message-id that the
    /// broker has at the known serial of each to `take`, in the order in which they are given.
    ///
    /// # Errors
    /// As [`Connection::group`].
    pub async fn each_id(
        &mut self,
        which: impl IntoIterator<Item = &(Channel, Head)>,
        mut take: impl FnMut(&Channel, Head, Option<String>),
    ) -> Result<(), Error> {
        let (mut which, mut under_way) = (which.into_iter().fuse(), VecDeque::new());
        loop {
            if under_way.len() <= PIPELINE / 2 {
                let mut commands = String::new();
                for one @ (channel, head) in which.by_ref().take(PIPELINE - under_way.len()) {
                    // Writing to a string cannot fail.
                    let _ = write!(commands, "GROUP {channel}\r\nSTAT {}\r\n", head.serial);
                    under_way.push_back(one);
                }
                self.send(commands.as_bytes()).await?;
            }
            let Some((channel, head)) = under_way.pop_front() else {
                return Ok(());
            };
            let answer = self.group_answer(true).await?;
            take(channel, *head, answer.and_then(|(_, id)| id));
        }
    }

    /// What a broker says to GROUP, and to STAT if that was sent with it.
    async fn group_answer(&mut self, stat: bool) -> Result<Option<(Group, Option<String>)>, Error> {
        let group = self.response().await?;
        let stat = match stat {
            true => Some(self.response().await?),
            false => None,
        };
        if group.code == code::NO_SUCH_GROUP {
            return Ok(None);
        }
        if group.code != code::GROUP {
            return Err(Error::Refused(group));
        }
        let numbers: Vec<u32> = group
            .text
            .split(' ')
            .take(3)
            .filter_map(|n| n.parse().ok())
            .collect();
        let marks = match numbers[..] {
            [_, low, high] if (1..=SERIAL_LAST).contains(&low) && high <= SERIAL_LAST => {
                (low, high)
            }
            _ => {
                return Err(CodecError::Unexpected {
                    expected: "211 COUNT LOW HIGH CHANNEL",
                    found: group.text,
                }
                .into());
            }
        };
        let (low, high) = marks;
        if high < low {
            // Servers that know empty groups say so.
            return Ok(None);
        }
        let id = stat
            .filter(|s| s.code == code::STAT)
            .and_then(|s| s.text.split(' ').nth(1).map(str::to_owned));
        Ok(Some((Group { low, high }, id)))
    }

    /// Reads the statements with these serials, which the broker has claimed to have, from the
    /// selected channel, many requests at a time.
    ///
    /// # Errors
    /// If the connection fails, one is missing or no statement or another than was asked for, or
    /// there are more than `most` octets.
    pub async fn articles(
        &mut self,
        channel: &Channel,
        serials: std::ops::RangeInclusive<u32>,
        most: usize,
    ) -> Result<Vec<Statement>, Error> {
        let (mut found, mut octets, mut due) = (Vec::new(), 0, *serials.start());
        let serials = due..=(*serials.end()).min(SERIAL_LAST);
        let take = |incoming: Option<Incoming>| {
            // Expired since, or never there: either way its marks have to be looked at anew.
            let missing = || Error::Missing {
                channel: channel.clone(),
                serial: due,
            };
            let Incoming { statement, .. } = incoming.ok_or_else(missing)?;
            if statement.channel() != channel {
                let (expected, found, serial) = (
                    channel.clone(),
                    statement.channel().clone(),
                    statement.serial(),
                );
                let source = VerifyError::Channel { expected, found };
                return Err(Error::Verify {
                    channel: channel.clone(),
                    serial,
                    source,
                });
            }
            if statement.serial().number() != due {
                return Err(missing());
            }
            due += 1;
            octets += statement.octets().len();
            if octets > most {
                return Err(Error::Backlog(channel.clone()));
            }
            found.push(statement);
            Ok(())
        };
        self.each_article(serials, take).await?;
        Ok(found)
    }

    /// Reads articles of the selected channel by their numbers, or any by their message-ids, many
    /// requests at a time, in the order in which they are asked for; nothing in the place of one
    /// that the broker does not have.
    ///
    /// # Errors
    /// If the connection fails, or something is no statement.
    pub async fn fetch(
        &mut self,
        which: impl IntoIterator<Item = impl fmt::Display>,
    ) -> Result<Vec<Option<Incoming>>, Error> {
        let mut found = Vec::new();
        let take = |incoming| {
            found.push(incoming);
            Ok(())
        };
        self.each_article(which, take).await?;
        Ok(found)
    }

    /// Asks for articles, [`PIPELINE`] at a time, and hands each to `take`.
    async fn each_article(
        &mut self,
        which: impl IntoIterator<Item = impl fmt::Display>,
        mut take: impl FnMut(Option<Incoming>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut which = which.into_iter().fuse();
        let (mut under_way, mut commands) = (0, String::new());
        loop {
            if under_way <= PIPELINE / 2 {
                for one in which.by_ref().take(PIPELINE - under_way) {
                    // Writing to a string cannot fail.
                    let _ = write!(commands, "ARTICLE {one}\r\n");
                    under_way += 1;
                }
                if !commands.is_empty() {
                    self.send(commands.as_bytes()).await?;
                    commands.clear();
                }
            }
            if under_way == 0 {
                return Ok(());
            }
            let response = self.response().await?;
            under_way -= 1;
            match response.code {
                code::ARTICLE => take(Some(article::parse(&self.block(ARTICLE_OCTETS).await?)?))?,
                code::NO_SUCH_NUMBER | code::NO_SUCH_ID => take(None)?,
                _ => return Err(Error::Refused(response)),
            }
        }
    }
}
