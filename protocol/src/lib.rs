//! Statements, trust, logs and the NNTP profile of Tidings, as pure functions of octets and time.
//!
//! ```text
//! octets → statement → Verified<Statement> → log → View    (spec part 1, 5, 6)
//!                  ↘ article ↔ nntp                        (spec part 4, 8)
//! ```
//!
//! Nothing here opens a socket or a file, reads a clock or draws a random number. Without the
//! default feature `std` the crate is `no_std` and needs `alloc` only.
//!
//! ```
//! use tidings_protocol::{Channel, Statement};
//! let channel: Channel = "baserock.os.stable".parse()?;
//! assert!(Statement::parse(b"not a statement").is_err());
//! # assert_eq!(channel.to_string(), "baserock.os.stable");
//! # Ok::<(), tidings_protocol::NameError>(())
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
extern crate alloc;

pub mod article;
pub mod batch;
pub mod beat;
pub mod bundle;
pub mod limits;
pub mod log;
pub mod nntp;
pub mod rollout;
#[cfg(feature = "simulated")]
pub mod simulated;
pub mod slot;
pub mod statement;
pub mod trust;
pub mod verify;
pub mod view;

mod id;
mod keys;
mod name;
mod requirement;
mod time;
mod wildmat;

pub use id::{Digest, Head, IdError, MessageId, Serial, StatementId};
pub use keys::{KeyError, PublicKey, Signature, SigningKey};
pub use name::{Anchor, Channel, NameError, Namespace, Pattern};
pub use requirement::Requirement;
pub use statement::{Statement, StatementError};
pub use time::{TimeError, Timestamp};
pub use verify::Verified;
pub use view::View;
pub use wildmat::{Wildmat, WildmatError};

/// Whether octets are printable ASCII, blanks included: looked at all at once, as most are.
fn is_printable(octets: &[u8]) -> bool {
    let other = |octet: &u8| !(b' '..0x7f).contains(octet);
    !octets.iter().fold(false, |any, octet| any | other(octet))
}
