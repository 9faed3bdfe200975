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
    connections::Permit,
    limits::{ARTICLE, OUTPUT_OCTETS, REFUSALS, WATCH_CHANNELS},
    logs::Log,
    shared::Shared,
    stream::Stream,
    watch::{Guest, Joining},
};

/// What of a session outlives its watch.
struct Place {
    shared: Arc<Shared>,
    peer: SocketAddr,
    log: Option<Arc<Log>>,
    current: Option<Serial>,
    /// Articles that were refused so far.
    refused: u32,
    _permit: Permit,
}

impl Guest for Place {
    fn come_back(self: Box<Self>, stream: Stream, input: BytesMut) {
        let tasks = self.shared.tasks.clone();
        drop(tasks.spawn(Session::resume(self, stream, input).run_boxed()));
    }
}

pub(crate) struct Session {
    place: Box<Place>,
    stream: Stream,
    /// What the client has sent and nobody has read.
    input: BytesMut,
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
        let place = Place { shared, peer, log: None, current: None, refused: 0, _permit: permit };
        Self::resume(Box::new(place), stream, BytesMut::new())
    }

    /// Goes on after a watch.
    fn resume(place: Box<Place>, stream: Stream, input: BytesMut) -> Self {
        Self { place, stream, input, codec: ServerCodec::default(), output: Vec::new(), article_due: None }
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
        &self.place.shared
    }

    /// Serves until a watch is to begin.
    async fn serve(&mut self) -> Result<Watch, End> {
        let idle = Duration::from_secs(self.shared().settings.config.limits.idle_seconds);
        let mut deadline = Instant::now() + idle;
        loop {
            match self.codec.decode(&mut self.input) {
                Ok(Some(Input::Command(Ok(Command::Xwatch(targets))))) => {
                    if let Some(watch) = self.watch(targets) {
                        self.flush().await?;
                        return Ok(watch);
                    }
                    deadline = Instant::now() + idle;
                }
                Ok(Some(input)) => {
                    self.answer(input).await?;
                    // A client that asks much and reads little waits for itself.
                    self.relieve().await?;
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
        let stop = self.place.shared.stop.clone();
        let read = timeout_at(deadline, self.stream.read(&mut self.input));
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
                let response = posting::post(self.shared(), self.place.peer, article).await;
                self.place.refused += u32::from(response.code != code::POSTED);
                if self.place.refused >= REFUSALS {
                    self.respond(response.code, response.text);
                    tracing::warn!(peer = %self.place.peer, refused = REFUSALS, "a connection is closed that offered too much that was refused");
                    return Err(End::Refused(Response::new(
                        code::UNAVAILABLE,
                        "too many articles were refused here; what is wrong with them?",
                    )));
                }
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

    /// Sends what is gathered when it has become much, and lets other sessions have their turn in long answers.
    async fn relieve(&mut self) -> Result<(), End> {
        tokio::task::coop::consume_budget().await;
        if self.output.len() >= OUTPUT_OCTETS { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
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
        let wanted = |log: &Arc<Log>| watch.live.iter().any(|live| live.matches(log.channel.as_str()));
        let matching = if watch.live.is_empty() { 0 } else { self.shared().logs.all().iter().filter(|log| wanted(log)).count() };
        if matching + watch.cursors.len() > WATCH_CHANNELS {
            self.respond(code::WATCH_REFUSED, format_args!("a watch follows {WATCH_CHANNELS} channels, no more"));
            return None;
        }
        Some(watch)
    }

    /// Gives socket and state to a watch loop; this task ends.
    fn leave_to_watch(self, watch: Watch) {
        let Self { place, stream, input, .. } = self;
        let (watches, peer) = (place.shared.watches.clone(), place.peer);
        let Some(counted) = watches.reserve() else {
            // Rare: the refusal is sent by a task of its own.
            let mut session = Self::resume(place, stream, input);
            session.respond(code::WATCH_REFUSED, "too many watches, poll instead or try again later");
            drop(session.shared().tasks.clone().spawn(session.run_boxed()));
            return;
        };
        let greeting = Bytes::from(format!("{} {} watching\r\n", code::WATCHING, watches.heartbeat_seconds()));
        let input = if input.is_empty() { BytesMut::new() } else { input };
        match stream.socket.into_std() {
            Ok(socket) => watches.join(Joining {
                socket,
                tls: stream.tls,
                cursors: watch.cursors,
                live: watch.live,
                greeting,
                input,
                peer,
                guest: place,
                counted,
            }),
            Err(error) => tracing::warn!(%peer, %error, "a connection could not be watched"),
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
