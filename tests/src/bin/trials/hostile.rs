//! What somebody polite waits for while others are not: trains of commands that cost a broker much
//! (attacks 102 and 103), subscribers that hardly read, and retention in ten thousand channels.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use socket2::{Domain, Socket, Type};
use tidings_client::{Channel, Publisher};
use tidings_tests::bench::{
    Crowd, Endpoint, Peer, Spread,
    nntp::{Poster, article},
};

use super::{
    growth::{fill, start},
    peers::{pin, servers::Broker, signed},
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Connections that send trains of commands
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    attackers: Vec<usize>,
    /// Channels that a command can look at, and that retention looks through
    #[arg(long, default_value_t = 10_000)]
    channels: usize,
    /// Subscribers that hardly read
    #[arg(long, default_value_t = 15_000)]
    slow: usize,
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only be hostile, until killed
    #[arg(long, hide = true)]
    load: Option<String>,
    /// To whom
    #[arg(long, hide = true, requires = "load")]
    to: Option<SocketAddr>,
    /// On how many connections
    #[arg(long, hide = true, requires = "load", default_value_t = 1)]
    many: usize,
}

/// How long each is measured.
const SPAN: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions of somebody polite.
const PAUSE: Duration = Duration::from_millis(2);
/// Octets of the statement that the trains ask for, about as many as one may have.
const LARGE: usize = 62_000;
/// What a slow reader takes in a turn of all, and how many octets its socket has room for.
const SIP: usize = 512;
const ROOM: usize = 4_096;
/// Retention runs each minute.
const SWEPT: Duration = Duration::from_secs(150);
const SLOW: &str = "slow";
const SLOW_CHANNEL: &str = "test.slow";
const KEPT: usize = 5;
const WRITTEN: usize = 20;

/// What may be waited for: five times what is waited for when nothing else happens, and while
/// retention is at work.
const FACTOR: f64 = 5.0;
const SWEEP_MS: f64 = 50.0;

/// A line and its answer, on a connection of its own.
struct Asker {
    socket: BufReader<std::net::TcpStream>,
}

impl Asker {
    fn new(to: SocketAddr) -> anyhow::Result<Self> {
        let socket = std::net::TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut asker = Self {
            socket: BufReader::new(socket),
        };
        asker.line()?;
        Ok(asker)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.socket.read_line(&mut line)? > 0, "the broker is gone");
        Ok(line)
    }

    fn ask(&mut self, octets: &[u8]) -> anyhow::Result<String> {
        self.socket.get_mut().write_all(octets)?;
        self.line()
    }
}

/// Asks for the head again and again, with pauses, for as long as is said.
fn polite(to: SocketAddr, channel: &Channel, span: Duration) -> anyhow::Result<Spread> {
    let (mut asker, began) = (Asker::new(to)?, Instant::now());
    let mut delays = Vec::new();
    while began.elapsed() < span {
        let asked = Instant::now();
        let answer = asker.ask(format!("GROUP {channel}\r\n").as_bytes())?;
        ensure!(answer.starts_with("211 "), "{answer}");
        delays.push(asked.elapsed());
        thread::sleep(PAUSE);
    }
    Ok(Spread::of_milliseconds(delays))
}

/// Says the same again and again, with the answers to two trains due at any time. What ends a train
/// is answered with 111.
struct Train {
    train: Vec<u8>,
    line: Vec<u8>,
    ready: bool,
}

impl Peer for Train {
    fn begin(&mut self, _: &mut Vec<u8>) {}

    fn take(&mut self, octets: &[u8], say: &mut Vec<u8>) -> Result<usize, String> {
        let mut count = 0;
        for octet in octets {
            // Only the beginning of a line matters.
            if *octet != b'\n' {
                if self.line.len() < 4 {
                    self.line.push(*octet);
                }
                continue;
            }
            if !self.ready {
                self.ready = true;
                say.extend_from_slice(&self.train);
                say.extend_from_slice(&self.train);
            } else if self.line == b"111 " {
                count += 1;
                say.extend_from_slice(&self.train);
            } else if matches!(&self.line[..], b"400 " | b"500 " | b"501 " | b"490 ") {
                return Err(String::from_utf8_lossy(&self.line).into_owned());
            }
            self.line.clear();
        }
        Ok(count)
    }

    fn is_ready(&self) -> bool {
        self.ready
    }
}

/// The trains: each about 24 KB, as was shown, or what XWATCH takes.
fn trains(channels: usize) -> Vec<(&'static str, Vec<u8>)> {
    let ended = |mut train: Vec<u8>| {
        train.extend_from_slice(b"DATE\r\n");
        train
    };
    // RFC 3977 section 3.1: at most 512 octets; and none that is refused.
    let patterns = |count: usize| vec!["*t*c*n*e*l*s*n*1*z"; count].join(",");
    let list = format!("LIST ACTIVE {}\r\n", patterns(16)).repeat(80);
    let mut stat = b"GROUP test.large\r\n".to_vec();
    stat.extend_from_slice(b"STAT 1\r\n".repeat(3_000).as_slice());
    let number = |n: usize| format!(" test.channels.n{}:0", (n * 157) % channels);
    let targets = |one: &dyn Fn(usize) -> String| {
        let mut line = "XWATCH".to_owned();
        (0..64)
            .map(one)
            .take_while(|target| {
                let fits = line.len() + target.len() < 4_000;
                if fits {
                    line.push_str(target);
                }
                fits
            })
            .for_each(drop);
        line + "\r\n"
    };
    let wild = |_: usize| format!(" {}", patterns(3));
    vec![
        ("LIST ACTIVE, 16 patterns", ended(list.into_bytes())),
        ("STAT of a statement of 62 kB", ended(stat)),
        (
            "XWATCH of 64 wildmats",
            ended(targets(&wild).repeat(6).into_bytes()),
        ),
        (
            "XWATCH of 64 channels",
            ended(targets(&number).repeat(6).into_bytes()),
        ),
    ]
}

/// A process that is hostile as long as this lives. It has whatever time of its processor nobody
/// else wants, so that it takes the broker's and not that of who asks politely.
struct Load(Child);

impl Load {
    fn start(what: &str, to: SocketAddr, many: usize, channels: usize) -> anyhow::Result<Self> {
        let mut child = Command::new("chrt")
            .args(["--idle", "0"])
            .arg(std::env::current_exe()?)
            .args(["hostile", "--load", what, "--to", &to.to_string()])
            .args(["--many", &many.to_string()])
            .args(["--channels", &channels.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("chrt cannot be started (Debian: util-linux)")?;
        let output = child.stdout.take().context("no output")?;
        let load = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "ready\n", "the load does not begin: {line}");
        Ok(load)
    }

    /// It has to be at it still.
    fn end(mut self) -> anyhow::Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "the load has ended early");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Nothing is lost with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the other process does.
fn load(what: &str, to: SocketAddr, many: usize, channels: usize) -> anyhow::Result<()> {
    if what == SLOW {
        let sockets = sippers(to, many, &SLOW_CHANNEL.parse()?)?;
        println!("ready");
        return sip(&sockets);
    }
    let (_, train) = trains(channels)
        .into_iter()
        .find(|(name, _)| *name == what)
        .context("no such load")?;
    let endpoint = Endpoint {
        address: to,
        tls: None,
    };
    let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
    let one = || Train {
        train: train.clone(),
        line: Vec::new(),
        ready: false,
    };
    crowd.join(
        &endpoint,
        (0..many).map(|_| one()),
        PATIENCE,
        &mut done,
        || (),
    )?;
    println!("ready");
    loop {
        crowd.turn(PATIENCE, &mut done)?;
        done.clear();
    }
}

/// The poller, and how much of its core the broker used meanwhile.
fn measured(broker: &Broker, channel: &Channel) -> anyhow::Result<(Spread, f64)> {
    let (began, before) = (Instant::now(), broker.process().cpu()?);
    let spread = polite(broker.clear.address, channel, SPAN)?;
    let busy = (broker.process().cpu()? - before).as_secs_f64() / began.elapsed().as_secs_f64();
    Ok((spread, busy))
}

/// Many that watch and take a sip in each turn.
fn sippers(to: SocketAddr, count: usize, channel: &Channel) -> anyhow::Result<Vec<Socket>> {
    let watch = format!("XWATCH {channel}:1\r\n");
    (0..count)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_recv_buffer_size(ROOM)?;
            socket.connect(&to.into())?;
            (&socket).write_all(watch.as_bytes())?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect()
}

fn sip(sockets: &[Socket]) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Read};
    let mut sip = [0; SIP];
    loop {
        for mut socket in sockets {
            match socket.read(&mut sip) {
                Ok(0) => anyhow::bail!("a slow reader was cut off"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// How many times the quiet value somebody waits, in each round.
type Ratios = BTreeMap<String, Vec<f64>>;

fn row(
    ratios: &mut Ratios,
    what: String,
    round: u32,
    quiet: &Spread,
    (loud, busy): &(Spread, f64),
) {
    let ratio = loud.at(0.99) / quiet.at(0.99);
    println!(
        "| {what} | {round} | {:.2} | {:.2} | {ratio:.1} | {:.2} | {:.0} % |",
        quiet.at(0.99),
        loud.at(0.99),
        loud.most(),
        100.0 * busy,
    );
    ratios.entry(what).or_default().push(ratio);
}

async fn slow_readers(count: usize, round: u32, ratios: &mut Ratios) -> anyhow::Result<()> {
    let broker = start().await?;
    let (channel, to): (Channel, _) = (SLOW_CHANNEL.parse()?, broker.clear.address);
    let all = signed(&broker.fixture, &channel, 2_000, 1_024)?;
    let mut publisher = Publisher::connect(broker.fixture.source()?).await?;
    publisher.publish(&all[0]).await?;
    let quiet = polite(to, &channel, SPAN)?;
    let load = Load::start(SLOW, to, count, 0)?;
    let over = AtomicBool::new(false);
    let loud = thread::scope(|scope| {
        // Each is told to all of them, until what they have room for is full, and then too.
        let publishing = scope.spawn(|| {
            let mut asker = Asker::new(to)?;
            for statement in &all[1..] {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                asker.ask(Poster::NEXT)?;
                let answer = asker.ask(&article(statement).1)?;
                ensure!(answer.starts_with("240"), "{answer}");
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        // By then those that read slowly have no room left.
        thread::sleep(Duration::from_secs(2));
        let measured = measured(&broker, &channel);
        over.store(true, Ordering::Relaxed);
        publishing
            .join()
            .map_err(|_| anyhow::anyhow!("a panic"))??;
        measured
    })?;
    load.end()?;
    let what = format!("{count} slow readers");
    row(ratios, what, round, &quiet, &loud);
    Ok(())
}

/// How long POST takes while retention goes through all channels.
fn swept(broker: Broker, channels: usize, round: u32) -> anyhow::Result<f64> {
    let config = broker.fixture.config();
    let kept = format!(
        "{}\n[[retention]]\nchannels = \"test.channels.*\"\ncount = {KEPT}\n",
        std::fs::read_to_string(&config)?
    );
    std::fs::write(config, kept)?;
    let broker = broker.restart()?;
    let to = broker.clear.address;
    let all = signed(
        &broker.fixture,
        &format!("test.posted{round}").parse()?,
        30_000,
        512,
    )?;
    let (mut asker, mut looker) = (Asker::new(to)?, Asker::new(to)?);
    let (mut delays, began, mut done) = (Vec::new(), Instant::now(), None::<Instant>);
    let mut number = 0;
    for statement in &all {
        let sent = Instant::now();
        asker.ask(Poster::NEXT)?;
        let answer = asker.ask(&article(statement).1)?;
        ensure!(answer.starts_with("240"), "{answer}");
        delays.push(sent.elapsed());
        thread::sleep(PAUSE);
        // All are looked at until one has not been swept.
        while number < channels {
            let group = looker.ask(format!("GROUP test.channels.n{number}\r\n").as_bytes())?;
            let low: usize = group
                .split(' ')
                .nth(2)
                .context("no low mark")?
                .parse()
                .context("no low mark")?;
            if low <= WRITTEN - KEPT {
                break;
            }
            number += 1;
        }
        if number == channels && done.is_none() {
            done = Some(Instant::now());
        }
        // Some come after it, so that what it has left behind is seen as well.
        if done.is_some_and(|done| done.elapsed() > Duration::from_secs(2)) {
            break;
        }
        ensure!(began.elapsed() < SWEPT, "nothing was swept");
    }
    ensure!(done.is_some(), "too few statements were made beforehand");
    let delays = Spread::of_milliseconds(delays);
    println!(
        "retention of {channels} channels, round {round}: of {} POSTs p99 {:.2} ms, the longest {:.2} ms",
        delays.count(),
        delays.at(0.99),
        delays.most()
    );
    Ok(delays.most())
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        attackers,
        channels,
        slow,
        rounds,
        load: what,
        to,
        many,
    } = arguments;
    rlimit::increase_nofile_limit(slow as u64 + 256)?;
    pin(true, 2)?;
    if let Some((what, to)) = what.zip(to) {
        return load(&what, to, many, channels);
    }
    println!(
        "| what | round | p99 ms when it is quiet | p99 ms meanwhile | ratio | the longest, ms | the broker's core |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let (mut ratios, mut longest) = (Ratios::new(), 0.0_f64);
    for round in 1..=rounds {
        slow_readers(slow, round, &mut ratios).await?;
        let broker = start().await?;
        let large: Channel = "test.large".parse()?;
        Publisher::connect(broker.fixture.source()?)
            .await?
            .publish(&signed(&broker.fixture, &large, 1, LARGE)?[0])
            .await?;
        fill(
            broker.process(),
            &broker.clear,
            &broker.fixture,
            "channels",
            channels,
            channels * WRITTEN,
        )?;
        for (what, _) in trains(channels) {
            for attackers in &attackers {
                let to = broker.clear.address;
                let quiet = polite(to, &large, SPAN)?;
                let load = Load::start(what, to, *attackers, channels)?;
                let loud = measured(&broker, &large)?;
                load.end()?;
                let what = format!("{what}, {attackers} at once");
                row(&mut ratios, what, round, &quiet, &loud);
            }
        }
        longest = longest.max(swept(broker, channels, round)?);
    }
    for (what, mut ratios) in ratios {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        ensure!(
            median <= FACTOR,
            "{what}: {median:.1} times the quiet value, {FACTOR} may be"
        );
    }
    ensure!(
        longest <= SWEEP_MS,
        "a POST took {longest:.1} ms, {SWEEP_MS} may be"
    );
    Ok(())
}
