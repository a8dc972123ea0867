//! What one node must run, whole: a pure function of the state.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_functions::{EgressLimits, Limits};
use hive_manifests::duration::GoDuration;
use hive_manifests::function::{ConfigValue, Egress, EnvVar, FunctionSpec};
use hive_manifests::instances::{Instances, Reuse};
use hive_manifests::{Assignment, AssignmentSpec, Function, Resource};
use hive_proto::{EncodedAssignment, v1};

use super::local_routes;
use crate::ingress::routes;
use crate::references::{self, Missing};
use crate::state::{Key, Object, State};

/// Why an assignment can't be sent whose Secret or ConfigMap is not there.
pub const MISSING_REFERENCE: &str = "MissingReference";

/// The desired set of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSet {
    /// In order of namespace and name.
    pub assignments: Vec<EncodedAssignment>,
    /// Assignments that can't be sent, and why.
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub key: Key,
    pub uid: String,
    /// CamelCase.
    pub reason: &'static str,
    pub message: String,
}

pub fn desired(state: &State, node: &str) -> NodeSet {
    let mut set = NodeSet::default();
    let domain = routes::domain(state);
    let mut assignments = Vec::new();
    for object in state.assignments_on(node) {
        match assignment(state, object, node, domain) {
            Ok(assignment) => assignments.push(assignment),
            Err((reason, message)) => set.problems.push(Problem {
                key: object.key().clone(),
                uid: object.uid().to_owned(),
                reason,
                message,
            }),
        }
    }
    local_routes::give_to_oldest(&mut assignments, domain, |(namespace, name)| {
        let key = Key::new(Resource::Function, &**namespace, &**name);
        let function: Function = state.get(&key)?.parse().ok()?;
        routes::claimant(&key, &function.metadata)
    });
    let encoded = assignments.into_iter().map(EncodedAssignment::new);
    set.assignments = encoded.collect();
    set
}

fn assignment(
    state: &State,
    object: &Object,
    node: &str,
    domain: &str,
) -> Result<v1::Assignment, Refusal> {
    let mut parsed: Assignment = object
        .parse()
        .map_err(|e| ("InvalidAssignment", e.to_string()))?;
    let namespace = object.key().namespace.clone();
    // Where it was before it goes on as it is: not a byte may differ there.
    if parsed.spec.node_name != node
        && let Some(previous) = parsed.spec.previous.take()
    {
        let previous = *previous;
        parsed.spec = AssignmentSpec {
            node_name: previous.node_name,
            function_generation: previous.function_generation,
            function: previous.function,
            revision: previous.revision,
            artifact: previous.artifact,
            ..parsed.spec
        };
    }
    let AssignmentSpec {
        function_name,
        function_uid,
        function_generation,
        function,
        revision,
        canary,
        artifact,
        ..
    } = parsed.spec;
    let signed = |text: &str| {
        BASE64.decode(text).map_err(|e| {
            (
                "InvalidArtifact",
                format!("the compiled artifact's record: {e}"),
            )
        })
    };
    // Which version is tried how often is for the ingress to say, so a node's own address does not find it.
    let routes = match canary {
        true => Vec::new(),
        false => routes::answered_routes(&function_name, &namespace, &function.http, domain),
    };
    Ok(v1::Assignment {
        name: object.key().name.clone(),
        uid: object.uid().to_owned(),
        function_generation: function_generation.unsigned_abs(),
        artifact: Some(v1::CompiledArtifact {
            description: signed(&artifact.description)?,
            signature: signed(&artifact.signature)?,
        }),
        limits: Some(limits(&function)),
        env: environment(state, &namespace, &function_name, &function.env).map_err(refusal)?,
        config: configuration(state, &namespace, &function.config).map_err(refusal)?,
        egress: egress(&function.egress),
        instances: function.instances.and_then(instances),
        key_value: function.key_value.map(|given| v1::KeyValue {
            function_uid,
            stores: given.stores,
            size_limit: given.size_limit.0,
        }),
        scratch: function.scratch.map(|given| v1::Scratch {
            size_limit: given.size_limit.0,
        }),
        readiness: function.readiness_probe.map(|probe| v1::Readiness {
            path: probe.http_get.path,
            timeout_ms: u64::from(probe.timeout_seconds) * 1000,
            period_ms: u64::from(probe.period_seconds) * 1000,
            failure_threshold: probe.failure_threshold,
        }),
        allowed_hosts: function.allowed_hosts,
        routes,
        revision,
        canary,
        function: function_name,
        namespace,
    })
}

/// What agents assume by themselves stays unsaid: the bytes of an assignment are its identity, and a
/// field more would load every function anew.
fn limits(function: &FunctionSpec) -> v1::Limits {
    let (cpu_time, queue) = (function.limits.cpu_time.0, function.queue_timeout.0);
    let unless = |value: u64, default: u64| if value == default { 0 } else { value };
    v1::Limits {
        memory_bytes: function.resources.memory.0,
        timeout_ms: millis(function.timeout.0),
        concurrency: function.concurrency,
        cpu_ms: unless(millis(cpu_time), millis(Limits::CPU_TIME)),
        response_bytes: unless(function.limits.response_size.0, Limits::RESPONSE_BYTES),
        handles: match function.limits.handles {
            Limits::HANDLES => 0,
            handles => handles,
        },
        queue_ms: (queue != Limits::QUEUE).then(|| millis(queue)),
    }
}

/// Likewise.
fn egress(egress: &Egress) -> Option<v1::Egress> {
    let (connections, connect) = (egress.max_connections, egress.connect_timeout.0);
    let timeout = |timeout: &Option<GoDuration>| timeout.as_ref().map(|t| millis(t.0));
    let said = v1::Egress {
        max_connections: (connections != EgressLimits::CONNECTIONS).then_some(connections),
        connect_ms: (connect != EgressLimits::CONNECT).then(|| millis(connect)),
        first_byte_ms: timeout(&egress.first_byte_timeout),
        idle_ms: timeout(&egress.idle_timeout),
    };
    (said != v1::Egress::default()).then_some(said)
}

/// Likewise.
fn instances(instances: Instances) -> Option<v1::Instances> {
    let reuse = match instances.reuse {
        None => v1::Reuse::Unspecified,
        Some(Reuse::Fresh) => v1::Reuse::Fresh,
        Some(Reuse::Serial) => v1::Reuse::Serial,
        Some(Reuse::Concurrent) => v1::Reuse::Concurrent,
    };
    let said = v1::Instances {
        reuse: reuse.into(),
        max_requests: instances.max_requests,
        max_concurrent: instances.max_concurrent,
        idle_ms: instances.idle_timeout.map(|timeout| millis(timeout.0)),
    };
    (said != v1::Instances::default()).then_some(said)
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Why an assignment can't be sent, in CamelCase and in words.
type Refusal = (&'static str, String);

fn refusal(missing: Missing) -> Refusal {
    (MISSING_REFERENCE, missing.to_string())
}

/// The variables with their values, and those that Hive sets.
fn environment(
    state: &State,
    namespace: &str,
    function: &str,
    env: &[EnvVar],
) -> Result<BTreeMap<String, String>, Missing> {
    let mut values: BTreeMap<String, String> = [
        ("HIVE_FUNCTION".to_owned(), function.to_owned()),
        ("HIVE_NAMESPACE".to_owned(), namespace.to_owned()),
    ]
    .into();
    for (index, variable) in env.iter().enumerate() {
        let place = || format!("spec.env[{index}]");
        let source = (&variable.value, &variable.value_from);
        if let Some(value) = references::value(state, namespace, place, source)? {
            values.insert(variable.name.clone(), value);
        }
    }
    Ok(values)
}

/// The settings with their values, and nothing else.
fn configuration(
    state: &State,
    namespace: &str,
    config: &[ConfigValue],
) -> Result<BTreeMap<String, String>, Missing> {
    let mut values = BTreeMap::new();
    for (index, setting) in config.iter().enumerate() {
        let place = || format!("spec.config[{index}]");
        let source = (&setting.value, &setting.value_from);
        if let Some(value) = references::value(state, namespace, place, source)? {
            values.insert(setting.name.clone(), value);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
