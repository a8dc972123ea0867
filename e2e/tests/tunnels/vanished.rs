//! Clients that vanish: a laptop that is shut, a train in a tunnel. No end and no reset ever comes of them, and what
//! they held is free again all the same.
//!
//! In a sandbox with a network of its own, where nftables drops what they send and what is sent to them.

use std::time::Duration;

use hive_e2e::faults::{sandbox, tool};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, Turn};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::declared::{declare, proven, target};
use crate::requests::within;
use crate::service::{Habit, Service};
use crate::site::Site;
use crate::tcp::{connect, is_ended, reaches, says};
use crate::transfer::{Transfer, Way};
use crate::weight::{no_more_files, open_files};

const HOST: &str = "photos.localhost";

/// Places of the tunnel, all of which are lost.
const PLACES: usize = 4;

/// Long enough that nobody who is there is taken for gone, on a busy machine.
const IDLE: &str = "5s";

/// Clients that vanish in the middle of a head.
const HALF: u64 = 20;

/// The ingress gives up who takes nothing of an answer after a minute, in the kernel's own time.
const GIVEN_UP: Duration = Duration::from_secs(180);

#[tokio::test]
async fn clients_that_vanish_are_given_up() {
    if !sandbox::is_permitted("tunnels whose clients vanish") {
        return;
    }
    let _turn = Turn::take().await;
    sandbox::run("vanished::clients_vanish_in_a_sandbox", &[]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started in its sandbox by the test above"]
async fn clients_vanish_in_a_sandbox() {
    if !sandbox::is_inside() {
        return;
    }
    let mut swarm = Swarm::builder().agents(1).apart().start().await;
    let echo = Service::start(swarm.take_port(), Habit::Echo).await;
    let gives = Transfer::start(swarm.take_port(), Way::Gives).await;
    let site_port = swarm.take_port();
    let site = Site::start("one", site_port).await;
    let [quiet, down] = [swarm.take_port(), swarm.take_port()];
    for (name, port, service) in [("quiet", quiet, echo.port()), ("down", down, gives.port())] {
        let spec = json!({
            "protocol": "TCP", "port": port, "targets": [target("node-1", service)],
            "idleTimeout": IDLE, "maxConnections": PLACES,
        });
        declare(&swarm, name, spec).await;
    }
    let spec = json!({ "http": { "host": HOST }, "targets": [target("node-1", site_port)] });
    declare(&swarm, "photos", spec).await;
    for name in ["quiet", "down", "photos"] {
        proven(&swarm, name).await;
    }
    let controller = &swarm.controllers[0];
    let [quiet, down] = [quiet, down].map(|port| controller.address(port));
    let ingress = controller.ingress_address();
    let mut steps = Steps::new();

    steps
        .run("who was quiet frees the place", async {
            let mut clients = Vec::new();
            // The swarm's own trials have one for a moment.
            while clients.len() < PLACES {
                clients.push(reaches(&quiet).await);
            }
            is_ended(&mut connect(&quiet).await).await;
            vanish(clients);
            // A place is free, and the service knows that only this one is left.
            let mut new = reaches(&quiet).await;
            until("the service has one client", PATIENCE, async || {
                // Else it is given up as well, soon after the others.
                says(&mut new, "I am here").await?;
                let open = echo.open();
                holds(open == 1, format!("{open} are open"))
            })
            .await;
        })
        .await;
    steps
        .run("who was sent much frees the place", async {
            let mut clients = Vec::new();
            while clients.len() < PLACES {
                let mut stream = connect(&down).await;
                // Else it was shown out: the swarm tried the tunnel at this moment.
                if stream.read_exact(&mut [0; 1 << 16]).await.is_ok() {
                    clients.push(stream);
                }
            }
            vanish(clients);
            until("nothing is sent any more", PATIENCE, async || {
                let open = gives.open();
                holds(open == 0, format!("{open} are open"))
            })
            .await;
        })
        .await;
    steps
        .run("who vanished in the middle of a request is let go", async {
            let before = open_files(&swarm);
            let mut clients = Vec::new();
            for _ in 0..HALF {
                let mut stream = connect(&ingress).await;
                stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
                clients.push(stream);
            }
            let name = &controller.member.name;
            until("the ingress has them", PATIENCE, async || {
                let now = open_files(&swarm)[name];
                holds(now >= before[name] + HALF, format!("{now} files are open"))
            })
            .await;
            vanish(clients);
            no_more_files(&swarm, &before).await;
        })
        .await;
    steps
        .run("who vanished in the middle of an answer is let go", async {
            let mut stream = connect(&ingress).await;
            let request = format!("GET /events HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let head = within("an answer begins", stream.read(&mut [0; 1024])).await;
            assert!(head.unwrap() > 0);
            until("somebody listens", PATIENCE, async || {
                let listening = site.publish("something");
                holds(listening == 1, format!("{listening} listen"))
            })
            .await;
            vanish(vec![stream]);
            until("nobody listens any more", GIVEN_UP, async || {
                let listening = site.publish("something else");
                holds(listening == 0, format!("{listening} listen"))
            })
            .await;
        })
        .await;
    let dropped = dropped();
    assert!(dropped > 0, "the network dropped nothing");
    println!("  the network dropped {dropped} packets");
    steps.finish();
}

/// From now on nothing comes of them and nothing gets there: not even that they end.
fn vanish(clients: Vec<TcpStream>) {
    let mut script = "add table inet vanished\n\
         add chain inet vanished input { type filter hook input priority 0; }\n"
        .to_owned();
    for client in &clients {
        let (here, there) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        for (from, to) in [(here, there), (there, here)] {
            script += &format!(
                "add rule inet vanished input tcp sport {} tcp dport {} counter drop\n",
                from.port(),
                to.port()
            );
        }
    }
    if let Err(error) = tool::feed("nft", &["-f", "-"], &script) {
        panic!("{error}\n{script}");
    }
    drop(clients);
}

/// Packets that were not let through.
fn dropped() -> u64 {
    let rules = tool::must("nft", &["list", "table", "inet", "vanished"]);
    rules
        .split("packets ")
        .skip(1)
        .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
        .sum()
}
