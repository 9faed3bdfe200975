//! Names and numbers.

use tidings_protocol::StatementId;

use super::Base;
use crate::{ROOT, Vectors, good, sign};

pub(super) fn names(v: &mut Vectors, base: &Base) {
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

pub(super) fn numbers(v: &mut Vectors, base: &Base) {
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
