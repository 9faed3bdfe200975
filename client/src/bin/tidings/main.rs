//! `tidings`: keys, trust, releases, publishing, and reading with proof.
//!
//! `author` makes statements, `trust` those about keys with what a `ceremony` has on paper, `sign` signs and publishes,
//! `reader` reads and `verify` proves, `agent` acts, `slot` takes turns, `beat` confirms, `fleet` compares brokers, `bench` measures them, `carry` crosses air gaps; `key` has the keys, `files` the statements in files,
//! `output` shows everything; the rest is arguments.

mod agent;
mod author;
mod beat;
mod bench;
mod carry;
mod ceremony;
mod files;
mod fleet;
mod key;
mod output;
mod reader;
mod sign;
mod slot;
mod trust;
mod verify;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use clap::{Args, CommandFactory, Parser, Subcommand};
use tidings_client::{Anchor, Source, Tls};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Tell a fleet, provably, that there is an update.
///
/// Publishers make keys and trust once, then `release --publish` as often as there is news. Devices `fetch` or `watch`.
/// Every statement that this command shows was verified here, from the anchor on.
#[derive(Parser)]
#[command(name = "tidings", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Say more on standard error: RUST_LOG as tracing has it, or debug
    #[arg(long, short, global = true)]
    verbose: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 all went well; 1 something failed, was refused, did not verify or is not CURRENT, and the output says what; 2 an option is unknown or missing.";

#[derive(Subcommand)]
enum Command {
    /// Make and show keys
    #[command(subcommand)]
    Key(key::Key),
    /// Make, change and show trust: who may say what
    #[command(subcommand)]
    Trust(trust::Trust),
    /// Make a release: what is new, and where it can be had
    Release(Box<author::Release>),
    /// Make a withdrawal: call a release back
    Withdraw(author::Withdraw),
    /// Add a signature to a statement in a file
    Sign(sign::Sign),
    /// Publish a signed statement
    Publish(sign::Publish),
    /// Ask once what is new
    Fetch(reader::Fetch),
    /// Be told what is new, as it comes
    Watch(reader::Watch),
    /// Show the statements of a channel
    Log(reader::Log),
    /// Verify statements in files, without any network; prove a fork
    Verify(verify::Verify),
    /// Show whether anything is held back: CURRENT, BEHIND, STALE or FORKED; or compare brokers
    Status(agent::Status),
    /// Carry channels over an air gap: verified, into a file
    Export(carry::Export),
    /// Bring what was carried over an air gap to a broker; it is proven here first
    Import(carry::Import),
    /// Run a command that applies a release, if it may be applied now: the head is looked at again first
    Apply(agent::Apply),
    /// Take turns going down: take, hold and free slots; list and clear for operators
    #[command(subcommand)]
    Slot(slot::Slot),
    /// Write the evidence of a fork into a file that anybody can verify
    Evidence(agent::Evidence),
    /// Sign the beats of a namespace, every few minutes, for ever
    Beat(beat::Beat),
    /// Measure a running broker: publishing, fan-out, polls, catching up, connections
    #[command(subcommand)]
    Bench(Box<bench::Bench>),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command
    Man {
        /// The command, e.g. `release` or `trust change`
        command: Vec<String>,
    },
}

/// Which brokers, and what proves what they say.
#[derive(Args)]
struct From {
    /// A broker, nntps://HOST[:PORT] or nntp://HOST[:PORT]; several (or with commas between) are tried in turn
    #[arg(long = "broker", value_name = "URL", env = "TIDINGS_BROKERS", value_delimiter = ',')]
    brokers: Vec<String>,
    /// The anchor of the namespace: `NAMESPACE SERIAL sha256:HEX`
    #[arg(long, value_name = "LINE", env = "TIDINGS_ANCHOR")]
    anchor: Option<String>,
    /// Certificates that TLS trusts instead of the system's, PEM
    #[arg(long, value_name = "FILE", env = "TIDINGS_CA")]
    ca: Option<PathBuf>,
    /// A certificate of our own, PEM, for brokers that ask for one
    #[arg(long, value_name = "FILE", env = "TIDINGS_CERTIFICATE", requires = "certificate_key")]
    certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", env = "TIDINGS_CERTIFICATE_KEY")]
    certificate_key: Option<PathBuf>,
    /// The name under which brokers know us; sent over TLS only
    #[arg(long, value_name = "NAME", env = "TIDINGS_USER", requires = "password_file")]
    user: Option<String>,
    /// A file with the password, and nothing else
    #[arg(long, value_name = "FILE", env = "TIDINGS_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
}

impl From {
    fn source(&self) -> anyhow::Result<Source> {
        ensure!(!self.brokers.is_empty(), "which broker? give --broker URL, or set TIDINGS_BROKERS");
        let anchor = self.anchor()?.context("what proves it? give --anchor LINE, or set TIDINGS_ANCHOR")?;
        self.source_of(&anchor)
    }

    fn anchor(&self) -> anyhow::Result<Option<Anchor>> {
        Ok(self.anchor.as_deref().map(str::parse).transpose()?)
    }

    fn source_of(&self, anchor: &Anchor) -> anyhow::Result<Source> {
        let source = Source::new(self.brokers.iter().map(String::as_str), &anchor.to_string())?;
        let own = self.certificate.as_deref().zip(self.certificate_key.as_deref());
        let source = if self.ca.is_some() || own.is_some() { source.with_tls(Tls::new(self.ca.as_deref(), own)?) } else { source };
        let Some((user, file)) = self.user.as_deref().zip(self.password_file.as_deref()) else { return Ok(source) };
        let password = std::fs::read_to_string(file).with_context(|| format!("cannot read the password from {}", file.display()))?;
        Ok(source.with_account(user, password.trim_end()))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| if arguments.verbose { "debug".into() } else { "warn".into() });
    let filter = filter.parse::<Targets>().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::WARN));
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(text.with_filter(filter)).init();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings: {}", tidings_client::explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    match command {
        Command::Key(key) => key.run(),
        Command::Trust(trust) => runtime.block_on(trust.run()),
        Command::Release(release) => runtime.block_on(release.run()),
        Command::Withdraw(withdraw) => runtime.block_on(withdraw.run()),
        Command::Sign(sign) => runtime.block_on(sign.run()),
        Command::Publish(publish) => runtime.block_on(publish.run()),
        Command::Fetch(fetch) => runtime.block_on(fetch.run()),
        Command::Watch(watch) => runtime.block_on(watch.run()),
        Command::Log(log) => runtime.block_on(log.run()),
        Command::Verify(verify) => verify.run(),
        Command::Status(status) => runtime.block_on(status.run()),
        Command::Export(export) => runtime.block_on(export.run()),
        Command::Import(import) => runtime.block_on(import.run()),
        Command::Apply(apply) => runtime.block_on(apply.run()),
        Command::Slot(slot) => runtime.block_on(slot.run()),
        Command::Evidence(evidence) => runtime.block_on(evidence.run()),
        Command::Beat(beat) => runtime.block_on(beat.run()),
        Command::Bench(bench) => runtime.block_on(bench.run()),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "tidings", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { command } => {
            let mut page = Arguments::command();
            let mut full = "tidings".to_owned();
            for name in command {
                full = format!("{full}-{name}");
                page = page.find_subcommand(&name).with_context(|| format!("no command {name:?}"))?.clone().name(full.clone());
            }
            Ok(clap_mangen::Man::new(page).render(&mut std::io::stdout())?)
        }
    }
}
