//! One connection to one broker: commands out, answers in.

mod articles;

pub use articles::Group;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use rustls_pki_types::ServerName;
use tidings_protocol::{
    Statement,
    article::{self, Incoming},
    limits::LISTING_OCTETS,
    nntp::{
        Code, Response, code,
        codec::{ClientCodec, CodecError, Output},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_util::codec::Decoder;

#[cfg(feature = "simulated")]
use crate::simulated;
use crate::{
    Address, Error, Tls, TlsError, dial,
    limits::{ANSWER, CONNECT, FAREWELL, GREETING, SILENCE, WATCH_GRACE},
    tls::io_words,
};

trait Octets: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Octets for T {}

/// One connection. Dropping it is always safe.
pub struct Connection {
    address: Address,
    octets: Box<dyn Octets>,
    input: BytesMut,
    codec: ClientCodec,
    received: Arc<AtomicU64>,
    /// How many octets the last read has brought.
    last: usize,
}

/// Octets read at once.
const READ: usize = 4096;
/// The same from a broker that has filled those.
const STREAMED: usize = 8 * READ;

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
            last: 0,
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
        let mut deadline = None;
        loop {
            if let Some(output) = self.codec.decode(&mut self.input)? {
                return Ok(output);
            }
            let now = Instant::now();
            let deadline = *deadline.get_or_insert(now + ANSWER.max(silence));
            let until = deadline.min(now + silence);
            self.input
                .reserve(if self.last < READ { READ } else { STREAMED });
            let read = timeout_at(until, self.octets.read_buf(&mut self.input));
            let octets = read.await.map_err(|_| Error::Silent(silence))??;
            self.last = octets;
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
