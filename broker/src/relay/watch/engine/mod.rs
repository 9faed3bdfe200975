//! One loop and its table: [1-28], and [4-20] to [4-23].

mod pump;
#[cfg(test)]
mod simulated;

use std::{collections::HashSet, io, ops::ControlFlow, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use mio::{Events, Interest, Poll, Token, Waker};
use pump::Next;
use slab::Slab;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::{
    Inbox, Joining, Mailbox,
    watcher::{Cursor, Watcher},
};
use crate::{
    failure::{OnFailure, Sentinel},
    limits::{WATCH_CHANNELS, WATCH_STALL},
    log::logs::{Entry, Log, Logs},
    net::stream::{Stream, come_back},
};

const WAKE: Token = Token(usize::MAX);

/// What the loop knows of a channel.
#[derive(Default)]
struct Channel {
    log: Option<Arc<Log>>,
    /// The last serial that the loop has heard of.
    head: u32,
    /// What came with the present news; kept only while it is handed out.
    fresh: Vec<Arc<Entry>>,
    /// The keys of the watchers that have a cursor here.
    subscribers: Vec<u32>,
}

pub(super) struct Engine {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    logs: Arc<Logs>,
    runtime: Handle,
    watchers: Slab<Watcher>,
    channels: Vec<Channel>,
    /// Watchers that had their turn and have more to get.
    turns: Vec<u32>,
    /// Watchers that channels of the future may concern.
    ahead: usize,
    on_failure: OnFailure,
    started: Instant,
    /// How often it looks for those who got nothing, and when it does so next.
    tick: Duration,
    next_tick: Instant,
    /// Since when it has handed out without a pause, and to how many.
    busy_since: Instant,
    handed: u32,
}

impl Engine {
    pub(super) fn start(
        index: usize,
        heartbeat: Duration,
        logs: Arc<Logs>,
        on_failure: OnFailure,
    ) -> io::Result<Arc<Mailbox>> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        // A wake-up that fails is followed by the next tick.
        let mailbox = Mailbox::new(move || drop(waker.wake()));
        let engine = Self::new(poll, heartbeat, mailbox.clone(), logs, on_failure);
        thread::Builder::new()
            .name(format!("watch-{index}"))
            .spawn(move || engine.run())?;
        Ok(mailbox)
    }

    fn new(
        poll: Poll,
        heartbeat: Duration,
        mailbox: Arc<Mailbox>,
        logs: Arc<Logs>,
        on_failure: OnFailure,
    ) -> Self {
        let now = Instant::now();
        // Three ticks a heartbeat: the longest silence is two of them, and there is time left to
        // arrive.
        let tick = heartbeat / 3;
        Self {
            poll,
            mailbox,
            logs,
            runtime: Handle::current(),
            watchers: Slab::new(),
            channels: Vec::new(),
            turns: Vec::new(),
            ahead: 0,
            on_failure,
            started: now,
            tick,
            next_tick: now + tick,
            busy_since: now,
            handed: 0,
        }
    }

    fn run(mut self) {
        let _sentinel = Sentinel(self.on_failure.clone());
        let mut events = Events::with_capacity(1024);
        loop {
            let wait = self.next_tick.saturating_duration_since(Instant::now());
            let wait = if self.turns.is_empty() {
                wait
            } else {
                Duration::ZERO
            };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    tracing::error!(%error, "a watch loop cannot poll; the broker stops");
                    return (self.on_failure)();
                }
                _ => {}
            }
            let ready: Vec<_> = events
                .iter()
                .filter(|e| e.token() != WAKE)
                .map(|e| (key(e.token().0), e.is_readable() || e.is_read_closed()))
                .collect();
            if self.turn(ready).is_break() {
                return;
            }
        }
    }

    /// Does what has come up: for sockets that can be read or written, for those who wait for their
    /// turn, and for what the mailbox has.
    fn turn(&mut self, ready: Vec<(u32, bool)>) -> ControlFlow<()> {
        self.busy_since = Instant::now();
        for (key, readable) in ready {
            self.ready(key, readable);
        }
        for key in std::mem::take(&mut self.turns) {
            self.serve(key);
        }
        let inbox = self.mailbox.take(self.watchers.len());
        if inbox.stop {
            self.stop(inbox);
            return ControlFlow::Break(());
        }
        self.read(inbox);
        if Instant::now() >= self.next_tick {
            self.next_tick += self.tick;
            self.tick();
        }
        ControlFlow::Continue(())
    }

    #[allow(clippy::cast_possible_truncation)] // the seconds of a process
    fn seconds(&self) -> u32 {
        self.started.elapsed().as_secs() as u32 + 1
    }

    fn read(&mut self, inbox: Inbox) {
        for log in inbox.dropped {
            let subscribers = self
                .channels
                .get(log.index)
                .map_or(Vec::new(), |channel| channel.subscribers.clone());
            subscribers
                .into_iter()
                .for_each(|at| self.settle(at, Next::Close));
        }
        let mut news: Vec<_> = inbox.news.into_values().collect();
        // Channels that are new are made known first, so that those who join find them.
        news.sort_by_key(|(log, new)| (!new, log.index));
        for (log, new) in news {
            if new && self.ahead > 0 {
                self.offer(&log);
            }
            self.spread(&log);
        }
        for joining in inbox.joining {
            if let Err(error) = self.join(joining) {
                tracing::warn!(%error, "a connection could not be watched");
            }
        }
    }

    fn channel(&mut self, log: &Arc<Log>) -> &mut Channel {
        if self.channels.len() <= log.index {
            self.channels.resize_with(log.index + 1, Channel::default);
        }
        let channel = &mut self.channels[log.index];
        if channel.log.is_none() {
            channel.log = Some(log.clone());
            channel.head = log.marks().head.serial.number();
        }
        channel
    }

    fn has_cursor(&self, at: u32, log: &Log) -> bool {
        let index = key(log.index);
        self.watchers
            .get(at as usize)
            .is_none_or(|w| w.cursors.iter().any(|c| c.channel == index))
    }

    /// Gives a watcher a cursor that it does not have yet.
    fn subscribe(&mut self, at: u32, log: &Arc<Log>, after: u32) {
        let index = key(log.index);
        let channel = self.channel(log);
        channel.subscribers.push(at);
        let place = key(channel.subscribers.len() - 1);
        self.watchers[at as usize].cursors.push(Cursor {
            channel: index,
            serial: after,
            place,
        });
    }

    /// A new channel for those who watch channels of the future.
    fn offer(&mut self, log: &Arc<Log>) {
        let wanted: Vec<(u32, u32)> = self
            .watchers
            .iter()
            .filter_map(|(at, watcher)| Some((key(at), watcher.wants(&log.channel)?)))
            .collect();
        for (at, after) in wanted {
            if self.has_cursor(at, log) {
                continue;
            }
            if self.watchers[at as usize].cursors.len() >= WATCH_CHANNELS {
                // It cannot be given what it asked for: it has to ask for less.
                self.settle(at, Next::Close);
                continue;
            }
            self.subscribe(at, log, after);
        }
    }

    /// Sends a channel's news to its subscribers.
    fn spread(&mut self, log: &Arc<Log>) {
        let channel = self.channel(log);
        if channel.subscribers.is_empty() {
            // Nobody to tell: whoever joins reads the marks anew.
            channel.log = None;
            return;
        }
        match log.events_after(
            channel
                .head
                .min(log.marks().head.serial.number().saturating_sub(1)),
            crate::limits::TAIL_ENTRIES,
        ) {
            Ok(fresh) => channel.fresh = fresh,
            Err(error) => {
                tracing::error!(channel = %log.channel, %error, "cannot read what was just stored")
            }
        }
        channel.head = log.marks().head.serial.number();
        let subscribers = std::mem::take(&mut channel.subscribers);
        let mut leaving = Vec::new();
        for &at in &subscribers {
            match self.pump(at) {
                Next::Stay => {}
                Next::Again => self.turns.push(at),
                next => leaving.push((at, next)),
            }
        }
        let channel = &mut self.channels[log.index];
        channel.subscribers = subscribers;
        channel.fresh = Vec::new();
        for (at, next) in leaving {
            self.settle(at, next);
        }
    }

    fn join(&mut self, joining: Joining) -> io::Result<()> {
        let Joining {
            mut socket,
            tls,
            mut cursors,
            expected,
            live,
            begun,
            greeting,
            input,
            peer,
            guest,
            counted,
        } = joining;
        let entry = self.watchers.vacant_entry();
        let at = entry.key();
        self.poll.registry().register(
            &mut socket,
            Token(at),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.ahead += usize::from(!live.is_empty() || !expected.is_empty());
        // Those that have come since the client was answered; of all others the mailbox will tell.
        let here = |(channel, after): &(tidings_protocol::Channel, u32)| {
            let log = self
                .logs
                .get(channel.as_str())
                .filter(|log| guest.may_read(&log.channel))?;
            Some((log, *after))
        };
        cursors.extend(expected.iter().filter_map(here));
        entry.insert(Watcher {
            socket,
            tls,
            cursors: Vec::with_capacity(cursors.len()),
            live: live.into(),
            expected: expected.into(),
            partial: greeting,
            input,
            peer,
            guest,
            _counted: counted,
            blocked_since: 0,
            wrote: true,
            ending: false,
        });
        let at = key(at);
        let mut named = HashSet::new();
        for (log, after) in cursors {
            if named.insert(log.index) {
                self.subscribe(at, &log, after);
            }
        }
        if !self.watchers[at as usize].live.is_empty() {
            self.join_begun(at, begun, &named);
        }
        self.serve(at);
        Ok(())
    }

    /// Subscribes to what has begun since the client was answered, and matches.
    fn join_begun(&mut self, at: u32, begun: usize, named: &HashSet<usize>) {
        for log in self.logs.begun_since(begun) {
            let watcher = &self.watchers[at as usize];
            let wanted = watcher
                .live
                .iter()
                .any(|live| live.matches(log.channel.as_str()))
                && watcher.guest.may_read(&log.channel);
            if wanted && !named.contains(&log.index) && watcher.cursors.len() < WATCH_CHANNELS {
                self.subscribe(at, &log, 0);
            }
        }
    }

    fn remove(&mut self, at: u32) -> Option<Watcher> {
        let mut watcher = self.watchers.try_remove(at as usize)?;
        // The socket is going away or to another poll; either way it is not ours any more.
        let _ = self.poll.registry().deregister(&mut watcher.socket);
        self.ahead -= usize::from(watcher.looks_ahead());
        for cursor in &watcher.cursors {
            let subscribers = &mut self.channels[cursor.channel as usize].subscribers;
            subscribers.swap_remove(cursor.place as usize);
            if let Some(&moved) = subscribers.get(cursor.place as usize) {
                let cursors = &mut self.watchers[moved as usize].cursors;
                if let Some(other) = cursors.iter_mut().find(|c| c.channel == cursor.channel) {
                    other.place = cursor.place;
                }
            }
        }
        Some(watcher)
    }

    fn hand_back(&mut self, at: u32) {
        let Some(watcher) = self.remove(at) else {
            return;
        };
        let Watcher {
            socket,
            tls,
            guest,
            input,
            peer,
            ..
        } = watcher;
        // The socket finds its way back into tokio's poll here.
        let _runtime = self.runtime.enter();
        match come_back(socket) {
            Ok(socket) => guest.come_back(Stream::new(socket, tls), input),
            Err(error) => tracing::warn!(%peer, %error, "a watched connection could not go on"),
        }
    }

    /// Once in a while: a sign of life for those who got nothing, an end for those who take
    /// nothing.
    fn tick(&mut self) {
        let now = self.seconds();
        let limit = u32::try_from(WATCH_STALL.as_secs()).unwrap_or(u32::MAX);
        let keys: Vec<u32> = self.watchers.iter().map(|(at, _)| key(at)).collect();
        for at in keys {
            let Some(watcher) = self.watchers.get_mut(at as usize) else {
                continue;
            };
            if watcher.blocked_since > 0 {
                if now.saturating_sub(watcher.blocked_since) > limit {
                    tracing::info!(peer = %watcher.peer, "a subscriber has taken nothing for too long and is disconnected");
                    self.settle(at, Next::Close);
                }
                continue;
            }
            if !std::mem::take(&mut watcher.wrote) {
                watcher.partial = Bytes::from_static(b"0\r\n");
                self.serve(at);
            }
        }
        for channel in &mut self.channels {
            channel.subscribers.shrink_to_fit();
        }
    }

    fn stop(&mut self, inbox: Inbox) {
        drop(inbox.joining);
        let farewell = Bytes::from(format!(".\r\n{}\r\n", inbox.farewell));
        for (_, watcher) in &mut self.watchers {
            if !watcher.is_blocked() {
                watcher.partial = farewell.clone();
            }
            // What the socket does not take now, the client reads from another broker.
            let _ = watcher.flush();
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // tables have far fewer rows, see limits
fn key(index: usize) -> u32 {
    index as u32
}
