//! What of one function is counted, and how it adds up: over time, over nodes, over controllers. Pure.

use std::time::Duration;

use hive_functions::Reason;
use hive_functions::latency::{self, Buckets};
use hive_proto::v1::{self, ErrorCount, FunctionUsage};

use super::FunctionName;
use crate::gateway::bounds::{CLASSES, OTHER};

/// One function's use, of all nodes that are heard here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionUse {
    /// As long as this controller runs. Never falls.
    pub total: Counters,
    /// As long as these nodes' agents run: what they told last, added up.
    pub told: Counters,
    /// What came in the last [`WINDOW`](super::WINDOW), or some seconds more: so much.
    pub recent: Counters,
    pub recent_for: Duration,
    pub now: Gauges,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    pub in_flight: u64,
    pub memory_bytes: u64,
    pub high_water_bytes: u64,
}

/// What only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests: u64,
    pub cold_starts: u64,
    pub cpu_micros: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_micros: u64,
    pub durations: Buckets,
    /// By class, 1xx to 5xx.
    pub responses: [u64; CLASSES],
    /// In the order of [`Reason::ALL`]; then all others.
    errors: [u64; Reason::ALL.len() + 1],
}

impl Counters {
    pub fn of(usage: &FunctionUsage) -> Self {
        let mut errors = [0_u64; Reason::ALL.len() + 1];
        for ErrorCount { reason, count } in &usage.errors_by_reason {
            let known = Reason::ALL
                .iter()
                .position(|known| known.as_str() == reason);
            let sum = &mut errors[known.unwrap_or(Reason::ALL.len())];
            *sum = sum.saturating_add(*count);
        }
        // An agent of the release before tells no reasons.
        let told = errors
            .iter()
            .fold(0, |sum: u64, count| sum.saturating_add(*count));
        errors[Reason::ALL.len()] =
            errors[Reason::ALL.len()].saturating_add(usage.errors.saturating_sub(told));
        Self {
            requests: usage.requests,
            cold_starts: usage.cold_starts,
            cpu_micros: usage.cpu_micros,
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            duration_micros: usage.duration_micros,
            durations: filled(&usage.durations),
            responses: filled(&usage.responses),
            errors,
        }
    }

    /// What came since `before`; all of it where something is less than it was, because then it
    /// was counted anew.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut difference = self.clone();
        let mut is_less = false;
        difference.with(before, |now, before| {
            is_less |= *now < before;
            *now = now.saturating_sub(before);
        });
        if is_less { self.clone() } else { difference }
    }

    /// Nodes can say anything.
    pub fn add(&mut self, other: &Self) {
        self.with(other, |sum, more| *sum = sum.saturating_add(more));
    }

    fn with(&mut self, other: &Self, mut change: impl FnMut(&mut u64, u64)) {
        let Self {
            requests,
            cold_starts,
            cpu_micros,
            bytes_in,
            bytes_out,
            duration_micros,
            durations,
            responses,
            errors,
        } = self;
        change(requests, other.requests);
        change(cold_starts, other.cold_starts);
        change(cpu_micros, other.cpu_micros);
        change(bytes_in, other.bytes_in);
        change(bytes_out, other.bytes_out);
        change(duration_micros, other.duration_micros);
        let arrays = durations.iter_mut().zip(&other.durations);
        let arrays = arrays.chain(responses.iter_mut().zip(&other.responses));
        for (one, other) in arrays.chain(errors.iter_mut().zip(&other.errors)) {
            change(one, *other);
        }
    }

    /// As it travels to other controllers.
    pub fn message(&self) -> FunctionUsage {
        let errors_by_reason = self.errors().map(|(reason, count)| ErrorCount {
            reason: reason.to_owned(),
            count,
        });
        FunctionUsage {
            requests: self.requests,
            errors: self.failed(),
            cold_starts: self.cold_starts,
            cpu_micros: self.cpu_micros,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_micros: self.duration_micros,
            durations: self.durations.to_vec(),
            responses: self.responses.to_vec(),
            errors_by_reason: errors_by_reason.collect(),
            layout: latency::LAYOUT,
            ..FunctionUsage::default()
        }
    }

    pub fn failed(&self) -> u64 {
        let sum = |sum: u64, count: &u64| sum.saturating_add(*count);
        self.errors.iter().fold(0, sum)
    }

    /// Requests that failed, by a word of a fixed set; those that there were.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = Reason::ALL.into_iter().map(Reason::as_str).chain([OTHER]);
        words.zip(self.errors).filter(|(_, count)| *count > 0)
    }
}

/// As many as there are, and zeros.
fn filled<const N: usize>(values: &[u64]) -> [u64; N] {
    std::array::from_fn(|index| values.get(index).copied().unwrap_or_default())
}

impl FunctionUse {
    /// As it travels to other controllers.
    pub fn message(&self, (namespace, function): FunctionName) -> v1::FunctionUse {
        let told = FunctionUsage {
            namespace,
            function,
            in_flight: self.now.in_flight.try_into().unwrap_or(u32::MAX),
            memory_bytes: self.now.memory_bytes,
            high_water_bytes: self.now.high_water_bytes,
            ..self.told.message()
        };
        v1::FunctionUse {
            told: Some(told),
            recent: Some(self.recent.message()),
            recent_ms: self.recent_for.as_millis() as u64,
        }
    }
}

/// One function's use in the whole swarm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SwarmUse {
    pub told: Counters,
    pub now: Gauges,
    pub requests_per_second: f64,
    pub errors_per_second: f64,
    /// Processor time a second, in thousandths of it.
    pub cpu_millis: f64,
    /// Of the recent requests.
    pub durations: Buckets,
}

impl SwarmUse {
    /// Adds what one controller heard.
    pub fn add(&mut self, heard: &v1::FunctionUse) {
        if let Some(told) = &heard.told {
            self.told.add(&Counters::of(told));
            self.now.add(told);
        }
        let Some(recent) = &heard.recent else { return };
        let recent = Counters::of(recent);
        // Each counts by its own clock.
        let seconds = heard.recent_ms.max(1) as f64 / 1000.0;
        self.requests_per_second += recent.requests as f64 / seconds;
        self.errors_per_second += recent.failed() as f64 / seconds;
        self.cpu_millis += recent.cpu_micros as f64 / 1000.0 / seconds;
        for (sum, count) in self.durations.iter_mut().zip(recent.durations) {
            *sum = sum.saturating_add(count);
        }
    }
}

impl Gauges {
    pub fn add(&mut self, told: &FunctionUsage) {
        self.in_flight = self.in_flight.saturating_add(told.in_flight.into());
        self.memory_bytes = self.memory_bytes.saturating_add(told.memory_bytes);
        self.high_water_bytes = self.high_water_bytes.max(told.high_water_bytes);
    }
}
