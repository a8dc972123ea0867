//! Which functions have schedules, and when.

use std::sync::Arc;
use std::time::Duration;

use hive_manifests::schedule::{Schedule, ScheduleStatus, Times};
use hive_manifests::{Function, Resource};

use crate::reconcile::Followed;
use crate::state::{Key, Object, State};

/// The functions that have schedules, or something to say of ones that they had.
pub struct Agenda(Followed<Scheduled>);

#[derive(Clone, Debug)]
pub struct Scheduled {
    pub key: Key,
    pub uid: String,
    /// Of one call.
    pub timeout: Duration,
    /// With their times; what an older release took and this one cannot read has none.
    pub schedules: Vec<(Schedule, Option<Arc<Times>>)>,
    pub statuses: Vec<ScheduleStatus>,
}

impl Default for Agenda {
    fn default() -> Self {
        Self(Followed::new(Resource::Function, Scheduled::of))
    }
}

impl Agenda {
    pub fn follow(&mut self, state: &State) {
        self.0.follow(state);
    }

    pub fn scheduled(&self) -> impl Iterator<Item = &Scheduled> {
        self.0.iter().map(|(_, one)| one)
    }
}

impl Scheduled {
    fn of(object: &Object) -> Option<Self> {
        let function: Function = object.parse().ok()?;
        let mut schedules = function.spec.schedules;
        if object.is_being_deleted() {
            schedules.clear();
        }
        let statuses = function.status.unwrap_or_default().schedules;
        if schedules.is_empty() && statuses.is_empty() {
            return None;
        }
        Some(Self {
            key: object.key().clone(),
            uid: object.uid().to_owned(),
            timeout: function.spec.timeout.0,
            schedules: schedules.into_iter().map(with_times).collect(),
            statuses,
        })
    }

    #[cfg(test)]
    pub fn made(key: Key, schedules: Vec<Schedule>, statuses: Vec<ScheduleStatus>) -> Self {
        Self {
            key,
            uid: "uid".into(),
            timeout: Duration::from_secs(30),
            schedules: schedules.into_iter().map(with_times).collect(),
            statuses,
        }
    }
}

fn with_times(schedule: Schedule) -> (Schedule, Option<Arc<Times>>) {
    let times = Times::parse(&schedule.schedule, &schedule.time_zone).ok();
    (schedule, times.map(Arc::new))
}
