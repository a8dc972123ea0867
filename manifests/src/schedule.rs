//! When a function is called by time alone: what a person writes, and what became of it.

mod times;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use times::{ScheduleError, Times};

/// More would be a program of its own.
pub const MAX_SCHEDULES: usize = 16;
/// What is a day late is another day's.
pub const MAX_STARTING_DEADLINE_SECONDS: u32 = 24 * 60 * 60;

/// A time at which a function is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// What the schedule is called in the function's status and events: lower-case letters, digits
    /// and '-'.
    pub name: String,
    /// Minute, hour, day of month, month, day of week, as in "0 3 * * *" for three o'clock each
    /// night; or @hourly, @daily, @weekly, @monthly, @yearly.
    pub schedule: String,
    /// Name of a time zone, such as "Europe/Berlin". Default "UTC".
    #[serde(default = "default_time_zone")]
    pub time_zone: String,
    /// How late a call may come when it could not be made in time, because no controller led or no
    /// copy was ready: 0 to 86400. Default 300. Of several that were missed only the last is made up
    /// for. With 0 none is, but for one that is a few seconds late.
    #[serde(default = "default_starting_deadline_seconds")]
    #[schemars(range(min = 0, max = MAX_STARTING_DEADLINE_SECONDS))]
    pub starting_deadline_seconds: u32,
    /// The path of the request, which is a POST. Default "/".
    #[serde(default = "default_path")]
    pub path: String,
    /// Makes no calls while it is true. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

pub(crate) fn default_time_zone() -> String {
    "UTC".to_owned()
}

pub(crate) fn default_starting_deadline_seconds() -> u32 {
    300
}

pub(crate) fn default_path() -> String {
    "/".to_owned()
}

/// What became of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// Name of the schedule.
    pub name: String,
    /// The expression and time zone that this is about.
    pub observed: String,
    /// Times up to this have been dealt with.
    pub since: Time,
    /// The time of the last call that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// The time of the last call that was answered with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// A call that has begun and not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveCall>,
}

/// A call that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveCall {
    /// The time that it was due.
    pub time: Time,
    /// When the request was sent. Absent while no copy could take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
}
