//! Holds the direction of dependencies: what docs/architecture.md draws is what Cargo builds.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Which crates of the workspace each may build upon (tests may use more).
const ALLOWED: [(&str, &[&str]); 15] = [
    ("hive-manifests", &["hive-registry"]),
    ("hive-merge", &[]),
    ("hive-identity", &[]),
    ("hive-registry", &[]),
    ("hive-functions", &[]),
    ("hive-tunnels", &[]),
    // For tests alone.
    ("hive-history", &[]),
    ("hive-fuzz", &[]),
    ("hive-acme", &[]),
    ("hive-proto", &["hive-identity"]),
    (
        "hive-controller",
        &[
            "hive-functions",
            "hive-identity",
            "hive-manifests",
            "hive-merge",
            "hive-proto",
            "hive-registry",
            "hive-tunnels",
        ],
    ),
    (
        "hive-agent",
        &[
            "hive-functions",
            "hive-identity",
            "hive-proto",
            "hive-tunnels",
        ],
    ),
    (
        "hive-cli",
        &["hive-identity", "hive-manifests", "hive-registry"],
    ),
    (
        "hive",
        &[
            "hive-agent",
            "hive-cli",
            "hive-controller",
            "hive-identity",
            "hive-manifests",
        ],
    ),
    // Swarms of real processes: seen from outside, but for what stands for them in tests.
    (
        "hive-e2e",
        &[
            "hive-acme",
            "hive-agent",
            "hive-functions",
            "hive-history",
            "hive-identity",
            "hive-manifests",
            "hive-proto",
        ],
    ),
];

/// The agent lives on a board with 512 MB and a metered link: no compiler, no Kubernetes types.
const NOT_ON_THE_AGENT: [&str; 5] = [
    "cranelift-codegen",
    "k8s-openapi",
    "kube-core",
    "openraft",
    "schemars",
];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .args(["--locked", "--offline"])
        // Whoever runs the tests may unify features; what is shipped does not.
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn dependencies_point_down_only() {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(name, below)| (*name, below.iter().copied().collect()))
        .collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let below = allowed.get(name).unwrap_or_else(|| {
            panic!("{name} has no place in the layers yet: add it here and to docs/architecture.md")
        });
        seen.insert(name.to_owned());
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let ours = allowed.contains_key(other);
            let in_tests = dependency["kind"] == "dev";
            assert!(
                !ours || in_tests || below.contains(other),
                "{name} must not depend on {other}"
            );
        }
    }
    assert_eq!(
        seen.len(),
        allowed.len(),
        "a crate of the layers is gone: {seen:?}"
    );
}

#[test]
fn the_agent_stays_small() {
    let tree = cargo(&[
        "tree",
        "-p",
        "hive-agent",
        "-e",
        "normal",
        "--prefix",
        "none",
    ]);
    let crates: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        crates.contains("wasmtime"),
        "the tree was not understood: {tree}"
    );
    for name in NOT_ON_THE_AGENT {
        assert!(!crates.contains(name), "the agent must not carry {name}");
    }
}
