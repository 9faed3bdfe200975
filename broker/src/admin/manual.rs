//! What the manual pages of `tidingsd` say that its command line does not.

use tidings_client::manual::Manual;

/// The pages.
pub fn manual() -> Manual {
    let exits = [
        (0, "all went well"),
        (
            1,
            "something failed; standard error says what, and what to do",
        ),
        (2, "wrong arguments"),
        (3, "check or export found something damaged"),
    ];
    Manual {
        section: "8",
        environment: &[
            (
                "NOTIFY_SOCKET",
                "systemd is told there that the broker is ready",
            ),
            (
                "CREDENTIALS_DIRECTORY",
                "where systemd lays the files of LoadCredential=; \
                 the configuration names them by their full path",
            ),
        ],
        files: &[
            (
                "/etc/tidings/tidingsd.toml",
                "the configuration: tidingsd.toml(5)",
            ),
            (
                "/etc/tidings/conf.d/*.toml",
                "more of it, read after that file in the order of their names",
            ),
            (
                "/etc/tidings/tidingsd.keys/",
                "private keys, for root alone; each is a credential of the service, \
                 /run/credentials/tidingsd.service/keys_FILE",
            ),
            (
                "/var/lib/tidings",
                "the store, if the configuration says no other data_dir",
            ),
            ("/var/lib/tidings/forks", "the evidence of forks"),
        ],
        exits: exits.map(|(code, text)| (code, text.to_owned())).into(),
        examples: &[
            (
                "",
                "Check a configuration",
                "tidingsd --check --config /etc/tidings/tidingsd.toml",
            ),
            (
                "",
                "Read certificates, logins and the log level again",
                "systemctl reload tidingsd",
            ),
            ("", "See the whole thing on this machine", "tidingsd demo"),
            (
                "demo",
                "See the whole thing on this machine",
                "tidingsd demo",
            ),
            (
                "init-cluster",
                "Make the place of a cluster in ZooKeeper, once",
                "tidingsd init-cluster",
            ),
            (
                "set-head",
                "Set the head of a channel to what this broker has",
                "tidingsd set-head acme.os.stable",
            ),
            (
                "check",
                "Read and prove a whole store",
                "tidingsd check /var/lib/tidings",
            ),
            (
                "export",
                "Write what can be read",
                "tidingsd export /var/lib/tidings --output all.batch",
            ),
            (
                "completions",
                "Completions for this shell",
                "tidingsd completions bash",
            ),
            ("man", "Read the page of a command", "tidingsd man check"),
        ],
        see_also: &[
            "tidingsd.toml(5)",
            "tidings-statement(5)",
            "tidings(1)",
            "tidings-agent(8)",
        ],
    }
}
