#![allow(clippy::unwrap_used)]

mod held;

use hive_manifests::FunctionSpec;
use hive_manifests::function::CompiledArtifact;
use hive_manifests::quantity::{Bytes, MilliCpu};
use k8s_openapi::api::core::v1::{Taint, Toleration};
use proptest::prelude::*;
use serde_json::json;

use super::super::course::Course;
use super::super::view::NodeView;
use super::*;
use crate::reconcile::autoscale::Scaling;
use crate::reconcile::rollout::{Asked, Standing, TemplateDigest};

fn plan(view: &View) -> Plan {
    super::plan(view, Timestamp::UNIX_EPOCH)
}

fn node(name: &str) -> NodeView {
    NodeView {
        name: name.into(),
        ready: true,
        target: "x86".into(),
        memory: 1 << 30,
        cpu: 4000,
        ..Default::default()
    }
}

fn function(name: &str, replicas: u32) -> FunctionView {
    let mut spec: FunctionSpec =
        serde_json::from_value(json!({ "artifact": { "sha256": "00" } })).unwrap();
    spec.replicas = Some(replicas);
    FunctionView {
        ending: None,
        revision: 0,
        digest: TemplateDigest::of(&spec.template()),
        older: Vec::new(),
        missing: None,
        awaited_image: None,
        not_pulled: None,
        not_compiled: None,
        course: Course::default(),
        standing: Standing::default(),
        asked: Asked::default(),
        scaling: Scaling::default(),
        found_replicas: None,
        key: Key::new(Resource::Function, "default", name),
        uid: format!("uid-{name}"),
        generation: 1,
        labels: BTreeMap::new(),
        spec,
        artifacts: vec![artifact("x86", "v1")],
    }
}

fn artifact(target: &str, sha256: &str) -> CompiledArtifact {
    CompiledArtifact {
        target: target.into(),
        sha256: sha256.into(),
        ..Default::default()
    }
}

/// Performs a plan as the store and agents that obey at once would.
fn perform(view: &mut View, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Create { key, spec } => view.assignments.push(AssignmentView {
                key,
                revision: 1,
                spec: *spec,
                phase: Phase::Ready,
                current: true,
                ready_since: None,
                message: String::new(),
            }),
            Step::Move { key, spec, .. } | Step::Update { key, spec, .. } => {
                let found = view.assignments.iter_mut().find(|a| a.key == key).unwrap();
                found.spec = *spec;
                found.revision += 1;
                found.phase = Phase::Ready;
                found.current = true;
            }
            Step::MarkUnknown { key, .. } => {
                let found = view.assignments.iter_mut().find(|a| a.key == key).unwrap();
                found.phase = Phase::Unknown;
                found.current = false;
            }
            Step::Settle { key, .. } => {
                let found = view.assignments.iter_mut().find(|a| a.key == key).unwrap();
                found.spec.previous = None;
            }
            Step::Delete { key, .. } => view.assignments.retain(|a| a.key != key),
        }
    }
}

/// Plans and performs until nothing is left to do.
fn settle(view: &mut View) -> Plan {
    for _ in 0..50 {
        let plan = plan(view);
        if plan.steps.is_empty() {
            return plan;
        }
        perform(view, plan.steps);
    }
    panic!("the plan never settles: {:?}", plan(view).steps);
}

fn placed(view: &View) -> Vec<String> {
    let mut lines: Vec<_> = view
        .assignments
        .iter()
        .map(|a| format!("{} on {}", a.key.name, a.spec.node_name))
        .collect();
    lines.sort();
    lines
}

fn swarm(nodes: &[&str], functions: Vec<FunctionView>) -> View {
    View {
        nodes: nodes.iter().map(|name| node(name)).collect(),
        functions,
        ..View::default()
    }
}

fn taint(key: &str, effect: &str) -> Taint {
    Taint {
        key: key.into(),
        effect: effect.into(),
        ..Default::default()
    }
}

#[test]
fn no_node_gets_more_copies_than_its_agent_takes() {
    let most = hive_proto::desired::MAX_ASSIGNMENTS;
    let mut large = function("f", 2 * most as u32);
    (large.spec.resources.memory, large.spec.resources.cpu) = (Bytes(1), MilliCpu(1));
    let mut view = swarm(&["a", "b"], vec![large]);
    view.nodes[0].cpu = 1_000_000;
    let plan = settle(&mut view);
    let of = |node| {
        let copies = view.assignments.iter();
        copies.filter(|copy| copy.spec.node_name == node).count()
    };
    // The other has no processor for as many.
    assert!((of("a"), of("b")) < (most, most), "{} {}", of("a"), of("b"));
    assert!(of("a") > most - 100);
    let unplaced = format!("{:?}", plan.unplaced);
    assert!(
        unplaced.contains("with as many copies as an agent takes"),
        "{unplaced}"
    );
}

#[test]
fn copies_spread_over_nodes() {
    let mut view = swarm(
        &["a", "b", "c"],
        vec![function("hello", 3), function("site", 2)],
    );
    settle(&mut view);
    assert_eq!(
        placed(&view),
        [
            "hello.0 on a",
            "hello.1 on b",
            "hello.2 on c",
            "site.0 on a",
            "site.1 on b"
        ]
    );
}

#[test]
fn a_function_that_is_being_deleted_gets_no_more_copies() {
    let mut view = swarm(&["a", "b", "c"], vec![function("hello", 2)]);
    settle(&mut view);
    view.functions[0].ending = Some(Ending::CopiesStay);
    view.functions[0].spec.replicas = Some(3);
    view.functions[0].spec.concurrency = 7;
    view.nodes[0].ready = false;
    let settled = settle(&mut view);
    assert_eq!(placed(&view), ["hello.0 on a", "hello.1 on b"]);
    assert_eq!(view.assignments[0].phase, Phase::Unknown);
    let reason = settled.unplaced.values().next().unwrap();
    assert_eq!(reason, "the function is being deleted");
    // A node that is drained is left all the same.
    view.nodes[1].taints = vec![taint("drained", "NoExecute")];
    settle(&mut view);
    assert_eq!(placed(&view), ["hello.0 on a"]);
}

#[test]
fn in_the_foreground_the_copies_go_first() {
    let mut view = swarm(&["a"], vec![function("hello", 1)]);
    settle(&mut view);
    view.functions[0].ending = Some(Ending::CopiesFirst);
    settle(&mut view);
    assert_eq!(placed(&view), [""; 0]);
}

#[test]
fn more_copies_than_nodes_share_them() {
    let mut view = swarm(&["a", "b"], vec![function("hello", 3)]);
    settle(&mut view);
    assert_eq!(
        placed(&view),
        ["hello.0 on a", "hello.1 on b", "hello.2 on a"]
    );
}

#[test]
fn work_leaves_a_lost_node_and_each_slot_keeps_one_assignment() {
    let mut view = swarm(&["a", "b", "c"], vec![function("hello", 2)]);
    settle(&mut view);
    view.nodes[0].ready = false;
    let steps = plan(&view).steps;
    assert!(matches!(&steps[..], [Step::Move { key, spec, .. }]
        if key.name == "hello.0" && spec.node_name == "c"));
    settle(&mut view);
    assert_eq!(placed(&view), ["hello.0 on c", "hello.1 on b"]);
    view.nodes[0].ready = true;
    assert_eq!(plan(&view), Plan::default(), "nothing moves back by itself");
}

#[test]
fn without_another_node_a_lost_copy_is_marked_once() {
    let mut view = swarm(&["a"], vec![function("hello", 1)]);
    settle(&mut view);
    view.nodes[0].ready = false;
    let settled = settle(&mut view);
    assert_eq!(view.assignments[0].phase, Phase::Unknown);
    let reason = settled.unplaced.values().next().unwrap();
    assert_eq!(reason, "0/1 nodes fit: 1 not ready");
}

#[test]
fn every_filter_is_named() {
    let mut view = swarm(
        &["cold", "cordoned", "full", "other", "small", "tainted"],
        vec![function("hello", 1)],
    );
    view.functions[0].spec.node_selector = [("disk".to_owned(), "ssd".to_owned())].into();
    for node in &mut view.nodes {
        node.labels = [("disk".to_owned(), "ssd".to_owned())].into();
    }
    view.nodes[0].ready = false;
    view.nodes[1].unschedulable = true;
    view.nodes[2].cpu = 50;
    view.nodes[3].labels.clear();
    view.nodes[4].memory = 1 << 20;
    view.nodes[5].taints = vec![taint("gpu", "NoSchedule")];
    view.nodes.push(NodeView {
        target: "arm".into(),
        labels: view.nodes[0].labels.clone(),
        ..node("z")
    });
    let reason = plan(&view).unplaced.into_values().next().unwrap();
    assert_eq!(
        reason,
        "0/7 nodes fit: 1 cordoned, 1 for whose processor the component is not compiled yet, \
         1 not ready, 1 with a taint that is not tolerated, 1 without enough free CPU, \
         1 without enough free memory, 1 without the labels of nodeSelector"
    );
}

#[test]
fn tolerations_follow_kubernetes() {
    let cases = [
        (json!({ "key": "gpu", "operator": "Exists" }), true),
        (json!({ "operator": "Exists" }), true),
        (json!({ "key": "gpu", "value": "" }), true),
        (json!({ "key": "gpu", "value": "x" }), false),
        (
            json!({ "key": "gpu", "operator": "Exists", "effect": "NoExecute" }),
            false,
        ),
        (json!({ "key": "disk", "operator": "Exists" }), false),
    ];
    for (toleration, expected) in cases {
        let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
        let got = tolerates(&[parsed], &[taint("gpu", "NoSchedule")], "NoSchedule");
        assert_eq!(got, expected, "{toleration}");
    }
}

#[test]
fn a_no_execute_taint_drains_a_node() {
    let mut view = swarm(&["a", "b"], vec![function("hello", 2)]);
    settle(&mut view);
    view.nodes[0].taints = vec![taint("node.hive.dev/drain", "NoExecute")];
    settle(&mut view);
    assert_eq!(placed(&view), ["hello.0 on b", "hello.1 on b"]);
    view.nodes[1].taints = view.nodes[0].taints.clone();
    settle(&mut view);
    assert_eq!(placed(&view), ["hello.1 on b"], "the last one serves on");
    view.nodes[1].taints[0].value = Some("force".into());
    settle(&mut view);
    assert!(
        placed(&view).is_empty(),
        "nothing may stay where it isn't tolerated"
    );
}

#[test]
fn every_node_means_each_that_fits_also_later() {
    let mut everywhere = function("exporter", 0);
    everywhere.spec.replicas = None;
    everywhere.spec.every_node = true;
    let mut view = swarm(&["a", "b"], vec![everywhere]);
    view.nodes[1].ready = false;
    settle(&mut view);
    assert_eq!(placed(&view), ["exporter.a on a"]);
    view.nodes[1].ready = true;
    view.nodes.push(node("c"));
    settle(&mut view);
    assert_eq!(
        placed(&view),
        ["exporter.a on a", "exporter.b on b", "exporter.c on c"]
    );
    view.nodes.remove(0);
    settle(&mut view);
    assert_eq!(placed(&view), ["exporter.b on b", "exporter.c on c"]);
}

#[test]
fn scaling_down_takes_the_last_slots_and_an_orphan_goes() {
    let mut view = swarm(&["a", "b"], vec![function("hello", 3)]);
    settle(&mut view);
    view.functions[0].spec.replicas = Some(1);
    settle(&mut view);
    assert_eq!(placed(&view), ["hello.0 on a"]);
    view.functions[0].uid = "made again".into();
    let first = plan(&view).steps;
    assert!(
        matches!(&first[..], [Step::Create { .. }, Step::Delete { .. }]),
        "{first:?}"
    );
    view.functions.clear();
    settle(&mut view);
    assert!(placed(&view).is_empty());
}

#[test]
fn a_new_version_rolls_one_serving_copy_at_a_time() {
    let mut view = swarm(&["a", "b", "c"], vec![function("hello", 3)]);
    settle(&mut view);
    view.functions[0].generation = 2;
    view.functions[0].spec.concurrency = 7;
    let mut rounds = 0;
    loop {
        let steps = plan(&view).steps;
        if steps.is_empty() {
            break;
        }
        assert!(matches!(&steps[..], [Step::Update { .. }]), "{steps:?}");
        perform(&mut view, steps);
        // Until the updated copy answers, no other follows.
        let updated = view
            .assignments
            .iter_mut()
            .find(|a| a.spec.function_generation == 2 && a.revision == 2 && a.current);
        let updated = updated.unwrap();
        updated.current = false;
        updated.revision = 3;
        let key = updated.key.clone();
        assert_eq!(plan(&view).steps, []);
        view.assignments
            .iter_mut()
            .find(|a| a.key == key)
            .unwrap()
            .current = true;
        rounds += 1;
    }
    assert_eq!(rounds, 3);
}

#[test]
fn scaling_is_not_a_new_version() {
    let mut view = swarm(&["a"], vec![function("hello", 1)]);
    settle(&mut view);
    view.functions[0].generation = 2;
    view.functions[0].spec.replicas = Some(1);
    view.functions[0].spec.tolerations = vec![Toleration::default()];
    assert_eq!(plan(&view).steps, []);
}

#[test]
fn an_agent_of_another_version_keeps_what_it_runs_and_gets_nothing_new() {
    let mut view = swarm(&["a"], vec![function("hello", 1)]);
    settle(&mut view);
    view.nodes[0].wasmtime_version = "49".into();
    view.functions[0].spec.concurrency = 7;
    assert_eq!(plan(&view).steps, []);
    view.functions[0].spec.replicas = Some(2);
    let reason = plan(&view).unplaced.into_values().next().unwrap();
    assert_eq!(
        reason,
        "0/1 nodes fit: 1 whose agent is of another version than the controllers"
    );
}

#[test]
fn nothing_runs_before_it_is_compiled_for_its_node() {
    let mut view = swarm(&["a"], vec![function("hello", 1)]);
    view.functions[0].artifacts.clear();
    assert_eq!(plan(&view).steps, []);
    assert_eq!(plan(&view).unplaced.len(), 1);
}

fn any_view() -> impl Strategy<Value = View> {
    let nodes = prop::collection::vec((any::<bool>(), any::<bool>(), 0..3u8, 1..2000u64), 0..5);
    let functions = prop::collection::vec((0..5u32, any::<bool>(), 1..300u64), 0..4);
    (nodes, functions).prop_map(|(nodes, functions)| View {
        nodes: nodes
            .into_iter()
            .enumerate()
            .map(|(i, (ready, cordoned, kind, cpu))| NodeView {
                ready,
                unschedulable: cordoned,
                taints: if kind == 2 {
                    vec![taint("x", "NoExecute")]
                } else {
                    vec![]
                },
                target: if kind == 1 {
                    "arm".into()
                } else {
                    "x86".into()
                },
                cpu,
                ..node(&format!("n{i}"))
            })
            .collect(),
        functions: functions
            .into_iter()
            .enumerate()
            .map(|(i, (replicas, every_node, cpu))| {
                let mut made = function(&format!("f{i}"), replicas);
                made.spec.resources.cpu = MilliCpu(cpu);
                made.spec.resources.memory = Bytes(1 << 20);
                made.spec.every_node = every_node;
                made
            })
            .collect(),
        ..View::default()
    })
}

proptest! {
    /// Whatever happens to nodes and functions, planning settles, no slot has two assignments,
    /// and no node is given more than it has.
    #[test]
    fn plans_settle_within_capacity(first in any_view(), second in any_view()) {
        let mut view = first;
        settle(&mut view);
        // The world changes under what was assigned; functions keep their identity by name.
        view.nodes = second.nodes;
        view.functions = second.functions;
        settle(&mut view);
        let mut names: Vec<_> = view.assignments.iter().map(|a| a.key.clone()).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        prop_assert_eq!(count, names.len());
        for node in view.nodes.iter().filter(|n| n.ready) {
            for a in view.assignments.iter().filter(|a| a.spec.node_name == node.name) {
                let function = view.functions.iter().find(|f| f.uid == a.spec.function_uid).unwrap();
                prop_assert!(tolerates(&function.spec.tolerations, &node.taints, "NoExecute"));
            }
        }
    }

    #[test]
    fn a_fresh_swarm_is_never_overcommitted(mut view in any_view()) {
        settle(&mut view);
        for node in &view.nodes {
            let cpu: u64 = view
                .assignments
                .iter()
                .filter(|a| a.spec.node_name == node.name)
                .map(|a| a.spec.function.resources.cpu.0)
                .sum();
            prop_assert!(cpu <= node.cpu, "{} has {} of {}", node.name, cpu, node.cpu);
        }
    }
}
