//! The table holds what the linker holds: looked up in the linker itself, interface by interface.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use wasmtime::{
    Engine,
    component::{Component, Linker},
};

use super::{WASI_0_2, WASI_0_3};
use crate::{config, guest, interfaces};

/// What an interface is known by. A linker that lacks it has no such function or resource; types alone
/// need nothing of a linker.
enum By {
    Function(&'static str),
    Resource(&'static str),
    Types,
}

use By::{Function, Resource, Types};

/// A package, its version, its interfaces.
type Known = (&'static str, &'static str, &'static [(&'static str, By)]);

const KNOWN_BY: &[Known] = &[
    (
        "wasi:cli",
        "0.2.0",
        &[
            ("environment", Function("get-environment")),
            ("exit", Function("exit")),
            ("stdin", Function("get-stdin")),
            ("stdout", Function("get-stdout")),
            ("stderr", Function("get-stderr")),
            ("terminal-input", Resource("terminal-input")),
            ("terminal-output", Resource("terminal-output")),
            ("terminal-stdin", Function("get-terminal-stdin")),
            ("terminal-stdout", Function("get-terminal-stdout")),
            ("terminal-stderr", Function("get-terminal-stderr")),
        ],
    ),
    (
        "wasi:clocks",
        "0.2.0",
        &[
            ("monotonic-clock", Function("now")),
            ("wall-clock", Function("now")),
        ],
    ),
    (
        "wasi:filesystem",
        "0.2.0",
        &[
            ("types", Resource("descriptor")),
            ("preopens", Function("get-directories")),
        ],
    ),
    (
        "wasi:http",
        "0.2.0",
        &[
            ("types", Resource("fields")),
            ("outgoing-handler", Function("handle")),
        ],
    ),
    (
        "wasi:io",
        "0.2.0",
        &[
            ("error", Resource("error")),
            ("poll", Function("poll")),
            ("streams", Resource("input-stream")),
        ],
    ),
    (
        "wasi:random",
        "0.2.0",
        &[
            ("random", Function("get-random-u64")),
            ("insecure", Function("get-insecure-random-u64")),
            ("insecure-seed", Function("insecure-seed")),
        ],
    ),
    (
        "wasi:sockets",
        "0.2.0",
        &[
            ("network", Resource("network")),
            ("instance-network", Function("instance-network")),
            ("ip-name-lookup", Function("resolve-addresses")),
            ("tcp", Resource("tcp-socket")),
            ("tcp-create-socket", Function("create-tcp-socket")),
            ("udp", Resource("udp-socket")),
            ("udp-create-socket", Function("create-udp-socket")),
        ],
    ),
    (
        "wasi:cli",
        "0.3.0",
        &[
            ("types", Types),
            ("environment", Function("get-environment")),
            ("exit", Function("exit")),
            ("stdin", Function("read-via-stream")),
            ("stdout", Function("write-via-stream")),
            ("stderr", Function("write-via-stream")),
            ("terminal-input", Resource("terminal-input")),
            ("terminal-output", Resource("terminal-output")),
            ("terminal-stdin", Function("get-terminal-stdin")),
            ("terminal-stdout", Function("get-terminal-stdout")),
            ("terminal-stderr", Function("get-terminal-stderr")),
        ],
    ),
    (
        "wasi:clocks",
        "0.3.0",
        &[
            ("types", Types),
            ("monotonic-clock", Function("now")),
            ("system-clock", Function("now")),
        ],
    ),
    (
        "wasi:filesystem",
        "0.3.0",
        &[
            ("types", Resource("descriptor")),
            ("preopens", Function("get-directories")),
        ],
    ),
    (
        "wasi:http",
        "0.3.0",
        &[("types", Resource("fields")), ("client", Function("send"))],
    ),
    (
        "wasi:random",
        "0.3.0",
        &[
            ("random", Function("get-random-u64")),
            ("insecure", Function("get-insecure-random-u64")),
            ("insecure-seed", Function("get-insecure-seed")),
        ],
    ),
    (
        "wasi:sockets",
        "0.3.0",
        &[
            ("types", Resource("tcp-socket")),
            ("ip-name-lookup", Function("resolve-addresses")),
        ],
    ),
    ("wasi:config", "0.2.0-rc.1", &[("store", Function("get"))]),
    (
        "wasi:config",
        "0.2.0-draft-2024-09-27",
        &[("store", Function("get"))],
    ),
    (
        "fermyon:spin",
        "2.0.0",
        &[
            ("variables", Function("get")),
            ("key-value", Resource("store")),
        ],
    ),
    ("spin:variables", "3.0.0", &[("variables", Function("get"))]),
    (
        "spin:key-value",
        "3.0.0",
        &[("key-value", Resource("store"))],
    ),
    (
        "wasi:logging",
        "0.1.0-draft",
        &[("logging", Function("log"))],
    ),
    ("wasi:logging", "", &[("logging", Function("log"))]),
    (
        "wasi:keyvalue",
        "0.2.0-draft",
        &[
            ("store", Resource("bucket")),
            ("atomics", Function("increment")),
            ("batch", Function("get-many")),
        ],
    ),
    (
        "wasi:keyvalue",
        "0.2.0-draft2",
        &[
            ("store", Resource("bucket")),
            ("atomics", Resource("cas")),
            ("batch", Function("get-many")),
        ],
    ),
];

fn name((package, version): (&str, &str), interface: &str) -> String {
    match version {
        "" => format!("{package}/{interface}"),
        version => format!("{package}/{interface}@{version}"),
    }
}

/// The whole table; of a release's line its first version.
fn table() -> BTreeSet<String> {
    let lines = [("0.2.0", WASI_0_2), ("0.3.0", WASI_0_3)];
    let mut names: BTreeSet<_> = interfaces::all().map(str::to_owned).collect();
    for (version, line) in lines {
        for (package, interfaces) in line {
            names.extend(interfaces.iter().map(|it| name((package, version), it)));
        }
    }
    names
}

#[test]
fn every_interface_of_the_table_is_in_the_linker() {
    let engine = Engine::new(&config::running(config::Target::host()).unwrap()).unwrap();
    let mut linker = Linker::new(&engine);
    guest::link(&mut linker).unwrap();

    // Why an interface with this export can't be imported; a function of another type is there all
    // the same.
    let lacks = |name: &str, export: &str| {
        let text = format!(r#"(component (import "{name}" (instance {export})))"#);
        let component = Component::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let error = linker.instantiate_pre(&component).err()?;
        let error = format!("{error:#}");
        error.contains("is missing").then_some(error)
    };
    let other = "wasi:config/store@0.2.0";
    assert!(lacks(other, r#"(export "get" (func))"#).is_some());

    let mut found = BTreeSet::new();
    for (package, version, interfaces) in KNOWN_BY {
        for (interface, by) in *interfaces {
            let name = name((package, version), interface);
            let export = match by {
                Function(it) => format!(r#"(export "{it}" (func))"#),
                Resource(it) => format!(r#"(export "{it}" (type (sub resource)))"#),
                Types => String::new(),
            };
            assert_eq!(lacks(&name, &export), None, "{name}");
            found.insert(name);
        }
    }
    assert_eq!(found, table());
}
