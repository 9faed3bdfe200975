//! `tidings-agent`: the daemon, and what tells of it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use clap::{CommandFactory, Parser, Subcommand};
use tidings_agent::{
    config::Config,
    contract::Contract,
    daemon::Agent,
    manual,
    restarts::{self, Against},
    status::{Overall, Status},
};
use tidings_client::{
    Clock,
    manual::Man,
    terminal::{Log, Program},
};

const PROGRAM: Program = Program("tidings-agent");

#[derive(Parser)]
#[command(
    name = "tidings-agent",
    version,
    about = "From an announcement to a machine that runs it"
)]
struct Arguments {
    /// The configuration; agent.d/*.toml beside it are read after it
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/tidings/agent.toml",
        global = true
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Watch, and install what is due; the default
    Run,
    /// Look once, do what can be done now, and end
    Once,
    /// Check the configuration, and end
    Check,
    /// Test a handler by the contract; it changes the machine, or the file that stands for one
    CheckHandler {
        /// The handler, in a directory format.d
        handler: PathBuf,
        /// A payload that it can use
        #[arg(long, value_name = "FILE")]
        payload: PathBuf,
        /// What it is told of the payload, e.g. T_RESULT=…; T_SIZE and T_DIGEST are added
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Who runs code that is not there any more. Exit codes: 0 nobody, 1 somebody, 2 it cannot be
    /// told
    Restarts {
        /// Compare with a root that comes
        #[arg(long, value_name = "DIR")]
        new_root: Option<PathBuf>,
        /// Only files below this
        #[arg(long, value_name = "DIR")]
        below: Option<String>,
        /// For programs
        #[arg(long)]
        json: bool,
        /// Only these processes
        pids: Vec<u32>,
    },
    /// How things stand. Exit codes: 0 well, 1 waiting, 2 failed or unknown
    Status {
        /// As the agent has written it
        #[arg(long)]
        json: bool,
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
    match run(Arguments::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            PROGRAM.note(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<u8> {
    match arguments.command {
        Some(Command::Restarts {
            new_root,
            below,
            json,
            pids,
        }) => restarts(&Against { new_root, below }, json, &pids),
        Some(Command::Completions { shell }) => {
            let mut page = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), PROGRAM.0, &mut page);
            PROGRAM.raw(&page);
            Ok(0)
        }
        Some(Command::Man(man)) => {
            let print = |page: &[u8]| PROGRAM.raw(page);
            ensure!(
                man.run(&manual::manual(), Arguments::command(), print)?,
                "there is no command of this name"
            );
            Ok(0)
        }
        _ => configured(&arguments),
    }
}

/// What wants the configuration.
fn configured(arguments: &Arguments) -> anyhow::Result<u8> {
    let config = Config::read(&arguments.config)?;
    match &arguments.command {
        Some(Command::Check) => {
            config.profile()?;
            PROGRAM.note(&format!("{} is good", arguments.config.display()));
            Ok(0)
        }
        Some(Command::Status { json }) => status(&config, *json),
        Some(Command::CheckHandler {
            handler,
            payload,
            set,
        }) => check_handler(&config, handler, payload, set),
        None | Some(_) => {
            tracing_subscriber::fmt()
                .with_writer(Log::default)
                .with_ansi(false)
                .log_internal_errors(false)
                .without_time()
                .init();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let mut agent = Agent::new(config, arguments.config.clone(), Clock::system())?;
            if matches!(arguments.command, Some(Command::Once)) {
                runtime.block_on(agent.look())?;
                return Ok(0);
            }
            runtime.block_on(agent.run())?;
            Ok(0)
        }
    }
}

fn status(config: &Config, json: bool) -> anyhow::Result<u8> {
    let status = Status::read(&config.paths.run)
        .context("no status is there; does the agent run? (`systemctl status tidings-agent`)")?;
    if json {
        PROGRAM.line(&serde_json::to_string(&status)?);
    } else {
        status.lines().iter().for_each(|line| PROGRAM.line(line));
    }
    Ok(match status.state {
        Overall::Well => 0,
        Overall::Waiting => 1,
        Overall::Failed => 2,
    })
}

fn check_handler(
    config: &Config,
    handler: &Path,
    payload: &Path,
    set: &[String],
) -> anyhow::Result<u8> {
    let pair = |text: &String| {
        text.split_once('=')
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let environment = set
        .iter()
        .map(pair)
        .collect::<Option<Vec<_>>>()
        .context("--set wants KEY=VALUE")?;
    let handler = handler
        .canonicalize()
        .ok()
        .and_then(|_| std::path::absolute(handler).ok())
        .context("there is no such handler")?;
    let (payload, etc, lib) = (
        payload.to_owned(),
        config.paths.etc.clone(),
        config.paths.lib.clone(),
    );
    Contract {
        handler,
        payload,
        environment,
        lib,
        etc,
    }
    .check(|line| PROGRAM.line(&format!("ok: {line}")))?;
    Ok(0)
}

fn restarts(against: &Against, json: bool, pids: &[u32]) -> anyhow::Result<u8> {
    let restarts::Found { stale, hidden } = restarts::find(Path::new("/proc"), pids, against)?;
    if json {
        PROGRAM.line(&serde_json::to_string(&stale)?);
    } else {
        for process in &stale {
            let what = if process.restart {
                "restart"
            } else {
                "not by us"
            };
            process.files.iter().for_each(|(path, why)| {
                PROGRAM.line(&format!(
                    "{} {} ({what}): {path} {why}",
                    process.pid, process.unit
                ))
            });
        }
    }
    if hidden > 0 {
        PROGRAM.note(&format!(
            "processes that could not be read, since they are others': {hidden}; ask as root"
        ));
    }
    Ok(match (stale.is_empty(), hidden) {
        (false, _) => 1,
        (true, 0) => 0,
        (true, _) => 2,
    })
}
