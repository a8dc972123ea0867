//! iperf3 through a TCP tunnel: somebody else's client and server, which talk on several connections at once.

use std::process::Stdio;

use hive_e2e::Swarm;
use hive_e2e::wait::{PATIENCE, holds, until};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::debian;
use crate::declared::{declare, proven, target};

/// What is to be sent; a part of it is still on its way when iperf3 stops counting.
const BYTES: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn iperf3_measures_a_tunnel() {
    let test = "iperf3 through a TCP tunnel";
    let Some(program) = debian::program(test, &["iperf3"], "iperf3").await else {
        return;
    };
    let mut swarm = Swarm::builder().controllers(1).agents(1).start().await;
    let (service, port) = (swarm.take_port(), swarm.take_port());
    let mut server = Command::new(&program);
    server
        .args(["--server", "--bind", "127.0.0.1", "--port"])
        .arg(service.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let _server = server.spawn().unwrap();
    let spec = json!({
        "protocol": "TCP",
        "port": port,
        "targets": [target("node-1", service)],
        // Its server takes whoever connects for a client, and has one at a time.
        "healthCheck": { "interval": "1h" },
    });
    declare(&swarm, "iperf", spec).await;
    proven(&swarm, "iperf").await;
    let (host, port) = (swarm.controllers[0].host.clone(), port.to_string());
    let bytes = BYTES.to_string();
    for (name, more) in [
        ("to the service", &[][..]),
        ("from the service", &["--reverse"][..]),
        ("on four connections", &["--parallel", "4"][..]),
    ] {
        let mut arguments = vec!["--client", &*host, "--port", &*port, "--bytes", &*bytes];
        arguments.extend(["--json", "--connect-timeout", "5000"]);
        arguments.extend(more);
        // The leader tries the tunnel now and then, for a second: then the server has its client.
        let told = until(&format!("iperf3 {name}"), PATIENCE, async || {
            let mut client = Command::new(&program);
            client.args(&arguments).stdin(Stdio::null());
            let output = client.kill_on_drop(true).output().await;
            let output = output.map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout);
            holds(output.status.success(), &text)?;
            serde_json::from_str::<Value>(&text).map_err(|error| format!("{error}: {text}"))
        })
        .await;
        let received = &told["end"]["sum_received"];
        let megabits = received["bits_per_second"].as_f64().unwrap_or_default() / 1e6;
        println!("  {name}: {megabits:.0} Mbit/s");
        let received = received["bytes"].as_u64().unwrap_or_default();
        assert!(received > BYTES / 2, "{name}: {told:#}");
    }
}
