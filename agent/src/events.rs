//! What people should hear of: a function that traps or runs into a limit, an artifact that
//! doesn't come. On their way to the controllers, which make Event objects of them.
//!
//! A function that fails a thousand times a second is one event every ten seconds that counts the
//! others. Events are told as well as can be: those of a long night offline are dropped, oldest first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hive_proto::v1::AgentEvent;
use tokio::sync::watch;

use crate::ids::{FunctionId, SlotId};
use crate::logs::unix_ms;

/// The most that a report carries.
const MAX_WAITING: usize = 64;

/// For one reason of one function.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// Pairs of function and reason that are remembered; past that the oldest are forgotten early,
/// which costs an event more at worst.
const MAX_REMEMBERED: usize = 256;

/// In which request of which trace it happened, and to which generation of the function. None of these makes
/// another event of it: of those that are summed up the last is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occasion {
    pub request_id: String,
    pub trace_id: String,
    pub generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Warning,
}

/// A clone is the same queue.
#[derive(Clone)]
pub struct Events {
    state: Arc<Mutex<State>>,
    /// Counts what was queued: a wake-up, no data.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<AgentEvent>,
    recent: BTreeMap<(SlotId, &'static str), Recent>,
}

struct Recent {
    told: Instant,
    /// The newest that was not told, and how many were not.
    held_back: Option<(AgentEvent, u32)>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Events {
    pub fn push(
        &self,
        kind: Kind,
        slot: &SlotId,
        function: &FunctionId,
        reason: &'static str,
        message: String,
    ) {
        self.push_of(kind, slot, function, reason, message, Occasion::default());
    }

    pub fn push_of(
        &self,
        kind: Kind,
        slot: &SlotId,
        function: &FunctionId,
        reason: &'static str,
        message: String,
        occasion: Occasion,
    ) {
        let event = AgentEvent {
            namespace: slot.namespace.clone(),
            function: function.name.clone(),
            assignment: slot.name.clone(),
            reason: reason.to_owned(),
            message,
            r#type: match kind {
                Kind::Normal => "Normal",
                Kind::Warning => "Warning",
            }
            .to_owned(),
            time_unix_ms: unix_ms(SystemTime::now()),
            count: 1,
            request_id: occasion.request_id,
            trace_id: occasion.trace_id,
            generation: occasion.generation,
        };
        let queued = self
            .state()
            .push((slot.clone(), reason), event, Instant::now());
        self.wake_if(queued);
    }

    /// Queues what was held back for long enough. Called every few seconds.
    pub fn flush(&self) {
        let queued = self.state().flush(Instant::now());
        self.wake_if(queued);
    }

    /// Takes all that waits. What could not be sent goes back with [`Events::put_back`].
    pub fn take(&self) -> Vec<AgentEvent> {
        self.state().waiting.drain(..).collect()
    }

    pub fn put_back(&self, events: Vec<AgentEvent>) {
        let mut state = self.state();
        for event in events.into_iter().rev() {
            state.waiting.push_front(event);
        }
        state.bound();
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn wake_if(&self, queued: bool) {
        if queued {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the event is on its way now.
    fn push(&mut self, key: (SlotId, &'static str), event: AgentEvent, now: Instant) -> bool {
        if let Some(recent) = self.recent.get_mut(&key)
            && now.saturating_duration_since(recent.told) < AT_MOST_EVERY
        {
            let others = recent.held_back.take().map_or(0, |(_, count)| count);
            recent.held_back = Some((event, others.saturating_add(1)));
            return false;
        }
        let others = self
            .recent
            .get_mut(&key)
            .and_then(|recent| recent.held_back.take())
            .map_or(0, |(_, count)| count);
        self.forget_oldest();
        self.recent.insert(
            key,
            Recent {
                told: now,
                held_back: None,
            },
        );
        self.queue(event, others.saturating_add(1));
        true
    }

    fn flush(&mut self, now: Instant) -> bool {
        let mut due = Vec::new();
        self.recent.retain(|_, recent| {
            if now.saturating_duration_since(recent.told) < AT_MOST_EVERY {
                return true;
            }
            recent.told = now;
            let held_back = recent.held_back.take();
            let stays = held_back.is_some();
            due.extend(held_back);
            stays
        });
        let any = !due.is_empty();
        for (event, count) in due {
            self.queue(event, count);
        }
        any
    }

    fn queue(&mut self, mut event: AgentEvent, count: u32) {
        event.count = count;
        self.waiting.push_back(event);
        self.bound();
    }

    fn bound(&mut self) {
        while self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
        }
    }

    fn forget_oldest(&mut self) {
        if self.recent.len() < MAX_REMEMBERED {
            return;
        }
        let oldest = self.recent.iter().min_by_key(|(_, recent)| recent.told);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.recent.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn event(message: &str) -> AgentEvent {
        AgentEvent {
            message: message.into(),
            ..Default::default()
        }
    }

    fn key(reason: &'static str) -> (SlotId, &'static str) {
        (SlotId::new("default", "hello-1"), reason)
    }

    fn told(state: &State) -> Vec<(&str, u32)> {
        let waiting = state.waiting.iter();
        waiting
            .map(|event| (&*event.message, event.count))
            .collect()
    }

    #[test]
    fn the_same_reason_is_told_once_in_ten_seconds_with_a_count() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.push(key("Trap"), event("first"), start));
        assert!(!state.push(key("Trap"), event("second"), start));
        assert!(!state.push(key("Trap"), event("third"), start));
        assert!(state.push(key("Timeout"), event("other"), start));
        assert!(!state.flush(start + AT_MOST_EVERY / 2));
        assert!(state.flush(start + AT_MOST_EVERY));
        assert_eq!(told(&state), [("first", 1), ("other", 1), ("third", 2)]);
        assert!(!state.flush(start + 2 * AT_MOST_EVERY));
        assert!(state.recent.is_empty());
    }

    #[test]
    fn held_back_ones_are_counted_in_the_next() {
        let (mut state, start) = (State::default(), Instant::now());
        state.push(key("Trap"), event("a"), start);
        state.push(key("Trap"), event("b"), start);
        state.push(key("Trap"), event("c"), start + AT_MOST_EVERY);
        assert_eq!(told(&state), [("a", 1), ("c", 2)]);
    }

    #[test]
    fn the_oldest_are_dropped() {
        let events = Events::default();
        events.put_back((0..70).map(|n| event(&n.to_string())).collect());
        let taken = events.take();
        assert_eq!(taken.len(), MAX_WAITING);
        assert_eq!(taken.last().unwrap().message, "69");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut state, start) = (State::default(), Instant::now());
        for n in 0..2 * MAX_REMEMBERED {
            let slot = SlotId::new("default", n.to_string());
            state.push((slot, "Trap"), event("x"), start);
        }
        assert!(state.recent.len() <= MAX_REMEMBERED);
    }
}
