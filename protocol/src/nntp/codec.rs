//! Framing for both ends of a connection, as tokio-util decoders (RFC 3977 section 3.1).
//!
//! [4-4], one strict tokenizer: a line ends with CR LF, and a CR, LF or NUL anywhere else spoils it
//! (attack 39). A spoiled block is still read to its end, up to [`DISCARD_OCTETS`], so that it can
//! be answered.

use bytes::{Buf, BytesMut};
use tokio_util::codec::Decoder;

use super::{Command, Response, SyntaxError, parse_command};
use crate::{
    MessageId, Serial,
    limits::{ARTICLE_OCTETS, BLOCK_LINE_OCTETS, DISCARD_OCTETS, RESPONSE_OCTETS, XWATCH_OCTETS},
};

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A line without an end in sight.
    #[error("a line of more than {0} octets")]
    Line(usize),
    /// A block without an end in sight.
    #[error("a block of more than {DISCARD_OCTETS} octets")]
    Flood,
    /// Not what this protocol has in this place.
    #[error("expected {expected}, found {found:?}")]
    Unexpected {
        /// What should have come.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

/// Why a block is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Larger than it may be.
    #[error("more than {0} octets")]
    TooLarge(usize),
    /// A line is too long.
    #[error("line {0} is longer than {BLOCK_LINE_OCTETS} octets")]
    Line(usize),
    /// A CR, LF or NUL where none may be.
    #[error("line {0} has a NUL, or a CR or LF that is not part of a line end")]
    Control(usize),
}

/// A line up to CR LF, taken from the front; `None` if it is not all there.
fn take_line(input: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, CodecError> {
    let looked_at = &input[..input.len().min(max)];
    let ends = memchr::memchr_iter(b'\n', looked_at);
    match ends
        .map(|end| end + 1)
        .find(|end| looked_at[..*end].ends_with(b"\r\n"))
    {
        Some(end) => Ok(Some(input.split_to(end))),
        None if input.len() >= max => Err(CodecError::Line(max)),
        None => Ok(None),
    }
}

/// The content of a line, if it ends with CR LF and has neither those nor NUL inside.
fn content(line: &[u8]) -> Option<&[u8]> {
    let content = line.strip_suffix(b"\r\n")?;
    memchr::memchr3(b'\r', b'\n', 0, content)
        .is_none()
        .then_some(content)
}

/// What most blocks have room in: an article with a release.
const BLOCK_OCTETS: usize = 2048;

/// A multi-line block as it is collected: dots unstuffed, lines ending with LF.
#[derive(Debug, Default)]
struct Block {
    octets: Vec<u8>,
    limit: usize,
    seen: usize,
    lines: usize,
    /// How many lines it has, if it does not end with a dot.
    wanted: Option<usize>,
    fault: Option<BlockError>,
    /// The line before ended with a bare LF: a dot after it ends nothing.
    after_bare: bool,
}

impl Block {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    fn spoil(&mut self, fault: BlockError) {
        if self.fault.is_none() {
            self.octets = Vec::new();
            self.fault = Some(fault);
        }
    }

    fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        let Some(content) = content(line) else {
            return self.spoil(BlockError::Control(self.lines));
        };
        let content = if content.starts_with(b".") {
            &content[1..]
        } else {
            content
        };
        if content.len() > BLOCK_LINE_OCTETS {
            return self.spoil(BlockError::Line(self.lines));
        }
        if self.octets.len() + content.len() >= self.limit {
            return self.spoil(BlockError::TooLarge(self.limit));
        }
        if self.fault.is_none() {
            if self.octets.capacity() == 0 {
                self.octets.reserve(BLOCK_OCTETS);
            }
            self.octets.extend_from_slice(content);
            self.octets.push(b'\n');
        }
    }

    /// Takes lines from the front; whether the block is complete.
    fn feed(&mut self, input: &mut BytesMut) -> Result<bool, CodecError> {
        let mut taken = 0;
        let complete = self.take_lines(input, &mut taken);
        input.advance(taken);
        complete
    }

    fn take_lines(&mut self, input: &[u8], taken: &mut usize) -> Result<bool, CodecError> {
        let most = self.limit.max(DISCARD_OCTETS);
        while self.wanted != Some(self.lines) {
            let left = &input[*taken..];
            let Some(end) = memchr::memchr(b'\n', left) else {
                // Nothing is gained by waiting for the end of a line that is too long already
                // (attack 104).
                return if left.len() > BLOCK_LINE_OCTETS + 3 {
                    Err(CodecError::Line(BLOCK_LINE_OCTETS))
                } else {
                    Ok(false)
                };
            };
            let line = &left[..=end];
            *taken += line.len();
            self.seen += line.len();
            if self.wanted.is_none() && line == b".\r\n" && !self.after_bare {
                return Ok(true);
            }
            self.after_bare = !line.ends_with(b"\r\n");
            self.add(line);
            if self.seen > most {
                return Err(CodecError::Flood);
            }
        }
        Ok(true)
    }

    fn finish(&mut self) -> Result<Vec<u8>, BlockError> {
        let block = core::mem::take(self);
        block.fault.map_or(Ok(block.octets), Err)
    }
}

/// What a client sends.
#[derive(Debug)]
pub enum Input {
    /// A command, or why the line is none.
    Command(Result<Command, SyntaxError>),
    /// The article after POST, IHAVE or TAKETHIS, its lines ending with LF, or why it cannot be
    /// used.
    Article(Result<Vec<u8>, BlockError>),
}

/// The broker's side.
#[derive(Debug, Default)]
pub struct ServerCodec {
    article: Option<Block>,
}

impl ServerCodec {
    /// The next thing that comes is an article.
    pub fn expect_article(&mut self) {
        self.article = Some(Block::new(ARTICLE_OCTETS));
    }
}

impl Decoder for ServerCodec {
    type Item = Input;
    type Error = CodecError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Input>, CodecError> {
        if let Some(block) = &mut self.article {
            if !block.feed(input)? {
                return Ok(None);
            }
            let article = block.finish();
            self.article = None;
            return Ok(Some(Input::Article(article)));
        }
        let Some(line) = take_line(input, XWATCH_OCTETS)? else {
            return Ok(None);
        };
        let command = content(&line)
            .ok_or(SyntaxError::Characters)
            .and_then(parse_command);
        if let Ok(Command::TakeThis(_)) = command {
            self.expect_article();
        }
        Ok(Some(Input::Command(command)))
    }
}

/// What a broker sends.
#[derive(Debug)]
pub enum Output {
    /// A response line.
    Response(Response),
    /// A multi-line block, its lines ending with LF, or why it cannot be used.
    Block(Result<Vec<u8>, BlockError>),
    /// A statement, while watching.
    Event(Event),
    /// Nothing happened, while watching.
    Heartbeat,
    /// The watch has ended.
    WatchEnded,
}

/// One event of a watch (spec part 4).
#[derive(Debug)]
pub struct Event {
    /// The article number.
    pub serial: Serial,
    /// What the event line says of the article.
    pub message_id: MessageId,
    /// The article, its lines ending with LF, or why it cannot be used.
    pub article: Result<Vec<u8>, BlockError>,
}

#[derive(Debug, Default)]
enum Expected {
    #[default]
    Response,
    Block(Block),
    EventLine,
    EventArticle(Serial, MessageId, Block),
}

/// The client's side.
#[derive(Debug, Default)]
pub struct ClientCodec {
    expected: Expected,
}

impl ClientCodec {
    /// The next thing that comes is a block of at most so many octets.
    pub fn expect_block(&mut self, limit: usize) {
        self.expected = Expected::Block(Block::new(limit));
    }
    /// From now on events come, until the watch ends.
    pub fn expect_events(&mut self) {
        self.expected = Expected::EventLine;
    }
}

fn text<'a>(line: &'a [u8], expected: &'static str) -> Result<&'a str, CodecError> {
    let found = content(line).and_then(|c| core::str::from_utf8(c).ok());
    found.ok_or_else(|| unexpected(expected, &String::from_utf8_lossy(line)))
}

fn unexpected(expected: &'static str, found: &str) -> CodecError {
    CodecError::Unexpected {
        expected,
        found: found.chars().take(80).collect(),
    }
}

const EVENT: &str = "`SERIAL MESSAGE-ID LINES`, `0` or `.`";

/// The line before the article of an event, and how many lines that has.
fn parse_event(line: &str) -> Option<(Serial, MessageId, usize)> {
    let mut words = line.split(' ');
    let (serial, message_id) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let lines = words.next()?.parse().ok()?;
    (1..=ARTICLE_OCTETS)
        .contains(&lines)
        .then_some((serial, message_id, lines))
}

impl Decoder for ClientCodec {
    type Item = Output;
    type Error = CodecError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Output>, CodecError> {
        match &mut self.expected {
            Expected::Response => {
                let Some(line) = take_line(input, RESPONSE_OCTETS)? else {
                    return Ok(None);
                };
                let line = text(&line, "a response")?;
                let response = line.parse().map_err(|()| unexpected("a response", line))?;
                Ok(Some(Output::Response(response)))
            }
            Expected::Block(block) => {
                if !block.feed(input)? {
                    return Ok(None);
                }
                let block = block.finish();
                self.expected = Expected::Response;
                Ok(Some(Output::Block(block)))
            }
            Expected::EventLine => {
                let Some(line) = take_line(input, RESPONSE_OCTETS)? else {
                    return Ok(None);
                };
                let line = text(&line, EVENT)?;
                if line == "0" {
                    return Ok(Some(Output::Heartbeat));
                }
                if line == "." {
                    self.expected = Expected::Response;
                    return Ok(Some(Output::WatchEnded));
                }
                let (serial, message_id, lines) =
                    parse_event(line).ok_or_else(|| unexpected(EVENT, line))?;
                self.expected = Expected::EventArticle(
                    serial,
                    message_id,
                    Block {
                        wanted: Some(lines),
                        ..Block::new(ARTICLE_OCTETS)
                    },
                );
                self.decode(input)
            }
            Expected::EventArticle(serial, message_id, block) => {
                if !block.feed(input)? {
                    return Ok(None);
                }
                let event = Event {
                    serial: *serial,
                    message_id: message_id.clone(),
                    article: block.finish(),
                };
                self.expected = Expected::EventLine;
                Ok(Some(Output::Event(event)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn article(wire: &[u8]) -> Option<Result<Vec<u8>, BlockError>> {
        let mut codec = ServerCodec::default();
        codec.expect_article();
        // In two pieces at every place: the framing must not depend on how octets arrive.
        let whole = decode(&mut codec, &[wire]);
        for cut in 0..wire.len() {
            let mut codec = ServerCodec::default();
            codec.expect_article();
            assert_eq!(
                decode(&mut codec, &[&wire[..cut], &wire[cut..]]),
                whole,
                "cut at {cut}"
            );
        }
        whole
    }

    fn decode(codec: &mut ServerCodec, pieces: &[&[u8]]) -> Option<Result<Vec<u8>, BlockError>> {
        let mut input = BytesMut::new();
        let mut found = None;
        for piece in pieces {
            input.extend_from_slice(piece);
            if found.is_none() {
                found = codec.decode(&mut input).unwrap().map(|item| match item {
                    Input::Article(article) => article,
                    Input::Command(_) => panic!("a command"),
                });
            }
        }
        found
    }

    #[test]
    fn attack_39_smuggling() {
        assert_eq!(
            article(b"a: b\r\n\r\n..c\r\n.\r\n"),
            Some(Ok(b"a: b\n\n.c\n".to_vec()))
        );
        assert_eq!(article(b".\r\n"), Some(Ok(vec![])));
        assert_eq!(article(b"a\n.\r\n.\r\n"), Some(Err(BlockError::Control(1))));
        assert_eq!(
            article(b"a\r\n.\n.\r\n.\r\n"),
            Some(Err(BlockError::Control(2)))
        );
        assert_eq!(
            article(b"a\n.\r\nb\r\n.\r\n"),
            Some(Err(BlockError::Control(1)))
        );
        assert_eq!(article(b"a\r.\r\n.\r\n"), Some(Err(BlockError::Control(1))));
        assert_eq!(article(b"a\0\r\n.\r\n"), Some(Err(BlockError::Control(1))));
        assert_eq!(article(b"a\r\n.\r"), None);
    }

    #[test]
    fn attack_20_endless_data_ends() {
        let mut codec = ServerCodec::default();
        let mut input = BytesMut::from(&vec![b'a'; XWATCH_OCTETS][..]);
        assert!(matches!(
            codec.decode(&mut input),
            Err(CodecError::Line(XWATCH_OCTETS))
        ));

        codec.expect_article();
        let mut input = BytesMut::from("line\r\n".repeat(ARTICLE_OCTETS / 5 + 1).as_bytes());
        assert!(codec.decode(&mut input).unwrap().is_none());
        input.extend_from_slice(b".\r\nDATE\r\n");
        assert!(matches!(
            codec.decode(&mut input),
            Ok(Some(Input::Article(Err(BlockError::TooLarge(_)))))
        ));
        assert!(matches!(
            codec.decode(&mut input),
            Ok(Some(Input::Command(Ok(Command::Date))))
        ));

        codec.expect_article();
        let mut input = BytesMut::from("line\r\n".repeat(DISCARD_OCTETS / 6 + 1).as_bytes());
        assert!(matches!(codec.decode(&mut input), Err(CodecError::Flood)));
        codec.expect_article();
        // Attack 104: a line without an end is no megabyte that is held for a minute.
        let mut input = BytesMut::from(&vec![b'a'; BLOCK_LINE_OCTETS + 4][..]);
        assert!(matches!(
            codec.decode(&mut input),
            Err(CodecError::Line(BLOCK_LINE_OCTETS))
        ));
    }

    #[test]
    fn a_watch_is_events_heartbeats_and_an_end() {
        let id = crate::StatementId::of(b"");
        let hex = id.to_string()[7..].to_owned();
        let mut codec = ClientCodec::default();
        codec.expect_events();
        let wire = format!("0\r\n7 <7.{hex}@a.b> 3\r\nx: y\r\n\r\n..z\r\n0\r\n.\r\n111 now\r\n");
        let mut input = BytesMut::from(wire.as_bytes());
        let mut next = || codec.decode(&mut input).unwrap();
        assert!(matches!(next(), Some(Output::Heartbeat)));
        let Some(Output::Event(event)) = next() else {
            panic!("no event")
        };
        assert_eq!(
            (event.serial.number(), event.article),
            (7, Ok(b"x: y\n\n.z\n".to_vec()))
        );
        assert!(matches!(next(), Some(Output::Heartbeat)));
        assert!(matches!(next(), Some(Output::WatchEnded)));
        assert!(matches!(next(), Some(Output::Response(_))));
        assert!(next().is_none());
    }
}
