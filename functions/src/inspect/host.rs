//! The interfaces that a function may import: what the runtime's linker holds, as a table.
//!
//! Names as they stand in a component go in. It must list no interface that the linker lacks: the
//! agent would find out only when it loads the function.

use crate::interfaces;

#[cfg(all(test, feature = "run"))]
mod linked;

/// A name like `wasi:http/types@0.2.3`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interface<'a> {
    pub package: &'a str,
    pub name: &'a str,
    version: &'a str,
}

impl<'a> Interface<'a> {
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (path, version) = name.split_once('@')?;
        let (package, name) = path.split_once('/')?;
        Some(Self {
            package,
            name,
            version,
        })
    }

    /// Whether this is a release 0.`minor`.x. Pre-releases (`0.3.0-rc-…`) are incompatible with
    /// the release.
    pub(super) fn is_minor(&self, minor: u32) -> bool {
        let mut parts = self.version.split('.');
        parts.next() == Some("0")
            && parts.next().and_then(|part| part.parse().ok()) == Some(minor)
            && parts.next().is_some_and(|part| part.parse::<u32>().is_ok())
            && parts.next().is_none()
    }
}

type Package = (&'static str, &'static [&'static str]);

const CLI: [&str; 10] = [
    "environment",
    "exit",
    "stdin",
    "stdout",
    "stderr",
    "terminal-input",
    "terminal-output",
    "terminal-stdin",
    "terminal-stdout",
    "terminal-stderr",
];

const WASI_0_2: &[Package] = &[
    ("wasi:cli", &CLI),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", &["types", "preopens"]),
    ("wasi:http", &["types", "outgoing-handler"]),
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:random", &["random", "insecure", "insecure-seed"]),
    (
        "wasi:sockets",
        &[
            "network",
            "instance-network",
            "ip-name-lookup",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

const WASI_0_3: &[Package] = &[
    ("wasi:cli", &CLI),
    ("wasi:cli", &["types"]),
    ("wasi:clocks", &["types", "monotonic-clock", "system-clock"]),
    ("wasi:filesystem", &["types", "preopens"]),
    ("wasi:http", &["types", "client"]),
    ("wasi:random", &["random", "insecure", "insecure-seed"]),
    ("wasi:sockets", &["types", "ip-name-lookup"]),
];

/// Whether functions get the interface of this name.
pub(super) fn provides(name: &str) -> bool {
    if interfaces::all().any(|own| own == name) {
        return true;
    }
    let Some(interface) = Interface::parse(name) else {
        return false;
    };
    [(2, WASI_0_2), (3, WASI_0_3)].iter().any(|(minor, table)| {
        interface.is_minor(*minor)
            && table.iter().any(|(package, names)| {
                *package == interface.package && names.contains(&interface.name)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provides_releases_of_two_lines_only() {
        let cases = [
            ("wasi:http/types@0.2.0", true),
            ("wasi:http/types@0.2.12", true),
            ("wasi:http/types@0.3.0", true),
            ("wasi:http/client@0.3.0", true),
            ("wasi:http/client@0.2.0", false),
            ("wasi:http/types@0.3.0-rc-2025-09-16", false),
            ("wasi:http/types@0.1.0", false),
            ("wasi:http/types@1.2.0", false),
            ("wasi:http/types", false),
            ("wasi:keyvalue/store@0.2.0", false),
            ("wasi:io/streams@0.3.0", false),
            ("wasi:config/store@0.2.0-rc.1", true),
            ("wasi:config/store@0.2.0-draft-2024-09-27", true),
            ("wasi:config/store@0.2.0-rc.2", false),
            ("wasi:config/store@0.2.0", false),
            ("fermyon:spin/variables@2.0.0", true),
            ("fermyon:spin/variables@2.0.1", false),
            ("log", false),
            ("", false),
        ];
        for (name, expected) in cases {
            assert_eq!(provides(name), expected, "{name}");
        }
    }
}
