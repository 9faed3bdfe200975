//! What the chores need beside the Rust toolchain, installed where it is missing.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, ensure};

use super::{quietly, root, run};

/// Tools of this repository live in its own target directory.
fn tools() -> PathBuf {
    root().join("target/tools")
}

/// The search path with those tools in front.
pub(super) fn path() -> OsString {
    let mut path = OsString::from(tools().join("bin"));
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    path
}

fn answers(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A cargo subcommand, or a program that cargo installs, of this version.
pub(super) fn cargo_tool(name: &str, version: &str) -> anyhow::Result<()> {
    let answer = match name.strip_prefix("cargo-") {
        Some(subcommand) => answers("cargo", &[subcommand, "--version"]),
        None => answers(name, &["--version"]),
    };
    if answer.is_some_and(|text| text.contains(version)) {
        return Ok(());
    }
    // They run for seconds: to compile them quickly is worth more than quick tools, and nobody
    // looks at them in a debugger.
    run(super::cargo(&format!(
        "install --quiet --locked --debug {name} --version {version} --root"
    ))
    .arg(tools())
    .env("CARGO_PROFILE_DEV_DEBUG", "0"))
}

/// A program as root: everybody else has to be allowed to.
pub(super) fn as_root(program: &str) -> Command {
    if answers("id", &["-u"]).is_some_and(|id| id.trim() == "0") {
        return super::command(program);
    }
    let mut command = super::command("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND,SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"]);
    command.arg(program);
    command
}

/// The packages that CI's steps want, for [`ahead`]; without those that compile, which must not
/// change while they do.
const OF_CI: &str = "\
    libfaketime openssl curl python3 python3-venv iproute2 bsdutils openssh-client util-linux mount \
    zstd bsdiff xdelta3 rsync zookeeper default-jre-headless \
    rauc squashfs-tools dbus swupdate cpio valgrind \
    debhelper dpkg-dev systemd lintian mmdebstrap systemd-container chromium chromium-driver \
    perl libio-socket-ssl-perl dash slrn slrnpull suck tin socat nftables";

/// Installs what CI's steps want, in one go, while something else is compiled: to install is mostly
/// to wait. What is missing afterwards, each step installs itself, and says what is wrong.
pub(super) fn ahead<T>(meanwhile: impl FnOnce() -> T) -> T {
    let names: Vec<&str> = OF_CI.split_whitespace().collect();
    std::thread::scope(|scope| {
        let installed = scope.spawn(|| install(&names, quietly));
        let result = meanwhile();
        match installed.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => println!("not installed ahead: {error:#}"),
            Err(_) => println!("not installed ahead"),
        }
        result
    })
}

/// Packages of Debian.
pub(super) fn packages(names: &[&str]) -> anyhow::Result<()> {
    install(names, run)
}

fn install(names: &[&str], run: fn(&mut Command) -> anyhow::Result<()>) -> anyhow::Result<()> {
    static IS_UPDATED: AtomicBool = AtomicBool::new(false);
    let installed = |name: &&&str| {
        answers("dpkg-query", &["-W", "-f=${Status}", name])
            .is_some_and(|s| s.contains("ok installed"))
    };
    let missing: Vec<_> = names.iter().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let hint = || format!("install these packages first: {missing:?}");
    let apt = |arguments: &[&str]| {
        let mut command = as_root("apt-get");
        // Another one may be at work.
        command
            .args(["-qq", "-y", "-o", "DPkg::Lock::Timeout=300"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // Once is enough for all that a run installs.
    if !IS_UPDATED.load(Ordering::Relaxed) {
        run(&mut apt(&["update"])).with_context(hint)?;
        IS_UPDATED.store(true, Ordering::Relaxed);
    }
    run(apt(&["install"]).args(missing.iter())).with_context(hint)
}

/// Packages of Debian, unpacked side by side into a directory of this repository and not installed.
pub(super) fn unpacked(names: &[impl AsRef<str>]) -> anyhow::Result<PathBuf> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    unpack(&[], &names)
        .with_context(|| format!("cannot download {names:?}; is apt-get update due?"))
}

/// The same with packages of a component that need not be among this machine's sources, which stay
/// as they are: where it is missing, apt gets a list of its own, in the target directory.
pub(super) fn unpacked_from(component: &str, names: &[&str]) -> anyhow::Result<PathBuf> {
    let known = |name: &&str| answers("apt-cache", &["show", "--no-all-versions", name]).is_some();
    if names.iter().all(known) {
        return unpacked(names);
    }
    let hint = || {
        format!(
            "{names:?} are in Debian's component {component}: add it to `Components:` of the \
             system's sources (/etc/apt/sources.list.d/debian.sources), then apt-get update"
        )
    };
    println!("apt: {component} is not among the sources; it is read into target/apt");
    let options = apt_for(component).with_context(hint)?;
    let mut update = super::command("apt-get");
    run(update.args(&options).args(["-qq", "update"])).with_context(hint)?;
    unpack(&options, names).with_context(hint)
}

/// Options by which apt knows a component alone, from where it has `main`.
fn apt_for(component: &str) -> anyhow::Result<Vec<String>> {
    let release = answers("sh", &["-c", ". /etc/os-release; echo $VERSION_CODENAME"]);
    let release = release.unwrap_or_default();
    let of_main = ["Created-By: Packages", "Component: main", "Label: Debian"];
    let codename = format!("Codename: {}", release.trim());
    let mut arguments = vec!["indextargets", "--format", "$(REPO_URI)"];
    arguments.extend(of_main);
    arguments.push(&codename);
    let places = answers("apt-get", &arguments).unwrap_or_default();
    let place = places
        .lines()
        .next()
        .with_context(|| format!("apt has no `main` of Debian's {release:?}"))?;
    let directory = root().join("target/apt");
    std::fs::create_dir_all(directory.join("lists/partial"))?;
    std::fs::create_dir_all(directory.join("cache/archives/partial"))?;
    let list = directory.join("sources.list");
    std::fs::write(
        &list,
        format!("deb {place} {} {component}\n", release.trim()),
    )?;
    let at = directory.display();
    Ok([
        format!("-oDir::Etc::SourceList={at}/sources.list"),
        "-oDir::Etc::SourceParts=-".into(),
        format!("-oDir::State::Lists={at}/lists"),
        format!("-oDir::Cache={at}/cache"),
        "-oAPT::Sandbox::User=root".into(),
    ]
    .into())
}

fn unpack(options: &[String], names: &[&str]) -> anyhow::Result<PathBuf> {
    let directory = root().join("target/unpacked");
    let done = directory.join(names.join("+"));
    if done.exists() {
        return Ok(directory);
    }
    std::fs::create_dir_all(&directory)?;
    run(super::command("apt-get")
        .args(options)
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
        .args(names)
        .current_dir(&directory))?;
    for entry in std::fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(super::command("dpkg").arg("-x").arg(&path).arg(&directory))?;
        }
    }
    std::fs::write(done, "")?;
    Ok(directory)
}

/// Prometheus' tool for rules and metrics. It is taken out of its package, whose installation would
/// start a server.
pub(super) fn promtool() -> anyhow::Result<PathBuf> {
    match answers("promtool", &["--version"]) {
        Some(_) => Ok("promtool".into()),
        None => Ok(unpacked(&["prometheus"])?.join("usr/bin/promtool")),
    }
}

/// A Python with packages of its own, in the target directory.
pub(super) fn python(needs: &[&str]) -> anyhow::Result<PathBuf> {
    let directory = root().join("target/python");
    let python = directory.join("bin/python");
    if !python.exists() {
        packages(&["python3", "python3-venv"])?;
        run(super::command("python3")
            .args(["-m", "venv"])
            .arg(&directory))?;
    }
    run(super::command(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(needs))?;
    Ok(python)
}

/// A Python that has a module of older standard libraries.
pub(super) fn python_with(module: &str) -> anyhow::Result<&'static str> {
    let has = |python: &&&str| {
        answers(python, &["-W", "ignore", "-c", &format!("import {module}")]).is_some()
    };
    let found = ["python3", "/usr/bin/python3", "python3.12", "python3.11"]
        .iter()
        .find(has);
    ensure!(
        found.is_some(),
        "no Python with {module} is here; Debian 12's python3 has it (the standard library lost it in 3.13)"
    );
    Ok(found.copied().unwrap_or("python3"))
}
