//! Images that are pulled.

use std::collections::VecDeque;
use std::time::Duration;

use hive_registry::{
    Answer, Credentials, Digest, Image, Login, Lookup, ManifestError, Pull, PullError, Reference,
    Wants,
};
use serde_json::{Value, json};

use super::{COMPONENT, TOKEN, answer, challenge, line, login, ok};

const LIMIT: u64 = 1 << 20;

/// Pulls, as far as the answers reach.
fn pull(
    reference: &str,
    login: Option<Login>,
    answers: impl IntoIterator<Item = Answer>,
) -> (Vec<String>, Result<Image, PullError>) {
    let mut answers: VecDeque<Answer> = answers.into_iter().collect();
    let mut lines = Vec::new();
    let mut pull = Pull::new(reference.parse().unwrap(), login, LIMIT);
    while let Some(ask) = pull.next() {
        lines.push(line(&ask));
        assert!(matches!(ask.wants, Wants::Body(1..=4_194_304)));
        if let Err(error) = pull.take(answers.pop_front().expect("one more answer")) {
            return (lines, Err(error));
        }
    }
    let (image, mut blob) = pull.finish().unwrap();
    loop {
        let ask = blob.next().unwrap();
        lines.push(line(&ask));
        let next = answers.pop_front().expect("one more answer");
        match blob.take(next) {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => return (lines, Err(error)),
        }
    }
    assert!(answers.is_empty(), "answers are left after {lines:#?}");
    (lines, Ok(image))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}

fn manifest() -> String {
    json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.wasm.config.v0+json", b"{}"),
        "layers": [descriptor("application/wasm", COMPONENT)],
    })
    .to_string()
}

#[test]
fn ghcr_gives_a_token_to_everybody_and_blobs_elsewhere() {
    let (lines, image) = pull(
        "ghcr.io/acme/hello:1",
        None,
        [
            challenge(
                r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull""#,
            ),
            ok(TOKEN),
            ok(&manifest()),
            answer(307, &[("location", "https://cdn.example/blob?sig=x")], ""),
            ok(""),
        ],
    );
    let component = Digest::of(COMPONENT);
    assert_eq!(
        lines,
        [
            "GET https://ghcr.io/v2/acme/hello/manifests/1",
            "GET https://ghcr.io/token?service=ghcr.io&scope=repository%3Aacme%2Fhello%3Apull",
            "GET https://ghcr.io/v2/acme/hello/manifests/1 with Bearer t1",
            &format!("GET https://ghcr.io/v2/acme/hello/blobs/{component} with Bearer t1"),
            "GET https://cdn.example/blob?sig=x",
        ]
    );
    let image = image.unwrap();
    let pinned = format!("ghcr.io/acme/hello@{}", Digest::of(manifest().as_bytes()));
    assert_eq!(image.pinned.to_string(), pinned);
    assert_eq!(image.component.digest, component);
}

#[test]
fn docker_hub_is_asked_by_its_names_and_a_token_that_ended_is_renewed() {
    let bearer = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
    let index = json!({ "manifests": [
        { "mediaType": "", "digest": Digest::of(b"x").to_string(), "size": 1, "platform": { "os": "linux", "architecture": "amd64" } },
        { "mediaType": "", "digest": Digest::of(manifest().as_bytes()).to_string(), "size": 1, "platform": { "os": "wasip2", "architecture": "wasm" } },
    ]});
    let (lines, image) = pull(
        "hello",
        login("docker.io"),
        [
            challenge(bearer),
            ok(TOKEN),
            ok(&index.to_string()),
            ok(&manifest()),
            challenge(bearer),
            ok(r#"{"access_token":"t2"}"#),
            ok(""),
        ],
    );
    let (registry, chosen) = (
        "https://registry-1.docker.io/v2/library/hello",
        Digest::of(manifest().as_bytes()),
    );
    let token = "GET https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Fhello%3Apull as me:secret";
    let blob = Digest::of(COMPONENT);
    assert_eq!(
        lines,
        [
            &*format!("GET {registry}/manifests/latest"),
            token,
            &format!("GET {registry}/manifests/latest with Bearer t1"),
            &format!("GET {registry}/manifests/{chosen} with Bearer t1"),
            &format!("GET {registry}/blobs/{blob} with Bearer t1"),
            token,
            &format!("GET {registry}/blobs/{blob} with Bearer t2"),
        ]
    );
    // By the list's digest: all platforms of it are the image.
    let list = Digest::of(index.to_string().as_bytes());
    assert_eq!(image.unwrap().pinned.digest(), Some(list));
}

#[test]
fn a_registry_may_want_name_and_password_or_a_refresh_token() {
    let (lines, image) = pull(
        "localhost:5000/a",
        login("localhost:5000"),
        [challenge("Basic realm=\"r\""), ok(&manifest()), ok("")],
    );
    image.unwrap();
    assert_eq!(
        lines[1],
        "GET http://localhost:5000/v2/a/manifests/latest as me:secret"
    );
    assert!(lines[2].ends_with(" as me:secret"), "{lines:?}");

    let config = r#"{"auths":{"azure.example":{"identitytoken":"refresh+1"}}}"#;
    let reference: Reference = "azure.example/a".parse().unwrap();
    let Lookup::Login(identity) = Credentials::parse(config.as_bytes())
        .unwrap()
        .find(&reference)
    else {
        panic!("no login");
    };
    let mut pull = Pull::new(reference, Some(identity), LIMIT);
    pull.take(challenge(
        r#"Bearer realm="https://azure.example/oauth2",service="s""#,
    ))
    .unwrap();
    let ask = pull.next().unwrap();
    assert_eq!(
        line(&ask),
        format!(
            "POST https://azure.example/oauth2, {} bytes",
            ask.body.len()
        )
    );
    let form = String::from_utf8(ask.body.to_vec()).unwrap();
    assert_eq!(
        form,
        "service=s&scope=repository%3Aa%3Apull&grant_type=refresh_token&client_id=hive&refresh_token=refresh%2B1"
    );
}

#[test]
fn no_secret_goes_where_it_does_not_belong() {
    let refused = |reference: &str, answers: Vec<Answer>| {
        let (lines, image) = pull(reference, login("ghcr.io"), answers);
        (lines.len(), image.unwrap_err().to_string())
    };
    // A realm without TLS would have the password.
    let realm = challenge(r#"Bearer realm="http://ghcr.io/token""#);
    let (asked, why) = refused("ghcr.io/a/b", vec![realm]);
    assert_eq!(
        (asked, &*why),
        (1, "ghcr.io sends on to where it must not: not to https")
    );
    for location in [
        "http://ghcr.io/x",
        "file:///etc/passwd",
        "https://me:secret@ghcr.io/x",
        "http://127.0.0.1/",
    ] {
        let (asked, why) = refused(
            "ghcr.io/a/b",
            vec![answer(302, &[("location", location)], "")],
        );
        assert_eq!(
            (asked, &*why),
            (1, "ghcr.io sends on to where it must not: not to https"),
            "{location}"
        );
    }
    // Another port of the same host is another server.
    let (lines, _) = pull(
        "ghcr.io/a/b",
        login("ghcr.io"),
        [
            challenge("Basic"),
            answer(302, &[("location", "https://ghcr.io:8443/x")], ""),
            challenge("Basic"),
        ],
    );
    assert_eq!(
        lines[1..],
        [
            "GET https://ghcr.io/v2/a/b/manifests/latest as me:secret",
            "GET https://ghcr.io:8443/x"
        ]
    );
}

#[test]
fn what_cannot_be_had_says_why_and_whether_to_wait() {
    let wrong = |answers: Vec<Answer>| {
        let (_, image) = pull("ghcr.io/a/b", None, answers);
        let error = image.unwrap_err();
        (error.to_string(), error.is_passing())
    };
    let bearer = || challenge(r#"Bearer realm="https://ghcr.io/token""#);
    let long = |size: u64| {
        let mut layer = descriptor("application/wasm", b"");
        layer["size"] = json!(size);
        ok(&json!({ "layers": [layer] }).to_string())
    };
    let endless = || {
        (0..6)
            .map(|n| answer(302, &[("location", &format!("/{n}"))], ""))
            .collect()
    };
    for (answers, why, is_passing) in [
        (
            vec![answer(404, &[], "secrets of a neighbour")],
            "ghcr.io does not have it",
            false,
        ),
        (
            vec![answer(503, &[], "")],
            "ghcr.io answered with status 503",
            true,
        ),
        (
            vec![answer(418, &[], "")],
            "ghcr.io answered with status 418",
            false,
        ),
        (
            vec![answer(429, &[("retry-after", "30")], "")],
            "ghcr.io has been asked too often",
            true,
        ),
        (
            vec![bearer(), answer(403, &[], "")],
            "ghcr.io refuses: there is no such image, or it takes other credentials",
            false,
        ),
        (
            vec![bearer(), ok(TOKEN), bearer()],
            "ghcr.io refuses: there is no such image, or it takes other credentials",
            false,
        ),
        (
            vec![challenge("Basic")],
            "ghcr.io refuses: there is no such image, or it takes other credentials",
            false,
        ),
        (vec![bearer(), ok("{}")], "ghcr.io gives no token", false),
        (
            vec![bearer(), ok("{\"token\":\"a\\nb\"}")],
            "ghcr.io gives no token",
            false,
        ),
        (
            vec![ok("<html>")],
            "the registry's answer is no manifest of an image",
            false,
        ),
        (
            vec![long(LIMIT + 1)],
            "the component has 1048577 bytes, more than the 1048576 that are taken",
            false,
        ),
        (
            vec![long(3), answer(200, &[("content-length", "4")], "")],
            "ghcr.io answers with 4 bytes where the manifest says 3",
            false,
        ),
        (endless(), "ghcr.io sends on more than 5 times", false),
    ] {
        assert_eq!(wrong(answers), (why.to_owned(), is_passing));
    }
    let (_, limited) = pull(
        "ghcr.io/a",
        None,
        [answer(429, &[("retry-after", "30")], "")],
    );
    assert!(
        matches!(limited, Err(PullError::Ask(hive_registry::AskError::TooManyRequests { after: Some(after), .. })) if after == Duration::from_secs(30))
    );
}

#[test]
fn a_digest_holds_whatever_the_registry_says() {
    let good = format!("ghcr.io/a/b@{}", Digest::of(manifest().as_bytes()));
    let (_, image) = pull(&good, None, [ok(&manifest()), ok("")]);
    assert_eq!(image.unwrap().pinned.to_string(), good);
    let (_, lying) = pull(&good, None, [ok(&manifest().replace("schema", "sCHEMA"))]);
    let Err(PullError::Manifest(ManifestError::OtherManifest(_))) = lying else {
        panic!("{lying:?}");
    };
}
