//! Withdrawals that a change of trust would lose.

use tidings_client::{
    Body, Channel, Head, Serial, Source, Statement, Survey, Verified,
    limits::{BACKLOG_OCTETS, LOOK},
};
use tidings_protocol::{
    Namespace,
    statement::{Kind, TrustRules},
    trust::Trust,
};

use crate::exit::Exit;

/// Refuses rules under which a withdrawal of a release that stays would be lost: it is issued anew
/// first (S5).
pub(crate) async fn lost_withdrawals(
    source: &Source,
    before: &Trust,
    new: &TrustRules,
    survey: &Survey,
) -> anyhow::Result<()> {
    let (old, namespace) = (before.rules(), before.namespace());
    let line = |rules: &TrustRules, channel: &Channel| {
        rules
            .checkpoints
            .iter()
            .find(|line| line.channel == *channel)
            .map(|line| line.head)
    };
    for channel in survey
        .channels()
        .into_iter()
        .filter(|channel| !new.is_closed(channel))
    {
        let (was, is) = (line(old, &channel), line(new, &channel));
        if (was == is && !new.narrows(old, &channel, namespace))
            || survey.views().all(|(_, view)| view.head(&channel) == is)
        {
            continue;
        }
        let logs = logs(source, before, &channel).await;
        if let Some((by, release)) = lost(new, namespace, is, &logs) {
            return Err(Exit::Refused.because(format!(
                "under this trust the withdrawal {channel} {by} of {release}, which stays, would be lost; issue it anew first, with a key that stays and on the branch that stays: `tidings withdraw {channel} {release}`"
            )));
        }
    }
    Ok(())
}

/// What each broker has of a channel, as far as the trust before proves it.
async fn logs(source: &Source, before: &Trust, channel: &Channel) -> Vec<Vec<Statement>> {
    let mut logs = Vec::new();
    for mut one in source.each() {
        let read = async |mut connection: tidings_client::Connection| {
            let Some((group, _)) = connection.group(channel, None).await? else {
                return Ok(Vec::new());
            };
            connection
                .articles(channel, group.low..=group.high, BACKLOG_OCTETS)
                .await
        };
        let Ok(log) = one.any(LOOK, read).await else {
            continue;
        };
        if let Ok(run) = before.verify_run(channel, log) {
            logs.push(
                run.statements
                    .into_iter()
                    .map(Verified::into_inner)
                    .collect(),
            );
        }
    }
    logs
}

/// The first withdrawal in some logs of a release that some rules would prove, without one that
/// they would. What stays is the log with the checkpoint, up to the last that the rules prove.
fn lost(
    rules: &TrustRules,
    namespace: &Namespace,
    checkpoint: Option<Head>,
    logs: &[Vec<Statement>],
) -> Option<(Serial, Serial)> {
    let meets = |statement: &Statement| {
        let role = rules.role(statement.kind(), statement.channel(), namespace);
        role.is_some_and(|role| rules.signers(role, statement).len() >= role.threshold)
    };
    let settled = |statement: &Statement| Some(statement.head()) == checkpoint;
    let log = logs
        .iter()
        .find(|log| checkpoint.is_none() || log.iter().any(settled))?;
    let vouches = |s: &&Statement| settled(s) || s.kind() == Kind::Release && meets(s);
    let up_to = log.iter().rev().find(vouches).map(|s| s.serial());
    let stays = |s: &&Statement| Some(s.serial()) <= up_to || meets(s);
    let withdraws = |s: &Statement| match s.body() {
        Body::Withdraw(withdraw) => Some(withdraw.withdraws),
        _ => None,
    };
    let releases: Vec<Head> = log.iter().filter(stays).map(Statement::head).collect();
    let withdrawn: Vec<Head> = log.iter().filter(stays).filter_map(withdraws).collect();
    let all = logs
        .iter()
        .flatten()
        .filter_map(|s| Some((s.serial(), withdraws(s)?)));
    let mut lost =
        all.filter(|(_, release)| releases.contains(release) && !withdrawn.contains(release));
    lost.next().map(|(by, release)| (by, release.serial))
}
