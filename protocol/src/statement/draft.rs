//! From what a publisher wants to say to the text that is signed (spec part 1).

use alloc::string::{String, ToString};
use core::fmt::{Display, Write};

use super::{Statement, StatementError, kinds::Body};
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
        if let Some(trust) = &self.trust {
            text.line("Trust", trust);
        }
        match &self.body {
            Body::Release(release) => release.write(&mut text),
            Body::Withdraw(withdraw) => withdraw.write(&mut text),
            Body::Trust(trust) => trust.write(&mut text),
            Body::Beat(beat) => beat.write(&mut text),
        }
        match text.broken {
            Some(error) => Err(error),
            None => Statement::parse_draft(text.text.as_bytes()),
        }
    }
}

/// The text so far, and the first value that would have broken out of its line.
pub(super) struct Lines {
    text: String,
    count: usize,
    broken: Option<StatementError>,
}

impl Lines {
    pub(super) fn line(&mut self, name: &str, value: impl Display) {
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
}
