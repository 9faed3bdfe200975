//! What is proven, and by what.

mod beats;

use beats::{beat_roles, settled_beat, settled_beat_of_a_role};
use tidings_protocol::Requirement::*;

use super::*;
use crate::{CEM, STRANGER, signature};

pub(super) fn write(start: &Start) {
    rotation(start);
    anchor(start);
    retired_keys(start);
    vouching(start);
    links(start);
    worthless_signatures(start);
    precedence(start);
    beat_roles(start);
    closed(start);
    settled_beat(start);
    settled_beat_of_a_role(start);
    checkpoints_elsewhere(start);
}

fn rotation(start: &Start) {
    let moved = Rules {
        root: NEW_ROOT,
        ..rules()
    };
    let comment = "attacks 11, 12 and 16: the trust log changes by the roles of both, one step after the other";
    let mut life = Life::new("rotation", comment, &start.trust);
    life.clock(NOON);
    life.refused(1, NoTrust, &[&start.r1]);
    life.no_beat(NoTrust, &start.beat(1, &start.r1));
    life.none(NoTrust, &[]);
    life.no_trust(Anchor, &trust(None, &moved, &[NEW_ROOT]));
    life.trust(&start.trust);
    let by = |signers: &[u8]| trust(Some(&start.trust), &moved, signers);
    life.no_trust(Threshold, &by(&[NEW_ROOT]));
    life.no_trust(Threshold, &by(&[ROOT]));
    life.no_trust(Threshold, &by(&[STRANGER, ANN, BEAT, STOP]));
    life.trust(&start.trust);
    let second = by(&[ROOT, NEW_ROOT]);
    let third = trust(Some(&second), &moved, &[NEW_ROOT]);
    life.no_trust(TrustOrder, &third);
    life.step("trust => taken 3", &[&second, &third]);
    life.no_trust(Threshold, &trust(Some(&third), &rules(), &[ROOT]));
    let expired = Rules {
        expires: "2026-02-01T12:00:01Z",
        ..moved.clone()
    };
    let fourth = trust(Some(&third), &expired, &[NEW_ROOT]);
    let fifth = trust(Some(&fourth), &moved, &[NEW_ROOT]);
    let sixth = trust(Some(&fifth), &moved, &[STRANGER]);
    life.step(
        &format!("trust => refused 6 {}", Threshold.number()),
        &[&fourth, &fifth, &sixth],
    );
    let critical = Rules {
        more: vec!["Colour: blue".into(), "Critical: Colour".into()],
        ..moved
    };
    life.no_trust(Critical, &trust(Some(&fifth), &critical, &[NEW_ROOT]));
    life.write();
}

fn anchor(start: &Start) {
    let moved = Rules {
        root: NEW_ROOT,
        ..rules()
    };
    let second = trust(Some(&start.trust), &moved, &[ROOT, NEW_ROOT]);
    let comment = "attack 96: an anchor at a later trust statement: what lies below gives no rights, its keys have no power";
    let mut life = Life::new("anchor-later", comment, &second);
    life.clock(NOON);
    life.no_trust(Anchor, &start.trust);
    let stolen = trust(Some(&start.trust), &rules(), &[ROOT]);
    life.no_trust(Anchor, &stolen);
    life.no_trust(Anchor, &trust(Some(&second), &moved, &[NEW_ROOT]));
    life.trust(&second);
    life.no_trust(TrustOrder, &start.trust);
    life.no_trust(Threshold, &trust(Some(&second), &moved, &[ROOT]));
    life.read("1,2", &[&start.r1, &start.r2]);
    life.trust(&trust(Some(&second), &moved, &[NEW_ROOT]));
    life.write();

    let own = trust(
        None,
        &Rules {
            root: NEW_ROOT,
            ..rules()
        },
        &[ROOT],
    );
    let mut life = Life::new(
        "anchor-unsigned",
        "the anchor's statement meets its own role, or trust does not begin",
        &own,
    );
    life.no_trust(Threshold, &own);
    life.write();
}

fn retired_keys(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let second = start.second(&Rules {
        release: vec![CEM],
        checkpoints: vec![(OS, r2.head())],
        ..rules()
    });
    let by_cem = release_under(2, r2, &[CEM]);
    let comment =
        "attack 13: retired keys sign nothing new; what they signed is proven below a checkpoint";
    let mut life = start.life("retired-keys", comment);
    life.read("1", &[r1]);
    life.trust(&second);
    life.refused(3, Threshold, &[r2, r3]);
    life.refused(3, Threshold, &[r2, &release_under(2, r2, &[ANN, BOB])]);
    life.refused(
        2,
        Checkpoint,
        &[&release(Some(r1), "Summary: instead\n", &[ANN, BOB])],
    );
    life.read("2,3", &[r2, &by_cem]);
    life.write();

    let mut life = start.life(
        "below-a-checkpoint",
        "a new device reads below a checkpoint what only retired keys have signed",
    );
    life.trust(&second);
    life.refused(1, Threshold, &[r1]);
    life.from(2, &[&by_cem]);
    life.read("1,2,3", &[r1, r2, &by_cem]);
    life.write();

    let retired = start.second(&Rules {
        release: vec![CEM],
        ..rules()
    });
    let mut life = start.life(
        "below-a-release",
        "without a checkpoint a release of a listed key proves what lies below it",
    );
    life.trust(&retired);
    life.refused(2, Threshold, &[r1, r2]);
    life.read("1,2,3", &[r1, r2, &by_cem]);
    life.write();
}

fn vouching(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let comment = "attacks 10 and 14: a release proves what is linked below it, of whatever kind; a withdrawal proves itself alone";
    let mut life = start.life("vouching", comment);
    life.read("1", &[r1]);
    let smuggled = release(Some(r1), "", &[STOP]);
    life.refused(
        2,
        Threshold,
        &[&smuggled, &withdraw(&smuggled, r1, &[STOP])],
    );
    // A withdrawal that the key for releases has signed too is a withdrawal all the same.
    life.refused(
        2,
        Threshold,
        &[&smuggled, &withdraw(&smuggled, r1, &[STOP, ANN])],
    );
    life.refused(2, Threshold, &[&release(Some(r1), "", &[BEAT])]);
    let unsigned = withdraw(r1, r1, &[STRANGER]);
    life.refused(2, Threshold, &[&unsigned]);
    life.refused(
        2,
        Threshold,
        &[&unsigned, &withdraw(&unsigned, r1, &[STOP])],
    );
    life.read("2,3", &[&unsigned, &release(Some(&unsigned), "", &[ANN])]);
    life.write();

    let mut life = start.life(
        "vouching-of-many",
        "one signature for a backlog: strangers have signed what lies below",
    );
    let s1 = release(None, "", &[STRANGER]);
    let s2 = release(Some(&s1), "", &[STRANGER]);
    let s3 = withdraw(&s2, &s1, &[STRANGER]);
    life.refused(3, Threshold, &[&s1, &s2, &s3]);
    life.read("1,2,3,4", &[&s1, &s2, &s3, &release(Some(&s3), "", &[BOB])]);
    life.write();

    let mut life = start.life(
        "vouching-not-upwards",
        "what is linked above something proven is not proven by that",
    );
    life.refused(2, Threshold, &[r1, &release(Some(r1), "", &[STRANGER])]);
    life.read("1,2,3", &[r1, r2, r3]);
    life.write();
}

fn links(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let mut life =
        start.life("links", "attack 27: a run is linked, of one channel, and under known trust; otherwise none of it has any effect");
    life.read("1", &[r1]);
    let changed = release(Some(r2), "Summary: changed\n", &[ANN]);
    life.refused(3, Link, &[r2, &changed, &withdraw(r3, r1, &[STOP])]);
    life.refused(2, Link, &[r2, &withdraw(r3, r1, &[STOP])]);
    life.refused(2, Link, &[r2, r2, r3]);
    life.refused(2, NewerTrust, &[&release_under(2, r1, &[ANN])]);
    life.refused(
        2,
        Channel,
        &[&release_in("vectors.os.testing", Some(r1), "", &[ANN])],
    );
    life.state_of(OS, "STALE");
    life.read("2,3", &[r2, r3]);
    life.write();
}

/// The same statement with a line more, which somebody has appended on the way.
fn appended(statement: &Statement, line: &str) -> Statement {
    parse(&[statement.octets(), line.as_bytes()].concat())
}

fn worthless_signatures(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let comment = "attack 91: a signature that does not hold, by a key that is listed later, takes nothing away";
    let cems = signature(b"something else", CEM);
    let spoilt = appended(r2, &cems);
    let stop = withdraw(r2, r2, &[STOP]);
    let spoilt_stop = appended(&stop, &cems);
    let second = start.second(&Rules {
        release: vec![ANN, BOB, CEM],
        ..rules()
    });
    let mut life = start.life("worthless-signature", comment);
    life.read("1,2", &[r1, &spoilt]);
    life.read("3", &[&spoilt_stop]);
    life.trust(&second);
    let third = beat_at(1).says(&[(LOG, &second), (OS, &stop)]);
    life.beat(&third);
    life.state("CURRENT");
    life.read("none", &[r1, &spoilt, &spoilt_stop]);
    life.none(Withdrawn, &[r1, &spoilt, &spoilt_stop]);
    life.none(Withdrawn, &[r1, r2, &stop]);
    life.write();

    let others: String = (20..35)
        .map(|seed| signature(b"something else", seed))
        .collect();
    let sixteen = appended(&release(None, "", &[ANN]), &others);
    let comment =
        "sixteen signatures, of which one holds; and one of many keys, of which none counts";
    let mut life = start.life("sixteen-signatures", comment);
    life.read("1", &[&sixteen]);
    let many: Vec<u8> = (20..36).collect();
    life.refused(2, Threshold, &[&release(Some(r1), "", &many)]);
    let mut bobs = String::from_utf8(release(Some(r1), "", &[ANN]).octets().to_vec()).unwrap();
    bobs = bobs.replace(&public(ANN), &public(BOB));
    life.refused(2, Threshold, &[&parse(bobs.as_bytes())]);
    let spoilt = appended(
        &parse(bobs.as_bytes()),
        &signature(release(Some(r1), "", &[ANN]).signed_part(), ANN),
    );
    life.read("2", &[&spoilt]);
    life.write();
}

fn precedence(start: &Start) {
    let more = [
        "Role: release vectors.os.* 2 ann bob",
        "Role: release vectors.os.stable 1 cem",
        "Role: withdraw vectors.os.* 1 bob",
        // Patterns as long as the channels.
        "Role: release vectors.lab.x 1 cem",
        "Role: release vectors.lab.* 1 bob",
        "Role: release vectors.lab.y 1 cem",
    ];
    let rules = Rules {
        keys: vec![CEM],
        more: more.map(String::from).into(),
        ..rules()
    };
    let first = trust(None, &rules, &[ROOT]);
    let mut life = start.life_of(
        &first,
        "precedence",
        "of the roles that match a channel the most specific alone counts, kind by kind",
    );
    let mut of = |channel: &str, signers: &[u8], good: bool| {
        let statement = release_in(channel, None, "", signers);
        let step = if good {
            "new 1".into()
        } else {
            format!("refused 1 {}", Threshold.number())
        };
        life.step(&format!("read {channel} => {step}"), &[&statement]);
    };
    of(OS, &[ANN, BOB], false);
    of(OS, &[CEM], true);
    of("vectors.os.testing", &[CEM], false);
    of("vectors.os.testing", &[ANN], false);
    of("vectors.os.testing", &[ANN, BOB], true);
    of("vectors.os.stable.x86", &[CEM], false);
    of("vectors.os.stable.x86", &[ANN, BOB], true);
    of("vectors.os", &[CEM], false);
    of("vectors.os", &[ANN], true);
    of("vectors.osx.stable", &[BOB], true);
    for channel in ["vectors.lab.x", "vectors.lab.y"] {
        of(channel, &[BOB], false);
        of(channel, &[CEM], true);
    }
    of("vectors.lab.z", &[BOB], true);
    let first = release(None, "", &[CEM]);
    life.refused(2, Threshold, &[&withdraw(&first, &first, &[STOP])]);
    life.read("2", &[&withdraw(&first, &first, &[BOB])]);
    life.write();
}

fn closed(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let close = |lines: &[&str]| Rules {
        more: lines.iter().map(|line| format!("Closed: {line}")).collect(),
        ..rules()
    };
    let second = start.second(&close(&["vectors.os.* vectors.os.stable vectors.os.lab.x"]));
    let other = release_in("vectors.os.testing", None, "", &[ANN]);
    let comment = "attack 122: channels are closed for good, but for those that the line itself lists; trust logs and beats never are";
    let mut life = start.life("closed", comment);
    life.read("1", &[r1]);
    life.step("read vectors.os.testing => new 1", &[&other]);
    life.beat(&start.beat(1, r1));
    life.trust(&second);
    let refused = format!("refused 1 {}", Closed.number());
    life.step(&format!("read vectors.os.testing => {refused}"), &[&other]);
    let below = release_in("vectors.os.stable.x86", None, "", &[ANN]);
    life.step(
        &format!("read vectors.os.stable.x86 => {refused}"),
        &[&below],
    );
    life.step(
        "read vectors.os => new 1",
        &[&release_in("vectors.os", None, "", &[ANN])],
    );
    life.step(
        &format!("run vectors.os.testing => none {}", Closed.number()),
        &[],
    );
    life.read("2", &[r2]);
    life.no_trust(StaysClosed, &trust(Some(&second), &rules(), &[ROOT]));
    life.no_trust(
        StaysClosed,
        &trust(Some(&second), &close(&["vectors.os.*"]), &[ROOT]),
    );
    life.no_trust(
        StaysClosed,
        &trust(
            Some(&second),
            &close(&["vectors.os.* vectors.os.lab.x vectors.os.stable"]),
            &[ROOT],
        ),
    );
    let both = close(&["vectors.os.* vectors.os.stable vectors.os.lab.x", "*"]);
    let third = trust(Some(&second), &both, &[ROOT]);
    life.trust(&third);
    life.refused(2, Closed, &[r1, r2]);
    life.beat(&beat_at(2).says(&[(LOG, &third), (OS, r2)]));
    life.none(Closed, &[]);
    life.trust(&trust(Some(&third), &both, &[ROOT]));
    life.write();
}

fn checkpoints_elsewhere(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let foreign = vec![
        ("vector.os", r3.head()),
        ("my.vectors.os", r3.head()),
        ("vectors.none", r3.head()),
    ];
    let second = start.second(&Rules {
        checkpoints: foreign,
        ..rules()
    });
    let mut life = start.life(
        "checkpoints-elsewhere",
        "checkpoints and heads of channels outside the namespace have no effect",
    );
    life.trust(&second);
    life.read("1,2", &[r1, r2]);
    life.beat(&beat_at(1).says(&[("vector.os", r3), (LOG, &second), (OS, r2), (BEATS, r3)]));
    life.state("CURRENT");
    life.run(2, &[r1, r2]);
    life.step(
        &format!("read vector.os => refused 1 {}", Namespace.number()),
        &[&release_in("vector.os", None, "", &[ANN])],
    );
    life.write();
}
