//! What functions used, counted once, however often nodes tell it.
//!
//! A node tells it in numbered batches, and tells a batch again until it hears that it is held. One counts when
//! its number is higher than that of the last from the same ledger; then it is in the totals of its functions and
//! of their namespaces. It takes no revision: nobody watches totals, and every batch would wake whoever follows the
//! state. Pure, as all of the state.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

/// Namespaces whose totals are kept; those that used something longest ago go first.
const MAX_NAMESPACES: usize = 4096;

/// Devices whose last batches are remembered; those that were silent longest go first. Twice as many as a
/// swarm has.
const MAX_DEVICES: usize = 20_000;

/// Ledgers of one device, the latest ones: a batch of one that was lost since may still be on its way.
const MAX_LEDGERS: usize = 4;

/// What one node counted since its batch before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Fingerprint of the node's device key: nodes are deleted and enrolled again, under any name.
    pub device: String,
    /// Random, of the node's ledger; another one numbers its batches anew.
    pub origin: String,
    pub sequence: u64,
    /// When it was proposed.
    pub at_unix_ms: u64,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub namespace: String,
    /// Empty where the node had no room for each.
    pub function: String,
    #[serde(flatten)]
    pub used: Used,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Used {
    /// That ran: not those that got no turn.
    pub requests: u64,
    pub errors: u64,
    pub cpu_micros: u64,
    /// Linear memory times how long it was held.
    pub memory_kib_ms: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// Of a function or a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Total {
    /// Of the function: another one of its name begins anew.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// When the first and the last batch came.
    pub since_unix_ms: u64,
    pub until_unix_ms: u64,
    #[serde(flatten)]
    pub used: Used,
}

/// The last batch of a ledger that counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    pub origin: String,
    pub sequence: u64,
    pub at_unix_ms: u64,
}

/// Cloning is O(1).
#[derive(Clone, Debug, Default)]
pub struct Metering {
    /// Of each device its ledgers, the one that was heard of last at the end.
    devices: OrdMap<String, Vec<Held>>,
    /// By namespace and name.
    functions: OrdMap<(String, String), Total>,
    namespaces: OrdMap<String, Total>,
}

impl Metering {
    /// Counts a batch, unless it was counted before.
    pub(super) fn take(
        &mut self,
        batch: Batch,
        uid_of: impl Fn(&str, &str) -> Option<String>,
        is_namespace: impl Fn(&str) -> bool,
    ) {
        let at = batch.at_unix_ms;
        if batch.sequence <= self.held(&batch.device, &batch.origin) {
            return;
        }
        for Entry {
            namespace,
            function,
            used,
        } in batch.entries
        {
            // Of one that is gone only if it used something before: a node makes up no namespaces.
            if self.namespaces.contains_key(&namespace) || is_namespace(&namespace) {
                let total = self.namespaces.entry(namespace.clone());
                total.or_default().add(at, &used);
            }
            // What a function that is gone used is its namespace's all the same.
            if let Some(uid) = uid_of(&namespace, &function) {
                let total = self.functions.entry((namespace, function)).or_default();
                if total.uid != uid {
                    *total = Total {
                        uid,
                        ..Total::default()
                    };
                }
                total.add(at, &used);
            }
        }
        self.hold(
            batch.device,
            Held {
                origin: batch.origin,
                sequence: batch.sequence,
                at_unix_ms: at,
            },
        );
        drop_oldest(&mut self.namespaces, MAX_NAMESPACES, |total| {
            total.until_unix_ms
        });
    }

    fn hold(&mut self, device: String, held: Held) {
        let ledgers = self.devices.entry(device).or_default();
        ledgers.retain(|known| known.origin != held.origin);
        if ledgers.len() >= MAX_LEDGERS {
            ledgers.remove(0);
        }
        ledgers.push(held);
        drop_oldest(&mut self.devices, MAX_DEVICES, |ledgers| {
            ledgers.last().map_or(0, |held| held.at_unix_ms)
        });
    }

    pub(super) fn forget_function(&mut self, namespace: &str, name: &str) {
        let name = (namespace.to_owned(), name.to_owned());
        self.functions.remove(&name);
    }

    /// The number of the last batch that counted of this ledger; 0 where none did.
    pub fn held(&self, device: &str, origin: &str) -> u64 {
        let ledgers = self.devices.get(device).into_iter().flatten();
        let mut held = ledgers.filter(|held| held.origin == origin);
        held.next().map_or(0, |held| held.sequence)
    }

    /// When the last batch of a device came, in ms since 1970.
    pub fn heard(&self, device: &str) -> Option<u64> {
        Some(self.devices.get(device)?.last()?.at_unix_ms)
    }

    pub fn function(&self, namespace: &str, name: &str) -> Option<&Total> {
        self.functions.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub fn namespace(&self, name: &str) -> Option<&Total> {
        self.namespaces.get(name)
    }

    pub fn functions(&self) -> impl Iterator<Item = (&(String, String), &Total)> {
        self.functions.iter()
    }

    pub fn namespaces(&self) -> impl Iterator<Item = (&String, &Total)> {
        self.namespaces.iter()
    }
}

fn drop_oldest<V: Clone>(map: &mut OrdMap<String, V>, most: usize, at: impl Fn(&V) -> u64) {
    while map.len() > most {
        let oldest = map.iter().min_by_key(|(_, value)| at(value));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else {
            return;
        };
        map.remove(&key);
    }
}

impl Total {
    fn add(&mut self, at: u64, used: &Used) {
        if self.until_unix_ms == 0 {
            self.since_unix_ms = at;
        }
        self.until_unix_ms = at;
        self.used.add(used);
    }
}

impl Used {
    /// Field by field.
    fn with(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: of(self.requests, other.requests),
            errors: of(self.errors, other.errors),
            cpu_micros: of(self.cpu_micros, other.cpu_micros),
            memory_kib_ms: of(self.memory_kib_ms, other.memory_kib_ms),
            bytes_in: of(self.bytes_in, other.bytes_in),
            bytes_out: of(self.bytes_out, other.bytes_out),
        }
    }

    fn add(&mut self, more: &Self) {
        *self = self.with(more, u64::saturating_add);
    }

    pub fn times(&self, times: u64) -> Self {
        self.with(self, |amount, _| amount.saturating_mul(times))
    }

    /// Takes off as much of this as there is.
    pub fn take(&mut self, wanted: &Self) -> Self {
        let taken = self.with(wanted, u64::min);
        *self = self.with(&taken, u64::saturating_sub);
        taken
    }
}

/// What a snapshot holds of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct MeteringImage {
    devices: Vec<(String, Vec<Held>)>,
    functions: Vec<((String, String), Total)>,
    namespaces: Vec<(String, Total)>,
}

impl MeteringImage {
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

impl From<&Metering> for MeteringImage {
    fn from(metering: &Metering) -> Self {
        let Metering {
            devices,
            functions,
            namespaces,
        } = metering.clone();
        Self {
            devices: devices.into_iter().collect(),
            functions: functions.into_iter().collect(),
            namespaces: namespaces.into_iter().collect(),
        }
    }
}

impl From<MeteringImage> for Metering {
    fn from(image: MeteringImage) -> Self {
        Self {
            devices: image.devices.into_iter().collect(),
            functions: image.functions.into_iter().collect(),
            namespaces: image.namespaces.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn batch(device: &str, origin: &str, sequence: u64, entries: &[(&str, &str, u64)]) -> Batch {
        let entry = |(namespace, function, requests): &(&str, &str, u64)| Entry {
            namespace: (*namespace).to_owned(),
            function: (*function).to_owned(),
            used: Used {
                requests: *requests,
                ..Used::default()
            },
        };
        Batch {
            device: device.to_owned(),
            origin: origin.to_owned(),
            sequence,
            at_unix_ms: sequence,
            entries: entries.iter().map(entry).collect(),
        }
    }

    /// In a swarm with the namespaces `a` and `b`, and a function `f` of this uid in `a`.
    fn take(metering: &mut Metering, uid: &str, batch: Batch) {
        let uid_of = |namespace: &str, function: &str| {
            let is_it = (namespace, function) == ("a", "f");
            is_it.then(|| uid.to_owned())
        };
        metering.take(batch, uid_of, |namespace| matches!(namespace, "a" | "b"));
    }

    fn requests(metering: &Metering) -> (u64, u64) {
        let functions = metering.functions().map(|(_, total)| total.used.requests);
        let namespaces = metering.namespaces().map(|(_, total)| total.used.requests);
        (functions.sum(), namespaces.sum())
    }

    #[test]
    fn a_batch_counts_once_whoever_brings_it() {
        let mut metering = Metering::default();
        let first = batch("d", "o", 1, &[("a", "f", 3), ("b", "gone", 2)]);
        take(&mut metering, "1", first.clone());
        assert_eq!(
            requests(&metering),
            (3, 5),
            "of a function that is gone for its namespace"
        );
        take(&mut metering, "1", first);
        assert_eq!((requests(&metering), metering.held("d", "o")), ((3, 5), 1));
        take(&mut metering, "1", batch("d", "o", 4, &[("a", "f", 1)]));
        assert_eq!((requests(&metering), metering.held("d", "o")), ((4, 6), 4));
        // An older ledger that was put back: what it numbers anew was counted.
        take(&mut metering, "1", batch("d", "o", 2, &[("a", "f", 100)]));
        assert_eq!(requests(&metering), (4, 6));
        // Another ledger, another device.
        take(&mut metering, "1", batch("d", "p", 1, &[("a", "f", 1)]));
        take(&mut metering, "1", batch("e", "o", 1, &[("a", "f", 1)]));
        assert_eq!(requests(&metering), (6, 8));
        assert_eq!((metering.held("d", "o"), metering.held("d", "p")), (4, 1));
        assert_eq!((metering.heard("e"), metering.heard("f")), (Some(1), None));
    }

    #[test]
    fn a_function_of_the_same_name_begins_anew_and_no_namespace_is_made_up() {
        let mut metering = Metering::default();
        let first = batch("d", "o", 1, &[("a", "f", 3), ("none", "f", 9)]);
        take(&mut metering, "1", first);
        take(
            &mut metering,
            "2",
            batch("d", "o", 2, &[("a", "f", 1), ("a", "", 1)]),
        );
        assert_eq!(requests(&metering), (1, 5));
        let (_, total) = metering.functions().next().unwrap();
        assert_eq!((total.uid.as_str(), total.since_unix_ms), ("2", 2));
        metering.forget_function("a", "f");
        assert_eq!(requests(&metering), (0, 5));
    }

    #[test]
    fn what_is_kept_is_bounded_and_comes_back_from_a_snapshot() {
        let mut metering = Metering::default();
        for number in 1..=MAX_NAMESPACES as u64 + 5 {
            let namespace = format!("n{number}");
            let one = batch("d", "o", number, &[(&namespace, "", 1)]);
            metering.take(one, |_, _| None, |_| true);
        }
        assert_eq!(metering.namespaces.len(), MAX_NAMESPACES);
        assert!(!metering.namespaces.contains_key("n1"), "the oldest went");
        for number in 1..=MAX_DEVICES as u64 + 5 {
            let device = format!("d{number}");
            metering.take(batch(&device, "o", number, &[]), |_, _| None, |_| true);
        }
        assert_eq!(metering.devices.len(), MAX_DEVICES);
        assert_eq!((metering.held("d1", "o"), metering.held("d7", "o")), (0, 7));
        for number in 1..=MAX_LEDGERS as u64 + 1 {
            let one = batch("d", &format!("o{number}"), 1 << 20, &[("a", "f", 3)]);
            take(&mut metering, "1", one);
        }
        assert_eq!(metering.devices["d"].len(), MAX_LEDGERS);
        assert_eq!(
            (metering.held("d", "o1"), metering.held("d", "o5")),
            (0, 1 << 20)
        );

        let image = MeteringImage::from(&metering);
        let text = serde_json::to_string(&image).unwrap();
        let read: MeteringImage = serde_json::from_str(&text).unwrap();
        assert_eq!(read, image);
        assert_eq!(MeteringImage::from(&Metering::from(read)), image);
    }

    proptest! {
        /// However batches are repeated, delayed or lost, and ledgers replaced, each number counts once or not
        /// at all: `metering/book.rs` of the agent is held to the same model.
        #[test]
        fn totals_are_those_of_the_batches_that_counted(
            order in prop::collection::vec((0..2_usize, 0..3_usize, 1..6_u64), 0..60),
        ) {
            let mut metering = Metering::default();
            let mut highest: BTreeMap<(&str, &str), u64> = BTreeMap::new();
            let mut expected = 0;
            for (device, origin, sequence) in order {
                let (device, origin) = (["x", "y"][device], ["o", "p", "q"][origin]);
                let held = highest.entry((device, origin)).or_default();
                if sequence > *held {
                    *held = sequence;
                    expected += sequence * 10;
                }
                take(&mut metering, "1", batch(device, origin, sequence, &[("a", "f", sequence * 10)]));
                prop_assert_eq!(metering.held(device, origin), *held);
                prop_assert_eq!(requests(&metering), (expected, expected));
            }
        }
    }
}
