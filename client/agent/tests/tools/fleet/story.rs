//! What happens to the fleet, and how it is judged.

use std::path::Path;

use tidings_client::{Body, Head, SlotStatus, Statement, Timestamp, Withdraw, now};

use super::{BEAT, DEAD, Fleet, GROUPS, LATE, MACHINES, Node, PLACES, SECOND, WAVES, nanoseconds};

/// How many are down at once at most; one that is back makes place for another that goes then.
fn most_at_once(downs: &[(u128, u128)]) -> usize {
    let begin = downs.iter().map(|(from, _)| (*from, 1_i32));
    let mut all: Vec<_> = begin.chain(downs.iter().map(|(_, to)| (*to, -1))).collect();
    all.sort_unstable();
    let (mut down, mut most) = (0, 0);
    for (_, change) in all {
        down += change;
        most = most.max(down);
    }
    usize::try_from(most).unwrap()
}

/// How many hold a slot at once at most; what has failed is down until it is heard of again.
fn most_held(status: &SlotStatus) -> usize {
    let (mut held, mut most) = (0_usize, 0);
    for event in &status.history {
        match event.what.as_str() {
            "taken" => held += 1,
            "freed" | "returned" | "cleared" => held -= 1,
            _ => {}
        }
        most = most.max(held);
    }
    most
}

/// Whether a node had a slot for all the time in which it was down.
fn is_covered(status: &SlotStatus, node: &str, (from, to): (u128, u128)) -> bool {
    let at = |text: &str| u128::from(text.parse::<Timestamp>().unwrap().seconds()) * SECOND;
    let (mut since, mut covered) = (None, false);
    for event in status.history.iter().filter(|event| event.id == node) {
        match event.what.as_str() {
            "taken" => since = Some(at(&event.at)),
            "freed" => {
                let until = at(&event.at) + u128::from(LATE) * SECOND;
                covered |= since
                    .take()
                    .is_some_and(|since| since <= from && to <= until);
            }
            _ => {}
        }
    }
    // Nobody has given it back: held, or failed.
    covered || since.is_some_and(|since| since <= from)
}

impl Fleet {
    /// Never were more down than may be, by the machines and by the server; the most of any group.
    pub(super) async fn judge(&mut self) -> usize {
        let groups = self.groups().await;
        let mut most = 0;
        for (number, status) in groups.iter().enumerate() {
            let downs: Vec<_> = self.of_group(number).flat_map(Node::downs).collect();
            let down = most_at_once(&downs);
            assert!(down <= PLACES, "{down} of group {number} were down at once");
            assert!(most_held(status) <= PLACES, "{status:?}");
            for node in self.of_group(number) {
                for down in node.downs() {
                    assert!(
                        is_covered(status, &node.name, down),
                        "{} had no slot at {down:?}: {:?}",
                        node.name,
                        status.history
                    );
                }
            }
            most = most.max(down);
        }
        most
    }

    /// A release in waves; some of the machines do not come back.
    pub(super) async fn rolls_out(&mut self, place: &Path) {
        let start = now().plus(WAVES.0);
        let end = start.seconds() + WAVES.1;
        let releases = self.release(place, "2.0", start).await;
        let due = self.due(&releases);
        // Groups of which the last goes long after the first.
        let spread = |group: usize| {
            let of_group = (0..MACHINES).filter(move |number| number % GROUPS == group);
            let due: Vec<u64> = of_group.map(|number| due[number]).collect();
            due.iter().max().unwrap() - due.iter().min().unwrap()
        };
        let mut deadly: Vec<usize> = (0..GROUPS).collect();
        deadly.sort_by_key(|group| std::cmp::Reverse(spread(*group)));
        deadly.truncate(DEAD);
        self.deadly.clone_from(&deadly);
        self.until("all whose group goes on keep 2.0", end, |fleet| {
            now().seconds() > end
                && (0..MACHINES).all(|number| {
                    deadly.contains(&(number % GROUPS))
                        || fleet.intent(number).as_deref() == Some("kept")
                })
        })
        .await;
        let stayed = self.check_stopped(&due).await;
        for (node, turn) in self.nodes.iter().zip(&due) {
            let early = |from: &u128| from / SECOND < u128::from(*turn);
            assert!(
                !node.gone().iter().any(early),
                "{} before its turn",
                node.name
            );
        }
        assert!(stayed > 0, "nobody was left to be stopped");
        let kept = (0..MACHINES).filter(|of| self.intent(*of).as_deref() == Some("kept"));
        eprintln!(
            "2.0: {} of {MACHINES} keep it, {DEAD} did not come back and stopped their groups, {stayed} stayed up whose turn came after that",
            kept.count()
        );
    }

    /// Groups with a machine that did not come back have stopped, and no others; how many of them
    /// stayed up whose turn came after that.
    async fn check_stopped(&mut self, due: &[u64]) -> usize {
        let groups = self.groups().await;
        let mut stayed = 0;
        for (number, status) in groups.iter().enumerate() {
            let is_deadly = self.deadly.contains(&number);
            assert_eq!(status.state == "stopped", is_deadly, "{status:?}");
            assert_eq!(status.failed.len(), usize::from(is_deadly), "{status:?}");
            let Some(failed) = status.failed.first() else {
                continue;
            };
            let failed = failed.at.parse::<Timestamp>().unwrap().seconds() + LATE;
            for node in self.of_group(number).filter(|node| !node.is_dead) {
                let place = self.nodes.iter().position(|of| of.name == node.name);
                let turn = due[place.unwrap()];
                let went = node.gone();
                // Its group had stopped when its turn came.
                if turn > failed {
                    assert!(went.is_empty(), "{} went after {failed}", node.name);
                    stayed += 1;
                }
                assert!(went.iter().all(|from| from / SECOND <= failed.into()));
            }
        }
        stayed
    }

    /// When each was.
    async fn withdraw(&mut self, releases: &[Statement]) -> Vec<u128> {
        let mut said = Vec::new();
        for (number, release) in releases.iter().enumerate() {
            let withdraws: Head = release.head();
            let reason = "it is bad".into();
            let body = Body::Withdraw(Withdraw { withdraws, reason });
            self.say(number, body, "stop").await;
            said.push(nanoseconds());
        }
        said
    }

    /// A release that is withdrawn when a part of the fleet has gone for it.
    pub(super) async fn is_withdrawn(&mut self, place: &Path) {
        let before: Vec<usize> = self.nodes.iter().map(|node| node.gone().len()).collect();
        let gone = |fleet: &Self| {
            let nodes = fleet.nodes.iter().zip(&before);
            nodes
                .filter(|(node, before)| node.gone().len() > **before)
                .count()
        };
        let start = now().plus(WAVES.0);
        let end = start.seconds() + WAVES.1;
        let releases = self.release(place, "3.0", start).await;
        self.until("a third has gone", end, |fleet| gone(fleet) >= MACHINES / 3)
            .await;
        let said = self.withdraw(&releases).await;
        let (now_gone, beat) = (gone(self), u128::from(BEAT) * SECOND);
        self.until("the waves are over", end, |_| now().seconds() > end)
            .await;
        let mut last = 0;
        for (number, node) in self.nodes.iter().enumerate() {
            let went = node.gone()[before[number]..].to_vec();
            for from in &went {
                let after = from.saturating_sub(said[node.group]);
                assert!(after <= beat, "{} went {after} ns after it", node.name);
                last = last.max(after);
            }
            let is_stopped = self.deadly.contains(&node.group);
            assert!(!is_stopped || went.is_empty(), "{} is stopped", node.name);
            if went.is_empty() && !node.is_dead {
                let intent = self.intent(number);
                assert!(
                    is_stopped || intent.as_deref() == Some("left"),
                    "{} {:?}",
                    node.name,
                    node.status()
                );
            }
        }
        eprintln!(
            "3.0: {now_gone} had gone when it was withdrawn, {} in all; the last {} ms after it",
            gone(self),
            last / 1_000_000
        );
        assert!(
            gone(self) < MACHINES - DEAD * MACHINES / GROUPS,
            "nobody was left"
        );
    }
}
