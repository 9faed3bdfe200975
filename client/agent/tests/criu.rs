//! What `tidings-criu` decides, with a `criu` that records how it was called and carries nothing
//! over. The real one is in a VM: `cargo xtask agent criu`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{fs, path::Path, process::Command};

use common::write_program;

/// A machine in namespaces of its own: what the kernel says lies in files, `boot` begins the next
/// one, `start` starts the unit, and `stop` does what its stop does first.
const MACHINE: &str = r#"
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mount -t tmpfs none /sys
mount -t tmpfs none /proc/sys/kernel
kernel=/proc/sys/kernel images=/var/lib/tidings-criu unit=demo.service
mkdir -p /sys/kernel $kernel/random
echo 4194304 > $kernel/pid_max
boot() {
    echo "$1-0000-boot" > $kernel/random/boot_id
    echo 208 > $kernel/bootloader_type
    echo 300 > $kernel/ns_last_pid
    echo 0 > /sys/kernel/kexec_loaded
    echo "9 reboot.target start waiting" > jobs
    rm -rf /run/tidings-criu
}
kexec() { echo 1 > /sys/kernel/kexec_loaded; echo " 9 kexec.target start waiting" > jobs; }
start() {
    rm -f started
    "$SCRIPT" run $unit -- "$HERE/bin/counter" "$@"
}
fresh() {
    start "$@"
    until [ -s started ]; do sleep 0.01; done
    [ "$(cat started)" = "$(cat /run/tidings-criu/$unit.pid)" ] || echo "another number"
}
stop() { MAINPID=$(cat /run/tidings-criu/$unit.pid) "$SCRIPT" save $unit; }
number() { cat /run/tidings-criu/$unit.pid; }
lives() {
    case $(cat "/proc/$1/stat" 2> /dev/null) in "" | *") Z "*) echo dead ;; *) echo lives ;; esac
}
# CRIU has a second, and everything else what it has.
impatient() {
    : > hangs
    printf '#!/bin/sh\n[ "$1" != -k ] || { shift 3; set -- -k 5 1 "$@"; }\nexec %s "$@"\n' \
        "$(command -v timeout)" > bin/timeout
    chmod +x bin/timeout
}
# Without numbers, which differ.
said() {
    sed -E 's/(process|number|from) [0-9]+/\1 N/g' log 2> /dev/null || :
    rm -f log
}
calls() { cat calls 2> /dev/null || echo none; }
boot 00001
"#;

/// What a script prints on such a machine.
fn machine(script: &str) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let here = scratch.path();
    programs(&here.join("bin"));
    fs::write(here.join("criu.conf"), "").unwrap();
    let handler = concat!(env!("CARGO_MANIFEST_DIR"), "/handlers/tidings-criu");
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("timeout")
        .args("120 unshare --mount --pid --fork --kill-child --mount-proc sh -euc".split(' '))
        .arg(format!("{MACHINE}{script}"))
        .env(
            "PATH",
            format!("{}/bin:{path}:/usr/sbin:/sbin", here.display()),
        )
        .env("HERE", here)
        .env("T_ETC", here)
        .env("SCRIPT", handler)
        .current_dir(here)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        output.status.success(),
        "as root, or in `unshare --user --map-root-user --mount`: {text}"
    );
    text.trim_end().to_owned()
}

fn programs(bin: &Path) {
    fs::create_dir(bin).unwrap();
    write_program(
        &bin.join("criu"),
        r#"#!/bin/sh
# None of CRIU: it writes down what is asked, and does what the files beside it say.
cd "$HERE"
verb=$1 tree= images=
echo "$@" | sed "s/[0-9][0-9]*/N/g" >> calls
while [ $# -gt 0 ]; do
    case $1 in --tree) tree=$2 ;; --images-dir) images=$2 ;; esac
    shift
done
ls -A /var/lib/tidings-criu > seen
[ ! -e hangs ] || exec sleep 1000
if [ -e fails ]; then
    echo "(00.1) Error (criu/x.c:1): $(cat fails)" > "$images/$verb.log"
    exit 1
fi
case $verb in dump) echo memory > "$images/pages-1.img"; kill -KILL "$tree" ;; esac
"#,
    );
    let logger = "#!/bin/sh\nshift 3\necho \"$@\" >> \"$HERE/log\"\n";
    write_program(&bin.join("logger"), logger);
    let systemctl = "#!/bin/sh\n[ \"$1\" = list-jobs ] && cat \"$HERE/jobs\"\n";
    write_program(&bin.join("systemctl"), systemctl);
    let counter = "#!/bin/sh\necho $$ > \"$HERE/started\"\nwhile :; do sleep 0.1; done\n";
    write_program(&bin.join("counter"), counter);
}

const GOES_ON: &str = "demo.service: process N is saved\ndemo.service: process N goes on";

/// With what comes between the saving and the next start.
fn carried(between: &str) -> String {
    machine(&format!(
        "fresh; kexec; stop; boot 00002; rm calls; {between}\nstart; said
        echo images: $(ls -A $images); echo calls: $(cat calls 2> /dev/null)"
    ))
}

/// What is said when it is not restored.
fn refused(why: &str) -> String {
    format!(
        "demo.service: process N is saved\n\
         demo.service: not restored, starts freshly: {why}\nimages:\ncalls:"
    )
}

#[test]
fn without_an_image_the_command_is_started() {
    let text = machine(
        "umask 022; fresh; said; lives $(number); cat $kernel/ns_last_pid; calls
        # The command as it is: with the signals that the shell takes away, in its own session.
        grep Umask /proc/$(number)/status
        for of in $$ $(number); do grep SigIgn /proc/$of/status > signals.$of; done
        cmp signals.$$ signals.$(number); cut -d' ' -f6 /proc/$(number)/stat > session
        [ $(cat session) = $(number) ] && echo session
        # Numbers are from the upper half, once.
        kill -KILL $(number); echo 2100000 > $kernel/ns_last_pid; fresh; cat $kernel/ns_last_pid",
    );
    let expected = "lives\n2097153\nnone\nUmask:\t0022\n\
                    session\n2100000";
    assert_eq!(text, expected);
}

#[test]
fn a_process_is_saved_before_a_kexec_and_goes_on_once() {
    let text = machine(
        "fresh; was=$(number); kexec; stop; lives $was; said
        stat -c '%a %n' $images $images/$unit; ls $images/$unit; cat calls seen; rm calls
        boot 00002; start; [ $was = $(number)  ] && echo same; said
        # It was put away before, and is gone now.
        cat calls seen; ls -A $images
        boot 00003; rm calls; fresh; said; calls",
    );
    let expected = "dead\ndemo.service: process N is saved\n700 /var/lib/tidings-criu\n\
        700 /var/lib/tidings-criu/demo.service\ncommand\nfiles\nimage\nsaved\n\
        dump --images-dir /var/lib/tidings-criu/.new.demo.service/image \
        --manage-cgroups=ignore --log-file dump.log -vN --tree N\n.new.demo.service\n\
        same\ndemo.service: process N goes on\n\
        restore --images-dir /var/lib/tidings-criu/.used.demo.service/image \
        --manage-cgroups=ignore --log-file restore.log -vN --restore-detached\n.used.demo.service\nnone";
    assert_eq!(text, expected);
}

#[test]
fn an_image_of_another_boot_is_removed_and_not_used() {
    assert!(carried("").starts_with(GOES_ON));
    assert_eq!(carried("boot 00001"), refused("the machine has not gone"));
    let by_loader = "echo 114 > $kernel/bootloader_type";
    assert_eq!(
        carried(by_loader),
        refused("this kernel was not booted by kexec")
    );
    let later = "echo 'CRIU_AGE=-1' > criu.conf";
    let text = carried(later);
    assert!(
        text.contains("seconds ago, at most -1 are allowed\nimages:\ncalls:"),
        "{text}"
    );
    let earlier = "sed -i 's/ 1/ 9/' $images/$unit/saved";
    let text = carried(earlier);
    assert!(
        text.contains("it was saved -") && text.ends_with("images:\ncalls:"),
        "{text}"
    );
}

#[test]
fn a_changed_program_and_a_taken_number_are_not_restored() {
    let text = carried("echo '# new' >> bin/counter");
    assert!(text.contains("this has changed: /"), "{text}");
    assert!(
        text.contains("/bin/counter: FAILED\nimages:\ncalls:"),
        "{text}"
    );
    let cut = refused("this has changed: image/pages-1.img: FAILED");
    assert_eq!(carried(": > $images/$unit/image/pages-1.img"), cut);
    let command = "echo more >> $images/$unit/command";
    assert_eq!(carried(command), refused("the unit has another command"));
    let taken = "sed -i \"s/ [0-9]*$/ $$/\" $images/$unit/saved";
    assert_eq!(carried(taken), refused("another process has the number N"));
    for spoilt in [": >", "echo a b c >", "rm"] {
        let text = carried(&format!("{spoilt} $images/$unit/saved"));
        assert_eq!(text, refused("it is spoilt"), "{spoilt}");
    }
}

#[test]
fn what_cannot_be_restored_is_started_freshly_and_never_tried_again() {
    let text = machine(
        "fresh; kexec; stop; echo 'spoilt' > fails; boot 00002; fresh; lives $(number); said
        cat seen; ls -A $images; rm calls; boot 00003; fresh; said; calls",
    );
    let expected = "lives\ndemo.service: process N is saved\n\
        demo.service: not restored, starts freshly: criu: criu/x.c:1: spoilt\n\
        .used.demo.service\nnone";
    assert_eq!(text, expected);
    // The machine goes down while it restores.
    let text = machine(
        "fresh; kexec; stop; mv $images/$unit $images/.used.$unit; rm calls; boot 00002; fresh
        ls -A $images; calls",
    );
    assert_eq!(text, "none");
    let text = machine(
        "fresh; kexec; stop; impatient; boot 00002; fresh
        lives $(number); said; ls -A $images",
    );
    let expected = "lives\ndemo.service: process N is saved\n\
        demo.service: not restored, starts freshly: criu: ended after 30 seconds";
    assert_eq!(text, expected);
}

#[test]
fn only_a_kexec_saves() {
    let text = machine(
        "fresh; stop; echo 1 > /sys/kernel/kexec_loaded; stop
        kexec; echo 0 > /sys/kernel/kexec_loaded; stop
        kexec; echo '9 kexec.target stop waiting' > jobs; stop
        kexec; MAINPID= \"$SCRIPT\" save $unit
        lives $(number); said; ls $images 2> /dev/null || echo none
        calls",
    );
    assert_eq!(text, "lives\nnone\nnone");
}

#[test]
fn what_cannot_be_saved_stops_as_always() {
    let stopped = |between: &str| {
        machine(&format!(
            "fresh; kexec; {between}\nstop; lives $(number); said; ls -A $images"
        ))
    };
    let why = |why: &str| format!("lives\ndemo.service: not saved, stops as always: {why}");
    let text = stopped("echo 'a socket' > fails");
    assert_eq!(text, why("criu: criu/x.c:1: a socket"));
    let text = stopped("impatient");
    assert_eq!(text, why("criu: ended after 30 seconds"));
    let text = stopped(
        "unshare --uts sleep 100 & echo $! > /run/tidings-criu/$unit.pid
        until [ \"$(readlink /proc/$!/ns/uts)\" != \"$(readlink /proc/1/ns/uts)\" ]; do sleep 0.01; done",
    );
    assert_eq!(text, why("it has a namespace of its own: uts"));
    let text = stopped("mkdir -m 0755 $images");
    assert_eq!(
        text,
        "lives\ndemo.service: not saved: others than root reach /var/lib/tidings-criu"
    );
    let text = stopped(
        "mkdir -p /sys/fs/cgroup/x/$unit; sleep 100 & other=$!
        number > /sys/fs/cgroup/x/$unit/cgroup.procs; echo $other >> /sys/fs/cgroup/x/$unit/cgroup.procs
        echo 0::/x/$unit > group; mount --bind group /proc/$(number)/cgroup",
    );
    assert_eq!(text, why("process N of the unit does not descend from N"));
}
