//! Ed25519 public keys and signatures as text (spec part 1).

use alloc::string::String;
use core::{fmt, str::FromStr};

use base64ct::{Base64UrlUnpadded, Encoding};
pub use ed25519_dalek::SigningKey;
use ed25519_dalek::{Signer, Verifier, VerifyingKey};

/// Why a key or a signature was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `ed25519:` and 43 characters of unpadded base64url.
    #[error("a public key is `ed25519:` and 43 characters of unpadded base64url; this is {0:?}")]
    Form(String),
    /// Not a canonical point of the curve, or one of small order.
    #[error("{0:?} is not a canonical Ed25519 public key of full order")]
    Weak(String),
    /// Not 86 characters of unpadded base64url.
    #[error("a signature is 86 characters of unpadded base64url; this is {0:?}")]
    Signature(String),
}

/// Unpadded base64url of exactly so many octets.
fn decode<const N: usize>(base64: &str) -> Option<[u8; N]> {
    let mut octets = [0; N];
    let read = Base64UrlUnpadded::decode(base64, &mut octets).ok()?.len();
    (read == N).then_some(octets)
}

/// At most the octets of a signature.
fn encode(octets: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut base64 = [0; 86];
    f.write_str(Base64UrlUnpadded::encode(octets, &mut base64).map_err(|_| fmt::Error)?)
}

/// The 32 octets of an Ed25519 public key; keys are one and the same when these are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The public half of a signing key.
    pub fn of(key: &SigningKey) -> Self {
        Self(key.verifying_key().to_bytes())
    }
    /// The key to verify with.
    ///
    /// # Errors
    /// [`KeyError::Weak`] if the octets are not canonical, not on the curve, or of small order
    /// (attack 6).
    pub fn to_verifying_key(self) -> Result<VerifyingKey, KeyError> {
        let weak = || KeyError::Weak(alloc::format!("{self}"));
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| weak())?;
        let canonical = key.to_edwards().compress().to_bytes() == self.0;
        if canonical && !key.is_weak() {
            Ok(key)
        } else {
            Err(weak())
        }
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        text.strip_prefix("ed25519:")
            .and_then(decode)
            .map(Self)
            .ok_or_else(|| KeyError::Form(text.into()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ed25519:")?;
        encode(&self.0, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The points of small order, as they are written.
#[rustfmt::skip]
const SMALL_ORDER: [[u8; 32]; 8] = [
    *b"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
    *b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80",
    *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
    *b"\xec\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x85",
    *b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\xfa",
];

/// One `Signature:` line: who signed, and the 64 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The key that made it, as it claims.
    pub key: PublicKey,
    pub(crate) octets: [u8; 64],
}

impl Signature {
    pub(crate) fn make(key: &SigningKey, signed_part: &[u8]) -> Self {
        Self {
            key: PublicKey::of(key),
            octets: key.sign(signed_part).to_bytes(),
        }
    }
    /// Whether this signature holds over a signed part, by the strict rules [1-6]. `key` must be
    /// that of [`Signature::key`], and was refused already if it is of small order.
    ///
    /// The same as `verify_strict`, which takes the point R apart to see its order. `verify`
    /// computes R and compares octets, so that R is canonical, and what it would be taken apart for
    /// stands in a table.
    pub(crate) fn holds(&self, key: &VerifyingKey, signed_part: &[u8]) -> bool {
        let small_order = SMALL_ORDER.iter().any(|point| self.octets[..32] == *point);
        let octets = ed25519_dalek::Signature::from_bytes(&self.octets);
        let holds = || key.verify(signed_part, &octets).is_ok();
        #[cfg(feature = "simulated")]
        let holds = || {
            let of = [key.as_bytes(), &self.octets[..], signed_part];
            crate::simulated::remembered(&of, holds)
        };
        !small_order && holds()
    }
}

impl FromStr for Signature {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let wrong = || KeyError::Signature(text.into());
        let (key, base64) = text.split_once(' ').ok_or_else(wrong)?;
        let octets = decode(base64).ok_or_else(wrong)?;
        Ok(Self {
            key: key.parse()?,
            octets,
        })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.key)?;
        encode(&self.octets, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn attack_06_weak_and_non_canonical_keys_are_refused() {
        // Small order: the identity, the point of order 2, one of order 8; non-canonical: y = p +
        // 1; off the curve: y = 2.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut order2 = [0xff; 32];
        (order2[0], order2[31]) = (0xec, 0x7f);
        let mut above_p = [0xff; 32];
        (above_p[0], above_p[31]) = (0xee, 0x7f);
        let mut off = [0; 32];
        off[0] = 2;
        for octets in [[0; 32], identity, order2, above_p, off] {
            assert!(
                matches!(PublicKey(octets).to_verifying_key(), Err(KeyError::Weak(_))),
                "{octets:?}"
            );
        }
    }

    /// Signatures that a holder of the key made so that lenient verifiers take them: R of small
    /// order, R with a part of small order; and what anybody can do to a good one.
    #[test]
    fn attack_06_a_signature_holds_if_and_only_if_the_strict_rules_say_so() {
        use curve25519_dalek::{EdwardsPoint, Scalar, constants::EIGHT_TORSION};
        use ed25519_dalek::hazmat::ExpandedSecretKey;
        use sha2::{Digest, Sha512};
        assert_eq!(
            SMALL_ORDER,
            EIGHT_TORSION.map(|point| point.compress().to_bytes())
        );
        let signing = SigningKey::from_bytes(&[7; 32]);
        let (key, secret) = (
            signing.verifying_key(),
            ExpandedSecretKey::from(signing.as_bytes()).scalar,
        );
        let make = |nonce: Scalar, torsion: EdwardsPoint, text: &[u8]| {
            let r = (EdwardsPoint::mul_base(&nonce) + torsion)
                .compress()
                .to_bytes();
            let hash = Sha512::new()
                .chain_update(r)
                .chain_update(key.as_bytes())
                .chain_update(text);
            let s = nonce + Scalar::from_bytes_mod_order_wide(&hash.finalize().into()) * secret;
            let mut octets = [0; 64];
            octets[..32].copy_from_slice(&r);
            octets[32..].copy_from_slice(s.as_bytes());
            octets
        };
        let (mut held, mut lenient) = (0, 0);
        for number in 0..64_u8 {
            for torsion in EIGHT_TORSION {
                let text = [number; 40];
                let nonces = [Scalar::ZERO, Scalar::from(u64::from(number) + 1)];
                let crafted = nonces.map(|nonce| make(nonce, torsion, &text));
                let mut spoilt = signing.sign(&text).to_bytes();
                spoilt[usize::from(number)] ^= 1;
                for octets in crafted
                    .into_iter()
                    .chain([signing.sign(&text).to_bytes(), spoilt])
                {
                    let theirs = ed25519_dalek::Signature::from_bytes(&octets);
                    let holds = Signature {
                        key: PublicKey::of(&signing),
                        octets,
                    }
                    .holds(&key, &text);
                    assert_eq!(holds, key.verify_strict(&text, &theirs).is_ok());
                    held += u32::from(holds);
                    lenient += u32::from(key.verify(&text, &theirs).is_ok());
                }
            }
        }
        // Each round has two good ones; R = identity is what the lenient rule takes besides.
        assert_eq!((held, lenient), (64 * (8 + 1), 64 * (8 + 1 + 1)));
    }

    #[test]
    fn text_is_canonical() {
        let key = PublicKey::of(&SigningKey::from_bytes(&[7; 32]));
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key));
        assert!(alloc::format!("{text}=").parse::<PublicKey>().is_err());
        // 43 characters carry 258 bits: the last two must be zero.
        let mut other = text.clone();
        let last = other.pop().unwrap();
        other.push(char::from(last as u8 + 1));
        assert!(other.parse::<PublicKey>().is_err());
    }
}
