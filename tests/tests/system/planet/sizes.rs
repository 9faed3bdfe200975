//! What is sent, in octets: statements that the product's own code makes, in the articles that it
//! makes of them, and the answers that a broker gives to who asks.

use tidings_protocol::{
    Channel, Head, MessageId, Namespace, Serial, Statement, StatementId, Timestamp, article,
    beat::{self, Round},
    limits::HEARTBEAT_SECONDS,
    statement::{Apply, Body, Draft, Payload, Release, Rollout, Urgency},
};
use tidings_tests::realm::{key, rules, sign};

/// Who serves, from the origin down: what `Path` has in front at the one who is served.
const NAMES: [&str; 4] = [
    "origin.example.org",
    "first-01.example.org",
    "second-01.example.org",
    "edge-0001.example.org",
];
/// After a year of a release an hour.
const SERIAL: u32 = 8_760;
/// As many beats, and more.
const BEAT_SERIAL: u32 = 200_000;
/// What a broker says first, and to CAPABILITIES.
const GREETING: &str = "200 edge-0001.example.org Tidings broker ready\r\n";
const CAPABILITIES: &str = "101 capabilities follow\r\nVERSION 2\r\nIMPLEMENTATION Tidings 0.1.0\r\n\
    HDR\r\nLIST ACTIVE ACTIVE.TIMES COUNTS HEADERS NEWSGROUPS OVERVIEW.FMT SUBSCRIPTIONS\r\n\
    NEWNEWS\r\nOVER MSGID\r\nPOST\r\nREADER\r\nXWATCH\r\n.\r\n";

/// Octets of what goes over a line, for each tier that is served.
pub(crate) struct Sizes {
    /// Events of a watch.
    pub(crate) release: [f64; 4],
    pub(crate) beat: [f64; 4],
    /// The trust statement of a rotation, which settles every channel by the beats of its role.
    pub(crate) trust: [f64; 4],
    /// Statements alone.
    pub(crate) beat_statement: usize,
    pub(crate) trust_statement: usize,
    /// What a device is sent that asks and finds nothing new, from the greeting to the watch.
    pub(crate) ask: f64,
    /// What it is sent that looks at a release: it asks, reads down from the head, and watches.
    pub(crate) install: f64,
    /// The beats that a rotation's checkpoints name, all of them.
    pub(crate) settled_all: f64,
    /// That of its own role, which a device reads.
    pub(crate) settled: f64,
    /// What a mirror is sent that looks at everything and finds nothing new.
    pub(crate) look: f64,
    /// The list alone that it begins with.
    pub(crate) listing: f64,
}

/// How a namespace is divided, and what its releases say.
pub(crate) struct Names {
    pub(crate) namespace: Namespace,
    /// Channels of one role for beats.
    pub(crate) groups: Vec<Vec<Channel>>,
    /// Digits of a product's number.
    pub(crate) width: usize,
    pub(crate) release: Release,
    pub(crate) serial: u32,
    pub(crate) beat_serial: u32,
}

/// Statements that a device reads at a look at a release: what was applied, and the release. A test
/// of the attacks counts them.
pub(crate) const READ: f64 = 2.0;

/// A release with what a fleet wants to be told.
fn release() -> Release {
    let time = Timestamp::from_seconds(1_800_000_000);
    let url = "https://cdn.example.org/acme/p017/machine-00345/2026.11.29-1/image.raw.zst";
    Release {
        version: "2026.11.29-1".into(),
        summary: Some("closes a hole in the resolver".into()),
        details: Some("https://www.example.org/releases/2026.11.29-1".into()),
        urgency: Urgency::Security,
        rollout: Some(Rollout {
            start: time,
            seconds: 3_600,
            spread: Some(600),
            cohort: None,
        }),
        slot: Some("web".into()),
        apply: Some(Apply::Reboot),
        payloads: vec![Payload {
            format: "raw".into(),
            size: 734_003_200,
            digest: tidings_protocol::Digest::of(b"image"),
            url: url.into(),
            from: None,
            base: None,
            result: None,
            mem: None,
            more: vec![],
        }],
        ..Release::default()
    }
}

impl Names {
    /// So many channels, so many of them with one role for beats.
    pub(crate) fn new(namespace: &str, width: usize, channels: usize, group: usize) -> Self {
        let name = |number: usize| {
            let product = number / group;
            format!("{namespace}.p{product:0width$}.machine-{number:05}.stable")
                .parse()
                .unwrap()
        };
        let all: Vec<Channel> = (0..channels).map(name).collect();
        Self {
            namespace: namespace.parse().unwrap(),
            groups: all.chunks(group).map(<[Channel]>::to_vec).collect(),
            width,
            release: release(),
            serial: SERIAL,
            beat_serial: BEAT_SERIAL,
        }
    }

    fn beats(&self, group: usize) -> Channel {
        let Self {
            namespace, width, ..
        } = self;
        format!("{namespace}.p{group:0width$}.beat")
            .parse()
            .unwrap()
    }

    fn roles(&self) -> Vec<String> {
        let fixed = [
            "trust * 1 root".into(),
            "release * 1 ann".into(),
            "withdraw * 1 stop".into(),
        ];
        let Self {
            namespace, width, ..
        } = self;
        let beat = |group| format!("beat {namespace}.p{group:0width$}.* 1 beat");
        fixed
            .into_iter()
            .chain((0..self.groups.len()).map(beat))
            .collect()
    }

    /// The trust statement, with a checkpoint of each beat channel or none.
    pub(crate) fn trust(&self, rotated: bool) -> Statement {
        let settled: Vec<(Channel, Head)> = (0..self.groups.len())
            .filter(|_| rotated)
            .map(|group| (self.beats(group), head(self.beat_serial)))
            .collect();
        let settled: Vec<(&Channel, Head)> = settled.iter().map(|(c, head)| (c, *head)).collect();
        let roles = self.roles();
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        let body = Body::Trust(rules(&roles, time().plus(365 * 86_400), &settled));
        let draft = Draft {
            channel: self.namespace.trust_log(),
            after: rotated.then(|| head(1)),
            time: time(),
            trust: None,
            body,
        };
        sign(&draft, &["root"])
    }

    /// A release of the first channel.
    pub(crate) fn release(&self) -> Statement {
        let draft = Draft {
            channel: self.groups[0][0].clone(),
            after: (self.serial > 1).then(|| head(self.serial - 1)),
            time: time(),
            trust: Some(Serial::FIRST),
            body: Body::Release(self.release.clone()),
        };
        sign(&draft, &["ann"])
    }

    /// A beat that names all channels of a role, as the product's signer makes it.
    pub(crate) fn beat(&self, group: usize) -> Statement {
        let channels = self.groups[group].iter();
        let heads: Vec<(Channel, Head)> = channels
            .map(|channel| (channel.clone(), head(self.serial)))
            .collect();
        let plan = beat::plan((self.namespace.trust_log(), head(1)), &[], &heads);
        assert!(plan.left_out.is_empty(), "a beat has no room for a group");
        let round = Round {
            channel: self.beats(group),
            after: (self.beat_serial > 1).then(|| head(self.beat_serial - 1)),
            time: time(),
            life: 900,
            trust: Serial::FIRST,
        };
        beat::sign(round, plan.heads, &key("beat")).unwrap()
    }

    /// How many channels of these names fit one beat.
    pub(crate) fn room(&self) -> usize {
        let named = |number: usize| {
            let name = format!("{}.p000.machine-{number:05}.stable", self.namespace);
            (name.parse().unwrap(), head(self.serial))
        };
        let heads: Vec<(Channel, Head)> = (0..1_000).map(named).collect();
        let plan = beat::plan((self.namespace.trust_log(), head(1)), &[], &heads);
        plan.heads.len() - 1
    }
}

fn time() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

fn head(serial: u32) -> Head {
    Head {
        serial: Serial::new(serial).unwrap(),
        id: StatementId::of(&serial.to_be_bytes()),
    }
}

/// `Path` as those see it who are served by a tier.
fn path(tier: usize) -> String {
    NAMES[..=tier]
        .iter()
        .fold("not-for-mail".to_owned(), |path, name| {
            article::prepend_hop(name, Some(&path))
        })
}

/// An event of a watch: the line that announces it, and the article.
fn event(statement: &Statement, tier: usize) -> f64 {
    let article = article::render(statement, &path(tier));
    let id = statement.message_id();
    let line = format!("{} {id} {}\r\n", statement.serial(), article.lines);
    (line.len() + article.octets.len()) as f64
}

/// The answer to ARTICLE.
fn article(statement: &Statement, path: &str) -> f64 {
    let line = format!("220 {} {}\r\n", statement.serial(), statement.message_id());
    (line.len() + article::render(statement, path).octets.len() + ".\r\n".len()) as f64
}

fn group(channel: &Channel, serial: u32) -> f64 {
    format!("211 {serial} 1 {serial} {channel}\r\n").len() as f64
}

/// GROUP and STAT, in one round trip.
fn group_and_stat(channel: &Channel, serial: u32) -> f64 {
    let id = MessageId {
        channel: channel.clone(),
        serial: Serial::new(serial).unwrap(),
        id: head(serial).id,
    };
    group(channel, serial) + format!("223 {serial} {id}\r\n").len() as f64
}

fn watching() -> f64 {
    format!("290 {HEARTBEAT_SECONDS} watching\r\n").len() as f64
}

/// What a device is sent that has nothing but its anchor and asks for one channel.
pub(crate) fn cold(names: &Names, path: &str) -> f64 {
    let beats = names.beats(0);
    let answers = GREETING.len() as f64
        + group(&names.namespace.trust_log(), 2)
        + group(&beats, names.beat_serial)
        + group(&names.groups[0][0], names.serial);
    answers
        + article(&names.trust(false), path)
        + article(&names.beat(0), path)
        + article(&names.release(), path)
}

/// What a device is sent that was there, and asks after a rotation for the beats of so many roles.
pub(crate) fn rotated(names: &Names, roles: usize, path: &str) -> f64 {
    let beats = names.beats(0);
    group(&names.namespace.trust_log(), 2)
        + article(&names.trust(true), path)
        + settled(names, roles, path)
        + group(&beats, names.beat_serial)
        + article(&names.beat(0), path)
        + group_and_stat(&names.groups[0][0], names.serial)
}

/// Beats of so many roles that checkpoints name.
fn settled(names: &Names, roles: usize, path: &str) -> f64 {
    (0..roles)
        .map(|group| article(&names.beat(group), path))
        .sum()
}

/// What a mirror is sent that looks at all channels and finds nothing new: the list, and that with
/// all answers.
fn look(names: &Names) -> (f64, f64) {
    let beats = (0..names.groups.len()).map(|group| (names.beats(group), names.beat_serial));
    let others = names.groups.iter().flatten();
    let all = others
        .map(|channel| (channel.clone(), names.serial))
        .chain(beats)
        .chain([(names.namespace.trust_log(), 2)]);
    let (mut list, mut answers) = ("215 list follows\r\n.\r\n".len() as f64, 0.0);
    for (channel, serial) in all {
        list += format!("{channel} {serial} 1 n\r\n").len() as f64;
        answers += group_and_stat(&channel, serial);
    }
    (list, list + answers)
}

impl Sizes {
    pub(crate) fn of(names: &Names) -> Self {
        let (release, beat, trust) = (names.release(), names.beat(0), names.trust(true));
        let (listing, look) = look(names);
        let tiers = |statement: &Statement| [0, 1, 2, 3].map(|tier| event(statement, tier));
        let asked = group(&names.namespace.trust_log(), 2)
            + group(&names.beats(0), names.beat_serial)
            + group_and_stat(&names.groups[0][0], names.serial);
        Self {
            release: tiers(&release),
            beat: tiers(&beat),
            trust: tiers(&trust),
            beat_statement: beat.octets().len(),
            trust_statement: trust.octets().len(),
            ask: GREETING.len() as f64 + asked + CAPABILITIES.len() as f64 + watching(),
            install: 2.0 * GREETING.len() as f64
                + 3.0 * asked
                + group(&names.groups[0][0], names.serial)
                + READ * article(&release, &path(3))
                + CAPABILITIES.len() as f64
                + watching(),
            settled_all: settled(names, names.groups.len(), &path(3)),
            settled: settled(names, 1, &path(3)),
            look,
            listing,
        }
    }
}
