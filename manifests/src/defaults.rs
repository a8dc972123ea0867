//! Writes out what a manifest leaves unsaid, so that what is stored says all that will be done.
//!
//! A validated object flows in and is completed in place: applying it again changes nothing, and a
//! release with other defaults does not change what runs already. It never overrides what was said.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::autoscaling::Autoscaling;
use crate::duration::GoDuration;
use crate::function::{
    Egress, FunctionLimits, KeyValue, Resources, Scratch, default_concurrency,
    default_queue_timeout, default_timeout,
};
use crate::http::{Http, HttpRoute};
use crate::schedule::{default_path, default_starting_deadline_seconds, default_time_zone};
use crate::tunnel::access::default_session;
use crate::tunnel::{Protocol, Tls, TunnelSpec, UDP_IDLE_TIMEOUT, default_host};
use crate::validate::normal_digest;
use crate::{RBAC_GROUP, Resource};

/// Completes `value`. Fields of a wrong type are left for the validation to refuse.
pub fn apply_defaults(resource: Resource, value: &mut Value) {
    drop_nulls(value);
    let Some(object) = value.as_object_mut() else {
        return;
    };
    match resource {
        Resource::Function => {
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                complete_function(spec);
            }
        }
        Resource::Tunnel => {
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                complete_tunnel(spec);
            }
        }
        Resource::Secret => complete_secret(object),
        Resource::ClusterRoleBinding | Resource::RoleBinding => complete_binding(object),
        Resource::Namespace
        | Resource::ServiceAccount
        | Resource::ConfigMap
        | Resource::ResourceQuota
        | Resource::LimitRange
        | Resource::ClusterRole
        | Resource::Role
        | Resource::CertificateSigningRequest
        | Resource::Event
        | Resource::Node
        | Resource::ControllerRevision
        | Resource::Assignment => {}
    }
}

/// A field that is null is a field that is not there.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn complete_function(spec: &mut Map<String, Value>) {
    if let Some(Value::String(digest)) = spec
        .get_mut("artifact")
        .and_then(|artifact| artifact.get_mut("sha256"))
        && let Some(normal) = normal_digest(digest)
    {
        *digest = normal;
    }
    let every_node = spec.get("everyNode") == Some(&Value::Bool(true));
    match spec.get_mut("autoscaling") {
        // Here a number of replicas is a hand that holds them.
        Some(autoscaling) => complete_autoscaling(autoscaling),
        None if every_node => {}
        None => set(spec, "replicas", || json!(1)),
    }
    let resources = Resources::default();
    set(spec, "resources", || json!({}));
    if let Some(fields) = spec.get_mut("resources").and_then(Value::as_object_mut) {
        set(fields, "memory", || json!(resources.memory));
        set(fields, "cpu", || json!(resources.cpu));
    }
    set(spec, "timeout", || json!(default_timeout()));
    set(spec, "concurrency", || json!(default_concurrency()));
    set(spec, "queueTimeout", || json!(default_queue_timeout()));
    let limits = FunctionLimits::default();
    set(spec, "limits", || json!({}));
    if let Some(fields) = spec.get_mut("limits").and_then(Value::as_object_mut) {
        set(fields, "cpuTime", || json!(limits.cpu_time));
        set(fields, "responseSize", || json!(limits.response_size));
        set(fields, "handles", || json!(limits.handles));
    }
    let key_value = KeyValue::default();
    if let Some(fields) = spec.get_mut("keyValue").and_then(Value::as_object_mut) {
        set(fields, "stores", || json!(key_value.stores));
        set(fields, "sizeLimit", || json!(key_value.size_limit));
    }
    if let Some(fields) = spec.get_mut("scratch").and_then(Value::as_object_mut) {
        set(fields, "sizeLimit", || json!(Scratch::default().size_limit));
    }
    let schedules = spec.get_mut("schedules").and_then(Value::as_array_mut);
    for schedule in schedules.into_iter().flatten() {
        if let Some(fields) = schedule.as_object_mut() {
            set(fields, "timeZone", || json!(default_time_zone()));
            set(fields, "startingDeadlineSeconds", || {
                json!(default_starting_deadline_seconds())
            });
            set(fields, "path", || json!(default_path()));
        }
    }
    complete_http(spec);
    let egress = Egress::default();
    set(spec, "egress", || json!({}));
    if let Some(fields) = spec.get_mut("egress").and_then(Value::as_object_mut) {
        set(fields, "maxConnections", || json!(egress.max_connections));
        set(fields, "connectTimeout", || json!(egress.connect_timeout));
    }
}

fn complete_http(spec: &mut Map<String, Value>) {
    set(spec, "http", || json!({}));
    let Some(fields) = spec.get_mut("http").and_then(Value::as_object_mut) else {
        return;
    };
    let routes = fields.get_mut("routes").and_then(Value::as_array_mut);
    let mut routes = routes.into_iter().flatten().peekable();
    let is_one = routes.peek().is_none();
    for fields in routes.filter_map(Value::as_object_mut) {
        let route = HttpRoute::default();
        set(fields, "path", || json!(route.path));
        set(fields, "pathType", || json!(route.path_type));
    }
    if is_one {
        set(fields, "path", || json!(Http::default().path));
    }
}

fn complete_tunnel(spec: &mut Map<String, Value>) {
    let default = TunnelSpec::default();
    set(spec, "protocol", || json!(default.protocol));
    if spec["protocol"] == json!(Protocol::Http) {
        complete_http(spec);
    }
    let targets = spec.get_mut("targets").and_then(Value::as_array_mut);
    for target in targets.into_iter().flatten() {
        if let Some(fields) = target.as_object_mut() {
            set(fields, "host", || json!(default_host()));
        }
    }
    if let Some(fields) = spec.get_mut("tls").and_then(Value::as_object_mut) {
        set(fields, "redirect", || json!(Tls::default().redirect));
    }
    let login = spec.get_mut("access").and_then(|it| it.get_mut("oidc"));
    if let Some(fields) = login.and_then(Value::as_object_mut) {
        set(fields, "sessionDuration", || json!(default_session()));
    }
    set(spec, "healthCheck", || json!({}));
    if let Some(fields) = spec.get_mut("healthCheck").and_then(Value::as_object_mut) {
        set(fields, "interval", || json!(default.health_check.interval));
        set(fields, "timeout", || json!(default.health_check.timeout));
    }
    set(spec, "connectTimeout", || json!(default.connect_timeout));
    let idle = match spec["protocol"] == json!(Protocol::Udp) {
        true => GoDuration(UDP_IDLE_TIMEOUT),
        false => default.idle_timeout,
    };
    set(spec, "idleTimeout", || json!(idle));
    set(spec, "maxConnections", || json!(default.max_connections));
}

fn complete_autoscaling(autoscaling: &mut Value) {
    let Some(fields) = autoscaling.as_object_mut() else {
        return;
    };
    let rule = Autoscaling::default();
    set(fields, "minReplicas", || json!(rule.min_replicas));
    set(fields, "maxReplicas", || json!(rule.max_replicas));
    set(fields, "window", || json!(rule.window));
    set(fields, "scaleToZeroDelay", || {
        json!(rule.scale_to_zero_delay)
    });
}

/// As Kubernetes does: plain text moves from stringData to data, and the type is said.
fn complete_secret(secret: &mut Map<String, Value>) {
    let all_text = |value: &Value| {
        value
            .as_object()
            .is_some_and(|fields| fields.values().all(Value::is_string))
    };
    if secret.get("stringData").is_some_and(all_text)
        && secret.get("data").is_none_or(Value::is_object)
        && let Some(Value::Object(plain)) = secret.remove("stringData")
        && let Some(data) = secret
            .entry("data")
            .or_insert_with(|| json!({}))
            .as_object_mut()
    {
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }
    set(secret, "type", || json!("Opaque"));
}

/// Users and groups are those of access control's own API group.
fn complete_binding(binding: &mut Map<String, Value>) {
    let subjects = binding.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        if matches!(subject["kind"].as_str(), Some("User" | "Group"))
            && subject["apiGroup"].as_str().is_none_or(str::is_empty)
        {
            subject["apiGroup"] = RBAC_GROUP.into();
        }
    }
}

fn set(fields: &mut Map<String, Value>, name: &str, value: impl FnOnce() -> Value) {
    if !fields.contains_key(name) {
        fields.insert(name.into(), value());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Function, Tunnel, validate_stored};

    #[test]
    fn a_small_function_is_written_out() {
        let mut value = json!({
            "apiVersion": "hive.dev/v1",
            "kind": "Function",
            "metadata": {"name": "hello", "labels": null},
            "spec": {"artifact": {"sha256": format!("sha256:{}", "AB".repeat(32))}, "env": null},
        });
        apply_defaults(Resource::Function, &mut value);
        assert_eq!(
            value,
            json!({
                "apiVersion": "hive.dev/v1",
                "kind": "Function",
                "metadata": {"name": "hello"},
                "spec": {
                    "artifact": {"sha256": "ab".repeat(32)},
                    "replicas": 1,
                    "resources": {"memory": "128Mi", "cpu": "100m"},
                    "timeout": "30s",
                    "concurrency": 100,
                    "queueTimeout": "10s",
                    "limits": {"cpuTime": "10s", "responseSize": "64Mi", "handles": 1000},
                    "http": {"path": "/"},
                    "egress": {"maxConnections": 64, "connectTimeout": "5s"},
                },
            })
        );
        assert_eq!(validate_stored(Resource::Function, &value), []);
        let function: Function = serde_json::from_value(value).unwrap();
        assert_eq!(function.spec.replicas, Some(1));
        assert_eq!(function.spec.resources, Resources::default());
        assert_eq!(function.spec.egress, Egress::default());
    }

    #[test]
    fn a_function_that_keeps_something_has_a_bucket_and_a_bound() {
        let complete = |key_value: Value| {
            let mut value =
                json!({"spec": {"artifact": {"path": "a.wasm"}, "keyValue": key_value}});
            apply_defaults(Resource::Function, &mut value);
            value["spec"].get("keyValue").cloned()
        };
        assert_eq!(complete(Value::Null), None);
        assert_eq!(
            complete(json!({})),
            Some(json!({"stores": ["default"], "sizeLimit": "16Mi"}))
        );
        let said = json!({"stores": ["a"], "sizeLimit": "1Mi"});
        assert_eq!(complete(said.clone()), Some(said));
    }

    #[test]
    fn a_function_with_routes_has_no_path_beside_them() {
        let mut value =
            json!({"spec": {"http": {"routes": [{"methods": ["GET"]}, {"path": "/a"}]}}});
        apply_defaults(Resource::Function, &mut value);
        assert_eq!(
            value["spec"]["http"],
            json!({"routes": [
                {"path": "/", "pathType": "Prefix", "methods": ["GET"]},
                {"path": "/a", "pathType": "Prefix"},
            ]})
        );
    }

    #[test]
    fn what_scales_by_itself_has_bounds_and_no_number() {
        let complete = |spec: Value| {
            let mut value = json!({ "spec": spec });
            apply_defaults(Resource::Function, &mut value);
            let spec = &value["spec"];
            (spec.get("replicas").cloned(), spec["autoscaling"].clone())
        };
        let all =
            json!({"minReplicas": 1, "maxReplicas": 10, "window": "1m", "scaleToZeroDelay": "1m"});
        assert_eq!(complete(json!({"autoscaling": {}})), (None, all.clone()));
        let held = complete(json!({"autoscaling": all, "replicas": 3}));
        assert_eq!(held, (Some(json!(3)), all));
    }

    #[test]
    fn a_small_tunnel_is_written_out() {
        let complete = |spec: Value| {
            let mut value = json!({
                "apiVersion": "hive.dev/v1",
                "kind": "Tunnel",
                "metadata": {"name": "photos"},
                "spec": spec,
            });
            apply_defaults(Resource::Tunnel, &mut value);
            assert_eq!(validate_stored(Resource::Tunnel, &value), []);
            let tunnel: Tunnel = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(json!(tunnel.spec), value["spec"]);
            value["spec"].clone()
        };
        let health = json!({"interval": "10s", "timeout": "5s"});
        let target = json!({"node": "pi", "host": "127.0.0.1", "port": 3000});
        let tables = [
            (
                json!({"targets": [{"node": "pi", "port": 3000}]}),
                json!({
                    "protocol": "HTTP",
                    "http": {"path": "/"},
                    "targets": [target],
                    "healthCheck": health,
                    "connectTimeout": "5s",
                    "idleTimeout": "1h",
                    "maxConnections": 1000,
                }),
            ),
            (
                json!({"protocol": "TCP", "port": 2222, "targets": [target], "proxyProtocol": "V2"}),
                json!({
                    "protocol": "TCP",
                    "port": 2222,
                    "targets": [target],
                    "proxyProtocol": "V2",
                    "healthCheck": health,
                    "connectTimeout": "5s",
                    "idleTimeout": "1h",
                    "maxConnections": 1000,
                }),
            ),
            (
                json!({"function": "hello", "http": {"host": "a.example"}, "healthCheck": {"path": "/up"}}),
                json!({
                    "protocol": "HTTP",
                    "http": {"host": "a.example", "path": "/"},
                    "function": "hello",
                    "healthCheck": {"interval": "10s", "timeout": "5s", "path": "/up"},
                    "connectTimeout": "5s",
                    "idleTimeout": "1h",
                    "maxConnections": 1000,
                }),
            ),
        ];
        for (said, written) in tables {
            assert_eq!(complete(said), written);
        }
    }

    #[test]
    fn what_was_said_stays() {
        let mut value = json!({"spec": {
            "artifact": {"path": "a.wasm"},
            "everyNode": true,
            "resources": {"memory": "64Mi"},
            "timeout": "1s",
            "http": {"host": "a.example", "path": "/x"},
        }});
        apply_defaults(Resource::Function, &mut value);
        let spec = &value["spec"];
        assert!(spec.get("replicas").is_none());
        assert_eq!(spec["resources"], json!({"memory": "64Mi", "cpu": "100m"}));
        assert_eq!(spec["timeout"], "1s");
        assert_eq!(spec["http"], json!({"host": "a.example", "path": "/x"}));
    }

    #[test]
    fn plain_text_of_a_secret_is_encoded_and_wins() {
        let mut value = json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "new"}});
        apply_defaults(Resource::Secret, &mut value);
        assert_eq!(
            value,
            json!({"data": {"a": "bmV3", "b": "eQ=="}, "type": "Opaque"})
        );
    }
}
