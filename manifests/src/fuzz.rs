//! What people write, damaged in every way.

#![allow(clippy::unwrap_used)]

use hive_fuzz::{Target, text};
use serde_json::Value;

use super::*;
use crate::duration::GoDuration;
use crate::quantity::{Bytes, MilliCpu};

#[global_allocator]
static COUNTING: hive_fuzz::Counting = hive_fuzz::Counting;

const EXAMPLE: &str = "\
apiVersion: hive.dev/v1
kind: Function
metadata:
  name: hello
  labels: {app: hello, \"quoted\": 'yes'}
spec:
  artifact: {path: ./hello.wasm}
  env:
  - name: A
    value: \"1\"
  - name: B
    value: |
      some
      lines
  resources: {memory: 64Mi, cpu: 100m}
  timeout: 30s
---
# a comment
apiVersion: v1
kind: List
items:
- &anchor {apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {a: b}}
- *anchor
";

const WORDS: [&str; 22] = [
    "apiVersion: ",
    "kind: ",
    "metadata:\n",
    "spec:\n",
    "---\n",
    "...\n",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "!!set",
    "|\n",
    ">-\n",
    "? ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "%YAML 1.2\n",
    "\\ud800",
    "~",
];

/// A document is read, placed, filled in and judged; errors are shown with their lines.
#[test]
fn manifests_are_read_or_refused() {
    let as_json = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}"#;
    Target::new("manifests", |input: &[u8]| {
        let documents = document::read(input, "fuzz.yaml").map_err(|error| error.to_string())?;
        for document in &documents {
            let Ok(resource) = resource_of(&document.value) else {
                continue;
            };
            for error in validate(resource, &document.value) {
                assert!(document.locate(&error).starts_with("fuzz.yaml:"));
            }
            let mut filled = document.value.clone();
            apply_defaults(resource, &mut filled);
            let mut again = filled.clone();
            apply_defaults(resource, &mut again);
            assert_eq!(again, filled, "what is filled in stays as it is");
            validate_stored(resource, &filled);
        }
        Ok::<_, String>(())
    })
    .seeds([EXAMPLE, as_json])
    .words(WORDS)
    .at_most(16 * 1024)
    .hold();
}

/// Objects of every kind, whatever is where.
#[test]
fn objects_are_judged() {
    let seeds = Resource::ALL.map(|resource| {
        format!(
            r#"{{"apiVersion":"{}","kind":"{}","metadata":{{"name":"a","namespace":"b"}},"spec":{{"replicas":1,"resources":{{"memory":"1Mi"}},"env":[{{"name":"A"}}]}},"data":{{"a":"b"}},"rules":[{{"verbs":["*"]}}]}}"#,
            resource.api_version(),
            resource.kind()
        )
    });
    Target::new("objects", |input: &[u8]| {
        let value: Value = serde_json::from_slice(input).map_err(|error| error.to_string())?;
        let mut errors = 0;
        for resource in Resource::ALL {
            let mut value = value.clone();
            apply_defaults(resource, &mut value);
            errors += validate(resource, &value).len() + validate_stored(resource, &value).len();
        }
        match resource_of(&value) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("not an object; {errors} errors")),
        }
    })
    .seeds(seeds)
    .words([
        "null",
        "[]",
        "{}",
        "\"spec\":",
        "\"metadata\":",
        "\"name\":",
        "-1",
        "1e300",
        "\"\"",
    ])
    .at_most(16 * 1024)
    .hold();
}

#[test]
fn quantities_and_durations_are_read_or_refused() {
    Target::new("quantities", |input: &[u8]| {
        let text = text(input)?;
        let bytes = text.parse::<Bytes>();
        if let Ok(bytes) = bytes {
            assert_eq!(bytes.to_string().parse(), Ok(bytes));
        }
        let cpu = text.parse::<MilliCpu>();
        if let Ok(cpu) = cpu {
            assert_eq!(cpu.to_string().parse(), Ok(cpu));
        }
        let duration = text.parse::<GoDuration>();
        if let Ok(duration) = duration {
            assert_eq!(duration.to_string().parse(), Ok(duration));
        }
        match (bytes, cpu, duration) {
            (Err(error), Err(_), Err(other)) => Err(format!("{error} {other}")),
            _ => Ok(()),
        }
    })
    .seeds(["64Mi", "100m", "1.5", "1e3", "1m30s", "250ms", "1.5h"])
    .words([
        "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "k", "M", "G", "T", "P", "E", "m", "n", "u", "e", ".",
        "h", "s", "µs",
    ])
    .at_most(256)
    .hold();
}
