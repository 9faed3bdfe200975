//! Writes the test vectors of the specification: `cargo run -p tidings-protocol --example vectors -- spec/vectors`.
//!
//! Everything is made from fixed seeds, so that it writes the same files each time.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod sequences;

use std::{collections::BTreeSet, fs, path::PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding};
use tidings_protocol::{Head, PublicKey, SigningKey, Statement, StatementId, article};

/// The order of the group, little-endian: a signature with S + L is the same to a lax verifier.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0x10,
];

struct Vectors {
    directory: PathBuf,
    names: BTreeSet<String>,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

const ROOT: u8 = 1;
const ANN: u8 = 2;
const BOB: u8 = 3;
const STOP: u8 = 4;
const BEAT: u8 = 5;
const NEW_ROOT: u8 = 6;
const STRANGER: u8 = 9;

fn public(seed: u8) -> String {
    PublicKey::of(&key(seed)).to_string()
}

fn trust_text(serial: u32, previous: &str, roots: &[(&str, u8)]) -> String {
    let mut text = format!(
        "Tidings: 1 trust\nChannel: vectors.trust\nSerial: {serial}\nPrevious: {previous}\nTime: 2026-01-0{serial}T00:00:00Z\nExpires: 2036-01-01T00:00:00Z\n"
    );
    let names = [("ann", ANN), ("bob", BOB), ("stop", STOP), ("beat", BEAT)];
    for (name, seed) in roots.iter().chain(&names) {
        text += &format!("Key: {} {name}\n", public(*seed));
    }
    let roots: Vec<&str> = roots.iter().map(|(name, _)| *name).collect();
    text += &format!("Role: trust * 1 {}\n", roots.join(" "));
    text += "Role: release * 1 ann bob\nRole: release vectors.critical.* 2 ann bob\nRole: withdraw * 1 stop ann\nRole: beat vectors.beat 1 beat\n";
    text
}

fn release_text(serial: u32, previous: &str) -> String {
    format!(
        "Tidings: 1 release\nChannel: vectors.os.stable\nSerial: {serial}\nPrevious: {previous}\nTime: 2026-02-0{serial}T00:00:00Z\nTrust: 1\nVersion: 1.{serial}\n"
    )
}

/// Signs a text as it is, whether it is a statement or not.
fn sign(text: impl AsRef<[u8]>, seeds: &[u8]) -> Vec<u8> {
    use ed25519_dalek::Signer;
    let text = text.as_ref();
    let mut octets = text.to_vec();
    for seed in seeds {
        let signature = Base64UrlUnpadded::encode_string(&key(*seed).sign(text).to_bytes());
        octets.extend_from_slice(format!("Signature: {} {signature}\n", public(*seed)).as_bytes());
    }
    octets
}

impl Vectors {
    fn write(&mut self, kind: &str, name: &str, head: &str, octets: &[u8]) {
        let path = self.directory.join(kind);
        fs::create_dir_all(&path).unwrap();
        assert!(self.names.insert(format!("{kind}/{name}")), "{name} twice");
        fs::write(path.join(name), [head.as_bytes(), b"\n", octets].concat()).unwrap();
    }
    fn good(&mut self, name: &str, comment: &str, octets: &[u8]) -> Statement {
        self.write("good", name, &format!("comment: {comment}\n"), octets);
        Statement::parse(octets).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
    /// Refused by the parser: `layer` is `grammar` or `statement`.
    fn text(&mut self, name: &str, layer: &str, line: usize, field: &str, octets: &[u8]) {
        self.write("bad", name, &format!("layer: {layer}\nline: {line}\nfield: {field}\n"), octets);
    }
    fn judged(&mut self, name: &str, layer: &str, head: &str, octets: &[u8]) {
        Statement::parse(octets).unwrap_or_else(|e| panic!("{name}: {e}"));
        self.write("bad", name, &format!("layer: {layer}\n{head}"), octets);
    }
    fn envelope(&mut self, name: &str, line: usize, octets: &[u8]) {
        self.write("bad", name, &format!("layer: envelope\nline: {line}\n"), octets);
    }
}

#[allow(clippy::too_many_lines)] // a list
fn main() {
    let directory = std::env::args().nth(1).expect("the directory to write to").into();
    let mut v = Vectors { directory, names: BTreeSet::new() };

    // Good ones: one history.
    let trust_1 =
        v.good("trust-1", "the first trust statement; its id is the anchor", &sign(trust_text(1, "-", &[("root", ROOT)]), &[ROOT]));
    let second = trust_text(2, &trust_1.id().to_string(), &[("root", ROOT), ("new-root", NEW_ROOT)]);
    v.good("trust-2", "a new root key comes in; signed by the old one, which meets both thresholds", &sign(&second, &[ROOT]));
    let minimal = v.good("release-1-minimal", "the least that a release says", &sign(release_text(1, "-"), &[ANN]));
    let digest = StatementId::of(b"payload");
    let full = release_text(2, &minimal.id().to_string())
        + "Summary: closes a hole – at last\nDetails: https://example.org/notes?v=1.2#top\nUrgency: security\nTarget: arch=x86_64 board=apu2\nTarget: arch=riscv64\nBarrier: 1\n\
           Not-Before: 2026-02-03T00:00:00Z\nDeadline: 2026-03-01T00:00:00Z\nRollout: 2026-02-03T06:00:00Z 86400 spread=3600 cohort=site\nSlot: web\nApply: restart nginx.service getty@tty1.service\n"
        + &format!("Payload: raw 18446744073709551615 {digest} https://example.org/full.img\n")
        + &format!(
            "Payload: delta 2147483648 {digest} https://example.org/delta from=1.1 base={digest} result={digest} mem=67108864 window=24\n"
        );
    let full = v.good("release-2-full", "every field of a release, signed twice", &sign(full, &[ANN, BOB]));
    let third = release_text(3, &full.id().to_string());
    let unknown = v.good(
        "release-3-unknown",
        "unknown fields are covered and ignored",
        &sign(format!("{third}Colour: blue\nColour: green\nCritical: Version\n"), &[BOB]),
    );
    v.good(
        "release-3-critical",
        "an unknown critical field: stored and relayed, not acted on",
        &sign(format!("{third}Colour: blue\nCritical: Colour\n"), &[BOB]),
    );
    let withdraw_text = format!(
        "Tidings: 1 withdraw\nChannel: vectors.os.stable\nSerial: 4\nPrevious: {}\nTime: 2026-02-04T00:00:00Z\nTrust: 1\nWithdraws: 3\nReason: does not boot\nFallback: 2\n",
        unknown.id()
    );
    v.good("withdraw-4", "a withdrawal by the key that may do nothing else", &sign(&withdraw_text, &[STOP]));
    let beat_text = format!(
        "Tidings: 1 beat\nChannel: vectors.beat\nSerial: 1\nPrevious: -\nTime: 2026-02-04T00:01:00Z\nTrust: 1\nExpires: 2026-02-04T00:11:00Z\nHead: vectors.os.stable {}\nHead: vectors.trust {}\n",
        full.head(),
        trust_1.head()
    );
    v.good("beat-1", "what is newest", &sign(&beat_text, &[BEAT]));
    let critical_text = release_text(1, "-").replace("vectors.os.stable", "vectors.critical.kernel");
    v.good("release-threshold", "two of two", &sign(&critical_text, &[ANN, BOB]));
    v.good(
        "release-stranger",
        "a signature of an unknown key beside a good one says nothing",
        &sign(release_text(1, "-") + "Apply: none\n", &[STRANGER, ANN]),
    );
    let last = "9".repeat(892);
    v.good("line-900", "the longest line", &sign(release_text(1, "-") + "Reasons: " + &last[..891] + "\n", &[ANN]));

    // Lines.
    let base = release_text(1, "-");
    let with = |field: &str| sign(format!("{base}{field}\n"), &[ANN]);
    let swap = |old: &str, new: &str| {
        assert!(base.contains(old), "{old}");
        sign(base.replacen(old, new, 1), &[ANN])
    };
    let end = base.lines().count() + 1;
    let signed = sign(&base, &[ANN]);
    v.text("empty", "grammar", 1, "Tidings", b"");
    v.text("no-final-line-feed", "grammar", end, "", &signed[..signed.len() - 1]);
    v.text("crlf", "grammar", 1, "", &String::from_utf8(signed.clone()).unwrap().replace('\n', "\r\n").into_bytes());
    v.text("empty-line", "grammar", end, "", &with(""));
    v.text("no-colon", "grammar", end, "", &with("Summary"));
    v.text("no-space", "grammar", end, "", &with("Summary:text"));
    v.text("two-spaces", "grammar", end, "", &with("Summary:  text"));
    v.text("tab-for-space", "grammar", end, "", &with("Summary:\ttext"));
    v.text("space-before-colon", "grammar", end, "", &with("Summary : text"));
    v.text("trailing-space", "grammar", end, "", &with("Summary: text "));
    v.text("leading-space", "grammar", end, "", &with(" Summary: text"));
    v.text("no-value", "grammar", end, "", &with("Summary: "));
    v.text("control-character", "grammar", end, "", &with("Summary: a\u{7}b"));
    v.text("nul", "grammar", end, "", &with("Summary: a\0b"));
    v.text("bare-cr", "grammar", end, "", &with("Summary: a\rb"));
    v.text("c1-control", "grammar", end, "", &with("Summary: a\u{85}b"));
    v.text("latin-1", "grammar", end, "", &sign([base.as_bytes(), b"Summary: caf\xe9\n"].concat(), &[ANN]));
    v.text("overlong-utf-8", "grammar", end, "", &sign([base.as_bytes(), b"Summary: a\xc0\xafb\n"].concat(), &[ANN]));
    v.text("name-begins-with-digit", "grammar", end, "", &with("1st: x"));
    v.text("name-with-underscore", "grammar", end, "", &with("Not_Before: x"));
    v.text("name-65", "grammar", end, "", &with(&format!("{}: x", "N".repeat(65))));
    v.text("line-901", "statement", end, "", &with(&format!("Reasons: {}", &last)));
    v.text("too-large", "statement", end + 72, "", &with(format!("Filler: {}\n", "x".repeat(890)).repeat(80).trim_end()));

    // First lines.
    for name in ["Channel", "Serial", "Previous", "Time", "Trust"] {
        let line = base.lines().position(|l| l.starts_with(name)).unwrap() + 1;
        let without: String = base.lines().filter(|l| !l.starts_with(name)).map(|l| format!("{l}\n")).collect();
        v.text(
            &format!("no-{}", name.to_lowercase()),
            if name == "Trust" { "statement" } else { "grammar" },
            line,
            name,
            &sign(without, &[ANN]),
        );
    }
    let lines: Vec<&str> = base.lines().collect();
    let swapped = [&lines[..2], &[lines[3], lines[2]], &lines[4..]].concat().join("\n") + "\n";
    v.text("wrong-order", "grammar", 3, "Serial", &sign(swapped, &[ANN]));
    v.text("version-2", "grammar", 1, "Tidings", &swap("1 release", "2 release"));
    v.text("version-01", "grammar", 1, "Tidings", &swap("1 release", "01 release"));
    v.text("unknown-kind", "grammar", 1, "Tidings", &swap("1 release", "1 rumour"));
    for (name, channel) in [
        ("upper-case", "Vectors.os"),
        ("one-part", "vectors"),
        ("empty-part", "vectors..os"),
        ("slash", "vectors/os.x"),
        ("look-alike", "vectors.o\u{455}"),
        ("dots", "vectors.../x"),
    ] {
        v.text(&format!("channel-{name}"), "grammar", 2, "Channel", &swap("vectors.os.stable", channel));
    }
    for (name, channel) in [
        ("digits", "vectors.24.x"),
        ("reserved", "to.vectors.os"),
        ("all", "vectors.all.x"),
        ("trust-log", "vectors.trust"),
        ("beat", "vectors.beat"),
    ] {
        v.text(&format!("channel-{name}"), "statement", 2, "Channel", &swap("vectors.os.stable", channel));
    }
    v.text("channel-129", "statement", 2, "Channel", &swap("vectors.os.stable", &format!("vectors.{}", "x".repeat(121))));
    for (name, serial) in
        [("0", "0"), ("leading-zero", "01"), ("negative", "-1"), ("plus", "+1"), ("hex", "0x1"), ("2-64", "18446744073709551617")]
    {
        v.text(&format!("serial-{name}"), "grammar", 3, "Serial", &swap("Serial: 1", &format!("Serial: {serial}")));
    }
    v.text("serial-2-31", "statement", 3, "Serial", &swap("Serial: 1", "Serial: 2147483648"));
    v.text("previous-in-first", "statement", 4, "Previous", &swap("Previous: -", &format!("Previous: {digest}")));
    v.text("no-previous-in-second", "statement", 4, "Previous", &swap("Serial: 1", "Serial: 2"));
    v.text(
        "previous-upper-case",
        "grammar",
        4,
        "Previous",
        &swap("Previous: -", &format!("Previous: sha256:{}", digest.to_string()[7..].to_uppercase())),
    );
    v.text("previous-short", "grammar", 4, "Previous", &swap("Previous: -", &format!("Previous: {}", &digest.to_string()[..70])));
    v.text("previous-sha512", "grammar", 4, "Previous", &swap("Previous: -", &digest.to_string().replace("sha256", "Previous: sha512")));
    for (name, time) in [
        ("lower-case", "2026-02-01t00:00:00z"),
        ("offset", "2026-02-01T00:00:00+00:00"),
        ("fraction", "2026-02-01T00:00:00.0Z"),
        ("space", "2026-02-01 00:00:00Z"),
    ] {
        v.text(&format!("time-{name}"), "grammar", 5, "Time", &swap("2026-02-01T00:00:00Z", time));
    }
    for (name, time) in [
        ("february-30", "2026-02-30T00:00:00Z"),
        ("leap-second", "2026-06-30T23:59:60Z"),
        ("hour-24", "2026-02-01T24:00:00Z"),
        ("1969", "1969-12-31T23:59:59Z"),
    ] {
        v.text(&format!("time-{name}"), "statement", 5, "Time", &swap("2026-02-01T00:00:00Z", time));
    }
    v.text("trust-0", "grammar", 6, "Trust", &swap("Trust: 1", "Trust: 0"));

    // Fields.
    v.text("no-version", "statement", end - 1, "Version", &swap("Version: 1.1\n", ""));
    v.text("version-twice", "statement", end, "Version", &with("Version: 1.1"));
    v.text("version-with-space", "grammar", end - 1, "Version", &swap("Version: 1.1", "Version: 1 1"));
    v.text("version-129", "grammar", end - 1, "Version", &swap("Version: 1.1", &format!("Version: {}", "1".repeat(129))));
    v.text("name-in-lower-case", "statement", end, "payload", &with("payload: raw 1 x y"));
    v.text("field-of-another-kind", "statement", end, "Withdraws", &with("Withdraws: 1"));
    v.text("first-line-again", "statement", end, "Trust", &with("Trust: 1"));
    v.text("urgency-unknown", "grammar", end, "Urgency", &with("Urgency: urgent"));
    v.text("details-no-scheme", "grammar", end, "Details", &with("Details: example.org/notes"));
    v.text("target-no-value", "grammar", end, "Target", &with("Target: arch"));
    v.text("barrier-self", "statement", end, "Barrier", &with("Barrier: 1"));
    v.text(
        "deadline-before-not-before",
        "statement",
        end + 1,
        "Deadline",
        &with("Not-Before: 2026-02-03T00:00:00Z\nDeadline: 2026-02-03T00:00:00Z"),
    );
    v.text("rollout-no-seconds", "grammar", end, "Rollout", &with("Rollout: 2026-02-03T06:00:00Z"));
    v.text("rollout-unknown-property", "grammar", end, "Rollout", &with("Rollout: 2026-02-03T06:00:00Z 60 wave=2"));
    v.text("slot-with-space", "grammar", end, "Slot", &with("Slot: web one"));
    v.text("apply-command", "grammar", end, "Apply", &with("Apply: /bin/sh -c reboot"));
    v.text("apply-restart-nothing", "grammar", end, "Apply", &with("Apply: restart"));
    v.text("apply-option-as-unit", "grammar", end, "Apply", &with("Apply: restart --force"));
    v.text("payload-no-url", "grammar", end, "Payload", &with(&format!("Payload: raw 1 {digest}")));
    v.text("payload-no-digest", "grammar", end, "Payload", &with("Payload: raw 1 https://example.org/x"));
    v.text("payload-leading-zero", "grammar", end, "Payload", &with(&format!("Payload: raw 01 {digest} https://example.org/x")));
    v.text(
        "payload-size-2-64",
        "statement",
        end,
        "Payload",
        &with(&format!("Payload: raw 18446744073709551616 {digest} https://example.org/x")),
    );
    v.text(
        "payload-property-twice",
        "statement",
        end,
        "Payload",
        &with(&format!("Payload: raw 1 {digest} https://example.org/x from=1 from=2")),
    );
    v.text(
        "payload-base-no-digest",
        "statement",
        end,
        "Payload",
        &with(&format!("Payload: raw 1 {digest} https://example.org/x base=1.0")),
    );
    v.text("payload-url-with-quote", "grammar", end, "Payload", &with(&format!("Payload: raw 1 {digest} https://example.org/\"x")));
    v.text("critical-missing", "statement", end, "Critical", &with("Critical: Colour"));

    // Withdrawals, trust, beats.
    let withdraw = |old: &str, new: &str| sign(withdraw_text.replacen(old, new, 1), &[STOP]);
    v.text("withdraw-self", "statement", 7, "Withdraws", &withdraw("Withdraws: 3", "Withdraws: 4"));
    v.text("withdraw-nothing", "statement", 9, "Withdraws", &withdraw("Withdraws: 3\n", ""));
    v.text("withdraw-no-reason", "statement", 9, "Reason", &withdraw("Reason: does not boot\n", ""));
    v.text("fallback-is-withdrawn", "statement", 9, "Fallback", &withdraw("Fallback: 2", "Fallback: 3"));
    let text = trust_text(1, "-", &[("root", ROOT)]);
    let trust = |old: &str, new: &str| {
        assert!(text.contains(old), "{old}");
        sign(text.replacen(old, new, 1), &[ROOT])
    };
    let line = |start: &str| text.lines().position(|l| l.starts_with(start)).unwrap() + 1;
    let after = text.lines().count() + 1;
    v.text("trust-names-trust", "statement", 6, "Trust", &trust("Expires:", "Trust: 1\nExpires:"));
    v.text("trust-expires-before-time", "statement", 6, "Expires", &trust("2036-01-01", "2025-01-01"));
    v.text("trust-no-expires", "statement", after - 1, "Expires", &trust("Expires: 2036-01-01T00:00:00Z\n", ""));
    v.text(
        "trust-key-twice",
        "statement",
        line("Key") + 1,
        "Key",
        &trust(&format!("{} ann", public(ANN)), &format!("{} ann", public(ROOT))),
    );
    v.text("trust-name-twice", "statement", line("Key") + 1, "Key", &trust(" ann\n", " root\n"));
    v.text("trust-weak-key", "statement", line("Key") + 1, "Key", &trust(&public(ANN), &format!("ed25519:AQ{}", "A".repeat(41))));
    v.text(
        "trust-non-canonical-key",
        "statement",
        line("Key") + 1,
        "Key",
        &trust(&public(ANN), &format!("ed25519:7v{}38", "_".repeat(39))),
    );
    v.text("trust-key-padded", "grammar", line("Key") + 1, "Key", &trust(&public(ANN), &format!("{}=", public(ANN))));
    v.text("trust-threshold-0", "statement", line("Role"), "Role", &trust("Role: trust * 1", "Role: trust * 0"));
    v.text("trust-threshold-too-high", "statement", line("Role: release"), "Role", &trust("release * 1 ann bob", "release * 3 ann bob"));
    v.text("trust-name-in-role-twice", "statement", line("Role: release"), "Role", &trust("release * 1 ann bob", "release * 2 ann ann"));
    v.text("trust-unknown-name", "statement", line("Role: release"), "Role", &trust("release * 1 ann bob", "release * 1 ann eve"));
    v.text("trust-role-twice", "statement", line("Role: release") + 1, "Role", &trust("vectors.critical.*", "*"));
    v.text("trust-role-unknown-kind", "grammar", line("Role: release"), "Role", &trust("Role: release", "Role: publish"));
    v.text("trust-role-pattern", "grammar", line("Role: release"), "Role", &trust("release * 1", "release *.os 1"));
    v.text("trust-no-trust-role", "statement", after - 1, "Role", &trust("Role: trust * 1 root\n", ""));
    let checkpoint = format!("Checkpoint: vectors.os.stable 3 {digest}\n");
    v.text("trust-checkpoint-twice", "statement", after + 1, "Checkpoint", &sign(format!("{text}{checkpoint}{checkpoint}"), &[ROOT]));
    let of_trust = checkpoint.replace("vectors.os.stable", "vectors.trust");
    v.text("trust-checkpoint-of-a-trust-log", "statement", after, "Checkpoint", &sign(format!("{text}{of_trust}"), &[ROOT]));
    let head = format!("Head: vectors.os.stable {}\n", full.head());
    v.text("beat-head-twice", "statement", 10, "Head", &sign(format!("{beat_text}{head}"), &[BEAT]));
    v.text("beat-expired-at-birth", "statement", 7, "Expires", &sign(beat_text.replace("00:11:00", "00:01:00"), &[BEAT]));

    // Signatures.
    let line = String::from_utf8(signed[base.len()..].to_vec()).unwrap();
    let tail = |tail: &str| [base.as_bytes(), tail.as_bytes()].concat();
    v.text("unsigned", "grammar", end, "Signature", base.as_bytes());
    v.text("field-after-signature", "grammar", end + 1, "Summary", &tail(&format!("{line}Summary: late\n")));
    v.text("field-between-signatures", "grammar", end + 1, "Summary", &tail(&format!("{line}Summary: late\n{line}")));
    v.text("signature-twice", "statement", end + 1, "Signature", &tail(&format!("{line}{line}")));
    v.text("signature-padded", "grammar", end, "Signature", &tail(&line.replace('\n', "==\n")));
    v.text("signature-unknown-algorithm", "grammar", end, "Signature", &tail(&line.replace("ed25519", "ed448")));
    v.text("signature-truncated", "grammar", end, "Signature", &tail(&format!("{}\n", &line[..line.len() - 5])));
    let mut loose = line.trim_end().to_owned();
    let last = loose.pop().unwrap();
    loose.push(if last == 'A' { 'B' } else { char::from(u8::try_from(last).unwrap() + 1) });
    v.text("signature-loose-bits", "statement", end, "Signature", &tail(&format!("{loose}\n")));
    let many: Vec<u8> = (20..37).collect();
    v.text("signatures-17", "statement", end + 16, "Signature", &sign(&base, &many));

    // Trust: well-formed, but nobody may say so.
    let under = "under: trust-1\n";
    v.judged("unknown-key-only", "trust", under, &sign(&base, &[STRANGER]));
    let mut octets = signed.clone();
    let at = octets.len() - 20;
    octets[at] = if octets[at] == b'A' { b'B' } else { b'A' };
    v.judged("signature-wrong", "trust", under, &octets);
    let bad_line = String::from_utf8(octets[base.len()..].to_vec()).unwrap();
    let good_line = String::from_utf8(sign(&base, &[BOB])[base.len()..].to_vec()).unwrap();
    v.judged("one-bad-spoils-a-good-one", "trust", under, &tail(&format!("{good_line}{bad_line}")));
    let other = String::from_utf8(sign(base.replace("1.1", "1.0"), &[ANN])[base.len()..].to_vec()).unwrap();
    v.judged("signature-of-another-statement", "trust", under, &tail(&other));
    let raw = Base64UrlUnpadded::decode_vec(line.trim_end().rsplit(' ').next().unwrap()).unwrap();
    let mut carry = 0_u16;
    let mut malleable = raw.clone();
    for (octet, add) in malleable[32..].iter_mut().zip(L) {
        carry += u16::from(*octet) + u16::from(add);
        *octet = u8::try_from(carry & 0xff).unwrap();
        carry >>= 8;
    }
    v.judged(
        "signature-non-canonical-s",
        "trust",
        under,
        &tail(&format!("Signature: {} {}\n", public(ANN), Base64UrlUnpadded::encode_string(&malleable))),
    );
    v.judged("below-threshold", "trust", under, &sign(&critical_text, &[ANN]));
    v.judged("release-by-withdraw-key", "trust", under, &sign(&base, &[STOP]));
    v.judged("release-by-beat-key", "trust", under, &sign(&base, &[BEAT]));
    v.judged("withdraw-by-beat-key", "trust", under, &sign(&withdraw_text, &[BEAT]));
    v.judged("beat-by-release-key", "trust", under, &sign(&beat_text, &[ANN]));
    v.judged("beat-in-channel-without-role", "trust", under, &sign(beat_text.replace("vectors.beat", "vectors.other.beat"), &[BEAT]));
    v.judged("trust-from-the-future", "trust", under, &sign(base.replace("Trust: 1", "Trust: 2"), &[ANN]));
    v.judged("other-namespace", "trust", under, &sign(base.replace("vectors.os", "vector.os"), &[ANN]));
    let coup = trust_text(2, &trust_1.id().to_string(), &[("new-root", NEW_ROOT)]);
    v.judged("trust-by-new-keys-only", "trust", under, &sign(&coup, &[NEW_ROOT]));
    v.judged("trust-by-old-keys-only", "trust", under, &sign(&coup, &[ROOT]));
    v.judged("trust-skips-a-serial", "trust", under, &sign(second.replace("Serial: 2", "Serial: 3"), &[ROOT]));
    v.judged("trust-other-previous", "trust", under, &sign(second.replace(&trust_1.id().to_string(), &digest.to_string()), &[ROOT]));
    let inner = trust_text(1, "-", &[("root", ROOT)]).replace("vectors.trust", "vectors.inner.trust");
    v.judged("trust-in-another-trust-log", "trust", under, &sign(inner, &[ROOT]));
    v.judged("trust-by-release-key", "trust", under, &sign(&second, &[ANN]));

    // Log: verified, but not next.
    let log = |head: Head| format!("under: trust-1\nafter: {head}\n");
    v.judged("known", "log", &log(minimal.head()), &signed);
    v.judged("fork-same-serial", "log", &log(minimal.head()), &sign(base.replace("1.1", "1.0"), &[ANN]));
    v.judged("fork-other-previous", "log", &log(minimal.head()), &sign(release_text(2, &digest.to_string()), &[ANN]));
    v.judged("gap", "log", &log(minimal.head()), &sign(&third, &[ANN]));
    v.judged("old", "log", &log(full.head()), &signed);

    // Envelopes.
    let article = article::render(&minimal, "a.example!not-for-mail");
    let article = String::from_utf8(article.octets).unwrap().replace("\r\n", "\n");
    v.envelope("article-no-empty-line", 0, article.replace("\n\n", "\n").as_bytes());
    v.envelope("article-other-message-id", 6, article.replace("Message-ID: <1.", "Message-ID: <2.").as_bytes());
    v.envelope("article-other-group", 3, article.replace("Newsgroups: vectors.os.stable", "Newsgroups: vectors.os.testing").as_bytes());
    v.envelope(
        "article-crossposted",
        3,
        article.replace("Newsgroups: vectors.os.stable", "Newsgroups: vectors.os.stable,vectors.os.x").as_bytes(),
    );
    v.envelope("article-message-id-twice", 7, article.replacen("MIME-Version: 1.0", "Message-ID: <x@y>", 1).as_bytes());
    v.envelope("article-newsgroups-folded", 4, article.replacen("Newsgroups: ", "Newsgroups:\n ", 1).as_bytes());
    v.envelope("article-header-no-colon", 2, article.replacen("From: ", "From ", 1).as_bytes());
    println!("{} vectors, {} sequences", v.names.len(), sequences::write(&v.directory.join("sequences")));
}
