//! What functions used, as this controller heard it from the sessions that it holds.
//!
//! Nodes tell counters that run since their agents started. They come in here; what leaves is sums of
//! differences, which never fall: that a node restarts, or holds its session elsewhere from now on, is not
//! seen in them. Each controller tells what *it* heard, and whoever wants all adds the controllers up.
//! Pure: the time comes from outside, nothing is kept but in memory.

mod counters;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hive_proto::USAGE_INTERVAL;
use hive_proto::v1::{FunctionUsage, NodeUsage, Usage};

pub use counters::{Counters, FunctionUse, SwarmUse};

/// Functions that are kept of one node: as many as an agent takes assignments.
const MAX_OF_A_NODE: usize = 1024;

/// Functions that are kept in all, some 2 KB each.
const MAX_FUNCTIONS: usize = 20_000;

/// Rates and quantiles are of this many intervals in which nodes tell, and of the one under way.
const INTERVALS: u32 = 4;

/// The least that they are of.
pub const WINDOW: Duration = Duration::from_secs(USAGE_INTERVAL.as_secs() * INTERVALS as u64);

/// Namespace and name.
pub type FunctionName = (String, String);

pub struct FunctionUsages {
    /// Of the sessions that are held here.
    nodes: BTreeMap<String, NodeUse>,
    functions: BTreeMap<FunctionName, Heard>,
    /// What intervals are counted from.
    began: Instant,
    /// In which interval those were last dropped that there are no more.
    pruned: Option<u32>,
    dropped: u64,
}

/// What a node told last.
struct NodeUse {
    session: String,
    heard: Instant,
    /// Without functions.
    machine: Usage,
    functions: BTreeMap<FunctionName, FunctionUsage>,
}

/// What is known of one function.
#[derive(Debug, Default)]
struct Heard {
    total: Counters,
    /// By number of the interval; older ones are not there.
    recent: BTreeMap<u32, Counters>,
}

/// Who tells.
#[derive(Clone, Copy, Debug)]
pub struct Teller<'a> {
    pub node: &'a str,
    pub session: &'a str,
    /// Its agent has held a session before: what it counted until now was told there.
    pub moved: bool,
}

impl FunctionUsages {
    pub fn new(now: Instant) -> Self {
        Self {
            nodes: BTreeMap::new(),
            functions: BTreeMap::new(),
            began: now,
            pruned: None,
            dropped: 0,
        }
    }

    /// Takes what a node told. `exists` says of a function whether there is one.
    pub fn take(
        &mut self,
        teller: Teller,
        mut usage: Usage,
        now: Instant,
        exists: impl Fn(&FunctionName) -> bool,
    ) {
        let told = std::mem::take(&mut usage.functions);
        let is_partial = std::mem::take(&mut usage.partial);
        let before = self.nodes.remove(teller.node);
        let before = before.filter(|before| before.session == teller.session);
        let is_first = before.is_none();
        let known = before.map(|before| before.functions).unwrap_or_default();
        let (last, mut functions) = match is_partial {
            true => (BTreeMap::new(), known),
            false => (known, BTreeMap::new()),
        };
        for function in told {
            let name = (function.namespace.clone(), function.function.clone());
            if functions.len() >= MAX_OF_A_NODE && !functions.contains_key(&name) {
                continue;
            }
            let counters = Counters::of(&function);
            let before = functions.insert(name.clone(), function);
            let more = match before.as_ref().or_else(|| last.get(&name)) {
                Some(before) => counters.since(&Counters::of(before)),
                None if is_first && teller.moved => Counters::default(),
                None => counters,
            };
            self.count(&name, &more, now, &exists);
        }
        let known = NodeUse {
            session: teller.session.to_owned(),
            heard: now,
            machine: usage,
            functions,
        };
        self.nodes.insert(teller.node.to_owned(), known);
    }

    fn count(
        &mut self,
        name: &FunctionName,
        more: &Counters,
        now: Instant,
        exists: impl Fn(&FunctionName) -> bool,
    ) {
        if !self.functions.contains_key(name) {
            if !exists(name) {
                return;
            }
            // It looks at all there is: once an interval is enough.
            let interval = Some(self.interval(now).0);
            if self.functions.len() >= MAX_FUNCTIONS && self.pruned != interval {
                self.pruned = interval;
                self.functions.retain(|name, _| exists(name));
            }
            if self.functions.len() >= MAX_FUNCTIONS {
                self.dropped += 1;
                return;
            }
        }
        let interval = self.interval(now).0;
        let heard = self.functions.entry(name.clone()).or_default();
        heard.total.add(more);
        heard.recent.entry(interval).or_default().add(more);
        let oldest = interval.saturating_sub(INTERVALS);
        heard.recent = heard.recent.split_off(&oldest);
    }

    /// The number of the interval under way, and how much of it is over.
    fn interval(&self, now: Instant) -> (u32, Duration) {
        let since = now.duration_since(self.began);
        // Enough for two thousand years.
        let number = (since.as_secs() / USAGE_INTERVAL.as_secs()) as u32;
        (number, since.saturating_sub(USAGE_INTERVAL * number))
    }

    /// Forgets what a session told, if none was begun since.
    pub fn forget(&mut self, node: &str, session: &str) {
        if self
            .nodes
            .get(node)
            .is_some_and(|known| known.session == session)
        {
            self.nodes.remove(node);
        }
    }

    /// What nodes told last.
    pub fn nodes(&self, now: Instant) -> impl Iterator<Item = NodeUsage> {
        self.nodes.iter().map(move |(name, known)| NodeUsage {
            node: name.clone(),
            age_ms: now.duration_since(known.heard).as_millis() as u64,
            usage: Some(Usage {
                functions: known.functions.values().cloned().collect(),
                ..known.machine.clone()
            }),
        })
    }

    /// Of all functions that `exist` and ever had a request here; the others are forgotten.
    pub fn functions(
        &mut self,
        now: Instant,
        exists: impl Fn(&FunctionName) -> bool,
    ) -> BTreeMap<FunctionName, FunctionUse> {
        self.functions.retain(|name, _| exists(name));
        let (interval, over) = self.interval(now);
        let oldest = interval.saturating_sub(INTERVALS);
        let recent_for = USAGE_INTERVAL * (interval - oldest) + over;
        let of = |heard: &Heard| {
            let mut recent = Counters::default();
            for (_, counters) in heard.recent.range(oldest..) {
                recent.add(counters);
            }
            FunctionUse {
                total: heard.total.clone(),
                recent,
                recent_for: recent_for.max(WINDOW),
                ..FunctionUse::default()
            }
        };
        let functions = self.functions.iter();
        let mut functions: BTreeMap<_, _> = functions
            .map(|(name, heard)| (name.clone(), of(heard)))
            .collect();
        for (name, told) in self.nodes.values().flat_map(|node| &node.functions) {
            if let Some(function) = functions.get_mut(name) {
                function.told.add(&Counters::of(told));
                function.now.add(told);
            }
        }
        functions
    }

    /// Functions that found no room, each time that they were told of.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests;
