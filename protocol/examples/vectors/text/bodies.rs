//! The fields of releases, withdrawals and beats.

use tidings_protocol::StatementId;

use super::Base;
use crate::{BEAT, STOP, Vectors, good::History, sign};

pub(super) fn release(v: &mut Vectors, base: &Base) {
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

pub(super) fn payload(v: &mut Vectors, base: &Base) {
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

pub(super) fn withdraw_and_beat(v: &mut Vectors, history: &History) {
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
