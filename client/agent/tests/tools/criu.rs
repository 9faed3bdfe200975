//! A process that goes on across a kexec: systemd in a VM, with CRIU and two kernels of Debian's.

use std::collections::BTreeMap;

use super::{
    LIB, sh,
    vm::{console, from_environment, told},
};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/units");

/// What is said in one boot.
#[derive(Default)]
struct Boot {
    kernel: String,
    units: BTreeMap<String, BTreeMap<String, f64>>,
    /// By `tidings-criu`, in the boot before and in this one.
    journal: Vec<String>,
    images: Vec<String>,
    spoilt: String,
    other: Vec<String>,
}

fn boots(said: &[String]) -> Vec<Boot> {
    let mut boots: Vec<Boot> = Vec::new();
    for line in said {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "up" {
            let (_, kernel) = rest.split_once("kernel=").unwrap();
            boots.push(Boot {
                kernel: kernel.into(),
                ..Boot::default()
            });
            continue;
        }
        let boot = boots.last_mut().unwrap();
        match word {
            "marked" | "plain" => {
                let fields = rest.split(' ').map(|field| {
                    let (name, value) = field.split_once('=').unwrap();
                    (name.to_owned(), value.parse().unwrap())
                });
                boot.units.insert(word.into(), fields.collect());
            }
            "before:" | "now:" => boot.journal.push(line.clone()),
            "spoilt" => boot.spoilt = rest.into(),
            "images:" => boot.images.push(rest.into()),
            _ => boot.other.push(line.clone()),
        }
    }
    boots
}

impl Boot {
    fn number(&self, unit: &str, field: &str) -> f64 {
        self.units[unit][field]
    }

    fn begins_anew(&self, unit: &str) -> bool {
        self.number(unit, "first") == 1.0
    }

    /// Not one count is lost, and none is there twice; the process is the one that it was, and the
    /// unit's.
    fn goes_on(&self, unit: &str, pid: f64) {
        let number = |field| self.number(unit, field);
        assert_eq!(number("first"), number("last") + 1.0, "{:?}", self.units);
        assert_eq!([number("pid"), number("main")], [pid, pid]);
    }

    fn has(&self, text: &str) {
        let found = self.journal.iter().any(|line| line.starts_with(text));
        assert!(found, "{text} is not in {:#?}", self.journal);
    }
}

#[test]
#[ignore = "a VM, some minutes: cargo xtask agent criu"]
fn a_process_goes_on_in_another_kernel() {
    let [unpacked, tree] = ["TIDINGS_UNPACKED", "TIDINGS_DEBIAN12"].map(from_environment);
    let scratch = tempfile::tempdir().unwrap();
    let make = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/vm/criu.sh");
    let (unpacked, tree) = (unpacked.display(), tree.display());
    sh(
        scratch.path(),
        &format!("sh {make} {unpacked} {tree} {LIB} {UNITS} 2>&1"),
    );
    let append = "console=ttyS0 quiet panic=2 systemd.show_status=no";
    let disk = "file=disk.img,if=virtio,format=raw";
    let machine = "-no-reboot -kernel kernel -initrd initrd -drive";
    let mut machine: Vec<&str> = machine.split(' ').collect();
    machine.extend([disk, "-append", append]);
    let (said, _) = told(&console(scratch.path(), &machine));
    let boots = boots(&said);
    let [first, second, third] = &boots[..] else {
        panic!("{said:#?}")
    };
    assert_ne!(first.kernel, second.kernel);
    assert_eq!(first.kernel, third.kernel);
    let pid = first.number("marked", "pid");
    assert!(first.begins_anew("marked"), "{:?}", first.units);
    for boot in [second, third] {
        boot.goes_on("marked", pid);
        assert!(boot.begins_anew("plain"), "{:?}", boot.units);
        boot.has(&format!("before: marked.service: process {pid} is saved"));
        boot.has(&format!("now: marked.service: process {pid} goes on"));
        boot.has("before: talker.service: not saved, stops as always: criu: ");
        for unit in ["marked", "plain"] {
            let [wall, mono] = ["wall", "mono"].map(|field| boot.number(unit, field));
            eprintln!(
                "without service: {wall:6.1} s  {unit}, into {} ({mono:.1} s)",
                boot.kernel
            );
        }
    }
    // It was saved; then its image was cut short.
    second.has(&format!(
        "before: spoilt.service: process {} is saved",
        first.spoilt
    ));
    second
        .has("now: spoilt.service: not restored, starts freshly: this has changed: image/pages-1");
    // It was saved again; then somebody wrote into its open file, which CRIU finds.
    third.has(&format!(
        "before: spoilt.service: process {} is saved",
        second.spoilt
    ));
    third.has("now: spoilt.service: not restored, starts freshly: criu: ");
    for (boot, before) in [(second, first), (third, second)] {
        assert_ne!(boot.spoilt, before.spoilt);
        assert_ne!(boot.spoilt, "0");
    }
    // A restart and a shutdown save nothing.
    assert_eq!(third.other, ["restarted: 1 beginnings", "end"]);
    assert!(
        boots
            .iter()
            .flat_map(|boot| &boot.images)
            .all(String::is_empty),
        "{said:#?}"
    );
    let left = sh(
        scratch.path(),
        "/sbin/debugfs -R 'ls -p /var/lib/tidings-criu' disk.img 2>/dev/null",
    );
    assert_eq!(left.split_whitespace().count(), 2, "{left}");
}
