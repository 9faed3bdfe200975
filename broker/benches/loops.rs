//! The inner loops: parse, verify, append, render, and what comes over the wire.
//!
//! `cargo xtask instructions` builds it; `target/release/loops --bench` times them. With `--count
//! LOOP TIMES` one of them runs so often and nothing else, and what it executes is counted.
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]

use std::{fmt::Write, hint::black_box};

use bytes::BytesMut;
use criterion::Criterion;
use tidings_broker::bench::Appends;
use tidings_protocol::{
    Anchor, Channel, Head, PublicKey, SigningKey, Statement, Timestamp, article,
    nntp::{codec::ServerCodec, parse_command},
    statement::{Body, Draft, Kind, NamedKey, Release, Role, TrustRules},
    trust::Trust,
};
use tokio_util::codec::Decoder;

/// Statements that share a commit in the loop `append`.
const COMMIT: usize = 16;

/// The most turns of it that can be counted.
const COUNTED: usize = 24;

struct World {
    key: SigningKey,
    anchor: Anchor,
    trust: Trust,
    channel: Channel,
}

impl World {
    fn new() -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let time: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let role = |kind| Role {
            kind,
            pattern: "*".parse().unwrap(),
            threshold: 1,
            names: vec!["all".into()],
        };
        let rules = TrustRules {
            expires: time.plus(1 << 30),
            keys: vec![NamedKey {
                key: PublicKey::of(&key),
                name: "all".into(),
            }],
            roles: vec![role(Kind::Trust), role(Kind::Release)],
            checkpoints: vec![],
            closed: vec![],
        };
        let draft = Draft {
            channel: "test.trust".parse().unwrap(),
            after: None,
            time,
            trust: None,
            body: Body::Trust(rules),
        };
        let first = draft.write().unwrap().sign(&key).unwrap();
        let anchor = Anchor {
            namespace: "test".parse().unwrap(),
            head: first.head(),
        };
        let trust = Trust::first(&anchor, first).unwrap();
        Self {
            key,
            anchor,
            trust,
            channel: "test.os.stable".parse().unwrap(),
        }
    }

    /// Releases of about 1 KiB that follow each other.
    fn releases(&self, count: usize) -> Vec<Statement> {
        let mut head: Option<Head> = None;
        let one = |number| {
            let summary = Some("x".repeat(600));
            let release = Release {
                version: format!("1.{number}"),
                summary,
                ..Release::default()
            };
            let time = "2026-11-01T00:00:00Z".parse().unwrap();
            let trust = Some(self.trust.serial());
            let draft = Draft {
                channel: self.channel.clone(),
                after: head,
                time,
                trust,
                body: Body::Release(release),
            };
            let statement = draft.write().unwrap().sign(&self.key).unwrap();
            head = Some(statement.head());
            statement
        };
        (0..count).map(one).collect()
    }
}

const COMMANDS: &[&str] = &[
    "GROUP test.os.stable",
    "ARTICLE 17",
    "XWATCH test.os.stable:16 test.os.beta:4",
    "TAKETHIS <17.7aea57e0bd338233dc5b4f083bc0c8dc44e984d8e92cf555e244904668be9ad4@test.os.stable>",
    "OVER 1-100",
];

/// A loop by its name; each call is one turn.
fn a_loop(name: &str, turns: usize) -> Box<dyn FnMut()> {
    let world = World::new();
    let statement = world.releases(1).remove(0);
    let octets = statement.octets().to_vec();
    match name {
        "parse" => Box::new(move || drop(black_box(Statement::parse(black_box(&octets)).unwrap()))),
        "verify" => Box::new(move || world.trust.check(black_box(&statement)).unwrap()),
        "render" => Box::new(move || {
            drop(black_box(article::render(
                black_box(&statement),
                "a.invalid!b.invalid",
            )))
        }),
        "command" => Box::new(|| {
            COMMANDS.iter().for_each(|line| {
                drop(black_box(
                    parse_command(black_box(line.as_bytes())).unwrap(),
                ))
            })
        }),
        "receive" => {
            let mut wire = String::new();
            write!(wire, "TAKETHIS {}\r\n", statement.message_id()).unwrap();
            let mut wire = wire.into_bytes();
            wire.extend_from_slice(&article::render(&statement, "a.invalid").octets);
            wire.extend_from_slice(b".\r\n");
            Box::new(move || {
                let (mut codec, mut input) = (ServerCodec::default(), BytesMut::from(&wire[..]));
                while let Some(item) = codec.decode(&mut input).unwrap() {
                    black_box(&item);
                }
            })
        }
        "append" => {
            let directory = tempfile::tempdir().unwrap();
            let mut appends =
                Appends::new(directory.path(), &world.anchor, world.trust.clone()).unwrap();
            let verified = world
                .releases(COMMIT * turns)
                .into_iter()
                .map(|statement| world.trust.verify(statement).unwrap());
            let mut statements = verified.collect::<Vec<_>>().into_iter();
            Box::new(move || {
                let _ = &directory;
                let some: Vec<_> = statements.by_ref().take(COMMIT).collect();
                let count = some.len();
                assert_eq!(
                    appends.append(some),
                    count,
                    "the statements of this loop are used up, or were refused"
                );
            })
        }
        _ => panic!("no loop {name:?}"),
    }
}

const LOOPS: &[&str] = &["parse", "verify", "render", "command", "receive", "append"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [count, name, turns] = &arguments[..]
        && count == "--count"
    {
        let turns: usize = turns.parse().unwrap();
        // What is made beforehand is the same for every number of turns, so that it cancels out.
        let mut one = a_loop(name, COUNTED);
        (0..turns).for_each(|_| one());
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for name in LOOPS {
        if *name == "append" {
            // Each turn needs statements of its own.
            criterion.bench_function("append, 16 in a commit", |bencher| {
                bencher.iter_custom(|turns| {
                    let mut one = a_loop("append", usize::try_from(turns).unwrap());
                    let began = std::time::Instant::now();
                    (0..turns).for_each(|_| one());
                    began.elapsed()
                });
            });
        } else {
            criterion.bench_function(name, |bencher| bencher.iter(a_loop(name, 1)));
        }
    }
    criterion.final_summary();
}
