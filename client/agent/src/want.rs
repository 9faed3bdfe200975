//! Which release is worked on: a pure function of what brokers say and of what is written down.

use tidings_client::{Error, NotNow, Serial, Statement, Verified};

use crate::round::{Intent, Task};

/// What brokers say is to be run.
pub enum Wanted {
    /// This, at once or later.
    Release(Box<Verified<Statement>>),
    /// Not this one any more.
    Withdrawn(Serial),
    /// Nothing that is not applied already.
    Nothing,
    /// They do not say.
    Unknown,
}

impl Wanted {
    /// What follows from an error.
    pub fn after(error: &Error) -> Self {
        match error {
            Error::NotNow { reason, .. } => match **reason {
                NotNow::Withdrawn { release, .. } => Self::Withdrawn(release),
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }

    /// Why a release is given up of which nothing has run yet, if it is.
    fn gives_up(&self, of: &Statement) -> Option<String> {
        match self {
            Self::Release(statement) if statement.head() != of.head() => {
                Some(format!("{} is to be run instead", statement.serial()))
            }
            Self::Withdrawn(serial) if *serial == of.serial() => Some("it was withdrawn".into()),
            Self::Nothing => Some("it is not the release to run any more".into()),
            _ => None,
        }
    }
}

/// The task to go on with: the one that is written down as long as it has an end before it, then
/// what is wanted unless it was tried here; none if there is nothing to do. `failed` are the ids of
/// releases that are not tried again.
pub fn choose(known: Option<&Task>, wanted: &Wanted, failed: &[String]) -> Option<Task> {
    let of = known.and_then(|task| Statement::parse(task.statement.as_bytes()).ok());
    if let (Some(task), Some(of)) = (known, &of)
        && task.is_before_going()
        && let Some(why) = wanted.gives_up(of)
    {
        let mut task = task.clone();
        task.turn(Intent::Leave, why);
        return Some(task);
    }
    if let Some(task) = known
        && (!task.intent.is_end() || task.slot.is_some() && task.intent != Intent::Failed)
    {
        return Some(task.clone());
    }
    let Wanted::Release(statement) = wanted else {
        return None;
    };
    let same = of.is_some_and(|of| of.head() == statement.head())
        && known.is_some_and(|task| task.intent != Intent::Left);
    if same || failed.contains(&statement.id().to_string()) {
        return None;
    }
    let text = String::from_utf8_lossy(statement.octets());
    Some(Task::new(text.into_owned()))
}
