//! One release to very many subscribers of several mirrors.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use tidings_tests::bench::{
    Crowd, Endpoint,
    nntp::{Opening, Watcher},
};
use tidings_tests::release;

use super::{PATIENCE, channel, origin, percentile, until_count};

/// The monotonic clock, which all processes of a machine share.
fn nanos() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).map_or(0, |since| since.as_nanos())
}

/// Subscribes, says `ready`, and for each event that all have, says when each had it.
pub(super) fn subscribe(broker: SocketAddr, subscribers: usize) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(subscribers as u64 + 128)?;
    let channel = channel(0)?;
    let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
    let watcher = || Watcher::new(Opening::anonymous(), &channel, Some(1));
    crowd.join(
        &Endpoint {
            address: broker,
            tls: None,
        },
        (0..subscribers).map(|_| watcher()),
        PATIENCE,
        &mut done,
        || (),
    )?;
    println!("ready");
    let mut times = Vec::with_capacity(subscribers);
    loop {
        crowd.turn(PATIENCE, &mut done)?;
        times.extend(done.drain(..).map(|_| nanos()));
        if times.len() == subscribers {
            let text: Vec<String> = times.drain(..).map(|time| time.to_string()).collect();
            println!("{}", text.join(" "));
        }
    }
}

struct Subscribers {
    child: Child,
    pub(super) lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        // It ends with its standard input otherwise never.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) async fn masses(
    mirrors: usize,
    subscribers: usize,
    releases: u32,
) -> anyhow::Result<()> {
    let (origin, _origin, mut publisher) = origin("").await?;
    let channel = channel(0)?;
    let first = release(&channel, None, "1.0", 1024, &origin.release)?;
    publisher.publish(&first).await?;
    let limits = format!(
        "[limits]\nconnections = {0}\nconnections_per_address = {0}\nwatches = {0}\n",
        subscribers + 100
    );
    let mut brokers = Vec::new();
    let mut crowds = Vec::new();
    for _ in 0..mirrors {
        let mirror = origin.mirror_of(&[origin.address], &limits)?;
        let daemon = mirror.start()?;
        until_count(&mirror, 1, 1).await?;
        let mut child = Command::new(std::env::current_exe()?)
            .args([
                "mirrors",
                "subscribe",
                &mirror.address.to_string(),
                &subscribers.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let mut crowd = Subscribers {
            child,
            lines: BufReader::new(output).lines(),
        };
        ensure!(
            crowd.lines.next().context("no subscribers")?? == "ready",
            "subscribers fail"
        );
        crowds.push(crowd);
        brokers.push((mirror, daemon));
    }
    println!(
        "| release | subscribers | p50 ms | p99 ms | ms to the last |\n| ---: | ---: | ---: | ---: | ---: |"
    );
    let mut head = first.head();
    for number in 1..=releases {
        let statement = release(
            &channel,
            Some(head),
            &format!("1.{number}"),
            1024,
            &origin.release,
        )?;
        head = statement.head();
        let sent = nanos();
        publisher.publish(&statement).await?;
        let mut delays = Vec::new();
        for crowd in &mut crowds {
            let line = crowd.lines.next().context("subscribers have ended")??;
            delays.extend(
                line.split(' ')
                    .filter_map(|time| time.parse::<u128>().ok())
                    .map(|time| time.saturating_sub(sent) as f64 / 1e6),
            );
        }
        delays.sort_by(f64::total_cmp);
        ensure!(
            delays.len() == mirrors * subscribers,
            "{} of {} have it",
            delays.len(),
            mirrors * subscribers
        );
        println!(
            "| {number} | {} | {:.0} | {:.0} | {:.0} |",
            delays.len(),
            percentile(&delays, 0.5),
            percentile(&delays, 0.99),
            percentile(&delays, 1.0)
        );
    }
    Ok(())
}
