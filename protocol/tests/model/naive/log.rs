//! What is read of the log, and which branch it is.

use std::collections::BTreeMap;

use tidings_protocol::{Head, Statement, StatementId, statement::Kind};

use super::{Naive, Refused, at, before, meets, place, serial, withdraws};
use crate::world;

const LINKS: usize = 64;

impl Naive {
    /// Every statement of the run may have been said: by its role, by the checkpoint, or because
    /// one above it that is linked vouches.
    pub(crate) fn judge(&self, run: &[Statement]) -> Result<(), (u32, Refused)> {
        let trust = &self
            .trust
            .as_ref()
            .ok_or((run.first().map_or(0, serial), "1-19"))?
            .0;
        let settled = self.settled();
        let vouches = |statement: &Statement| {
            Some(place(statement)) == settled || statement.kind() == Kind::Release
        };
        for (i, statement) in run.iter().enumerate().rev() {
            let refused = |requirement| Err((serial(statement), requirement));
            if world::is_closed(trust) {
                return refused("1-22");
            }
            if statement.trust().unwrap() > trust.serial() {
                return refused("1-23");
            }
            let places = [Some(place(statement)), before(statement)];
            if places
                .iter()
                .flatten()
                .any(|there| settled.is_some_and(|c| c.0 == there.0 && c.1 != there.1))
            {
                return refused("1-24");
            }
            if run
                .get(i + 1)
                .is_some_and(|above| before(above) != Some(place(statement)))
            {
                return refused("2-5");
            }
            // Those above are proven, and linked, or this would not be looked at.
            let proven = Some(place(statement)) == settled || run[i + 1..].iter().any(vouches);
            if !proven && let Err(requirement) = meets(statement, trust) {
                return refused(requirement);
            }
        }
        Ok(())
    }

    pub(super) fn note_withdrawals(&mut self, run: &[Statement]) {
        self.withdrawn.extend(run.iter().filter_map(withdraws));
    }

    // Where it stands.

    pub(super) fn id_at(&self, serial: u32) -> Option<StatementId> {
        let named = self
            .head
            .as_ref()
            .and_then(before)
            .filter(|before| before.0 == serial)
            .map(|before| before.1);
        let standing = self
            .standing
            .as_ref()
            .map(at)
            .filter(|standing| standing.0 == serial)
            .map(|standing| standing.1);
        self.chain.get(&serial).copied().or(named).or(standing)
    }
    pub(super) fn is_on_chain(&self, place: (u32, StatementId)) -> bool {
        self.id_at(place.0) == Some(place.1)
    }
    fn contradicts(&self, statement: &Statement) -> bool {
        let differs =
            |there: (u32, StatementId)| self.id_at(there.0).is_some_and(|id| id != there.1);
        let head = self.head.as_ref().map(serial);
        differs(place(statement))
            || before(statement).is_some_and(|before| Some(before.0) == head && differs(before))
    }
    fn is_head_proven(&self) -> bool {
        let (Some(head), Some((trust, _))) = (&self.head, &self.trust) else {
            return false;
        };
        self.settled() == Some(place(head)) || meets(head, trust).is_ok()
    }
    /// Whatever may be seen without reading.
    pub(super) fn look(&mut self) {
        if let Some(settled) = self
            .settled()
            .filter(|settled| self.is_on_chain(*settled) && self.is_head_proven())
        {
            self.standing = Some(Head {
                serial: settled.0.to_string().parse().unwrap(),
                id: settled.1,
            });
        }
        if let Some((ours, theirs)) = &self.evidence {
            let low = serial(ours).min(serial(&theirs[0]));
            let stands = self
                .settled()
                .is_some_and(|c| self.standing.as_ref().map(at) == Some(c) && c.0 >= low);
            let named = self
                .live()
                .is_some_and(|named| named.0 >= low && self.is_on_chain(named));
            let both = self.judge(std::slice::from_ref(ours)).is_ok() && self.judge(theirs).is_ok();
            if stands || named || !both {
                self.evidence = None;
            }
        }
    }
    pub(super) fn restart_from(&self) -> Option<u32> {
        self.head.as_ref()?;
        match self.checkpoint() {
            Err(()) => None,
            Ok(None) => (!self.is_head_proven()).then_some(1),
            Ok(Some(c)) => {
                (self.standing.as_ref().map(at) != Some(c) || !self.is_head_proven()).then_some(c.0)
            }
        }
    }

    /// What comes of a run.
    pub(crate) fn read(&mut self, run: &[Statement], hole: bool) -> String {
        if let Err((serial, requirement)) = self.judge(run) {
            return format!("refused {serial} {requirement}");
        }
        self.note_withdrawals(run);
        let (Some(first), Some(last)) = (run.first().map(serial), run.last().map(serial)) else {
            return "new none".into();
        };
        let has = |named: (u32, StatementId)| run.iter().any(|statement| place(statement) == named);
        let settled = self.settled();
        let Some(head) = self.head.clone() else {
            if let Some(c) = settled.filter(|c| first > c.0 && !hole) {
                return format!("from {}", c.0);
            }
            return self.replace(run);
        };
        let contradiction = run.iter().position(|statement| self.contradicts(statement));
        if let Some(restart) = self.restart_from() {
            let next = restart.min(serial(&head) + 1);
            let goes_on = settled.map_or(contradiction.is_none() && last > serial(&head), |c| {
                last < c.0
            });
            return if goes_on {
                if contradiction.is_some() {
                    "new none".into()
                } else {
                    self.append(run, hole)
                }
            } else if first > next && !hole {
                format!("from {next}")
            } else if last < serial(&head)
                && meets(&head, &self.trust.as_ref().unwrap().0).is_ok()
                && !self.live().is_some_and(has)
            {
                "new none".into()
            } else {
                self.replace(run)
            };
        }
        if let Some(named) = self.live().filter(|named| !self.is_on_chain(*named)) {
            let lowest = *self.chain.keys().next().unwrap();
            let stands = self
                .standing
                .is_some_and(|standing| named.0 <= standing.serial.number());
            let leads_below = first < serial(&head) && has(place(&head));
            let other = !leads_below && (named.0 <= serial(&head) || contradiction.is_some());
            if !stands && other {
                let next = lowest.min(named.0).min(settled.map_or(u32::MAX, |c| c.0));
                if first > next && !hole {
                    return format!("from {next}");
                }
                if has(named) {
                    return self.replace(run);
                }
            }
        }
        let Some(x) = contradiction else {
            return self.append(run, hole);
        };
        if settled.is_some_and(|c| serial(&run[x]) <= c.0) {
            return "new none".into();
        }
        if let Some(c) = settled.filter(|c| first > c.0 && !hole) {
            return format!("from {}", c.0);
        }
        if self.evidence.is_none() {
            // What proves it, and no more.
            let proves = |count: &usize| self.judge(&run[x..x + count]).is_ok();
            let count = (1..=run.len() - x).find(proves).unwrap();
            self.evidence = Some((head, run[x..x + count].to_vec()));
        }
        self.look();
        "fork".into()
    }

    fn append(&mut self, run: &[Statement], hole: bool) -> String {
        let head = serial(self.head.as_ref().unwrap());
        if serial(run.last().unwrap()) < head {
            return "new none".into();
        }
        if serial(&run[0]) > head + 1 && !hole {
            return format!("from {}", head + 1);
        }
        self.join(run);
        self.deliver("new", run)
    }

    fn replace(&mut self, run: &[Statement]) -> String {
        let head = self.head.as_ref().map(place);
        let goes_on = head.is_none_or(|head| {
            run.iter().any(|s| place(s) == head) || before(&run[0]) == Some(head)
        });
        if !goes_on {
            // What was delivered and is not on the other branch comes again from where they part.
            let shared = run
                .iter()
                .filter(|s| self.is_on_chain(place(s)))
                .map(serial)
                .max();
            let joined = before(&run[0])
                .filter(|before| self.is_on_chain(*before))
                .map(|before| before.0);
            self.delivered = self
                .delivered
                .min(shared.or(joined).unwrap_or(serial(&run[0]) - 1));
            self.evidence = None;
        }
        self.join(run);
        let through =
            |c: &(u32, StatementId)| run.iter().any(|s| place(s) == *c) || serial(&run[0]) > c.0;
        if let Some(c) = self.settled().filter(through) {
            self.standing = Some(Head {
                serial: c.0.to_string().parse().unwrap(),
                id: c.1,
            });
            self.look();
        }
        self.deliver(if goes_on { "new" } else { "other" }, run)
    }

    /// The run is on the chain from now on, and what it is linked to.
    fn join(&mut self, run: &[Statement]) {
        let mut chain: BTreeMap<u32, StatementId> = run.iter().map(place).collect();
        let linked = self.is_on_chain(place(&run[0]))
            || before(&run[0]).is_some_and(|before| self.chain.get(&before.0) == Some(&before.1));
        if self.head.is_none() {
            self.delivered = self.delivered.max(serial(&run[0]) - 1);
        }
        if linked {
            chain.extend(
                self.chain
                    .range(..serial(&run[0]))
                    .map(|(serial, id)| (*serial, *id)),
            );
        }
        while chain.len() > LINKS + 1 {
            chain.pop_first();
        }
        (self.chain, self.head) = (chain, run.last().cloned());
        self.look();
    }

    fn deliver(&mut self, how: &str, run: &[Statement]) -> String {
        let new: Vec<String> = run
            .iter()
            .map(serial)
            .filter(|serial| *serial > self.delivered)
            .map(|serial| serial.to_string())
            .collect();
        self.delivered = self.delivered.max(serial(run.last().unwrap()));
        format!(
            "{how} {}",
            if new.is_empty() {
                "none".into()
            } else {
                new.join(",")
            }
        )
    }
}
