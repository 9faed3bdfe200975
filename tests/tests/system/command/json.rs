//! What programs read: each answer and each refusal is one object a line, as
//! `docs/answers.schema.json` says.

use std::collections::BTreeSet;

use serde_json::Value;
use tidings_tests::schema::Schema;

use crate::command::desk::{Desk, ROLES, Said, os};

struct Checked<'a> {
    desk: &'a Desk,
    schema: Schema,
    seen: BTreeSet<String>,
}

impl Checked<'_> {
    /// Runs a command; each object that it prints has one of the forms, and that one among them.
    fn run(&mut self, form: &str, arguments: &[&str]) -> i32 {
        let output = tokio::task::block_in_place(|| {
            let mut command = self.desk.command(
                &[self.desk.fixture.address],
                &[arguments, &["--json"]].concat(),
            );
            command.output().unwrap()
        });
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let said: Said = output.into();
        let mut found = false;
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            let forms = self.schema.forms(&value);
            assert!(!forms.is_empty(), "{arguments:?}: no form for {line}");
            found |= forms.iter().any(|name| name == form);
            self.seen.extend(forms);
        }
        assert!(
            found,
            "{arguments:?} should answer with {form}: {}",
            said.text
        );
        said.code
    }
}

/// A group of slots, and a peer that may bring batches.
const MORE: &str = "[[slot]]\ngroup = \"web\"\n[fleetlock]\nlisten = [\"FREE-ADDRESS\"]\n[[peer]]\nname = \"ops\"\nnetworks = [\"127.0.0.1\"]\nfeeds = \"test.*\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_and_every_refusal_has_its_form() {
    let desk = Desk::new(ROLES).await.restart(MORE).await;
    let anchor = desk.realm.anchor.to_string();
    let url = desk.fixture.url();
    let mut all = Checked {
        desk: &desk,
        schema: Schema::read("answers"),
        seen: BTreeSet::new(),
    };
    let os = os();
    let release = ["release", os.as_str(), "--key", "ann.key"];
    let publish = [&release[..], &["--publish", "--new-channel", "--version"]].concat();
    all.run("statement", &[&publish[..], &["1"]].concat());
    all.run("statement", &["fetch", os.as_str(), "--state", "s"]);
    all.run("statement", &["log", os.as_str()]);
    all.run("status", &["status", "--state", "s"]);
    all.run("brokers", &["status", &url]);
    all.run("checked", &["check"]);
    all.run("checked", &["check", "no channel"]);
    all.run(
        "applied",
        &["apply", os.as_str(), "1", "--applied", "--state", "s"],
    );
    all.run("key", &["key", "new", "new.key"]);
    all.run("anchor", &["anchor"]);
    all.run("anchor", &["init", "other", "--dir", "other"]);
    all.run("trust_log", &["trust", "log", "--out", "trust.log"]);
    all.run(
        "trust",
        &["trust", "show", "trust.log", "--anchor", &anchor],
    );
    all.run("exported", &["export", os.as_str(), "--out", "batch"]);
    all.run("proven", &["import", "batch", "--check"]);
    all.run("imported", &["import", "batch"]);
    let slots = format!("http://{}", desk.fixture.slot_address().unwrap());
    for (form, arguments) in [
        ("token", &["slot", "take", "web", "n1", "1"][..]),
        ("slots", &["slot", "list", "web"]),
        ("slot_event", &["slot", "log", "web"]),
    ] {
        all.run(form, &[arguments, &["--slot-server", &slots]].concat());
    }
    all.run(
        "compared",
        &["payload", "compare", "new.key", "new.key.pub"],
    );
    let draft = [&release[..], &["--version", "2", "--out", "draft"]].concat();
    desk.run(&draft).good("");
    let verify = [
        "verify",
        "draft",
        "--trust",
        "trust.log",
        "--anchor",
        &anchor,
    ];
    all.run("verdict", &verify);
    all.run(
        "context",
        &["context", "add", "prod", "--broker", &url, "--use"],
    );
    for arguments in [&["list"][..], &["show"], &["use"], &["remove", "prod"]] {
        all.run("context", &[&["context"], arguments].concat());
    }
    all.run("cheat", &["cheat"]);
    for (code, word, arguments) in [
        (2, "usage", &["log"][..]),
        (2, "usage", &["log", "no channel"]),
        (2, "usage", &["frobnicate"]),
        (8, "bad-file", &["key", "show", "missing"]),
        (
            7,
            "no-broker",
            &["log", os.as_str(), "--broker", "nntp://127.0.0.1:1"],
        ),
        (
            3,
            "refused",
            &[
                "release",
                "test.typo",
                "--version",
                "1",
                "--key",
                "ann.key",
                "--publish",
            ],
        ),
        (9, "nothing", &["export", "test.typo", "--out", "nothing"]),
    ] {
        let found = all.run("refusal", arguments);
        assert_eq!(found, code, "{word}: {arguments:?}");
    }
    // What is not met here is met by tests of its own subject.
    let elsewhere = ["edited", "fork", "evidence", "waiting", "payload"];
    for name in all.schema.value()["anyOf"].as_array().unwrap() {
        let name = name["$ref"]
            .as_str()
            .unwrap()
            .trim_start_matches("#/$defs/");
        let known = all.seen.contains(name) || elsewhere.contains(&name);
        assert!(known, "nothing answers with {name}");
    }
    // The words and codes are those of the help.
    let help = desk.run(&["--help"]).text;
    let words = &all.schema.value()["$defs"]["refusal"]["properties"]["exit"]["enum"];
    for word in words.as_array().unwrap() {
        let word = word.as_str().unwrap();
        assert!(help.contains(word), "{word}");
    }
}
