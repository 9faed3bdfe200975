//! Payloads from what runs and what is to run, each proven by applying it as a machine does.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum, builder::PossibleValue};
use serde_json::json;
use tidings_protocol::Digest;
use tokio::time::Instant;

use super::{
    btrfs::{self, Stream},
    delta::Delta,
    hash,
    subject::Subject,
    tool::{MEBIBYTE, NoTool, cannot_write},
};
use crate::{exit::Exit, output};

/// Make payloads of an image, a tree or a commit, in each format that fits, and say what each
/// costs.
///
/// Each is applied once, as a machine does it, and what comes out is compared with NEW. The lines
/// for a release are written to DIR/payloads, for `tidings release --payload @DIR/payloads`.
#[derive(Args)]
pub(crate) struct Make {
    /// What is to run: an image, a tree, or a commit of OSTree as REPOSITORY:COMMIT
    new: PathBuf,
    /// What runs now, for deltas: of the same kind
    #[arg(long, value_name = "OLD")]
    from: Option<PathBuf>,
    /// A new directory, for the payloads
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where that directory is served
    #[arg(long)]
    url: String,
    /// Only these; what is not there is an error then
    #[arg(long = "format", value_delimiter = ',')]
    formats: Vec<Format>,
    /// The version that OLD is
    #[arg(long, value_name = "VERSION", requires = "from")]
    from_version: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Raw,
    Delta(Delta),
    Btrfs(Stream),
    Ostree,
}

/// What came out when a payload was applied.
pub(super) struct Applied {
    /// At most so many octets were taken.
    pub(super) memory: u64,
    /// What the payload's line says after the URL.
    pub(super) properties: String,
}

/// A payload that was applied.
struct Made {
    format: Format,
    size: u64,
    /// At most so much memory was taken to apply it.
    memory: Option<u64>,
    seconds: f64,
    value: String,
}

impl Make {
    pub(super) fn run(self) -> anyhow::Result<()> {
        ensure!(
            self.url.contains("://") && !self.url.contains(char::is_whitespace),
            Exit::Usage.because(format!("--url: {:?} is no URL", self.url))
        );
        let subject = Subject::of(&self.new, self.from.as_deref())?;
        if let Subject::Commits(pair) = &subject {
            pair.lie_together()?;
            ensure!(
                self.from_version.is_none(),
                Exit::Usage
                    .because("--from-version: of a commit the line says from=COMMIT; leave it out")
            );
        }
        let formats = self.wanted(&subject)?;
        fs::create_dir(&self.out).with_context(|| {
            format!(
                "cannot make the directory {}; it must not exist yet",
                self.out.display()
            )
        })?;
        let mut made = Vec::new();
        for format in formats {
            match self.make(format, &subject) {
                Ok(one) => made.push(one),
                // What was not asked for by name may be missing.
                Err(error) if self.formats.is_empty() && error.is::<NoTool>() => {
                    output::note(&error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        ensure!(
            !made.is_empty(),
            Exit::Failed.because("no payload was made: each format that fits wants a tool")
        );
        let lines: String = made
            .iter()
            .map(|one| format!("Payload: {}\n", one.value))
            .collect();
        crate::files::write_new(&self.out.join("payloads"), lines.as_bytes())?;
        show(&made);
        Ok(())
    }

    /// The formats to make.
    fn wanted(&self, subject: &Subject) -> anyhow::Result<Vec<Format>> {
        let mut all = Vec::new();
        let asked = !self.formats.is_empty();
        let candidates = if asked {
            &self.formats
        } else {
            Format::value_variants()
        };
        for format in candidates {
            match format.misfit(subject) {
                None => all.push(*format),
                Some(why) if asked => {
                    let name = format.name();
                    return Err(Exit::Usage.because(format!("--format {name}: {why}")));
                }
                Some(_) => {}
            }
        }
        ensure!(
            !all.is_empty(),
            Exit::Usage
                .because("a tree is announced as a delta: which tree runs now? give --from OLD")
        );
        Ok(all)
    }

    fn make(&self, format: Format, subject: &Subject) -> anyhow::Result<Made> {
        let began = Instant::now();
        let name = match subject {
            Subject::Commits(pair) => pair.new.checksum(),
            _ => self
                .new
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };
        ensure!(
            !name.contains(char::is_whitespace),
            Exit::Usage.because(format!("{name:?}: a URL has no blanks; rename the file"))
        );
        let name = format!("{name}.{}", format.name());
        let file = self.out.join(&name);
        let applied = format.make(subject, &file)?;
        let (mut memory, mut properties) = (None, String::new());
        if let Some(applied) = applied {
            memory = Some(applied.memory);
            let from = self.from_version.as_ref();
            let from = from.map(|version| format!(" from={version}"));
            properties = from.unwrap_or_default() + &applied.properties;
        }
        // Some tools write for their user alone; it is for whoever serves it.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))
            .with_context(|| cannot_write(&file))?;
        let (size, digest) = hash(&file)?;
        let url = self.url.trim_end_matches('/');
        Ok(Made {
            format,
            size,
            memory,
            seconds: began.elapsed().as_secs_f64(),
            value: format!("{} {size} {digest} {url}/{name}{properties}", format.name()),
        })
    }
}

/// Compares what came out with NEW.
pub(super) fn unchanged(payload: &Path, found: Digest, expected: Digest) -> anyhow::Result<()> {
    let shown = payload.display();
    ensure!(
        found == expected,
        Exit::Failed.because(format!(
            "{shown}: what comes out is {found}, and should be {expected}"
        ))
    );
    Ok(())
}

fn show(made: &[Made]) {
    if output::is_json() {
        for one in made {
            output::object(&json!({
                "format": one.format.name(),
                "size": one.size,
                "memory": one.memory,
                "seconds": one.seconds,
                "payload": one.value,
            }));
        }
        return;
    }
    let row = |one: &Made| {
        let memory = |octets: u64| format!("{} MiB", octets / MEBIBYTE);
        vec![
            one.format.name().to_owned(),
            one.size.to_string(),
            one.memory.map_or_else(|| "-".into(), memory),
            format!("{:.1}", one.seconds),
        ]
    };
    let header = [
        "format",
        "octets",
        "memory to apply",
        "seconds to make and apply",
    ];
    output::table(&header, made.iter().map(row).collect());
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Delta(delta) => delta.name(),
            Self::Btrfs(stream) => stream.name(),
            Self::Ostree => "ostree",
        }
    }

    /// Why it cannot be made.
    fn misfit(self, subject: &Subject) -> Option<String> {
        match (self, subject) {
            (Self::Raw, Subject::Images(_)) | (Self::Ostree, Subject::Commits(_)) => None,
            (Self::Delta(delta), Subject::Images(pair) | Subject::Trees(pair))
                if delta.is_of_trees() == matches!(subject, Subject::Trees(_)) =>
            {
                let from_what = || "from what? give --from OLD".into();
                pair.old.is_none().then(from_what)
            }
            (Self::Btrfs(_), Subject::Trees(pair)) => btrfs::misfit(pair),
            (Self::Ostree, _) => {
                let kind = subject.kind();
                Some(format!(
                    "NEW is {kind}: name a commit, as REPOSITORY:COMMIT"
                ))
            }
            _ => {
                let (name, kind) = (self.name(), subject.kind());
                Some(format!("NEW is {kind}, and {name} is not for it"))
            }
        }
    }

    fn make(self, subject: &Subject, to: &Path) -> anyhow::Result<Option<Applied>> {
        match (self, subject) {
            (Self::Delta(delta), Subject::Images(pair) | Subject::Trees(pair)) => {
                delta.make(pair, to).map(Some)
            }
            (Self::Btrfs(stream), Subject::Trees(pair)) => stream.make(pair, to).map(Some),
            (Self::Ostree, Subject::Commits(pair)) => pair.make(to).map(Some),
            (Self::Raw, Subject::Images(pair)) => {
                fs::copy(&pair.new, to).with_context(|| cannot_write(to))?;
                Ok(None)
            }
            _ => bail!(self.misfit(subject).unwrap_or_default()),
        }
    }
}

/// By the names that payload lines have.
impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Raw,
            Self::Delta(Delta::ZstdPatch),
            Self::Delta(Delta::Bsdiff),
            Self::Delta(Delta::Xdelta3),
            Self::Delta(Delta::RsyncTree),
            Self::Btrfs(Stream::Plain),
            Self::Btrfs(Stream::Zstd),
            Self::Ostree,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}
