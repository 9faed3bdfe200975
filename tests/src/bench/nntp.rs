//! What is said to a broker: to watch, to poll, to publish.

use std::{collections::VecDeque, sync::Arc};

use memchr::memchr;
use tidings_protocol::{Channel, Statement, article, nntp::code};

use super::Peer;
use tidings_client::Source;

/// Lines of a stream that comes in pieces.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Calls back with each whole line and what follows it; what that leaves is looked at next.
    fn each<'a>(
        &mut self,
        mut octets: &'a [u8],
        mut line: impl FnMut(&str, &'a [u8]) -> Result<&'a [u8], String>,
    ) -> Result<(), String> {
        while let Some(end) = memchr(b'\n', octets) {
            let (head, rest) = octets.split_at(end + 1);
            self.partial.extend_from_slice(head);
            let text = std::str::from_utf8(&self.partial)
                .map_err(|_| "a line that is not text".to_owned())?;
            octets = line(text.trim_end(), rest)?;
            self.partial.clear();
        }
        self.partial.extend_from_slice(octets);
        Ok(())
    }
}

fn code_of(line: &str) -> Result<u16, String> {
    line.get(..3)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| format!("{line:?} instead of a response"))
}

fn expect(line: &str, codes: &[u16]) -> Result<(), String> {
    if codes.contains(&code_of(line)?) {
        Ok(())
    } else {
        Err(format!("the broker answered: {line}"))
    }
}

/// The beginning of each session: a greeting, and perhaps a login, whose answers come one after the
/// other.
#[derive(Clone)]
pub struct Opening {
    commands: Arc<[u8]>,
    answers: &'static [&'static [u16]],
}

impl Opening {
    /// Without a login.
    pub fn anonymous() -> Self {
        Self {
            commands: Arc::default(),
            answers: &[&[200, 201]],
        }
    }
    /// With a login (RFC 4643).
    pub fn login(user: &str, password: &str) -> Self {
        let commands = format!("AUTHINFO USER {user}\r\nAUTHINFO PASS {password}\r\n").into_bytes();
        Self {
            commands: commands.into(),
            answers: &[&[200, 201], &[381], &[281]],
        }
    }
    /// As a source wants it: with its account, if it has one. Only over TLS: a password is nobody
    /// else's business.
    pub fn of(source: &Source) -> Self {
        match source.account() {
            Some((user, password)) if source.address().tls => Self::login(user, password),
            _ => Self::anonymous(),
        }
    }
    /// Takes one line; whether the opening is over with it.
    fn take(&mut self, line: &str) -> Result<(), String> {
        let Some((expected, rest)) = self.answers.split_first() else {
            return Err(format!("unexpected: {line}"));
        };
        self.answers = rest;
        expect(line, expected)
    }
    fn is_over(&self) -> bool {
        self.answers.is_empty()
    }
}

/// Watches one channel; every event is counted, and must follow the one before.
pub struct Watcher {
    opening: Opening,
    watch: String,
    lines: Lines,
    watching: bool,
    last: Option<u32>,
    /// Lines of the article that are still to come.
    skip: usize,
}

impl Watcher {
    /// After a serial, or live.
    pub fn new(opening: Opening, channel: &Channel, after: Option<u32>) -> Self {
        let watch = after.map_or_else(
            || format!("XWATCH {channel}\r\n"),
            |after| format!("XWATCH {channel}:{after}\r\n"),
        );
        Self {
            opening,
            watch,
            lines: Lines::default(),
            watching: false,
            last: after,
            skip: 0,
        }
    }
}

impl Peer for Watcher {
    fn begin(&mut self, say: &mut Vec<u8>) {
        say.extend_from_slice(&self.opening.commands);
        say.extend_from_slice(self.watch.as_bytes());
    }

    fn take(&mut self, octets: &[u8], _say: &mut Vec<u8>) -> Result<usize, String> {
        let Self {
            opening,
            lines,
            watching,
            last,
            skip,
            ..
        } = self;
        let mut complete = 0;
        let octets = over(octets, skip, &mut complete);
        lines.each(octets, |line, rest| {
            if !opening.is_over() {
                return opening.take(line).map(|()| rest);
            }
            if !*watching {
                expect(line, &[code::WATCHING.0])?;
                *watching = true;
                return Ok(rest);
            }
            // A heartbeat.
            if line == "0" {
                return Ok(rest);
            }
            let mut words = line.split(' ');
            let serial: u32 = words
                .next()
                .and_then(|word| word.parse().ok())
                .ok_or_else(|| format!("{line:?} instead of an event"))?;
            if last.is_some_and(|last| serial != last + 1) {
                return Err(format!("event {serial} after {}", last.unwrap_or(0)));
            }
            *last = Some(serial);
            *skip = words
                .nth(1)
                .and_then(|word| word.parse().ok())
                .ok_or_else(|| format!("{line:?} has no count of lines"))?;
            Ok(over(rest, skip, &mut complete))
        })?;
        Ok(complete)
    }

    fn is_ready(&self) -> bool {
        self.watching
    }
}

/// Passes over lines of an article; counts it when they are over.
fn over<'a>(mut octets: &'a [u8], skip: &mut usize, complete: &mut usize) -> &'a [u8] {
    while *skip > 0 {
        let Some(end) = memchr(b'\n', octets) else {
            return &[];
        };
        octets = &octets[end + 1..];
        *skip -= 1;
        *complete += usize::from(*skip == 0);
    }
    octets
}

/// Asks whether there is news, again and again: `GROUP`, whose answer names the head.
pub struct Poller {
    opening: Opening,
    ask: String,
    lines: Lines,
    /// How often it asks.
    left: usize,
}

impl Poller {
    /// For one channel.
    pub fn new(opening: Opening, channel: &Channel) -> Self {
        Self {
            opening,
            ask: format!("GROUP {channel}\r\n"),
            lines: Lines::default(),
            left: usize::MAX,
        }
    }

    /// The same, but it asks once.
    #[must_use]
    pub fn once(self) -> Self {
        Self { left: 1, ..self }
    }
}

impl Peer for Poller {
    fn begin(&mut self, say: &mut Vec<u8>) {
        say.extend_from_slice(&self.opening.commands);
    }

    fn take(&mut self, octets: &[u8], say: &mut Vec<u8>) -> Result<usize, String> {
        let Self {
            opening,
            ask,
            lines,
            left,
        } = self;
        let mut complete = 0;
        lines.each(octets, |line, rest| {
            if opening.is_over() {
                expect(line, &[code::GROUP.0])?;
                complete += 1;
            } else {
                opening.take(line)?;
            }
            if opening.is_over() && *left > 0 {
                say.extend_from_slice(ask.as_bytes());
                *left -= 1;
            }
            Ok(rest)
        })?;
        Ok(complete)
    }

    fn is_ready(&self) -> bool {
        self.opening.is_over()
    }
}

/// Publishes statements that were made beforehand, one after the other as they are given or as the
/// answers come.
pub struct Poster {
    opening: Opening,
    lines: Lines,
    /// Articles with their final dot, and the message-ids by which TAKETHIS names them.
    work: VecDeque<(String, Vec<u8>)>,
    /// How many may be under way; with more than one they are streamed (RFC 4644).
    window: usize,
    under_way: usize,
    /// Whether it goes on by itself when an answer comes.
    runs: bool,
    ready: bool,
}

/// A statement as it goes over the wire.
pub fn article(statement: &Statement) -> (String, Vec<u8>) {
    let mut octets = article::render(statement, "not-for-mail").octets;
    octets.extend_from_slice(b".\r\n");
    (statement.message_id().to_string(), octets)
}

impl Poster {
    /// One that publishes all of its work as soon as the session is open: each by POST (RFC 3977
    /// section 6.3.1) if `window` is 1, otherwise by TAKETHIS with so many under way.
    pub fn new(
        opening: Opening,
        work: impl IntoIterator<Item = (String, Vec<u8>)>,
        window: usize,
    ) -> Self {
        let work = work.into_iter().collect();
        Self {
            opening,
            lines: Lines::default(),
            work,
            window,
            under_way: 0,
            runs: true,
            ready: false,
        }
    }

    /// One that publishes its next by POST whenever [`Poster::NEXT`] is said on its connection.
    pub fn on_demand(opening: Opening, work: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self {
            runs: false,
            ..Self::new(opening, work, 1)
        }
    }

    /// What makes a poster on demand go on.
    pub const NEXT: &'static [u8] = b"POST\r\n";
}

impl Peer for Poster {
    fn begin(&mut self, say: &mut Vec<u8>) {
        say.extend_from_slice(&self.opening.commands);
        if self.window > 1 {
            say.extend_from_slice(b"MODE STREAM\r\n");
        }
    }

    fn take(&mut self, octets: &[u8], say: &mut Vec<u8>) -> Result<usize, String> {
        let Self {
            opening,
            lines,
            work,
            window,
            under_way,
            runs,
            ready,
        } = self;
        let mut complete = 0;
        lines.each(octets, |line, rest| {
            if !opening.is_over() {
                opening.take(line)?;
                *ready = opening.is_over() && *window == 1;
            } else if !*ready {
                expect(line, &[code::STREAMING.0])?;
                *ready = true;
            } else if code_of(line)? == code::SEND_ARTICLE.0 {
                let (_, octets) = work.pop_front().ok_or("nothing is left to be published")?;
                say.extend_from_slice(&octets);
                return Ok(rest);
            } else {
                expect(line, &[code::POSTED.0, code::TAKEN.0])?;
                complete += 1;
                *under_way = under_way.saturating_sub(1);
            }
            if !*runs || !*ready {
                return Ok(rest);
            }
            if *window == 1 && !work.is_empty() {
                say.extend_from_slice(Self::NEXT);
            } else if *window > 1 {
                while *under_way < *window
                    && let Some((id, octets)) = work.pop_front()
                {
                    say.extend_from_slice(format!("TAKETHIS {id}\r\n").as_bytes());
                    say.extend_from_slice(&octets);
                    *under_way += 1;
                }
            }
            Ok(rest)
        })?;
        Ok(complete)
    }

    fn is_ready(&self) -> bool {
        self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces of every size the same comes out.
    fn in_pieces(peer: impl Fn() -> Box<dyn Peer>, octets: &[u8], complete: usize, said: &str) {
        for size in 1..=octets.len() {
            let (mut peer, mut say, mut count) = (peer(), Vec::new(), 0);
            for piece in octets.chunks(size) {
                count += peer.take(piece, &mut say).unwrap();
            }
            assert_eq!(
                (count, String::from_utf8(say).unwrap().as_str()),
                (complete, said),
                "in pieces of {size}"
            );
            assert!(peer.is_ready());
        }
    }

    #[test]
    fn a_watcher_counts_whole_events() {
        let channel: Channel = "a.b".parse().unwrap();
        let watcher =
            || Box::new(Watcher::new(Opening::anonymous(), &channel, Some(6))) as Box<dyn Peer>;
        in_pieces(
            watcher,
            b"200 x\r\n290 60\r\n0\r\n7 <m> 2\r\nA: b\r\n\r\n8 <m> 1\r\nc\r\n9 <m> 3\r\nd\r\n",
            2,
            "",
        );
    }

    #[test]
    fn a_gap_is_an_error() {
        let mut watcher = Watcher::new(Opening::anonymous(), &"a.b".parse().unwrap(), Some(6));
        let taken = watcher.take(b"200 x\r\n290 60\r\n8 <m> 2\r\n", &mut Vec::new());
        assert_eq!(taken, Err("event 8 after 6".into()));
    }

    #[test]
    fn a_poller_asks_after_each_answer() {
        let poller = || {
            Box::new(Poller::new(Opening::anonymous(), &"a.b".parse().unwrap())) as Box<dyn Peer>
        };
        in_pieces(
            poller,
            b"200 x\r\n211 1 1 1 a.b\r\n",
            1,
            "GROUP a.b\r\nGROUP a.b\r\n",
        );
    }

    #[test]
    fn posters_post_and_stream() {
        let work = || (0..3).map(|n| (format!("<{n}>"), format!("{n}\r\n.\r\n").into_bytes()));
        let poster = || Box::new(Poster::new(Opening::anonymous(), work(), 1)) as Box<dyn Peer>;
        in_pieces(
            poster,
            b"200 x\r\n340 x\r\n240 x\r\n340 x\r\n240 x\r\n",
            2,
            "POST\r\n0\r\n.\r\nPOST\r\n1\r\n.\r\nPOST\r\n",
        );
        let streamer =
            || Box::new(Poster::new(Opening::login("u", "p"), work(), 2)) as Box<dyn Peer>;
        let said = "TAKETHIS <0>\r\n0\r\n.\r\nTAKETHIS <1>\r\n1\r\n.\r\nTAKETHIS <2>\r\n2\r\n.\r\n";
        in_pieces(
            streamer,
            b"200 x\r\n381 x\r\n281 x\r\n203 x\r\n239 <0>\r\n",
            1,
            said,
        );
    }
}
