//! Brokers that are one origin, on an ensemble.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::ensure;
use tidings_client::{Publisher, keys};

use crate::{
    Daemon, Fixture, binary,
    ensemble::Ensemble,
    realm::{Realm, key},
    tree::until,
};

/// How soon a member that does not answer is none any more, in these tests.
pub const SESSION_SECONDS: u64 = 4;

/// Waits until each member has seen all the others.
///
/// # Panics
/// If that does not happen.
pub async fn until_acquainted(members: &[Fixture]) {
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    let said = format!("the members of the cluster members=\"{}\"", names.join(" "));
    for member in members {
        until(&said, async || member.log().contains(&said)).await;
    }
}

/// A place in an ensemble for one cluster.
pub struct Site {
    /// The realm that all members serve.
    pub realm: Realm,
    /// The servers, as a configuration wants them.
    pub servers: String,
    /// The node.
    pub root: String,
    /// How soon a member that does not answer is none any more.
    pub session_seconds: u64,
}

impl Site {
    /// A new place.
    pub fn new(ensemble: &Ensemble, realm: Realm) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = format!(
            "/test{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Self {
            realm,
            servers: ensemble.servers(),
            root,
            session_seconds: SESSION_SECONDS,
        }
    }

    /// What a member's configuration has more than another broker's.
    pub fn configuration(&self, fixture: &Fixture, in_cluster: &str, more: &str) -> String {
        format!(
            "{more}\n[cluster]\nservers = [{}]\nroot = \"{}\"\naddress = \"{}\"\nsession_seconds = {}\n{in_cluster}\n",
            self.servers,
            self.root,
            fixture.url(),
            self.session_seconds
        )
    }

    /// A member, not started yet.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn member(&self, name: &str, in_cluster: &str, more: &str) -> anyhow::Result<Fixture> {
        let fixture = Fixture {
            anchor: self.realm.anchor.clone(),
            name: name.into(),
            ..Fixture::new()?
        };
        fixture.configure(&self.configuration(&fixture, in_cluster, more))?;
        Ok(fixture)
    }

    /// `tidingsd init-cluster`, as an operator does it.
    ///
    /// # Errors
    /// What it said.
    pub fn init(&self, member: &Fixture) -> anyhow::Result<()> {
        let output = Command::new(binary("tidingsd"))
            .arg("init-cluster")
            .arg("--config")
            .arg(member.config())
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Members with these names, started, and the trust log published.
    ///
    /// # Errors
    /// If one does not start.
    pub async fn found(
        &self,
        names: &[&str],
        in_cluster: &str,
        more: &str,
    ) -> anyhow::Result<(Vec<Fixture>, Vec<Option<Daemon>>)> {
        let members: Vec<Fixture> = names
            .iter()
            .map(|name| self.member(name, in_cluster, more))
            .collect::<Result<_, _>>()?;
        self.init(&members[0])?;
        let daemons = members
            .iter()
            .map(|member| member.start().map(Some))
            .collect::<Result<Vec<_>, _>>()?;
        self.publish_trust(&members[0]).await?;
        until_acquainted(&members).await;
        Ok((members, daemons))
    }

    /// Publishes the trust log, as soon as the member takes it.
    ///
    /// # Errors
    /// If it never does.
    pub async fn publish_trust(&self, member: &Fixture) -> anyhow::Result<()> {
        let began = std::time::Instant::now();
        for statement in &self.realm.log {
            while let Err(error) = Publisher::connect(member.source()?)
                .await?
                .publish(statement)
                .await
            {
                ensure!(
                    began.elapsed() < crate::tree::PATIENCE,
                    "{error}; its log: {}",
                    member.log()
                );
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// `[[beat]]` for a member, with its key.
    ///
    /// # Errors
    /// If the key cannot be written.
    pub fn beats(&self, directory: &std::path::Path) -> anyhow::Result<String> {
        let path = directory.join("beat.key");
        if !path.exists() {
            keys::write_private(&path, &key("beat"), None)?;
        }
        Ok(format!(
            "[[beat]]\nnamespace = \"test\"\nkey_file = \"{}\"\nevery_seconds = 1\nlife_seconds = 10\n",
            path.display()
        ))
    }
}
