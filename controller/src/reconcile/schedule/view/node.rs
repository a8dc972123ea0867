//! A node, as scheduling sees it.

use std::collections::BTreeMap;

use hive_manifests::Node;
use k8s_openapi::api::core::v1::Taint;

use crate::node_conditions;
use crate::state::Object;

#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub name: String,
    pub revision: u64,
    /// Its Ready condition is True.
    pub ready: bool,
    pub unschedulable: bool,
    /// Those that people gave it, and those that follow from its conditions.
    pub taints: Vec<Taint>,
    pub labels: BTreeMap<String, String>,
    /// Its kind of machine as Kubernetes' labels have it.
    pub os: &'static str,
    pub arch: &'static str,
    pub target: String,
    /// What compiled components must have been made with to be loaded there.
    pub wasmtime_version: String,
    /// Bytes and thousandths of a core that functions may reserve.
    pub memory: u64,
    pub cpu: u64,
}

/// What Kubernetes calls an operating system or a processor; empty where it knows none such.
fn as_in_kubernetes(name: &str) -> &'static str {
    match name {
        "linux" => "linux",
        "android" => "android",
        "macos" => "darwin",
        "windows" => "windows",
        "freebsd" => "freebsd",
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "arm" => "arm",
        "riscv64" => "riscv64",
        _ => "",
    }
}

impl NodeView {
    /// The value of a label, also of those that every node has without being given them.
    pub fn label(&self, key: &str) -> Option<&str> {
        let given = self.labels.get(key).map(String::as_str);
        given.or_else(|| {
            let own = match key {
                "kubernetes.io/hostname" => &*self.name,
                "kubernetes.io/os" => self.os,
                "kubernetes.io/arch" => self.arch,
                _ => "",
            };
            (!own.is_empty()).then_some(own)
        })
    }

    pub(super) fn version(&self) -> (&str, &str, u64) {
        ("", &self.name, self.revision)
    }

    pub(super) fn of(object: &Object) -> Option<Self> {
        let node: Node = object.parse().ok()?;
        let status = node.status.unwrap_or_default();
        let holding = || {
            let conditions = status.conditions.iter();
            conditions.filter(|one| one.status == "True")
        };
        let derived = node_conditions::taints(holding().map(|one| &*one.type_));
        let taints = node.spec.taints.into_iter().chain(derived).collect();
        let ready = holding().any(|one| one.type_ == "Ready");
        let allocatable = status.allocatable.unwrap_or_default();
        let info = status.node_info.unwrap_or_default();
        Some(Self {
            name: object.key().name.clone(),
            revision: object.revision(),
            ready,
            unschedulable: node.spec.unschedulable,
            taints,
            labels: node.metadata.labels.unwrap_or_default(),
            os: as_in_kubernetes(&info.os),
            arch: as_in_kubernetes(&info.arch),
            target: info.target,
            wasmtime_version: info.wasmtime_version,
            memory: allocatable.memory.0,
            cpu: allocatable.cpu.0,
        })
    }
}
