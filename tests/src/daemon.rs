//! A broker as a process.

use std::{
    fs,
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

/// A broker's process; killed when this is dropped.
pub struct Daemon {
    pub(super) child: Child,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal by name, e.g. `TERM`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()?;
        ensure!(status.success(), "kill -{name} failed");
        Ok(())
    }

    /// Waits for its end, and gives its exit code.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn wait(mut self, limit: Duration) -> anyhow::Result<Option<i32>> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            ensure!(
                began.elapsed() < limit,
                "tidingsd has not ended after {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// User and system time so far, in seconds.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.pid())
    }

    /// The proportional set size, in octets.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let line = text
            .lines()
            .find(|l| l.starts_with("Pss:"))
            .context("no Pss in smaps_rollup")?;
        let kibibytes: u64 = line
            .split_whitespace()
            .nth(1)
            .context("no number")?
            .parse()?;
        Ok(kibibytes * 1024)
    }
}

/// User and system time of a process so far, in seconds.
///
/// # Errors
/// If the process is gone.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("no name in stat")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // utime and stime, in ticks of 10 ms on every Linux that these tests run on.
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|f| f.parse::<f64>().unwrap_or(0.0))
        .sum();
    Ok(ticks / 100.0)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
