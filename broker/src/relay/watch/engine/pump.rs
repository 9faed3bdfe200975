//! One watcher is served: what it has said, what it gets, and what comes next.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Channel, Engine};
use crate::{
    limits::{WATCH_GATHER, WATCH_GATHER_TLS_OCTETS, WATCH_SLICE, WATCH_TURN},
    log::logs::Entry,
    relay::watch::watcher::{Cursor, Watcher},
};

/// To so many it hands out between two looks at the clock.
const HANDED: u32 = 4;

/// What becomes of a watcher after it was looked at.
pub(super) enum Next {
    Stay,
    /// It has more to get, but others come first.
    Again,
    /// Back to a session.
    Return,
    Close,
}

impl Engine {
    /// The poll says that a socket can be read or written.
    pub(super) fn ready(&mut self, at: u32, readable: bool) {
        let Some(watcher) = self.watchers.get_mut(at as usize) else {
            return;
        };
        if readable && !watcher.receive().unwrap_or(false) {
            return self.settle(at, Next::Close);
        }
        self.serve(at);
    }

    pub(super) fn serve(&mut self, at: u32) {
        let next = self.pump(at);
        self.settle(at, next);
    }

    pub(super) fn settle(&mut self, at: u32, next: Next) {
        match next {
            Next::Stay => {}
            Next::Again => self.turns.push(at),
            Next::Return => self.hand_back(at),
            Next::Close => drop(self.remove(at)),
        }
    }

    /// Lets threads have their turn that wait for this processor: whoever polls is not to wait
    /// until all watchers are told.
    fn breathe(&mut self) {
        self.handed = self.handed.wrapping_add(1);
        if self.handed.is_multiple_of(HANDED) && self.busy_since.elapsed() >= WATCH_SLICE {
            std::thread::yield_now();
            self.busy_since = Instant::now();
        }
    }

    /// Sends what a watcher can take now.
    pub(super) fn pump(&mut self, at: u32) -> Next {
        self.breathe();
        let Some(watcher) = self.watchers.get_mut(at as usize) else {
            return Next::Stay;
        };
        let mut sent = 0;
        loop {
            let whole = if watcher.is_blocked() {
                watcher.flush()
            } else {
                Ok(true)
            };
            match whole {
                Ok(true) => watcher.blocked_since = 0,
                Ok(false) => {
                    if watcher.blocked_since == 0 {
                        watcher.blocked_since = 1 + self
                            .started
                            .elapsed()
                            .as_secs()
                            .try_into()
                            .unwrap_or(u32::MAX - 1);
                    }
                    return Next::Stay;
                }
                Err(_) => return Next::Close,
            }
            if watcher.ending {
                return Next::Return;
            }
            if !watcher.input.is_empty() {
                watcher.partial = Bytes::from_static(b".\r\n");
                watcher.ending = true;
                continue;
            }
            if sent >= WATCH_TURN {
                return Next::Again;
            }
            match send_some(watcher, &self.channels) {
                Ok(Some(count)) => sent += count,
                Ok(None) => return Next::Stay,
                Err(_) => return Next::Close,
            }
        }
    }
}

/// Sends the next events of the first channel that has any; how many were begun, none when there
/// are none.
fn send_some(watcher: &mut Watcher, channels: &[Channel]) -> io::Result<Option<usize>> {
    for index in 0..watcher.cursors.len() {
        let Cursor {
            channel, serial, ..
        } = watcher.cursors[index];
        let channel = &channels[channel as usize];
        let Some(log) = channel.log.as_ref().filter(|_| serial < channel.head) else {
            continue;
        };
        let read;
        let entries = match channel
            .fresh
            .iter()
            .position(|e| e.head.serial.number() == serial + 1)
        {
            Some(from) => &channel.fresh[from..],
            None => {
                read = log
                    .events_after(serial, WATCH_GATHER)
                    .map_err(io::Error::other)?;
                &read[..]
            }
        };
        if let [one] = entries {
            let begun = watcher.send(std::slice::from_ref(one.event()))?;
            return Ok(advance(watcher, index, entries, begun));
        }
        let mut octets = 0;
        let mut gathered: Vec<Bytes> = Vec::with_capacity(entries.len().min(WATCH_GATHER));
        for entry in entries.iter().take(WATCH_GATHER) {
            octets += entry.event().len();
            if watcher.tls.is_some() && octets > WATCH_GATHER_TLS_OCTETS && !gathered.is_empty() {
                break;
            }
            gathered.push(entry.event().clone());
        }
        if gathered.is_empty() {
            // Expired meanwhile: the log goes on behind it.
            watcher.cursors[index].serial = channel.head;
            continue;
        }
        let begun = watcher.send(&gathered)?;
        return Ok(advance(watcher, index, entries, begun));
    }
    Ok(None)
}

/// Moves a cursor behind what was begun; with nothing begun the socket is full, and will say when
/// it can be written.
fn advance(
    watcher: &mut Watcher,
    index: usize,
    entries: &[Arc<Entry>],
    begun: usize,
) -> Option<usize> {
    let last = entries[..begun].last()?;
    watcher.cursors[index].serial = last.head.serial.number();
    Some(begun)
}
