//! Statements that are authentic under the first trust statement: one history.

use tidings_protocol::{Statement, StatementId};

use super::{ANN, BEAT, BOB, NEW_ROOT, ROOT, STOP, STRANGER, Vectors, public, sign, signature};

/// What the bad ones are made of.
pub(super) struct History {
    pub(super) trust_1: Statement,
    pub(super) trust_2: String,
    pub(super) minimal: Statement,
    pub(super) full: Statement,
    pub(super) third: String,
    pub(super) withdraw: String,
    pub(super) beat: String,
    pub(super) critical: String,
}

pub(super) fn trust(serial: u32, previous: &str, roots: &[(&str, u8)]) -> String {
    let mut text = format!(
        "Tidings: 1 trust\nChannel: vectors.trust\nSerial: {serial}\nPrevious: {previous}\nTime: 2026-01-0{serial}T00:00:00Z\nExpires: 2036-01-01T00:00:00Z\n"
    );
    let names = [("ann", ANN), ("bob", BOB), ("stop", STOP), ("beat", BEAT)];
    for (name, seed) in roots.iter().chain(&names) {
        text += &format!("Key: {} {name}\n", public(*seed));
    }
    let roots: Vec<&str> = roots.iter().map(|(name, _)| *name).collect();
    text += &format!("Role: trust * 1 {}\n", roots.join(" "));
    text += "Role: release * 1 ann bob\nRole: release vectors.critical.* 2 ann bob\nRole: withdraw * 1 stop ann\n";
    text + "Role: beat * 1 beat\nRole: beat vectors.lab.* 1 bob\nClosed: vectors.old.* vectors.old.stable\n"
}

pub(super) fn release(serial: u32, previous: &str) -> String {
    format!(
        "Tidings: 1 release\nChannel: vectors.os.stable\nSerial: {serial}\nPrevious: {previous}\nTime: 2026-02-0{serial}T00:00:00Z\nTrust: 1\nVersion: 1.{serial}\n"
    )
}

fn full(minimal: &Statement) -> String {
    let digest = StatementId::of(b"payload");
    release(2, &minimal.id().to_string())
        + "Summary: closes a hole – at last\nDetails: https://example.org/notes?v=1.2#top\nUrgency: security\nTarget: arch=x86_64 board=apu2\nTarget: arch=riscv64\nBarrier: 1\n\
           Not-Before: 2026-02-03T00:00:00Z\nDeadline: 2026-03-01T00:00:00Z\nRollout: 2026-02-03T06:00:00Z 86400 spread=3600 cohort=site\nSlot: web\nApply: restart nginx.service getty@tty1.service\n"
        + &format!("Payload: raw 18446744073709551615 {digest} https://example.org/full.img\n")
        + &format!(
            "Payload: delta 2147483648 {digest} https://example.org/delta from=1.1 base={digest} result={digest} mem=67108864 window=24\n"
        )
}

#[allow(clippy::too_many_lines)] // a list
pub(super) fn write(v: &mut Vectors) -> History {
    let trust_1 = sign(trust(1, "-", &[("root", ROOT)]), &[ROOT]);
    let trust_1 = v.good(
        "trust-1",
        "1-16",
        "the first trust statement; its serial and id are the anchor",
        &trust_1,
    );
    let trust_2 = trust(
        2,
        &trust_1.id().to_string(),
        &[("root", ROOT), ("new-root", NEW_ROOT)],
    );
    v.good(
        "trust-2",
        "1-17",
        "a new root key comes in; signed by the old one, which meets both roles",
        &sign(&trust_2, &[ROOT]),
    );
    let minimal = v.good(
        "release-1-minimal",
        "1-9",
        "the least that a release says",
        &sign(release(1, "-"), &[ANN]),
    );
    let full = v.good(
        "release-2-full",
        "1-15",
        "every field of a release, signed twice",
        &sign(full(&minimal), &[ANN, BOB]),
    );
    let third = release(3, &full.id().to_string());
    let unknown = sign(
        format!("{third}Colour: blue\nColour: green\nCritical: Version\n"),
        &[BOB],
    );
    let unknown = v.good(
        "release-3-unknown",
        "1-12",
        "unknown fields may repeat; they are signed, and have no effect",
        &unknown,
    );
    let critical = sign(format!("{third}Colour: blue\nCritical: Colour\n"), &[BOB]);
    v.good(
        "release-3-critical",
        "1-13",
        "an unknown critical field: stored and relayed, not acted on",
        &critical,
    );
    let withdraw = format!(
        "Tidings: 1 withdraw\nChannel: vectors.os.stable\nSerial: 4\nPrevious: {}\nTime: 2026-02-04T00:00:00Z\nTrust: 1\nWithdraws: {}\nReason: does not boot\n",
        unknown.id(),
        unknown.head()
    );
    v.good(
        "withdraw-4",
        "1-14",
        "a withdrawal by the key that may do nothing else",
        &sign(&withdraw, &[STOP]),
    );
    let beat = format!(
        "Tidings: 1 beat\nChannel: vectors.beat\nSerial: 1\nPrevious: -\nTime: 2026-02-04T00:01:00Z\nTrust: 1\nExpires: 2026-02-04T00:11:00Z\nHead: vectors.trust {}\nHead: vectors.os.stable {}\n",
        trust_1.head(),
        full.head()
    );
    v.good(
        "beat-1",
        "1-14",
        "what is newest, by the key of the beat channel of `*`",
        &sign(&beat, &[BEAT]),
    );
    let lab = beat.replace("Channel: vectors.beat", "Channel: vectors.lab.beat");
    v.good(
        "beat-of-a-narrow-role",
        "1-14",
        "the beat channel of `vectors.lab.*`, by its key",
        &sign(lab, &[BOB]),
    );
    let critical = release(1, "-").replace("vectors.os.stable", "vectors.critical.kernel");
    v.good(
        "release-threshold",
        "1-15",
        "two of two",
        &sign(&critical, &[ANN, BOB]),
    );
    let at = |channel: &str| release(1, "-").replace("vectors.os.stable", channel);
    v.good(
        "release-beside-a-pattern",
        "1-14",
        "`vectors.critical.*` does not match `vectors.critical`",
        &sign(at("vectors.critical"), &[ANN]),
    );
    let beside = sign(at("vectors.criticals.kernel"), &[ANN]);
    v.good(
        "release-beside-a-part",
        "1-14",
        "`vectors.critical.*` does not match `vectors.criticals.kernel`",
        &beside,
    );
    let excepted = sign(at("vectors.old.stable"), &[ANN]);
    v.good(
        "release-in-an-excepted-channel",
        "1-22",
        "the line `Closed` itself lists this channel",
        &excepted,
    );
    v.good(
        "release-in-a-channel-like-a-closed-one",
        "1-22",
        "`vectors.old.*` does not match `vectors.old`",
        &sign(at("vectors.old"), &[ANN]),
    );
    signatures(v);
    text(v);
    History {
        trust_1,
        trust_2,
        minimal,
        full,
        third,
        withdraw,
        beat,
        critical,
    }
}

/// No signature but those that count has any effect.
fn signatures(v: &mut Vectors) {
    let base = release(1, "-") + "Apply: none\n";
    v.good(
        "release-stranger",
        "1-15",
        "a signature of an unknown key beside a good one says nothing",
        &sign(&base, &[STRANGER, ANN]),
    );
    let others: Vec<u8> = (20..35).collect();
    let sixteen = sign(&base, &[&others[..], &[ANN]].concat());
    v.good(
        "release-16-signatures",
        "1-15",
        "sixteen signatures, of which one counts",
        &sixteen,
    );
    let spoilt =
        base.clone() + &signature(b"something else", BOB) + &signature(base.as_bytes(), ANN);
    v.good(
        "release-beside-a-bad-signature",
        "1-15",
        "a listed key with a signature that does not hold changes nothing",
        spoilt.as_bytes(),
    );
    let all_bad: String = (20..34)
        .map(|seed| signature(b"something else", seed))
        .collect();
    let spoilt = base.clone()
        + &all_bad
        + &signature(b"something else", BOB)
        + &signature(base.as_bytes(), ANN);
    v.good(
        "release-15-bad-signatures",
        "1-15",
        "sixteen signatures, of which one holds",
        spoilt.as_bytes(),
    );
}

/// What a text may have.
fn text(v: &mut Vectors) {
    let base = release(1, "-");
    let longest = format!("{base}Reasons: {}\n", "9".repeat(891));
    v.good(
        "line-900",
        "1-7",
        "the longest line",
        &sign(longest, &[ANN]),
    );
    let filler = |octets: usize| format!("F: {}\n", "x".repeat(octets - 4));
    let tail = sign(&base, &[ANN]).len();
    let mut most = base.clone();
    let mut left = 65536 - tail;
    while left > 900 {
        most += &filler(800);
        left -= 800;
    }
    most += &filler(left);
    let most = sign(most, &[ANN]);
    assert_eq!(most.len(), 65536);
    v.good("octets-65536", "1-7", "the largest statement", &most);
    let separators =
        format!("{base}Summary: one\u{2028}line\u{2029}\u{b}\n").replace('\u{b}', "\u{a0}");
    v.good(
        "line-separator",
        "1-7",
        "U+2028 and U+2029 end no line",
        &sign(separators, &[ANN]),
    );
    let bom = format!("{base}Summary: \u{feff}text\n");
    v.good(
        "byte-order-mark",
        "1-7",
        "U+FEFF inside a value is a character like others",
        &sign(bom, &[ANN]),
    );
    let odd = format!("{base}{}: x\nA: y\nNot--Before-: z\n", "N".repeat(64));
    v.good(
        "names",
        "1-9",
        "the longest and the oddest names",
        &sign(odd, &[ANN]),
    );
    let channel = format!("vectors.{}", "x".repeat(120));
    v.good(
        "channel-128",
        "1-2",
        "the longest name of a channel",
        &sign(base.replace("vectors.os.stable", &channel), &[ANN]),
    );
    let odd = base.replace("vectors.os.stable", "vectors.0a+-_.to.junk");
    v.good(
        "channel-odd",
        "1-2",
        "`to` and `junk` are reserved as first parts only",
        &sign(odd, &[ANN]),
    );
    let last = base.replace("Serial: 1", "Serial: 2147483647").replace(
        "Previous: -",
        &format!("Previous: {}", StatementId::of(b"before")),
    );
    v.good("serial-last", "1-5", "the last serial", &sign(last, &[ANN]));
    for (name, time) in [
        ("time-first", "1970-01-01T00:00:00Z"),
        ("time-last", "9999-12-31T23:59:59Z"),
        ("time-leap-day", "2000-02-29T00:00:00Z"),
    ] {
        v.good(
            name,
            "1-5",
            "a time that exists",
            &sign(base.replace("2026-02-01T00:00:00Z", time), &[ANN]),
        );
    }
}
