//! Watches: subscribers that are told of statements as they come (spec part 4).
//!
//! A connection that watches leaves its session's task and becomes a row in a table: a socket, a
//! cursor for each channel, nothing else. One loop per core walks its table. No queue, no timer and
//! no buffer belongs to a subscriber; one that is slow stays behind with its cursor and reads the
//! log again when its socket takes more.

mod engine;
mod watcher;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rustls::ServerConnection;
use tidings_protocol::{Channel, Wildmat, nntp::Response};

use crate::{
    failure::OnFailure,
    log::logs::{Log, Logs},
    net::stream::{Left, Stream},
};
use engine::Engine;

/// Whoever takes a connection back when its watch has ended, and knows what its client may read.
pub(crate) trait Guest: Send {
    /// Goes on with a connection, and with what its client has sent since. Called within the
    /// runtime.
    fn come_back(self: Box<Self>, stream: Stream, input: BytesMut);
    /// Whether a channel that a wildmat matches exists for the client.
    fn may_read(&self, channel: &Channel) -> bool;
}

/// A connection on its way into a table.
pub(crate) struct Joining {
    pub(crate) socket: Left,
    pub(crate) tls: Option<Box<ServerConnection>>,
    /// Each channel, and the serial after which it is sent.
    pub(crate) cursors: Vec<(Arc<Log>, u32)>,
    /// The same for channels that are not here yet.
    pub(crate) expected: Vec<(Channel, u32)>,
    /// The channels of the future that are sent live.
    pub(crate) live: Vec<Wildmat>,
    /// How many logs there were when those that are here were looked for.
    pub(crate) begun: usize,
    /// What is sent first.
    pub(crate) greeting: Bytes,
    /// What the client has sent already, and nobody has read.
    pub(crate) input: BytesMut,
    pub(crate) peer: SocketAddr,
    pub(crate) guest: Box<dyn Guest>,
    pub(crate) counted: Counted,
}

/// What loops are told; each channel at most once until they look.
#[derive(Default)]
struct Inbox {
    joining: Vec<Joining>,
    /// Channels with news, and whether they are new themselves.
    news: HashMap<usize, (Arc<Log>, bool)>,
    /// Logs that are begun anew: whoever watches them has to ask.
    dropped: Vec<Arc<Log>>,
    stop: bool,
    /// What watchers are told at the end.
    farewell: String,
    /// The loop has ended: nobody would ever look at what comes now.
    closed: bool,
    /// Nobody watches there: news can wait for somebody who does.
    idle: bool,
}

struct Mailbox {
    inbox: Mutex<Inbox>,
    /// Has the loop look.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Mailbox {
    fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            inbox: Mutex::default(),
            wake: Box::new(wake),
        })
    }
    fn put(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        (self.wake)();
    }
    fn put_news(&self, log: &Arc<Log>, new: bool) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = inbox
            .news
            .entry(log.index)
            .or_insert_with(|| (log.clone(), new));
        entry.1 |= new;
        if !inbox.idle {
            drop(inbox);
            (self.wake)();
        }
    }
    fn take(&self, watchers: usize) -> Inbox {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let (closed, idle) = (inbox.stop, watchers == 0 && inbox.joining.is_empty());
        std::mem::replace(
            &mut *inbox,
            Inbox {
                closed,
                idle,
                ..Inbox::default()
            },
        )
    }
}

/// All tables.
pub(crate) struct Watches {
    loops: Vec<Arc<Mailbox>>,
    next: AtomicUsize,
    count: Arc<AtomicUsize>,
    most: usize,
    heartbeat: Duration,
}

/// One counted watch; it is uncounted when this is dropped.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watches {
    /// Starts the loops. Must be called within the runtime that sessions return to.
    pub(crate) fn start(
        loops: usize,
        most: usize,
        heartbeat: Duration,
        logs: &Arc<Logs>,
        on_failure: &OnFailure,
    ) -> io::Result<Arc<Self>> {
        let start = |index| Engine::start(index, heartbeat, logs.clone(), on_failure.clone());
        let loops = (0..loops).map(start).collect::<io::Result<_>>()?;
        Ok(Arc::new(Self::new(loops, most, heartbeat)))
    }

    fn new(loops: Vec<Arc<Mailbox>>, most: usize, heartbeat: Duration) -> Self {
        Self {
            loops,
            next: AtomicUsize::new(0),
            count: Arc::default(),
            most,
            heartbeat,
        }
    }

    /// One loop as a task, for sockets in memory.
    #[cfg(test)]
    pub(crate) fn simulated(
        most: usize,
        heartbeat: Duration,
        logs: &Arc<Logs>,
        on_failure: &OnFailure,
    ) -> io::Result<(Arc<Self>, impl Future<Output = ()> + use<>)> {
        let (mailbox, run) = Engine::simulated(heartbeat, logs.clone(), on_failure.clone())?;
        Ok((Arc::new(Self::new(vec![mailbox], most, heartbeat)), run))
    }

    /// A place for one watch more, unless there are too many.
    pub(crate) fn reserve(&self) -> Option<Counted> {
        let counted = Counted(self.count.clone());
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        (before < self.most).then_some(counted)
    }

    /// Watches at this moment.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The longest silence, in seconds.
    pub(crate) fn heartbeat_seconds(&self) -> u64 {
        self.heartbeat.as_secs()
    }

    pub(crate) fn join(&self, joining: Joining) {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.loops.len();
        self.loops[index].put(|inbox| {
            if !inbox.closed {
                inbox.joining.push(joining);
            }
        });
    }

    /// A channel has statements that were not there before.
    pub(crate) fn notify(&self, log: &Arc<Log>, new: bool) {
        self.loops
            .iter()
            .for_each(|mailbox| mailbox.put_news(log, new));
    }

    /// Closes the connections that watch a log which is begun anew: nothing would come on them any
    /// more.
    pub(crate) fn drop_log(&self, log: &Arc<Log>) {
        for mailbox in &self.loops {
            mailbox.put(|inbox| inbox.dropped.push(log.clone()));
        }
    }

    /// Ends all watches with a response.
    pub(crate) fn stop(&self, farewell: &Response) {
        for mailbox in &self.loops {
            mailbox.put(|inbox| (inbox.stop, inbox.farewell) = (true, farewell.to_string()));
        }
    }
}
