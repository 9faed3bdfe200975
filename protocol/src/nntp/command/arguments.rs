//! Arguments of commands.

use alloc::borrow::ToOwned;

use super::{Command, DateTime, ListItem, Part, Range, Selector, WatchTarget};
use crate::Wildmat;

pub(super) fn article(part: Part, arguments: &[&str]) -> Option<Command> {
    let selector = selector(arguments)?;
    let single = !matches!(selector, Selector::Range(range) if range.low != range.high);
    single.then_some(Command::Article(part, selector))
}

pub(super) fn selector(arguments: &[&str]) -> Option<Selector> {
    Some(match arguments.first() {
        None => Selector::Current,
        Some(id) if id.starts_with('<') => Selector::MessageId((*id).to_owned()),
        Some(range) => Selector::Range(parse_range(range)?),
    })
}

fn parse_range(text: &str) -> Option<Range> {
    // RFC 3977 section 6 allows sixteen digits, leading zeros among them.
    let number = |t: &str| {
        (t.len() <= 16 && t.bytes().all(|b| b.is_ascii_digit()))
            .then(|| t.parse().ok())
            .flatten()
    };
    match text.split_once('-') {
        None => number(text).map(|n| Range { low: n, high: n }),
        Some((low, "")) => Some(Range {
            low: number(low)?,
            high: u64::MAX,
        }),
        Some((low, high)) => Some(Range {
            low: number(low)?,
            high: number(high)?,
        }),
    }
}

pub(super) fn hdr(legacy: bool, arguments: &[&str]) -> Option<Command> {
    Some(Command::Hdr {
        field: arguments[0].into(),
        selector: selector(&arguments[1..])?,
        legacy,
    })
}

pub(super) fn list(arguments: &[&str]) -> Option<Command> {
    let wildmat = || {
        arguments
            .get(1)
            .map(|w| w.parse::<Wildmat>().ok())
            .map_or(Some(None), |w| w.map(Some))
    };
    let item = match arguments
        .first()
        .map(|word| word.to_ascii_uppercase())
        .as_deref()
    {
        None | Some("ACTIVE") => ListItem::Active(wildmat()?),
        Some("ACTIVE.TIMES") => ListItem::ActiveTimes(wildmat()?),
        Some("COUNTS") => ListItem::Counts(wildmat()?),
        Some("NEWSGROUPS") => ListItem::Newsgroups(wildmat()?),
        Some("SUBSCRIPTIONS") => ListItem::Subscriptions(wildmat()?),
        Some("HEADERS") => match arguments
            .get(1)
            .map(|word| word.to_ascii_uppercase())
            .as_deref()
        {
            None | Some("MSGID" | "RANGE") => ListItem::Headers,
            Some(_) => return None,
        },
        Some("OVERVIEW.FMT") if arguments.len() == 1 => ListItem::OverviewFmt,
        Some("DISTRIB.PATS" | "DISTRIBUTIONS" | "MODERATORS" | "MOTD") => ListItem::NotStored,
        Some(_) => return None,
    };
    Some(Command::List(item))
}

pub(super) fn list_group(arguments: &[&str]) -> Option<Command> {
    let range = match arguments.get(1) {
        None => Range::ALL,
        Some(range) => parse_range(range)?,
    };
    Some(Command::ListGroup {
        group: arguments.first().map(|g| (*g).to_owned()),
        range,
    })
}

pub(super) fn date_time(arguments: &[&str]) -> Option<DateTime> {
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let (date, time) = (arguments[0], arguments[1]);
    let zone = arguments
        .get(2)
        .is_none_or(|zone| zone.eq_ignore_ascii_case("GMT"));
    if !matches!(date.len(), 6 | 8) || time.len() != 6 || !digits(date) || !digits(time) || !zone {
        return None;
    }
    let (year, date) = date.split_at(date.len() - 4);
    let two = |t: &str, at: usize| t[at..at + 2].parse::<u32>().ok();
    Some(DateTime {
        year: year.parse().ok()?,
        short_year: year.len() == 2,
        rest: [
            two(date, 0)?,
            two(date, 2)?,
            two(time, 0)?,
            two(time, 2)?,
            two(time, 4)?,
        ],
    })
}

pub(super) fn xwatch(arguments: &[&str]) -> Option<Command> {
    let target = |argument: &&str| match argument.split_once(':') {
        Some((channel, "0")) => Some(WatchTarget::After(channel.parse().ok()?, None)),
        Some((channel, serial)) => Some(WatchTarget::After(
            channel.parse().ok()?,
            Some(serial.parse().ok()?),
        )),
        None => Some(WatchTarget::Live(argument.parse().ok()?)),
    };
    arguments
        .iter()
        .map(target)
        .collect::<Option<_>>()
        .map(Command::Xwatch)
}
