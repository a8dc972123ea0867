//! What a swarm tells of itself: through its API, its ports and its logs.

use http::Request;
use kube::Client;
use serde_json::Value;

use super::Agent;
use crate::wait::{PATIENCE, holds, until};
use crate::web::{self, Answer};

/// The host at which a function in the default namespace answers.
pub fn host(name: &str) -> String {
    format!("{name}.default.localhost")
}

pub fn function_path(name: &str) -> String {
    format!("/apis/hive.dev/v1/namespaces/default/functions/{name}")
}

pub const NODES: &str = "/apis/hive.dev/v1/nodes";
pub const ASSIGNMENTS: &str = "/apis/hive.dev/v1/namespaces/default/assignments";
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An object, or a list of objects.
pub async fn object(client: &Client, path: &str) -> Result<Value, String> {
    let request = Request::get(path)
        .body(Vec::new())
        .expect("the request is well-formed");
    client
        .request(request)
        .await
        .map_err(|error| error.to_string())
}

/// The status of an object's condition.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind)
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or_default()
}

/// Waits until the node of an agent has joined and is Ready.
pub async fn node_ready(client: &Client, agent: &mut Agent) {
    let member = &mut agent.member;
    let path = format!("{NODES}/{}", member.name);
    until(&format!("{} is Ready", member.name), PATIENCE, async || {
        if !member.is_running() {
            panic!("{} has ended\n{}", member.name, member.tail());
        }
        let node = object(client, &path).await?;
        holds(
            condition(&node, "Ready") == "True",
            &node["status"]["conditions"],
        )
    })
    .await;
}

/// Waits until a function answers at an address.
pub async fn answers(address: &str, function: &str) -> Answer {
    until(
        &format!("{function} answers at {address}"),
        PATIENCE,
        async || {
            web::get(address, &host(function), "/")
                .await
                .map_err(|error| error.to_string())?
                .ok()
        },
    )
    .await
}

/// From the last line in which a controller said whom it follows.
pub(super) fn leader_in(log: &str) -> Option<u64> {
    let line = log
        .lines()
        .rev()
        .find(|line| line.contains(": leadership "))?;
    let (_, told) = line.split_once(" leader=")?;
    told.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_whom_the_last_line_names() {
        let led = "T  INFO hive_controller::store::leadership: leadership leader=2 term=1 is_leader=false";
        let lost = "T  INFO hive_controller::store::leadership: leadership term=1 is_leader=false";
        assert_eq!(leader_in(""), None);
        assert_eq!(
            leader_in(&format!("{lost}\n{led}\nT something else")),
            Some(2)
        );
        assert_eq!(leader_in(&format!("{led}\n{lost}")), None);
    }
}
