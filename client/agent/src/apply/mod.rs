//! The applier: root, without network. It believes the agent nothing: it verifies statements from
//! its own anchor, with what it remembers itself, takes a payload's octets into a place of its own,
//! verifies those, and only then calls a handler.
//!
//! It is asked in one line, `VERB CHANNEL SERIAL N`: the N-th `Payload` line, from 0, of the
//! release with that serial.

mod payload;
mod request;
mod trials;

pub use request::{REQUEST_OCTETS, Request, Verb, read_request};

use std::{
    fs,
    io::{self, Read},
    os::fd::AsFd,
    path::PathBuf,
};

use anyhow::{Context, bail, ensure};
use payload::open_theirs;
use rustix::io::{FdFlags, fcntl_setfd};
use tidings_client::{Body, Channel, Clear, Profile, Release, State, Statement, Verified};
use tidings_protocol::{
    Digest, bundle,
    statement::{Apply, Payload},
};

use crate::{
    config::{Config, Way},
    handler::{Answer, Call, DONE, FAILED, Handlers, LATER},
    journal::Point,
    round::Fact,
};

/// What the agent may hand over for one channel.
const NEWS_OCTETS: u64 = 64 * 1024 * 1024;

/// Answers requests, one after the other.
pub struct Applier {
    config: Config,
    profile: Profile,
    state: State,
    handlers: Handlers,
    boot: String,
    point: Point,
    /// Handlers inherit it: as long as one lives, no other applier begins.
    _lock: fs::File,
}

/// What a request is about, verified.
struct Case {
    request: Request,
    statement: Statement,
    release: Release,
    payload: Payload,
    /// The log that was handed over.
    log: Vec<Verified<Statement>>,
    /// Why what was handed over is not believed, or not all of it.
    trouble: String,
    place: PathBuf,
}

impl Applier {
    /// One for this life of the machine, and this state.
    ///
    /// # Errors
    /// If another one is at work, or its own directory cannot be used.
    pub fn new(config: Config, state: State, boot: String, point: Point) -> anyhow::Result<Self> {
        let own = &config.paths.applier;
        let lock = fs::File::options()
            .create(true)
            .append(true)
            .open(own.join("lock"))?;
        let free = tidings_client::file::try_lock(&lock, &own.join("lock"), false)?;
        ensure!(
            free,
            "another applier, or a handler of it, is still at work"
        );
        fcntl_setfd(lock.as_fd(), FdFlags::empty())?;
        let handlers = Handlers::new(&config.paths.etc, &config.paths.lib);
        Ok(Self {
            profile: config.profile()?,
            config,
            state,
            handlers,
            boot,
            point,
            _lock: lock,
        })
    }

    /// The same with another `PATH` for handlers.
    #[must_use]
    pub fn with_path(mut self, path: String) -> Self {
        self.handlers.path = path;
        self
    }

    /// Does what it is asked for, if that was signed and is due.
    pub fn answer(&mut self, line: &str) -> Answer {
        let Some(request) = Request::read(line) else {
            return Answer::new(FAILED, "a request is VERB CHANNEL SERIAL N");
        };
        self.serve(request).unwrap_or_else(|error| {
            let full = error.chain().any(|cause| {
                cause
                    .downcast_ref::<io::Error>()
                    .is_some_and(|e| e.kind() == io::ErrorKind::StorageFull)
            });
            Answer::new(if full { LATER } else { FAILED }, format!("{error:#}"))
        })
    }

    fn serve(&mut self, request: Request) -> anyhow::Result<Answer> {
        ensure!(
            self.config.channels.contains(&request.channel),
            "{} is none of this machine's channels",
            request.channel
        );
        let case = self.case(request)?;
        if let Err(why) = self.permit(&case) {
            return Ok(Answer::new(
                LATER,
                format!("not now: {why}{}", case.trouble),
            ));
        }
        match case.request.verb {
            Verb::Stage => self.stage(&case),
            Verb::Go => self.go(&case),
            Verb::Arm => {
                self.note_trial(&case)?;
                self.format(&case, "arm", None)
            }
            Verb::Keep => {
                let answer = self.format(&case, "keep", None)?;
                if answer.is_done() {
                    self.note_applied(&case)?;
                }
                Ok(answer)
            }
            Verb::Drop => {
                let answer = self.format(&case, "drop", None)?;
                if answer.is_done() && case.place.exists() && self.fact(&case)? == Some(Fact::None)
                {
                    fs::remove_dir_all(&case.place)?;
                    (self.point)("its place is gone");
                }
                Ok(answer)
            }
            verb => self.format(&case, verb.as_str(), None),
        }
    }

    /// Takes what was handed over, and finds the release: in the log, or, if it was begun, in its
    /// own place.
    fn case(&mut self, request: Request) -> anyhow::Result<Case> {
        let (log, trouble) = match self.learn(&request.channel) {
            Ok(log) => (log, String::new()),
            Err(error) => (Vec::new(), format!(" ({error:#})")),
        };
        let of_channel = self.config.paths.applier.join(request.channel.as_str());
        let place = of_channel.join(request.serial.to_string());
        let begun = fs::read(place.join("statement"))
            .ok()
            .and_then(|octets| Statement::parse(&octets).ok());
        let listed = log
            .iter()
            .find(|statement| statement.serial() == request.serial)
            .map(|found| Statement::clone(found));
        // What was begun is what the place is of; a release that another one displaced is still
        // dropped, and nothing else.
        let statement = begun.or(listed).with_context(|| {
            format!(
                "{} {} is not proven here{trouble}",
                request.channel, request.serial
            )
        })?;
        let Body::Release(release) = statement.body().clone() else {
            bail!("{} is no release", request.serial)
        };
        let payload = release
            .payloads
            .get(request.payload)
            .context("it has no such payload")?
            .clone();
        Ok(Case {
            request,
            statement,
            release,
            payload,
            log,
            trouble,
            place,
        })
    }

    /// Reads what the agent has handed over; trust, beats and withdrawals are remembered.
    fn learn(&mut self, channel: &Channel) -> anyhow::Result<Vec<Verified<Statement>>> {
        let path = self.config.paths.agent.join("hand").join(channel.as_str());
        let mut octets = Vec::new();
        open_theirs(&path)?
            .take(NEWS_OCTETS)
            .read_to_end(&mut octets)?;
        let all =
            bundle::parse(&octets).with_context(|| format!("{} is no bundle", path.display()))?;
        let trust_log = self.state.anchor().namespace.trust_log();
        let (trust, rest): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|statement| *statement.channel() == trust_log);
        let (beats, run): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|statement| statement.channel().is_beat());
        let learnt = self.state.change(|view, now| -> anyhow::Result<_> {
            let known = view.trust().map(|trust| trust.serial());
            let first = view.anchor().head.serial;
            let next = trust
                .into_iter()
                .filter(|step| known.map_or(step.serial() >= first, |known| step.serial() > known));
            let stepped = view
                .take_trust(next, now)
                .map_err(|(serial, error)| anyhow::anyhow!("trust {serial}: {error}"));
            let mut beat_refused = None;
            for beat in beats {
                if !view.take_settled_beat(beat.clone()) {
                    beat_refused = view
                        .take_beat(beat, now)
                        .err()
                        .map(|error| anyhow::anyhow!("a beat: {error}"))
                        .or(beat_refused);
                }
            }
            let run = view.judge(channel, run)?;
            let log = run.statements.clone();
            let news = view.place(channel, run, false, now)?;
            view.note(&news, now);
            stepped?;
            Ok((log, beat_refused))
        });
        self.state.save()?;
        (self.point)("what was handed over is remembered");
        let (log, beat_refused): (_, Option<anyhow::Error>) = learnt?;
        if let Some(error) = beat_refused {
            tracing::warn!(%error, "not taken");
        }
        Ok(log)
    }

    /// Whether this verb may be carried out now: signed, for this machine, not withdrawn, and due.
    fn permit(&self, case: &Case) -> Result<(), String> {
        let (channel, serial) = (&case.request.channel, case.request.serial);
        let now = self.state.now();
        let clear = || {
            self.state
                .view()
                .clear(channel, &case.log, &self.profile, &now)
                .map_err(|error| error.to_string())
        };
        let finish = || {
            self.state
                .view()
                .may_finish(&case.statement, &case.log, &now)
                .map_err(|error| error.to_string())
        };
        match case.request.verb {
            Verb::State | Verb::Drop => Ok(()),
            Verb::Can | Verb::Stage => match clear()? {
                Clear::Apply(statement) if statement.head() == case.statement.head() => Ok(()),
                Clear::Nothing {
                    next: Some((next, _)),
                    ..
                } if next == serial => finish(),
                _ => Err(format!("{serial} is not the release to run")),
            },
            Verb::Arm => {
                match clear()? {
                    Clear::Apply(statement) if statement.head() == case.statement.head() => {}
                    _ => return Err(format!("{serial} is not the release to run")),
                }
                let time = self.state.time(channel);
                let late = case
                    .release
                    .deadline
                    .is_some_and(|deadline| deadline <= time);
                let opens = self.config.windows.next(time);
                if opens > time && !late {
                    return Err(format!("the next window opens at {opens}"));
                }
                Ok(())
            }
            Verb::Go => match self.fact(case) {
                // The way back from a trial; there is one boot for each trial, and no more trials
                // than there may be.
                Ok(Some(Fact::Running)) => Ok(()),
                Ok(Some(Fact::Armed)) if self.trials_of(case).contains(&self.boot) => finish(),
                Ok(fact) => Err(format!(
                    "it is {}, and was not armed in this life of the machine",
                    fact.map_or("unknown", Fact::as_str)
                )),
                Err(error) => Err(format!("{error:#}")),
            },
            Verb::Keep => match self.trials_of(case).is_empty() {
                true => Err("it was never on trial here".into()),
                false => finish(),
            },
        }
    }

    /// Makes it effective in the weakest way that will do.
    fn go(&mut self, case: &Case) -> anyhow::Result<Answer> {
        let (wanted, units) = match case.release.apply.clone().unwrap_or(Apply::Reboot) {
            Apply::None => (Way::None, Vec::new()),
            Apply::Live => (Way::Live, Vec::new()),
            Apply::Restart(units) => (Way::Restart, units),
            Apply::Kexec => (Way::Kexec, Vec::new()),
            Apply::Reboot => (Way::Reboot, Vec::new()),
        };
        let mut environment = environment(case);
        environment.push(("T_UNITS".into(), units.join(" ")));
        let mut reasons = Vec::new();
        for way in Way::ALL
            .into_iter()
            .filter(|way| *way >= wanted && self.config.ways.contains(way))
        {
            let call = |verb| self.call("apply.d", way.as_str(), verb, &environment, case, None);
            let can = call("can")?;
            if can.is_done() {
                let answer = call("go")?;
                return Ok(Answer::new(
                    answer.code,
                    format!("{} {}", way.as_str(), answer.line),
                ));
            }
            reasons.push(format!("{}: {}", way.as_str(), can.line));
        }
        Ok(Answer::new(
            LATER,
            format!("no way is allowed and possible: {}", reasons.join("; ")),
        ))
    }

    fn fact(&self, case: &Case) -> anyhow::Result<Option<Fact>> {
        Ok(Fact::read(&self.format(case, "state", None)?.line))
    }

    fn format(
        &self,
        case: &Case,
        verb: &str,
        payload: Option<&fs::File>,
    ) -> anyhow::Result<Answer> {
        self.call(
            "format.d",
            &case.payload.format,
            verb,
            &environment(case),
            case,
            payload,
        )
    }

    fn call(
        &self,
        folder: &str,
        name: &str,
        verb: &str,
        environment: &[(String, String)],
        case: &Case,
        payload: Option<&fs::File>,
    ) -> anyhow::Result<Answer> {
        let nowhere = tempfile::tempdir()?;
        let work = case.place.join(format!("work-{}", case.request.payload));
        let statement = nowhere.path().join("statement");
        fs::write(&statement, case.statement.octets())?;
        // Whoever only looks leaves nothing behind.
        let begun = case.place.exists();
        if begun {
            fs::create_dir_all(&work)?;
        }
        let work = if begun {
            work.as_path()
        } else {
            nowhere.path()
        };
        (self.point)(verb);
        let answer = self.handlers.call(&Call {
            folder,
            name,
            verb,
            environment,
            work,
            statement: &statement,
            payload,
        })?;
        (self.point)(verb);
        Ok(answer)
    }
}

fn environment(case: &Case) -> Vec<(String, String)> {
    let payload = &case.payload;
    let pair = |key: &str, value: String| (format!("T_{key}"), value);
    let mut all = vec![
        pair("SERIAL", case.request.serial.to_string()),
        pair("CHANNEL", case.request.channel.to_string()),
        pair("VERSION", case.release.version.clone()),
        pair("FORMAT", payload.format.clone()),
        pair("SIZE", payload.size.to_string()),
        pair("DIGEST", hex(&payload.digest)),
    ];
    all.extend(payload.from.iter().map(|from| pair("FROM", from.clone())));
    all.extend(payload.base.iter().map(|base| pair("BASE", hex(base))));
    all.extend(
        payload
            .result
            .iter()
            .map(|result| pair("RESULT", hex(result))),
    );
    all.extend(payload.mem.iter().map(|mem| pair("MEM", mem.to_string())));
    let name = |key: &String| {
        key.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect::<String>()
    };
    all.extend(
        payload
            .more
            .iter()
            .map(|(key, value)| pair(&format!("X_{}", name(key)), value.clone())),
    );
    all
}

/// A digest without its algorithm, as tools print it.
pub fn hex(digest: &Digest) -> String {
    digest.to_string().trim_start_matches("sha256:").to_owned()
}

/// What a handler that is done answers to `can`: octets.
pub fn cost(answer: &Answer, payload: &Payload) -> Option<u64> {
    (answer.code == DONE).then(|| answer.line.trim().parse().unwrap_or(payload.size))
}

/// The applier of this machine, in this life of it.
///
/// # Errors
/// As [`Applier::new`]; a state that is damaged is not begun anew (attack 87).
pub fn open(config: Config, point: Point) -> anyhow::Result<Applier> {
    let state = State::open(config.paths.applier.join("state"), &config.anchor)?;
    let boot = boot(&config)?;
    Applier::new(config, state, boot, point)
}

/// Which life of the machine this is.
///
/// # Errors
/// If the kernel does not say.
pub fn boot(config: &Config) -> anyhow::Result<String> {
    let path = &config.paths.boot_id;
    Ok(fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .trim()
        .to_owned())
}
