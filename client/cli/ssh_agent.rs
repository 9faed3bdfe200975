//! Keys that an `ssh-agent` holds: it signs, and the private half never comes here.
//!
//! Two requests of its protocol are all that is needed: which keys are there, and sign these
//! octets. What an agent makes with an `ssh-ed25519` key is a plain Ed25519 signature over the
//! octets as they are. The crates that speak it bring thirty others, RSA and three more curves
//! among them.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use base64ct::{Base64UrlUnpadded, Encoding};
use tidings_client::{Statement, keys::PublicKey};

use super::exit::Exit;

/// Where the agent listens.
const SOCKET: &str = "SSH_AUTH_SOCK";
/// An agent may ask its user before it signs (`ssh-add -c`).
const PATIENCE: Duration = Duration::from_secs(120);
/// More than any agent answers here.
const ANSWER_OCTETS: u32 = 1 << 18;

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const KIND: &[u8] = b"ssh-ed25519";

/// One Ed25519 key of an agent.
#[derive(Debug)]
pub(super) struct AgentKey {
    pub(super) public: PublicKey,
    comment: String,
    /// As the agent calls it.
    blob: Vec<u8>,
}

impl AgentKey {
    /// The key of the agent that a name means: its public line, or its comment. Without a name it
    /// has to be the only one.
    pub(super) fn find(name: &str) -> anyhow::Result<Self> {
        let keys = Self::all()?;
        let said: Vec<String> = keys
            .iter()
            .map(|key| format!("{} ({})", key.public, key.comment))
            .collect();
        let said = match said.is_empty() {
            true => "none; `ssh-add FILE` adds one".into(),
            false => said.join(", "),
        };
        let is_meant = |key: &AgentKey| {
            name.is_empty() || key.comment == name || key.public.to_string() == name
        };
        let mut meant = keys.into_iter().filter(is_meant);
        match (meant.next(), meant.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(Exit::BadFile.because(format!(
                "the agent has no Ed25519 key {name:?}; it has {said}"
            ))),
            (Some(_), Some(_)) => Err(Exit::Usage.because(format!(
                "the agent has several such keys; name one, agent:PUBLIC or agent:COMMENT: {said}"
            ))),
        }
    }

    /// The Ed25519 keys of the agent; those of other kinds are left out.
    fn all() -> anyhow::Result<Vec<Self>> {
        let answer = ask(&[REQUEST_IDENTITIES], IDENTITIES_ANSWER)?;
        let mut rest = &answer[..];
        let mut keys = Vec::new();
        let damaged = || Exit::Failed.because("the answer of the agent is cut off");
        for _ in 0..number(&mut rest).ok_or_else(damaged)? {
            let blob = string(&mut rest).ok_or_else(damaged)?;
            let comment = string(&mut rest).ok_or_else(damaged)?;
            let mut parts = blob;
            if string(&mut parts) != Some(KIND) {
                continue;
            }
            let octets = string(&mut parts).ok_or_else(damaged)?;
            let line = format!("ed25519:{}", Base64UrlUnpadded::encode_string(octets));
            keys.push(Self {
                public: line.parse().context("a key of the agent")?,
                comment: String::from_utf8_lossy(comment).into_owned(),
                blob: blob.to_vec(),
            });
        }
        Ok(keys)
    }

    /// The statement with a signature of the agent, which is verified here.
    pub(super) fn sign(&self, statement: &Statement) -> anyhow::Result<Statement> {
        let mut request = vec![SIGN_REQUEST];
        for part in [&self.blob[..], statement.signed_part()] {
            put(&mut request, part)?;
        }
        request.extend(0_u32.to_be_bytes());
        let answer = ask(&request, SIGN_RESPONSE)?;
        let signature = string(&mut &answer[..])
            .and_then(|mut parts| (string(&mut parts)? == KIND).then(|| string(&mut parts))?);
        let Some(signature) = signature else {
            bail!("the agent has made no Ed25519 signature");
        };
        let line = Base64UrlUnpadded::encode_string(signature);
        let mut octets = statement.octets().to_vec();
        octets.extend_from_slice(format!("Signature: {} {line}\n", self.public).as_bytes());
        let signed = Statement::parse(&octets).context("what the agent has signed")?;
        ensure!(
            signed.is_truly_signed_by(&self.public),
            "the signature of the agent for {} does not hold",
            self.public
        );
        Ok(signed)
    }
}

/// One request, and the rest of the answer behind its kind.
fn ask(request: &[u8], wanted: u8) -> anyhow::Result<Vec<u8>> {
    let none = || {
        Exit::Usage.because(format!(
            "{SOCKET} names no agent; begin one (`eval $(ssh-agent)`) and `ssh-add` the key"
        ))
    };
    let socket = std::env::var_os(SOCKET)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .ok_or_else(none)?;
    let answer = exchange(&socket, request)
        .with_context(|| format!("the agent at {} ({SOCKET})", socket.display()))?;
    match answer.split_first() {
        Some((kind, rest)) if *kind == wanted => Ok(rest.to_vec()),
        _ => Err(Exit::Refused.because(
            "the agent refused: it is locked, was told to, or does not sign this (`ssh-add -l` \
             shows its keys)",
        )),
    }
}

fn exchange(socket: &PathBuf, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut agent = UnixStream::connect(socket)?;
    agent.set_read_timeout(Some(PATIENCE))?;
    agent.set_write_timeout(Some(PATIENCE))?;
    let mut framed = Vec::new();
    put(&mut framed, request)?;
    agent.write_all(&framed)?;
    let mut length = [0; 4];
    agent.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > ANSWER_OCTETS {
        return Err(io::Error::other(format!(
            "its answer has {length} octets, more than {ANSWER_OCTETS}"
        )));
    }
    let mut answer = Vec::new();
    agent.take(length.into()).read_to_end(&mut answer)?;
    if answer.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// Octets behind their number.
fn put(to: &mut Vec<u8>, octets: &[u8]) -> io::Result<()> {
    let length = u32::try_from(octets.len()).map_err(io::Error::other)?;
    to.extend(length.to_be_bytes());
    to.extend_from_slice(octets);
    Ok(())
}

fn number(from: &mut &[u8]) -> Option<u32> {
    let (length, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u32::from_be_bytes(*length))
}

fn string<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(from)?).ok()?;
    let (octets, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(octets)
}
