//! `tidingsd`: the broker's daemon.

mod demo;

use std::{
    io::BufWriter,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use tidings_broker::{Broker, Settings, inspect, limits, logging, manual};
use tidings_client::{manual::Man, terminal::Program};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

const PROGRAM: Program = Program("tidingsd");

/// Stores, serves and relays the logs of Tidings over NNTP.
///
/// A broker is provisioned with the anchors of its namespaces and takes only what the keys behind
/// them have signed. SIGHUP reads certificates and the log level again, SIGTERM and Ctrl-C let
/// sessions finish and end the broker.
#[derive(Parser)]
#[command(name = "tidingsd", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration; conf.d/*.toml beside it are read after it
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/tidings/tidingsd.toml"
    )]
    config: PathBuf,
    /// Read the configuration, say what is wrong with it, and exit
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 all went well; 1 something failed, and standard error says what and what to do; 2 wrong arguments; 3 check or export found something damaged.";

#[derive(Subcommand)]
enum Command {
    /// Show the whole thing on this machine: keys, an origin, two devices, signed releases, and a
    /// forgery refused
    Demo(demo::Options),
    /// Make an empty place for a cluster in ZooKeeper, where [cluster] of the configuration says
    InitCluster {
        /// The configuration
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/etc/tidings/tidingsd.toml"
        )]
        config: PathBuf,
    },
    /// Set the head of a channel in the cluster to what the store of this broker, which is stopped,
    /// has; when brokers say that it cannot be followed
    SetHead {
        /// The channel
        channel: String,
        /// The configuration
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/etc/tidings/tidingsd.toml"
        )]
        config: PathBuf,
    },
    /// Read the whole store of a broker that is stopped, or a copy of it, verify it with the
    /// anchors, and say what is damaged
    Check {
        /// The data directory
        directory: PathBuf,
        /// The anchor of a namespace; repeatable. Without any, those of the configuration
        #[arg(long = "anchor", value_name = "ANCHOR")]
        anchors: Vec<String>,
        /// The configuration
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/etc/tidings/tidingsd.toml"
        )]
        config: PathBuf,
    },
    /// Write all statements that can be read in a store, as a batch of articles for `tidings
    /// import`
    Export {
        /// The data directory
        directory: PathBuf,
        /// Where the batch goes; standard output without it
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command; or write all of them
    Man(Man),
}

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            error.exit();
        }
        PROGRAM.raw(error.render().to_string().as_bytes());
        std::process::exit(error.exit_code())
    });
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            PROGRAM.note(&tidings_client::explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn one_thread() -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Some(Command::Demo(options)) => demo::run(options),
        Some(Command::InitCluster { config }) => {
            let settings = Settings::read(&config)?;
            one_thread()?.block_on(Broker::init_cluster(&settings))?;
            PROGRAM.note("the place for the cluster is made; start its brokers");
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::SetHead { channel, config }) => {
            let settings = Settings::read(&config)?;
            let head = one_thread()?.block_on(Broker::set_head(&settings, &channel))?;
            PROGRAM.note(&format!(
                "the head of {channel} in the cluster is {head} now; start this broker, and look at the others"
            ));
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Check {
            directory,
            anchors,
            config,
        }) => check(&directory, &anchors, &config),
        Some(Command::Export { directory, output }) => export(&directory, output.as_deref()),
        Some(Command::Completions { shell }) => {
            let mut page = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), PROGRAM.0, &mut page);
            PROGRAM.raw(&page);
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Man(man)) => {
            let print = |page: &[u8]| PROGRAM.raw(page);
            let found = man.run(&manual::manual(), Arguments::command(), print)?;
            anyhow::ensure!(found, "there is no command of this name");
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let settings = Settings::read(&arguments.config)?;
            if arguments.check {
                for line in Broker::check(&settings)? {
                    PROGRAM.note(&line);
                }
                PROGRAM.note(&format!("{} is good", arguments.config.display()));
                return Ok(ExitCode::SUCCESS);
            }
            let runtime = Builder::new_multi_thread()
                .event_interval(TASKS)
                .max_io_events_per_tick(EVENTS)
                .max_io_events_per_busy_tick(EVENTS_BUSY)
                .enable_all()
                .build()
                .context("cannot start threads")?;
            let code = runtime.block_on(serve(settings));
            // A look-up of a name cannot be broken off: nobody waits for it.
            runtime.shutdown_background();
            code
        }
    }
}

/// After so many turns of sessions a thread looks at the sockets, whoever waits for a turn still.
const TASKS: u32 = 31;

/// So many sessions one look wakes. A thread's queue has room for 256 of them; those that find none
/// would have their turn after all who come later.
const EVENTS: usize = 128;

/// The same while others wait for their turn: fewer than have had one since the last look.
const EVENTS_BUSY: usize = 16;

/// What `check` and `export` end with, if something is damaged.
const DAMAGED: u8 = 3;

fn check(directory: &Path, anchors: &[String], config: &Path) -> anyhow::Result<ExitCode> {
    let anchors = match anchors.is_empty() {
        true => {
            Settings::read(config)
                .context("no --anchor was given, and without anchors nothing can be proven")?
                .anchors
        }
        false => anchors
            .iter()
            .map(|anchor| anchor.parse().with_context(|| format!("--anchor {anchor}")))
            .collect::<Result<_, _>>()?,
    };
    report(
        &inspect::check(directory, &anchors)?,
        directory,
        "whole and proven",
    )
}

fn export(directory: &Path, output: Option<&Path>) -> anyhow::Result<ExitCode> {
    let found = match output {
        None => inspect::export(directory, &mut BufWriter::new(PROGRAM))?,
        Some(path) => {
            let file = std::fs::File::create_new(path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            let mut file = BufWriter::new(file);
            let found = inspect::export(directory, &mut file)?;
            file.get_ref()
                .sync_all()
                .with_context(|| format!("cannot write {}", path.display()))?;
            found
        }
    };
    report(&found, directory, "exported")
}

fn report(found: &inspect::Found, directory: &Path, what: &str) -> anyhow::Result<ExitCode> {
    for wrong in &found.wrong {
        PROGRAM.note(&wrong.to_string());
    }
    if found.torn > 0 {
        PROGRAM.note(&format!(
            "the last {} octets were never whole; nobody was answered for them, and the next start cuts them off",
            found.torn
        ));
    }
    let (statements, channels, segments) = (found.statements, found.channels, found.segments);
    let counts = format!("{statements} statements, {channels} channels, {segments} segments");
    if found.wrong.is_empty() {
        PROGRAM.note(&format!("{}: {counts}: {what}", directory.display()));
        return Ok(ExitCode::SUCCESS);
    }
    PROGRAM.note(&format!(
        "{}: {counts} could be read; {} things are wrong",
        directory.display(),
        found.wrong.len()
    ));
    Ok(DAMAGED.into())
}

async fn serve(settings: Settings) -> anyhow::Result<ExitCode> {
    let log = &settings.config.log;
    let level = logging::start(&log.level, log.format)?;
    let file = settings.file.clone();
    // Before anything is open, so that no signal finds the process without an answer.
    let (mut hangup, mut terminate, mut interrupt) = (
        signal(SignalKind::hangup())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let broker = Broker::bind(settings)?;
    // Outside systemd there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(&broker, &file, &level),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = broker.failed() => break,
        }
    }
    tracing::info!("shutting down");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let clean = broker.shutdown(limits::DRAIN).await;
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// SIGHUP: certificates, keys, passwords and the log level; what cannot be used leaves the present
/// one in use, and what was changed besides is named.
fn reload(broker: &Broker, file: &std::path::Path, level: &logging::Level) {
    let wrong = broker.reload();
    for error in &wrong {
        tracing::error!(error, "the present certificate stays in use");
    }
    if wrong.is_empty() {
        tracing::info!("certificates and logins read again");
    }
    let settings = match Settings::read(file) {
        Ok(settings) => settings,
        Err(error) => {
            let error = error.to_string();
            tracing::error!(
                error,
                "the present log level stays in use, and everything else"
            );
            return;
        }
    };
    match level.set(&settings.config.log.level) {
        Ok(()) => tracing::info!("log level read again"),
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            "the present log level stays in use"
        ),
    }
    let changed = broker.settings().config.differing(&settings.config);
    if !changed.is_empty() {
        let keys = changed.join(", ");
        tracing::warn!(
            keys,
            "these have changed and need a restart; they are as they were at the start"
        );
    }
}
