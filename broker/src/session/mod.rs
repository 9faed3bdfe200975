//! A session: commands in, answers out, in order; pipelining is a full input buffer.

mod posting;
mod reading;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tidings_protocol::{
    Serial,
    nntp::{
        Code, Command, Response, SyntaxError, WatchTarget, code,
        codec::{CodecError, Input, ServerCodec},
    },
};
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::Decoder;

use crate::{
    broker::Shared,
    connections::Permit,
    limits::{ARTICLE, OUTPUT_OCTETS},
    listener,
    logs::Log,
    stream::Stream,
    watch::Joining,
};

/// What of a session outlives its watch.
pub(crate) struct Parked {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: SocketAddr,
    /// What the client has sent and nobody has read.
    pub(crate) input: BytesMut,
    /// What the watch begins with.
    pub(crate) greeting: Bytes,
    log: Option<Arc<Log>>,
    current: Option<Serial>,
    _permit: Permit,
}

pub(crate) struct Session {
    parked: Box<Parked>,
    stream: Stream,
    codec: ServerCodec,
    output: Vec<u8>,
    /// The client has sent POST and may now send the article.
    article_due: Option<Instant>,
}

/// Why a session ends.
enum End {
    Quit,
    /// The client is gone, or its connection is broken.
    Gone,
    /// It is told why, and cut off.
    Refused(Response),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        End::Gone
    }
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, stream: Stream, peer: SocketAddr, permit: Permit) -> Self {
        let parked = Parked { shared, peer, input: BytesMut::new(), greeting: Bytes::new(), log: None, current: None, _permit: permit };
        Self::resume(Box::new(parked), stream)
    }

    /// Goes on after a watch.
    pub(crate) fn resume(parked: Box<Parked>, stream: Stream) -> Self {
        Self { parked, stream, codec: ServerCodec::default(), output: Vec::new(), article_due: None }
    }

    /// Greets the client and serves it.
    pub(crate) async fn greet(mut self) {
        let config = &self.shared().settings.config;
        let greeting = format!("{} Tidings broker ready", config.name);
        self.respond(if config.posting { code::READY } else { code::READY_NO_POSTING }, greeting);
        self.run().await;
    }

    /// Serves until the client leaves, is cut off, or watches.
    pub(crate) async fn run(mut self) {
        let last = match self.serve().await {
            Ok(joining) => return self.leave_to_watch(joining),
            Err(End::Quit) => Response::new(code::GOODBYE, "good-bye"),
            Err(End::Refused(why)) => why,
            Err(End::Gone) => return,
        };
        self.respond(last.code, last.text);
        // The client may be gone already; then nothing is owed to it.
        let _ = self.flush().await;
        let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.close()).await;
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.parked.shared
    }

    /// Serves until a watch is to begin.
    async fn serve(&mut self) -> Result<Watch, End> {
        let idle = Duration::from_secs(self.shared().settings.config.limits.idle_seconds);
        let mut deadline = Instant::now() + idle;
        loop {
            match self.codec.decode(&mut self.parked.input) {
                Ok(Some(Input::Command(Ok(Command::Xwatch(targets))))) => {
                    if let Some(watch) = self.watch(targets) {
                        self.flush().await?;
                        return Ok(watch);
                    }
                    deadline = Instant::now() + idle;
                }
                Ok(Some(input)) => {
                    self.answer(input).await?;
                    deadline = self.article_due.unwrap_or_else(|| Instant::now() + idle);
                }
                Ok(None) => {
                    self.flush().await?;
                    self.read(deadline).await?;
                }
                Err(error) => return Err(End::Refused(fatal(&error))),
            }
        }
    }

    async fn read(&mut self, deadline: Instant) -> Result<(), End> {
        let stop = self.parked.shared.stop.clone();
        let read = timeout_at(deadline, self.stream.read(&mut self.parked.input));
        let read = tokio::select! {
            read = read => read,
            () = stop.cancelled() => return Err(End::Refused(Response::new(code::UNAVAILABLE, "the broker is shutting down"))),
        };
        match read {
            Ok(Ok(0) | Err(_)) => Err(End::Gone),
            Ok(Ok(_)) => Ok(()),
            Err(_) => Err(End::Refused(Response::new(code::UNAVAILABLE, "you were silent for too long"))),
        }
    }

    async fn answer(&mut self, input: Input) -> Result<(), End> {
        match input {
            Input::Command(Ok(command)) => self.command(command).await,
            Input::Command(Err(error)) => {
                let code = if matches!(error, SyntaxError::Unknown(_)) { code::UNKNOWN } else { code::SYNTAX };
                self.respond(code, error);
                Ok(())
            }
            Input::Article(article) => {
                self.article_due = None;
                let response = posting::post(self.shared(), self.parked.peer, article).await;
                self.respond(response.code, response.text);
                Ok(())
            }
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Quit => return Err(End::Quit),
            Command::Post if self.shared().settings.config.posting => {
                self.respond(code::SEND_ARTICLE, "send the article, end it with a dot");
                self.codec.expect_article();
                self.article_due = Some(Instant::now() + ARTICLE);
            }
            Command::Post => self.respond(code::POST_REFUSED, "this broker takes no statements; publish at the origin"),
            command => reading::answer(self, command).await?,
        }
        Ok(())
    }

    fn respond(&mut self, code: Code, text: impl std::fmt::Display) {
        let response = Response::new(code, text);
        self.output.extend_from_slice(format!("{response}\r\n").as_bytes());
    }

    /// Sends what is gathered when it has become much.
    async fn relieve(&mut self) -> Result<(), End> {
        if self.output.len() >= OUTPUT_OCTETS { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if !self.output.is_empty() {
            listener::write(&mut self.stream, &self.output).await?;
            self.output.clear();
            if self.output.capacity() > OUTPUT_OCTETS {
                self.output = Vec::new();
            }
        }
        Ok(())
    }

    /// What XWATCH asks for, unless it is answered with a refusal.
    fn watch(&mut self, targets: Vec<WatchTarget>) -> Option<Watch> {
        let mut watch = Watch::default();
        for target in targets {
            match target {
                WatchTarget::Live(wildmat) => watch.live.push(wildmat),
                WatchTarget::After(channel, serial) => match self.shared().logs.get(channel.as_str()) {
                    Some(log) => watch.cursors.push((log, serial.map_or(0, Serial::number))),
                    None => {
                        self.respond(code::NO_SUCH_GROUP, format_args!("no channel {channel} here"));
                        return None;
                    }
                },
            }
        }
        Some(watch)
    }

    /// Gives socket and state to a watch loop; this task ends.
    fn leave_to_watch(self, watch: Watch) {
        let Self { mut parked, stream, .. } = self;
        let watches = parked.shared.watches.clone();
        let Some(counted) = watches.reserve() else {
            // Rare: answer in the task that is ending.
            let mut session = Self::resume(parked, stream);
            session.respond(code::WATCH_REFUSED, "too many watches, poll instead or try again later");
            drop(session.shared().tasks.clone().spawn(session.run_boxed()));
            return;
        };
        parked.greeting = Bytes::from(format!("{} {} watching\r\n", code::WATCHING, watches.heartbeat_seconds()));
        if parked.input.is_empty() {
            parked.input = BytesMut::new();
        }
        match stream.socket.into_std() {
            Ok(socket) => watches.join(Joining { socket, tls: stream.tls, cursors: watch.cursors, live: watch.live, parked, counted }),
            Err(error) => tracing::warn!(peer = %parked.peer, %error, "a connection could not be watched"),
        }
    }

    fn run_boxed(self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.run())
    }
}

/// What a client wants to watch.
#[derive(Default)]
struct Watch {
    cursors: Vec<(Arc<Log>, u32)>,
    live: Vec<tidings_protocol::Wildmat>,
}

fn fatal(error: &CodecError) -> Response {
    Response::new(code::SYNTAX, format_args!("{error}; good-bye"))
}
