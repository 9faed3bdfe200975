//! One session with a peer: what is offered, and what it has answered.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidings_client::Connection;
use tidings_protocol::{
    Channel, Serial,
    nntp::{Code, Response, code},
    statement::Kind,
};
use tokio::time::Instant;
use tokio::time::timeout;

use super::{FeedError, look};
use crate::{
    config::Feed,
    limits::{FEED_AGAIN, FEED_AGAIN_LAST, FEED_CURSORS, FEED_IDLE, FEED_PAUSE, FEED_WINDOW},
    log::{
        logs::{Entry, Log},
        store::StoreError,
    },
    logging::Safe,
    shared::Shared,
};

/// How far a channel is, and what of it is under way.
pub(super) struct Progress {
    pub(super) log: Arc<Log>,
    /// Everything up to here is answered for.
    pub(super) done: u32,
    /// Everything up to here was offered.
    pub(super) offered: u32,
    /// What above `done` is answered for.
    pub(super) answered: BTreeMap<u32, ()>,
    pub(super) saved: u32,
    /// Its log is not the one of the channel any more.
    pub(super) dead: bool,
}

impl Progress {
    fn answer(&mut self, serial: u32) {
        self.answered.insert(serial, ());
        while self.answered.remove(&(self.done + 1)).is_some() {
            self.done += 1;
        }
    }
}

/// Something that was offered, and waits for an answer.
pub(super) struct Offered {
    pub(super) channel: usize,
    entry: Arc<Entry>,
    /// It was sent whole.
    sent: bool,
}

/// What one connection to a peer is about.
pub(super) struct Session<'a> {
    pub(super) shared: &'a Shared,
    pub(super) feed: &'a Feed,
    pub(super) connection: Connection,
    pub(super) streaming: bool,
    pub(super) progress: Vec<Progress>,
    pub(super) places: HashMap<usize, usize>,
    /// In the order in which the peer will answer.
    pub(super) under_way: VecDeque<Offered>,
    pub(super) later: &'a mut Later,
    /// What the peer could not prove from below: it is sent from the newest down, below what
    /// vouches for it.
    pub(super) down: VecDeque<(usize, u32)>,
    /// What was sent so.
    pub(super) sent_down: HashSet<(usize, u32)>,
    /// When the trust logs were offered again from their beginning.
    pub(super) trust_again: Option<Instant>,
    pub(super) counts: Counts,
}

/// What the peer has put off: until when, and the next pause.
pub(super) type Later = BTreeMap<(Channel, Serial), (Instant, Duration)>;

#[derive(Default)]
pub(super) struct Counts {
    pub(super) taken: u64,
    pub(super) known: u64,
    pub(super) refused: u64,
}

impl Session<'_> {
    pub(super) async fn feed_all(
        &mut self,
        news: &mut tokio::sync::watch::Receiver<()>,
    ) -> Result<(), FeedError> {
        let mut saved = Instant::now();
        loop {
            news.mark_unchanged();
            look(self.shared, self.feed, &mut self.progress, &mut self.places)?;
            self.offer().await?;
            if self.under_way.is_empty() && self.down.is_empty() {
                self.save()?;
                let due = self
                    .later
                    .values()
                    .map(|(due, _)| due.saturating_duration_since(Instant::now()))
                    .min();
                let told = timeout(due.unwrap_or(FEED_IDLE).min(FEED_IDLE), news.changed()).await;
                if told.is_err() && due.is_none_or(|due| due > FEED_IDLE) {
                    return Ok(());
                }
                continue;
            }
            self.hear().await?;
            if saved.elapsed() > FEED_CURSORS {
                self.save()?;
                saved = Instant::now();
            }
        }
    }

    /// Offers as much as may be under way at once, with one write.
    async fn offer(&mut self) -> Result<(), FeedError> {
        let mut octets = Vec::new();
        let window = if self.streaming { FEED_WINDOW } else { 1 };
        let now = Instant::now();
        let due = |(key, (due, _)): (&(Channel, Serial), &(Instant, Duration))| {
            (*due <= now).then(|| key.clone())
        };
        self.offer_down(&mut octets)?;
        let room = window.saturating_sub(self.under_way.len());
        let due: Vec<(Channel, Serial)> = self.later.iter().filter_map(due).take(room).collect();
        for (channel, serial) in due {
            let place = self
                .progress
                .iter()
                .rposition(|one| !one.dead && one.log.channel == channel);
            let key = (channel, serial);
            let Some((place, (due, pause))) = place.zip(self.later.get_mut(&key)) else {
                // Its log is gone.
                self.later.remove(&key);
                continue;
            };
            // It is offered once more; if it is put off again, the pause has grown.
            *due = now + *pause;
            self.offer_one(place, serial.number(), &mut octets)?;
        }
        // A peer that puts off much of a channel gets no more of it meanwhile.
        let stuck: HashSet<Channel> = match self.later.len() < FEED_WINDOW {
            true => HashSet::new(),
            false => self
                .later
                .keys()
                .map(|(channel, _)| channel.clone())
                .collect(),
        };
        for channel in 0..self.progress.len() {
            if self.progress[channel].dead || stuck.contains(&self.progress[channel].log.channel) {
                continue;
            }
            loop {
                let one = &mut self.progress[channel];
                let marks = one.log.marks();
                if one.offered >= marks.head.serial.number() || self.under_way.len() >= window {
                    break;
                }
                // What has expired is nobody's any more.
                let skipped = marks.low.number().saturating_sub(1);
                if one.offered < skipped {
                    (one.offered, one.done) = (skipped, skipped.max(one.done));
                }
                one.offered += 1;
                let serial = one.offered;
                let key = Serial::new(serial).map(|serial| (one.log.channel.clone(), serial));
                // What an earlier connection had to put off waits for its time.
                if key.is_none_or(|key| !self.later.contains_key(&key)) {
                    self.offer_one(channel, serial, &mut octets)?;
                }
            }
        }
        if !octets.is_empty() {
            self.connection.send_raw(&octets).await?;
        }
        Ok(())
    }

    /// Sends what only later statements prove, from the newest down, and without asking: the peer
    /// has it in hand, or waits for it.
    fn offer_down(&mut self, octets: &mut Vec<u8>) -> Result<(), FeedError> {
        while self.under_way.len() < FEED_WINDOW {
            let Some((channel, serial)) = self.down.pop_front() else {
                break;
            };
            let log = self.progress[channel].log.clone();
            let entry = Serial::new(serial)
                .map(|serial| log.entry(serial))
                .transpose()?
                .flatten();
            let Some(entry) = entry else {
                self.progress[channel].answer(serial);
                continue;
            };
            write_article(octets, &log, &entry);
            self.under_way.push_back(Offered {
                channel,
                entry,
                sent: true,
            });
        }
        Ok(())
    }

    /// Has a statement that was refused sent once more, below the one that vouches for it, if one
    /// does.
    fn send_down(&mut self, channel: usize, serial: u32) -> Result<bool, StoreError> {
        let log = self.progress[channel].log.clone();
        let Some(trust) = self
            .shared
            .namespaces
            .trust(&log.channel)
            .filter(|_| self.streaming)
        else {
            return Ok(false);
        };
        if log.channel.is_trust()
            || log.channel.is_beat()
            || !self.sent_down.insert((channel, serial))
        {
            return Ok(false);
        }
        let checkpoint = trust
            .checkpoint(&log.channel)
            .head()
            .map(|head| head.serial.number());
        for at in serial..=log.marks().head.serial.number() {
            let record = Serial::new(at)
                .map(|at| self.shared.store.get(&log.channel, at))
                .transpose()?
                .flatten();
            let Some(statement) = record.map(|record| record.statement) else {
                return Ok(false);
            };
            let proven = trust.check(&statement).is_ok();
            // It is refused for something else.
            if at == serial && proven {
                return Ok(false);
            }
            if checkpoint == Some(at) || proven && statement.kind() == Kind::Release {
                self.sent_down.extend((serial..=at).map(|at| (channel, at)));
                self.down
                    .extend((serial..=at).rev().map(|at| (channel, at)));
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn offer_one(
        &mut self,
        channel: usize,
        serial: u32,
        octets: &mut Vec<u8>,
    ) -> Result<(), FeedError> {
        let one = &mut self.progress[channel];
        let entry = match Serial::new(serial).map(|serial| (serial, one.log.entry(serial))) {
            Some((serial, Err(StoreError::Damaged(_)))) => {
                return Ok(self.put_off(channel, serial)?);
            }
            read => read.map(|(_, entry)| entry).transpose()?.flatten(),
        };
        let been_there = |entry: &Entry| {
            self.feed
                .path
                .as_ref()
                .is_some_and(|name| entry.has_passed(name))
        };
        match entry {
            Some(entry) if !been_there(&entry) => {
                let verb = if self.streaming { "CHECK" } else { "IHAVE" };
                octets.extend_from_slice(
                    format!("{verb} {}\r\n", one.log.message_id(entry.head)).as_bytes(),
                );
                self.under_way.push_back(Offered {
                    channel,
                    entry,
                    sent: false,
                });
            }
            _ => {
                one.answer(serial);
                let key = Serial::new(serial).map(|serial| (one.log.channel.clone(), serial));
                key.and_then(|key| self.later.remove(&key));
            }
        }
        Ok(())
    }

    /// Takes the next answer, and those that have come with it.
    async fn hear(&mut self) -> Result<(), FeedError> {
        let mut octets = Vec::new();
        let mut response = self.connection.answer().await?;
        loop {
            let Some(offered) = self.under_way.pop_front() else {
                return Err(FeedError::Unexpected(response));
            };
            self.heard(offered, response, &mut octets)?;
            match self.connection.answer_at_hand()? {
                Some(next) => response = next,
                None => break,
            }
        }
        if !octets.is_empty() {
            self.connection.send_raw(&octets).await?;
        }
        Ok(())
    }

    /// What an answer means for what was offered; what is to be sent is added to the octets.
    fn heard(
        &mut self,
        offered: Offered,
        response: Response,
        octets: &mut Vec<u8>,
    ) -> Result<(), FeedError> {
        let (channel, sent) = (offered.channel, offered.sent);
        let serial = offered.entry.head.serial.number();
        match response.code {
            code::WANTED | code::SEND_IT if !sent => self.send(offered, octets),
            code::CHECK_LATER | code::TRANSFER_LATER => {
                self.put_off(channel, offered.entry.head.serial)?
            }
            // It ends the connection, and is all that the peer can say to TAKETHIS.
            code::UNAVAILABLE if sent => {
                self.put_off(channel, offered.entry.head.serial)?;
                return Err(FeedError::Unexpected(response));
            }
            code::TAKE_REFUSED if self.send_down(channel, serial)? => {}
            code::TAKE_REFUSED if self.down.iter().any(|waits| *waits == (channel, serial)) => {}
            Code(235 | 239 | 435 | 437 | 438 | 439) => self.settled(&offered, &response),
            _ => return Err(FeedError::Unexpected(response)),
        }
        Ok(())
    }

    /// The peer wants it.
    fn send(&mut self, offered: Offered, octets: &mut Vec<u8>) {
        let sent = Offered {
            sent: true,
            ..offered
        };
        match self.streaming {
            true => {
                write_article(octets, &self.progress[sent.channel].log, &sent.entry);
                self.under_way.push_back(sent);
            }
            false => {
                octets.extend_from_slice(sent.entry.article());
                octets.extend_from_slice(b".\r\n");
                self.under_way.push_front(sent);
            }
        }
    }

    /// The peer has it, or never will.
    fn settled(&mut self, offered: &Offered, response: &Response) {
        let (channel, serial) = (
            &self.progress[offered.channel].log.channel,
            offered.entry.head.serial,
        );
        match response.code {
            code::TRANSFERRED | code::TAKEN => self.counts.taken += 1,
            code::NOT_WANTED | code::CHECK_NOT_WANTED => self.counts.known += 1,
            _ => {
                self.counts.refused += 1;
                tracing::warn!(feed = self.feed.name, peer = %self.feed.to, %channel, %serial, response = %Safe(&response.to_string()), "a peer has refused a statement");
            }
        }
        self.later.remove(&(channel.clone(), serial));
        if channel.is_trust() && matches!(response.code, code::TRANSFERRED | code::TAKEN) {
            // What had to wait for it need not wait any longer.
            self.later
                .values_mut()
                .for_each(|one| *one = (Instant::now(), FEED_AGAIN));
        }
        self.progress[offered.channel].answer(serial.number());
    }

    /// The peer may take it later: its trust log may have to come first, and is offered from the
    /// beginning.
    pub(super) fn put_off(&mut self, channel: usize, serial: Serial) -> Result<(), StoreError> {
        let channel = self.progress[channel].log.channel.clone();
        let (due, pause) = self
            .later
            .entry((channel.clone(), serial))
            .or_insert((Instant::now(), FEED_AGAIN));
        *due = Instant::now() + *pause;
        *pause = (*pause * 2).min(FEED_AGAIN_LAST);
        if !channel.is_trust() && self.trust_again.is_none_or(|at| at.elapsed() > FEED_PAUSE) {
            self.trust_again = Some(Instant::now());
            for one in self
                .progress
                .iter_mut()
                .filter(|one| one.log.channel.is_trust())
            {
                (one.offered, one.done, one.saved) = (0, 0, 0);
                one.answered.clear();
            }
            self.save_all(|one| one.log.channel.is_trust())?;
        }
        Ok(())
    }

    pub(super) fn save(&mut self) -> Result<(), StoreError> {
        self.save_all(|one| !one.dead && one.done != one.saved)
    }

    fn save_all(&mut self, which: impl Fn(&Progress) -> bool) -> Result<(), StoreError> {
        let due = || {
            self.progress
                .iter()
                .filter(|one| which(one))
                .map(|one| (&one.log.channel, one.done))
        };
        self.shared.store.set_feed_cursors(&self.feed.name, due())?;
        self.progress
            .iter_mut()
            .filter(|one| which(one))
            .for_each(|one| one.saved = one.done);
        Ok(())
    }
}

/// TAKETHIS; no line of an article begins with a dot.
fn write_article(octets: &mut Vec<u8>, log: &Log, entry: &Entry) {
    octets.extend_from_slice(format!("TAKETHIS {}\r\n", log.message_id(entry.head)).as_bytes());
    octets.extend_from_slice(entry.article());
    octets.extend_from_slice(b".\r\n");
}
