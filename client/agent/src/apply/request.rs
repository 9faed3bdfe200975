//! What the applier is asked: one line.

use std::io::{self, Read};

use tidings_client::{Channel, Serial};

/// The longest line that is read.
pub const REQUEST_OCTETS: u64 = 512;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Whether a payload can be used, and what it costs.
    Can,
    /// What is.
    State,
    /// Lay it beside what runs.
    Stage,
    /// The loader takes it once.
    Arm,
    /// The machine goes.
    Go,
    /// It is the default.
    Keep,
    /// All the way back.
    Drop,
}

impl Verb {
    pub(super) const ALL: [Self; 7] = [
        Self::Can,
        Self::State,
        Self::Stage,
        Self::Arm,
        Self::Go,
        Self::Keep,
        Self::Drop,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Can => "can",
            Self::State => "state",
            Self::Stage => "stage",
            Self::Arm => "arm",
            Self::Go => "go",
            Self::Keep => "keep",
            Self::Drop => "drop",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub verb: Verb,
    /// In which channel.
    pub channel: Channel,
    /// With which release.
    pub serial: Serial,
    /// With which of its payloads.
    pub payload: usize,
}

impl Request {
    /// From the line, without its end.
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let word = words.next()?;
        let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == word)?;
        let (channel, serial) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let payload = words.next()?.parse::<u16>().ok()?.into();
        words.next().is_none().then_some(Self {
            verb,
            channel,
            serial,
            payload,
        })
    }
    /// As it is sent.
    pub fn write(&self) -> String {
        format!(
            "{} {} {} {}\n",
            self.verb.as_str(),
            self.channel,
            self.serial,
            self.payload
        )
    }
}

/// The line of one who has connected, bounded.
///
/// # Errors
/// If the connection fails.
pub fn read_request(from: impl Read) -> io::Result<String> {
    let mut line = String::new();
    io::BufRead::read_line(
        &mut io::BufReader::new(from.take(REQUEST_OCTETS)),
        &mut line,
    )?;
    Ok(line
        .strip_suffix('\n')
        .unwrap_or("it has no end")
        .to_owned())
}
