//! Texts that are no statements, each with one fault, and the line and field of it.

mod bodies;
mod fields;
mod lines;
mod trust;

use bodies::{payload, release, withdraw_and_beat};
use fields::{names, numbers};
use lines::{first_lines, lines};
use trust::{trust, trust_keys, trust_roles};

use super::{
    ANN, Vectors,
    good::{self, History},
    sign,
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
