//! How answers are sent: compressed where they are large, indented for people; what they say of the
//! level that the request had.

use std::io::Read;

use flate2::read::GzDecoder;
use hive_controller::access::tokens::Role;
use serde_json::{Value, json};

use crate::harness::{Answer, CONFIG_MAPS, Server};

const LARGE: usize = 200 << 10;

async fn compressed(server: &Server, path: &str) -> Answer {
    let call = server.request("GET", path);
    call.header("accept-encoding", "gzip").send().await
}

fn plain(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.headers["content-encoding"], "gzip");
    let mut plain = Vec::new();
    GzDecoder::new(&answer.body[..])
        .read_to_end(&mut plain)
        .unwrap();
    plain
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_takes_that() {
    let server = Server::start().await;
    let large = json!({ "metadata": { "name": "large" }, "data": { "a": "a".repeat(LARGE) } });
    server.post(CONFIG_MAPS, large).await.ok();
    let path = format!("{CONFIG_MAPS}/large");
    // One object, a list of pieces, a document.
    for path in [&*path, CONFIG_MAPS, "/openapi/v2"] {
        let sent = server.get(path).await;
        assert!(!sent.headers.contains_key("content-encoding"), "{path}");
        let answer = compressed(&server, path).await;
        let mut vary = answer.headers.get_all("vary").iter();
        assert!(vary.any(|value| value == "Accept-Encoding"), "{path}");
        assert!(answer.body.len() * 4 < sent.body.len(), "{path}");
        assert_eq!(plain(&answer), sent.body, "{path}");
    }

    server.delete(&path).await.ok();
    let small = compressed(&server, CONFIG_MAPS).await;
    assert!(!small.headers.contains_key("content-encoding"));
    assert_eq!(small.ok()["items"], json!([]));
}

#[tokio::test]
async fn events_are_never_held_back() {
    let server = Server::start().await;
    let large = json!({ "metadata": { "name": "large" }, "data": { "a": "a".repeat(LARGE) } });
    server.post(CONFIG_MAPS, large).await.ok();
    let mut watch = server
        .request("GET", &format!("{CONFIG_MAPS}?watch=1&pretty=1"))
        .header("accept-encoding", "gzip")
        .watch()
        .await;
    assert_eq!(watch.next().await, "ADDED large");
    server.config_map("small", json!({})).await;
    assert_eq!(watch.next().await, "ADDED small");
}

#[tokio::test]
async fn people_get_indented_answers() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let text = async |agent: &str, path: &str| {
        let call = server.request("GET", path).header("user-agent", agent);
        String::from_utf8(call.send().await.body.to_vec()).unwrap()
    };
    let path = format!("{CONFIG_MAPS}/a");
    for (agent, query, is_pretty) in [
        ("curl/7.88.1", "", true),
        ("curl/7.88.1", "?pretty=false", false),
        ("kubectl/v1.20.2", "", false),
        ("kubectl/v1.20.2", "?pretty=true", true),
    ] {
        for path in [&*path, CONFIG_MAPS, "/apis", "/version", "/api/v1/nothing"] {
            let text = text(agent, &format!("{path}{query}")).await;
            let value: Value = serde_json::from_str(&text).unwrap();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            // As they are stored, fields are sorted; others come as they are written.
            assert_eq!(text.lines().count() > 1, is_pretty, "{agent} {path}{query}");
            if is_pretty {
                assert_eq!(text.lines().count(), pretty.lines().count());
            }
        }
    }
}

#[tokio::test]
async fn answers_name_the_level_that_their_requests_had() {
    let server = Server::start().await;
    let view = server.token(Role::View, None).await;
    let mut levels = Vec::new();
    for token in [server.admin(), &view] {
        for path in [CONFIG_MAPS, "/apis", "/api/v1/namespaces/default/secrets"] {
            let answer = server.request("GET", path).bearing(token).send().await;
            let [schema, level] = ["flowschema", "prioritylevel"]
                .map(|name| answer.headers[&*format!("x-kubernetes-pf-{name}-uid")].clone());
            assert_eq!(schema, level);
            levels.push(level);
        }
    }
    assert!(levels[..3].iter().all(|level| *level == levels[0]));
    assert!(levels[3..].iter().all(|level| *level == levels[3]));
    assert_ne!(levels[0], levels[3]);
    let metrics = server.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let named = |name: &str, level: &http::HeaderValue| {
        let uid = level.to_str().unwrap();
        metrics.contains(&format!("priority_level=\"{name}\",uid=\"{uid}\""))
    };
    assert!(named("system", &levels[0]) && named("people", &levels[3]));
    let unknown = server.request("GET", "/version").anonymous().send().await;
    assert!(
        !unknown
            .headers
            .contains_key("x-kubernetes-pf-flowschema-uid")
    );
}
