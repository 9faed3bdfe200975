//! The broker's own limits; those of the protocol are in `tidings_protocol::limits`.
//!
//! Those that an operator may want to change are defaults of the configuration and named there too.

use std::time::Duration;

/// Statements that wait for the writer; more publishers wait before it.
pub const APPEND_QUEUE: usize = 4096;
/// Statements that share one commit.
pub const APPEND_BATCH: usize = 1024;
/// Octets of a segment of the store. The next one is made ahead: with less room, publishing is
/// refused and everything else goes on.
pub const SEGMENT_OCTETS: u32 = 64 * 1024 * 1024;
/// Octets that are saved from the oldest segment of the store with one commit.
pub const SAVED_OCTETS: usize = 256 * 1024;
/// Statements of a channel that are kept in memory for a minute after they came; older ones are
/// read from the store.
pub const TAIL_ENTRIES: usize = 64;
/// Octets of those.
pub const TAIL_OCTETS: usize = 1024 * 1024;
/// How often the signer of beats looks whether there are new channels.
pub const BEAT_LOOK: Duration = Duration::from_secs(1);
/// A new head is named early, at most so many times in the period of beats.
pub const BEAT_EARLY: u32 = 10;
/// From how much of the room for heads on its signer complains, in percent.
pub const BEAT_FULL_PERCENT: usize = 80;
/// After how long it tries again, if a beat could not be signed.
pub const BEAT_RETRY: Duration = Duration::from_secs(10);
/// Articles of one connection that are refused before it is closed (attacks 44 and 67).
pub const REFUSALS: u32 = 1_000;
/// Times at which a gap in a channel was filled that are remembered for those who ask what is new
/// since.
pub const JOINED: usize = 64;
/// Octets of statements that peers have sent before what lies below them; what would be more has to
/// be sent again.
pub const FEED_WAITING_OCTETS: usize = 16 * 1024 * 1024;
/// How far ahead of what a peer was promised a statement is wanted that it offers by CHECK.
pub const FEED_AHEAD: u32 = 64;
/// After how long a peer is stalled that sends no more before it has answers.
pub const FEED_STALL: Duration = Duration::from_secs(1);
/// Statements of one peer that are being stored while it sends more.
pub const FEED_ABREAST: usize = 256;
/// Statements that are offered to one peer and not answered yet.
pub const FEED_WINDOW: usize = 256;
/// After how long something is offered again that a peer has put off.
pub const FEED_AGAIN: Duration = Duration::from_secs(5);
/// The longest time after which that is, doubled each time.
pub const FEED_AGAIN_LAST: Duration = Duration::from_secs(300);
/// The longest pause before a peer that cannot be reached is tried again.
pub const FEED_PAUSE: Duration = Duration::from_secs(60);
/// How often the cursors of a feed are written.
pub const FEED_CURSORS: Duration = Duration::from_secs(1);
/// For how long a peer that has nothing to be offered is kept connected.
pub const FEED_IDLE: Duration = Duration::from_secs(60);
/// Characters of what others have said that a line of the log has at most.
pub const LOGGED_CHARACTERS: usize = 300;
/// Logins from one address that may fail within [`LOGIN_WINDOW`]; then nobody gets in from there by
/// a password.
pub const LOGINS_OF_ADDRESS: u32 = 20;
/// For how long failed logins count.
pub const LOGIN_WINDOW: Duration = Duration::from_secs(600);
/// Addresses whose failed logins are counted.
pub const LOGIN_ADDRESSES: usize = 10_000;
/// Logins of one connection that may fail.
pub const LOGINS: u32 = 5;
/// How long the answer to one takes.
pub const LOGIN_PAUSE: Duration = Duration::from_millis(500);
/// Files of evidence of one channel.
pub const FORKS_OF_CHANNEL: usize = 8;
/// Octets of one file of evidence, but for what completes its last statement.
pub const FORK_OCTETS: usize = 16 * 1024 * 1024;
/// How often damaged statements are asked for.
pub const REPAIR: Duration = Duration::from_secs(5);
/// How long one broker may take to send them.
pub const REPAIR_PATIENCE: Duration = Duration::from_secs(30);
/// How long a peer may take to say at our start what it has; then it is not waited for.
pub const RESTORE_PATIENCE: Duration = Duration::from_secs(5);
/// The pause before a broker is compared with once more.
pub const RESTORE_AGAIN: Duration = Duration::from_secs(2);
/// Statements of a log that a mirror reads and stores at once; the unit in which an interrupted
/// backfill goes on.
pub const MIRROR_CHUNK: u32 = 256;
/// How often a mirror looks at everything that an upstream has, although it is being told.
pub const MIRROR_AUDIT: Duration = Duration::from_secs(60);
/// The longest pause before an upstream that has failed is tried again.
pub const MIRROR_PAUSE: Duration = Duration::from_secs(30);
/// After how long without a chunk stored another upstream may fill a channel too.
pub const MIRROR_CLAIM: Duration = Duration::from_secs(15);
/// When a channel is looked at again that could not be filled for a reason of our own.
pub const MIRROR_AGAIN: Duration = Duration::from_secs(5);
/// For how long a channel is not asked of an upstream that had it wrong.
pub const MIRROR_AVOID: Duration = Duration::from_secs(300);
/// After how long an upstream that is behind others is complained about.
pub const MIRROR_LAG: Duration = Duration::from_secs(180);
/// Channels of one upstream whose newest statements are under way at once.
pub const MIRROR_ABREAST: usize = 64;
/// How long a statement that is being published waits for the cluster, if it is not known whether
/// it was stored.
pub const CLUSTER_PATIENCE: Duration = Duration::from_secs(10);
/// Statements that wait to be settled; more publishers wait before them.
pub const CLUSTER_QUEUE: usize = 4_096;
/// Statements that are settled by one multi-operation; the next ones wait for another.
pub const CLUSTER_BATCH: usize = 512;
/// Nodes of what was settled that go with one multi-operation; the others go with later ones.
pub const CLUSTER_FORGOTTEN: usize = 16;
/// Octets of one multi-operation, about: half of what ZooKeeper takes by default
/// (`jute.maxbuffer`).
pub const CLUSTER_BATCH_OCTETS: usize = 512 * 1024;
/// What an operation has more than its data, about, in octets: its path and its ACL.
pub const CLUSTER_OP_OCTETS: usize = 256;
/// For how long batches are smaller after the connection broke with one.
pub const CLUSTER_BATCH_AGAIN: Duration = Duration::from_secs(60);
/// From when on the servers count as slow.
pub const CLUSTER_SLOW: Duration = Duration::from_secs(1);
/// What was settled at once is one node, and the servers keep so many of them: their names are read
/// at once, and ZooKeeper's answers have at most a mebibyte.
pub const CLUSTER_KEPT_NODES: usize = 8_192;
/// And so many octets in them; the oldest go first.
pub const CLUSTER_KEPT_OCTETS: usize = 32 * 1024 * 1024;
/// Channels that are looked at each second, in turn: whether the tree has what the member has.
pub const CLUSTER_LOOK: usize = 64;
/// Nodes that are read by one request.
pub const CLUSTER_READS: usize = 32;
/// The pause before a statement that is being published, or a round of following that was broken
/// off, is tried again.
pub const CLUSTER_RETRY: Duration = Duration::from_millis(20);
/// How long a statement that is being published waits for the next round of following.
pub const CLUSTER_ROUND: Duration = Duration::from_millis(500);
/// How long the answer to a publisher waits, after the cluster has stored a statement, until it is
/// visible at this broker.
pub const CLUSTER_FOLLOW: Duration = Duration::from_secs(1);
/// How often a member looks at the others, and says that it is there.
pub const CLUSTER_TICK: Duration = Duration::from_secs(1);
/// The pause before a cluster that cannot be joined is tried again.
pub const CLUSTER_PAUSE: Duration = Duration::from_secs(2);
/// After how long a channel is looked at again that could not be followed.
pub const CLUSTER_AGAIN: Duration = Duration::from_secs(5);
/// How often the servers are asked for the sake of somebody who is ahead of us.
pub const CLUSTER_ASK: Duration = Duration::from_millis(100);
/// After how long a channel that no live member can fill is complained about, and a member that
/// lacks some takes over beats that nobody signs.
pub const CLUSTER_GAP: Duration = Duration::from_secs(60);
/// How often it is looked whether what was forgotten has been filled.
pub const CLUSTER_SOON: Duration = Duration::from_millis(200);
/// Nodes whose reads are under way at once.
pub const CLUSTER_ABREAST: usize = 256;
/// Channels of a cluster: their names are read at once, and ZooKeeper's answers have at most a
/// mebibyte.
pub const CLUSTER_CHANNELS: usize = 10_000;
/// How far the clocks of a broker and of the ensemble may be apart; with more, it signs no beats.
pub const CLUSTER_CLOCK: Duration = Duration::from_secs(60);
/// Nodes of a group whose order of asking is remembered; those that come later are the last.
pub const SLOT_WAITERS: usize = 1_024;
/// How often the lease of one slot begins anew.
pub const SLOT_RENEWALS: u32 = 4;
/// How long the answer to a request that may change a group takes at least.
pub const SLOT_PAUSE: Duration = Duration::from_millis(20);
/// The same for a node that takes the slot that it has: it does so once after a reboot.
pub const SLOT_RETAKE_PAUSE: Duration = Duration::from_millis(200);
/// Requests about a group that are settled together; more wait before they are read.
pub const SLOT_QUEUE: usize = 256;
/// For how long a request about a slot is held; one that asks for more is refused.
pub const SLOT_WAIT: Duration = Duration::from_secs(120);
/// HTTP connections to the admin port; one more ends the oldest.
pub const ADMIN_CONNECTIONS: usize = 32;
/// How often it is looked how each channel stands, however many operators ask.
pub const BOARD_PERIOD: Duration = Duration::from_secs(1);
/// Status pages that are kept up to date at once; one more is told to ask instead.
pub const STATUS_STREAMS: usize = 16;
/// How often a status page is told how things stand although nothing has become visible.
pub const STATUS_HEARTBEAT: Duration = Duration::from_secs(5);
/// Channels that `/status` shows unless it is asked for fewer or more.
pub const STATUS_ROWS: usize = 100;
/// The most that it shows; for more it is asked again, with `after`.
pub const STATUS_ROWS_MOST: usize = 1_000;
/// Characters of a filter; a longer one is refused.
pub const STATUS_FILTER: usize = 128;
/// Files of evidence that `/status` shows, the newest.
pub const STATUS_EVIDENCE: usize = 100;
/// Octets of a file of evidence that can be had from the admin port; a larger one is taken from
/// the data directory.
pub const STATUS_EVIDENCE_OCTETS: u64 = 2 * FORK_OCTETS as u64;
/// Nodes of each list of a group of slots that `/status` shows.
pub const STATUS_NODES: usize = 50;
/// Ways of statements that `/status` shows.
pub const STATUS_WAYS: usize = 64;
/// Events of a group that are remembered.
pub const SLOT_HISTORY: usize = 256;
/// After how long a node loses its place whose request no broker holds any more.
pub const SLOT_PATIENCE: Duration = Duration::from_secs(15);
/// How often a decision about a group is made again, since another broker was quicker.
pub const SLOT_RACES: u64 = 32;
/// How often it is looked whether leases have run out, and the places of held requests are kept.
pub const SLOT_SWEEP: Duration = Duration::from_secs(5);
/// The body of an HTTP request.
pub const HTTP_BODY_OCTETS: usize = 16 * 1024;
/// How long the headers of an HTTP request may take, and a TLS handshake before them.
pub const HTTP_HEADERS: Duration = Duration::from_secs(10);
/// How long an HTTP connection may last.
pub const HTTP_CONNECTION: Duration = Duration::from_secs(300);
/// How often retention is applied and tails are shortened.
pub const SWEEP: Duration = Duration::from_secs(60);
/// Statements that retention removes in one turn, before others have theirs.
pub const SWEEP_STATEMENTS: u32 = 1_024;
/// Logs that it looks at in one turn.
pub const SWEEP_LOGS: usize = 256;
/// Channels in all; a statement that would begin another is refused.
pub const CHANNELS: usize = 100_000;
/// Events that go out in one write.
pub const WATCH_GATHER: usize = 16;
/// Octets that go out in one write under TLS, where they are copied.
pub const WATCH_GATHER_TLS_OCTETS: usize = 16 * 1024;
/// Of how many channels an upstream is asked in one look for what a checkpoint names.
pub const NAMED_ABREAST: usize = 256;
/// How long a watch loop hands out before threads that wait for its processor have their turn.
pub const WATCH_SLICE: Duration = Duration::from_micros(250);
/// Events that a subscriber who is far behind gets before the next one has its turn.
pub const WATCH_TURN: usize = 256;
/// Patterns of a wildmat.
pub const WILDMAT_PATTERNS: usize = 16;
/// Targets of a watch.
pub const WATCH_TARGETS: usize = 64;
/// Octets that are looked at for a connection before others have their turn.
pub const TURN_OCTETS: usize = 64 * 1024;
/// Channels that are looked at in one go, with none of them held.
pub const PAGE_LOGS: usize = 256;
/// Octets of all statements that are kept in memory, rendered; the oldest go first (attack 105).
pub const TAILS_OCTETS: usize = 32 * 1024 * 1024;
/// Channels that one watch follows.
pub const WATCH_CHANNELS: usize = 16_384;
/// How long a subscriber may take no octet before it is disconnected.
pub const WATCH_STALL: Duration = Duration::from_secs(600);
/// Octets of output that a session gathers before it writes.
pub const OUTPUT_OCTETS: usize = 64 * 1024;
/// Room for what a client sends that a session keeps while it waits.
pub const INPUT_OCTETS: usize = 8 * 1024;
/// How long one write to a client may make no progress.
pub const WRITE: Duration = Duration::from_secs(60);
/// How long an article may take to arrive after 340.
pub const ARTICLE: Duration = Duration::from_secs(60);
/// How long sessions may go on after SIGTERM.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How often a certificate that is about to end is pointed out.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(86_400);
/// How often it is said that connections cannot be accepted, for as long as that lasts.
pub const ACCEPT_COMPLAINT: Duration = Duration::from_secs(60);
/// How long accepting pauses when the process or the machine has no file descriptor left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After how long of silence TCP asks whether the other end is still there, and how often, and how
/// many times.
pub const KEEPALIVE: (Duration, Duration, u32) =
    (Duration::from_secs(120), Duration::from_secs(30), 4);
/// File descriptors beside those of connections, one for each segment of the store among them.
pub const SPARE_FILES: u64 = 4096;
/// The earliest time that a clock can rightly show, 2026-01-01; below, it is not set.
pub const CLOCK_FLOOR_SECONDS: u64 = 1_767_225_600;
