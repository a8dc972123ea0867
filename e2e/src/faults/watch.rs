//! Watchers that go from controller to controller, and whether what they were told is what happened.
//!
//! A watcher lists, follows, comes back at the revision it knows, and lists again where that is too
//! old. The judgement is pure: all that any client saw, laid side by side.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::Door;
use super::cluster::Cluster;
use super::seed::Seed;
use crate::swarm::CONFIG_MAPS;
use crate::wait::{PATIENCE, holds, until};

/// Before another try at a controller that does not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// A slow reader takes this long over each event.
const SLOWNESS: Duration = Duration::from_millis(40);

/// A list or the beginning of a watch waits no longer than this.
const ANSWER: Duration = Duration::from_secs(5);

/// A controller that was stopped says nothing; one that is well lets a watch end before.
const SILENCE: Duration = Duration::from_secs(12);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Added,
    Modified,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: u64,
    pub kind: Kind,
    pub key: String,
    pub value: u64,
}

/// What a watcher was told from one list to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub watcher: usize,
    /// The revision of the list, and what it held.
    pub listed: u64,
    pub objects: BTreeMap<String, u64>,
    pub events: Vec<Event>,
    /// Everything up to here was told.
    pub through: u64,
    /// Times it came back without a new list.
    pub resumed: usize,
}

/// What is wrong with what watchers were told, beside what all clients saw (object, revision, value).
pub fn judge<'a>(
    segments: &[Segment],
    seen: impl Iterator<Item = (&'a str, u64, u64)>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut happened: BTreeMap<u64, &Event> = BTreeMap::new();
    for segment in segments {
        wrong.extend(disorder(segment));
        for event in &segment.events {
            let known = *happened.entry(event.revision).or_insert(event);
            if known != event {
                wrong.push(format!("one was told {known:?}, another {event:?}"));
            }
        }
    }
    let seen: Vec<_> = seen.collect();
    for segment in segments {
        let who = format!(
            "watcher {} since revision {}",
            segment.watcher, segment.listed
        );
        let told = segment.events.iter();
        let told: BTreeMap<u64, &Event> = told.map(|event| (event.revision, event)).collect();
        let span = (segment.listed + 1)..(segment.through + 1);
        for (revision, event) in happened.range(span.clone()) {
            if !told.contains_key(revision) {
                wrong.push(format!("{who} was never told of {event:?}"));
            }
        }
        for (key, revision, value) in &seen {
            let event = told.get(revision);
            let is_it = |event: &&Event| event.key == *key && event.value == *value;
            if span.contains(revision) && !event.is_some_and(is_it) {
                wrong.push(format!(
                    "{who} was told {event:?} where {key} became {value} at {revision}"
                ));
            }
        }
    }
    wrong
}

/// Within one segment: revisions rise, and each kind of event is what it says.
fn disorder(segment: &Segment) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut objects = segment.objects.clone();
    let mut last = segment.listed;
    for event in &segment.events {
        let who = segment.watcher;
        if event.revision <= last {
            wrong.push(format!("watcher {who}: {event:?} after revision {last}"));
        }
        last = event.revision;
        let before = event.put_into(&mut objects);
        if before.is_none() != (event.kind == Kind::Added) {
            wrong.push(format!(
                "watcher {who}: {event:?}, and before it {before:?}"
            ));
        }
    }
    wrong
}

impl Event {
    /// What was there before.
    fn put_into(&self, objects: &mut BTreeMap<String, u64>) -> Option<u64> {
        match self.kind {
            Kind::Deleted => objects.remove(&self.key),
            Kind::Added | Kind::Modified => objects.insert(self.key.clone(), self.value),
        }
    }
}

impl Segment {
    /// What the watcher believes there is.
    pub fn state(&self) -> BTreeMap<String, u64> {
        let mut objects = self.objects.clone();
        for event in &self.events {
            event.put_into(&mut objects);
        }
        objects
    }
}

/// Watchers at work.
#[derive(Debug)]
pub struct Watchers {
    tasks: JoinSet<()>,
    told: Vec<Arc<Mutex<Vec<Segment>>>>,
    /// While it is true, they do not come back.
    away: watch::Sender<bool>,
    /// How many list or watch at the moment.
    busy: Arc<AtomicUsize>,
}

impl Watchers {
    /// As many as there are controllers, twice: every other one reads slowly.
    pub fn start(cluster: &Cluster, seed: &mut Seed) -> Self {
        let away = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let mut told = Vec::new();
        let busy = Arc::<AtomicUsize>::default();
        let count = cluster.nodes.len();
        for number in 0..2 * count {
            let own = Arc::<Mutex<Vec<Segment>>>::default();
            told.push(own.clone());
            let watcher = Watcher {
                number,
                doors: (0..count).map(|index| cluster.door(index)).collect(),
                at: number % count,
                is_slow: number % 2 == 1,
                told: own,
                away: away.subscribe(),
                busy: busy.clone(),
                seed: seed.fork(),
            };
            tasks.spawn(watcher.run());
        }
        Self {
            tasks,
            told,
            away,
            busy,
        }
    }

    /// Ends their watches, and keeps them from coming back.
    pub async fn send_away(&self) {
        self.away.send_replace(true);
        until("nobody watches", PATIENCE, async || {
            let busy = self.busy.load(Ordering::SeqCst);
            holds(busy == 0, format!("{busy} do"))
        })
        .await;
    }

    pub fn let_back(&self) {
        self.away.send_replace(false);
    }

    /// How often any of them listed.
    pub fn lists(&self) -> usize {
        let told = self.told.iter();
        told.map(|own| own.lock().expect("no holder panics").len())
            .sum()
    }

    /// Waits until all were told of everything up to `revision`.
    pub async fn reach(&self, revision: u64) {
        until("all watchers were told everything", PATIENCE, async || {
            for (number, told) in self.told.iter().enumerate() {
                let told = told.lock().expect("no holder panics");
                let through = told.last().map_or(0, |segment| segment.through);
                if through < revision {
                    return Err(format!("watcher {number} knows {through} of {revision}"));
                }
            }
            Ok(())
        })
        .await;
    }

    pub async fn stop(mut self) -> Vec<Segment> {
        self.tasks.shutdown().await;
        let told = self.told.iter();
        told.flat_map(|own| own.lock().expect("no holder panics").clone())
            .collect()
    }
}

struct Watcher {
    number: usize,
    doors: Vec<Door>,
    at: usize,
    is_slow: bool,
    told: Arc<Mutex<Vec<Segment>>>,
    away: watch::Receiver<bool>,
    busy: Arc<AtomicUsize>,
    seed: Seed,
}

/// Why a watch ended.
enum End {
    /// To be gone on with from the last revision.
    Broken,
    /// What came since is no longer known there.
    TooOld,
}

impl Watcher {
    async fn run(mut self) {
        let mut has_listed = false;
        loop {
            if self.away.wait_for(|away| !away).await.is_err() {
                return;
            }
            self.busy.fetch_add(1, Ordering::SeqCst);
            if !has_listed {
                has_listed = self.list().await;
            } else if let End::TooOld = self.follow().await {
                has_listed = false;
            }
            self.busy.fetch_sub(1, Ordering::SeqCst);
            // The next one is perhaps another.
            self.at = self.seed.below(self.doors.len() as u64) as usize;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn list(&mut self) -> bool {
        let listing = self.doors[self.at].get(CONFIG_MAPS);
        let Ok(Ok(list)) = tokio::time::timeout(ANSWER, listing).await else {
            return false;
        };
        let items = list["items"].as_array().expect("a list has items");
        let revision = revision(&list);
        let segment = Segment {
            watcher: self.number,
            listed: revision,
            through: revision,
            objects: items.iter().filter_map(object).collect(),
            ..Segment::default()
        };
        self.told.lock().expect("no holder panics").push(segment);
        true
    }

    async fn follow(&mut self) -> End {
        let from = self.change(|segment| {
            segment.resumed += 1;
            segment.through
        });
        let seconds = self.seed.between(2, 6);
        let path = format!(
            "{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={from}"
        );
        let opening = self.doors[self.at].follow(&path);
        let mut lines = match tokio::time::timeout(ANSWER, opening).await {
            Ok(Ok(lines)) => lines,
            Ok(Err(Some(410))) => return End::TooOld,
            _ => return End::Broken,
        };
        let mut away = self.away.clone();
        loop {
            let line = tokio::select! {
                biased;
                _ = away.wait_for(|away| *away) => return End::Broken,
                line = tokio::time::timeout(SILENCE, lines.next()) => line,
            };
            let Ok(Some(line)) = line else {
                return End::Broken;
            };
            if self.is_slow {
                tokio::time::sleep(SLOWNESS).await;
            }
            if let Some(end) = self.note(&line) {
                return end;
            }
        }
    }

    fn note(&self, line: &Value) -> Option<End> {
        let thing = &line["object"];
        let kind = match line["type"].as_str() {
            Some("ADDED") => Kind::Added,
            Some("MODIFIED") => Kind::Modified,
            Some("DELETED") => Kind::Deleted,
            Some("BOOKMARK") => {
                let revision = revision(thing);
                self.change(|segment| segment.through = segment.through.max(revision));
                return None;
            }
            Some("ERROR") if thing["code"] == 410 => return Some(End::TooOld),
            _ => return Some(End::Broken),
        };
        let revision = revision(thing);
        // Others' objects are none of ours.
        let event = object(thing).map(|(key, value)| Event {
            revision,
            kind,
            key,
            value,
        });
        self.change(|segment| {
            segment.events.extend(event);
            segment.through = segment.through.max(revision);
        });
        None
    }

    fn change<T>(&self, change: impl FnOnce(&mut Segment) -> T) -> T {
        let mut told = self.told.lock().expect("no holder panics");
        change(told.last_mut().expect("it has listed"))
    }
}

/// The name and the value of an object that clients of a workload wrote.
pub fn object(thing: &Value) -> Option<(String, u64)> {
    let name = thing["metadata"]["name"].as_str()?;
    let value = thing["data"]["value"].as_str()?.parse().ok()?;
    Some((name.to_owned(), value))
}

pub fn revision(thing: &Value) -> u64 {
    let text = thing["metadata"]["resourceVersion"].as_str();
    text.and_then(|text| text.parse().ok())
        .expect("it names its revision")
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn segment(watcher: usize, events: &[(u64, Kind, &str, u64)], through: u64) -> Segment {
        let event = |(revision, kind, key, value): &(u64, Kind, &str, u64)| Event {
            revision: *revision,
            kind: *kind,
            key: (*key).to_owned(),
            value: *value,
        };
        Segment {
            watcher,
            events: events.iter().map(event).collect(),
            through,
            ..Segment::default()
        }
    }

    #[test]
    fn what_was_lost_doubled_or_out_of_order_is_told() {
        use Kind::{Added, Deleted, Modified};
        let whole = [
            (3, Added, "a", 1),
            (5, Modified, "a", 2),
            (8, Deleted, "a", 2),
        ];
        let good = segment(0, &whole, 8);
        let wrong = |segments: &[Segment], seen: &[(&str, u64, u64)]| {
            judge(segments, seen.iter().copied()).len()
        };
        assert_eq!(wrong(&[good.clone(), good.clone()], &[]), 0);
        assert_eq!(wrong(from_ref(&good), &[("a", 5, 2)]), 0);
        let bad = [
            ("lost", segment(1, &[whole[0], whole[2]], 8)),
            ("lost at the end", segment(1, &whole[..2], 8)),
            (
                "doubled",
                segment(1, &[whole[0], whole[0], whole[1], whole[2]], 8),
            ),
            (
                "out of order",
                segment(1, &[whole[1], whole[0], whole[2]], 8),
            ),
            (
                "of another kind",
                segment(1, &[whole[0], (5, Added, "a", 2), whole[2]], 8),
            ),
            (
                "of another value",
                segment(1, &[whole[0], (5, Modified, "a", 9), whole[2]], 8),
            ),
        ];
        for (name, bad) in bad {
            assert!(wrong(&[good.clone(), bad], &[]) > 0, "{name}");
        }
        // Nobody was told, but a client saw it.
        assert!(wrong(from_ref(&good), &[("a", 6, 7)]) > 0);
        // What is beyond what a watcher claims to know is not lost.
        assert_eq!(wrong(&[good, segment(1, &whole[..2], 6)], &[]), 0);
    }
}
