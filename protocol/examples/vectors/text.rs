//! Texts that are no statements, each with one fault, and the line and field of it.

use tidings_protocol::StatementId;

use super::{
    ANN, BEAT, ROOT, STOP, Vectors,
    good::{self, History},
    public, sign,
};

/// A release, and what is signed in its place.
struct Base {
    text: String,
    /// The line after its last field.
    end: usize,
}

impl Base {
    fn of(text: String) -> Self {
        Self {
            end: text.lines().count() + 1,
            text,
        }
    }
    fn with(&self, field: &str) -> Vec<u8> {
        sign(format!("{}{field}\n", self.text), &[ANN])
    }
    fn swap(&self, old: &str, new: &str) -> Vec<u8> {
        assert!(self.text.contains(old), "{old}");
        sign(self.text.replacen(old, new, 1), &[ANN])
    }
}

pub(super) fn write(v: &mut Vectors, history: &History) {
    let base = Base::of(good::release(1, "-"));
    lines(v, &base);
    first_lines(v, &base);
    names(v, &base);
    numbers(v, &base);
    release(v, &base);
    payload(v, &base);
    withdraw_and_beat(v, history);
    trust(v);
    trust_keys(v);
    trust_roles(v);
    signatures(v, &base);
}

#[allow(clippy::too_many_lines)] // a list
fn lines(v: &mut Vectors, base: &Base) {
    let (end, text) = (base.end, base.text.as_bytes());
    let signed = sign(text, &[ANN]);
    v.about("1-7");
    v.text(
        "no-final-line-feed",
        "grammar",
        end,
        "",
        &signed[..signed.len() - 1],
    );
    v.text(
        "crlf",
        "grammar",
        1,
        "",
        &String::from_utf8(signed.clone())
            .unwrap()
            .replace('\n', "\r\n")
            .into_bytes(),
    );
    v.text(
        "byte-order-mark-first",
        "grammar",
        1,
        "",
        &sign(["\u{feff}".as_bytes(), text].concat(), &[ANN]),
    );
    v.text(
        "control-character",
        "grammar",
        end,
        "",
        &base.with("Summary: a\u{7}b"),
    );
    v.text(
        "delete",
        "grammar",
        end,
        "",
        &base.with("Summary: a\u{7f}b"),
    );
    v.text("nul", "grammar", end, "", &base.with("Summary: a\0b"));
    v.text("bare-cr", "grammar", end, "", &base.with("Summary: a\rb"));
    v.text(
        "c1-control",
        "grammar",
        end,
        "",
        &base.with("Summary: a\u{85}b"),
    );
    v.text(
        "c1-control-last",
        "grammar",
        end,
        "",
        &base.with("Summary: a\u{9f}b"),
    );
    v.text(
        "latin-1",
        "grammar",
        end,
        "",
        &sign([text, b"Summary: caf\xe9\n"].concat(), &[ANN]),
    );
    v.text(
        "overlong-utf-8",
        "grammar",
        end,
        "",
        &sign([text, b"Summary: a\xc0\xafb\n"].concat(), &[ANN]),
    );
    v.text(
        "surrogate",
        "grammar",
        end,
        "",
        &sign([text, b"Summary: a\xed\xa0\x80b\n"].concat(), &[ANN]),
    );
    v.text(
        "line-901",
        "statement",
        end,
        "",
        &base.with(&format!("Reasons: {}", "9".repeat(892))),
    );
    v.text(
        "too-large",
        "statement",
        end + 72,
        "",
        &base.with(
            format!("Filler: {}\n", "x".repeat(890))
                .repeat(80)
                .trim_end(),
        ),
    );
    let mut text = format!("{}F: {}\n", base.text, "x".repeat(796)).into_bytes();
    while text.len() <= 65536 - 1600 {
        text.extend_from_slice(format!("F: {}\n", "x".repeat(796)).as_bytes());
    }
    let line = text.iter().filter(|&&octet| octet == b'\n').count() + 2;
    let tail = sign(base.text.as_bytes(), &[ANN]).len() - base.text.len();
    let left = 65537 - text.len() - tail;
    assert!((5..900).contains(&left) || left > 900);
    let (first, second) = (left / 2, left - left / 2);
    text.extend_from_slice(
        format!(
            "F: {}\nF: {}\n",
            "x".repeat(first - 4),
            "x".repeat(second - 4)
        )
        .as_bytes(),
    );
    let large = sign(text, &[ANN]);
    assert_eq!(large.len(), 65537);
    v.text("octets-65537", "statement", line + 1, "", &large);
    v.about("1-8");
    v.text("empty", "grammar", 1, "Tidings", b"");
    v.text("empty-line", "grammar", end, "", &base.with(""));
    v.text("no-colon", "grammar", end, "", &base.with("Summary"));
    v.text("no-space", "grammar", end, "", &base.with("Summary:text"));
    v.text(
        "two-spaces",
        "grammar",
        end,
        "",
        &base.with("Summary:  text"),
    );
    v.text(
        "tab-for-space",
        "grammar",
        end,
        "",
        &base.with("Summary:\ttext"),
    );
    v.text(
        "space-before-colon",
        "grammar",
        end,
        "",
        &base.with("Summary : text"),
    );
    v.text(
        "trailing-space",
        "grammar",
        end,
        "",
        &base.with("Summary: text "),
    );
    v.text(
        "leading-space",
        "grammar",
        end,
        "",
        &base.with(" Summary: text"),
    );
    v.text("no-value", "grammar", end, "", &base.with("Summary: "));
    v.text(
        "name-begins-with-digit",
        "grammar",
        end,
        "",
        &base.with("1st: x"),
    );
    v.text(
        "name-with-underscore",
        "grammar",
        end,
        "",
        &base.with("Not_Before: x"),
    );
    v.text(
        "name-65",
        "grammar",
        end,
        "",
        &base.with(&format!("{}: x", "N".repeat(65))),
    );
}

fn first_lines(v: &mut Vectors, base: &Base) {
    v.about("1-9");
    for name in ["Channel", "Serial", "Previous", "Time", "Trust"] {
        let line = base.text.lines().position(|l| l.starts_with(name)).unwrap() + 1;
        let without: String = base
            .text
            .lines()
            .filter(|l| !l.starts_with(name))
            .map(|l| format!("{l}\n"))
            .collect();
        let layer = if name == "Trust" {
            "statement"
        } else {
            "grammar"
        };
        v.text(
            &format!("no-{}", name.to_lowercase()),
            layer,
            line,
            name,
            &sign(without, &[ANN]),
        );
    }
    let lines: Vec<&str> = base.text.lines().collect();
    let swapped = [&lines[..2], &[lines[3], lines[2]], &lines[4..]]
        .concat()
        .join("\n")
        + "\n";
    v.text(
        "wrong-order",
        "grammar",
        3,
        "Serial",
        &sign(swapped, &[ANN]),
    );
    v.text(
        "first-line-again",
        "statement",
        base.end,
        "Trust",
        &base.with("Trust: 1"),
    );
    v.text(
        "tidings-again",
        "statement",
        base.end,
        "Tidings",
        &base.with("Tidings: 1 release"),
    );
    let digest = StatementId::of(b"payload");
    v.text(
        "previous-in-first",
        "statement",
        4,
        "Previous",
        &base.swap("Previous: -", &format!("Previous: {digest}")),
    );
    v.text(
        "no-previous-in-second",
        "statement",
        4,
        "Previous",
        &base.swap("Serial: 1", "Serial: 2"),
    );
    v.about("1-12");
    v.text(
        "version-2",
        "grammar",
        1,
        "Tidings",
        &base.swap("1 release", "2 release"),
    );
    v.text(
        "version-01",
        "grammar",
        1,
        "Tidings",
        &base.swap("1 release", "01 release"),
    );
    v.text(
        "unknown-kind",
        "grammar",
        1,
        "Tidings",
        &base.swap("1 release", "1 rumour"),
    );
    v.about("1-11");
    v.text(
        "version-twice",
        "statement",
        base.end,
        "Version",
        &base.with("Version: 1.1"),
    );
    v.text(
        "summary-twice",
        "statement",
        base.end + 1,
        "Summary",
        &base.with("Summary: one\nSummary: two"),
    );
    v.text(
        "critical-twice",
        "statement",
        base.end + 1,
        "Critical",
        &base.with("Critical: Version\nCritical: Version"),
    );
    v.text(
        "name-in-lower-case",
        "statement",
        base.end,
        "payload",
        &base.with("payload: raw 1 x y"),
    );
    v.text(
        "critical-in-lower-case",
        "statement",
        base.end,
        "critical",
        &base.with("critical: Version"),
    );
    v.text(
        "name-of-another-kind-in-upper-case",
        "statement",
        base.end,
        "WITHDRAWS",
        &base.with("WITHDRAWS: 1"),
    );
    v.text(
        "field-of-another-kind",
        "statement",
        base.end,
        "Withdraws",
        &base.with(&format!("Withdraws: 1 {digest}")),
    );
    v.text(
        "closed-in-a-release",
        "statement",
        base.end,
        "Closed",
        &base.with("Closed: vectors.os.*"),
    );
}

fn names(v: &mut Vectors, base: &Base) {
    v.about("1-2");
    for (name, channel) in [
        ("upper-case", "Vectors.os"),
        ("one-part", "vectors"),
        ("empty-part", "vectors..os"),
        ("slash", "vectors/os.x"),
        ("look-alike", "vectors.o\u{455}"),
        ("dots", "vectors.../x"),
        ("sign-first", "vectors.-os"),
        ("full-stop-last", "vectors.os."),
    ] {
        v.text(
            &format!("channel-{name}"),
            "grammar",
            2,
            "Channel",
            &base.swap("vectors.os.stable", channel),
        );
    }
    for (name, channel) in [
        ("digits", "vectors.24.x"),
        ("reserved", "to.vectors.os"),
        ("control", "control.vectors.os"),
        ("junk", "junk.vectors.os"),
        ("poster", "poster.vectors.os"),
        ("all", "vectors.all.x"),
        ("ctl", "vectors.ctl"),
    ] {
        v.text(
            &format!("channel-{name}"),
            "statement",
            2,
            "Channel",
            &base.swap("vectors.os.stable", channel),
        );
    }
    v.text(
        "channel-129",
        "statement",
        2,
        "Channel",
        &base.swap("vectors.os.stable", &format!("vectors.{}", "x".repeat(121))),
    );
    v.about("1-4");
    for (name, channel) in [
        ("trust-log", "vectors.trust"),
        ("inner-trust-log", "vectors.os.trust"),
        ("beat", "vectors.beat"),
    ] {
        v.text(
            &format!("channel-{name}"),
            "statement",
            2,
            "Channel",
            &base.swap("vectors.os.stable", channel),
        );
    }
    let trust = good::trust(1, "-", &[("root", ROOT)]);
    v.text(
        "trust-in-a-channel",
        "statement",
        2,
        "Channel",
        &sign(trust.replacen("vectors.trust", "vectors.os", 1), &[ROOT]),
    );
}

fn numbers(v: &mut Vectors, base: &Base) {
    v.about("1-5");
    for (name, serial) in [
        ("0", "0"),
        ("leading-zero", "01"),
        ("negative", "-1"),
        ("plus", "+1"),
        ("hex", "0x1"),
        ("2-64", "18446744073709551617"),
    ] {
        v.text(
            &format!("serial-{name}"),
            "grammar",
            3,
            "Serial",
            &base.swap("Serial: 1", &format!("Serial: {serial}")),
        );
    }
    v.text(
        "serial-2-31",
        "statement",
        3,
        "Serial",
        &base.swap("Serial: 1", "Serial: 2147483648"),
    );
    v.text(
        "trust-0",
        "grammar",
        6,
        "Trust",
        &base.swap("Trust: 1", "Trust: 0"),
    );
    for (name, time) in [
        ("lower-case", "2026-02-01t00:00:00z"),
        ("offset", "2026-02-01T00:00:00+00:00"),
        ("fraction", "2026-02-01T00:00:00.0Z"),
        ("space", "2026-02-01 00:00:00Z"),
        ("year-10000", "10000-02-01T00:00:00Z"),
    ] {
        v.text(
            &format!("time-{name}"),
            "grammar",
            5,
            "Time",
            &base.swap("2026-02-01T00:00:00Z", time),
        );
    }
    for (name, time) in [
        ("february-30", "2026-02-30T00:00:00Z"),
        ("february-29-of-2100", "2100-02-29T00:00:00Z"),
        ("month-0", "2026-00-01T00:00:00Z"),
        ("month-13", "2026-13-01T00:00:00Z"),
        ("day-0", "2026-02-00T00:00:00Z"),
        ("minute-60", "2026-02-01T00:60:00Z"),
        ("leap-second", "2026-06-30T23:59:60Z"),
        ("hour-24", "2026-02-01T24:00:00Z"),
        ("1969", "1969-12-31T23:59:59Z"),
    ] {
        v.text(
            &format!("time-{name}"),
            "statement",
            5,
            "Time",
            &base.swap("2026-02-01T00:00:00Z", time),
        );
    }
    let digest = StatementId::of(b"payload").to_string();
    v.about("1-8");
    let upper = format!("Previous: sha256:{}", digest[7..].to_uppercase());
    v.text(
        "previous-upper-case",
        "grammar",
        4,
        "Previous",
        &base.swap("Previous: -", &upper),
    );
    v.text(
        "previous-short",
        "grammar",
        4,
        "Previous",
        &base.swap("Previous: -", &format!("Previous: {}", &digest[..70])),
    );
    v.text(
        "previous-sha512",
        "grammar",
        4,
        "Previous",
        &base.swap("Previous: -", &digest.replace("sha256", "Previous: sha512")),
    );
}

fn release(v: &mut Vectors, base: &Base) {
    let end = base.end;
    v.about("1-8");
    v.text(
        "no-version",
        "statement",
        end - 1,
        "Version",
        &base.swap("Version: 1.1\n", ""),
    );
    v.text(
        "version-with-space",
        "grammar",
        end - 1,
        "Version",
        &base.swap("Version: 1.1", "Version: 1 1"),
    );
    v.text(
        "version-129",
        "grammar",
        end - 1,
        "Version",
        &base.swap("Version: 1.1", &format!("Version: {}", "1".repeat(129))),
    );
    v.text(
        "urgency-unknown",
        "grammar",
        end,
        "Urgency",
        &base.with("Urgency: urgent"),
    );
    v.text(
        "details-no-scheme",
        "grammar",
        end,
        "Details",
        &base.with("Details: example.org/notes"),
    );
    v.text(
        "target-no-value",
        "grammar",
        end,
        "Target",
        &base.with("Target: arch"),
    );
    v.text(
        "barrier-self",
        "statement",
        end,
        "Barrier",
        &base.with("Barrier: 1"),
    );
    let deadline = "Not-Before: 2026-02-03T00:00:00Z\nDeadline: 2026-02-03T00:00:00Z";
    v.text(
        "deadline-before-not-before",
        "statement",
        end + 1,
        "Deadline",
        &base.with(deadline),
    );
    v.text(
        "rollout-no-seconds",
        "grammar",
        end,
        "Rollout",
        &base.with("Rollout: 2026-02-03T06:00:00Z"),
    );
    v.text(
        "rollout-unknown-property",
        "grammar",
        end,
        "Rollout",
        &base.with("Rollout: 2026-02-03T06:00:00Z 60 wave=2"),
    );
    v.text(
        "rollout-other-order",
        "grammar",
        end,
        "Rollout",
        &base.with("Rollout: 2026-02-03T06:00:00Z 60 cohort=site spread=1"),
    );
    v.text(
        "slot-with-space",
        "grammar",
        end,
        "Slot",
        &base.with("Slot: web one"),
    );
    v.text(
        "apply-command",
        "grammar",
        end,
        "Apply",
        &base.with("Apply: /bin/sh -c reboot"),
    );
    v.text(
        "apply-restart-nothing",
        "grammar",
        end,
        "Apply",
        &base.with("Apply: restart"),
    );
    v.text(
        "apply-option-as-unit",
        "grammar",
        end,
        "Apply",
        &base.with("Apply: restart --force"),
    );
    v.about("1-13");
    v.text(
        "critical-missing",
        "statement",
        end,
        "Critical",
        &base.with("Critical: Colour"),
    );
    v.text(
        "critical-itself",
        "statement",
        end,
        "Critical",
        &base.with("Critical: Critical"),
    );
    v.text(
        "critical-signature",
        "statement",
        end,
        "Critical",
        &base.with("Critical: Signature"),
    );
}

fn payload(v: &mut Vectors, base: &Base) {
    let (end, digest) = (base.end, StatementId::of(b"payload"));
    let with = |value: &str| {
        base.with(&format!("Payload: {value}").replace("DIGEST", &digest.to_string()))
    };
    v.about("1-8");
    v.text(
        "payload-no-url",
        "grammar",
        end,
        "Payload",
        &with("raw 1 DIGEST"),
    );
    v.text(
        "payload-no-digest",
        "grammar",
        end,
        "Payload",
        &with("raw 1 https://example.org/x"),
    );
    v.text(
        "payload-leading-zero",
        "grammar",
        end,
        "Payload",
        &with("raw 01 DIGEST https://example.org/x"),
    );
    v.text(
        "payload-size-2-64",
        "statement",
        end,
        "Payload",
        &with("raw 18446744073709551616 DIGEST https://example.org/x"),
    );
    v.text(
        "payload-property-twice",
        "statement",
        end,
        "Payload",
        &with("raw 1 DIGEST https://example.org/x from=1 from=2"),
    );
    v.text(
        "payload-own-property-twice",
        "statement",
        end,
        "Payload",
        &with("raw 1 DIGEST https://example.org/x window=1 window=2"),
    );
    v.text(
        "payload-base-no-digest",
        "statement",
        end,
        "Payload",
        &with("raw 1 DIGEST https://example.org/x base=1.0"),
    );
    v.text(
        "payload-mem-no-number",
        "statement",
        end,
        "Payload",
        &with("raw 1 DIGEST https://example.org/x mem=1k"),
    );
    v.text(
        "payload-url-with-quote",
        "grammar",
        end,
        "Payload",
        &with("raw 1 DIGEST https://example.org/\"x"),
    );
}

fn withdraw_and_beat(v: &mut Vectors, history: &History) {
    let swap = |text: &str, old: &str, new: &str, key: u8| {
        assert!(text.contains(old), "{old}");
        sign(text.replacen(old, new, 1), &[key])
    };
    let withdraw = |old: &str, new: &str| swap(&history.withdraw, old, new, STOP);
    let line = history
        .withdraw
        .lines()
        .find(|line| line.starts_with("Withdraws"))
        .unwrap();
    v.about("1-8");
    v.text(
        "withdraw-self",
        "statement",
        7,
        "Withdraws",
        &withdraw("Withdraws: 3", "Withdraws: 4"),
    );
    v.text(
        "withdraw-above",
        "statement",
        7,
        "Withdraws",
        &withdraw("Withdraws: 3", "Withdraws: 5"),
    );
    v.text(
        "withdraw-without-id",
        "grammar",
        7,
        "Withdraws",
        &withdraw(line, "Withdraws: 3"),
    );
    v.text(
        "withdraw-nothing",
        "statement",
        8,
        "Withdraws",
        &withdraw(&format!("{line}\n"), ""),
    );
    v.text(
        "withdraw-no-reason",
        "statement",
        8,
        "Reason",
        &withdraw("Reason: does not boot\n", ""),
    );
    let again = format!(
        "{}Head: vectors.os.stable {}\n",
        history.beat,
        history.full.head()
    );
    v.text(
        "beat-head-twice",
        "statement",
        10,
        "Head",
        &sign(again, &[BEAT]),
    );
    v.text(
        "beat-expired-at-birth",
        "statement",
        7,
        "Expires",
        &swap(&history.beat, "00:11:00", "00:01:00", BEAT),
    );
    v.text(
        "beat-no-expires",
        "statement",
        9,
        "Expires",
        &swap(&history.beat, "Expires: 2026-02-04T00:11:00Z\n", "", BEAT),
    );
    v.text(
        "beat-head-without-id",
        "grammar",
        10,
        "Head",
        &sign(format!("{}Head: vectors.x 1\n", history.beat), &[BEAT]),
    );
}

/// The text of the first trust statement, with one thing changed or added.
struct TrustText {
    text: String,
    after: usize,
}

impl TrustText {
    fn new() -> Self {
        let text = good::trust(1, "-", &[("root", ROOT)]);
        Self {
            after: text.lines().count() + 1,
            text,
        }
    }
    fn swap(&self, old: &str, new: &str) -> Vec<u8> {
        assert!(self.text.contains(old), "{old}");
        sign(self.text.replacen(old, new, 1), &[ROOT])
    }
    fn with(&self, lines: &str) -> Vec<u8> {
        sign(format!("{}{lines}\n", self.text), &[ROOT])
    }
    fn line(&self, start: &str) -> usize {
        self.text
            .lines()
            .position(|l| l.starts_with(start))
            .unwrap()
            + 1
    }
}

fn trust(v: &mut Vectors) {
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

fn trust_keys(v: &mut Vectors) {
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

fn trust_roles(v: &mut Vectors) {
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

fn signatures(v: &mut Vectors, base: &Base) {
    let (end, text) = (base.end, &base.text);
    let signed = sign(text, &[ANN]);
    let line = String::from_utf8(signed[text.len()..].to_vec()).unwrap();
    let tail = |tail: &str| [text.as_bytes(), tail.as_bytes()].concat();
    v.about("1-9");
    v.text("unsigned", "grammar", end, "Signature", text.as_bytes());
    v.text(
        "field-after-signature",
        "grammar",
        end + 1,
        "Summary",
        &tail(&format!("{line}Summary: late\n")),
    );
    v.text(
        "field-between-signatures",
        "grammar",
        end + 1,
        "Summary",
        &tail(&format!("{line}Summary: late\n{line}")),
    );
    v.about("1-8");
    v.text(
        "signature-twice",
        "statement",
        end + 1,
        "Signature",
        &tail(&format!("{line}{line}")),
    );
    let many: Vec<u8> = (20..37).collect();
    v.text(
        "signatures-17",
        "statement",
        end + 16,
        "Signature",
        &sign(text, &many),
    );
    v.about("1-6");
    v.text(
        "signature-padded",
        "grammar",
        end,
        "Signature",
        &tail(&line.replace('\n', "==\n")),
    );
    v.text(
        "signature-unknown-algorithm",
        "grammar",
        end,
        "Signature",
        &tail(&line.replace("ed25519", "ed448")),
    );
    v.text(
        "signature-truncated",
        "grammar",
        end,
        "Signature",
        &tail(&format!("{}\n", &line[..line.len() - 5])),
    );
    let mut loose = line.trim_end().to_owned();
    let last = loose.pop().unwrap();
    loose.push(if last == 'A' {
        'B'
    } else {
        char::from(u8::try_from(last).unwrap() + 1)
    });
    v.text(
        "signature-loose-bits",
        "statement",
        end,
        "Signature",
        &tail(&format!("{loose}\n")),
    );
}
