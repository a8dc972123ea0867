//! Which functions have schedules, read from the state once for each change.

use std::sync::Arc;
use std::time::Duration;

use hive_manifests::schedule::{Schedule, ScheduleStatus, Times};
use hive_manifests::{Function, Resource};

use crate::reconcile::schedule::view;
use crate::state::{Key, Object, State};

#[derive(Default)]
pub struct Agenda {
    /// All functions in their order, also those without schedules: they need not be read again.
    functions: Vec<Scheduled>,
}

#[derive(Clone, Debug)]
pub struct Scheduled {
    pub key: Key,
    revision: u64,
    pub uid: String,
    /// Of one call.
    pub timeout: Duration,
    /// With their times; what an older release took and this one cannot read has none.
    pub schedules: Vec<(Schedule, Option<Arc<Times>>)>,
    pub statuses: Vec<ScheduleStatus>,
}

impl Agenda {
    pub fn follow(&mut self, state: &State) {
        let known = std::mem::take(&mut self.functions);
        let functions = state.list(Resource::Function, None);
        self.functions = view::follow(known, functions, Scheduled::version, Scheduled::of);
    }

    /// Those that have schedules, or something to say of ones that they had.
    pub fn scheduled(&self) -> impl Iterator<Item = &Scheduled> {
        let functions = self.functions.iter();
        functions.filter(|one| !one.schedules.is_empty() || !one.statuses.is_empty())
    }
}

impl Scheduled {
    fn version(&self) -> (&str, &str, u64) {
        (&self.key.namespace, &self.key.name, self.revision)
    }

    fn of(object: &Object) -> Option<Self> {
        let function: Function = object.parse().ok()?;
        let mut schedules = function.spec.schedules;
        if object.is_being_deleted() {
            schedules.clear();
        }
        Some(Self {
            key: object.key().clone(),
            revision: object.revision(),
            uid: object.uid().to_owned(),
            timeout: function.spec.timeout.0,
            schedules: schedules.into_iter().map(with_times).collect(),
            statuses: function.status.unwrap_or_default().schedules,
        })
    }

    #[cfg(test)]
    pub fn made(key: Key, schedules: Vec<Schedule>, statuses: Vec<ScheduleStatus>) -> Self {
        Self {
            key,
            revision: 0,
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
