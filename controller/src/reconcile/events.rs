//! Events: what happened to an object, for people. The same thing again raises a count.

use std::time::SystemTime;

use hive_manifests::Resource;
use serde_json::json;

use crate::artifacts::Digest;
use crate::gateway::bounds::cut;
use crate::objects::{self, Writer};
use crate::state::{Command, Key};
use crate::store::ProposeError;

/// Cluster-scoped objects' events live here, as in Kubernetes.
const DEFAULT_NAMESPACE: &str = "default";

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

/// Records an event about an object; one that can't be written is logged and lost.
pub async fn record(writer: &impl Writer, about: &Key, mut notice: Notice) {
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
        true
    })
    .await;
    let failed = match again {
        Ok(()) => None,
        Err(objects::EditError::NotFound(_)) => {
            let body = objects::fresh(
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
