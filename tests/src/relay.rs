//! A hostile relay: it reads commands and answers as such, and does with each answer what a test
//! tells it to.
//!
//! It can delay, drop, replay, reorder, substitute, truncate, drip, and show different brokers to
//! different devices. What it substitutes is as well-formed as the real thing: [`forge`] mends
//! numbers, ids and headers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidings_client::Statement;
use tidings_protocol::article;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::sleep,
};

/// What becomes of an answer, or of one event of a watch.
pub enum Act {
    /// This is sent, which may be nothing.
    Send(Vec<u8>),
    /// This is sent after a while.
    Late(Vec<u8>, Duration),
    /// This is sent octet by octet with a pause before each.
    Drip(Vec<u8>, Duration),
    /// This is sent, and the connection closed.
    Last(Vec<u8>),
}

/// Gets a command (`XWATCH` for events) and what the broker answers.
pub type Mischief = dyn Fn(&str, Vec<u8>) -> Act + Send + Sync;

/// Passes everything on.
pub fn honest(_: &str, answer: Vec<u8>) -> Act {
    Act::Send(answer)
}

/// Starts a relay; it ends with the runtime. The first connection goes to the first broker, and so
/// on, round and round.
///
/// # Errors
/// If there is no port.
pub async fn start(
    brokers: &[SocketAddr],
    mischief: impl Fn(&str, Vec<u8>) -> Act + Send + Sync + 'static,
) -> anyhow::Result<SocketAddr> {
    start_at(([127, 0, 0, 1], 0).into(), brokers, mischief).await
}

/// The same at an address.
///
/// # Errors
/// If there is no such address, or no port.
pub async fn start_at(
    at: SocketAddr,
    brokers: &[SocketAddr],
    mischief: impl Fn(&str, Vec<u8>) -> Act + Send + Sync + 'static,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(at).await?;
    let address = listener.local_addr()?;
    let (mischief, brokers): (Arc<Mischief>, _) = (Arc::new(mischief), brokers.to_vec());
    let count = AtomicUsize::new(0);
    tokio::spawn(async move {
        while let Ok((device, _)) = listener.accept().await {
            let to = brokers[count.fetch_add(1, Ordering::Relaxed) % brokers.len()];
            // A connection that breaks is for the device to notice.
            tokio::spawn(serve(device, to, mischief.clone()));
        }
    });
    Ok(address)
}

struct Broker {
    lines: BufReader<OwnedReadHalf>,
    out: OwnedWriteHalf,
}

impl Broker {
    /// A status line and, if it is of the sort that has one, the block behind it.
    async fn answer(&mut self) -> std::io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        self.lines.read_until(b'\n', &mut answer).await?;
        let code = answer.get(..3).unwrap_or_default();
        if [
            &b"100"[..],
            b"101",
            b"215",
            b"220",
            b"221",
            b"222",
            b"224",
            b"225",
            b"230",
            b"231",
        ]
        .contains(&code)
        {
            while !answer.ends_with(b"\r\n.\r\n")
                && self.lines.read_until(b'\n', &mut answer).await? > 0
            {}
        }
        Ok(answer)
    }

    /// One event of a watch, a heartbeat, or the dot.
    async fn event(&mut self) -> std::io::Result<Vec<u8>> {
        let mut event = Vec::new();
        self.lines.read_until(b'\n', &mut event).await?;
        let count: usize = String::from_utf8_lossy(&event)
            .split_whitespace()
            .nth(2)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        for _ in 0..count {
            self.lines.read_until(b'\n', &mut event).await?;
        }
        Ok(event)
    }
}

async fn act(device: &mut OwnedWriteHalf, act: Act) -> std::io::Result<bool> {
    match act {
        Act::Send(octets) => device.write_all(&octets).await.map(|()| true),
        Act::Late(octets, pause) => {
            sleep(pause).await;
            device.write_all(&octets).await.map(|()| true)
        }
        Act::Drip(octets, pause) => {
            for octet in octets {
                sleep(pause).await;
                device.write_all(&[octet]).await?;
            }
            Ok(true)
        }
        Act::Last(octets) => device.write_all(&octets).await.map(|()| false),
    }
}

async fn serve(device: TcpStream, to: SocketAddr, mischief: Arc<Mischief>) -> std::io::Result<()> {
    let (from_broker, out) = TcpStream::connect(to).await?.into_split();
    let mut broker = Broker {
        lines: BufReader::new(from_broker),
        out,
    };
    let (from_device, mut to_device) = device.into_split();
    let mut commands = BufReader::new(from_device);
    let greeting = broker.answer().await?;
    to_device.write_all(&greeting).await?;
    let mut line = String::new();
    while commands.read_line(&mut line).await? > 0 {
        broker.out.write_all(line.as_bytes()).await?;
        let answer = broker.answer().await?;
        let (watching, posting) = (answer.starts_with(b"290"), answer.starts_with(b"340"));
        if !act(&mut to_device, mischief(line.trim_end(), answer)).await? {
            return Ok(());
        }
        if watching {
            // Whatever the device says ends the watch; it has said nothing yet.
            let mut first = [0; 1];
            loop {
                tokio::select! {
                    event = broker.event() => {
                        let event = event?;
                        if event.is_empty() || !act(&mut to_device, mischief("XWATCH", event)).await? {
                            return Ok(());
                        }
                    }
                    read = commands.read(&mut first) => {
                        if read? == 0 {
                            return Ok(());
                        }
                        broker.out.write_all(&first).await?;
                        break;
                    }
                }
            }
        }
        if posting {
            let mut article = Vec::new();
            while !article.ends_with(b"\r\n.\r\n")
                && commands.read_until(b'\n', &mut article).await? > 0
            {}
            broker.out.write_all(&article).await?;
            let answer = broker.answer().await?;
            if !act(&mut to_device, mischief("POST", answer)).await? {
                return Ok(());
            }
        }
        line.clear();
    }
    Ok(())
}

/// The statement in the answer to ARTICLE, or in an event of a watch.
pub fn statement(answer: &[u8]) -> Option<Statement> {
    let text = String::from_utf8(answer.to_vec()).ok()?;
    let body = text.split_once("\r\n\r\n")?.1;
    let body = body
        .strip_suffix(".\r\n")
        .unwrap_or(body)
        .replace("\r\n", "\n");
    Statement::parse(body.as_bytes()).ok()
}

/// The same answer, or event, with another statement in it; the number at its beginning is the
/// other's, or stays.
pub fn forge(answer: &[u8], other: &Statement, number: Option<u32>) -> Vec<u8> {
    let rendered = article::render(other, "relay.invalid!not-for-mail");
    let article = String::from_utf8_lossy(&rendered.octets).into_owned();
    let number = number.unwrap_or(other.serial().number());
    let text = if answer.starts_with(b"220") {
        format!("220 {number} {}\r\n{article}.\r\n", other.message_id())
    } else {
        format!(
            "{number} {} {}\r\n{article}",
            other.message_id(),
            rendered.lines
        )
    };
    text.into_bytes()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A relay that answers ARTICLE in a channel with other statements, by their serials, and makes
/// GROUP fit.
///
/// # Panics
/// If there is no port.
pub async fn substitute(to: SocketAddr, channel: &str, others: &[Statement]) -> SocketAddr {
    let others: HashMap<u32, Statement> = others
        .iter()
        .map(|s| (s.serial().number(), s.clone()))
        .collect();
    let high = others.keys().max().copied().unwrap_or(0);
    let (name, selected) = (channel.to_owned(), Mutex::new(String::new()));
    let mischief = move |command: &str, answer: Vec<u8>| {
        let mut words = command.split(' ');
        let (verb, argument) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default().to_owned(),
        );
        if verb == "GROUP" {
            lock(&selected).clone_from(&argument);
            if argument == name {
                return Act::Send(format!("211 {high} 1 {high} {name}\r\n").into_bytes());
            }
        }
        let here = *lock(&selected) == name;
        match argument
            .parse()
            .ok()
            .and_then(|number: u32| others.get(&number))
        {
            Some(other) if here && verb == "ARTICLE" => Act::Send(forge(b"220", other, None)),
            Some(other) if here && verb == "STAT" => {
                Act::Send(format!("223 {argument} {}\r\n", other.message_id()).into_bytes())
            }
            _ => Act::Send(answer),
        }
    };
    start(&[to], mischief)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}
