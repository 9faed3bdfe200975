//! Metrics as Prometheus reads them, and what `docs/monitoring/` makes of them.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, net::SocketAddr};

use rcgen::{CertificateParams, KeyPair};
use tidings_client::keys;
use tidings_tests::{
    Daemon, Fixture, free_address,
    http::request,
    monitoring::{directory, exported, named, promtool},
    realm::{Realm, key},
    tree::{broker, os, publish, publish_trust, until, until_head},
};

const ROLES: &[&str] = &[
    "trust * 1 root",
    "release * 1 ann",
    "withdraw * 1 ann",
    "beat * 1 beat",
];

/// An origin that signs beats, and a mirror of it with everything else that can be measured but a
/// cluster.
struct Pair {
    addresses: [SocketAddr; 2],
    _origin: (Fixture, Daemon),
    _mirror: (Fixture, Daemon),
}

impl Pair {
    async fn new() -> Self {
        let realm = Realm::new(ROLES, &["root"]);
        let addresses = [free_address().unwrap(), free_address().unwrap()];
        let admin = |at: usize| format!("[admin]\nlisten = [\"{}\"]\n", addresses[at]);
        let origin = broker(&realm, "").unwrap();
        let file = origin.directory.join("beat.key");
        keys::write_private(&file, &key("beat"), None).unwrap();
        origin
            .configure(&format!(
                "{}[[beat]]\nnamespace = \"test\"\nkey_file = \"{}\"\nevery_seconds = 1\n\
                 life_seconds = 600\n",
                admin(0),
                file.display()
            ))
            .unwrap();
        let daemon = origin.start().unwrap();
        let mut publisher = tidings_client::Publisher::connect(origin.source().unwrap())
            .await
            .unwrap();
        publish_trust(&realm, &mut publisher).await.unwrap();
        publish(&realm, &mut publisher, &os(), None, 3, &["ann"])
            .await
            .unwrap();
        let mirror = origin.mirror_of(&[origin.address], "").unwrap();
        let pair = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".into()])
            .unwrap()
            .self_signed(&pair)
            .unwrap();
        let files = [
            ("cert.pem", certificate.pem()),
            ("key.pem", pair.serialize_pem()),
        ];
        for (name, text) in files {
            fs::write(mirror.directory.join(name), text).unwrap();
        }
        let more = format!(
            "{}[tls]\ncertificate_file = \"{2}/cert.pem\"\nkey_file = \"{2}/key.pem\"\n[[slot]]\n\
             group = \"web\"\n[fleetlock]\nlisten = [\"FREE-ADDRESS\"]\n[[feed]]\nname = \"away\"\n\
             to = \"nntp://{1}\"\n",
            admin(1),
            free_address().unwrap(),
            mirror.directory.display()
        );
        mirror.mirror(&[origin.address], &more).unwrap();
        let copying = mirror.start().unwrap();
        until_head(&mirror, &os(), 3).await;
        let pair = Self {
            addresses,
            _origin: (origin, daemon),
            _mirror: (mirror, copying),
        };
        until("a beat names the channel at the mirror", async || {
            let current = "tidings_channel_states{state=\"CURRENT\"} 3\n";
            pair.metrics(1, "").contains(current)
        })
        .await;
        pair
    }

    fn metrics(&self, at: usize, accept: &str) -> String {
        let asked = format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\
             \r\n"
        );
        let (status, text) = request(self.addresses[at], &asked).unwrap();
        assert_eq!(status, 200);
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_clean_in_both_formats_and_have_what_is_named() {
    let pair = Pair::new().await;
    let mut all = BTreeSet::new();
    for at in 0..2 {
        let text = pair.metrics(at, "text/plain");
        assert_eq!(
            promtool(&["check", "metrics"], &text).unwrap(),
            "",
            "{text}"
        );
        let open = pair.metrics(at, "application/openmetrics-text; version=1.0.0");
        assert!(open.ends_with("# EOF\n"), "{open}");
        // The parser of OpenMetrics in promtool wants a time with each sample.
        let timed: String = open
            .lines()
            .map(|line| match line.starts_with('#') {
                true => format!("{line}\n"),
                false => format!("{line} 1796000000\n"),
            })
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let (file, blocks) = (
            directory.path().join("open"),
            directory.path().join("blocks"),
        );
        fs::write(&file, timed).unwrap();
        let create = ["tsdb", "create-blocks-from", "openmetrics"];
        let paths = [file.to_str().unwrap(), blocks.to_str().unwrap()];
        promtool(&[&create[..], &paths].concat(), "").unwrap();
        assert_eq!(exported(&text), exported(&open));
        all.append(&mut exported(&text));
    }
    let text = pair.metrics(1, "");
    for line in [
        "tidings_ready 1",
        "tidings_upstreams_connected 1",
        "tidings_channel_states{state=\"STALE\"} 0",
        "tidings_feed_lag_channels{feed=\"away\"} 3",
        "tidings_evidence_files{kind=\"fork\"} 0",
        &format!(
            "tidings_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        ),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    // A cluster's are looked at where there is one.
    let of_cluster = |name: &&String| name.starts_with("tidings_cluster_");
    let named = named().unwrap();
    assert!(named.len() > 20 && named.iter().any(|name| of_cluster(&name)));
    let missing: Vec<_> = named
        .difference(&all)
        .filter(|name| !of_cluster(name))
        .collect();
    assert!(missing.is_empty(), "nothing exports {missing:?}");
}

#[test]
fn the_alert_rules_pass_their_tests() {
    let said = promtool(&["check", "rules", "alerts.yml"], "").unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
    let said = promtool(&["test", "rules", "alerts.test.yml"], "").unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
    // Each rule fires in its test.
    let read = |name| fs::read_to_string(directory().join(name)).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts.test.yml"));
    let names = rules
        .lines()
        .filter_map(|line| line.split_once("- alert: "));
    let names: Vec<&str> = names.map(|(_, name)| name).collect();
    assert!(names.len() > 15);
    for name in names {
        let fires = format!("{{alertname=\"{name}\"}}', value: 1}}");
        assert!(tests.contains(&fires), "no test of {name}");
    }
}

#[test]
fn each_query_of_the_dashboard_is_one() {
    let text = fs::read_to_string(directory().join("dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array());
    let queries: Vec<String> = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap().replace("$instance", ".*"))
        .collect();
    assert!(queries.len() > 20);
    let rule = |(at, query): (usize, &String)| {
        format!(
            "  - record: query:{at}\n    expr: {}\n",
            serde_json::json!(query)
        )
    };
    let rules: String = queries.iter().enumerate().map(rule).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("queries.yml");
    fs::write(
        &file,
        format!("groups:\n- name: dashboard\n  rules:\n{rules}"),
    )
    .unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "").unwrap();
    // What is shown lies side by side.
    let mut taken = BTreeSet::new();
    for panel in panels {
        let of = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for cell in (0..of("h")).flat_map(|y| (0..of("w")).map(move |x| (x, y))) {
            let cell = (of("x") + cell.0, of("y") + cell.1);
            assert!(cell.0 < 24 && taken.insert(cell), "{}", panel["title"]);
        }
    }
}
