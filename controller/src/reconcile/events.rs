//! Events: what happened to an object, for people. The same thing again raises a count.

use std::time::SystemTime;

use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::artifacts::Digest;
use crate::gateway::bounds::cut;
use crate::objects::{self, Writer};
use crate::state::{Command, Key};
use crate::store::ProposeError;

/// Cluster-scoped objects' events live here, as in Kubernetes.
const DEFAULT_NAMESPACE: &str = "default";

/// Annotations of the last occasion; `hivectl logs --request-id` finds the rest.
const REQUEST_ID: &str = "hive.dev/request-id";
const TRACE_ID: &str = "hive.dev/trace-id";
const GENERATION: &str = "hive.dev/generation";

/// Bytes of a message, as Kubernetes has it. A compiler can say much more.
pub const MAX_MESSAGE_BYTES: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub warning: bool,
    /// CamelCase.
    pub reason: String,
    pub message: String,
    /// Who says so: "scheduler", "agent/pi-3".
    pub source: String,
    /// How often it happened since it was told last; at least once.
    pub count: u32,
}

/// When something happened last. No part of what it is: many of them are one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occasion {
    /// Empty where it was in no request.
    pub request_id: String,
    /// Empty of a request that named none.
    pub trace_id: String,
    /// Of the function; 0 where that is not known.
    pub generation: u64,
}

impl Occasion {
    /// As the event's annotations.
    fn note(&self, body: &mut Value) {
        let generation = (self.generation > 0).then(|| self.generation.to_string());
        let known = |id: &String| (!id.is_empty()).then(|| id.clone());
        let request_id = known(&self.request_id);
        let before = body.pointer_mut("/metadata/annotations");
        if let (Some(_), Some(Value::Object(before))) = (&request_id, before) {
            // It was that of another request.
            before.remove(TRACE_ID);
        }
        for (name, value) in [
            (REQUEST_ID, request_id),
            (TRACE_ID, known(&self.trace_id)),
            (GENERATION, generation),
        ] {
            if let Some(value) = value {
                body["metadata"]["annotations"][name] = json!(value);
            }
        }
    }
}

/// Records an event about an object; one that can't be written is logged and lost.
pub async fn record(writer: &impl Writer, about: &Key, notice: Notice) {
    record_of(writer, about, notice, Occasion::default()).await;
}

/// The same, with the last time that it happened.
pub async fn record_of(writer: &impl Writer, about: &Key, mut notice: Notice, last: Occasion) {
    cut(&mut notice.message, MAX_MESSAGE_BYTES);
    let uid = writer
        .replica()
        .state()
        .get(about)
        .map(|object| object.uid().to_owned())
        .unwrap_or_default();
    let namespace = match &*about.namespace {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    let identity = format!(
        "{uid}\0{}\0{}\0{}",
        notice.reason, notice.message, notice.source
    );
    let suffix = &Digest::of(identity.as_bytes()).hex()[..16];
    let key = Key::new(
        Resource::Event,
        namespace,
        format!("{}.{suffix}", about.name),
    );
    let now = objects::timestamp(SystemTime::now());
    let again = objects::edit(writer, &key, |body| {
        body["count"] = json!(
            body["count"]
                .as_u64()
                .unwrap_or(1)
                .saturating_add(notice.count.into())
        );
        body["lastTimestamp"] = json!(now);
        last.note(body);
        true
    })
    .await;
    let failed = match again {
        Ok(()) => None,
        Err(objects::EditError::NotFound(_)) => {
            let mut body = objects::fresh(
                &key,
                json!({}),
                json!({
                    "involvedObject": {
                        "apiVersion": about.resource.api_version(),
                        "kind": about.resource.kind(),
                        "namespace": about.namespace,
                        "name": about.name,
                        "uid": uid,
                    },
                    "type": if notice.warning { "Warning" } else { "Normal" },
                    "reason": notice.reason,
                    "message": notice.message,
                    "source": { "component": notice.source },
                    "firstTimestamp": now,
                    "lastTimestamp": now,
                    "count": notice.count,
                }),
            );
            last.note(&mut body);
            match writer
                .write(Command::Create {
                    key,
                    body: body.into(),
                })
                .await
            {
                Ok(()) | Err(ProposeError::Rejected(_)) => None,
                Err(error) => Some(error.to_string()),
            }
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(error) = failed {
        tracing::warn!(object = %about, reason = notice.reason, error, "cannot record event");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_occasion_is_an_annotation_where_there_was_one() {
        let mut body = json!({ "metadata": { "annotations": { "kept": "yes" } } });
        let occasion = |request_id: &str, generation| Occasion {
            request_id: request_id.into(),
            trace_id: String::new(),
            generation,
        };
        occasion("", 0).note(&mut body);
        assert_eq!(body["metadata"]["annotations"], json!({ "kept": "yes" }));
        let traced = Occasion {
            trace_id: "t-1".into(),
            ..occasion("r-0", 3)
        };
        traced.note(&mut body);
        assert_eq!(
            body["metadata"]["annotations"],
            json!({ "kept": "yes", REQUEST_ID: "r-0", TRACE_ID: "t-1", GENERATION: "3" })
        );
        occasion("r-1", 3).note(&mut body);
        // It had none: that of the one before says where to look all the same.
        occasion("", 4).note(&mut body);
        assert_eq!(
            body["metadata"]["annotations"],
            json!({ "kept": "yes", REQUEST_ID: "r-1", GENERATION: "4" })
        );
        let mut bare = json!({ "metadata": {} });
        occasion("r-2", 0).note(&mut bare);
        assert_eq!(
            bare["metadata"]["annotations"],
            json!({ REQUEST_ID: "r-2" })
        );
    }
}
