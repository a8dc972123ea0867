#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
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
fn history_tells_what_changed_since_and_admits_what_it_forgot() {
    let mut state = State::default();
    assert_eq!(state.changes_since(0).unwrap().count(), 0);
    for value in 0..70_000 {
        let command = match value {
            0 => create("a", 0),
            _ => replace("a", value, None),
        };
        state.apply(command).unwrap();
    }
    let revisions = |since: u64| -> Result<Vec<u64>, Compacted> {
        Ok(state.changes_since(since)?.map(|c| c.revision).collect())
    };
    assert_eq!(revisions(70_000).unwrap(), [] as [u64; 0]);
    assert_eq!(revisions(69_998).unwrap(), [69_999, 70_000]);
    let oldest = revisions(0).unwrap_err().oldest;
    assert_eq!(revisions(oldest).unwrap().first(), Some(&(oldest + 1)));
    assert_eq!(
        revisions(oldest - 1).unwrap_err(),
        Compacted {
            asked: oldest - 1,
            oldest
        }
    );
    assert_eq!(revisions(oldest).unwrap().len() as u64, 70_000 - oldest);
}

#[test]
fn large_objects_are_remembered_for_a_shorter_time() {
    let mut state = State::default();
    let large = "x".repeat(1 << 20);
    for value in 0..100 {
        let mut body = body("a", value);
        body["data"]["large"] = json!(large);
        let key = key("default", "a");
        let command = match value {
            0 => Command::Create {
                key,
                body: body.into(),
            },
            _ => Command::Replace {
                key,
                body: body.into(),
                expect: None,
            },
        };
        state.apply(command).unwrap();
    }
    // Each of the changes but the first holds the object of the one before it.
    let kept = 100 - state.changes_since(0).err().unwrap().oldest;
    assert_eq!(kept, 63);
    // Creations hold nothing that the state does not hold.
    let mut state = State::default();
    for value in 0..100 {
        let mut body = body("a", value);
        body["data"]["large"] = json!(large);
        let key = key("default", &format!("a{value}"));
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
    }
    assert_eq!(state.changes_since(0).unwrap().count(), 100);
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
fn history_steps_over_revisions_that_changed_no_object() {
    let mut state = two_objects();
    state
        .apply(Command::AdmitController { member: member(1) })
        .unwrap();
    state.apply(create("c", 1)).unwrap();
    let since = |at| -> Vec<u64> {
        let changes = state.changes_since(at).unwrap();
        changes.map(|c| c.revision).collect()
    };
    assert_eq!(since(1), [2, 4]);
    assert_eq!(since(2), [4]);
    assert_eq!(since(3), [4]);
    assert_eq!(since(4), [] as [u64; 0]);
}

#[test]
fn after_a_snapshot_only_what_follows_it_is_known() {
    let mut state = State::from_image(two_objects().image());
    assert_eq!(state.changes_since(2).unwrap().count(), 0);
    assert_eq!(
        state.changes_since(1).err(),
        Some(Compacted {
            asked: 1,
            oldest: 2
        })
    );
    // The first change after the snapshot takes no object's revision.
    state
        .apply(Command::AdmitController { member: member(1) })
        .unwrap();
    state.apply(create("c", 1)).unwrap();
    let since: Vec<u64> = state
        .changes_since(3)
        .unwrap()
        .map(|c| c.revision)
        .collect();
    assert_eq!(since, [4]);
}

#[test]
fn a_watcher_at_a_snapshots_revision_misses_nothing() {
    let mut state = State::from_image(two_objects().image());
    let watcher = state.revision();
    state
        .apply(Command::AdmitController { member: member(1) })
        .unwrap();
    state.apply(create("c", 1)).unwrap();
    let since: Vec<u64> = state
        .changes_since(watcher)
        .unwrap()
        .map(|c| c.revision)
        .collect();
    assert_eq!(since, [4]);
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

/// Commands over few names, so that they meet.
fn commands() -> impl Strategy<Value = Vec<Command>> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let expect = prop_oneof![Just(None), (0u64..12).prop_map(Some)];
    let command = prop_oneof![
        (name.clone(), 0u64..3).prop_map(|(name, value)| create(name, value)),
        (name.clone(), 0u64..3, expect.clone())
            .prop_map(|(name, value, expect)| replace(name, value, expect)),
        (name.clone(), expect).prop_map(|(name, expect)| delete(name, expect, None)),
        (0u16..3).prop_map(|port| Command::AdmitController {
            member: member(port)
        }),
        (1u64..4, 0u16..3).prop_map(|(id, port)| Command::MoveController {
            id,
            member: member(port)
        }),
        (1u64..4).prop_map(|id| Command::RemoveController { id }),
        name.clone().prop_map(|name| Command::RegisterArtifact {
            sha256: name.to_owned(),
            size: 1
        }),
        (name, 0u64..12).prop_map(|(name, registered)| Command::ForgetArtifact {
            sha256: name.to_owned(),
            registered
        }),
    ];
    proptest::collection::vec(command, 0..40)
}

fn image(state: &State) -> StateImage {
    state.image()
}

proptest! {
    /// A replica that started from a snapshot and one that applied everything agree on every
    /// reply and on the state.
    #[test]
    fn replicas_agree_wherever_they_started(commands in commands(), at in 0usize..40) {
        let at = at.min(commands.len());
        let mut whole = State::default();
        for command in &commands[..at] {
            let _ = whole.apply(command.clone());
        }
        let mut bytes = Vec::new();
        whole.image().write(&mut bytes).unwrap();
        let mut restored = State::from_image(StateImage::read(&mut &bytes[..]).unwrap());
        for command in &commands[at..] {
            prop_assert_eq!(whole.apply(command.clone()), restored.apply(command.clone()));
        }
        prop_assert_eq!(image(&whole), image(&restored));
    }

    /// One that started from a snapshot remembers what the one that wrote it does.
    #[test]
    fn a_snapshot_takes_the_past_along(before in commands(), after in commands()) {
        let mut whole = State::default();
        for command in before {
            let _ = whole.apply(command);
        }
        let mut bytes = Vec::new();
        whole.image_with_history().write(&mut bytes).unwrap();
        let mut restored = State::from_image(StateImage::read(&mut &bytes[..]).unwrap());
        for command in after {
            let _ = restored.apply(command.clone());
            let _ = whole.apply(command);
        }
        for revision in 0..=whole.revision() {
            let past = |state: &State| -> Vec<_> {
                let changes = state.changes_since(revision).unwrap();
                let parts = changes.map(|change| {
                    let Change { revision, key, before, after, tombstone } = &**change;
                    (*revision, key.clone(), [before, after, tombstone].map(Option::clone))
                });
                parts.collect()
            };
            prop_assert_eq!(past(&whole), past(&restored));
        }
        prop_assert_eq!(whole.remembered(), restored.remembered());
    }

    /// The past, made by undoing, is what was there then.
    #[test]
    fn the_past_is_as_it_was(commands in commands(), restart in 0usize..40) {
        let mut state = State::default();
        let mut past = vec![state.view()];
        for (at, command) in commands.into_iter().enumerate() {
            if at == restart {
                // What a snapshot remembers is enough to go on from.
                state = State::from_image(state.image());
            }
            if state.apply(command).is_ok() {
                past.retain(|view| view.revision() != state.revision());
                past.push(state.view());
            }
        }
        for then in past {
            let Ok(now) = state.at(then.revision()) else {
                continue;
            };
            prop_assert_eq!(now.revision(), then.revision());
            let contents = |view: &View| -> Vec<Arc<Object>> {
                view.list(Resource::ConfigMap, None, None).cloned().collect()
            };
            prop_assert_eq!(contents(&now), contents(&then), "at {}", then.revision());
        }
    }

    /// A command survives the log, and does the same after it.
    #[test]
    fn commands_survive_their_encoding(commands in commands()) {
        for command in commands {
            prop_assert_eq!(Command::decode(command.encode()).unwrap(), command);
        }
    }

    /// Whoever lists at any moment and follows the history from there knows the state at the end.
    #[test]
    fn list_and_watch_give_the_state(commands in commands(), at in 0usize..40) {
        let at = at.min(commands.len());
        let mut state = State::default();
        for command in &commands[..at] {
            let _ = state.apply(command.clone());
        }
        let mut known: std::collections::BTreeMap<Key, u64> = state
            .list(Resource::ConfigMap, None)
            .map(|o| (o.key().clone(), o.revision()))
            .collect();
        let mut revision = state.revision();
        for command in &commands[at..] {
            let before = state.revision();
            let reply = state.apply(command.clone());
            prop_assert!(state.revision() <= before + 1);
            prop_assert!(reply.is_ok() || state.revision() == before, "refused, yet it took a revision");
        }
        for change in state.changes_since(revision).unwrap() {
            prop_assert!(change.revision > revision);
            revision = change.revision;
            match &change.after {
                Some(object) => known.insert(change.key.clone(), object.revision()),
                None => known.remove(&change.key),
            };
        }
        let now: std::collections::BTreeMap<Key, u64> = state
            .list(Resource::ConfigMap, None)
            .map(|o| (o.key().clone(), o.revision()))
            .collect();
        prop_assert_eq!(known, now);
    }

    /// A clone is a moment that later commands do not touch.
    #[test]
    fn a_clone_stays_as_it_was(commands in commands()) {
        let mut state = two_objects();
        let clone = state.clone();
        let before = image(&clone);
        for command in commands {
            let _ = state.apply(command);
        }
        prop_assert_eq!(image(&clone), before);
        prop_assert_eq!(clone.changes_since(0).unwrap().count(), 2);
    }
}

#[test]
fn a_state_tells_whether_something_that_matters_was_touched() {
    let mut state = State::default();
    state.apply(create("a", 1)).unwrap();
    let seen = state.revision();
    let named = |name: &'static str| move |change: &Change| change.key.name == name;
    assert!(!state.touched_since(seen, |_| true), "nothing happened");
    state.apply(create("b", 1)).unwrap();
    assert!(state.touched_since(seen, named("b")));
    assert!(!state.touched_since(seen, named("a")));
    let member = Member::default();
    state.apply(Command::AdmitController { member }).unwrap();
    assert!(state.touched_since(seen, named("a")), "it may matter");
    assert!(!state.touched_since(state.revision(), |_| true));
    let restored = State::from_image(state.image());
    assert!(restored.touched_since(seen, |_| false), "it isn't known");
}
