//! Connections in memory: each has a delay of its own, so that they overtake each other; what is
//! sent on one comes in its order, late, or never.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{NODE, World, world};

/// Octets that may be under way in one direction.
const WINDOW: usize = 16 * 1024;
/// Connections that nobody has accepted.
const BACKLOG: usize = 64;
/// Milliseconds that octets are under way at most: nearly always, seldom, and rarely.
const DELAYS: [usize; 3] = [25, 250, 3_000];

/// The way between a node and a name.
#[derive(Clone, Copy, Default)]
struct Route {
    /// Until when nothing comes through, from the node and to it.
    cut: [Option<Instant>; 2],
    /// Octets a second, until when.
    slow: Option<(usize, Instant)>,
}

#[derive(Default)]
pub(super) struct Network {
    listeners: BTreeMap<String, mpsc::Sender<(Socket, usize)>>,
    /// Machines that are gone without a word.
    dark: BTreeMap<String, Instant>,
    routes: BTreeMap<(usize, String), Route>,
    wires: Vec<Weak<Mutex<Wire>>>,
}

/// One direction of a connection.
#[derive(Default)]
struct Way {
    chunks: VecDeque<(Instant, Bytes)>,
    octets: usize,
    last: Option<Instant>,
    ended: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Wire {
    node: usize,
    name: String,
    ways: [Way; 2],
    /// Nothing comes through any more, and nobody is told.
    is_silent: bool,
    /// From when on both ends are told that it is broken.
    broken: Option<Instant>,
}

/// One end of a connection.
pub struct Socket {
    wire: Arc<Mutex<Wire>>,
    /// 0: of the one who has called.
    end: usize,
    timer: Mutex<Pin<Box<Sleep>>>,
}

/// Where a name is listened at.
pub struct Listener(mpsc::Receiver<(Socket, usize)>);

impl Listener {
    /// The next connection, and the node that has called; none when somebody else listens.
    pub async fn accept(&mut self) -> Option<(Socket, usize)> {
        self.0.recv().await
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

fn wake(way: &mut Way) {
    let both = [way.reader.take(), way.writer.take()];
    both.into_iter().flatten().for_each(Waker::wake);
}

impl Wire {
    fn break_at(&mut self, at: Instant) {
        self.broken = Some(self.broken.map_or(at, |broken| broken.min(at)));
        self.ways.iter_mut().for_each(wake);
    }
    fn is_broken(&self) -> bool {
        self.broken.is_some_and(|at| at <= Instant::now())
    }
    /// When the reader of a way has something to hear of.
    fn next(&self, way: usize) -> Option<Instant> {
        let way = &self.ways[way];
        let octets = way.chunks.front().map(|(at, _)| *at).or(way.ended);
        let octets = octets.filter(|_| !self.is_silent);
        octets.into_iter().chain(self.broken).min()
    }
}

impl World {
    fn delay(&mut self) -> Duration {
        let most = match (self.chance)(200) {
            0 => DELAYS[2],
            1..=5 => DELAYS[1],
            _ => DELAYS[0],
        };
        Duration::from_millis((self.chance)(most) as u64 + 1)
    }

    /// When so many octets arrive that leave now.
    fn arrival(&mut self, node: usize, name: &str, way: usize, octets: usize) -> Instant {
        let (now, delay) = (Instant::now(), self.delay());
        let key = (node, name.to_owned());
        let route = self.network.routes.get(&key).copied().unwrap_or_default();
        let leaves = route.cut[way].map_or(now, |until| until.max(now));
        let slow = route.slow.filter(|(_, until)| *until > now);
        let takes = slow.map_or(Duration::ZERO, |(rate, _)| {
            Duration::from_millis((octets * 1_000 / rate) as u64)
        });
        leaves + delay + takes
    }

    fn wires(&mut self, which: impl Fn(&Wire) -> bool) -> Vec<Arc<Mutex<Wire>>> {
        let wires = &mut self.network.wires;
        wires.retain(|wire| wire.strong_count() > 0);
        let all = wires.iter().filter_map(Weak::upgrade);
        all.filter(|wire| which(&lock(wire))).collect()
    }
}

/// Who calls a name reaches the one that listens there last.
pub fn listen(name: &str) -> Listener {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    world(|world| {
        world.network.dark.remove(name);
        world.network.listeners.insert(name.to_owned(), sender)
    });
    Listener(receiver)
}

/// Nothing comes through between a node and a name for a while, in one direction or both.
pub fn cut(node: usize, name: &str, ways: [bool; 2], pause: Duration) {
    world(|world| {
        let route = world.network.routes.entry((node, name.to_owned()));
        let route = route.or_default();
        for (cut, is_cut) in route.cut.iter_mut().zip(ways) {
            if is_cut {
                *cut = Some(Instant::now() + pause);
            }
        }
    });
}

/// Few octets come through for a while.
pub fn slow_down(node: usize, name: &str, octets: usize, pause: Duration) {
    world(|world| {
        let route = world.network.routes.entry((node, name.to_owned()));
        route.or_default().slow = Some((octets, Instant::now() + pause));
    });
}

/// Every connection between a node and a name breaks.
pub fn break_connections(node: usize, name: &str) {
    let wires = world(|world| world.wires(|wire| wire.node == node && wire.name == name));
    for wire in wires.into_iter().flatten() {
        lock(&wire).break_at(Instant::now());
    }
}

/// Every connection breaks.
pub fn break_all() {
    for wire in world(|world| world.wires(|_| true)).into_iter().flatten() {
        lock(&wire).break_at(Instant::now());
    }
}

/// A machine is gone: it says nothing more, and those that are connected with it hear of it after
/// a while. Until then whoever calls its name waits, if nobody listens there again.
pub fn crash(node: usize, name: &str, told: Duration) {
    let at = Instant::now() + told;
    let wires = world(|world| {
        world.network.listeners.remove(name);
        world.network.dark.insert(name.to_owned(), at);
        world.wires(|wire| wire.node == node || wire.name == name)
    });
    for wire in wires.into_iter().flatten() {
        let mut wire = lock(&wire);
        wire.is_silent = true;
        wire.break_at(at);
    }
}

/// Every way is as it should be from now on.
pub fn heal() {
    world(|world| {
        world.network.routes.clear();
        world.network.dark.clear();
    });
}

/// Calls a name, if there is a simulation.
pub(crate) async fn connect(name: &str) -> Option<io::Result<Socket>> {
    let node = NODE.get();
    let ways = |world: &mut World| [0, 1].map(|way| world.arrival(node, name, way, 0));
    let arrivals = world(ways)?;
    sleep_until(arrivals[0].max(arrivals[1])).await;
    // As long as nobody says no.
    while let Some(until) = world(|world| world.network.dark.get(name).copied()).flatten() {
        let now = Instant::now();
        if until <= now {
            break;
        }
        sleep((until - now).min(Duration::from_secs(1))).await;
    }
    let listener = world(|world| world.network.listeners.get(name).cloned()).flatten();
    let wire = Arc::new(Mutex::new(Wire {
        node,
        name: name.to_owned(),
        ways: Default::default(),
        is_silent: false,
        broken: None,
    }));
    let [ours, theirs] = [0, 1].map(|end| Socket {
        wire: wire.clone(),
        end,
        timer: Mutex::new(Box::pin(sleep(Duration::ZERO))),
    });
    let called = listener.map(|listener| listener.try_send((theirs, node)));
    if !matches!(called, Some(Ok(()))) {
        return Some(Err(io::ErrorKind::ConnectionRefused.into()));
    }
    world(|world| world.network.wires.push(Arc::downgrade(&wire)));
    Some(Ok(ours))
}

impl Socket {
    fn wire(&self) -> MutexGuard<'_, Wire> {
        lock(&self.wire)
    }

    fn poll_timer(&self, at: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = at else {
            return Poll::Pending;
        };
        let mut timer = lock(&self.timer);
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(context)
    }

    /// Whether there is something to read, or the end.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut wire = self.wire();
        let next = wire.next(1 - self.end);
        if next.is_some_and(|at| at <= Instant::now()) {
            return Poll::Ready(());
        }
        wire.ways[1 - self.end].reader = Some(context.waker().clone());
        drop(wire);
        self.poll_timer(next, context)
    }

    /// Whether something can be written, or nothing any more.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut wire = self.wire();
        if wire.is_broken() || wire.ways[self.end].octets < WINDOW {
            return Poll::Ready(());
        }
        wire.ways[self.end].writer = Some(context.waker().clone());
        let broken = wire.broken;
        drop(wire);
        self.poll_timer(broken, context)
    }

    /// Waits until something can be written, or nothing any more.
    pub async fn writable(&self) {
        std::future::poll_fn(|context| self.poll_writable(context)).await;
    }

    /// Reads what has come.
    ///
    /// # Errors
    /// If that is nothing, or the connection is broken.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let (mut wire, now) = (self.wire(), Instant::now());
        if wire.is_broken() {
            return Err(reset());
        }
        let is_silent = wire.is_silent;
        let way = &mut wire.ways[1 - self.end];
        let (mut taken, mut is_first) = (0, true);
        while let Some((_, chunk)) = way.chunks.front_mut().filter(|(at, _)| *at <= now) {
            if is_silent || taken == into.len() {
                break;
            }
            is_first = false;
            let octets = chunk.len().min(into.len() - taken);
            chunk.copy_to_slice(&mut into[taken..taken + octets]);
            taken += octets;
            if !chunk.has_remaining() {
                way.chunks.pop_front();
            }
        }
        way.octets -= taken;
        if !is_first {
            way.writer.take().into_iter().for_each(Waker::wake);
            return Ok(taken);
        }
        let is_over = way.chunks.is_empty() && way.ended.is_some_and(|at| at <= now) && !is_silent;
        match is_over {
            true => Ok(0),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    /// If there is none, or the connection is broken.
    pub fn try_write(&self, octets: &[u8]) -> io::Result<usize> {
        let mut wire = self.wire();
        if wire.is_broken() {
            return Err(reset());
        }
        let room = WINDOW.saturating_sub(wire.ways[self.end].octets);
        let octets = &octets[..octets.len().min(room)];
        if octets.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Now and then a packet ends in the middle of a line.
        let cut = world(|world| match (world.chance)(16) {
            0 => (world.chance)(octets.len()),
            _ => 0,
        });
        let (one, other) = octets.split_at(cut.unwrap_or(0));
        for part in [one, other] {
            let Some(at) =
                world(|world| world.arrival(wire.node, &wire.name, self.end, part.len()))
            else {
                return Err(reset());
            };
            if !part.is_empty() {
                wire.ways[self.end].send(at, part);
            }
        }
        Ok(octets.len())
    }

    fn end(&self) {
        let mut wire = self.wire();
        if wire.is_silent || wire.ways[self.end].ended.is_some() {
            return;
        }
        let at = world(|world| world.arrival(wire.node, &wire.name, self.end, 0));
        let at = at.unwrap_or_else(Instant::now);
        let way = &mut wire.ways[self.end];
        way.ended = Some(way.last.map_or(at, |last| last.max(at)));
        wake(way);
    }
}

impl Way {
    fn send(&mut self, at: Instant, octets: &[u8]) {
        let at = self.last.map_or(at, |last| last.max(at));
        self.last = Some(at);
        self.octets += octets.len();
        self.chunks.push_back((at, Bytes::copy_from_slice(octets)));
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.end();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.try_read(into.initialize_unfilled()) {
                Ok(octets) => {
                    into.advance(octets);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.poll_readable(context));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(octets) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.poll_writable(context));
                }
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}
