//! Lives of devices: what is offered to them, step by step, and what must come of it
//! (`spec/vectors/README.md`).

mod about;
mod fresh;
mod place;
mod proof;
mod run;
mod withdrawn;

use std::{cell::RefCell, fmt::Write, fs, path::Path};

use tidings_protocol::{Head, Requirement, Statement};

use super::{ANN, BEAT, BOB, NEW_ROOT, PULSE, ROOT, STOP, parse, public, sign};

const OS: &str = "vectors.os.stable";
const LOG: &str = "vectors.trust";
const BEATS: &str = "vectors.beat";
const NOON: &str = "2026-02-01T12:00:00Z";
const LATER: &str = "2026-02-01T12:10:00Z";

/// Who signs what in a trust statement.
#[derive(Clone)]
struct Rules {
    time: &'static str,
    expires: &'static str,
    root: u8,
    threshold: usize,
    release: Vec<u8>,
    withdraw: u8,
    beat: Option<u8>,
    checkpoints: Vec<(&'static str, Head)>,
    /// Further lines, the keys first.
    keys: Vec<u8>,
    more: Vec<String>,
}

fn rules() -> Rules {
    let (time, expires) = ("2026-01-01T00:00:00Z", "2036-01-01T00:00:00Z");
    let (release, beat) = (vec![ANN, BOB], Some(BEAT));
    Rules {
        time,
        expires,
        root: ROOT,
        threshold: 1,
        release,
        withdraw: STOP,
        beat,
        checkpoints: vec![],
        keys: vec![],
        more: vec![],
    }
}

/// Without beats.
fn silent() -> Rules {
    Rules {
        beat: None,
        ..rules()
    }
}

fn name(key: u8) -> &'static str {
    [
        "", "root", "ann", "bob", "stop", "beat", "new-root", "cem", "pulse", "stranger",
    ][usize::from(key)]
}

fn first_lines(kind: &str, channel: &str, after: Option<Head>, time: &str) -> String {
    let (serial, previous) = after.map_or((1, "-".into()), |head| {
        (head.serial.number() + 1, head.id.to_string())
    });
    format!(
        "Tidings: 1 {kind}\nChannel: {channel}\nSerial: {serial}\nPrevious: {previous}\nTime: {time}\n"
    )
}

fn trust(after: Option<&Statement>, rules: &Rules, signers: &[u8]) -> Statement {
    let mut text = first_lines("trust", LOG, after.map(Statement::head), rules.time)
        + &format!("Expires: {}\n", rules.expires);
    let mut keys = vec![rules.root, rules.withdraw];
    for key in rules.release.iter().chain(&rules.beat).chain(&rules.keys) {
        if !keys.contains(key) {
            keys.push(*key);
        }
    }
    for key in keys {
        writeln!(text, "Key: {} {}", public(key), name(key)).unwrap();
    }
    let release: Vec<&str> = rules.release.iter().map(|key| name(*key)).collect();
    writeln!(text, "Role: trust * 1 {}", name(rules.root)).unwrap();
    writeln!(
        text,
        "Role: release * {} {}",
        rules.threshold,
        release.join(" ")
    )
    .unwrap();
    writeln!(text, "Role: withdraw * 1 {}", name(rules.withdraw)).unwrap();
    if let Some(key) = rules.beat {
        writeln!(text, "Role: beat * 1 {}", name(key)).unwrap();
    }
    for (channel, head) in &rules.checkpoints {
        writeln!(text, "Checkpoint: {channel} {head}").unwrap();
    }
    rules
        .more
        .iter()
        .for_each(|line| writeln!(text, "{line}").unwrap());
    parse(&sign(text, signers))
}

/// A release of `vectors.os.stable` under the first trust statement.
fn release(after: Option<&Statement>, fields: &str, signers: &[u8]) -> Statement {
    release_in(OS, after, fields, signers)
}

fn release_in(channel: &str, after: Option<&Statement>, fields: &str, signers: &[u8]) -> Statement {
    let text = first_lines(
        "release",
        channel,
        after.map(Statement::head),
        "2026-02-01T11:00:00Z",
    ) + "Trust: 1\nVersion: 1\n"
        + fields;
    parse(&sign(text, signers))
}

/// A release under a later trust statement.
fn release_under(trust: u32, after: &Statement, signers: &[u8]) -> Statement {
    let text = first_lines("release", OS, Some(after.head()), NOON)
        + &format!("Trust: {trust}\nVersion: 1\n");
    parse(&sign(text, signers))
}

fn withdraw(after: &Statement, withdraws: &Statement, signers: &[u8]) -> Statement {
    withdraw_with(after, withdraws.head(), "", signers)
}

fn withdraw_with(after: &Statement, withdraws: Head, fields: &str, signers: &[u8]) -> Statement {
    let text = first_lines("withdraw", OS, Some(after.head()), NOON);
    parse(&sign(
        format!("{text}Trust: 1\nWithdraws: {withdraws}\nReason: it does not boot\n{fields}"),
        signers,
    ))
}

/// What a beat says beside its heads.
#[derive(Clone)]
struct Beat<'a> {
    channel: &'a str,
    serial: u32,
    time: &'a str,
    expires: &'a str,
    trust: u32,
    key: u8,
}

fn beat_at(serial: u32) -> Beat<'static> {
    Beat {
        channel: BEATS,
        serial,
        time: NOON,
        expires: LATER,
        trust: 1,
        key: BEAT,
    }
}

impl Beat<'_> {
    fn says(&self, heads: &[(&str, &Statement)]) -> Statement {
        let heads: Vec<_> = heads
            .iter()
            .map(|(channel, statement)| (*channel, statement.head()))
            .collect();
        self.names(&heads)
    }
    fn names(&self, heads: &[(&str, Head)]) -> Statement {
        // Beats need not be linked: what they name as the one before is nothing anybody has.
        let id = public(ROOT).as_bytes().to_vec();
        let before = self
            .serial
            .checked_sub(1)
            .and_then(|n| n.to_string().parse().ok());
        let before = before.map(|serial| Head {
            serial,
            id: tidings_protocol::StatementId::of(&id),
        });
        let mut text = first_lines("beat", self.channel, before, self.time)
            + &format!("Trust: {}\nExpires: {}\n", self.trust, self.expires);
        heads
            .iter()
            .for_each(|(channel, head)| writeln!(text, "Head: {channel} {head}").unwrap());
        parse(&sign(text, &[self.key]))
    }
}

/// What every life begins with.
struct Start {
    trust: Statement,
    r1: Statement,
    r2: Statement,
    r3: Statement,
}

impl Start {
    fn new() -> Self {
        let r1 = release(None, "", &[ANN]);
        let r2 = release(Some(&r1), "", &[BOB]);
        let r3 = release(Some(&r2), "", &[ANN]);
        Self {
            trust: trust(None, &rules(), &[ROOT]),
            r1,
            r2,
            r3,
        }
    }
    /// The next trust statement.
    fn second(&self, rules: &Rules) -> Statement {
        trust(Some(&self.trust), rules, &[ROOT])
    }
    /// A beat that names the first trust statement and the head of `vectors.os.stable`.
    fn beat(&self, serial: u32, head: &Statement) -> Statement {
        beat_at(serial).says(&[(LOG, &self.trust), (OS, head)])
    }
    fn life(&self, name: &'static str, comment: &str) -> Life {
        self.life_of(&self.trust, name, comment)
    }
    fn life_of(&self, first: &Statement, name: &'static str, comment: &str) -> Life {
        let mut life = Life::new(name, comment, first);
        life.clock(NOON);
        life.trust(first);
        life
    }
}

/// One file.
struct Life {
    name: &'static str,
    text: String,
}

impl Life {
    fn new(name: &'static str, comment: &str, first: &Statement) -> Self {
        Self {
            name,
            text: format!(
                "comment: {comment}\nrequirement: {}\nanchor: vectors {}\n",
                about::about(name),
                first.head()
            ),
        }
    }
    fn step(&mut self, step: &str, statements: &[&Statement]) {
        write!(self.text, "\n{step}\n").unwrap();
        for statement in statements {
            self.text
                .push_str(std::str::from_utf8(statement.octets()).unwrap());
        }
    }
    fn clock(&mut self, time: &str) {
        self.step(&format!("clock {time}"), &[]);
    }
    fn passes(&mut self, seconds: u64) {
        self.step(&format!("passes {seconds}"), &[]);
    }
    fn profile(&mut self, profile: &str) {
        self.step(&format!("profile {profile}"), &[]);
    }
    /// The next trust statement is taken.
    fn trust(&mut self, statement: &Statement) {
        self.step(
            &format!("trust => taken {}", statement.serial()),
            &[statement],
        );
    }
    fn no_trust(&mut self, by: Requirement, statement: &Statement) {
        self.step(
            &format!("trust => refused {} {}", statement.serial(), by.number()),
            &[statement],
        );
    }
    fn beat(&mut self, statement: &Statement) {
        self.step("beat => taken", &[statement]);
    }
    fn no_beat(&mut self, by: Requirement, statement: &Statement) {
        self.step(&format!("beat => refused {}", by.number()), &[statement]);
    }
    fn state(&mut self, state: &str) {
        self.state_of(OS, state);
    }
    fn state_of(&mut self, channel: &str, state: &str) {
        self.step(&format!("state {channel} => {state}"), &[]);
    }
    /// A run, and what of it is to be delivered.
    fn read(&mut self, new: &str, run: &[&Statement]) {
        self.step(&format!("read {OS} => new {new}"), run);
    }
    /// The same where no broker has what lies below the run.
    fn hole(&mut self, new: &str, run: &[&Statement]) {
        self.step(&format!("hole {OS} => new {new}"), run);
    }
    /// Another branch takes the place of the one that was known.
    fn other(&mut self, new: &str, run: &[&Statement]) {
        self.step(&format!("read {OS} => other {new}"), run);
    }
    fn fork(&mut self, run: &[&Statement]) {
        self.step(&format!("read {OS} => fork"), run);
    }
    fn from(&mut self, serial: u32, run: &[&Statement]) {
        self.step(&format!("read {OS} => from {serial}"), run);
    }
    fn refused(&mut self, serial: u32, by: Requirement, run: &[&Statement]) {
        self.step(
            &format!("read {OS} => refused {serial} {}", by.number()),
            run,
        );
    }
    /// The release to run, `log` being what was read this moment.
    fn run(&mut self, serial: u32, log: &[&Statement]) {
        self.step(&format!("run {OS} => {serial}"), log);
    }
    /// What was applied last is what is to be run.
    fn nothing(&mut self, log: &[&Statement]) {
        self.step(&format!("run {OS} => nothing"), log);
    }
    fn none(&mut self, by: Requirement, log: &[&Statement]) {
        self.step(&format!("run {OS} => none {}", by.number()), log);
    }
    fn applied(&mut self, release: &Statement) {
        self.step(&format!("applied {OS}"), &[release]);
    }
    fn delivered(&mut self, statement: &Statement) {
        self.step(&format!("delivered {OS} {}", statement.head()), &[]);
    }
    fn settled(&mut self, taken: bool, beat: &Statement) {
        self.step(
            if taken {
                "settled-beat => taken"
            } else {
                "settled-beat => refused"
            },
            &[beat],
        );
    }
    fn write(self) {
        WRITTEN.with_borrow_mut(|all| all.push(self));
    }
}

thread_local! {
    static WRITTEN: RefCell<Vec<Life>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn write(directory: &Path) -> usize {
    let start = Start::new();
    proof::write(&start);
    place::write(&start);
    fresh::write(&start);
    withdrawn::write(&start);
    run::write(&start);
    let lives = WRITTEN.take();
    fs::create_dir_all(directory).unwrap();
    assert_eq!(lives.len(), about::count());
    for life in &lives {
        let path = directory.join(life.name);
        assert!(!path.exists(), "{} twice", life.name);
        fs::write(path, &life.text).unwrap();
    }
    lives.len()
}
