//! What a field has to do with other fields of its statement, and with the statement's place: the
//! rules of the tables of fields (spec parts 1 and 2) that no grammar has.

use alloc::{format, string::ToString, vec::Vec};

use super::{
    StatementError,
    fields::{Beat, Release, TrustRules, Withdraw},
    grammar::{Field, Frame},
    kinds::{Closed, Kind, NamedKey, Role},
};
use crate::{Serial, Timestamp, limits::SIGNATURES};

/// The lines of one field, in their order.
fn lines<'a>(fields: &'a [Field<'a>], name: &'a str) -> impl Iterator<Item = &'a Field<'a>> {
    fields.iter().filter(move |field| field.name == name)
}

impl Frame<'_> {
    fn earlier(
        &self,
        fields: &[Field<'_>],
        name: &str,
        serial: Option<Serial>,
    ) -> Result<(), StatementError> {
        match lines(fields, name).next() {
            Some(field) if serial >= Some(self.serial) => {
                Err(field.error(format!("expected a serial below {}", self.serial)))
            }
            _ => Ok(()),
        }
    }

    fn later(
        &self,
        fields: &[Field<'_>],
        name: &str,
        time: Timestamp,
        than: Timestamp,
    ) -> Result<(), StatementError> {
        match lines(fields, name).next() {
            Some(field) if time <= than => {
                Err(field.error(format!("expected a time after {than}, found {time}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn release(
        &self,
        fields: &[Field<'_>],
        release: &Release,
    ) -> Result<(), StatementError> {
        self.earlier(fields, "Barrier", release.barrier)?;
        match (release.deadline, release.not_before) {
            (Some(deadline), Some(start)) => self.later(fields, "Deadline", deadline, start),
            _ => Ok(()),
        }
    }

    pub(super) fn withdraw(
        &self,
        fields: &[Field<'_>],
        withdraw: &Withdraw,
    ) -> Result<(), StatementError> {
        self.earlier(fields, "Withdraws", Some(withdraw.withdraws.serial))
    }

    pub(super) fn trust(
        &self,
        fields: &[Field<'_>],
        rules: &TrustRules,
    ) -> Result<(), StatementError> {
        for (number, field) in lines(fields, "Key").enumerate() {
            key(field, &rules.keys[..=number])?;
        }
        for (number, field) in lines(fields, "Role").enumerate() {
            let above = lines(fields, "Key").filter(|key| key.line < field.line);
            let keys = &rules.keys[..above.count()];
            self.role(field, keys, &rules.roles[..=number])?;
        }
        for (number, field) in lines(fields, "Checkpoint").enumerate() {
            let (above, checkpoint) = (&rules.checkpoints[..number], &rules.checkpoints[number]);
            if checkpoint.channel.is_trust() {
                return Err(field
                    .error("expected a channel that is no trust log: there every step is signed"));
            }
            if above.iter().any(|c| c.channel == checkpoint.channel) {
                return Err(field.error("expected one checkpoint for each channel"));
            }
        }
        for (number, field) in lines(fields, "Closed").enumerate() {
            closed(field, &rules.closed[..=number])?;
        }
        self.later(fields, "Expires", rules.expires, self.time)?;
        let covers = |role: &Role| role.kind == Kind::Trust && role.pattern.matches(self.channel);
        if !rules.roles.iter().any(covers) {
            return Err(StatementError::new(
                self.end,
                "Role",
                format!("expected a trust role that covers {}", self.channel),
            ));
        }
        Ok(())
    }

    /// The last of some roles, with the keys that stand above it.
    fn role(&self, f: &Field<'_>, keys: &[NamedKey], roles: &[Role]) -> Result<(), StatementError> {
        let Some((role, above)) = roles.split_last() else {
            return Ok(());
        };
        if let Some(name) = role
            .names
            .iter()
            .find(|name| !keys.iter().any(|key| key.name == **name))
        {
            return Err(f.error(format!(
                "expected names of keys in the lines above, found {name:?}"
            )));
        }
        let repeated = role
            .names
            .iter()
            .enumerate()
            .any(|(i, name)| role.names[..i].contains(name));
        if repeated || !(1..=role.names.len().min(SIGNATURES)).contains(&role.threshold) {
            return Err(f.error("expected distinct names, and a threshold from 1 to their number"));
        }
        if above
            .iter()
            .any(|r| r.kind == role.kind && r.pattern == role.pattern)
        {
            return Err(f.error("expected one role for each kind and pattern"));
        }
        let namespace = self
            .channel
            .as_str()
            .strip_suffix(".trust")
            .and_then(|name| name.parse().ok());
        if role.kind == Kind::Beat
            && namespace.is_none_or(|namespace| role.pattern.beat_channel(&namespace).is_none())
        {
            return Err(f.error(format!(
                "expected `*` or `NAME.*` below the namespace for beats, found {:?}",
                role.pattern.to_string()
            )));
        }
        Ok(())
    }

    pub(super) fn beat(&self, fields: &[Field<'_>], beat: &Beat) -> Result<(), StatementError> {
        let mut named = Vec::new();
        for (field, (channel, _)) in lines(fields, "Head").zip(&beat.heads) {
            if named.contains(&channel) {
                return Err(field.error("expected one head for each channel"));
            }
            named.push(channel);
        }
        self.later(fields, "Expires", beat.expires, self.time)
    }
}

/// The last of some keys.
fn key(field: &Field<'_>, keys: &[NamedKey]) -> Result<(), StatementError> {
    let Some((key, above)) = keys.split_last() else {
        return Ok(());
    };
    key.key
        .to_verifying_key()
        .map_err(|e| field.error(format!("expected a usable key: {e}")))?;
    if above.iter().any(|k| k.key == key.key || k.name == key.name) {
        return Err(field.error("expected each key and each name once (attack 3)"));
    }
    Ok(())
}

/// The last of some lines.
fn closed(field: &Field<'_>, all: &[Closed]) -> Result<(), StatementError> {
    let Some((closed, above)) = all.split_last() else {
        return Ok(());
    };
    let matches = |channel: &&crate::Channel| closed.pattern.matches(channel);
    if let Some(channel) = closed.except.iter().find(|channel| !matches(channel)) {
        return Err(field.error(format!(
            "expected channels that {} matches, found {channel}",
            closed.pattern
        )));
    }
    if above.contains(closed) {
        return Err(field.error("expected each such line once"));
    }
    Ok(())
}
