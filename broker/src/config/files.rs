//! The files of a configuration: one, and `conf.d/*.toml` beside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Config, ConfigError};

/// The directory beside the file whose files are read after it.
const MORE: &str = "conf.d";

/// Reads a file, and `conf.d/*.toml` beside it in the order of their names.
///
/// Of a key that stands in several files the last one counts; tables that may stand several times,
/// as `[[beat]]`, are added.
pub(super) fn read(path: &Path) -> Result<Config, ConfigError> {
    let first = text(path)?;
    let more = more(path)?;
    if more.is_empty() {
        return parse(&first).map_err(|error| wrong(path, &first, &error));
    }
    let mut all = table(path, &first)?;
    for path in &more {
        merge(&mut all, table(path, &text(path)?)?);
    }
    // As text again: a second way to read it would be as large as the first.
    parse(&all.to_string()).map_err(|error| ConfigError::Parse {
        path: path.into(),
        reason: format!("with {MORE}: {}", error.message().trim_end()),
    })
}

fn parse(text: &str) -> Result<Config, toml::de::Error> {
    toml::from_str(text)
}

fn text(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| cannot_read(path, source))
}

fn cannot_read(path: &Path, source: io::Error) -> ConfigError {
    ConfigError::Read {
        path: path.into(),
        source,
    }
}

/// No directory is an empty one; one that cannot be read is an error: a broker without a part of
/// its configuration is another broker.
fn more(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = path.with_file_name(MORE);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot_read(&directory, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| cannot_read(&directory, error))?
            .path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// One of several files. What is wrong in it is named with its line; what it lacks may stand in
/// another.
fn table(path: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    match parse(text) {
        Err(error) if !error.message().starts_with("missing field") => {
            Err(wrong(path, text, &error))
        }
        _ => text.parse().map_err(|error| wrong(path, text, &error)),
    }
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    use toml::Value::{Array, Table};
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Table(old)), Table(new)) => merge(old, new),
            (Some(Array(old)), Array(new)) if old.iter().chain(&new).all(toml::Value::is_table) => {
                old.extend(new);
            }
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn wrong(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Parse {
        path: path.into(),
        reason: explain(text, error),
    }
}

/// The line, the reason, and for an unknown key the nearest known one.
fn explain(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(0, |span| {
        text[..span.start.min(text.len())].matches('\n').count() + 1
    });
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let nearest = quoted
        .next()
        .filter(|_| message.starts_with("unknown"))
        .and_then(|unknown| {
            let known = quoted.max_by(|a, b| {
                strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown))
            })?;
            let what = if message.starts_with("unknown variant") {
                "value"
            } else {
                "key"
            };
            Some(format!(
                "unknown {what} `{unknown}`; did you mean `{known}`?"
            ))
        });
    format!(
        "line {line}: {}",
        nearest.as_deref().unwrap_or(message.trim_end())
    )
}
