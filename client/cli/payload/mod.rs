//! Payloads: what is released is made, compared and measured here, and becomes the value of a
//! `Payload` field.

mod btrfs;
mod compare;
mod delta;
mod make;
mod ostree;
mod subject;
mod tool;
mod tree;

use std::{ffi::OsStr, fs, io::Read, os::unix::ffi::OsStrExt, path::Path};

use anyhow::Context;
use clap::Subcommand;
use indicatif::ProgressStyle;
use sha2::{Digest as _, Sha256};
use tidings_protocol::Digest;

use super::{exit::Exit, output};

#[derive(Subcommand)]
pub(super) enum Payload {
    Make(make::Make),
    Compare(compare::Compare),
    /// Run a tool, and say how much memory it took: for `make`, in a process that has no other
    /// child
    #[command(hide = true)]
    Measure {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
}

impl Payload {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Make(make) => make.run(),
            Self::Compare(compare) => compare.run(),
            Self::Measure { command } => tool::measure(&command),
        }
    }
}

/// The digits of a digest alone.
fn hex(digest: &Digest) -> String {
    digest.to_string().trim_start_matches("sha256:").to_owned()
}

/// The values of fields: one that is measured, or those of a file that `tidings payload make` has
/// written, as `@FILE`.
pub(super) fn values(payload: &OsStr) -> anyhow::Result<Vec<String>> {
    let Some(path) = payload.as_bytes().strip_prefix(b"@").map(file) else {
        return Ok(vec![measure(payload)?]);
    };
    let octets = super::files::read(path)?;
    let text = String::from_utf8_lossy(&octets);
    let wrong = |line: &str| {
        Exit::BadFile.because(format!(
            "{}: expected lines `Payload: VALUE`, found {line:?}",
            path.display()
        ))
    };
    let value = |line: &str| {
        let value = line.strip_prefix("Payload: ").ok_or_else(|| wrong(line))?;
        Ok(value.to_owned())
    };
    let values: Vec<String> = text.lines().map(value).collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!values.is_empty(), wrong(""));
    Ok(values)
}

/// The value of the field. File names may have blanks: the URL is the first word with `://`, and
/// what follows a property up to the next `KEY=` belongs to it.
fn measure(payload: &OsStr) -> anyhow::Result<String> {
    let wrong = || {
        let shown = payload.display();
        Exit::Usage.because(format!(
            "--payload: expected `FORMAT FILE URL [KEY=VALUE…]`, found \"{shown}\""
        ))
    };
    let words: Vec<&[u8]> = payload
        .as_bytes()
        .trim_ascii()
        .split(|o| *o == b' ')
        .collect();
    let is_url = |word: &&[u8]| word.windows(3).any(|part| part == b"://");
    let at = words.iter().position(is_url).filter(|at| *at > 1);
    let at = at.ok_or_else(wrong)?;
    // What is signed is text; the names of files need not be.
    let text = |word: &[u8]| String::from_utf8(word.to_vec()).map_err(|_| wrong());
    let (size, digest) = hash(file(words[1..at].join(&b' ').trim_ascii()))?;
    let mut value = format!("{} {size} {digest} {}", text(words[0])?, text(words[at])?);
    for property in properties(&words[at + 1..]) {
        let base = property.windows(2).position(|part| part == b"=@");
        match base {
            Some(at) => {
                let (key, name) = (text(&property[..at])?, file(&property[at + 2..]));
                value.push_str(&format!(" {key}={}", hash(name)?.1));
            }
            None => value.push_str(&format!(" {}", text(&property)?)),
        }
    }
    Ok(value)
}

fn file(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

fn properties(words: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for word in words.iter().filter(|word| !word.is_empty()) {
        let names_a_file = |last: &&mut Vec<u8>| last.windows(2).any(|part| part == b"=@");
        match all.last_mut().filter(names_a_file) {
            Some(last) if !word.contains(&b'=') => {
                last.push(b' ');
                last.extend_from_slice(word);
            }
            _ => all.push(word.to_vec()),
        }
    }
    all
}

/// Size and SHA-256 of a file, with a bar on a terminal.
fn hash(path: &Path) -> anyhow::Result<(u64, Digest)> {
    let context = || format!("cannot read the payload {}", path.display());
    let mut file = fs::File::open(path).with_context(context)?;
    let bar = output::bar(file.metadata().with_context(context)?.len());
    bar.set_style(ProgressStyle::with_template(
        "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )?);
    bar.set_message(
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    );
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).with_context(context)?;
        if n == 0 {
            break;
        }
        sum.update(&buffer[..n]);
        size += n as u64;
        bar.set_position(size);
    }
    bar.finish_and_clear();
    Ok((size, Digest::from_octets(sum.finalize().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_may_have_blanks() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (
            directory.path().join("my image.raw"),
            directory.path().join("the old one"),
        );
        fs::write(&file, "new").unwrap();
        fs::write(&other, "old").unwrap();
        let measure = |text: &str| measure(OsStr::new(text));
        let value = measure(&format!(
            "raw {} https://a.b/c base=@{} mem=5",
            file.display(),
            other.display()
        ))
        .unwrap();
        assert_eq!(
            value,
            format!(
                "raw 3 {} https://a.b/c base={} mem=5",
                Digest::of(b"new"),
                Digest::of(b"old")
            )
        );
        assert!(
            measure("raw file")
                .unwrap_err()
                .to_string()
                .contains("expected `FORMAT FILE URL")
        );
    }

    #[test]
    fn file_names_need_not_be_text() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join(OsStr::from_bytes(b"im\xffage"));
        fs::write(&name, "new").unwrap();
        let payload = [b"raw ", name.as_os_str().as_bytes(), b" https://a.b/c"].concat();
        let value = measure(OsStr::from_bytes(&payload)).unwrap();
        assert_eq!(value, format!("raw 3 {} https://a.b/c", Digest::of(b"new")));
        let odd = OsStr::from_bytes(b"r\xff f https://a.b/c");
        assert!(measure(odd).is_err());
    }
}
