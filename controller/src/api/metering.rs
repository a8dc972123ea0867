//! `metering.hive.dev/v1`: what functions and namespaces used, each thing counted once.
//!
//! Totals are in the replicated state, put there by batches of nodes: every controller answers alike.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use axum::response::Response;
use hive_manifests::Resource;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::media::Form;
use super::selectors::LabelSelector;
use super::{Api, Call, respond, table};
use crate::objects::timestamp;
use crate::state::metering::{Total, Used};
use crate::state::{Key, State};

const API_VERSION: &str = "metering.hive.dev/v1";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Metered {
    Functions {
        namespace: Option<String>,
        name: Option<String>,
    },
    Namespaces(Option<String>),
}

impl Metered {
    /// Of the segments behind the group's version.
    pub fn parse(segments: &[&str]) -> Option<Self> {
        let (namespace, name) = match *segments {
            ["namespaces"] => return Some(Self::Namespaces(None)),
            ["namespaces", name] => return Some(Self::Namespaces(Some(name.to_owned()))),
            ["functions"] => (None, None),
            ["namespaces", namespace, "functions"] => (Some(namespace), None),
            ["namespaces", namespace, "functions", name] => (Some(namespace), Some(name)),
            _ => return None,
        };
        Some(Self::Functions {
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        })
    }

    pub fn resource(&self) -> &'static str {
        match self {
            Self::Functions { .. } => "functions",
            Self::Namespaces(_) => "namespaces",
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Functions { .. } => "FunctionUsage",
            Self::Namespaces(_) => "NamespaceUsage",
        }
    }

    /// As Kubernetes has it, a namespace lies in itself: who may see into it may see what it used.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Functions { namespace, .. } => namespace.as_deref(),
            Self::Namespaces(name) => name.as_deref(),
        }
    }

    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Functions { name, .. } | Self::Namespaces(name) => name.as_deref(),
        }
    }

    /// What there is of it, in order; nothing where what is named is not there.
    fn of(&self, state: &State, labels: &LabelSelector) -> Vec<Value> {
        let is_asked = |key: &Key| self.name().is_none_or(|name| name == key.name);
        let metering = state.metering();
        let nothing = Total::default();
        match self {
            Self::Functions { namespace, .. } => state
                .list(Resource::Function, namespace.as_deref())
                .filter(|function| is_asked(function.key()) && labels.matches(function))
                .map(|function| {
                    let key = function.key();
                    let total = metering.function(&key.namespace, &key.name);
                    usage(self.kind(), key, total.unwrap_or(&nothing))
                })
                .collect(),
            Self::Namespaces(_) => {
                let there = state.list(Resource::Namespace, None);
                let there = there.map(|namespace| namespace.key().clone());
                // Those that are gone are owed for all the same.
                let gone = metering.namespaces();
                let gone = gone.map(|(name, _)| Key::new(Resource::Namespace, "", &**name));
                let all: BTreeSet<Key> = there.chain(gone).filter(is_asked).collect();
                all.iter()
                    .filter(|key| match state.get(key) {
                        Some(namespace) => labels.matches(namespace),
                        None => labels.matches_unlabelled(),
                    })
                    .map(|key| {
                        let total = metering.namespace(&key.name);
                        usage(self.kind(), key, total.unwrap_or(&nothing))
                    })
                    .collect()
            }
        }
    }

    /// Of the object that is named.
    fn key(&self) -> Key {
        let name = self.name().unwrap_or_default();
        match self {
            Self::Functions { namespace, .. } => {
                let namespace = namespace.as_deref().unwrap_or_default();
                Key::new(Resource::Function, namespace, name)
            }
            Self::Namespaces(_) => Key::new(Resource::Namespace, "", name),
        }
    }
}

pub(super) async fn serve(
    context: &Api,
    asked: Metered,
    call: &Call,
) -> Result<Response, ApiError> {
    let form = Form::accepted(&call.headers)?;
    let labels = call.query.labels()?;
    let state = context.state_at_least(call.query.resource_version).await?;
    let items = asked.of(&state, &labels);
    let in_table = |items: &[Value]| {
        let include = call.query.include_object;
        table::of_usage(items.iter(), json!({}), include, Timestamp::now())
    };
    let shown = match (asked.name(), form) {
        (Some(_), _) if items.is_empty() => return Err(ApiError::not_found(&asked.key())),
        (_, Form::Table) => in_table(&items),
        (Some(_), Form::Metadata) => table::partial(&items[0]),
        (Some(_), Form::Object) => items.into_iter().next().unwrap_or_default(),
        (None, Form::Metadata) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {},
            "items": items.iter().map(table::partial).collect::<Vec<_>>(),
        }),
        (None, Form::Object) => json!({
            "kind": format!("{}List", asked.kind()),
            "apiVersion": API_VERSION,
            "metadata": {},
            "items": items,
        }),
    };
    respond::json(StatusCode::OK, &shown)
}

fn usage(kind: &str, of: &Key, total: &Total) -> Value {
    let Used {
        requests,
        errors,
        cpu_micros,
        memory_kib_ms,
        bytes_in,
        bytes_out,
    } = total.used;
    let mut usage = json!({
        "kind": kind,
        "apiVersion": API_VERSION,
        "metadata": { "name": of.name },
        "requests": requests,
        "errors": errors,
        "cpuMilliseconds": cpu_micros / 1000,
        "gbSeconds": gb_seconds(memory_kib_ms),
        "receivedBytes": bytes_in,
        "sentBytes": bytes_out,
    });
    if !of.namespace.is_empty() {
        usage["metadata"]["namespace"] = json!(of.namespace);
    }
    // Nothing was counted before.
    if total.until_unix_ms > 0 {
        usage["since"] = json!(time(total.since_unix_ms));
        usage["until"] = json!(time(total.until_unix_ms));
    }
    usage
}

/// 1 GB is 1,024 MiB, as it is where functions are sold. Three figures after the point.
fn gb_seconds(kib_ms: u64) -> f64 {
    let seconds = kib_ms as f64 / f64::from(1 << 20) / 1000.0;
    (seconds * 1000.0).round() / 1000.0
}

fn time(unix_ms: u64) -> String {
    timestamp(UNIX_EPOCH + Duration::from_millis(unix_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_in_the_units_of_a_bill() {
        let total = Total {
            uid: "u".into(),
            since_unix_ms: 1_700_000_000_000,
            until_unix_ms: 1_700_000_060_000,
            used: Used {
                requests: 10,
                errors: 1,
                cpu_micros: 1_234_567,
                // 256 MiB for 10 s.
                memory_kib_ms: 256 * 1024 * 10_000,
                bytes_in: 1,
                bytes_out: 2,
            },
        };
        let key = Key::new(Resource::Function, "a", "f");
        let shown = usage("FunctionUsage", &key, &total);
        for (field, expected) in [
            ("metadata", json!({ "name": "f", "namespace": "a" })),
            ("since", json!("2023-11-14T22:13:20Z")),
            ("until", json!("2023-11-14T22:14:20Z")),
            ("requests", json!(10)),
            ("errors", json!(1)),
            ("cpuMilliseconds", json!(1234)),
            ("gbSeconds", json!(2.5)),
            ("receivedBytes", json!(1)),
            ("sentBytes", json!(2)),
        ] {
            assert_eq!(shown[field], expected, "{field}");
        }
        let unused = usage("FunctionUsage", &key, &Total::default());
        assert_eq!(
            (&unused["requests"], &unused["since"]),
            (&json!(0), &Value::Null)
        );
    }
}
