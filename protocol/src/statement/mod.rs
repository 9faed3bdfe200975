//! Statements: the signed text that everything else carries (spec part 1).
//!
//! A [`Statement`] is made by parsing only, keeps the octets that it was made of, and gives those
//! back: nothing is ever written anew from parsed values. What a publisher is about to say is a
//! [`Draft`].

mod draft;
mod error;
mod fields;
mod grammar;
mod kinds;
mod rules;
mod value;

use alloc::{string::String, sync::Arc, vec::Vec};

pub use draft::Draft;
pub use error::StatementError;
pub use fields::{Beat, Release, Row, TrustRules, Withdraw, rows};
pub use kinds::{
    Apply, Body, Checkpoint, Closed, Kind, NamedKey, Payload, Role, Rollout, Target, Urgency,
};
pub use value::ValueError;

use crate::{
    Channel, Head, MessageId, PublicKey, Serial, Signature, SigningKey, StatementId, Timestamp,
};

/// A well-formed statement. Whether anyone may have said it is the business of [`crate::trust`].
#[derive(Clone, Debug)]
pub struct Statement {
    octets: Arc<[u8]>,
    signed: usize,
    id: StatementId,
    channel: Channel,
    serial: Serial,
    previous: Option<StatementId>,
    time: Timestamp,
    trust: Option<Serial>,
    critical: Vec<String>,
    body: Body,
    signatures: Vec<Signature>,
}

/// Two statements are equal when their octets are, signatures included.
impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        self.octets == other.octets
    }
}
impl Eq for Statement {}

impl Statement {
    /// Reads a signed statement; its lines end with LF.
    ///
    /// # Errors
    /// Names the line, the field and what was expected there (spec part 1).
    pub fn parse(octets: &[u8]) -> Result<Self, StatementError> {
        let statement = Self::parse_draft(octets)?;
        if statement.signatures.is_empty() {
            let line = octets.iter().filter(|&&b| b == b'\n').count() + 1;
            return Err(StatementError::new(
                line,
                "Signature",
                "expected at least one signature line at the end",
            ));
        }
        Ok(statement)
    }

    /// Reads a statement that need not be signed yet, as it is passed round between signers.
    ///
    /// # Errors
    /// As [`Statement::parse`].
    pub fn parse_draft(octets: &[u8]) -> Result<Self, StatementError> {
        grammar::statement(octets)
    }

    /// The same statement with one signature more.
    ///
    /// # Errors
    /// If this key has signed already, or the statement would become too large.
    pub fn sign(&self, key: &SigningKey) -> Result<Self, StatementError> {
        let signature = Signature::make(key, self.signed_part());
        let mut octets = self.octets.to_vec();
        octets.extend_from_slice(alloc::format!("Signature: {signature}\n").as_bytes());
        Self::parse(&octets)
    }

    /// The same statement with those of its signatures alone that count: what the broker that takes
    /// it from its publisher keeps ([4-6]).
    #[must_use]
    pub fn with_signatures(&self, counts: impl Fn(&PublicKey) -> bool) -> Self {
        if self
            .signatures
            .iter()
            .all(|signature| counts(&signature.key))
        {
            return self.clone();
        }
        let mut octets = self.signed_part().to_vec();
        let signatures: Vec<Signature> = self
            .signatures
            .iter()
            .filter(|signature| counts(&signature.key))
            .copied()
            .collect();
        for signature in &signatures {
            octets.extend_from_slice(alloc::format!("Signature: {signature}\n").as_bytes());
        }
        Self {
            octets: octets.into(),
            signatures,
            ..self.clone()
        }
    }

    /// All octets, as they were read; lines end with LF.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }
    /// The octets that the id and the signatures are over.
    pub fn signed_part(&self) -> &[u8] {
        &self.octets[..self.signed]
    }
    /// SHA-256 over the signed part.
    pub fn id(&self) -> StatementId {
        self.id
    }
    /// The channel that this statement belongs to.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }
    /// Its place there.
    pub fn serial(&self) -> Serial {
        self.serial
    }
    /// Serial and id.
    pub fn head(&self) -> Head {
        Head {
            serial: self.serial,
            id: self.id,
        }
    }
    /// The id of the statement before; none for serial 1.
    pub fn previous(&self) -> Option<StatementId> {
        self.previous
    }
    /// The head of the channel just before this statement; none for serial 1.
    pub fn predecessor(&self) -> Option<Head> {
        Some(Head {
            serial: Serial::new(self.serial.number() - 1)?,
            id: self.previous?,
        })
    }
    /// When it was made, by its publisher's clock.
    pub fn time(&self) -> Timestamp {
        self.time
    }
    /// The serial of the trust statement that it was signed under; none in trust statements.
    pub fn trust(&self) -> Option<Serial> {
        self.trust
    }
    /// Release, withdraw, trust or beat.
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }
    /// What it says.
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// Its signatures, at most one of each key.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }
    /// Whether a key has signed; says nothing about the signature being good.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.signatures.iter().any(|s| s.key == *key)
    }
    /// Whether a key has signed, and its signature holds.
    pub fn is_truly_signed_by(&self, key: &PublicKey) -> bool {
        let signature = self.signatures.iter().find(|s| s.key == *key);
        signature
            .zip(key.to_verifying_key().ok())
            .is_some_and(|(signature, key)| signature.holds(&key, self.signed_part()))
    }
    /// The message-id of the article that carries it.
    pub fn message_id(&self) -> MessageId {
        MessageId {
            channel: self.channel.clone(),
            serial: self.serial,
            id: self.id,
        }
    }
    /// A field that its publisher calls critical and that this version of the library does not
    /// know. Such a statement is stored and relayed, but must not be acted on ([1-13], attack 42).
    pub fn unknown_critical(&self) -> Option<&str> {
        self.critical
            .iter()
            .map(String::as_str)
            .find(|name| !grammar::is_known(name))
    }
}
