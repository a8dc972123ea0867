//! Which ports are open.

use std::net::{IpAddr, Ipv4Addr};

use hive_proto::v1::TunnelDoorRequest;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::fixture::Alone;
use crate::state::Member;
use crate::tunnels::listen::Doors;
use crate::tunnels::serve;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn client(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect((HERE, port)).await
}

async fn answers(port: u16, expected: &str) {
    let mut client = client(port).await.unwrap();
    hears(&mut client, expected).await;
}

#[tokio::test]
async fn ports_follow_their_tunnels() {
    let mut world = World::new();
    let [one, two] = free_ports();
    let services = [echoing("old").await, echoing("new").await];
    let [old, new] = [0, 1].map(|it| json!([target(services[it])]));
    let mut doors = Doors::new(world.tunnels.clone(), HERE);
    world.declare("a", old.clone(), json!({ "port": one }));
    world.declare("b", new.clone(), json!({ "port": one }));
    assert!(doors.follow(&world.table()).await);
    answers(one, "old").await;

    // Both ask for it: the next one has it without a moment in which it is closed.
    let kept = client(one).await.unwrap();
    world.delete("a");
    assert!(doors.follow(&world.table()).await);
    answers(one, "new").await;
    drop(kept);

    // Another target behind the same port, and then another port.
    world.declare("b", old, json!({ "port": one }));
    assert!(doors.follow(&world.table()).await);
    answers(one, "old").await;
    world.declare("b", new, json!({ "port": two }));
    assert!(doors.follow(&world.table()).await);
    answers(two, "new").await;
    let closed = async {
        while client(one).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("the port to close", closed).await;
    drop(doors);
    let closed = async {
        while client(two).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("all to close", closed).await;
}

#[tokio::test]
async fn a_port_that_is_not_to_be_had_is_told_and_tried_again() {
    let mut world = World::new();
    let [at, free] = free_ports();
    let taken = TcpListener::bind((HERE, at)).await.unwrap();
    let service = echoing("hello").await;
    let targets = json!([target(service)]);
    world.declare("a", targets.clone(), json!({ "port": at }));
    world.declare("b", targets, json!({ "port": free }));
    let mut doors = Doors::new(world.tunnels.clone(), HERE);
    assert!(!doors.follow(&world.table()).await);
    let problems = world.tunnels.listeners.problems();
    assert_eq!(problems.keys().collect::<Vec<_>>(), [&key("a")]);
    let problem = &problems[&key("a")];
    assert!(problem.contains(&format!("127.0.0.1:{at}")), "{problem}");
    // The others do not wait for it.
    answers(free, "hello").await;
    // Another controller hears the same, and whether anybody came.
    let door = |name: &str| {
        let uid = world.live(name).tunnel().uid.clone();
        let (namespace, name) = ("default".to_owned(), name.to_owned());
        world.tunnels.door(&TunnelDoorRequest {
            namespace,
            name,
            uid,
        })
    };
    let [of_a, of_b] = ["a", "b"].map(door);
    assert_eq!((of_a.open, &of_a.problem), (false, problem));
    assert_eq!(of_a.came_ms, None);
    assert!(of_b.open && of_b.came_ms.is_some());

    // Who has no place left takes nobody in, and so cannot say that nobody came.
    let mut places = Vec::new();
    let nobody_knows = || {
        places.extend(world.tunnels.places.take());
        door("a").came_ms.is_some()
    };
    until("all places to be taken", nobody_knows).await;
    drop(places);

    drop(taken);
    assert!(doors.follow(&world.table()).await);
    assert!(world.tunnels.listeners.problems().is_empty());
    answers(at, "hello").await;
}

#[tokio::test]
async fn a_controller_serves_what_is_declared_until_it_stops() {
    let Alone {
        replica, dir: _dir, ..
    } = Alone::start(Member::default()).await;
    let namespace = Key::new(Resource::Namespace, "", "default");
    let body = objects::fresh(&namespace, json!({}), json!({}));
    objects::ensure(&replica, namespace, body).await.unwrap();
    let (world, stop) = (World::new(), CancellationToken::new());
    let tunnels = world.tunnels.clone();
    let serving = tokio::spawn(serve(tunnels, replica.clone(), HERE, stop.clone()));
    let [at] = free_ports();
    let service = echoing("hello").await;
    let key = key("ssh");
    let spec = json!({ "protocol": "TCP", "port": at, "targets": [target(service)] });
    let body = objects::fresh(&key, json!({}), json!({ "spec": spec }));
    objects::ensure(&replica, key, body).await.unwrap();
    let mut client = soon("the port", async {
        loop {
            if let Ok(client) = client(at).await {
                return client;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    hears(&mut client, "hello").await;
    drop(client);
    stop.cancel();
    soon("the stop", serving).await.unwrap();
    assert!(self::client(at).await.is_err());
}
