//! The runner against our broker, and against one that breaks one rule at a time.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
};

use tidings_tests::{Fixture, binary, free_address};

use super::{wrong, wrong_by_itself};

fn broker(address: SocketAddr) -> (bool, String) {
    let output = Command::new(binary("tidings-conformance"))
        .args(["broker", &address.to_string()])
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
    )
}

/// An origin of the runner's namespace.
fn origin() -> Fixture {
    let anchor = Command::new(binary("tidings-conformance"))
        .arg("anchor")
        .output()
        .unwrap();
    let anchor = String::from_utf8(anchor.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let mut fixture = Fixture::new().unwrap();
    fixture.anchor = anchor;
    fixture.configure("").unwrap();
    fixture
}

#[test]
fn our_broker_keeps_to_the_specification() {
    let fixture = origin();
    let _daemon = fixture.start().unwrap();
    let (good, printed) = broker(fixture.address);
    assert!(good, "{}", wrong(&printed).join("\n"));
    assert!(
        printed
            .lines()
            .filter(|line| line.starts_with("ok "))
            .count()
            > 90,
        "{printed}"
    );
}

/// Stands between the runner and the broker, and changes what the broker says.
fn between(address: SocketAddr, change: fn(String) -> String) -> SocketAddr {
    let here = free_address().unwrap();
    let listener = TcpListener::bind(here).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(address).unwrap());
            let (mut from_client, from_server) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut server);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
            thread::spawn(move || {
                let mut lines = BufReader::new(from_server);
                let mut line = Vec::new();
                while lines
                    .read_until(b'\n', &mut line)
                    .is_ok_and(|count| count > 0)
                {
                    let changed = String::from_utf8(std::mem::take(&mut line))
                        .map(change)
                        .unwrap_or_default();
                    if client.write_all(changed.as_bytes()).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    here
}

/// What a broker may get wrong, one thing each.
type Fault = fn(String) -> String;
const FAULTS: &[(&str, Fault)] = &[
    ("says that a refused statement is stored", |line| {
        if line.starts_with("441 ") {
            "240 stored\r\n".into()
        } else {
            line
        }
    }),
    ("refuses what it stored", |line| {
        if line.starts_with("240 ") {
            "441 no\r\n".into()
        } else {
            line
        }
    }),
    ("does not tell its head", |line| {
        if line.starts_with("441 head ") {
            "441 not the next\r\n".into()
        } else {
            line
        }
    }),
    ("has another highest serial", |line| {
        if line.starts_with("211 ") {
            line.replacen("211 ", "211 1", 1)
        } else {
            line
        }
    }),
    ("has every channel", |line| {
        if line.starts_with("411 ") {
            "211 1 1 1 conformance.none\r\n".into()
        } else {
            line
        }
    }),
    ("changes a summary", |line| {
        if line.starts_with("Summary: ") {
            "Summary: changed\r\n".into()
        } else {
            line
        }
    }),
    ("leaves a header out", |line| {
        if line.starts_with("MIME-Version: ") {
            String::new()
        } else {
            line
        }
    }),
    ("has another Subject", |line| {
        if line.starts_with("Subject: ") {
            "Subject: news\r\n".into()
        } else {
            line
        }
    }),
    ("numbers events otherwise", |line| {
        if line.starts_with("2 <2.") {
            line.replacen("2 <", "3 <", 1)
        } else {
            line
        }
    }),
    ("promises an hour of silence", |line| {
        if line.starts_with("290 ") {
            "290 3600 watching\r\n".into()
        } else {
            line
        }
    }),
    ("does not greet", |line| {
        if line.starts_with("200 ") || line.starts_with("201 ") {
            "400 busy\r\n".into()
        } else {
            line
        }
    }),
    ("takes broken commands", |line| {
        if line.starts_with("501 ") {
            "211 1 1 1 conformance.os\r\n".into()
        } else {
            line
        }
    }),
    ("loses a statement", |line| {
        if line.starts_with("220 2 ") {
            "423 gone\r\n".into()
        } else {
            line
        }
    }),
    ("takes as many targets as one likes", |line| {
        if line.starts_with("490 ") {
            "290 300 watching\r\n".into()
        } else {
            line
        }
    }),
];

#[test]
fn a_broker_that_breaks_one_rule_is_found_out() {
    // Whatever is wrong without a fault does not count.
    let faulty = |change: fn(String) -> String| {
        let fixture = origin();
        let _daemon = fixture.start().unwrap();
        broker(between(fixture.address, change)).1
    };
    let without = faulty(|line| line);
    let is_unseen = |change: fn(String) -> String| {
        let printed = faulty(change);
        let mut wrong = wrong_by_itself(&printed).into_iter();
        wrong.all(|line| without.contains(line))
    };
    // The runner mostly waits.
    let unseen: Vec<&str> = thread::scope(|scope| {
        let look = |(fault, change): &(&'static str, Fault)| {
            let (fault, change, is_unseen) = (*fault, *change, &is_unseen);
            scope.spawn(move || is_unseen(change).then_some(fault))
        };
        let looks: Vec<_> = FAULTS.iter().map(look).collect();
        let looked = looks.into_iter().map(|look| look.join().unwrap());
        looked.flatten().collect()
    });
    assert!(
        unseen.is_empty(),
        "nobody sees that a broker does this: {unseen:?}"
    );
}
