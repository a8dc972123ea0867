//! Columns of what functions and namespaces used.

use serde_json::{Value, json};

use super::{Column, NAME, column, text, wide};

pub(in crate::api::table) const USAGE: &[Column] = &[
    NAME,
    column("Requests", "That ran", |body, _| {
        json!(amount(&body["requests"]).to_string())
    }),
    column("Errors", "Requests among them that failed", |body, _| {
        json!(amount(&body["errors"]).to_string())
    }),
    column("CPU", "Processor time", |body, _| {
        json!(format!(
            "{:.1}s",
            amount(&body["cpuMilliseconds"]) as f64 / 1000.0
        ))
    }),
    column("GB-s", "Memory times time; 1 GB is 1,024 MiB", |body, _| {
        json!(format!(
            "{:.3}",
            body["gbSeconds"].as_f64().unwrap_or_default()
        ))
    }),
    column("Received", "Bytes of requests' bodies", |body, _| {
        bytes(&body["receivedBytes"])
    }),
    column("Sent", "Bytes of answers' bodies", |body, _| {
        bytes(&body["sentBytes"])
    }),
    column(
        "Since",
        "When anything of it was counted first",
        |body, _| text(&body["since"]),
    ),
    wide(
        "Until",
        "When anything of it was counted last",
        |body, _| text(&body["until"]),
    ),
];

fn amount(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Short, of what has no fraction worth reading.
fn bytes(value: &Value) -> Value {
    json!(match amount(value) {
        count @ 0..10_240 => count.to_string(),
        count @ 10_240..10_485_760 => format!("{}Ki", count >> 10),
        count => format!("{}Mi", count >> 20),
    })
}
