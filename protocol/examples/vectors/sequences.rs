//! Lives of devices: what is offered to them, step by step, and what must come of it (specification, appendix B).
//!
//! What is expected stands here by hand; `protocol/tests/vectors.rs` runs the library against it.

use std::{fmt::Write, fs, path::Path};

use tidings_protocol::{Head, Statement};

use super::{ANN, BEAT, BOB, NEW_ROOT, ROOT, STOP, STRANGER, public, sign};

const CEM: u8 = 7;
const PULSE: u8 = 8;

const OS: &str = "vectors.os.stable";

/// Who signs what in a trust statement.
#[derive(Clone)]
struct Rules {
    expires: &'static str,
    root: u8,
    threshold: usize,
    release: Vec<u8>,
    beat: Option<u8>,
    checkpoints: Vec<(&'static str, Head)>,
    more: Vec<String>,
}

fn rules() -> Rules {
    let release = vec![ANN, BOB];
    Rules { expires: "2036-01-01T00:00:00Z", root: ROOT, threshold: 1, release, beat: Some(BEAT), checkpoints: vec![], more: vec![] }
}

fn name(key: u8) -> &'static str {
    ["", "root", "ann", "bob", "stop", "beat", "new-root", "cem", "pulse", "stranger"][usize::from(key)]
}

fn parse(octets: &[u8]) -> Statement {
    Statement::parse(octets).unwrap_or_else(|error| panic!("{error}"))
}

fn first_lines(kind: &str, channel: &str, after: Option<Head>, time: &str) -> String {
    let (serial, previous) = after.map_or((1, "-".into()), |head| (head.serial.number() + 1, head.id.to_string()));
    format!("Tidings: 1 {kind}\nChannel: {channel}\nSerial: {serial}\nPrevious: {previous}\nTime: {time}\n")
}

fn trust(after: Option<Head>, time: &str, rules: &Rules, signers: &[u8]) -> Statement {
    let mut text = first_lines("trust", "vectors.trust", after, time) + &format!("Expires: {}\n", rules.expires);
    let mut keys = vec![rules.root, STOP];
    keys.extend(&rules.release);
    keys.extend(rules.beat);
    for key in keys {
        writeln!(text, "Key: {} {}", public(key), name(key)).unwrap();
    }
    let release: Vec<&str> = rules.release.iter().map(|key| name(*key)).collect();
    writeln!(text, "Role: trust * 1 {}", name(rules.root)).unwrap();
    writeln!(text, "Role: release * {} {}", rules.threshold, release.join(" ")).unwrap();
    writeln!(text, "Role: withdraw * 1 {}", name(STOP)).unwrap();
    if let Some(key) = rules.beat {
        writeln!(text, "Role: beat * 1 {}", name(key)).unwrap();
    }
    for (channel, head) in &rules.checkpoints {
        writeln!(text, "Checkpoint: {channel} {head}").unwrap();
    }
    rules.more.iter().for_each(|line| writeln!(text, "{line}").unwrap());
    parse(&sign(text, signers))
}

/// A release of `vectors.os.stable`, under some trust statement.
fn release(after: Option<Head>, time: &str, under: u32, fields: &str, signers: &[u8]) -> Statement {
    let text = first_lines("release", OS, after, time) + &format!("Trust: {under}\nVersion: 1\n{fields}");
    parse(&sign(text, signers))
}

fn withdraw(after: Head, time: &str, fields: &str, signers: &[u8]) -> Statement {
    let text = first_lines("withdraw", OS, Some(after), time) + &format!("Trust: 1\nReason: it does not boot\n{fields}");
    parse(&sign(text, signers))
}

fn beat(channel: &str, after: Option<Head>, time: &str, expires: &str, heads: &[(&str, Head)], signers: &[u8]) -> Statement {
    let mut text = first_lines("beat", channel, after, time) + &format!("Trust: 1\nExpires: {expires}\n");
    heads.iter().for_each(|(channel, head)| writeln!(text, "Head: {channel} {head}").unwrap());
    parse(&sign(text, signers))
}

/// One file.
struct Life(String);

impl Life {
    fn new(comment: &str, first: &Statement) -> Self {
        Self(format!("comment: {comment}\nanchor: vectors {}\n", first.id()))
    }
    fn step(&mut self, step: &str, statements: &[&Statement]) {
        write!(self.0, "\n{step}\n").unwrap();
        for statement in statements {
            self.0.push_str(std::str::from_utf8(statement.octets()).unwrap());
        }
    }
    fn write(self, directory: &Path, name: &str, count: &mut u32) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(name), self.0).unwrap();
        *count += 1;
    }
}

#[allow(clippy::too_many_lines)] // a list
pub(super) fn write(directory: &Path) -> u32 {
    let mut count = 0;
    let noon = "2026-02-01T12:00:00Z";
    let trust_1 = trust(None, "2026-01-01T00:00:00Z", &rules(), &[ROOT]);
    let trust_head = ("vectors.trust", trust_1.head());
    let r1 = release(None, "2026-02-01T10:00:00Z", 1, "", &[ANN]);
    let r2 = release(Some(r1.head()), "2026-02-01T11:00:00Z", 1, "", &[BOB]);
    let r3 = release(Some(r2.head()), "2026-02-01T11:30:00Z", 1, "", &[ANN]);
    let later = "2026-02-01T12:10:00Z";
    let beat_1 = beat("vectors.beat", None, noon, later, &[(OS, r2.head()), trust_head], &[BEAT]);
    let begin = |comment: &str| {
        let mut life = Life::new(comment, &trust_1);
        life.step(&format!("clock: {noon}"), &[]);
        life.step("trust: taken 1", &[&trust_1]);
        life
    };

    let mut life = begin("a good life: read, confirmed, applied; then a withdrawal, and the signed way back");
    life.step(&format!("state: {OS} STALE"), &[]);
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    life.step(&format!("state: {OS} STALE"), &[]);
    life.step(&format!("clear: {OS} 2 no 5.6-2"), &[&r2]);
    life.step("beat: taken", &[&beat_1]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    life.step(&format!("clear: {OS} 2 yes"), &[&r2]);
    life.step(&format!("applied: {OS} 2"), &[]);
    life.step(&format!("clear: {OS} 1 no 5.6-7"), &[&r1, &r2]);
    let alone = withdraw(r2.head(), "2026-02-01T12:05:00Z", "Withdraws: 2\nFallback: 1\n", &[STOP]);
    life.step(&format!("clear: {OS} 1 no 5.6-7"), &[&r1, &r2, &alone]);
    let back = withdraw(r2.head(), "2026-02-01T12:05:00Z", "Withdraws: 2\nFallback: 1\n", &[STOP, ANN]);
    life.step(&format!("clear: {OS} 2 no 5.6-5"), &[&r2, &back]);
    life.step(&format!("read: {OS} new 3"), &[&back]);
    life.step(&format!("clear: {OS} 2 no 5.6-1"), &[&r2]);
    life.step(&format!("clear: {OS} 1 yes"), &[&r1, &r2, &back]);
    life.step(&format!("clear: {OS} 3 no 5.6-4"), &[&back]);
    life.write(directory, "good-life", &mut count);

    let mut life = begin("attack 25: what is old is no news, and takes nothing back");
    life.step(&format!("read: {OS} new 1,2,3"), &[&r1, &r2, &r3]);
    life.step(&format!("read: {OS} new none"), &[&r1, &r2]);
    life.step(&format!("read: {OS} new none"), &[&r1, &r2, &r3]);
    let beat_2 = beat("vectors.beat", Some(beat_1.head()), "2026-02-01T12:01:00Z", later, &[(OS, r3.head()), trust_head], &[BEAT]);
    life.step("beat: taken", &[&beat_2]);
    life.step("beat: taken", &[&beat_1]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    life.write(directory, "replay", &mut count);

    let mut life = begin("attacks 17 and 31: a new device is shown an old log, with and without a beat; a beat ends");
    life.step(&format!("read: {OS} new 1"), &[&r1]);
    life.step(&format!("state: {OS} STALE"), &[]);
    life.step("beat: taken", &[&beat_1]);
    life.step(&format!("state: {OS} BEHIND"), &[]);
    life.step(&format!("clear: {OS} 1 no 5.6-2"), &[&r1]);
    life.step(&format!("read: {OS} new 2"), &[&r2]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    life.step("clock: 2026-02-01T12:09:59Z", &[]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    life.step("clock: 2026-02-01T12:10:00Z", &[]);
    life.step(&format!("state: {OS} STALE"), &[]);
    let long = beat("vectors.beat", Some(beat_1.head()), later, "2036-01-01T00:00:00Z", &[(OS, r2.head()), trust_head], &[BEAT]);
    life.step("beat: taken", &[&long]);
    life.step("clock: 2026-02-02T12:09:59Z", &[]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    life.step("clock: 2026-02-02T12:10:00Z", &[]);
    life.step(&format!("state: {OS} STALE"), &[]);
    life.write(directory, "freeze", &mut count);

    let second = |rules: &Rules, signers: &[u8]| trust(Some(trust_1.head()), "2026-02-01T12:00:00Z", rules, signers);
    let moved = Rules { root: NEW_ROOT, ..rules() };
    let mut life = Life::new("attacks 11, 12 and 16: the trust log changes by the thresholds of both, one step after the other", &trust_1);
    life.step(&format!("clock: {noon}"), &[]);
    let other = trust(None, "2026-01-01T00:00:00Z", &moved, &[NEW_ROOT]);
    life.step("trust: refused 1 5.4-1", &[&other]);
    life.step("trust: taken 1", &[&trust_1]);
    life.step("trust: refused 2 5.2-4", &[&second(&moved, &[NEW_ROOT])]);
    life.step("trust: refused 2 5.2-4", &[&second(&moved, &[ROOT])]);
    life.step("trust: refused 2 5.2-4", &[&second(&moved, &[STRANGER, ANN, BEAT, STOP])]);
    life.step("trust: taken 1", &[&trust_1]);
    let trust_2 = second(&moved, &[ROOT, NEW_ROOT]);
    let trust_3 = trust(Some(trust_2.head()), noon, &moved, &[NEW_ROOT]);
    life.step("trust: refused 3 5.4-2", &[&trust_3]);
    life.step("trust: taken 3", &[&trust_2, &trust_3]);
    let back = trust(Some(trust_3.head()), noon, &rules(), &[ROOT]);
    life.step("trust: refused 4 5.2-4", &[&back]);
    let expired = Rules { expires: "2026-02-01T12:00:01Z", ..moved.clone() };
    let trust_4 = trust(Some(trust_3.head()), noon, &expired, &[NEW_ROOT]);
    let trust_5 = trust(Some(trust_4.head()), "2026-03-01T00:00:00Z", &moved, &[NEW_ROOT]);
    let last = trust(Some(trust_5.head()), "2026-03-01T00:00:00Z", &moved, &[STRANGER]);
    life.step("trust: refused 6 5.2-4", &[&trust_4, &trust_5, &last]);
    let critical = Rules { more: vec!["Colour: blue".into(), "Critical: Colour".into()], ..moved.clone() };
    life.step("trust: refused 6 3.3-1", &[&trust(Some(trust_5.head()), "2026-03-01T00:00:00Z", &critical, &[NEW_ROOT])]);
    life.write(directory, "rotation", &mut count);

    let cem = Rules { release: vec![CEM], checkpoints: vec![(OS, r2.head())], ..rules() };
    let trust_2 = second(&cem, &[ROOT]);
    let mut life = begin("attack 13: a whole set of retired keys signs nothing new; what it signed stays valid below a checkpoint");
    life.step(&format!("read: {OS} new 1"), &[&r1]);
    life.step("trust: taken 2", &[&trust_2]);
    life.step(&format!("read: {OS} refused 3 5.2-4"), &[&r2, &r3]);
    let under_2 = release(Some(r2.head()), noon, 2, "", &[ANN, BOB]);
    life.step(&format!("read: {OS} refused 3 5.2-4"), &[&r2, &under_2]);
    let instead = release(Some(r1.head()), noon, 1, "Summary: instead\n", &[ANN, BOB]);
    life.step(&format!("read: {OS} refused 2 5.3-2"), &[&instead]);
    let by_cem = release(Some(r2.head()), noon, 2, "", &[CEM]);
    life.step(&format!("read: {OS} new 2,3"), &[&r2, &by_cem]);
    life.write(directory, "retired-keys", &mut count);

    let mut life = begin("a new device reads below a checkpoint what only retired keys have signed");
    life.step("trust: taken 2", &[&trust_2]);
    life.step(&format!("read: {OS} refused 1 5.2-4"), &[&r1]);
    life.step(&format!("read: {OS} new 1,2,3"), &[&r1, &r2, &by_cem]);
    life.write(directory, "below-a-checkpoint", &mut count);

    let mut life = begin("attacks 10 and 14: the withdraw key and the beat key vouch for no release; links are kept");
    life.step(&format!("read: {OS} new 1"), &[&r1]);
    let smuggled = release(Some(r1.head()), noon, 1, "", &[STOP]);
    let above = withdraw(smuggled.head(), noon, "Withdraws: 1\n", &[STOP]);
    life.step(&format!("read: {OS} refused 2 5.2-4"), &[&smuggled, &above]);
    life.step(&format!("read: {OS} refused 2 5.2-4"), &[&release(Some(r1.head()), noon, 1, "", &[BEAT])]);
    let unlinked = withdraw(r3.head(), noon, "Withdraws: 1\n", &[STOP]);
    life.step(&format!("read: {OS} refused 3 5.3-1"), &[&r2, &release(Some(r2.head()), noon, 1, "Summary: changed\n", &[ANN]), &unlinked]);
    let future = release(Some(r1.head()), noon, 2, "", &[ANN]);
    life.step(&format!("read: {OS} refused 2 5.2-2"), &[&future]);
    let foreign = parse(&sign(first_lines("release", "vectors.os.testing", Some(r1.head()), noon) + "Trust: 1\nVersion: 1\n", &[ANN]));
    life.step(&format!("read: {OS} refused 2 5.2-1"), &[&foreign]);
    let mut spoilt = String::from_utf8(release(Some(r1.head()), noon, 1, "", &[ANN, BOB]).octets().to_vec()).unwrap();
    let line = String::from_utf8(r1.octets().to_vec()).unwrap().lines().find(|l| l.starts_with("Signature")).unwrap().to_owned();
    let ours = spoilt.lines().find(|l| l.starts_with("Signature")).unwrap().to_owned();
    spoilt = spoilt.replace(&ours, &line);
    life.step(&format!("read: {OS} refused 2 5.2-3"), &[&parse(spoilt.as_bytes())]);
    life.step(&format!("read: {OS} new 2,3"), &[&r2, &r3]);
    life.write(directory, "smuggling", &mut count);

    let mut life = begin("attacks 15, 17 and 21: a stolen beat key can stop, not install; what it said is gone when it is taken away");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    life.step("beat: refused 5.2-4", &[&beat("vectors.beat", None, noon, later, &[(OS, r2.head())], &[ANN])]);
    let far = Head { serial: "2147483646".parse().unwrap(), id: r1.id() };
    let poison = beat("vectors.beat", Some(far), "9990-01-01T00:00:00Z", "9990-01-01T00:10:00Z", &[(OS, r2.head()), trust_head], &[BEAT]);
    life.step("beat: taken", &[&poison]);
    life.step(&format!("clear: {OS} 2 no 5.6-3"), &[&r2]);
    life.step("beat: taken", &[&beat_1]);
    life.step(&format!("clear: {OS} 2 no 5.6-3"), &[&r2]);
    let pulse = second(&Rules { beat: Some(PULSE), ..rules() }, &[ROOT]);
    life.step("trust: taken 2", &[&pulse]);
    life.step(&format!("state: {OS} STALE"), &[]);
    let fresh = beat("vectors.beat", None, noon, later, &[(OS, r2.head()), ("vectors.trust", pulse.head())], &[PULSE]);
    life.step("beat: taken", &[&fresh]);
    life.step(&format!("clear: {OS} 2 yes"), &[&r2]);
    life.write(directory, "stolen-beat-key", &mut count);

    let soon = trust(None, "2026-01-01T00:00:00Z", &Rules { expires: "2026-03-01T00:00:00Z", ..rules() }, &[ROOT]);
    let soon_head = ("vectors.trust", soon.head());
    let mut life = Life::new("attacks 21 and 22: without a clock the signed times count; expiry stops installing, never reading", &soon);
    life.step("clock: 1970-01-01T00:00:00Z", &[]);
    life.step("trust: taken 1", &[&soon]);
    life.step(&format!("read: {OS} new 1"), &[&r1]);
    let now = beat("vectors.beat", None, noon, later, &[(OS, r1.head()), soon_head], &[BEAT]);
    life.step("beat: taken", &[&now]);
    life.step(&format!("clear: {OS} 1 yes"), &[&r1]);
    let march = release(Some(r1.head()), "2026-03-02T00:00:00Z", 1, "", &[ANN]);
    let beat_march =
        beat("vectors.beat", Some(now.head()), "2026-03-02T00:00:00Z", "2026-03-02T00:10:00Z", &[(OS, march.head()), soon_head], &[BEAT]);
    life.step("beat: taken", &[&beat_march]);
    life.step(&format!("state: {OS} BEHIND"), &[]);
    life.step(&format!("read: {OS} new 2"), &[&march]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    life.step(&format!("clear: {OS} 2 no 5.6-3"), &[&march]);
    let renewed = trust(Some(soon.head()), "2026-03-02T00:01:00Z", &rules(), &[ROOT]);
    life.step("trust: taken 2", &[&renewed]);
    life.step(&format!("clear: {OS} 2 yes"), &[&march]);
    life.write(directory, "no-clock", &mut count);

    let others = release(Some(r1.head()), "2026-02-01T11:00:00Z", 1, "Summary: the other\n", &[BOB]);
    let others_next = release(Some(others.head()), noon, 1, "", &[BOB]);
    let settled = second(&Rules { checkpoints: vec![(OS, others.head())], ..rules() }, &[ROOT]);
    let mut life = begin("attack 28: a fork stops the channel; the checkpoint chooses the other branch");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    life.step(&format!("read: {OS} fork"), &[&others]);
    life.step(&format!("state: {OS} FORKED"), &[]);
    life.step(&format!("read: {OS} fork"), &[&r3]);
    life.step(&format!("clear: {OS} 2 no 5.6-2"), &[&r2, &r3]);
    life.step("trust: taken 2", &[&settled]);
    life.step(&format!("read: {OS} refused 3 5.3-2"), &[&r3]);
    life.step(&format!("read: {OS} refused 3 5.3-2"), &[&r2, &r3]);
    let r4 = release(Some(r3.head()), noon, 1, "", &[ANN]);
    life.step(&format!("read: {OS} from 2"), &[&r4]);
    life.step(&format!("read: {OS} new 2,3"), &[&others, &others_next]);
    life.step(&format!("read: {OS} new none"), &[&others, &others_next]);
    life.write(directory, "fork-lost", &mut count);

    let ours = second(&Rules { checkpoints: vec![(OS, r2.head())], ..rules() }, &[ROOT]);
    let mut life = begin("attack 28: a fork by another Previous; the checkpoint confirms ours");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    life.step(&format!("applied: {OS} 2"), &[]);
    life.step(&format!("read: {OS} fork"), &[&others_next]);
    life.step(&format!("state: {OS} FORKED"), &[]);
    life.step("trust: taken 2", &[&ours]);
    life.step(&format!("read: {OS} new none"), &[&r2]);
    life.step("beat: taken", &[&beat("vectors.beat", None, noon, later, &[(OS, r2.head()), ("vectors.trust", ours.head())], &[BEAT])]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    life.step(&format!("clear: {OS} 2 yes"), &[&r2]);
    life.step(&format!("clear: {OS} 1 no 5.6-7"), &[&r1, &r2]);
    // What was settled against proves nothing again, however far up it is shown.
    life.step(&format!("read: {OS} refused 3 5.3-2"), &[&others_next]);
    life.step(&format!("read: {OS} new 3"), &[&r3]);
    let others_far = release(Some(others_next.head()), noon, 1, "", &[BOB]);
    life.step(&format!("read: {OS} from 2"), &[&others_far]);
    life.step(&format!("read: {OS} refused 3 5.3-2"), &[&others, &others_next, &others_far]);
    // A branch that leaves the log above the checkpoint is a fork like any other.
    let new_fork = release(Some(r2.head()), noon, 1, "Summary: the other\n", &[BOB]);
    life.step(&format!("read: {OS} fork"), &[&r2, &new_fork]);
    life.step(&format!("state: {OS} FORKED"), &[]);
    life.write(directory, "fork-won", &mut count);

    let mut life = begin("what was applied from a branch that lost is no measure");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    life.step(&format!("applied: {OS} 2"), &[]);
    life.step("trust: taken 2", &[&settled]);
    life.step(&format!("read: {OS} new 2,3"), &[&others, &others_next]);
    let confirmed = [(OS, others_next.head()), ("vectors.trust", settled.head())];
    life.step("beat: taken", &[&beat("vectors.beat", None, noon, later, &confirmed, &[BEAT])]);
    life.step(&format!("clear: {OS} 2 yes"), &[&others, &others_next]);
    life.write(directory, "branch-replaced", &mut count);

    // A checkpoint does not shorten a log whose head the trust in force still proves.
    let low = second(&Rules { checkpoints: vec![(OS, r1.head())], ..rules() }, &[ROOT]);
    let mut life = begin("a checkpoint below the head, and a broker that shows no more than it: that broker is behind");
    life.step(&format!("read: {OS} new 1,2,3"), &[&r1, &r2, &r3]);
    life.step(&format!("applied: {OS} 3"), &[]);
    life.step("trust: taken 2", &[&low]);
    life.step(&format!("read: {OS} new none"), &[&r1]);
    life.step(&format!("read: {OS} new none"), &[&r1, &r2]);
    let heads = [(OS, r3.head()), ("vectors.trust", low.head())];
    life.step("beat: taken", &[&beat("vectors.beat", None, noon, later, &heads, &[BEAT])]);
    life.step(&format!("state: {OS} STALE"), &[]);
    life.step(&format!("read: {OS} new none"), &[&r1, &r2, &r3]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    life.step(&format!("clear: {OS} 2 no 5.6-7"), &[&r2, &r3]);
    life.step(&format!("clear: {OS} 3 yes"), &[&r3]);
    life.write(directory, "checkpoint-below", &mut count);

    let mut life = begin("attack 29: a beat that names another statement at the head's place");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &others]);
    life.step("beat: taken", &[&beat_1]);
    life.step(&format!("state: {OS} FORKED"), &[]);
    life.step(&format!("clear: {OS} 2 no 5.6-2"), &[&others]);
    life.write(directory, "split-view", &mut count);

    let mut life = begin("attack 14: a stolen withdraw key runs ahead of the log; beats do not follow");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    life.step("beat: taken", &[&beat_1]);
    let ahead_3 = withdraw(r2.head(), noon, "Withdraws: 1\n", &[STOP]);
    let ahead_4 = withdraw(ahead_3.head(), noon, "Withdraws: 1\n", &[STOP]);
    let ahead_5 = withdraw(ahead_4.head(), noon, "Withdraws: 1\n", &[STOP]);
    life.step(&format!("read: {OS} new 3,4,5"), &[&ahead_3, &ahead_4, &ahead_5]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    let said = |after: &Statement, head: Head| {
        beat("vectors.beat", Some(after.head()), "2026-02-01T12:01:00Z", later, &[(OS, head), trust_head], &[BEAT])
    };
    let beat_2 = said(&beat_1, r3.head());
    let beat_3 = said(&beat_2, r3.head());
    life.step("beat: taken", &[&beat_2]);
    life.step("beat: taken", &[&beat_3]);
    life.step(&format!("state: {OS} STALE"), &[]);
    life.step(&format!("clear: {OS} 2 no 5.6-2"), &[&r2, &ahead_3, &ahead_4, &ahead_5]);
    let r4 = release(Some(r3.head()), noon, 1, "", &[ANN]);
    life.step("beat: taken", &[&said(&beat_3, r4.head())]);
    life.step(&format!("state: {OS} FORKED"), &[]);
    life.write(directory, "run-ahead", &mut count);

    let mut life = begin("attack 14: the same at clearance alone: what beats name must stand in what is read");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    let stop_2 = withdraw(r2.head(), noon, "Withdraws: 2\n", &[STOP]);
    life.step("beat: taken", &[&beat("vectors.beat", None, noon, later, &[(OS, stop_2.head()), trust_head], &[BEAT])]);
    life.step(&format!("state: {OS} BEHIND"), &[]);
    life.step(&format!("clear: {OS} 2 no 5.6-2"), &[&r2, &ahead_3, &ahead_4, &ahead_5]);
    life.step(&format!("clear: {OS} 2 no 5.6-5"), &[&r2, &stop_2]);
    life.write(directory, "ahead-at-clearance", &mut count);

    let last = release(Some(Head { serial: "2147483645".parse().unwrap(), id: r1.id() }), noon, 1, "", &[ANN]);
    let cems = second(&Rules { release: vec![CEM], checkpoints: vec![(OS, r2.head())], ..rules() }, &[ROOT]);
    let mut life = begin("attacks 15 and 26: stolen keys send a device far ahead over a hole; a checkpoint brings it back");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    life.step(&format!("read: {OS} new 2147483646"), &[&last]);
    life.step(&format!("clear: {OS} 2 no 5.6-1"), &[&r2, &r3]);
    life.step(&format!("read: {OS} new none"), &[&r3]);
    life.step("trust: taken 2", &[&cems]);
    life.step(&format!("read: {OS} from 2"), &[&by_cem]);
    life.step(&format!("read: {OS} new 2"), &[&r2]);
    let by_cem = release(Some(r2.head()), noon, 2, "", &[CEM]);
    life.step(&format!("read: {OS} new 3"), &[&by_cem]);
    life.write(directory, "fast-forward", &mut count);

    let mut life = begin("attacks 23 and 42: premature, behind a barrier, critical");
    let premature = release(None, noon, 1, "Not-Before: 2026-02-01T12:00:10Z\n", &[ANN]);
    let behind = release(Some(premature.head()), noon, 1, "Barrier: 1\n", &[ANN]);
    let critical = release(Some(behind.head()), noon, 1, "Colour: blue\nCritical: Colour\n", &[ANN]);
    life.step(&format!("read: {OS} new 1,2,3"), &[&premature, &behind, &critical]);
    life.step("beat: taken", &[&beat("vectors.beat", None, noon, later, &[(OS, critical.head()), trust_head], &[BEAT])]);
    life.step(&format!("clear: {OS} 1 no 5.6-6"), &[&premature, &behind, &critical]);
    life.step(&format!("clear: {OS} 2 no 5.6-8"), &[&behind, &critical]);
    life.step(&format!("clear: {OS} 3 no 5.6-4"), &[&critical]);
    life.step("clock: 2026-02-01T12:00:10Z", &[]);
    life.step(&format!("clear: {OS} 1 yes"), &[&premature, &behind, &critical]);
    life.step(&format!("applied: {OS} 1"), &[]);
    life.step(&format!("clear: {OS} 2 yes"), &[&behind, &critical]);
    let heads = [(OS, critical.head()), trust_head];
    let odd = first_lines("beat", "vectors.beat", Some(beat_1.head()), noon) + &format!("Trust: 1\nExpires: {later}\nColour: blue\n");
    let odd = odd + "Critical: Colour\n" + &heads.iter().map(|(channel, head)| format!("Head: {channel} {head}\n")).collect::<String>();
    life.step("beat: refused 3.3-1", &[&parse(&sign(odd, &[BEAT]))]);
    // A withdrawal counts all the same: to stop is safe.
    let stop = withdraw(critical.head(), noon, "Withdraws: 2\nColour: blue\nCritical: Colour\n", &[STOP]);
    life.step(&format!("clear: {OS} 2 no 5.6-5"), &[&behind, &critical, &stop]);
    life.write(directory, "not-yet", &mut count);

    let far = release(Some(r3.head()), noon, 1, "Barrier: 1\n", &[ANN]);
    let mut life = begin("a barrier is passed by whoever has applied it, or something later");
    life.step(&format!("read: {OS} new 1,2,3,4"), &[&r1, &r2, &r3, &far]);
    life.step("beat: taken", &[&beat("vectors.beat", None, noon, later, &[(OS, far.head()), trust_head], &[BEAT])]);
    life.step(&format!("clear: {OS} 4 no 5.6-8"), &[&far]);
    life.step(&format!("applied: {OS} 2"), &[]);
    life.step(&format!("clear: {OS} 4 yes"), &[&far]);
    life.write(directory, "barrier", &mut count);

    let mut life = begin("a beat that is silent about trust confirms nothing");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    life.step("beat: taken", &[&beat("vectors.beat", None, noon, later, &[(OS, r2.head())], &[BEAT])]);
    life.step(&format!("state: {OS} STALE"), &[]);
    life.write(directory, "silent-about-trust", &mut count);

    let silent = trust(None, "2026-01-01T00:00:00Z", &Rules { beat: None, ..rules() }, &[ROOT]);
    let mut life = Life::new("a namespace without beats: STALE for ever, and installed all the same", &silent);
    life.step(&format!("clock: {noon}"), &[]);
    life.step("trust: taken 1", &[&silent]);
    life.step(&format!("read: {OS} new 1"), &[&r1]);
    life.step("beat: refused 5.2-4", &[&beat_1]);
    life.step(&format!("state: {OS} STALE"), &[]);
    life.step(&format!("clear: {OS} 1 yes"), &[&r1]);
    life.write(directory, "no-beats", &mut count);

    // Of two shards, the hash of the channel's name chooses one; the other names the channel in vain.
    let ours = tidings_protocol::beat::shard(&OS.parse().unwrap(), 2);
    let names = ["vectors.shard-0.beat", "vectors.shard-1.beat"];
    let shard = |name: &str, head: Head, after: Option<Head>| beat(name, after, noon, later, &[(OS, head)], &[BEAT]);
    let right = shard(names[ours], r2.head(), None);
    let wrong = shard(names[1 - ours], r3.head(), None);
    let mut heads = vec![(names[0], r1.head()), (names[1], r1.head()), trust_head];
    (heads[ours].1, heads[1 - ours].1) = (right.head(), wrong.head());
    let root = beat("vectors.beat", None, noon, later, &heads, &[BEAT]);
    let mut life = begin("a beat in shards: the one that speaks for the channel counts, at the serial that the beat names");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    life.step("beat: taken", &[&root]);
    life.step(&format!("state: {OS} STALE"), &[]);
    life.step(&format!("shard: {}", names[1 - ours]), &[&wrong]);
    life.step(&format!("state: {OS} STALE"), &[]);
    let newer = shard(names[ours], r3.head(), Some(right.head()));
    life.step(&format!("shard: {}", names[ours]), &[&newer]);
    life.step(&format!("state: {OS} STALE"), &[]);
    life.step(&format!("shard: {}", names[ours]), &[&right]);
    life.step(&format!("state: {OS} CURRENT"), &[]);
    life.write(directory, "shards", &mut count);

    let mut life = begin("mix and match: an old trust log beside a live beat that names a newer one");
    life.step(&format!("read: {OS} new 1,2"), &[&r1, &r2]);
    let newer = second(&rules(), &[ROOT]);
    life.step("beat: taken", &[&beat("vectors.beat", None, noon, later, &[(OS, r2.head()), ("vectors.trust", newer.head())], &[BEAT])]);
    life.step(&format!("state: {OS} BEHIND"), &[]);
    life.step(&format!("clear: {OS} 2 no 5.6-2"), &[&r2]);
    life.step("trust: taken 2", &[&newer]);
    life.step(&format!("clear: {OS} 2 yes"), &[&r2]);
    life.write(directory, "withheld-trust", &mut count);
    count
}
