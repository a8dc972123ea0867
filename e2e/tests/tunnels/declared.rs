//! Tunnels as people declare them, and what the swarm answers.

use std::time::Duration;

use hive_e2e::Swarm;
use hive_e2e::swarm::object;
use hive_e2e::wait::{holds, until};
use serde_json::{Value, json};

/// The leader tries each tunnel every 30 s: a few times that, should one of them meet a busy machine.
pub const PROVEN: Duration = Duration::from_secs(180);

fn path(name: &str) -> String {
    format!("/apis/hive.dev/v1/namespaces/default/tunnels/{name}")
}

/// A place on a node.
pub fn target(node: &str, port: u16) -> Value {
    json!({ "node": node, "port": port })
}

/// Targets are asked as often as they may be, so that nobody waits for it, unless the spec says otherwise.
pub async fn declare(swarm: &Swarm, name: &str, mut spec: Value) {
    for (name, value) in [("interval", "1s"), ("timeout", "2s")] {
        let field = &mut spec["healthCheck"][name];
        if field.is_null() {
            *field = value.into();
        }
    }
    let tunnel = json!({
        "apiVersion": "hive.dev/v1",
        "kind": "Tunnel",
        "metadata": { "name": name },
        "spec": spec,
    });
    let text = tunnel.to_string();
    let applied = swarm.ctl.run_with_input(&["apply", "-f", "-"], &text);
    applied.await.ok();
}

/// Waits until somebody was there, as a person would.
pub async fn proven(swarm: &Swarm, name: &str) {
    let tunnel = format!("tunnel/{name}");
    let wait = ["wait", "--for=condition=Ready", &tunnel, "--timeout=180s"];
    swarm.ctl(&wait).await.ok();
}

/// Waits until a tunnel says that it is not ready for this reason; the sentence with it.
pub async fn not_ready(swarm: &mut Swarm, name: &str, reason: &str) -> String {
    let client = swarm.client().await;
    until(&format!("{name} says {reason}"), PROVEN, async || {
        let tunnel = object(&client, &path(name)).await?;
        let conditions = tunnel["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let ready = conditions.find(|condition| condition["type"] == "Ready");
        let ready = ready.ok_or("nothing is said of it")?;
        holds(
            ready["status"] == "False" && ready["reason"] == reason,
            &tunnel["status"],
        )?;
        Ok::<_, String>(ready["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// Waits until the controllers say so of the target on a node.
pub async fn target_is(swarm: &mut Swarm, name: &str, node: &str, healthy: bool) {
    let client = swarm.client().await;
    let what = format!("the target of {name} on {node} is told to be healthy: {healthy}");
    until(&what, PROVEN, async || {
        let tunnel = object(&client, &path(name)).await?;
        let targets = tunnel["status"]["targets"].as_array();
        let mut targets = targets.into_iter().flatten();
        let found = targets.find(|target| target["node"] == node);
        holds(
            found.is_some_and(|target| target["healthy"] == healthy),
            &tunnel["status"],
        )
    })
    .await;
}

/// Waits until an Event of that reason tells of the tunnel.
pub async fn told(swarm: &Swarm, name: &str, reason: &str) {
    let about = format!("tunnel/{name}");
    until(
        &format!("an event of {name} says {reason}"),
        PROVEN,
        async || {
            let events = swarm.ctl(&["events", "--for", &about]).await;
            holds(events.ok().contains(reason), events)
        },
    )
    .await;
}
