//! What a ceremony has on paper: a trust log in a file, what its last statement changes, and who
//! has still to sign.

use std::io::IsTerminal;

use anyhow::{Context, bail, ensure};
use tidings_client::{Anchor, Publisher, Serial, Statement, Timestamp, keys::PublicKey};
use tidings_protocol::{
    Namespace,
    statement::{Body, Kind, Role, TrustRules},
    trust::Trust,
    verify::VerifyError,
};

use super::{exit::Exit, output};

/// The fields of a trust statement that are shown as what they mean.
const KNOWN: &[&str] = &[
    "Tidings",
    "Channel",
    "Serial",
    "Previous",
    "Time",
    "Expires",
    "Key",
    "Role",
    "Checkpoint",
    "Closed",
];

/// A trust log as it lies in a file: what is in force, and perhaps a last statement that still
/// needs signatures.
pub(super) struct TrustLogFile {
    pub(super) anchor: Anchor,
    /// From the one that the anchor names up to the one in force.
    pub(super) history: Vec<Trust>,
    /// All statements, those below the anchor too.
    pub(super) log: Vec<Statement>,
    pub(super) pending: Option<Statement>,
}

/// The anchor that was given, or, if none was, that of the first statement; and the first and the
/// last serial in the file, which it must lie between.
fn bounds(
    statements: &[Statement],
    anchor: Option<&Anchor>,
) -> anyhow::Result<(Anchor, Serial, Serial)> {
    let (first, last) = statements
        .first()
        .zip(statements.last())
        .context("there is no statement in the file")?;
    let (from, to) = (first.serial(), last.serial());
    let own = Anchor {
        namespace: namespace(first)?,
        head: first.head(),
    };
    let anchor = anchor.cloned().unwrap_or(own);
    let begins = anchor.head.serial;
    let outside = || {
        Exit::BadFile.because(format!(
            "the anchor names trust {begins} of {}, and the log in the file has {from} to {to}; use a newer file (`tidings trust log`), or another anchor",
            anchor.namespace
        ))
    };
    ensure!((from..=to).contains(&begins), outside());
    Ok((anchor, from, to))
}

/// Walks the log in a file. Its anchor is the one that was given, or, if none was, that of its
/// first statement. What lies below the anchor is proven by its links, and gives no rights.
pub(super) fn walk(
    statements: Vec<Statement>,
    anchor: Option<&Anchor>,
) -> anyhow::Result<TrustLogFile> {
    let (anchor, from, to) = bounds(&statements, anchor)?;
    let begins = anchor.head.serial;
    let up_to: Vec<Statement> = statements
        .iter()
        .filter(|statement| statement.serial() <= begins)
        .cloned()
        .collect();
    let refused = |serial: Serial, error: VerifyError| {
        Exit::Refused.because(format!(
            "trust statement {serial} in the file is not accepted: {error}"
        ))
    };
    let (below, above): (Vec<_>, Vec<_>) = statements
        .into_iter()
        .partition(|statement| statement.serial() < begins);
    let mut file = TrustLogFile {
        anchor,
        history: Vec::new(),
        log: below,
        pending: None,
    };
    for statement in above {
        let next = match file.history.last() {
            None => Trust::first(&file.anchor, statement.clone()),
            Some(trust) => trust.succeed(statement.clone()),
        };
        match next {
            Ok(trust) => {
                file.history.push(trust);
                file.log.push(statement);
            }
            // The last may still be going round; whether it follows the others is checked all the
            // same.
            Err(VerifyError::Threshold { .. }) if statement.serial() == to => {
                file.pending = Some(statement)
            }
            Err(error) => return Err(refused(statement.serial(), error)),
        }
    }
    if from < begins {
        Trust::verify_below(&file.anchor, up_to)
            .map_err(|(serial, error)| refused(serial, error))?;
    }
    Ok(file)
}

impl TrustLogFile {
    /// The trust in force.
    pub(super) fn trust(&self) -> Option<&Trust> {
        self.history.last()
    }

    /// The newest statement, signed or not yet, and the trust that was in force before it.
    pub(super) fn newest(&self) -> (Option<&Statement>, Option<&Trust>) {
        match (&self.pending, &self.history[..]) {
            (Some(pending), _) => (Some(pending), self.trust()),
            (None, [.., before, last]) => (Some(last.statement()), Some(before)),
            (None, [only]) => (Some(only.statement()), None),
            (None, []) => (None, None),
        }
    }
}

pub(super) fn namespace(statement: &Statement) -> anyhow::Result<Namespace> {
    let name = statement.channel().as_str().strip_suffix(".trust");
    Ok(name
        .with_context(|| format!("{} is no trust log", statement.channel()))?
        .parse()?)
}

pub(super) fn rules(statement: &Statement) -> anyhow::Result<&TrustRules> {
    match statement.body() {
        Body::Trust(rules) => Ok(rules),
        _ => bail!("this is a {} statement, expected trust", statement.kind()),
    }
}

/// What a change does, line by line.
pub(super) fn difference(old: &TrustRules, new: &TrustRules) -> Vec<String> {
    fn lines<T: PartialEq>(old: &[T], new: &[T], what: impl Fn(&T) -> String) -> Vec<String> {
        let gone = old
            .iter()
            .filter(|one| !new.contains(one))
            .map(|one| format!("- {}", what(one)));
        let come = new
            .iter()
            .filter(|one| !old.contains(one))
            .map(|one| format!("+ {}", what(one)));
        gone.chain(come).collect()
    }
    let role = |role: &Role| {
        format!(
            "role {} {}: {} of {}",
            role.kind,
            role.pattern,
            role.threshold,
            role.names.join(", ")
        )
    };
    let mut all = lines(&old.keys, &new.keys, |key| {
        format!("key {} {}", key.name, key.key)
    });
    all.extend(lines(&old.roles, &new.roles, role));
    all.extend(lines(&old.checkpoints, &new.checkpoints, |c| {
        format!("checkpoint {} {}", c.channel, c.head)
    }));
    all.extend(lines(&old.closed, &new.closed, |closed| {
        format!("closed {closed}")
    }));
    all.extend(lines(&[old.expires], &[new.expires], |time: &Timestamp| {
        format!("expires {time}")
    }));
    all
}

/// One of the thresholds that a trust statement has to meet.
pub(super) struct Threshold {
    by: String,
    pub(super) needed: usize,
    pub(super) have: Vec<String>,
    pub(super) missing: Vec<String>,
}

pub(super) fn thresholds(
    before: Option<&Trust>,
    statement: &Statement,
) -> anyhow::Result<Vec<Threshold>> {
    let namespace = namespace(statement)?;
    let of = |serial: Serial, rules: &TrustRules| {
        let role = rules.role(Kind::Trust, statement.channel(), &namespace)?;
        let have: Vec<String> = rules
            .signers(role, statement)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let missing = role
            .names
            .iter()
            .filter(|name| !have.contains(name))
            .cloned()
            .collect();
        Some(Threshold {
            by: format!("trust {serial}"),
            needed: role.threshold,
            have,
            missing,
        })
    };
    let old = before.and_then(|trust| of(trust.serial(), trust.rules()));
    Ok(old
        .into_iter()
        .chain(of(statement.serial(), rules(statement)?))
        .collect())
}

/// Those keys whose signatures count for neither threshold.
pub(super) fn strangers(
    before: Option<&Trust>,
    statement: &Statement,
    keys: &[PublicKey],
) -> anyhow::Result<Vec<PublicKey>> {
    let namespace = namespace(statement)?;
    let counts = |rules: &TrustRules, key: &PublicKey| {
        let role = rules.role(Kind::Trust, statement.channel(), &namespace);
        role.is_some_and(|role| {
            rules
                .keys
                .iter()
                .any(|known| known.key == *key && role.names.contains(&known.name))
        })
    };
    let new = rules(statement)?;
    let old = before.map(Trust::rules);
    Ok(keys
        .iter()
        .filter(|key| !counts(new, key) && !old.is_some_and(|old| counts(old, key)))
        .copied()
        .collect())
}

/// What a statement changes, and whose signatures it has and needs.
pub(super) fn print(before: Option<&Trust>, statement: &Statement) -> anyhow::Result<()> {
    output::line(&format!(
        "{} {}, {}, made at {}",
        statement.channel(),
        statement.serial(),
        statement.id(),
        statement.time()
    ));
    let text = String::from_utf8_lossy(statement.signed_part()).into_owned();
    for line in text.lines().filter(|line| {
        !KNOWN
            .iter()
            .any(|name| line.starts_with(&format!("{name}: ")))
    }) {
        output::line(&format!(
            "  also says, and this version does not know what it means: {line}"
        ));
    }
    if let Some(before) = before {
        difference(before.rules(), rules(statement)?)
            .iter()
            .for_each(|line| output::line(&format!("  {line}")));
    }
    print_thresholds(thresholds(before, statement)?);
    Ok(())
}

/// Whose signatures a statement has and needs.
pub(super) fn print_thresholds(thresholds: Vec<Threshold>) {
    for Threshold {
        by,
        needed,
        have,
        missing,
    } in thresholds
    {
        let signed = if have.is_empty() {
            "nobody".into()
        } else {
            have.join(", ")
        };
        let state = match needed.saturating_sub(have.len()) {
            0 => "enough".into(),
            left => format!("{left} more of {}", missing.join(", ")),
        };
        output::line(&format!(
            "  by {by}: {needed} needed, signed by {signed}: {state}"
        ));
    }
}

/// A statement, and whether enough have signed it.
pub(super) fn as_json(statement: &Statement, thresholds: Vec<Threshold>) -> serde_json::Value {
    let mut value = output::json(statement, None);
    value["enough"] = thresholds
        .iter()
        .all(|threshold| threshold.have.len() >= threshold.needed)
        .into();
    value["missing"] = thresholds
        .into_iter()
        .filter(|t| t.have.len() < t.needed)
        .flat_map(|t| t.missing)
        .collect();
    value
}

/// Of a trust log in a file, those statements that the broker does not have.
pub(super) fn missing(
    publisher: &Publisher,
    log: Vec<Statement>,
) -> anyhow::Result<Vec<Statement>> {
    let Some(known) = publisher.trust() else {
        return Ok(log);
    };
    if let Some(same) = log
        .iter()
        .find(|statement| statement.serial() == known.serial())
    {
        let (serial, theirs, ours) = (known.serial(), known.head().id, same.id());
        let other = || {
            format!(
                "the broker has another trust statement {serial}: {theirs}, in the file it is {ours}; one of the two logs is a fork"
            )
        };
        ensure!(same.head() == known.head(), Exit::Refused.because(other()));
    }
    Ok(log
        .into_iter()
        .filter(|statement| statement.serial() > known.serial())
        .collect())
}

/// Asks a person who is there; what runs without a terminal has decided already.
pub(super) fn confirm(question: &str) -> anyhow::Result<()> {
    if std::io::stdin().is_terminal() {
        ask(question, "nothing was signed")
    } else {
        Ok(())
    }
}

/// Asks, and wants a yes, from a person or from a pipe.
pub(super) fn ask(question: &str, otherwise: &str) -> anyhow::Result<()> {
    output::prompt(&format!("{question} [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    ensure!(
        matches!(answer.trim(), "y" | "yes"),
        Exit::Refused.because(otherwise)
    );
    Ok(())
}
