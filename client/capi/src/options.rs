//! What a device is begun with, as names and values: new ones do not change the ABI.

use std::{collections::BTreeMap, ffi::c_char, path::PathBuf};

use tidings_client::{Device, Profile, Source, Start, State, Tls};

use crate::{
    error::{Code, Error, Failed, call},
    pointer,
};

/// What a device is begun with.
#[derive(Clone, Default)]
pub struct Options {
    brokers: Vec<String>,
    channels: Vec<String>,
    anchor: Option<String>,
    files: BTreeMap<&'static str, PathBuf>,
    user: Option<String>,
    profile: Profile,
    start: Start,
    quorum: usize,
}

const FILES: [&str; 5] = [
    "state",
    "ca",
    "certificate",
    "certificate_key",
    "password_file",
];
const OTHERS: &str = "brokers, channels, anchor, user, identity, property, start, quorum";

impl Options {
    fn set(&mut self, name: &str, value: &str) -> Result<(), Failed> {
        let wrong =
            |expected: &str| Failed::usage(format!("{name}: expected {expected}, found {value:?}"));
        let list = |separator: char| {
            let parts = value.split(separator).map(str::trim);
            parts.filter(|p| !p.is_empty()).map(str::to_owned).collect()
        };
        if let Some(file) = FILES.into_iter().find(|file| *file == name) {
            self.files.insert(file, value.into());
            return Ok(());
        }
        match name {
            "brokers" => self.brokers = list(','),
            "channels" => self.channels = list(' '),
            "anchor" => self.anchor = Some(value.into()),
            "user" => self.user = Some(value.into()),
            "identity" => self.profile.identity = value.into(),
            "property" => {
                let (key, value) = value.split_once('=').ok_or_else(|| wrong("KEY=VALUE"))?;
                let property = (key.to_owned(), value.to_owned());
                self.profile.properties.extend([property]);
            }
            "start" => {
                self.start = match value {
                    "newest" => Start::Newest,
                    "oldest" => Start::Oldest,
                    _ => return Err(wrong("newest or oldest")),
                }
            }
            "quorum" => self.quorum = value.parse().map_err(|_| wrong("a number"))?,
            _ => {
                let files = FILES.join(", ");
                let text = format!("there is no option {name:?}; known are {OTHERS}, {files}");
                return Err(Failed::usage(text));
            }
        }
        Ok(())
    }

    /// A device with all of it.
    pub(crate) fn device(&self) -> Result<Device, Failed> {
        let file = |name| self.files.get(name).map(PathBuf::as_path);
        let anchor = self.anchor.as_deref();
        let anchor = anchor.ok_or_else(|| Failed::usage("the option anchor is missing"))?;
        let brokers = self.brokers.iter().map(String::as_str);
        let mut source = Source::new(brokers, anchor)?;
        let own = file("certificate").zip(file("certificate_key"));
        if file("ca").is_some() || own.is_some() {
            let tls = Tls::new(file("ca"), own).map_err(tidings_client::Error::from)?;
            source = source.with_tls(tls);
        }
        if let Some((user, path)) = self.user.as_deref().zip(file("password_file")) {
            let password = std::fs::read_to_string(path).map_err(|error| {
                let text = format!("cannot read the password from {}: {error}", path.display());
                Failed::new(Code::BadFile, text)
            })?;
            source = source.with_account(user, password.trim_end());
        }
        let state = match file("state") {
            Some(path) => State::open(path, source.anchor())?,
            None => State::ephemeral(source.anchor()),
        };
        let channels = self.channels.iter().map(String::as_str);
        Ok(Device::with_state(source, channels, state)?
            .with_saving_by_hand()
            .with_start(self.start)
            .with_profile(self.profile.clone())
            .with_quorum(self.quorum.max(1)))
    }
}

/// Nothing yet; to be ended with `tidings_options_free`.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_options_new() -> *mut Options {
    Box::into_raw(Box::default())
}

/// Sets one option:
///
/// `brokers`: `nntps://HOST[:PORT]`, commas between several;
/// `anchor`: `NAMESPACE SERIAL sha256:HEX`;
/// `channels`: blanks between several;
/// `state`: the file that remembers what was seen, for this program alone (none: until the end);
/// `ca`, `certificate`, `certificate_key`: PEM files for TLS;
/// `user`, `password_file`: who we are, told over TLS only;
/// `property`: `KEY=VALUE` of this machine, again and again; `identity`: what makes it another one;
/// `start`: `newest` or `oldest`, where an unknown channel begins;
/// `quorum`: how many brokers must agree on the release to run.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_options_set(
    options: *mut Options,
    name: *const c_char,
    value: *const c_char,
    error: *mut *mut Error,
) -> Code {
    call(error, || {
        let options = pointer::object_mut(options, "options")?;
        options.set(pointer::text(name, "name")?, pointer::text(value, "value")?)
    })
}

/// Ends the options; a device that was begun with them goes on. Null is none.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_options_free(options: *mut Options) {
    pointer::free(options);
}
