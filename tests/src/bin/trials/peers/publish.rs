//! Publications, each durable, and what of them is the signature's and the disk's.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use tidings_client::Publisher;
use tidings_protocol::trust::Trust;
use tidings_tests::bench::{
    Crowd, Endpoint, Peer, Process,
    nntp::{Opening, Poster, article},
};
use tidings_tests::{Fixture, inn::Inn, release};

use super::{
    Line, OCTETS, PATIENCE, PUBLISHERS,
    fan::closed_loop,
    servers::{Broker, jetstream},
    signed,
    speak::{Nats, payload},
};

pub(super) fn bare(rate: f64) -> Line {
    Line {
        cpu_us: 1e6 / rate,
        rate,
        ..Line::default()
    }
}

/// What all cores together verify in a second, as the broker does it.
fn verifications(fixture: &Fixture) -> anyhow::Result<f64> {
    let trust = Trust::first(&fixture.anchor, fixture.trust.clone())?;
    let statement = release(&"test.x".parse()?, None, "1", OCTETS, &fixture.release)?;
    let one = || {
        let (began, mut count) = (Instant::now(), 0_u32);
        while began.elapsed() < Duration::from_secs(2) {
            trust.check(&statement)?;
            count += 1;
        }
        anyhow::Ok(f64::from(count) / began.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..std::thread::available_parallelism()?.get())
            .map(|_| scope.spawn(one))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow::anyhow!("a thread has panicked"))?
            })
            .sum()
    })
}

/// Groups of so many messages that the disk makes durable, in messages a second.
fn syncs(group: usize) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in("/tmp")?;
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(2) {
        file.write_all(&vec![0; OCTETS * group])?;
        file.sync_data()?;
        count += group;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

pub(super) async fn published(
    what: &str,
    nats: &str,
    inn: &std::path::Path,
) -> anyhow::Result<Line> {
    let each = 1_000;
    match what {
        "tidings, POST" | "tidings, 64 under way" => {
            let (window, each) = if what == "tidings, POST" {
                (1, 2 * each)
            } else {
                (64, 5 * each)
            };
            let broker = Broker::start(false)?;
            Publisher::connect(broker.fixture.source()?)
                .await?
                .publish(&broker.fixture.trust)
                .await?;
            let mut peers: Vec<Box<dyn Peer>> = Vec::new();
            for number in 0..PUBLISHERS {
                let all = signed(
                    &broker.fixture,
                    &format!("test.publish.p{number}").parse()?,
                    each,
                    OCTETS,
                )?;
                peers.push(Box::new(Poster::new(
                    Opening::anonymous(),
                    all.iter().map(article),
                    window,
                )));
            }
            closed_loop(broker.process(), &broker.clear, peers, |count, _| {
                count == PUBLISHERS * each
            })
        }
        "JetStream, sync always" | "JetStream, sync always, 64 under way" => {
            let window = if what.ends_with("under way") { 64 } else { 1 };
            let server = jetstream(nats)?;
            let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
            crowd.join(
                &server.endpoint,
                [Nats::create_stream()],
                PATIENCE,
                &mut done,
                || (),
            )?;
            while done.is_empty() {
                crowd.turn(PATIENCE, &mut done)?;
            }
            let body = payload(OCTETS);
            let peers = (0..PUBLISHERS)
                .map(|number| Box::new(Nats::to_stream(number, &body, window)) as Box<dyn Peer>)
                .collect();
            closed_loop(server.process(), &server.endpoint, peers, |count, _| {
                count >= PUBLISHERS * each / 2
            })
        }
        "innd, nothing synced or checked" => {
            let scratch = tempfile::tempdir_in("/tmp")?;
            std::fs::set_permissions(
                scratch.path(),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )?;
            let groups: Vec<String> = (0..PUBLISHERS)
                .map(|number| format!("test.publish.p{number}"))
                .collect();
            let inn = Inn::start(
                inn,
                scratch.path(),
                "a",
                0,
                &groups.iter().map(String::as_str).collect::<Vec<_>>(),
            )?;
            let fixture = Fixture::new()?;
            let mut peers: Vec<Box<dyn Peer>> = Vec::new();
            for group in &groups {
                let all = signed(&fixture, &group.parse()?, each, OCTETS)?;
                peers.push(Box::new(Poster::new(
                    Opening::anonymous(),
                    all.iter().map(article),
                    64,
                )));
            }
            let pid: u32 = std::fs::read_to_string(format!("{}/run/innd.pid", inn.directory))?
                .trim()
                .parse()?;
            let endpoint = Endpoint {
                address: ([127, 0, 0, 1], inn.port).into(),
                tls: None,
            };
            closed_loop(Process(pid), &endpoint, peers, |count, _| {
                count == PUBLISHERS * each
            })
        }
        "Ed25519, all cores" => Ok(bare(verifications(&Fixture::new()?)?)),
        "write and fdatasync, 1 at a time" => Ok(bare(syncs(1)?)),
        "write and fdatasync, 16 at a time" => Ok(bare(syncs(PUBLISHERS)?)),
        _ => anyhow::bail!("no publisher {what:?}"),
    }
}
