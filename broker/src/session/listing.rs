//! The commands that list channels, what has come, and what this broker can do.

use std::sync::Arc;

use tidings_protocol::{
    Channel, Serial, Timestamp, Wildmat, article,
    nntp::{COMMANDS, DateTime, ListItem, Response, code},
};

use super::{
    End, Session,
    reading::{Answer, end, line},
};
use crate::{clock, limits::WILDMAT_PATTERNS, log::logs::Log, relay::watch::Guest};

fn description(log: &Log) -> &'static str {
    match () {
        () if log.channel.is_trust() => "Who may sign what in this namespace",
        () if log.channel.is_beat() => "What is newest, said every few minutes",
        () => "Signed announcements of releases",
    }
}

/// RFC 3977 section 8.4 allows this older form, and there are readers that know no other.
const OVERVIEW: [&str; 8] = [
    "Subject:",
    "From:",
    "Date:",
    "Message-ID:",
    "References:",
    "Bytes:",
    "Lines:",
    "Xref:full",
];

fn names(session: &mut Session, what: &str, names: &[&str]) -> Answer {
    session.respond(code::LIST, what);
    for name in names {
        line(session, format_args!("{name}"));
    }
    end(session);
    Ok(())
}

/// The status of every channel: whether clients may post.
fn status(session: &Session) -> char {
    match session.shared().settings.config.posting {
        true => 'y',
        false => 'n',
    }
}

pub(super) async fn list(session: &mut Session, item: ListItem) -> Answer {
    let (wildmat, kind): (Option<Wildmat>, fn(&mut Session, &Log)) = match item {
        ListItem::Active(wildmat) => (wildmat, |session, log| active_line(session, log)),
        ListItem::ActiveTimes(wildmat) => (wildmat, |session, log| {
            line(
                session,
                format_args!("{} {} tidings", log.channel, log.marks().created.seconds()),
            );
        }),
        ListItem::Counts(wildmat) => (wildmat, |session, log| {
            let (marks, status) = (log.marks(), status(session));
            let (low, high) = (marks.low.number(), marks.head.serial.number());
            line(
                session,
                format_args!("{} {high} {low} {} {status}", log.channel, high - low + 1),
            );
        }),
        // Whoever is new here may want what is announced, and not how it is proven.
        ListItem::Subscriptions(wildmat) => (wildmat, |session, log| {
            if !log.channel.is_trust() && !log.channel.is_beat() {
                line(session, format_args!("{}", log.channel));
            }
        }),
        ListItem::Newsgroups(wildmat) => (wildmat, |session, log| {
            line(
                session,
                format_args!("{}\t{}", log.channel, description(log)),
            )
        }),
        ListItem::Headers => {
            let what = "headers and metadata that HDR knows";
            return names(session, what, &[":", ":bytes", ":lines"]);
        }
        ListItem::OverviewFmt => {
            return names(session, "fields of the overview", &OVERVIEW);
        }
        ListItem::NotStored => {
            return Err(Response::new(code::NOT_STORED, "this broker keeps no such list").into());
        }
    };
    few_patterns(wildmat.as_ref())?;
    session.respond(code::LIST, "list follows");
    let mut after = None;
    while let Some(logs) = page(session, &mut after) {
        for log in logs {
            if means(session, wildmat.as_ref(), &log).await? {
                kind(session, &log);
                session.relieve().await?;
            }
        }
    }
    end(session);
    Ok(())
}

/// A wildmat of few patterns is cheap, whatever they are.
fn few_patterns(wildmat: Option<&Wildmat>) -> Result<(), Response> {
    match wildmat.map_or(0, Wildmat::patterns) {
        0..=WILDMAT_PATTERNS => Ok(()),
        many => Err(Response::new(
            code::SYNTAX,
            format_args!(
                "a wildmat has at most {WILDMAT_PATTERNS} patterns here, this one has {many}"
            ),
        )),
    }
}

/// The channels after those that were looked at last; none at the end.
fn page(session: &Session, after: &mut Option<Channel>) -> Option<Vec<Arc<Log>>> {
    let logs = session.shared().logs.page(after.as_ref());
    *after = Some(logs.last()?.channel.clone());
    Some(logs)
}

/// Whether a channel exists for the client, and is meant; the client pays for the look.
async fn means(session: &mut Session, wildmat: Option<&Wildmat>, log: &Log) -> Result<bool, End> {
    let name = log.channel.as_str();
    session
        .pay(name.len() + wildmat.map_or(0, |wildmat| wildmat.cost(name)))
        .await?;
    Ok(wildmat.is_none_or(|wildmat| wildmat.matches(name)) && session.place.may_read(&log.channel))
}

fn active_line(session: &mut Session, log: &Log) {
    let (marks, status) = (log.marks(), status(session));
    line(
        session,
        format_args!(
            "{} {} {} {status}",
            log.channel, marks.head.serial, marks.low
        ),
    );
}

fn since(date: DateTime) -> Result<Timestamp, Response> {
    date.resolve(clock::now())
        .ok_or_else(|| Response::new(code::SYNTAX, "there is no such date"))
}

pub(super) async fn new_groups(session: &mut Session, date: DateTime) -> Answer {
    let since = since(date)?;
    session.respond(code::NEWGROUPS, "new channels follow");
    let mut after = None;
    while let Some(logs) = page(session, &mut after) {
        for log in logs {
            if means(session, None, &log).await? && log.marks().created >= since {
                active_line(session, &log);
                session.relieve().await?;
            }
        }
    }
    end(session);
    Ok(())
}

pub(super) async fn new_news(session: &mut Session, wildmat: &Wildmat, date: DateTime) -> Answer {
    let since = since(date)?;
    few_patterns(Some(wildmat))?;
    session.respond(code::NEWNEWS, "message-ids follow");
    let mut after = None;
    while let Some(logs) = page(session, &mut after) {
        for log in logs {
            if means(session, Some(wildmat), &log).await? {
                news_of(session, &log, since).await?;
            }
        }
    }
    end(session);
    Ok(())
}

async fn news_of(session: &mut Session, log: &Arc<Log>, since: Timestamp) -> Answer {
    // Serials arrive in their order: from the head down to the first that is older.
    let marks = log.marks();
    let mut first = marks.head.serial.number() + 1;
    for serial in (marks.low.number()..=marks.head.serial.number())
        .rev()
        .filter_map(Serial::new)
    {
        if log.arrived(serial)?.is_none_or(|at| at < since) {
            break;
        }
        first = serial.number();
        session.relieve().await?;
    }
    for serial in (first..=marks.head.serial.number()).filter_map(Serial::new) {
        let Some((head, octets)) = log.head_at(serial)? else {
            continue;
        };
        session.pay(octets).await?;
        line(session, format_args!("{}", log.message_id(head)));
        session.relieve().await?;
    }
    Ok(())
}

pub(super) fn capabilities(session: &mut Session) {
    let shared = session.shared().clone();
    let (posting, access) = (shared.settings.config.posting, &shared.settings.access);
    session.respond(code::CAPABILITIES, "capabilities follow");
    line(session, format_args!("VERSION 2"));
    line(
        session,
        format_args!("IMPLEMENTATION Tidings {}", env!("CARGO_PKG_VERSION")),
    );
    let mut known: Vec<&str> = COMMANDS
        .iter()
        .map(|entry| entry.capability)
        .filter(|c| !c.is_empty())
        .collect();
    known.sort_unstable();
    known.dedup();
    let feeds = access.may_feed_something(&session.place.known);
    let login = session.stream.tls.is_some() && access.has_passwords();
    for capability in known {
        match capability {
            // Offered by servers that still have to switch; this one is a reader's already.
            "MODE-READER" => {}
            "POST" if !posting => {}
            "IHAVE" | "STREAMING" if !feeds => {}
            "AUTHINFO" => {
                if login {
                    line(session, format_args!("AUTHINFO USER"));
                }
            }
            "LIST" => line(
                session,
                format_args!(
                    "LIST ACTIVE ACTIVE.TIMES COUNTS HEADERS NEWSGROUPS OVERVIEW.FMT SUBSCRIPTIONS"
                ),
            ),
            "OVER" => line(session, format_args!("OVER MSGID")),
            other => line(session, format_args!("{other}")),
        }
    }
    end(session);
}

pub(super) fn help(session: &mut Session) {
    session.respond(code::HELP, "commands");
    for entry in COMMANDS {
        line(
            session,
            format_args!("  {:<70} {}", entry.usage(), entry.help),
        );
    }
    line(
        session,
        format_args!(
            "Every header but Path follows from the signed statement in the body: {}.",
            article::HEADERS.join(", ")
        ),
    );
    end(session);
}
