//! Scripts: `C:` is sent, `S:` is expected, `…` stands for anything.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::Stage;

pub(super) struct Client {
    reader: BufReader<TcpStream>,
    script: String,
}

impl Client {
    pub(super) fn connect(stage: &Stage) -> Self {
        let socket = TcpStream::connect(stage.fixture.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            reader: BufReader::new(socket),
            script: String::new(),
        }
    }
    /// One that is let in, as soon as the broker has noticed who has gone.
    pub(super) fn admitted(stage: &Stage) -> Self {
        let began = std::time::Instant::now();
        loop {
            let mut client = Self::connect(stage);
            if client.line().starts_with("200 ") {
                return client;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{}",
                client.script
            );
        }
    }
    pub(super) fn send(&mut self, octets: &[u8]) {
        self.reader.get_mut().write_all(octets).unwrap();
    }
    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(
            line.is_empty() || line.ends_with("\r\n"),
            "{line:?} has no CR LF"
        );
        line.truncate(line.trim_end().len());
        self.script.push_str(&format!("S: {line}\n"));
        line
    }
    #[track_caller]
    pub(super) fn run(&mut self, script: &str) {
        for step in script
            .lines()
            .map(str::trim_start)
            .filter(|l| !l.is_empty())
        {
            match step.split_at(2) {
                ("C:", line) => {
                    self.script.push_str(&format!("C:{line}\n"));
                    self.send(format!("{}\r\n", line.trim_start()).as_bytes());
                }
                ("S:", expected) => {
                    let found = self.line();
                    assert!(
                        fits(expected.trim_start(), &found),
                        "expected {expected:?}, found {found:?} in\n{}",
                        self.script
                    );
                }
                _ => panic!("a script has C: and S: lines, this is {step:?}"),
            }
        }
    }
    /// Whether the broker has closed the connection.
    pub(super) fn is_closed(&mut self) -> bool {
        matches!(self.reader.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// `…` stands for anything.
fn fits(expected: &str, found: &str) -> bool {
    let mut rest = found;
    let parts: Vec<&str> = expected.split('…').collect();
    for (index, part) in parts.iter().enumerate() {
        let at = match index {
            0 => rest.starts_with(part).then_some(0),
            _ if index == parts.len() - 1 && part.is_empty() => Some(rest.len()),
            _ => rest.find(part),
        };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}
