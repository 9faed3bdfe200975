//! The library for other languages: put where compilers look, made into a wheel, and used by a
//! program in C and one in Python on a real broker.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::{build, command, release, root, run, setup};

/// What makes the wheel.
const SETUPTOOLS: &str = "setuptools==84.2.1";
/// What checks its types.
const MYPY: &str = "mypy==2.4.1";
/// The name that programs ask for, as `client/capi/build.rs` has it.
const LIBRARY: &str = "libtidings.so.0";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Writes the header from the code. The test `header` compares them without this, since it takes
/// minutes to build.
pub(super) fn header() -> anyhow::Result<()> {
    setup::cargo_tool("cbindgen", "0.29.4")?;
    run(command("cbindgen")
        .args(["--quiet", "--config", "cbindgen.toml"])
        .args(["--output", "include/tidings.h", "."])
        .current_dir(root().join("client/capi")))
}

/// A running demonstration, and files of it.
pub(super) struct Demonstration<'a> {
    pub(super) broker: String,
    /// The same in clear text.
    pub(super) clear: String,
    pub(super) ca: &'a str,
    pub(super) channel: &'a str,
    pub(super) anchor: &'a str,
    pub(super) key: &'a str,
    pub(super) releases: &'a str,
}

/// Puts header, libraries and the file for pkg-config below a directory.
pub(super) fn install(prefix: &Path) -> anyhow::Result<()> {
    build()?;
    put(prefix)
}

fn put(prefix: &Path) -> anyhow::Result<()> {
    let prefix = std::path::absolute(prefix)?;
    let (include, lib) = (prefix.join("include"), prefix.join("lib"));
    fs::create_dir_all(&include)?;
    fs::create_dir_all(lib.join("pkgconfig"))?;
    let capi = root().join("client/capi");
    copy(&capi.join("include/tidings.h"), &include.join("tidings.h"))?;
    copy(&library(), &lib.join(LIBRARY))?;
    copy(
        &root().join("target/release/libtidings.a"),
        &lib.join("libtidings.a"),
    )?;
    let link = lib.join("libtidings.so");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(LIBRARY, link)?;
    let about = fs::read_to_string(capi.join("tidings.pc.in"))?
        .replace("@PREFIX@", &prefix.display().to_string())
        .replace("@VERSION@", VERSION);
    fs::write(lib.join("pkgconfig/tidings.pc"), about)?;
    println!("libtidings {VERSION} is in {}", prefix.display());
    Ok(())
}

fn library() -> PathBuf {
    root().join("target/release/libtidings.so")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Makes the wheel, with the library in it.
pub(super) fn wheel() -> anyhow::Result<PathBuf> {
    build()?;
    wheel_of(&setup::python(&[SETUPTOOLS])?)
}

/// In a copy, so that nothing is left beside the sources.
fn wheel_of(python: &Path) -> anyhow::Result<PathBuf> {
    let directory = root().join("target/wheel");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    let package = directory.join("source/tidings");
    fs::create_dir_all(&package)?;
    let source = root().join("client/python");
    for from in [&source, &source.join("tidings")] {
        let to = directory
            .join("source")
            .join(from.strip_prefix(&source).unwrap_or(from));
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                copy(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
    }
    copy(&library(), &package.join(LIBRARY))?;
    let mut pip = command(python);
    pip.args(["-m", "pip", "wheel", "--quiet", "--no-deps"])
        .args(["--no-build-isolation", "--disable-pip-version-check"])
        .arg("--wheel-dir")
        .arg(&directory)
        .arg(directory.join("source"))
        .env("TIDINGS_VERSION", VERSION);
    run(&mut pip)?;
    let mut files = fs::read_dir(&directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = files.find(|path| path.extension().is_some_and(|e| e == "whl"));
    let wheel = wheel.context("pip has made no wheel")?;
    let name = wheel.display().to_string();
    ensure!(
        name.contains("-py3-none-linux_"),
        "{name} is not a wheel of this platform for every Python 3"
    );
    println!("the wheel is {name}");
    Ok(wheel)
}

/// A trust log and a signed release in a new directory: what the programs verify.
fn files(demo: &Demonstration<'_>) -> anyhow::Result<PathBuf> {
    let directory = root().join("target/languages");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    let tidings = |arguments: &[&str]| {
        let mut tidings = release("tidings");
        tidings
            .args(arguments)
            .args(["--broker", &demo.broker, "--anchor", demo.anchor])
            .args(["--ca", demo.ca])
            .current_dir(&directory)
            .env("TIDINGS_OUTBOX", directory.join("outbox"));
        run(&mut tidings)
    };
    tidings(&["trust", "log", "--out", "trust.log"])?;
    tidings(&[
        "release",
        demo.channel,
        "--version",
        "99",
        "--key",
        demo.key,
        "--out",
        "release",
    ])?;
    Ok(directory)
}

fn arguments<'a>(demo: &'a Demonstration<'a>, broker: &'a str, directory: &'a str) -> [&'a str; 6] {
    let Demonstration {
        ca,
        channel,
        anchor,
        releases,
        ..
    } = demo;
    [broker, ca, channel, anchor, directory, releases]
}

/// The program in C: over TLS, and under valgrind, which finds no leak and no error. Under that a
/// handshake may take longer than a broker waits; so it goes in clear text.
pub(super) fn c(demo: &Demonstration<'_>) -> anyhow::Result<()> {
    setup::packages(&["gcc", "libc6-dev", "pkg-config", "valgrind"])?;
    let prefix = root().join("target/capi");
    put(&prefix)?;
    let mut flags = command("pkg-config");
    flags
        .args(["--cflags", "--libs", "tidings"])
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let flags = flags.output().context("cannot run pkg-config")?;
    ensure!(flags.status.success(), "pkg-config does not know tidings");
    let flags = String::from_utf8(flags.stdout)?;
    let program = prefix.join("program");
    let mut cc = command("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-o"])
        .arg(&program)
        .arg("interop/program.c")
        .args(flags.split_whitespace());
    run(&mut cc)?;
    let mut alone = command(&program);
    let mut valgrind = command("valgrind");
    valgrind
        .args(["--quiet", "--leak-check=full", "--error-exitcode=9"])
        .arg("--errors-for-leak-kinds=definite,indirect,possible")
        .arg("--show-leak-kinds=definite,indirect,possible")
        .arg(program);
    for (program, broker) in [(&mut alone, &demo.broker), (&mut valgrind, &demo.clear)] {
        let directory = files(demo)?.display().to_string();
        program
            .args(arguments(demo, broker, &directory))
            .env("LD_LIBRARY_PATH", prefix.join("lib"));
        run(program)?;
    }
    Ok(())
}

/// The program in Python, with the wheel as it would be shipped, and its types.
pub(super) fn python(demo: &Demonstration<'_>) -> anyhow::Result<()> {
    let python = setup::python(&[SETUPTOOLS, MYPY])?;
    let wheel = wheel_of(&python)?;
    let mut pip = command(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-index"])
        .args(["--force-reinstall", "--disable-pip-version-check"])
        .arg(wheel);
    run(&mut pip)?;
    let directory = files(demo)?;
    run(command(&python).arg("interop/program.py").args(arguments(
        demo,
        &demo.broker,
        &directory.display().to_string(),
    )))?;
    run(command(&python)
        .args(["-m", "mypy", "--strict", "--cache-dir", "target/mypy"])
        .args(["client/python/tidings", "interop/program.py"])
        .env("MYPYPATH", "client/python"))
}
