//! Checkpoints: which ones a change of trust needs, at which heads, and what proves those (S5, S7).
//!
//! Who signs trust verifies each head first, under the trust before, from the statements that go
//! round with the draft: a beat is never proof for a head, or a stolen beat key would write
//! releases (attack 118).

mod withdrawals;

pub(super) use withdrawals::lost_withdrawals;

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use tidings_client::{
    Body, Channel, Head, Publisher, Source, Statement, Survey,
    limits::{BACKLOG_OCTETS, LOOK},
    survey,
};
use tidings_protocol::{
    MessageId, Namespace,
    limits::{SIGNATURES, STATEMENT_OCTETS},
    statement::{Beat, Checkpoint, Kind, TrustRules},
    trust::Trust,
};

use super::{From, ceremony, exit::Exit, output};

/// A `Signature` line: the name, a key, 64 octets in base64url.
const SIGNATURE_OCTETS: usize = 150;

/// The statements that prove what checkpoints name.
pub(super) type Evidence = Vec<Statement>;

/// Whether a line is new in some rules.
fn is_new(old: &TrustRules, line: &Checkpoint) -> bool {
    !old.checkpoints.contains(line)
}

pub(super) fn settle(rules: &mut TrustRules, channel: Channel, head: Head) {
    rules.checkpoints.retain(|known| known.channel != channel);
    rules.checkpoints.push(Checkpoint { channel, head });
}

/// What the beats of a channel may speak for under some rules, of the heads in one; lines of a
/// channel's own go before.
fn settled_by<'a>(
    rules: &'a TrustRules,
    namespace: &'a Namespace,
    beats: &'a Channel,
    beat: &'a Beat,
) -> impl Iterator<Item = &'a (Channel, Head)> {
    let own = |channel: &Channel| {
        rules
            .checkpoints
            .iter()
            .any(|line| line.channel == *channel)
    };
    let may = move |channel: &Channel| {
        rules.beat_channel(channel, namespace).as_ref() == Some(beats) && !own(channel)
    };
    beat.heads
        .iter()
        .filter(move |(channel, _)| !channel.is_trust() && may(channel))
}

/// What proves the lines that were there already, and what a change adds: for each channel whose
/// signers lose a key a line of its own, or, when these do not fit, lines that name beats.
pub(super) async fn add(
    source: &Source,
    before: &Trust,
    new: &mut TrustRules,
    survey: &Survey,
    room: usize,
) -> anyhow::Result<Evidence> {
    let (old, namespace) = (before.rules(), before.namespace().clone());
    let mut wanted = BTreeMap::new();
    for channel in survey.channels() {
        let explicit = new
            .checkpoints
            .iter()
            .any(|line| line.channel == channel && is_new(old, line));
        // What only an earlier checkpoint proves needs one in every statement to come; those are
        // carried on.
        if explicit || new.is_closed(&channel) || !new.narrows(old, &channel, &namespace) {
            continue;
        }
        if let Some(newest) = survey.agreed(&channel)? {
            wanted.insert(channel, newest.into_inner());
        }
    }
    let mut evidence = Vec::new();
    if octets(&wanted) > room {
        evidence = by_beats(source, before, new, survey, &mut wanted).await?;
    }
    let rest = octets(&wanted);
    let no_room = || {
        let count = wanted.len();
        Exit::Refused.because(format!(
            "{count} channels need a checkpoint of their own ({rest} octets, there is room for {room}), since no beat names their present heads; wait for the next beat, and begin again"
        ))
    };
    ensure!(rest <= room, no_room());
    for (channel, newest) in wanted {
        settle(new, channel, newest.head());
        evidence.push(newest);
    }
    for line in new
        .checkpoints
        .iter()
        .filter(|line| is_new(old, line) && !line.channel.is_beat())
    {
        if !evidence
            .iter()
            .any(|there| there.head() == line.head && *there.channel() == line.channel)
        {
            evidence.extend(read_run(source, before, &line.channel, line.head).await?);
        }
    }
    Ok(evidence)
}

fn octets(wanted: &BTreeMap<Channel, Statement>) -> usize {
    wanted
        .iter()
        .map(|(channel, newest)| format!("Checkpoint: {channel} {}\n", newest.head()).len())
        .sum()
}

/// How many octets of checkpoints a trust statement has room for beside the rest of it.
pub(super) fn room(rest: usize) -> usize {
    STATEMENT_OCTETS.saturating_sub(rest + SIGNATURES * SIGNATURE_OCTETS)
}

/// Adds a line for the newest beat of each beat role that names the head of some channel that wants
/// one; those are wanted no more.
async fn by_beats(
    source: &Source,
    before: &Trust,
    new: &mut TrustRules,
    survey: &Survey,
    wanted: &mut BTreeMap<Channel, Statement>,
) -> anyhow::Result<Evidence> {
    let (namespace, mut evidence) = (before.namespace().clone(), Vec::new());
    let channels: Vec<Channel> = new
        .roles
        .iter()
        .filter(|role| role.kind == Kind::Beat)
        .filter_map(|role| role.pattern.beat_channel(&namespace))
        .collect();
    for beats in channels {
        let Some(statement) = newest_beat(source, before, &beats).await? else {
            continue;
        };
        let Body::Beat(beat) = statement.body() else {
            continue;
        };
        let speaks: Vec<(Channel, Head)> =
            settled_by(new, &namespace, &beats, beat).cloned().collect();
        let confirms = |(channel, head): &&(Channel, Head)| {
            wanted
                .get(channel)
                .is_some_and(|newest| newest.head() == *head)
        };
        if !speaks.iter().any(|named| confirms(&named)) {
            continue;
        }
        for (channel, head) in speaks {
            let newest = survey.agreed(&channel)?.with_context(|| {
                format!(
                    "{beats} {} names {channel}, which no broker shows",
                    statement.serial()
                )
            })?;
            if newest.head() == head {
                wanted.remove(&channel);
                evidence.push(newest.into_inner());
            } else {
                // The beat would settle on an earlier place: a line of its own goes before.
                wanted.insert(channel, newest.into_inner());
            }
        }
        settle(new, beats, statement.head());
        evidence.push(statement);
    }
    Ok(evidence)
}

async fn newest_beat(
    source: &Source,
    before: &Trust,
    channel: &Channel,
) -> anyhow::Result<Option<Statement>> {
    let read = async |mut connection: tidings_client::Connection| {
        let Some((group, _)) = connection.group(channel, None).await? else {
            return Ok(None);
        };
        Ok(connection
            .articles(channel, group.high..=group.high, BACKLOG_OCTETS)
            .await?
            .pop())
    };
    let newest = source.clone().any(LOOK, read).await?;
    Ok(newest.filter(|beat| before.check(beat).is_ok()))
}

/// The statement that a checkpoint names, and what lies above it as far as that is needed to prove
/// it.
async fn read_run(
    source: &Source,
    before: &Trust,
    channel: &Channel,
    head: Head,
) -> anyhow::Result<Vec<Statement>> {
    let read = async |mut connection: tidings_client::Connection| {
        let Some((group, _)) = connection.group(channel, None).await? else {
            return Ok(Vec::new());
        };
        connection
            .articles(
                channel,
                head.serial.number().max(group.low)..=group.high,
                BACKLOG_OCTETS,
            )
            .await
    };
    for one in source.each() {
        let Ok(run) = one.clone().any(LOOK, read).await else {
            continue;
        };
        if run.first().is_some_and(|first| first.head() == head) {
            let proven = |count: &usize| before.verify_run(channel, run[..*count].to_vec()).is_ok();
            let count = (1..=run.len()).find(proven);
            let not = || {
                Exit::Refused.because(format!(
                    "{channel} {} is not proven by trust {}: it cannot be a checkpoint",
                    head.serial,
                    before.serial()
                ))
            };
            return Ok(run[..count.ok_or_else(not)?].to_vec());
        }
    }
    Err(Exit::Refused.because(format!(
        "--checkpoint: no broker that was asked has {channel} {head}; a checkpoint that nobody has stops the channel for everybody"
    )))
}

/// Verifies the head of each new checkpoint from the statements that go round, under the trust
/// before.
pub(super) fn verify(
    before: &Trust,
    draft: &Statement,
    evidence: &[Statement],
) -> anyhow::Result<()> {
    let (old, new) = (before.rules(), ceremony::rules(draft)?);
    for line in new.checkpoints.iter().filter(|line| is_new(old, line)) {
        if !line.channel.is_beat() {
            proven(before, &line.channel, line.head, evidence)?;
            continue;
        }
        let beat = evidence
            .iter()
            .find(|there| there.head() == line.head && *there.channel() == line.channel);
        let Some(Body::Beat(beat)) = beat.map(Statement::body) else {
            return Err(absent(&line.channel, line.head));
        };
        for (channel, head) in settled_by(new, before.namespace(), &line.channel, beat) {
            proven(before, channel, *head, evidence)?;
        }
    }
    Ok(())
}

fn absent(channel: &Channel, head: Head) -> anyhow::Error {
    Exit::Refused.because(format!(
        "the draft settles on {channel} {head}, and that statement is not in the file: what a checkpoint names goes round with the draft, so that each signer can verify it (`tidings trust edit` writes both)"
    ))
}

fn proven(
    before: &Trust,
    channel: &Channel,
    head: Head,
    evidence: &[Statement],
) -> anyhow::Result<()> {
    let mut of_channel: Vec<&Statement> = evidence
        .iter()
        .filter(|there| there.channel() == channel && there.serial() >= head.serial)
        .collect();
    of_channel.sort_by_key(|statement| statement.serial());
    let run = of_channel
        .first()
        .filter(|first| first.head() == head)
        .ok_or_else(|| absent(channel, head))?;
    let mut run = vec![(*run).clone()];
    for next in of_channel.into_iter().skip(1) {
        if run
            .last()
            .is_some_and(|last| next.predecessor() == Some(last.head()))
        {
            run.push(next.clone());
        }
    }
    let failed = |(_, error)| {
        Exit::Refused.because(format!(
            "the draft settles on {channel} {head}, which trust {} does not prove: {error}",
            before.serial()
        ))
    };
    before.verify_run(channel, run).map(drop).map_err(failed)
}

/// Whether some broker has the very statement.
async fn is_there(source: &Source, channel: &Channel, head: Head) -> bool {
    let id = MessageId {
        channel: channel.clone(),
        serial: head.serial,
        id: head.id,
    }
    .to_string();
    for one in source.each() {
        let asked = async {
            let mut connection = one.connect().await?;
            connection.group(channel, Some(head.serial)).await
        };
        if let Ok(Some((_, Some(found)))) = asked.await
            && found == id
        {
            return true;
        }
    }
    false
}

/// Between the making of a change and its end there are hours: what was published meanwhile by a
/// key that goes would stop its channel.
pub(super) async fn check_heads(
    from: &From,
    publisher: &Publisher,
    log: &[Statement],
    evidence: &[Statement],
) -> anyhow::Result<()> {
    // Signatures are for the broker to judge; here it is about heads.
    let Some(before) = publisher.trust() else {
        return Ok(());
    };
    let mut trust = before.clone();
    for statement in log {
        match trust.succeed(statement.clone()) {
            Ok(next) => trust = next,
            Err(_) => return Ok(()),
        }
    }
    for statement in evidence {
        trust.take_settled_beat(statement.clone());
    }
    let serial = trust.serial();
    let source = from.source()?;
    for line in trust
        .rules()
        .checkpoints
        .iter()
        .filter(|line| is_new(before.rules(), line))
    {
        let missing = || {
            Exit::Refused.because(format!(
                "no broker that was asked has {} {}, which trust {serial} settles on (has it expired?): devices could not find it. Nothing was published. Begin the change anew with `tidings trust edit`, or say --anyway",
                line.channel, line.head
            ))
        };
        ensure!(is_there(&source, &line.channel, line.head).await, missing());
    }
    let survey = survey(&source, &[]).await;
    for channel in survey
        .channels()
        .into_iter()
        .filter(|channel| !trust.rules().is_closed(channel))
    {
        let Ok(Some(head)) = survey.newest(&channel) else {
            continue;
        };
        if let Err((_, error)) = trust.verify_run(&channel, vec![(*head).clone()]) {
            return Err(Exit::Refused.because(format!(
                "{channel} is at {} now, which trust {serial} would not prove: {error}. Nothing was published. Begin the change anew with `tidings trust edit`, or say --anyway",
                head.serial()
            )));
        }
    }
    lost_withdrawals(&source, before, trust.rules(), &survey).await
}

/// What a change of who may sign means for those who run the origin and the fleet, while it goes on
/// and after it.
pub(super) fn advise(old: &TrustRules, new: &TrustRules) {
    let gone = |kind: Kind| {
        let keys = |rules: &TrustRules| -> Vec<_> {
            let names: Vec<&String> = rules
                .roles
                .iter()
                .filter(|role| role.kind == kind)
                .flat_map(|role| &role.names)
                .collect();
            rules
                .keys
                .iter()
                .filter(|key| names.contains(&&key.name))
                .map(|key| key.key)
                .collect()
        };
        let after = keys(new);
        keys(old).iter().any(|key| !after.contains(key))
    };
    if [Kind::Release, Kind::Withdraw].into_iter().any(gone) {
        output::note(
            "a checkpoint vouches for what it names and all below: withdraw first what should not be there",
        );
        output::note(
            "close the origin for publishers until this is in force (`posting = false` in its configuration, and open it again just before `tidings publish`), or what a key that goes signs meanwhile makes all of it begin anew; `tidings publish` looks at all heads again",
        );
    }
    if gone(Kind::Withdraw) {
        output::note(
            "if a key of withdrawals was stolen: withdrawals by it stay in force. Issue the newest release of each channel anew afterwards (`tidings release CHANNEL --again SERIAL`)",
        );
    }
    for kind in [Kind::Release, Kind::Withdraw, Kind::Beat] {
        let has = |rules: &TrustRules| rules.roles.iter().any(|role| role.kind == kind);
        if has(old) && !has(new) {
            let what = if kind == Kind::Beat {
                "; devices will install without any confirmation that nothing is held back"
            } else {
                ""
            };
            output::note(&format!("nobody may sign a {kind} any more{what}"));
        }
    }
}
