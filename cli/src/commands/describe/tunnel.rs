//! What `hivectl describe tunnel` shows between the metadata and the events.
//!
//! Pure: a Tunnel flows in, lines flow out. Targets that nobody has asked yet are shown as such.

use hive_manifests::tunnel::TunnelTarget;
use jiff::Timestamp;
use serde_json::Value;

use super::text::{Description, plain};
use crate::age;
use crate::tunnel::{access, certificate, provider};

pub fn describe(tunnel: &Value, description: &mut Description) {
    let (spec, status) = (&tunnel["spec"], &tunnel["status"]);
    description.line("Status", &super::headline(tunnel));
    let addresses = status["addresses"].as_array().into_iter().flatten();
    let addresses: Vec<String> = addresses.map(plain).collect();
    description.list("Address", &addresses);
    for (label, field) in [
        ("Protocol", "protocol"),
        ("HTTP", "http"),
        ("Port", "port"),
        ("Function", "function"),
        ("Proxy Protocol", "proxyProtocol"),
        ("Health Check", "healthCheck"),
        ("Connect Timeout", "connectTimeout"),
        ("Idle Timeout", "idleTimeout"),
        ("Max Connections", "maxConnections"),
        ("Bandwidth", "bandwidth"),
    ] {
        if !spec[field].is_null() {
            description.field(label, &spec[field]);
        }
    }
    description.line("Provider", &provider(tunnel));
    if let Some(certificate) = certificate(tunnel) {
        description.line("Certificate", &certificate);
    }
    description.list("Access", &access(tunnel));
    let targets = targets(spec, status);
    if !targets.is_empty() {
        let headers = ["Node", "Address", "Status", "Message"];
        description.table("Targets", &headers, targets);
    }
    let probe = &status["probe"];
    description.line("Last Reached", &success(probe));
    if let Some(failure) = failure(&probe["lastFailure"], description) {
        description.line("Last Failure", &failure);
    }
    description.conditions(tunnel);
}

/// What is declared, and what is known of it.
fn targets(spec: &Value, status: &Value) -> Vec<Vec<String>> {
    let declared = spec["targets"].as_array().into_iter().flatten();
    declared
        .map(|declared| {
            let target = serde_json::from_value::<TunnelTarget>(declared.clone());
            // What this build cannot read is shown all the same.
            let address = target.map_or_else(|_| declared.to_string(), |target| target.address());
            let mut told = status["targets"].as_array().into_iter().flatten();
            let told = told.find(|told| {
                told["node"] == declared["node"] && told["address"] == address.as_str()
            });
            let told = told.unwrap_or(&Value::Null);
            let state = match (told["healthy"].as_bool(), plain(&told["reason"]).as_str()) {
                (Some(true), _) => "Healthy".to_owned(),
                // Nobody has asked it yet.
                (Some(false), "Unknown") => "Unknown".to_owned(),
                (Some(false), "") => "Down".to_owned(),
                (Some(false), reason) => format!("Down ({reason})"),
                (None, _) => "Unknown".to_owned(),
            };
            vec![
                plain(&declared["node"]),
                address,
                state,
                plain(&told["message"]),
            ]
        })
        .collect()
}

/// `2026-01-31T18:00:00Z (5m12s ago), in 12 ms`
fn success(probe: &Value) -> String {
    let time = ago(&probe["lastSuccess"]);
    match probe["latencyMs"].as_u64() {
        Some(latency) if !time.is_empty() => format!("{time}, in {latency} ms"),
        _ => time,
    }
}

/// With the message, if it was not told above.
fn failure(failure: &Value, above: &Description) -> Option<String> {
    let time = Some(ago(&failure["time"])).filter(|time| !time.is_empty())?;
    let (reason, message) = (plain(&failure["reason"]), plain(&failure["message"]));
    Some(match above.says(&message) {
        true => format!("{time}: {reason}"),
        false => format!("{time}: {message} ({reason})"),
    })
}

fn ago(time: &Value) -> String {
    let time = plain(time);
    match age::since(&time, Timestamp::now()) {
        Some(age) => format!("{time} ({age} ago)"),
        None => time,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets_are_shown_with_what_is_known_of_them() {
        let spec = json!({ "targets": [
            { "node": "a", "port": 80 },
            { "node": "a", "host": "fd00::2", "port": 80 },
            { "node": "b", "host": "127.0.0.1", "port": 80 },
            { "node": "c", "host": "127.0.0.1", "port": 80 },
        ] });
        let status = json!({ "targets": [
            { "node": "a", "address": "[fd00::2]:80", "healthy": false, "reason": "Timeout", "message": "no answer" },
            { "node": "a", "address": "127.0.0.1:80", "healthy": true },
            { "node": "c", "address": "127.0.0.1:80", "healthy": false, "reason": "Unknown", "message": "not yet" },
        ] });
        assert_eq!(
            targets(&spec, &status),
            [
                ["a", "127.0.0.1:80", "Healthy", ""],
                ["a", "[fd00::2]:80", "Down (Timeout)", "no answer"],
                ["b", "127.0.0.1:80", "Unknown", ""],
                ["c", "127.0.0.1:80", "Unknown", "not yet"],
            ]
        );
    }
}
