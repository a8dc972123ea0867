//! The search for one sequence that explains what was seen of one object.
//!
//! Wing and Gong's search with Lowe's memory of what was tried: a depth-first walk over which
//! operation took effect next. Operations with an unknown outcome are tried last, and never must be.

use std::collections::{HashMap, HashSet};

use crate::operation::Value;
use crate::register::{Call, Effect, is_interchangeable};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is such a sequence.
    Sequence { steps: u64 },
    /// There is none.
    Nothing,
    /// Neither was shown within the steps allowed.
    Undecided,
}

/// The beginning or the end of a call whose outcome is known.
#[derive(Clone, Copy)]
struct Event {
    call: usize,
    is_end: bool,
    time: u64,
}

/// Marks both ends of the list of events.
const NONE: usize = usize::MAX;

struct Search<'a> {
    calls: &'a [Call],
    /// Sorted by time; those of calls that took effect are taken out of the list.
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    first: usize,
    /// Of each call, the places of its events.
    places: Vec<(usize, usize)>,
    /// Calls whose outcome is unknown, as they began.
    open: Vec<usize>,
    /// Of each interchangeable open call, the one that goes before it.
    before: Vec<Option<usize>>,
    /// Of each value that somebody saw, the calls that write it.
    writers: HashMap<Value, Vec<usize>>,
    /// Calls that took effect.
    done: Bits,
    tried: HashSet<(Box<[u64]>, usize, Option<Value>)>,
}

/// What to try next.
#[derive(Clone, Copy)]
enum Cursor {
    Event(usize),
    /// The event is the end that no more known calls can be put before.
    Open(usize, usize),
}

/// `start` is the state before all of them.
pub fn search(calls: &[Call], start: Option<Value>, steps_allowed: u64) -> Found {
    Search::new(calls).run(start, steps_allowed)
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call]) -> Self {
        let mut events: Vec<Event> = Vec::new();
        let mut open = Vec::new();
        let mut before = vec![None; calls.len()];
        let mut writers: HashMap<Value, Vec<usize>> = HashMap::new();
        for (call, what) in calls.iter().enumerate() {
            if let Some(value) = what.effect.writes() {
                writers.entry(value).or_default().push(call);
            }
            let event = |is_end, time| Event { call, is_end, time };
            match what.ended {
                Some(ended) => {
                    events.push(event(false, what.began));
                    events.push(event(true, ended.max(what.began)));
                }
                None => {
                    if is_interchangeable(what.effect) {
                        before[call] = open
                            .iter()
                            .rev()
                            .copied()
                            .find(|other: &usize| calls[*other].effect == what.effect);
                    }
                    open.push(call);
                }
            }
        }
        // What ends and what begins at the same time may have overlapped.
        events.sort_by_key(|event| (event.time, event.is_end));
        let mut places = vec![(NONE, NONE); calls.len()];
        for (place, event) in events.iter().enumerate() {
            match event.is_end {
                false => places[event.call].0 = place,
                true => places[event.call].1 = place,
            }
        }
        let count = events.len();
        let neighbour = |place: usize| if place < count { place } else { NONE };
        Self {
            calls,
            next: (1..=count).map(neighbour).collect(),
            previous: (0..count)
                .map(|at| at.checked_sub(1).unwrap_or(NONE))
                .collect(),
            first: neighbour(0),
            events,
            places,
            open,
            before,
            writers,
            done: Bits::new(calls.len()),
            tried: HashSet::new(),
        }
    }

    fn run(&mut self, start: Option<Value>, steps_allowed: u64) -> Found {
        let mut state = start;
        let mut path: Vec<(usize, Option<Value>, Cursor)> = Vec::new();
        let mut cursor = Cursor::Event(self.first);
        let mut steps = 0;
        loop {
            if self.first == NONE {
                return Found::Sequence { steps };
            }
            steps += 1;
            if steps > steps_allowed {
                return Found::Undecided;
            }
            if let Some((call, after, resume)) = self.candidate(&mut cursor, state) {
                self.done.set(call);
                let (bits, offset) = self.done.window();
                if self.tried.insert((bits, offset, after)) {
                    path.push((call, state, resume));
                    state = after;
                    self.take_out(call);
                    cursor = Cursor::Event(self.first);
                } else {
                    self.done.clear(call);
                    cursor = resume;
                }
                continue;
            }
            let Some((call, earlier, resume)) = path.pop() else {
                return Found::Nothing;
            };
            self.done.clear(call);
            self.put_back(call);
            state = earlier;
            cursor = resume;
        }
    }

    /// The next call that can take effect, the state after it, and where to go on should that
    /// lead nowhere.
    fn candidate(
        &self,
        cursor: &mut Cursor,
        state: Option<Value>,
    ) -> Option<(usize, Option<Value>, Cursor)> {
        loop {
            match *cursor {
                Cursor::Event(place) => {
                    let event = self.events[place];
                    if event.is_end {
                        if !self.may_yet_see(event.call) {
                            return None;
                        }
                        *cursor = Cursor::Open(0, place);
                        continue;
                    }
                    // The end of this call is still in the list, so there is a next one.
                    *cursor = Cursor::Event(self.next[place]);
                    if let Some(after) = self.effect(event.call).apply(state) {
                        return Some((event.call, after, *cursor));
                    }
                }
                Cursor::Open(at, end) => {
                    let call = *self.open.get(at)?;
                    if self.calls[call].began > self.events[end].time {
                        return None;
                    }
                    *cursor = Cursor::Open(at + 1, end);
                    let is_next = self.before[call].is_none_or(|before| self.done.has(before));
                    if is_next
                        && !self.done.has(call)
                        && let Some(after) = self.effect(call).apply(state)
                    {
                        return Some((call, after, *cursor));
                    }
                }
            }
        }
    }

    /// Whether a call can take effect after an open one did: that changes the state, so what the
    /// call needs to see must be written after it.
    fn may_yet_see(&self, call: usize) -> bool {
        self.effect(call).sees().is_none_or(|value| {
            let writers = self.writers.get(&value);
            writers.is_some_and(|calls| calls.iter().any(|call| !self.done.has(*call)))
        })
    }

    fn effect(&self, call: usize) -> Effect {
        self.calls[call].effect
    }

    fn take_out(&mut self, call: usize) {
        let (start, end) = self.places[call];
        if start != NONE {
            self.unlink(start);
            self.unlink(end);
        }
    }

    fn put_back(&mut self, call: usize) {
        let (start, end) = self.places[call];
        if start != NONE {
            self.link(end);
            self.link(start);
        }
    }

    fn unlink(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        match previous {
            NONE => self.first = next,
            _ => self.next[previous] = next,
        }
        if next != NONE {
            self.previous[next] = previous;
        }
    }

    /// Undoes the last `unlink`.
    fn link(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        match previous {
            NONE => self.first = place,
            _ => self.next[previous] = place,
        }
        if next != NONE {
            self.previous[next] = place;
        }
    }
}

/// A set of calls.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn has(&self, bit: usize) -> bool {
        self.0[bit / 64] & (1 << (bit % 64)) != 0
    }

    fn set(&mut self, bit: usize) {
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    fn clear(&mut self, bit: usize) {
        self.0[bit / 64] &= !(1 << (bit % 64));
    }

    /// The part between what is full and what is empty, and where it begins: long histories
    /// are remembered by the few calls that overlap.
    fn window(&self) -> (Box<[u64]>, usize) {
        let start = self.0.iter().position(|word| *word != u64::MAX);
        let start = start.unwrap_or(self.0.len());
        let end = self.0.iter().rposition(|word| *word != 0);
        let end = end.map_or(start, |last| (last + 1).max(start));
        (self.0[start..end].into(), start)
    }
}
