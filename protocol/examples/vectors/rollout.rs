//! When a device's turn comes, with the octets that are hashed.

use sha2::{Digest, Sha256};
use tidings_protocol::{StatementId, Timestamp};

use super::Vectors;

pub(super) fn write(v: &mut Vectors) {
    let before = StatementId::of(b"before").to_string();
    for (name, channel, previous, identity, seconds) in [
        (
            "first-of-its-channel",
            "vectors.os.stable",
            "-",
            "device-1",
            86_400_u64,
        ),
        (
            "with-a-previous",
            "vectors.os.stable",
            before.as_str(),
            "device-1",
            86_400,
        ),
        (
            "another-device",
            "vectors.os.stable",
            before.as_str(),
            "device-2",
            86_400,
        ),
        (
            "another-channel",
            "vectors.os.testing",
            before.as_str(),
            "device-1",
            86_400,
        ),
        (
            "a-cohort",
            "vectors.os.stable",
            before.as_str(),
            "Gr\u{f6}\u{df}e 7 \u{2028}",
            86_400,
        ),
        (
            "no-identity",
            "vectors.os.stable",
            before.as_str(),
            "",
            86_400,
        ),
        (
            "no-seconds",
            "vectors.os.stable",
            before.as_str(),
            "device-1",
            0,
        ),
        (
            "one-second",
            "vectors.os.stable",
            before.as_str(),
            "device-1",
            1,
        ),
        (
            "the-longest",
            "vectors.os.stable",
            before.as_str(),
            "device-1",
            u64::MAX,
        ),
    ] {
        let octets = format!("tidings rollout 1\n{channel}\n{previous}\n{identity}");
        let hash = Sha256::digest(octets.as_bytes());
        let x = u64::from_be_bytes(hash[..8].try_into().unwrap());
        let share = u64::try_from((u128::from(x) * u128::from(seconds)) >> 64).unwrap();
        let start: Timestamp = "2026-02-01T12:00:00Z".parse().unwrap();
        let comes = Timestamp::from_seconds(start.seconds().saturating_add(share));
        let head = format!(
            "requirement: 2-30\nstart: {start}\nseconds: {seconds}\nshare: {share}\ncomes: {comes}\n"
        );
        v.write("rollout", name, &head, octets.as_bytes());
    }
}
