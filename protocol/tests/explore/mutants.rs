//! Each rule, switched off, breaks an invariant: the model can fail.

use crate::{
    facts::{Kind, PLAIN, Role},
    invariants::Broken,
    rules::{Rule, Setting},
    search::{explore, tell},
    world::{Bounds, Ceremony},
};

const BEAT: &[Role] = &[Role::Beat];
const WITHDRAW: &[Role] = &[Role::Withdraw];
const RELEASE: &[Role] = &[Role::Release];
const BEAT_WITHDRAW: &[Role] = &[Role::Beat, Role::Withdraw];
const BEAT_RELEASE: &[Role] = &[Role::Beat, Role::Release];

fn plain(stolen: &'static [Role]) -> Bounds {
    Bounds {
        stolen,
        forgeries: u8::from(!stolen.is_empty()),
        time: 1,
        ..Bounds::default()
    }
}
/// As little as may be, for what lies deep.
fn narrow(bounds: Bounds) -> Bounds {
    Bounds {
        serials: [2, 0],
        time: 0,
        signs: 1,
        withdrawals: false,
        ..bounds
    }
}
fn removed(stolen: &'static [Role]) -> Bounds {
    Bounds {
        ceremonies: &[Ceremony::Remove],
        ..plain(stolen)
    }
}
fn renewed(stolen: &'static [Role]) -> Bounds {
    Bounds {
        ceremonies: &[Ceremony::Routine],
        ..plain(stolen)
    }
}

fn terms(kind: Kind) -> Bounds {
    let releases: &'static [Kind] = Box::leak(Box::new([PLAIN, kind]));
    Bounds {
        releases,
        time: 2,
        withdrawals: false,
        ..plain(&[])
    }
}

struct Mutant {
    rule: Rule,
    breaks: Broken,
    bounds: Bounds,
    setting: fn() -> Setting,
}

fn clocked() -> Setting {
    Setting::new(Some(0))
}
fn clockless() -> Setting {
    Setting::new(None)
}

fn all() -> Vec<Mutant> {
    let m = |rule, breaks, bounds| Mutant {
        rule,
        breaks,
        bounds,
        setting: clocked,
    };
    let release = |barrier, not_before, matches, critical| Kind::Release {
        barrier,
        not_before,
        matches,
        critical,
    };
    vec![
        m(
            Rule::Signatures,
            Broken::Unsigned,
            Bounds {
                inventions: true,
                forgeries: 1,
                ..plain(&[])
            },
        ),
        m(
            Rule::WithdrawalProvesItself,
            Broken::Unsigned,
            Bounds {
                inventions: true,
                forgeries: 2,
                ..plain(WITHDRAW)
            },
        ),
        m(
            Rule::WithdrawalsKept,
            Broken::Withdrawn,
            Bounds {
                withdrawals: true,
                ..narrow(plain(BEAT_WITHDRAW))
            },
        ),
        m(
            Rule::WithdrawalStays,
            Broken::Withdrawn,
            Bounds {
                withdrawals: true,
                ..narrow(removed(WITHDRAW))
            },
        ),
        m(
            Rule::SettledIsNoFork,
            Broken::NotCleared,
            narrow(Bounds {
                beats: false,
                publishers: 2,
                ..renewed(&[])
            }),
        ),
        m(
            Rule::BeatNamesChain,
            Broken::Current,
            Bounds {
                time: 3,
                ..plain(RELEASE)
            },
        ),
        m(
            Rule::Restart,
            Broken::Wedged,
            narrow(Bounds {
                beats: false,
                ..removed(RELEASE)
            }),
        ),
        m(
            Rule::UnprovenHeadRestarts,
            Broken::Wedged,
            narrow(Bounds {
                beats: false,
                ..removed(RELEASE)
            }),
        ),
        m(
            Rule::HeadStays,
            Broken::TakenBack,
            Bounds {
                serials: [3, 0],
                ..narrow(renewed(&[]))
            },
        ),
        m(
            Rule::UnprovenHeadYields,
            Broken::Wedged,
            narrow(Bounds {
                beats: false,
                ..removed(RELEASE)
            }),
        ),
        m(
            Rule::BeatEndsRestart,
            Broken::Stopped,
            Bounds {
                serials: [3, 0],
                ..narrow(renewed(&[]))
            },
        ),
        m(
            Rule::BeatDecides,
            Broken::Wedged,
            Bounds {
                publishers: 2,
                ..plain(&[])
            },
        ),
        m(Rule::BeatDecidesUnlinked, Broken::Stopped, plain(RELEASE)),
        m(
            Rule::LifeFromTime,
            Broken::Current,
            Bounds {
                time: 4,
                withdrawals: false,
                ..plain(&[])
            },
        ),
        Mutant {
            setting: clockless,
            ..m(
                Rule::SinceStart,
                Broken::Current,
                Bounds {
                    time: 4,
                    serials: [2, 0],
                    reboots: true,
                    withdrawals: false,
                    ..plain(&[])
                },
            )
        },
        Mutant {
            setting: clockless,
            ..m(
                Rule::TimeRunsOn,
                Broken::Current,
                Bounds {
                    time: 5,
                    serials: [2, 0],
                    ..plain(&[])
                },
            )
        },
        m(Rule::CurrentOnly, Broken::Steered, plain(&[])),
        m(Rule::Covered, Broken::NotOnLog, plain(RELEASE)),
        m(
            Rule::DueOnly,
            Broken::NeedsRelease,
            Bounds {
                strict: true,
                ..terms(release(0, 9, true, false))
            },
        ),
        m(Rule::NoneIfWithdrawn, Broken::Steered, plain(WITHDRAW)),
        m(
            Rule::NoneIfCritical,
            Broken::Unfit,
            terms(release(0, 0, true, true)),
        ),
        m(Rule::NotBelowApplied, Broken::BelowApplied, plain(BEAT)),
        m(Rule::AppliedProven, Broken::NotCleared, plain(BEAT_RELEASE)),
        m(
            Rule::BarrierFirst,
            Broken::Unfit,
            terms(release(1, 0, true, false)),
        ),
        m(Rule::Outbox, Broken::Orphan, plain(&[])),
        m(Rule::NamesStoredOnly, Broken::NotOnLog, plain(RELEASE)),
        m(Rule::FiledAway, Broken::Wedged, removed(RELEASE)),
        m(
            Rule::CeremonyVerifies,
            Broken::Unsigned,
            narrow(Bounds {
                ceremonies: &[Ceremony::RemoveByBeat],
                heals: false,
                ..plain(BEAT)
            }),
        ),
        m(
            Rule::Closed,
            Broken::Unfit,
            Bounds {
                serials: [0, 1],
                ceremonies: &[Ceremony::Close],
                ..plain(&[])
            },
        ),
    ]
}

#[test]
fn each_rule_is_needed() {
    let only = std::env::var("RULE").ok();
    let mut wrong = vec![];
    for mutant in all() {
        let name = format!("{:?}", mutant.rule);
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let setting = (mutant.setting)().without(mutant.rule);
        let found = explore(&setting, &mutant.bounds, 1_500_000);
        // The same states hold with all rules.
        let whole = explore(&(mutant.setting)(), &mutant.bounds, found.states);
        if let Some((what, moves, _)) = whole.broken {
            eprintln!(
                "{name}: {what:?} even with all rules\n{}",
                tell(&setting, &moves)
            );
            wrong.push(name.clone());
        }
        match found.broken {
            Some((what, moves, _)) => {
                eprintln!(
                    "{name} -> {what:?} after {} states, {:.1} s",
                    found.states, found.seconds
                );
                if what != mutant.breaks {
                    eprintln!("  not {:?}:\n{}", mutant.breaks, tell(&setting, &moves));
                    wrong.push(name);
                }
            }
            None => {
                eprintln!(
                    "{name} SURVIVES {} states, {:.1} s, complete {}",
                    found.states, found.seconds, found.complete
                );
                wrong.push(name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
