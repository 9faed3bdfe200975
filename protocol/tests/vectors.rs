//! Every test vector of the specification, judged by the library (spec part 1).

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod device;

use std::{fmt::Write, fs, path::Path};

use device::Device;
use tidings_protocol::{
    Anchor, Head, Requirement, Statement, StatementError, Verified,
    article::{self, ArticleError},
    log::{self, Place},
    rollout,
    statement::{Kind, Rollout},
    trust::Trust,
    verify::VerifyError,
};

struct Vector {
    name: String,
    head: Vec<(String, String)>,
    octets: Vec<u8>,
}

impl Vector {
    fn of(&self, key: &str) -> Option<&str> {
        self.head
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }
}

fn vectors(kind: &str) -> Vec<Vector> {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/vectors")).join(kind);
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let octets = fs::read(&path).unwrap();
        let end = octets.windows(2).position(|w| w == b"\n\n").unwrap();
        let head = String::from_utf8(octets[..end].to_vec()).unwrap();
        let head = head
            .lines()
            .map(|l| {
                l.split_once(':')
                    .map(|(k, v)| (k.into(), v.trim_start().into()))
                    .unwrap()
            })
            .collect();
        Vector {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            head,
            octets: octets[end + 2..].to_vec(),
        }
    };
    let mut found: Vec<_> = fs::read_dir(directory).unwrap().map(read).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn first_trust() -> Trust {
    let first = vectors("good")
        .into_iter()
        .find(|v| v.name == "trust-1")
        .unwrap();
    let statement = Statement::parse(&first.octets).unwrap();
    let anchor = Anchor {
        namespace: "vectors".parse().unwrap(),
        head: statement.head(),
    };
    Trust::first(&anchor, statement).unwrap()
}

fn judge(trust: &Trust, statement: Statement) -> Result<Verified<Statement>, VerifyError> {
    match statement.kind() {
        Kind::Trust if statement.channel().as_str() == "vectors.trust" => {
            trust.succeed(statement).map(|t| t.statement().clone())
        }
        _ => trust.verify(statement),
    }
}

#[test]
fn good_ones_are_accepted_and_given_back_octet_by_octet() {
    let trust = first_trust();
    let good = vectors("good");
    assert!(good.len() >= 29);
    for vector in good {
        let statement =
            Statement::parse(&vector.octets).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        assert_eq!(statement.octets(), vector.octets, "{}", vector.name);
        let rendered = article::render(&statement, "x!not-for-mail");
        let article = String::from_utf8(rendered.octets)
            .unwrap()
            .replace("\r\n", "\n");
        assert_eq!(
            article::parse(article.as_bytes()).unwrap().statement,
            statement,
            "{}",
            vector.name
        );
        if vector.name != "trust-1" {
            judge(&trust, statement).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        }
    }
}

#[test]
fn attacks_02_04_06_10_11_13_34_40_41_46_48_every_bad_one_is_refused_at_its_layer() {
    let trust = first_trust();
    let bad = vectors("bad");
    assert!(bad.len() >= 220);
    for vector in &bad {
        let layer = vector.of("layer").unwrap();
        match layer {
            "grammar" | "statement" => {
                let error = Statement::parse(&vector.octets).expect_err(&vector.name);
                let expected = (
                    vector.of("line").unwrap().parse().unwrap(),
                    vector.of("field").unwrap(),
                );
                assert_eq!(
                    (error.line, error.field.as_str()),
                    expected,
                    "{}: {error}",
                    vector.name
                );
            }
            "envelope" => match article::parse(&vector.octets).expect_err(&vector.name) {
                ArticleError::Header { line, .. } => assert_eq!(
                    line.to_string(),
                    vector.of("line").unwrap(),
                    "{}",
                    vector.name
                ),
                ArticleError::NoBody => assert_eq!(vector.of("line"), Some("0"), "{}", vector.name),
                ArticleError::Statement(error) => {
                    panic!("{}: refused by another layer: {error}", vector.name)
                }
            },
            "trust" => {
                let error = judge(&trust, Statement::parse(&vector.octets).unwrap())
                    .expect_err(&vector.name);
                // What the text says in other words is refused by one of these.
                let number = match vector.of("requirement").unwrap() {
                    "1-3" => Requirement::Namespace.number(),
                    "1-6" | "1-10" => Requirement::Threshold.number(),
                    number => number,
                };
                assert_eq!(
                    error.requirement().number(),
                    number,
                    "{}: {error}",
                    vector.name
                );
            }
            "log" => {
                let verified = judge(&trust, Statement::parse(&vector.octets).unwrap()).unwrap();
                let (serial, id) = vector.of("after").unwrap().split_once(' ').unwrap();
                let head = Head {
                    serial: serial.parse().unwrap(),
                    id: id.parse().unwrap(),
                };
                let expected = match vector.name.as_str() {
                    "gap" => Place::Gap {
                        from: "2".parse().unwrap(),
                    },
                    "known" | "old" => Place::Known,
                    _ => Place::Fork,
                };
                assert_eq!(
                    log::place(Some(head), &verified),
                    expected,
                    "{}",
                    vector.name
                );
            }
            other => panic!("{}: unknown layer {other}", vector.name),
        }
    }
}

#[test]
fn an_unknown_critical_field_is_named() {
    let good = vectors("good");
    let find = |name: &str| {
        Statement::parse(&good.iter().find(|v| v.name == name).unwrap().octets).unwrap()
    };
    assert_eq!(
        find("release-3-critical").unknown_critical(),
        Some("Colour")
    );
    assert_eq!(find("release-3-unknown").unknown_critical(), None);
}

#[test]
fn messages_name_line_field_and_what_was_expected() {
    let error: StatementError =
        Statement::parse(b"Tidings: 1 release\nChannel: a.b\nSerial: 0\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3: Serial: expected a number from 1 to 2147483647 without leading zeros, found \"0\""
    );
}

/// All lives, and where they go otherwise than they must.
#[test]
fn attacks_10_to_31_and_91_to_122_every_life_goes_as_it_must() {
    let directory = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../spec/vectors/sequences"
    ));
    let (mut lives, mut count, mut wrong) = (0, 0, String::new());
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let mut device = Device::new(device::head(&text, "anchor"));
        for (number, (step, outcome, statements)) in device::steps(&text).enumerate() {
            let found = device.answer(step, statements);
            if found != outcome {
                let name = path.file_name().unwrap().to_string_lossy();
                writeln!(
                    wrong,
                    "{name}, step {}: {step} => {outcome}, found {found}",
                    number + 1
                )
                .unwrap();
            }
            count += 1;
        }
        lives += 1;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(lives >= 100 && count > 900, "{lives} lives, {count} steps");
}

#[test]
fn a_turn_in_a_rollout_is_the_one_of_the_vectors() {
    let vectors = vectors("rollout");
    assert!(vectors.len() >= 9);
    for vector in vectors {
        let octets = String::from_utf8(vector.octets.clone()).unwrap();
        let mut lines = octets.splitn(4, '\n').skip(1);
        let (channel, previous, identity) = (
            lines.next().unwrap(),
            lines.next().unwrap(),
            lines.next().unwrap(),
        );
        let seconds = vector.of("seconds").unwrap().parse().unwrap();
        let rollout = Rollout {
            start: vector.of("start").unwrap().parse().unwrap(),
            seconds,
            spread: None,
            cohort: None,
        };
        let (channel, previous) = (
            channel.parse().unwrap(),
            (previous != "-").then(|| previous.parse().unwrap()),
        );
        assert_eq!(
            rollout::share(&channel, previous, identity, seconds).to_string(),
            vector.of("share").unwrap(),
            "{}",
            vector.name
        );
        assert_eq!(
            rollout::turn(&rollout, &channel, previous, identity).to_string(),
            vector.of("comes").unwrap(),
            "{}",
            vector.name
        );
    }
}
