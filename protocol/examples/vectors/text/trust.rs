//! The fields of trust statements.

use tidings_protocol::StatementId;

use crate::{ANN, ROOT, Vectors, good, public, sign};

/// The text of the first trust statement, with one thing changed or added.
struct TrustText {
    text: String,
    after: usize,
}

impl TrustText {
    pub(super) fn new() -> Self {
        let text = good::trust(1, "-", &[("root", ROOT)]);
        Self {
            after: text.lines().count() + 1,
            text,
        }
    }
    pub(super) fn swap(&self, old: &str, new: &str) -> Vec<u8> {
        assert!(self.text.contains(old), "{old}");
        sign(self.text.replacen(old, new, 1), &[ROOT])
    }
    pub(super) fn with(&self, lines: &str) -> Vec<u8> {
        sign(format!("{}{lines}\n", self.text), &[ROOT])
    }
    pub(super) fn line(&self, start: &str) -> usize {
        self.text
            .lines()
            .position(|l| l.starts_with(start))
            .unwrap()
            + 1
    }
}

pub(super) fn trust(v: &mut Vectors) {
    let t = TrustText::new();
    let (after, digest) = (t.after, StatementId::of(b"payload"));
    v.about("1-9");
    v.text(
        "trust-names-trust",
        "statement",
        6,
        "Trust",
        &t.swap("Expires:", "Trust: 1\nExpires:"),
    );
    v.about("1-8");
    v.text(
        "trust-expires-before-time",
        "statement",
        6,
        "Expires",
        &t.swap("2036-01-01", "2025-01-01"),
    );
    v.text(
        "trust-expires-with-time",
        "statement",
        6,
        "Expires",
        &t.swap("2036-01-01", "2026-01-01"),
    );
    v.text(
        "trust-no-expires",
        "statement",
        after - 1,
        "Expires",
        &t.swap("Expires: 2036-01-01T00:00:00Z\n", ""),
    );
    let checkpoint = format!("Checkpoint: vectors.os.stable 3 {digest}");
    v.text(
        "trust-checkpoint-twice",
        "statement",
        after + 1,
        "Checkpoint",
        &t.with(&format!("{checkpoint}\n{checkpoint}")),
    );
    let of_trust = checkpoint.replace("vectors.os.stable", "vectors.trust");
    v.text(
        "trust-checkpoint-of-a-trust-log",
        "statement",
        after,
        "Checkpoint",
        &t.with(&of_trust),
    );
    v.text(
        "trust-closed-twice",
        "statement",
        after + 1,
        "Closed",
        &t.with("Closed: vectors.os.*\nClosed: vectors.os.*"),
    );
    v.text(
        "trust-closed-excepts-another",
        "statement",
        after,
        "Closed",
        &t.with("Closed: vectors.os.* vectors.lab.x"),
    );
    v.text(
        "trust-closed-excepts-its-own-name",
        "statement",
        after,
        "Closed",
        &t.with("Closed: vectors.os.* vectors.os"),
    );
    v.text(
        "trust-closed-pattern",
        "grammar",
        after,
        "Closed",
        &t.with("Closed: vectors.*.stable"),
    );
    v.text(
        "trust-closed-two-spaces",
        "grammar",
        after,
        "Closed",
        &t.with("Closed: vectors.os.*  vectors.os.stable"),
    );
}

pub(super) fn trust_keys(v: &mut Vectors) {
    let t = TrustText::new();
    let ann = t.line("Key") + 1;
    v.about("1-8");
    v.text(
        "trust-key-twice",
        "statement",
        ann,
        "Key",
        &t.swap(
            &format!("{} ann", public(ANN)),
            &format!("{} ann", public(ROOT)),
        ),
    );
    v.text(
        "trust-name-twice",
        "statement",
        ann,
        "Key",
        &t.swap(" ann\n", " root\n"),
    );
    v.text(
        "trust-key-padded",
        "grammar",
        ann,
        "Key",
        &t.swap(&public(ANN), &format!("{}=", public(ANN))),
    );
    v.about("1-6");
    for (name, key) in [
        // The points of orders 1, 2, 4 and 8; the same with y = p + 1; y = 2 and y = 7, where there
        // is no point of the curve.
        ("weak", format!("AQ{}", "A".repeat(41))),
        ("of-order-2", format!("7P{}38", "_".repeat(39))),
        ("of-order-4", "A".repeat(43)),
        ("of-order-4-negative", format!("{}IA", "A".repeat(41))),
        (
            "of-order-8",
            "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o".into(),
        ),
        (
            "of-order-8-negative",
            "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA_o".into(),
        ),
        (
            "of-order-8-other",
            "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU".into(),
        ),
        (
            "of-order-8-other-negative",
            "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_IU".into(),
        ),
        ("non-canonical", format!("7v{}38", "_".repeat(39))),
        (
            "non-canonical-of-full-order",
            format!("8P{}38", "_".repeat(39)),
        ),
        ("off-the-curve", format!("Ag{}", "A".repeat(41))),
        ("off-the-curve-too", format!("Bw{}", "A".repeat(41))),
    ] {
        v.text(
            &format!("trust-key-{name}"),
            "statement",
            ann,
            "Key",
            &t.swap(&public(ANN), &format!("ed25519:{key}")),
        );
    }
    let loose = format!("ed25519:{}B", "A".repeat(42));
    v.text(
        "trust-key-loose-bits",
        "statement",
        ann,
        "Key",
        &t.swap(&public(ANN), &loose),
    );
}

pub(super) fn trust_roles(v: &mut Vectors) {
    let t = TrustText::new();
    let (role, release, beat) = (
        t.line("Role"),
        t.line("Role: release"),
        t.line("Role: beat"),
    );
    v.about("1-8");
    v.text(
        "trust-threshold-0",
        "statement",
        role,
        "Role",
        &t.swap("Role: trust * 1", "Role: trust * 0"),
    );
    v.text(
        "trust-threshold-too-high",
        "statement",
        release,
        "Role",
        &t.swap("release * 1 ann bob", "release * 3 ann bob"),
    );
    v.text(
        "trust-name-in-role-twice",
        "statement",
        release,
        "Role",
        &t.swap("release * 1 ann bob", "release * 2 ann ann"),
    );
    v.text(
        "trust-unknown-name",
        "statement",
        release,
        "Role",
        &t.swap("release * 1 ann bob", "release * 1 ann eve"),
    );
    v.text(
        "trust-role-twice",
        "statement",
        release + 1,
        "Role",
        &t.swap("vectors.critical.*", "*"),
    );
    v.text(
        "trust-role-unknown-kind",
        "grammar",
        release,
        "Role",
        &t.swap("Role: release", "Role: publish"),
    );
    v.text(
        "trust-role-pattern",
        "grammar",
        release,
        "Role",
        &t.swap("release * 1", "release *.os 1"),
    );
    v.text(
        "trust-role-pattern-in-the-middle",
        "grammar",
        release,
        "Role",
        &t.swap("release * 1", "release vectors.*.os 1"),
    );
    v.text(
        "trust-no-trust-role",
        "statement",
        t.after - 1,
        "Role",
        &t.swap("Role: trust * 1 root\n", ""),
    );
    v.text(
        "trust-role-below-the-trust-log",
        "statement",
        t.after,
        "Role",
        &t.swap("Role: trust * 1", "Role: trust vectors.trust.* 1"),
    );
    v.text(
        "trust-beat-role-of-a-channel",
        "statement",
        beat,
        "Role",
        &t.swap("beat * 1", "beat vectors.beat 1"),
    );
    v.text(
        "trust-beat-role-of-the-namespace",
        "statement",
        beat,
        "Role",
        &t.swap("beat * 1", "beat vectors.* 1"),
    );
    v.text(
        "trust-beat-role-elsewhere",
        "statement",
        beat,
        "Role",
        &t.swap("beat * 1", "beat vector.os.* 1"),
    );
    // Seventeen keys, of which seventeen have to sign: more than there may be signatures.
    let keys: Vec<u8> = (20..37).collect();
    let lines: String = keys
        .iter()
        .map(|seed| format!("Key: {} k{seed}\n", public(*seed)))
        .collect();
    let names: Vec<String> = keys.iter().map(|seed| format!("k{seed}")).collect();
    let many = t.text.replace(
        "Role: trust",
        &format!(
            "{lines}Role: release vectors.many.* 17 {}\nRole: trust",
            names.join(" ")
        ),
    );
    v.text(
        "trust-threshold-17",
        "statement",
        role + 17,
        "Role",
        &sign(many, &[ROOT]),
    );
}
