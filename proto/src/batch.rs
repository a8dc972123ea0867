//! A batch of records as a function is called with it, and what it says has become of them.
//!
//! Records go out as one `POST` of CloudEvents (`application/cloudevents-batch+json`). The answer says which
//! of them shall come again, in the words of other clouds' functions:
//! `{"batchItemFailures":[{"itemIdentifier":"..."}]}`. A record must never count as taken when the
//! function did not say so.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

pub const CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// What a function looks through in one call; more would only make what fails fail together.
pub const MAX_RECORDS: usize = 1000;

/// Of the whole request: it is held whole, by each side. So may the answer have. Bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Ids come back in answers: all of them must fit into one.
pub const MAX_ID_BYTES: usize = 256;

/// One record. Its id is its own within the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: String,
    /// Where it is from, as a URI reference.
    pub source: String,
    /// What kind of thing it tells, such as `dev.hive.schedule.v1`.
    pub kind: String,
    /// RFC 3339.
    pub time: Option<String>,
    /// A media type. Of what is JSON the function gets the value, of all else the bytes.
    pub content_type: Option<String>,
    pub data: Bytes,
}

/// Why records can't be one batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("a batch has 1 to {MAX_RECORDS} records, not {0}")]
    Count(usize),
    #[error("the batch has {0} bytes as JSON, and {MAX_BYTES} are the most")]
    Bytes(usize),
    #[error("the id of a record has 1 to {MAX_ID_BYTES} bytes, not {0}")]
    Id(usize),
    #[error("two records have the id {0:?}")]
    SameId(String),
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchOutcome {
    /// All were taken but these, by their place in the batch, in its order: they are to come again.
    Taken { again: Vec<usize> },
    /// The function saw none of them: all can come again, to any copy.
    NotRun,
    /// It may have worked on any of them: all failed, and why.
    Failed(String),
}

/// `data` is what it says, `data_base64` the bytes.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// The body of the request.
pub fn encode(records: &[Record]) -> Result<Bytes, BatchError> {
    if !(1..=MAX_RECORDS).contains(&records.len()) {
        return Err(BatchError::Count(records.len()));
    }
    let data: usize = records.iter().map(|record| record.data.len()).sum();
    // Before anything is written that would be far too long.
    if data > MAX_BYTES {
        return Err(BatchError::Bytes(data));
    }
    let mut ids = BTreeSet::new();
    for Record { id, .. } in records {
        if !(1..=MAX_ID_BYTES).contains(&id.len()) {
            return Err(BatchError::Id(id.len()));
        }
        if !ids.insert(id) {
            return Err(BatchError::SameId(id.clone()));
        }
    }
    let events: Vec<_> = records.iter().map(Record::event).collect();
    let body = serde_json::to_vec(&events).expect("texts and JSON are JSON");
    match body.len() {
        ..=MAX_BYTES => Ok(body.into()),
        length => Err(BatchError::Bytes(length)),
    }
}

impl Record {
    fn event(&self) -> Event<'_> {
        let json = self.json();
        let has_bytes = json.is_none() && !self.data.is_empty();
        Event {
            specversion: "1.0",
            id: &self.id,
            source: &self.source,
            kind: &self.kind,
            time: self.time.as_deref(),
            datacontenttype: self.content_type.as_deref(),
            data: json,
            data_base64: has_bytes.then(|| BASE64.encode(&self.data)),
        }
    }

    /// The data, if it is JSON and says so.
    fn json(&self) -> Option<&RawValue> {
        let kind = self.content_type.as_deref()?;
        let kind = kind.split(';').next()?.trim().to_ascii_lowercase();
        let says_so = kind == "application/json" || kind.ends_with("+json");
        says_so.then(|| serde_json::from_slice(&self.data).ok())?
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failures {
    batch_item_failures: Vec<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

/// What the answer to a batch says. `not_run` is whether Hive says that the function never saw it.
pub fn outcome(records: &[Record], status: StatusCode, not_run: bool, body: &[u8]) -> BatchOutcome {
    if not_run {
        return BatchOutcome::NotRun;
    }
    if !status.is_success() {
        return BatchOutcome::Failed(format!("answered {status}"));
    }
    let failures = match report(body) {
        Ok(Some(failures)) => failures,
        Ok(None) => Vec::new(),
        Err(why) => return BatchOutcome::Failed(format!("its answer cannot be read: {why}")),
    };
    let places: BTreeMap<&str, usize> = records
        .iter()
        .enumerate()
        .map(|(place, record)| (&*record.id, place))
        .collect();
    let mut again = BTreeSet::new();
    for Failure { item_identifier } in failures {
        match places.get(&*item_identifier) {
            Some(place) => again.insert(*place),
            // Whichever it means would be lost.
            None => {
                let id: String = item_identifier.chars().take(80).collect();
                let why = format!("its answer names a record that is not in the batch: {id:?}");
                return BatchOutcome::Failed(why);
            }
        };
    }
    BatchOutcome::Taken {
        again: again.into_iter().collect(),
    }
}

/// Only an object with that one field is a report; what else a function says beside a success is its own.
fn report(body: &[u8]) -> Result<Option<Vec<Failure>>, serde_json::Error> {
    match serde_json::from_slice::<Value>(body) {
        Ok(answer)
            if answer
                .get("batchItemFailures")
                .is_some_and(|it| !it.is_null()) =>
        {
            let failures: Failures = serde_json::from_value(answer)?;
            Ok(Some(failures.batch_item_failures))
        }
        Ok(_) => Ok(None),
        // A report that broke off is none, and no success either.
        Err(error) if body.trim_ascii_start().starts_with(b"{") => Err(error),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn record(id: &str, content_type: &str, data: &[u8]) -> Record {
        Record {
            id: id.to_owned(),
            source: "/apis/hive.dev/v1/namespaces/a/topics/b".to_owned(),
            kind: "dev.hive.record.v1".to_owned(),
            time: None,
            content_type: (!content_type.is_empty()).then(|| content_type.to_owned()),
            data: Bytes::copy_from_slice(data),
        }
    }

    fn records(ids: &[&str]) -> Vec<Record> {
        ids.iter().map(|id| record(id, "", b"")).collect()
    }

    #[test]
    fn records_are_events_with_their_data_as_it_is() {
        let mut records = vec![
            record("1", "application/json", b"{\"n\": 12345678901234567890123}"),
            record("2", "application/vnd.a+json; charset=utf-8", b" [1]"),
            record("3", "application/json", b"{"),
            record("4", "text/plain", b"a"),
            record("5", "", b"\xff"),
            record("6", "", b""),
        ];
        records[5].time = Some("2026-01-01T00:00:00Z".to_owned());
        let body = encode(&records).unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        // A number keeps digits that no float has.
        assert!(text.contains("12345678901234567890123"), "{text}");
        let events: Vec<Value> = serde_json::from_slice(&body).unwrap();
        let data = |n: usize| (&events[n]["data"], &events[n]["data_base64"]);
        assert_eq!(data(1), (&json!([1]), &Value::Null));
        assert_eq!(data(2), (&Value::Null, &json!("ew==")));
        assert_eq!(data(3), (&Value::Null, &json!("YQ==")));
        assert_eq!(data(4), (&Value::Null, &json!("/w==")));
        assert_eq!(
            events[5],
            json!({
                "specversion": "1.0", "id": "6", "source": "/apis/hive.dev/v1/namespaces/a/topics/b",
                "type": "dev.hive.record.v1", "time": "2026-01-01T00:00:00Z",
            })
        );
    }

    #[test]
    fn what_is_no_batch_says_why() {
        let many: Vec<_> = (0..=MAX_RECORDS).map(|n| n.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let large = vec![b'x'; MAX_BYTES * 4 / 5];
        for (records, expected) in [
            (vec![], BatchError::Count(0)),
            (records(&many), BatchError::Count(MAX_RECORDS + 1)),
            (records(&["a", ""]), BatchError::Id(0)),
            (records(&[&"a".repeat(257)]), BatchError::Id(257)),
            (
                records(&["a", "b", "a"]),
                BatchError::SameId("a".to_owned()),
            ),
        ] {
            assert_eq!(encode(&records), Err(expected));
        }
        assert!(encode(&records(&many[..MAX_RECORDS])).is_ok());
        let refused = encode(&[record("a", "", &large)]).unwrap_err();
        assert!(matches!(refused, BatchError::Bytes(bytes) if bytes > MAX_BYTES));
        let data = vec![0; MAX_BYTES + 1];
        assert_eq!(
            encode(&[record("a", "", &data)]),
            Err(BatchError::Bytes(MAX_BYTES + 1))
        );
    }

    #[test]
    fn the_answer_says_which_come_again() {
        let records = records(&["a", "b", "c"]);
        let taken = |again: &[usize]| BatchOutcome::Taken {
            again: again.to_vec(),
        };
        let ok = StatusCode::OK;
        for (body, expected) in [
            ("", taken(&[])),
            ("done\n", taken(&[])),
            ("{}", taken(&[])),
            ("[1]", taken(&[])),
            ("{\"batchItemFailures\": null}", taken(&[])),
            ("{\"batchItemFailures\": []}", taken(&[])),
            (
                "{\"batchItemFailures\": [{\"itemIdentifier\": \"c\"}, {\"itemIdentifier\": \"a\"}, {\"itemIdentifier\": \"c\"}]}",
                taken(&[0, 2]),
            ),
        ] {
            assert_eq!(
                outcome(&records, ok, false, body.as_bytes()),
                expected,
                "{body}"
            );
            let none = outcome(
                &records,
                StatusCode::SERVICE_UNAVAILABLE,
                true,
                body.as_bytes(),
            );
            assert_eq!(none, BatchOutcome::NotRun);
            let failed = outcome(
                &records,
                StatusCode::SERVICE_UNAVAILABLE,
                false,
                body.as_bytes(),
            );
            let why = "answered 503 Service Unavailable".to_owned();
            assert_eq!(failed, BatchOutcome::Failed(why));
        }
        for body in [
            "{\"batchItemFailures\": [{\"itemIdentifier\": \"d\"}]}",
            "{\"batchItemFailures\": [{}]}",
            "{\"batchItemFailures\": \"a\"}",
            "{\"batchItemFailures\": [{\"itemIdentifier\": \"a\"}",
        ] {
            let outcome = outcome(&records, ok, false, body.as_bytes());
            assert!(matches!(outcome, BatchOutcome::Failed(_)), "{body}");
        }
    }

    proptest! {
        /// A function that keeps what it is told, and asks for some of it again, is understood.
        #[test]
        fn nothing_is_lost_between_a_batch_and_its_answer(
            data in proptest::collection::vec((any::<Vec<u8>>(), any::<bool>(), any::<bool>()), 1..50),
        ) {
            let records: Vec<_> = data
                .iter()
                .enumerate()
                .map(|(n, (bytes, is_json, _))| match is_json {
                    true => record(&format!("{n} \"\\é"), "application/json", json!(bytes).to_string().as_bytes()),
                    false => record(&format!("{n}"), "a/b", bytes),
                })
                .collect();
            let events: Vec<Value> = serde_json::from_slice(&encode(&records).unwrap()).unwrap();
            for (event, (bytes, is_json, _)) in events.iter().zip(&data) {
                let found = match is_json {
                    true => serde_json::from_value(event["data"].clone()).unwrap(),
                    false => BASE64.decode(event["data_base64"].as_str().unwrap_or_default()).unwrap(),
                };
                prop_assert_eq!(&found, bytes);
            }
            let failures: Vec<_> = events
                .iter()
                .zip(&data)
                .filter(|(_, (.., fails))| *fails)
                .map(|(event, _)| json!({ "itemIdentifier": event["id"] }))
                .collect();
            let body = json!({ "batchItemFailures": failures }).to_string();
            let again = data.iter().enumerate().filter(|(_, (.., fails))| *fails);
            let again = again.map(|(n, _)| n).collect();
            prop_assert_eq!(
                outcome(&records, StatusCode::OK, false, body.as_bytes()),
                BatchOutcome::Taken { again }
            );
        }

        #[test]
        fn any_answer_is_an_outcome(body: Vec<u8>) {
            let again = match outcome(&records(&["a"]), StatusCode::OK, false, &body) {
                BatchOutcome::Taken { again } => again,
                _ => Vec::new(),
            };
            prop_assert!(again.len() <= 1);
        }
    }
}
