//! The columns of the kinds that say who may do what, and how much.

use std::time::Duration;

use hive_manifests::age::human;
use hive_manifests::certificates::{self, APPROVED, DENIED, FAILED};
use serde_json::{Value, json};

use super::{AGE, Column, NAME, column, text, wide};

const CREATED_AT: Column = column("Created At", "When it was created", |body, _| {
    text(&body["metadata"]["creationTimestamp"])
});

pub(super) const SERVICE_ACCOUNT: &[Column] = &[
    NAME,
    Column {
        kind: "integer",
        ..column("Secrets", "Number of secrets it may use", |body, _| {
            json!(body["secrets"].as_array().map_or(0, Vec::len))
        })
    },
    AGE,
];

pub(super) const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    column("Used", "What is used of what there may be", |body, _| {
        let used = &body["status"]["used"];
        let shares: Vec<String> = body["spec"]["hard"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, hard)| {
                let used = used[name].as_str().unwrap_or("0");
                format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
            })
            .collect();
        json!(shares.join(", "))
    }),
    AGE,
];

pub(super) const LIMIT_RANGE: &[Column] = &[NAME, CREATED_AT];

pub(super) const ROLE: &[Column] = &[NAME, CREATED_AT];

pub(super) const ROLE_BINDING: &[Column] = &[
    NAME,
    column("Role", "What it grants", |body, _| {
        let role = &body["roleRef"];
        json!(format!(
            "{}/{}",
            role["kind"].as_str().unwrap_or_default(),
            role["name"].as_str().unwrap_or_default()
        ))
    }),
    AGE,
    wide("Users", "People and clients it is granted to", |body, _| {
        subjects(body, "User")
    }),
    wide("Groups", "Groups it is granted to", |body, _| {
        subjects(body, "Group")
    }),
    wide(
        "ServiceAccounts",
        "Service accounts it is granted to",
        |body, _| subjects(body, "ServiceAccount"),
    ),
];

/// As Kubernetes shows them.
pub(super) const CERTIFICATE_SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "Who is to sign it", |body, _| {
        text(&body["spec"]["signerName"])
    }),
    column("Requestor", "Who asked for it", |body, _| {
        text(&body["spec"]["username"])
    }),
    column(
        "RequestedDuration",
        "How long it is to be good for",
        |body, _| match body["spec"]["expirationSeconds"].as_u64() {
            Some(seconds) => json!(human(Duration::from_secs(seconds))),
            None => json!("<none>"),
        },
    ),
    column("Condition", "What became of it", |body, _| {
        let mut words: Vec<&str> = [APPROVED, DENIED, FAILED]
            .into_iter()
            .filter(|condition| certificates::is(body, condition))
            .collect();
        if words.is_empty() {
            words.push("Pending");
        }
        if body["status"]["certificate"].is_string() {
            words.push("Issued");
        }
        json!(words.join(","))
    }),
];

fn subjects(body: &Value, kind: &str) -> Value {
    let names: Vec<String> = body["subjects"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| {
            let name = subject["name"].as_str().unwrap_or_default();
            match subject["namespace"].as_str() {
                Some(namespace) => format!("{namespace}/{name}"),
                None => name.to_owned(),
            }
        })
        .collect();
    json!(names.join(", "))
}
