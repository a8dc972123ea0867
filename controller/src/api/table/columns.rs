//! The columns of each kind, and how a cell is read from an object.

mod controller;
mod policy;
mod tunnel;
mod usage;

use hive_manifests::Resource;
use hive_manifests::age::human;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::node_conditions;

pub(super) use controller::CONTROLLER;
pub(super) use usage::USAGE;

pub(super) struct Column {
    name: &'static str,
    /// An OpenAPI type.
    kind: &'static str,
    description: &'static str,
    /// Shown only by `-o wide`.
    wide: bool,
    read: fn(&Value, Timestamp) -> Value,
}

impl Column {
    pub fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": if self.name == "Name" { "name" } else { "" },
            "description": self.description,
            "priority": u8::from(self.wide),
        })
    }

    pub fn cell(&self, body: &Value, now: Timestamp) -> Value {
        (self.read)(body, now)
    }
}

const fn column(
    name: &'static str,
    description: &'static str,
    read: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column {
        name,
        kind: "string",
        description,
        wide: false,
        read,
    }
}

const fn wide(
    name: &'static str,
    description: &'static str,
    read: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column {
        wide: true,
        ..column(name, description, read)
    }
}

const NAME: Column = column("Name", "Unique within its namespace", |body, _| {
    text(&body["metadata"]["name"])
});
const AGE: Column = column("Age", "Since its creation", |body, now| {
    age(&body["metadata"]["creationTimestamp"], now)
});

pub(super) fn columns(resource: Resource) -> &'static [Column] {
    match resource {
        Resource::Namespace => NAMESPACE,
        Resource::Secret => SECRET,
        Resource::ConfigMap => CONFIG_MAP,
        Resource::ServiceAccount => policy::SERVICE_ACCOUNT,
        Resource::ResourceQuota => policy::RESOURCE_QUOTA,
        Resource::LimitRange => policy::LIMIT_RANGE,
        Resource::ClusterRole | Resource::Role => policy::ROLE,
        Resource::ClusterRoleBinding | Resource::RoleBinding => policy::ROLE_BINDING,
        Resource::CertificateSigningRequest => policy::CERTIFICATE_SIGNING_REQUEST,
        Resource::Event => EVENT,
        Resource::Node => NODE,
        Resource::Function => FUNCTION,
        Resource::Tunnel => tunnel::TUNNEL,
        Resource::ControllerRevision => CONTROLLER_REVISION,
        Resource::Assignment => ASSIGNMENT,
    }
}

const NAMESPACE: &[Column] = &[
    NAME,
    column(
        "Status",
        "Active, or Terminating while it is emptied",
        |body, _| text(&body["status"]["phase"]),
    ),
    AGE,
];

const SECRET: &[Column] = &[
    NAME,
    column("Type", "What the secret is for", |body, _| {
        text(&body["type"])
    }),
    Column {
        kind: "integer",
        ..column("Data", "Number of entries", |body, _| count(&body["data"]))
    },
    AGE,
];

const CONFIG_MAP: &[Column] = &[
    NAME,
    Column {
        kind: "integer",
        ..column("Data", "Number of entries", |body, _| {
            let entries = |field: &str| body[field].as_object().map_or(0, serde_json::Map::len);
            json!(entries("data") + entries("binaryData"))
        })
    },
    AGE,
];

const EVENT: &[Column] = &[
    column("Last Seen", "When it happened last", |body, now| {
        let last = ["lastTimestamp", "eventTime", "firstTimestamp"]
            .into_iter()
            .map(|field| &body[field])
            .find(|time| time.is_string());
        age(last.unwrap_or(&body["metadata"]["creationTimestamp"]), now)
    }),
    column("Type", "Normal or Warning", |body, _| text(&body["type"])),
    column("Reason", "Why, in one word", |body, _| {
        text(&body["reason"])
    }),
    column("Object", "What it is about", |body, _| {
        let about = &body["involvedObject"];
        json!(format!(
            "{}/{}",
            about["kind"].as_str().unwrap_or_default().to_lowercase(),
            about["name"].as_str().unwrap_or_default()
        ))
    }),
    wide("Subobject", "The part of the object", |body, _| {
        text(&body["involvedObject"]["fieldPath"])
    }),
    wide("Source", "Who says so", |body, _| {
        let component = &body["source"]["component"];
        match body["source"]["host"].as_str() {
            Some(host) => json!(format!(
                "{}, {host}",
                component.as_str().unwrap_or_default()
            )),
            None => text(component),
        }
    }),
    column("Message", "What happened", |body, _| {
        json!(body["message"].as_str().unwrap_or_default().trim())
    }),
    wide("First Seen", "When it happened first", |body, now| {
        age(&body["firstTimestamp"], now)
    }),
    wide("Count", "How often it happened", |body, _| {
        json!(body["count"].as_u64().unwrap_or(1).to_string())
    }),
    Column { wide: true, ..NAME },
];

const NODE: &[Column] = &[
    NAME,
    column(
        "Status",
        "Ready, NotReady or Unknown; what keeps new work off",
        |body, _| {
            let mut status = match condition(body, "Ready") {
                Some("True") => "Ready",
                Some("False") => "NotReady",
                _ => "Unknown",
            }
            .to_owned();
            if body["spec"]["unschedulable"] == true {
                status.push_str(",SchedulingDisabled");
            }
            let conditions = body["status"]["conditions"].as_array();
            let kinds = conditions.into_iter().flatten();
            let kinds = kinds.filter(|one| one["status"] == "True");
            for kind in kinds.filter_map(|one| one["type"].as_str()) {
                if node_conditions::is_adverse(kind) {
                    status.push(',');
                    status.push_str(kind);
                }
            }
            json!(status)
        },
    ),
    column(
        "Roles",
        "From labels node-role.hive.dev/<role>",
        |body, _| {
            let roles: Vec<&str> = body["metadata"]["labels"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(label, _)| label.strip_prefix("node-role.hive.dev/"))
                .collect();
            match roles.as_slice() {
                [] => json!("<none>"),
                roles => json!(roles.join(",")),
            }
        },
    ),
    AGE,
    column("Version", "Of its agent", |body, _| {
        text(&body["status"]["nodeInfo"]["agentVersion"])
    }),
    wide(
        "Address",
        "Where it serves its functions to its own network",
        |body, _| text(&body["status"]["localAddress"]),
    ),
    wide("OS", "Operating system", |body, _| {
        text(&body["status"]["nodeInfo"]["os"])
    }),
    wide("Arch", "Processor architecture", |body, _| {
        text(&body["status"]["nodeInfo"]["arch"])
    }),
    wide("Memory", "Offered to functions", |body, _| {
        text(&body["status"]["allocatable"]["memory"])
    }),
    wide("CPU", "Offered to functions", |body, _| {
        text(&body["status"]["allocatable"]["cpu"])
    }),
    wide("Target", "What components are compiled for", |body, _| {
        text(&body["status"]["nodeInfo"]["target"])
    }),
];

const FUNCTION: &[Column] = &[
    NAME,
    column(
        "Ready",
        "Copies that answer requests, of the copies wanted",
        |body, _| {
            if let Some(ready) = body["status"]["ready"].as_str() {
                return json!(ready);
            }
            let ready = body["status"]["readyReplicas"].as_u64().unwrap_or(0);
            match body["spec"]["replicas"].as_u64() {
                Some(wanted) => json!(format!("{ready}/{wanted}")),
                None => json!(format!(
                    "{ready}/{}",
                    body["status"]["replicas"].as_u64().unwrap_or(0)
                )),
            }
        },
    ),
    column("Status", "Ready, or in one word why not", |body, _| {
        let conditions = body["status"]["conditions"].as_array();
        let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
        match ready {
            Some(ready) => text(&ready["reason"]),
            None => json!("Pending"),
        }
    }),
    column("URL", "Where it is reached", |body, _| {
        text(&body["status"]["url"])
    }),
    AGE,
    wide("Memory", "The most that one copy may use", |body, _| {
        text(&body["spec"]["resources"]["memory"])
    }),
    wide("Artifact", "Digest of the component", |body, _| {
        text(&body["spec"]["artifact"]["sha256"])
    }),
];

const ASSIGNMENT: &[Column] = &[
    NAME,
    column("Function", "What runs", |body, _| {
        text(&body["spec"]["functionName"])
    }),
    column("Node", "Where it runs", |body, _| {
        text(&body["spec"]["nodeName"])
    }),
    column(
        "Status",
        "Pending, Fetching, Ready, Failed or Unknown",
        |body, _| {
            match body["status"]["phase"].as_str() {
                // A reason says more than that it failed.
                Some("Failed") => match body["status"]["reason"].as_str() {
                    Some(reason) if !reason.is_empty() => json!(reason),
                    _ => json!("Failed"),
                },
                Some(phase) => json!(phase),
                None => json!("Pending"),
            }
        },
    ),
    AGE,
    wide(
        "Generation",
        "Of the function that it runs",
        |body, _| match &body["spec"]["functionGeneration"] {
            Value::Null => Value::Null,
            generation => json!(generation.to_string()),
        },
    ),
    wide("Message", "What the node says", |body, _| {
        text(&body["status"]["message"])
    }),
];

/// As Kubernetes shows them.
const CONTROLLER_REVISION: &[Column] = &[
    NAME,
    column("Controller", "What was so once", |body, _| {
        let owners = body["metadata"]["ownerReferences"].as_array();
        let owner = owners.and_then(|all| all.iter().find(|one| one["controller"] == true));
        let Some(owner) = owner else {
            return json!("<none>");
        };
        let field = |name: &str| owner[name].as_str().unwrap_or_default();
        let kind = field("kind").to_lowercase();
        json!(match field("apiVersion").split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", field("name")),
            None => format!("{kind}/{}", field("name")),
        })
    }),
    Column {
        kind: "integer",
        ..column("Revision", "Which of its owner's it is", |body, _| {
            body["revision"].clone()
        })
    },
    AGE,
];

fn text(value: &Value) -> Value {
    match value.as_str() {
        Some("") | None => json!("<none>"),
        Some(text) => json!(text),
    }
}

fn count(map: &Value) -> Value {
    json!(map.as_object().map_or(0, serde_json::Map::len))
}

fn age(time: &Value, now: Timestamp) -> Value {
    match time
        .as_str()
        .and_then(|time| time.parse::<Timestamp>().ok())
    {
        Some(time) => json!(human(
            now.duration_since(time).try_into().unwrap_or_default()
        )),
        None => json!("<unknown>"),
    }
}

fn condition<'a>(body: &'a Value, kind: &str) -> Option<&'a str> {
    crate::objects::condition(body, kind)
}
