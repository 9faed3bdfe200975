//! What the node agent costs while it waits: its memory, and how often it wakes up.
//!
//! It has installed a release before, over TLS, with the handlers that are shipped, on a machine
//! whose slots and loader are files; then nothing happens. Its broker's heartbeats are as they are
//! by default, 100 s apart at least, and its beats too.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::{release, root};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// For how long wake-ups are counted.
const WINDOW: Duration = Duration::from_secs(20);
/// A heartbeat and a beat may fall into these, and no second one of either.
const WINDOWS: u32 = 3;

/// Ends with what has started it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = fs::File::options().create(true).append(true).open(log)?;
        let command = command.stdin(Stdio::null()).stderr(log);
        Ok(Self(command.spawn().context("cannot start it")?))
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.0.id().to_string()).join(name)
    }

    fn threads(&self) -> anyhow::Result<Vec<String>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.file("task"))? {
            // A thread may have ended in between.
            all.extend(fs::read_to_string(entry?.path().join("status")));
        }
        Ok(all)
    }

    /// How often its threads have stopped running: each wake-up ends so.
    fn switches(&self) -> anyhow::Result<u64> {
        let all = self.threads()?;
        let lines = all.iter().flat_map(|status| status.lines());
        Ok(lines
            .filter_map(|line| line.split_once("ctxt_switches:"))
            .filter_map(|(_, number)| number.trim().parse::<u64>().ok())
            .sum())
    }

    /// Its proportional set size, in KiB.
    fn memory(&self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(self.file("smaps_rollup"))?;
        text.lines()
            .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .context("no Pss")
    }
}

fn until(what: &str, log: &Path, mut so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !so() {
        if Instant::now() > until {
            let log = fs::read_to_string(log).unwrap_or_default();
            bail!("never: {what}\n{log}");
        }
        sleep(LOOK);
    }
    Ok(())
}

/// Keys, certificates and a first trust statement, as the demonstration makes them; its anchor.
fn namespace(place: &Path) -> anyhow::Result<String> {
    let mut demo = release("tidingsd");
    demo.args(["demo", "--releases", "0", "--keep"]).arg(place);
    let mut demo = Process(demo.stdout(Stdio::piped()).spawn()?);
    let lines = BufReader::new(demo.0.stdout.take().context("no output")?).lines();
    let mut anchor = None;
    for line in lines {
        let line = line?;
        anchor = anchor.or(line.strip_prefix("anchor=").map(str::to_owned));
        if line == "ready" {
            break;
        }
    }
    anchor.context("the demonstration did not say its anchor")
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// An origin with few beats, but for the one after news; its ports for clear text
/// and for TLS.
fn origin(place: &Path, anchor: &str) -> anyhow::Result<(Process, u16, u16)> {
    let (clear, tls) = (free_port()?, free_port()?);
    let text = format!(
        "name = 'demo.invalid'\ndata_dir = '{0}/data'\nanchors = ['{anchor}']\n\
         [listen]\nnntp = ['127.0.0.1:{clear}']\nnntps = ['127.0.0.1:{tls}']\n\
         [tls]\ncertificate_file = '{0}/broker.pem'\nkey_file = '{0}/broker.key'\n\
         [[beat]]\nnamespace = 'demo'\nkey_file = '{0}/beat.key'\nevery_seconds = 100\nlife_seconds = 1000\n",
        place.display()
    );
    let (file, log) = (place.join("tidingsd.toml"), place.join("tidingsd.log"));
    fs::write(&file, text)?;
    let broker = Process::start(release("tidingsd").arg("--config").arg(&file), &log)?;
    until("the broker listens", &log, || {
        TcpStream::connect(("127.0.0.1", tls)).is_ok()
    })?;
    Ok((broker, clear, tls))
}

/// Files that stand for a machine; what its agent is configured with.
fn machine(place: &Path, programs: &Path, anchor: &str, tls: u16) -> anyhow::Result<PathBuf> {
    let here = place.join("machine");
    let m = here.display();
    let agent = format!(
        "anchor = '{anchor}'\nbrokers = ['nntps://localhost:{tls}']\nchannels = ['demo.os.stable']\n\
         identity = 'm'\nroots = '{0}/ca.pem'\nhealth_seconds = 0\n[fetch]\nschemes = ['file']\n\
         [paths]\nagent = '{m}/agent'\napplier = '{m}/applier'\nrun = '{m}/run'\netc = '{m}/etc'\n\
         lib = '{1}/client/agent/handlers'\napply = '{2}/tidings-apply'\nboot_id = '{m}/booted'\n",
        place.display(),
        root().display(),
        programs.display()
    );
    let files = [
        ("agent.toml", agent),
        (
            "etc/loader.conf",
            format!("LOADER=file\nLOADER_ENV='{m}/env'\nLOADER_RUNNING='{m}/booted'\n"),
        ),
        (
            "etc/slots.conf",
            format!("SLOT_A='{m}/A.img'\nSLOT_B='{m}/B.img'\n"),
        ),
        // The machine that this runs on stays up.
        ("etc/apply.d/reboot", "#!/bin/sh\nexit 0\n".to_owned()),
        ("env", "primary=A\nnext=\n".to_owned()),
        ("booted", "A\n".to_owned()),
        ("A.img", "the system before\n".repeat(1_000)),
        ("B.img", "nothing at all\n".repeat(2_000)),
    ];
    for (name, text) in files {
        let path = here.join(name);
        fs::create_dir_all(path.parent().context("no directory")?)?;
        fs::write(path, text)?;
    }
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(here.join("etc/apply.d/reboot"), executable)?;
    Ok(here)
}

/// Publishes a release with a real file.
fn publish(place: &Path, anchor: &str, clear: u16) -> anyhow::Result<()> {
    let image = place.join("image");
    fs::write(&image, "the system after\n".repeat(1_500))?;
    let payload = format!("raw {0} file://{0}", image.display());
    let mut tidings = release("tidings");
    tidings
        .args(["release", "demo.os.stable", "--new-channel", "--publish"])
        .args(["--version", "2"])
        .args(["--payload", &payload, "--key"])
        .arg(place.join("release.key"))
        .env("TIDINGS_BROKERS", format!("nntp://127.0.0.1:{clear}"))
        .env("TIDINGS_ANCHOR", anchor)
        .env("TIDINGS_OUTBOX", place.join("outbox"))
        .stdout(Stdio::null());
    ensure!(tidings.status()?.success(), "nothing was published");
    Ok(())
}

/// The agent has installed a release, and its machine was booted since: it waits.
fn agent(here: &Path, programs: &Path) -> anyhow::Result<Process> {
    let log = here.join("log");
    let start = || {
        let mut command = Command::new(programs.join("tidings-agent"));
        Process::start(command.arg("--config").arg(here.join("agent.toml")), &log)
    };
    let says = |what: &str| {
        fs::read_to_string(here.join("run/status.json")).is_ok_and(|text| text.contains(what))
    };
    let before = start()?;
    until("the machine goes", &log, || says("the machine goes"))?;
    drop(before);
    fs::write(here.join("booted"), "B\n")?;
    fs::write(here.join("env"), "primary=A\nnext=\n")?;
    let agent = start()?;
    until("2 is kept", &log, || says("\"intent\": \"kept\""))?;
    // Threads that wait for work of files end when they have had none for some seconds.
    until("one thread is left", &log, || {
        agent.threads().is_ok_and(|threads| threads.len() == 1)
    })?;
    Ok(agent)
}

/// The agent's memory in KiB while it waits, and how often it woke up between two heartbeats.
pub(super) fn cost(programs: &Path) -> anyhow::Result<(u64, u64)> {
    let place = root().join("target/waiting");
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let anchor = namespace(&place)?;
    let (broker, clear, tls) = origin(&place, &anchor)?;
    let here = machine(&place, programs, &anchor, tls)?;
    publish(&place, &anchor, clear)?;
    let mut agent = agent(&here, programs)?;
    let mut woken = u64::MAX;
    for _ in 0..WINDOWS {
        let before = agent.switches()?;
        sleep(WINDOW);
        woken = woken.min(agent.switches()? - before);
        println!(
            "the agent waits: {woken} wake-ups in {} s",
            WINDOW.as_secs()
        );
        if woken == 0 {
            break;
        }
    }
    ensure!(agent.0.try_wait()?.is_none(), "the agent has ended");
    let memory = agent.memory()?;
    drop((agent, broker));
    Ok((memory, woken))
}
