//! FleetLock by the letter: what other projects' clients send, and what is refused by name.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidings_client::Serial;
use tidings_protocol::slot::SlotName;
use tidings_tests::{
    free_address, http,
    slots::GROUPS,
    tree::{connect, origin, os, realm, until},
};

fn name(text: &str) -> SlotName {
    text.parse().unwrap()
}

/// One request, with the headers that are given; status and body.
fn send(address: SocketAddr, line: &str, headers: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, body) = http::request(address, &request).unwrap();
    (status, serde_json::from_str(&body).unwrap_or_default())
}

const HEADER: &str = "fleet-lock-protocol: true\r\n";

fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    send(address, &format!("POST {path}"), HEADER, &body.to_string())
}

fn lock(id: &str, group: &str) -> Value {
    json!({"client_params": {"id": id, "group": group}})
}

/// A group whose slots are all taken, and one that is as the file says.
const MORE: &str = "[[slot]]\ngroup = \"default\"\nmax = 100\n\
    [[slot]]\ngroup = \"workers\"\nmax = 100\n[[slot]]\ngroup = \"mock-workers\"\nmax = 100\n\
    [[slot]]\ngroup = \"lokomotive\"\nmax = 100\n[[slot]]\ngroup = \"db-1\"\nmax = 100\n\
    [[slot]]\ngroup = \"taken\"\n";

/// What clients of these projects send, and servers of these projects are tested with: as their
/// documentation and their tests publish it.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_other_projects_publish() {
    let (fixture, _daemon, _publisher) =
        origin(&realm(), &format!("{MORE}{GROUPS}")).await.unwrap();
    let address = fixture.slot_address().unwrap();
    assert_eq!(post(address, "/v1/pre-reboot", &lock("x", "taken")).0, 200);
    let pretty = "\n{\n  \"client_params\": {\n    \"group\": \"default\",\n    \"id\": \"c988d2509fdf5cdcbed39037c56406fb\"\n  }\n}\n\n";
    let mock = "\n{\n  \"client_params\": {\n    \"id\": \"e0f3745b108f471cbd4883c6fbed8cdd\",\n    \"group\": \"mock-workers\"\n  }\n}\n";
    let id = |id: &str, group: &str| lock(id, group).to_string();
    let (json, html) = (
        "Content-Type: application/json\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
    );
    #[rustfmt::skip]
    let cases = [
        // Who publishes it, path, header, other headers, body, status, kind.
        ("Zincati, the protocol's example by curl", "/v1/pre-reboot", "true", html, pretty.into(), 200, ""),
        ("Zincati, the same to unlock", "/v1/steady-state", "true", html, pretty.into(), 200, ""),
        ("Zincati, its client's lock", "/v1/pre-reboot", "true", "", mock.to_owned(), 200, ""),
        ("Zincati, its client's lock once more", "/v1/pre-reboot", "true", "", mock.to_owned(), 200, ""),
        ("Zincati, its client's unlock", "/v1/steady-state", "true", "", mock.to_owned(), 200, ""),
        ("Zincati, unlock at its start", "/v1/steady-state", "true", "", mock.to_owned(), 200, ""),
        ("Zincati, all slots are locked", "/v1/pre-reboot", "true", "", id("c988d2509fdf4cdcbed39037c56406fb", "taken"), 409, "failed_lock"),
        ("airlock, without the header", "/v1/pre-reboot", "", "", pretty.into(), 400, "malformed_request"),
        ("airlock, another header", "/v1/pre-reboot", "false", "", pretty.into(), 400, "malformed_request"),
        ("airlock, no group", "/v1/pre-reboot", "true", "", id("a", ""), 400, "malformed_request"),
        ("airlock, no id", "/v1/pre-reboot", "true", "", id("", "default"), 400, "malformed_request"),
        ("airlock, the id's name before 2020", "/v1/pre-reboot", "true", "", r#"{"client_params":{"group":"default","node_uuid":"c988"}}"#.into(), 400, "malformed_request"),
        ("airlock, a group that is not configured", "/v1/pre-reboot", "true", "", id("a", "unknown"), 404, "unknown_group"),
        ("poseidon/fleetlock, its example", "/v1/pre-reboot", "true", html, id("c988d2509fdf5cdcbed39037c56406fb", "default"), 200, ""),
        ("poseidon/fleetlock, its example's end", "/v1/steady-state", "true", html, id("c988d2509fdf5cdcbed39037c56406fb", "default"), 200, ""),
        ("poseidon/fleetlock, held by another", "/v1/pre-reboot", "true", "", id("e0f3745b108f471cbd4883c6fbed8cdd", "taken"), 409, "failed_lock"),
        ("heathcliff26/fleetlock, reserve", "/v1/pre-reboot", "true", "", id("testUser", "default"), 200, ""),
        ("heathcliff26/fleetlock, release", "/v1/steady-state", "true", "", id("testUser", "default"), 200, ""),
        ("heathcliff26/fleetlock, not found", "/foo/bar/nothing", "true", "", id("testUser", "default"), 404, "unknown_path"),
        ("heathcliff26/fleetlock, no JSON", "/v1/steady-state", "true", "", "This is not json".into(), 400, "malformed_request"),
        ("heathcliff26/fleetlock, missing header", "/v1/steady-state", "", "", id("testUser", "default"), 400, "malformed_request"),
        ("heathcliff26/fleetlock, its client takes True for true", "/v1/pre-reboot", "True", "", id("testUser", "default"), 200, ""),
        ("knubbis-fleetlock, lock", "/v1/pre-reboot", "true", "", id("test-worker01.example.com", "workers"), 200, ""),
        ("knubbis-fleetlock, unlock", "/v1/steady-state", "true", "", id("test-worker01.example.com", "workers"), 200, ""),
        ("knubbis-fleetlock, all slots taken", "/v1/pre-reboot", "true", "", id("test-worker01.example.com", "taken"), 409, "failed_lock"),
        ("knubbis-fleetlock, empty body", "/v1/pre-reboot", "true", "", String::new(), 400, "malformed_request"),
        ("flatcar/fleetlock, lock", "/v1/pre-reboot", "true", "", id("1234", "lokomotive"), 200, ""),
        ("flatcar/fleetlock, a base URL with a slash", "//v1/pre-reboot", "true", "", id("1234", "lokomotive"), 200, ""),
        ("flatcar/fleetlock, with a password nobody asks for", "/v1/steady-state", "true", "Authorization: Basic ZmxhdGNhcjpwNHNzdzByZA==\r\n", id("1234", "lokomotive"), 200, ""),
        ("a slash at the end", "/v1/steady-state/", "true", json, id("1234", "lokomotive"), 200, ""),
        ("a group of letters, digits and hyphens", "/v1/steady-state", "true", json, id("0123456789abcdef0123456789abcdef", "db-1"), 200, ""),
    ];
    for (who, path, header, more, body, status, kind) in cases {
        let header = match header {
            "" => String::new(),
            value => format!("fleet-lock-protocol: {value}\r\n"),
        };
        let (found, answer) = send(
            address,
            &format!("POST {path}"),
            &format!("{header}{more}"),
            &body,
        );
        assert_eq!(found, status, "{who}: {answer}");
        if kind.is_empty() {
            continue;
        }
        // What every client logs, and counts by kind.
        assert_eq!(answer["kind"], kind, "{who}: {answer}");
        assert!(
            answer["value"]
                .as_str()
                .is_some_and(|value| !value.is_empty()),
            "{who}"
        );
    }
}

/// Each by its name, and nothing of it has changed anything.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_by_name() {
    let (fixture, _daemon, _publisher) = origin(&realm(), GROUPS).await.unwrap();
    let address = fixture.slot_address().unwrap();
    let with = |member: &str, value: Value| {
        let mut body = lock("a", "web");
        body[member] = value;
        body
    };
    // A page in a browser says where it comes from.
    let page = format!("{HEADER}Origin: http://news.example.org\r\n");
    for path in ["/v1/pre-reboot", "/v1/groups/web/clear"] {
        let (status, answer) = send(
            address,
            &format!("POST {path}"),
            &page,
            &lock("a", "web").to_string(),
        );
        assert_eq!((status, &answer["kind"]), (403, &json!("not_allowed")));
    }
    let malformed = [
        (json!({}), "client_params: expected an object"),
        (
            json!({"client_params": "a"}),
            "client_params: expected an object",
        ),
        (
            json!({"client_params": {"group": "web"}}),
            "client_params.id: expected a text, found none",
        ),
        (
            json!({"client_params": {"id": 1, "group": "web"}}),
            "client_params.id: expected a text, found 1",
        ),
        (
            json!({"client_params": {"id": "a", "group": ["web"]}}),
            "client_params.group: expected a text",
        ),
        (
            lock("a b", "web"),
            "client_params.id: a group and a node have a name of",
        ),
        (lock("a", "/"), "client_params.group: a group and a node"),
        (
            with("serial", json!("7")),
            "serial: expected a serial, 1 or more, found \"7\"",
        ),
        (with("serial", json!(0)), "serial: expected a serial"),
        (with("serial", json!(1.5)), "serial: expected a serial"),
        (
            with("serial", json!(4_294_967_296_u64)),
            "serial: expected a serial",
        ),
        (
            with("token", json!(7)),
            "token: expected a token, as it was given",
        ),
        (
            with("token", json!("x")),
            "token: expected a token, as it was given",
        ),
        (
            with("wait_seconds", json!("1")),
            "wait_seconds: expected 0 to 120, found \"1\"",
        ),
        (
            with("wait_seconds", json!(-1)),
            "wait_seconds: expected 0 to 120, found -1",
        ),
        (
            with("wait_seconds", json!(121)),
            "wait_seconds: expected 0 to 120, found 121",
        ),
    ];
    for (body, why) in malformed {
        for path in ["/v1/pre-reboot", "/v1/steady-state"] {
            let (status, answer) = post(address, path, &body);
            let value = answer["value"].as_str().unwrap_or_default();
            assert!(
                (status, &answer["kind"]) == (400, &"malformed_request".into())
                    && value.starts_with(why),
                "{body}: {answer}"
            );
        }
    }
    // A token of another group.
    let mut slots = fixture.slots().unwrap();
    let single = slots
        .take(&name("single"), &name("a"), Serial::FIRST)
        .await
        .unwrap();
    for path in ["/v1/pre-reboot", "/v1/steady-state"] {
        let token = json!(single.token.to_string());
        let (status, answer) = post(address, path, &with("token", token));
        assert_eq!((status, &answer["kind"]), (409, &"lost_lock".into()));
        assert!(
            answer["value"].as_str().unwrap().contains("another group"),
            "{answer}"
        );
        let (status, answer) = post(address, path, &lock("a", "nobody"));
        assert_eq!((status, &answer["kind"]), (404, &"unknown_group".into()));
        assert_eq!(answer["value"], "there is no group nobody here");
    }
    // What is no request for a group that is here.
    let body = lock("a", "web").to_string();
    for (line, headers, status, kind) in [
        ("POST /v1/pre-reboot", "", 400, "malformed_request"),
        ("GET /v1/pre-reboot", HEADER, 405, "wrong_method"),
        ("PUT /v1/steady-state", HEADER, 405, "wrong_method"),
        ("DELETE /v1/groups/web", HEADER, 405, "wrong_method"),
        ("POST /v2/pre-reboot", HEADER, 404, "unknown_path"),
        ("GET /v1/groups/nobody", HEADER, 404, "unknown_group"),
        ("GET /v1/groups/a%20b", HEADER, 400, "malformed_request"),
        ("POST /v1/groups/nobody/clear", HEADER, 404, "unknown_group"),
        (
            "POST /v1/groups/web/clear",
            HEADER,
            400,
            "malformed_request",
        ),
        ("POST /v1/groups/single/clear", HEADER, 403, "not_allowed"),
    ] {
        let (found, answer) = send(address, line, headers, &body);
        assert_eq!(
            (found, &answer["kind"]),
            (status, &kind.into()),
            "{line}: {answer}"
        );
    }
    let (status, answer) = post(address, "/v1/groups/web/clear", &json!({"id": "z"}));
    assert_eq!((status, &answer["kind"]), (404, &"unknown_id".into()));
    // A page of somebody else in an operator's browser cannot send the header (attack 115).
    let clear = json!({"id": "a"}).to_string();
    let (status, answer) = send(address, "POST /v1/groups/web/clear", "", &clear);
    assert_eq!(
        (status, &answer["kind"]),
        (400, &"malformed_request".into())
    );
    // Too much is not read.
    let large = lock(&"x".repeat(20_000), "web").to_string();
    let (status, answer) = send(address, "POST /v1/pre-reboot", HEADER, &large);
    assert_eq!(
        (status, &answer["kind"]),
        (413, &"malformed_request".into())
    );
    assert!(
        answer["value"].as_str().unwrap().contains("16384 octets"),
        "{answer}"
    );
    let web = slots.status(&name("web")).await.unwrap();
    assert!(web.state == "idle" && web.history.is_empty(), "{web:?}");
}

/// A machine written from the protocol's description; and plain requests and those with our members
/// are for the same slots.
#[tokio::test(flavor = "multi_thread")]
async fn machines_that_speak_plain_fleetlock_take_turns() {
    let (fixture, _daemon, _publisher) = origin(&realm(), GROUPS).await.unwrap();
    let address = fixture.slot_address().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop/fleetlock.py");
    let output = Command::new("python3")
        .args([script, &format!("http://{address}"), "single"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let (single, mut slots) = (name("single"), fixture.slots().unwrap());
    let slot = slots
        .take(&single, &name("x"), Serial::FIRST)
        .await
        .unwrap();
    let body = lock("x", "single");
    // Without a token nothing is freed that was taken with a serial (attack 77).
    assert_eq!(post(address, "/v1/steady-state", &body).0, 200);
    slots.hold(&single, &name("x"), slot.token).await.unwrap();
    slots.free(&single, &name("x"), slot.token).await.unwrap();
    let (status, given) = post(address, "/v1/pre-reboot", &body);
    assert_eq!((status, &given["lease_seconds"]), (200, &json!(600)));
    let (status, refused) = post(address, "/v1/pre-reboot", &lock("y", "single"));
    assert_eq!((status, &refused["position"]), (409, &json!(1)));
    assert_eq!(post(address, "/v1/steady-state", &body).0, 200);
}

/// XSLOT was the other protocol; it is an unknown command now.
#[tokio::test(flavor = "multi_thread")]
async fn xslot_is_an_unknown_command() {
    let (fixture, _daemon, _publisher) = origin(&realm(), GROUPS).await.unwrap();
    let mut connection = connect(&fixture).await.unwrap();
    let answer = connection.command("XSLOT TAKE web a 1").await.unwrap();
    assert_eq!(answer.code.0, 500);
    assert!(!connection.is_capable("XSLOT").await.unwrap());
}

/// Two hundred connections that take one slot again and again keep nobody else waiting.
#[tokio::test(flavor = "multi_thread")]
async fn attack_77_two_hundred_connections_that_retake_one_slot_delay_nobody() {
    let (fixture, _daemon, _publisher) = origin(&realm(), GROUPS).await.unwrap();
    let (web, mut slots) = (name("web"), fixture.slots().unwrap());
    let slot = slots
        .take(&web, &name("good"), Serial::FIRST)
        .await
        .unwrap();
    let hammers: Vec<_> = (0..200)
        .map(|_| {
            let (mut slots, web) = (fixture.slots().unwrap(), web.clone());
            tokio::spawn(async move {
                let mut count = 0_u32;
                loop {
                    count += u32::from(slots.take(&web, &name("bad"), Serial::FIRST).await.is_ok());
                    if count == u32::MAX {
                        return;
                    }
                }
            })
        })
        .collect();
    let retaken = async || {
        let history = fixture.slots().unwrap().status(&web).await.unwrap().history;
        history.iter().any(|event| event.what == "retaken")
    };
    until("they retake it", retaken).await;
    let mut took = Vec::new();
    for _ in 0..21 {
        let asked = Instant::now();
        slots.hold(&web, &name("good"), slot.token).await.unwrap();
        took.push(asked.elapsed());
    }
    hammers.iter().for_each(|hammer| hammer.abort());
    took.sort_unstable();
    eprintln!(
        "HOLD beside 200 connections: median {:?}, longest {:?}",
        took[10], took[20]
    );
    // 100 ms on a machine that has nothing else to do.
    assert!(took[10] < Duration::from_secs(1), "{took:?}");
    let asked = Instant::now();
    slots.free(&web, &name("good"), slot.token).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_how_it_stands() {
    let admin = free_address().unwrap();
    let more = format!("{GROUPS}[admin]\nlisten = [\"{admin}\"]\n");
    let (fixture, _daemon, mut publisher) = origin(&realm(), &more).await.unwrap();
    publisher
        .publish(&realm().release(&os(), None, "1", &["ann", "bob"]))
        .await
        .unwrap();
    let taken = fixture.slots().unwrap();
    { taken }
        .take(&name("web"), &name("a"), Serial::FIRST)
        .await
        .unwrap();
    assert_eq!(http::get(admin, "/healthz").unwrap(), (200, "ok\n".into()));
    assert_eq!(
        http::get(admin, "/readyz").unwrap(),
        (200, "ready\n".into())
    );
    assert_eq!(http::get(admin, "/other").unwrap().0, 404);
    let (status, metrics) = http::get(admin, "/metrics").unwrap();
    assert_eq!(status, 200);
    for line in [
        "tidings_slot_holders{group=\"web\"} 1",
        // A group that nobody uses is a group.
        "tidings_slot_holders{group=\"single\"} 0",
        "tidings_slot_max{group=\"single\"} 1",
        "tidings_slot_failed{group=\"short\"} 0",
        "tidings_statements_published_total 2",
        "# TYPE tidings_connections gauge",
        "tidings_trust_serial{namespace=\"test\"} 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in {metrics}"
        );
    }
    // Every metric has a type and a help text.
    let named = |prefix: &str| {
        metrics
            .lines()
            .filter(|line| line.starts_with(prefix))
            .count()
    };
    assert!(
        named("# HELP ") == named("# TYPE ") && named("# HELP ") > 12,
        "{metrics}"
    );
    let (_, status) = http::get(admin, "/status").unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (
            &status["channels"][1]["channel"],
            &status["channels"][0]["serial"]
        ),
        (&"test.trust".into(), &1.into())
    );
}
