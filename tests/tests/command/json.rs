//! What programs read: each answer and each refusal is one object a line, as
//! `docs/answers.schema.json` says.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::desk::{Desk, ROLES, Said, os};

/// As much of JSON Schema as the schema uses; anything else in it is an error.
struct Schema(Value);

impl Schema {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/answers.schema.json");
        Self(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    }

    /// The forms that a value has.
    fn forms(&self, value: &Value) -> Vec<String> {
        let all = self.0["anyOf"].as_array().unwrap();
        let names = all.iter().map(|of| of["$ref"].as_str().unwrap());
        names
            .filter(|name| self.fits(&serde_json::json!({"$ref": name}), value))
            .map(|name| name.trim_start_matches("#/$defs/").to_owned())
            .collect()
    }

    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let rules = schema.as_object().unwrap();
        rules.iter().all(|(rule, of)| match rule.as_str() {
            "description" => true,
            "$ref" => {
                let name = of.as_str().unwrap().trim_start_matches("#/$defs/");
                self.fits(&self.0["$defs"][name], value)
            }
            "enum" => of.as_array().unwrap().contains(value),
            "type" => match of {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items.into_iter().all(|item| self.fits(of, item))
            }
            "required" => {
                let mut names = of.as_array().unwrap().iter();
                value.is_null() || names.all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "properties" => {
                let known = of.as_object().unwrap();
                let mut fields = value.as_object().into_iter().flatten();
                fields.all(|(name, value)| known.get(name).is_none_or(|of| self.fits(of, value)))
            }
            "additionalProperties" => {
                let known = &schema["properties"];
                let mut more = value.as_object().into_iter().flatten();
                more.all(|(name, value)| {
                    known.get(name).is_some() || of.is_object() && self.fits(of, value)
                })
            }
            other => panic!("the schema uses {other}, which this test does not know"),
        })
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    }
}

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
        schema: Schema::read(),
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
    for name in all.schema.0["anyOf"].as_array().unwrap() {
        let name = name["$ref"]
            .as_str()
            .unwrap()
            .trim_start_matches("#/$defs/");
        let known = all.seen.contains(name) || elsewhere.contains(&name);
        assert!(known, "nothing answers with {name}");
    }
    // The words and codes are those of the help.
    let help = desk.run(&["--help"]).text;
    let words = &all.schema.0["$defs"]["refusal"]["properties"]["exit"]["enum"];
    for word in words.as_array().unwrap() {
        let word = word.as_str().unwrap();
        assert!(help.contains(word), "{word}");
    }
}
