//! Namespaces: each living one has its service account `default`, each that is being deleted is
//! emptied, says what remains in it, and goes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures::StreamExt;
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::deletion::{self, finalizers};
use crate::objects;
use crate::reconcile::Outlook;
use crate::state::{Change, Command, Key, Object, Rejection, State};
use crate::store::{ProposeError, Replica};

/// The service account of what names none.
const DEFAULT_ACCOUNT: &str = "default";

/// Deletions proposed at once: enough for the log to batch its syncs.
const CONCURRENT_STEPS: usize = 16;

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    CreateAccount(Key),
    /// Deletes what is in a namespace, or marks it to wait for its finalizers.
    Delete(Key),
    /// Removes an empty namespace.
    Remove(Key),
    Report(Key, Remains),
}

/// What is left in a namespace that is being deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Objects by resource, as its name in a URL and its group.
    pub objects: BTreeMap<String, usize>,
    /// Objects by the finalizer that they wait for.
    pub finalizers: BTreeMap<String, usize>,
}

/// True for a change that can give something to do here.
pub fn concerns(change: &Change) -> bool {
    let is_living = |object: &Object| !object.is_being_deleted();
    let is_update = change.before.is_some() && change.after.as_deref().is_some_and(is_living);
    change.key.resource == Resource::Namespace || !is_update
}

/// What is left to do, each namespace after all that is in it. Pure.
pub fn plan(state: &State) -> Vec<Step> {
    let mut steps = Vec::new();
    for namespace in state.list(Resource::Namespace, None) {
        let name = &namespace.key().name;
        if !namespace.is_being_deleted() {
            let account = Key::new(Resource::ServiceAccount, name.clone(), DEFAULT_ACCOUNT);
            if state.get(&account).is_none() {
                steps.push(Step::CreateAccount(account));
            }
            continue;
        }
        let mut remains = Remains::default();
        for object in contents(state, name) {
            let key = object.key();
            let resource = match key.resource.group() {
                "" => key.resource.plural().to_owned(),
                group => format!("{}.{group}", key.resource.plural()),
            };
            *remains.objects.entry(resource).or_default() += 1;
            for finalizer in finalizers(&object.to_value()) {
                *remains.finalizers.entry(finalizer.to_owned()).or_default() += 1;
            }
            if deletion::command(object, None, SystemTime::UNIX_EPOCH).is_some() {
                steps.push(Step::Delete(key.clone()));
            }
        }
        if remains.objects.is_empty() && finalizers(namespace.body()).is_empty() {
            steps.push(Step::Remove(namespace.key().clone()));
        } else if !remains.finalizers.is_empty()
            || objects::condition(namespace.body(), "NamespaceContentRemaining").is_some()
        {
            // What goes at once is not worth a word.
            steps.push(Step::Report(namespace.key().clone(), remains));
        }
    }
    steps
}

fn contents<'a>(state: &'a State, namespace: &'a str) -> impl Iterator<Item = &'a Object> {
    Resource::ALL
        .into_iter()
        .filter(|resource| resource.namespaced())
        .flat_map(move |resource| state.list(resource, Some(namespace)))
        .map(|object| &**object)
}

impl Step {
    fn key(&self) -> &Key {
        match self {
            Self::CreateAccount(key)
            | Self::Delete(key)
            | Self::Remove(key)
            | Self::Report(key, _) => key,
        }
    }

    /// The command that does it, if there is still something to do.
    fn command(&self, state: &State, now: SystemTime) -> Option<Command> {
        if let Self::CreateAccount(key) = self {
            return Some(Command::Create {
                key: key.clone(),
                body: objects::fresh(key, json!({}), json!({})).into(),
            });
        }
        let current = state.get(self.key())?;
        match self {
            Self::CreateAccount(_) => None,
            Self::Delete(_) => deletion::command(current, None, now),
            Self::Remove(key) => Some(Command::Delete {
                key: key.clone(),
                expect: Some(current.revision()),
                uid: None,
            }),
            Self::Report(key, remains) => {
                let mut body = current.body().clone();
                report(&mut body["status"], remains, now).then(|| Command::Replace {
                    key: key.clone(),
                    body: body.into(),
                    expect: Some(current.revision()),
                })
            }
        }
    }
}

/// Kubernetes' two conditions about what a namespace waits for. True when they say something new.
fn report(status: &mut Value, remains: &Remains, now: SystemTime) -> bool {
    let list = |counts: &BTreeMap<String, usize>, between: &str| {
        let each: Vec<_> = counts
            .iter()
            .map(|(name, count)| format!("{name} {between} {count} resource instances"))
            .collect();
        each.join(", ")
    };
    let content = match remains.objects.is_empty() {
        true => (
            "False",
            "ContentRemoved",
            "All content successfully removed".to_owned(),
        ),
        false => (
            "True",
            "SomeResourcesRemain",
            format!(
                "Some resources are remaining: {}",
                list(&remains.objects, "has")
            ),
        ),
    };
    let waiting = match remains.finalizers.is_empty() {
        true => (
            "False",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished".to_owned(),
        ),
        false => (
            "True",
            "SomeFinalizersRemain",
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                list(&remains.finalizers, "in")
            ),
        ),
    };
    let mut set = |kind, (value, reason, message): (&str, &str, String)| {
        objects::set_condition(status, kind, value, reason, &message, now)
    };
    let content_changed = set("NamespaceContentRemaining", content);
    set("NamespaceFinalizersRemaining", waiting) || content_changed
}

/// One look.
pub async fn pass(replica: &Replica, state: &State) -> Outlook {
    let mut results = futures::stream::iter(plan(state))
        .map(async |step| {
            let result = match step.command(state, SystemTime::now()) {
                None => Ok(()),
                Some(command) => replica.propose(command).await.map(|_| ()),
            };
            (step, result)
        })
        .buffered(CONCURRENT_STEPS);
    let mut outlook = Outlook::Settled;
    while let Some((step, result)) = results.next().await {
        match result {
            Ok(())
            | Err(ProposeError::Rejected(Rejection::AlreadyExists | Rejection::NotFound)) => {}
            Err(ProposeError::Rejected(Rejection::Conflict { .. })) => outlook = Outlook::Again,
            Err(error) => {
                tracing::warn!(object = %step.key(), %error, "cannot bring a namespace forward");
                outlook = Outlook::Again;
            }
        }
    }
    outlook
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(state: &mut State, key: Key, deleting: bool, finalizer: Option<&str>) {
        let mut body = objects::fresh(&key, json!({}), json!({}));
        if deleting {
            body["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        if let Some(finalizer) = finalizer {
            body["metadata"]["finalizers"] = json!([finalizer]);
        }
        let body = body.into();
        state.apply(Command::Create { key, body }).unwrap();
    }

    /// Performs plans until nothing is left to do; at most `looks`.
    fn settle(state: &mut State, looks: usize) {
        for _ in 0..looks {
            let commands: Vec<_> = plan(state)
                .iter()
                .filter_map(|step| step.command(state, SystemTime::UNIX_EPOCH))
                .collect();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                state.apply(command).unwrap();
            }
        }
        panic!("still something to do after {looks} looks");
    }

    fn namespace(name: &str) -> Key {
        Key::new(Resource::Namespace, "", name)
    }

    #[test]
    fn a_namespace_goes_with_everything_of_every_kind() {
        let mut state = State::default();
        put(&mut state, namespace("old"), true, None);
        put(&mut state, namespace("kept"), false, None);
        for resource in Resource::ALL.into_iter().filter(|r| r.namespaced()) {
            put(&mut state, Key::new(resource, "old", "x"), false, None);
            put(&mut state, Key::new(resource, "kept", "x"), false, None);
        }
        settle(&mut state, 3);
        assert!(state.get(&namespace("old")).is_none());
        assert_eq!(contents(&state, "old").count(), 0);
        // All that was put there, and its service account.
        let kinds = Resource::ALL.into_iter().filter(|r| r.namespaced()).count();
        assert_eq!(contents(&state, "kept").count(), kinds + 1);
    }

    #[test]
    fn it_waits_for_finalizers_and_says_so() {
        let mut state = State::default();
        put(&mut state, namespace("old"), true, None);
        let held = Key::new(Resource::ConfigMap, "old", "held");
        put(&mut state, held.clone(), false, Some("example.com/a"));
        put(
            &mut state,
            Key::new(Resource::Secret, "old", "s"),
            false,
            None,
        );
        settle(&mut state, 4);
        let body = state.get(&namespace("old")).unwrap().body().clone();
        let message = |index: usize| body["status"]["conditions"][index]["message"].clone();
        assert_eq!(
            message(0),
            "Some resources are remaining: configmaps has 1 resource instances"
        );
        assert_eq!(
            message(1),
            "Some content in the namespace has finalizers remaining: example.com/a in 1 resource instances"
        );
        let mut freed = state.get(&held).unwrap().body().clone();
        freed["metadata"]["finalizers"] = json!([]);
        let command = deletion::replacement(state.get(&held).unwrap(), freed);
        state.apply(command).unwrap();
        settle(&mut state, 2);
        assert!(state.get(&namespace("old")).is_none());
    }
}
