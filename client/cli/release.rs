//! Releases: what is new, and where it can be had; or one that was published before, once more.

use std::{collections::BTreeMap, ffi::OsString};

use clap::Args;
use tidings_client::{Body, Channel, Serial, SlotError, Statement, Timestamp, now};
use tidings_protocol::{
    slot::SlotName,
    statement::{Kind, Target},
};

use super::{
    From,
    exit::Exit,
    output, payload,
    publishing::{Desk, Draft, Finish, Place, finish, finish_offline, said},
    slot::SlotServers,
    withdraw::withdrawn_by,
};

#[derive(Args)]
pub(super) struct Release {
    /// The channel
    channel: Channel,
    /// The version, a token without spaces; order is by serial alone
    #[arg(long, required_unless_present = "again")]
    version: Option<String>,
    /// Publish what a release said once more: before it falls out of retention, or after the key of
    /// withdrawals was stolen
    #[arg(long, value_name = "SERIAL", conflicts_with_all = ["version", "content"])]
    again: Option<Serial>,
    #[command(flatten)]
    content: Content,
    #[command(flatten)]
    slot_servers: SlotServers,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    finish: Finish,
}

#[derive(Args)]
#[group(id = "content", multiple = true)]
struct Content {
    /// One line for people
    #[arg(long)]
    summary: Option<String>,
    /// Where people can read more
    #[arg(long, value_name = "URL")]
    details: Option<String>,
    /// routine, security or critical
    #[arg(long)]
    urgency: Option<String>,
    /// Selectors that must all match, `KEY=VALUE…`; repeatable as alternatives
    #[arg(long = "target", value_name = "SELECTORS")]
    targets: Vec<String>,
    /// The serial that must have been applied first
    #[arg(long, value_name = "SERIAL")]
    barrier: Option<String>,
    /// Not to be applied before, YYYY-MM-DDTHH:MM:SSZ
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// To be applied by, YYYY-MM-DDTHH:MM:SSZ
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// The window in which it spreads, `START SECONDS [spread=SECONDS] [cohort=KEY]`
    #[arg(long, value_name = "WINDOW")]
    rollout: Option<String>,
    /// The group in which a slot is needed before going down
    #[arg(long, value_name = "GROUP")]
    slot: Option<String>,
    /// reboot, kexec, `restart UNIT…`, live or none
    #[arg(long)]
    apply: Option<String>,
    /// A way to get it, `FORMAT FILE URL [KEY=VALUE…]`; size and SHA-256 are those of FILE, and
    /// `base=@FILE` or `result=@FILE` become the SHA-256 of that file. Or `@FILE`: the lines that
    /// `tidings payload make` has written. Repeatable
    #[arg(long = "payload", value_name = "PAYLOAD")]
    payloads: Vec<OsString>,
}

impl Release {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let fields = match self.version {
            Some(version) => self.content.fields(version)?,
            None => Vec::new(),
        };
        let mut draft = Draft {
            kind: Kind::Release,
            channel: self.channel,
            fields,
        };
        warn_of_time(&draft, now());
        if self.place.from.brokers.is_empty() || self.place.after.is_some() {
            let which =
                || Exit::Usage.because("--again: which broker has it? give --broker and --anchor");
            return if self.again.is_some() {
                Err(which())
            } else {
                finish_offline(&draft, &self.place, &self.finish)
            };
        }
        let mut desk = Desk::open(&self.place.from, &self.finish.outbox).await?;
        let begun = desk.begin(&draft.channel).await?;
        if let Some(serial) = self.again {
            draft.fields = again(&mut desk, &draft.channel, serial).await?;
        }
        warn_of_retention(&mut desk, &draft).await?;
        warn_of_slot(&self.slot_servers, &self.place.from, &draft).await;
        finish(&mut desk, begun, draft, &self.finish).await
    }
}

impl Content {
    fn fields(self, version: String) -> anyhow::Result<Vec<(String, String)>> {
        let mut fields = vec![("Version".to_owned(), version)];
        let mut add = |name: &str, value: Option<String>| {
            fields.extend(value.map(|value| (name.to_owned(), value)))
        };
        add("Summary", self.summary);
        add("Details", self.details);
        add("Urgency", self.urgency);
        self.targets
            .into_iter()
            .for_each(|target| add("Target", Some(target)));
        add("Barrier", self.barrier);
        add("Not-Before", self.not_before);
        add("Deadline", self.deadline);
        add("Rollout", self.rollout);
        add("Slot", self.slot);
        add("Apply", self.apply);
        for payload in &self.payloads {
            for value in payload::values(payload)? {
                add("Payload", Some(value));
            }
        }
        Ok(fields)
    }
}

/// What a release has said, to be said once more.
async fn again(
    desk: &mut Desk,
    channel: &Channel,
    serial: Serial,
) -> anyhow::Result<Vec<(String, String)>> {
    let (log, low) = desk.publisher.log(channel, serial).await?;
    let there = log.first().filter(|statement| statement.serial() == serial);
    let none = || {
        Exit::Refused.because(format!(
            "--again: the origin has no {channel} {serial}; its log begins at {low}"
        ))
    };
    let there = there.ok_or_else(none)?;
    if there.kind() != Kind::Release {
        return Err(Exit::Refused.because(format!(
            "--again: {channel} {serial} is a {}, and only a release can be published again",
            there.kind()
        )));
    }
    if let Some(by) = withdrawn_by(there, &log) {
        output::note(&format!(
            "{channel} {serial} was withdrawn by {}; the release that says the same again is not",
            by.serial()
        ));
    }
    Ok(said(there))
}

/// What a release says of a time that has passed already.
fn warn_of_time(draft: &Draft, now: Timestamp) {
    for (name, value) in &draft.fields {
        // What is no time is refused later, with its line.
        let Ok(time) = value.parse::<Timestamp>() else {
            continue;
        };
        if name == "Deadline" && time <= now {
            output::note(&format!(
                "the deadline {time} has passed already: devices are to apply it at once"
            ));
        }
    }
}

/// Devices would wait for ever for a slot of a group that no broker has.
async fn warn_of_slot(servers: &SlotServers, from: &From, draft: &Draft) {
    let slot = draft.fields.iter().find(|(name, _)| name == "Slot");
    let Some(Ok(group)) = slot.map(|(_, value)| value.parse::<SlotName>()) else {
        return;
    };
    let Ok(mut slots) = servers.slots(&from.tls) else {
        return;
    };
    // Whoever may not ask, or cannot now, learns nothing of it.
    if let Err(SlotError::NoGroup(group)) = slots.status(&group).await {
        output::note(&format!(
            "the slot server has no group {group}: devices will not go down before it has ([[slot]])"
        ));
    }
}

/// Of the part of a log that an origin keeps, from so near its lower end on a release is about to
/// fall out.
const NEAR_PART: u32 = 10;

/// S15: says which release, the newest for its set of targets, is about to fall out of what the
/// origin keeps.
async fn warn_of_retention(desk: &mut Desk, draft: &Draft) -> anyhow::Result<()> {
    let channel = &draft.channel;
    let low = match desk.publisher.low(channel).await? {
        Some(low) if low > 1 => low,
        // Nothing has fallen out yet: nothing is known of how much is kept.
        _ => return Ok(()),
    };
    let (log, low) = desk
        .publisher
        .log(channel, Serial::new(low).unwrap_or(Serial::FIRST))
        .await?;
    let log: Vec<&Statement> = log.iter().map(|statement| &**statement).collect();
    for (targets, serial) in about_to_fall_out(&log, low) {
        let says = draft
            .fields
            .iter()
            .filter(|(name, _)| name == "Target")
            .map(|(_, value)| value.as_str());
        if says.eq(targets.iter().map(String::as_str)) {
            continue;
        }
        let whom = if targets.is_empty() {
            "every machine".to_owned()
        } else {
            targets.join(" or ")
        };
        output::note(&format!(
            "{channel} {serial}, the newest release for {whom}, is about to fall out of what the origin keeps (its log begins at {low}): `tidings release {channel} --again {serial}` publishes it once more"
        ));
    }
    Ok(())
}

/// The newest release for each set of targets, if it is among the lowest tenth of the log, and not
/// withdrawn.
fn about_to_fall_out(log: &[&Statement], low: u32) -> Vec<(Vec<String>, Serial)> {
    let text = |target: &Target| {
        target
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut newest: BTreeMap<Vec<String>, &Statement> = BTreeMap::new();
    for statement in log {
        if let Body::Release(release) = statement.body() {
            newest.insert(release.targets.iter().map(text).collect(), statement);
        }
    }
    let kept = u32::try_from(log.len()).unwrap_or(u32::MAX);
    let near = |statement: &Statement| {
        statement.serial().number() < low.saturating_add((kept / NEAR_PART).max(1))
    };
    let head = log.last().map(|head| head.serial());
    let due = newest
        .into_iter()
        .filter(|(_, s)| near(s) && Some(s.serial()) != head && withdrawn_by(s, log).is_none());
    due.map(|(targets, statement)| (targets, statement.serial()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(serial: u32, kind: &str, fields: &str) -> Statement {
        let id = tidings_protocol::StatementId::of(b"x");
        let text = format!(
            "Tidings: 1 {kind}\nChannel: a.b\nSerial: {serial}\nPrevious: {id}\nTime: 2026-01-01T00:00:00Z\nTrust: 1\n{fields}"
        );
        Statement::parse_draft(text.as_bytes()).unwrap()
    }

    #[test]
    fn attack_123_the_newest_release_of_a_set_of_targets_is_named_before_it_falls_out() {
        let mut log: Vec<Statement> = vec![
            statement(11, "release", "Version: 1\nTarget: machine=old\n"),
            statement(12, "release", "Version: 1\nTarget: machine=new\n"),
        ];
        log.extend(
            (13..31)
                .map(|serial| statement(serial, "release", "Version: 2\nTarget: machine=new\n")),
        );
        let all: Vec<&Statement> = log.iter().collect();
        assert_eq!(
            about_to_fall_out(&all, 11),
            [(vec!["machine=old".to_owned()], Serial::new(11).unwrap())]
        );
        // Further up it is not near yet, and what is withdrawn is not missed.
        let near: Vec<&Statement> = log[1..].iter().collect();
        assert_eq!(about_to_fall_out(&near, 12), []);
        let by = statement(
            31,
            "withdraw",
            &format!("Withdraws: {}\nReason: x\n", log[0].head()),
        );
        let with: Vec<&Statement> = log.iter().chain([&by]).collect();
        assert_eq!(about_to_fall_out(&with, 11), []);
    }

    #[test]
    fn what_a_release_has_said_is_said_again() {
        let release = statement(
            5,
            "release",
            "Version: 1\nSummary: a: b\nTarget: x=y\nTarget: x=z\nColour: blue\n",
        );
        let fields = said(&release);
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Version", "Summary", "Target", "Target", "Colour"]);
        assert_eq!(fields[1].1, "a: b");
    }
}
