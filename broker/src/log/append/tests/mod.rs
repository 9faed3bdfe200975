//! The writer without its thread, on a store of its own.

mod bounds;
mod order;
mod trust;

use std::{sync::Arc, time::Duration};

use tidings_protocol::{
    Anchor, Channel, Head, PublicKey, Serial, SigningKey, Statement, StatementId, Timestamp,
    log::Begin,
    statement::{Body, Checkpoint, Closed, Draft, Kind, NamedKey, Release, Role, TrustRules},
};
use tokio::sync::oneshot;

use super::{Answer, AppendError, Copied, Copy, Request, Run, pending::Pending, writer::Writer};
use crate::{
    clock,
    config::{Quota, Retention},
    log::{forks::Forks, logs::Logs, namespaces::Namespaces, store::Store},
    relay::watch::Watches,
};

fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(StatementId::of(name.as_bytes()).octets())
}

fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

fn os() -> Channel {
    channel("acme.os.stable")
}

/// What a trust statement says.
#[derive(Default)]
struct Says<'a> {
    roles: &'a [&'a str],
    checkpoints: Vec<(Channel, Head)>,
    closed: Vec<&'a str>,
}

const ROLES: &[&str] = &[
    "trust * root",
    "release * ann",
    "withdraw * stop",
    "beat * beat",
];

fn sign(
    channel: Channel,
    after: Option<Head>,
    trust: Option<Serial>,
    time: Timestamp,
    body: Body,
    by: &str,
) -> Statement {
    Draft {
        channel,
        after,
        time,
        trust,
        body,
    }
    .write()
    .unwrap()
    .sign(&key(by))
    .unwrap()
}

fn trust(namespace: &str, after: Option<Head>, says: &Says<'_>) -> Statement {
    let mut names: Vec<String> = Vec::new();
    let mut roles = Vec::new();
    for line in says.roles {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        let kind = words[0].parse::<Kind>().unwrap();
        names.extend(
            words[2..]
                .iter()
                .filter(|name| !names.contains(name))
                .cloned()
                .collect::<Vec<_>>(),
        );
        roles.push(Role {
            kind,
            pattern: words[1].parse().unwrap(),
            threshold: 1,
            names: words[2..].to_vec(),
        });
    }
    let keys = names
        .iter()
        .map(|name| NamedKey {
            key: PublicKey::of(&key(name)),
            name: name.clone(),
        })
        .collect();
    let checkpoints = says
        .checkpoints
        .iter()
        .map(|(channel, head)| Checkpoint {
            channel: channel.clone(),
            head: *head,
        })
        .collect();
    let closed = says
        .closed
        .iter()
        .map(|pattern| Closed {
            pattern: pattern.parse().unwrap(),
            except: vec![],
        })
        .collect();
    let rules = TrustRules {
        expires: clock::now().plus(86_400),
        keys,
        roles,
        checkpoints,
        closed,
    };
    sign(
        channel(&format!("{namespace}.trust")),
        after,
        None,
        clock::now(),
        Body::Trust(rules),
        "root",
    )
}

fn release(channel: &Channel, after: Option<Head>, version: &str, by: &str) -> Statement {
    let body = Body::Release(Release {
        version: version.into(),
        ..Release::default()
    });
    sign(
        channel.clone(),
        after,
        Some(Serial::FIRST),
        clock::now(),
        body,
        by,
    )
}

fn releases(channel: &Channel, count: usize) -> Vec<Statement> {
    let mut all: Vec<Statement> = Vec::new();
    for number in 0..count {
        all.push(release(
            channel,
            all.last().map(Statement::head),
            &format!("1.{number}"),
            "ann",
        ));
    }
    all
}

struct Bench {
    writer: Writer,
    trust: Statement,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(mirrored: Option<&str>) -> Self {
        Self::with(
            mirrored,
            Quota {
                channels: 3,
                evidence: 4,
            },
            vec![],
        )
    }

    fn with(mirrored: Option<&str>, quota: Quota, retention: Vec<Retention>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let trust = trust(
            "acme",
            None,
            &Says {
                roles: ROLES,
                ..Says::default()
            },
        );
        let other = self::trust(
            "other",
            None,
            &Says {
                roles: ROLES,
                ..Says::default()
            },
        );
        let anchors: Vec<Anchor> = [(&trust, "acme"), (&other, "other")]
            .map(|(statement, namespace)| Anchor {
                namespace: namespace.parse().unwrap(),
                head: statement.head(),
            })
            .to_vec();
        let store = Store::open(directory.path()).unwrap();
        let logs = Arc::new(Logs::open(store.clone()).unwrap());
        let on_failure: crate::failure::OnFailure = Arc::new(|| panic!("the store has failed"));
        let writer = Writer {
            forks: Forks::open(
                directory.path().join("forks"),
                store.clone(),
                quota.evidence,
            ),
            namespaces: Arc::new(Namespaces::open(&anchors, &store).unwrap()),
            watches: Watches::start(0, 0, Duration::from_secs(60), &logs, &on_failure).unwrap(),
            store,
            logs,
            retention,
            quota,
            gap_patience: Duration::ZERO,
            closed_kept: Duration::ZERO,
            mirrored: mirrored.map(|wildmat| wildmat.parse().unwrap()),
            clustered: false,
            counts: Arc::default(),
            on_failure,
            state: Default::default(),
        };
        let mut bench = Self {
            writer,
            trust: trust.clone(),
            _directory: directory,
        };
        bench.post_trust(&trust).unwrap();
        bench.post_trust(&other).unwrap();
        bench
    }

    /// One request, committed; its answer, if there is one.
    fn ask<T>(&mut self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, mut answer) = oneshot::channel();
        let (now, mut pending) = (clock::now(), Pending::default());
        self.writer.answer(&mut pending, now, request(reply), None);
        self.writer.commit(pending, now);
        answer.try_recv().ok()
    }

    fn post_trust(&mut self, statement: &Statement) -> Answer {
        let run = vec![(statement.clone(), "path".into())];
        self.ask(|reply| Request::Trust {
            run,
            posted: true,
            reply,
        })
        .unwrap()
    }

    fn next_trust(&mut self, says: &Says<'_>) -> Answer {
        let head = self.head(&channel("acme.trust"));
        let next = trust("acme", head, says);
        self.post_trust(&next)
    }

    fn post(&mut self, statement: &Statement) -> Answer {
        let trust = self.writer.namespaces.trust(statement.channel()).unwrap();
        let copy = Copy::proven(
            trust.verify(statement.clone()).unwrap(),
            trust.serial(),
            "path".into(),
        );
        self.ask(|reply| Request::Statements(vec![(copy, reply)]))
            .unwrap()
    }

    fn post_all(&mut self, statements: &[Statement]) {
        for statement in statements {
            self.post(statement).unwrap();
        }
    }

    /// What a peer sends; no answer while it waits.
    fn feed(&mut self, statement: &Statement) -> oneshot::Receiver<Answer> {
        let copy = match self
            .writer
            .namespaces
            .trust(statement.channel())
            .and_then(|trust| trust.verify(statement.clone()).ok())
        {
            Some(verified) => Copy::proven(
                verified,
                self.writer
                    .namespaces
                    .trust(statement.channel())
                    .unwrap()
                    .serial(),
                "path".into(),
            ),
            None => Copy::unproven(statement.clone(), "path".into()),
        };
        let (reply, answer) = oneshot::channel();
        let (now, mut pending) = (clock::now(), Pending::default());
        self.writer.answer(
            &mut pending,
            now,
            Request::Feed {
                copy,
                peer: 7,
                reply,
            },
            None,
        );
        self.writer.commit(pending, now);
        answer
    }

    fn copy(&mut self, statements: &[Statement], begin: Begin) -> Result<Copied, AppendError> {
        let copies = statements
            .iter()
            .map(|statement| Copy::unproven(statement.clone(), "path".into()))
            .collect();
        let run = Run {
            channel: statements[0].channel().clone(),
            copies,
            begin,
        };
        self.ask(|reply| Request::Copies { run, reply }).unwrap()
    }

    fn stalled(&mut self) {
        self.ask::<()>(|_| Request::Stalled(7));
    }

    fn head(&self, channel: &Channel) -> Option<Head> {
        self.writer
            .logs
            .get(channel.as_str())
            .map(|log| log.marks().head)
    }

    fn serials(&self, channel: &Channel) -> Vec<u32> {
        let Some(log) = self.writer.logs.get(channel.as_str()) else {
            return vec![];
        };
        let marks = log.marks();
        (marks.low.number()..=marks.head.serial.number())
            .filter(|serial| log.entry(Serial::new(*serial).unwrap()).unwrap().is_some())
            .collect()
    }

    fn evidence(&self, extension: &str) -> usize {
        let files = std::fs::read_dir(&self.writer.forks.directory).map_or(vec![], |files| {
            files.map(|file| file.unwrap().path()).collect()
        });
        files
            .iter()
            .filter(|file| file.extension().is_some_and(|known| known == extension))
            .count()
    }

    fn sweep(&mut self) {
        self.ask::<()>(|_| Request::Sweep);
        while !self.writer.state.to_sweep.is_empty() {
            // What has come just now is no younger than nothing.
            self.writer.sweep_some(clock::now().plus(1));
        }
    }
}
