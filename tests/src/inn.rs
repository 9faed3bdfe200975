//! INN, the news server, run by `interop/inn.sh` without being installed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use tidings_client::{Connection, Tls};
use tidings_protocol::nntp::code;

use crate::free_address;

/// A running `innd` with everything of its own; it is stopped when this is dropped.
pub struct Inn {
    script: PathBuf,
    /// Where it lives.
    pub directory: String,
    /// Where it listens.
    pub port: u16,
}

impl Inn {
    /// Sets one up in a directory that INN's user can reach, and starts it. It feeds a peer whose
    /// name in `Path` is `far.invalid`, or nobody with port 0.
    ///
    /// # Errors
    /// What the script said.
    pub fn start(
        script: &Path,
        scratch: &Path,
        name: &str,
        feed_to: u16,
        groups: &[&str],
    ) -> anyhow::Result<Self> {
        let unpacked = scratch.join("deb").display().to_string();
        let inn = Self {
            script: script.into(),
            directory: scratch.join(name).display().to_string(),
            port: free_address()?.port(),
        };
        if !Path::new(&unpacked).exists() {
            inn.run(&["fetch", &unpacked])?;
        }
        let (port, feed) = (inn.port.to_string(), feed_to.to_string());
        inn.run(
            &[
                &[
                    "setup",
                    &inn.directory,
                    &unpacked,
                    &port,
                    &feed,
                    "far.invalid",
                ],
                groups,
            ]
            .concat(),
        )?;
        inn.run(&["start", &inn.directory])?;
        Ok(inn)
    }

    /// Runs the script.
    ///
    /// # Errors
    /// What it said, if it failed.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("bash")
            .arg(&self.script)
            .args(arguments)
            .env("FEED_GROUPS", "test.*")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{} {arguments:?}: {said}",
            self.script.display()
        );
        Ok(said)
    }

    /// A connection to it.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        Ok(Connection::open(
            &format!("nntp://127.0.0.1:{}", self.port).parse()?,
            &Tls::system()?,
        )
        .await?)
    }

    /// Offers an article as a peer does.
    ///
    /// # Errors
    /// If it is not taken.
    pub async fn ihave(&self, id: &str, octets: &[u8]) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        let answer = connection.command(&format!("IHAVE {id}")).await?;
        ensure!(answer.code == code::SEND_IT, "{answer}");
        connection.send_raw(octets).await?;
        let answer = connection.answer().await?;
        ensure!(answer.code == code::TRANSFERRED, "{answer}");
        Ok(())
    }
}

impl Drop for Inn {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["stop", &self.directory]) {
            eprintln!("{error}");
        }
    }
}
