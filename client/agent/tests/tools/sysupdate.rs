//! systemd-sysupdate, which Debian has from 13 on: out of a tree, in a mount namespace of its own.

use std::fs;

use super::{
    PATH, Place, Tool,
    bundles::refused,
    common::{octets, write_program},
};

const IMAGE: usize = 700_000;

fn place() -> Place {
    let tree = std::env::var("TIDINGS_DEBIAN13")
        .expect("TIDINGS_DEBIAN13 names a tree of Debian 13: cargo xtask agent sysupdate makes it");
    let mut place = Place::new(
        "sysupdate.conf",
        "SYSUPDATE=HERE/sysupdate\nSYSUPDATE_OS_RELEASE=HERE/os-release\n\
         SYSUPDATE_SOURCE=HERE/source\nSYSUPDATE_TARGET=HERE/esp/linux\nSYSUPDATE_NAME=os_\n\
         SYSUPDATE_EXT=.efi\n",
        "none",
    );
    let here = place.path().display().to_string();
    let text = format!(
        "#!/bin/sh\nexec unshare -m sh -ec 'mkdir -p {tree}{here}; \
         mount --rbind {here} {tree}{here}; mount -t proc p {tree}/proc; \
         mount --bind /dev {tree}/dev; exec chroot {tree} /usr/lib/systemd/systemd-sysupdate \
         --definitions={here}/transfers \"$@\"' sh \"$@\"\n"
    );
    write_program(&place.path().join("sysupdate"), &text);
    place.sh("mkdir source esp transfers; mount -t tmpfs -o size=4m esp esp; mkdir esp/linux");
    place.undo.push("umount esp".into());
    place.undo.push(format!("rmdir {tree}{here}"));
    let transfer = format!(
        "[Transfer]\nProtectVersion=1\n[Source]\nType=regular-file\nPath={here}/source\n\
         MatchPattern=os_@v.efi\n[Target]\nType=regular-file\nPath={here}/esp/linux\n\
         MatchPattern=os_@v+@l-@d.efi os_@v+@l.efi os_@v.efi\nTriesLeft=0\nTriesDone=0\n\
         InstancesMax=2\n"
    );
    fs::write(place.path().join("transfers/10-os.transfer"), transfer).unwrap();
    fs::write(
        place.path().join("esp/linux/os_1.efi"),
        octets("old", IMAGE),
    )
    .unwrap();
    fs::write(place.path().join("os-release"), "IMAGE_VERSION=1\n").unwrap();
    fs::write(place.path().join("image"), octets("new", IMAGE)).unwrap();
    place
}

/// The newest that has tries left or is not counted, as systemd-boot takes it.
fn boot(place: &Place) -> String {
    let path = place.sh(
        "cd esp/linux; for f in os_*; do case $f in *+0*) ;; *) echo $f ;; esac; \
        done | sort -V | tail -n 1",
    );
    place.sh(&format!(
        "cd esp/linux; case {path} in *+1-0.efi) mv {path} \"$(echo {path} | \
         sed 's/+1-0/+0-1/')\" ;; esac"
    ));
    let version = path.trim_start_matches("os_").split(['+', '.']).next();
    let version = version.unwrap().to_owned();
    fs::write(
        place.path().join("os-release"),
        format!("ID=os\nIMAGE_VERSION=\"{version}\"\n"),
    )
    .unwrap();
    version
}

#[test]
#[ignore = "root and a tree of Debian 13: cargo xtask agent sysupdate"]
fn sysupdate() {
    let place = place();
    let tool = Tool::new(&place, "sysupdate", "image", &[("T_VERSION", "2")]);
    tool.check();
    let points = tool.killed_everywhere();
    tool.done("drop");
    eprintln!("sysupdate: {points} points");
    assert!(points >= 10, "{points}");
    let zeros = "0".repeat(64);
    let can = |key, value| {
        let environment = [("T_VERSION", "2"), (key, value)];
        Tool::new(&place, "sysupdate", "image", &environment)
            .call("can", PATH)
            .unwrap()
    };
    refused(&can("T_BASE", &zeros), "not what it is made for");
    refused(&can("T_VERSION", "0.9"), "not newer");
    place.sh("mv sysupdate away");
    refused(&can("T_MEM", "0"), "no ");
    place.sh("mv away sysupdate; head -c 3000000 /dev/zero > esp/full");
    refused(&can("T_MEM", "0"), "no room in");
    place.sh("rm esp/full");
    // What lies there is not booted before its turn, and once in its turn.
    tool.done("stage");
    assert_eq!(boot(&place), "1");
    tool.done("arm");
    assert_eq!([boot(&place), boot(&place)], ["2", "1"], "once");
    assert_eq!(tool.done("state"), "staged", "it fell back");
    tool.done("arm");
    assert_eq!(boot(&place), "2");
    assert_eq!(tool.done("state"), "running");
    tool.done("drop");
    assert_eq!(tool.done("state"), "running", "what runs is not dropped");
    tool.done("keep");
    assert_eq!(
        (tool.done("state"), boot(&place)),
        ("kept".into(), "2".into())
    );
    let names = place.sh("ls esp/linux");
    assert_eq!(names, "os_1.efi\nos_2.efi");
    // A transfer that lets the loader boot at once is refused, and nothing boots.
    place.sh(
        "sed -i 's/TriesLeft=0/TriesLeft=3/; s/ProtectVersion=1/ProtectVersion=2/' \
        transfers/10-os.transfer",
    );
    let bad = Tool::new(&place, "sysupdate", "image", &[("T_VERSION", "3")]);
    refused(&bad.call("stage", PATH).unwrap(), "TriesLeft=0");
    assert_eq!(boot(&place), "2", "nothing new boots");
    bad.done("drop");
    assert_eq!(bad.done("state"), "none");
}
