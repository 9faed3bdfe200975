//! The tree on paper: how many there are of each, when something is sent, and what that comes to.

use tidings_broker::limits::{BEAT_EARLY, BEAT_LOOK, MIRROR_AUDIT};
use tidings_client::limits::AUDIT;
use tidings_protocol::limits::HEARTBEAT_SECONDS;

use crate::planet::sizes::Sizes;

/// An hour, in seconds.
pub(crate) const HOUR: f64 = 3_600.0;
/// `every_seconds` of a signer of beats: the default in `docs/tidingsd.toml`.
pub(crate) const BEAT_EVERY: f64 = 300.0;
/// When the key for releases is rotated, in seconds of the hour.
pub(crate) const ROTATION: f64 = 1_800.0;
/// When an edge goes down, and for how long.
pub(crate) const DOWN: f64 = 2_700.0;
pub(crate) const AWAY: f64 = 60.0;
/// How often a device looks at a release of its channel: when it is told, when a beat has come that
/// names it, before the machine goes, and when it has come back.
pub(crate) const LOOKS: f64 = 4.0;
/// Seconds over which fetching is spread, as the release says, and after which the machine is well.
pub(crate) const SPREAD: f64 = 600.0;
pub(crate) const HEALTH: f64 = 300.0;
/// Who is served: mirrors of three tiers, and devices.
pub(crate) const SERVED: [&str; 4] = ["first tier", "second tier", "edges", "devices"];

/// A tree of brokers: one origin, three tiers of mirrors, and devices at the lowest.
pub(crate) struct Plan {
    pub(crate) mirrors: [u32; 3],
    /// Brokers that each mirror follows at once.
    pub(crate) upstreams: u32,
    /// Each knows two edges, and is at one of them.
    pub(crate) devices: u32,
    pub(crate) channels: u32,
    /// Channels of one role for beats.
    pub(crate) group: u32,
}

/// Trees that are a planet.
pub(crate) const TREES: u32 = 20;

/// One tree of a planet.
pub(crate) fn tree(group: u32) -> Plan {
    Plan {
        mirrors: [10, 50, 440],
        upstreams: 2,
        devices: 500_000,
        channels: 5_000,
        group,
    }
}

/// A fifth of a tree: its fan-out below the origin, and all its channels.
pub(crate) fn fifth(group: u32) -> Plan {
    Plan {
        mirrors: [2, 10, 88],
        devices: 100_000,
        ..tree(group)
    }
}

/// What one tier is sent in an hour.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Connections that stand at the end of the hour.
    pub(crate) standing: f64,
    /// Connections that were made.
    pub(crate) made: f64,
    /// Events of watches.
    pub(crate) releases: f64,
    pub(crate) beats: f64,
    pub(crate) trust: f64,
    /// Signs of life where nothing else was sent.
    pub(crate) heartbeats: f64,
    /// Octets of all of these.
    pub(crate) told: f64,
    /// Octets of answers: of looks at everything, and of devices that ask or look at a release.
    pub(crate) asked: f64,
    /// Octets of beats that checkpoints name, in `asked` too.
    pub(crate) settled: f64,
}

impl Traffic {
    pub(crate) fn events(&self) -> f64 {
        self.releases + self.beats + self.trust
    }
    pub(crate) fn octets(&self) -> f64 {
        self.told + self.asked
    }
    /// Name, value, and by what part what is counted may differ from what is calculated.
    pub(crate) fn fields(&self) -> [(&'static str, f64, f64); 9] {
        [
            ("standing", self.standing, 0.0),
            ("made", self.made, 0.02),
            ("releases", self.releases, 0.005),
            ("beats", self.beats, 0.02),
            ("trust", self.trust, 0.01),
            ("heartbeats", self.heartbeats, 0.05),
            ("told", self.told, 0.02),
            ("asked", self.asked, 0.02),
            ("settled", self.settled, 0.02),
        ]
    }
}

/// The time from one beat of a role to the next: in its period, or early for a new head, at most
/// each tenth of it. Releases in the channels of the role come at random.
pub(crate) struct Gap {
    every: f64,
    /// The mean time between two releases.
    between: f64,
    pub(crate) mean: f64,
    square: f64,
}

impl Gap {
    pub(crate) fn of(group: u32) -> Self {
        let (early, every) = (BEAT_EVERY / f64::from(BEAT_EARLY), BEAT_EVERY);
        let between = HOUR / f64::from(group);
        let (a, b) = ((-early / between).exp(), (-every / between).exp());
        // A release that comes in between waits for the signer's next look, half of one on average.
        let look = BEAT_LOOK.as_secs_f64() / 2.0;
        let mean = early + (between + look / between.max(1.0)) * (a - b);
        let square =
            early * early + 2.0 * between * ((early + between) * a - (every + between) * b);
        Self {
            every,
            between,
            mean,
            square,
        }
    }
    /// How probable it is that nothing comes for so long.
    pub(crate) fn silence(&self, seconds: f64) -> f64 {
        let (from, to) = (-seconds / self.between, -self.every / self.between);
        self.between * (from.exp() - to.exp()) / self.mean
    }
    /// In an hour, in which a rotation makes one more due.
    pub(crate) fn beats(&self) -> f64 {
        HOUR / self.mean + self.square / (2.0 * self.mean * self.mean)
    }
}

impl Plan {
    pub(crate) fn groups(&self) -> u32 {
        self.channels.div_ceil(self.group)
    }
    /// Lines on which a tier is told: those of each mirror to its upstreams, and of each device.
    pub(crate) fn lines(&self) -> [f64; 4] {
        let [first, second, edges] = self.mirrors.map(|n| f64::from(n * self.upstreams));
        [first, second, edges, f64::from(self.devices)]
    }

    /// What each tier is sent in an hour with a release in each channel, a rotation, and one edge
    /// that restarts.
    pub(crate) fn expected(&self, sizes: &Sizes) -> [Traffic; 4] {
        let lines = self.lines();
        [0, 1, 2, 3].map(|tier| match tier {
            3 => self.devices(sizes),
            _ => self.mirrors(sizes, tier, lines[tier]),
        })
    }

    fn mirrors(&self, sizes: &Sizes, tier: usize, lines: f64) -> Traffic {
        let (releases, groups) = (f64::from(self.channels), f64::from(self.groups()));
        let beats = groups * Gap::of(self.group).beats();
        let told = releases * sizes.release[tier] + beats * sizes.beat[tier] + sizes.trust[tier];
        // One connection to be told on, one to ask on. The edge that restarts makes its own anew.
        let again = if tier == 2 { 2 * self.upstreams } else { 0 };
        Traffic {
            standing: 2.0 * lines,
            made: f64::from(again),
            releases: releases * lines,
            beats: beats * lines,
            trust: lines,
            heartbeats: 0.0,
            told: told * lines,
            asked: lines * HOUR / MIRROR_AUDIT.as_secs_f64() * sizes.look,
            settled: 0.0,
        }
    }

    fn devices(&self, sizes: &Sizes) -> Traffic {
        let (devices, gap) = (f64::from(self.devices), Gap::of(self.group));
        let half = AUDIT.as_secs_f64() / 2.0;
        // From its last look at a release to the next release it asks at most once, since that
        // takes from half of a time to the whole.
        let rest = HOUR - SPREAD / 2.0 - HEALTH;
        let audits = devices * (rest - half) / half;
        // Who was told of the next release after the rotation has read what that has settled; of
        // the others those whose last look was later, or whose pause ended.
        let (last, variance) = (SPREAD / 2.0 + HEALTH, SPREAD * SPREAD / 12.0);
        let pause = ((half - last).powi(2) + variance) / (2.0 * half);
        let read = devices * (HOUR - ROTATION + last + pause) / HOUR;
        // Whose edge restarts asks another one.
        let moved = devices / f64::from(self.mirrors[2]);
        let (asks, looks) = (audits + moved, devices * LOOKS);
        let tick = HEARTBEAT_SECONDS as f64 / 3.0;
        // Whoever comes is not silent in that tick. When it is told of a release it is not anyway,
        // and in the second after.
        let ticks = HOUR / tick - (asks + looks) / devices + 2.0;
        let heartbeats = ticks * gap.silence(tick);
        let (releases, beats) = (1.0, gap.beats());
        let told = releases * sizes.release[3]
            + beats * sizes.beat[3]
            + sizes.trust[3]
            + heartbeats * "0\r\n".len() as f64;
        let settled = read * sizes.settled;
        Traffic {
            standing: devices,
            // A look asks on one connection and reads down from the head on another; that before
            // the machine goes reads alone.
            made: asks + 2.0 * looks - devices,
            releases: devices * releases,
            beats: devices * beats,
            trust: devices,
            heartbeats: devices * heartbeats,
            told: devices * told,
            asked: asks * sizes.ask + looks * sizes.install + settled,
            settled,
        }
    }
}
