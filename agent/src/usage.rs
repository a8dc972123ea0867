//! What this node and its functions use, for the controllers.
//!
//! One [`Meter`] counts for a function, whichever of its copies and versions answer: no counter falls
//! when one takes over from another. It is dropped when nothing of its function is here any more and
//! the last that it counted was told and metered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hive_functions::{FunctionUsage, Meter, Reason, latency};
use hive_proto::v1;

use crate::ids::FunctionId;
use crate::metering::Used;
use crate::pressure::Pressure;
use crate::resources::Resources;

/// The meters of all functions of this node. A clone is the same.
#[derive(Clone, Default)]
pub struct Meters(Arc<Mutex<BTreeMap<FunctionId, Entry>>>);

struct Entry {
    meter: Arc<Meter>,
    /// The node is to run the function, or still does.
    is_here: bool,
    /// As it was told last.
    told: FunctionUsage,
    /// As it was when it was metered last.
    metered: FunctionUsage,
}

impl Entry {
    /// Nobody counts any more, and both who read it have.
    fn is_over(&self) -> bool {
        // Asked before it is read.
        let is_final = !self.is_here && Arc::strong_count(&self.meter) == 1;
        is_final && {
            let usage = self.meter.read();
            usage == self.told && usage == self.metered
        }
    }
}

/// Measures machine and functions together.
pub struct Usages {
    resources: Resources,
    meters: Meters,
    pressure: Pressure,
}

/// Which functions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that ever had a request.
    Whole,
    /// Those that moved since they were told last.
    Changed,
}

impl Meters {
    /// What counts for this function.
    pub fn of(&self, function: &FunctionId) -> Arc<Meter> {
        let mut entries = self.entries();
        let entry = entries.entry(function.clone()).or_insert_with(|| Entry {
            meter: Arc::default(),
            is_here: true,
            told: FunctionUsage::default(),
            metered: FunctionUsage::default(),
        });
        entry.is_here = true;
        entry.meter.clone()
    }

    /// Forgets the other functions, once the last of them is told.
    pub fn retain(&self, here: impl Fn(&FunctionId) -> bool) {
        for (function, entry) in self.entries().iter_mut() {
            entry.is_here = here(function);
        }
    }

    fn tell(&self, scope: Scope) -> Vec<v1::FunctionUsage> {
        let mut told = Vec::new();
        self.entries().retain(|function, entry| {
            let usage = entry.meter.read();
            let is_told = match scope {
                Scope::Whole => usage != FunctionUsage::default(),
                Scope::Changed => usage != entry.told,
            };
            if is_told {
                told.push(message(function, &usage));
                entry.told = usage;
            }
            !entry.is_over()
        });
        told
    }

    /// What was counted since this was asked last, of functions that did anything.
    pub fn drain(&self) -> Vec<(FunctionId, Used)> {
        let mut drained = Vec::new();
        self.entries().retain(|function, entry| {
            let usage = entry.meter.read();
            let used = between(&entry.metered, &usage);
            if used != Used::default() {
                drained.push((function.clone(), used));
            }
            entry.metered = usage;
            !entry.is_over()
        });
        drained
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<FunctionId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usages {
    pub fn new(resources: Resources, meters: Meters, pressure: Pressure) -> Self {
        Self {
            resources,
            meters,
            pressure,
        }
    }

    pub fn usage(&mut self, scope: Scope) -> v1::Usage {
        let (usage, memory) = self.resources.usage();
        v1::Usage {
            functions: self.meters.tell(scope),
            partial: scope == Scope::Changed,
            memory_pressure: Some(self.pressure.judge(&memory)),
            ..usage
        }
    }
}

/// Errors of requests that got no turn: nothing ran.
const NO_TURN: [Reason; 3] = [
    Reason::Overloaded,
    Reason::QueueTimeout,
    Reason::MemoryPressure,
];

fn between(before: &FunctionUsage, now: &FunctionUsage) -> Used {
    // Of the sums: what is rounded off now is in the next.
    let memory = |usage: &FunctionUsage| usage.memory_kib_micros / 1000;
    let errors = |usage: &FunctionUsage| {
        let refused = NO_TURN.map(|reason| usage.errors_by_reason[reason as usize]);
        usage.errors - refused.iter().sum::<u64>()
    };
    Used {
        requests: now.admitted - before.admitted,
        errors: errors(now) - errors(before),
        cpu_micros: now.cpu_micros - before.cpu_micros,
        memory_kib_ms: memory(now).saturating_sub(memory(before)),
        bytes_in: now.bytes_in - before.bytes_in,
        bytes_out: now.bytes_out - before.bytes_out,
    }
}

fn message(function: &FunctionId, usage: &FunctionUsage) -> v1::FunctionUsage {
    let by_reason = Reason::ALL.into_iter().zip(usage.errors_by_reason);
    let errors_by_reason = by_reason
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| v1::ErrorCount {
            reason: reason.as_str().to_owned(),
            count,
        })
        .collect();
    v1::FunctionUsage {
        namespace: function.namespace.clone(),
        function: function.name.clone(),
        requests: usage.requests,
        errors: usage.errors,
        cpu_micros: usage.cpu_micros,
        in_flight: usage.in_flight,
        memory_bytes: usage.memory_bytes,
        admitted: usage.admitted,
        cold_starts: usage.cold_starts,
        bytes_in: usage.bytes_in,
        bytes_out: usage.bytes_out,
        high_water_bytes: usage.high_water_bytes,
        durations: usage.durations.to_vec(),
        duration_micros: usage.duration_micros,
        errors_by_reason,
        responses: usage.responses.to_vec(),
        layout: latency::LAYOUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(told: &[v1::FunctionUsage]) -> Vec<&str> {
        told.iter().map(|usage| &*usage.function).collect()
    }

    fn id(name: &str) -> FunctionId {
        FunctionId::new("default", name)
    }

    #[test]
    fn a_session_begins_with_all_and_goes_on_with_what_moved() {
        let meters = Meters::default();
        let (busy, _idle) = (meters.of(&id("busy")), meters.of(&id("idle")));
        assert!(meters.tell(Scope::Whole).is_empty());
        busy.received(1);
        assert_eq!(names(&meters.tell(Scope::Changed)), ["busy"]);
        assert!(meters.tell(Scope::Changed).is_empty());
        assert_eq!(names(&meters.tell(Scope::Whole)), ["busy"]);
    }

    #[test]
    fn what_counts_goes_on_from_one_instance_to_the_next_and_ends_with_the_last() {
        let meters = Meters::default();
        let first = meters.of(&id("f"));
        first.received(1);
        let next = meters.of(&id("f"));
        drop(first);
        next.received(2);
        meters.retain(|_| false);
        assert_eq!(meters.tell(Scope::Changed)[0].bytes_in, 3);
        // A request is under way still: the function left, and what it counts does not.
        next.received(4);
        drop(next);
        assert_eq!(meters.tell(Scope::Changed)[0].bytes_in, 7);
        assert!(!meters.entries().is_empty(), "it is not metered yet");
        assert_eq!(meters.drain()[0].1.bytes_in, 7);
        assert!(meters.entries().is_empty());
    }

    #[test]
    fn what_was_metered_is_not_metered_again() {
        let meters = Meters::default();
        let (busy, _idle) = (meters.of(&id("busy")), meters.of(&id("idle")));
        busy.received(3);
        meters.retain(|_| false);
        drop(busy);
        let used = |bytes_in| Used {
            bytes_in,
            ..Used::default()
        };
        assert_eq!(meters.drain(), [(id("busy"), used(3))]);
        meters.of(&id("busy")).received(4);
        assert_eq!(meters.drain(), [(id("busy"), used(4))]);
        assert!(meters.drain().is_empty());
    }

    #[test]
    fn amounts_round_off_nothing_and_count_what_ran() {
        let usage = |admitted, overloaded, traps, memory_kib_micros| {
            let mut errors_by_reason = [0; Reason::ALL.len()];
            errors_by_reason[Reason::Overloaded as usize] = overloaded;
            errors_by_reason[Reason::Trap as usize] = traps;
            FunctionUsage {
                requests: admitted + overloaded,
                admitted,
                errors: overloaded + traps,
                errors_by_reason,
                memory_kib_micros,
                ..FunctionUsage::default()
            }
        };
        let steps = [
            usage(0, 0, 0, 0),
            usage(5, 9, 1, 1_900),
            usage(7, 11, 2, 3_800),
        ];
        let used: Vec<_> = steps
            .windows(2)
            .map(|pair| between(&pair[0], &pair[1]))
            .map(|used| (used.requests, used.errors, used.memory_kib_ms))
            .collect();
        assert_eq!(used, [(5, 1, 1), (2, 1, 2)]);
    }

    #[test]
    fn a_function_that_comes_back_is_the_same() {
        let meters = Meters::default();
        let meter = meters.of(&id("f"));
        meters.retain(|_| false);
        let again = meters.of(&id("f"));
        drop(meter);
        again.received(1);
        assert_eq!(meters.tell(Scope::Changed)[0].bytes_in, 1);
        drop(again);
        assert!(!meters.tell(Scope::Whole).is_empty(), "it is here");
    }
}
