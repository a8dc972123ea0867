//! The Tunnel that the flags of `hivectl expose` declare.
//!
//! Pure: flags flow in; the object flows out, checked as a manifest is, or what is wrong with the
//! flags. What nobody said is left to the server's defaults.

use hive_manifests::{Resource, validate};
use serde_json::{Value, json};

use super::Expose;
use crate::failure::Failure;

/// Which flag a field of the object comes from.
const FLAGS: [(&str, &str); 5] = [
    ("metadata.name", "--name"),
    ("spec.http.host", "--host"),
    ("spec.port", "--tcp-port"),
    ("spec.targets[0].host", "--target-host"),
    ("spec.targets[0].port", "--port"),
];

pub fn declare(
    expose: &Expose,
    resource: Resource,
    target: &str,
    namespace: &str,
) -> Result<Value, Failure> {
    let (name, spec) = match resource {
        Resource::Function => (target.to_owned(), to_function(expose, target)?),
        _ => to_node(expose, target)?,
    };
    let object = json!({
        "apiVersion": Resource::Tunnel.api_version(),
        "kind": Resource::Tunnel.kind(),
        "metadata": {
            "name": expose.name.as_deref().unwrap_or(&name),
            "namespace": namespace,
        },
        "spec": spec,
    });
    let errors: Vec<Failure> = validate(Resource::Tunnel, &object)
        .iter()
        .map(|error| {
            let path = error.path.to_string();
            let flag = FLAGS.iter().find(|(field, _)| *field == path);
            let flag = flag.map(|(_, flag)| match (*flag, expose.udp_port) {
                ("--tcp-port", Some(_)) => "--udp-port",
                (flag, _) => flag,
            });
            Failure::usage(match flag {
                Some(flag) => format!("{flag}: {}", error.detail()),
                None => error.to_string(),
            })
        })
        .collect();
    match errors.is_empty() {
        true => Ok(object),
        false => Err(Failure::several(errors).code(2)),
    }
}

fn to_function(expose: &Expose, function: &str) -> Result<Value, Failure> {
    for (given, flag) in [
        (expose.port.is_some(), "--port"),
        (expose.target_host.is_some(), "--target-host"),
        (expose.tcp_port.is_some(), "--tcp-port"),
        (expose.udp_port.is_some(), "--udp-port"),
    ] {
        if given {
            return Err(Failure::usage(format_args!(
                "{flag} is for a service on a node: function {function:?} answers requests by itself; leave it out"
            )));
        }
    }
    let Some(host) = &expose.host else {
        return Err(Failure::usage(format_args!(
            "say at which host: --host NAME; without one, function {function:?} answers at its own already \
             (`hivectl get function {function} -o wide`)"
        )));
    };
    Ok(json!({ "protocol": "HTTP", "http": { "host": host }, "function": function }))
}

/// The tunnel's name where none is given, and its spec.
fn to_node(expose: &Expose, node: &str) -> Result<(String, Value), Failure> {
    let Some(port) = expose.port else {
        return Err(Failure::usage(format_args!(
            "say where the service listens on node {node:?}: --port PORT"
        )));
    };
    let mut target = json!({ "node": node, "port": port });
    if let Some(host) = &expose.target_host {
        target["host"] = host.as_str().into();
    }
    let mut spec = json!({ "targets": [target] });
    match (expose.tcp_port, expose.udp_port, &expose.host) {
        (Some(_), Some(_), _) => {
            return Err(Failure::usage(
                "--tcp-port and --udp-port are two tunnels: leave one of them out, and expose the service twice",
            ));
        }
        (None, Some(_), Some(_)) => {
            return Err(Failure::usage(
                "--host is for HTTP and --udp-port for UDP, which knows no host names: leave one of them out",
            ));
        }
        (None, Some(port), None) => {
            spec["protocol"] = "UDP".into();
            spec["port"] = port.into();
        }
        (Some(_), None, Some(_)) => {
            return Err(Failure::usage(
                "--host is for HTTP and --tcp-port for TCP, which knows no host names: leave one of them out",
            ));
        }
        (Some(port), None, None) => {
            spec["protocol"] = "TCP".into();
            spec["port"] = port.into();
        }
        (None, None, host) => {
            spec["protocol"] = "HTTP".into();
            if let Some(host) = host {
                spec["http"] = json!({ "host": host });
            }
        }
    }
    Ok((format!("{node}-{port}"), spec))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::{Args, FromArgMatches};

    use super::*;

    fn declared(line: &str) -> Result<(String, Value), String> {
        let command = Expose::augment_args(clap::Command::new("expose"));
        let words = line.split_whitespace();
        let matches = command.try_get_matches_from(std::iter::once("expose").chain(words));
        let expose = matches.and_then(|found| Expose::from_arg_matches(&found));
        let expose = expose.map_err(|error| error.to_string())?;
        let (resource, target) = super::super::subject(&expose.words).map_err(|e| e.to_string())?;
        let mut object =
            declare(&expose, resource, &target, "home").map_err(|error| error.to_string())?;
        assert_eq!(object["metadata"]["namespace"], "home");
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        Ok((name, object["spec"].take()))
    }

    #[test]
    fn flags_become_a_tunnel() {
        let cases = [
            (
                "node/pi-3 --port 3000",
                "pi-3-3000",
                json!({ "protocol": "HTTP", "targets": [{ "node": "pi-3", "port": 3000 }] }),
            ),
            (
                "node pi-attic --port 80 --target-host nas.lan --host photos.example.org",
                "pi-attic-80",
                json!({
                    "protocol": "HTTP",
                    "http": { "host": "photos.example.org" },
                    "targets": [{ "node": "pi-attic", "host": "nas.lan", "port": 80 }],
                }),
            ),
            (
                "no/pi --port 22 --tcp-port 2222 --name ssh",
                "ssh",
                json!({ "protocol": "TCP", "port": 2222, "targets": [{ "node": "pi", "port": 22 }] }),
            ),
            (
                "no/pi --port 53 --udp-port 5353 --name dns",
                "dns",
                json!({ "protocol": "UDP", "port": 5353, "targets": [{ "node": "pi", "port": 53 }] }),
            ),
            (
                "fn/hello --host hello.example.org",
                "hello",
                json!({ "protocol": "HTTP", "http": { "host": "hello.example.org" }, "function": "hello" }),
            ),
        ];
        for (line, name, spec) in cases {
            assert_eq!(declared(line), Ok((name.to_owned(), spec)), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_remedy() {
        for (line, parts) in [
            ("pi-3 --port 1", &["\"pi-3\"", "node/NAME --port PORT"][..]),
            ("secret/x --port 1", &["secrets cannot be exposed"]),
            ("node/a node/b --port 1", &["exactly one object"]),
            ("node/pi", &["--port PORT", "\"pi\""]),
            ("node/pi --port 0", &["--port"]),
            ("node/pi --port 1 --tcp-port 80", &["--tcp-port", "1024"]),
            (
                "node/pi --port 1 --tcp-port 2222 --host a.example",
                &["leave one of them out"],
            ),
            (
                "node/pi --port 1 --udp-port 5353 --host a.example",
                &["--udp-port", "leave one of them out"],
            ),
            (
                "node/pi --port 1 --udp-port 5353 --tcp-port 5353",
                &["expose the service twice"],
            ),
            (
                "fn/hello --host a.example --udp-port 5353",
                &["--udp-port is for"],
            ),
            ("node/pi --port 1 --host a_b!", &["--host: "]),
            ("node/pi --port 1 --name A", &["--name: "]),
            ("fn/hello", &["--host NAME"]),
            ("fn/hello --host a.example --port 1", &["--port is for"]),
        ] {
            let error = declared(line).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{line}: {error}");
            }
        }
    }
}
