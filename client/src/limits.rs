//! The client's own limits; those of the protocol are in `tidings_protocol::limits`.

use std::time::Duration;

/// How long a connection, its TLS handshake included, may take to stand.
pub const CONNECT: Duration = Duration::from_secs(10);
/// How long a name server may take of that to say where a broker is.
pub const RESOLVE: Duration = Duration::from_secs(5);
/// After how long the next address of a broker is tried beside the one before (RFC 8305).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long a broker that has taken a connection may take to greet.
pub const GREETING: Duration = Duration::from_secs(10);
/// How long a broker may take for the next octets of an answer.
pub const SILENCE: Duration = Duration::from_secs(30);
/// How long one whole answer may take (attack 19).
pub const ANSWER: Duration = Duration::from_secs(300);
/// How much longer than promised a watch may be silent, for the way.
pub const WATCH_GRACE: Duration = Duration::from_secs(15);
/// How long a broker that ends a watch has to say why.
pub const FAREWELL: Duration = Duration::from_secs(1);
/// Requests under way at once while a backlog is read.
pub const PIPELINE: usize = 64;
/// Trust statements that are read before they are verified.
pub const TRUST_CHUNK: u32 = 64;
/// Octets of statements that are read at once to catch up.
pub const BACKLOG_OCTETS: usize = 64 * 1024 * 1024;
/// How long asking one broker for everything may take (attack 19).
pub const ASK: Duration = Duration::from_secs(600);
/// A watch that ends sooner, and has told nothing, counts as a failure.
pub const WATCH_WORTHWHILE: Duration = Duration::from_secs(60);
/// The first pause after every broker has failed; it doubles, with full jitter.
pub const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest such pause.
pub const RETRY_LAST: Duration = Duration::from_secs(300);
/// How often a device asks where it cannot be told; with jitter.
pub const POLL: Duration = Duration::from_secs(300);
/// How often a device asks although it is being told, and looks whether nothing was held back
/// (attack 18).
pub const AUDIT: Duration = Duration::from_secs(3600);
/// A state file.
pub const STATE_OCTETS: u64 = 64 * 1024 * 1024;
/// How long a state file that another program is writing is waited for.
pub const STATE_LOCK: Duration = Duration::from_secs(10);
/// How often it is looked whether it has done so.
pub const STATE_LOCK_AGAIN: Duration = Duration::from_millis(10);
/// A file of statements, one after the other.
pub const BUNDLE_OCTETS: u64 = 64 * 1024 * 1024;
/// How long looking at one of several brokers may take, twice: for its trust, and for its heads.
pub const LOOK: Duration = Duration::from_secs(60);
/// How long a program waits for another one that publishes to the same channel on this machine.
pub const OUTBOX_LOCK: Duration = Duration::from_secs(30);
/// Places of a channel for which a machine remembers what it has signed.
pub const SIGNED: usize = 256;
/// When slot servers that could not decide are asked again.
pub const SLOT_RETRY: Duration = Duration::from_secs(2);
/// When one is asked again that says that others are before this node, and does not hold requests.
pub const SLOT_AGAIN: Duration = Duration::from_secs(10);
/// For how long one request about a slot is held; the next one follows at once.
pub const SLOT_HOLD: Duration = Duration::from_secs(60);
/// An answer of a slot server.
pub const SLOT_ANSWER_OCTETS: usize = 1024 * 1024;
