//! A store that no broker has open: is everything there, whole and proven (`tidingsd check`), and
//! what can be read (`tidingsd export`).
//!
//! Nothing is changed, whatever is found.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use tidings_protocol::{
    Anchor, Channel, Namespace, Serial, Statement, batch,
    trust::{Descent, Trust},
};

use crate::log::store::{Marks, Store, StoreError};

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Statements that could be read.
    pub statements: u64,
    /// Channels.
    pub channels: usize,
    /// Files of statements.
    pub segments: usize,
    /// Octets at the end that were never whole, and for which nobody was answered.
    pub torn: u64,
    /// What is damaged, missing or not proven: a line each.
    pub wrong: Vec<String>,
}

fn read(store: &Store, channel: &Channel, serial: Serial, found: &mut Found) -> Option<Statement> {
    match store.get(channel, serial) {
        Ok(Some(record)) => {
            found.statements += 1;
            return Some(record.statement);
        }
        Ok(None) => found.wrong.push(format!("{channel} {serial} is missing")),
        Err(error) => found.wrong.push(error.to_string()),
    }
    None
}

fn serials(low: Serial, head: Serial) -> impl DoubleEndedIterator<Item = Serial> {
    (low.number()..=head.number()).filter_map(Serial::new)
}

/// Reads everything, and proves it with anchors.
///
/// # Errors
/// If the directory cannot be read as a store.
pub fn check(directory: &Path, anchors: &[Anchor]) -> Result<Found, StoreError> {
    let (store, report) = Store::inspect(directory)?;
    let mut found = Found {
        segments: report.segments,
        torn: report.torn,
        ..Found::default()
    };
    found
        .wrong
        .extend(report.damage.iter().map(ToString::to_string));
    let channels: BTreeMap<Channel, Marks> = store.channels()?.into_iter().collect();
    found.channels = channels.len();
    let mut trusts: Vec<Trust> = Vec::new();
    for anchor in anchors {
        let log = anchor.namespace.trust_log();
        match channels.get(&log) {
            None => found.wrong.push(format!(
                "{log} is not here: nothing of {} can be proven",
                anchor.namespace
            )),
            Some(marks) => trusts.extend(walk_trust(&store, anchor, &log, marks, &mut found)),
        }
    }
    for (channel, marks) in &channels {
        let namespace = Namespace::longest(trusts.iter().map(Trust::namespace), channel).cloned();
        let trust = namespace
            .as_ref()
            .and_then(|namespace| trusts.iter().find(|trust| trust.namespace() == namespace));
        if trust.is_some_and(|trust| trust.namespace().trust_log() == *channel) {
            continue;
        }
        check_log(&store, channel, marks, trust, &mut found);
    }
    Ok(found)
}

/// The trust in force, each statement proven by the one before.
fn walk_trust(
    store: &Store,
    anchor: &Anchor,
    log: &Channel,
    marks: &Marks,
    found: &mut Found,
) -> Option<Trust> {
    let mut trust: Option<Trust> = None;
    for serial in serials(marks.low, marks.head.serial) {
        let statement = read(store, log, serial, found)?;
        let next = match &trust {
            None => Trust::first(anchor, statement),
            Some(trust) => trust.succeed(statement),
        };
        match next {
            Ok(next) => trust = Some(next),
            Err(error) => {
                found
                    .wrong
                    .push(format!("{log} {serial} is not proven: {error}"));
                return None;
            }
        }
    }
    trust.filter(|trust| trust.head() == marks.head)
}

/// From the head down: each is the one that the one above names, and somebody vouches for it.
fn check_log(
    store: &Store,
    channel: &Channel,
    marks: &Marks,
    trust: Option<&Trust>,
    found: &mut Found,
) {
    let mut descent = Descent::new(channel.clone());
    let mut expected = Some(marks.head);
    for serial in serials(marks.low, marks.head.serial).rev() {
        let Some(statement) = read(store, channel, serial, found) else {
            // Below it the proof begins anew.
            (descent, expected) = (Descent::new(channel.clone()), None);
            continue;
        };
        if expected.is_some_and(|expected| expected != statement.head()) && !channel.is_beat() {
            found.wrong.push(format!(
                "{channel} {serial} is not the statement that follows from the one above it"
            ));
        }
        expected = statement.predecessor();
        // Beats prove themselves, under the trust of their time.
        let is_due = !channel.is_beat() || serial == marks.head.serial;
        if let Some(error) = trust
            .filter(|_| is_due)
            .and_then(|trust| descent.take(trust, statement).err())
        {
            found
                .wrong
                .push(format!("{channel} {serial} is not proven: {error}"));
            return;
        }
    }
}

/// Writes everything that can be read as a batch of articles: trust logs first, each channel from
/// its oldest on.
///
/// # Errors
/// If the directory cannot be read as a store, or the batch not be written.
pub fn export(directory: &Path, into: &mut impl Write) -> Result<Found, ExportError> {
    let (store, report) = Store::inspect(directory)?;
    let mut found = Found {
        segments: report.segments,
        torn: report.torn,
        ..Found::default()
    };
    found
        .wrong
        .extend(report.damage.iter().map(ToString::to_string));
    let mut channels: Vec<Channel> = store.names()?;
    channels.sort_by_key(|channel| (!channel.is_trust(), channel.clone()));
    found.channels = channels.len();
    for channel in &channels {
        for serial in store.serials(channel) {
            // What cannot be read is in the report already.
            let Ok(Some(record)) = store.get(channel, serial) else {
                continue;
            };
            let mut article = Vec::new();
            batch::write(&mut article, &record.statement, &record.path);
            into.write_all(&article)?;
            found.statements += 1;
        }
    }
    into.flush()?;
    Ok(found)
}

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Where the batch goes.
    #[error("cannot write the batch: {0}")]
    Write(#[from] io::Error),
}
