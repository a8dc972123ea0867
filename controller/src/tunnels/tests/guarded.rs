//! Connections that not everybody may make.

use super::*;
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::ingress::routes::SETTINGS;

/// What a proxy in front sends first, for a client at this address.
fn announced(client: &str) -> String {
    format!("PROXY TCP4 {client} 10.0.0.1 4711 2222\r\n")
}

/// Whoever connects from this machine is a proxy.
fn behind_proxies(world: &mut World) {
    let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
    let data = json!({ "data": { "proxyProtocolFrom": "127.0.0.1" } });
    let body = objects::fresh(&key, json!({}), data).into();
    world.apply(Command::Create { key, body });
}

#[tokio::test]
async fn who_may_not_come_reaches_no_target() {
    let mut world = World::new();
    let service = echoing("there ").await;
    let access = |client: &str| json!({ "access": { "allowedClients": [client] } });
    let targets = json!([target(service)]);
    let live = world.declare("ssh", targets.clone(), access("203.0.113.0/24"));
    let mut client = world.connect(&live).await;
    breaks(&mut client).await;
    // Who claims to be another is no proxy of the swarm's.
    let mut client = world.connect(&live).await;
    let _ = client.write_all(announced("203.0.113.7").as_bytes()).await;
    breaks(&mut client).await;
    assert_eq!(live.metered().failures, [("ClientNotAllowed", 2)].into());
    assert!(
        world.tunnels.health.snapshot(&key("ssh"))[0]
            .healthy
            .is_none()
    );

    world.declare("ssh", targets, access("127.0.0.0/8"));
    let mut client = world.connect(&live).await;
    hears(&mut client, "there ").await;
}

#[tokio::test]
async fn who_connects_too_often_is_cut_off() {
    let mut world = World::new();
    let service = echoing("there ").await;
    let limit = json!({ "requestsPerSecond": 1, "burst": 2 });
    let access = json!({ "access": { "rateLimit": limit } });
    let live = world.declare("ssh", json!([target(service)]), access);
    let mut clients = [world.connect(&live).await, world.connect(&live).await];
    for client in &mut clients {
        hears(client, "there ").await;
    }
    // A busy machine may take so long that there is a token again.
    let refused = async {
        while !live.metered().failures.contains_key("RateLimited") {
            let _ = world.connect(&live).await;
            tokio::task::yield_now().await;
        }
    };
    soon("a connection too many", refused).await;
}

#[tokio::test]
async fn a_proxy_of_the_swarm_says_who_connects() {
    let mut world = World::new();
    let service = echoing("there ").await;
    behind_proxies(&mut world);
    let access = json!({ "access": { "allowedClients": ["203.0.113.0/24"] } });
    let live = world.declare("ssh", json!([target(service)]), access);
    for (first, is_let_in) in [
        (announced("203.0.113.7"), true),
        (announced("198.51.100.7"), false),
        ("no header at all".to_owned(), false),
    ] {
        let mut client = world.connect(&live).await;
        client.write_all(first.as_bytes()).await.unwrap();
        match is_let_in {
            // The service hears what is behind the header.
            true => {
                client.write_all(b"hello").await.unwrap();
                hears(&mut client, "there hello").await;
            }
            false => breaks(&mut client).await,
        }
    }
    let counted = live.metered().failures;
    assert_eq!(counted.get("ClientNotAllowed"), Some(&1), "{counted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_does_not_say_who_connects_is_given_up() {
    let mut world = World::new();
    let service = echoing("there ").await;
    behind_proxies(&mut world);
    let live = world.declare("ssh", json!([target(service)]), json!({}));
    let mut client = world.connect(&live).await;
    // Without a deadline: this clock runs to the next one while the kernel still says that the connection broke.
    client.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(live.metered().failures, [("ClientBroke", 1)].into());
}
