//! `hive-bench http-tunnel`: requests to a small HTTP server in this process, through an HTTP tunnel, straight, and
//! through rathole's encrypted TCP, which reads nothing of them.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use hive_functions::BoxBody;
use http::Response;
use http_body_util::{BodyExt, Full};

use super::aims::Aims;
use super::functions::front;
use super::load::{Target, print_rounds, rounds};
use super::swarm::{self, Swarm};
use super::tunnels::{raise_open_files, rathole};

const PORT: u16 = 18_100;
const HOST: &str = "bench.localhost";

/// For a tunnel to be known to the ingress, and its node to be linked.
const PATIENCE: Duration = Duration::from_secs(60);

/// As small as answers are that are asked for often.
const ANSWER: &str = "{\"answer\":42}\n";

/// Of rathole's requests per second, and of its p99.
const AIM: f64 = 1.0;

/// Where the contestants stand in what was measured; behind them come rathole's modes.
const HIVE: usize = 1;
const PEERS: usize = 2;

pub async fn run(arguments: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = arguments.first() {
        bail!("{unknown:?} is not known: `hive-bench http-tunnel` has no parts");
    }
    raise_open_files();
    let site = front::serve(|_| async {
        let body = Full::new(Bytes::from_static(ANSWER.as_bytes()));
        let body = BoxBody::new(body.map_err(|never| match never {}));
        Ok(Response::new(body))
    })
    .await?;
    let swarm = start(site.port())?;
    let direct = Target {
        address: site,
        host: HOST.to_owned(),
        pid: std::process::id(),
    };
    let through_hive = Target {
        address: ([127, 0, 0, 1], PORT).into(),
        host: HOST.to_owned(),
        pid: controller(&swarm)?,
    };
    swarm::answers(&through_hive, PATIENCE).await?;
    let mut contestants = vec![
        ("direct".to_owned(), direct),
        ("Hive, HTTP tunnel".to_owned(), through_hive),
    ];
    let peers = rathole::start(site.port())?;
    for peer in &peers {
        let through = Target {
            address: peer.address,
            host: HOST.to_owned(),
            pid: peer.pids[0],
        };
        swarm::answers(&through, PATIENCE).await?;
        contestants.push((peer.name.clone(), through));
    }
    println!(
        "\nrequests through a tunnel; CPU is of the side that clients connect to: Hive's controller, rathole's server \
         (of the direct way it is the server and all clients)"
    );
    let found = rounds(&contestants).await?;
    print_rounds(&contestants, &found);
    let mut aims = Aims::default();
    for (name, peer) in contestants
        .iter()
        .map(|(name, _)| name)
        .zip(&found)
        .skip(PEERS)
    {
        let hive = &found[HIVE];
        aims.at_least(
            &format!("HTTP tunnel / {name}, requests/s"),
            hive.requests_per_second / peer.requests_per_second,
            AIM,
            "x",
        );
        aims.at_most(
            &format!("HTTP tunnel / {name}, p99"),
            hive.p99.as_secs_f64() / peer.p99.as_secs_f64(),
            AIM,
            "x",
        );
    }
    aims.print();
    Ok(())
}

/// One controller and one agent, with an HTTP tunnel to a port of this machine.
fn start(site: u16) -> anyhow::Result<Swarm> {
    let hive = crate::beside("hive")?;
    let flags = ["--controllers", "1", "--agents", "1", "--no-example"];
    let swarm = Swarm::start(&hive, PORT, &flags)?;
    let manifest = format!(
        "apiVersion: hive.dev/v1\nkind: Tunnel\nmetadata:\n  name: bench\nspec:\n  http:\n    host: {HOST}\n  targets:\n  - node: node-1\n    port: {site}\n"
    );
    let manifest = swarm.write("tunnel.yaml", manifest.as_bytes())?;
    swarm.hivectl(&["apply", "-f", manifest.to_str().context("path")?])?;
    Ok(swarm)
}

fn controller(swarm: &Swarm) -> anyhow::Result<u32> {
    let members = swarm.members()?;
    let found = members.iter().find(|(name, _)| name == "controller-1");
    Ok(found.context("no controller-1")?.1)
}
