//! What stands in `/etc/tidings/client.toml` and in a context: which brokers, what proves what they
//! say, who we are. Secrets stay in files of their own, and are named here.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tidings_client::{Address, Anchor, terminal};

use crate::exit::Exit;

/// For all users of a machine.
pub(super) const SYSTEM: &str = "/etc/tidings/client.toml";
/// More than any such file has.
const OCTETS: u64 = 1 << 16;

/// The keys of such a file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) brokers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) anchor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state_dir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) slot_servers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slot_bearer_file: Option<PathBuf>,
}

/// The keys, for those who write one wrong.
const KEYS: [&str; 11] = [
    "description",
    "brokers",
    "anchor",
    "ca",
    "certificate",
    "certificate_key",
    "user",
    "password_file",
    "state_dir",
    "slot_servers",
    "slot_bearer_file",
];

impl Settings {
    /// The settings in a file, checked; none if there is no such file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| cannot_read(path)),
        };
        let about = file.metadata().with_context(|| cannot_read(path))?;
        is_ours(path, &about)?;
        // Whoever may write a directory may put another file there.
        if let Some(directory) = path.parent() {
            let about = fs::metadata(directory).with_context(|| cannot_read(directory))?;
            is_ours(directory, &about)?;
        }
        let large =
            || Exit::BadFile.because(format!("{} has more than {OCTETS} octets", path.display()));
        ensure!(about.len() <= OCTETS, large());
        let text = io::read_to_string(file).with_context(|| cannot_read(path))?;
        Self::parse(&text, path).map(Some)
    }

    /// The settings in a text.
    pub(super) fn parse(text: &str, path: &Path) -> anyhow::Result<Self> {
        let wrong = |why: String| Exit::BadFile.because(format!("{}: {why}", path.display()));
        let text = text.trim_start_matches('\u{feff}');
        let table: toml::Table =
            toml::from_str(text).map_err(|error| wrong(place(text, &error)))?;
        for key in table.keys() {
            ensure!(KEYS.contains(&key.as_str()), wrong(unknown(key)));
        }
        let settings: Self = toml::from_str(text).map_err(|error| wrong(place(text, &error)))?;
        settings.check().map_err(wrong)?;
        Ok(settings)
    }

    /// What can be seen to be wrong before anything is done with it.
    fn check(&self) -> Result<(), String> {
        for url in &self.brokers {
            url.parse::<Address>()
                .map_err(|e| format!("brokers: {e}"))?;
        }
        if let Some(anchor) = &self.anchor {
            anchor
                .parse::<Anchor>()
                .map_err(|e| format!("anchor: {e}"))?;
        }
        for (name, file) in self.files() {
            if !file.is_absolute() {
                let file = file.display();
                return Err(format!("{name}: expected an absolute path, found {file}"));
            }
        }
        let pairs = [
            (
                ("user", self.user.is_some()),
                ("password_file", self.password_file.is_some()),
            ),
            (
                ("certificate", self.certificate.is_some()),
                ("certificate_key", self.certificate_key.is_some()),
            ),
        ];
        for ((one, has_one), (other, has_other)) in pairs {
            if has_one != has_other {
                return Err(format!("{one} and {other} go together, and one is missing"));
            }
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        [
            ("ca", &self.ca),
            ("certificate", &self.certificate),
            ("certificate_key", &self.certificate_key),
            ("password_file", &self.password_file),
            ("state_dir", &self.state_dir),
            ("slot_bearer_file", &self.slot_bearer_file),
        ]
        .into_iter()
        .filter_map(|(name, file)| Some((name, file.as_ref()?)))
    }
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// Whoever could write it could send this command to brokers of his own.
fn is_ours(path: &Path, about: &fs::Metadata) -> anyhow::Result<()> {
    let path = path.display();
    let owner = about.uid();
    let ours = rustix::process::geteuid().as_raw();
    let foreign = || {
        Exit::BadFile.because(format!(
            "{path} belongs to user {owner}; it has to be yours or root's, or it is not used"
        ))
    };
    ensure!(owner == 0 || owner == ours, foreign());
    let mode = about.mode() & 0o7777;
    let open = || {
        Exit::BadFile.because(format!(
            "{path} can be written by others (mode {mode:03o}), and is not used; \
             `chmod go-w {path}`"
        ))
    };
    ensure!(mode & 0o022 == 0, open());
    Ok(())
}

/// What is wrong, and in which line.
fn place(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map(|before| before.matches('\n').count() + 1);
    let message = terminal::safe(error.message());
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message.to_string(),
    }
}

/// A key that there is none of.
fn unknown(key: &str) -> String {
    let near = KEYS
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(key, known), known))
        .min();
    let meant = match near {
        _ if key == "password" || key == "token" => {
            "secrets do not stand here: password_file or slot_bearer_file names their file".into()
        }
        Some((distance, known)) if distance <= 3 => format!("did you mean {known}?"),
        _ => format!("known are {}", KEYS.join(", ")),
    };
    format!("there is no key {key:?}; {meant}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_those_of_the_form() {
        let path = Path::new("/p");
        let all = KEYS.map(|key| match key {
            "brokers" | "slot_servers" => format!("{key} = []\n"),
            "anchor" => format!("anchor = \"a 1 sha256:{}\"\n", "0".repeat(64)),
            _ => format!("{key} = \"/x\"\n"),
        });
        let settings = Settings::parse(&all.concat(), path).unwrap();
        assert_eq!(settings.files().count(), 6);
        let said = |text: &str| Settings::parse(text, path).unwrap_err().to_string();
        assert!(said("broker = 1").contains("there is no key \"broker\"; did you mean brokers?"));
        assert!(said("password = \"hush\"").contains("secrets do not stand here"));
        assert!(!said("password = \"hush\"").contains("hush"));
        assert!(said("ca = \"x\"").contains("/p: ca: expected an absolute path, found x"));
        assert!(said("user = \"x\"").contains("user and password_file go together"));
        assert!(said("\nca = 1").contains("line 2: "));
        assert!(said("brokers = [\"x\"]").contains("brokers: a broker is"));
        assert!(said("anchor = \"x\"").contains("anchor: "));
    }
}
