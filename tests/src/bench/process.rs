//! What another process on this machine has used so far.

use std::{fs, io, time::Duration};

/// A process by its id; Linux only.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no {what} in /proc"))
}

impl Process {
    /// User and system time, in steps of the system's clock tick (10 ms).
    ///
    /// # Errors
    /// If there is no such process.
    pub fn cpu(self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name stands in parentheses and may have some itself.
        let after = stat.rsplit_once(") ").ok_or_else(|| unexpected("stat"))?.1;
        let ticks: u64 = after
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(
            ticks * 1000 / rustix::param::clock_ticks_per_second(),
        ))
    }

    /// The proportional set size, in octets.
    ///
    /// # Errors
    /// If there is no such process, or it is not ours to look at.
    pub fn memory(self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .ok_or_else(|| unexpected("Pss"))?;
        let kibibytes: u64 = line
            .split_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| unexpected("Pss"))?;
        Ok(kibibytes * 1024)
    }
}
