//! What a state remembers of its changes, and what it admits to have forgotten.

use super::*;

#[test]
fn history_tells_what_changed_since_and_admits_what_it_forgot() {
    let mut state = State::default();
    assert_eq!(state.changes_since(0).unwrap().count(), 0);
    state.apply(create("a", 0)).unwrap();
    // Written out once: there are many.
    let bodies: [Body; 2] = [1, 2].map(|value| body("a", value).into());
    for change in 1..70_000 {
        let (key, body) = (key("default", "a"), bodies[change % 2].clone());
        let expect = None;
        state.apply(Command::Replace { key, body, expect }).unwrap();
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
