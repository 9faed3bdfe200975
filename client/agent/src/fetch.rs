//! Fetching payloads, over https, http and from files. The digest decides, not the place: nothing
//! that a server says is believed, and nothing of it is kept that could be more than was signed.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use sha2::{Digest as _, Sha256};
use tidings_client::{file, pem};
use tidings_protocol::Digest;
use tokio::time::Instant;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::{apply::hex, config, handler::printable, world::Fetched};

/// How many redirects are followed.
const REDIRECTS: usize = 5;
/// How long a connection may take to stand, and a server to begin with an answer.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// A server that is slower than this is left for another (attack 19).
const LEAST_OCTETS_PER_SECOND: u64 = 256;
/// After so long the agent looks at the log again, and then goes on where it was.
const SLICE: Duration = Duration::from_secs(60);

/// Fetches.
#[derive(Clone)]
pub struct Fetcher {
    agent: ureq::Agent,
    config: config::Fetch,
    directory: PathBuf,
    slice: Duration,
}

/// Why one place does not have it.
enum Bad {
    /// It may have it later, or the way there is broken.
    Now(anyhow::Error),
    /// What it has is another thing.
    Other(String),
    /// It comes, and it takes long.
    Slice,
    /// There is no room for it here.
    Room(String),
}

impl From<anyhow::Error> for Bad {
    fn from(error: anyhow::Error) -> Self {
        let full = error.chain().any(|cause| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|e| e.kind() == io::ErrorKind::StorageFull)
        });
        if full {
            Self::Room(format!("{error:#}"))
        } else {
            Self::Now(error)
        }
    }
}

impl Fetcher {
    /// Into a directory, as it is configured.
    ///
    /// # Errors
    /// If the proxy or the roots cannot be used.
    pub fn new(config: &config::Fetch, directory: &Path) -> anyhow::Result<Self> {
        let roots = match &config.roots {
            Some(path) => pem::certificates(path).context("fetch.roots")?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let roots: Vec<_> = roots
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned())
            .collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let mut agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent("tidings-agent")
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(CONNECT))
            .timeout_per_read(Some(SILENCE));
        if let Some(proxy) = &config.proxy {
            agent = agent.proxy(Some(
                ureq::Proxy::new(proxy)
                    .map_err(|_| anyhow::anyhow!("fetch.proxy: expected `http://[USER:PASSWORD@]HOST:PORT` or another proxy, found something else"))?,
            ));
        }
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            agent: agent.build().new_agent(),
            config: config.clone(),
            directory: directory.into(),
            slice: SLICE,
        })
    }

    /// The same, that looks up after another time.
    #[must_use]
    pub fn with_slice(self, slice: Duration) -> Self {
        Self { slice, ..self }
    }

    /// Fetches what has this size and digest, from one of its places; goes on where it was stopped,
    /// over a restart too.
    pub fn fetch(&self, urls: &[&str], size: u64, digest: &Digest) -> Fetched {
        let whole = self.directory.join(hex(digest));
        if fs::metadata(&whole).is_ok_and(|about| about.len() == size) {
            return Fetched::Whole;
        }
        let part = self.directory.join(format!("{}.part", hex(digest)));
        let (mut reasons, mut others) = (Vec::new(), 0);
        for url in urls {
            let end = self.place(url, &part, &whole, size, digest);
            match end {
                Ok(()) => return Fetched::Whole,
                Err(Bad::Slice) => {
                    let have = fs::metadata(&part).map_or(0, |about| about.len());
                    return Fetched::Later(format!("{have} of {size} octets are fetched"));
                }
                Err(Bad::Room(why)) => return Fetched::Later(why),
                Err(Bad::Now(error)) => {
                    reasons.push(format!("{}: {error:#}", printable(url.as_bytes())))
                }
                Err(Bad::Other(why)) => {
                    others += 1;
                    reasons.push(format!("{}: {why}", printable(url.as_bytes())));
                }
            }
        }
        let why = reasons.join("; ");
        if others == urls.len() {
            Fetched::Wrong(why)
        } else {
            Fetched::Later(why)
        }
    }

    fn place(
        &self,
        url: &str,
        part: &Path,
        whole: &Path,
        size: u64,
        digest: &Digest,
    ) -> Result<(), Bad> {
        let resumed = fs::metadata(part).is_ok_and(|about| about.len() > 0);
        self.one(url, part, size)?;
        match self.check(part, whole, digest) {
            // What another place has sent first may have been the lie.
            Err(Bad::Other(_)) if resumed => {
                self.one(url, part, size)?;
                self.check(part, whole, digest)
            }
            checked => checked,
        }
    }

    fn one(&self, url: &str, part: &Path, size: u64) -> Result<(), Bad> {
        let mut file = fs::File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(part)
            .context("cannot write")?;
        let mut have = file.metadata().context("cannot read")?.len();
        if have > size {
            file.set_len(0).context("cannot write")?;
            have = 0;
        }
        if have == size {
            return Ok(());
        }
        let room = rustix::fs::statvfs(&self.directory)
            .map(|about| about.f_bavail * about.f_frsize)
            .context("cannot look for room")?;
        if room < size - have {
            return Err(Bad::Room(format!(
                "no room in {}: {} octets are wanted, {room} are free",
                self.directory.display(),
                size - have
            )));
        }
        let (mut from, begins) = self.open(url, have, size)?;
        if begins < have {
            file.set_len(0).context("cannot write")?;
        }
        file.seek(SeekFrom::Start(begins)).context("cannot write")?;
        self.pour(&mut *from, &mut file, begins, size)
    }

    /// Octets come, as fast as they may; at one more than there should be it ends.
    fn pour(
        &self,
        from: &mut dyn Read,
        file: &mut fs::File,
        begins: u64,
        size: u64,
    ) -> Result<(), Bad> {
        let (began, mut at, mut buffer) = (Instant::now(), begins, vec![0; 1 << 16]);
        loop {
            let count = from.read(&mut buffer).context("the connection failed")?;
            at += count as u64;
            if at > size {
                file.set_len(0).context("cannot write")?;
                return Err(Bad::Other(format!(
                    "it has more than the {size} octets that were signed"
                )));
            }
            file.write_all(&buffer[..count])
                .with_context(|| format!("no room in {}", self.directory.display()))?;
            if count == 0 {
                break;
            }
            let (came, took) = (at - begins, began.elapsed());
            if self.config.octets_per_second > 0 {
                let due =
                    Duration::from_secs_f64(came as f64 / self.config.octets_per_second as f64);
                std::thread::sleep(due.saturating_sub(took).min(SILENCE));
            }
            if took > self.slice && at < size {
                let slow = came < LEAST_OCTETS_PER_SECOND * took.as_secs();
                file.sync_all().context("cannot write")?;
                return Err(if slow {
                    Bad::Now(anyhow::anyhow!(
                        "too slow: {came} octets in {} s",
                        took.as_secs()
                    ))
                } else {
                    Bad::Slice
                });
            }
        }
        if at < size {
            return Err(Bad::Now(anyhow::anyhow!(
                "it ended after {at} of {size} octets"
            )));
        }
        file.sync_all().context("cannot write")?;
        Ok(())
    }

    /// Opens a place at an octet, or at the beginning; redirects are followed by hand, never to a
    /// weaker scheme (attack 56).
    fn open(&self, url: &str, have: u64, size: u64) -> Result<(Box<dyn Read>, u64), Bad> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let (scheme, rest) = self.allowed(&url)?;
            if scheme == "file" {
                let mut file =
                    fs::File::open(rest).with_context(|| format!("cannot read {rest}"))?;
                let found = file.metadata().context("cannot read")?.len();
                check_size(found, size)?;
                file.seek(SeekFrom::Start(have)).context("cannot read")?;
                return Ok((Box::new(file), have));
            }
            let mut request = self.agent.get(&url);
            if have > 0 {
                request = request.header("Range", format!("bytes={have}-"));
            }
            let response = request
                .call()
                .map_err(|error| Bad::Now(explained(&error)))?;
            let header = |name: &str| {
                response
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned)
            };
            let length = || header("content-length").and_then(|text| text.parse::<u64>().ok());
            match response.status().as_u16() {
                200 => {
                    length().map_or(Ok(()), |found| check_size(found, size))?;
                    return Ok((Box::new(response.into_body().into_reader()), 0));
                }
                206 if have > 0 => {
                    let range = header("content-range").unwrap_or_default();
                    let same = range
                        .strip_prefix(&format!("bytes {have}-"))
                        .and_then(|rest| rest.split_once('/'));
                    let (_, total) = same.ok_or_else(|| {
                        Bad::Other("it answers with another range than it was asked for".into())
                    })?;
                    total
                        .parse()
                        .map_or(Ok(()), |found| check_size(found, size))?;
                    return Ok((Box::new(response.into_body().into_reader()), have));
                }
                301 | 302 | 303 | 307 | 308 => {
                    let to = header("location")
                        .ok_or_else(|| Bad::Other("it redirects to nowhere".into()))?;
                    url = self.redirected(&url, &to)?;
                }
                status => return Err(Bad::Now(anyhow::anyhow!("it answers {status}"))),
            }
        }
        Err(Bad::Other(format!(
            "it redirects more than {REDIRECTS} times"
        )))
    }

    fn allowed<'a>(&self, url: &'a str) -> Result<(&'a str, &'a str), Bad> {
        let other = |why: String| Bad::Other(why);
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| other("it is no URL".into()))?;
        if !self.config.schemes.iter().any(|allowed| allowed == scheme) {
            return Err(other(format!(
                "{scheme} is not allowed here (fetch.schemes)"
            )));
        }
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.contains('@') {
            return Err(other("it has a name and a password in it".into()));
        }
        Ok((scheme, rest))
    }

    fn redirected(&self, from: &str, to: &str) -> Result<String, Bad> {
        let (scheme, rest) = self.allowed(from)?;
        let host = rest.split('/').next().unwrap_or_default();
        let to = match to.strip_prefix('/') {
            Some(_) if to.starts_with("//") => format!("{scheme}:{to}"),
            Some(_) => format!("{scheme}://{host}{to}"),
            None => to.to_owned(),
        };
        match self.allowed(&to)? {
            ("https", _) => Ok(to),
            ("http", _) if scheme == "http" => Ok(to),
            (weaker, _) => Err(Bad::Other(format!(
                "it redirects from {scheme} to {weaker}"
            ))),
        }
    }

    /// All of it is here: is it what was signed? If not, nothing of it is kept.
    fn check(&self, part: &Path, whole: &Path, digest: &Digest) -> Result<(), Bad> {
        let mut hash = Sha256::new();
        let mut file = fs::File::open(part).context("cannot read")?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = file.read(&mut buffer).context("cannot read")?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
        }
        if Digest::from_octets(hash.finalize().into()) != *digest {
            fs::remove_file(part).context("cannot remove")?;
            return Err(Bad::Other("it has the right size and another digest: it was changed on the way, or at its place".into()));
        }
        fs::rename(part, whole).context("cannot write")?;
        file::sync_directory(&self.directory).context("cannot write")?;
        Ok(())
    }

    /// Removes all that is not wanted any more.
    ///
    /// # Errors
    /// As the file system has them.
    pub fn clean(&self, wanted: &[Digest]) -> anyhow::Result<()> {
        let keep: Vec<String> = wanted.iter().map(hex).collect();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default()
                .to_owned();
            if !keep.iter().any(|digest| name.starts_with(digest.as_str())) {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

fn check_size(found: u64, size: u64) -> Result<(), Bad> {
    let same = || -> anyhow::Result<()> {
        ensure!(
            found == size,
            "it has {found} octets, {size} were signed: another thing, or somebody in between (a captive portal?)"
        );
        Ok(())
    };
    same().map_err(|error| Bad::Other(format!("{error}")))
}

fn explained(error: &ureq::Error) -> anyhow::Error {
    let text = match error {
        ureq::Error::Rustls(error) => tidings_client::rustls_words(error),
        ureq::Error::Io(error) => tidings_client::io_words(error),
        error => tidings_client::explain(error),
    };
    let advice = if text.contains("certificate") {
        " (the digest is signed too: `fetch.roots`, or an http:// place, would do)"
    } else {
        ""
    };
    anyhow::anyhow!("{}{advice}", printable(text.as_bytes()))
}

/// All the places of one payload: those of the lines that have the same format and digest.
///
/// # Errors
/// If there is none.
pub fn places<'a>(
    all: &'a [tidings_protocol::statement::Payload],
    of: &tidings_protocol::statement::Payload,
) -> anyhow::Result<Vec<&'a str>> {
    let same = all
        .iter()
        .filter(|payload| payload.digest == of.digest && payload.format == of.format);
    let urls: Vec<&str> = same.map(|payload| payload.url.as_str()).collect();
    if urls.is_empty() {
        bail!("the payload has no place");
    }
    Ok(urls)
}
