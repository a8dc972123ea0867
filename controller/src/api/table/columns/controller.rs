//! Columns of the controllers.

use serde_json::{Value, json};

use super::{Column, NAME, column, text, wide};

pub(in crate::api::table) const CONTROLLER: &[Column] =
    &[
        NAME,
        column(
            "Role",
            "leader, voter, learner, or admitted and not there yet",
            |body, _| text(&body["status"]["role"]),
        ),
        column(
            "Status",
            "Ready, CatchingUp, Unreachable, Unknown or Leaderless",
            |body, _| text(&body["status"]["state"]),
        ),
        column(
            "Link",
            "Where agents and controllers reach it",
            |body, _| text(&body["spec"]["link"]),
        ),
        column("Lag", "Log entries that it lacks", |body, _| {
            number(&body["status"]["lag"])
        }),
        column("Heard", "Since it answered the leader last", |body, _| {
            match body["status"]["silentSeconds"].as_f64() {
                Some(seconds) => json!(format!("{seconds:.1}s")),
                None if body["status"]["state"] == "Unknown" => json!("<never>"),
                None => json!("<unknown>"),
            }
        }),
        column("Version", "That it runs", |body, _| {
            text(&body["status"]["version"])
        }),
        wide(
            "Term",
            "In which it leads",
            |body, _| match body["status"]["term"].as_u64() {
                Some(term) => json!(term.to_string()),
                None => json!("<none>"),
            },
        ),
        wide("API", "Where people reach it", |body, _| {
            text(&body["spec"]["api"])
        }),
        wide("Ingress", "Where functions are reached", |body, _| {
            text(&body["spec"]["ingress"])
        }),
        wide("Matched", "Index of its last log entry", |body, _| {
            number(&body["status"]["matchedIndex"])
        }),
        wide("Disk", "One small synced write", |body, _| {
            match body["status"]["diskSyncMicroseconds"].as_u64() {
                Some(sync) => json!(format!("{:.1}ms", sync as f64 / 1000.0)),
                None => json!("<unknown>"),
            }
        }),
        wide("Level", "Of the commands that it knows", |body, _| {
            number(&body["status"]["level"])
        }),
    ];

fn number(value: &Value) -> Value {
    match value.as_u64() {
        Some(number) => json!(number.to_string()),
        None => json!("<unknown>"),
    }
}
