//! What the leader hears of all ingresses: what was asked of each function and revision lately, and for
//! how long it has heard of everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hive_manifests::Resource;
use hive_proto::v1::FunctionLoad;
use tokio::sync::Notify;

use super::counts::MAX_LOADS;
use super::window::{Sum, Window};
use crate::state::Key;

/// Controllers report every second. One that is silent for longer may know of requests that nobody else
/// does.
const SILENCE: Duration = Duration::from_secs(3);

/// A controller that is silent for that long serves nobody whom the others could wait for.
const GONE: Duration = Duration::from_secs(60);

/// What was heard. A clone is the same.
#[derive(Clone)]
pub struct Traffic {
    heard: Arc<Mutex<Heard>>,
    asked: Arc<Notify>,
}

struct Heard {
    /// Seconds are counted from here.
    start: Instant,
    sources: BTreeMap<u64, Source>,
    functions: HashMap<Key, BTreeMap<String, Flow>>,
}

/// What is known of a controller.
struct Source {
    /// Since when everything was heard of it.
    since: Instant,
    at: Instant,
}

#[derive(Default)]
struct Flow {
    window: Window,
    /// By controller, where there are any.
    in_flight: BTreeMap<u64, u32>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self::beginning_at(Instant::now())
    }
}

impl Traffic {
    pub(crate) fn beginning_at(start: Instant) -> Self {
        let heard = Heard {
            start,
            sources: BTreeMap::new(),
            functions: HashMap::new(),
        };
        Self {
            heard: Arc::new(Mutex::new(heard)),
            asked: Arc::default(),
        }
    }

    /// Takes what a controller counted since its report before; `anew` if there is none that it builds
    /// upon.
    pub fn heard(&self, controller: u64, loads: Vec<FunctionLoad>, anew: bool, now: Instant) {
        let is_any = !loads.is_empty();
        self.lock().take(controller, loads, anew, now);
        if is_any {
            self.asked.notify_one();
        }
    }

    /// Wakes whoever is to know at once that something was asked for; there can be one.
    pub fn asked(&self) -> Arc<Notify> {
        self.asked.clone()
    }

    /// What a revision of a function answered in the last time, of which there is [`super::LONGEST`] at
    /// most.
    pub fn of_revision(&self, function: &Key, revision: &str, last: Duration, now: Instant) -> Sum {
        let heard = self.lock();
        let flow = heard
            .functions
            .get(function)
            .and_then(|it| it.get(revision));
        flow.map(|flow| heard.over(flow, last, now))
            .unwrap_or_default()
    }

    /// The same of all revisions of a function.
    pub fn of_function(&self, function: &Key, last: Duration, now: Instant) -> Sum {
        let heard = self.lock();
        let flows = heard.functions.get(function).into_iter().flatten();
        flows.fold(Sum::default(), |mut total, (_, flow)| {
            total += heard.over(flow, last, now);
            total
        })
    }

    /// What a function was asked for within each `moment` of the last time, the newest first: they overlap, one
    /// begins with each second.
    pub fn moments(
        &self,
        function: &Key,
        moment: Duration,
        last: Duration,
        now: Instant,
    ) -> Vec<Sum> {
        let heard = self.lock();
        let newest = heard.second(now);
        let mut seconds = vec![Sum::default(); last.as_secs() as usize];
        let flows = heard.functions.get(function).into_iter().flatten();
        for (second, sum) in flows.flat_map(|(_, flow)| flow.window.seconds()) {
            let age = newest.saturating_sub(second) as usize;
            if let Some(known) = seconds.get_mut(age) {
                *known += sum;
            }
        }
        drop(heard);
        let total = |moment: &[Sum]| {
            moment.iter().fold(Sum::default(), |mut total, second| {
                total += *second;
                total
            })
        };
        let moments = seconds.windows(moment.as_secs().max(1) as usize);
        moments.map(total).collect()
    }

    /// Requests of a function that were under way at all ingresses when they were heard last.
    pub fn in_flight(&self, function: &Key) -> u64 {
        let heard = self.lock();
        let flows = heard.functions.get(function).into_iter().flatten();
        flows
            .flat_map(|(_, flow)| flow.in_flight.values())
            .map(|requests| u64::from(*requests))
            .sum()
    }

    /// How long everything was heard of all controllers that are there: what is not known to have been
    /// asked for in that time was not. Zero while nobody was heard, or one has been silent for a while.
    pub fn complete_for(&self, now: Instant) -> Duration {
        let heard = self.lock();
        let mut since = None;
        for source in heard.sources.values() {
            let silent = now.saturating_duration_since(source.at);
            if silent >= GONE {
                continue;
            }
            if silent > SILENCE {
                return Duration::ZERO;
            }
            since = since.max(Some(source.since));
        }
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Forgets everything: what was heard in an earlier term as leader says nothing now.
    pub fn clear(&self) {
        let mut heard = self.lock();
        heard.sources.clear();
        heard.functions.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("no holder of the lock panics")
    }
}

impl Heard {
    fn take(&mut self, controller: u64, loads: Vec<FunctionLoad>, anew: bool, now: Instant) {
        let before = self.sources.get(&controller);
        let since = before
            .filter(|before| !anew && now.saturating_duration_since(before.at) <= SILENCE)
            .map_or(now, |before| before.since);
        self.sources.insert(controller, Source { since, at: now });
        let gone: Vec<u64> = self
            .sources
            .iter()
            .filter(|(_, source)| now.saturating_duration_since(source.at) >= GONE)
            .map(|(id, _)| *id)
            .chain(anew.then_some(controller))
            .collect();
        if !gone.is_empty() {
            let flows = self.functions.values_mut().flat_map(BTreeMap::values_mut);
            for flow in flows {
                flow.in_flight.retain(|id, _| !gone.contains(id));
            }
            self.sources
                .retain(|id, _| *id == controller || !gone.contains(id));
        }
        let second = self.second(now);
        for load in loads.into_iter().take(MAX_LOADS) {
            let key = Key::new(Resource::Function, load.namespace, load.function);
            let revisions = self.functions.entry(key).or_default();
            let flow = revisions.entry(load.revision).or_default();
            let sum = Sum {
                requests: load.requests,
                failures: load.failures,
                busy: Duration::from_micros(load.busy_us),
                waited: Duration::from_micros(load.waited_us),
            };
            flow.window.add(second, sum);
            match load.in_flight {
                0 => flow.in_flight.remove(&controller),
                any => flow.in_flight.insert(controller, any),
            };
        }
        self.functions.retain(|_, revisions| {
            revisions.retain(|_, flow| {
                let is_past = flow.window.forget_old(second);
                !is_past || !flow.in_flight.is_empty()
            });
            !revisions.is_empty()
        });
    }

    fn over(&self, flow: &Flow, last: Duration, now: Instant) -> Sum {
        flow.window.over(self.second(now), last.as_secs())
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Swarm {
        traffic: Traffic,
        start: Instant,
    }

    impl Swarm {
        fn new() -> Self {
            let start = Instant::now();
            let traffic = Traffic::beginning_at(start);
            Self { traffic, start }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn hear(&self, second: u64, controller: u64, anew: bool, loads: &[FunctionLoad]) {
            let now = self.at(second);
            self.traffic.heard(controller, loads.to_vec(), anew, now);
        }

        fn sum(&self, second: u64, revision: &str, last: u64) -> (u64, u64) {
            let (last, now) = (Duration::from_secs(last), self.at(second));
            let sum = self.traffic.of_revision(&hello(), revision, last, now);
            (sum.requests, sum.failures)
        }
    }

    fn hello() -> Key {
        Key::new(Resource::Function, "default", "hello")
    }

    fn load(revision: &str, in_flight: u32, requests: u64, failures: u64) -> FunctionLoad {
        FunctionLoad {
            namespace: "default".into(),
            function: "hello".into(),
            revision: revision.into(),
            in_flight,
            requests,
            failures,
            busy_us: requests * 500_000,
            waited_us: requests * 1000 + failures * 4000,
        }
    }

    #[test]
    fn what_all_ingresses_count_is_summed_by_revision_and_time() {
        let swarm = Swarm::new();
        swarm.hear(1, 1, true, &[load("a", 0, 10, 0), load("b", 2, 4, 1)]);
        swarm.hear(1, 2, true, &[load("a", 3, 5, 0)]);
        swarm.hear(9, 1, false, &[load("b", 0, 6, 6)]);
        assert_eq!(swarm.sum(9, "a", 60), (15, 0));
        assert_eq!(swarm.sum(9, "b", 60), (10, 7));
        assert_eq!(swarm.sum(9, "b", 8), (6, 6));
        assert_eq!(swarm.sum(9, "c", 60), (0, 0));
        assert_eq!(swarm.traffic.in_flight(&hello()), 3);
        let all = swarm
            .traffic
            .of_function(&hello(), Duration::from_secs(60), swarm.at(9));
        assert_eq!(
            (all.requests, all.busy),
            (25, Duration::from_millis(12_500))
        );
        // What is older than any window is gone.
        swarm.hear(400, 2, false, &[load("a", 0, 0, 0)]);
        assert!(swarm.traffic.lock().functions.is_empty());
    }

    #[test]
    fn a_moment_is_that_of_all_ingresses_together() {
        let swarm = Swarm::new();
        swarm.hear(1, 1, true, &[load("a", 0, 2, 0)]);
        swarm.hear(1, 2, true, &[load("b", 0, 4, 0)]);
        swarm.hear(3, 2, false, &[load("a", 0, 8, 0)]);
        swarm.hear(30, 2, false, &[load("a", 0, 9, 0)]);
        let peak = |moment, last, now| {
            let seconds = Duration::from_secs;
            let (moment, last, now) = (seconds(moment), seconds(last), swarm.at(now));
            let moments = swarm.traffic.moments(&hello(), moment, last, now);
            moments
                .iter()
                .map(|sum| sum.busy.as_millis())
                .max()
                .unwrap()
        };
        assert_eq!(peak(1, 60, 30), 4500);
        assert_eq!(peak(3, 60, 30), 7000);
        assert_eq!(peak(2, 60, 30), 4500);
        // What is no longer in the window is not in a moment of it.
        assert_eq!(peak(3, 28, 30), 4500);
        assert_eq!(peak(3, 60, 100), 0);
        // The newest first.
        let last = Duration::from_secs(3);
        let moments = swarm
            .traffic
            .moments(&hello(), last / 3, last, swarm.at(32));
        let requests: Vec<_> = moments.iter().map(|sum| sum.requests).collect();
        assert_eq!(requests, [0, 0, 9]);
    }

    #[test]
    fn a_wait_is_that_of_a_request_on_average_at_all_ingresses() {
        let swarm = Swarm::new();
        swarm.hear(1, 1, true, &[load("a", 0, 2, 0)]);
        swarm.hear(1, 2, true, &[load("b", 0, 4, 3)]);
        let last = Duration::from_secs(9);
        let sum = swarm.traffic.of_function(&hello(), last, swarm.at(1));
        assert_eq!(sum.wait(), Duration::from_millis(3));
        assert_eq!(Sum::default().wait(), Duration::ZERO);
    }

    #[test]
    fn a_controller_that_starts_anew_has_nothing_of_before_under_way() {
        let swarm = Swarm::new();
        swarm.hear(1, 1, true, &[load("a", 7, 0, 0)]);
        swarm.hear(2, 2, true, &[load("a", 1, 0, 0)]);
        swarm.hear(3, 1, true, &[]);
        assert_eq!(swarm.traffic.in_flight(&hello()), 1);
        // And one that is gone for good has none either.
        swarm.hear(100, 1, false, &[]);
        assert_eq!(swarm.traffic.in_flight(&hello()), 0);
    }

    #[test]
    fn nothing_is_concluded_from_silence() {
        let swarm = Swarm::new();
        let complete = |second| swarm.traffic.complete_for(swarm.at(second)).as_secs();
        let steady = |controller, seconds: std::ops::RangeInclusive<u64>| {
            for second in seconds {
                swarm.hear(second, controller, second == 1, &[]);
            }
        };
        assert_eq!(complete(0), 0);
        steady(1, 1..=10);
        assert_eq!(complete(10), 9);
        // Another one comes: what it did before is not known.
        swarm.hear(10, 2, true, &[]);
        assert_eq!(complete(12), 2);
        // It falls silent: nothing is known until it is certainly gone.
        steady(1, 11..=69);
        assert_eq!(complete(69), 0);
        steady(1, 70..=80);
        assert_eq!(complete(80), 79);
        // It is back: what it did meanwhile is not known.
        swarm.hear(80, 2, false, &[]);
        assert_eq!(complete(82), 2);
        // Here nobody was heard for a while.
        swarm.hear(90, 1, false, &[]);
        swarm.hear(90, 2, false, &[]);
        assert_eq!(complete(91), 1);
        swarm.traffic.clear();
        assert_eq!(complete(91), 0);
    }
}
