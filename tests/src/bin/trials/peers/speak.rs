//! What is said to other servers: just enough of MQTT, NATS, Redis and HTTP to subscribe, to
//! publish and to poll.

use tidings_tests::bench::Peer;

/// The octets of what is sent to many: as many as a statement, and nothing in them.
pub(super) fn payload(octets: usize) -> Vec<u8> {
    vec![b'x'; octets]
}

/// Takes whole messages off the front of what has come in pieces.
#[derive(Default)]
struct Pieces(Vec<u8>);

impl Pieces {
    /// `length` says how long the message is that begins here, as soon as it can be told.
    fn each(
        &mut self,
        octets: &[u8],
        length: impl Fn(&[u8]) -> Result<Option<usize>, String>,
        mut message: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        self.0.extend_from_slice(octets);
        let mut at = 0;
        while let Some(octets) =
            length(&self.0[at..])?.filter(|octets| *octets <= self.0.len() - at)
        {
            message(&self.0[at..at + octets])?;
            at += octets;
        }
        self.0.drain(..at);
        Ok(())
    }
}

fn line_end(octets: &[u8]) -> Option<usize> {
    octets
        .windows(2)
        .position(|two| two == b"\r\n")
        .map(|at| at + 2)
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(&octets[..octets.len().min(80)]).into_owned()
}

/// A subscriber of the reference: it says nothing, gets an octet as a greeting, and then messages
/// of one size.
pub(super) struct Raw {
    size: usize,
    greeted: bool,
    octets: usize,
}

impl Raw {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            greeted: false,
            octets: 0,
        }
    }
}

impl Peer for Raw {
    fn begin(&mut self, _say: &mut Vec<u8>) {}
    fn take(&mut self, octets: &[u8], _say: &mut Vec<u8>) -> Result<usize, String> {
        let octets = if std::mem::replace(&mut self.greeted, true) {
            octets.len()
        } else {
            octets.len() - 1
        };
        self.octets += octets;
        let complete = self.octets / self.size;
        self.octets %= self.size;
        Ok(complete)
    }
    fn is_ready(&self) -> bool {
        self.greeted
    }
}

/// A client of MQTT 3.1.1, QoS 0; with a topic, a subscriber.
pub(super) struct Mqtt {
    pieces: Pieces,
    subscribes: bool,
    ready: bool,
}

impl Mqtt {
    pub(super) fn new(subscribes: bool) -> Self {
        Self {
            pieces: Pieces::default(),
            subscribes,
            ready: false,
        }
    }
    #[allow(clippy::cast_possible_truncation)] // seven bits at a time
    pub(super) fn publish(payload: &[u8]) -> Vec<u8> {
        let topic = b"fan";
        let mut packet = vec![0x30];
        let mut rest = 2 + topic.len() + payload.len();
        while rest > 0x7f {
            packet.push(0x80 | (rest & 0x7f) as u8);
            rest >>= 7;
        }
        packet.push(rest as u8);
        packet.extend_from_slice(&[0, 3]);
        packet.extend_from_slice(topic);
        packet.extend_from_slice(payload);
        packet
    }
}

/// Fixed header, remaining length (MQTT 3.1.1 section 2.2.3).
fn mqtt_length(octets: &[u8]) -> Result<Option<usize>, String> {
    let mut rest = 0;
    for (place, octet) in octets.iter().skip(1).take(4).enumerate() {
        rest |= usize::from(octet & 0x7f) << (7 * place);
        if octet & 0x80 == 0 {
            return Ok(Some(2 + place + rest));
        }
    }
    Ok(None)
}

impl Peer for Mqtt {
    fn begin(&mut self, say: &mut Vec<u8>) {
        // CONNECT with a clean session, no keep-alive, and no name: the server finds one.
        say.extend_from_slice(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
    }
    fn take(&mut self, octets: &[u8], say: &mut Vec<u8>) -> Result<usize, String> {
        let (mut complete, ready, subscribes) = (0, &mut self.ready, self.subscribes);
        self.pieces.each(octets, mqtt_length, |message| {
            match message[0] >> 4 {
                2 if subscribes => say.extend_from_slice(b"\x82\x08\x00\x01\x00\x03fan\x00"),
                2 | 9 => *ready = true,
                3 => complete += 1,
                kind => return Err(format!("an MQTT packet of kind {kind}")),
            }
            Ok(())
        })?;
        Ok(complete)
    }
    fn is_ready(&self) -> bool {
        self.ready
    }
}

/// A client of NATS; a subscriber, or a publisher to a stream of JetStream that waits for each
/// acknowledgement.
pub(super) struct Nats {
    pieces: Pieces,
    begin: String,
    /// What is said again after each message, if anything.
    again: Vec<u8>,
    /// How often it is said at the beginning; 0 for those who only subscribe.
    window: usize,
    ready: bool,
}

impl Nats {
    pub(super) fn subscriber() -> Self {
        Self {
            pieces: Pieces::default(),
            begin: "SUB fan 1\r\n".into(),
            again: Vec::new(),
            window: 0,
            ready: false,
        }
    }
    pub(super) fn publisher() -> Self {
        Self {
            begin: String::new(),
            ..Self::subscriber()
        }
    }
    pub(super) fn publish(payload: &[u8]) -> Vec<u8> {
        [
            format!("PUB fan {}\r\n", payload.len()).as_bytes(),
            payload,
            b"\r\n",
        ]
        .concat()
    }
    /// Creates a stream in files; its answer is the one message that comes.
    pub(super) fn create_stream() -> Self {
        let stream = r#"{"name":"bench","subjects":["js.>"],"storage":"file","retention":"limits","discard":"old","num_replicas":1}"#;
        let begin = format!(
            "SUB _INBOX.c 1\r\nPUB $JS.API.STREAM.CREATE.bench _INBOX.c {}\r\n{stream}\r\n",
            stream.len()
        );
        Self {
            begin,
            window: 1,
            ..Self::subscriber()
        }
    }
    /// With so many messages under way.
    pub(super) fn to_stream(number: usize, payload: &[u8], window: usize) -> Self {
        let again = [
            format!("PUB js.{number} _INBOX.{number} {}\r\n", payload.len()).as_bytes(),
            payload,
            b"\r\n",
        ]
        .concat();
        Self {
            begin: format!("SUB _INBOX.{number} 1\r\n"),
            again,
            window,
            ..Self::subscriber()
        }
    }
}

fn nats_length(octets: &[u8]) -> Result<Option<usize>, String> {
    let Some(line) = line_end(octets) else {
        return Ok(None);
    };
    if !octets.starts_with(b"MSG ") {
        return Ok(Some(line));
    }
    let size = text(&octets[..line - 2])
        .rsplit(' ')
        .next()
        .and_then(|n| n.parse::<usize>().ok());
    Ok(Some(line + size.ok_or_else(|| text(octets))? + 2))
}

impl Peer for Nats {
    fn begin(&mut self, say: &mut Vec<u8>) {
        say.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
        say.extend_from_slice(self.begin.as_bytes());
        say.extend_from_slice(b"PING\r\n");
    }
    fn take(&mut self, octets: &[u8], say: &mut Vec<u8>) -> Result<usize, String> {
        let Self {
            pieces,
            again,
            window,
            ready,
            ..
        } = self;
        let mut complete = 0;
        pieces.each(octets, nats_length, |message| {
            if message.starts_with(b"MSG ") {
                if *window > 0 && message.windows(8).any(|octets| octets == b"\"error\":") {
                    return Err(String::from_utf8_lossy(message).into_owned());
                }
                complete += 1;
                say.extend_from_slice(again);
            } else if message.starts_with(b"PONG") {
                *ready = true;
                (0..*window).for_each(|_| say.extend_from_slice(again));
            } else if message.starts_with(b"PING") {
                say.extend_from_slice(b"PONG\r\n");
            } else if !message.starts_with(b"INFO ") {
                return Err(text(message));
            }
            Ok(())
        })?;
        Ok(complete)
    }
    fn is_ready(&self) -> bool {
        self.ready
    }
}

/// A client of Redis, RESP 2.
pub(super) struct Redis {
    pieces: Pieces,
    subscribes: bool,
    ready: bool,
}

impl Redis {
    pub(super) fn new(subscribes: bool) -> Self {
        Self {
            pieces: Pieces::default(),
            subscribes,
            ready: false,
        }
    }
    pub(super) fn publish(payload: &[u8]) -> Vec<u8> {
        [
            format!("*3\r\n$7\r\nPUBLISH\r\n$3\r\nfan\r\n${}\r\n", payload.len()).as_bytes(),
            payload,
            b"\r\n",
        ]
        .concat()
    }
}

fn resp_length(octets: &[u8]) -> Result<Option<usize>, String> {
    let Some(line) = line_end(octets) else {
        return Ok(None);
    };
    let number = || {
        text(&octets[1..line - 2])
            .parse::<usize>()
            .map_err(|_| text(octets))
    };
    match octets[0] {
        b'+' | b':' => Ok(Some(line)),
        b'$' => Ok(Some(line + number()? + 2)),
        b'*' => {
            let mut at = line;
            for _ in 0..number()? {
                let Some(rest) = octets.get(at..) else {
                    return Ok(None);
                };
                let Some(length) = resp_length(rest)? else {
                    return Ok(None);
                };
                at += length;
            }
            Ok(Some(at))
        }
        _ => Err(text(octets)),
    }
}

impl Peer for Redis {
    fn begin(&mut self, say: &mut Vec<u8>) {
        say.extend_from_slice(if self.subscribes {
            b"*2\r\n$9\r\nSUBSCRIBE\r\n$3\r\nfan\r\n"
        } else {
            b"*1\r\n$4\r\nPING\r\n"
        });
    }
    fn take(&mut self, octets: &[u8], _say: &mut Vec<u8>) -> Result<usize, String> {
        let (mut complete, ready) = (0, &mut self.ready);
        self.pieces.each(octets, resp_length, |message| {
            if message[0] == b':' {
                // To how many it went.
            } else if *ready {
                complete += 1;
            } else {
                *ready = true;
            }
            Ok(())
        })?;
        Ok(complete)
    }
    fn is_ready(&self) -> bool {
        self.ready
    }
}

/// A client of HTTP/1.1 that has the file already: every answer is a 304, which has no body.
pub(super) struct Http {
    pieces: Pieces,
    request: Vec<u8>,
    again: bool,
}

impl Http {
    /// One that asks again after each answer, or once.
    pub(super) fn new(etag: &str, again: bool) -> Self {
        let request =
            format!("GET /news HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {etag}\r\n\r\n")
                .into_bytes();
        Self {
            pieces: Pieces::default(),
            request,
            again,
        }
    }
}

fn head_length(octets: &[u8]) -> Result<Option<usize>, String> {
    Ok(octets
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4))
}

impl Peer for Http {
    fn begin(&mut self, say: &mut Vec<u8>) {
        say.extend_from_slice(&self.request);
    }
    fn take(&mut self, octets: &[u8], say: &mut Vec<u8>) -> Result<usize, String> {
        let (mut complete, request, again) = (0, &self.request, self.again);
        self.pieces.each(octets, head_length, |message| {
            if !message.starts_with(b"HTTP/1.1 304 ") {
                return Err(text(message));
            }
            complete += 1;
            if again {
                say.extend_from_slice(request);
            }
            Ok(())
        })?;
        Ok(complete)
    }
    fn is_ready(&self) -> bool {
        true
    }
}
