//! bore as a contestant. It encrypts nothing, so that its figures say what encryption costs the others.

use std::net::SocketAddr;
use std::path::PathBuf;

use hive_e2e::ports::free_row;
use tokio::net::TcpStream;

use super::contestant::{Contestant, Role};
use super::{PATIENCE, until};
use crate::process::{self, Process};

/// Where its server listens for its clients: it can't be told another.
const CONTROL_PORT: u16 = 7835;

pub async fn start(target: u16) -> anyhow::Result<Option<Contestant>> {
    let program = std::env::var_os("BORE").map_or_else(|| PathBuf::from("bore"), PathBuf::from);
    let Ok(version) = process::output(&program, &["--version"]) else {
        println!(
            "SKIPPED: bore is not installed (cargo install --locked bore-cli@0.6.0, and put it on PATH or name it in BORE)"
        );
        return Ok(None);
    };
    println!("{} (not encrypted)", version.trim());
    let (port, target) = (free_row(1).to_string(), target.to_string());
    let server = Process::start(&program, &["server", "--bind-addr", "127.0.0.1"])?;
    // Its client does not try twice.
    until("bore's server listens", PATIENCE, async || {
        let connected = TcpStream::connect(("127.0.0.1", CONTROL_PORT)).await?;
        drop(connected);
        anyhow::Ok(())
    })
    .await?;
    let client = Process::start(
        &program,
        &[
            "local",
            &target,
            "--local-host",
            "127.0.0.1",
            "--to",
            "127.0.0.1",
            "--port",
            &port,
        ],
    )?;
    let address: SocketAddr = format!("127.0.0.1:{port}").parse()?;
    let processes = vec![server, client];
    let name = "bore (not encrypted)";
    let contestant = Contestant::of_processes(name, Role::Reference, address, processes, None);
    Ok(Some(contestant))
}
