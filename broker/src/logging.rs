//! Structured logs: text or JSON on standard error, or the journal.

use std::fmt::{self, Write as _};

use anyhow::Context;
use tidings_client::terminal::{self, is_odd};
use tracing_subscriber::{
    Registry, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{config::LogFormat, limits::LOGGED_CHARACTERS};

/// The level can be changed while the broker runs.
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Applies a level or filter.
    ///
    /// # Errors
    /// If it is none; the present one stays in use then.
    pub fn set(&self, level: &str) -> anyhow::Result<()> {
        self.0
            .reload(filter(level)?)
            .context("cannot change the log level")
    }
}

/// Text that came from others, for a log: no control characters, so that no terminal and no reader
/// of lines is led astray (attack 112), and not much of it.
pub(crate) struct Safe<'a>(pub(crate) &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .take(LOGGED_CHARACTERS)
            .try_for_each(|c| f.write_char(if is_odd(c) { '\u{fffd}' } else { c }))
    }
}

fn filter(level: &str) -> anyhow::Result<Targets> {
    level.parse::<Targets>().with_context(|| {
        format!("log.level: expected error, warn, info, debug or trace, found {level:?}")
    })
}

/// Starts logging for this process.
///
/// # Errors
/// If the level is none, or the journal cannot be reached.
pub fn start(level: &str, format: LogFormat) -> anyhow::Result<Level> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let text = tracing_subscriber::fmt::layer()
        .with_writer(terminal::Log::default)
        .with_ansi(terminal::has_colours())
        .log_internal_errors(false);
    match format {
        LogFormat::Text => registry.with(text).init(),
        LogFormat::Json => registry.with(text.json()).init(),
        LogFormat::Journald => registry
            .with(tracing_journald::layer().context("log.format: journald cannot be reached")?)
            .init(),
    }
    Ok(Level(handle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_112_what_others_say_leads_no_terminal_astray() {
        let said = "481 \x1b]0;owned\x07\r\nERROR forged \u{202e}txt\u{9b}31m";
        assert_eq!(
            Safe(said).to_string(),
            "481 \u{fffd}]0;owned\u{fffd}\u{fffd}\u{fffd}ERROR forged \u{fffd}txt\u{fffd}31m"
        );
        assert_eq!(
            Safe(&"x".repeat(10_000)).to_string().len(),
            LOGGED_CHARACTERS
        );
    }
}
