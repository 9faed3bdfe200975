//! Contexts: brokers, anchor and the rest under a name, so that they need not be given each time.

mod layers;
mod settings;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use tidings_client::file;

pub(super) use layers::settle;
use settings::{SYSTEM, Settings};

use super::{editor, exit::Exit, output};

/// What `tidings --help` says of where values come from.
pub(super) const PRECEDENCE: &str = "Brokers, anchor, TLS files, user and state come from options, \
    else from the environment, else from the context (`tidings context`; \
    --context, TIDINGS_CONTEXT or the one in use), else from /etc/tidings/client.toml. Who we are \
    is told to no brokers but those that the same place names, or one below it.";

/// Name brokers, anchor, credentials and a state directory once, and use them by that name
#[derive(Subcommand)]
pub(super) enum Context {
    /// List the contexts; the one in use has a star
    List,
    /// Show a context and the system's file
    Show {
        /// Which; without it, the one in use
        name: Option<String>,
    },
    /// Use a context from now on; without a name, none
    Use {
        /// Which
        name: Option<String>,
    },
    /// Add a context: a file in ~/.config/tidings/contexts
    Add(Box<Add>),
    /// Change a context as text in $EDITOR
    Edit {
        /// Which
        name: String,
    },
    /// Remove a context
    Remove {
        /// Which
        name: String,
    },
}

#[derive(Args)]
pub(super) struct Add {
    /// Its name: letters, digits, `.`, `_` and `-`
    name: String,
    /// A broker, nntps://HOST[:PORT] or nntp://HOST[:PORT]; repeatable
    #[arg(long = "broker", value_name = "URL")]
    brokers: Vec<String>,
    /// The anchor of the namespace: `NAMESPACE SERIAL sha256:HEX`
    #[arg(long, value_name = "LINE")]
    anchor: Option<String>,
    /// Certificates that TLS trusts instead of the system's, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A certificate of our own, PEM
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// The name under which brokers know us
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// A file with the password, and nothing else
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Remember there what was seen (NAMESPACE.state) and signed (NAMESPACE.outbox)
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A slot server; repeatable
    #[arg(long = "slot-server", value_name = "URL")]
    slot_servers: Vec<String>,
    /// A file with the bearer token for slot servers
    #[arg(long, value_name = "FILE")]
    slot_bearer_file: Option<PathBuf>,
    /// What it is, for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Use it from now on
    #[arg(long = "use")]
    in_use: bool,
}

impl Add {
    fn settings(self) -> anyhow::Result<Settings> {
        let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
        Ok(Settings {
            description: self.description,
            brokers: self.brokers,
            anchor: self.anchor,
            ca: absolute(self.ca)?,
            certificate: absolute(self.certificate)?,
            certificate_key: absolute(self.certificate_key)?,
            user: self.user,
            password_file: absolute(self.password_file)?,
            state_dir: absolute(self.state_dir)?,
            slot_servers: self.slot_servers,
            slot_bearer_file: absolute(self.slot_bearer_file)?,
        })
    }
}

/// Where contexts are.
struct Contexts {
    /// `~/.config/tidings`, if there is a home.
    directory: Option<PathBuf>,
}

impl Contexts {
    fn find() -> Self {
        let var = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let config = var("XDG_CONFIG_HOME").or_else(|| Some(var("HOME")?.join(".config")));
        Self {
            directory: config.map(|config| config.join("tidings")),
        }
    }

    fn directory(&self) -> anyhow::Result<&Path> {
        let none =
            || Exit::Usage.because("where shall contexts be kept? set HOME or XDG_CONFIG_HOME");
        self.directory.as_deref().ok_or_else(none)
    }

    fn file(&self, name: &str) -> anyhow::Result<PathBuf> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_name = !name.is_empty() && !name.starts_with('.') && name.chars().all(good);
        let wrong = || {
            Exit::Usage.because(format!(
                "a context's name has letters, digits, `.`, `_` and `-`; this is {name:?}"
            ))
        };
        ensure!(is_name, wrong());
        let file = format!("contexts/{name}.toml");
        Ok(self.directory()?.join(file))
    }

    /// The names of all, in order.
    fn names(&self) -> anyhow::Result<Vec<String>> {
        let directory = self.directory()?.join("contexts");
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".toml"));
            names.extend(name.map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The name of the one that `tidings context use` has named.
    fn named_in_use(&self) -> anyhow::Result<Option<String>> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let path = directory.join("context");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // The home of somebody else, as after `setpriv`, whose context is not meant.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let path = path.display();
                output::note(&format!("{path} cannot be read: no context is in use"));
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn read(&self, name: &str) -> anyhow::Result<Settings> {
        let path = self.file(name)?;
        let none = || {
            let known = self.names().unwrap_or_default().join(", ");
            Exit::Usage.because(match known.is_empty() {
                true => format!("there is no context {name:?}, and no other"),
                false => format!("there is no context {name:?}; there are {known}"),
            })
        };
        Settings::read(&path)?.ok_or_else(none)
    }

    /// The settings of a context, or of the one in use.
    fn in_use(&self, name: Option<&str>) -> anyhow::Result<Option<Settings>> {
        let name = match name {
            Some(name) => Some(name.to_owned()),
            None => self.named_in_use()?,
        };
        name.map(|name| self.read(&name)).transpose()
    }

    fn system(&self) -> anyhow::Result<Option<Settings>> {
        Settings::read(SYSTEM.as_ref())
    }

    fn use_from_now_on(&self, name: Option<&str>) -> anyhow::Result<()> {
        let path = self.directory()?.join("context");
        let text = name.map_or(String::new(), |name| format!("{name}\n"));
        self.write(&path, text.as_bytes())
    }

    fn write(&self, path: &Path, octets: &[u8]) -> anyhow::Result<()> {
        let context = || format!("cannot write {}", path.display());
        let directory = path.parent().unwrap_or(path);
        fs::create_dir_all(directory).with_context(context)?;
        file::replace(path, octets, 0o600).with_context(context)
    }
}

impl Context {
    pub(super) fn run(self, given: Option<&str>) -> anyhow::Result<()> {
        let contexts = Contexts::find();
        match self {
            Self::List => list(&contexts),
            Self::Show { name } => show(&contexts, name.as_deref().or(given)),
            Self::Use { name } => {
                if let Some(name) = &name {
                    contexts.read(name)?;
                }
                contexts.use_from_now_on(name.as_deref())?;
                in_use(name.as_deref());
                Ok(())
            }
            Self::Add(add) => add_one(&contexts, *add),
            Self::Edit { name } => edit_one(&contexts, &name),
            Self::Remove { name } => {
                let path = contexts.file(&name)?;
                contexts.read(&name)?;
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
                if contexts.named_in_use()?.as_deref() == Some(&name) {
                    contexts.use_from_now_on(None)?;
                }
                let text = || format!("{name} is removed");
                output::answer(|| json!({"context": name, "removed": true}), text);
                Ok(())
            }
        }
    }
}

fn in_use(name: Option<&str>) {
    let text = || match name {
        Some(name) => format!("{name} is in use"),
        None => "no context is in use".into(),
    };
    output::answer(|| json!({"context": name, "in_use": name.is_some()}), text);
}

fn list(contexts: &Contexts) -> anyhow::Result<()> {
    let current = contexts.named_in_use()?;
    let mut rows = Vec::new();
    for name in contexts.names()? {
        let is_current = current.as_deref() == Some(&name);
        let settings = match contexts.read(&name) {
            Ok(settings) => settings,
            // One that cannot be used hides no other.
            Err(error) => {
                output::note(&format!("{name}: {error:#}"));
                continue;
            }
        };
        if output::is_json() {
            output::object(&json!({"context": name, "in_use": is_current, "settings": settings}));
            continue;
        }
        let anchor = settings.anchor.unwrap_or_default();
        let namespace = anchor.split(' ').next().unwrap_or_default().to_owned();
        let star = if is_current { "*" } else { "" };
        let about = settings.description.unwrap_or_default();
        rows.push(vec![
            star.into(),
            name,
            namespace,
            settings.brokers.join(","),
            about,
        ]);
    }
    if !output::is_json() {
        output::table(&["", "context", "namespace", "brokers", ""], rows);
    }
    Ok(())
}

fn show(contexts: &Contexts, name: Option<&str>) -> anyhow::Result<()> {
    let current = contexts.named_in_use()?;
    let name = name.map(str::to_owned).or_else(|| current.clone());
    let settings = name
        .as_deref()
        .map(|name| contexts.read(name))
        .transpose()?;
    let system = contexts.system()?;
    if output::is_json() {
        let is_current = name.is_some() && current == name;
        output::object(
            &json!({"context": name, "in_use": is_current, "settings": settings, "system": system}),
        );
        return Ok(());
    }
    match (&name, &settings) {
        (Some(name), Some(settings)) => {
            output::line(&format!("# {}", contexts.file(name)?.display()));
            output::raw(toml::to_string(settings)?.as_bytes());
        }
        _ => output::note("no context is in use"),
    }
    if let Some(system) = system {
        output::line(&format!("# {SYSTEM}, below it"));
        output::raw(toml::to_string(&system)?.as_bytes());
    }
    Ok(())
}

fn add_one(contexts: &Contexts, add: Add) -> anyhow::Result<()> {
    let (name, path, use_it) = (add.name.clone(), contexts.file(&add.name)?, add.in_use);
    let there = || {
        Exit::BadFile.because(format!(
            "there is a context {name} already; `tidings context edit {name}` changes it"
        ))
    };
    ensure!(!path.exists(), there());
    let settings = add.settings()?;
    let text = toml::to_string(&settings)?;
    Settings::parse(&text, &path)?;
    if let Some(directory) = &settings.state_dir {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    contexts.write(&path, text.as_bytes())?;
    // What is around it may be as others may not leave it.
    contexts.read(&name)?;
    if use_it {
        contexts.use_from_now_on(Some(&name))?;
    }
    let text = || format!("{name}: {}", path.display());
    output::answer(|| json!({"context": name, "in_use": use_it}), text);
    Ok(())
}

fn edit_one(contexts: &Contexts, name: &str) -> anyhow::Result<()> {
    let path = contexts.file(name)?;
    contexts.read(name)?;
    let old =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = editor::changed(&old, "tidings-context-", ".toml")?;
    Settings::parse(&text, &path).context("nothing was changed")?;
    contexts.write(&path, text.as_bytes())?;
    let text = || format!("{name}: {}", path.display());
    output::answer(|| json!({"context": name}), text);
    Ok(())
}
