//! Writes the test vectors of the specification: `cargo run -p tidings-protocol --example vectors
//! -- spec/vectors`.
//!
//! Everything is made from fixed seeds, so that it writes the same files each time. What is
//! expected stands here by hand.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod good;
mod judged;
mod lives;
mod rollout;
mod text;

use std::{collections::BTreeSet, fs, path::PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding};
use tidings_protocol::{PublicKey, SigningKey, Statement};

struct Vectors {
    directory: PathBuf,
    names: BTreeSet<String>,
    /// The requirement that the next ones are about.
    about: &'static str,
}

const ROOT: u8 = 1;
const ANN: u8 = 2;
const BOB: u8 = 3;
const STOP: u8 = 4;
const BEAT: u8 = 5;
const NEW_ROOT: u8 = 6;
const CEM: u8 = 7;
const PULSE: u8 = 8;
const STRANGER: u8 = 9;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> String {
    PublicKey::of(&key(seed)).to_string()
}

fn signature(text: &[u8], seed: u8) -> String {
    use ed25519_dalek::Signer;
    let signature = Base64UrlUnpadded::encode_string(&key(seed).sign(text).to_bytes());
    format!("Signature: {} {signature}\n", public(seed))
}

/// Signs a text as it is, whether it is a statement or not.
fn sign(text: impl AsRef<[u8]>, seeds: &[u8]) -> Vec<u8> {
    let text = text.as_ref();
    let signatures: String = seeds.iter().map(|seed| signature(text, *seed)).collect();
    [text, signatures.as_bytes()].concat()
}

fn parse(octets: &[u8]) -> Statement {
    Statement::parse(octets)
        .unwrap_or_else(|error| panic!("{error}:\n{}", String::from_utf8_lossy(octets)))
}

impl Vectors {
    fn write(&mut self, kind: &str, name: &str, head: &str, octets: &[u8]) {
        let path = self.directory.join(kind);
        fs::create_dir_all(&path).unwrap();
        assert!(self.names.insert(format!("{kind}/{name}")), "{name} twice");
        fs::write(path.join(name), [head.as_bytes(), b"\n", octets].concat()).unwrap();
    }
    fn good(&mut self, name: &str, requirement: &str, comment: &str, octets: &[u8]) -> Statement {
        self.write(
            "good",
            name,
            &format!("comment: {comment}\nrequirement: {requirement}\n"),
            octets,
        );
        parse(octets)
    }
    fn about(&mut self, requirement: &'static str) {
        self.about = requirement;
    }
    /// Refused by the parser: `layer` is `grammar` or `statement`.
    fn text(&mut self, name: &str, layer: &str, line: usize, field: &str, octets: &[u8]) {
        let head = format!(
            "layer: {layer}\nrequirement: {}\nline: {line}\nfield: {field}\n",
            self.about
        );
        self.write("bad", name, &head, octets);
    }
    fn judged(&mut self, name: &str, layer: &str, requirement: &str, head: &str, octets: &[u8]) {
        parse(octets);
        self.write(
            "bad",
            name,
            &format!("layer: {layer}\nrequirement: {requirement}\nunder: trust-1\n{head}"),
            octets,
        );
    }
    fn envelope(&mut self, name: &str, line: usize, octets: &[u8]) {
        self.write(
            "bad",
            name,
            &format!(
                "layer: envelope\nrequirement: {}\nline: {line}\n",
                self.about
            ),
            octets,
        );
    }
}

fn main() {
    let directory: PathBuf = std::env::args()
        .nth(1)
        .expect("the directory to write to")
        .into();
    for kind in ["good", "bad", "rollout", "sequences"] {
        let _ = fs::remove_dir_all(directory.join(kind));
    }
    let mut v = Vectors {
        directory,
        names: BTreeSet::new(),
        about: "",
    };
    let history = good::write(&mut v);
    text::write(&mut v, &history);
    judged::write(&mut v, &history);
    rollout::write(&mut v);
    let lives = lives::write(&v.directory.join("sequences"));
    println!("{} vectors, {lives} sequences", v.names.len());
}
