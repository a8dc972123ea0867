//! What holds of any commands: replicas agree, the past is told as it was.

use proptest::prelude::*;

use super::*;

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
        (1u64..4).prop_map(|sequence| meter(sequence, &["a"])),
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
