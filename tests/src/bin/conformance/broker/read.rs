//! What a broker serves.

use super::{Broker, CHANNEL, expect, same};
use crate::{namespace as ns, report::Outcome, wire::Wire};

/// The headers of an article, in their order.
const HEADERS: [&str; 9] = [
    "Path",
    "From",
    "Newsgroups",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

impl Broker<'_> {
    pub(super) fn reading(&mut self) -> anyhow::Result<()> {
        let last = self.log.len();
        self.check(
            "4-15",
            "GROUP: the article numbers are the serials",
            |broker| {
                let answer = broker.wire.ask(&format!("GROUP {CHANNEL}"))?;
                Ok(expect(
                    &answer,
                    &[&format!("211 {last} 1 {last} {CHANNEL}")],
                ))
            },
        )?;
        self.check(
            "1-10",
            "each statement is served octet by octet",
            |broker| {
                for statement in broker.log.clone() {
                    let (first, article) = broker
                        .wire
                        .list(&format!("ARTICLE {}", statement.serial()), "220")?;
                    let expected = format!("220 {} {}", statement.serial(), statement.message_id());
                    let body = article.split_once("\n\n").map_or("", |(_, body)| body);
                    let served = std::str::from_utf8(statement.octets())?;
                    if !first.starts_with(&expected) || body != served {
                        return Ok(Outcome::Wrong(format!(
                            "expected {expected:?} and {served:?}, found {first:?} and {body:?}"
                        )));
                    }
                }
                Ok(Outcome::Good)
            },
        )?;
        self.check(
            "4-1",
            "the headers follow from the statement, in their order",
            |broker| {
                let statement = broker.log[1].clone();
                let (_, head) = broker.wire.list("HEAD 2", "221")?;
                let found: Vec<&str> = head
                    .lines()
                    .map(|line| line.split(": ").next().unwrap_or_default())
                    .collect();
                let rendered = ns::article(&statement)?;
                let agree = |line: &&str| {
                    line.starts_with("Path: ") || rendered.lines().any(|ours| ours == *line)
                };
                Ok(match same(&found, &HEADERS.to_vec()) {
                    Outcome::Good => head
                        .lines()
                        .find(|line| !agree(line))
                        .map_or(Outcome::Good, |line| {
                            Outcome::Wrong(format!("found {line:?}"))
                        }),
                    wrong => wrong,
                })
            },
        )?;
        self.check(
            "4-1",
            "the first name in Path is the broker's, the last is not-for-mail",
            |broker| {
                let (_, head) = broker.wire.list("HEAD 1", "221")?;
                let path = head.lines().next().unwrap_or_default();
                let good = path.starts_with("Path: ")
                    && path.ends_with("!not-for-mail")
                    && path.len() > 20;
                Ok(if good {
                    Outcome::Good
                } else {
                    Outcome::Wrong(format!("found {path:?}"))
                })
            },
        )?;
        let id = self.log[0].message_id().to_string();
        for (command, codes) in [
            (format!("ARTICLE {}", last + 1), ["423"].as_slice()),
            (format!("STAT {id}"), &[&format!("223 0 {id}")]),
            ("STAT <9.nothing@conformance.os>".into(), &["430", "501"]),
            ("STAT 1".into(), &[&format!("223 1 {id}")]),
            ("NEXT".into(), &["223 2"]),
            ("LAST".into(), &["223 1"]),
            ("LAST".into(), &["422"]),
        ] {
            self.check("4-16", &command, |broker| {
                Ok(expect(&broker.wire.ask(&command)?, codes))
            })?;
        }
        self.check("4-16", "ARTICLE without a group is 412", |broker| {
            let mut fresh = Wire::open(broker.address)?;
            Ok(expect(&fresh.ask("ARTICLE 1")?, &["412"]))
        })?;
        self.check(
            "1-26",
            "423 for what was never there, and GROUP is as before",
            |broker| Ok(expect(&broker.wire.ask("STAT 2147483647")?, &["423"])),
        )
    }

    /// Lists and overviews, and what is no command.
    pub(super) fn commands(&mut self) -> anyhow::Result<()> {
        let count = self.log.len();
        self.wire.ask(&format!("GROUP {CHANNEL}"))?;
        for (command, code, contains) in [
            ("CAPABILITIES", "101", "VERSION 2"),
            ("CAPABILITIES", "101", "READER"),
            ("CAPABILITIES", "101", "POST"),
            ("CAPABILITIES", "101", "XWATCH"),
            ("HELP", "100", ""),
            ("LIST", "215", "conformance.os "),
            ("LIST ACTIVE conformance.*", "215", "conformance.trust "),
            ("LIST OVERVIEW.FMT", "215", "Message-ID:"),
            ("LIST NEWSGROUPS", "215", ""),
            ("LISTGROUP", "211", "2\n"),
            ("OVER 1-2", "224", "\t<1."),
            ("XOVER 1", "224", "\t<1."),
            ("HDR Message-ID 1-2", "225", "2 <2."),
            ("XHDR Message-ID 1", "221", "1 <1."),
            ("NEWGROUPS 19700101 000000 GMT", "231", "conformance.os "),
            (
                "NEWNEWS conformance.os 19700101 000000 GMT",
                "230",
                "@conformance.os>",
            ),
        ] {
            self.check("4-16", &format!("{command} has {contains:?}"), |broker| {
                let (first, block) = broker.wire.list(command, code)?;
                Ok(match expect(&first, &[code]) {
                    Outcome::Good if block.contains(contains) => Outcome::Good,
                    Outcome::Good => Outcome::Wrong(format!("found {block:?}")),
                    wrong
                        if ["500", "503", "502"]
                            .iter()
                            .any(|code| first.starts_with(code)) =>
                    {
                        let _ = wrong;
                        Outcome::LeftOut(format!("answered {first:?}"))
                    }
                    wrong => wrong,
                })
            })?;
        }
        self.check(
            "4-18",
            "OVER has the seven fields, References empty, then Xref in full",
            |broker| {
                let (_, block) = broker.wire.list("OVER 1", "224")?;
                let fields: Vec<&str> = block.trim_end().split('\t').collect();
                let good = fields.len() == 9
                    && fields[0] == "1"
                    && fields[5].is_empty()
                    && fields[8].starts_with("Xref: ");
                Ok(if good {
                    Outcome::Good
                } else {
                    Outcome::Wrong(format!("found {fields:?}"))
                })
            },
        )?;
        self.check("4-15", "LISTGROUP lists every serial", |broker| {
            let (_, block) = broker.wire.list(&format!("LISTGROUP {CHANNEL}"), "211")?;
            Ok(same(
                &block,
                &(1..=count).map(|n| format!("{n}\n")).collect(),
            ))
        })?;
        for (requirement, command, codes) in [
            ("4-16", "DATE", ["111"].as_slice()),
            ("4-16", "MODE READER", &["200", "201"]),
            ("4-16", "FROB", &["500"]),
            ("4-16", "GROUP", &["501"]),
            ("4-4", "GROUP conformance.os\0x", &["501"]),
            (
                "4-17",
                "AUTHINFO USER somebody",
                &["483", "480", "500", "502"],
            ),
            (
                "4-16",
                &format!("STAT {}", "1".repeat(508)),
                &["501", "500"],
            ),
        ] {
            let shown: String = command.chars().take(40).collect();
            self.check(
                requirement,
                &format!("{shown:?} is answered {}", codes.join(" or ")),
                |broker| Ok(expect(&broker.wire.ask(command)?, codes)),
            )?;
        }
        self.check("4-4", "a CR out of place in a command is 501", |broker| {
            broker.wire.send(b"GROUP conf\rormance.os\r\n")?;
            Ok(expect(&broker.wire.line()?, &["501"]))
        })?;
        self.check("4-16", "QUIT is 205, and the connection ends", |broker| {
            let mut other = Wire::open(broker.address)?;
            let answer = other.ask("QUIT")?;
            let ended = other.line().is_err();
            Ok(if ended {
                expect(&answer, &["205"])
            } else {
                Outcome::Wrong("it goes on".into())
            })
        })
    }
}
