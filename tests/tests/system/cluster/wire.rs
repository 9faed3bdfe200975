//! What lies between a member and a server: requests and answers pass, are held, or are cut off.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::sync::CancellationToken;

use crate::cluster::stage::*;

/// The code of a multi-operation.
const MULTI: i32 = 14;

/// Only what settles statements makes nodes there.
const SETTLED: &[u8] = b"/settled/";

pub(crate) const PASS: u8 = 0;
/// What the servers say by other connections than the one that settles is held.
pub(crate) const HOLD_EVENTS: u8 = 1;
/// Multi-operations pass, and their answers are held.
pub(crate) const HOLD_ANSWERS: u8 = 2;
/// Multi-operations are held.
pub(crate) const HOLD_MULTIS: u8 = 3;

/// One connection.
struct Line {
    settles: AtomicBool,
    cut: CancellationToken,
}

#[derive(Default)]
pub(crate) struct State {
    mode: AtomicU8,
    /// How long a multi-operation takes, in milliseconds.
    pub(crate) slow: AtomicU64,
    pub(crate) refuses: AtomicBool,
    /// Multi-operations that were held, or whose answers are.
    held: AtomicU64,
    lines: Mutex<Vec<Arc<Line>>>,
}

#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
}

impl Wire {
    pub(crate) async fn new(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, state) = (listener.local_addr()?, Arc::new(State::default()));
        let all = state.clone();
        tokio::spawn(async move {
            while let Ok((member, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else {
                    continue;
                };
                if !all.refuses.load(SeqCst) {
                    connect(member, server, &all);
                }
            }
        });
        Ok(Self { address, state })
    }

    /// The place of a cluster whose members reach the servers by this wire.
    pub(crate) fn site(&self, ensemble: &Ensemble) -> Site {
        Site {
            servers: format!("\"{}\"", self.address),
            ..Site::new(ensemble, realm())
        }
    }

    pub(crate) fn set(&self, mode: u8) {
        self.state.held.store(0, SeqCst);
        self.state.mode.store(mode, SeqCst);
    }

    pub(crate) async fn until_held(&self) {
        until("a multi-operation is held", async || {
            self.state.held.load(SeqCst) > 0
        })
        .await;
    }

    /// Cuts the connection that settles.
    pub(crate) fn cut(&self) {
        for line in self.state.lines.lock().unwrap().iter() {
            if line.settles.load(SeqCst) {
                line.cut.cancel();
            }
        }
        self.set(PASS);
    }
}

fn connect(member: TcpStream, server: TcpStream, state: &Arc<State>) {
    let line = Arc::new(Line {
        settles: AtomicBool::new(false),
        cut: CancellationToken::new(),
    });
    state.lines.lock().unwrap().push(line.clone());
    let (from_member, to_member) = member.into_split();
    let (from_server, to_server) = server.into_split();
    let (state, own) = (state.clone(), state.clone());
    let other = line.clone();
    tokio::spawn(async move {
        // The end of one direction is the end of both.
        tokio::select! {
            _ = requests(from_member, to_server, &state, &line) => {}
            _ = answers(from_server, to_member, &own, &other) => {}
            () = line.cut.cancelled() => {}
        }
    });
}

async fn frame(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let mut frame = vec![0; 4 + u32::from_be_bytes(length) as usize];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    line: &Line,
) -> std::io::Result<()> {
    let mut connected = false;
    loop {
        let frame = frame(&mut from).await?;
        let code = frame.get(8..12).filter(|_| connected);
        connected = true;
        let settles = || frame.windows(SETTLED.len()).any(|path| path == SETTLED);
        if code == Some(&MULTI.to_be_bytes()) && settles() {
            line.settles.store(true, SeqCst);
            sleep(Duration::from_millis(state.slow.load(SeqCst))).await;
            while state.mode.load(SeqCst) == HOLD_MULTIS {
                state.held.store(1, SeqCst);
                sleep(Duration::from_millis(2)).await;
            }
            if line.cut.is_cancelled() {
                return Ok(());
            }
            if state.mode.load(SeqCst) == HOLD_ANSWERS {
                state.held.store(1, SeqCst);
            }
        }
        to.write_all(&frame).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    line: &Line,
) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        let held = || match state.mode.load(SeqCst) {
            HOLD_EVENTS => !line.settles.load(SeqCst),
            HOLD_ANSWERS => line.settles.load(SeqCst) && state.held.load(SeqCst) > 0,
            _ => false,
        };
        while held() {
            sleep(Duration::from_millis(2)).await;
        }
        to.write_all(&frame).await?;
    }
}
