#![allow(clippy::unwrap_used)]

use super::*;

/// What `spin new -t http-rust` makes, of version 3.
const RUST: &str = r#"#:schema https://schemas.spinframework.dev/spin/manifest-v2/latest.json

spin_manifest_version = 2

[application]
name = "hello-rust"
version = "0.1.0"
authors = ["Me <me@example.com>"]
description = "Says hello"

[[trigger.http]]
route = "/..."
component = "hello-rust"

[component.hello-rust]
source = "target/wasm32-wasip1/release/hello_rust.wasm"
allowed_outbound_hosts = []
[component.hello-rust.build]
command = "cargo build --target wasm32-wasip1 --release"
watch = ["src/**/*.rs", "Cargo.toml"]
"#;

fn problems(text: &str) -> Vec<String> {
    read(text, "spin.toml")
        .map(|document| document.value)
        .unwrap_err()
}

#[test]
fn a_template_is_a_function() {
    let document = read(RUST, "spin.toml").unwrap();
    let expected = json!({
        "apiVersion": "hive.dev/v1", "kind": "Function",
        "metadata": { "name": "hello-rust", "annotations": {
            "app.kubernetes.io/version": "0.1.0", "kubernetes.io/description": "Says hello",
        }},
        "spec": {
            "artifact": { "path": "target/wasm32-wasip1/release/hello_rust.wasm" },
            "http": { "path": "/" },
        },
    });
    assert_eq!(document.value, expected);
    let line = |path: FieldPath| document.line_of(&path);
    assert_eq!(line(FieldPath::of(["metadata", "name"])), Some(6));
    assert_eq!(line(FieldPath::of(["spec", "artifact", "path"])), Some(16));
    assert!(
        hive_manifests::validate(hive_manifests::Resource::Function, &document.value).is_empty()
    );
}

#[test]
fn everything_that_maps_is_mapped() {
    let text =
        RUST.replace("\"/...\"", "\"/api/...\"") + "[variables]\nhi = { default = \"Hi\" }\n";
    let text = text
        .replace("allowed_outbound_hosts = []", "allowed_outbound_hosts = [\"https://a.example\",\n \"http://b:8080\", \"https://a.example/\"]\nenvironment = { B = \"2\", A = \"1\" }\nvariables = { greeting = \"{{ hi }}, you\" }\nfiles = []\nkey_value_stores = [\"default\", \"sessions\", \"default\"]")
        .replace("source = \"target/wasm32-wasip1/release/hello_rust.wasm\"", "source = { registry = \"ghcr.io\", package = \"acme:hello\", version = \"1.2.0\" }");
    let document = read(&text, "spin.toml").unwrap();
    assert_eq!(
        document.value["spec"],
        json!({
            "artifact": { "oci": "oci://ghcr.io/acme/hello:1.2.0" },
            "http": { "path": "/api" },
            "allowedHosts": ["a.example:443", "b:8080"],
            "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
            "config": [{ "name": "greeting", "value": "Hi, you" }],
            "keyValue": { "stores": ["default", "sessions"] },
        })
    );
    let second = FieldPath::of(["spec", "allowedHosts"]).index(1);
    assert_eq!(document.line_of(&second), Some(18));
    assert!(
        hive_manifests::validate(hive_manifests::Resource::Function, &document.value).is_empty()
    );
}

#[test]
fn several_routes_are_one_functions() {
    let more =
        "[[trigger.http]]\nroute = \"/b\"\ncomponent = \"hello-rust\"\n[component.hello-rust]";
    let text = RUST.replace("[component.hello-rust]", more);
    let document = read(&text, "spin.toml").unwrap();
    let routes = json!([{ "path": "/" }, { "path": "/b", "pathType": "Exact" }]);
    assert_eq!(document.value["spec"]["http"], json!({ "routes": routes }));
    let second = FieldPath::of(["spec", "http", "routes"]).index(1);
    assert_eq!(document.line_of(&second.field("path")), Some(16));
    let one = read(&RUST.replace("/...", "/b"), "spin.toml").unwrap();
    let routes = json!([{ "path": "/b", "pathType": "Exact" }]);
    assert_eq!(one.value["spec"]["http"], json!({ "routes": routes }));
    for document in [document, one] {
        let kind = hive_manifests::Resource::Function;
        assert!(hive_manifests::validate(kind, &document.value).is_empty());
    }
}

#[test]
fn what_a_function_cannot_do_is_refused_with_its_line() {
    for (from, to, problem) in [
        (
            "route = \"/...\"",
            "route = \"/:id/...\"",
            "spin.toml:12: trigger.http.route: segments",
        ),
        (
            "route = \"/...\"",
            "route = { private = true }",
            "spin.toml:12: trigger.http.route: private",
        ),
        (
            "component = \"hello-rust\"",
            "component = \"other\"",
            "spin.toml:15: component.hello-rust: a function is one component",
        ),
        (
            "[[trigger.http]]",
            "[[trigger.redis]]\nchannel = \"a\"\n[[trigger.http]]",
            "spin.toml:11: trigger.redis: a function answers HTTP",
        ),
        (
            "[component.hello-rust]",
            "[[trigger.http]]\nroute = \"/b/...\"\ncomponent = \"b\"\n[component.hello-rust]",
            "spin.toml:17: trigger.http.component: \"b\" is another component",
        ),
        (
            "allowed_outbound_hosts = []",
            "allowed_outbound_hosts = [\"redis://a:1\"]",
            "spin.toml:17: component.hello-rust.allowed_outbound_hosts: \"redis://a:1\": a function speaks HTTP",
        ),
        (
            "allowed_outbound_hosts = []",
            "key_value_stores = [1]",
            "spin.toml:17: component.hello-rust.key_value_stores: expected text, found integer",
        ),
        (
            "allowed_outbound_hosts = []",
            "files = [\"a\"]",
            "spin.toml:17: component.hello-rust.files: ",
        ),
        (
            "allowed_outbound_hosts = []",
            "sqlite_databases = [\"default\"]",
            "spin.toml:17: component.hello-rust.sqlite_databases: ",
        ),
        (
            "allowed_outbound_hosts = []",
            "ai_models = [\"llama\"]",
            "spin.toml:17: component.hello-rust.ai_models: ",
        ),
        (
            "allowed_outbound_hosts = []",
            "variables = { a = \"{{ b }}\" }",
            "spin.toml:17: component.hello-rust.variables.a: the application declares no variable \"b\"",
        ),
        (
            "[[trigger.http]]",
            "[variables]\nb = { required = true }\n[component.hello-rust.variables]\na = \"{{ b }}\"\n[[trigger.http]]",
            "spin.toml:14: component.hello-rust.variables.a: the variable \"b\" is a secret or has no default",
        ),
        (
            "allowed_outbound_hosts = []",
            "alowed = 1",
            "spin.toml:17: component.hello-rust.alowed: not known here",
        ),
        (
            "allowed_outbound_hosts = []",
            "environment = { A = 1 }",
            "spin.toml:17: component.hello-rust.environment.A: expected text, found integer",
        ),
        (
            "source = \"target/wasm32-wasip1/release/hello_rust.wasm\"",
            "source = { url = \"https://a/b.wasm\", digest = \"sha256:0\" }",
            "spin.toml:16: component.hello-rust.source: components are not fetched from web pages",
        ),
        (
            "spin_manifest_version = 2",
            "spin_manifest_version = 3",
            "spin.toml:3: spin_manifest_version: 2 is the version",
        ),
        (
            "spin_manifest_version = 2",
            "spin_version = \"1\"",
            "spin.toml:1: spin_version: version 1",
        ),
        (
            "spin_manifest_version = 2\n",
            "",
            "spin.toml:1: spin_manifest_version: missing",
        ),
        ("[application]", "[application", "spin.toml:5: "),
    ] {
        assert!(RUST.contains(from), "{from}");
        let told = problems(&RUST.replacen(from, to, 1));
        assert!(
            told.iter().any(|line| line.starts_with(problem)),
            "{to}: {told:#?}"
        );
    }
}
