//! `tidings-apply`: root, without network; answers one request on standard input, as systemd's
//! sockets with `Accept=yes` hand it over.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::Parser;
use tidings_agent::{apply, config::Config, handler::Answer, handler::LATER};

#[derive(Parser)]
#[command(
    name = "tidings-apply",
    version,
    about = "Apply what was signed and is due: answers one request on standard input"
)]
struct Arguments {
    /// The configuration, which is the agent's too
    #[arg(long, value_name = "FILE", default_value = "/etc/tidings/agent.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(tidings_client::terminal::Log::default)
        .with_ansi(false)
        .log_internal_errors(false)
        .without_time()
        .init();
    match serve(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    // Read first: who has not been read from sees a broken connection instead of an answer.
    let line = apply::read_request(io::stdin())?;
    // What is wrong with this machine is no fault of the release: the agent asks again.
    let answer =
        answer(arguments, &line).unwrap_or_else(|error| Answer::new(LATER, format!("{error:#}")));
    tracing::info!(code = answer.code, "{line}: {}", answer.line);
    io::stdout().write_all(answer.write().as_bytes())?;
    Ok(())
}

fn answer(arguments: &Arguments, line: &str) -> anyhow::Result<Answer> {
    let config = Config::read(&arguments.config)?;
    std::fs::create_dir_all(&config.paths.applier)
        .with_context(|| format!("cannot make {}", config.paths.applier.display()))?;
    Ok(apply::open(config, Arc::new(|_| {}))?.answer(line))
}
