//! What single commands do to a state.

#![allow(clippy::unwrap_used)]

mod history;
mod properties;

use serde_json::{Value, json};

use super::*;

fn key(namespace: &str, name: &str) -> Key {
    Key::new(Resource::ConfigMap, namespace, name)
}

fn body(name: &str, value: u64) -> Value {
    json!({
        "kind": "ConfigMap",
        "metadata": { "name": name, "uid": format!("uid-{name}") },
        "data": { "value": value },
    })
}

fn create(name: &str, value: u64) -> Command {
    Command::Create {
        key: key("default", name),
        body: body(name, value).into(),
    }
}

fn replace(name: &str, value: u64, expect: Option<u64>) -> Command {
    Command::Replace {
        key: key("default", name),
        body: body(name, value).into(),
        expect,
    }
}

fn delete(name: &str, expect: Option<u64>, uid: Option<&str>) -> Command {
    Command::Delete {
        key: key("default", name),
        expect,
        uid: uid.map(str::to_owned),
    }
}

/// What one node says that functions of the namespace `default` used.
fn meter(sequence: u64, functions: &[&str]) -> Command {
    let entry = |function: &&str| metering::Entry {
        namespace: "default".to_owned(),
        function: (*function).to_owned(),
        used: metering::Used {
            requests: 10,
            ..metering::Used::default()
        },
    };
    Command::Meter {
        batch: metering::Batch {
            device: "device".to_owned(),
            origin: "origin".to_owned(),
            sequence,
            at_unix_ms: 1000 * sequence,
            entries: functions.iter().map(entry).collect(),
        },
    }
}

fn member(port: u16) -> Member {
    Member {
        link: format!("10.0.0.1:{port}"),
        ..Member::default()
    }
}

/// A state in which `a` is at revision 1 and `b` at revision 2.
fn two_objects() -> State {
    let mut state = State::default();
    state.apply(create("a", 1)).unwrap();
    state.apply(create("b", 1)).unwrap();
    state
}

/// The outcome in a word, with the revision of the object it names.
fn word(reply: Reply) -> String {
    match reply {
        Ok(Outcome::Created(o)) => format!("created {}", o.revision()),
        Ok(Outcome::Replaced(o)) => format!("replaced {}", o.revision()),
        Ok(Outcome::Unchanged(o)) => format!("unchanged {}", o.revision()),
        Ok(Outcome::Deleted(o)) => format!("deleted {}", o.revision()),
        Ok(Outcome::Controller(id)) => format!("controller {id}"),
        Ok(Outcome::Done) => "done".to_owned(),
        Ok(Outcome::Batch(replies)) => {
            let word =
                |reply| Result::err(reply).map_or("done".to_owned(), |e: Rejection| e.to_string());
            replies.into_iter().map(word).collect::<Vec<_>>().join(", ")
        }
        Err(rejection) => rejection.to_string(),
    }
}

#[test]
fn each_command_does_what_it_says_or_says_why_not() {
    let changed = |at: u64| format!("changed in the meantime: it is at revision {at} now");
    for (command, expected, revision) in [
        (create("c", 1), "created 3".to_owned(), 3),
        (create("a", 9), "already exists".to_owned(), 2),
        (replace("a", 2, Some(1)), "replaced 3".to_owned(), 3),
        (replace("a", 2, None), "replaced 3".to_owned(), 3),
        (replace("a", 2, Some(2)), changed(1), 2),
        (replace("a", 2, Some(7)), changed(1), 2),
        (replace("x", 2, None), "not found".to_owned(), 2),
        (replace("a", 1, Some(1)), "unchanged 1".to_owned(), 2),
        (replace("a", 1, None), "unchanged 1".to_owned(), 2),
        // A stale writer learns that it is stale even where it would change nothing.
        (replace("a", 1, Some(9)), changed(1), 2),
        (delete("a", None, None), "deleted 3".to_owned(), 3),
        (
            delete("a", Some(1), Some("uid-a")),
            "deleted 3".to_owned(),
            3,
        ),
        (delete("a", Some(2), None), changed(1), 2),
        (delete("a", None, Some("uid-other")), changed(1), 2),
        (delete("x", None, None), "not found".to_owned(), 2),
        (
            Command::AdmitController { member: member(1) },
            "controller 1".to_owned(),
            3,
        ),
        (
            Command::MoveController {
                id: 1,
                member: member(1),
            },
            "not found".to_owned(),
            2,
        ),
        (
            Command::RemoveController { id: 1 },
            "not found".to_owned(),
            2,
        ),
        (
            Command::ForgetArtifact {
                sha256: "00".to_owned(),
                registered: 1,
            },
            "not found".to_owned(),
            2,
        ),
    ] {
        let mut state = two_objects();
        let what = format!("{command:?}");
        assert_eq!(word(state.apply(command)), expected, "{what}");
        assert_eq!(state.revision(), revision, "{what}");
    }
}

#[test]
fn each_command_of_a_batch_stands_by_itself() {
    let commands = vec![
        create("a", 1),
        replace("a", 2, Some(1)),
        replace("a", 3, Some(1)),
        create("c", 1),
    ];
    let batch = Command::Batch { commands };
    assert_eq!(batch.level(), level::BATCHES);
    let sent = Command::decode(batch.encode()).unwrap();
    assert_eq!(sent, batch);
    let mut state = two_objects();
    assert_eq!(
        word(state.apply(sent)),
        "already exists, done, changed in the meantime: it is at revision 3 now, done"
    );
    assert_eq!(state.revision(), 4);
    let nested = Command::Batch {
        commands: vec![batch],
    };
    let refused = Command::decode(nested.encode()).unwrap_err();
    assert!(matches!(refused, MalformedCommand::Nested), "{refused}");
}

#[test]
fn resource_versions_in_a_body_do_not_make_it_differ() {
    let mut state = two_objects();
    let mut body = state.get(&key("default", "a")).unwrap().body().clone();
    body["metadata"]["resourceVersion"] = json!("999");
    let same = Command::Replace {
        key: key("default", "a"),
        body: body.into(),
        expect: None,
    };
    assert_eq!(word(state.apply(same)), "unchanged 1");

    let mut body = state.get(&key("default", "a")).unwrap().body().clone();
    body["metadata"]["labels"] = json!({ "x": "y" });
    let labelled = Command::Replace {
        key: key("default", "a"),
        body: body.into(),
        expect: None,
    };
    assert_eq!(word(state.apply(labelled)), "replaced 3");
    let stored = state.get(&key("default", "a")).unwrap();
    assert_eq!(stored.body()["metadata"]["resourceVersion"], "3");
    assert_eq!(stored.labels()["x"], "y");
}

#[test]
fn a_deleted_object_tells_the_revision_of_its_deletion() {
    let mut state = two_objects();
    state.apply(delete("a", None, None)).unwrap();
    assert!(state.get(&key("default", "a")).is_none());
    let changes: Vec<_> = state.changes_since(2).unwrap().collect();
    let [change] = changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!(change.revision, 3);
    assert!(change.after.is_none());
    let last = change.tombstone.as_ref().unwrap();
    assert_eq!(last.body()["metadata"]["resourceVersion"], "3");
    let before = change.before.as_ref().unwrap();
    assert_eq!(before.body()["metadata"]["resourceVersion"], "1");
    // Made anew it is another object with a higher revision.
    assert_eq!(word(state.apply(create("a", 1))), "created 4");
}

#[test]
fn nothing_comes_into_a_namespace_that_is_gone() {
    let mut state = State::default();
    // As long as members take part that do not know the rule, all do as they do.
    state.apply(create("a", 1)).unwrap();
    let to = level::NAMESPACES;
    state.apply(Command::RaiseLevel { to }).unwrap();
    assert_eq!(state.apply(create("b", 1)), Err(Rejection::NoNamespace));
    let revision = state.revision();
    // What is there may change and go; what lies in no namespace needs none.
    state.apply(replace("a", 2, None)).unwrap();
    state.apply(delete("a", None, None)).unwrap();
    let namespace = Key::new(Resource::Namespace, "", "default");
    let command = |key: &Key| Command::Create {
        key: key.clone(),
        body: body(&key.name, 1).into(),
    };
    state.apply(command(&namespace)).unwrap();
    state.apply(create("b", 1)).unwrap();
    state.apply(delete("b", None, None)).unwrap();
    let (key, expect, uid) = (namespace.clone(), None, None);
    state.apply(Command::Delete { key, expect, uid }).unwrap();
    assert_eq!(state.apply(create("b", 1)), Err(Rejection::NoNamespace));
    assert_eq!(state.revision(), revision + 6);
}

#[test]
fn lists_are_ranges_of_one_resource_and_namespace() {
    let mut state = State::default();
    for (resource, namespace, name) in [
        (Resource::ConfigMap, "default", "b"),
        (Resource::ConfigMap, "default", "a"),
        (Resource::ConfigMap, "default-2", "a"),
        (Resource::ConfigMap, "alpha", "z"),
        (Resource::Secret, "default", "s"),
        (Resource::Node, "", "n"),
        (Resource::Namespace, "", "default"),
    ] {
        state
            .apply(Command::Create {
                key: Key::new(resource, namespace, name),
                body: body(name, 0).into(),
            })
            .unwrap();
    }
    let names = |resource, namespace| -> Vec<String> {
        state
            .list(resource, namespace)
            .map(|o| format!("{}/{}", o.key().namespace, o.key().name))
            .collect()
    };
    assert_eq!(
        names(Resource::ConfigMap, Some("default")),
        ["default/a", "default/b"]
    );
    assert_eq!(
        names(Resource::ConfigMap, None),
        ["alpha/z", "default/a", "default/b", "default-2/a"]
    );
    assert_eq!(names(Resource::Node, None), ["/n"]);
    assert_eq!(names(Resource::Secret, Some("alpha")), [] as [&str; 0]);
    assert_eq!(names(Resource::Function, None), [] as [&str; 0]);
}

#[test]
fn a_controllers_number_is_never_given_twice() {
    let mut state = State::default();
    let admit =
        |state: &mut State| word(state.apply(Command::AdmitController { member: member(1) }));
    assert_eq!(admit(&mut state), "controller 1");
    assert_eq!(admit(&mut state), "controller 2");
    state.apply(Command::RemoveController { id: 2 }).unwrap();
    assert!(state.is_former_controller(2));
    assert!(!state.is_former_controller(1));
    assert!(!state.is_former_controller(3));
    let mut state = State::from_image(state.image());
    assert!(state.is_former_controller(2));
    assert_eq!(admit(&mut state), "controller 3");
}

#[test]
fn a_controller_moves_without_noise() {
    let mut state = State::default();
    state
        .apply(Command::AdmitController { member: member(1) })
        .unwrap();
    for (port, revision) in [(1, 1), (2, 2), (2, 2)] {
        let moved = Command::MoveController {
            id: 1,
            member: member(port),
        };
        assert_eq!(word(state.apply(moved)), "done");
        assert_eq!(state.revision(), revision);
    }
}

#[test]
fn an_artifact_registered_anew_is_not_forgotten() {
    let mut state = State::default();
    let register = || Command::RegisterArtifact {
        sha256: "ab".to_owned(),
        size: 7,
    };
    state.apply(register()).unwrap();
    let registered = state.artifact("ab").unwrap().revision;
    state.apply(register()).unwrap();

    let forget = |registered| Command::ForgetArtifact {
        sha256: "ab".to_owned(),
        registered,
    };
    assert_eq!(
        state.apply(forget(registered)),
        Err(Rejection::Conflict { current: 2 })
    );
    assert!(state.artifact("ab").is_some());
    state.apply(forget(2)).unwrap();
    assert!(state.artifact("ab").is_none());
}

#[test]
fn what_functions_used_is_counted_without_noise() {
    let mut state = State::default();
    let put = |state: &mut State, resource, namespace: &str, name: &str, uid: &str| {
        let key = Key::new(resource, namespace, name);
        let body = json!({ "metadata": { "name": name, "uid": uid } }).into();
        state.apply(Command::Create { key, body }).unwrap();
    };
    put(&mut state, Resource::Namespace, "", "default", "1");
    put(&mut state, Resource::Function, "default", "f", "2");
    let used = |state: &State| {
        let metering = state.metering();
        let functions: Vec<_> = metering
            .functions()
            .map(|((_, name), total)| (name.clone(), total.uid.clone(), total.used.requests))
            .collect();
        let namespaces: u64 = metering
            .namespaces()
            .map(|(_, total)| total.used.requests)
            .sum();
        (functions, namespaces)
    };
    let revision = state.revision();
    for sequence in [1, 1, 2] {
        assert_eq!(word(state.apply(meter(sequence, &["f", "gone"]))), "done");
    }
    assert_eq!(state.revision(), revision, "nobody wakes of it");
    assert_eq!(used(&state), (vec![("f".into(), "2".into(), 20)], 40));

    let key = Key::new(Resource::Function, "default", "f");
    let delete = Command::Delete {
        key,
        expect: None,
        uid: None,
    };
    state.apply(delete).unwrap();
    assert_eq!(used(&state), (vec![], 40));
    put(&mut state, Resource::Function, "default", "f", "3");
    state.apply(meter(3, &["f"])).unwrap();
    assert_eq!(used(&state), (vec![("f".into(), "3".into(), 10)], 50));
    let mut state = State::from_image(state.image());
    state.apply(meter(3, &["f"])).unwrap();
    assert_eq!(used(&state).1, 50, "a snapshot knows what was counted");
}

/// Else it would be refused for ever, and its node would never tell another.
#[test]
fn the_largest_batch_can_be_proposed() {
    let used = metering::Used {
        requests: u64::MAX,
        errors: u64::MAX,
        cpu_micros: u64::MAX,
        memory_kib_ms: u64::MAX,
        bytes_in: u64::MAX,
        bytes_out: u64::MAX,
    };
    let entry = metering::Entry {
        namespace: "n".repeat(63),
        function: "f".repeat(253),
        used,
    };
    let batch = metering::Batch {
        device: "d".repeat(100),
        origin: "o".repeat(32),
        sequence: u64::MAX,
        at_unix_ms: u64::MAX,
        entries: vec![entry; hive_proto::METER_ENTRIES],
    };
    let bytes = Command::Meter { batch }.encode().len();
    assert!(bytes < crate::store::MAX_PROPOSAL_BYTES, "{bytes}");
}
