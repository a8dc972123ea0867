//! A batch of records (`application/cloudevents-batch+json`), of which some are not taken.

/// The answer that says which of a batch's first records, `fail` many, shall come again.
pub fn taken(batch: &str, fail: usize) -> String {
    let failed: Vec<_> = ids(batch)
        .take(fail)
        .map(|id| format!(r#"{{"itemIdentifier":"{id}"}}"#))
        .collect();
    format!(r#"{{"batchItemFailures":[{}]}}"#, failed.join(","))
}

/// The ids in the order of the records. Good enough for records of tests, whose ids have no escapes
/// and whose data has no ids.
fn ids(batch: &str) -> impl Iterator<Item = &str> {
    batch
        .split("\"id\":")
        .skip(1)
        .filter_map(|rest| rest.split('"').nth(1))
}
