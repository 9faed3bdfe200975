//! Every test vector of the specification, judged by the library (spec section 5).

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use tidings_protocol::{
    Anchor, Head, Statement, StatementError, Timestamp, Verified, View,
    article::{self, ArticleError},
    log::{self, Place},
    statement::Kind,
    trust::Trust,
    verify::VerifyError,
    view::Refusal,
};

struct Vector {
    name: String,
    head: Vec<(String, String)>,
    octets: Vec<u8>,
}

impl Vector {
    fn of(&self, key: &str) -> Option<&str> {
        self.head.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

fn vectors(kind: &str) -> Vec<Vector> {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/vectors")).join(kind);
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let octets = fs::read(&path).unwrap();
        let end = octets.windows(2).position(|w| w == b"\n\n").unwrap();
        let head = String::from_utf8(octets[..end].to_vec()).unwrap();
        let head = head.lines().map(|l| l.split_once(':').map(|(k, v)| (k.into(), v.trim_start().into())).unwrap()).collect();
        Vector { name: path.file_name().unwrap().to_string_lossy().into_owned(), head, octets: octets[end + 2..].to_vec() }
    };
    let mut found: Vec<_> = fs::read_dir(directory).unwrap().map(read).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn first_trust() -> Trust {
    let first = vectors("good").into_iter().find(|v| v.name == "trust-1").unwrap();
    let statement = Statement::parse(&first.octets).unwrap();
    let anchor = Anchor { namespace: "vectors".parse().unwrap(), id: statement.id() };
    Trust::first(&anchor, statement).unwrap()
}

fn judge(trust: &Trust, statement: Statement) -> Result<Verified<Statement>, VerifyError> {
    match statement.kind() {
        Kind::Trust if statement.channel().as_str() == "vectors.trust" => trust.succeed(statement).map(|t| t.statement().clone()),
        _ => trust.verify(statement),
    }
}

#[test]
fn good_ones_are_accepted_and_given_back_octet_by_octet() {
    let trust = first_trust();
    let good = vectors("good");
    assert!(good.len() >= 10);
    for vector in good {
        let statement = Statement::parse(&vector.octets).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        assert_eq!(statement.octets(), vector.octets, "{}", vector.name);
        let rendered = article::render(&statement, "x!not-for-mail");
        let article = String::from_utf8(rendered.octets).unwrap().replace("\r\n", "\n");
        assert_eq!(article::parse(article.as_bytes()).unwrap().statement, statement, "{}", vector.name);
        if vector.name != "trust-1" {
            judge(&trust, statement).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        }
    }
}

#[test]
fn attacks_02_04_06_10_11_13_34_40_41_46_48_every_bad_one_is_refused_at_its_layer() {
    let trust = first_trust();
    let bad = vectors("bad");
    assert!(bad.len() >= 120);
    for vector in &bad {
        let layer = vector.of("layer").unwrap();
        match layer {
            "grammar" | "statement" => {
                let error = Statement::parse(&vector.octets).expect_err(&vector.name);
                let expected = (vector.of("line").unwrap().parse().unwrap(), vector.of("field").unwrap());
                assert_eq!((error.line, error.field.as_str()), expected, "{}: {error}", vector.name);
            }
            "envelope" => match article::parse(&vector.octets).expect_err(&vector.name) {
                ArticleError::Header { line, .. } => assert_eq!(line.to_string(), vector.of("line").unwrap(), "{}", vector.name),
                ArticleError::NoBody => assert_eq!(vector.of("line"), Some("0"), "{}", vector.name),
                ArticleError::Statement(error) => panic!("{}: refused by another layer: {error}", vector.name),
            },
            "trust" => drop(judge(&trust, Statement::parse(&vector.octets).unwrap()).expect_err(&vector.name)),
            "log" => {
                let verified = judge(&trust, Statement::parse(&vector.octets).unwrap()).unwrap();
                let (serial, id) = vector.of("after").unwrap().split_once(' ').unwrap();
                let head = Head { serial: serial.parse().unwrap(), id: id.parse().unwrap() };
                let expected = match vector.name.as_str() {
                    "gap" => Place::Gap { from: "2".parse().unwrap() },
                    "known" | "old" => Place::Known,
                    _ => Place::Fork,
                };
                assert_eq!(log::place(Some(head), &verified), expected, "{}", vector.name);
            }
            other => panic!("{}: unknown layer {other}", vector.name),
        }
    }
}

#[test]
fn an_unknown_critical_field_is_named() {
    let good = vectors("good");
    let find = |name: &str| Statement::parse(&good.iter().find(|v| v.name == name).unwrap().octets).unwrap();
    assert_eq!(find("release-3-critical").unknown_critical(), Some("Colour"));
    assert_eq!(find("release-3-unknown").unknown_critical(), None);
}

#[test]
fn messages_name_line_field_and_what_was_expected() {
    let error: StatementError = Statement::parse(b"Tidings: 1 release\nChannel: a.b\nSerial: 0\n").unwrap_err();
    assert_eq!(error.to_string(), "line 3: Serial: expected a number from 1 to 2147483647 without leading zeros, found \"0\"");
}

/// A life of `spec/vectors/sequences`, step by step.
struct Life {
    name: String,
    view: View,
    clock: Timestamp,
}

impl Life {
    fn step(&mut self, line: &str, statements: Vec<Statement>) {
        let where_ = format!("{}: {line}", self.name);
        let (what, rest) = line.split_once(": ").unwrap_or_else(|| panic!("{where_}"));
        let words: Vec<&str> = rest.split(' ').collect();
        let channel = || words[0].parse().unwrap_or_else(|e| panic!("{where_}: {e}"));
        let serial = |word: &str| word.parse().unwrap_or_else(|e| panic!("{where_}: {e}"));
        let refused = |error: &dyn std::fmt::Display, requirement: &str| {
            assert!(error.to_string().contains(&format!("(spec {requirement})")), "{where_}: {error}");
        };
        match (what, words[0]) {
            ("clock", _) => self.clock = rest.parse().unwrap(),
            ("trust", "taken") => {
                self.view.take_trust(statements).unwrap_or_else(|(serial, e)| panic!("{where_}: {serial}: {e}"));
                assert_eq!(self.view.trust().unwrap().serial(), serial(words[1]), "{where_}");
            }
            ("trust", _) => {
                let (at, error) = self.view.take_trust(statements).expect_err(&where_);
                assert_eq!(at, serial(words[1]), "{where_}: {error}");
                refused(&error, words[2]);
            }
            ("beat", "taken") => self.view.take_beat(statements[0].clone()).unwrap_or_else(|e| panic!("{where_}: {e}")),
            ("beat", _) => refused(&self.view.take_beat(statements[0].clone()).expect_err(&where_), words[1]),
            ("shard", _) => self.view.take_shard(statements[0].clone()),
            ("read", _) => {
                let result = self.view.examine(&channel(), statements);
                match (words[1], result) {
                    ("new", Ok(news)) => {
                        let serials: Vec<String> = news.statements().iter().map(|s| s.serial().to_string()).collect();
                        assert_eq!(if serials.is_empty() { "none".into() } else { serials.join(",") }, words[2], "{where_}");
                        self.view.note(&news);
                    }
                    ("fork", Err(Refusal::Fork(fork))) => self.view.note_fork(*fork),
                    ("from", Err(Refusal::ReadFrom(from))) => assert_eq!(from, serial(words[2]), "{where_}"),
                    ("refused", Err(error @ Refusal::Verify { serial: at, .. })) => {
                        assert_eq!(at, serial(words[2]), "{where_}: {error}");
                        refused(&error, words[3]);
                    }
                    (_, result) => panic!("{where_}: {result:?}"),
                }
            }
            ("state", _) => {
                let freshness = self.view.freshness(&channel(), self.clock);
                assert_eq!(freshness.as_str(), words[1], "{where_}: {freshness}");
            }
            ("applied", _) => self.view.note_applied(&channel(), serial(words[1])),
            ("clear", _) => {
                match (words[2], self.view.clear(&channel(), serial(words[1]), statements, self.clock, self.view.time(self.clock))) {
                    ("yes", Ok(cleared)) => assert_eq!(cleared.serial(), serial(words[1]), "{where_}"),
                    ("no", Err(error)) => refused(&error, words[3]),
                    (_, result) => panic!("{where_}: {result:?}"),
                }
            }
            _ => panic!("{where_}: unknown step"),
        }
    }
}

#[test]
fn attacks_10_to_31_every_life_goes_as_it_must() {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/vectors/sequences"));
    let (mut lives, mut steps) = (0, 0);
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut blocks = text.split("\n\n");
        let head = blocks.next().unwrap();
        let anchor = head.lines().find_map(|line| line.strip_prefix("anchor: ")).unwrap().parse().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut life = Life { name, view: View::new(anchor), clock: Timestamp::from_seconds(0) };
        for block in blocks {
            let (line, rest) = block.split_once('\n').unwrap_or((block, ""));
            let rest = if rest.is_empty() || rest.ends_with('\n') { rest.to_owned() } else { format!("{rest}\n") };
            let statements = if rest.is_empty() { vec![] } else { tidings_protocol::bundle::parse(rest.as_bytes()).unwrap() };
            life.step(line.trim_end(), statements);
            steps += 1;
        }
        lives += 1;
    }
    assert!(lives >= 15 && steps > 150, "{lives} lives, {steps} steps");
}
