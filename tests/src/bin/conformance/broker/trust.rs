//! What a new trust statement does at a broker.

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
        self.takes("4-5", "the first release of a channel that is closed afterwards", &old)?;
        self.refuses("1-15", "a trust statement by a key for releases", ns::trust(head, ns::now(), &[RELEASE], CLOSED, &[RELEASE]))?;
        self.refuses("1-15", "a trust statement by a stranger", ns::trust(head, ns::now(), &[RELEASE], CLOSED, &[STRANGER]))?;
        let second = ns::trust(head, ns::now(), &[RELEASE], CLOSED, &[ROOT])?;
        let third = ns::trust(Some(second.head()), ns::now(), &[RELEASE], CLOSED, &[ROOT]);
        self.refuses("1-17", "a trust statement after next", third)?;
        let critical = ns::trust(head, ns::now(), &[RELEASE], "Colour: blue\nCritical: Colour\n", &[ROOT]);
        self.refuses("1-13", "a trust statement with an unknown critical field", critical)?;
        self.takes("1-17", "the next trust statement", &second)?;
        let opened = ns::trust(Some(second.head()), ns::now(), &[RELEASE], "", &[ROOT]);
        self.refuses("1-18", "a trust statement that opens what is closed", opened)?;
        self.trust.push(second);
        let next = ns::release("conformance.old.testing", Some(old.head()), 2, "", &[RELEASE]);
        self.refuses("4-12", "a closed channel takes nothing", next)?;
        self.refuses("4-12", "a closed channel does not begin", ns::release("conformance.old.new", None, 2, "", &[RELEASE]))?;
        let excepted = ns::release("conformance.old.stable", None, 2, "", &[RELEASE])?;
        self.takes("1-22", "a channel that the line excepts", &excepted)
    }

    /// A key goes, and what it wrote above the checkpoint is filed away.
    pub(super) fn restarting(&mut self) -> anyhow::Result<()> {
        let kept = 2;
        let more = format!("{CLOSED}Checkpoint: {CHANNEL} {}\n", self.log[kept - 1].head());
        let third = ns::trust(self.trust.last().map(tidings_protocol::Statement::head), ns::now(), &[LATER], &more, &[ROOT])?;
        self.takes("1-17", "a trust statement that takes a key away, with a checkpoint", &third)?;
        self.trust.push(third);
        self.check("4-10", "what is not proven above the checkpoint is filed away", |broker| {
            let answer = broker.wire.ask(&format!("GROUP {CHANNEL}"))?;
            Ok(match answer.split(' ').nth(3) {
                Some(high) if high == kept.to_string() => Outcome::Good,
                _ => Outcome::Wrong(format!("expected {kept} as the highest, found {answer:?}")),
            })
        })?;
        self.log.truncate(kept);
        let next = |by: u8| ns::release(CHANNEL, self.log.last().map(tidings_protocol::Statement::head), 3, "", &[by]);
        let (old, new) = (next(RELEASE), next(LATER)?);
        self.refuses("1-15", "a release by the key that was taken away", old)?;
        self.takes("4-10", "the place is free for the new key", &new)?;
        self.check("4-10", "it is served there", |broker| Ok(expect(&broker.wire.ask(&format!("STAT {}", new.message_id()))?, &["223"])))
    }
}
