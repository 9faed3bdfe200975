//! One publication to many subscribers.

use std::time::{Duration, Instant};

use anyhow::Context;
use tidings_client::{Channel, Publisher};
use tidings_tests::bench::{
    Crowd, Endpoint, Peer, Process, Spread,
    nntp::{Opening, Poster, Watcher, article},
};

use super::{
    Line, OCTETS, PATIENCE,
    servers::{Broker, Server, mosquitto, nats, raw, redis},
    signed,
    speak::{Mqtt, Nats, Raw, Redis, payload},
};

/// About so many are measured.
const DELIVERIES: usize = 150_000;

/// Who publishes to whom.
pub(crate) struct Fan {
    pub(crate) process: Process,
    pub(crate) endpoint: Endpoint,
    pub(crate) publisher: Box<dyn Peer>,
    pub(crate) subscriber: Box<dyn Fn() -> Box<dyn Peer>>,
    /// What makes the publisher publish.
    pub(crate) messages: Vec<Vec<u8>>,
}

pub(super) struct Boxed(pub(super) Box<dyn Peer>);

impl Peer for Boxed {
    fn begin(&mut self, say: &mut Vec<u8>) {
        self.0.begin(say);
    }
    fn take(&mut self, octets: &[u8], say: &mut Vec<u8>) -> Result<usize, String> {
        self.0.take(octets, say)
    }
    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }
}

/// Each message is published when everybody has the one before.
pub(crate) fn fan_out(fan: Fan, subscribers: usize) -> anyhow::Result<Line> {
    let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
    crowd.join(
        &fan.endpoint,
        [Boxed(fan.publisher)],
        PATIENCE,
        &mut done,
        || (),
    )?;
    // The first thousand set everything up that is there once.
    let first = subscribers.min(1_000);
    let mut join = |crowd: &mut Crowd, count| {
        let peers = (0..count).map(|_| Boxed((fan.subscriber)()));
        crowd.join(&fan.endpoint, peers, PATIENCE, &mut done, || ())
    };
    join(&mut crowd, first)?;
    let idle = if subscribers > first {
        std::thread::sleep(Duration::from_millis(500));
        let before = fan.process.memory()?;
        join(&mut crowd, subscribers - first)?;
        std::thread::sleep(Duration::from_secs(1));
        Some((fan.process.memory()? as f64 - before as f64) / (subscribers - first) as f64)
    } else {
        None
    };
    let (mut each, mut last) = (Vec::new(), Vec::new());
    let (mut began, mut before) = (Instant::now(), fan.process.cpu()?);
    for (number, message) in fan.messages.iter().enumerate() {
        if number == WARM_UP {
            (began, before) = (Instant::now(), fan.process.cpu()?);
            each.clear();
            last.clear();
        }
        done.clear();
        let sent = Instant::now();
        crowd.say(0, message)?;
        let mut missing = subscribers;
        while missing > 0 {
            crowd.turn(PATIENCE, &mut done)?;
            let taken = sent.elapsed();
            for one in done.drain(..).filter(|one| one.index > 0) {
                missing = missing
                    .checked_sub(one.count)
                    .context("somebody got something twice")?;
                each.push(taken);
            }
        }
        last.push(sent.elapsed());
    }
    let deliveries = ((fan.messages.len() - WARM_UP) * subscribers) as f64;
    let each = Spread::of_milliseconds(each);
    Ok(Line {
        size: subscribers,
        cpu_us: (fan.process.cpu()? - before).as_secs_f64() * 1e6 / deliveries,
        rate: deliveries / began.elapsed().as_secs_f64(),
        p50_ms: each.at(0.5),
        p99_ms: each.at(0.99),
        last_p99_ms: Spread::of_milliseconds(last).at(0.99),
        idle_octets: idle,
        ..Line::default()
    })
}

/// Messages before anything is measured.
const WARM_UP: usize = 3;

fn messages(subscribers: usize) -> usize {
    (DELIVERIES / subscribers).clamp(10, 100) + WARM_UP
}

/// A server that ends when this is dropped.
pub(crate) type Held = Box<dyn std::any::Any>;

/// A server and those who will subscribe and publish; how many messages, if not as many as tell
/// something.
pub(crate) async fn fan(
    what: &str,
    subscribers: usize,
    count: Option<usize>,
    program: &str,
) -> anyhow::Result<(Fan, Held)> {
    let count = count.unwrap_or_else(|| messages(subscribers));
    let of = |server: Server,
              publisher: Box<dyn Peer>,
              subscriber: Box<dyn Fn() -> Box<dyn Peer>>,
              message: Vec<u8>| {
        let fan = Fan {
            process: server.process(),
            endpoint: server.endpoint.clone(),
            publisher,
            subscriber,
            messages: vec![message; count],
        };
        Ok((fan, Box::new(server) as Held))
    };
    let body = payload(OCTETS);
    match what {
        "raw" | "raw, a statement's octets" => {
            let size = if what == "raw" { OCTETS } else { OCTETS + 620 };
            let subscriber = Box::new(move || Box::new(Raw::new(size)) as Box<dyn Peer>);
            of(
                raw(subscribers, size)?,
                Box::new(Raw::new(size)),
                subscriber,
                payload(size),
            )
        }
        "mosquitto" => {
            let subscriber = Box::new(|| Box::new(Mqtt::new(true)) as Box<dyn Peer>);
            of(
                mosquitto()?,
                Box::new(Mqtt::new(false)),
                subscriber,
                Mqtt::publish(&body),
            )
        }
        "redis" => {
            let subscriber = Box::new(|| Box::new(Redis::new(true)) as Box<dyn Peer>);
            of(
                redis()?,
                Box::new(Redis::new(false)),
                subscriber,
                Redis::publish(&body),
            )
        }
        "nats-server" => {
            let subscriber = Box::new(|| Box::new(Nats::subscriber()) as Box<dyn Peer>);
            of(
                nats(program, false)?,
                Box::new(Nats::publisher()),
                subscriber,
                Nats::publish(&body),
            )
        }
        "nats-server, TLS" => {
            let subscriber = Box::new(|| Box::new(Nats::subscriber()) as Box<dyn Peer>);
            of(
                nats(program, true)?,
                Box::new(Nats::publisher()),
                subscriber,
                Nats::publish(&body),
            )
        }
        "tidings" | "tidings, TLS" => {
            let broker = Broker::start(true)?;
            let channel: Channel = "test.fan.out".parse()?;
            let all = signed(&broker.fixture, &channel, count + 1, OCTETS)?;
            let mut publisher = Publisher::connect(broker.fixture.source()?).await?;
            publisher.publish(&broker.fixture.trust).await?;
            publisher.publish(&all[0]).await?;
            let endpoint = if what == "tidings" {
                &broker.clear
            } else {
                &broker.encrypted
            };
            let fan = Fan {
                process: broker.process(),
                endpoint: endpoint.clone(),
                publisher: Box::new(Poster::on_demand(
                    Opening::anonymous(),
                    all[1..].iter().map(article),
                )),
                subscriber: Box::new(move || {
                    Box::new(Watcher::new(Opening::anonymous(), &channel, Some(1))) as Box<dyn Peer>
                }),
                messages: vec![Poster::NEXT.to_vec(); count],
            };
            Ok((fan, Box::new(broker) as Held))
        }
        _ => anyhow::bail!("no server {what:?}"),
    }
}

/// Answers a second while all of these ask as fast as they are answered.
pub(crate) fn closed_loop(
    process: Process,
    endpoint: &Endpoint,
    peers: Vec<Box<dyn Peer>>,
    until: impl Fn(usize, Duration) -> bool,
) -> anyhow::Result<Line> {
    let size = peers.len();
    let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
    crowd.join(
        endpoint,
        peers.into_iter().map(Boxed),
        PATIENCE,
        &mut done,
        || (),
    )?;
    // Those that came first have begun; what is measured has all of them.
    let early: usize = done.drain(..).map(|one| one.count).sum();
    let (began, before) = (Instant::now(), process.cpu()?);
    let (mut count, mut delays) = (early, Vec::new());
    while !until(count, began.elapsed()) {
        crowd.turn(PATIENCE, &mut done)?;
        for one in done.drain(..) {
            count += one.count;
            delays.push(one.since.elapsed());
        }
    }
    let elapsed = began.elapsed();
    let count = count - early;
    let delays = Spread::of_milliseconds(delays);
    Ok(Line {
        size,
        cpu_us: (process.cpu()? - before).as_secs_f64() * 1e6 / count as f64,
        rate: count as f64 / elapsed.as_secs_f64(),
        p50_ms: delays.at(0.5),
        p99_ms: delays.at(0.99),
        ..Line::default()
    })
}
