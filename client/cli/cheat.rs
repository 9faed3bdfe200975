//! A page of the commands that are used most.

use serde_json::json;

use super::output;

type Line = (&'static str, &'static str);

/// Each part, and its commands with what they do.
const PAGE: &[(&str, &[Line])] = &[
    (
        "Begin",
        &[
            (
                "tidings init acme --dir keys --host news.example.org",
                "keys, trust, configurations",
            ),
            (
                "tidings context add prod --broker nntps://news.example.org --anchor 'acme 1 \
                 sha256:0123' --state-dir state --use",
                "give brokers and anchor once",
            ),
            ("tidings context list", "what there is"),
            ("tidings context use prod", "which one from now on"),
        ],
    ),
    (
        "Publish",
        &[
            (
                "tidings release acme.os --version 1.0 --new-channel --payload 'raw os.img \
                 https://example.org/os.img' --key release.key --publish",
                "the first release of a channel",
            ),
            (
                "tidings release acme.os --version 1.1 --key agent: --publish",
                "the next, signed by ssh-agent",
            ),
            (
                "tidings withdraw acme.os 2 --reason 'does not boot' --key withdraw.key --publish",
                "call it back",
            ),
            (
                "tidings release acme.os --again 1 --key release.key --publish",
                "go back to an older one",
            ),
            ("tidings outbox", "what was signed and is not published yet"),
        ],
    ),
    (
        "Look",
        &[
            ("tidings fetch acme.os", "what is new, once"),
            ("tidings watch acme.os --json", "what is new, as it comes"),
            ("tidings log acme.os --last 5", "what stands there"),
            ("tidings status acme.os", "is anything held back"),
            (
                "tidings status nntps://a.example nntps://b.example",
                "do brokers agree",
            ),
            (
                "tidings verify r1 --trust trust.log --anchor 'acme 1 sha256:0123'",
                "without a network",
            ),
        ],
    ),
    (
        "Install",
        &[
            (
                "tidings next acme.os --state device.state",
                "the release to run",
            ),
            (
                "tidings apply acme.os --state device.state -- /usr/local/bin/install",
                "run it by a command",
            ),
        ],
    ),
    (
        "Change who may sign",
        &[
            (
                "tidings key new ann.key --encrypt",
                "a key under a passphrase",
            ),
            (
                "tidings trust log --out trust.log",
                "the trust log as it is",
            ),
            (
                "tidings trust edit trust.log --remove-key root --add-key ann=ann.key.pub --out \
                 trust.new",
                "the next trust statement",
            ),
            (
                "tidings sign trust.new --key ann.key",
                "each signer in turn",
            ),
            ("tidings trust show trust.new", "who is missing"),
            ("tidings publish trust.new", "and out with it"),
            ("tidings anchor", "the line for new devices"),
        ],
    ),
];

/// Prints the page.
pub(super) fn print() {
    for (part, lines) in PAGE {
        if !output::is_json() {
            output::line(&format!("# {part}"));
        }
        for (command, what) in *lines {
            output::answer(
                || json!({"part": part, "command": command, "meaning": what}),
                || format!("{command}\n    {what}"),
            );
        }
        if !output::is_json() {
            output::line("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// As a shell would split it; there are no quotes but single ones.
    fn words(line: &str) -> Vec<String> {
        let parts = line.split('\'').enumerate();
        let mut words = vec![String::new()];
        for (at, part) in parts {
            let mut rest = part.split(if at % 2 == 0 { ' ' } else { '\n' });
            let first = rest.next().unwrap_or_default();
            words.last_mut().unwrap().push_str(first);
            words.extend(rest.map(str::to_owned));
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn each_command_of_the_page_is_one() {
        let command = || crate::Arguments::command();
        let lines = PAGE.iter().flat_map(|(_, lines)| *lines);
        let mut count = 0;
        for (line, _) in lines {
            // An anchor that is short enough for the page is none.
            let line = line.replace("sha256:0123", &format!("sha256:{}", "0".repeat(64)));
            let parsed = command().try_get_matches_from(words(&line));
            parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
            count += 1;
        }
        assert!(count > 15);
        let wrong = words("tidings release acme.os --verson 1");
        assert!(command().try_get_matches_from(wrong).is_err());
    }
}
