//! Standard output and standard error of the programs. The one place that writes there: a reader
//! may be gone, be slow, or answer at once (`EAGAIN`), and a disk may be full.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    time::Timespec,
};

/// How long standard error is waited for; once that was in vain, not at all until it takes
/// something again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Octets that a pipe takes without making its writer wait, if it takes any (`PIPE_BUF`).
const ATOMIC_OCTETS: usize = 4096;

/// Whether a character does more than stand in its line.
pub fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Text that others wrote, safe for a terminal: nothing that moves the cursor or turns the line
/// round.
pub fn safe(text: &str) -> String {
    let safe = |c| match is_odd(c) && !matches!(c, '\n' | '\t') {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    };
    text.chars().map(safe).collect()
}

/// Whether a terminal is there that understands more than text.
pub fn takes_sequences(to: &impl IsTerminal) -> bool {
    to.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether standard error is to have colours: <https://no-color.org>.
pub fn has_colours() -> bool {
    takes_sequences(&io::stderr())
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A program that writes, by its name.
#[derive(Clone, Copy)]
pub struct Program(pub &'static str);

impl Program {
    /// A line on standard output. What cannot be written ends the program: quietly where the
    /// reader has enough, as in `tidings log … | head`.
    pub fn line(self, text: &str) {
        self.raw(format!("{}\n", safe(text)).as_bytes());
    }

    /// The same with octets as they are: a statement, a page.
    pub fn raw(self, octets: &[u8]) {
        if let Err(error) = write_all(io::stdout(), octets, None) {
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.note(&format!("cannot write to standard output: {error}"));
            }
            std::process::exit(1);
        }
    }

    /// Something that the user should know, and that is no result. Where it cannot be said there is
    /// no one to be told so.
    pub fn note(self, text: &str) {
        let line = format!("{}: {}\n", self.0, safe(text));
        drop(write_error(line.as_bytes()));
    }
}

/// Standard output, for what is written piece by piece.
impl io::Write for Program {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.raw(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error for a log: what cannot be written there is lost, and nothing else.
#[derive(Default)]
pub struct Log;

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        drop(write_error(octets));
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Octets on standard error; a reader that has stopped keeps the program for a moment, once.
pub fn write_error(octets: &[u8]) -> io::Result<()> {
    static STALLED: AtomicBool = AtomicBool::new(false);
    // One thread at a time: what was found to have room still has it.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let patience = match STALLED.load(Ordering::Relaxed) {
        true => Duration::ZERO,
        false => PATIENCE,
    };
    let written = write_all(io::stderr(), octets, Some(patience));
    let stalled = written
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    STALLED.store(stalled, Ordering::Relaxed);
    written
}

/// Writes all of it, past the buffers of the library. With patience no octet is written that could
/// make this wait for longer than that.
fn write_all(to: impl AsFd, mut octets: &[u8], patience: Option<Duration>) -> io::Result<()> {
    let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
    let has_room = || loop {
        match poll(&mut [PollFd::new(&to, PollFlags::OUT)], timeout.as_ref()) {
            Ok(0) => return Err(io::Error::from(Errno::AGAIN)),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    while !octets.is_empty() {
        let mut some = octets;
        if patience.is_some() {
            has_room()?;
            some = &octets[..octets.len().min(ATOMIC_OCTETS)];
        }
        match rustix::io::write(&to, some) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => octets = &octets[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => has_room()?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[test]
    fn a_reader_that_has_stopped_keeps_nobody_for_ever() {
        let (_reader, writer) = io::pipe().unwrap();
        let began = Instant::now();
        let much = vec![b'x'; 1 << 20];
        let written = write_all(&writer, &much, Some(Duration::from_millis(10)));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn attack_112_what_others_say_stays_in_its_line() {
        assert_eq!(
            safe("a\u{1b}[2J\u{202e}b\u{2028}c\n"),
            "a\u{fffd}[2J\u{fffd}b\u{fffd}c\n"
        );
    }
}
