//! From what a publisher wants to say to the text that is signed (spec part 1).

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::{Display, Write};

use super::{
    Statement, StatementError,
    kinds::{Apply, Beat, Body, Payload, Release, Rollout, TrustRules, Urgency, Withdraw},
};
use crate::{Channel, Head, Serial, Timestamp};

/// A statement before it is text: what [`Draft::write`] turns into the one canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The channel.
    pub channel: Channel,
    /// Its present head, which this statement will follow; none for the first statement.
    pub after: Option<Head>,
    /// The publisher's time.
    pub time: Timestamp,
    /// The serial of the present trust statement; none in a trust statement.
    pub trust: Option<Serial>,
    /// What is said.
    pub body: Body,
}

impl Draft {
    /// The text of the statement, without signatures, read back by the grammar.
    ///
    /// # Errors
    /// What the grammar refuses, e.g. a version with a space; and a channel that is full.
    pub fn write(&self) -> Result<Statement, StatementError> {
        let serial = match self.after {
            None => Some(Serial::FIRST),
            Some(head) => head.serial.next(),
        };
        let serial = serial.ok_or_else(|| {
            StatementError::new(3, "Serial", "the channel is full: its last serial is taken")
        })?;
        let mut text = Lines {
            text: String::new(),
            count: 0,
            broken: None,
        };
        text.line("Tidings", format_args!("1 {}", self.body.kind()));
        text.line("Channel", &self.channel);
        text.line("Serial", serial);
        text.line(
            "Previous",
            self.after
                .map_or("-".to_string(), |head| head.id.to_string()),
        );
        text.line("Time", self.time);
        text.optional("Trust", self.trust.as_ref());
        match &self.body {
            Body::Release(release) => text.release(release),
            Body::Withdraw(withdraw) => text.withdraw(withdraw),
            Body::Trust(trust) => text.trust(trust),
            Body::Beat(beat) => text.beat(beat),
        }
        match text.broken {
            Some(error) => Err(error),
            None => Statement::parse_draft(text.text.as_bytes()),
        }
    }
}

/// The text so far, and the first value that would have broken out of its line.
struct Lines {
    text: String,
    count: usize,
    broken: Option<StatementError>,
}

impl Lines {
    fn line(&mut self, name: &str, value: impl Display) {
        let start = self.text.len();
        self.count += 1;
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{name}: {value}");
        if self.broken.is_none() && self.text[start..].contains('\n') {
            self.broken = Some(StatementError::new(
                self.count,
                name,
                "expected one line of text, found several",
            ));
        }
        self.text.push('\n');
    }
    fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.line(name, value);
        }
    }

    fn release(&mut self, release: &Release) {
        self.line("Version", &release.version);
        self.optional("Summary", release.summary.as_ref());
        self.optional("Details", release.details.as_ref());
        if release.urgency != Urgency::default() {
            self.line("Urgency", release.urgency.as_str());
        }
        for target in &release.targets {
            self.line("Target", properties(target));
        }
        self.optional("Barrier", release.barrier);
        self.optional("Not-Before", release.not_before);
        self.optional("Deadline", release.deadline);
        self.optional("Rollout", release.rollout.as_ref());
        self.optional("Slot", release.slot.as_ref());
        self.optional("Apply", release.apply.as_ref());
        for payload in &release.payloads {
            self.line("Payload", payload);
        }
    }

    fn withdraw(&mut self, withdraw: &Withdraw) {
        self.line("Withdraws", withdraw.withdraws);
        self.line("Reason", &withdraw.reason);
    }

    fn trust(&mut self, trust: &TrustRules) {
        self.line("Expires", trust.expires);
        for key in &trust.keys {
            self.line("Key", format_args!("{} {}", key.key, key.name));
        }
        for role in &trust.roles {
            self.line(
                "Role",
                format_args!(
                    "{} {} {} {}",
                    role.kind,
                    role.pattern,
                    role.threshold,
                    role.names.join(" ")
                ),
            );
        }
        for checkpoint in &trust.checkpoints {
            self.line(
                "Checkpoint",
                format_args!("{} {}", checkpoint.channel, checkpoint.head),
            );
        }
        for closed in &trust.closed {
            self.line("Closed", closed);
        }
    }

    fn beat(&mut self, beat: &Beat) {
        self.line("Expires", beat.expires);
        for (channel, head) in &beat.heads {
            self.line("Head", format_args!("{channel} {head}"));
        }
    }
}

fn properties(all: &[(String, String)]) -> String {
    all.iter()
        .map(|(key, value)| alloc::format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

impl Display for Rollout {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}", self.start, self.seconds)?;
        self.spread
            .iter()
            .try_for_each(|spread| write!(f, " spread={spread}"))?;
        self.cohort
            .iter()
            .try_for_each(|cohort| write!(f, " cohort={cohort}"))
    }
}

impl Display for Apply {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Apply::Reboot => f.write_str("reboot"),
            Apply::Kexec => f.write_str("kexec"),
            Apply::Restart(units) => write!(f, "restart {}", units.join(" ")),
            Apply::Live => f.write_str("live"),
            Apply::None => f.write_str("none"),
        }
    }
}

impl Display for Payload {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} {} {} {}",
            self.format, self.size, self.digest, self.url
        )?;
        self.from
            .iter()
            .try_for_each(|from| write!(f, " from={from}"))?;
        self.base
            .iter()
            .try_for_each(|base| write!(f, " base={base}"))?;
        self.result
            .iter()
            .try_for_each(|result| write!(f, " result={result}"))?;
        self.mem
            .iter()
            .try_for_each(|mem| write!(f, " mem={mem}"))?;
        self.more
            .iter()
            .try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}
