//! What a publication, a poll and a delivery cost while the number of channels and of stored
//! statements grows; what the broker needs in memory, and to start.

use std::time::{Duration, Instant};

use clap::Args;
use tidings_client::{Channel, Publisher};
use tidings_protocol::Head;
use tidings_tests::bench::{
    Endpoint, Peer, Process,
    nntp::{Opening, Poller, Poster, Watcher, article},
};
use tidings_tests::{Fixture, release};

use super::peers::{Fan, OCTETS, closed_loop, fan_out, servers::Broker, signed};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Channels, with few statements; in increasing order
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000,99000")]
    channels: Vec<usize>,
    /// Statements stored, in a hundred channels; in increasing order
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000,10000,100000,1000000,2000000"
    )]
    statements: Vec<usize>,
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

const FILLERS: usize = 16;
const SUBSCRIBERS: usize = 1_000;
const MESSAGES: usize = 60;
const PUBLICATIONS: usize = 500;
const POLLS: Duration = Duration::from_secs(2);

/// Stores so many statements more: in channels of its own, all by TAKETHIS.
pub(super) fn fill(
    process: Process,
    to: &Endpoint,
    fixture: &Fixture,
    name: &str,
    channels: usize,
    statements: usize,
) -> anyhow::Result<()> {
    let mut work: Vec<Vec<(String, Vec<u8>)>> = vec![Vec::new(); FILLERS.min(channels)];
    let fillers = work.len();
    for number in 0..channels {
        let channel: Channel = format!("test.{name}.n{number}").parse()?;
        let mut head: Option<Head> = None;
        for serial in 0..statements / channels {
            let statement = release(
                &channel,
                head,
                &serial.to_string(),
                OCTETS,
                &fixture.release,
            )?;
            head = Some(statement.head());
            work[number % fillers].push(article(&statement));
        }
    }
    let all = work.iter().map(Vec::len).sum::<usize>();
    let peers = work
        .into_iter()
        .map(|work| Box::new(Poster::new(Opening::anonymous(), work, 64)) as Box<dyn Peer>)
        .collect();
    closed_loop(process, to, peers, |count, _| count == all).map(drop)
}

struct Costs {
    publish: f64,
    poll: f64,
    delivery: f64,
}

/// CPU of the broker, in microseconds.
async fn costs(broker: &Broker, name: &str) -> anyhow::Result<Costs> {
    let fixture = &broker.fixture;
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for number in 0..FILLERS {
        let all = signed(
            fixture,
            &format!("test.cost-{name}.p{number}").parse()?,
            PUBLICATIONS,
            OCTETS,
        )?;
        peers.push(Box::new(Poster::new(
            Opening::anonymous(),
            all.iter().map(article),
            1,
        )));
    }
    let publish = closed_loop(broker.process(), &broker.clear, peers, |count, _| {
        count == FILLERS * PUBLICATIONS
    })?
    .cpu_us;
    let polled: Channel = format!("test.cost-{name}.p0").parse()?;
    let poller = |_| Box::new(Poller::new(Opening::anonymous(), &polled)) as Box<dyn Peer>;
    let poll = closed_loop(
        broker.process(),
        &broker.clear,
        (0..100).map(poller).collect(),
        |_, elapsed| elapsed > POLLS,
    )?
    .cpu_us;
    let channel: Channel = format!("test.cost-{name}.fan").parse()?;
    let all = signed(fixture, &channel, MESSAGES + 1, OCTETS)?;
    Publisher::connect(fixture.source()?)
        .await?
        .publish(&all[0])
        .await?;
    let fan = Fan {
        process: broker.process(),
        endpoint: broker.clear.clone(),
        publisher: Box::new(Poster::on_demand(
            Opening::anonymous(),
            all[1..].iter().map(article),
        )),
        subscriber: Box::new(move || {
            Box::new(Watcher::new(Opening::anonymous(), &channel, Some(1))) as Box<dyn Peer>
        }),
        messages: vec![Poster::NEXT.to_vec(); MESSAGES],
    };
    let delivery = fan_out(fan, SUBSCRIBERS)?.cpu_us;
    Ok(Costs {
        publish,
        poll,
        delivery,
    })
}

pub(super) async fn start() -> anyhow::Result<Broker> {
    let broker = Broker::start(true)?;
    Publisher::connect(broker.fixture.source()?)
        .await?
        .publish(&broker.fixture.trust)
        .await?;
    Ok(broker)
}

/// All sizes of channels or of statements, each with what is stored already: costs, memory in MiB,
/// and seconds to start again.
async fn grow(what: &str, sizes: &[usize]) -> anyhow::Result<Vec<[f64; 5]>> {
    let (mut broker, mut before, mut rows) = (start().await?, 0, Vec::new());
    for size in sizes {
        let (more, name) = (size - before, format!("{what}{size}"));
        let channels = if what == "channels" {
            more
        } else {
            more.min(100)
        };
        fill(
            broker.process(),
            &broker.clear,
            &broker.fixture,
            &name,
            channels,
            more,
        )?;
        before = *size;
        let Costs {
            publish,
            poll,
            delivery,
        } = costs(&broker, &name).await?;
        let memory = broker.process().memory()? as f64 / f64::from(1 << 20);
        let began = Instant::now();
        broker = broker.restart()?;
        let took = began.elapsed().as_secs_f64();
        rows.push([publish, poll, delivery, memory, took]);
        eprintln!("{size} {what}: {:.2?}", rows[rows.len() - 1]);
    }
    Ok(rows)
}

/// The median, with the least and the greatest.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.2} ({least:.2} to {most:.2})", values[values.len() / 2])
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    println!(
        "| | CPU µs per publication | per poll | per delivery | the broker's memory, MiB | s to start again |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (what, sizes) in [
        ("channels", &arguments.channels),
        ("statements", &arguments.statements),
    ] {
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds.max(1) {
            rounds.push(grow(what, sizes).await?);
        }
        for (row, size) in sizes.iter().enumerate() {
            let column = |column: usize| spread(rounds.iter().map(|r| r[row][column]).collect());
            let columns: Vec<String> = (0..5).map(column).collect();
            println!("| {size} {what} | {} |", columns.join(" | "));
        }
    }
    Ok(())
}
