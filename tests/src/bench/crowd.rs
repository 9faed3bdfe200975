//! Many connections, one thread, one `epoll`.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustls::{ClientConfig, ClientConnection, client::Resumption, pki_types::ServerName};
use tokio::time::Instant;

use tidings_client::{Error, Source, TlsError};

/// Octets that are read at once.
const READ: usize = 64 * 1024;
/// Events that are looked at before the caller is told.
const EVENTS: usize = 1024;
/// Connections that are being set up at once.
const ABREAST: usize = 64;

/// One side of a connection: what it says, and what it has been told.
pub trait Peer: Send {
    /// What is said as soon as the connection stands.
    fn begin(&mut self, say: &mut Vec<u8>);
    /// Takes what has come, says more, and returns how many answers or messages are complete with
    /// it.
    ///
    /// # Errors
    /// In words, if the other side does not keep to the protocol, or something is missing, doubled
    /// or out of order.
    fn take(&mut self, octets: &[u8], say: &mut Vec<u8>) -> Result<usize, String>;
    /// Whether it is set up: from here on what is complete is counted.
    fn is_ready(&self) -> bool;
}

/// Whom to connect to.
#[derive(Clone)]
pub struct Endpoint {
    /// Where.
    pub address: SocketAddr,
    /// Over TLS: how, and under which name.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Endpoint {
    /// The first broker of a source. Names are resolved here, once.
    ///
    /// # Errors
    /// If its name has no address, or is none that a certificate could bear.
    pub fn of(source: &Source) -> Result<Self, Error> {
        let broker = source.address();
        let address = (broker.host.as_str(), broker.port)
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::from(ErrorKind::AddrNotAvailable))?;
        let name = || {
            ServerName::try_from(broker.host.clone())
                .map_err(|_| TlsError::Host(broker.host.clone()))
        };
        let tls = if broker.tls {
            Some((source.tls().config(), name()?))
        } else {
            None
        };
        Ok(Self { address, tls })
    }

    /// The same, but each TLS handshake is a full one.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        if let Some((config, _)) = &mut self.tls {
            Arc::make_mut(config).resumption = Resumption::disabled();
        }
        self
    }
}

/// What breaks a measurement off.
#[derive(Debug, thiserror::Error)]
pub enum CrowdError {
    /// A connection cannot be made or has broken.
    #[error("connection {index} to {address}: {source}")]
    Io {
        /// Which.
        index: usize,
        /// To whom.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The other side says what nobody expects.
    #[error("connection {index} to {address}: {what}")]
    Unexpected {
        /// Which.
        index: usize,
        /// To whom.
        address: SocketAddr,
        /// In words.
        what: String,
    },
    /// Nothing has happened.
    #[error("nothing has come for {0:?}")]
    Silent(Duration),
    /// The system refuses.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// One or more answers or messages that a connection has got whole.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Which connection.
    pub index: usize,
    /// How many.
    pub count: usize,
    /// When it had last said something after it had an answer: what took from then to now is an
    /// answer's time.
    pub since: Instant,
}

struct Member {
    address: SocketAddr,
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    peer: Box<dyn Peer>,
    /// What the socket has not taken yet.
    due: Vec<u8>,
    since: Instant,
    ready: bool,
}

/// The connections.
pub struct Crowd {
    poll: Poll,
    members: Vec<Member>,
    buffer: Vec<u8>,
    say: Vec<u8>,
    ready: usize,
}

fn would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        // It is being connected still.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(None),
        result => result.map(Some),
    }
}

impl Member {
    fn open(poll: &Poll, index: usize, to: &Endpoint, mut peer: Box<dyn Peer>) -> io::Result<Self> {
        let mut socket = TcpStream::connect(to.address)?;
        poll.registry().register(
            &mut socket,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let tls = match &to.tls {
            Some((config, name)) => {
                let mut tls = ClientConnection::new(config.clone(), name.clone())
                    .map_err(io::Error::other)?;
                // What is said at once fits into memory; the default would refuse more than 64 KiB.
                tls.set_buffer_limit(None);
                Some(Box::new(tls))
            }
            None => None,
        };
        let mut due = Vec::new();
        peer.begin(&mut due);
        let ready = peer.is_ready();
        Ok(Self {
            address: to.address,
            socket,
            tls,
            peer,
            due,
            since: Instant::now(),
            ready,
        })
    }

    /// Says what is due, as far as the socket takes it.
    fn write(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            if !tls.is_handshaking() && !self.due.is_empty() {
                tls.writer().write_all(&self.due)?;
                self.due.clear();
            }
            while tls.wants_write() {
                if would_block(tls.write_tls(&mut self.socket))?.is_none() {
                    break;
                }
            }
            return Ok(());
        }
        let mut sent = 0;
        while sent < self.due.len() {
            match would_block(self.socket.write(&self.due[sent..]))? {
                Some(octets) => sent += octets,
                None => break,
            }
        }
        self.due.drain(..sent);
        Ok(())
    }

    /// Reads some octets; none if there are none now, an error at the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            return match would_block(self.socket.read(buffer))? {
                Some(0) => Err(ErrorKind::UnexpectedEof.into()),
                octets => Ok(octets),
            };
        };
        loop {
            match would_block(tls.reader().read(buffer))? {
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(octets) => return Ok(Some(octets)),
                None => {}
            }
            match would_block(tls.read_tls(&mut self.socket))? {
                None => return Ok(None),
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(_) => {
                    tls.process_new_packets().map_err(io::Error::other)?;
                }
            }
        }
    }
}

impl Crowd {
    /// Nobody yet.
    ///
    /// # Errors
    /// If the system has no `epoll` for us.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            members: Vec::new(),
            buffer: vec![0; READ],
            say: Vec::new(),
            ready: 0,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Connects more and sets them up, some at a time; calls back for each that is ready. What is
    /// complete meanwhile is added to `done`.
    ///
    /// # Errors
    /// If one cannot be set up, or nothing happens for `patience`.
    pub fn join<P: Peer + 'static>(
        &mut self,
        to: &Endpoint,
        peers: impl IntoIterator<Item = P>,
        patience: Duration,
        done: &mut Vec<Done>,
        mut ready: impl FnMut(),
    ) -> Result<(), CrowdError> {
        let mut peers = peers.into_iter().fuse();
        let mut before = self.ready;
        loop {
            while self.members.len() - self.ready < ABREAST
                && let Some(peer) = peers.next()
            {
                let index = self.members.len();
                let open = Member::open(&self.poll, index, to, Box::new(peer));
                let member = open.map_err(|source| CrowdError::Io {
                    index,
                    address: to.address,
                    source,
                })?;
                self.ready += usize::from(member.ready);
                self.members.push(member);
            }
            if self.ready == self.members.len() {
                return Ok(());
            }
            self.turn(patience, done)?;
            (before..self.ready).for_each(|_| ready());
            before = self.ready;
        }
    }

    /// Puts a new connection into the place of one, which is closed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn replace(
        &mut self,
        index: usize,
        to: &Endpoint,
        peer: impl Peer + 'static,
    ) -> Result<(), CrowdError> {
        let new = Member::open(&self.poll, index, to, Box::new(peer));
        let new = new.map_err(|source| CrowdError::Io {
            index,
            address: to.address,
            source,
        })?;
        self.ready += usize::from(new.ready);
        let mut old = std::mem::replace(&mut self.members[index], new);
        self.ready -= usize::from(old.ready);
        self.poll.registry().deregister(&mut old.socket)?;
        if let Some(tls) = &mut old.tls {
            tls.send_close_notify();
            // The other side learns it from the closed socket as well.
            let _ = tls.write_tls(&mut old.socket);
        }
        Ok(())
    }

    /// Says something on one connection.
    ///
    /// # Errors
    /// If the connection has broken.
    pub fn say(&mut self, index: usize, octets: &[u8]) -> Result<(), CrowdError> {
        let member = &mut self.members[index];
        member.due.extend_from_slice(octets);
        member.since = Instant::now();
        member.write().map_err(|source| CrowdError::Io {
            index,
            address: member.address,
            source,
        })
    }

    /// Waits until something comes and takes it; what is complete is added to `done`.
    ///
    /// # Errors
    /// If a connection breaks, somebody is not understood, or nothing comes for `patience`.
    pub fn turn(&mut self, patience: Duration, done: &mut Vec<Done>) -> Result<(), CrowdError> {
        let mut events = Events::with_capacity(EVENTS);
        match self.poll.poll(&mut events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        if events.is_empty() {
            return Err(CrowdError::Silent(patience));
        }
        for event in &events {
            let index = event.token().0;
            let address = self.members[index].address;
            self.serve(index, event.is_read_closed(), done)
                .map_err(|wrong| match wrong {
                    Wrong::Io(source) => CrowdError::Io {
                        index,
                        address,
                        source,
                    },
                    Wrong::Words(what) => CrowdError::Unexpected {
                        index,
                        address,
                        what,
                    },
                })?;
        }
        Ok(())
    }

    fn serve(&mut self, index: usize, closed: bool, done: &mut Vec<Done>) -> Result<(), Wrong> {
        let member = &mut self.members[index];
        member.write()?;
        while let Some(octets) = member.read(&mut self.buffer)? {
            self.say.clear();
            let count = member
                .peer
                .take(&self.buffer[..octets], &mut self.say)
                .map_err(Wrong::Words)?;
            let was_ready = std::mem::replace(&mut member.ready, member.peer.is_ready());
            self.ready += usize::from(!was_ready && member.ready);
            if count > 0 && member.ready {
                done.push(Done {
                    index,
                    count,
                    since: member.since,
                });
            }
            if !self.say.is_empty() {
                member.due.extend_from_slice(&self.say);
                if count > 0 || !was_ready {
                    member.since = Instant::now();
                }
                member.write()?;
            }
            // A stream that gave less than there was room for is empty: the next octet is an event
            // again. Its end may be in this one.
            if member.tls.is_none() && !closed && octets < self.buffer.len() {
                break;
            }
        }
        // A TLS handshake answers while it reads, and what was due goes out behind it.
        if member.tls.is_some() {
            member.write()?;
        }
        Ok(())
    }
}

enum Wrong {
    Io(io::Error),
    Words(String),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Wrong::Io(error)
    }
}
