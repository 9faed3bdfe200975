//! Many that poll at once.

use std::time::Duration;

use tidings_tests::{
    Fixture,
    bench::{
        Crowd, Endpoint,
        nntp::{Opening, Poller},
    },
};

use super::stage_of;

const MANY: usize = 2_000;
/// How often each is answered while it is looked at, in the mean.
const ANSWERS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(60);

/// One look at the sockets may wake no more sessions than a thread's queue has room for: what does
/// not find room in it would have its turn after all that come later.
#[test]
fn of_many_that_poll_all_have_their_turn() {
    rlimit::increase_nofile_limit(MANY as u64 + 256).unwrap();
    // One thread has all of them, and nothing to do but to answer.
    let mut fixture = Fixture::new().unwrap();
    fixture.launcher = ["taskset", "--cpu-list", "0"].map(str::to_owned).into();
    let limits = format!("[limits]\nconnections = {MANY}\nconnections_per_address = {MANY}\n");
    let stage = stage_of(fixture, &limits);
    let to = Endpoint {
        address: stage.fixture.address,
        tls: None,
    };
    let channel = "test.os.stable".parse().unwrap();
    let (mut crowd, mut done) = (Crowd::new().unwrap(), Vec::new());
    let pollers = (0..MANY).map(|_| Poller::new(Opening::anonymous(), &channel));
    crowd
        .join(&to, pollers, PATIENCE, &mut done, || ())
        .unwrap();
    // Those that came first have begun.
    done.clear();
    let mut answers = vec![0; MANY];
    while answers.iter().sum::<usize>() < MANY * ANSWERS {
        crowd.turn(PATIENCE, &mut done).unwrap();
        for one in done.drain(..) {
            answers[one.index] += one.count;
        }
    }
    let (least, most) = (answers.iter().min(), answers.iter().max());
    assert!(
        answers.iter().all(|count| *count >= ANSWERS / 2),
        "some were answered {least:?} times, others {most:?}"
    );
}
