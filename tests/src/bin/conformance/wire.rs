//! Lines to a broker and back, without any library: what is tested shall not be what tests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, bail};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of one answer that are read at most.
const MOST: u64 = 4 * 1024 * 1024;

pub(crate) struct Wire {
    input: BufReader<TcpStream>,
    output: TcpStream,
    /// The first line that the broker said.
    pub(crate) greeting: String,
}

impl Wire {
    pub(crate) fn open(address: &str) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let output = stream.try_clone()?;
        let mut wire = Self {
            input: BufReader::new(stream),
            output,
            greeting: String::new(),
        };
        wire.greeting = wire.line()?;
        Ok(wire)
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        self.output
            .write_all(octets)
            .context("the broker takes nothing")
    }

    /// A line, without CR LF.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = Vec::new();
        self.input
            .by_ref()
            .take(MOST)
            .read_until(b'\n', &mut line)
            .context("the broker does not answer")?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None if line.is_empty() => bail!("the broker has closed the connection"),
            None => bail!(
                "a line that does not end with CR LF: {:?}",
                String::from_utf8_lossy(&line)
            ),
        }
    }

    /// A command, and the first line of its answer.
    pub(crate) fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.line()
    }

    /// The lines up to a single dot, without stuffed dots, ended by LF.
    pub(crate) fn block(&mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        loop {
            let line = self.line()?;
            if line == "." {
                return Ok(text);
            }
            text.push_str(line.strip_prefix('.').unwrap_or(&line));
            text.push('\n');
        }
    }

    /// A command, the first line of its answer, and the block that follows if the code is this one.
    pub(crate) fn list(&mut self, command: &str, code: &str) -> anyhow::Result<(String, String)> {
        let first = self.ask(command)?;
        let block = if first.starts_with(code) {
            self.block()?
        } else {
            String::new()
        };
        Ok((first, block))
    }

    /// Posts an article whose lines end with LF.
    pub(crate) fn post(&mut self, article: &str) -> anyhow::Result<String> {
        let first = self.ask("POST")?;
        if !first.starts_with("340") {
            return Ok(first);
        }
        let mut octets = Vec::new();
        for line in article.split_terminator('\n') {
            if line.starts_with('.') {
                octets.push(b'.');
            }
            octets.extend_from_slice(line.as_bytes());
            octets.extend_from_slice(b"\r\n");
        }
        octets.extend_from_slice(b".\r\n");
        self.send(&octets)?;
        self.line()
    }
}
