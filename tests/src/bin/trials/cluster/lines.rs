//! The lines between the nodes: what one says to another by these ports goes through this process,
//! which has it late, or not at all for a while, or breaks the connection.
//!
//! A node has a second address, at the bridge, where its line begins; its own programs reach each
//! other without it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tidings_tests::cables;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{NODES, address};

/// Where a broker serves the others.
pub(crate) const BROKER: u16 = 1119;
/// Where a ZooKeeper server serves brokers.
pub(crate) const SERVER: u16 = 2181;
/// Where servers serve each other.
pub(crate) const SERVERS: [u16; 2] = [2888, 3888];
/// All of them.
pub(crate) const PORTS: &[u16] = &[BROKER, SERVER, SERVERS[0], SERVERS[1]];
/// Those by which brokers reach others.
pub(crate) const OF_BROKERS: &[u16] = &[BROKER, SERVER];

/// What is under way on one line: so many chunks of so many octets.
const CHUNKS: usize = 256;
const CHUNK_OCTETS: usize = 16 * 1024;

/// One direction between two nodes.
#[derive(Clone, Copy, Default)]
struct Line {
    /// Connections to these ports are slow.
    slow: &'static [u16],
    delay: Duration,
    /// The delay is up to so much longer, and differs from chunk to chunk.
    jitter: Duration,
    /// Nothing is passed on of connections to these ports; nothing is lost either.
    held: &'static [u16],
    /// How often its connections were broken.
    cuts: u32,
}

/// All of them, from whom to whom.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Vec<Vec<watch::Sender<Line>>>>);

/// Where the others reach a node.
pub(crate) fn public(node: usize, port: u16) -> SocketAddr {
    let IpAddr::V4(own) = cables::address(node) else {
        return address(node, port);
    };
    let [a, b, c, d] = own.octets();
    ([a, b, c, d + 100], port).into()
}

impl Lines {
    /// Lays them. They end with the runtime.
    ///
    /// # Errors
    /// If an address cannot be had.
    pub(crate) async fn lay() -> anyhow::Result<Self> {
        let to_all = |_| (0..NODES).map(|_| watch::Sender::default()).collect();
        let lines = Self(Arc::new((0..NODES).map(to_all).collect()));
        for node in 0..NODES {
            let ip = public(node, BROKER).ip();
            cables::run(&format!("ip addr add {ip}/24 dev bridge"))?;
            for port in PORTS {
                let listener = TcpListener::bind((ip, *port)).await?;
                tokio::spawn(lines.clone().serve(listener, node, *port));
            }
        }
        Ok(lines)
    }

    async fn serve(self, listener: TcpListener, to: usize, port: u16) {
        while let Ok((caller, from)) = listener.accept().await {
            let from = (0..NODES).find(|node| cables::address(*node) == from.ip());
            let Some(from) = from else { continue };
            let (there, back) = (self.0[from][to].subscribe(), self.0[to][from].subscribe());
            tokio::spawn(async move {
                let Ok(called) = TcpStream::connect(address(to, port)).await else {
                    return;
                };
                let _ = (caller.set_nodelay(true), called.set_nodelay(true));
                let (from_caller, to_caller) = caller.into_split();
                let (from_called, to_called) = called.into_split();
                // The end of one direction is the end of both.
                tokio::select! {
                    () = pass(from_caller, to_called, there, port) => {}
                    () = pass(from_called, to_caller, back, port) => {}
                }
            });
        }
    }

    fn set(&self, node: usize, into: bool, change: impl Fn(&mut Line)) {
        for other in (0..NODES).filter(|other| *other != node) {
            self.0[other][node].send_modify(&change);
            if !into {
                self.0[node][other].send_modify(&change);
            }
        }
    }

    /// Everything that a node says and hears by these ports is late.
    pub(crate) fn slow(&self, node: usize, ports: &'static [u16], delay: Duration) {
        self.set(node, false, |line| {
            (line.slow, line.delay, line.jitter) = (ports, delay, delay);
        });
    }

    /// A node says and hears nothing by these ports, and no connection breaks.
    pub(crate) fn hold(&self, node: usize, ports: &'static [u16]) {
        self.set(node, false, |line| line.held = ports);
    }

    /// The same, but for what it says itself.
    pub(crate) fn hold_answers(&self, node: usize, ports: &'static [u16]) {
        self.set(node, true, |line| line.held = ports);
    }

    /// Breaks all connections of a node to others.
    pub(crate) fn cut(&self, node: usize) {
        self.set(node, false, |line| line.cuts += 1);
    }

    /// Everything passes at once again.
    pub(crate) fn heal(&self) {
        for line in self.0.iter().flatten() {
            line.send_modify(|line| {
                let cuts = line.cuts;
                *line = Line {
                    cuts,
                    ..Line::default()
                };
            });
        }
    }
}

/// One direction of one connection, until it ends or is broken.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    line: watch::Receiver<Line>,
    port: u16,
) {
    let (chunks, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let (now, mut passes, mut broken) = (line.clone(), line.clone(), line);
    let cuts = broken.borrow().cuts;
    let read = async move {
        for count in 0_u32.. {
            let mut chunk = vec![0; CHUNK_OCTETS];
            let length = from.read(&mut chunk).await.unwrap_or(0);
            if length == 0 {
                break;
            }
            chunk.truncate(length);
            let line = *now.borrow();
            let late = line.delay + line.jitter * (count % 8) / 8;
            let late = late * u32::from(line.slow.contains(&port));
            let due = Instant::now() + late;
            chunks.send((due, chunk)).await?;
        }
        // What was said before the end arrives, too.
        drop(chunks);
        anyhow::Ok(())
    };
    let write = async {
        while let Some((due, chunk)) = under_way.recv().await {
            sleep_until(due).await;
            passes.wait_for(|line| !line.held.contains(&port)).await?;
            to.write_all(&chunk).await?;
        }
        Ok(())
    };
    tokio::select! {
        // An error is one of the connection, and its end.
        _ = async { tokio::try_join!(read, write) } => {}
        _ = broken.wait_for(|line| line.cuts != cuts) => {}
    }
}
