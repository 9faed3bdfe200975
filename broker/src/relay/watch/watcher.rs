//! One row of a table: a socket and its cursors.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::SocketAddr,
};

use bytes::{Buf, Bytes, BytesMut};
use rustls::ServerConnection;
use tidings_protocol::{Channel, Wildmat, limits::XWATCH_OCTETS};

use super::{Counted, Guest};
use crate::{
    limits::WATCH_GATHER,
    net::stream::{Left, process, read_plain},
};

/// How far a subscriber has been sent a channel.
pub(super) struct Cursor {
    /// The channel's place in the table of channels.
    pub(super) channel: u32,
    /// The last serial that was sent, or taken by the socket in part.
    pub(super) serial: u32,
    /// This watcher's place in the channel's list of subscribers.
    pub(super) place: u32,
}

pub(super) struct Watcher {
    pub(super) socket: Left,
    pub(super) tls: Option<Box<ServerConnection>>,
    pub(super) cursors: Vec<Cursor>,
    pub(super) live: Box<[Wildmat]>,
    /// Channels that are not here yet, and the serial after which they are sent.
    pub(super) expected: Box<[(Channel, u32)]>,
    /// The rest of what the socket took in part: shared octets, never a copy.
    pub(super) partial: Bytes,
    /// What the client has sent: it ends the watch.
    pub(super) input: BytesMut,
    pub(super) peer: SocketAddr,
    pub(super) guest: Box<dyn Guest>,
    pub(super) _counted: Counted,
    /// When the socket stopped taking octets, in seconds of the loop; 0 while it takes them.
    pub(super) blocked_since: u32,
    /// Whether anything was sent since the last tick.
    pub(super) wrote: bool,
    /// The client has sent something: the final dot is on its way.
    pub(super) ending: bool,
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

impl Watcher {
    /// Whether channels of the future may concern it.
    pub(super) fn looks_ahead(&self) -> bool {
        !self.live.is_empty() || !self.expected.is_empty()
    }

    /// After which serial a new channel is sent; none if it is not.
    pub(super) fn wants(&self, new: &Channel) -> Option<u32> {
        if !self.guest.may_read(new) {
            return None;
        }
        let expected = self
            .expected
            .iter()
            .find(|(channel, _)| channel == new)
            .map(|(_, serial)| *serial);
        expected.or_else(|| {
            self.live
                .iter()
                .any(|live| live.matches(new.as_str()))
                .then_some(0)
        })
    }

    /// Sends what is begun; whether the socket has taken all of it.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            None => {
                while !self.partial.is_empty() {
                    match self.socket.write(&self.partial) {
                        Ok(n) => self.partial.advance(n),
                        Err(e) if would_block(&e) => return Ok(false),
                        Err(e) if e.kind() == ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(true)
            }
            Some(tls) => loop {
                while tls.wants_write() {
                    match tls.write_tls(&mut self.socket) {
                        Ok(_) => {}
                        Err(e) if would_block(&e) => return Ok(false),
                        Err(e) => return Err(e),
                    }
                }
                if self.partial.is_empty() {
                    return Ok(true);
                }
                let n = tls.writer().write(&self.partial)?;
                self.partial.advance(n);
            },
        }
    }

    /// Sends events; how many of them are now sent or begun. None means that the socket is full.
    pub(super) fn send(&mut self, events: &[Bytes]) -> io::Result<usize> {
        self.wrote = true;
        if let Some(tls) = &mut self.tls {
            let mut begun = 0;
            for event in events {
                let n = tls.writer().write(event)?;
                begun += 1;
                if n < event.len() {
                    self.partial = event.slice(n..);
                    break;
                }
            }
            return self.flush().map(|_| begun);
        }
        let mut written = loop {
            let written = match events {
                [one] => self.socket.write(one),
                several => {
                    let mut slices = [IoSlice::new(&[]); WATCH_GATHER];
                    for (slice, event) in slices.iter_mut().zip(several) {
                        *slice = IoSlice::new(event);
                    }
                    self.socket
                        .write_vectored(&slices[..several.len().min(WATCH_GATHER)])
                }
            };
            match written {
                Ok(n) => break n,
                Err(e) if would_block(&e) => return Ok(0),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        };
        let mut begun = 0;
        for event in events {
            if written < event.len() {
                if written > 0 {
                    self.partial = event.slice(written..);
                    begun += 1;
                }
                break;
            }
            written -= event.len();
            begun += 1;
        }
        Ok(begun)
    }

    /// Takes in what the client sent; `false` when it has closed.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        while self.input.len() <= XWATCH_OCTETS {
            let n = match &mut self.tls {
                None => match self.socket.read(&mut buffer) {
                    Ok(n) => n,
                    Err(e) if would_block(&e) => return Ok(true),
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                },
                Some(tls) => match read_plain(tls, &mut buffer)? {
                    Some(n) => n,
                    None => {
                        match tls.read_tls(&mut self.socket) {
                            Ok(0) => return Ok(false),
                            Ok(_) => process(tls)?,
                            Err(e) if would_block(&e) => return Ok(true),
                            Err(e) => return Err(e),
                        }
                        continue;
                    }
                },
            };
            if n == 0 {
                return Ok(false);
            }
            self.input.extend_from_slice(&buffer[..n]);
        }
        Ok(true)
    }

    /// Whether the socket has something of ours that it did not take yet.
    pub(super) fn is_blocked(&self) -> bool {
        !self.partial.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}
