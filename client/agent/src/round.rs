//! What the agent does next: a pure function of what it has written down, and of what the machine
//! says.
//!
//! The agent writes down what it *intends*, the handler says what *is*, and each round does the one
//! step that brings the second nearer to the first. No step is remembered as done.

use serde::{Deserialize, Serialize};

/// How often a release may be tried that the machine does not come back with: a power cut looks
/// like that too.
pub const TRIALS: u8 = 3;
/// How often a verb that has failed is called again, with growing pauses, before another payload is
/// tried.
pub const FAILURES: u8 = 3;

/// What the agent wants to become true of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// It lies whole beside what runs.
    Stage,
    /// The machine runs it, on trial.
    Go,
    /// It is the default.
    Keep,
    /// It is given up, and not tried again.
    Fail,
    /// It is given up, since it was withdrawn or something newer is there.
    Leave,
    /// The end: it runs for good.
    Kept,
    /// The end: it was tried, or could not be; its slot is not freed.
    Failed,
    /// The end: nothing of it is left.
    Left,
}

impl Intent {
    /// Whether nothing is left to do.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Kept | Self::Failed | Self::Left)
    }
    /// As the status has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Go => "go",
            Self::Keep => "keep",
            Self::Fail => "fail",
            Self::Leave => "leave",
            Self::Kept => "kept",
            Self::Failed => "failed",
            Self::Left => "left",
        }
    }
}

/// What a handler says of a payload by looking at the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Nothing of it is there.
    None,
    /// Something of it is there.
    Partial,
    /// It lies whole beside what runs.
    Staged,
    /// The loader takes it next, once.
    Armed,
    /// It runs, and is not the default.
    Running,
    /// It runs, and is the default.
    Kept,
}

impl Fact {
    /// The word that a handler prints.
    pub fn read(word: &str) -> Option<Self> {
        let all = [
            Self::None,
            Self::Partial,
            Self::Staged,
            Self::Armed,
            Self::Running,
            Self::Kept,
        ];
        all.into_iter().find(|fact| fact.as_str() == word)
    }
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Staged => "staged",
            Self::Armed => "armed",
            Self::Running => "running",
            Self::Kept => "kept",
        }
    }
}

/// What the agent has written down of one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The statement, whole: the agent goes on without any broker.
    pub statement: String,
    /// What it wants.
    pub intent: Intent,
    /// Which `Payload` line it uses, from 0.
    pub payload: Option<usize>,
    /// Which it does not use any more.
    #[serde(default)]
    pub skip: Vec<usize>,
    /// The life of the machine in which it was decided to go; noted before arming.
    pub gone: Option<String>,
    /// How often it has gone.
    #[serde(default)]
    pub trials: u8,
    /// How often the present step has failed.
    #[serde(default)]
    pub failures: u8,
    /// The token of the slot that it holds.
    pub slot: Option<u64>,
    /// The checks of health that had failed before it went.
    #[serde(default)]
    pub ill_before: Vec<String>,
    /// Why it is so, for people.
    #[serde(default)]
    pub why: String,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Which payload can be used here, and is the cheapest?
    Choose,
    /// Fetch it, and lay it beside what runs.
    Stage,
    /// May the machine go? Then note it, with the life in which it was noted.
    Ready,
    /// Let the loader take it once, and go.
    Go,
    /// Is the machine well with it?
    Judge,
    /// Make it the default.
    Keep,
    /// All the way back; if it runs, the machine goes too.
    Drop {
        /// It runs.
        runs: bool,
    },
    /// The machine did not come back with it.
    FellBack,
    /// Others may go: give the slot back.
    Free,
    /// Only write down a new intent.
    Become(Intent),
    /// Nothing.
    Rest,
}

impl Task {
    /// A new one.
    pub fn new(statement: String) -> Self {
        let (intent, why) = (Intent::Stage, String::new());
        Self {
            statement,
            intent,
            why,
            payload: None,
            skip: vec![],
            gone: None,
            trials: 0,
            failures: 0,
            slot: None,
            ill_before: vec![],
        }
    }

    /// The next step, in this life of the machine.
    pub fn next(&self, fact: Fact, boot: &str) -> Step {
        let away = self.gone.as_deref().is_some_and(|gone| gone != boot);
        match (self.intent, fact) {
            // A release that has failed keeps its slot, and so stops its own group.
            (Intent::Kept | Intent::Left, _) if self.slot.is_some() => Step::Free,
            (intent, _) if intent.is_end() => Step::Rest,
            (Intent::Stage, _) if self.payload.is_none() => Step::Choose,
            (Intent::Fail, Fact::None) => Step::Become(Intent::Failed),
            (Intent::Leave, Fact::None) => Step::Become(Intent::Left),
            // What is the default is kept, however it came to be.
            (_, Fact::Kept) if self.intent != Intent::Keep => Step::Become(Intent::Keep),
            (Intent::Fail | Intent::Leave, Fact::Running) => Step::Drop { runs: true },
            (Intent::Fail | Intent::Leave, _) => Step::Drop { runs: false },
            (Intent::Stage | Intent::Go, Fact::Running) => Step::Judge,
            (Intent::Keep, Fact::Running | Fact::Kept) => Step::Keep,
            // The power went between the judgement and `keep`.
            (Intent::Keep, _) => Step::FellBack,
            (Intent::Go, _) if away => Step::FellBack,
            (Intent::Stage, Fact::None | Fact::Partial) => Step::Stage,
            (Intent::Stage, _) => Step::Become(Intent::Go),
            (Intent::Go, Fact::None | Fact::Partial) => Step::Become(Intent::Stage),
            (Intent::Go, _) if self.gone.is_none() => Step::Ready,
            // Noted in this life: arm, again if need be, and go.
            (Intent::Go, _) => Step::Go,
            (Intent::Kept | Intent::Failed | Intent::Left, _) => Step::Rest,
        }
    }

    /// Wants something else from now on.
    pub fn turn(&mut self, intent: Intent, why: impl Into<String>) {
        (self.intent, self.failures, self.why) = (intent, 0, why.into());
    }

    /// Uses another payload.
    pub fn skip_payload(&mut self, why: impl Into<String>) {
        self.skip.extend(self.payload.take());
        self.gone = None;
        self.turn(Intent::Stage, why);
    }

    /// A verb has failed: again a few times, then another payload.
    pub fn note_failure(&mut self, why: &str) {
        self.failures += 1;
        self.why = why.into();
        if self.failures >= FAILURES {
            self.skip_payload(why);
        }
    }

    /// The machine has not come back with it: again a few times, each with a slot of its own.
    pub fn note_fallback(&mut self) {
        self.gone = None;
        match self.trials {
            TRIALS.. => self.turn(
                Intent::Fail,
                format!("the machine did not come back with it, {TRIALS} times"),
            ),
            trials => self.turn(
                Intent::Stage,
                format!("the machine did not come back with it, trial {trials}"),
            ),
        }
    }

    /// Whether it may still be exchanged for something newer: nothing of it has run or may be about
    /// to.
    pub fn is_before_going(&self) -> bool {
        matches!(self.intent, Intent::Stage | Intent::Go) && self.gone.is_none()
    }
}
