//! Uploading components by digest.

use axum::body::Body;
use bytes::Bytes;
use hive_controller::artifacts::Digest;
use hive_manifests::function::MAX_COMPONENT_BYTES;

use crate::harness::{Answer, Server};

fn path(digest: &Digest) -> String {
    format!("/apis/hive.dev/v1/artifacts/{}", digest.hex())
}

pub async fn upload(server: &Server, content: impl Into<Bytes>) -> Digest {
    let content = content.into();
    let digest = Digest::of(&content);
    let answer = put(server, &digest, content).await;
    assert_eq!(answer.status, 201);
    digest
}

async fn put(server: &Server, digest: &Digest, body: impl Into<Body>) -> Answer {
    server.request("PUT", &path(digest)).body(body).send().await
}

#[tokio::test]
async fn an_artifact_is_uploaded_once() {
    let server = Server::start().await;
    let digest = Digest::of(b"component");
    let head = server.request("HEAD", &path(&digest)).send().await;
    assert_eq!(head.status, 404);
    let created = put(&server, &digest, "component").await;
    assert_eq!(created.status, 201);
    assert_eq!(created.json()["size"], 9);
    assert_eq!(put(&server, &digest, "component").await.status, 200);
    let head = server.request("HEAD", &path(&digest)).send().await;
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["x-hive-artifact-size"], "9");
}

#[tokio::test]
async fn an_upload_that_is_not_what_its_name_says_leaves_nothing() {
    let server = Server::start().await;
    let digest = Digest::of(b"component");
    let cut = put(&server, &digest, "compo").await;
    let cut = cut.fails(400, "BadRequest", &digest.to_string());
    let found = Digest::of(b"compo").to_string();
    assert!(cut["message"].as_str().unwrap().contains(&found), "{cut}");

    let broken = futures::stream::iter([
        Ok(Bytes::from_static(b"comp")),
        Err(std::io::Error::other("connection reset")),
    ]);
    put(&server, &digest, Body::from_stream(broken))
        .await
        .fails(400, "BadRequest", "the upload ended early");
    server
        .request("PUT", "/apis/hive.dev/v1/artifacts/abc")
        .body("x")
        .send()
        .await
        .fails(400, "BadRequest", "is not a SHA-256 digest");
    assert_eq!(
        server.request("HEAD", &path(&digest)).send().await.status,
        404
    );
}

#[tokio::test]
async fn an_upload_over_the_limit_is_refused_before_it_is_read() {
    let server = Server::start().await;
    server
        .request("PUT", &path(&Digest::of(b"x")))
        .header("content-length", &(MAX_COMPONENT_BYTES + 1).to_string())
        .body("x")
        .send()
        .await
        .fails(413, "RequestEntityTooLarge", "the limit for one");
}
