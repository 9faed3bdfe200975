//! How each channel stands, as a device finds it here. Made anew at most once in `BOARD_PERIOD`,
//! however many look.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tidings_protocol::{
    Channel, Head, Namespace, Serial, Timestamp, statement::Kind, trust::Trust,
};
use tokio::time::Instant;

use super::evidence::{self, Evidence};
use crate::{
    clock,
    limits::BOARD_PERIOD,
    log::{
        live::{LiveBeats, Newest},
        logs::Log,
        namespaces::Provisioned,
    },
    shared::Shared,
};

/// What can be said of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin::http) enum State {
    /// The live beat names its head, or a statement below it.
    Current { until: Timestamp },
    /// A beat names something later, of this channel or of the trust log.
    Behind { named: Serial },
    /// No live beat names it.
    Stale { since: Option<Timestamp> },
    /// A beat names another statement at a serial of the log, or no checkpoint has settled a fork.
    Forked,
    /// It has no role for beats: nothing can confirm its head.
    Unconfirmed,
    /// It was closed for good.
    Closed,
}

impl State {
    /// The words, in the order of the variants.
    pub(in crate::admin::http) const WORDS: [&str; 6] = [
        "CURRENT",
        "BEHIND",
        "STALE",
        "FORKED",
        "UNCONFIRMED",
        "CLOSED",
    ];

    fn index(self) -> usize {
        match self {
            Self::Current { .. } => 0,
            Self::Behind { .. } => 1,
            Self::Stale { .. } => 2,
            Self::Forked => 3,
            Self::Unconfirmed => 4,
            Self::Closed => 5,
        }
    }
    pub(in crate::admin::http) fn word(self) -> &'static str {
        Self::WORDS[self.index()]
    }
}

/// One channel.
pub(in crate::admin::http) struct Row {
    pub(super) log: Arc<Log>,
    pub(super) state: State,
}

/// The newest beat of a beat channel.
pub(in crate::admin::http) struct Beat {
    pub(in crate::admin::http) channel: Channel,
    pub(in crate::admin::http) serial: Serial,
    pub(in crate::admin::http) time: Timestamp,
    pub(in crate::admin::http) arrived: Timestamp,
    pub(in crate::admin::http) until: Timestamp,
    pub(in crate::admin::http) is_live: bool,
    pub(in crate::admin::http) names: usize,
}

/// One namespace.
pub(in crate::admin::http) struct Standing {
    pub(in crate::admin::http) namespace: Namespace,
    pub(in crate::admin::http) trust: Option<Arc<Trust>>,
    pub(in crate::admin::http) beats: Vec<Beat>,
    /// The ways that its trust log and its beats have taken, this broker first.
    pub(in crate::admin::http) ways: BTreeSet<String>,
}

/// What a peer still has to be offered.
pub(in crate::admin::http) struct Fed {
    pub(in crate::admin::http) name: String,
    pub(in crate::admin::http) to: String,
    pub(in crate::admin::http) statements: u64,
    pub(in crate::admin::http) channels: u64,
}

/// All of it, at one time.
pub(in crate::admin::http) struct Board {
    /// What became visible before this is in it.
    pub(in crate::admin::http) made: Instant,
    pub(in crate::admin::http) now: Timestamp,
    pub(in crate::admin::http) rows: Vec<Row>,
    /// How many channels are in each state.
    pub(in crate::admin::http) counts: [u64; State::WORDS.len()],
    pub(in crate::admin::http) statements: u64,
    pub(in crate::admin::http) namespaces: Vec<Standing>,
    pub(in crate::admin::http) fed: Vec<Fed>,
    pub(in crate::admin::http) evidence: Vec<Evidence>,
}

/// The last board, and the beats that were read for it.
#[derive(Default)]
struct Last {
    board: Option<Arc<Board>>,
    beats: LiveBeats,
}

/// One board for all who look.
#[derive(Default)]
pub(in crate::admin::http) struct Boards(Mutex<Last>);

impl Boards {
    /// How things stand: now, or a moment ago.
    pub(in crate::admin::http) fn look(&self, shared: &Shared) -> Arc<Board> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Last { board, beats } = &mut *last;
        let is_fresh = |board: &&Arc<Board>| board.made.elapsed() < BOARD_PERIOD;
        if let Some(board) = board.as_ref().filter(is_fresh) {
            return board.clone();
        }
        board.insert(Arc::new(make(shared, beats))).clone()
    }
}

fn make(shared: &Shared, beats: &mut LiveBeats) -> Board {
    let (made, now) = (Instant::now(), clock::now());
    let unsettled = shared.forked.unsettled(&shared.namespaces);
    let logs = shared.logs.all();
    let forked: BTreeSet<&Channel> = unsettled.iter().collect();
    let mut board = Board {
        made,
        now,
        rows: Vec::with_capacity(logs.len()),
        counts: [0; State::WORDS.len()],
        statements: 0,
        namespaces: Vec::new(),
        fed: feeds(shared, &logs),
        evidence: evidence::list(&shared.settings.config.data_dir, &logs),
    };
    for provisioned in shared.namespaces.all() {
        board
            .namespaces
            .push(standing(shared, provisioned, &logs, beats, now));
    }
    for log in logs {
        let state = match forked.contains(&log.channel) {
            true => State::Forked,
            false => state(shared, &board.namespaces, beats, &log, now),
        };
        let marks = log.marks();
        board.statements += u64::from(marks.head.serial.number() - marks.low.number()) + 1;
        board.counts[state.index()] += 1;
        board.rows.push(Row { log, state });
    }
    board
}

fn standing(
    shared: &Shared,
    provisioned: &Provisioned,
    logs: &[Arc<Log>],
    beats: &mut LiveBeats,
    now: Timestamp,
) -> Standing {
    let namespace = &provisioned.anchor.namespace;
    let trust = provisioned.trust.load_full();
    let (mut all, mut ways) = (Vec::new(), BTreeSet::new());
    let own = |log: &&Arc<Log>| {
        (log.channel.is_beat() || log.channel.is_trust())
            && shared.namespaces.is_of(&log.channel, namespace)
    };
    for log in logs.iter().filter(own) {
        let head = log.marks().head;
        let record = shared.store.get(&log.channel, head.serial);
        ways.extend(record.ok().flatten().map(|record| record.path));
        let newest = trust.as_deref().and_then(|trust| {
            let newest = beats.newest(&shared.logs, &shared.store, trust, &log.channel)?;
            Some((newest, trust))
        });
        if let Some((newest, trust)) = newest {
            all.push(Beat {
                channel: log.channel.clone(),
                serial: head.serial,
                time: newest.time,
                arrived: newest.arrived,
                until: newest.until,
                is_live: newest.is_live(trust, now),
                names: newest.heads.len(),
            });
        }
    }
    Standing {
        namespace: namespace.clone(),
        trust,
        beats: all,
        ways,
    }
}

/// The first that holds, as a device decides (spec part 2).
fn state(
    shared: &Shared,
    namespaces: &[Standing],
    beats: &mut LiveBeats,
    log: &Arc<Log>,
    now: Timestamp,
) -> State {
    let channel = &log.channel;
    let own = namespaces.iter().map(|standing| &standing.namespace);
    let own = Namespace::longest(own, channel);
    let standing = namespaces
        .iter()
        .find(|standing| Some(&standing.namespace) == own);
    let Some((standing, trust)) = standing.and_then(|own| Some((own, own.trust.as_deref()?)))
    else {
        return State::Stale { since: None };
    };
    if trust.rules().is_closed(channel) {
        return State::Closed;
    }
    if channel.is_beat() || channel.is_trust() {
        return of_namespace(standing, trust, channel);
    }
    let Some(speaks) = trust.beat_channel(channel) else {
        return State::Unconfirmed;
    };
    // What is not proven is not looked at again for each channel.
    if !standing.beats.iter().any(|beat| beat.channel == speaks) {
        return State::Stale { since: None };
    }
    let Some(newest) = beats.newest(&shared.logs, &shared.store, trust, &speaks) else {
        return State::Stale { since: None };
    };
    named(newest, trust, log, now)
}

fn named(newest: &Newest, trust: &Trust, log: &Arc<Log>, now: Timestamp) -> State {
    let head = log.marks().head;
    let contradicts = |named: &Head| named.serial <= head.serial && log.contradicts(*named);
    let (named, of_trust) = (
        newest.heads.get(&log.channel),
        newest.heads.get(trust.statement().channel()),
    );
    if named.is_some_and(contradicts)
        || of_trust.is_some_and(|of| of.serial == trust.serial() && *of != trust.head())
    {
        return State::Forked;
    }
    if let Some(of) = of_trust.filter(|of| of.serial > trust.serial()) {
        return State::Behind { named: of.serial };
    }
    match named {
        Some(named) if named.serial > head.serial => State::Behind {
            named: named.serial,
        },
        Some(_) if newest.is_live(trust, now) => State::Current {
            until: newest.until,
        },
        named => State::Stale {
            since: named.map(|_| newest.until),
        },
    }
}

/// A beat channel stands as its newest beat does; a trust log as the best of its namespace.
fn of_namespace(standing: &Standing, trust: &Trust, channel: &Channel) -> State {
    let speaks = |beat: &&Beat| channel.is_trust() || beat.channel == *channel;
    let beats = || standing.beats.iter().filter(speaks);
    if let Some(until) = beats()
        .filter(|beat| beat.is_live)
        .map(|beat| beat.until)
        .max()
    {
        return State::Current { until };
    }
    let since = beats().map(|beat| beat.until).max();
    let promised = match channel.is_beat() {
        true => trust.role(Kind::Beat, channel).is_some(),
        false => since.is_some() || trust.beat_channel(channel).is_some(),
    };
    match promised {
        true => State::Stale { since },
        false => State::Unconfirmed,
    }
}

/// How far the feeds are behind our logs, by the cursors that they have kept.
fn feeds(shared: &Shared, logs: &[Arc<Log>]) -> Vec<Fed> {
    let fed = |feed: &crate::config::Feed| {
        let (mut statements, mut channels) = (0, 0);
        for log in logs
            .iter()
            .filter(|log| feed.channels.matches(log.channel.as_str()))
        {
            let marks = log.marks();
            let done = shared.store.feed_cursor(&feed.name, &log.channel);
            let done = done.unwrap_or(0).max(marks.low.number() - 1);
            let left = marks.head.serial.number().saturating_sub(done);
            statements += u64::from(left);
            channels += u64::from(left > 0);
        }
        Fed {
            name: feed.name.clone(),
            to: feed.to.to_string(),
            statements,
            channels,
        }
    };
    shared.settings.feeds.iter().map(fed).collect()
}
