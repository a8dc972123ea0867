//! How much a node may say that its functions used: it is added to totals for ever. Pure.

use hive_proto::METER_ENTRIES;
use hive_proto::v1::MeterEntry;

use super::MAX_NAME_BYTES;
use crate::state::metering::{Entry, Used};

/// Bytes of a namespace's name: what the API lets pass at most.
const MAX_NAMESPACE_BYTES: usize = 63;

/// No machine has more cores, memory or network, and none answers more: one that says so is broken, and is not
/// to cost others more than it could have worked.
const MOST_A_SECOND: Used = Used {
    requests: 1_000_000,
    errors: 1_000_000,
    cpu_micros: 256 * 1_000_000,
    memory_kib_ms: (1 << 30) * 1000,
    bytes_in: 10 << 30,
    bytes_out: 10 << 30,
};

/// Clocks of controllers differ, and what a request holds for long is counted when it is given back.
const SLACK_SECONDS: u64 = 600;

/// What can be, of functions that can be: all entries together no more than one machine can use in this time.
pub fn used(entries: Vec<MeterEntry>, seconds: u64) -> Vec<Entry> {
    let mut left = MOST_A_SECOND.times(seconds.saturating_add(SLACK_SECONDS));
    let can_be = |entry: &MeterEntry| {
        (1..=MAX_NAMESPACE_BYTES).contains(&entry.namespace.len())
            && entry.function.len() <= MAX_NAME_BYTES
    };
    entries
        .into_iter()
        .take(METER_ENTRIES)
        .filter(can_be)
        .map(|entry| Entry {
            used: left.take(&Used {
                requests: entry.requests,
                errors: entry.errors,
                cpu_micros: entry.cpu_micros,
                memory_kib_ms: entry.memory_kib_ms,
                bytes_in: entry.bytes_in,
                bytes_out: entry.bytes_out,
            }),
            namespace: entry.namespace,
            function: entry.function,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_uses_no_more_than_a_machine_can_and_of_no_more_functions_than_it_has() {
        let entry = |namespace: &str, function: &str, requests| MeterEntry {
            namespace: namespace.into(),
            function: function.into(),
            requests,
            bytes_in: 7,
            ..MeterEntry::default()
        };
        let most = MOST_A_SECOND.requests * (60 + SLACK_SECONDS);
        let told = vec![
            entry("a", "f", 5),
            entry("", "f", 1),
            entry(&"n".repeat(64), "f", 1),
            entry("a", &"f".repeat(254), 1),
            entry("a", "", u64::MAX),
            entry("a", "g", 1),
        ];
        let found: Vec<_> = used(told, 60)
            .into_iter()
            .map(|entry| (entry.function, entry.used.requests, entry.used.bytes_in))
            .collect();
        let expected = [
            ("f".to_owned(), 5, 7),
            (String::new(), most - 5, 7),
            ("g".to_owned(), 0, 7),
        ];
        assert_eq!(found, expected);
        let many = vec![entry("a", "f", 1); METER_ENTRIES + 1];
        assert_eq!(used(many, u64::MAX).len(), METER_ENTRIES);
    }
}
