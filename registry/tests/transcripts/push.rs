//! Components that are pushed.

use std::collections::VecDeque;

use bytes::Bytes;
use hive_registry::{Answer, Digest, Push, PushError, Reference};

use super::{COMPONENT, TOKEN, answer, challenge, line, login, ok};

/// Pushes, as far as the answers reach.
fn push(component: Bytes, answers: Vec<Answer>) -> (Vec<String>, Result<Reference, PushError>) {
    let mut answers = VecDeque::from(answers);
    let mut lines = Vec::new();
    let reference = "ghcr.io/acme/hello:2".parse().unwrap();
    let mut push = match Push::new(reference, login("ghcr.io"), component) {
        Ok(push) => push,
        Err(error) => return (lines, Err(error)),
    };
    while let Some(ask) = push.next() {
        lines.push(line(&ask));
        if let Err(error) = push.take(answers.pop_front().expect("one more answer")) {
            return (lines, Err(error));
        }
    }
    assert!(answers.is_empty(), "answers are left after {lines:#?}");
    (lines, Ok(push.pinned()))
}

fn at(status: u16, location: &str) -> Answer {
    answer(status, &[("location", location)], "")
}

fn created() -> Answer {
    answer(201, &[], "")
}

fn absent() -> Answer {
    answer(404, &[], "")
}

#[test]
fn a_small_component_goes_in_one_piece() {
    let bearer = r#"Bearer realm="https://ghcr.io/token",service="ghcr.io""#;
    let (lines, pinned) = push(
        Bytes::from_static(COMPONENT),
        vec![
            challenge(bearer),
            ok(TOKEN),
            absent(),
            at(202, "/v2/acme/hello/blobs/uploads/u1?state=s"),
            created(),
            ok(""),
            created(),
        ],
    );
    let pinned = pinned.unwrap();
    let base = "https://ghcr.io/v2/acme/hello";
    let component = Digest::of(COMPONENT);
    assert_eq!(
        lines[1],
        "GET https://ghcr.io/token?service=ghcr.io&scope=repository%3Aacme%2Fhello%3Apull%2Cpush as me:secret"
    );
    assert_eq!(
        lines[2..5],
        [
            format!("HEAD {base}/blobs/{component} with Bearer t1"),
            format!("POST {base}/blobs/uploads/ with Bearer t1"),
            format!(
                "PUT {base}/blobs/uploads/u1?state=s&digest=sha256%3A{} with Bearer t1, 17 bytes",
                component.hex()
            ),
        ]
    );
    assert!(
        lines[5].starts_with(&format!("HEAD {base}/blobs/sha256:")),
        "{}",
        lines[5]
    );
    assert!(
        lines[6].starts_with(&format!("PUT {base}/manifests/2 with Bearer t1, ")),
        "{}",
        lines[6]
    );
    // What is there already is not sent, and makes the same image.
    let (lines, again) = push(
        Bytes::from_static(COMPONENT),
        vec![ok(""), ok(""), created()],
    );
    assert_eq!((lines.len(), again.unwrap()), (3, pinned));
}

#[test]
fn a_large_component_goes_in_pieces_also_to_another_host() {
    let mut component = COMPONENT.to_vec();
    component.resize(9 << 20, 7);
    let (lines, pinned) = push(
        component.into(),
        vec![
            challenge("Basic"),
            absent(),
            at(202, "https://uploads.example/1"),
            at(202, "/2"),
            at(202, "https://uploads.example/3?s=1"),
            created(),
            ok(""),
            created(),
        ],
    );
    pinned.unwrap();
    assert_eq!(
        lines[3],
        "PATCH https://uploads.example/1 range 0-4194303, 4194304 bytes"
    );
    assert_eq!(
        lines[4],
        "PATCH https://uploads.example/2 range 4194304-8388607, 4194304 bytes"
    );
    assert!(
        lines[5].starts_with("PUT https://uploads.example/3?s=1&digest=sha256%3A"),
        "{}",
        lines[5]
    );
    assert!(
        lines[5].ends_with(" range 8388608-9437183, 1048576 bytes"),
        "{}",
        lines[5]
    );
    assert!(lines[6].ends_with(" as me:secret"), "{}", lines[6]);
}

#[test]
fn what_cannot_be_pushed_says_why() {
    let wrong = |component: &'static [u8], answers| {
        let (_, pinned) = push(Bytes::from_static(component), answers);
        pinned.unwrap_err().to_string()
    };
    assert!(wrong(b"\0asm\x01\0\0\0", vec![]).starts_with("it is a core module"));
    assert_eq!(wrong(b"MZ", vec![]), "it is no WebAssembly component");
    assert_eq!(
        wrong(COMPONENT, vec![absent(), answer(202, &[], "")]),
        "ghcr.io takes an upload and does not say where"
    );
    assert_eq!(
        wrong(COMPONENT, vec![absent(), at(202, "http://ghcr.io/")]),
        "ghcr.io sends on to where it must not: not to https"
    );
    assert_eq!(
        wrong(
            COMPONENT,
            vec![absent(), at(202, "/u"), answer(416, &[], "")]
        ),
        "ghcr.io answered with status 416"
    );
    assert_eq!(
        wrong(COMPONENT, vec![answer(403, &[], "")]),
        "ghcr.io refuses: there is no such image, or it takes other credentials"
    );
    let pinned = format!("ghcr.io/a@{}", Digest::of(b"")).parse().unwrap();
    let refused = Push::new(pinned, None, Bytes::from_static(COMPONENT)).unwrap_err();
    assert!(matches!(refused, PushError::Pinned(_)));
}
