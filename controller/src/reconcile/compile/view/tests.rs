//! What compiling plans for swarms that change, and for controllers of two versions that lead in turn.

#![allow(clippy::unwrap_used)]

use hive_manifests::function::CompiledArtifact;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{declare, edit};
use crate::state::Command;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const C: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// Puts an object in place of what is there, or makes it.
fn put(state: &mut State, resource: Resource, name: &str, extra: Value) {
    let namespace = if resource.namespaced() { "default" } else { "" };
    let key = Key::new(resource, namespace, name);
    declare(state, key, extra);
}

fn delete(state: &mut State, resource: Resource, name: &str) {
    let namespace = if resource.namespaced() { "default" } else { "" };
    let key = Key::new(resource, namespace, name);
    let _ = state.apply(Command::Delete {
        key,
        expect: None,
        uid: None,
    });
}

fn node(state: &mut State, name: &str, target: &str, version: &str) {
    let info = json!({ "target": target, "wasmtimeVersion": version });
    put(
        state,
        Resource::Node,
        name,
        json!({ "spec": { "key": "" }, "status": { "nodeInfo": info } }),
    );
}

fn compiled(source: &str, target: &str, version: &str) -> CompiledArtifact {
    CompiledArtifact {
        target: target.into(),
        source_sha256: source.into(),
        sha256: format!("{}-{target}-{version}", &source[..1]),
        size: 1,
        wasmtime_version: version.into(),
        ..CompiledArtifact::default()
    }
}

fn function(state: &mut State, name: &str, source: &str, artifacts: &[CompiledArtifact]) {
    let condition = if artifacts.is_empty() {
        "False"
    } else {
        "True"
    };
    put(
        state,
        Resource::Function,
        name,
        json!({
            "spec": { "artifact": { "sha256": source } },
            "status": { "artifacts": artifacts, "conditions": [{
                "type": "Compiled", "status": condition, "reason": "", "message": "",
                "lastTransitionTime": "2020-01-01T00:00:00Z",
            }] },
        }),
    );
}

fn view(version: &str) -> View {
    View::new("x86", version.into())
}

/// "a: arm x86" for what is to be compiled, "a -> arm-48 for f" for what is to be written.
fn told(plans: &BTreeMap<String, SourcePlan>) -> Vec<String> {
    let mut lines = Vec::new();
    for (source, plan) in plans {
        if !plan.missing.is_empty() {
            lines.push(format!("{}: {}", &source[..1], plan.missing.join(" ")));
        }
        let records = plan.records.iter();
        let records: Vec<String> = records
            .map(|r| format!("{}-{}", r.target, r.wasmtime_version))
            .collect();
        for key in &plan.stale {
            let records = records.join(" ");
            lines.push(format!("{} -> {records} for {}", &source[..1], key.name));
        }
    }
    lines
}

fn fresh(state: &State, version: &str) -> Vec<String> {
    told(view(version).plans(state, Instant::now()))
}

#[test]
fn each_component_is_compiled_once_for_each_kind_of_machine() {
    let mut state = State::default();
    node(&mut state, "pi", "arm", "48");
    function(&mut state, "one", A, &[]);
    function(&mut state, "two", A, &[]);
    function(&mut state, "three", B, &[compiled(B, "x86", "48")]);
    assert_eq!(fresh(&state, "48"), ["a: arm x86", "b: arm"]);
    let mut view = view("48");
    view.plans(&state, Instant::now());
    assert_eq!(view.functions(A).count(), 2);
    assert_eq!(view.targets(), 2);
}

#[test]
fn what_another_function_has_is_not_compiled_again() {
    let mut state = State::default();
    function(&mut state, "old", A, &[compiled(A, "x86", "48")]);
    function(&mut state, "new", A, &[]);
    assert_eq!(fresh(&state, "48"), ["a -> x86-48 for new"]);
}

#[test]
fn a_condition_that_says_something_else_is_set_right() {
    let mut state = State::default();
    function(&mut state, "f", A, &[compiled(A, "x86", "48")]);
    assert!(fresh(&state, "48").is_empty());
    let key = Key::new(Resource::Function, "default", "f");
    edit(&mut state, &key, |body| {
        body["status"]["conditions"][0]["status"] = json!("False");
    });
    assert_eq!(fresh(&state, "48"), ["a -> x86-48 for f"]);
}

#[test]
fn a_new_component_makes_old_results_useless() {
    let mut state = State::default();
    function(&mut state, "changed", B, &[compiled(C, "x86", "48")]);
    assert_eq!(fresh(&state, "48"), ["b: x86"]);
}

#[test]
fn code_for_a_new_compiler_is_there_before_an_agent_has_it_and_old_code_stays_while_one_needs_it() {
    let mut state = State::default();
    node(&mut state, "pi", "arm", "47");
    node(&mut state, "tv", "arm", "47");
    let old = [compiled(A, "arm", "47"), compiled(A, "x86", "47")];
    function(&mut state, "f", A, &old);
    let (mut view, mut now) = (view("48"), Instant::now());
    assert_eq!(told(view.plans(&state, now)), ["a: arm x86"]);
    let mut records = old.to_vec();
    records.extend([compiled(A, "arm", "48"), compiled(A, "x86", "48")]);
    records.sort_by_key(Kind::of_artifact);
    function(&mut state, "f", A, &records);
    assert_eq!(told(view.plans(&state, now)), [""; 0]);
    // The controller of the version before leads again: it has nothing to do.
    assert_eq!(fresh(&state, "47"), [""; 0]);

    // What nobody ever loaded goes after an hour, what a node still loads stays.
    now += KEPT;
    let without = ["a -> arm-47 arm-48 x86-48 for f"];
    assert_eq!(told(view.plans(&state, now)), without);
    records.retain(|r| (&*r.target, &*r.wasmtime_version) != ("x86", "47"));
    function(&mut state, "f", A, &records);
    node(&mut state, "pi", "arm", "48");
    now += KEPT;
    assert_eq!(told(view.plans(&state, now)), [""; 0]);
    node(&mut state, "tv", "arm", "48");
    assert_eq!(told(view.plans(&state, now)), [""; 0]);
    now += KEPT;
    assert_eq!(told(view.plans(&state, now)), ["a -> arm-48 x86-48 for f"]);
}

#[test]
fn a_kind_of_machine_that_is_gone_is_compiled_for_no_more() {
    let mut state = State::default();
    node(&mut state, "pi", "arm", "48");
    let (mut view, mut now) = (view("48"), Instant::now());
    function(&mut state, "f", A, &[]);
    assert_eq!(told(view.plans(&state, now)), ["a: arm x86"]);
    delete(&mut state, Resource::Node, "pi");
    assert_eq!(told(view.plans(&state, now)), ["a: x86"]);
    // Nor is it dropped at once where there is something.
    let both = [compiled(A, "arm", "48"), compiled(A, "x86", "48")];
    function(&mut state, "f", A, &both);
    assert_eq!(told(view.plans(&state, now)), [""; 0]);
    node(&mut state, "pi", "arm", "48");
    now += KEPT;
    assert_eq!(told(view.plans(&state, now)), [""; 0]);
}

/// Does what the plans of a leader say, as its compiler would.
fn lead(state: &mut State, version: &str) -> usize {
    let mut view = view(version);
    let mut compilations = 0;
    loop {
        let plans = view.plans(state, Instant::now()).clone();
        let Some((source, plan)) = plans.into_iter().next() else {
            return compilations;
        };
        let mut records = plan.records.to_vec();
        for target in &plan.missing {
            compilations += 1;
            records.push(compiled(&source, target, version));
        }
        records.sort_by_key(Kind::of_artifact);
        let names: Vec<String> = view.functions(&source).map(|k| k.name.clone()).collect();
        for name in names {
            function(state, &name, &source, &records);
        }
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Node {
        name: u8,
        target: u8,
        version: u8,
    },
    NoNode {
        name: u8,
    },
    Function {
        name: u8,
        source: u8,
        has: Vec<(u8, u8)>,
    },
    NoFunction {
        name: u8,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..3u8, 0..2u8, 0..2u8).prop_map(|(name, target, version)| Happening::Node {
            name,
            target,
            version
        }),
        (0..3u8).prop_map(|name| Happening::NoNode { name }),
        (
            0..4u8,
            0..3u8,
            prop::collection::vec((0..2u8, 0..2u8), 0..3)
        )
            .prop_map(|(name, source, has)| Happening::Function { name, source, has }),
        (0..4u8).prop_map(|name| Happening::NoFunction { name }),
    ]
}

fn happen(state: &mut State, happening: &Happening) {
    let target = |n: u8| ["arm", "x86"][usize::from(n)];
    let version = |n: u8| ["47", "48"][usize::from(n)];
    match happening {
        Happening::Node {
            name,
            target: t,
            version: v,
        } => node(state, &format!("n{name}"), target(*t), version(*v)),
        Happening::NoNode { name } => delete(state, Resource::Node, &format!("n{name}")),
        Happening::Function { name, source, has } => {
            let source = [A, B, C][usize::from(*source)];
            let has: Vec<CompiledArtifact> = has
                .iter()
                .map(|(t, v)| compiled(source, target(*t), version(*v)))
                .collect();
            function(state, &format!("f{name}"), source, &has);
        }
        Happening::NoFunction { name } => delete(state, Resource::Function, &format!("f{name}")),
    }
}

proptest! {
    #[test]
    fn a_view_that_follows_plans_as_one_that_reads_all(
        script in prop::collection::vec((happening(), any::<bool>()), 1..40),
    ) {
        let (mut state, mut follows, now) = (State::default(), view("48"), Instant::now());
        for (happening, looks) in script {
            happen(&mut state, &happening);
            if looks {
                follows.plans(&state, now);
            }
        }
        let mut reads = view("48");
        reads.plans(&state, now);
        follows.plans(&state, now);
        prop_assert_eq!(&follows.sources, &reads.sources);
        prop_assert_eq!(&follows.source_of, &reads.source_of);
        prop_assert_eq!(&follows.nodes, &reads.nodes);
        prop_assert_eq!(&follows.wanted.targets, &reads.wanted.targets);
        // It remembers in addition who was there a moment ago.
        prop_assert!(follows.wanted.kept.is_superset(&reads.wanted.kept));
        for (source, of) in &follows.sources {
            let anew = plan(of, &follows.wanted);
            prop_assert_eq!(follows.plans.get(source), (!anew.is_done()).then_some(&anew));
        }
        prop_assert!(follows.plans.keys().all(|source| follows.sources.contains_key(source)));
    }

    #[test]
    fn two_versions_that_lead_in_turn_come_to_rest(
        script in prop::collection::vec(happening(), 1..20),
    ) {
        let mut state = State::default();
        for happening in &script {
            happen(&mut state, happening);
        }
        for version in ["47", "48"] {
            lead(&mut state, version);
        }
        for version in ["47", "48", "47"] {
            prop_assert_eq!(fresh(&state, version), Vec::<String>::new());
        }
    }
}
