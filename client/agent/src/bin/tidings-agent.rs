//! `tidings-agent`: the daemon, and what tells of it.
#![allow(clippy::print_stdout, reason = "its subcommands answer people")]

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use tidings_agent::{
    config::Config,
    daemon::Agent,
    status::{Overall, Status},
};
use tidings_client::Clock;

#[derive(Parser)]
#[command(name = "tidings-agent", version, about = "From an announcement to a machine that runs it")]
struct Arguments {
    /// The configuration; agent.d/*.toml beside it are read after it
    #[arg(long, value_name = "FILE", default_value = "/etc/tidings/agent.toml", global = true)]
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
    /// How things stand. Exit codes: 0 well, 1 waiting, 2 failed or unknown
    Status {
        /// As the agent has written it
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tidings-agent: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let config = Config::read(&arguments.config)?;
    match arguments.command {
        Some(Command::Check) => {
            config.profile()?;
            Ok(0)
        }
        Some(Command::Status { json }) => status(&config, json),
        None | Some(Command::Run | Command::Once) => {
            tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).without_time().init();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
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
    let status = Status::read(&config.paths.run).context("no status is there; does the agent run? (`systemctl status tidings-agent`)")?;
    if json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        status.lines().iter().for_each(|line| println!("{line}"));
    }
    Ok(match status.state {
        Overall::Well => 0,
        Overall::Waiting => 1,
        Overall::Failed => 2,
    })
}
