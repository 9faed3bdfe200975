//! Ten thousand channels in one namespace, in products of some hundred each: beats, a rotation of
//! the release key, a new mirror and new devices. Every step has to work; what it costs is printed.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use tidings_client::{
    Body, Channel, Device, Head, Publisher, Source, Start, State, Statement, keys,
};
use tidings_protocol::nntp::code;
use tidings_tests::{
    Daemon, Fixture,
    realm::{Realm, key},
    tidings,
    tree::{broker, connect},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::mirrors::send_all;

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the origin signs; early for new heads, every tenth of it.
const EVERY: u64 = 30;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Channels
    #[arg(long, default_value_t = 10_000)]
    channels: usize,
    /// Channels of one product, which have a role for beats of their own
    #[arg(long, default_value_t = 500)]
    product: usize,
}

struct Namespace {
    realm: Realm,
    origin: Fixture,
    _daemon: Daemon,
    publisher: Publisher,
    products: usize,
    /// The newest of each channel.
    heads: BTreeMap<Channel, Head>,
}

fn roles(products: usize, release: &str) -> Vec<String> {
    let fixed = [
        "trust * 1 root".into(),
        format!("release * 1 {release}"),
        "withdraw * 1 stop".into(),
    ];
    fixed
        .into_iter()
        .chain((0..products).map(|product| format!("beat test.p{product:02}.* 1 beat")))
        .collect()
}

fn names(product: usize, channels: usize) -> anyhow::Result<Vec<Channel>> {
    (0..channels)
        .map(|number| {
            Ok(format!("test.p{:02}.machine-{number:05}.stable", number / product).parse()?)
        })
        .collect()
}

/// Passes everything on, and counts what comes from a broker.
async fn counting(to: SocketAddr) -> anyhow::Result<(SocketAddr, Arc<AtomicU64>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, count) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut broker = TcpStream::connect(to).await?;
                let (_, back) = copy_bidirectional(&mut from, &mut broker).await?;
                counted.fetch_add(back, Ordering::Relaxed);
                Ok::<_, std::io::Error>(())
            });
        }
    });
    Ok((address, count))
}

impl Namespace {
    async fn begin(arguments: &Arguments) -> anyhow::Result<Self> {
        let products = arguments.channels.div_ceil(arguments.product);
        let lines = roles(products, "ann");
        let realm = Realm::new(
            &lines.iter().map(String::as_str).collect::<Vec<_>>(),
            &["root"],
        );
        let origin = broker(&realm, "")?;
        let file = origin.directory.join("beat.key");
        keys::write_private(&file, &key("beat"), None)?;
        origin.configure(&format!(
            "[[peer]]\nname = \"loader\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"test.*\"\n[[beat]]\nnamespace = \"test\"\nkey_file = \"{}\"\nevery_seconds = {EVERY}\nlife_seconds = 900\n[quota]\nchannels = {}\n",
            file.display(),
            2 * arguments.channels
        ))?;
        let daemon = origin.start()?;
        let mut publisher = Publisher::connect(origin.source()?).await?;
        publisher.publish(&realm.log[0]).await?;
        println!(
            "trust 1 with {} roles for beats: {} octets",
            products,
            realm.log[0].octets().len()
        );
        Ok(Self {
            realm,
            origin,
            _daemon: daemon,
            publisher,
            products,
            heads: BTreeMap::new(),
        })
    }

    /// Publishes one release more in channels.
    async fn publish(&mut self, channels: &[Channel], by: &str) -> anyhow::Result<()> {
        let sign = |channel: &Channel| {
            self.realm
                .release(channel, self.heads.get(channel).copied(), "1", &[by])
        };
        let releases: Vec<Statement> = channels.iter().map(sign).collect();
        let began = Instant::now();
        let octets = send_all(&mut connect(&self.origin).await?, &releases).await?;
        let took = began.elapsed();
        self.heads.extend(
            releases
                .iter()
                .map(|release| (release.channel().clone(), release.head())),
        );
        println!(
            "{} releases by {by}: {:.1} s, {octets} octets",
            releases.len(),
            took.as_secs_f64()
        );
        Ok(())
    }

    /// Waits until the beats of every product name the newest trust statement, and every head.
    async fn beats(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let (mut named, mut octets) = (BTreeMap::new(), 0);
            for product in 0..self.products {
                let beats: Channel = format!("test.p{product:02}.beat").parse()?;
                let beat = self.publisher.newest(&beats).await.ok().flatten();
                let Some(beat) = beat else { continue };
                octets += beat.octets().len();
                if let Body::Beat(beat) = beat.body() {
                    let under = self
                        .realm
                        .log
                        .last()
                        .map(|trust| (trust.channel(), trust.head()));
                    if under.is_some_and(|(log, head)| beat.head(log) == Some(head)) {
                        named.extend(beat.heads.iter().cloned());
                    }
                }
            }
            let confirmed = self
                .heads
                .iter()
                .filter(|(channel, head)| named.get(*channel) == Some(*head))
                .count();
            if confirmed == self.heads.len() {
                println!(
                    "{} beats name every head {:.1} s later: {octets} octets",
                    self.products,
                    began.elapsed().as_secs_f64()
                );
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "{confirmed} of {} heads are named; {}",
                self.heads.len(),
                self.origin.log()
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// A new device of some channels: current, and at their heads.
    async fn device(
        &self,
        what: &str,
        at: SocketAddr,
        channels: &[Channel],
    ) -> anyhow::Result<Device> {
        let source = Source::new(
            [format!("nntp://{at}").as_str()],
            &self.realm.anchor.to_string(),
        )?;
        let state = State::ephemeral(&self.realm.anchor);
        let mut device = Device::with_state(source, channels.iter().map(Channel::as_str), state)?
            .with_start(Start::Newest);
        self.poll(what, &mut device, channels).await?;
        Ok(device)
    }

    async fn poll(
        &self,
        what: &str,
        device: &mut Device,
        channels: &[Channel],
    ) -> anyhow::Result<()> {
        let (before, began) = (device.received(), Instant::now());
        let news = device.poll().await?.len();
        let took = began.elapsed();
        for channel in channels {
            ensure!(
                device.state().head(channel) == self.heads.get(channel).copied(),
                "{what}: {channel} is behind"
            );
            ensure!(
                device.freshness(channel).is_current(),
                "{what}: {channel} is {}",
                device.freshness(channel)
            );
        }
        println!(
            "{what}, {} channel(s): CURRENT after {:.2} s, {news} statements, {} octets",
            channels.len(),
            took.as_secs_f64(),
            device.received() - before
        );
        Ok(())
    }

    /// A mirror that had nothing has everything.
    async fn mirror(&self, statements: u64) -> anyhow::Result<(Fixture, Daemon)> {
        let (upstream, count) = counting(self.origin.address).await?;
        let mirror = self.origin.mirror_of(
            &[upstream],
            &format!("[quota]\nchannels = {}\n", 2 * self.heads.len()),
        )?;
        let began = Instant::now();
        let daemon = mirror.start()?;
        loop {
            let listing = connect(&mirror)
                .await?
                .listing("LIST COUNTS test.*.stable", code::LIST)
                .await?;
            let there: u64 = listing
                .lines()
                .filter_map(|line| line.split(' ').nth(3)?.parse::<u64>().ok())
                .sum();
            if there == statements {
                break;
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "{there} of {statements}; {}",
                mirror.log()
            );
            sleep(Duration::from_millis(200)).await;
        }
        let took = began.elapsed();
        println!(
            "a new mirror has {statements} statements after {:.1} s; {} octets on connections that have ended",
            took.as_secs_f64(),
            count.load(Ordering::Relaxed)
        );
        Ok((mirror, daemon))
    }

    /// Runs `tidings` in the origin's directory.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command: Command = tidings(&self.origin.directory);
        command
            .args(arguments)
            .env("TIDINGS_BROKERS", self.origin.url())
            .env("TIDINGS_ANCHOR", self.realm.anchor.to_string());
        let (began, output) = (Instant::now(), command.output()?);
        let said =
            String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {said}");
        println!(
            "tidings {}: {:.1} s",
            arguments[..2].join(" "),
            began.elapsed().as_secs_f64()
        );
        Ok(said)
    }

    /// The key of releases is taken away, by the command as people do it.
    async fn rotate(&mut self) -> anyhow::Result<()> {
        let directory = self.origin.directory.clone();
        std::fs::write(directory.join("log"), self.realm.log[0].octets())?;
        for name in ["root", "cem"] {
            keys::write_private(&directory.join(format!("{name}s.key")), &key(name), None)?;
        }
        let change = [
            "trust",
            "change",
            "log",
            "--out",
            "new",
            "--remove-key",
            "ann",
            "--add-key",
            "cem=cems.key",
            "--role",
            "release * 1 cem",
        ];
        self.run(&change)?;
        let octets = std::fs::metadata(directory.join("new"))?.len();
        self.run(&["sign", "--key", "roots.key", "new"])?;
        self.run(&["publish", "new"])?;
        let trust: Channel = "test.trust".parse()?;
        self.publisher = Publisher::connect(self.origin.source()?).await?;
        let newest = self.publisher.newest(&trust).await?.context("no trust")?;
        ensure!(
            newest.serial().number() == 2,
            "the trust log ends at {}",
            newest.serial()
        );
        println!(
            "trust 2: {} octets, {octets} with what goes round between its signers",
            newest.octets().len()
        );
        self.realm.log.push(newest.into_inner());
        Ok(())
    }
}

#[tokio::main]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let channels = names(arguments.product, arguments.channels)?;
    let mut namespace = Namespace::begin(&arguments).await?;
    namespace.publish(&channels, "ann").await?;
    namespace.beats().await?;
    let origin = namespace.origin.address;
    let some: Vec<Channel> = channels
        .iter()
        .step_by(arguments.product / 5)
        .cloned()
        .collect();
    let mut one = namespace
        .device("a new device", origin, &channels[..1])
        .await?;
    let mut many = namespace.device("a new device", origin, &some).await?;
    let _first = namespace.mirror(channels.len() as u64).await?;
    namespace.rotate().await?;
    namespace.beats().await?;
    namespace
        .poll(
            "after the rotation, a device that was there",
            &mut one,
            &channels[..1],
        )
        .await?;
    namespace.publish(&some, "cem").await?;
    namespace.beats().await?;
    namespace
        .poll(
            "after a release by the new key, the same",
            &mut one,
            &channels[..1],
        )
        .await?;
    namespace.poll("another", &mut many, &some).await?;
    // Whoever has the old key is refused in every channel.
    let old = Realm {
        log: namespace.realm.log[..1].to_vec(),
        ..Realm::clone_of(&namespace.realm)
    };
    let stolen = old.release(
        &channels[1],
        namespace.heads.get(&channels[1]).copied(),
        "6.6",
        &["ann"],
    );
    ensure!(
        namespace.publisher.publish(&stolen).await.is_err(),
        "the old key signs still"
    );
    let (mirror, _daemon) = namespace
        .mirror((channels.len() + some.len()) as u64)
        .await?;
    namespace
        .device(
            "a new device at the new mirror",
            mirror.address,
            &channels[1..2],
        )
        .await?;
    namespace
        .device("a new device at the new mirror", mirror.address, &some)
        .await?;
    Ok(())
}
