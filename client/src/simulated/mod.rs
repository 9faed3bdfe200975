//! What a simulation of devices and brokers in one thread hands in: time, chance, and a network.
//!
//! All of it is this thread's own, and nothing of it is there until [`begin`]. Each machine is a
//! node: what [`within`] polls for it sees its clocks, and connects as it.

mod file;
mod network;

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tidings_protocol::{
    Timestamp,
    simulated::{self, Fault},
    view::Now,
};
use tokio::time::Instant;

pub use file::File;
use network::Network;
pub(crate) use network::connect;
pub use network::{
    Listener, Socket, break_all, break_connections, crash, cut, heal, listen, slow_down,
};

/// A number below another one.
type Chance = Box<dyn FnMut(usize) -> usize>;

/// The clocks of one machine.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// How far the date is off, in seconds.
    pub ahead: i64,
    /// By how many millionths its clocks go too fast.
    pub drift: i64,
    /// Which life of the machine this is.
    pub boot: u64,
    /// When that began, in simulated time.
    pub booted: Duration,
}

struct World {
    began: Instant,
    /// The date at the beginning.
    date: u64,
    chance: Chance,
    clocks: Vec<Clocks>,
    network: Network,
    /// Of whom something is broken, and what.
    broken: Option<(Range<usize>, Fault)>,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    static NODE: Cell<usize> = const { Cell::new(0) };
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Begins a simulation of so many machines in this thread, within its runtime.
pub fn begin(nodes: usize, date: u64, chance: impl FnMut(usize) -> usize + 'static) {
    let clocks = Clocks {
        ahead: 0,
        drift: 0,
        boot: 1,
        booted: Duration::ZERO,
    };
    let world = World {
        began: Instant::now(),
        date,
        chance: Box::new(chance),
        clocks: vec![clocks; nodes],
        network: Network::default(),
        broken: None,
    };
    PANICKED.set(false);
    simulated::remember(true);
    WORLD.set(Some(world));
}

/// Ends it.
pub fn end() {
    drop(WORLD.take());
    simulated::remember(false);
}

fn world<T>(of: impl FnOnce(&mut World) -> T) -> Option<T> {
    WORLD.with_borrow_mut(|world| world.as_mut().map(of))
}

/// How long it has gone.
pub fn elapsed() -> Option<Duration> {
    world(|world| world.began.elapsed())
}

/// Sets the clocks of a node.
pub fn set_clocks(node: usize, change: impl FnOnce(&mut Clocks)) {
    world(|world| change(&mut world.clocks[node]));
}

/// What the clocks of the node show that runs now.
pub fn now() -> Option<Now> {
    let node = NODE.get();
    world(|world| {
        let (elapsed, clocks) = (world.began.elapsed(), world.clocks[node]);
        let gone = |time: Duration| {
            let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
            (millis + millis * clocks.drift / 1_000_000) / 1_000
        };
        let date = (world.date.cast_signed() + gone(elapsed) + clocks.ahead).max(0);
        Now {
            clock: Some(Timestamp::from_seconds(date.cast_unsigned())),
            monotonic: gone(elapsed.saturating_sub(clocks.booted)).cast_unsigned(),
            boot: clocks.boot,
        }
    })
}

/// Chance that is handed in, if it is.
pub(crate) fn draw() -> Option<u64> {
    world(|world| (world.chance)(usize::MAX) as u64)
}

/// Has some nodes do something wrong.
pub fn put_in(nodes: Range<usize>, fault: Fault) {
    world(|world| world.broken = Some((nodes, fault)));
}

/// Does something as a node.
pub fn as_node<T>(node: usize, what: impl FnOnce() -> T) -> T {
    let broken = world(|world| world.broken.clone()).flatten();
    let fault = broken.filter(|(nodes, _)| nodes.contains(&node));
    let _before = Before {
        fault: simulated::set(fault.map(|(_, fault)| fault)),
        node: NODE.replace(node),
    };
    what()
}

/// Who ran before, and what was broken of it.
struct Before {
    node: usize,
    fault: Option<Fault>,
}

impl Drop for Before {
    fn drop(&mut self) {
        NODE.set(self.node);
        simulated::set(self.fault);
        if std::thread::panicking() {
            PANICKED.set(true);
        }
    }
}

/// Whether anything that a node does has panicked.
pub fn has_panicked() -> bool {
    PANICKED.get()
}

/// What a node does.
pub struct Within<F> {
    node: usize,
    future: Pin<Box<F>>,
}

/// Runs something as a node.
pub fn within<F: Future>(node: usize, future: F) -> Within<F> {
    Within {
        node,
        future: Box::pin(future),
    }
}

/// Runs something as the node that runs now.
pub fn here<F: Future>(future: F) -> Within<F> {
    within(NODE.get(), future)
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        as_node(self.node, || self.future.as_mut().poll(context))
    }
}
