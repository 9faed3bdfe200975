//! The writer without its thread, on a store of its own.

use std::{sync::Arc, time::Duration};

use tidings_protocol::{
    Anchor, Channel, Head, PublicKey, Serial, SigningKey, Statement, StatementId, Timestamp,
    log::Begin,
    statement::{
        Beat, Body, Checkpoint, Closed, Draft, Kind, NamedKey, Release, Role, TrustRules, Withdraw,
    },
    verify::VerifyError,
};
use tokio::sync::oneshot;

use super::{
    Answer, AppendError, Appended, Copied, Copy, Request, Run, pending::Pending, writer::Writer,
};
use crate::{
    clock,
    config::{Quota, Retention},
    forks::Forks,
    limits::{SWEEP_STATEMENTS, TAILS_OCTETS},
    logs::Logs,
    namespaces::Namespaces,
    store::Store,
    watch::Watches,
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
const LATER: &[&str] = &[
    "trust * root",
    "release * dora",
    "withdraw * stop",
    "beat * beat2",
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

#[test]
fn what_a_peer_sends_out_of_order_waits_and_is_answered_when_it_hangs_together() {
    let (mut bench, all) = (Bench::new(None), releases(&os(), 6));
    let mut waiting: Vec<_> = [2, 1, 3, 5].map(|at: usize| bench.feed(&all[at])).into();
    assert!(waiting.iter_mut().all(|answer| answer.try_recv().is_err()));
    assert_eq!(bench.serials(&os()), [] as [u32; 0]);
    assert!(matches!(
        bench.feed(&all[0]).try_recv(),
        Ok(Ok(Appended::New))
    ));
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4]);
    assert!(
        waiting[..3]
            .iter_mut()
            .all(|answer| matches!(answer.try_recv(), Ok(Ok(Appended::New))))
    );
    // The last waits for its gap; when its peer sends no more, it is durable, and hidden.
    assert!(waiting[3].try_recv().is_err());
    bench.stalled();
    assert!(matches!(waiting[3].try_recv(), Ok(Ok(Appended::New))));
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4]);
    // What hangs together with neither has to be sent again.
    let far = releases(&os(), 9);
    let mut later = bench.feed(&far[8]);
    bench.stalled();
    assert!(matches!(later.try_recv(), Ok(Err(AppendError::Gap(_)))));
    assert!(matches!(
        bench.feed(&all[4]).try_recv(),
        Ok(Ok(Appended::New))
    ));
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn attack_100_one_namespace_uses_up_its_own_channels_alone() {
    let mut bench = Bench::new(None);
    // Its trust log is one of the three.
    for name in ["acme.a", "acme.b"] {
        bench.post(&releases(&channel(name), 1)[0]).unwrap();
    }
    let refused = bench.post(&releases(&channel("acme.c"), 1)[0]).unwrap_err();
    assert!(
        matches!(refused, AppendError::Quota(..)) && refused.is_passing(),
        "{refused}"
    );
    assert!(matches!(
        bench.copy(&releases(&channel("acme.c"), 1), Begin::Log),
        Err(AppendError::Quota(..))
    ));
    // Others are not concerned; nor is what goes on, nor beats.
    bench.post(&releases(&channel("other.a"), 1)[0]).unwrap();
    bench.post(&releases(&channel("acme.a"), 2)[1]).unwrap();
    let body = Body::Beat(Beat {
        expires: clock::now().plus(60),
        heads: vec![],
    });
    bench
        .post(&sign(
            channel("acme.beat"),
            None,
            Some(Serial::FIRST),
            clock::now(),
            body,
            "beat",
        ))
        .unwrap();
    // Nor is it for ever: what is closed is dropped, and its room is free.
    bench
        .next_trust(&Says {
            roles: ROLES,
            closed: vec!["acme.a", "acme.b"],
            ..Says::default()
        })
        .unwrap();
    bench.sweep();
    bench.post(&releases(&channel("acme.c"), 1)[0]).unwrap();
}

#[test]
fn attack_109_retention_has_turns_and_never_takes_the_head_a_checkpoint_or_what_is_young() {
    let keep = |count, days: u64| Retention {
        channels: "acme.*".parse().unwrap(),
        count: Some(count),
        age: Some(Duration::from_secs(days * 86_400)),
    };
    let count = SWEEP_STATEMENTS as usize + 100;
    let mut bench = Bench::with(None, Quota::default(), vec![keep(10, 0)]);
    let all = releases(&os(), count);
    bench.copy(&all, Begin::Log).unwrap();
    let checkpoint = all[4].head();
    bench
        .next_trust(&Says {
            roles: ROLES,
            checkpoints: vec![(os(), checkpoint)],
            ..Says::default()
        })
        .unwrap();
    bench.ask::<()>(|_| Request::Sweep);
    bench.writer.sweep_some(clock::now().plus(1));
    // One turn is bounded, and the rest comes in the next ones.
    let low = |bench: &Bench| {
        bench
            .writer
            .logs
            .get(os().as_str())
            .unwrap()
            .marks()
            .low
            .number()
    };
    assert_eq!(low(&bench), SWEEP_STATEMENTS + 1);
    bench.sweep();
    assert_eq!(low(&bench) as usize, count - 9);
    let log = bench.writer.logs.get(os().as_str()).unwrap();
    assert_eq!(
        log.entry(checkpoint.serial)
            .unwrap()
            .map(|entry| entry.head),
        Some(checkpoint)
    );
    assert!(log.entry(all[5].serial()).unwrap().is_none());
    // What is younger than the operator says stays, however many there are.
    let mut young = Bench::with(None, Quota::default(), vec![keep(1, 30)]);
    young.copy(&all[..5], Begin::Log).unwrap();
    young.sweep();
    assert_eq!(young.serials(&os()), [1, 2, 3, 4, 5]);
}

#[test]
fn attack_110_what_is_of_the_future_is_put_off_by_whatever_way_it_comes() {
    let mut bench = Bench::new(None);
    let body = || {
        Body::Release(Release {
            version: "1".into(),
            ..Release::default()
        })
    };
    let far = sign(
        os(),
        None,
        Some(Serial::FIRST),
        clock::now().plus(200 * 86_400),
        body(),
        "ann",
    );
    let by_feed = bench.feed(&far).try_recv().unwrap().unwrap_err();
    assert!(
        matches!(by_feed, AppendError::Future { .. }) && by_feed.is_passing(),
        "{by_feed}"
    );
    assert!(matches!(
        bench.copy(&[far], Begin::Log),
        Err(AppendError::Future { .. })
    ));
    // What a checkpoint vouches for is not judged by its time.
    let settled = sign(
        os(),
        None,
        Some(Serial::FIRST),
        clock::now().plus(3 * 86_400),
        body(),
        "ann",
    );
    bench
        .next_trust(&Says {
            roles: ROLES,
            checkpoints: vec![(os(), settled.head())],
            ..Says::default()
        })
        .unwrap();
    bench.copy(&[settled], Begin::Log).unwrap();
}

#[test]
fn attack_114_evidence_is_kept_of_races_too_and_each_namespace_has_its_own_quota() {
    let mut bench = Bench::with(
        None,
        Quota {
            channels: 100,
            evidence: 4,
        },
        vec![],
    );
    let all = releases(&os(), 2);
    bench.post_all(&all);
    // Two within ten seconds, with one predecessor: a race, or a thief who is quick.
    assert!(matches!(
        bench.post(&release(&os(), Some(all[0].head()), "race", "ann")),
        Err(AppendError::LostRace(_))
    ));
    assert_eq!((bench.evidence("race"), bench.evidence("fork")), (1, 0));
    assert!(matches!(
        bench.post(&release(
            &os(),
            Some(release(&os(), None, "x", "ann").head()),
            "fork",
            "ann"
        )),
        Err(AppendError::LostRace(_))
    ));
    assert_eq!(bench.evidence("fork"), 1);
    // A testing key uses up what its namespace has, and no more.
    for number in 0..10 {
        let name = channel(&format!("acme.testing{number}"));
        bench.post(&release(&name, None, "1", "ann")).unwrap();
        bench.post(&release(&name, None, "2", "ann")).unwrap_err();
    }
    assert_eq!(bench.evidence("race") + bench.evidence("fork"), 4);
    let theirs = channel("other.os");
    bench.post(&release(&theirs, None, "1", "ann")).unwrap();
    bench.post(&release(&theirs, None, "2", "ann")).unwrap_err();
    assert_eq!(bench.evidence("race") + bench.evidence("fork"), 5);
}

#[test]
fn attack_119_above_a_checkpoint_places_are_free_and_what_stood_there_is_filed_away() {
    let mut bench = Bench::new(None);
    let all = releases(&os(), 4);
    bench.post_all(&all);
    bench
        .next_trust(&Says {
            roles: LATER,
            checkpoints: vec![(os(), all[1].head())],
            ..Says::default()
        })
        .unwrap();
    assert_eq!(
        (bench.serials(&os()), bench.evidence("lost")),
        (vec![1, 2], 1)
    );
    bench
        .post(&release(&os(), Some(all[1].head()), "2", "dora"))
        .unwrap();
    assert_eq!(bench.serials(&os()), [1, 2, 3]);
    // The store has it so, too.
    let again = Logs::open(bench.writer.store.clone()).unwrap();
    assert_eq!(
        again
            .get(os().as_str())
            .map(|log| log.marks().head.serial.number()),
        Some(3)
    );
}

#[test]
fn a_trust_statement_that_would_lose_a_withdrawal_is_refused_by_an_origin() {
    let mut bench = Bench::new(None);
    let all = releases(&os(), 3);
    bench.post_all(&all);
    let body = Body::Withdraw(Withdraw {
        withdraws: all[0].head(),
        reason: "it does not boot".into(),
    });
    let withdrawal = sign(
        os(),
        Some(all[2].head()),
        Some(Serial::FIRST),
        clock::now(),
        body,
        "stop",
    );
    bench.post(&withdrawal).unwrap();
    let below = Says {
        roles: LATER,
        checkpoints: vec![(os(), all[1].head())],
        ..Says::default()
    };
    assert!(
        matches!(bench.next_trust(&below), Err(AppendError::LosesWithdrawal(_, serial)) if serial == withdrawal.serial())
    );
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4]);
    let above = Says {
        roles: LATER,
        checkpoints: vec![(os(), withdrawal.head())],
        ..Says::default()
    };
    bench.next_trust(&above).unwrap();
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4]);
}

#[test]
fn attack_091_post_keeps_the_signatures_that_count_and_a_copy_stays_as_it_came() {
    let mut bench = Bench::new(None);
    let next = trust(
        "acme",
        Some(bench.trust.head()),
        &Says {
            roles: LATER,
            ..Says::default()
        },
    );
    let grafted = next.sign(&key("eve")).unwrap();
    bench.post_trust(&grafted).unwrap();
    let stored = |bench: &Bench| {
        bench
            .writer
            .store
            .get(&channel("acme.trust"), Serial::new(2).unwrap())
            .unwrap()
            .unwrap()
            .statement
    };
    assert_eq!(stored(&bench), next);
    let mut mirror = Bench::new(Some("*"));
    let next = trust(
        "acme",
        Some(mirror.trust.head()),
        &Says {
            roles: LATER,
            ..Says::default()
        },
    )
    .sign(&key("eve"))
    .unwrap();
    mirror
        .ask(|reply| Request::Trust {
            run: vec![(next.clone(), String::new())],
            posted: false,
            reply,
        })
        .unwrap()
        .unwrap();
    assert_eq!(stored(&mirror), next);
}

#[test]
fn attack_122_a_closed_channel_takes_nothing_and_is_dropped_after_some_days() {
    let mut bench = Bench::new(None);
    let all = releases(&os(), 2);
    bench.post(&all[0]).unwrap();
    bench
        .next_trust(&Says {
            roles: ROLES,
            closed: vec!["*"],
            ..Says::default()
        })
        .unwrap();
    let refused = bench.copy(&all[1..], Begin::Nothing).unwrap_err();
    assert!(
        matches!(refused, AppendError::Verify(VerifyError::Closed { .. })) && !refused.is_passing(),
        "{refused}"
    );
    bench.writer.closed_kept = Duration::from_secs(3_600);
    bench.sweep();
    assert_eq!(bench.serials(&os()), [1]);
    bench.writer.closed_kept = Duration::ZERO;
    bench.sweep();
    assert_eq!(bench.head(&os()), None);
    // It does not begin again from 1, by whatever way.
    for refused in [
        bench.copy(&all, Begin::Log).map(drop),
        bench.feed(&all[0]).try_recv().unwrap().map(drop),
    ] {
        assert!(
            matches!(
                refused,
                Err(AppendError::Verify(VerifyError::Closed { .. }))
            ),
            "{refused:?}"
        );
    }
    assert_eq!(bench.head(&os()), None);
    // Trust and beats go on.
    let body = Body::Beat(Beat {
        expires: clock::now().plus(60),
        heads: vec![],
    });
    bench
        .post(&sign(
            channel("acme.beat"),
            None,
            Some(Serial::FIRST),
            clock::now(),
            body,
            "beat",
        ))
        .unwrap();
    bench.sweep();
    assert_eq!(bench.serials(&channel("acme.trust")), [1, 2]);
}

#[test]
fn the_beat_that_a_checkpoint_names_is_kept_and_decides_when_it_comes() {
    let beats = channel("acme.beat");
    let beat = |after: Option<Head>, heads: Vec<(Channel, Head)>, by: &str| {
        let body = Body::Beat(Beat {
            expires: clock::now().plus(60),
            heads,
        });
        sign(
            beats.clone(),
            after,
            Some(Serial::FIRST),
            clock::now(),
            body,
            by,
        )
    };
    let all = releases(&os(), 3);
    let named = beat(None, vec![(os(), all[1].head())], "beat");
    let retention = Retention {
        channels: "*.beat".parse().unwrap(),
        count: Some(1),
        age: None,
    };
    let mut bench = Bench::with(None, Quota::default(), vec![retention]);
    bench.post_all(&all);
    // The beat is not there yet when trust names it: nothing is known of what it has settled.
    bench
        .next_trust(&Says {
            roles: LATER,
            checkpoints: vec![(beats.clone(), named.head())],
            ..Says::default()
        })
        .unwrap();
    assert_eq!(bench.serials(&os()), [1, 2, 3]);
    bench
        .copy(std::slice::from_ref(&named), Begin::Nothing)
        .unwrap();
    assert_eq!(
        (bench.serials(&os()), bench.evidence("lost")),
        (vec![1, 2], 1)
    );
    // Newer ones come, retention goes by, and it is still served.
    let mut after = named.head();
    for _ in 0..3 {
        let next = beat(Some(after), vec![], "beat2");
        after = next.head();
        bench.post(&next).unwrap();
    }
    bench.sweep();
    let log = bench.writer.logs.get(beats.as_str()).unwrap();
    assert_eq!(bench.serials(&beats), [4]);
    assert_eq!(
        log.entry(named.serial()).unwrap().map(|entry| entry.head),
        Some(named.head())
    );
    // After a restart, too.
    let anchors = [Anchor {
        namespace: "acme".parse().unwrap(),
        head: bench.trust.head(),
    }];
    let namespaces = Namespaces::open(&anchors, &bench.writer.store).unwrap();
    assert_eq!(namespaces.trust(&os()).unwrap().missing_beats().count(), 0);
    let logs = Logs::open(bench.writer.store.clone()).unwrap();
    logs.take_up_kept(&namespaces).unwrap();
    assert_eq!(logs.get(beats.as_str()).unwrap().kept(), Some(named.head()));
}

#[test]
fn a_mirror_follows_the_live_beat_and_an_origin_does_not() {
    let ours = releases(&os(), 3);
    let theirs = [release(&os(), Some(ours[0].head()), "x", "ann")];
    let theirs = [
        theirs[0].clone(),
        release(&os(), Some(theirs[0].head()), "y", "ann"),
    ];
    for mirrored in [None, Some("*")] {
        let mut bench = Bench::new(mirrored);
        bench.copy(&ours, Begin::Log).unwrap();
        assert!(matches!(
            bench.copy(&theirs, Begin::Backfill),
            Err(AppendError::Fork(..))
        ));
        let heads = vec![
            (channel("acme.trust"), bench.trust.head()),
            (os(), theirs[1].head()),
        ];
        let body = Body::Beat(Beat {
            expires: clock::now().plus(60),
            heads,
        });
        let beat = sign(
            channel("acme.beat"),
            None,
            Some(Serial::FIRST),
            clock::now(),
            body,
            "beat",
        );
        bench.copy(&[beat], Begin::Nothing).unwrap();
        let copied = bench.copy(&theirs, Begin::Backfill);
        assert_eq!(copied.is_ok(), mirrored.is_some(), "{copied:?}");
        let expected = if mirrored.is_some() {
            theirs[1].head()
        } else {
            ours[2].head()
        };
        assert_eq!(
            (bench.head(&os()), bench.evidence("lost")),
            (Some(expected), usize::from(mirrored.is_some()))
        );
    }
}

#[test]
fn attack_105_what_is_kept_in_memory_of_all_heads_has_a_bound_in_octets() {
    let mut bench = Bench::with(None, Quota::default(), vec![]);
    let logs = bench.writer.logs.clone();
    let details = "x".repeat(800);
    for number in 0..700 {
        let name = channel(&format!("acme.c{number}"));
        // Some 60 kB: many lines of their own, that nobody knows.
        let mut text = format!(
            "Tidings: 1 release\nChannel: {name}\nSerial: 1\nPrevious: -\nTime: {}\nTrust: 1\nVersion: 1\n",
            clock::now()
        );
        (0..70).for_each(|line| text.push_str(&format!("X-{line}: {details}\n")));
        let statement = Statement::parse_draft(text.as_bytes())
            .unwrap()
            .sign(&key("ann"))
            .unwrap();
        bench.post(&statement).unwrap();
        assert!(logs.tail_octets() <= TAILS_OCTETS, "{}", logs.tail_octets());
    }
    assert!(logs.tail_octets() > TAILS_OCTETS / 2);
    // What was given up is read again.
    let first = logs.get("acme.c0").unwrap();
    assert_eq!(
        first.entry(Serial::FIRST).unwrap().map(|entry| entry.head),
        Some(first.marks().head)
    );
}
