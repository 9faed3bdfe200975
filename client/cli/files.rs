//! Statements in files: read, written, signed.

use std::{collections::BTreeSet, fs, io::Read, path::Path};

use anyhow::{Context, ensure};
use tidings_client::{Statement, file, limits::BUNDLE_OCTETS};
use tidings_protocol::{bundle, limits::SIGNATURES};

use super::{exit::Exit, key::Signer, output};

/// Adds signatures. Lines that do not hold count for nothing, and make room.
pub(super) fn sign_all(mut statement: Statement, signers: &[Signer]) -> anyhow::Result<Statement> {
    let lines = statement.signatures().len();
    let good = statement.with_signatures(|key| statement.is_truly_signed_by(key));
    if good.signatures().len() < lines && !signers.is_empty() {
        output::note(&format!(
            "{} of {lines} signatures do not hold, count for nothing, and are left out",
            lines - good.signatures().len()
        ));
        statement = good;
    }
    for signer in signers {
        let public = signer.public();
        ensure!(
            !statement.is_signed_by(&public),
            Exit::Refused.because(format!("{public} has signed this already"))
        );
        let full = || {
            Exit::Refused.because(format!(
                "there is no room for the signature of {public}: {SIGNATURES} have signed already"
            ))
        };
        ensure!(statement.signatures().len() < SIGNATURES, full());
        statement = signer.sign(&statement)?;
    }
    Ok(statement)
}

/// A file with statements or batches, up to a limit.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let context = || format!("cannot read {}", path.display());
    let mut octets = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(BUNDLE_OCTETS + 1).read_to_end(&mut octets))
        .with_context(context)?;
    let large = || {
        Exit::BadFile.because(format!(
            "{} is larger than {BUNDLE_OCTETS} octets",
            path.display()
        ))
    };
    ensure!(octets.len() as u64 <= BUNDLE_OCTETS, large());
    Ok(octets)
}

/// The statements in a file, signed or not yet.
pub(super) fn read_bundle(path: &Path) -> anyhow::Result<Vec<Statement>> {
    let octets = read(path)?;
    let statements =
        bundle::parse(&octets).with_context(|| format!("{} is no statement", path.display()))?;
    once(&statements).with_context(|| format!("{} cannot be used", path.display()))?;
    Ok(statements)
}

/// Refuses two copies of one statement: their signatures may differ, and nothing says which is
/// meant.
pub(super) fn once(statements: &[Statement]) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for statement in statements {
        let again = || {
            let (channel, serial) = (statement.channel(), statement.serial());
            Exit::BadFile.because(format!(
                "there are two copies of {channel} {serial}; remove the one with fewer signatures"
            ))
        };
        ensure!(seen.insert(statement.message_id().to_string()), again());
    }
    Ok(())
}

/// One after the other, as [`read_bundle`] reads them.
pub(super) fn bundle<'a>(statements: impl IntoIterator<Item = &'a Statement>) -> Vec<u8> {
    statements
        .into_iter()
        .flat_map(|statement| statement.octets().iter().copied())
        .collect()
}

pub(super) fn write_new(path: &Path, octets: &[u8]) -> anyhow::Result<()> {
    file::create(path, octets, 0o666)
        .with_context(|| format!("cannot write {}; it must not exist yet", path.display()))
}

pub(super) fn replace(path: &Path, octets: &[u8]) -> anyhow::Result<()> {
    file::replace(path, octets, 0o666).with_context(|| format!("cannot write {}", path.display()))
}
