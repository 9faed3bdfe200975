//! Structured logs: text or JSON on standard error, or the journal.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::{Registry, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::LogFormat;

/// The level can be changed while the broker runs.
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Applies a level or filter.
    ///
    /// # Errors
    /// If it is none; the present one stays in use then.
    pub fn set(&self, level: &str) -> anyhow::Result<()> {
        self.0.reload(filter(level)?).context("cannot change the log level")
    }
}

fn filter(level: &str) -> anyhow::Result<Targets> {
    level.parse::<Targets>().with_context(|| format!("log.level: expected error, warn, info, debug or trace, found {level:?}"))
}

/// Starts logging for this process.
///
/// # Errors
/// If the level is none, or the journal cannot be reached.
pub fn start(level: &str, format: LogFormat) -> anyhow::Result<Level> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => registry.with(text).init(),
        LogFormat::Json => registry.with(text.json()).init(),
        LogFormat::Journald => registry.with(tracing_journald::layer().context("log.format: journald cannot be reached")?).init(),
    }
    Ok(Level(handle))
}
