//! Manifests are read with the line of every field, and what cannot be read is refused with words.
#![allow(clippy::unwrap_used)]

use hive_manifests::document::{parse, read};
use hive_manifests::{Document, FieldPath, MAX_MANIFEST_BYTES, resource_of, validate};
use serde_json::json;

fn message(text: &str) -> String {
    parse(text, "f.yaml").unwrap_err().to_string()
}

fn lines(document: &Document, paths: &[&[&str]]) -> Vec<Option<usize>> {
    paths
        .iter()
        .map(|fields| {
            let path = fields
                .iter()
                .fold(FieldPath::root(), |path, name| match name.parse() {
                    Ok(index) => path.index(index),
                    Err(_) => path.field(name),
                });
            document.line_of(&path)
        })
        .collect()
}

const TWO: &str = "\
# A comment first.
apiVersion: hive.dev/v1
kind: Function
metadata:
  name: hello
spec:
  replica: 3
  artifact: {path: a.wasm}
  env:
    - name: A
      value: \"1\"
    -
      name: B
---
---
apiVersion: v1
kind: Secret
metadata: {name: s}
";

#[test]
fn every_field_has_its_line() {
    let documents = parse(TWO, "two.yaml").unwrap();
    assert_eq!(documents.len(), 2);
    assert_eq!((documents[0].line, documents[1].line), (2, 16));
    assert_eq!(
        lines(
            &documents[0],
            &[
                &[],
                &["metadata", "name"],
                &["spec"],
                &["spec", "artifact", "path"],
                &["spec", "env"],
                &["spec", "env", "0", "value"],
                &["spec", "env", "1", "name"],
                // Not there: where it should be.
                &["spec", "env", "1", "value"],
                &["spec", "http", "path"],
            ]
        ),
        [2, 5, 6, 8, 9, 11, 13, 13, 6].map(Some)
    );
    assert_eq!(documents[1].value["metadata"], json!({"name": "s"}));
}

#[test]
fn an_error_names_file_line_field_and_what_was_meant() {
    let documents = parse(TWO, "function.yaml").unwrap();
    let resource = resource_of(&documents[0].value).unwrap();
    let errors: Vec<_> = validate(resource, &documents[0].value)
        .iter()
        .map(|error| documents[0].locate(error))
        .collect();
    assert_eq!(
        errors,
        ["function.yaml:7: spec.replica: unknown field; did you mean \"replicas\"?"]
    );
}

#[test]
fn what_cannot_be_read_says_where_and_why() {
    for (text, expected) in [
        ("a: 1\nb: 2\na: 3\n", "3: duplicate key \"a\""),
        ("{\"a\": 1,\n\"a\": 2}", "2: duplicate key \"a\""),
        ("a: [1, 2\n", "1: unclosed bracket '['"),
        (
            "a:\n\t- b\n",
            "2: tabs disallowed within this context (block indentation)",
        ),
        ("{\"a\": tru", "1: EOF while parsing a value"),
        ("a: *b\n", "1: alias references unknown anchor"),
        (
            "a: .nan\n",
            "1: .nan is not a number that a manifest can hold; put it in quotes",
        ),
        (
            "\na: b: c\n",
            "2: mapping values are not allowed in this context",
        ),
    ] {
        assert_eq!(message(text), format!("f.yaml:{expected}"));
    }
}

#[test]
fn unquoted_words_stay_text() {
    let documents = parse("a: no\nb: on\nc: true\nd: 0x10\ne: 1.5\nf: ~\n1: x\n", "f").unwrap();
    assert_eq!(
        documents[0].value,
        json!({"a": "no", "b": "on", "c": true, "d": 16, "e": 1.5, "f": null, "1": "x"})
    );
}

#[test]
fn json_that_is_not_yaml_is_read_too() {
    let text = "{\"a\": \"\\ud83d\\ude00\\/\"}\n{\"b\": 1}";
    let values: Vec<_> = parse(text, "f")
        .unwrap()
        .into_iter()
        .map(|d| d.value)
        .collect();
    assert_eq!(values, [json!({"a": "😀/"}), json!({"b": 1})]);
}

#[test]
fn a_list_is_taken_apart() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- kind: A\n  x: 1\n- kind: B\n";
    let documents = parse(text, "f").unwrap();
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[0].value, json!({"kind": "A", "x": 1}));
    assert_eq!(lines(&documents[0], &[&["x"]]), [Some(5)]);
    assert_eq!(documents[1].line, 6);
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = "base: &base {memory: 1Mi}\na:\n  <<: *base\n  cpu: 1\nb: *base\n";
    let documents = parse(text, "f").unwrap();
    assert_eq!(documents[0].value["a"], json!({"memory": "1Mi", "cpu": 1}));
    assert_eq!(documents[0].value["b"], json!({"memory": "1Mi"}));
}

#[test]
fn a_billion_laughs_are_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
    }
    // Whoever wrote them out would not be done today.
    let message = message(&text);
    assert!(message.contains("aliases repeat more than"), "{message}");
}

#[test]
fn too_deep_is_refused() {
    let lists = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let block: String = (0..200).map(|level| " ".repeat(level) + "a:\n").collect();
    for text in [lists, objects, block] {
        let message = message(&text);
        assert!(
            message.contains("nested") || message.contains("recursion"),
            "{message}"
        );
    }
}

#[test]
fn a_manifest_of_100_mb_is_refused_before_it_is_read() {
    let endless = std::io::repeat(b'a');
    let error = read(endless, "big.yaml").unwrap_err().to_string();
    assert_eq!(
        error,
        "big.yaml: larger than 16 MiB, the most that is read of a manifest; a component is named by \
         spec.artifact.path, not written into it"
    );
    let text = " ".repeat(MAX_MANIFEST_BYTES + 1);
    assert!(parse(&text, "f").is_err());
}

#[test]
fn a_component_instead_of_a_manifest_is_recognised() {
    let error = read(&b"\0asm\x0d\0\x01\0\xff\xfe"[..], "a.wasm").unwrap_err();
    assert!(error.to_string().starts_with("a.wasm: not text in UTF-8"));
}

#[test]
fn nothing_is_no_document() {
    assert_eq!(parse("", "f").unwrap(), []);
    assert_eq!(parse("# only a comment\n---\n...\n", "f").unwrap(), []);
}
