//! What a new trust statement does at a broker.

use anyhow::Context;
use tidings_protocol::Statement;

use super::{Broker, CHANNEL, expect};
use crate::{
    namespace::{self as ns, LATER, RELEASE, ROOT, STRANGER},
    report::Outcome,
};

const CLOSED: &str = "Closed: conformance.old.* conformance.old.stable\n";

impl Broker<'_> {
    pub(super) fn trusting(&mut self) -> anyhow::Result<()> {
        let head = Some(self.trust[0].head());
        let old = ns::release("conformance.old.testing", None, 1, "", &[RELEASE])?;
        self.takes(
            "4-5",
            "the first release of a channel that is closed afterwards",
            &old,
        )?;
        self.refuses(
            "1-15",
            "a trust statement by a key for releases",
            ns::trust(head, ns::now(), &[RELEASE], CLOSED, &[RELEASE]),
        )?;
        self.refuses(
            "1-15",
            "a trust statement by a stranger",
            ns::trust(head, ns::now(), &[RELEASE], CLOSED, &[STRANGER]),
        )?;
        let second = ns::trust(head, ns::now(), &[RELEASE], CLOSED, &[ROOT])?;
        let third = ns::trust(Some(second.head()), ns::now(), &[RELEASE], CLOSED, &[ROOT]);
        self.refuses("1-17", "a trust statement after next", third)?;
        let critical = ns::trust(
            head,
            ns::now(),
            &[RELEASE],
            "Colour: blue\nCritical: Colour\n",
            &[ROOT],
        );
        self.refuses(
            "1-13",
            "a trust statement with an unknown critical field",
            critical,
        )?;
        self.takes("1-17", "the next trust statement", &second)?;
        let opened = ns::trust(Some(second.head()), ns::now(), &[RELEASE], "", &[ROOT]);
        self.refuses(
            "1-18",
            "a trust statement that opens what is closed",
            opened,
        )?;
        self.trust.push(second);
        let next = ns::release(
            "conformance.old.testing",
            Some(old.head()),
            2,
            "",
            &[RELEASE],
        );
        self.refuses("4-12", "a closed channel takes nothing", next)?;
        self.refuses(
            "4-12",
            "a closed channel does not begin",
            ns::release("conformance.old.new", None, 2, "", &[RELEASE]),
        )?;
        let excepted = ns::release("conformance.old.stable", None, 2, "", &[RELEASE])?;
        self.takes("1-22", "a channel that the line excepts", &excepted)
    }

    /// A key goes, and what it wrote above the checkpoint is filed away.
    pub(super) fn restarting(&mut self) -> anyhow::Result<()> {
        let channel = "conformance.restart";
        let mut log: Vec<Statement> = Vec::new();
        for _ in 0..3 {
            let next = ns::release(channel, log.last().map(Statement::head), 2, "", &[RELEASE])?;
            self.takes(
                "4-5",
                "a release by a key that is taken away afterwards",
                &next,
            )?;
            log.push(next);
        }
        let before = self.trust.last().map(Statement::head);
        // The log of the other channel ends with a withdrawal and what came after it.
        let low = format!("{CLOSED}Checkpoint: {CHANNEL} {}\n", self.log[0].head());
        let low = ns::trust(before, ns::now(), &[LATER], &low, &[ROOT]);
        self.refuses(
            "3-17",
            "a trust statement under which a withdrawal would be lost",
            low,
        )?;
        let head = self.head().context("the channel has statements")?;
        let more = format!(
            "{CLOSED}Checkpoint: {CHANNEL} {head}\nCheckpoint: {channel} {}\n",
            log[1].head()
        );
        let third = ns::trust(before, ns::now(), &[LATER], &more, &[ROOT])?;
        self.takes(
            "1-17",
            "a trust statement that takes a key away, with checkpoints",
            &third,
        )?;
        self.trust.push(third);
        self.check(
            "4-10",
            "what is not proven above the checkpoint is filed away",
            |broker| {
                let answer = broker.wire.ask(&format!("GROUP {channel}"))?;
                Ok(match answer.split(' ').nth(3) {
                    Some("2") => Outcome::Good,
                    _ => Outcome::Wrong(format!("expected 2 as the highest, found {answer:?}")),
                })
            },
        )?;
        let next = |by: u8| ns::release(channel, Some(log[1].head()), 3, "", &[by]);
        let (old, new) = (next(RELEASE), next(LATER)?);
        self.refuses("1-15", "a release by the key that was taken away", old)?;
        self.takes("4-10", "the place is free for the new key", &new)?;
        self.check("4-10", "it is served there", |broker| {
            Ok(expect(
                &broker.wire.ask(&format!("STAT {}", new.message_id()))?,
                &["223"],
            ))
        })
    }
}
