//! Scenarios: what the scheduler does, as scripts that a reviewer reads.
//!
//! `scenarios/*.txt` are lines of a small language (`> `), each with what came of it below. They run on a real
//! state, through the same steps and commands, in a world whose agents answer when the script says so.
//! `HIVE_BLESS=1` writes what happens now instead of comparing it.
#![allow(clippy::unwrap_used)]

mod world;

use std::path::Path;

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
