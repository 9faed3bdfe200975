//! What a broker has of the model: the servers, sessions with them, and watches.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{Notify, oneshot},
    time::sleep_until,
};
use zookeeper_client::{Error, MultiWriteError, Stat};

use super::{
    super::{
        session::{Change, Event, Events, Node, Servers, Session},
        tree::TreeError,
    },
    lock,
    zookeeper::{Judge, World},
};

/// What a client asks.
pub(super) enum Request {
    Read(Vec<String>),
    Children(String),
    Change(Vec<Change>),
    Sync,
    Watch(String),
}

/// What it is told.
pub(super) enum Answer {
    Nodes(Vec<Node>),
    Names(Vec<String>),
    Stats(Vec<Option<Stat>>),
    Nothing,
    Watch(Watch),
}

/// The servers; one of these is what one broker knows of them.
#[derive(Clone)]
pub(super) struct Model {
    world: Arc<Mutex<World>>,
    wake: Arc<Notify>,
    broker: usize,
}

#[derive(Clone)]
pub(super) struct Watch {
    pub(super) path: String,
    pub(super) events: Arc<(Mutex<VecDeque<Event>>, Notify)>,
}

impl Events for Watch {
    fn next(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(async {
            loop {
                if let Some(event) = lock(&self.events.0).pop_front() {
                    return event;
                }
                self.events.1.notified().await;
            }
        })
    }
}

impl Model {
    /// Servers with an empty tree; whoever judges sees each change of it.
    pub(super) fn new(seed: u64, ahead: u64, judge: Judge) -> Self {
        Self {
            world: Arc::new(Mutex::new(World::new(seed, ahead, judge))),
            wake: Arc::default(),
            broker: 0,
        }
    }

    /// What a broker knows of them.
    pub(super) fn of(&self, broker: usize) -> Self {
        let mut model = self.clone();
        model.broker = broker;
        model
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.wake.notify_one();
        lock(&self.world)
    }

    /// Does what is due, in its order, for ever.
    pub(super) async fn run(self) {
        loop {
            let next = lock(&self.world).do_due();
            let wake = self.wake.notified();
            match next {
                None => wake.await,
                Some(at) => tokio::select! {
                    biased;
                    () = sleep_until(at) => {}
                    () = wake => {}
                },
            }
        }
    }
}

impl Servers for Model {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Session>, TreeError>> {
        Box::pin(async {
            let delay = self.world().delay();
            tokio::time::sleep(delay).await;
            let session = self.world().connect(self.broker);
            let session = session.ok_or(Error::ConnectionLoss)?;
            Ok(Arc::new(Client {
                model: self.clone(),
                session,
            }) as Arc<dyn Session>)
        })
    }
}

struct Client {
    model: Model,
    session: usize,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.model.world().close(self.session);
    }
}

impl Client {
    fn ask(&self, request: Request) -> BoxFuture<'static, Result<Answer, MultiWriteError>> {
        let (reply, answer) = oneshot::channel();
        self.model.world().ask(self.session, request, reply);
        answer
            .map(|answer| answer.unwrap_or(Err(Error::ClientClosed.into())))
            .boxed()
    }
}

impl Session for Client {
    fn id(&self) -> i64 {
        self.session as i64 + 1
    }

    fn is_connected(&self) -> bool {
        lock(&self.model.world).sessions[self.session].is_connected
    }

    fn has_ended(&self) -> bool {
        lock(&self.model.world).sessions[self.session].has_ended
    }

    fn read(&self, paths: &[String]) -> BoxFuture<'_, Result<Vec<Node>, Error>> {
        let answer = self.ask(Request::Read(paths.to_vec()));
        Box::pin(async move {
            match answer.await? {
                Answer::Nodes(nodes) => Ok(nodes),
                _ => unreachable!("nodes were asked for"),
            }
        })
    }

    fn children(&self, path: &str) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        let answer = self.ask(Request::Children(path.into()));
        Box::pin(async move {
            match answer.await? {
                Answer::Names(names) => Ok(names),
                _ => unreachable!("names were asked for"),
            }
        })
    }

    fn change(
        &self,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Vec<Option<Stat>>, MultiWriteError>> {
        let answer = self.ask(Request::Change(changes));
        Box::pin(async move {
            match answer.await? {
                Answer::Stats(stats) => Ok(stats),
                _ => unreachable!("a change was asked for"),
            }
        })
    }

    fn sync<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        let answer = self.ask(Request::Sync);
        Box::pin(async move { Ok(answer.await.map(drop)?) })
    }

    fn watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Box<dyn Events>, Error>> {
        let answer = self.ask(Request::Watch(path.into()));
        Box::pin(async move {
            match answer.await? {
                Answer::Watch(watch) => Ok(Box::new(watch) as Box<dyn Events>),
                _ => unreachable!("a watch was asked for"),
            }
        })
    }
}
