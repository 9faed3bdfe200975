//! XWATCH, and beats.

use super::{BEAT_FIRST, Broker, CHANNEL, expect, same};
use crate::{
    namespace::{self as ns, BEAT, BEATS, RELEASE},
    report::Outcome,
    wire::Wire,
};

/// One event: its serial and message-id, and the body of the article; `0` and `.` are lines alone.
fn event(wire: &mut Wire) -> anyhow::Result<(String, String)> {
    let line = wire.line()?;
    let count = line
        .rsplit(' ')
        .next()
        .and_then(|count| count.parse::<usize>().ok())
        .unwrap_or(0);
    if line == "0" || line == "." {
        return Ok((line, String::new()));
    }
    let mut article = String::new();
    for _ in 0..count {
        article.push_str(&wire.line()?);
        article.push('\n');
    }
    let body = article
        .split_once("\n\n")
        .map_or("", |(_, body)| body)
        .to_owned();
    let head = line
        .rsplit_once(' ')
        .map_or("", |(head, _)| head)
        .to_owned();
    Ok((head, body))
}

impl Broker<'_> {
    pub(super) fn watching(&mut self) -> anyhow::Result<()> {
        let mut watch = Wire::open(self.address)?;
        let first = watch.ask(&format!("XWATCH {CHANNEL}:1 conformance.later:0"))?;
        if first.starts_with("500") || first.starts_with("490") {
            self.report.note(
                "4-20",
                "XWATCH",
                Outcome::LeftOut(format!("answered {first:?}; a listener polls")),
            );
            return Ok(());
        }
        self.report
            .note("1-28", "XWATCH is answered 290 and the longest silence", {
                let seconds = first
                    .split(' ')
                    .nth(1)
                    .and_then(|seconds| seconds.parse::<u64>().ok());
                if first.starts_with("290 ") && seconds.is_some_and(|s| (1..=300).contains(&s)) {
                    Outcome::Good
                } else {
                    Outcome::Wrong(first)
                }
            });
        self.check(
            "4-20",
            "it brings all above the serial, and each is an article",
            |broker| {
                for statement in &broker.log[1..] {
                    let (head, body) = event(&mut watch)?;
                    let expected = format!("{} {}", statement.serial(), statement.message_id());
                    if head != expected || body.as_bytes() != statement.octets() {
                        return Ok(Outcome::Wrong(format!(
                            "expected {expected:?}, found {head:?} and {body:?}"
                        )));
                    }
                }
                Ok(Outcome::Good)
            },
        )?;
        self.release("4-5", "a release while somebody watches", "", &[RELEASE])?;
        let log = self.log.clone();
        let told = log
            .last()
            .map(|last| format!("{} {}", last.serial(), last.message_id()))
            .unwrap_or_default();
        self.check("4-20", "and then each new one", |_| {
            Ok(same(&event(&mut watch)?.0, &told))
        })?;
        let later = ns::release("conformance.later", None, 1, "", &[RELEASE])?;
        self.takes("4-5", "the first statement of another channel", &later)?;
        let told = format!("1 {}", later.message_id());
        self.check("4-20", "also of a channel that did not exist", |_| {
            Ok(same(&event(&mut watch)?.0, &told))
        })?;
        self.check(
            "1-29",
            "what is sent ends the watch: a dot, and then the answer",
            |_| {
                watch.send(b"DATE\r\n")?;
                let mut line = watch.line()?;
                while line == "0" {
                    line = watch.line()?;
                }
                Ok(match same(&line, &".".to_owned()) {
                    Outcome::Good => expect(&watch.line()?, &["111"]),
                    wrong => wrong,
                })
            },
        )?;
        self.check("4-20", "a wildmat brings only what is new", |broker| {
            let mut watch = Wire::open(broker.address)?;
            watch.ask("XWATCH conformance.*")?;
            let last = broker.log.last().map(tidings_protocol::Statement::head);
            let next = ns::release(CHANNEL, last, 1, "", &[RELEASE])?;
            broker.post(&next)?;
            let expected = format!("{} {}", next.serial(), next.message_id());
            broker.log.push(next);
            Ok(same(&event(&mut watch)?.0, &expected))
        })?;
        for (what, targets) in [
            ("65 targets", targets(65, ":0")),
            ("17 patterns in one", targets(17, ".*").replace(' ', ",")),
        ] {
            self.check("4-22", &format!("{what} are too many: 490"), |broker| {
                let mut watch = Wire::open(broker.address)?;
                Ok(expect(&watch.ask(&format!("XWATCH {targets}"))?, &["490"]))
            })?;
        }
        Ok(())
    }

    pub(super) fn beats(&mut self) -> anyhow::Result<()> {
        let heads = [
            (ns::LOG, self.trust[0].head()),
            (CHANNEL, self.log[self.log.len() - 1].head()),
        ];
        let beat = |serial: u32, by: u8| ns::beat(serial, 1, &heads, &[by]);
        self.refuses(
            "1-15",
            "a beat by the key for releases",
            beat(BEAT_FIRST, RELEASE),
        )?;
        let elsewhere = ns::beat(1, 1, &heads, &[BEAT])?;
        let elsewhere = String::from_utf8(elsewhere.signed_part().to_vec())?
            .replace(BEATS, "conformance.x.beat");
        self.refuses(
            "1-14",
            "a beat outside the beat channel of a role",
            ns::sign(&elsewhere, &[BEAT]),
        )?;
        self.takes(
            "4-5",
            "the first beat may have any serial",
            &beat(BEAT_FIRST, BEAT)?,
        )?;
        self.takes(
            "4-5",
            "a beat needs only a higher serial than the last",
            &beat(BEAT_FIRST + 4, BEAT)?,
        )?;
        self.refuses(
            "4-5",
            "a beat with a lower serial",
            beat(BEAT_FIRST + 2, BEAT),
        )?;
        self.check(
            "2-10",
            "GROUP and ARTICLE bring the newest beat",
            |broker| {
                let group = broker.wire.ask(&format!("GROUP {BEATS}"))?;
                let high = BEAT_FIRST + 4;
                if group.split(' ').nth(3) != Some(&high.to_string()) {
                    return Ok(Outcome::Wrong(format!(
                        "expected {high} as the highest, found {group:?}"
                    )));
                }
                Ok(expect(
                    &broker.wire.list(&format!("ARTICLE {high}"), "220")?.0,
                    &["220"],
                ))
            },
        )
    }
}

fn targets(count: usize, end: &str) -> String {
    (0..count)
        .map(|n| format!("conformance.n{n}{end}"))
        .collect::<Vec<_>>()
        .join(" ")
}
