//! The life of the packages on a machine: `life.sh`, in a Debian tree with systemd as its first
//! process.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::{command, quietly, root, setup};

/// The whole life may take so long; it takes a tenth of that on a machine with nothing else to do.
const SECONDS: &str = "300";

/// Lives it, first with the packages of a version before: what they hold is the same.
pub(super) fn live(place: &Path, debs: &[PathBuf]) -> anyhow::Result<()> {
    setup::packages(&["mmdebstrap", "systemd-container"])?;
    let tree = tree(place)?;
    let test = place.join("test");
    if test.exists() {
        fs::remove_dir_all(&test)?;
    }
    for deb in debs {
        let name = deb.file_name().context("no name")?;
        let (now, before) = (test.join("now"), test.join("before"));
        fs::create_dir_all(&now)?;
        fs::create_dir_all(&before)?;
        fs::copy(deb, now.join(name))?;
        earlier(deb, &place.join("earlier"), &before.join(name))?;
    }
    fs::copy(
        root().join("xtask/src/package/life.sh"),
        test.join("life.sh"),
    )?;
    let mut machine = setup::as_root("timeout");
    machine
        .args([SECONDS, "systemd-nspawn", "--quiet", "--boot"])
        // Nothing of this machine is asked or told, and nothing stays.
        .args(["--register=no", "--keep-unit", "--private-network"])
        .args(["--volatile=overlay", "--console=pipe", "--machine=tidings"])
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .arg(format!("--directory={}", tree.display()))
        .arg(format!("--bind={}:/test", test.display()))
        .stdin(std::process::Stdio::null());
    let status = machine.status().context("cannot run systemd-nspawn")?;
    let said = fs::read_to_string(test.join("log")).unwrap_or_default();
    println!("{}", said.trim_end());
    ensure!(
        said.lines().last() == Some("all good"),
        "the life of the packages has not come to its end (systemd-nspawn: {status}); \
         {} has its journal",
        test.join("journal").display()
    );
    Ok(())
}

/// Packs a package anew, with a version that comes before its own.
fn earlier(deb: &Path, within: &Path, into: &Path) -> anyhow::Result<()> {
    if within.exists() {
        fs::remove_dir_all(within)?;
    }
    quietly(
        command("dpkg-deb")
            .arg("--raw-extract")
            .arg(deb)
            .arg(within),
    )?;
    let control = within.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let earlier = |line: &str| match line.strip_prefix("Version: ") {
        Some(version) => format!("Version: {version}~before\n"),
        None => format!("{line}\n"),
    };
    fs::write(&control, text.lines().map(earlier).collect::<String>())?;
    quietly(
        command("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "--build"])
            .arg(within)
            .arg(into),
    )
}

/// A Debian with systemd, of the release that this machine has, since the programs are linked with
/// its libraries. It is made once.
fn tree(place: &Path) -> anyhow::Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").context("this is no Debian")?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("this Debian has no name")?;
    let tree = place.join(format!("debian-{suite}"));
    if tree.join("made").exists() {
        return Ok(tree);
    }
    let part = place.join("tree.part");
    quietly(setup::as_root("rm").args(["-rf"]).arg(&part).arg(&tree))?;
    quietly(setup::as_root("mmdebstrap")
        .args(["--quiet", "--variant=essential", "--include=systemd-sysv"])
        .args(["--dpkgopt=path-exclude=/usr/share/locale/*"])
        .args(["--dpkgopt=path-exclude=/usr/share/doc/*"])
        .args(["--dpkgopt=path-exclude=/usr/share/man/*"])
        .args([
            "--customize-hook=copy-in xtask/src/package/tidings-test.service /etc/systemd/system",
        ])
        .args(["--customize-hook=chroot \"$1\" systemctl enable tidings-test.service"])
        .args(["--customize-hook=touch \"$1/made\""])
        .arg(suite)
        .arg(&part))?;
    quietly(setup::as_root("mv").arg(&part).arg(&tree))?;
    Ok(tree)
}
