//! Well-formed statements that are not accepted: nobody may say so, or they belong elsewhere in the
//! log; and articles.

use base64ct::{Base64UrlUnpadded, Encoding};
use curve25519_dalek::{EdwardsPoint, Scalar, constants::EIGHT_TORSION};
use ed25519_dalek::hazmat::ExpandedSecretKey;
use sha2::{Digest, Sha512};
use tidings_protocol::{Head, StatementId, article};

use super::{
    ANN, BEAT, BOB, NEW_ROOT, ROOT, STOP, STRANGER, Vectors,
    good::{self, History},
    key, public, sign, signature,
};

/// The order of the group, little-endian: a signature with S + L is the same to a lax verifier.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

pub(super) fn write(v: &mut Vectors, history: &History) {
    signatures(v);
    places(v, history);
    roles(v, history);
    trust(v, history);
    log(v, history);
    envelopes(v, history);
}

/// The strict rules of Ed25519.
fn signatures(v: &mut Vectors) {
    let base = good::release(1, "-");
    let signed = sign(&base, &[ANN]);
    let tail = |octets: &[u8]| {
        let line = format!(
            "Signature: {} {}\n",
            public(ANN),
            Base64UrlUnpadded::encode_string(octets)
        );
        [base.as_bytes(), line.as_bytes()].concat()
    };
    v.judged(
        "unknown-key-only",
        "trust",
        "1-15",
        "",
        &sign(&base, &[STRANGER]),
    );
    let mut octets = signed.clone();
    let at = octets.len() - 20;
    octets[at] = if octets[at] == b'A' { b'B' } else { b'A' };
    v.judged("signature-wrong", "trust", "1-15", "", &octets);
    let other = signature(base.replace("1.1", "1.0").as_bytes(), ANN);
    v.judged(
        "signature-of-another-statement",
        "trust",
        "1-10",
        "",
        format!("{base}{other}").as_bytes(),
    );
    let line = String::from_utf8(signed[base.len()..].to_vec()).unwrap();
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
        "1-6",
        "",
        &tail(&malleable),
    );
    // What the holder of a key can make: R of small order, or with a part of small order, and S
    // that fits.
    let secret = ExpandedSecretKey::from(key(ANN).as_bytes()).scalar;
    let make = |nonce: Scalar, torsion: EdwardsPoint| {
        let r = (EdwardsPoint::mul_base(&nonce) + torsion)
            .compress()
            .to_bytes();
        let hash = Sha512::new()
            .chain_update(r)
            .chain_update(key(ANN).verifying_key().as_bytes())
            .chain_update(base.as_bytes());
        let s = nonce + Scalar::from_bytes_mod_order_wide(&hash.finalize().into()) * secret;
        [r, s.to_bytes()].concat()
    };
    for (order, torsion) in EIGHT_TORSION.into_iter().enumerate() {
        v.judged(
            &format!("signature-r-of-small-order-{order}"),
            "trust",
            "1-6",
            "",
            &tail(&make(Scalar::ZERO, torsion)),
        );
    }
    v.judged(
        "signature-with-cofactor",
        "trust",
        "1-6",
        "",
        &tail(&make(Scalar::from(7_u8), EIGHT_TORSION[1])),
    );
}

/// Where a statement stands.
fn places(v: &mut Vectors, history: &History) {
    let base = good::release(1, "-");
    let at = |channel: &str| base.replace("vectors.os.stable", channel);
    v.judged(
        "other-namespace",
        "trust",
        "1-21",
        "",
        &sign(at("vector.os.stable"), &[ANN]),
    );
    v.judged(
        "longer-name-than-the-namespace",
        "trust",
        "1-3",
        "",
        &sign(at("vectorss.os"), &[ANN]),
    );
    v.judged(
        "namespace-further-down",
        "trust",
        "1-21",
        "",
        &sign(at("my.vectors.os"), &[ANN]),
    );
    let inner = good::trust(1, "-", &[("root", ROOT)])
        .replace("vectors.trust", "vectors.inner.trust")
        .replace("Role: beat vectors.lab.* 1 bob\n", "");
    v.judged(
        "trust-in-another-trust-log",
        "trust",
        "1-21",
        "",
        &sign(inner, &[ROOT]),
    );
    v.judged(
        "closed-channel",
        "trust",
        "1-22",
        "",
        &sign(at("vectors.old.testing"), &[ANN]),
    );
    v.judged(
        "closed-channel-below",
        "trust",
        "1-22",
        "",
        &sign(at("vectors.old.stable.x86"), &[ANN]),
    );
    v.judged(
        "trust-from-the-future",
        "trust",
        "1-23",
        "",
        &sign(base.replace("Trust: 1", "Trust: 2"), &[ANN]),
    );
    let beat = history.beat.replace("Trust: 1", "Trust: 2");
    v.judged(
        "beat-under-trust-from-the-future",
        "trust",
        "1-23",
        "",
        &sign(beat, &[BEAT]),
    );
}

/// Who may say what.
fn roles(v: &mut Vectors, history: &History) {
    let base = good::release(1, "-");
    v.judged(
        "below-threshold",
        "trust",
        "1-15",
        "",
        &sign(&history.critical, &[ANN]),
    );
    v.judged(
        "below-threshold-with-others",
        "trust",
        "1-15",
        "",
        &sign(&history.critical, &[ANN, ROOT, STOP, BEAT, STRANGER]),
    );
    let one_bad = history.critical.clone()
        + &signature(history.critical.as_bytes(), ANN)
        + &signature(b"other", BOB);
    v.judged(
        "below-threshold-with-a-bad-one",
        "trust",
        "1-15",
        "",
        one_bad.as_bytes(),
    );
    v.judged(
        "release-by-withdraw-key",
        "trust",
        "1-15",
        "",
        &sign(&base, &[STOP]),
    );
    v.judged(
        "release-by-beat-key",
        "trust",
        "1-15",
        "",
        &sign(&base, &[BEAT]),
    );
    v.judged(
        "release-by-root-key",
        "trust",
        "1-15",
        "",
        &sign(&base, &[ROOT]),
    );
    v.judged(
        "withdraw-by-beat-key",
        "trust",
        "1-15",
        "",
        &sign(&history.withdraw, &[BEAT]),
    );
    v.judged(
        "withdraw-by-release-key-alone",
        "trust",
        "1-15",
        "",
        &sign(&history.withdraw, &[BOB]),
    );
    v.judged(
        "beat-by-release-key",
        "trust",
        "1-15",
        "",
        &sign(&history.beat, &[ANN]),
    );
    let beat = |channel: &str| {
        history
            .beat
            .replace("Channel: vectors.beat", &format!("Channel: {channel}"))
    };
    v.judged(
        "beat-in-channel-without-role",
        "trust",
        "1-14",
        "",
        &sign(beat("vectors.other.beat"), &[BEAT]),
    );
    v.judged(
        "beat-below-a-beat-channel",
        "trust",
        "1-14",
        "",
        &sign(beat("vectors.lab.x.beat"), &[BOB]),
    );
    v.judged(
        "narrow-beat-by-the-wide-key",
        "trust",
        "1-15",
        "",
        &sign(beat("vectors.lab.beat"), &[BEAT]),
    );
    v.judged(
        "wide-beat-by-the-narrow-key",
        "trust",
        "1-15",
        "",
        &sign(&history.beat, &[BOB]),
    );
}

/// The trust log.
fn trust(v: &mut Vectors, history: &History) {
    let first = history.trust_1.id().to_string();
    let second = &history.trust_2;
    let coup = good::trust(2, &first, &[("new-root", NEW_ROOT)]);
    v.judged(
        "trust-by-new-keys-only",
        "trust",
        "1-15",
        "",
        &sign(&coup, &[NEW_ROOT]),
    );
    v.judged(
        "trust-by-old-keys-only",
        "trust",
        "1-15",
        "",
        &sign(&coup, &[ROOT]),
    );
    v.judged(
        "trust-by-release-key",
        "trust",
        "1-15",
        "",
        &sign(second, &[ANN]),
    );
    v.judged(
        "trust-skips-a-serial",
        "trust",
        "1-17",
        "",
        &sign(second.replace("Serial: 2", "Serial: 3"), &[ROOT]),
    );
    let digest = StatementId::of(b"payload").to_string();
    v.judged(
        "trust-other-previous",
        "trust",
        "1-17",
        "",
        &sign(second.replace(&first, &digest), &[ROOT]),
    );
    let closed = "Closed: vectors.old.* vectors.old.stable\n";
    v.judged(
        "trust-opens-what-was-closed",
        "trust",
        "1-18",
        "",
        &sign(second.replace(closed, ""), &[ROOT]),
    );
    let wider = "Closed: vectors.old.*\n";
    v.judged(
        "trust-closes-in-other-words",
        "trust",
        "1-18",
        "",
        &sign(second.replace(closed, wider), &[ROOT]),
    );
    let critical = format!("{second}Colour: blue\nCritical: Colour\n");
    v.judged(
        "trust-critical",
        "trust",
        "1-13",
        "",
        &sign(critical, &[ROOT]),
    );
}

/// Verified, but not next.
fn log(v: &mut Vectors, history: &History) {
    let base = good::release(1, "-");
    let digest = StatementId::of(b"payload").to_string();
    let after = |head: Head| format!("after: {head}\n");
    v.judged(
        "known",
        "log",
        "2-12",
        &after(history.minimal.head()),
        &sign(&base, &[ANN]),
    );
    v.judged(
        "old",
        "log",
        "2-12",
        &after(history.full.head()),
        &sign(&base, &[ANN]),
    );
    let other = base.replace("1.1", "1.0");
    v.judged(
        "fork-same-serial",
        "log",
        "2-15",
        &after(history.minimal.head()),
        &sign(other, &[ANN]),
    );
    let other = good::release(2, &digest);
    v.judged(
        "fork-other-previous",
        "log",
        "2-15",
        &after(history.minimal.head()),
        &sign(other, &[ANN]),
    );
    v.judged(
        "gap",
        "log",
        "2-13",
        &after(history.minimal.head()),
        &sign(&history.third, &[ANN]),
    );
}

fn envelopes(v: &mut Vectors, history: &History) {
    let article = article::render(&history.minimal, "a.example!not-for-mail");
    let article = String::from_utf8(article.octets)
        .unwrap()
        .replace("\r\n", "\n");
    v.about("1-27");
    v.envelope(
        "article-no-empty-line",
        0,
        article.replace("\n\n", "\n").as_bytes(),
    );
    v.envelope(
        "article-other-message-id",
        6,
        article
            .replace("Message-ID: <1.", "Message-ID: <2.")
            .as_bytes(),
    );
    let group = |group: &str| {
        article.replace(
            "Newsgroups: vectors.os.stable",
            &format!("Newsgroups: {group}"),
        )
    };
    v.envelope(
        "article-other-group",
        3,
        group("vectors.os.testing").as_bytes(),
    );
    v.envelope(
        "article-crossposted",
        3,
        group("vectors.os.stable,vectors.os.x").as_bytes(),
    );
    v.envelope(
        "article-message-id-twice",
        7,
        article
            .replacen("MIME-Version: 1.0", "Message-ID: <x@y>", 1)
            .as_bytes(),
    );
    v.envelope(
        "article-newsgroups-folded",
        4,
        article
            .replacen("Newsgroups: ", "Newsgroups:\n ", 1)
            .as_bytes(),
    );
    v.envelope(
        "article-header-no-colon",
        2,
        article.replacen("From: ", "From ", 1).as_bytes(),
    );
}
