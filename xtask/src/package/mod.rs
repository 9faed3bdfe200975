//! The packages for Debian: `tidingsd`, `tidings`, `tidings-agent`.
//!
//! debhelper makes them, Debian's own tool, of `xtask/debian/`: what starts, stops and purges
//! services on other people's machines is not written anew here. cargo-deb would have to be built
//! first, which takes CI minutes.

mod life;
mod pages;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;

use super::{command, quietly, root, setup};

/// What is packaged.
const NAMES: [&str; 3] = ["tidingsd", "tidings", "tidings-agent"];
const PROGRAMS: [&str; 5] = [
    "tidingsd",
    "tidings",
    "tidings-bench",
    "tidings-agent",
    "tidings-apply",
];
/// Those that print their completions.
const COMPLETING: [&str; 3] = ["tidingsd", "tidings", "tidings-agent"];
/// Each unit, and the name by which debhelper knows whose it is.
const UNITS: [(&str, &str); 5] = [
    ("docs/units/tidingsd.service", "tidingsd.service"),
    (
        "docs/units/tidings-beat.service",
        "tidings.tidings-beat.service",
    ),
    (
        "client/agent/units/tidings-agent.service",
        "tidings-agent.service",
    ),
    (
        "client/agent/units/tidings-apply.socket",
        "tidings-agent.tidings-apply.socket",
    ),
    (
        "client/agent/units/tidings-apply@.service",
        "tidings-agent.tidings-apply@.service",
    ),
];
/// How exposed a unit may be, by `systemd-analyze security`, in tenths.
const EXPOSURE: u32 = 25;

#[derive(Args)]
pub(super) struct Package {
    /// Programs that were built elsewhere, in this directory; otherwise they are built
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The version, as Debian writes it; that of the workspace without it
    #[arg(long)]
    version: Option<String>,
    /// Look with lintian, and live a life in a Debian tree with systemd: install, publish, apply,
    /// upgrade, remove, purge (as root)
    #[arg(long)]
    test: bool,
}

impl Package {
    /// What CI does.
    pub(super) fn tested() -> Self {
        Self {
            from: None,
            version: None,
            test: true,
        }
    }
}

/// Makes the packages twice, and compares.
pub(super) fn package(arguments: Package) -> anyhow::Result<()> {
    setup::packages(&["debhelper", "dpkg-dev", "systemd"])?;
    let programs = match arguments.from {
        Some(directory) => directory,
        None => programs()?,
    };
    let version = arguments
        .version
        .unwrap_or_else(|| env!("CARGO_PKG_VERSION").into());
    exposure()?;
    let place = root().join("target/package");
    let debs = made(&programs, &place.join("one"), &version)?;
    let again = made(
        &programs,
        &place.join("a-place-with-another-name"),
        &version,
    )?;
    for (one, other) in debs.iter().zip(&again) {
        ensure!(
            fs::read(one)? == fs::read(other)?,
            "{} and {} differ: the packages cannot be reproduced",
            one.display(),
            other.display()
        );
        fs::copy(one, place.join(one.file_name().context("no name")?))?;
        let digest = command("sha256sum").arg(one).output()?;
        print!("{}", String::from_utf8_lossy(&digest.stdout));
    }
    println!("two builds of the packages have the same octets");
    if arguments.test {
        lint(&debs)?;
        life::live(&place, &debs)?;
    }
    println!("the packages are in {}", place.display());
    Ok(())
}

fn exposure() -> anyhow::Result<()> {
    for (unit, _) in UNITS.iter().filter(|unit| unit.0.ends_with(".service")) {
        let mut analyze = command("systemd-analyze");
        analyze.args(["security", "--offline=true", "--no-pager"]);
        let output = analyze
            .arg(format!("--threshold={EXPOSURE}"))
            .arg(unit)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let verdict = text.lines().last().unwrap_or_default();
        println!("{}", verdict.trim_start_matches(|c: char| !c.is_ascii()));
        ensure!(
            output.status.success() && verdict.contains("exposure level"),
            "{unit} is more exposed than {EXPOSURE} tenths, or cannot be analyzed:\n{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// What is shipped, in one directory.
fn programs() -> anyhow::Result<PathBuf> {
    super::build()?;
    let (large, small) = (root().join("target/release"), super::small_agent()?);
    let into = root().join("target/programs");
    fs::create_dir_all(&into)?;
    for program in PROGRAMS {
        let is_small = super::AGENT.contains(&program);
        let from = if is_small { &small } else { &large }.join(program);
        fs::copy(&from, into.join(program))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(into)
}

/// The packages, in the order of [`NAMES`], made in a directory that is emptied first.
fn made(programs: &Path, place: &Path, version: &str) -> anyhow::Result<Vec<PathBuf>> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    let source = place.join("tidings");
    stage(programs, &source, version)?;
    let mut build = command("dpkg-buildpackage");
    build
        .args(["--build=binary", "--no-sign", "--no-check-builddeps"])
        .current_dir(&source)
        .env("SOURCE_DATE_EPOCH", epoch()?)
        .env("DEB_BUILD_OPTIONS", "noautodbgsym nocheck");
    let output = build.output().context("cannot run dpkg-buildpackage")?;
    ensure!(
        output.status.success(),
        "dpkg-buildpackage ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let architecture = command("dpkg").arg("--print-architecture").output()?;
    let architecture = String::from_utf8(architecture.stdout)?;
    let deb = |name| place.join(format!("{name}_{version}_{}.deb", architecture.trim()));
    let debs: Vec<PathBuf> = NAMES.into_iter().map(deb).collect();
    for deb in &debs {
        ensure!(deb.exists(), "{} was not made", deb.display());
    }
    Ok(debs)
}

/// The time of the newest commit: a package says nothing of when it was built.
fn epoch() -> anyhow::Result<String> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let output = command("git")
        .args(["log", "-1", "--format=%ct"])
        .output()?;
    let time = String::from_utf8(output.stdout)?.trim().to_owned();
    ensure!(!time.is_empty(), "without git, set SOURCE_DATE_EPOCH");
    Ok(time)
}

/// Lays everything where `xtask/debian/*.install` looks for it.
fn stage(programs: &Path, source: &Path, version: &str) -> anyhow::Result<()> {
    let copy = |from: &Path, to: &str| -> anyhow::Result<()> {
        let to = source.join(to);
        fs::create_dir_all(to.parent().context("no directory")?)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    };
    for entry in fs::read_dir(root().join("xtask/debian"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .context("no name")?
            .to_string_lossy()
            .into_owned();
        copy(&path, &format!("debian/{name}"))?;
    }
    for (unit, name) in UNITS {
        copy(&root().join(unit), &format!("debian/{name}"))?;
    }
    for program in PROGRAMS {
        copy(&programs.join(program), &format!("bin/{program}"))?;
    }
    copy(
        &root().join("xtask/debian/tidingsd.toml"),
        "etc/tidingsd.toml",
    )?;
    copy(&root().join("docs/tidingsd.toml"), "examples/tidingsd.toml")?;
    copy(&root().join("docs/agent.toml"), "examples/agent.toml")?;
    copy(&root().join("CHANGELOG.md"), "about/NEWS.md")?;
    let handlers = root().join("client/agent/handlers");
    quietly(
        command("cp")
            .arg("-r")
            .arg(&handlers)
            .arg(source.join("handlers")),
    )?;
    pages::write(programs, &source.join("man"))?;
    completions(programs, &source.join("completions"))?;
    let date = command("date")
        .args(["--utc", "--rfc-email", "--date", &format!("@{}", epoch()?)])
        .output()?;
    let entry = format!(
        "tidings ({version}) unstable; urgency=medium\n\
         \n  * NEWS.md beside this file says what has changed.\n\
         \n -- The Tidings developers <tidings@localhost>  {}\n",
        String::from_utf8(date.stdout)?.trim()
    );
    fs::write(source.join("debian/changelog"), entry)?;
    Ok(())
}

fn completions(programs: &Path, into: &Path) -> anyhow::Result<()> {
    for program in COMPLETING {
        for (shell, name) in [
            ("bash", program.to_owned()),
            ("zsh", format!("_{program}")),
            ("fish", format!("{program}.fish")),
        ] {
            let output = command(programs.join(program))
                .args(["completions", shell])
                .output()?;
            ensure!(
                output.status.success() && !output.stdout.is_empty(),
                "{program} has no completions for {shell}"
            );
            let path = into.join(shell).join(name);
            fs::create_dir_all(path.parent().context("no directory")?)?;
            fs::write(path, output.stdout)?;
        }
    }
    Ok(())
}

/// With the reasons for exceptions in `xtask/debian/*.lintian-overrides`.
fn lint(debs: &[PathBuf]) -> anyhow::Result<()> {
    setup::packages(&["lintian"])?;
    quietly(
        command("lintian")
            .args(["--fail-on=error,warning", "--tag-display-limit=0"])
            .args(debs),
    )?;
    println!("lintian finds nothing");
    Ok(())
}
