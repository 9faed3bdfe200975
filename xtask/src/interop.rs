//! Other people's software against ours: readers on a demonstration that stays up, and INN between
//! two brokers.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context, ensure};

use super::{
    build, command,
    languages::{self, Demonstration},
    release, root, run as perform, setup, trial,
};

/// Releases that readers find.
const RELEASES: &str = "12";
/// The readers of `interop/readers.sh`.
const READERS: &[&str] = &[
    "slrn",
    "slrnpull",
    "suck",
    "tin",
    "fetchnews",
    "pullnews",
    "nntpget",
    "actsync",
];
/// Everything else.
const OTHERS: &[&str] = &["nntplib", "net-nntp", "device", "c", "python", "inn"];

/// Runs what is named, or everything.
pub(super) fn run(names: &[String]) -> anyhow::Result<()> {
    let unknown = names
        .iter()
        .find(|name| !READERS.contains(&name.as_str()) && !OTHERS.contains(&name.as_str()));
    ensure!(
        unknown.is_none(),
        "{unknown:?} is none of {}, {}",
        OTHERS.join(", "),
        READERS.join(", ")
    );
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    build()?;
    let readers: Vec<&str> = READERS
        .iter()
        .copied()
        .filter(|reader| wanted(reader))
        .collect();
    if !readers.is_empty() || OTHERS.iter().any(|name| *name != "inn" && wanted(name)) {
        with_demonstration(&readers, &wanted)?;
    }
    if wanted("inn") {
        setup::packages(&[
            "libdb5.3",
            "libperl5.36",
            "libpython3.11",
            "libsasl2-2",
            "libsqlite3-0",
        ])?;
        perform(
            trial("inn")
                .arg("--script")
                .arg(root().join("interop/inn.sh")),
        )?;
    }
    Ok(())
}

fn with_demonstration(readers: &[&str], wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
    setup::packages(&[
        "python3",
        "perl",
        "libio-socket-ssl-perl",
        "openssl",
        "dash",
    ])?;
    let unpacked = if readers.is_empty() {
        None
    } else {
        Some(programs()?)
    };
    let directory = root().join("target/interop");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    let mut demo = release("tidingsd")
        .args(["demo", "--releases", RELEASES, "--keep"])
        .arg(&directory)
        .stdout(Stdio::piped())
        .spawn()?;
    let checked = demo.stdout.take().context("no output").and_then(|output| {
        let lines = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .take_while(|line| line != "ready");
        let said = Said(
            lines
                .filter_map(|l| l.split_once('=').map(|(k, v)| (k.into(), v.into())))
                .collect(),
        );
        scripts(&said, wanted)?;
        libraries(&said, wanted)?;
        if let Some(unpacked) = unpacked {
            let (host, port) = said.of("nntp")?.rsplit_once(':').context("no port")?;
            let mut script = command("bash");
            script
                .arg("interop/readers.sh")
                .args([host, port, said.of("channel")?, RELEASES])
                .args(readers)
                .env("UNPACKED", unpacked);
            perform(&mut script)?;
        }
        Ok(())
    });
    perform(command("kill").arg(demo.id().to_string()))?;
    let status = demo.wait()?;
    checked?;
    ensure!(status.success(), "the demonstration ended with {status}");
    Ok(())
}

/// What the demonstration says of itself, by key.
struct Said(Vec<(String, String)>);

impl Said {
    fn of(&self, key: &str) -> anyhow::Result<&str> {
        let found = self.0.iter().find(|(known, _)| known == key);
        found
            .map(|(_, value)| value.as_str())
            .with_context(|| format!("no {key}="))
    }
}

/// Libraries of other people as readers, and a device in shell.
fn scripts(said: &Said, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
    let (nntps, ca, channel) = (said.of("nntps")?, said.of("ca")?, said.of("channel")?);
    let arguments = [said.of("nntp")?, nntps, ca, channel, RELEASES];
    if wanted("nntplib") {
        perform(
            command(setup::python_with("nntplib")?)
                .arg("interop/nntplib_reader.py")
                .args(arguments),
        )?;
    }
    if wanted("net-nntp") {
        perform(
            command("perl")
                .arg("interop/net_nntp_reader.pl")
                .args(arguments),
        )?;
    }
    if !wanted("device") {
        return Ok(());
    }
    let anchor = said.of("anchor")?;
    let device = |anchor: &str| {
        let mut device = command("dash");
        let arguments = ["interop/device.sh", nntps, ca, channel, anchor];
        device.args(arguments);
        device
    };
    perform(&mut device(anchor))?;
    let other = anchor
        .replace("sha256:", "sha256:0")
        .chars()
        .take(anchor.len())
        .collect::<String>();
    let refused = device(&other).output()?;
    ensure!(
        !refused.status.success() && refused.stdout.is_empty(),
        "the shell device believes another anchor"
    );
    println!(
        "the device in shell refuses another anchor: {}",
        String::from_utf8_lossy(&refused.stderr).trim()
    );
    Ok(())
}

/// Our library in other languages.
fn libraries(said: &Said, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
    let port = said.of("nntps")?.rsplit_once(':').context("no port")?.1;
    let demonstration = Demonstration {
        broker: format!("nntps://localhost:{port}"),
        clear: format!("nntp://{}", said.of("nntp")?),
        ca: said.of("ca")?,
        channel: said.of("channel")?,
        anchor: said.of("anchor")?,
        key: said.of("key")?,
        releases: RELEASES,
    };
    if wanted("c") {
        languages::c(&demonstration)?;
    }
    if wanted("python") {
        languages::python(&demonstration)?;
    }
    Ok(())
}

/// Readers that Debian has; those that exclude each other are unpacked and not installed.
fn programs() -> anyhow::Result<PathBuf> {
    setup::packages(&[
        "slrn",
        "slrnpull",
        "suck",
        "tin",
        "socat",
        "iproute2",
        "util-linux",
        "bsdutils",
    ])?;
    setup::unpacked(&["inn2", "inn2-inews", "leafnode"])
}
