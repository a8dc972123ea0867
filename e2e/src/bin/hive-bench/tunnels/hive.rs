//! Hive as a contestant: one controller, one agent, one TCP tunnel.

use std::net::SocketAddr;

use anyhow::Context;

use super::contestant::{Contestant, Role};
use crate::swarm::Swarm;

const PORT: u16 = 18_300;
/// Beyond those of the swarm's members.
const TUNNEL_PORT: u16 = PORT + 99;

pub fn start(target: u16) -> anyhow::Result<Contestant> {
    let hive = crate::beside("hive")?;
    let flags = ["--controllers", "1", "--agents", "1", "--no-example"];
    let swarm = Swarm::start(&hive, PORT, &flags)?;
    let manifest = swarm.write(
        "tunnel.yaml",
        tcp("bench", TUNNEL_PORT, 1, target).as_bytes(),
    )?;
    swarm.hivectl(&["apply", "-f", manifest.to_str().context("path")?])?;
    let pids = swarm.members()?.into_iter().map(|(_, pid)| pid).collect();
    let address = SocketAddr::from(([127, 0, 0, 1], TUNNEL_PORT));
    Ok(Contestant::new("Hive", Role::Hive, address, pids, swarm))
}

/// The manifest of a tunnel from a port of the controllers to one of a node.
pub fn tcp(name: &str, port: u16, node: usize, target: u16) -> String {
    format!(
        "apiVersion: hive.dev/v1\nkind: Tunnel\nmetadata:\n  name: {name}\nspec:\n  protocol: TCP\n  port: {port}\n  targets:\n  - node: node-{node}\n    port: {target}\n---\n"
    )
}
