//! What becomes of single connections.

use super::*;

#[tokio::test]
async fn bytes_flow_both_ways_and_each_direction_ends_by_itself() {
    let mut world = World::new();
    let service = listen().await;
    let live = world.declare("ssh", json!([target(port(&service))]), json!({}));
    let mut client = world.connect(&live).await;
    let (mut there, _) = soon("the target", service.accept()).await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = String::new();
    soon("the end", there.read_to_string(&mut asked))
        .await
        .unwrap();
    assert_eq!(asked, "question");
    // Nobody writes to it any more, but it is still heard.
    there.write_all(b"the answer").await.unwrap();
    drop(there);
    let mut answered = String::new();
    let answer = client.read_to_string(&mut answered);
    soon("the answer", answer).await.unwrap();
    assert_eq!(answered, "the answer");

    until("the count", || live.metered().connections == 0).await;
    let metered = live.metered();
    assert_eq!((metered.in_bytes, metered.out_bytes), (8, 10));
    assert!(metered.failures.is_empty(), "{metered:?}");
}

#[tokio::test]
async fn a_target_that_refuses_is_passed_over() {
    let mut world = World::new();
    let service = echoing("second ").await;
    let [nobody] = free_ports();
    let (first, second) = (target(nobody), target(service));
    let unlinked = on("phone", service);
    let live = world.declare("ssh", json!([first, unlinked, second]), json!({}));
    for _ in 0..4 {
        let mut client = world.connect(&live).await;
        client.write_all(b"hello").await.unwrap();
        hears(&mut client, "second hello").await;
    }
    let mut known = world.tunnels.health.snapshot(&key("ssh"));
    known.sort_by_key(|it| it.target.node.clone());
    let told = known.iter().filter(|it| !it.reason.is_empty());
    let told: Vec<_> = told.map(|it| (&*it.target.node, &*it.reason)).collect();
    assert_eq!(told, [("phone", "NodeNotLinked"), ("pi", "Refused")]);
    let well = known.iter().filter(|it| it.healthy == Some(true));
    let ports: Vec<_> = well.map(|it| it.target.port).collect();
    assert_eq!(ports, [service]);
    // Once is enough to learn it.
    assert_eq!(live.metered().failures.get("Refused"), Some(&1));
}

#[tokio::test]
async fn where_no_target_takes_it_a_connection_is_refused() {
    let mut world = World::new();
    let [nobody] = free_ports();
    let live = world.declare("ssh", json!([target(nobody)]), json!({}));
    let mut client = world.connect(&live).await;
    breaks(&mut client).await;
    until("the count", || live.metered().connections == 0).await;
}

#[tokio::test]
async fn what_was_read_of_a_client_comes_first_and_counts() {
    let mut world = World::new();
    let service = echoing("hears ").await;
    let live = world.declare("db", json!([target(service)]), json!({}));
    let mut client = world.connect_after(&live, b"hello ").await;
    client.write_all(b"world").await.unwrap();
    hears(&mut client, "hears hello world").await;
    drop(client);
    until("the count", || live.metered().connections == 0).await;
    assert_eq!(live.metered().in_bytes, 11);
}

#[tokio::test]
async fn the_target_is_told_who_its_client_is() {
    for (version, signature) in [
        ("V1", &b"PROXY TCP4 "[..]),
        ("V2", &b"\r\n\r\n\0\r\nQUIT\n"[..]),
    ] {
        let mut world = World::new();
        let service = listen().await;
        let more = json!({ "proxyProtocol": version });
        let live = world.declare("web", json!([target(port(&service))]), more);
        let mut client = world.connect(&live).await;
        client.write_all(b"GET /").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut there, _) = soon("the target", service.accept()).await.unwrap();
        let mut heard = Vec::new();
        soon("the end", there.read_to_end(&mut heard))
            .await
            .unwrap();
        let (from, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let expected = match version {
            "V1" => format!("127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), to.port()).into_bytes(),
            _ => [
                // A connection on behalf of another, of TCP over IPv4, and 12 bytes.
                &[0x21, 0x11, 0, 12, 127, 0, 0, 1, 127, 0, 0, 1][..],
                &from.port().to_be_bytes(),
                &to.port().to_be_bytes(),
            ]
            .concat(),
        };
        assert_eq!(heard, [signature, &expected, b"GET /"].concat());
    }
}

#[tokio::test]
async fn more_connections_than_a_tunnel_may_have_are_refused() {
    let mut world = World::new();
    let service = echoing("").await;
    let more = json!({ "maxConnections": 1 });
    let live = world.declare("ssh", json!([target(service)]), more);
    let mut first = world.connect(&live).await;
    first.write_all(b"hello").await.unwrap();
    hears(&mut first, "hello").await;
    assert_eq!(world.tunnels.health.snapshot(&key("ssh"))[0].connections, 1);

    let mut second = world.connect(&live).await;
    breaks(&mut second).await;
    assert_eq!(live.metered().failures.get("TooManyConnections"), Some(&1));
    drop(first);
    until("the place", || live.metered().connections == 0).await;
    let mut third = world.connect(&live).await;
    third.write_all(b"hello").await.unwrap();
    hears(&mut third, "hello").await;
}

#[tokio::test]
async fn connections_end_with_their_tunnel_and_outlive_its_changes() {
    let mut world = World::new();
    let services = [echoing("").await, echoing("").await];
    let [ssh, other] = [0, 1].map(|it| json!([target(services[it])]));
    let live = world.declare("ssh", ssh.clone(), json!({}));
    let mut client = world.connect(&live).await;
    let beside = world.declare("other", other.clone(), json!({ "port": 2223 }));
    let mut unconcerned = world.connect(&beside).await;
    for client in [&mut client, &mut unconcerned] {
        client.write_all(b"one ").await.unwrap();
        hears(client, "one ").await;
    }
    // Another port, another target: what is under way stays where it is.
    world.declare("ssh", other, json!({ "port": 2224 }));
    client.write_all(b"two ").await.unwrap();
    hears(&mut client, "two ").await;
    world.delete("ssh");
    breaks(&mut client).await;
    unconcerned.write_all(b"two ").await.unwrap();
    hears(&mut unconcerned, "two ").await;
}

#[tokio::test]
async fn a_tunnel_made_anew_is_another() {
    let mut world = World::new();
    let service = echoing("").await;
    let spec = json!([target(service)]);
    let live = world.declare("ssh", spec.clone(), json!({}));
    let mut client = world.connect(&live).await;
    client.write_all(b"one ").await.unwrap();
    hears(&mut client, "one ").await;
    // Both changes are seen at once.
    let (key, expect, uid) = (key("ssh"), None, None);
    let gone = Command::Delete { key, expect, uid };
    world.state.apply(gone).unwrap();
    world.declare("ssh", spec, json!({}));
    breaks(&mut client).await;
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way_and_cuts_the_rest() {
    let mut world = World::new();
    let service = echoing("").await;
    let live = world.declare("ssh", json!([target(service)]), json!({}));
    let [mut short, mut long] = [world.connect(&live).await, world.connect(&live).await];
    for client in [&mut short, &mut long] {
        client.write_all(b"one ").await.unwrap();
        hears(client, "one ").await;
    }
    let tunnels = world.tunnels.clone();
    let stopping = tokio::spawn(async move { tunnels.end(DEADLINE).await });
    short.write_all(b"two ").await.unwrap();
    short.shutdown().await.unwrap();
    hears(&mut short, "two ").await;
    assert_eq!(soon("the end", short.read(&mut [0])).await.unwrap(), 0);
    assert!(!stopping.is_finished());
    stopping.abort();
    soon("a stop", world.tunnels.end(Duration::ZERO)).await;
    breaks(&mut long).await;
    assert!(world.tunnels.get(&key("ssh")).is_none());
}
