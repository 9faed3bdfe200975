//! The Tidings library for node agents: learn of signed releases by pull or by push, and verify
//! them here.
//!
//! Nobody between the signer and this library is trusted: every statement that it returns is a
//! [`Verified`]`<`[`Statement`]`>`.
//!
//! ```no_run
//! use tidings_client::{Body, Device, Source};
//!
//! # async fn agent() -> Result<(), tidings_client::Error> {
//! let source = Source::new(["nntps://news.example.org"], "baserock 1 sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b")?;
//! let mut device = Device::open(source, ["baserock.os.stable"], "/var/lib/agent/tidings.state")?;
//! for statement in device.poll().await? {
//!     if let Body::Release(release) = statement.body() {
//!         println!("{} {}", statement.serial(), release.version);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The same [`Device`], with the same cursor, can be told instead of asking: [`Device::watch`].

mod address;
mod chance;
mod clearance;
mod clock;
mod connection;
mod delivery;
mod device;
mod dial;
mod error;
mod failure;
pub mod file;
pub mod keys;
pub mod limits;
#[cfg(feature = "manual")]
pub mod manual;
mod outbox;
pub mod pem;
mod poll;
mod publisher;
mod signed;
#[cfg(feature = "simulated")]
pub mod simulated;
mod slots;
mod source;
mod state;
mod survey;
pub mod terminal;
mod tls;

pub use address::{Address, AddressError};
pub use clearance::Clearance;
pub use clock::{Clock, now};
pub use connection::{Connection, Group};
pub use delivery::{Delivered, Delivery, DeliveryError};
pub use device::{Device, Pace, Start, jitter_from};
pub use error::{Error, explain};
pub use failure::Failure;
pub use outbox::{Outbox, OutboxError, OutboxLock, Settled};
pub use publisher::{PublishError, Published, Publisher};
pub use signed::{SignedError, SignedPlaces};
pub use slots::{
    Slot, SlotError, SlotEvent, SlotFailure, SlotHolder, SlotServer, SlotServerError, SlotStatus,
    SlotWaiter, Slots,
};
pub use source::{Source, pauses, pauses_from};
pub use state::{Monitor, State, StateError};
pub use survey::{Lookout, Seen, Survey, list, survey};
pub use tidings_protocol::{
    Anchor, Channel, Head, Serial, Statement, Timestamp, Verified, View,
    statement::{Body, Release, Withdraw},
    view::{
        Fork, Now,
        clearance::{Clear, NotNow, Profile},
        freshness::Freshness,
    },
};
pub use tls::{Tls, TlsError, io_words, rustls_words};
