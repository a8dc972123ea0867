//! Nodes that hold what a copy runs.

use super::*;
use crate::holdings::{Holdings, bounded};

const V1: u64 = 0x1111_1111_1111_1111;
const V2: u64 = 0x2222_2222_2222_2222;

fn digest(prefix: u64) -> String {
    format!("{prefix:016x}{}", "0".repeat(48))
}

fn running(mut function: FunctionView, prefix: u64) -> FunctionView {
    function.artifacts = vec![artifact("x86", &digest(prefix))];
    function
}

fn holding<'a>(nodes: impl IntoIterator<Item = &'a str>, artifact: u64) -> Holdings<u64> {
    let mut held = Holdings::default();
    for node in nodes {
        held.hear(1, node, bounded(vec![artifact]));
    }
    held
}

/// Where a new function goes in a swarm of `a` and of `b`, which alone holds what it runs.
fn chosen(change: impl FnOnce(&mut View)) -> String {
    let mut view = swarm(&["a", "b"], vec![running(function("new", 1), V1)]);
    view.held = holding(["b"], V1);
    change(&mut view);
    settle(&mut view);
    let copy = view
        .assignments
        .iter()
        .find(|it| it.spec.slot == "0" && it.key.name.starts_with("new"));
    copy.unwrap().spec.node_name.clone()
}

#[test]
fn a_node_that_holds_it_is_preferred_after_spread_taints_and_wishes_unless_it_is_fuller_by_a_tenth()
{
    let spec = |view: &mut View, fields: serde_json::Value| {
        let spec = &mut view.functions[0].spec;
        let mut value = json!(spec);
        for (field, content) in fields.as_object().unwrap() {
            value[field] = content.clone();
        }
        *spec = serde_json::from_value(value).unwrap();
    };
    let other_on_b = |view: &mut View, mebibytes: u64| {
        let mut other = running(function("before", 1), V2);
        other.spec.resources.memory = Bytes(mebibytes * Bytes::MIB);
        other.spec.node_selector = [("name".to_owned(), "b".to_owned())].into();
        view.nodes[1].labels = other.spec.node_selector.clone();
        view.functions.insert(0, other);
    };
    assert_eq!(chosen(|_| {}), "b");
    // Of 1024.
    let chosen_beside = |mebibytes| chosen(|view| other_on_b(view, mebibytes));
    assert_eq!(chosen_beside(102), "b", "with a little less memory");
    assert_eq!(chosen_beside(104), "a", "with much less memory");
    assert_eq!(
        chosen(|view| view.held = Holdings::default()),
        "a",
        "not known"
    );
    assert_eq!(
        chosen(|view| view.held = holding(["b"], V2)),
        "a",
        "of another"
    );
    assert_eq!(
        chosen(|view| view.held = holding(["a", "b"], V1)),
        "a",
        "both"
    );
    assert_eq!(chosen(|view| view.nodes[1].ready = false), "a", "not ready");
    let avoided = taint("hot", "PreferNoSchedule");
    assert_eq!(
        chosen(|view| view.nodes[1].taints = vec![avoided]),
        "a",
        "avoided"
    );
    let wish = json!({ "affinity": { "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 1, "preference": {
            "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": ["a"] }],
        }}],
    }}});
    assert_eq!(chosen(|view| spec(view, wish)), "a", "wishes");
    let spread = json!({ "topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": { "hive.dev/function": "before" } },
    }]});
    let crowded = |view: &mut View| {
        spec(view, spread);
        other_on_b(view, 1);
    };
    assert_eq!(chosen(crowded), "a", "spread");
}

#[test]
fn copies_of_one_function_are_spread_whoever_holds_it() {
    let mut view = swarm(&["a", "b", "c"], vec![running(function("new", 3), V1)]);
    view.held = holding(["c"], V1);
    settle(&mut view);
    assert_eq!(placed(&view), ["new.0 on c", "new.1 on a", "new.2 on b"]);
    // Nothing that runs goes elsewhere for it.
    view.functions[0].spec.replicas = Some(1);
    settle(&mut view);
    view.held = holding(["a"], V1);
    assert_eq!(plan(&view).steps, []);
}

proptest! {
    /// What nobody is known to hold, or all are, decides nothing: the plan is the one of a swarm in which no
    /// agent tells.
    #[test]
    fn what_makes_no_difference_between_nodes_changes_no_plan(mut view in any_view(), later in any_view()) {
        for function in view.functions.iter_mut() {
            *function = running(function.clone(), V1);
        }
        let nodes: Vec<String> = (0..5).map(|index| format!("n{index}")).collect();
        let all = || nodes.iter().map(String::as_str);
        for held in [holding(all(), V1), holding(all().take(2), V2)] {
            let (mut silent, mut told) = (view.clone(), view.clone());
            told.held = held;
            for nodes in [&view.nodes, &later.nodes] {
                (silent.nodes, told.nodes) = (nodes.clone(), nodes.clone());
                for _ in 0..3 {
                    let plan = plan(&silent);
                    prop_assert_eq!(&plan, &super::plan(&told));
                    perform(&mut silent, plan.steps.clone());
                    perform(&mut told, plan.steps);
                }
            }
        }
    }

    /// Whatever is heard of nodes, a copy that has a place without it has one with it, where nodes are alike.
    #[test]
    fn holdings_only_choose_between_nodes(
        replicas in prop::collection::vec(0..6u32, 1..4),
        held in prop::collection::btree_map("[a-d]", prop::sample::select(vec![V1, V2]), 0..4),
    ) {
        let functions = replicas.iter().enumerate();
        let functions = functions.map(|(index, replicas)| running(function(&format!("f{index}"), *replicas), V1));
        let mut view = swarm(&["a", "b", "c", "d"], functions.collect());
        for (node, artifact) in held {
            view.held.hear(1, &node, bounded(vec![artifact]));
        }
        let plan = settle(&mut view);
        prop_assert!(plan.unplaced.is_empty(), "{:?}", plan.unplaced);
        // Copies of a function still lie as evenly as they can.
        for function in &view.functions {
            let copies = |node: &str| {
                let all = view.assignments.iter();
                all.filter(|it| it.spec.node_name == node && it.spec.function_uid == function.uid).count()
            };
            let counts = ["a", "b", "c", "d"].map(copies);
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
        }
    }
}
