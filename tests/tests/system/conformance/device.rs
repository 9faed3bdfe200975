//! The runner against devices, and against one that breaks one rule at a time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use tidings_tests::binary;

use super::{wrong, wrong_by_itself};

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).to_owned()
}

/// Whether the runner finds all as it must be, and what it printed.
fn device(command: &[&str]) -> (bool, String) {
    let lives = root().join("spec/vectors/sequences");
    let output = Command::new(binary("tidings-conformance"))
        .arg("device")
        .arg("--lives")
        .arg(lives)
        .args(command)
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn the_library_lives_all_lives() {
    let driver = binary("conformance-driver");
    let (good, printed) = device(&[driver.to_str().unwrap()]);
    assert!(good, "{}", wrong(&printed).join("\n"));
    assert!(
        printed
            .lines()
            .filter(|line| line.starts_with("ok "))
            .count()
            > 110,
        "{printed}"
    );
    assert!(printed.ends_with(" 0 left out, 0 wrong\n"), "{printed}");
}

#[test]
fn a_driver_that_says_nothing_or_cannot_is_found_out() {
    let (good, printed) = device(&["true"]);
    assert!(!good && printed.contains("the driver"), "{printed}");
    let (good, printed) = device(&[
        "sh",
        "-c",
        "while read line; do case $line in life*) echo ok;; step*) echo unable;; esac; done",
    ]);
    assert!(
        !good && printed.contains("left out  ") && printed.contains("0 as they must be"),
        "{printed}"
    );
}

/// A Python that has the package `cryptography`: that of `TIDINGS_PYTHON`, or the system's.
fn python() -> String {
    let python = std::env::var("TIDINGS_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import cryptography"])
        .status()
        .is_ok_and(|status| status.success());
    assert!(
        has,
        "{python} lacks the package `cryptography`; `cargo xtask spec` makes one that has it, in target/python: set TIDINGS_PYTHON"
    );
    python
}

#[test]
fn the_device_in_python_lives_all_lives() {
    let driver = root().join("interop/driver.py");
    let (good, printed) = device(&[&python(), driver.to_str().unwrap()]);
    assert!(good, "{}", wrong(&printed).join("\n"));
    assert!(printed.ends_with(" 0 left out, 0 wrong\n"), "{printed}");
}

/// One rule of the device in Python each, and what stands in its place.
const RULES: &[(&str, &str, &str)] = &[
    (
        "1-13 of trust",
        "demand(not statement.unknown, \"1-13\", statement)",
        "pass",
    ),
    (
        "1-13 of beats",
        "demand(not beat.unknown, \"1-13\", beat)",
        "pass",
    ),
    ("1-13 of releases", "if release.unknown:", "if False:"),
    (
        "1-14, the most specific",
        "return len(role[1]) + 2 *",
        "return -len(role[1]) + 2 *",
    ),
    (
        "1-14, a channel first",
        "+ 2 * (not role[1].endswith(\"*\"))",
        "+ 0",
    ),
    (
        "1-14 of beats",
        "if self.beats_of(role) == statement.channel), None)",
        "if matches(role[1], statement.channel)), None)",
    ),
    (
        "1-14, below a name",
        "channel.startswith(pattern[:-1])",
        "channel.startswith(pattern[:-2])",
    ),
    (
        "1-15, the threshold",
        "demand(len(held) >= int(role[2]), \"1-15\", statement)",
        "demand(held, \"1-15\", statement)",
    ),
    (
        "1-15, signatures that hold",
        "    except InvalidSignature:\n        return False",
        "    except InvalidSignature:\n        return True",
    ),
    ("1-15, keys of the role", "if name in role[3:]}", "}"),
    (
        "1-16",
        "demand(statement.head == self.anchor, \"1-16\", statement)",
        "pass",
    ),
    (
        "1-17",
        "demand(statement.before == self.trust.head, \"1-17\", statement)",
        "pass",
    ),
    (
        "1-17, the role before",
        "            self.check(statement)\n        else:",
        "        else:",
    ),
    (
        "1-17, its own role",
        "self.check(statement, statement)",
        "pass",
    ),
    (
        "1-18",
        " <= set(statement.all(\"Closed\")), \"1-18\"",
        ", \"1-18\"",
    ),
    (
        "1-20",
        "demand(statement.channel == channel, \"1-20\", statement)",
        "pass",
    ),
    (
        "1-22",
        "demand(not self.is_closed(channel), \"1-22\", statement)",
        "pass",
    ),
    ("1-22, what is excepted", " and channel not in line[1:]", ""),
    (
        "1-22, beats",
        "not channel.endswith((\".trust\", \".beat\")) and any(matches(line[0]",
        "any(matches(line[0]",
    ),
    (
        "1-23",
        "demand(statement.trust <= self.trust.serial, \"1-23\", statement)",
        "pass",
    ),
    (
        "1-24",
        "\"1-24\", statement)",
        "\"1-24\", statement) if False else None",
    ),
    (
        "1-24, the successor",
        "for place in (statement.head, statement.before)",
        "for place in (statement.head,)",
    ),
    (
        "2-5",
        "demand(not above or above.before == statement.head, \"2-5\", statement)",
        "pass",
    ),
    (
        "2-6, a withdrawal",
        "vouched = statement.kind == \"release\"",
        "vouched = True",
    ),
    (
        "2-6, a release",
        "vouched = statement.kind == \"release\"",
        "vouched = False",
    ),
    (
        "2-6, a checkpoint",
        "vouched = vouched or statement.head == self.checkpoint(channel)",
        "pass",
    ),
    (
        "2-8",
        "return beat.places(\"Head\").get(channel) if beat and",
        "return None if beat and",
    ),
    ("2-10", "known.serial < beat.serial:", "True:"),
    (
        "2-11",
        "demand(clock is None or beat.time <= clock + FUTURE_SECONDS, \"2-11\", beat)",
        "pass",
    ),
    (
        "2-13",
        "if run[0].serial > head.serial + 1 and not hole:",
        "if False:",
    ),
    (
        "2-14, the same checkpoint",
        "if self.meets_role(known.newest) or known.newest.head == settled:",
        "if True:",
    ),
    (
        "2-14, the head's serial",
        "behind = last < head.serial and",
        "behind = False and",
    ),
    (
        "2-15, a fork",
        "            return \"fork\"\n",
        "            return self.append(known, run, hole)\n",
    ),
    (
        "2-15, the live beat",
        "if named and self.elsewhere(known, named, settled):",
        "if False:",
    ),
    (
        "2-16",
        "if self.undecided(channel) and not live:",
        "if False:",
    ),
    (
        "2-17",
        "kept = known.withdrawals[place in read]",
        "kept = []",
    ),
    (
        "2-17, two sets",
        "kept = known.withdrawals[place in read]",
        "kept = known.withdrawals[True]",
    ),
    ("2-18", "known.delivered = min(", "_ = min("),
    (
        "2-19, the monotonic clock",
        "max(statement.time + self.ran(statement) for",
        "max(statement.time for",
    ),
    (
        "2-19, from beat to beat",
        "for beat in self.taken if",
        "for beat in self.beats.values() if",
    ),
    (
        "2-19, a clock that counts",
        "and self.clock + FUTURE_SECONDS >= self.signed_time(beats) else",
        "else",
    ),
    (
        "2-20, a start",
        "if start != self.start and now is None:",
        "if False:",
    ),
    (
        "2-20, its end",
        "self.time(channel) < beat.time + life and",
        "self.time(channel) <= beat.time + life and",
    ),
    (
        "2-20, a day",
        "min(seconds(beat[\"Expires\"]) - beat.time, BEAT_LIFE_SECONDS)",
        "seconds(beat[\"Expires\"]) - beat.time",
    ),
    (
        "2-20, trust",
        "if not beat or beat.places(\"Head\").get(self.log) != self.trust.head:",
        "if not beat:",
    ),
    (
        "FORKED",
        "if named and links.get(named[0], named[1]) != named[1] or",
        "if",
    ),
    ("BEHIND", "or trust[0] > self.trust.serial:", "or False:"),
    (
        "2-24",
        "if self.time(channel) >= seconds(self.trust[\"Expires\"]):",
        "if self.time(channel) > seconds(self.trust[\"Expires\"]):",
    ),
    (
        "2-25",
        "if freshness != \"CURRENT\":",
        "if freshness == \"FORKED\":",
    ),
    (
        "2-25, what is covered",
        "            return self.named(channel)[0]\n",
        "            return self.known(channel).newest.serial\n",
    ),
    (
        "2-26",
        "if not begun or log[-1].head != self.known(channel).newest.head:",
        "if not begun:",
    ),
    (
        "2-27, targets",
        "and self.is_meant(s) and self.is_due(s)]",
        "and self.is_due(s)]",
    ),
    (
        "2-27, Not-Before",
        "and self.is_meant(s) and self.is_due(s)]",
        "and self.is_meant(s)]",
    ),
    ("2-28", "if log[0].serial > max(floor, 1):", "if False:"),
    (
        "2-30, the cohort",
        "identity = self.properties.get(cohort, self.identity)",
        "identity = self.identity",
    ),
    (
        "2-30, the deadline",
        "or release[\"Deadline\"] and now >= seconds(release[\"Deadline\"])",
        "",
    ),
    (
        "2-31",
        "while floor < int(release[\"Barrier\"] or 0):",
        "while False:",
    ),
    ("2-32", "if floor <= s.serial <= top", "if s.serial <= top"),
    (
        "2-33",
        "if release.head in sum(",
        "if False and release.head in sum(",
    ),
];

#[test]
fn a_device_that_breaks_one_rule_is_found_out() {
    let python = python();
    let text = fs::read_to_string(root().join("interop/device.py")).unwrap();
    let is_unseen = |(rule, old, new): &(&str, &str, &str)| {
        assert!(
            text.contains(old),
            "interop/device.py has no {old:?} any more, which this test breaks for {rule}"
        );
        let directory = tempfile::tempdir().unwrap();
        for name in ["driver.py", "life.py"] {
            fs::copy(
                root().join("interop").join(name),
                directory.path().join(name),
            )
            .unwrap();
        }
        fs::write(
            directory.path().join("device.py"),
            text.replacen(old, new, 1),
        )
        .unwrap();
        let driver = directory.path().join("driver.py");
        let (good, printed) = device(&[&python, driver.to_str().unwrap()]);
        good || wrong_by_itself(&printed).is_empty()
    };
    let unseen_of = |some: &[(&'static str, &str, &str)]| -> Vec<&str> {
        let unseen = some.iter().filter(|one| is_unseen(one));
        unseen.map(|(rule, ..)| *rule).collect()
    };
    let unseen: Vec<&str> = thread::scope(|scope| {
        let some = RULES.chunks(RULES.len().div_ceil(4));
        let looks: Vec<_> = some.map(|some| scope.spawn(|| unseen_of(some))).collect();
        let looked = looks.into_iter().map(|look| look.join().unwrap());
        looked.flatten().collect()
    });
    assert!(
        unseen.is_empty(),
        "nobody sees that these rules are broken: {unseen:?}"
    );
}
