//! Histories of rotations, withdrawals and attacks, judged by the library and by a naive model beside it (spec section 5).
//!
//! The model knows nothing of runs from the newest down, of vouching as it goes, or of cursors: it states who may have said
//! what, with quantifiers, and recomputes everything each time.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};
use tidings_protocol::{
    Anchor, Channel, Head, PublicKey, Serial, SigningKey, Statement, StatementId, Timestamp, View,
    statement::{Beat, Body, Checkpoint, Draft, Kind, NamedKey, Release, Role, TrustRules, Withdraw},
    trust::Trust,
    view::Refusal,
};

fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(StatementId::of(name.as_bytes()).octets())
}

fn channel() -> Channel {
    "model.os".parse().unwrap()
}

fn time(step: u64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + step)
}

/// Who signs what at a time: the generations of the keys.
#[derive(Clone, Copy, Debug)]
struct Keys {
    release: u32,
    stop: u32,
    beat: u32,
}

impl Keys {
    fn release(self) -> [String; 2] {
        ["a", "b"].map(|half| format!("release-{}{half}", self.release))
    }
    fn rules(self, checkpoints: Vec<Checkpoint>) -> TrustRules {
        let (stop, beat) = (format!("stop-{}", self.stop), format!("beat-{}", self.beat));
        let [a, b] = self.release();
        let role = |kind, pattern: &str, threshold, names: &[&str]| Role {
            kind,
            pattern: pattern.parse().unwrap(),
            threshold,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        // The wide roles are traps: the more specific ones count.
        let roles = vec![
            role(Kind::Trust, "*", 1, &["root"]),
            role(Kind::Release, "*", 1, &["decoy"]),
            role(Kind::Release, "model.*", 2, &[&a, &b]),
            role(Kind::Withdraw, "model.os", 1, &[&stop]),
            role(Kind::Withdraw, "model.*", 1, &["decoy"]),
            role(Kind::Beat, "model.beat", 1, &[&beat]),
        ];
        let names = ["root", "decoy", &a, &b, &stop, &beat];
        let keys = names.iter().map(|name| NamedKey { key: PublicKey::of(&key(name)), name: (*name).to_owned() }).collect();
        TrustRules { expires: time(1_000_000), keys, roles, checkpoints }
    }
}

fn signed(channel: &Channel, after: Option<Head>, at: u64, trust: Option<Serial>, body: Body, signers: &[String]) -> Statement {
    let statement = Draft { channel: channel.clone(), after, time: time(at), trust, body }.write().unwrap();
    signers.iter().fold(statement, |statement, name| statement.sign(&key(name)).unwrap())
}

/// The honest side: its logs, and its keys.
struct World {
    keys: Keys,
    trust: Vec<Statement>,
    log: Vec<Statement>,
    step: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { keys: Keys { release: 0, stop: 0, beat: 0 }, trust: vec![], log: vec![], step: 0 };
        world.rotate(vec![]);
        world.release();
        world
    }
    fn anchor(&self) -> Anchor {
        Anchor { namespace: "model".parse().unwrap(), id: self.trust[0].id() }
    }
    fn serial(&self) -> Option<Serial> {
        self.trust.last().map(Statement::serial)
    }
    fn head(&self) -> Option<Head> {
        self.log.last().map(Statement::head)
    }
    fn rotate(&mut self, checkpoints: Vec<Checkpoint>) {
        let body = Body::Trust(self.keys.rules(checkpoints));
        let after = self.trust.last().map(Statement::head);
        self.trust.push(signed(&"model.trust".parse().unwrap(), after, self.step, None, body, &["root".into()]));
    }
    fn rotate_with_checkpoint(&mut self) {
        let checkpoint = self.head().map(|head| Checkpoint { channel: channel(), head });
        self.rotate(checkpoint.into_iter().collect());
    }
    fn say(&self, after: Option<Head>, body: Body, signers: &[String]) -> Statement {
        signed(&channel(), after, self.step, self.serial(), body, signers)
    }
    fn release_body(&self, version: &str) -> Body {
        Body::Release(Release { version: version.into(), ..Release::default() })
    }
    fn release(&mut self) {
        let statement = self.say(self.head(), self.release_body("honest"), &self.keys.release());
        self.log.push(statement);
    }
    fn withdraw(&mut self) {
        let body = Body::Withdraw(Withdraw { withdraws: Serial::FIRST, reason: "bad".into(), fallback: None });
        let statement = self.say(self.head(), body, &[format!("stop-{}", self.keys.stop)]);
        self.log.push(statement);
    }
    fn beat(&self, after: Option<Head>) -> Statement {
        let mut heads: Vec<_> = self.head().map(|head| (channel(), head)).into_iter().collect();
        heads.push(("model.trust".parse().unwrap(), self.trust.last().unwrap().head()));
        let body = Body::Beat(Beat { expires: time(self.step + 100), heads });
        signed(&"model.beat".parse().unwrap(), after, self.step, self.serial(), body, &[format!("beat-{}", self.keys.beat)])
    }
}

/// Whose keys an attacker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thief {
    Nobodys,
    Beat,
    OneRelease,
    Stop,
    AllOldReleases,
    Decoy,
}

impl Thief {
    fn names(self, keys: Keys) -> Vec<String> {
        match self {
            Thief::Nobodys => vec!["mallory".into()],
            Thief::Beat => vec![format!("beat-{}", keys.beat)],
            Thief::OneRelease => vec![keys.release()[0].clone()],
            Thief::Stop => vec![format!("stop-{}", keys.stop)],
            Thief::Decoy => vec!["decoy".into()],
            Thief::AllOldReleases => {
                (0..keys.release).rev().take(4).flat_map(|release| Keys { release, ..keys }.release()).chain(["mallory".into()]).collect()
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Release,
    Withdraw,
    RotateRelease,
    RotateStop,
    RotateBeat,
    Renew,
    Poll,
    Lag(prop::sample::Index),
    Attack(Thief, prop::sample::Index, Vec<bool>),
    Tamper(prop::sample::Index, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let thief =
        prop::sample::select(vec![Thief::Nobodys, Thief::Beat, Thief::OneRelease, Thief::Stop, Thief::AllOldReleases, Thief::Decoy]);
    prop_oneof![
        4 => Just(Step::Release),
        2 => Just(Step::Withdraw),
        1 => Just(Step::RotateRelease),
        1 => Just(Step::RotateStop),
        1 => Just(Step::RotateBeat),
        1 => Just(Step::Renew),
        3 => Just(Step::Poll),
        2 => any::<prop::sample::Index>().prop_map(Step::Lag),
        5 => (thief, any::<prop::sample::Index>(), vec(any::<bool>(), 1..4)).prop_map(|(t, i, k)| Step::Attack(t, i, k)),
        3 => (any::<prop::sample::Index>(), 0..4_u8).prop_map(|(i, how)| Step::Tamper(i, how)),
    ]
}

/// The naive model: every statement of the run may have been said, by the words of the specification.
fn naive(rules: &TrustRules, run: &[Statement]) -> bool {
    let checkpoint = rules.checkpoints.iter().find(|c| c.channel == channel()).map(|c| c.head);
    let covers = |role: &Role| {
        let pattern = role.pattern.to_string();
        pattern == "*" || pattern == "model.os" || pattern == "model.*"
    };
    let role =
        |kind: Kind| rules.roles.iter().filter(|role| role.kind == kind && covers(role)).max_by_key(|role| role.pattern.to_string().len());
    let holds = |statement: &Statement, key: &PublicKey| statement.is_truly_signed_by(key);
    // A known key with a signature that does not hold spoils the statement as a witness.
    let spoilt = |statement: &Statement| rules.keys.iter().any(|k| statement.is_signed_by(&k.key) && !holds(statement, &k.key));
    let meets = |statement: &Statement, kind: Kind| {
        let Some(role) = role(kind) else { return false };
        let signers: BTreeSet<_> =
            rules.keys.iter().filter(|k| role.names.contains(&k.name) && holds(statement, &k.key)).map(|k| k.key).collect();
        !spoilt(statement) && signers.len() >= role.threshold
    };
    let linked = |from: usize, to: usize| (from..to).all(|i| run[i + 1].predecessor() == Some(run[i].head()));
    fn authentic(
        i: usize,
        run: &[Statement],
        decreed: &dyn Fn(&Statement) -> bool,
        meets: &dyn Fn(&Statement, Kind) -> bool,
        linked: &dyn Fn(usize, usize) -> bool,
    ) -> bool {
        let witness =
            |j: usize| linked(i, j) && (decreed(&run[j]) || meets(&run[j], run[i].kind())) && authentic(j, run, decreed, meets, linked);
        decreed(&run[i]) || meets(&run[i], run[i].kind()) || (i + 1..run.len()).any(witness)
    }
    let decreed = |statement: &Statement| checkpoint == Some(statement.head());
    let contradicted = |statement: &Statement| checkpoint.is_some_and(|c| c.serial == statement.serial() && c.id != statement.id());
    linked(0, run.len().saturating_sub(1))
        && !run.iter().any(contradicted)
        && (0..run.len()).all(|i| authentic(i, run, &decreed, &meets, &linked))
}

struct Scene {
    world: World,
    view: View,
    honest: BTreeSet<Head2>,
}

type Head2 = (u32, [u8; 32]);

fn place(statement: &Statement) -> Head2 {
    (statement.serial().number(), *statement.id().octets())
}

impl Scene {
    fn from(&self) -> usize {
        self.view.read_from(&channel()).map_or(0, |serial| serial.number() as usize - 1)
    }

    /// The device reads a run; what it takes must be honest, and authentic by the model too.
    fn read(&mut self, run: Vec<Statement>, note: bool) -> Result<usize, Refusal> {
        let rules = self.view.trust().unwrap().rules().clone();
        let model = naive(&rules, &run);
        let result = self.view.examine(&channel(), run.clone());
        match &result {
            Ok(_) => assert!(model, "the library takes what the model refuses"),
            Err(Refusal::Verify { .. }) => {}
            Err(Refusal::Fork(_) | Refusal::ReadFrom(_)) => assert!(model, "only authentic statements are evidence"),
            Err(Refusal::NoTrust) => panic!("there is trust"),
        }
        let news = result?;
        if note {
            self.view.note(&news);
        }
        Ok(news
            .statements()
            .iter()
            .filter(|statement| !self.honest.contains(&place(statement)))
            .inspect(|statement| {
                assert_ne!(statement.kind(), Kind::Release, "a release that nobody released");
            })
            .count())
    }

    fn poll(&mut self, upto: usize) {
        let known = self.view.trust().map_or(0, |trust| trust.serial().number() as usize);
        self.view.take_trust(self.world.trust[known..].to_vec()).unwrap();
        let from = self.from().min(upto);
        let run = self.world.log[from..upto].to_vec();
        // A mirror that is behind may end below what a checkpoint vouches for; then nothing is learnt, no more.
        match self.read(run, true) {
            Ok(foreign) => assert_eq!(foreign, 0),
            Err(error) => assert!(upto < self.world.log.len(), "an honest, complete log is refused: {error}"),
        }
        let beat = self.world.beat(self.view.newest(&"model.beat".parse().unwrap()).map(|beat| beat.head()));
        self.view.take_beat(beat).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn attacks_10_13_14_24_26_27_no_history_makes_a_device_take_what_was_not_released(steps in vec(step(), 1..40)) {
        let world = World::new();
        let view = View::new(world.anchor());
        let honest = world.log.iter().map(place).collect();
        let mut scene = Scene { world, view, honest };
        scene.poll(1);
        for step in steps {
            scene.world.step += 10;
            match step {
                Step::Release => scene.world.release(),
                Step::Withdraw => scene.world.withdraw(),
                Step::RotateRelease => { scene.world.keys.release += 1; scene.world.rotate_with_checkpoint(); }
                Step::RotateStop => { scene.world.keys.stop += 1; scene.world.rotate_with_checkpoint(); }
                Step::RotateBeat => { scene.world.keys.beat += 1; scene.world.rotate_with_checkpoint(); }
                Step::Renew => scene.world.rotate_with_checkpoint(),
                Step::Poll => scene.poll(scene.world.log.len()),
                Step::Lag(index) => {
                    let before = scene.view.head(&channel());
                    scene.poll(index.index(scene.world.log.len()) + 1);
                    prop_assert!(scene.view.head(&channel()).unwrap().serial >= before.unwrap().serial, "rolled back");
                    let behind = scene.view.head(&channel()) != scene.world.head();
                    let freshness = scene.view.freshness(&channel(), time(scene.world.step));
                    prop_assert_eq!(behind, !freshness.is_current(), "{}", freshness);
                }
                Step::Attack(thief, at, kinds) => {
                    // The device may know the rotation already, or not yet; either way an old set must not be in force for it.
                    scene.poll(scene.world.log.len());
                    let at = at.index(scene.world.log.len() + 1);
                    let mut run = scene.world.log[..at].to_vec();
                    for release in kinds {
                        let head = run.last().map(Statement::head);
                        let body = match (release, head) {
                            (false, Some(_)) => Body::Withdraw(Withdraw { withdraws: Serial::FIRST, reason: "x".into(), fallback: None }),
                            _ => scene.world.release_body("evil"),
                        };
                        run.push(scene.world.say(head, body, &thief.names(scene.world.keys)));
                    }
                    for from in [0, at.min(scene.from()), at] {
                        let taken = scene.read(run[from..].to_vec(), false);
                        // A stolen withdraw key can withdraw; nobody else can do anything.
                        if thief != Thief::Stop {
                            prop_assert!(matches!(taken, Err(_) | Ok(0)), "{:?} by {:?}", taken, thief);
                        }
                    }
                }
                Step::Tamper(index, how) => {
                    scene.poll(scene.world.log.len());
                    let mut run = scene.world.log.clone();
                    let at = index.index(run.len());
                    match how {
                        0 => drop(run.remove(at)),
                        1 => run.swap(at, 0),
                        2 => run.insert(at, run[at].clone()),
                        _ => run.truncate(at),
                    }
                    let before = scene.view.head(&channel());
                    prop_assert!(matches!(scene.read(run, true), Err(_) | Ok(0)));
                    prop_assert_eq!(scene.view.head(&channel()), before);
                }
            }
            scene.honest.extend(scene.world.log.iter().map(place));
        }
        scene.poll(scene.world.log.len());
        prop_assert_eq!(scene.view.head(&channel()), scene.world.head());
        prop_assert!(scene.view.freshness(&channel(), time(scene.world.step)).is_current());
        // A new device comes to the same, from nothing but the anchor.
        let mut fresh = View::new(scene.world.anchor());
        fresh.take_trust(scene.world.trust.clone()).unwrap();
        let news = fresh.examine(&channel(), scene.world.log.clone()).unwrap();
        prop_assert_eq!(news.statements().len(), scene.world.log.len());
        let trust: &Trust = fresh.trust().unwrap();
        prop_assert_eq!(trust.serial(), scene.world.serial().unwrap());
    }
}
