//! `tidings`: keys, trust, releases, publishing, and reading with proof.
//!
//! In the order in which a statement travels: `payload` makes what `release` announces; `release`,
//! `withdraw` and `edit` make what `publishing` and `sign` sign and publish; `reader` reads and
//! `verify` proves, `status` tells how things stand, `apply` acts, `slot` takes turns, `beat`
//! confirms.

mod apply;
mod beat;
mod carry;
mod ceremony;
mod cheat;
mod check;
mod checkpoints;
mod completion;
mod context;
mod edit;
mod editor;
mod ends;
mod evidence;
mod exit;
mod files;
mod fleet;
mod init;
mod key;
mod manual;
mod outbox;
mod output;
mod payload;
mod publishing;
mod reader;
mod release;
mod sign;
mod slot;
mod ssh_agent;
mod status;
mod trust;
mod verify;
mod withdraw;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use exit::Exit;
use tidings_client::{Anchor, Source, Tls, terminal};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Tell a fleet, provably, that there is an update.
///
/// Publishers make keys and trust once, then `release --publish` as often as there is news. Devices
/// `fetch` or `watch`. Every statement that this command shows was verified here, from the anchor
/// on.
#[derive(Parser)]
#[command(name = "tidings", version, after_help = format!("{}\n\n{}", context::PRECEDENCE, exit::Exit::help()))]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Say more on standard error: RUST_LOG as tracing has it, or debug
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Answers and refusals as JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    /// Take brokers, anchor and the rest from this context, where no option or variable has them
    #[arg(long, global = true, value_name = "NAME", env = "TIDINGS_CONTEXT")]
    context: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Begin a namespace: keys, trust, an origin's and a device's configuration
    Init(init::Init),
    /// Make and show keys
    #[command(subcommand)]
    Key(key::Key),
    /// Make, change and show trust: who may say what
    #[command(subcommand)]
    Trust(trust::Trust),
    Anchor(trust::ShowAnchor),
    /// Make a release: what is new, and where it can be had
    Release(Box<release::Release>),
    /// Make payloads from images or trees, and compare two builds
    #[command(subcommand)]
    Payload(payload::Payload),
    /// Make a withdrawal: call a release back
    Withdraw(Box<withdraw::Withdraw>),
    /// Add a signature to a statement in a file
    Sign(sign::Sign),
    /// Publish a signed statement
    Publish(sign::Publish),
    /// Show what was signed and is not published yet
    Outbox(outbox::ShowOutbox),
    /// Ask once what is new
    Fetch(reader::Fetch),
    /// Be told what is new, as it comes
    Watch(reader::Watch),
    /// Show the statements of a channel
    Log(reader::Log),
    /// Verify statements in files, without any network; prove a fork
    Verify(verify::Verify),
    /// Show whether anything is held back: CURRENT, BEHIND, STALE or FORKED; or compare brokers
    Status(status::Status),
    Check(check::Check),
    /// Carry channels over an air gap: verified, into a file
    Export(carry::Export),
    /// Bring what was carried over an air gap to a broker; it is proven here first
    Import(carry::Import),
    /// Show the release to run on this machine now, if there is one
    Next(apply::Next),
    /// Run a command that applies the release to run: the head is looked at again first
    Apply(apply::Apply),
    /// Take turns going down: take, hold and free slots; list, log and clear for operators
    #[command(subcommand)]
    Slot(slot::Slot),
    /// Write the evidence of a fork into a file that anybody can verify
    Evidence(evidence::Evidence),
    /// Sign the beats of a namespace, every few minutes, for ever
    Beat(beat::Beat),
    #[command(subcommand)]
    Context(context::Context),
    /// Print a page of the commands that are used most
    Cheat,
    /// Print what a shell is to read for completions; they know the channels that were met here
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command; or write all of them
    Man(tidings_client::manual::Man),
}

/// Which brokers, and what proves what they say.
#[derive(Args)]
struct From {
    /// A broker, nntps://HOST[:PORT] or nntp://HOST[:PORT]; several (or with commas between) are
    /// tried in turn
    #[arg(
        long = "broker",
        value_name = "URL",
        env = "TIDINGS_BROKERS",
        value_delimiter = ','
    )]
    brokers: Vec<String>,
    /// The anchor of the namespace: `NAMESPACE SERIAL sha256:HEX`
    #[arg(long, value_name = "LINE", env = "TIDINGS_ANCHOR")]
    anchor: Option<String>,
    #[command(flatten)]
    tls: TlsFiles,
    /// The name under which brokers know us; sent over TLS only
    #[arg(
        long,
        value_name = "NAME",
        env = "TIDINGS_USER",
        requires = "password_file"
    )]
    user: Option<String>,
    /// A file with the password, and nothing else
    #[arg(long, value_name = "FILE", env = "TIDINGS_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
}

/// What TLS trusts, and what we show.
#[derive(Args)]
struct TlsFiles {
    /// Certificates that TLS trusts instead of the system's, PEM
    #[arg(long, value_name = "FILE", env = "TIDINGS_CA")]
    ca: Option<PathBuf>,
    /// A certificate of our own, PEM, for servers that ask for one
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDINGS_CERTIFICATE",
        requires = "certificate_key"
    )]
    certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", env = "TIDINGS_CERTIFICATE_KEY")]
    certificate_key: Option<PathBuf>,
}

impl TlsFiles {
    /// Nothing if none of it was given.
    fn tls(&self) -> anyhow::Result<Option<Tls>> {
        let own = self
            .certificate
            .as_deref()
            .zip(self.certificate_key.as_deref());
        let given = self.ca.is_some() || own.is_some();
        Ok(given
            .then(|| Tls::new(self.ca.as_deref(), own))
            .transpose()?)
    }
}

impl From {
    /// The brokers that were given; blanks and empty items around commas do not matter.
    fn urls(&self) -> impl Iterator<Item = &str> {
        self.brokers
            .iter()
            .map(|url| url.trim())
            .filter(|url| !url.is_empty())
    }

    fn source(&self) -> anyhow::Result<Source> {
        ensure!(
            self.urls().next().is_some(),
            Exit::Usage.because("which broker? give --broker URL, or set TIDINGS_BROKERS")
        );
        self.source_of(&self.must_anchor()?)
    }

    fn must_anchor(&self) -> anyhow::Result<Anchor> {
        let which =
            || Exit::Usage.because("what proves it? give --anchor LINE, or set TIDINGS_ANCHOR");
        self.anchor()?.ok_or_else(which)
    }

    fn anchor(&self) -> anyhow::Result<Option<Anchor>> {
        Ok(self.anchor.as_deref().map(str::parse).transpose()?)
    }

    fn source_of(&self, anchor: &Anchor) -> anyhow::Result<Source> {
        let source = Source::new(self.urls(), &anchor.to_string())?;
        let source = match self.tls.tls()? {
            Some(tls) => source.with_tls(tls),
            None => source,
        };
        let Some((user, file)) = self.user.as_deref().zip(self.password_file.as_deref()) else {
            return Ok(source);
        };
        let password = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the password from {}", file.display()))?;
        Ok(source.with_account(user, password.trim_end()))
    }
}

fn main() -> ExitCode {
    completion::answer();
    let command = match context::settle(Arguments::command()) {
        Ok(command) => command,
        Err(error) if is_check() => {
            return check::refuse(&tidings_client::explain(error.as_ref())).into();
        }
        Err(error) => return output::fail(&error).into(),
    };
    let matches = without_empty_variables(command).try_get_matches();
    let matches = matches.unwrap_or_else(|error| refuse(&error));
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| refuse(&error));
    output::wants_json(arguments.json);
    log_to_stderr(arguments.verbose);
    match run(arguments.command, arguments.context.as_deref()) {
        Ok(code) => code.into(),
        Err(error) => output::fail(&error).into(),
    }
}

/// Whether `check` is asked for, also where the arguments cannot be read: whoever reads the codes
/// of plugins knows no other ones.
fn is_check() -> bool {
    let words = std::env::args_os().skip(1);
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--context" => drop(words.next()),
            option if option.starts_with('-') => {}
            command => return command == "check",
        }
    }
    false
}

/// Arguments that are wrong are a refusal as any other; help and version are answers for people.
fn refuse(error: &clap::Error) -> ! {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    let is_check = is_check();
    if error.use_stderr() && (wants_json || is_check) {
        let text = error.to_string();
        // What is wrong; how it is used stands below.
        let wrong = text.split("\n\nUsage").next().unwrap_or_default();
        let wrong: Vec<&str> = wrong.split_whitespace().collect();
        let wrong = wrong.join(" ");
        let wrong = wrong.trim_start_matches("error: ");
        if is_check {
            output::wants_json(wants_json);
            std::process::exit(check::refuse(wrong).into());
        }
        output::refusal(wrong, Exit::Usage, None);
    }
    if !error.use_stderr() {
        let page = error.render();
        let colours = terminal::has_colours() && std::io::stdout().is_terminal();
        let text = match colours {
            true => page.ansi().to_string(),
            false => page.to_string(),
        };
        output::raw(text.as_bytes());
    }
    match error.use_stderr() {
        true => error.exit(),
        false => std::process::exit(error.exit_code()),
    }
}

/// A variable of the environment that is empty is none.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| {
        arg.get_env()
            .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
    };
    let command = command.mut_args(|arg| {
        if is_empty(&arg) {
            arg.env(None::<&str>)
        } else {
            arg
        }
    });
    command.mut_subcommands(without_empty_variables)
}

fn log_to_stderr(verbose: bool) {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| {
        if verbose {
            "debug".into()
        } else {
            "warn".into()
        }
    });
    let filter = filter.parse::<Targets>().unwrap_or_else(|_| {
        output::note("RUST_LOG is no filter of tracing; `warn` is used instead");
        Targets::new().with_default(LevelFilter::WARN)
    });
    let text = tracing_subscriber::fmt::layer()
        .with_writer(terminal::Log::default)
        .with_ansi(terminal::has_colours())
        .log_internal_errors(false);
    tracing_subscriber::registry()
        .with(text.with_filter(filter))
        .init();
}

/// The exit code of what went well.
fn run(command: Command, context: Option<&str>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let done = |()| Exit::Done as u8;
    let result = match command {
        Command::Check(check) => Ok(runtime.block_on(ends::as_any_process(check.run()))),
        Command::Watch(watch) => runtime.block_on(watch.run()).map(done),
        Command::Apply(apply) => runtime
            .block_on(ends::as_any_process_unless(apply::is_busy, apply.run()))
            .map(done),
        Command::Beat(beat) => runtime.block_on(beat.run()).map(done),
        command => runtime
            .block_on(ends::as_any_process(run_one(command, context)))
            .map(done),
    };
    // A look-up of a name cannot be broken off: nobody waits for it.
    runtime.shutdown_background();
    result
}

async fn run_one(command: Command, context: Option<&str>) -> anyhow::Result<()> {
    match command {
        Command::Init(init) => init.run(),
        Command::Key(key) => key.run(),
        Command::Trust(trust) => trust.run().await,
        Command::Anchor(anchor) => anchor.run().await,
        Command::Release(release) => release.run().await,
        Command::Payload(payload) => payload.run(),
        Command::Withdraw(withdraw) => withdraw.run().await,
        Command::Sign(sign) => sign.run().await,
        Command::Publish(publish) => publish.run().await,
        Command::Outbox(outbox) => outbox.run().await,
        Command::Fetch(fetch) => fetch.run().await,
        Command::Watch(watch) => watch.run().await,
        Command::Log(log) => log.run().await,
        Command::Verify(verify) => verify.run(),
        Command::Status(status) => status.run().await,
        Command::Check(check) => {
            check.run().await;
            Ok(())
        }
        Command::Export(export) => export.run().await,
        Command::Import(import) => import.run().await,
        Command::Next(next) => next.run().await,
        Command::Apply(apply) => apply.run().await,
        Command::Slot(slot) => slot.run().await,
        Command::Evidence(evidence) => evidence.run().await,
        Command::Beat(beat) => Box::pin(beat.run()).await,
        Command::Context(command) => command.run(context),
        Command::Cheat => {
            cheat::print();
            Ok(())
        }
        Command::Completions { shell } => completion::print(shell),
        Command::Man(man) => manual::run(man),
    }
}
