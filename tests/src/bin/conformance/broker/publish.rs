//! What a broker takes by POST, and what it does not.

use super::{Broker, CHANNEL, expect, same};
use crate::{
    namespace::{self as ns, RELEASE, STOP, STRANGER, article},
    report::Outcome,
    wire::Wire,
};

const FUTURE: u64 = 24 * 60 * 60;

impl Broker<'_> {
    /// The first trust statement and the first release.
    pub(super) fn begin(&mut self) -> anyhow::Result<()> {
        self.check("1-26", "a channel that it does not have is 411", |broker| {
            Ok(expect(
                &broker.wire.ask("GROUP conformance.none")?,
                &["411"],
            ))
        })?;
        let early = ns::release(CHANNEL, None, 1, "", &[RELEASE])?;
        self.refuses("1-19", "nothing is taken before there is trust", Ok(early))?;
        let first = ns::first()?;
        let stranger = ns::trust(None, ns::now(), &[RELEASE], "", &[ns::ROOT]);
        self.refuses(
            "1-16",
            "a trust statement that is not the anchor's",
            stranger,
        )?;
        self.takes("1-16", "the first trust statement", &first)?;
        self.takes(
            "4-7",
            "the very trust statement again is answered 240 again",
            &first,
        )?;
        self.trust.push(first);
        self.release("4-5", "the first release of a channel", "", &[RELEASE])?;
        let again = self.log[0].clone();
        self.takes(
            "4-7",
            "the very release again is answered 240 again",
            &again,
        )
    }

    pub(super) fn publishing(&mut self) -> anyhow::Result<()> {
        let first = self.log[0].head();
        let next =
            |fields: &str, signers: &[u8]| ns::release(CHANNEL, Some(first), 1, fields, signers);
        self.refuses(
            "1-15",
            "a release that nobody may sign has signed",
            next("", &[STRANGER]),
        )?;
        self.refuses(
            "1-15",
            "a release by the key for withdrawals",
            next("", &[STOP]),
        )?;
        self.refuses("1-15", "a signature over something else", {
            let text = ns::first_lines("release", CHANNEL, Some(first), ns::now())
                + "Trust: 1\nVersion: 1\n";
            let unsigned = ns::sign(&text, &[STRANGER]);
            unsigned.and_then(|statement| ns::appended(&statement, RELEASE))
        })?;
        self.refuses(
            "1-23",
            "a release under trust that is not there yet",
            ns::release(CHANNEL, Some(first), 9, "", &[RELEASE]),
        )?;
        self.refuses(
            "1-21",
            "a channel of another namespace",
            ns::release("elsewhere.os", None, 1, "", &[RELEASE]),
        )?;
        let late = ns::now().plus(FUTURE + 600);
        self.refuses(
            "4-5",
            "a release dated more than a day ahead",
            ns::release_at(CHANNEL, Some(first), late, 1, "", &[RELEASE]),
        )?;
        self.refuses(
            "4-9",
            "a second statement for a place",
            ns::release(CHANNEL, None, 1, "Summary: the other\n", &[RELEASE]),
        )?;
        let second = next("Summary: two\n", &[RELEASE])?;
        let third = ns::release(CHANNEL, Some(second.head()), 1, "", &[RELEASE])?;
        self.check("4-8", "not the next one: 441 head SERIAL ID", |broker| {
            Ok(expect(
                &broker.post(&third)?,
                &[&format!("441 head {first}")],
            ))
        })?;
        let mut twice = String::from_utf8(second.octets().to_vec())?;
        twice.insert_str(twice.find("Version").unwrap_or(0), "Version: 1\n");
        self.check("1-11", "a text that is no statement", |broker| {
            let article = article(&second)?;
            let body = article.find("\n\n").unwrap_or(0) + 2;
            Ok(expect(
                &broker.wire.post(&(article[..body].to_owned() + &twice))?,
                &["441"],
            ))
        })?;
        self.signatures()?;
        self.release(
            "1-13",
            "a release with an unknown critical field is stored",
            "Colour: blue\nCritical: Colour\n",
            &[RELEASE],
        )?;
        self.release(
            "1-12",
            "unknown fields may repeat, and text is UTF-8",
            "Colour: a\nColour: b\u{2028}c\nSummary: .gr\u{f6}\u{df}e\n",
            &[RELEASE],
        )?;
        let withdraw = |by: u8| {
            let text = ns::first_lines("withdraw", CHANNEL, self.head(), ns::now());
            ns::sign(
                &format!("{text}Trust: 1\nWithdraws: {first}\nReason: for conformance\n"),
                &[by],
            )
        };
        let (bad, good) = (withdraw(RELEASE), withdraw(STOP)?);
        self.refuses("1-15", "a withdrawal by the key for releases", bad)?;
        self.takes("4-5", "a withdrawal by its key", &good)?;
        self.log.push(good);
        Ok(())
    }

    /// Only what counts is kept.
    fn signatures(&mut self) -> anyhow::Result<()> {
        let clean = ns::release(CHANNEL, self.head(), 1, "Summary: two\n", &[RELEASE])?;
        let spoilt = ns::appended(&clean, STRANGER)?;
        self.takes(
            "4-6",
            "a release with a signature that does not count beside one that does",
            &spoilt,
        )?;
        self.check(
            "4-6",
            "it keeps the signatures that count, and no others",
            |broker| {
                broker.wire.ask(&format!("GROUP {CHANNEL}"))?;
                let (first, body) = broker
                    .wire
                    .list(&format!("BODY {}", clean.serial()), "222")?;
                Ok(match expect(&first, &["222"]) {
                    Outcome::Good => same(&body.as_bytes(), &clean.octets()),
                    wrong => wrong,
                })
            },
        )?;
        self.log.push(clean);
        Ok(())
    }

    /// What headers say is not believed, and what contradicts is refused.
    pub(super) fn articles(&mut self) -> anyhow::Result<()> {
        let next = ns::release(
            CHANNEL,
            self.head(),
            1,
            "Summary: by an odd article\n",
            &[RELEASE],
        )?;
        let text = article(&next)?;
        let id = format!("Message-ID: {}\n", next.message_id());
        let other = ns::release(CHANNEL, None, 1, "", &[STRANGER])?.message_id();
        for (requirement, what, article) in [
            (
                "4-2",
                "another Message-ID",
                text.replace(&id, &format!("Message-ID: {other}\n")),
            ),
            (
                "4-2",
                "a Message-ID twice",
                text.replace(&id, &format!("{id}{id}")),
            ),
            (
                "4-2",
                "Newsgroups of another channel",
                text.replace(
                    "Newsgroups: conformance.os",
                    "Newsgroups: conformance.other",
                ),
            ),
            (
                "4-2",
                "Newsgroups of two channels",
                text.replace(
                    "Newsgroups: conformance.os",
                    "Newsgroups: conformance.os,conformance.x",
                ),
            ),
            (
                "4-2",
                "folded Newsgroups",
                text.replace("Newsgroups: ", "Newsgroups:\n "),
            ),
            (
                "4-4",
                "a NUL in an article",
                text.replace("by an odd", "by\0an odd"),
            ),
            (
                "1-9",
                "an article without an empty line",
                text.replace("\n\n", "\n"),
            ),
        ] {
            self.check(requirement, &format!("{what} is refused"), |broker| {
                Ok(expect(&broker.wire.post(&article)?, &["441"]))
            })?;
        }
        self.check(
            "4-4",
            "a CR out of place in an article is refused",
            |broker| {
                broker.wire.ask("POST")?;
                broker.wire.send(
                    (text.replace("an odd", "an\rodd").replace('\n', "\r\n") + ".\r\n").as_bytes(),
                )?;
                Ok(expect(&broker.wire.line()?, &["441"]))
            },
        )?;
        let control = text.replace(
            &id,
            "Control: rmgroup conformance.os\nSupersedes: <x@y>\nApproved: me\n",
        );
        self.check(
            "4-2",
            "control messages have no effect; the headers that must agree may be absent",
            |broker| Ok(expect(&broker.wire.post(&control)?, &["240"])),
        )?;
        self.log.push(next);
        let first = format!("{}", self.log[0].message_id());
        self.check("4-2", "the channel is there still", |broker| {
            Ok(expect(
                &broker.wire.ask(&format!("STAT {first}"))?,
                &["223"],
            ))
        })
    }

    /// What peers offer; a broker that has no peers answers 480 or 502, or does not know the
    /// commands.
    pub(super) fn feeding(&mut self) -> anyhow::Result<()> {
        for command in ["CHECK <1.x@y>", "IHAVE <1.x@y>", "TAKETHIS <1.x@y>"] {
            self.check(
                "4-16",
                &format!("{command}, from somebody who is no peer"),
                |broker| {
                    // TAKETHIS brings its article unasked.
                    let end = if command.starts_with("TAKETHIS") {
                        "\r\n.\r\n"
                    } else {
                        ""
                    };
                    broker.wire.send(format!("{command}\r\n{end}").as_bytes())?;
                    let answer = broker.wire.line()?;
                    // Whatever it makes of that, the next command has a connection of its own.
                    broker.wire = Wire::open(broker.address)?;
                    let left_out = [
                        "480", "500", "502", "435", "436", "437", "438", "431", "439",
                    ];
                    Ok(match expect(&answer, &left_out) {
                        Outcome::Good => Outcome::LeftOut(format!(
                            "answered {answer:?}; what peers are served is not looked at here"
                        )),
                        wrong => wrong,
                    })
                },
            )?;
        }
        Ok(())
    }
}
