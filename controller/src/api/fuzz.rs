//! What clients send, damaged in every way: no input may panic, take long, or make what cannot be
//! read again.

#![allow(clippy::unwrap_used)]

use hive_fuzz::{Target, text};
use hive_manifests::{Resource, apply_defaults, resource_of, validate_stored};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Value, json};

use super::media::{self, Form, PatchKind};
use super::patch::Patch;
use super::path::Target as PathTarget;
use super::query::Query;
use super::reads::Wanted;
use super::selectors::{FieldSelector, LabelSelector};
use super::{accept, metadata, openapi, protobuf};
use crate::state::{Body, Key, Object};

#[global_allocator]
static COUNTING: hive_fuzz::Counting = hive_fuzz::Counting;

fn config_map() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "a", "namespace": "b", "labels": { "x": "y" }, "uid": "u" },
        "data": { "text": "t", "more": "m" },
    })
}

fn object(body: &Value) -> Object {
    Object::new(Key::new(Resource::ConfigMap, "b", "a"), body, 7)
}

/// What is stored can be read by all that read it.
fn reads_back(body: &Value) {
    let object = object(body);
    let text = object.encoded();
    let read: Value = serde_json::from_slice(text).unwrap_or_else(|error| {
        panic!("it would be stored and never be read again: {error}");
    });
    assert_eq!(read["data"], body["data"]);
    object.labels();
}

const JSON_PATCH: &str = r#"[
    {"op":"test","path":"/data/text","value":"t"},
    {"op":"add","path":"/data/new","value":{"a":[1,2]}},
    {"op":"replace","path":"/metadata/labels","value":{}},
    {"op":"move","from":"/data/more","path":"/data/moved"},
    {"op":"copy","from":"/data","path":"/data/copy"},
    {"op":"remove","path":"/data/text"}
]"#;

/// Deeper by each operation: what could be stored, but never be parsed again.
fn deepening() -> String {
    let deep = format!(
        "{}{}",
        "{\"a\":".repeat(100),
        "1".to_owned() + &"}".repeat(100)
    );
    let path = "/a".repeat(100);
    let operations = (0..8).map(|number| {
        format!(
            r#"{{"op":"add","path":"/data{}","value":{deep}}}"#,
            path.repeat(number)
        )
    });
    format!("[{}]", operations.collect::<Vec<_>>().join(","))
}

#[test]
fn patches_are_applied_or_refused() {
    let kinds = [
        PatchKind::Json,
        PatchKind::Merge,
        PatchKind::Strategic,
        PatchKind::Apply,
    ];
    Target::new("patch", |input: &[u8]| {
        let mut refusals = Vec::new();
        let mut done = false;
        for kind in kinds {
            let resource = Resource::ConfigMap;
            let applied = match Patch::parse(kind, resource, input) {
                Err(error) => Err(error.to_string()),
                Ok((patch, _)) => {
                    let mut body = config_map();
                    patch.apply(&mut body).map(|()| body)
                }
            };
            match applied {
                Ok(body) => {
                    reads_back(&body);
                    done = true;
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        done.then_some(()).ok_or(refusals.concat())
    })
    .seeds([
        JSON_PATCH,
        r#"{"data":{"text":null,"new":"n"},"metadata":{"labels":{"z":"1"}}}"#,
        r#"{"metadata":{"$patch":"replace","name":"a"},"data":{"$retainKeys":["text"]}}"#,
    ])
    .words([
        "\"op\":\"add\"",
        "\"op\":\"copy\"",
        "\"op\":\"move\"",
        "\"op\":\"test\"",
        "\"op\":\"remove\"",
        "\"path\":\"\"",
        "\"from\":\"\"",
        "\"path\":\"/data/-\"",
        "/data",
        "/metadata",
        "~0",
        "~1",
        "/0",
        "/-",
        "\"value\":",
        "null",
        "$patch",
        "[]",
        "{}",
    ])
    .hold();
    // Not among the seeds: refused, it is what a seed must not be.
    for kind in kinds {
        let Ok((patch, _)) = Patch::parse(kind, Resource::ConfigMap, deepening().as_bytes()) else {
            continue;
        };
        let mut body = config_map();
        let refused = patch.apply(&mut body).unwrap_err();
        assert!(refused.contains("levels"), "{refused}");
    }
}

/// The body of a create, an update or an apply, until it would be stored.
#[test]
fn bodies_are_taken_or_refused() {
    let protobuf = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x12\x0a\x06\x0a\x01a\x1a\x01b\x12\x08\x0a\x01k\x12\x03val";
    Target::new("body", |input: &[u8]| {
        let plain = media::parse_body(&HeaderMap::new(), input);
        let mut headers = HeaderMap::new();
        let kubernetes = HeaderValue::from_static("application/vnd.kubernetes.protobuf");
        headers.insert(header::CONTENT_TYPE, kubernetes);
        let value = plain
            .or_else(|_| media::parse_body(&headers, input))
            .or_else(|_| media::parse_declaration(input).map(|sent| sent.value))
            .map_err(|error| error.to_string())?;
        let resource = resource_of(&value).unwrap_or(Resource::ConfigMap);
        let namespace = resource.namespaced().then_some("b");
        let mut body = metadata::conform(resource, namespace, None, value)
            .map_err(|error| error.to_string())?;
        apply_defaults(resource, &mut body);
        metadata::merge_string_data(&mut body);
        let errors = validate_stored(resource, &body);
        let encoded = Body::from(&body);
        assert_eq!(encoded.to_value(), body, "what is stored is what was meant");
        match errors.first() {
            Some(error) => Err(error.to_string()),
            None => Ok(()),
        }
    })
    .seeds([
        config_map().to_string().into_bytes(),
        b"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: b}\n".to_vec(),
        protobuf.to_vec(),
    ])
    .words([
        "k8s\0",
        "stringData",
        "metadata",
        "null",
        "{}",
        "[]",
        "\"\"",
        "- ",
        ": ",
    ])
    .at_most(16 * 1024)
    .hold();
}

#[test]
fn protobuf_is_read_or_refused() {
    let config_map = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x12\x0a\x06\x0a\x01a\x1a\x01b\x12\x08\x0a\x01k\x12\x03val";
    let kinds = [
        "Secret",
        "Namespace",
        "Event",
        "ServiceAccount",
        "ResourceQuota",
        "LimitRange",
        "DeleteOptions",
    ];
    Target::new("kubernetes_protobuf", |input: &[u8]| {
        let value = protobuf::decode(input).map_err(|error| error.to_string())?;
        assert!(value["kind"].is_string() && value["apiVersion"].is_string());
        serde_json::from_str::<Value>(&value.to_string()).unwrap();
        Ok::<_, String>(())
    })
    .seeds([config_map])
    .words(kinds.map(|kind| format!("\x12{}{kind}", char::from(kind.len() as u8))))
    .words([
        "\x0a\x0f\x0a\x02v1",
        "rbac.authorization.k8s.io/v1",
        "\x08\x01",
        "\x10\x01",
    ])
    .at_most(8 * 1024)
    .hold();
}

#[test]
fn selectors_are_read_or_refused() {
    let (object, empty) = (object(&config_map()), object(&json!({})));
    Target::new("selectors", |input: &[u8]| {
        let text = text(input)?;
        let labels = LabelSelector::parse(text).map_err(|error| error.to_string());
        if let Ok(labels) = &labels {
            labels.matches(&object);
            labels.matches(&empty);
        }
        let mut fields = Err(String::new());
        for resource in Resource::ALL {
            let parsed = FieldSelector::parse(resource, text);
            if let Ok(parsed) = &parsed {
                parsed.matches(&object);
                parsed.matches(&empty);
            }
            fields = fields.or(parsed.map(|_| ()).map_err(|error| error.to_string()));
        }
        labels.map(|_| ()).or(fields)
    })
    .seeds([
        "app=hello,tier!=db",
        "a in (b, c),d notin (e),f,!g",
        "metadata.name=a,metadata.namespace!=b",
        "x=y",
    ])
    .words([
        " in ",
        " notin ",
        "(",
        ")",
        ",",
        "!=",
        "==",
        "=",
        "!",
        "metadata.name",
        "spec.nodeName",
    ])
    .at_most(8 * 1024)
    .hold();
}

/// Method and target are as HTTP's parser leaves them; all of a request that is text.
#[test]
fn paths_queries_and_headers_are_read_or_refused() {
    Target::new("request", |input: &[u8]| {
        let text = text(input)?;
        let mut parts = text.splitn(3, '\n');
        let (path, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let value = HeaderValue::from_str(parts.next().unwrap_or_default());
        if let Ok(value) = value {
            let names = [header::ACCEPT, header::CONTENT_TYPE];
            let headers = HeaderMap::from_iter(names.map(|name: HeaderName| (name, value.clone())));
            let _ = Form::accepted(&headers);
            let _ = accept::ranges(&headers);
            let _ = PatchKind::sent(&headers);
            let _ = openapi::document(path, &headers);
        }
        let query = Query::parse(Some(query)).map_err(|error| error.to_string())?;
        let _ = Wanted::by(&query, None);
        let _ = Wanted::by(&query, Some(query.resource_version));
        query.labels().map_err(|error| error.to_string())?;
        query.fields(Resource::Function).map_err(|error| error.to_string())?;
        PathTarget::parse(path).map(|_| ()).ok_or("no such path".to_owned())
    })
    .seeds([
        "/apis/hive.dev/v1/namespaces/a/functions/b/proxy/x/y?z\nwatch=1&resourceVersion=5\napplication/json",
        "/api/v1/namespaces/a/configmaps\nlimit=5&continue=e30&labelSelector=a%3Db\n*/*",
        "/apis/hive.dev/v1/nodes/a/status\nfieldManager=x&force=true\napplication/json;as=Table;v=v1;g=meta.k8s.io",
        "/openapi/v3/api/v1\ntimeoutSeconds=99999999999&sinceSeconds=1\napplication/apply-patch+yaml",
    ])
    .words([
        "/apis/", "/api/v1/", "hive.dev", "namespaces", "/status", "/scale", "/log", "/proxy", "/token",
        "&", "%", "=", "watch", "continue", "resourceVersionMatch=Exact", "sendInitialEvents=1",
        "application/", ";as=", ";v=v1", "Table", "PartialObjectMetadata", "\n",
    ])
    .at_most(8 * 1024)
    .hold();
}
