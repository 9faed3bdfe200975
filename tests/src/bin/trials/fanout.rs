//! Many subscribers on one broker, beside a reference that does nothing but one `write` for each
//! subscriber and message; and a subscriber that stops reading.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;
use tidings_tests::bench::{
    Peer,
    nntp::{Opening, Watcher},
};

use super::peers::{Line, fan, fan_out};

#[derive(Args)]
pub(crate) struct Options {
    /// Subscribers
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
    /// One subscriber more stops reading for so many seconds while messages are published at full
    /// speed
    #[arg(long, value_name = "SECONDS")]
    stall: Option<u64>,
    /// So many messages to ten subscribers; with --stall, one more stops reading meanwhile
    #[arg(long)]
    messages: Option<usize>,
}

/// What an idle subscriber may cost the broker in clear text, and under TLS.
const IDLE_OCTETS: f64 = 1024.0;
const IDLE_OCTETS_TLS: f64 = 10_240.0;

fn show(what: &str, line: &Line) {
    println!(
        "{what}: {} subscribers, all in order; CPU {:.2} µs per delivery; p99 {:.1} ms to a subscriber, {:.1} ms to the last{}",
        line.size,
        line.cpu_us,
        line.p99_ms,
        line.last_p99_ms,
        line.idle_octets.map_or(String::new(), |idle| format!(
            "; {idle:.0} octets of memory per idle subscriber"
        )),
    );
}

async fn budgets(subscribers: usize) -> anyhow::Result<()> {
    for (what, budget) in [
        ("raw, a statement's octets", None),
        ("tidings", Some(IDLE_OCTETS)),
        ("tidings, TLS", Some(IDLE_OCTETS_TLS)),
    ] {
        let (fan, _held) = fan(what, subscribers, None, "").await?;
        let line = fan_out(fan, subscribers)?;
        show(what, &line);
        if let (Some(budget), Some(idle)) = (budget, line.idle_octets) {
            ensure!(
                idle <= budget,
                "an idle subscriber may cost {budget} octets, it costs {idle:.0}"
            );
        }
    }
    Ok(())
}

/// Messages at full speed where nothing else is said.
const MESSAGES: usize = 6_000;

/// Ten subscribers who read, and perhaps one who does not for a while, and then gets everything in
/// order. What that one costs is the difference.
async fn growth(stall: Option<u64>, messages: usize) -> anyhow::Result<()> {
    let (fan, held) = fan("tidings", 10, Some(messages), "").await?;
    let process = fan.process;
    let mut stalled = TcpStream::connect(fan.endpoint.address)?;
    let (mut watcher, mut said) = (
        Watcher::new(Opening::anonymous(), &"test.fan.out".parse()?, Some(1)),
        Vec::new(),
    );
    if stall.is_some() {
        watcher.begin(&mut said);
        stalled.write_all(&said)?;
    }
    let (before, began) = (process.memory()?, Instant::now());
    fan_out(fan, 10)?;
    println!(
        "the broker's memory grew by {} KiB, its store's cache included",
        (process.memory()?.saturating_sub(before)) / 1024
    );
    let Some(seconds) = stall else { return Ok(()) };
    thread::sleep(Duration::from_secs(seconds).saturating_sub(began.elapsed()));
    stalled.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut buffer, mut count) = (vec![0; 64 * 1024], 0);
    while count < messages {
        let octets = stalled.read(&mut buffer)?;
        ensure!(octets > 0, "the stalled subscriber was disconnected");
        count += watcher
            .take(&buffer[..octets], &mut said)
            .map_err(anyhow::Error::msg)?;
    }
    println!(
        "a subscriber that did not read for {seconds} s then got all {messages} messages in order"
    );
    drop(held);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let files = options.subscribers as u64 + 256;
    let allowed = rlimit::increase_nofile_limit(files)?;
    ensure!(
        allowed >= files,
        "only {allowed} open files are allowed, {files} are needed"
    );
    match (options.stall, options.messages) {
        (None, None) => budgets(options.subscribers).await,
        (stall, messages) => growth(stall, messages.unwrap_or(MESSAGES)).await,
    }
}
