//! Statements in files: read, written, signed.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context, ensure};
use tidings_client::{
    Statement,
    keys::{PublicKey, SigningKey},
    limits::BUNDLE_OCTETS,
};
use tidings_protocol::bundle;

pub(super) fn sign_all(mut statement: Statement, signers: &[SigningKey]) -> anyhow::Result<Statement> {
    for key in signers {
        let public = PublicKey::of(key);
        ensure!(!statement.is_signed_by(&public), "{public} has signed this already");
        statement = statement.sign(key)?;
    }
    Ok(statement)
}

/// The statements in a file, signed or not yet.
pub(super) fn read_bundle(path: &Path) -> anyhow::Result<Vec<Statement>> {
    let file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut octets = Vec::new();
    file.take(BUNDLE_OCTETS + 1).read_to_end(&mut octets).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(octets.len() as u64 <= BUNDLE_OCTETS, "{} is larger than {BUNDLE_OCTETS} octets", path.display());
    bundle::parse(&octets).with_context(|| format!("{} is no statement", path.display()))
}

pub(super) fn write_new(path: &Path, octets: &[u8]) -> anyhow::Result<()> {
    let context = || format!("cannot write {}; it must not exist yet", path.display());
    let mut file = fs::File::create_new(path).with_context(context)?;
    file.write_all(octets).with_context(context)
}
