//! `tidings-bench`: what a running broker can do, and how long it takes, measured from here.

mod catch_up;
mod fanout;
mod output;
mod poll;
mod publish;
mod report;
mod storm;
mod target;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use clap::{Args, CommandFactory, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidings_client::{
    Channel, Publisher, Source, Statement,
    keys::{self, SigningKey},
    manual::{Man, Manual},
    now,
};
use tidings_protocol::{
    Serial,
    statement::{Body, Draft, Release},
};
use tidings_tests::bench::Process;

use report::Report;
use target::Target;

/// How long nothing may come before a measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Files beside the connections.
const SPARE_FILES: u64 = 64;

/// Measures a running broker: publishing, fan-out, polls, catching up, connections.
///
/// What is measured is this broker, this network and this machine together; the machine that runs
/// the load may be the limit: look at its own CPU. Compare figures of one run with each other, not
/// with those of other machines.
#[derive(Parser)]
#[command(
    name = "tidings-bench",
    version,
    after_help = "Exit codes: 0 it was measured; 1 something failed, and standard error says what; \
                  2 wrong arguments."
)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
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
    /// Print a manual page
    Man(Man),
}

/// What all measurements have in common.
#[derive(Args)]
struct Common {
    #[command(flatten)]
    target: Target,
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
        Ok((
            publisher,
            keys::read_private(&self.key, output::passphrase)?,
            trust,
        ))
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

async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Publish(publish) => publish.run().await,
        Bench::Fanout(fanout) => fanout.run().await,
        Bench::Poll(poll) => poll.run(),
        Bench::CatchUp(catch_up) => catch_up.run().await,
        Bench::Storm(storm) => storm.run(),
        Bench::Man(man) => {
            let found = man.run(&manual(), Arguments::command(), output::raw)?;
            ensure!(found, "there is no command of this name");
            Ok(())
        }
    }
}

fn manual() -> Manual {
    let exits = [
        (0, "it was measured"),
        (1, "something failed, and standard error says what"),
        (2, "wrong arguments"),
    ];
    Manual {
        section: "1",
        environment: &[(
            output::PASSPHRASE_FILE,
            "a file with the passphrase of the private key; without it, it is asked for",
        )],
        files: &[],
        exits: exits.map(|(code, text)| (code, text.to_owned())).to_vec(),
        examples: &[(
            "publish",
            "How long does a publication take",
            "tidings-bench publish --channel acme.test --key release.key",
        )],
        see_also: &["tidings(1)", "tidingsd(8)"],
    }
}

fn main() -> ExitCode {
    let bench = Arguments::parse().bench;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(run(bench)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&tidings_client::explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
