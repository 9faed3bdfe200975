//! The manual pages, and what they say that the command line does not.

use clap::CommandFactory;
use tidings_client::manual::{Man, Manual};

use super::{Arguments, exit::Exit, output};

pub(super) fn run(man: Man) -> anyhow::Result<()> {
    let found = man.run(&manual(), Arguments::command(), output::raw)?;
    match found {
        true => Ok(()),
        false => Err(Exit::Usage.because("there is no command of this name")),
    }
}

fn manual() -> Manual {
    let exits = Exit::ALL
        .iter()
        .map(|(code, word, meaning)| (*code, format!("{word}: {meaning}")));
    Manual {
        section: "1",
        environment: ENVIRONMENT,
        files: FILES,
        exits: exits.collect(),
        examples: EXAMPLES,
        see_also: &["tidings-statement(5)", "tidingsd(8)", "tidings-agent(8)"],
    }
}

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "TIDINGS_PASSPHRASE_FILE",
        "a file with the passphrase of private keys; without it, it is asked for",
    ),
    (
        "RUST_LOG",
        "what is said on standard error: error, warn, info, debug, trace, or a filter",
    ),
    ("NO_COLOR", "if it is not empty, nothing has colours"),
    (
        "XDG_STATE_HOME",
        "below it lies the outbox; ~/.local/state without it",
    ),
    (
        "XDG_CONFIG_HOME",
        "below it lie the contexts; ~/.config without it",
    ),
    (
        "SSH_AUTH_SOCK",
        "where the ssh-agent listens that signs with `--key agent:`",
    ),
    (
        "VISUAL, EDITOR",
        "the editor of `trust edit` and `context edit`",
    ),
];

const FILES: &[(&str, &str)] = &[
    (
        "~/.local/state/tidings/outbox",
        "statements that were signed here, until the log has them",
    ),
    (
        "~/.config/tidings/contexts/NAME.toml",
        "a context: brokers, anchor, credentials and a state directory; the name of the one in use stands in ~/.config/tidings/context",
    ),
    (
        "/etc/tidings/client.toml",
        "the same for all users, below options, environment and context",
    ),
    (
        "/etc/machine-id",
        "what makes this machine another one, if --identity is not given",
    ),
    ("/etc/ssl/certs", "what TLS trusts, if --ca is not given"),
];

/// The command, what is done, and how.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "",
        "Begin a namespace",
        "tidings init acme --host news.example.org",
    ),
    (
        "",
        "Ask what is new",
        "tidings fetch acme.os.stable --state device.state",
    ),
    (
        "init",
        "Begin a namespace whose keys have a passphrase",
        "tidings init acme --host news.example.org --encrypt",
    ),
    (
        "key",
        "Make a key, and show its public line",
        "tidings key new release.key",
    ),
    (
        "key new",
        "Make a key for releases",
        "tidings key new release.key",
    ),
    (
        "key show",
        "Print the public line of a key",
        "tidings key show release.key",
    ),
    (
        "trust",
        "Change who may sign what",
        "tidings trust edit trust.log --out trust.2",
    ),
    (
        "trust init",
        "One key for everything",
        "tidings trust init acme --key root=root.key --sign --out trust.1",
    ),
    (
        "trust show",
        "Show what trust says, and who has signed it",
        "tidings trust show trust.1",
    ),
    (
        "anchor",
        "Print the newest anchor, for new machines",
        "tidings anchor",
    ),
    (
        "release",
        "Announce a version",
        "tidings release acme.os.stable --version 1.1 --payload 'raw os-1.1.img \
         https://example.org/os-1.1.img' --key release.key --publish",
    ),
    (
        "payload",
        "Make a payload in every format that fits",
        "tidings payload make new.img --from old.img --from-version 41 --out 42 --url \
         https://example.org/42/",
    ),
    (
        "payload make",
        "Make deltas from the last image",
        "tidings payload make new.img --from old.img --from-version 41 --out 42 --url \
         https://example.org/42/",
    ),
    (
        "payload compare",
        "See whether two builds are the same",
        "tidings payload compare one.img other.img",
    ),
    (
        "withdraw",
        "Call a release back",
        "tidings withdraw acme.os.stable 7 --reason 'does not boot' --key withdraw.key --publish",
    ),
    (
        "sign",
        "Add a second signature",
        "tidings sign release.statement --key other.key",
    ),
    (
        "publish",
        "Publish what others have signed",
        "tidings publish release.statement",
    ),
    ("outbox", "Show what waits", "tidings outbox"),
    (
        "fetch",
        "Ask once, from the beginning of the channel",
        "tidings fetch acme.os.stable --state device.state --all",
    ),
    (
        "watch",
        "Be told, as JSON for a program",
        "tidings watch acme.os.stable --state device.state --json",
    ),
    (
        "log",
        "Show what was announced",
        "tidings log acme.os.stable",
    ),
    (
        "verify",
        "Verify a file without a network",
        "tidings verify release.statement --trust trust.1 --anchor 'acme 1 \
         sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b'",
    ),
    (
        "status",
        "See whether anything is held back",
        "tidings status --state device.state",
    ),
    (
        "export",
        "Carry a channel over an air gap",
        "tidings export acme.os.stable --out acme.batch",
    ),
    (
        "import",
        "Bring it to a broker",
        "tidings import acme.batch",
    ),
    (
        "next",
        "Which release is this machine to run",
        "tidings next acme.os.stable --state device.state",
    ),
    (
        "apply",
        "Apply it with a command",
        "tidings apply acme.os.stable 7 --state device.state -- ./install",
    ),
    (
        "slot",
        "Who is down, who waits, who has failed",
        "tidings slot list web",
    ),
    (
        "slot take",
        "Take a slot before going down",
        "tidings slot take web rack7-3 7",
    ),
    (
        "slot list",
        "Who is down, who waits, who has failed",
        "tidings slot list web",
    ),
    (
        "evidence",
        "Keep the proof of a fork",
        "tidings evidence acme.os.stable --state device.state --out fork",
    ),
    (
        "beat",
        "Confirm every few minutes that nothing is held back",
        "tidings beat --key beat.key",
    ),
    (
        "check",
        "How do the brokers stand, for Nagios and its kin",
        "tidings check acme.os.stable",
    ),
    (
        "context",
        "Use these brokers and this anchor from now on",
        "tidings context use lab",
    ),
    ("cheat", "The commands that are used most", "tidings cheat"),
    (
        "completions",
        "Completions for this shell, with the channels that are known here",
        "tidings completions bash",
    ),
    ("man", "Read the page of a command", "tidings man release"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as a shell makes them; `'…'` holds blanks together.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (index, part) in line.split('\'').enumerate() {
            match index % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        words
    }

    #[test]
    fn every_command_has_an_example_that_it_understands() {
        for (command, _, line) in EXAMPLES {
            let words = words(line);
            let parsed = Arguments::command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            assert!(
                line.starts_with(format!("tidings {command}").trim_end()) || words.len() > 2,
                "{line}"
            );
        }
        for command in Arguments::command()
            .get_subcommands()
            .filter(|c| !c.is_hide_set())
        {
            let name = command.get_name();
            assert!(
                EXAMPLES.iter().any(|example| example.0 == name),
                "{name} has no example"
            );
        }
    }

    #[test]
    fn every_page_has_its_sections() {
        let pages = manual().all(Arguments::command()).unwrap();
        assert!(pages.len() > 40, "{} pages", pages.len());
        for (name, text) in &pages {
            let text = String::from_utf8_lossy(text);
            for title in [
                "NAME",
                "SYNOPSIS",
                "ENVIRONMENT",
                "FILES",
                "\"EXIT STATUS\"",
                "\"SEE ALSO\"",
            ] {
                let has = text.lines().any(|line| {
                    line.strip_prefix(".SH ")
                        .is_some_and(|found| found == title || found == title.trim_matches('"'))
                });
                assert!(has, "{name} has no {title}");
            }
        }
        let watch = pages
            .iter()
            .find(|page| page.0 == "tidings-watch.1")
            .unwrap();
        let text = String::from_utf8_lossy(&watch.1);
        assert!(
            text.contains("TIDINGS_BROKERS") && text.contains(".SH EXAMPLES"),
            "{text}"
        );
    }
}
