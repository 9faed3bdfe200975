//! A run of statements, proven from above.

use super::{Trust, settled::Settled};
use crate::{Channel, Head, Statement, Verified, statement::Kind, verify::VerifyError};

/// A log on its way down: what was accepted so far proves what may come below it.
///
/// A statement is proven by its own signatures, or because a release that meets its role, or a
/// checkpoint, stands above it and an unbroken chain of ids leads down from there. A withdrawal
/// proves only itself.
#[derive(Clone, Debug)]
pub struct Descent {
    pub(super) channel: Channel,
    vouched: bool,
    begun: bool,
    pub(super) next: Option<Head>,
    pub(super) signature_checks: usize,
}

impl Descent {
    /// One that takes any proven statement first.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            vouched: false,
            begun: false,
            next: None,
            signature_checks: 0,
        }
    }

    /// Goes on below `lowest`, which an earlier life of this program has accepted below `top` and
    /// kept where nobody else writes.
    ///
    /// # Errors
    /// If the trust in force does not accept `top` any more.
    pub fn resume(trust: &Trust, top: &Statement, lowest: &Statement) -> Result<Self, VerifyError> {
        let mut descent = Self::new(top.channel().clone());
        descent.check(trust, top)?;
        descent.next = lowest.predecessor();
        Ok(descent)
    }

    /// Goes on below a statement that was accepted, whose predecessor is `next`.
    pub(crate) fn below(channel: Channel, next: Option<Head>, vouched: bool) -> Self {
        Self {
            channel,
            vouched,
            begun: true,
            next,
            signature_checks: 0,
        }
    }

    /// Whether what comes below is proven by its link alone.
    pub fn vouches(&self) -> bool {
        self.vouched
    }

    /// The statement that comes next, if there is one below.
    pub fn next(&self) -> Option<Head> {
        self.next
    }

    /// Accepts the next statement.
    ///
    /// # Errors
    /// Why it is not accepted; nothing has changed then.
    pub fn take(
        &mut self,
        trust: &Trust,
        statement: Statement,
    ) -> Result<Verified<Statement>, VerifyError> {
        self.check(trust, &statement)?;
        Ok(Verified::new(statement))
    }

    /// Accepts the next statement, which this very trust has verified by its own signatures.
    ///
    /// # Errors
    /// As [`Descent::take`].
    pub(crate) fn take_verified(
        &mut self,
        trust: &Trust,
        statement: Verified<Statement>,
    ) -> Result<Verified<Statement>, VerifyError> {
        self.check_link(trust, &statement)?;
        self.advance(trust, &statement);
        Ok(statement)
    }

    pub(crate) fn check(
        &mut self,
        trust: &Trust,
        statement: &Statement,
    ) -> Result<(), VerifyError> {
        self.check_link(trust, statement)?;
        if !self.vouched && !self.is_settled(trust, statement) {
            let (role, signers) = trust.count(statement)?;
            self.signature_checks += signers;
            trust.judge(statement, role, signers)?;
        }
        self.advance(trust, statement);
        Ok(())
    }

    /// That it is the very statement that a checkpoint names is looked at with its place.
    fn is_settled(&self, trust: &Trust, statement: &Statement) -> bool {
        matches!(trust.checkpoint(&self.channel), Settled::At(head) if head.serial == statement.serial())
    }

    fn advance(&mut self, trust: &Trust, statement: &Statement) {
        self.vouched |= self.is_settled(trust, statement) || statement.kind() == Kind::Release;
        (self.begun, self.next) = (true, statement.predecessor());
    }

    fn check_link(&self, trust: &Trust, statement: &Statement) -> Result<(), VerifyError> {
        let channel = &self.channel;
        if statement.channel() != channel {
            return Err(VerifyError::Channel {
                expected: channel.clone(),
                found: statement.channel().clone(),
            });
        }
        trust.check_place(statement)?;
        #[cfg(feature = "simulated")]
        if crate::simulated::has(crate::simulated::Fault::Links) {
            return Ok(());
        }
        match self.next {
            None if self.begun => Err(VerifyError::Beginning {
                serial: statement.serial(),
            }),
            Some(Head { id: expected, .. }) if expected != statement.id() => {
                Err(VerifyError::Link {
                    serial: statement.serial(),
                    expected,
                    found: statement.id(),
                })
            }
            _ => Ok(()),
        }
    }
}
