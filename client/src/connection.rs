//! One connection to one broker: commands out, answers in.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use rustls_pki_types::ServerName;
use tidings_protocol::{
    Channel, Head, Serial, Statement,
    article::{self, Incoming},
    limits::{ARTICLE_OCTETS, LISTING_OCTETS, SERIAL_LAST},
    nntp::{
        Code, Response, code,
        codec::{ClientCodec, CodecError, Output},
    },
    verify::VerifyError,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_util::codec::Decoder;

use crate::{
    Address, Error, Tls, TlsError, dial,
    limits::{ANSWER, CONNECT, FAREWELL, GREETING, PIPELINE, SILENCE, WATCH_GRACE},
    tls::io_words,
};

#[cfg(feature = "simulated")]
use crate::simulated;

trait Octets: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Octets for T {}

/// Count, low-water mark and head of a channel, as a broker claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The lowest serial that it has.
    pub low: u32,
    /// The highest.
    pub high: u32,
}

/// One connection. Dropping it is always safe.
pub struct Connection {
    address: Address,
    octets: Box<dyn Octets>,
    input: BytesMut,
    codec: ClientCodec,
    received: Arc<AtomicU64>,
}

impl Connection {
    /// Connects, over TLS if the address says so, and reads the greeting.
    ///
    /// # Errors
    /// If the broker cannot be reached, is not the one that was meant, or refuses.
    pub async fn open(address: &Address, tls: &Tls) -> Result<Self, Error> {
        let open = async {
            #[cfg(feature = "simulated")]
            if let Some(socket) = simulated::connect(&address.host).await {
                return Ok(Box::new(socket?) as Box<dyn Octets>);
            }
            let socket = dial::connect(&address.host, address.port).await?;
            socket.set_nodelay(true)?;
            let octets: Box<dyn Octets> = if address.tls {
                let name = ServerName::try_from(address.host.clone())
                    .map_err(|_| TlsError::Host(address.host.clone()))?;
                let handshake = TlsConnector::from(tls.config()).connect(name, socket).await;
                Box::new(handshake.map_err(|why| TlsError::Handshake {
                    address: address.clone(),
                    why: io_words(&why),
                })?)
            } else {
                Box::new(socket)
            };
            Ok::<_, Error>(octets)
        };
        let octets = timeout(CONNECT, open)
            .await
            .map_err(|_| Error::Silent(CONNECT))??;
        let mut connection = Self {
            address: address.clone(),
            octets,
            input: BytesMut::new(),
            codec: ClientCodec::default(),
            received: Arc::default(),
        };
        let greeting = timeout(GREETING, connection.response())
            .await
            .unwrap_or(Err(Error::NoGreeting(GREETING)))
            .map_err(|error| match error {
                Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !address.tls => {
                    let why = "the connection was closed before a greeting; does this port want TLS (nntps://)?";
                    Error::Io(std::io::Error::new(error.kind(), why))
                }
                error => error,
            })?;
        match greeting.code {
            code::READY | code::READY_NO_POSTING => Ok(connection),
            _ => Err(Error::Refused(greeting)),
        }
    }

    /// Adds what it receives to this.
    pub(crate) fn counting(self, received: Arc<AtomicU64>) -> Self {
        Self { received, ..self }
    }

    /// The broker.
    pub fn address(&self) -> &Address {
        &self.address
    }

    async fn next_within(&mut self, silence: Duration) -> Result<Output, Error> {
        let deadline = Instant::now() + ANSWER.max(silence);
        loop {
            if let Some(output) = self.codec.decode(&mut self.input)? {
                return Ok(output);
            }
            let until = deadline.min(Instant::now() + silence);
            let read = timeout_at(until, self.octets.read_buf(&mut self.input));
            let octets = read.await.map_err(|_| Error::Silent(silence))??;
            if octets == 0 {
                return Err(Error::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.received.fetch_add(octets as u64, Ordering::Relaxed);
        }
    }

    async fn send(&mut self, octets: &[u8]) -> Result<(), Error> {
        let write = async {
            self.octets.write_all(octets).await?;
            self.octets.flush().await
        };
        Ok(timeout(SILENCE, write)
            .await
            .map_err(|_| Error::Silent(SILENCE))??)
    }

    async fn response(&mut self) -> Result<Response, Error> {
        match self.next_within(SILENCE).await? {
            Output::Response(response) => Ok(response),
            other => Err(unexpected("a response", &other)),
        }
    }

    async fn block(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        self.codec.expect_block(limit);
        match self.next_within(SILENCE).await? {
            Output::Block(block) => Ok(block?),
            other => Err(unexpected("a multi-line block", &other)),
        }
    }

    /// Sends octets as they are, whole lines with CR LF; their answers are read by
    /// [`Connection::answer`].
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn send_raw(&mut self, octets: &[u8]) -> Result<(), Error> {
        self.send(octets).await
    }

    /// The next response line.
    ///
    /// # Errors
    /// If the connection fails, or is silent.
    pub async fn answer(&mut self) -> Result<Response, Error> {
        self.response().await
    }

    /// The next response line, if it has come already.
    ///
    /// # Errors
    /// If it is none.
    pub fn answer_at_hand(&mut self) -> Result<Option<Response>, Error> {
        match self.codec.decode(&mut self.input)? {
            Some(Output::Response(response)) => Ok(Some(response)),
            Some(other) => Err(unexpected("a response", &other)),
            None => Ok(None),
        }
    }

    /// Sends one command and reads its response line.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn command(&mut self, line: &str) -> Result<Response, Error> {
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.response().await
    }

    /// Sends one command whose answer is a block, and reads both.
    ///
    /// # Errors
    /// If the connection fails or the code is another than `expected`.
    pub async fn listing(&mut self, line: &str, expected: Code) -> Result<String, Error> {
        let response = self.command(line).await?;
        if response.code != expected {
            return Err(Error::Refused(response));
        }
        Ok(String::from_utf8_lossy(&self.block(LISTING_OCTETS).await?).into_owned())
    }

    /// Whether the broker announces a capability.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn is_capable(&mut self, label: &str) -> Result<bool, Error> {
        let list = self.listing("CAPABILITIES", code::CAPABILITIES).await?;
        Ok(list
            .lines()
            .any(|line| line.split(' ').next() == Some(label)))
    }

    /// Says who we are (RFC 4643). Only over TLS: a password is nobody else's business.
    ///
    /// # Errors
    /// If the connection fails, has no TLS, or the broker knows nobody of this name and password.
    pub async fn login(&mut self, user: &str, password: &str) -> Result<(), Error> {
        if !self.address.tls {
            return Err(Error::Refused(Response::new(
                code::NEEDS_TLS,
                "a password is sent over TLS only: use nntps://",
            )));
        }
        let mut answer = self.command(&format!("AUTHINFO USER {user}")).await?;
        if answer.code == code::PASSWORD_DUE {
            answer = self.command(&format!("AUTHINFO PASS {password}")).await?;
        }
        if answer.code == code::AUTHENTICATED {
            Ok(())
        } else {
            Err(Error::Refused(answer))
        }
    }

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

    /// Begins a watch; returns the longest silence that the broker promises.
    ///
    /// # Errors
    /// If the connection fails or the broker refuses.
    pub async fn watch(&mut self, targets: &str) -> Result<Duration, Error> {
        let response = self.command(&format!("XWATCH {targets}")).await?;
        if response.code != code::WATCHING {
            return Err(Error::Refused(response));
        }
        let seconds = response
            .text
            .split(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(tidings_protocol::limits::HEARTBEAT_SECONDS);
        self.codec.expect_events();
        Ok(Duration::from_secs(
            seconds.min(tidings_protocol::limits::HEARTBEAT_SECONDS),
        ))
    }

    /// The next statement of a watch, unproven as everything that a connection brings; none when
    /// the broker ends it.
    ///
    /// # Errors
    /// If the connection fails, or is silent for longer than promised.
    pub async fn event(&mut self, promised: Duration) -> Result<Option<Incoming>, Error> {
        loop {
            match self.next_within(promised + WATCH_GRACE).await? {
                Output::Event(event) => return Ok(Some(article::parse(&event.article?)?)),
                Output::Heartbeat => {}
                Output::WatchEnded => {
                    // A broker that ends it by itself may say why, and who else there is.
                    return match timeout(FAREWELL, self.response()).await {
                        Ok(Ok(farewell)) => Err(Error::Refused(farewell)),
                        _ => Ok(None),
                    };
                }
                other => return Err(unexpected("an event", &other)),
            }
        }
    }

    /// Offers a statement; the answer is 240, or says why not.
    ///
    /// # Errors
    /// If the connection fails: then the statement may or may not have been stored, and offering it
    /// again is harmless.
    pub async fn post(&mut self, statement: &Statement) -> Result<Response, Error> {
        let ready = self.command("POST").await?;
        if ready.code != code::SEND_ARTICLE {
            return Ok(ready);
        }
        let mut octets = article::render(statement, "not-for-mail").octets;
        octets.extend_from_slice(b".\r\n");
        self.send(&octets).await?;
        self.response().await
    }
}

fn unexpected(expected: &'static str, found: &Output) -> Error {
    CodecError::Unexpected {
        expected,
        found: format!("{found:?}").chars().take(80).collect(),
    }
    .into()
}
