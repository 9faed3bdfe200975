//! The release to run.

use tidings_protocol::{
    Statement,
    statement::{Body, Kind},
};

use super::{Naive, Refused, meets, place, serial, withdraws};
use crate::world;

impl Naive {
    /// The serial up to which anything may be installed.
    fn cover(&self) -> Result<u32, Refused> {
        let (trust, _) = self.trust.as_ref().ok_or("1-19")?;
        if world::is_closed(trust) {
            return Err("1-22");
        }
        if self.time() >= world::rules(trust).expires.seconds() {
            return Err("2-24");
        }
        self.checkpoint().map_err(|()| "2-9")?;
        if self.restart_from().is_some() {
            return Err("2-14");
        }
        match (self.has_beats(), self.state()) {
            (true, "CURRENT") => Ok(self.live().unwrap().0),
            (true, _) => Err("2-25"),
            (false, "FORKED") => Err("2-16"),
            (false, _) => self.head.as_ref().map(serial).ok_or("2-25"),
        }
    }

    fn check_log(&mut self, log: &[Statement]) -> Result<u32, Refused> {
        self.judge(log).map_err(|(_, requirement)| requirement)?;
        self.note_withdrawals(log);
        self.cover()
    }

    pub(crate) fn clear(
        &mut self,
        log: &[Statement],
        matches: &dyn Fn(&Statement) -> bool,
    ) -> Result<Option<Statement>, Refused> {
        let top = self.check_log(log)?;
        let reaches = log.last().map(place) == self.head.as_ref().map(place)
            && log.iter().any(|statement| serial(statement) == top);
        if !reaches {
            return Err("2-28");
        }
        let trust = &self.trust.as_ref().unwrap().0;
        let proven = |applied: &&Statement| {
            log.iter().any(|s| place(s) == place(applied))
                || self.settled() == Some(place(applied))
                || meets(applied, trust).is_ok()
        };
        let applied = self.applied.as_ref().filter(proven);
        let floor = applied.map_or(0, serial);
        let stopped = |release: &Statement| {
            let counts = self.withdrawn.contains(&place(release))
                || log
                    .iter()
                    .filter_map(withdraws)
                    .any(|place_of| place_of == place(release));
            if counts { Err("2-33") } else { Ok(()) }
        };
        let fits = |s: &&Statement| {
            s.kind() == Kind::Release && (floor..=top).contains(&serial(s)) && matches(s)
        };
        let Some(mut release) = log.iter().filter(fits).max_by_key(|s| serial(s)) else {
            return if serial(&log[0]) > floor.max(1) {
                Err("2-28")
            } else {
                Ok(None)
            };
        };
        stopped(release)?;
        loop {
            let Body::Release(body) = release.body() else {
                panic!("no release")
            };
            let Some(barrier) = body
                .barrier
                .map(|serial| serial.number())
                .filter(|barrier| *barrier > floor)
            else {
                break;
            };
            if barrier < serial(&log[0]) {
                return Err("2-28");
            }
            release = log
                .iter()
                .find(|s| serial(s) == barrier && s.kind() == Kind::Release && matches(s))
                .ok_or("2-31")?;
            stopped(release)?;
        }
        Ok(applied
            .is_none_or(|applied| place(applied) != place(release))
            .then(|| release.clone()))
    }

    pub(crate) fn finish(&mut self, begun: &Statement, log: &[Statement]) -> Result<(), Refused> {
        self.check_log(log)?;
        let there = log.iter().any(|s| place(s) == place(begun))
            && log.last().map(place) == self.head.as_ref().map(place);
        if !there {
            return Err("2-28");
        }
        let counts = self.withdrawn.contains(&place(begun))
            || log
                .iter()
                .filter_map(withdraws)
                .any(|place_of| place_of == place(begun));
        if counts { Err("2-33") } else { Ok(()) }
    }
}
