//! How many copies a function needs.
//!
//! As many as the busiest moment of the window asked for: so more come within a moment, fewer only after a
//! whole window in which fewer would have done, and a load that stays the same moves nothing.
//!
//! How long requests wait for their turn says that there are too few copies and not how many are missing, nor
//! how many less would do: by that more come step by step, and fewer too.

use std::time::Duration;

use hive_manifests::FunctionSpec;
use hive_manifests::autoscaling::Autoscaling;
use hive_manifests::duration::GoDuration;
use jiff::Timestamp;

use super::plan::{Demand, Scaling, Subject};

/// Moments in a window.
const MOMENTS: u32 = 10;

/// The shortest moment: reports come every second, and in one of three a late one does not look like a
/// pause and a rush.
const SHORTEST_MOMENT: Duration = Duration::from_secs(3);

/// What a copy may have to do beyond its share before another one comes: reports are no more exact, and
/// who tests with as many clients as a copy should have would see two.
const TOLERANCE: f64 = 1.1;

/// How many, and why.
pub struct Count {
    pub replicas: u32,
    /// Requests wait for their turn longer than this, which they should not.
    pub too_long: Option<GoDuration>,
    /// More than the number of requests asks for.
    pub is_beyond_load: bool,
    /// More would have enough to do than there may be.
    pub is_limited: bool,
}

/// The time over which requests are averaged.
pub fn moment(rule: &Autoscaling) -> Duration {
    (rule.window.0 / MOMENTS).max(SHORTEST_MOMENT)
}

pub fn count(subject: &Subject<'_>, rule: &Autoscaling, demand: &Demand, now: Timestamp) -> Count {
    let asked = asked_for(subject.spec, demand);
    let by_load = by_load(subject, rule, demand, asked);
    let too_long = rule.target.queue_time.filter(|it| demand.wait > it.0);
    let replicas = match rule.target.queue_time {
        None => by_load,
        Some(target) => heeding_waits(subject, rule, target.0, demand, by_load, now),
    };
    let by_waits = too_long.map_or(0, |_| half_as_many_again(subject.ready));
    Count {
        replicas,
        too_long,
        is_beyond_load: replicas > by_load,
        is_limited: asked.max(by_waits) > rule.max_replicas,
    }
}

/// As many copies as the number of requests asks for, which is `asked` whatever the bounds.
fn by_load(subject: &Subject<'_>, rule: &Autoscaling, demand: &Demand, asked: u32) -> u32 {
    let before = rule.clamp(subject.wanted);
    let may_end = demand.known_for >= rule.idle_time() && subject.is_settled;
    let much = f64::from(before) * f64::from(subject.spec.target_concurrency()) * TOLERANCE;
    match rule.clamp(asked) {
        more if more > before && (demand.peak > much || before == 0) => more,
        more if more > before => before,
        // Of what is not known there may have been a lot.
        _ if demand.known_for < rule.window.0 => before,
        0 if !may_end => before.min(1),
        fewer => fewer,
    }
}

/// As many copies as requests ask for that should not wait longer than `target`; `by_load` is what they ask for by
/// their number.
fn heeding_waits(
    subject: &Subject<'_>,
    rule: &Autoscaling,
    target: Duration,
    demand: &Demand,
    by_load: u32,
    now: Timestamp,
) -> u32 {
    let before = rule.clamp(subject.wanted);
    let unchanged_for = unchanged_for(subject.scaling, now);
    if demand.wait > target {
        // What the last step has brought is seen when its copies answer, and a moment has passed.
        let more = match unchanged_for < moment(rule) {
            true => before,
            false => rule.clamp(half_as_many_again(subject.ready)),
        };
        return more.max(before).max(by_load);
    }
    if by_load >= before || !demand.any {
        return by_load;
    }
    if demand.longest_wait > target || unchanged_for < rule.window.0 {
        return before;
    }
    by_load.max(before - before.div_ceil(3))
}

fn half_as_many_again(copies: u32) -> u32 {
    copies.saturating_add(copies.div_ceil(2))
}

/// How long ago the number of copies changed last. A time to come is of a clock that was wrong: nothing waits
/// for it.
fn unchanged_for(scaling: &Scaling, now: Timestamp) -> Duration {
    let changed = scaling
        .found
        .as_ref()
        .and_then(|it| it.last_scale_time.as_ref());
    changed
        .and_then(|changed| now.duration_since(changed.0).try_into().ok())
        .unwrap_or(Duration::MAX)
}

/// Copies that would have enough to do, whatever their bounds.
fn asked_for(spec: &FunctionSpec, demand: &Demand) -> u32 {
    let share = f64::from(spec.target_concurrency());
    // A float beyond the range becomes its end.
    let copies = (demand.peak / share).ceil() as u32;
    copies.max(u32::from(demand.any))
}
