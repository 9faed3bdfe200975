//! `tidings-apply`: root, without network; answers one request on standard input, as systemd's sockets with `Accept=yes` hand it over.

use std::{io, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Parser;
use tidings_agent::{apply, config::Config, handler::Answer, handler::LATER};

#[derive(Parser)]
#[command(name = "tidings-apply", version, about = "Apply what was signed and is due: answers one request on standard input")]
struct Arguments {
    /// The configuration, which is the agent's too
    #[arg(long, value_name = "FILE", default_value = "/etc/tidings/agent.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).without_time().init();
    match serve(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            // The agent asks again.
            let _ = io::Write::write_all(&mut io::stdout(), Answer::new(LATER, format!("{error:#}")).write().as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::read(&arguments.config)?;
    std::fs::create_dir_all(&config.paths.applier).with_context(|| format!("cannot make {}", config.paths.applier.display()))?;
    let mut applier = apply::open(config, Arc::new(|_| {}))?;
    let answer = apply::serve_one(&mut applier, io::stdin(), io::stdout())?;
    tracing::info!(code = answer.code, "{}", answer.line);
    Ok(())
}
