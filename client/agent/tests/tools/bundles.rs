//! Bundles that other updaters verify and write: RAUC, by its service, and SWUpdate. The test makes
//! and signs them.

use std::fs;

use tidings_agent::{
    apply::hex,
    handler::{Answer, FAILED, LATER, UNUSABLE},
};
use tidings_protocol::Digest;

use super::{LIB, PATH, Place, Tool, common::octets, common::write_program};

const IMAGE: usize = 1_500_000;
/// Of both slots.
const SLOT: &str = "2M";

/// Slots on loop devices, one image for them, and two keys: the second is nobody's.
fn place(conf: &str, text: &str, purpose: &str) -> Place {
    let mut place = Place::new(conf, text, "A");
    let (a, b) = (place.device("A", SLOT), place.device("B", SLOT));
    let slots = format!("SLOT_A={a}\nSLOT_B={b}\n");
    fs::write(place.path().join("etc/slots.conf"), slots).unwrap();
    fs::write(place.path().join("image"), octets("image", IMAGE)).unwrap();
    fs::write(&a, octets("old", IMAGE)).unwrap();
    for key in ["ours", "theirs"] {
        place.sh(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout \
             {key}.key -out {key}.pem -days 3650 -subj /CN={key} {purpose} 2> /dev/null"
        ));
    }
    place
}

/// Result and base, as a release names them.
fn properties() -> [(&'static str, String); 4] {
    let digest = |seed| hex(&Digest::of(&octets(seed, IMAGE)));
    [
        ("T_RESULT", digest("image")),
        ("T_X_RESULT_SIZE", IMAGE.to_string()),
        ("T_BASE", digest("old")),
        ("T_X_BASE_SIZE", IMAGE.to_string()),
    ]
}

fn tool<'a>(place: &'a Place, format: &'a str, payload: &str) -> Tool<'a> {
    let properties = properties();
    let environment: Vec<(&str, &str)> = properties
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    Tool::new(place, format, payload, &environment)
}

/// A `PATH` with everything but one program.
fn path_without(place: &Place, program: &str) -> String {
    place.sh(&format!(
        "mkdir -p without/{program}; for d in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin; \
         do find $d -maxdepth 1 ! -type d ! -name {program} \
         -exec ln -sf -t without/{program} {{}} +; done"
    ));
    place
        .path()
        .join("without")
        .join(program)
        .display()
        .to_string()
}

pub(super) fn refused(answer: &Answer, why: &str) {
    assert!(
        answer.code == UNUSABLE && answer.line.contains(why),
        "{answer:?}, and not {why:?}"
    );
}

pub(super) fn may_be_well_later(answer: &Answer, why: &str) {
    assert!(
        answer.code == FAILED && answer.line.contains(why),
        "{answer:?}, and not {why:?}"
    );
}

/// What runs, the loader and the way back are as they were.
fn untouched(place: &Place) {
    let env = fs::read_to_string(place.path().join("env")).unwrap();
    assert_eq!(env, "primary=A\nnext=\n");
    let slots = fs::read_to_string(place.path().join("etc/slots.conf")).unwrap();
    let a = slots.lines().find_map(|line| line.strip_prefix("SLOT_A="));
    let a = fs::read(a.unwrap()).unwrap();
    assert!(a.starts_with(&octets("old", IMAGE)), "slot A has changed");
}

/// A payload that is of no use is refused when it is staged, and leaves nothing but a way to drop
/// it.
fn of_no_use(place: &Place, format: &str, payload: &str, why: &str) {
    let tool = tool(place, format, payload);
    refused(&tool.call("stage", PATH).unwrap(), why);
    assert_eq!(tool.done("state"), "partial", "{payload}");
    tool.done("drop");
    assert_eq!(tool.done("state"), "none", "{payload}");
    untouched(place);
}

/// What a machine says of itself before anything is fetched.
fn can_says_why(place: &Place, format: &str, program: &str) {
    let mut tool = tool(place, format, "good");
    let answer = tool.call("can", &path_without(place, program)).unwrap();
    refused(&answer, &format!("no {program} on this machine"));
    let set = |tool: &mut Tool<'_>, name: &str, value: &str| {
        let of = tool.environment.iter_mut().find(|(key, _)| key == name);
        std::mem::replace(&mut of.unwrap().1, value.to_owned())
    };
    let size = set(&mut tool, "T_X_RESULT_SIZE", "2097153");
    refused(&tool.call("can", PATH).unwrap(), "smaller than the image");
    set(&mut tool, "T_X_RESULT_SIZE", &size);
    set(&mut tool, "T_BASE", &"0".repeat(64));
    refused(&tool.call("can", PATH).unwrap(), "not what it is made for");
    tool.environment.clear();
    refused(&tool.call("can", PATH).unwrap(), "result=");
}

/// Without one octet of what it holds. At the end of SWUpdate's archives lies padding, which only
/// the applier misses, by size and digest.
fn one_octet_short(place: &Place) {
    let mut octets = fs::read(place.path().join("good")).unwrap();
    octets.remove(IMAGE / 2);
    fs::write(place.path().join("short"), octets).unwrap();
}

/// RAUC's service on a bus of its own, in a machine that was booted from this slot.
fn rauc_service(place: &mut Place, slot: &str) {
    let here = place.path().display().to_string();
    place.sh(&format!(
        "[ ! -e service.pid ] || {{ kill $(cat service.pid); \
         while kill -0 $(cat service.pid) 2> /dev/null; do sleep 0.02; done; }}
export DBUS_SYSTEM_BUS_ADDRESS=unix:path={here}/bus DBUS_SESSION_BUS_ADDRESS=unix:path={here}/bus
T_ETC={here}/etc T_LIB={LIB} rauc --conf=system.conf --override-boot-slot={slot} \
    service >> service.log 2>&1 &
echo $! > service.pid
n=0; until rauc status > /dev/null 2>&1; do n=$((n + 1)); [ $n -lt 600 ] || {{ cat service.log; \
    exit 1; }}; sleep 0.05; done"
    ));
}

fn rauc_place() -> Place {
    let mut place = place("rauc.conf", "", "");
    let here = place.path().display().to_string();
    let conf = format!("RAUC_WAIT=60\nexport DBUS_SYSTEM_BUS_ADDRESS=unix:path={here}/bus\n");
    fs::write(place.path().join("etc/rauc.conf"), conf).unwrap();
    let hold = format!(
        "#!/bin/sh\n[ ! -e {here}/ill ] || exit 1\n\
         [ ! -e {here}/vanish ] || kill -9 $(cat {here}/service.pid)\n\
         : > {here}/installing\nn=0\nwhile [ -e {here}/hold ] && [ $n -lt 1200 ]; \
         do n=$((n + 1)); sleep 0.05; done\n"
    );
    write_program(&place.path().join("hold.sh"), &hold);
    place.sh(&format!(
        ". etc/slots.conf; mkdir mounts; cat > system.conf <<X
[system]
compatible=acme
bootloader=custom
activate-installed=false
statusfile={here}/status.raucs
mountprefix={here}/mounts
bundle-formats=plain verity
[handlers]
bootloader-custom-backend={LIB}/rauc-backend
pre-install={here}/hold.sh
[keyring]
path={here}/ours.pem
[slot.rootfs.0]
device=$SLOT_A
type=raw
bootname=A
[slot.rootfs.1]
device=$SLOT_B
type=raw
bootname=B
X
make() {{ mkdir -p of; cp $3 of/rootfs.img; \
    printf '[update]\\ncompatible=%s\\nversion=2\\n[bundle]\\nformat=plain\\n\
    [image.rootfs]\\nfilename=rootfs.img\\n' $2 > of/manifest.raucm; \
    rauc --cert=$1.pem --key=$1.key bundle of $4 > make.log 2>&1 || {{ cat make.log; exit 1; }}; \
    rm -r of; }}
make ours acme image good; make theirs acme image stranger; make ours other image other
head -c {IMAGE} /dev/zero > image3; make ours acme image3 unlike
dbus-daemon --session --nofork --address=unix:path={here}/bus > bus.log 2>&1 & echo $! > bus.pid
n=0; until [ -S bus ]; do n=$((n + 1)); [ $n -lt 600 ] || {{ cat bus.log; exit 1; }}; sleep 0.05; \
    done"
    ));
    // A service that is ended while it installs leaves its bundle mounted.
    let unmount = "n=0; while mountpoint -q mounts/bundle && [ $n -lt 100 ]; \
        do umount mounts/bundle || sleep 0.1; n=$((n + 1)); done";
    place.undo.push(unmount.into());
    place
        .undo
        .push("kill $(cat service.pid) $(cat bus.pid)".into());
    rauc_service(&mut place, "A");
    place
}

/// RAUC's own programs, to the same service.
fn by_hand(place: &Place, command: &str) -> String {
    let here = place.path().display();
    place.sh(&format!(
        "export DBUS_SYSTEM_BUS_ADDRESS=unix:path={here}/bus; {command}"
    ))
}

/// Whoever waits for RAUC is killed while RAUC writes: nothing else begins before RAUC rests.
fn killed_while_the_service_works(place: &Place) {
    let here = place.path();
    let tool = tool(place, "rauc", "good");
    tool.done("drop");
    let _ = fs::remove_file(here.join("installing"));
    fs::write(here.join("hold"), "").unwrap();
    let shims = here.join("half");
    fs::create_dir_all(&shims).unwrap();
    let shim = format!(
        "#!/bin/sh\nPATH={PATH}\n[ \"$1\" = install ] || exec rauc \"$@\"\nrauc \"$@\" &\nn=0\n\
         until [ -e {}/installing ] || [ $n = 1200 ]; do n=$((n + 1)); sleep 0.05; done\n\
         kill -9 0\n",
        here.display()
    );
    write_program(&shims.join("rauc"), &shim);
    let killed = tool.call("stage", &format!("{}:{PATH}", shims.display()));
    assert!(killed.is_err(), "{killed:?}");
    assert_eq!(tool.done("state"), "partial");
    let conf = fs::read_to_string(here.join("etc/rauc.conf")).unwrap();
    let impatient = conf.replace("RAUC_WAIT=60", "RAUC_WAIT=0");
    fs::write(here.join("etc/rauc.conf"), impatient).unwrap();
    for verb in ["drop", "stage"] {
        let answer = tool.call(verb, PATH).unwrap();
        assert!(
            answer.code == LATER && answer.line.contains("still installing"),
            "{verb}: {answer:?}"
        );
    }
    fs::write(here.join("etc/rauc.conf"), conf).unwrap();
    fs::remove_file(here.join("hold")).unwrap();
    tool.done("drop");
    assert_eq!(tool.done("state"), "none");
}

/// What is wrong with the machine says nothing of the bundle.
fn rauc_on_an_ill_machine(place: &mut Place) {
    let here = place.path().to_owned();
    let stage = |place: &Place| tool(place, "rauc", "good").call("stage", PATH).unwrap();
    fs::write(here.join("ill"), "").unwrap();
    may_be_well_later(&stage(place), "Pre-install handler error");
    fs::rename(here.join("ill"), here.join("vanish")).unwrap();
    may_be_well_later(&stage(place), "rauc: ");
    may_be_well_later(&stage(place), "RAUC's service does not answer");
    fs::remove_file(here.join("vanish")).unwrap();
    place.sh("umount mounts/bundle; rm service.pid");
    rauc_service(place, "A");
    tool(place, "rauc", "good").done("drop");
    untouched(place);
}

#[test]
#[ignore = "root, loop devices and RAUC: cargo xtask agent rauc"]
fn rauc() {
    let mut place = rauc_place();
    let good = tool(&place, "rauc", "good");
    good.check();
    one_octet_short(&place);
    for (payload, why) in [
        ("stranger", "ignature"),
        ("short", "ignature"),
        ("other", "ompatible"),
        ("unlike", "what came out is not"),
    ] {
        of_no_use(&place, "rauc", payload, why);
    }
    can_says_why(&place, "rauc", "rauc");
    rauc_on_an_ill_machine(&mut place);
    let good = tool(&place, "rauc", "good");
    killed_while_the_service_works(&place);
    good.lives("B");
    // RAUC sees the machine as it is, and what it does by hand goes to the same loader.
    let disagrees = tool(&place, "rauc", "good").call("can", PATH).unwrap();
    refused(&disagrees, "RAUC takes this machine for booted from A");
    rauc_service(&mut place, "B");
    let status = by_hand(&place, "rauc status --output-format=shell");
    assert!(
        status.contains("RAUC_SYSTEM_BOOTED_BOOTNAME='B'")
            && status.contains("RAUC_BOOT_PRIMARY='rootfs.1'"),
        "{status}"
    );
    let env = |place: &Place| fs::read_to_string(place.path().join("env")).unwrap();
    by_hand(&place, "rauc status mark-active other");
    assert_eq!(env(&place), "primary=B\nnext=A\n", "once");
    by_hand(&place, "rauc status mark-bad other");
    assert_eq!(env(&place), "primary=B\nnext=\n");
    by_hand(&place, "rauc status mark-active other");
    assert_eq!(place.boot(), "A");
    rauc_service(&mut place, "A");
    by_hand(&place, "rauc status mark-good booted");
    assert_eq!(
        env(&place),
        "primary=A\nnext=\n",
        "marked good, the default"
    );
}

fn swupdate_place() -> Place {
    let place = place(
        "swupdate.conf",
        "SWUPDATE_KEY=HERE/ours.pem\nSWUPDATE_HARDWARE=acme:1.0\nSWUPDATE_SELECT_A=stable,a\n\
         SWUPDATE_SELECT_B=stable,b\n",
        "-addext extendedKeyUsage=emailProtection",
    );
    // Each names a boot loader's variable, which SWUpdate must not change here.
    place.sh("
. etc/slots.conf
make() {
    rm -rf of; mkdir of; cp $3 of/rootfs.img; h=$(sha256sum of/rootfs.img | cut -d' ' -f1)
    set_of() { echo \"$1: { images: ( { filename = \\\"rootfs.img\\\"; device = \\\"$2\\\"; \
    type = \\\"raw\\\"; sha256 = \\\"$h\\\"; installed-directly = true; } ); \
    bootenv: ( { name = \\\"primary\\\"; value = \\\"$3\\\"; } ); };\"; }
    echo \"software = { version = \\\"2\\\"; $2: { hardware-compatibility: [ \\\"1.0\\\" ]; \
    stable = { $(set_of a $SLOT_A A) $(set_of b $SLOT_B B) }; }; };\" > of/sw-description
    cd of
    openssl cms -sign -in sw-description -out sw-description.sig -signer ../$1.pem \
    -inkey ../$1.key -outform DER -nosmimecap -binary
    printf 'sw-description\\nsw-description.sig\\nrootfs.img\\n' | \
    cpio -o -H crc 2> /dev/null > ../$4
    cd ..
}
make ours acme image good; make theirs acme image stranger; make ours other image other
head -c 1500000 /dev/zero > image3; make ours acme image3 unlike");
    place
}

/// What is wrong with the machine says nothing of the image.
fn swupdate_on_an_ill_machine(place: &mut Place) {
    let stage = |place: &Place| tool(place, "swupdate", "good").call("stage", PATH).unwrap();
    place.sh("mv ours.pem away");
    may_be_well_later(&stage(place), "Error loading certificate chain");
    place.sh(
        "mv away ours.pem; rm -r work; mkdir work; mount -t tmpfs -o size=8k work work; \
         head -c 4096 /dev/zero > work/full",
    );
    place
        .undo
        .push("! mountpoint -q work || umount work".into());
    may_be_well_later(&stage(place), "No space left on device");
    place.sh("rm -r work/log work/tmp; head -c 4096 /dev/zero >> work/full");
    may_be_well_later(&stage(place), "it does not say why");
    place.sh("umount work");
    tool(place, "swupdate", "good").done("drop");
    untouched(place);
}

#[test]
#[ignore = "root, loop devices and SWUpdate: cargo xtask agent swupdate"]
fn swupdate() {
    let mut place = swupdate_place();
    let good = tool(&place, "swupdate", "good");
    good.check();
    one_octet_short(&place);
    for (payload, why) in [
        ("stranger", "ignature"),
        ("short", "swupdate: "),
        ("other", "swupdate: "),
        ("unlike", "what came out is not"),
    ] {
        of_no_use(&place, "swupdate", payload, why);
    }
    can_says_why(&place, "swupdate", "swupdate");
    swupdate_on_an_ill_machine(&mut place);
    let good = tool(&place, "swupdate", "good");
    good.lives("B");
}

fn killed(place: &Place, format: &str) {
    let points = tool(place, format, "good").killed_everywhere();
    eprintln!("{format}: {points} points");
    assert!(points >= 10, "{points}");
}

#[test]
#[ignore = "root, loop devices and RAUC: cargo xtask agent rauc"]
fn rauc_is_killed_everywhere() {
    killed(&rauc_place(), "rauc");
}

#[test]
#[ignore = "root, loop devices and SWUpdate: cargo xtask agent swupdate"]
fn swupdate_is_killed_everywhere() {
    killed(&swupdate_place(), "swupdate");
}
