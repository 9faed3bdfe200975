//! A machine with two slots and a loader, all of them files, and the real node agent on it. To boot
//! is to start the agent anew.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tidings_protocol::statement::{Payload, Urgency};
use tokio::time::Instant;

use super::{image, say, stage::Stage};
use tidings_broker::limits::DRAIN;

/// How long the agent may take for one step.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
const AGENT: &str = "tidings-agent";
const APPLIER: &str = "tidings-apply";
/// Octets of the agent's log that are shown where it fails.
const LOG_TAIL: usize = 2_000;

/// What is shipped with the agent, and is used here.
const HANDLERS: [(&str, &str); 4] = [
    (
        "lib/slots.sh",
        include_str!("../../../../../client/agent/handlers/slots.sh"),
    ),
    (
        "lib/format.d/raw",
        include_str!("../../../../../client/agent/handlers/format.d/raw"),
    ),
    (
        "lib/loader",
        include_str!("../../../../../client/agent/handlers/loader"),
    ),
    (
        "lib/loader.d/file",
        include_str!("../../../../../client/agent/handlers/loader.d/file"),
    ),
];
/// What an operator writes. Here a machine that goes leaves a file: the one that this runs on stays
/// up.
const OWN: [(&str, &str); 8] = [
    (
        "etc/apply.d/reboot",
        "#!/bin/sh\n[ \"$1\" != go ] || : > \"$T_ETC/../went\"\n",
    ),
    (
        "etc/health.d/system",
        "#!/bin/sh\ncd \"${0%/*}/../..\"\nread -r slot < booted\n! head -n 1 $slot.img | grep -q 2.0\n",
    ),
    (
        "etc/loader.conf",
        "LOADER=file\nLOADER_ENV='HERE/env'\nLOADER_RUNNING='HERE/booted'\n",
    ),
    (
        "etc/slots.conf",
        "SLOT_A='HERE/A.img'\nSLOT_B='HERE/B.img'\n",
    ),
    ("env", "primary=A\nnext=\n"),
    ("booted", "A\n"),
    ("boots", "0"),
    (
        "agent.toml",
        "anchor = 'ANCHOR'\nbrokers = ['BROKER']\nchannels = ['CHANNEL']\nidentity = 'demo'\n\
         health_seconds = 0\n[fetch]\nschemes = ['file']\n[paths]\nagent = 'HERE/agent'\n\
         applier = 'HERE/applier'\nrun = 'HERE/run'\netc = 'HERE/etc'\nlib = 'HERE/lib'\n\
         apply = 'APPLIER'\nboot_id = 'HERE/boots'\n",
    ),
];

struct Machine {
    root: PathBuf,
    programs: PathBuf,
    boots: u32,
    agent: Option<Child>,
}

/// The agent ends with the machine.
impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Beside this program, or where packages put them.
fn programs() -> Option<PathBuf> {
    let here = std::env::current_exe().ok();
    let beside = here.as_deref().and_then(Path::parent);
    beside
        .into_iter()
        .chain([Path::new("/usr/bin")])
        .find(|directory| {
            [AGENT, APPLIER]
                .iter()
                .all(|name| directory.join(name).is_file())
        })
        .map(Path::to_owned)
}

impl Machine {
    fn new(root: PathBuf, programs: PathBuf, stage: &Stage) -> anyhow::Result<Self> {
        let places = [
            ("HERE", root.display().to_string()),
            ("ANCHOR", stage.anchor.to_string()),
            ("BROKER", format!("nntp://{}", stage.broker.nntp[0])),
            ("CHANNEL", super::stage::CHANNEL.to_owned()),
            ("APPLIER", programs.join(APPLIER).display().to_string()),
        ];
        for (name, text) in HANDLERS.iter().chain(&OWN) {
            let path = root.join(name);
            fs::create_dir_all(path.parent().context("no directory")?)?;
            let own = places
                .iter()
                .fold((*text).to_owned(), |text, (name, value)| {
                    text.replace(name, value)
                });
            fs::write(&path, own)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self {
            root,
            programs,
            boots: 0,
            agent: None,
        })
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root.join(name)).unwrap_or_default()
    }

    fn variable(&self, name: &str) -> String {
        let text = self.read("env");
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    }

    fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // It may have ended by itself.
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// The loader takes `next` once, else `primary`; what a life of the machine leaves in `run` is
    /// gone. The slot that runs.
    fn boot(&mut self) -> anyhow::Result<String> {
        self.stop();
        let (primary, next) = (self.variable("primary"), self.variable("next"));
        let slot = if next.is_empty() {
            primary.clone()
        } else {
            next
        };
        self.boots += 1;
        fs::write(self.root.join("env"), format!("primary={primary}\nnext=\n"))?;
        fs::write(self.root.join("booted"), format!("{slot}\n"))?;
        fs::write(self.root.join("boots"), self.boots.to_string())?;
        for gone in ["went", "run/status.json"] {
            // The first time there is none.
            let _ = fs::remove_file(self.root.join(gone));
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.root.join("log"))?;
        let mut command = Command::new(self.programs.join(AGENT));
        command
            .arg("--config")
            .arg(self.root.join("agent.toml"))
            .stdin(Stdio::null())
            .stderr(log);
        self.agent = Some(command.spawn().context("cannot start the agent")?);
        Ok(slot)
    }

    /// Until the agent says of itself what is waited for: why it is so.
    async fn until(&mut self, field: &str, value: &str) -> anyhow::Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let status: Value =
                serde_json::from_str(&self.read("run/status.json")).unwrap_or_default();
            let channel = &status["channels"][0];
            if channel[field] == value {
                return Ok(channel["why"].as_str().unwrap_or_default().to_owned());
            }
            let ended = match &mut self.agent {
                Some(agent) => agent.try_wait()?.is_some(),
                None => true,
            };
            if ended || Instant::now() > until {
                let log = self.read("log");
                let tail = log.get(log.len().saturating_sub(LOG_TAIL)..);
                bail!(
                    "the agent did not come to {field} {value}: {channel}\n{}",
                    tail.unwrap_or_default()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The machine goes, and boots a slot.
    async fn goes_to(&mut self, slot: &str) -> anyhow::Result<()> {
        self.until("why", "the machine goes").await?;
        ensure!(self.root.join("went").exists(), "the machine did not go");
        let booted = self.boot()?;
        ensure!(booted == slot, "slot {booted} was booted, not {slot}");
        Ok(())
    }

    /// What lies in a slot begins with this image.
    fn has(&self, slot: &str, image: &Payload) -> anyhow::Result<bool> {
        let octets = fs::read(self.root.join(format!("{slot}.img")))?;
        Ok(octets.starts_with(&image::check(image)?))
    }
}

/// An image is installed that is not well, and one that is.
pub(super) async fn show(directory: &Path) -> anyhow::Result<()> {
    say(
        "\n9. The node agent on a machine with two slots and a loader, which are files, and an origin of its own:",
    );
    let Some(programs) = programs() else {
        say(format_args!(
            "  NOT SHOWN: {AGENT} and {APPLIER} are neither beside this program nor in /usr/bin. `cargo build --release` makes them."
        ));
        return Ok(());
    };
    let mut stage = Stage::set_up(&directory.join("fleet")).await?;
    let mut machine = Machine::new(directory.join("machine"), programs, &stage)?;
    let [old, bad, good] = ["1.0", "2.0", "2.1"].map(|version| image::whole(directory, version));
    let (old, bad, good) = (old?, bad?, good?);
    fs::write(machine.root.join("A.img"), image::check(&old)?)?;
    File::create(machine.root.join("B.img"))?.set_len(2 * old.size)?;
    machine.boot()?;

    stage
        .release("2.0", "not well", Urgency::Security, vec![bad.clone()])
        .await?;
    machine.goes_to("B").await?;
    ensure!(machine.has("B", &bad)?, "slot B is not the image");
    say("  2.0 is verified, written into slot B, and booted once: there its health is looked at");
    machine.goes_to("A").await?;
    let why = machine.until("intent", "failed").await?;
    ensure!(machine.variable("primary") == "A", "2.0 became the default");
    say(format_args!(
        "  back in slot A, which is 1.0; 2.0 has failed: {why}"
    ));

    stage
        .release("2.1", "well", Urgency::Security, vec![good.clone()])
        .await?;
    machine.goes_to("B").await?;
    machine.until("intent", "kept").await?;
    ensure!(
        machine.variable("primary") == "B" && machine.has("B", &good)?,
        "2.1 is not what boots"
    );
    say(
        "  2.1 is verified, written into slot B, booted once, well, and kept: slot B is the default",
    );
    drop(machine);
    let Stage {
        broker, publisher, ..
    } = stage;
    drop(publisher);
    ensure!(broker.shutdown(DRAIN).await, "its origin did not end well");
    Ok(())
}
