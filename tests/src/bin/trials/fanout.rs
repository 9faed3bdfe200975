//! Many subscribers on one broker: everything in order, what it costs, and a subscriber that stops reading.
//!
//! The same generator measures a reference that does nothing but one `write` for each subscriber and message, so that
//! the ratio says what the broker adds to the kernel's own work.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use mio::{Events, Interest, Poll, Token, net::TcpStream as MioStream};
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tidings_client::{Channel, Publisher, Source};
use tidings_tests::{binary, cpu_seconds, release};

#[derive(Args)]
pub(crate) struct Options {
    /// Subscribers
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
    /// Messages; each is published when everybody has the one before
    #[arg(long, default_value_t = 20)]
    messages: usize,
    /// Octets of each statement, about
    #[arg(long, default_value_t = 1024)]
    octets: usize,
    /// Over TLS
    #[arg(long)]
    tls: bool,
    /// Measure the reference instead of the broker
    #[arg(long)]
    raw: bool,
    /// One subscriber more stops reading for so many seconds while messages are published at full speed
    #[arg(long, value_name = "SECONDS")]
    stall: Option<u64>,
    #[command(subcommand)]
    role: Option<RoleCommand>,
}

#[derive(Subcommand)]
enum RoleCommand {
    /// The reference: accepts so many subscribers and one publisher, and passes on what that sends
    #[command(hide = true)]
    RawServer { subscribers: usize, size: usize },
}

/// What an idle subscriber may cost the broker in clear text, and under TLS.
const IDLE_OCTETS: f64 = 1024.0;
const IDLE_OCTETS_TLS: f64 = 10_240.0;

/// Reads framed messages from a stream of octets without keeping more than it must.
#[derive(Default)]
struct Frames {
    buffer: VecDeque<u8>,
    /// Lines of the article that are still to come.
    skip: usize,
    last: u32,
    greeted: bool,
}

impl Frames {
    /// Takes octets in; calls back for each event that is complete.
    fn take(&mut self, octets: &[u8], mut complete: impl FnMut(u32)) -> anyhow::Result<()> {
        for line in octets.split_inclusive(|&o| o == b'\n') {
            if self.skip > 0 && self.buffer.is_empty() && line.ends_with(b"\n") {
                self.skip -= 1;
            } else {
                self.buffer.extend(line);
                if !line.ends_with(b"\n") {
                    break;
                }
                let whole: Vec<u8> = self.buffer.drain(..).collect();
                self.line(&whole)?;
            }
            if self.skip == 0 && self.last > 0 && self.greeted {
                complete(self.last);
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(());
        }
        let text = std::str::from_utf8(line)?.trim_end();
        if !self.greeted {
            self.greeted = text.starts_with("290 ");
            ensure!(self.greeted || text.starts_with("200 "), "unexpected answer {text:?}");
            return Ok(());
        }
        if text == "0" {
            return Ok(());
        }
        let mut words = text.split(' ');
        let serial: u32 = words.next().context("no serial")?.parse().with_context(|| format!("unexpected line {text:?}"))?;
        ensure!(self.last == 0 || serial == self.last + 1, "after {} came {serial}", self.last);
        self.last = serial;
        self.skip = words.nth(1).context("no count of lines")?.parse()?;
        Ok(())
    }
}

struct Subscriber {
    socket: MioStream,
    tls: Option<Box<ClientConnection>>,
    frames: Frames,
    seen: u32,
    raw_octets: usize,
}

struct Generator {
    poll: Poll,
    subscribers: Vec<Subscriber>,
    raw_size: Option<usize>,
}

fn tls_config(ca: &PathBuf) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Generator {
    fn connect(
        to: SocketAddr,
        count: usize,
        watch: &str,
        tls: Option<&Arc<ClientConfig>>,
        raw_size: Option<usize>,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut subscribers = Vec::with_capacity(count);
        for index in 0..count {
            let mut socket = TcpStream::connect(to).with_context(|| format!("connection {index}"))?;
            socket.set_read_timeout(Some(Duration::from_secs(20)))?;
            let mut frames = Frames::default();
            let tls = match tls {
                Some(config) => {
                    let mut connection = Box::new(ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?);
                    let mut stream = rustls::Stream::new(&mut *connection, &mut socket);
                    stream.write_all(watch.as_bytes())?;
                    let mut buffer = [0; 512];
                    while !frames.greeted {
                        let n = stream.read(&mut buffer)?;
                        frames.take(&buffer[..n], |_| ())?;
                    }
                    Some(connection)
                }
                None => {
                    socket.write_all(watch.as_bytes())?;
                    let mut buffer = [0; 512];
                    while raw_size.is_none() && !frames.greeted {
                        let n = socket.read(&mut buffer)?;
                        ensure!(n > 0, "closed before the watch began");
                        frames.take(&buffer[..n], |_| ())?;
                    }
                    None
                }
            };
            socket.set_nonblocking(true)?;
            let mut socket = MioStream::from_std(socket);
            poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
            subscribers.push(Subscriber { socket, tls, frames, seen: 0, raw_octets: 0 });
        }
        Ok(Self { poll, subscribers, raw_size })
    }

    /// Reads until told to stop; says when the last subscriber has each message.
    fn run(mut self, messages: usize, all_have: &mpsc::SyncSender<Instant>) -> anyhow::Result<()> {
        let mut have = vec![0_usize; messages + 1];
        let mut buffer = vec![0; 64 * 1024];
        let mut events = Events::with_capacity(1024);
        let mut reached = 0;
        while reached < messages {
            self.poll.poll(&mut events, Some(Duration::from_secs(120)))?;
            ensure!(
                !events.is_empty(),
                "two minutes without a delivery: {} of {} have message {}",
                have[reached + 1],
                self.subscribers.len(),
                reached + 1
            );
            for event in &events {
                let subscriber = &mut self.subscribers[event.token().0];
                read(subscriber, &mut buffer, self.raw_size, &mut have)?;
            }
            while reached < messages && have[reached + 1] == self.subscribers.len() {
                reached += 1;
                all_have.send(Instant::now())?;
            }
        }
        Ok(())
    }
}

fn read(subscriber: &mut Subscriber, buffer: &mut [u8], raw_size: Option<usize>, have: &mut [usize]) -> anyhow::Result<()> {
    loop {
        let n = match &mut subscriber.tls {
            None => match subscriber.socket.read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                n => n?,
            },
            Some(tls) => match tls.reader().read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => match tls.read_tls(&mut subscriber.socket) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Ok(0) => bail!("a subscriber was disconnected"),
                    Ok(_) => {
                        tls.process_new_packets()?;
                        continue;
                    }
                    Err(e) => return Err(e.into()),
                },
                n => n?,
            },
        };
        ensure!(n > 0, "a subscriber was disconnected");
        if let Some(size) = raw_size {
            let before = subscriber.raw_octets / size;
            subscriber.raw_octets += n;
            (before + 1..=subscriber.raw_octets / size).for_each(|message| have[message] += 1);
            continue;
        }
        let seen = &mut subscriber.seen;
        subscriber.frames.take(&buffer[..n], |serial| {
            if serial > *seen {
                *seen = serial;
                // The first message of the measurement is serial 2: the channel begins before anybody watches.
                have[serial as usize - 1] += 1;
            }
        })?;
    }
}

fn raw_server(count: usize, size: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    eprintln!("{}", listener.local_addr()?);
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    let (mut publisher, _) = listener.accept()?;
    let mut message = vec![0; size];
    while publisher.read_exact(&mut message).is_ok() {
        for socket in &mut sockets {
            socket.write_all(&message)?;
        }
    }
    Ok(())
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    sorted.get(((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

#[allow(clippy::print_stdout)]
fn report(what: &str, options: &Options, cpu: f64, mut delays: Vec<f64>, idle: Option<f64>) {
    delays.sort_by(f64::total_cmp);
    let deliveries = (options.subscribers * options.messages) as f64;
    println!(
        "{what}: {} subscribers, {} messages of {} octets; all in order; CPU {:.2} µs per delivery; to the last subscriber p50 {:.1} ms, p99 {:.1} ms{}",
        options.subscribers,
        options.messages,
        options.octets,
        cpu * 1e6 / deliveries,
        percentile(&delays, 0.5),
        percentile(&delays, 0.99),
        idle.map_or(String::new(), |idle| format!("; {idle:.0} octets of broker memory per idle subscriber")),
    );
}

fn measure_raw(options: &Options) -> anyhow::Result<()> {
    // What the broker would send for the same statement: article and event line.
    let size = options.octets + 620;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["fanout", "raw-server", &options.subscribers.to_string(), &size.to_string()])
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stderr.take().context("no stderr")?), &mut line)?;
    let address: SocketAddr = line.trim().parse()?;
    let generator = Generator::connect(address, options.subscribers, "", None, Some(size))?;
    let mut publisher = TcpStream::connect(address)?;
    publisher.set_nodelay(true)?;
    let (sender, all_have) = mpsc::sync_channel(16);
    let messages = options.messages;
    let reader = thread::spawn(move || generator.run(messages, &sender));
    thread::sleep(Duration::from_millis(500));
    let before = cpu_seconds(child.id())?;
    let mut delays = Vec::new();
    for _ in 0..options.messages {
        let sent = Instant::now();
        publisher.write_all(&vec![b'x'; size])?;
        delays.push(all_have.recv().context("the generator has failed")?.duration_since(sent).as_secs_f64() * 1000.0);
    }
    let cpu = cpu_seconds(child.id())? - before;
    reader.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
    drop(publisher);
    child.wait()?;
    report("raw", options, cpu, delays, None);
    Ok(())
}

/// A broker with everything that a demonstration has.
struct Broker {
    child: Child,
    nntp: SocketAddr,
    nntps: SocketAddr,
    ca: PathBuf,
    anchor: String,
    key: PathBuf,
    _directory: tempfile::TempDir,
}

impl Broker {
    fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut child = Command::new(binary("tidingsd"))
            .args(["demo", "--releases", "0", "--keep"])
            .arg(directory.path().join("demo"))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut values = std::collections::HashMap::new();
        for line in std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().context("no stdout")?)) {
            let line = line?;
            if line == "ready" {
                break;
            }
            if let Some((key, value)) = line.split_once('=') {
                values.insert(key.to_owned(), value.to_owned());
            }
        }
        let value = |key: &str| values.get(key).cloned().with_context(|| format!("the demonstration did not print {key}"));
        Ok(Self {
            child,
            nntp: value("nntp")?.parse()?,
            nntps: value("nntps")?.parse()?,
            ca: value("ca")?.into(),
            anchor: value("anchor")?,
            key: value("key")?.into(),
            _directory: directory,
        })
    }
    fn memory(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find(|l| l.starts_with("Pss:")).context("no Pss")?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse::<f64>()? * 1024.0)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It ends with the measurement, whatever state it is in.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn measure_broker(options: &Options) -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let channel: Channel = "demo.fan.out".parse()?;
    let key = tidings_client::keys::read_private(&broker.key, tidings_client::keys::no_passphrase)?;
    let source = Source::new([format!("nntp://{}", broker.nntp).as_str()], &broker.anchor)?;
    let mut publisher = runtime.block_on(Publisher::connect(source))?;
    let mut statements = Vec::new();
    let mut head = None;
    for number in 0..=options.messages {
        let statement = release(&channel, head, &number.to_string(), options.octets, &key)?;
        head = Some(statement.head());
        statements.push(statement);
    }
    runtime.block_on(publisher.publish(&statements[0]))?;

    let tls = if options.tls { Some(tls_config(&broker.ca)?) } else { None };
    let to = if options.tls { broker.nntps } else { broker.nntp };
    let watch = format!("XWATCH {channel}:1\r\n");
    // The first thousand set everything up that is there once.
    let first = (options.subscribers / 10).clamp(1, 1000);
    let mut warm = Generator::connect(to, first, &watch, tls.as_ref(), None)?;
    let mut stalled = match options.stall {
        Some(_) => {
            let mut socket = TcpStream::connect(broker.nntp)?;
            socket.write_all(watch.as_bytes())?;
            Some(socket)
        }
        None => None,
    };
    thread::sleep(Duration::from_millis(500));
    let before = broker.memory()?;
    let rest = Generator::connect(to, options.subscribers - first, &watch, tls.as_ref(), None)?;
    thread::sleep(Duration::from_secs(1));
    let idle = (broker.memory()? - before) / (options.subscribers - first).max(1) as f64;
    for (index, mut subscriber) in rest.subscribers.into_iter().enumerate() {
        rest.poll.registry().deregister(&mut subscriber.socket)?;
        warm.poll.registry().register(&mut subscriber.socket, Token(first + index), Interest::READABLE)?;
        warm.subscribers.push(subscriber);
    }
    let (sender, all_have) = mpsc::sync_channel(options.messages + 1);
    let messages = options.messages;
    let reader = thread::spawn(move || warm.run(messages, &sender));
    let cpu_before = cpu_seconds(broker.child.id())?;
    let stall_memory = broker.memory()?;
    let began = Instant::now();
    let mut delays = Vec::new();
    for statement in &statements[1..] {
        let sent = Instant::now();
        runtime.block_on(publisher.publish(statement))?;
        delays.push(all_have.recv().context("the generator has failed")?.duration_since(sent).as_secs_f64() * 1000.0);
    }
    let cpu = cpu_seconds(broker.child.id())? - cpu_before;
    reader.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
    report(if options.tls { "broker, TLS" } else { "broker" }, options, cpu, delays, Some(idle));
    let budget = if options.tls { IDLE_OCTETS_TLS } else { IDLE_OCTETS };
    // With few subscribers, what is there once would be counted as theirs.
    ensure!(options.subscribers < 5_000 || idle <= budget, "an idle subscriber may cost {budget} octets, it costs {idle:.0}");
    if let (Some(seconds), Some(socket)) = (options.stall, &mut stalled) {
        finish_stall(seconds, began, socket, options.messages)?;
    }
    say_growth(broker.memory()? - stall_memory);
    Ok(())
}

#[allow(clippy::print_stdout)]
fn say_growth(octets: f64) {
    println!("the broker's memory grew by {:.0} KiB over the measurement, its store's cache included", octets / 1024.0);
}

#[allow(clippy::print_stdout)]
fn finish_stall(seconds: u64, began: Instant, socket: &mut TcpStream, messages: usize) -> anyhow::Result<()> {
    thread::sleep(Duration::from_secs(seconds).saturating_sub(began.elapsed()));
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut frames = Frames::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut last = 0;
    while (last as usize) < messages + 1 {
        let n = socket.read(&mut buffer)?;
        ensure!(n > 0, "the stalled subscriber was disconnected");
        frames.take(&buffer[..n], |serial| last = serial)?;
    }
    println!("a subscriber that did not read for {seconds} s then got all {messages} messages in order");
    Ok(())
}

pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let files = 2 * options.subscribers as u64 + 256;
    let allowed = rlimit::increase_nofile_limit(files)?;
    ensure!(allowed > options.subscribers as u64 + 64, "only {allowed} open files are allowed, {} are needed", options.subscribers + 64);
    match options.role {
        Some(RoleCommand::RawServer { subscribers, size }) => raw_server(subscribers, size),
        None if options.raw => measure_raw(&options),
        None => measure_broker(&options),
    }
}
