//! What a tunnel says of itself: why it is not ready, in one word and a sentence, and when it is again.

use hive_e2e::swarm::node_ready;
use hive_e2e::{Steps, Swarm};
use serde_json::json;

use crate::declared::{declare, not_ready, proven, target, told};
use crate::http_tunnels::answers;
use crate::site::Site;

/// Where clouds hand out credentials: no agent goes there unless its operator says so.
const METADATA: &str = "169.254.169.254";

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_says_what_is_in_the_way() {
    let mut swarm = Swarm::builder().agents(2).apart().start().await;
    let port = swarm.take_port();
    let mut site = Site::start("one", port).await;
    let mut steps = Steps::new();

    steps
        .run(
            "one command exposes a service, and waits for the proof",
            async {
                let at = port.to_string();
                let expose = ["expose", "node/node-1", "--port", &at, "--name=photos"];
                let exposed = swarm.ctl(&[&expose[..], &["--wait=180s"]].concat()).await;
                assert!(
                    exposed.ok().contains("tunnel.hive.dev/photos ready: "),
                    "{exposed}"
                );
                for controller in &swarm.controllers {
                    let ingress = controller.ingress_address();
                    answers(&ingress, "photos.default.localhost", "one").await;
                }
                let described = swarm.ctl(&["describe", "tunnel", "photos"]).await;
                assert!(
                    described.ok().contains("Status:          Ready: "),
                    "{described}"
                );
                let address = format!("127.0.0.1:{port}");
                assert!(described.stdout.contains(&address), "{described}");
            },
        )
        .await;
    steps
        .run(
            "a service that is down is named, with an event, until it is back",
            async {
                let targets = [target("node-1", port)];
                declare(&swarm, "shop", json!({ "targets": targets })).await;
                proven(&swarm, "shop").await;
                site.go_away().await;
                not_ready(&mut swarm, "shop", "TargetDown").await;
                told(&swarm, "shop", "TargetDown").await;
                let described = swarm.ctl(&["describe", "tunnel", "shop"]).await;
                assert!(
                    described.ok().contains("Not ready (TargetDown): "),
                    "{described}"
                );
                site.come_back().await;
                proven(&swarm, "shop").await;
            },
        )
        .await;
    steps
        .run("so is a node that is gone", async {
            swarm.agent("node-1").member.kill9().await;
            let why = not_ready(&mut swarm, "shop", "NodeNotLinked").await;
            assert!(why.contains("node-1"), "{why}");
            let client = swarm.client().await;
            let agent = swarm.agent("node-1");
            agent.member.start();
            node_ready(&client, agent).await;
            proven(&swarm, "shop").await;
        })
        .await;
    steps
        .run("and what a node's operator does not allow", async {
            let mut forbidden = target("node-2", 80);
            forbidden["host"] = json!(METADATA);
            declare(&swarm, "metadata", json!({ "targets": [forbidden] })).await;
            let why = not_ready(&mut swarm, "metadata", "NotAllowed").await;
            assert!(why.contains(METADATA), "{why}");
        })
        .await;
    steps
        .run("and a name that leads nowhere", async {
            // Of the top-level domain that never leads anywhere.
            let spec = json!({ "http": { "host": "photos.invalid" }, "targets": [target("node-1", port)] });
            declare(&swarm, "nowhere", spec).await;
            let why = not_ready(&mut swarm, "nowhere", "NotResolved").await;
            assert!(why.contains("photos.invalid"), "{why}");
            // Who asks a controller for it is answered all the same.
            answers(&swarm.controllers[0].ingress_address(), "photos.invalid", "one").await;
        })
        .await;
    steps.finish();
}
