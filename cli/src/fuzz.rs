//! Files and words that people hand to hivectl, damaged in every way.

#![allow(clippy::unwrap_used)]

use hive_fuzz::{Target, text};
use kube::config::Kubeconfig;
use serde_json::{Value, json};

use crate::jsonpath::Template;
use crate::selector::Selector;
use crate::{kubeconfig, selection, spin, threeway};

#[global_allocator]
static COUNTING: hive_fuzz::Counting = hive_fuzz::Counting;

const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: home
clusters:
- name: home
  cluster:
    server: https://a:6443
    certificate-authority-data: YWJj
    extensions: [{name: hive.dev/servers, extension: {servers: [\"https://a:6443\", \"https://b:6443\"]}}]
contexts:
- {name: home, context: {cluster: home, user: me, namespace: default}}
users:
- {name: me, user: {token: hivetok.a, client-key-data: YWJj}}
";

/// The parser is a library's; what is done with what it gives is ours.
#[test]
fn kubeconfigs_are_read_or_refused() {
    Target::new("kubeconfig", |input: &[u8]| {
        let read = Kubeconfig::from_yaml(text(input)?).map_err(|error| error.to_string())?;
        let shown = kubeconfig::redact(&read).map_err(|error| error.to_string())?;
        let users = shown["users"].as_array().into_iter().flatten();
        for token in users.filter_map(|user| user["user"]["token"].as_str()) {
            assert!(!token.contains("hivetok."), "{shown}");
        }
        let context = kubeconfig::context(&read, None).map_err(|error| error.to_string())?;
        let Some(context) = &context.context else {
            return Err("no context".to_owned());
        };
        let cluster =
            kubeconfig::cluster(&read, &context.cluster).map_err(|error| error.to_string())?;
        kubeconfig::servers(cluster);
        Ok(())
    })
    .seeds([KUBECONFIG])
    .words([
        "clusters:\n",
        "- name: ",
        "extensions: ",
        "extension: ",
        "servers: ",
        "current-context: ",
        "exec: {}",
        "&a ",
        "*a",
        "null",
        "{}",
        "[]",
        "token: ",
    ])
    .at_most(8 * 1024)
    .hold();
}

#[test]
fn spin_applications_are_read_or_refused() {
    Target::new("spin", |input: &[u8]| {
        let document = spin::read(text(input)?, "spin.toml").map_err(|all| all.join("\n"))?;
        let spec = &document.value["spec"];
        assert!(spec["http"]["path"].is_string() ^ spec["http"]["routes"].is_array());
        assert!(spec["artifact"].is_object());
        Ok::<_, String>(())
    })
    .seeds([
        "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/b/...\"\ncomponent = \"c\"\n[component.c]\nsource = \"c.wasm\"\nallowed_outbound_hosts = [\"https://*.d:1\"]\nenvironment = { E = \"f\" }\n",
        "spin_manifest_version = 2\n[application]\nname = \"a\"\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"c\"\n[component.c]\nsource = { registry = \"r\", package = \"p:q\", version = \"1\" }\n",
    ])
    .words([
        "[component.", "]]", "[[", "\"\"\"", " = ", "{ ", " }", "route", "source", "...", "://", "*", "{{", "\n", "#",
    ])
    .at_most(8 * 1024)
    .hold();
}

#[test]
fn selectors_are_read_or_refused() {
    let object = json!({ "metadata": { "labels": { "app": "hello", "tier": "web" } } });
    Target::new("cli_selector", |input: &[u8]| {
        let selector: Selector = text(input)?
            .parse()
            .map_err(|e: crate::selector::SelectorError| e.to_string())?;
        selector.matches(&object);
        selector.matches(&Value::Null);
        Ok::<_, String>(())
    })
    .seeds([
        "app=hello",
        "app in (hello, bye),tier!=db,!gone",
        "a notin (b)",
        "x",
    ])
    .words([" in ", " notin ", "(", ")", ",", "!=", "==", "=", "!", " "])
    .at_most(4 * 1024)
    .hold();
}

#[test]
fn templates_are_read_or_refused() {
    let object = json!({
        "metadata": { "name": "a", "annotations": { "hive.dev/x": "y" } },
        "items": [{ "a": 1, "b": ["x", "y"] }, { "a": 2 }],
    });
    Target::new("jsonpath", |input: &[u8]| {
        let template: Template = text(input)?
            .parse()
            .map_err(|e: crate::jsonpath::TemplateError| e.to_string())?;
        template.render(&object);
        template.select(&object);
        template.render(&Value::Null);
        Ok::<_, String>(())
    })
    .seeds([
        ".metadata.name",
        "{range .items[*]}{.a}{\"\\n\"}{end}",
        "{.items[?(@.a==1)].b[0:1]}",
        "{.metadata.annotations.hive\\.dev/x}",
        "{$..a}{@['metadata']}",
    ])
    .words([
        "{",
        "}",
        "{range ",
        "{end}",
        ".items",
        "[*]",
        "[?(@.",
        "..",
        "[0:1:2]",
        "\\.",
        "'",
        "\"",
        "==",
        "&&",
        "||",
        "[-1]",
        "length(",
        "match(",
        "search(@.a, '(a*)*')",
    ])
    .at_most(1024)
    .hold();
}

#[test]
fn words_name_resources_or_not() {
    Target::new("selection", |input: &[u8]| {
        let words: Vec<String> = text(input)?.split(' ').map(str::to_owned).collect();
        let chosen = selection::parse(&words).map_err(|failure| format!("{failure:?}"))?;
        assert!(!chosen.is_empty());
        Ok::<_, String>(())
    })
    .seeds([
        "functions",
        "fn/hello",
        "nodes,functions",
        "function hello world",
        "all",
    ])
    .words(["/", ",", ".v1.hive.dev", "configmaps", "cm", " "])
    .at_most(1024)
    .hold();
}

/// Three objects: what was applied, what is to be, what there is.
#[test]
fn three_way_patches_lead_to_what_is_declared() {
    Target::new("threeway", |input: &[u8]| {
        let all: [Value; 3] = serde_json::from_slice(input).map_err(|error| error.to_string())?;
        let [last, manifest, live] = &all;
        let patch = threeway::merge_patch(Some(last), manifest, live);
        let mut patched = live.clone();
        threeway::apply_merge_patch(&mut patched, &patch);
        let again = threeway::merge_patch(Some(last), manifest, &patched);
        let mut twice = patched.clone();
        threeway::apply_merge_patch(&mut twice, &again);
        assert_eq!(twice, patched, "applied twice, it changes nothing");
        Ok::<_, String>(())
    })
    .seeds([
        r#"[{"spec":{"a":1,"b":2}},{"spec":{"a":1,"c":[1]}},{"spec":{"a":3,"b":2},"status":{}}]"#,
        "[null,{},{}]",
    ])
    .words(["null", "{}", "[]", "\"spec\":", "\"a\":", "{\"a\":null}"])
    .at_most(4 * 1024)
    .hold();
}
