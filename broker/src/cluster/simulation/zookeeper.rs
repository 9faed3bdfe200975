//! A model of ZooKeeper that does what its documentation promises, and no more.
//!
//! Writes have one order, and are made whole or not at all. A session's requests are done in its
//! order; what it sees lags behind, and never goes back; it sees its own writes, and an event
//! before what the event is about. When a connection breaks, what was under way was done, or is
//! done later, or never; answers, events and watches are lost; the next server knows what the
//! client has seen, and perhaps no more. A session expires early or late.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};
use zookeeper_client::{Error, MultiWriteError, Stat};

use super::{
    super::{
        session::{Change, Event},
        tree::empty,
    },
    client::{Answer, Request, Watch},
    lock,
    znodes::Znodes,
};
use crate::log::store::simulated::Random;

/// What the servers' clock shows at the beginning.
pub(super) const EPOCH: u64 = 1_800_000_000;

/// What one multi-operation has changed, for whoever judges it.
pub(super) type Judge = Box<dyn FnMut(&Znodes, &[Change]) + Send>;

type Step = Box<dyn FnOnce(&mut World) + Send>;
type Reply = oneshot::Sender<Result<Answer, MultiWriteError>>;

/// One session, as its client and the servers see it.
pub(super) struct Standing {
    /// The broker that has it.
    broker: usize,
    pub(super) is_connected: bool,
    /// The client knows that it has ended.
    pub(super) has_ended: bool,
    /// The servers have ended it.
    is_expired: bool,
    /// Its client is gone, and never connects again.
    is_left: bool,
    /// Counts its connections.
    connection: u32,
    /// Nothing more of this connection arrives.
    cut: u32,
    /// What its server has seen, and what its client knows of.
    view: i64,
    known: i64,
    last_arrival: Instant,
    last_answer: Instant,
    pending: BTreeMap<u64, Reply>,
    watches: Vec<Watch>,
    /// Below which nodes its server watches.
    watched: BTreeSet<String>,
}

pub(super) struct World {
    began: Instant,
    random: Random,
    nodes: Znodes,
    pub(super) sessions: Vec<Standing>,
    steps: BTreeMap<(Instant, u64), Step>,
    count: u64,
    /// Until when servers answer slowly, and which brokers reach none.
    slow: Instant,
    cut_off: BTreeMap<usize, Instant>,
    /// How far the servers' clock is ahead, in seconds.
    ahead: u64,
    judge: Option<Judge>,
    /// What has happened, in one number.
    pub(super) digest: u64,
}

impl Standing {
    fn give_up(&mut self, why: &Error) {
        for reply in std::mem::take(&mut self.pending).into_values() {
            drop(reply.send(Err(why.clone().into())));
        }
    }

    fn tell(&self, event: &Event) {
        let is_for = |watch: &&Watch| match event {
            Event::Made(path) | Event::Changed(path) | Event::Gone(path) => {
                path.starts_with(&watch.path)
            }
            _ => true,
        };
        for watch in self.watches.iter().filter(is_for) {
            lock(&watch.events.0).push_back(event.clone());
            watch.events.1.notify_one();
        }
    }
}

impl World {
    /// An empty tree; whoever judges sees each change of it.
    pub(super) fn new(seed: u64, ahead: u64, judge: Judge) -> Self {
        let now = Instant::now();
        let mut world = World {
            began: now,
            random: Random(seed),
            nodes: Znodes::default(),
            sessions: Vec::new(),
            steps: BTreeMap::new(),
            count: 0,
            slow: now,
            cut_off: BTreeMap::new(),
            ahead,
            judge: None,
            digest: 0xcbf2_9ce4_8422_2325,
        };
        world.change(0, &empty()).unwrap();
        world.judge = Some(judge);
        world
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound)
    }

    fn note(&mut self, what: u64) {
        let time = u64::try_from(self.began.elapsed().as_millis()).unwrap();
        for word in [time, what] {
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// How long a message is under way: mostly short.
    pub(super) fn delay(&mut self) -> Duration {
        let slow = Instant::now() < self.slow;
        let most = match self.below(100) {
            _ if slow => 4_000,
            0 => 1_500,
            1..=5 => 120,
            _ => 6,
        };
        Duration::from_millis(self.below(most) as u64 + 1)
    }

    fn schedule(&mut self, at: Instant, step: impl FnOnce(&mut World) + Send + 'static) {
        self.count += 1;
        self.steps.insert((at, self.count), Box::new(step));
    }

    pub(super) fn do_due(&mut self) -> Option<Instant> {
        loop {
            let (at, number) = *self.steps.keys().next()?;
            if at > Instant::now() {
                return Some(at);
            }
            let step = self.steps.remove(&(at, number));
            step.into_iter().for_each(|step| step(self));
        }
    }

    pub(super) fn ask(&mut self, session: usize, request: Request, reply: Reply) {
        let (now, delay) = (Instant::now(), self.delay());
        let standing = &mut self.sessions[session];
        if standing.has_ended {
            return drop(reply.send(Err(Error::SessionExpired.into())));
        }
        if !standing.is_connected {
            return self.schedule(now + delay, |_| {
                drop(reply.send(Err(Error::ConnectionLoss.into())));
            });
        }
        let at = standing.last_arrival.max(now + delay);
        standing.last_arrival = at;
        self.count += 1;
        let (ticket, connection) = (self.count, standing.connection);
        standing.pending.insert(ticket, reply);
        self.schedule(at, move |world| {
            world.arrive(session, connection, ticket, request);
        });
    }

    /// A request reaches the servers, perhaps after its client has given it up.
    fn arrive(&mut self, session: usize, connection: u32, ticket: u64, request: Request) {
        let is_late = self.sessions[session].connection != connection;
        if is_late {
            let standing = &self.sessions[session];
            // What was sent before is done before; and a session that has moved, or has expired,
            // does nothing more.
            let is_over = !matches!(request, Request::Change(_))
                || standing.cut >= connection
                || standing.is_expired
                || standing.connection > connection + 1;
            if is_over || self.below(2) == 0 {
                self.sessions[session].cut = connection;
                return;
            }
        }
        if self.sessions[session].is_expired {
            return;
        }
        let answer = self.perform(session, request);
        self.note(ticket);
        if !is_late {
            self.answer(session, ticket, answer);
        }
    }

    fn answer(&mut self, session: usize, ticket: u64, answer: Result<Answer, MultiWriteError>) {
        let view = self.sessions[session].view;
        self.deliver(session, move |world| {
            let standing = &mut world.sessions[session];
            standing.known = standing.known.max(view);
            if let Some(reply) = standing.pending.remove(&ticket) {
                drop(reply.send(answer));
            }
        });
    }

    /// Something on its way to a client, in its order, if the connection lasts.
    fn deliver(&mut self, session: usize, step: impl FnOnce(&mut World) + Send + 'static) {
        let delay = self.delay();
        let standing = &mut self.sessions[session];
        let connection = standing.connection;
        let at = standing.last_answer.max(Instant::now() + delay);
        standing.last_answer = at;
        self.schedule(at, move |world| {
            if world.sessions[session].connection == connection {
                step(world);
            }
        });
    }

    fn perform(&mut self, session: usize, request: Request) -> Result<Answer, MultiWriteError> {
        let view = self.sessions[session].view;
        match request {
            Request::Read(paths) => {
                let read = |path: &String| {
                    let (data, stat) = self.nodes.at(path, view).ok_or(Error::NoNode)?;
                    Ok((data.to_vec(), stat))
                };
                Ok(Answer::Nodes(paths.iter().map(read).collect()))
            }
            Request::Children(path) => match path == "/" || self.nodes.at(&path, view).is_some() {
                true => Ok(Answer::Names(self.nodes.children(&path, view))),
                false => Err(Error::NoNode.into()),
            },
            Request::Sync => {
                self.catch_up(session, self.nodes.zxid);
                Ok(Answer::Nothing)
            }
            Request::Watch(path) => {
                let standing = &mut self.sessions[session];
                let events = Arc::default();
                standing.watched.insert(path.clone());
                let watch = Watch { path, events };
                standing.watches.push(watch.clone());
                Ok(Answer::Watch(watch))
            }
            Request::Change(changes) => {
                let owner = session as i64 + 1;
                let stats = self.change(owner, &changes)?;
                self.catch_up(session, self.nodes.zxid);
                Ok(Answer::Stats(stats))
            }
        }
    }

    /// A server hears of what was changed up to a zxid: its session's watches fire.
    fn catch_up(&mut self, session: usize, to: i64) {
        let standing = &mut self.sessions[session];
        let from = standing.view;
        if to <= from {
            return;
        }
        standing.view = to;
        let changed = |below: &String| self.nodes.changed(below, from, to);
        let mut all: Vec<_> = standing.watched.iter().flat_map(changed).collect();
        all.sort();
        for (zxid, path) in all {
            let is_there = |zxid| self.nodes.at(&path, zxid).is_some();
            let event = match (is_there(zxid - 1), is_there(zxid)) {
                (_, false) => Event::Gone(path),
                (false, true) => Event::Made(path),
                (true, true) => Event::Changed(path),
            };
            self.deliver(session, move |world| {
                let standing = &mut world.sessions[session];
                standing.known = standing.known.max(zxid);
                standing.tell(&event);
            });
        }
    }

    /// All of it, or nothing.
    fn change(
        &mut self,
        owner: i64,
        changes: &[Change],
    ) -> Result<Vec<Option<Stat>>, MultiWriteError> {
        let elapsed = i64::try_from(self.began.elapsed().as_millis()).unwrap();
        let mtime = ((EPOCH + self.ahead) * 1_000) as i64 + elapsed;
        let (made, stats) = self.nodes.plan(owner, mtime, changes)?;
        if made.is_empty() {
            return Ok(stats);
        }
        // Whoever judges sees what was before.
        if let Some(judge) = &mut self.judge {
            judge(&self.nodes, changes);
        }
        let paths: Vec<&String> = made.keys().collect();
        tracing::debug!(zxid = self.nodes.zxid + 1, owner, ?paths, "changed");
        self.nodes.make(made);
        let zxid = self.nodes.zxid;
        self.note(zxid.cast_unsigned());
        for session in 0..self.sessions.len() {
            if !self.sessions[session].is_connected {
                continue;
            }
            let lag = match self.below(12) {
                0 => 900,
                1 | 2 => 60,
                _ => 4,
            };
            self.go_on(session, lag);
        }
        Ok(stats)
    }

    /// A connection breaks, and is there again after a while.
    pub(super) fn break_connection(&mut self, session: usize) {
        let standing = &mut self.sessions[session];
        if !standing.is_connected {
            return;
        }
        standing.is_connected = false;
        standing.connection += 1;
        standing.watched.clear();
        standing.give_up(&Error::ConnectionLoss);
        standing.tell(&Event::Broken);
        let (connection, now) = (standing.connection, Instant::now());
        self.note(session as u64);
        let pause = Duration::from_millis(self.below(2_500) as u64 + 5);
        self.schedule(now + pause, move |world| world.reconnect(session));
        // The servers have heard of it a while ago, or count slowly.
        let patience = Duration::from_millis(self.below(9_000) as u64 + 1_500);
        self.schedule(now + patience, move |world| {
            if world.sessions[session].connection == connection {
                world.expire(session);
            }
        });
    }

    fn reconnect(&mut self, session: usize) {
        let standing = &self.sessions[session];
        if standing.is_connected || standing.has_ended || standing.is_left {
            return;
        }
        let until = self.cut_off.get(&standing.broker).copied();
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            return self.schedule(until, move |world| world.reconnect(session));
        }
        if standing.is_expired {
            return self.end(session);
        }
        let (known, newest) = (standing.known, self.nodes.zxid);
        let view = known + self.below(usize::try_from(newest - known).unwrap() + 1) as i64;
        let now = Instant::now();
        let standing = &mut self.sessions[session];
        standing.connection += 1;
        standing.is_connected = true;
        standing.view = view;
        (standing.last_arrival, standing.last_answer) = (now, now);
        standing.tell(&Event::Connected);
        self.go_on(session, 800);
    }

    /// A server hears, in a while, of what it has missed.
    fn go_on(&mut self, session: usize, lag: usize) {
        let (connection, newest) = (self.sessions[session].connection, self.nodes.zxid);
        let lag = Duration::from_millis(self.below(lag) as u64);
        self.schedule(Instant::now() + lag, move |world| {
            if world.sessions[session].connection == connection {
                world.catch_up(session, newest);
            }
        });
    }

    /// The servers end a session.
    pub(super) fn expire(&mut self, session: usize) {
        if std::mem::replace(&mut self.sessions[session].is_expired, true) {
            return;
        }
        let owner = session as i64 + 1;
        let mut gone = self.nodes.children("/members", self.nodes.zxid);
        gone.retain(|name| {
            let node = self.nodes.newest(&format!("/members/{name}"));
            node.is_some_and(|(_, stat)| stat.ephemeral_owner == owner)
        });
        for name in gone {
            drop(self.change(owner, &[Change::Delete(format!("/members/{name}"))]));
        }
        // A client that is connected hears of it.
        if self.sessions[session].is_connected {
            self.deliver(session, move |world| world.end(session));
        }
    }

    /// A client learns that its session has ended.
    fn end(&mut self, session: usize) {
        let standing = &mut self.sessions[session];
        standing.connection += 1;
        (standing.is_connected, standing.has_ended) = (false, true);
        standing.give_up(&Error::SessionExpired);
        standing.tell(&Event::Ended);
    }

    /// A client closes its session, in its order.
    pub(super) fn close(&mut self, session: usize) {
        let standing = &mut self.sessions[session];
        let (is_left, connection) = (standing.is_left, standing.connection);
        standing.is_left = true;
        if is_left || !standing.is_connected {
            return;
        }
        let delay = self.delay();
        let at = (Instant::now() + delay).max(self.sessions[session].last_arrival);
        self.schedule(at, move |world| {
            if world.sessions[session].connection == connection {
                world.expire(session);
                world.sessions[session].has_ended = true;
            }
        });
    }

    /// A broker is gone, and says nothing any more.
    pub(super) fn crash(&mut self, broker: usize) {
        for session in 0..self.sessions.len() {
            if self.sessions[session].broker == broker {
                self.sessions[session].is_left = true;
                self.break_connection(session);
            }
        }
    }

    /// A broker reaches no server for a while.
    pub(super) fn cut_off(&mut self, broker: usize, pause: Duration) {
        self.cut_off.insert(broker, Instant::now() + pause);
        for session in self.live(broker) {
            self.break_connection(session);
        }
    }

    pub(super) fn be_slow(&mut self, pause: Duration) {
        self.slow = Instant::now() + pause;
    }
    /// Everything is as it should be from now on.
    pub(super) fn heal(&mut self) {
        self.slow = Instant::now();
        self.cut_off.clear();
    }

    /// The sessions that a broker is connected with.
    pub(super) fn live(&self, broker: usize) -> Vec<usize> {
        let all = self.sessions.iter().enumerate();
        let live = all.filter(|(_, one)| one.broker == broker && one.is_connected);
        live.map(|(session, _)| session).collect()
    }

    pub(super) fn connect(&mut self, broker: usize) -> Option<usize> {
        let until = self.cut_off.get(&broker).copied();
        if until.is_some_and(|until| until > Instant::now()) {
            return None;
        }
        // This server, too, may lag.
        let lag = self.below(6) as i64;
        let (now, view) = (Instant::now(), (self.nodes.zxid - lag).max(1));
        self.sessions.push(Standing {
            broker,
            is_connected: true,
            has_ended: false,
            is_expired: false,
            is_left: false,
            connection: 1,
            cut: 0,
            view,
            known: view,
            last_arrival: now,
            last_answer: now,
            pending: BTreeMap::new(),
            watches: Vec::new(),
            watched: BTreeSet::new(),
        });
        let session = self.sessions.len() - 1;
        self.go_on(session, 800);
        Some(session)
    }
}
