//! Where a value comes from: an option, else the environment, else the context, else the system's
//! file.
//!
//! The command line is read twice. The first time shows which context is meant and what stands
//! there; then what is missing becomes a default, and the command line is read for good.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgMatches, Command, parser::ValueSource};

use super::{Contexts, settings::Settings};

/// The variables whose values may come from a context; options are known by them.
const BROKERS: &str = "TIDINGS_BROKERS";
const ANCHOR: &str = "TIDINGS_ANCHOR";
const SLOT_SERVERS: &str = "TIDINGS_SLOT_SERVERS";

/// Variable and values.
type Values = Vec<(&'static str, Vec<OsString>)>;

/// The command with what a context, or the system's file, says of its options.
pub(crate) fn settle(command: Command) -> anyhow::Result<Command> {
    let relaxed = crate::without_empty_variables(command.clone());
    let relaxed = every(relaxed, &|arg| match arg.get_env() {
        Some(_) => arg.required(false),
        None => arg,
    });
    // What is wrong is found again, and said, when the command line is read for good.
    let Ok(matches) = relaxed.try_get_matches() else {
        return Ok(command);
    };
    crate::output::wants_json(matches.get_flag("json"));
    let given = Given::of(&command, &matches);
    let name = matches.get_one::<String>("context");
    let is_named = matches!(
        matches.value_source("context"),
        Some(ValueSource::CommandLine)
    );
    if !is_named && !given.wants_any() {
        return Ok(command);
    }
    let contexts = Contexts::find();
    let layers = Layers {
        context: contexts.in_use(name.map(String::as_str))?,
        system: contexts.system()?,
    };
    let values = layers.values(&given);
    Ok(every(command, &|arg| {
        let env = arg.get_env().map(std::ffi::OsStr::to_owned);
        let value = values
            .iter()
            .find(|(name, _)| env.as_deref() == Some((*name).as_ref()));
        match value {
            Some((_, values)) => arg
                .default_values(values.clone())
                .hide_default_value(true)
                .required(false),
            None => arg,
        }
    }))
}

/// Changes each argument of a command, and of those below it.
fn every(command: Command, change: &dyn Fn(clap::Arg) -> clap::Arg) -> Command {
    let command = command.mut_args(change);
    command.mut_subcommands(|command| every(command, change))
}

/// What the command that is meant takes from contexts, and what of it was given.
struct Given {
    wanted: Vec<String>,
    explicit: Vec<(String, OsString)>,
}

impl Given {
    fn of(command: &Command, matches: &ArgMatches) -> Self {
        let (mut command, mut matches) = (command, matches);
        while let Some((name, below)) = matches.subcommand() {
            let Some(found) = command.find_subcommand(name) else {
                break;
            };
            (command, matches) = (found, below);
        }
        let mut given = Self {
            wanted: Vec::new(),
            explicit: Vec::new(),
        };
        for arg in command.get_arguments() {
            let Some(variable) = arg.get_env().and_then(|name| name.to_str()) else {
                continue;
            };
            given.wanted.push(variable.to_owned());
            let id = arg.get_id().as_str();
            let source = matches.value_source(id);
            if matches!(
                source,
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            ) {
                let first = matches.get_raw(id).and_then(|mut values| values.next());
                let first = first.unwrap_or_default().to_owned();
                given.explicit.push((variable.to_owned(), first));
            }
        }
        given
    }

    fn wants_any(&self) -> bool {
        [BROKERS, ANCHOR, SLOT_SERVERS]
            .iter()
            .any(|name| self.wanted.iter().any(|wanted| wanted == name))
    }

    fn explicit(&self, variable: &str) -> Option<&OsString> {
        let mut all = self.explicit.iter();
        all.find(|(name, _)| name == variable)
            .map(|(_, value)| value)
    }
}

/// What stands below options and environment.
pub(super) struct Layers {
    pub(super) context: Option<Settings>,
    pub(super) system: Option<Settings>,
}

/// Servers who might be told who we are.
struct Servers {
    /// They were given above all layers.
    are_given: bool,
    /// Whether a layer names them.
    are_named: fn(&Settings) -> bool,
}

impl Layers {
    fn all(&self) -> impl Iterator<Item = &Settings> {
        [&self.context, &self.system].into_iter().flatten()
    }

    /// The first layer that says something.
    fn first<T>(&self, of: impl Fn(&Settings) -> Option<T>) -> Option<T> {
        self.all().find_map(of)
    }

    /// The same without the layers below the one that names servers: who we are is told to no
    /// others than those that a file of the same rank, or a lower one, names.
    fn told<T>(&self, to: &Servers, of: impl Fn(&Settings) -> Option<T>) -> Option<T> {
        let mut are_named = to.are_given;
        for layer in self.all() {
            if are_named {
                return None;
            }
            if let Some(value) = of(layer) {
                return Some(value);
            }
            are_named = (to.are_named)(layer);
        }
        None
    }

    /// Values by the variables that would have them.
    fn values(&self, given: &Given) -> Values {
        let brokers = Servers {
            are_given: given.explicit(BROKERS).is_some(),
            are_named: |layer| !layer.brokers.is_empty(),
        };
        let slots = Servers {
            are_given: given.explicit(SLOT_SERVERS).is_some(),
            are_named: |layer| !layer.slot_servers.is_empty(),
        };
        let path = |path: Option<PathBuf>| path.map(PathBuf::into_os_string);
        let mut values = Values::new();
        let mut one = |name, value: Option<OsString>| {
            values.extend(value.map(|value| (name, vec![value])));
        };
        let anchor = self.first(|layer| layer.anchor.clone()).map(OsString::from);
        // A state is of one namespace.
        let namespace = given.explicit(ANCHOR).or(anchor.as_ref());
        let namespace = namespace
            .and_then(|anchor| anchor.to_str()?.split_whitespace().next())
            .map(str::to_owned);
        let state = self.first(|layer| layer.state_dir.clone()).zip(namespace);
        if let Some((directory, namespace)) = state {
            let file = |suffix| Some(directory.join(format!("{namespace}.{suffix}")).into());
            one("TIDINGS_STATE", file("state"));
            one("TIDINGS_OUTBOX", file("outbox"));
        }
        one(ANCHOR, anchor);
        one("TIDINGS_CA", path(self.first(|layer| layer.ca.clone())));
        let account = self.told(&brokers, |l| l.user.clone().zip(l.password_file.clone()));
        if let Some((user, file)) = account {
            one("TIDINGS_USER", Some(user.into()));
            one("TIDINGS_PASSWORD_FILE", Some(file.into()));
        }
        let own = |l: &Settings| l.certificate.clone().zip(l.certificate_key.clone());
        if let Some((certificate, key)) = self.told(&brokers, own) {
            one("TIDINGS_CERTIFICATE", Some(certificate.into()));
            one("TIDINGS_CERTIFICATE_KEY", Some(key.into()));
        }
        let bearer = self.told(&slots, |layer| layer.slot_bearer_file.clone());
        one("TIDINGS_SLOT_BEARER_FILE", path(bearer));
        let mut several = |name, all: Option<Vec<String>>| {
            let all = all.map(|all| all.into_iter().map(OsString::from).collect());
            values.extend(all.map(|all| (name, all)));
        };
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        several(BROKERS, self.first(|layer| some(&layer.brokers)));
        several(SLOT_SERVERS, self.first(|layer| some(&layer.slot_servers)));
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Layers {
        let settings = |text: &str| Settings::parse(text, "/p".as_ref()).unwrap();
        let anchor = format!("acme 1 sha256:{}", "0".repeat(64));
        Layers {
            context: Some(settings(&format!(
                "brokers = [\"nntps://context\"]\nanchor = \"{anchor}\"\nstate_dir = \"/state\"\n"
            ))),
            system: Some(settings(
                "brokers = [\"nntps://system\"]\nca = \"/ca\"\nuser = \"system\"\n\
                 password_file = \"/secret\"\n",
            )),
        }
    }

    fn value(values: &Values, name: &str) -> Option<String> {
        let (_, all) = values.iter().find(|(known, _)| *known == name)?;
        Some(all.iter().map(|v| v.to_string_lossy()).collect())
    }

    #[test]
    fn a_context_stands_above_the_system_and_who_we_are_is_told_to_no_others() {
        let nothing = || Given {
            wanted: Vec::new(),
            explicit: Vec::new(),
        };
        let mut layers = layers();
        let values = layers.values(&nothing());
        let of = |name| value(&values, name);
        assert_eq!(of(BROKERS).as_deref(), Some("nntps://context"));
        assert_eq!(of("TIDINGS_CA").as_deref(), Some("/ca"));
        assert_eq!(of("TIDINGS_STATE").as_deref(), Some("/state/acme.state"));
        // The brokers of the context do not learn the password of the system's.
        assert_eq!(of("TIDINGS_USER"), None);
        layers.context.as_mut().unwrap().brokers.clear();
        let values = layers.values(&nothing());
        assert_eq!(value(&values, "TIDINGS_USER").as_deref(), Some("system"));
        let mut given = nothing();
        given
            .explicit
            .push((BROKERS.into(), "nntps://given".into()));
        given.explicit.push((ANCHOR.into(), "other 1 x".into()));
        let values = layers.values(&given);
        assert_eq!(value(&values, "TIDINGS_USER"), None);
        let state = value(&values, "TIDINGS_STATE");
        assert_eq!(state.as_deref(), Some("/state/other.state"));
    }
}
