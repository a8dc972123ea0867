//! What is to be done about schedules at some time. Pure.

use std::time::Duration;

use hive_manifests::schedule::{Schedule, ScheduleStatus, Times};
use jiff::{SignedDuration, Timestamp};

use super::agenda::Scheduled;
use crate::state::Key;

/// A call this late is in time, also where nothing that was missed is made up for: that long takes a
/// change of the leader.
pub const LATE: Duration = Duration::from_secs(10);

/// After a function's timeout, for its answer to come back and be written down. Then its call's end is
/// nobody's to tell any more.
const UNHEARD_OF: Duration = Duration::from_secs(30);

/// One call of a function at one of its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub function: Key,
    pub uid: String,
    /// The schedule's name.
    pub name: String,
    pub time: Timestamp,
    pub path: String,
    /// From then on it is too late to begin.
    pub until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A schedule that is new, changed, or was suspended: its times count from now on.
    Observe {
        function: Key,
        name: String,
        observed: String,
    },
    /// Claim a call, and make it.
    Begin(Call),
    /// A call that was claimed and never sent.
    Resume(Call),
    /// Times that are over.
    Skip {
        function: Key,
        name: String,
        time: Timestamp,
        why: Skipped,
    },
    /// A call that somebody made and did not tell the end of.
    Lose {
        function: Key,
        name: String,
        time: Timestamp,
    },
    /// What is said of a schedule that is gone.
    Forget { function: Key, name: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Nobody could begin it in time.
    Missed,
    /// The one before had not ended.
    StillRunning,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// When there is something to do by time alone.
    pub next: Option<Timestamp>,
}

/// `calling` says which schedules have a call that this process makes now.
pub fn plan<'a>(
    functions: impl Iterator<Item = &'a Scheduled>,
    calling: impl Fn(&Key, &str) -> bool,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    for function in functions {
        for status in &function.statuses {
            let is_there = |(schedule, _): &(Schedule, _)| schedule.name == status.name;
            if !function.schedules.iter().any(is_there) && !calling(&function.key, &status.name) {
                plan.steps.push(Step::Forget {
                    function: function.key.clone(),
                    name: status.name.clone(),
                });
            }
        }
        for (schedule, times) in &function.schedules {
            let Some(times) = times else {
                continue;
            };
            let calling = calling(&function.key, &schedule.name);
            plan_one(&mut plan, function, schedule, times, calling, now);
        }
    }
    plan
}

/// What a schedule says, to tell when it says something else.
pub fn observed(schedule: &Schedule) -> String {
    let suspended = if schedule.suspend { " suspended" } else { "" };
    format!("{} {}{suspended}", schedule.schedule, schedule.time_zone)
}

fn plan_one(
    plan: &mut Plan,
    function: &Scheduled,
    schedule: &Schedule,
    times: &Times,
    calling: bool,
    now: Timestamp,
) {
    let (key, name) = (&function.key, &schedule.name);
    let said = observed(schedule);
    let status = function.statuses.iter().find(|status| status.name == *name);
    let status = match status {
        Some(status) if status.observed == said => status,
        _ => {
            plan.steps.push(Step::Observe {
                function: key.clone(),
                name: name.clone(),
                observed: said,
            });
            return;
        }
    };
    let deadline = Duration::from_secs(schedule.starting_deadline_seconds.into()).max(LATE);
    let call = |time: Timestamp| Call {
        function: key.clone(),
        uid: function.uid.clone(),
        name: name.clone(),
        time,
        path: schedule.path.clone(),
        until: later(time, deadline),
    };
    let is_free = match unfinished(function, status, calling, now) {
        Unfinished::None => true,
        Unfinished::Waiting(time) if later(time, deadline) >= now => {
            plan.steps.push(Step::Resume(call(time)));
            false
        }
        Unfinished::Waiting(time) => {
            plan.steps.push(skip(key, name, time, Skipped::Missed));
            // The next time is looked for when that is written.
            return;
        }
        Unfinished::Lost(time) => {
            plan.steps.push(Step::Lose {
                function: key.clone(),
                name: name.clone(),
                time,
            });
            return;
        }
        Unfinished::UnderWay(until) => {
            plan.wake(until);
            false
        }
    };
    if schedule.suspend {
        return;
    }
    let since = status.since.0;
    let in_time = now.checked_sub(to_signed(deadline));
    match times.last_within(since.max(in_time.unwrap_or(Timestamp::MIN)), now) {
        Some(time) if is_free => plan.steps.push(Step::Begin(call(time))),
        Some(time) => plan
            .steps
            .push(skip(key, name, time, Skipped::StillRunning)),
        None => match times.next_after(since) {
            Some(first) if first <= now => plan.steps.push(skip(key, name, now, Skipped::Missed)),
            next => plan.wake(next),
        },
    }
}

/// What is known of the call before.
enum Unfinished {
    None,
    /// Claimed, and nobody makes it.
    Waiting(Timestamp),
    /// Sent, and it should have ended long ago.
    Lost(Timestamp),
    /// Made here, or elsewhere as far as one can know until then.
    UnderWay(Option<Timestamp>),
}

fn unfinished(
    function: &Scheduled,
    status: &ScheduleStatus,
    calling: bool,
    now: Timestamp,
) -> Unfinished {
    let Some(active) = &status.active else {
        return Unfinished::None;
    };
    match &active.start_time {
        _ if calling => Unfinished::UnderWay(None),
        None => Unfinished::Waiting(active.time.0),
        Some(started) => {
            let until = later(started.0, function.timeout + UNHEARD_OF);
            match until <= now {
                true => Unfinished::Lost(active.time.0),
                false => Unfinished::UnderWay(Some(until)),
            }
        }
    }
}

fn skip(function: &Key, name: &str, time: Timestamp, why: Skipped) -> Step {
    Step::Skip {
        function: function.clone(),
        name: name.to_owned(),
        time,
        why,
    }
}

impl Plan {
    fn wake(&mut self, at: Option<Timestamp>) {
        self.next = self.next.into_iter().chain(at).min();
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(to_signed(by)).unwrap_or(Timestamp::MAX)
}

fn to_signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
