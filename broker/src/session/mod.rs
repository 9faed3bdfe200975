//! A session: commands in, answers out, in order; pipelining is a full input buffer.

mod account;
mod feeding;
mod listing;
mod posting;
mod reading;
#[cfg(test)]
mod tests;
mod watching;

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tidings_protocol::{
    Channel, Serial,
    nntp::{
        Code, Command, Response, SyntaxError, code,
        codec::{CodecError, Input, ServerCodec},
    },
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::{codec::Decoder, sync::WaitForCancellationFuture};

use crate::{
    limits::{ARTICLE, FEED_STALL, INPUT_OCTETS, OUTPUT_OCTETS, REFUSALS, TURN_OCTETS},
    log::{append::Peer, logs::Log},
    logging::Safe,
    net::{access::Known, connections::Permit, stream::Stream},
    relay::watch::Guest,
    shared::Shared,
};

/// What of a session outlives its watch.
struct Place {
    shared: Arc<Shared>,
    peer: SocketAddr,
    log: Option<Arc<Log>>,
    current: Option<Serial>,
    /// As whom the client is known.
    known: Known,
    /// Articles that were refused so far.
    refused: u32,
    /// Statements that were put off so far.
    put_off: u32,
    /// Why the last of these were not taken.
    last_refusal: Option<Response>,
    /// Logins that have failed.
    logins: u32,
    /// Which connection this is.
    number: Peer,
    permit: Permit,
}

impl Guest for Place {
    fn may_read(&self, channel: &Channel) -> bool {
        self.shared.settings.access.may_read(&self.known, channel)
    }

    fn come_back(self: Box<Self>, stream: Stream, input: BytesMut) {
        let shared = self.shared.clone();
        shared.spawn(Session::resume(self, stream, input).run_boxed());
    }
}

pub(crate) struct Session {
    place: Box<Place>,
    stream: Stream,
    /// What the client has sent and nobody has read.
    input: BytesMut,
    codec: ServerCodec,
    output: Vec<u8>,
    /// An article comes next: until when, and what for.
    article_due: Option<(Instant, Purpose)>,
    /// The name that AUTHINFO USER has given.
    user: Option<String>,
    /// Answers to what was sent by TAKETHIS, and to what came after it; in their order.
    pending: FuturesOrdered<BoxFuture<'static, Response>>,
    /// The highest serial of each channel that is wanted from this peer.
    promised: HashMap<Channel, u32>,
    /// Octets that were looked at since others had their turn.
    spent: usize,
}

/// What an article is sent for.
enum Purpose {
    Post,
    Ihave,
    TakeThis(String),
}

/// What ends a session that waits for its client; each is waited for as long as the session
/// lasts.
struct Ends<'a, 'b> {
    stop: Pin<&'a mut WaitForCancellationFuture<'b>>,
    /// The client has to say something until then.
    silence: Pin<&'a mut Sleep>,
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
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: Stream,
        peer: SocketAddr,
        permit: Permit,
    ) -> Self {
        let certificate = stream
            .tls
            .as_ref()
            .and_then(|tls| tls.peer_certificates())
            .and_then(|chain| chain.first());
        let known = shared
            .settings
            .access
            .who(peer.ip(), certificate.map(|der| &**der));
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (refused, put_off, logins, last_refusal) = (0, 0, 0, None);
        let place = Place {
            shared,
            peer,
            log: None,
            current: None,
            known,
            refused,
            put_off,
            last_refusal,
            logins,
            number,
            permit,
        };
        Self::resume(Box::new(place), stream, BytesMut::new())
    }

    /// Goes on after a watch.
    fn resume(place: Box<Place>, stream: Stream, input: BytesMut) -> Self {
        Self {
            place,
            stream,
            input,
            codec: ServerCodec::default(),
            output: Vec::new(),
            article_due: None,
            user: None,
            pending: FuturesOrdered::new(),
            promised: HashMap::new(),
            spent: 0,
        }
    }

    /// Greets the client and serves it.
    pub(crate) async fn greet(mut self) {
        let config = &self.shared().settings.config;
        let greeting = format!("{} Tidings broker ready", config.name);
        self.respond(
            if config.posting {
                code::READY
            } else {
                code::READY_NO_POSTING
            },
            greeting,
        );
        self.run().await;
    }

    /// Serves until the client leaves, is cut off, or watches.
    pub(crate) async fn run(mut self) {
        let ended = self.serve().await;
        if ended.is_err() {
            self.tell_of_refusals();
        }
        let last = match ended {
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
    async fn serve(&mut self) -> Result<watching::Watch, End> {
        let idle = Duration::from_secs(self.shared().settings.config.limits.idle_seconds);
        let mut deadline = Instant::now() + idle;
        let stop = self.shared().stop.clone();
        let stop = pin!(stop.cancelled());
        let silence = pin!(sleep_until(deadline));
        let mut ends = Ends { stop, silence };
        loop {
            match self.codec.decode(&mut self.input) {
                Ok(Some(Input::Command(Ok(Command::Xwatch(targets))))) => {
                    self.settle().await?;
                    if let Some(watch) = self.watch(targets).await? {
                        self.flush().await?;
                        return Ok(watch);
                    }
                    deadline = Instant::now() + idle;
                }
                Ok(Some(input)) => {
                    self.answer(input).await?;
                    // A client that asks much and reads little waits for itself.
                    self.relieve().await?;
                    deadline = self
                        .article_due
                        .as_ref()
                        .map_or_else(|| Instant::now() + idle, |(due, _)| *due);
                }
                Ok(None) => {
                    self.flush().await?;
                    // What a client has streamed is not kept room for while it is silent.
                    if self.input.is_empty() && self.input.capacity() > INPUT_OCTETS {
                        self.input = BytesMut::new();
                    }
                    if ends.silence.deadline() != deadline {
                        ends.silence.as_mut().reset(deadline);
                    }
                    if self.pending.is_empty() {
                        self.read(&mut ends).await?;
                    } else {
                        self.read_or_settle(&mut ends).await?;
                    }
                }
                Err(error) => return Err(End::Refused(fatal(&error))),
            }
        }
    }

    /// Whatever comes first: more from the client, or the answer to what it has sent.
    async fn read_or_settle(&mut self, ends: &mut Ends<'_, '_>) -> Result<(), End> {
        let mut pending = std::mem::take(&mut self.pending);
        let answered = tokio::select! {
            biased;
            answer = pending.next() => Ok(answer),
            read = self.read(ends) => read.map(|()| None),
            () = sleep(FEED_STALL) => {
                // It sends no more before it has answers.
                self.shared().appender.stalled(self.place.number).await;
                Ok(None)
            }
        };
        self.pending = pending;
        let mut answer = answered?;
        while let Some(response) = answer {
            self.respond_to_feed(response)?;
            answer = self.pending.next().now_or_never().flatten();
        }
        Ok(())
    }

    /// Waits for all answers that are owed.
    async fn settle(&mut self) -> Result<(), End> {
        if self.pending.is_empty() {
            return Ok(());
        }
        while let Some(response) = self.pending.next().await {
            self.respond_to_feed(response)?;
        }
        Ok(())
    }

    fn respond_to_feed(&mut self, response: Response) -> Result<(), End> {
        match response.code {
            // RFC 4644 section 2.5.2: what may be taken later has no other answer than this.
            code::UNAVAILABLE => {
                self.note_put_off(&response);
                return Err(End::Refused(response));
            }
            code::TAKE_REFUSED => self.count_refusal(&response)?,
            _ => self.respond(response.code, response.text),
        }
        Ok(())
    }

    /// Answers with a refusal; one that is one too many ends the session (attacks 44 and 67).
    fn count_refusal(&mut self, response: &Response) -> Result<(), End> {
        self.place.refused += 1;
        self.place.last_refusal = Some(response.clone());
        self.respond(response.code, &response.text);
        if self.place.refused < REFUSALS {
            return Ok(());
        }
        tracing::warn!(peer = %self.place.peer, name = self.name(), refused = REFUSALS, "a connection is closed that offered too much that was refused");
        Err(End::Refused(Response::new(
            code::UNAVAILABLE,
            "too many articles were refused here; what is wrong with them?",
        )))
    }

    fn note_put_off(&mut self, response: &Response) {
        self.place.put_off += 1;
        self.place.last_refusal = Some(response.clone());
    }

    /// One line for all that was not taken from a connection: a line for each would be a flood
    /// (attack 108).
    fn tell_of_refusals(&self) {
        let Place {
            refused,
            put_off,
            last_refusal: Some(last),
            peer,
            ..
        } = &*self.place
        else {
            return;
        };
        let last = Safe(&last.text);
        tracing::warn!(%peer, name = self.name(), refused, put_off, %last, "of what this connection has sent, so much was not taken");
    }

    /// What the log calls the client.
    fn name(&self) -> &str {
        self.shared().settings.access.name(&self.place.known)
    }

    /// A channel, if it exists for this client.
    fn log(&self, name: &str) -> Option<Arc<Log>> {
        self.shared()
            .logs
            .get(name)
            .filter(|log| self.place.may_read(&log.channel))
    }

    async fn read(&mut self, ends: &mut Ends<'_, '_>) -> Result<(), End> {
        let refused = |why| Err(End::Refused(Response::new(code::UNAVAILABLE, why)));
        let read = tokio::select! {
            biased;
            read = self.stream.read(&mut self.input) => read,
            () = ends.stop.as_mut() => return refused("the broker is shutting down"),
            () = ends.silence.as_mut() => return refused("you were silent for too long"),
        };
        match read {
            Ok(0) | Err(_) => Err(End::Gone),
            // Who never stops sending is told as well.
            Ok(_) if self.place.shared.stop.is_cancelled() => {
                refused("the broker is shutting down")
            }
            Ok(_) => Ok(()),
        }
    }

    async fn answer(&mut self, input: Input) -> Result<(), End> {
        match input {
            Input::Command(Ok(command)) => self.command(command).await,
            Input::Command(Err(error)) => {
                self.settle().await?;
                let code = if matches!(error, SyntaxError::Unknown(_)) {
                    code::UNKNOWN
                } else {
                    code::SYNTAX
                };
                self.respond(code, error);
                Ok(())
            }
            Input::Article(article) => match self.article_due.take().map(|(_, purpose)| purpose) {
                Some(Purpose::TakeThis(id)) => feeding::take_this(self, id, article).await,
                Some(Purpose::Ihave) => {
                    let response = feeding::transfer(self, article).await;
                    match response.code {
                        code::TRANSFER_REFUSED => self.count_refusal(&response)?,
                        _ => {
                            if response.code == code::TRANSFER_LATER {
                                self.note_put_off(&response);
                            }
                            self.respond(response.code, response.text);
                        }
                    }
                    Ok(())
                }
                Some(Purpose::Post) | None => {
                    let response = posting::post(self, article).await;
                    match response.code {
                        code::POSTED => self.respond(response.code, response.text),
                        _ => self.count_refusal(&response)?,
                    }
                    Ok(())
                }
            },
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Check(id) => return feeding::check(self, &id),
            Command::TakeThis(id) => {
                self.article_due = Some((Instant::now() + ARTICLE, Purpose::TakeThis(id)));
                return Ok(());
            }
            _ => self.settle().await?,
        }
        match command {
            Command::Quit => return Err(End::Quit),
            Command::Post if self.shared().settings.config.posting => {
                self.respond(code::SEND_ARTICLE, "send the article, end it with a dot");
                self.codec.expect_article();
                self.article_due = Some((Instant::now() + ARTICLE, Purpose::Post));
            }
            Command::Ihave(id) => {
                let response = feeding::ihave(self, &id);
                if response.code == code::SEND_IT {
                    self.codec.expect_article();
                    self.article_due = Some((Instant::now() + ARTICLE, Purpose::Ihave));
                }
                self.respond(response.code, response.text);
            }
            Command::ModeStream => self.respond(code::STREAMING, "CHECK and TAKETHIS are welcome"),
            Command::AuthinfoUser(name) => account::user(self, name),
            Command::AuthinfoPass(password) => account::pass(self, password).await?,
            Command::Post => self.respond(
                code::POST_REFUSED,
                "this broker takes no statements; publish at the origin",
            ),
            command => reading::answer(self, command).await?,
        }
        Ok(())
    }

    fn respond(&mut self, code: Code, text: impl std::fmt::Display) {
        Response::new(code, text).write(&mut self.output);
    }

    /// Takes note of octets that were looked at for the client; with many, others have their turn
    /// first.
    async fn pay(&mut self, octets: usize) -> Result<(), End> {
        self.spent += octets;
        if self.spent >= TURN_OCTETS {
            self.spent = 0;
            tokio::task::yield_now().await;
        }
        self.relieve().await
    }

    /// Sends what is gathered when it has become much, and lets other sessions have their turn in
    /// long answers.
    async fn relieve(&mut self) -> Result<(), End> {
        tokio::task::coop::consume_budget().await;
        if self.output.len() >= OUTPUT_OCTETS {
            self.flush().await
        } else {
            Ok(())
        }
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

    fn run_boxed(self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.run())
    }
}

fn fatal(error: &CodecError) -> Response {
    Response::new(code::SYNTAX, format_args!("{error}; good-bye"))
}
