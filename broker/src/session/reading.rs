//! The commands that read (RFC 3977 sections 5 to 8).

use std::{io::Write as _, sync::Arc};

use tidings_protocol::{
    MessageId, Serial, StatementId,
    nntp::{Command, Part, Range, Response, Selector, code},
};

use super::{End, Session, listing};
use crate::{
    clock,
    log::{
        logs::{Entry, Log},
        store::StoreError,
    },
};

/// Why a reading command gets no data.
pub(super) enum Refusal {
    Response(Response),
    End(End),
}

impl From<Response> for Refusal {
    fn from(response: Response) -> Self {
        Refusal::Response(response)
    }
}
impl From<End> for Refusal {
    fn from(end: End) -> Self {
        Refusal::End(end)
    }
}
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a statement cannot be read");
        Refusal::Response(Response::new(
            code::INTERNAL,
            "the store cannot be read; the broker's log says why",
        ))
    }
}

pub(super) type Answer = Result<(), Refusal>;

pub(super) async fn answer(session: &mut Session, command: Command) -> Result<(), End> {
    match dispatch(session, command).await {
        Ok(()) => Ok(()),
        Err(Refusal::Response(response)) => {
            session.respond(response.code, response.text);
            Ok(())
        }
        Err(Refusal::End(end)) => Err(end),
    }
}

async fn dispatch(session: &mut Session, command: Command) -> Answer {
    match command {
        Command::Article(part, selector) => article(session, part, &selector).await,
        Command::Capabilities => {
            listing::capabilities(session);
            Ok(())
        }
        Command::Date => {
            let c = clock::now().civil();
            let text = format!(
                "{:04}{:02}{:02}{:02}{:02}{:02}",
                c.year, c.month, c.day, c.hour, c.minute, c.second
            );
            session.respond(code::DATE, text);
            Ok(())
        }
        Command::Group(name) => {
            let log = select(session, &name)?;
            session.respond(code::GROUP, group_line(&log));
            Ok(())
        }
        Command::Hdr {
            field,
            selector,
            legacy,
        } => hdr(session, &field, &selector, legacy).await,
        Command::Help => {
            listing::help(session);
            Ok(())
        }
        Command::Last => step(session, false).await,
        Command::Next => step(session, true).await,
        Command::List(item) => listing::list(session, item).await,
        Command::ListGroup { group, range } => list_group(session, group, range).await,
        Command::ModeReader => {
            let posting = session.shared().settings.config.posting;
            session.respond(
                if posting {
                    code::READY
                } else {
                    code::READY_NO_POSTING
                },
                "reader mode, as always",
            );
            Ok(())
        }
        Command::NewGroups(since) => listing::new_groups(session, since).await,
        Command::NewNews(wildmat, since) => listing::new_news(session, &wildmat, since).await,
        Command::Over(selector) => over(session, &selector).await,
        // These change the session itself and are answered there.
        Command::Post
        | Command::Quit
        | Command::Xwatch(_)
        | Command::AuthinfoUser(_)
        | Command::AuthinfoPass(_)
        | Command::Check(_)
        | Command::Ihave(_)
        | Command::ModeStream
        | Command::TakeThis(_) => Ok(()),
    }
}

pub(super) fn line(session: &mut Session, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = session.output.write_fmt(text);
    session.output.extend_from_slice(b"\r\n");
}

pub(super) fn end(session: &mut Session) {
    session.output.extend_from_slice(b".\r\n");
}

fn no_such_group(name: &str) -> Response {
    let name: String = name.chars().take(128).collect();
    Response::new(code::NO_SUCH_GROUP, format_args!("no channel {name} here"))
}

fn no_such_number() -> Response {
    Response::new(
        code::NO_SUCH_NUMBER,
        "no such article number in this channel",
    )
}

fn group_line(log: &Log) -> String {
    let marks = log.marks();
    let (low, high) = (marks.low.number(), marks.head.serial.number());
    format!("{} {low} {high} {}", high - low + 1, log.channel)
}

fn select(session: &mut Session, name: &str) -> Result<Arc<Log>, Response> {
    let log = session.log(name).ok_or_else(|| no_such_group(name))?;
    session.place.current = Some(log.marks().low);
    session.place.log = Some(log.clone());
    Ok(log)
}

fn selected(session: &Session) -> Result<Arc<Log>, Response> {
    session
        .place
        .log
        .clone()
        .ok_or_else(|| Response::new(code::NO_GROUP, "no channel selected, use GROUP"))
}

fn current(session: &Session) -> Result<(Arc<Log>, Serial), Response> {
    let log = selected(session)?;
    let serial = session
        .place
        .current
        .ok_or_else(|| Response::new(code::NO_CURRENT, "no current article"))?;
    Ok((log, serial))
}

/// What a selector means.
struct Located {
    /// The number that the answer shows: 0 when it was asked for by message-id.
    number: u32,
    log: Arc<Log>,
    serial: Serial,
    /// What it has to be, if it was asked for by message-id.
    id: Option<StatementId>,
    /// The answer if it is not there.
    otherwise: Response,
}

fn locate(session: &Session, selector: &Selector) -> Result<Located, Refusal> {
    match selector {
        Selector::Current => {
            let (log, serial) = current(session)?;
            let otherwise = Response::new(code::NO_CURRENT, "the current article has expired");
            Ok(Located {
                number: serial.number(),
                log,
                serial,
                id: None,
                otherwise,
            })
        }
        Selector::Range(range) => {
            let log = selected(session)?;
            let serial = u32::try_from(range.low)
                .ok()
                .and_then(Serial::new)
                .ok_or_else(no_such_number)?;
            Ok(Located {
                number: serial.number(),
                log,
                serial,
                id: None,
                otherwise: no_such_number(),
            })
        }
        Selector::MessageId(text) => {
            let unknown =
                || Response::new(code::NO_SUCH_ID, "no article with that message-id here");
            let id: MessageId = text.parse().map_err(|_| unknown())?;
            let log = session.log(id.channel.as_str()).ok_or_else(unknown)?;
            Ok(Located {
                number: 0,
                log,
                serial: id.serial,
                id: Some(id.id),
                otherwise: unknown(),
            })
        }
    }
}

/// One article, with the number that the answer shows.
async fn find(
    session: &mut Session,
    selector: &Selector,
) -> Result<(u32, Arc<Log>, Arc<Entry>), Refusal> {
    let Located {
        number,
        log,
        serial,
        id,
        otherwise,
    } = locate(session, selector)?;
    let entry = log
        .entry(serial)?
        .filter(|entry| id.is_none_or(|id| id == entry.head.id))
        .ok_or(otherwise)?;
    session.pay(entry.article().len()).await?;
    Ok((number, log, entry))
}

async fn article(session: &mut Session, part: Part, selector: &Selector) -> Answer {
    if part == Part::Stat {
        return stat(session, selector).await;
    }
    let (number, log, entry) = find(session, selector).await?;
    if number > 0 {
        session.place.current = Some(entry.head.serial);
    }
    let (code, octets) = match part {
        Part::Head => (code::HEAD, entry.headers()),
        Part::Body => (code::BODY, entry.body()),
        Part::Article | Part::Stat => (code::ARTICLE, entry.article()),
    };
    session.respond(
        code,
        format_args!("{number} {}", log.message_id(entry.head)),
    );
    session.output.extend_from_slice(octets);
    end(session);
    Ok(())
}

/// Nothing is rendered or copied to say that something is there (attack 102).
async fn stat(session: &mut Session, selector: &Selector) -> Answer {
    let Located {
        number,
        log,
        serial,
        id,
        otherwise,
    } = locate(session, selector)?;
    let (head, octets) = log
        .head_at(serial)?
        .filter(|(head, _)| id.is_none_or(|id| id == head.id))
        .ok_or(otherwise)?;
    session.pay(octets).await?;
    if number > 0 {
        session.place.current = Some(serial);
    }
    session.respond(
        code::STAT,
        format_args!("{number} {}", log.message_id(head)),
    );
    Ok(())
}

async fn step(session: &mut Session, forward: bool) -> Answer {
    let (log, serial) = current(session)?;
    let marks = log.marks();
    let number = if forward {
        serial.number() + 1
    } else {
        serial.number() - 1
    };
    let there = Serial::new(number).filter(|s| (marks.low..=marks.head.serial).contains(s));
    let Some(there) = there else {
        let (code, text) = if forward {
            (code::NO_NEXT, "this is the head")
        } else {
            (code::NO_PREVIOUS, "this is the oldest here")
        };
        return Err(Response::new(code, text).into());
    };
    let (head, octets) = log.head_at(there)?.ok_or_else(no_such_number)?;
    session.pay(octets).await?;
    session.place.current = Some(there);
    session.respond(code::STAT, format_args!("{there} {}", log.message_id(head)));
    Ok(())
}

/// The serials of a range that are here.
fn serials(log: &Log, range: Range) -> std::ops::RangeInclusive<u32> {
    let marks = log.marks();
    let high = u32::try_from(range.high)
        .unwrap_or(u32::MAX)
        .min(marks.head.serial.number());
    let low = u32::try_from(range.low)
        .unwrap_or(u32::MAX)
        .max(marks.low.number());
    low..=high
}

/// The articles that OVER and HDR speak of, each with the number to show.
async fn several(
    session: &mut Session,
    selector: &Selector,
) -> Result<(Arc<Log>, u32, std::ops::RangeInclusive<u32>), Refusal> {
    match selector {
        Selector::Range(range) => {
            let log = selected(session)?;
            let serials = serials(&log, *range);
            if serials.is_empty() {
                Err(no_such_number().into())
            } else {
                Ok((log, 1, serials))
            }
        }
        single => {
            let (number, log, entry) = find(session, single).await?;
            let serial = entry.head.serial.number();
            Ok((log, number.min(1), serial..=serial))
        }
    }
}

/// Where an article stands: its channel is its only group.
fn xref(session: &Session, log: &Log, serial: Serial) -> String {
    format!(
        "{} {}:{serial}",
        session.shared().settings.config.name,
        log.channel
    )
}

async fn over(session: &mut Session, selector: &Selector) -> Answer {
    let (log, shown, serials) = several(session, selector).await?;
    session.respond(code::OVERVIEW, "overview follows");
    for serial in serials.filter_map(Serial::new) {
        // One that expired meanwhile, or is damaged, is left out, as RFC 3977 section 8.3 allows.
        let Ok(Some(entry)) = log.entry(serial) else {
            continue;
        };
        session.pay(entry.article().len()).await?;
        let header = |name| entry.header(name).unwrap_or_default();
        let (subject, from, date, id) = (
            header("Subject"),
            header("From"),
            header("Date"),
            header("Message-ID"),
        );
        let (number, octets, lines) = (
            serial.number() * shown,
            entry.article().len(),
            entry.body_lines(),
        );
        let xref = xref(session, &log, serial);
        line(
            session,
            format_args!(
                "{number}\t{subject}\t{from}\t{date}\t{id}\t\t{octets}\t{lines}\tXref: {xref}"
            ),
        );
        session.relieve().await?;
    }
    end(session);
    Ok(())
}

async fn hdr(session: &mut Session, field: &str, selector: &Selector, legacy: bool) -> Answer {
    let metadata = |entry: &Entry| match field.to_ascii_lowercase().as_str() {
        ":bytes" | "bytes" => Some(entry.article().len()),
        ":lines" | "lines" => Some(entry.body_lines()),
        _ => None,
    };
    if field.starts_with(':') && !matches!(field.to_ascii_lowercase().as_str(), ":bytes" | ":lines")
    {
        return Err(Response::new(code::NOT_STORED, "metadata here are :bytes and :lines").into());
    }
    let (log, shown, serials) = several(session, selector).await?;
    session.respond(
        if legacy { code::HEAD } else { code::HDR },
        "headers follow",
    );
    for serial in serials.filter_map(Serial::new) {
        let Ok(Some(entry)) = log.entry(serial) else {
            continue;
        };
        session.pay(entry.article().len()).await?;
        let number = serial.number() * shown;
        match metadata(&entry) {
            Some(value) => line(session, format_args!("{number} {value}")),
            None if field.eq_ignore_ascii_case("Xref") => {
                let xref = xref(session, &log, serial);
                line(session, format_args!("{number} {xref}"));
            }
            None => line(
                session,
                format_args!("{number} {}", entry.header(field).unwrap_or_default()),
            ),
        }
        session.relieve().await?;
    }
    end(session);
    Ok(())
}

async fn list_group(session: &mut Session, group: Option<String>, range: Range) -> Answer {
    let log = match group {
        Some(name) => select(session, &name)?,
        None => {
            let log = selected(session)?;
            session.place.current = Some(log.marks().low);
            log
        }
    };
    session.respond(
        code::GROUP,
        format_args!("{} list follows", group_line(&log)),
    );
    for serial in serials(&log, range) {
        line(session, format_args!("{serial}"));
        session.relieve().await?;
    }
    end(session);
    Ok(())
}
