//! What a running broker can do, and how long it takes: measured from here.

mod catch_up;
mod fanout;
mod poll;
mod publish;
mod report;
mod storm;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidings_client::{
    Channel, Publisher, Source, Statement, bench::Process, keys::SigningKey, now,
};
use tidings_protocol::{
    Serial,
    statement::{Body, Draft, Release},
};

use super::{From, key};
use report::Report;

/// How long nothing may come before a measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Files beside the connections.
const SPARE_FILES: u64 = 64;

/// Measure a running broker: publishing, fan-out, polls, catching up, connections
///
/// What is measured is this broker, this network and this machine together; the machine that runs
/// the load may be the limit: look at its own CPU. Compare figures of one run with each other, not
/// with those of other machines.
#[derive(Subcommand)]
pub(super) enum Bench {
    /// Publish signed statements; each is verified and durable before it counts
    Publish(publish::Publish),
    /// Publish to many watches; measured until the last of them has each statement
    Fanout(fanout::Fanout),
    /// Ask whether there is news, on connections that stand
    Poll(poll::Poll),
    /// Read a channel from its beginning and verify it, as a new mirror or device does
    CatchUp(catch_up::CatchUp),
    /// Open connections as fast as the broker takes them, one poll on each
    Storm(storm::Storm),
}

/// What all measurements have in common.
#[derive(Args)]
struct Common {
    #[command(flatten)]
    from: From,
    /// The broker's process on this machine: its CPU time and memory are shown too
    #[arg(long)]
    pid: Option<u32>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// A chart of the latencies
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What is published.
#[derive(Args)]
struct Work {
    /// The channel; its namespace's trust must let --key release there. What is published stays:
    /// take a channel that nobody follows
    #[arg(long)]
    channel: Channel,
    /// The private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Octets of each statement, about; at least 500, and as many as a summary can carry
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(500..=1250))]
    octets: u32,
}

impl Common {
    fn report(&self, what: &'static str, source: &Source) -> Report {
        Report::new(what, source.address().to_string(), self.pid.map(Process))
    }
    fn show(&self, report: Report) -> anyhow::Result<()> {
        report.show(self.json, self.svg.as_deref())
    }
}

impl Work {
    async fn signer(&self, source: &Source) -> anyhow::Result<(Publisher, SigningKey, Serial)> {
        let publisher = Publisher::connect(source.clone()).await?;
        let trust = publisher
            .trust()
            .context("the broker has no trust log of this namespace; publish that first")?
            .serial();
        Ok((publisher, key::private(&self.key)?, trust))
    }

    /// Statements that follow each other and what is there, signed before anything is measured.
    async fn make(
        &self,
        to: (&mut Publisher, &SigningKey, Serial),
        channel: &Channel,
        count: usize,
    ) -> anyhow::Result<Vec<Statement>> {
        let (publisher, key, trust) = to;
        let mut head = publisher
            .newest(channel)
            .await?
            .map(|statement| statement.head());
        let mut made = Vec::with_capacity(count);
        let summary = "x".repeat((self.octets as usize).saturating_sub(450));
        for number in 0..count {
            let release = Release {
                version: format!("bench.{number}"),
                summary: Some(summary.clone()),
                ..Release::default()
            };
            let draft = Draft {
                channel: channel.clone(),
                after: head,
                time: now(),
                trust: Some(trust),
                body: Body::Release(release),
            };
            let statement = draft.write()?.sign(key)?;
            head = Some(statement.head());
            made.push(statement);
        }
        Ok(made)
    }
}

/// As many files as so many connections need.
fn allow_files(connections: usize) -> anyhow::Result<()> {
    let needed = connections as u64 + SPARE_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        ensure!(
            limit.maximum.is_none_or(|most| most >= needed),
            "{needed} open files are needed for {connections} connections, and {} are allowed; see `ulimit -Hn`",
            limit.maximum.unwrap_or(0)
        );
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(needed),
                ..limit
            },
        )
        .context("the limit of open files cannot be raised")?;
    }
    Ok(())
}

impl Bench {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Bench::Publish(publish) => publish.run().await,
            Bench::Fanout(fanout) => fanout.run().await,
            Bench::Poll(poll) => poll.run(),
            Bench::CatchUp(catch_up) => catch_up.run().await,
            Bench::Storm(storm) => storm.run(),
        }
    }
}
