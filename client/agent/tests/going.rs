//! A machine goes down only when it has just been allowed to.
#![allow(clippy::unwrap_used)]

use tidings_agent::{
    apply::{Request, Verb},
    handler::{Answer, DONE, LATER},
    round::{Intent, Task},
    world::{End, Fetched, Health, Ready, World, go_on},
};
use tidings_client::Statement;
use tidings_protocol::{
    Channel, SigningKey, Timestamp,
    statement::{Body, Draft, Payload, Release},
};

/// A machine on which the release is staged, and whose handler cannot let it go at first.
struct Machine {
    ready: Vec<Ready>,
    go: Vec<u8>,
    done: Vec<String>,
}

impl World for Machine {
    fn boot(&self) -> String {
        "this life".into()
    }
    async fn ask(&mut self, request: &Request) -> Answer {
        if request.verb == Verb::State {
            return Answer::new(DONE, "staged");
        }
        self.done.push(request.verb.as_str().into());
        match request.verb {
            Verb::Go => Answer::new(self.go.remove(0), "go"),
            _ => Answer::new(DONE, "done"),
        }
    }
    async fn fetch(&mut self, _: &Statement, _: &Payload) -> Fetched {
        Fetched::Whole
    }
    async fn ready(&mut self, _: &Task, _: &Statement) -> Ready {
        self.done.push("ready".into());
        self.ready.remove(0)
    }
    async fn health(&mut self, _: &Task) -> Health {
        Health::Well
    }
    async fn free(&mut self, _: u64, _: &Statement) -> bool {
        true
    }
    fn save(&mut self, _: &Task) -> std::io::Result<()> {
        Ok(())
    }
}

fn release() -> Statement {
    let channel: Channel = "acme.os.stable".parse().unwrap();
    let draft = Draft {
        channel,
        after: None,
        time: Timestamp::from_seconds(1_800_000_000),
        trust: Some(tidings_client::Serial::FIRST),
        body: Body::Release(Release {
            version: "1".into(),
            ..Release::default()
        }),
    };
    let key = SigningKey::from_bytes(&[7; 32]);
    draft.write().unwrap().sign(&key).unwrap()
}

#[tokio::test]
async fn what_was_granted_before_a_wait_is_asked_for_again() {
    let go = |slot| Ready::Go {
        slot: Some(slot),
        ill: vec![],
    };
    let mut machine = Machine {
        ready: vec![
            go(7),
            Ready::Wait("the slot is another one's".into()),
            go(8),
        ],
        go: vec![LATER, DONE],
        done: vec![],
    };
    let text = String::from_utf8(release().octets().to_vec()).unwrap();
    let mut task = Task::new(text);
    (task.intent, task.payload) = (Intent::Go, Some(0));
    let step = async |machine: &mut Machine, task: &mut Task| {
        let end = go_on(machine, task).await.unwrap();
        (end, std::mem::take(&mut machine.done).join(" "))
    };
    let (end, done) = step(&mut machine, &mut task).await;
    assert_eq!((end, &*done), (End::Later("go".into()), "ready arm go"));
    // Its lease may be over by now: nothing is armed, and the machine stays up.
    let (end, done) = step(&mut machine, &mut task).await;
    let why = End::Later("the slot is another one's".into());
    assert_eq!((end, &*done), (why, "ready"));
    let (end, done) = step(&mut machine, &mut task).await;
    assert_eq!((end, &*done), (End::Gone, "ready arm go"));
    // It was one trial, and the last token counts.
    assert_eq!((task.trials, task.slot), (1, Some(8)));
}
