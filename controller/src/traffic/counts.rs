//! What one ingress counts of the requests that go through it. On the way of each request there is one
//! look-up and two short locks, of its function alone.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hive_proto::invoke::WAITED_US;
use hive_proto::v1::FunctionLoad;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use super::outcome::Outcome;
use super::window::Sum;
use crate::state::Key;

/// Revisions of functions in one report: some 150 bytes each. What is beyond is told with the next, a
/// moment later.
pub const MAX_LOADS: usize = 4096;

/// What was not asked for in this time is forgotten here, and counted anew.
const IDLE: Duration = Duration::from_secs(60);

/// How long a request waited for its turn, as the agent says that answered it. So much fits that more is nonsense.
fn waited(headers: &HeaderMap) -> Option<Duration> {
    let micros: u32 = headers.get(WAITED_US)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_micros(micros.into()))
}

/// The counts of one ingress. A clone is the same.
#[derive(Clone, Default)]
pub struct Loads {
    functions: Arc<RwLock<HashMap<Key, Revisions>>>,
    hurry: Arc<Notify>,
}

/// One as a rule, and a few while another version is on its way.
type Revisions = Vec<(String, Arc<Tally>)>;

/// What was counted until a report: the next one tells what came since.
#[derive(Default)]
pub struct Told(HashMap<Key, Vec<(String, Totals)>>);

impl Loads {
    /// Counts a request on its way to a revision of a function, until what is returned is dropped.
    pub fn begin(&self, function: &Key, revision: &str) -> Counted {
        let tally = self.tally(function, revision);
        tally.lock().pass(Instant::now()).in_flight += 1;
        Counted { tally }
    }

    fn tally(&self, function: &Key, revision: &str) -> Arc<Tally> {
        let known = |revisions: &Revisions| {
            let found = revisions.iter().find(|(name, _)| name == revision);
            found.map(|(_, tally)| tally.clone())
        };
        let functions = self.functions.read().expect("no holder of the lock panics");
        if let Some(tally) = functions.get(function).and_then(known) {
            return tally;
        }
        drop(functions);
        let mut functions = self
            .functions
            .write()
            .expect("no holder of the lock panics");
        let revisions = functions.entry(function.clone()).or_default();
        if let Some(tally) = known(revisions) {
            return tally;
        }
        let tally = Arc::new(Tally::new(Instant::now()));
        revisions.push((revision.to_owned(), tally.clone()));
        tally
    }

    /// Asks for a report before the next is due.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Ends when a report was asked for; the reporter is the only one to wait for it.
    pub async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// What to tell of what was counted since `told`, at most [`MAX_LOADS`]; what is left is part of no
    /// `Told` yet. Whoever hears it for the first time is also told of what is `still` under way.
    pub fn since(&self, told: &Told, still: bool, now: Instant) -> (Vec<FunctionLoad>, Told) {
        self.forget_idle(now);
        let functions = self.functions.read().expect("no holder of the lock panics");
        let (mut loads, mut next) = (Vec::new(), Told::default());
        for (function, revisions) in functions.iter() {
            for (revision, tally) in revisions {
                let totals = tally.lock().totals(now);
                let before = told.of(function, revision);
                let is_told = totals == before && !(still && totals.in_flight > 0);
                if is_told || loads.len() == MAX_LOADS {
                    next.note(function, revision, before);
                    continue;
                }
                next.note(function, revision, totals);
                loads.push(FunctionLoad {
                    namespace: function.namespace.clone(),
                    function: function.name.clone(),
                    revision: revision.clone(),
                    in_flight: totals.in_flight,
                    requests: totals.sum.requests - before.sum.requests,
                    failures: totals.sum.failures - before.sum.failures,
                    busy_us: totals.sum.busy.saturating_sub(before.sum.busy).as_micros() as u64,
                    waited_us: totals
                        .sum
                        .waited
                        .saturating_sub(before.sum.waited)
                        .as_micros() as u64,
                });
            }
        }
        (loads, next)
    }

    fn forget_idle(&self, now: Instant) {
        let mut functions = self
            .functions
            .write()
            .expect("no holder of the lock panics");
        functions.retain(|_, revisions| {
            revisions.retain(|(_, tally)| {
                // Nobody is about to count: that takes the lock which is held here.
                Arc::strong_count(tally) > 1 || tally.lock().at + IDLE > now
            });
            !revisions.is_empty()
        });
    }
}

impl Told {
    fn of(&self, function: &Key, revision: &str) -> Totals {
        let revisions = self.0.get(function).into_iter().flatten();
        let found = revisions.into_iter().find(|(name, _)| name == revision);
        found.map(|(_, totals)| *totals).unwrap_or_default()
    }

    fn note(&mut self, function: &Key, revision: &str, totals: Totals) {
        let of_function = match self.0.get_mut(function) {
            Some(known) => known,
            None => self.0.entry(function.clone()).or_default(),
        };
        of_function.push((revision.to_owned(), totals));
    }
}

struct Tally(Mutex<Running>);

struct Running {
    in_flight: u32,
    sum: Sum,
    /// When a request began or ended last; the time until then is in the sum.
    at: Instant,
}

#[derive(Clone, Copy, Default, PartialEq)]
struct Totals {
    in_flight: u32,
    sum: Sum,
}

impl Tally {
    fn new(now: Instant) -> Self {
        Self(Mutex::new(Running {
            in_flight: 0,
            sum: Sum::default(),
            at: now,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl Running {
    /// Takes down the time until something changes.
    fn pass(&mut self, now: Instant) -> &mut Self {
        self.sum.busy = self.totals(now).sum.busy;
        self.at = now;
        self
    }

    fn totals(&self, now: Instant) -> Totals {
        let mut sum = self.sum;
        sum.busy += now.saturating_duration_since(self.at) * self.in_flight;
        Totals {
            in_flight: self.in_flight,
            sum,
        }
    }
}

/// One request under way at a function.
pub struct Counted {
    tally: Arc<Tally>,
}

impl Counted {
    /// Takes down how it was answered, and counts on until the answer's body has ended.
    pub fn answered<B>(self, response: http::Response<B>) -> http::Response<Counting<B>> {
        let outcome = Outcome::of(response.status(), response.headers());
        let waited = waited(response.headers());
        if outcome != Outcome::NotItsOwn || waited.is_some() {
            let mut running = self.tally.lock();
            running.sum.requests += u64::from(outcome != Outcome::NotItsOwn);
            running.sum.failures += u64::from(outcome == Outcome::Failed);
            running.sum.waited += waited.unwrap_or_default();
        }
        response.map(|body| Counting {
            body,
            _counted: self,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut running = self.tally.lock();
        running.pass(Instant::now()).in_flight -= 1;
    }
}

/// The body of an answer, whose request is under way as long as it lives.
pub struct Counting<B> {
    body: B,
    _counted: Counted,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counting<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;
    use hive_proto::invoke::REASON;
    use http::{HeaderValue, Response, StatusCode};
    use proptest::prelude::*;

    use super::*;

    fn function(name: &str) -> Key {
        Key::new(Resource::Function, "default", name)
    }

    fn told(loads: &[FunctionLoad]) -> Vec<(&str, &str, u32, u64, u64)> {
        let mut told: Vec<_> = loads
            .iter()
            .map(|it| {
                (
                    &*it.function,
                    &*it.revision,
                    it.in_flight,
                    it.requests,
                    it.failures,
                )
            })
            .collect();
        told.sort();
        told
    }

    fn answer(status: u16, reason: Option<&'static str>) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(reason) = reason {
            let reason = HeaderValue::from_static(reason);
            response.headers_mut().insert(REASON, reason);
        }
        response
    }

    #[test]
    fn a_request_is_under_way_until_its_answer_has_ended_and_told_once() {
        let (loads, now) = (Loads::default(), Instant::now());
        let (hello, one) = (function("hello"), loads.begin(&function("hello"), "a"));
        let two = loads.begin(&hello, "b");
        let (first, so_far) = loads.since(&Told::default(), false, now);
        assert_eq!(
            told(&first),
            [("hello", "a", 1, 0, 0), ("hello", "b", 1, 0, 0)]
        );
        let body = one.answered(answer(200, None)).into_body();
        drop(two.answered(answer(500, None)));
        let (second, so_far) = loads.since(&so_far, false, now);
        assert_eq!(
            told(&second),
            [("hello", "a", 1, 1, 0), ("hello", "b", 0, 1, 1)]
        );
        // Nothing new: only who hears it for the first time is told what is under way.
        let (third, so_far) = loads.since(&so_far, true, now);
        assert_eq!(told(&third), [("hello", "a", 1, 0, 0)]);
        drop(body);
        let (fourth, so_far) = loads.since(&so_far, false, now);
        assert_eq!(told(&fourth), [("hello", "a", 0, 0, 0)]);
        let (last, _) = loads.since(&so_far, true, now);
        assert_eq!(told(&last), []);
    }

    #[test]
    fn what_requests_waited_is_summed_up_also_of_those_that_waited_in_vain() {
        let (loads, hello, now) = (Loads::default(), function("hello"), Instant::now());
        let ask = |status, reason, waited: Option<&'static str>| {
            let mut response = answer(status, reason);
            if let Some(waited) = waited {
                let waited = HeaderValue::from_static(waited);
                response.headers_mut().insert(WAITED_US, waited);
            }
            drop(loads.begin(&hello, "").answered(response));
        };
        ask(200, None, None);
        ask(200, None, Some("700"));
        ask(503, Some("QueueTimeout"), Some("40000"));
        for nonsense in ["-1", "", "soon", "1e3", "99999999999"] {
            ask(200, None, Some(nonsense));
        }
        let (first, so_far) = loads.since(&Told::default(), false, now);
        assert_eq!((first[0].requests, first[0].waited_us), (7, 40_700));
        ask(503, Some("QueueTimeout"), Some("1"));
        let (second, _) = loads.since(&so_far, false, now);
        assert_eq!((second[0].requests, second[0].waited_us), (0, 1));
    }

    #[test]
    fn what_a_report_has_no_room_for_is_in_the_next() {
        let (loads, now) = (Loads::default(), Instant::now());
        for index in 0..=MAX_LOADS {
            drop(
                loads
                    .begin(&function(&index.to_string()), "")
                    .answered(answer(200, None)),
            );
        }
        let (first, so_far) = loads.since(&Told::default(), false, now);
        assert_eq!(first.len(), MAX_LOADS);
        let (second, so_far) = loads.since(&so_far, false, now);
        assert_eq!(second.len(), 1);
        assert!(first.iter().all(|it| it.function != second[0].function));
        assert_eq!(loads.since(&so_far, false, now).0, []);
    }

    #[test]
    fn what_is_idle_is_forgotten_and_counted_anew() {
        let (loads, hello) = (Loads::default(), function("hello"));
        let one = loads.begin(&hello, "");
        drop(loads.begin(&function("gone"), ""));
        let later = Instant::now() + 2 * IDLE;
        let (first, so_far) = loads.since(&Told::default(), false, later);
        assert_eq!(told(&first), [("hello", "", 1, 0, 0)]);
        assert_eq!(loads.functions.read().unwrap().len(), 1);
        drop(one.answered(answer(200, None)));
        let (second, so_far) = loads.since(&so_far, false, Instant::now());
        assert_eq!(told(&second), [("hello", "", 0, 1, 0)]);
        let much_later = later + 2 * IDLE;
        let (_, so_far) = loads.since(&so_far, false, much_later);
        assert!(loads.functions.read().unwrap().is_empty());
        drop(loads.begin(&hello, "").answered(answer(200, None)));
        let (anew, _) = loads.since(&so_far, false, Instant::now());
        assert_eq!(told(&anew), [("hello", "", 0, 1, 0)]);
    }

    proptest! {
        /// The time that requests took together is that of each of them, summed up.
        #[test]
        fn busy_time_is_the_sum_of_what_each_request_took(
            requests in prop::collection::vec((0u64..1000, 0u64..1000), 0..20),
            until in 0u64..3000,
        ) {
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let mut events: Vec<(u64, bool)> = requests
                .iter()
                .flat_map(|(begin, took)| [(*begin, true), (begin + took, false)])
                .filter(|(time, _)| *time <= until)
                .collect();
            // What begins with another's end is counted first: it never makes it negative.
            events.sort_by_key(|(time, begins)| (*time, !begins));
            let tally = Tally::new(start);
            for (time, begins) in events {
                let mut running = tally.lock();
                let running = running.pass(at(time));
                match begins {
                    true => running.in_flight += 1,
                    false => running.in_flight -= 1,
                }
            }
            let expected: u64 = requests
                .iter()
                .map(|(begin, took)| (begin + took).min(until).saturating_sub(*begin))
                .sum();
            let busy = tally.lock().totals(at(until)).sum.busy;
            prop_assert_eq!(busy, Duration::from_millis(expected));
        }
    }
}
