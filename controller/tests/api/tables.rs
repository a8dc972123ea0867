//! Tables and metadata in place of objects.

use serde_json::json;

use crate::harness::{CONFIG_MAPS, Server};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn lists_objects_and_watches_come_as_tables() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/a")] {
        let table = server
            .request("GET", &path)
            .header("accept", TABLE)
            .send()
            .await
            .ok();
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        assert_eq!(table["rows"][0]["cells"][0], "a");
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "a");
    }
    let whole = server
        .request("GET", &format!("{CONFIG_MAPS}?includeObject=Object"))
        .header("accept", TABLE)
        .send()
        .await
        .ok();
    assert_eq!(whole["rows"][0]["object"]["kind"], "ConfigMap");

    let mut watch = server
        .request("GET", &format!("{CONFIG_MAPS}?watch=1"))
        .header("accept", TABLE)
        .watch()
        .await;
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["kind"], "Table");
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn metadata_alone_is_enough_for_some() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let list = server
        .request("GET", CONFIG_MAPS)
        .header(
            "accept",
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        )
        .send()
        .await
        .ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    assert!(list["items"][0].get("data").is_none());
}
