//! Doing what a round has decided. What it needs of the world is handed in.

use tidings_client::{Body, Serial, Statement};
use tidings_protocol::statement::Payload;

use crate::{
    apply::{Request, Verb, cost},
    handler::{Answer, DONE, LATER, UNUSABLE},
    round::{Fact, Intent, Step, Task},
};

/// What fetching a payload has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is there, and is what was signed.
    Whole,
    /// It is not to be had as it was signed, from any of its places.
    Wrong(String),
    /// Not now.
    Later(String),
}

/// Whether the machine may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It may, with this slot, and these checks of health failed already.
    Go {
        /// The token, if the release wants a slot.
        slot: Option<u64>,
        /// Their names.
        ill: Vec<String>,
    },
    /// Not now, and why.
    Wait(String),
    /// Never: it was withdrawn, or something newer is there.
    Leave(String),
}

/// Whether the machine is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Well,
    /// It may become so.
    NotYet(String),
    /// It is not.
    Ill(String),
}

/// What the rounds need of the world.
#[allow(async_fn_in_trait, reason = "it is used on one thread")]
pub trait World {
    /// Which life of the machine this is.
    fn boot(&self) -> String;
    /// Asks the applier.
    async fn ask(&mut self, request: &Request) -> Answer;
    /// Fetches a payload.
    async fn fetch(&mut self, statement: &Statement, payload: &Payload) -> Fetched;
    /// Whether the machine may go now.
    async fn ready(&mut self, task: &Task, statement: &Statement) -> Ready;
    /// Whether it is well with what runs.
    async fn health(&mut self, task: &Task) -> Health;
    /// Gives a slot back; false: later.
    async fn free(&mut self, token: u64, statement: &Statement) -> bool;
    /// Writes a task down, durably.
    fn save(&mut self, task: &Task) -> std::io::Result<()>;
}

/// Where a run of rounds has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// There is nothing left to do.
    Rest,
    /// Look again later; why.
    Later(String),
    /// The machine goes.
    Gone,
}

/// More rounds than any task needs without waiting: beyond that the handler and the agent do not
/// agree.
const ROUNDS: u32 = 64;

/// Goes on with a task until it rests, has to wait, or the machine goes.
///
/// # Errors
/// If what was decided cannot be written down: nothing is done then.
pub async fn go_on<W: World>(world: &mut W, task: &mut Task) -> std::io::Result<End> {
    let Some(statement) = Statement::parse(task.statement.as_bytes()).ok() else {
        return Ok(End::Later(
            "the journal has no statement that can be read".into(),
        ));
    };
    let mut may_go = false;
    for _ in 0..ROUNDS {
        let mut round = Round {
            world,
            task,
            statement: &statement,
            may_go: &mut may_go,
        };
        if let Some(end) = round.once().await? {
            return Ok(end);
        }
    }
    Ok(End::Later(format!(
        "no end after {ROUNDS} rounds: the handler does not do what it says"
    )))
}

struct Round<'a, W> {
    world: &'a mut W,
    task: &'a mut Task,
    statement: &'a Statement,
    /// Whether the machine may go now: what was granted before a wait is asked for again, since a
    /// slot's lease may be over.
    may_go: &'a mut bool,
}

impl<W: World> Round<'_, W> {
    async fn once(&mut self) -> std::io::Result<Option<End>> {
        let fact = match self.task.payload {
            Some(_) if !self.task.intent.is_end() => {
                let answer = self.ask(Verb::State).await;
                match Fact::read(&answer.line).filter(|_| answer.is_done()) {
                    Some(fact) => fact,
                    None => {
                        return Ok(Some(End::Later(format!(
                            "the handler does not say what is: {}",
                            answer.line
                        ))));
                    }
                }
            }
            _ => Fact::None,
        };
        let step = self.task.next(fact, &self.world.boot());
        tracing::debug!(
            intent = self.task.intent.as_str(),
            fact = fact.as_str(),
            ?step,
            "round"
        );
        match step {
            Step::Rest => return Ok(Some(End::Rest)),
            Step::Choose => return self.choose().await,
            Step::Become(intent) => return self.turn(intent),
            Step::Stage => return self.stage().await,
            Step::Ready => return self.ready().await,
            Step::Go if !*self.may_go => return self.ready().await,
            Step::Go => return self.go(Verb::Arm).await,
            Step::Judge => return self.judge().await,
            Step::Keep => {
                let answer = self.ask(Verb::Keep).await;
                if !answer.is_done() {
                    return Ok(Some(End::Later(answer.line)));
                }
                return self.turn(Intent::Kept);
            }
            Step::Free => {
                let Some(token) = self.task.slot else {
                    return Ok(None);
                };
                if !self.world.free(token, self.statement).await {
                    return Ok(Some(End::Later(
                        "the slot could not be given back yet".into(),
                    )));
                }
                self.change(|task| task.slot = None)?;
            }
            Step::Drop { runs } => return self.drop(runs).await,
            Step::FellBack => self.change(Task::note_fallback)?,
        }
        Ok(None)
    }

    async fn judge(&mut self) -> std::io::Result<Option<End>> {
        match self.world.health(self.task).await {
            Health::Well => {
                self.change(|task| task.turn(Intent::Keep, "the machine is well with it"))?
            }
            Health::NotYet(why) => return Ok(Some(End::Later(why))),
            Health::Ill(why) => self.change(|task| {
                task.turn(
                    Intent::Fail,
                    format!("the machine is not well with it: {why}"),
                )
            })?,
        }
        Ok(None)
    }

    /// The cheapest of the payloads that can be used here.
    async fn choose(&mut self) -> std::io::Result<Option<End>> {
        let Body::Release(release) = self.statement.body() else {
            return Ok(Some(End::Rest));
        };
        let (mut best, mut reasons) = (None, Vec::new());
        for (number, payload) in release.payloads.iter().enumerate() {
            if self.task.skip.contains(&number) {
                continue;
            }
            let answer = self.ask_of(Verb::Can, number).await;
            match (cost(&answer, payload), best) {
                (Some(cost), Some((least, _))) if cost >= least => {}
                (Some(cost), _) => best = Some((cost, number)),
                (None, _) if answer.code == LATER => return Ok(Some(End::Later(answer.line))),
                (None, _) => reasons.push(format!("{}: {}", payload.format, answer.line)),
            }
        }
        if let Some((_, number)) = best {
            self.change(|task| task.payload = Some(number))?;
            return Ok(None);
        }
        // Nothing of it has run, so that nothing has failed: a tool may be installed, room be made,
        // a place be mended.
        let mut why = reasons.join("; ");
        if !self.task.skip.is_empty() {
            why = format!("{}; {why}", self.task.why);
        }
        let why = format!(
            "no payload can be used here: {}",
            why.trim_end_matches("; ")
        );
        self.change(|task| (task.why, task.skip) = (why.clone(), Vec::new()))?;
        Ok(Some(End::Later(why)))
    }

    async fn stage(&mut self) -> std::io::Result<Option<End>> {
        let Body::Release(release) = self.statement.body() else {
            return Ok(Some(End::Rest));
        };
        let Some(payload) = self
            .task
            .payload
            .and_then(|number| release.payloads.get(number))
        else {
            return Ok(Some(End::Rest));
        };
        match self.world.fetch(self.statement, payload).await {
            Fetched::Whole => {}
            Fetched::Wrong(why) => return self.next_payload(&why).await,
            Fetched::Later(why) => return Ok(Some(End::Later(why))),
        }
        let answer = self.ask(Verb::Stage).await;
        self.after(answer).await
    }

    /// First the note that the machine goes, then the arming: else the loader may boot what nobody
    /// remembers.
    async fn ready(&mut self) -> std::io::Result<Option<End>> {
        match self.world.ready(self.task, self.statement).await {
            Ready::Wait(why) => Ok(Some(End::Later(why))),
            Ready::Leave(why) => {
                self.change(|task| task.turn(Intent::Leave, why))?;
                Ok(None)
            }
            Ready::Go { slot, ill } => {
                let boot = self.world.boot();
                self.change(|task| {
                    task.trials += u8::from(task.gone.is_none());
                    (task.gone, task.slot, task.ill_before) = (Some(boot), slot, ill);
                })?;
                *self.may_go = true;
                Ok(None)
            }
        }
    }

    async fn go(&mut self, first: Verb) -> std::io::Result<Option<End>> {
        let armed = self.ask(first).await;
        if !armed.is_done() {
            return self.after(armed).await;
        }
        let gone = self.ask(Verb::Go).await;
        match gone.is_done() {
            true => Ok(Some(End::Gone)),
            false => Ok(Some(End::Later(gone.line))),
        }
    }

    async fn drop(&mut self, runs: bool) -> std::io::Result<Option<End>> {
        if runs {
            return self.go(Verb::Drop).await;
        }
        let answer = self.ask(Verb::Drop).await;
        match answer.is_done() {
            true => Ok(None),
            false => Ok(Some(End::Later(answer.line))),
        }
    }

    /// What a handler's answer to `stage` or `arm` means.
    async fn after(&mut self, answer: Answer) -> std::io::Result<Option<End>> {
        match answer.code {
            DONE => Ok(None),
            UNUSABLE => self.next_payload(&answer.line).await,
            LATER => Ok(Some(End::Later(answer.line))),
            _ => {
                self.change(|task| task.note_failure(&answer.line))?;
                Ok(Some(End::Later(answer.line)))
            }
        }
    }

    async fn next_payload(&mut self, why: &str) -> std::io::Result<Option<End>> {
        let answer = self.ask(Verb::Drop).await;
        if !answer.is_done() {
            return Ok(Some(End::Later(answer.line)));
        }
        self.change(|task| task.skip_payload(why))?;
        Ok(None)
    }

    fn turn(&mut self, intent: Intent) -> std::io::Result<Option<End>> {
        let why = self.task.why.clone();
        self.change(|task| task.turn(intent, why))?;
        Ok(None)
    }

    fn change(&mut self, change: impl FnOnce(&mut Task)) -> std::io::Result<()> {
        change(self.task);
        self.world.save(self.task)
    }

    async fn ask(&mut self, verb: Verb) -> Answer {
        let number = self.task.payload.unwrap_or(0);
        self.ask_of(verb, number).await
    }

    async fn ask_of(&mut self, verb: Verb, payload: usize) -> Answer {
        let (channel, serial): (_, Serial) =
            (self.statement.channel().clone(), self.statement.serial());
        self.world
            .ask(&Request {
                verb,
                channel,
                serial,
                payload,
            })
            .await
    }
}
