//! What the manual pages of `tidings-agent` say that its command line does not.

use tidings_client::manual::Manual;

/// The pages.
pub fn manual() -> Manual {
    let exits = [
        (0, "all went well; `status`: well; `restarts`: nobody"),
        (1, "`status`: waiting; `restarts`: somebody"),
        (
            2,
            "something failed, or is not known; standard error says what",
        ),
    ];
    Manual {
        section: "8",
        environment: &[(
            "https_proxy, http_proxy, no_proxy",
            "through what payloads are fetched, if the configuration names no proxy",
        )],
        files: &[
            (
                "/etc/tidings/agent.toml",
                "the configuration: agent.toml(5)",
            ),
            (
                "/etc/tidings/agent.d/*.toml",
                "more of it, read after that file in the order of their names",
            ),
            (
                "/etc/tidings/agent.keys/",
                "keys and tokens, for root alone; each is a credential of the service, \
                 /run/credentials/tidings-agent.service/keys_FILE",
            ),
            (
                "/etc/tidings/health.d/",
                "programs that say whether the machine is well",
            ),
            (
                "/etc/tidings/format.d/, apply.d/, loader.d/",
                "handlers of this machine; they go before those in /usr/lib/tidings",
            ),
            (
                "/var/lib/tidings-agent",
                "what the agent remembers, and what it has fetched",
            ),
            ("/run/tidings/status.json", "how things stand"),
        ],
        exits: exits.map(|(code, text)| (code, text.to_owned())).into(),
        examples: &[
            ("", "Check the configuration", "tidings-agent check"),
            ("", "See how things stand", "tidings-agent status"),
            (
                "once",
                "Look once, and do what can be done now",
                "tidings-agent once",
            ),
            (
                "check",
                "Check a configuration",
                "tidings-agent check --config ./agent.toml",
            ),
            (
                "check-handler",
                "Test a handler by the contract",
                "tidings-agent check-handler /etc/tidings/format.d/mine --payload FILE",
            ),
            (
                "restarts",
                "Who runs code that is gone",
                "tidings-agent restarts",
            ),
            ("status", "For a program", "tidings-agent status --json"),
            (
                "completions",
                "Completions for this shell",
                "tidings-agent completions bash",
            ),
            (
                "man",
                "Read the page of a command",
                "tidings-agent man restarts",
            ),
        ],
        see_also: &[
            "agent.toml(5)",
            "tidings-apply(8)",
            "tidings-statement(5)",
            "tidings(1)",
        ],
    }
}
