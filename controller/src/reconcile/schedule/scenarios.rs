//! Scenarios: what the scheduler does, as scripts that a reviewer reads.
//!
//! `scenarios/*.txt` are lines of a small language (`> `), each with what came of it below. They run on a real
//! state, through the same steps and commands, in a world whose agents answer when the script says so.
//! `HIVE_BLESS=1` writes what happens now instead of comparing it.
#![allow(clippy::unwrap_used)]

mod world;

use std::path::Path;

use proptest::prelude::*;
use world::World;

#[test]
fn scenarios_go_as_they_are_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reconcile/schedule/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut differing = Vec::new();
    for path in files {
        let written = std::fs::read_to_string(&path).unwrap();
        let happened = played(&written);
        if written == happened {
            continue;
        }
        if std::env::var_os("HIVE_BLESS").is_some() {
            std::fs::write(&path, happened).unwrap();
        } else {
            differing.push(format!("{}:\n{happened}", path.display()));
        }
    }
    assert!(
        differing.is_empty(),
        "run again with HIVE_BLESS=1 and read the difference, if this is as it should be now:\n{}",
        differing.join("\n")
    );
}

/// The script with what came of it now in the place of what came of it before.
fn played(script: &str) -> String {
    let mut world = World::new();
    let mut happened = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            happened.push_str(line);
            happened.push('\n');
            happened.push_str(&world.run(command));
        } else if line.is_empty() || line.starts_with("# ") {
            happened.push_str(line);
            happened.push('\n');
        }
    }
    happened
}

const CANARY: &str = r#"{"type":"Canary","canary":{"steps":[{"setWeight":30},{"pause":{"duration":"5s"}},{"setWeight":60},{"pause":{}}]}}"#;

/// What people, nodes and time do to a function of at most seven copies, of which one changes at a time.
fn any_script() -> impl Strategy<Value = Vec<String>> {
    let line = prop_oneof![
        (1..5).prop_map(|n| format!("function hello component=v{n}")),
        (0..8).prop_map(|n| format!("function hello replicas={n}")),
        any::<bool>().prop_map(|paused| format!("function hello paused={paused}")),
        (0..3).prop_map(|n| format!("function hello revisionHistoryLimit={n}")),
        (0..2).prop_map(|n| format!("function hello minReadySeconds={}", n * 10)),
        (1..3).prop_map(|n| format!("function hello resources.memory={n}00Mi")),
        (0..8).prop_map(|n| format!("answer hello.{n}")),
        (0..8).prop_map(|n| format!("fail hello.{n} it traps at once")),
        Just("answer".to_owned()),
        Just("wait 9s".to_owned()),
        Just("wait 11m".to_owned()),
        Just(format!("function hello strategy={CANARY}")),
        Just("promote hello".to_owned()),
        Just("promote hello full".to_owned()),
        prop::sample::select(vec!["lose a", "find a", "lose b", "find b"]).prop_map(str::to_owned),
        (0..90).prop_map(|failures| format!("answered hello 0/0 {failures}/90")),
    ];
    prop::collection::vec(line, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever happens meanwhile, the newest version reaches all copies in the end, few at a time; what
    /// statuses name is kept, and no more history than was asked for.
    #[test]
    fn rollouts_end_and_lose_nothing(script in any_script()) {
        let mut world = World::new();
        for line in ["node a", "node b", "function hello replicas=3", "settle"] {
            world.run(line);
        }
        for line in &script {
            let about = line.split_whitespace().nth(1).filter(|it| it.contains('.'));
            if about.is_some_and(|it| !it.contains('=') && !world.has(it)) {
                continue;
            }
            world.run(line);
            world.run("plan");
            world.check("hello");
        }
        let end = "function hello paused=false minReadySeconds=0 component=v5 revisionHistoryLimit=1 strategy=null";
        for line in ["find a", "find b", "answered hello 0/0 0/90", end, "settle", "wait 60s", "settle"] {
            world.run(line);
        }
        world.check("hello");
        let shown = world.run("show");
        prop_assert!(shown.lines().all(|line| line.contains(": v5/") && line.ends_with("Ready")), "{}", shown);
        let status = world.run("status hello");
        prop_assert!(status.starts_with("Complete: Progressing=True NewRevisionAvailable"), "{}", status);
        let history = world.run("history hello");
        prop_assert!(history.lines().count() <= 2, "{}", history);
        prop_assert!(history.contains("v5 current update"), "{}", history);
    }
}

/// Where the copies of a function are.
fn nodes_of(world: &mut World, function: &str) -> Vec<String> {
    let shown = world.run("show");
    let copies = shown.lines().filter_map(|line| {
        let (copy, rest) = line.split_once(" on ")?;
        let (node, _) = rest.split_once(':')?;
        copy.starts_with(&format!("{function}."))
            .then(|| node.to_owned())
    });
    copies.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// However large zones are and however many copies there should be: they differ by no more than was asked
    /// for, and who wants to be alone is.
    #[test]
    fn what_must_hold_of_places_does(
        nodes in prop::collection::vec((0..3, 1..5), 1..8),
        scales in prop::collection::vec(0..12, 1..4),
        skew in 1..3_usize,
    ) {
        let mut world = World::new();
        let mut zones: Vec<(String, i32)> = Vec::new();
        for (index, (zone, room)) in nodes.into_iter().enumerate() {
            world.run(&format!("node n{index} label.zone=z{zone} memory={room}00Mi"));
            zones.push((format!("n{index}"), zone));
        }
        let term = r#"{"labelSelector":{"matchLabels":{"hive.dev/function":"alone"}},"topologyKey":"kubernetes.io/hostname"}"#;
        let spread = format!(
            r#"{{"maxSkew":{skew},"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule"}}"#
        );
        world.run(&format!(
            "function alone resources.memory=1Mi \
             affinity.functionAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution=[{term}]"
        ));
        world.run(&format!("function even resources.memory=99Mi topologySpreadConstraints=[{spread}]"));
        for copies in scales {
            for function in ["alone", "even"] {
                world.run(&format!("function {function} replicas={copies}"));
            }
            world.run("settle");
            let mut alone = nodes_of(&mut world, "alone");
            alone.sort();
            prop_assert!(alone.windows(2).all(|two| two[0] != two[1]), "{:?}", alone);
            prop_assert_eq!(alone.len(), zones.len().min(copies as usize));
        }
        // Fewer copies may leave zones uneven: those that stay stay where they are.
        for count in ["function even replicas=0", "settle", "function even replicas=11", "settle"] {
            world.run(count);
        }
        let even = nodes_of(&mut world, "even");
        let in_zone = |of: i32| {
            let nodes = zones.iter().filter(|(_, zone)| *zone == of).map(|(node, _)| node);
            nodes.map(|node| even.iter().filter(|copy| *copy == node).count()).sum::<usize>()
        };
        let counts: Vec<usize> = zones.iter().map(|(_, zone)| in_zone(*zone)).collect();
        let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
        prop_assert!(most - least <= skew, "{:?}", even);
    }
}
