//! `tidingsd demo`: the main job on one machine with nothing set up.

mod image;
mod machine;
mod relay;
mod stage;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, pin_mut};
use tidings_client::{
    Body, Device, Error, PublishError, Source, State, Statement, Tls, Verified, terminal::Program,
};
use tidings_protocol::{
    Anchor, Channel,
    statement::{Payload, Urgency},
};
use tokio::time::Instant;
use tokio::{sync::mpsc, time::timeout};

use stage::Stage;
use tidings_broker::limits::DRAIN;

/// How long an announcement may take to arrive before the demonstration has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the polling device asks.
const POLL: Duration = Duration::from_millis(250);

/// What `tidingsd demo` can be told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Make everything in this new directory, publish, print one `key=value` a line and then
    /// `ready`, and stay up until SIGTERM
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// How many releases are published with --keep
    #[arg(long, value_name = "N", default_value_t = 20, requires = "keep")]
    releases: u32,
}

/// Runs the demonstration.
///
/// # Errors
/// If something cannot be set up; what is shown and does not happen as it should ends with exit
/// code 1.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    match options.keep {
        Some(directory) => runtime.block_on(keep(directory, options.releases)),
        None => runtime.block_on(show()),
    }
}

fn say(line: impl std::fmt::Display) {
    Program("tidingsd").line(&line.to_string());
}

async fn keep(directory: PathBuf, releases: u32) -> anyhow::Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let empty = std::fs::read_dir(&directory).map_or(true, |mut entries| entries.next().is_none());
    ensure!(
        empty,
        "{} is not empty; the demonstration makes everything anew, name a new directory",
        directory.display()
    );
    let directory = std::path::absolute(directory)?;
    let mut stage = Stage::set_up(&directory).await?;
    for number in 1..=releases {
        stage
            .release(
                &format!("1.{number}"),
                "a release of the demonstration",
                Urgency::Routine,
                vec![],
            )
            .await?;
    }
    say(format_args!("nntp={}", stage.broker.nntp[0]));
    say(format_args!("nntps={}", stage.broker.nntps[0]));
    say(format_args!("ca={}", stage.ca.display()));
    say(format_args!("channel={}", stage::CHANNEL));
    say(format_args!("anchor={}", stage.anchor));
    say(format_args!("key={}", stage.key_file.display()));
    say(format_args!("state={}", directory.display()));
    say(format_args!("pid={}", std::process::id()));
    say("ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stage.broker.failed() => {}
    }
    let Stage {
        broker, publisher, ..
    } = stage;
    drop(publisher);
    Ok(if broker.shutdown(DRAIN).await {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A statement that a device has verified, and when.
struct Arrival {
    by: &'static str,
    at: Instant,
    statement: Verified<Statement>,
}

async fn poll_for_ever(mut device: Device, arrivals: mpsc::Sender<Arrival>) -> Result<(), Error> {
    loop {
        for statement in device.poll().await? {
            // Nobody looks any more: the demonstration is over.
            if arrivals
                .send(Arrival {
                    by: "poll",
                    at: Instant::now(),
                    statement,
                })
                .await
                .is_err()
            {
                return Ok(());
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn watch_for_ever(mut device: Device, arrivals: mpsc::Sender<Arrival>) -> Result<(), Error> {
    let stream = device.watch();
    pin_mut!(stream);
    while let Some(statement) = stream.next().await {
        if arrivals
            .send(Arrival {
                by: "push",
                at: Instant::now(),
                statement: statement?,
            })
            .await
            .is_err()
        {
            break;
        }
    }
    Ok(())
}

fn describe(statement: &Statement) -> String {
    match statement.body() {
        Body::Release(r) => format!(
            "release {} ({}, {} payloads)",
            r.version,
            r.urgency.as_str(),
            r.payloads.len()
        ),
        Body::Withdraw(w) => format!("withdrawal of {} ({})", w.withdraws, w.reason),
        other => other.kind().to_string(),
    }
}

/// Two devices that listen.
struct Audience {
    arrivals: mpsc::Receiver<Arrival>,
    /// How many statements both have had.
    seen: u32,
}

impl Audience {
    /// Waits until both devices have a statement; prints each arrival with its delay.
    async fn see(&mut self, statement: &Statement, since: Instant) -> anyhow::Result<()> {
        say(format_args!(
            "  published {} {}",
            statement.serial(),
            describe(statement)
        ));
        for _ in 0..2 {
            let arrival = timeout(PATIENCE, self.arrivals.recv())
                .await
                .context("an announcement did not arrive in time")?;
            let Arrival {
                by,
                at,
                statement: arrived,
            } = arrival.context("a device has given up")?;
            ensure!(
                arrived.id() == statement.id(),
                "{by} brought another statement"
            );
            let delay = at.duration_since(since).as_secs_f64() * 1000.0;
            say(format_args!(
                "    {by}: verified, {delay:.1} ms after it was sent, {}",
                arrived.id()
            ));
        }
        self.seen += 1;
        Ok(())
    }
}

async fn show() -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let path = directory.path();
    say(format_args!(
        "Tidings on this machine, in {}",
        path.display()
    ));
    let mut stage = Stage::set_up(path).await?;
    say(format_args!(
        "\n1. A namespace: three keys, one trust statement. Devices and brokers are provisioned with one line:"
    ));
    say(format_args!("  {}", stage.anchor));
    say(format_args!(
        "\n2. An origin on its embedded store: nntp://{} and nntps://{}",
        stage.broker.nntp[0], stage.broker.nntps[0]
    ));

    say(
        "\n3. Two devices: one polls over TLS, one is pushed to in clear text. Neither trusts the broker.",
    );
    let (sender, arrivals) = mpsc::channel(16);
    let channels = [stage::CHANNEL];
    let polls = Device::open(stage.tls_source()?, channels, path.join("poll.state"))?;
    let pushed = Device::open(stage.source()?, channels, path.join("push.state"))?;
    let tasks = [
        tokio::spawn(poll_for_ever(polls, sender.clone())),
        tokio::spawn(watch_for_ever(pushed, sender)),
    ];
    let mut audience = Audience { arrivals, seen: 0 };

    say("\n4. Releases of real files: an image, its successor, and the delta between them.");
    let images = image::make(path)?;
    release_and_withdraw(&mut stage, &mut audience, &images).await?;
    deceive(&stage).await?;

    say("\n6. Somebody with another key publishes:");
    match stage.forge("9.9").await {
        Ok(_) => anyhow::bail!("the broker has taken it"),
        Err(PublishError::Refused(response)) => say(format_args!("  the broker: {response}")),
        Err(error) => return Err(error.into()),
    }
    be_careful(&mut stage, &mut audience, images.first).await?;

    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    move_to_a_mirror(stage, path).await?;
    machine::show(path).await?;
    // One more was seen by the device that has moved.
    say(format_args!(
        "\n{} statements were signed, published, relayed by push and by pull, mirrored, and verified everywhere; 2 forgeries were refused; {:.1} s in all.",
        audience.seen + 1,
        began.elapsed().as_secs_f64()
    ));
    say(
        "Next: the README shows how to publish, subscribe and operate; `tidingsd demo --keep DIR` leaves all of this running.",
    );
    Ok(ExitCode::SUCCESS)
}

/// Two images and a delta, and the second of them called back.
async fn release_and_withdraw(
    stage: &mut Stage,
    audience: &mut Audience,
    images: &image::Images,
) -> anyhow::Result<()> {
    let mut newest = None;
    for (version, summary, urgency, payloads) in [
        (
            "1.0",
            "the first image",
            Urgency::Routine,
            vec![images.first.clone()],
        ),
        (
            "1.1",
            "closes a hole; as an image or as a delta",
            Urgency::Security,
            vec![images.second.clone(), images.delta.clone()],
        ),
    ] {
        let since = Instant::now();
        let statement = stage.release(version, summary, urgency, payloads).await?;
        audience.see(&statement, since).await?;
        newest = Some(statement.head());
        if let Body::Release(release) = statement.body() {
            for payload in &release.payloads {
                image::check(payload)?;
                say(format_args!(
                    "    {} of {} octets at {}: its SHA-256 is the one that was signed",
                    payload.format, payload.size, payload.url
                ));
            }
        }
    }
    let size = image::apply(images)?;
    say(format_args!(
        "    the delta applied to 1.0 gives 1.1, octet for octet ({size})"
    ));
    let since = Instant::now();
    let newest = newest.context("nothing was released")?;
    let statement = stage
        .withdraw(newest, "1.1 does not boot on some machines")
        .await?;
    audience.see(&statement, since).await
}

/// A device between which and the broker somebody changes what is said.
async fn deceive(stage: &Stage) -> anyhow::Result<()> {
    say("\n5. Somebody on the way changes version 1.1 into 6.6 and mends every header and id:");
    let relay = relay::start(stage.broker.nntp[0], "Version: 1.1\n", "Version: 6.6\n").await?;
    let source = Source::new(
        [format!("nntp://{relay}").as_str()],
        &stage.anchor.to_string(),
    )?;
    let state = State::ephemeral(source.anchor());
    let mut deceived = Device::with_state(source, [stage::CHANNEL], state)?
        .with_start(tidings_client::Start::Oldest);
    match deceived.poll().await {
        Ok(_) => anyhow::bail!("the device has believed it"),
        Err(error) => say(format_args!("  the device: {error}")),
    }
    Ok(())
}

/// A device does not apply what was withdrawn, but what is published instead.
async fn be_careful(
    stage: &mut Stage,
    audience: &mut Audience,
    first: Payload,
) -> anyhow::Result<()> {
    say(
        "\n7. A third device asks whether anything is held back, and looks at the head again before it applies anything:",
    );
    let state = State::ephemeral(&stage.anchor);
    let mut careful = Device::with_state(stage.source()?, [stage::CHANNEL], state)?;
    let channel = stage::CHANNEL.parse()?;
    let until = Instant::now() + PATIENCE;
    while !careful.freshness(&channel).is_current() {
        ensure!(
            Instant::now() < until,
            "no beat has confirmed the head in time"
        );
        careful.poll().await?;
        tokio::time::sleep(POLL).await;
    }
    say(format_args!(
        "  {channel} is {}",
        careful.freshness(&channel)
    ));
    match careful.target(&channel).await {
        Err(error @ Error::NotNow { .. }) => say(format_args!("  {error}")),
        Err(error) => return Err(error.into()),
        Ok(_) => anyhow::bail!("a withdrawn release was cleared"),
    }
    say("  Going back is a new release with the old payload:");
    let (since, summary) = (Instant::now(), "the first image again");
    let statement = stage
        .release("1.0+1", summary, Urgency::Security, vec![first])
        .await?;
    audience.see(&statement, since).await?;
    let until = Instant::now() + PATIENCE;
    loop {
        match careful
            .apply(&channel, statement.serial(), async |_| Ok::<_, Error>(()))
            .await
        {
            Ok(()) => break,
            // The next beat covers it.
            Err(Error::NotNow { .. }) if Instant::now() < until => tokio::time::sleep(POLL).await,
            Err(error) => return Err(error.into()),
        }
    }
    say(format_args!(
        "  {} is the release to run, and is applied",
        statement.serial()
    ));
    Ok(())
}

/// Asks the mirror until it has a statement, and the beat that says that it is the newest.
async fn until_mirrored(
    mirror: &str,
    anchor: &Anchor,
    channel: &Channel,
    statement: &Statement,
) -> anyhow::Result<()> {
    let source = Source::new([mirror], &anchor.to_string())?;
    let mut looks = Device::with_state(source, [stage::CHANNEL], State::ephemeral(anchor))?;
    let until = Instant::now() + PATIENCE;
    while looks.state().head(channel) != Some(statement.head())
        || !looks.freshness(channel).is_current()
    {
        ensure!(
            Instant::now() < until,
            "the mirror did not get everything in time"
        );
        // It may have nothing yet.
        let _ = looks.poll().await;
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// A mirror copies everything, the origin is stopped, and a device goes on at the mirror with the
/// cursor that it has.
async fn move_to_a_mirror(mut stage: Stage, path: &std::path::Path) -> anyhow::Result<()> {
    let mirror = stage.mirror(path)?;
    let url = format!("nntp://{}", mirror.nntp[0]);
    say(format_args!(
        "\n8. A mirror under the origin, {url}: provisioned with the anchor alone, it verifies everything itself."
    ));
    let brokers = [format!("nntp://{}", stage.broker.nntp[0]), url.clone()];
    let source = Source::new(
        brokers.iter().map(String::as_str),
        &stage.anchor.to_string(),
    )?;
    let channel = stage::CHANNEL.parse()?;
    let mut moves = Device::with_state(source, [stage::CHANNEL], State::ephemeral(&stage.anchor))?;
    moves.poll().await?;
    let cursor = moves
        .state()
        .head(&channel)
        .context("the device has learnt nothing")?
        .serial;
    let statement = stage
        .release("1.2", "mends what 1.1 broke", Urgency::Critical, vec![])
        .await?;
    until_mirrored(&url, &stage.anchor, &channel, &statement).await?;
    let Stage {
        broker, publisher, ..
    } = stage;
    drop(publisher);
    ensure!(broker.shutdown(DRAIN).await, "the origin did not end well");
    say(format_args!(
        "  a device has learnt serial {cursor} at the origin; {} is published, mirrored, and the origin stopped",
        statement.serial()
    ));
    let news = moves.poll().await?;
    ensure!(
        news.len() == 1 && news[0].head() == statement.head(),
        "the device did not go on where it was"
    );
    say(format_args!(
        "  the device asks on with the same cursor, at the mirror: {} {}",
        statement.serial(),
        describe(&statement)
    ));
    say(format_args!("  {channel} is {}", moves.freshness(&channel)));
    ensure!(mirror.shutdown(DRAIN).await, "the mirror did not end well");
    Ok(())
}

fn tls(ca: &std::path::Path) -> Result<Tls, Error> {
    Ok(Tls::from_file(ca)?)
}
