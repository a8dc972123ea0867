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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::objects;
    use crate::state::Command;
    use serde_json::{Value, json};

    fn put(state: &mut State, resource: Resource, name: &str, extra: Value) {
        let namespace = if resource.namespaced() { "default" } else { "" };
        let key = Key::new(resource, namespace, name);
        let body = objects::fresh(&key, json!({}), extra);
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
    }

    fn assign(state: &mut State, name: &str, node: &str, env: Value) {
        let extra = json!({ "spec": {
            "functionName": "hello", "functionUid": "u", "functionGeneration": 2,
            "nodeName": node, "slot": "0",
            "function": { "artifact": { "sha256": "00" }, "env": env },
            "artifact": {
                "target": "t", "sourceSha256": "00", "sha256": "11", "size": 1,
                "wasmtimeVersion": "48", "description": BASE64.encode("d"), "signature": BASE64.encode("s"),
            },
        }});
        put(state, Resource::Assignment, name, extra);
    }

    #[test]
    fn a_node_gets_its_own_assignments_with_defaults_and_routes() {
        let mut state = State::default();
        assign(
            &mut state,
            "hello.0",
            "pi",
            json!([{ "name": "A", "value": "b" }]),
        );
        assign(&mut state, "hello.1", "phone", json!([]));
        let set = desired(&state, "pi");
        assert_eq!(set.problems, []);
        let [assignment] = &set.assignments[..] else {
            panic!("{set:?}");
        };
        let assignment = assignment.assignment();
        assert_eq!(assignment.name, "hello.0");
        assert_eq!(assignment.env["A"], "b");
        assert_eq!(assignment.env["HIVE_FUNCTION"], "hello");
        assert_eq!(assignment.limits.as_ref().unwrap().timeout_ms, 30_000);
        assert_eq!(assignment.routes[0].host, "hello.default.localhost");
        assert_eq!(assignment.config, BTreeMap::new());
        assert_eq!((&assignment.key_value, assignment.scratch), (&None, None));
        assert_eq!((&*assignment.revision, assignment.canary), ("", false));
    }

    #[test]
    fn a_node_answers_no_path_that_is_reserved() {
        let mut state = State::default();
        assign(&mut state, "hello.0", "pi", json!([]));
        let key = Key::new(Resource::Assignment, "default", "hello.0");
        let mut body = state.get(&key).unwrap().body().clone();
        let routes = json!([{ "path": "/a" }, { "path": "/a/.hive/callback" }]);
        body["spec"]["function"]["http"] = json!({ "routes": routes });
        let (body, expect) = (body.into(), None);
        state.apply(Command::Replace { key, body, expect }).unwrap();
        let set = desired(&state, "pi");
        let routes = set.assignments[0].assignment().routes.iter();
        let paths: Vec<&str> = routes.map(|route| &*route.path).collect();
        assert_eq!(paths, ["/a"]);
    }

    #[test]
    fn a_copy_on_trial_says_of_what_and_has_no_route() {
        let mut state = State::default();
        assign(&mut state, "hello.c0", "pi", json!([]));
        let key = Key::new(Resource::Assignment, "default", "hello.c0");
        let mut body = state.get(&key).unwrap().body().clone();
        body["spec"]["revision"] = json!("hello-1");
        body["spec"]["canary"] = json!(true);
        let (body, expect) = (body.into(), None);
        state.apply(Command::Replace { key, body, expect }).unwrap();
        let set = desired(&state, "pi");
        let assignment = set.assignments[0].assignment();
        assert_eq!(
            (&*assignment.revision, assignment.canary),
            ("hello-1", true)
        );
        assert_eq!(assignment.routes, []);
    }

    #[test]
    fn where_a_copy_was_before_it_goes_on_as_it_is() {
        let mut state = State::default();
        assign(
            &mut state,
            "hello.0",
            "pi",
            json!([{ "name": "A", "value": "b" }]),
        );
        let before = desired(&state, "pi");
        let key = Key::new(Resource::Assignment, "default", "hello.0");
        let mut body = state.get(&key).unwrap().body().clone();
        let mut previous = body["spec"].clone();
        previous["until"] = json!("2026-01-01T00:00:00Z");
        body["spec"]["previous"] = previous;
        body["spec"]["nodeName"] = json!("phone");
        body["spec"]["functionGeneration"] = json!(3);
        body["spec"]["revision"] = json!("hello-3");
        body["spec"]["artifact"]["target"] = json!("arm");
        let (body, expect) = (body.into(), None);
        state.apply(Command::Replace { key, body, expect }).unwrap();
        assert_eq!(desired(&state, "pi"), before);
        let now = desired(&state, "phone");
        let assignment = now.assignments[0].assignment();
        assert_eq!(
            (&*assignment.revision, assignment.function_generation),
            ("hello-3", 3)
        );
    }

    #[test]
    fn only_what_is_said_of_instances_is_sent() {
        let sent = |said: Value| instances(serde_json::from_value(said).unwrap());
        assert_eq!(sent(json!({})), None);
        let said = json!({ "reuse": "Serial", "idleTimeout": "1m" });
        let expected = v1::Instances {
            reuse: v1::Reuse::Serial.into(),
            idle_ms: Some(60_000),
            ..v1::Instances::default()
        };
        assert_eq!(sent(said), Some(expected));
    }

    #[test]
    fn limits_that_agents_assume_are_not_sent() {
        let sent = |more: Value| {
            let mut spec = json!({ "artifact": { "sha256": "00" } });
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            limits(&serde_json::from_value(spec).unwrap())
        };
        let unsaid = v1::Limits {
            memory_bytes: 128 << 20,
            timeout_ms: 30_000,
            concurrency: 100,
            ..v1::Limits::default()
        };
        assert_eq!(sent(json!({})), unsaid);
        let said = json!({
            "queueTimeout": "10s",
            "limits": { "cpuTime": "10s", "responseSize": "64Mi", "handles": 1000 },
        });
        assert_eq!(sent(said), unsaid);
        let other = json!({
            "queueTimeout": "0s",
            "limits": { "cpuTime": "1s", "responseSize": "1Mi", "handles": 64 },
        });
        let expected = v1::Limits {
            queue_ms: Some(0),
            cpu_ms: 1000,
            response_bytes: 1 << 20,
            handles: 64,
            ..unsaid
        };
        assert_eq!(sent(other), expected);

        assert_eq!(egress(&Egress::default()), None);
        let more = json!({ "maxConnections": 1, "connectTimeout": "1s", "idleTimeout": "2s" });
        let sent = egress(&serde_json::from_value(more).unwrap()).unwrap();
        assert_eq!(sent.max_connections, Some(1));
        assert_eq!(sent.connect_ms, Some(1000));
        assert_eq!((sent.first_byte_ms, sent.idle_ms), (None, Some(2000)));
    }

    #[test]
    fn references_are_resolved_and_missing_ones_named() {
        let mut state = State::default();
        put(
            &mut state,
            Resource::Secret,
            "s",
            json!({ "data": { "k": BASE64.encode("v") } }),
        );
        put(
            &mut state,
            Resource::ConfigMap,
            "c",
            json!({ "data": { "k": "w" } }),
        );
        let reference = |kind: &str, name: &str, optional: bool| {
            json!({
                "name": kind, "valueFrom": { kind: { "name": name, "key": "k", "optional": optional } },
            })
        };
        let good = json!([
            reference("secretKeyRef", "s", false),
            reference("configMapKeyRef", "c", false),
        ]);
        assign(&mut state, "good.0", "pi", good);
        assign(
            &mut state,
            "optional.0",
            "pi",
            json!([reference("secretKeyRef", "none", true)]),
        );
        assign(
            &mut state,
            "bad.0",
            "pi",
            json!([reference("secretKeyRef", "none", false)]),
        );
        let set = desired(&state, "pi");
        let by_name = |name: &str| {
            let mut all = set.assignments.iter().map(EncodedAssignment::assignment);
            all.find(|a| a.name == name)
        };
        assert_eq!(by_name("good.0").unwrap().env["secretKeyRef"], "v");
        assert_eq!(by_name("good.0").unwrap().env["configMapKeyRef"], "w");
        assert!(
            !by_name("optional.0")
                .unwrap()
                .env
                .contains_key("secretKeyRef")
        );
        assert_eq!(
            set.problems[0].message,
            "spec.env[0].valueFrom: secret \"none\" does not exist; create it, or mark the reference optional"
        );
    }

    #[test]
    fn settings_are_no_environment_and_the_environment_is_no_setting() {
        let mut state = State::default();
        put(
            &mut state,
            Resource::Secret,
            "s",
            json!({ "data": { "k": BASE64.encode("v") } }),
        );
        let config: Vec<ConfigValue> = serde_json::from_value(json!([
            { "name": "plain", "value": "1" },
            { "name": "secret", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
        ]))
        .unwrap();
        let values = configuration(&state, "default", &config).unwrap();
        let expected = [("plain", "1"), ("secret", "v")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(values, expected.into());

        let missing = configuration(&state, "other", &config).unwrap_err();
        let message = missing.to_string();
        assert!(message.starts_with("spec.config[1].valueFrom: secret \"s\""));
    }
}
