//! Keeps the roles that every swarm has, and puts aggregated roles together.
//!
//! The state flows in, steps flow out. What somebody added to a role stays; what they took away
//! comes back, unless the role's annotation says that it is theirs.

use hive_manifests::Resource;
use k8s_openapi::api::rbac::v1::{AggregationRule, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::access::bootstrap::{self, AUTOUPDATE, Wanted};
use crate::label_selector;
use crate::objects;
use crate::reconcile::Outlook;
use crate::state::{Change, Command, Key, Object, Rejection, State};
use crate::store::{ProposeError, Replica};

/// Looks until nothing is left: the parts come first, `view` is made of them, `edit` of that, and
/// `admin` of that. Roles that people aggregate may stand in longer rows.
const LOOKS: usize = 16;

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Create {
        key: Key,
        labels: Value,
        content: Value,
    },
    Replace {
        key: Key,
        body: Value,
        expect: u64,
    },
}

impl From<Step> for Command {
    fn from(step: Step) -> Self {
        match step {
            Step::Create {
                key,
                labels,
                content,
            } => {
                let mut body = objects::fresh(&key, labels, content);
                body["metadata"]["annotations"] = json!({ AUTOUPDATE: "true" });
                Self::Create {
                    key,
                    body: body.into(),
                }
            }
            Step::Replace { key, body, expect } => Self::Replace {
                key,
                body: body.into(),
                expect: Some(expect),
            },
        }
    }
}

/// What is missing. Pure.
pub fn plan(state: &State) -> Vec<Step> {
    let mut steps: Vec<Step> = bootstrap::wanted()
        .into_iter()
        .filter_map(|wanted| keep(state, wanted))
        .collect();
    steps.extend(
        state
            .list(Resource::ClusterRole, None)
            .filter_map(|role| aggregate(state, role)),
    );
    steps
}

/// Creates what is not there, and adds what it lacks to what is.
fn keep(state: &State, wanted: Wanted) -> Option<Step> {
    let Wanted {
        key,
        labels,
        mut content,
    } = wanted;
    let Some(current) = state.get(&key) else {
        if content["aggregationRule"].is_object() {
            content["rules"] = json!([]);
        }
        return Some(Step::Create {
            key,
            labels,
            content,
        });
    };
    let mut body = current.body().clone();
    if body["metadata"]["annotations"][AUTOUPDATE] == "false" || current.is_being_deleted() {
        return None;
    }
    let before = body.clone();
    for (label, value) in labels.as_object().into_iter().flatten() {
        body["metadata"]["labels"][label] = value.clone();
    }
    for field in ["rules", "subjects"] {
        add_missing(&mut body, &content, field);
    }
    if let Some(rule) = content.get("aggregationRule")
        && !body["aggregationRule"].is_object()
    {
        body["aggregationRule"] = rule.clone();
    }
    (body != before).then(|| Step::Replace {
        key,
        body,
        expect: current.revision(),
    })
}

fn add_missing(body: &mut Value, wanted: &Value, field: &str) {
    let Some(wanted) = wanted[field].as_array() else {
        return;
    };
    let mut items = body[field].as_array().cloned().unwrap_or_default();
    let missing: Vec<Value> = wanted
        .iter()
        .filter(|item| !items.contains(item))
        .cloned()
        .collect();
    if !missing.is_empty() {
        items.extend(missing);
        body[field] = items.into();
    }
}

/// The rules of a role that is made of others.
fn aggregate(state: &State, role: &Object) -> Option<Step> {
    let body = role.body();
    let selectors: AggregationRule =
        serde_json::from_value(body.get("aggregationRule")?.clone()).ok()?;
    if role.is_being_deleted() {
        return None;
    }
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors.cluster_role_selectors.into_iter().flatten() {
        for part in state.list(Resource::ClusterRole, None) {
            if part.key() == role.key() || !selects(&selector, part) {
                continue;
            }
            for rule in part.body()["rules"].as_array().into_iter().flatten() {
                // A rule that can't be read grants nothing, here as everywhere.
                if !rules.contains(rule)
                    && serde_json::from_value::<PolicyRule>(rule.clone()).is_ok()
                {
                    rules.push(rule.clone());
                }
            }
        }
    }
    let rules = Value::Array(rules);
    if body.get("rules") == Some(&rules) {
        return None;
    }
    let mut body = body.clone();
    body["rules"] = rules;
    Some(Step::Replace {
        key: role.key().clone(),
        body,
        expect: role.revision(),
    })
}

fn selects(selector: &LabelSelector, object: &Object) -> bool {
    let own = object.labels();
    label_selector::selects(selector, |key| own.get(key).map(AsRef::as_ref))
}

/// Only these change what is planned.
pub fn concerns(change: &Change) -> bool {
    matches!(
        change.key.resource,
        Resource::ClusterRole | Resource::ClusterRoleBinding
    )
}

/// One look.
pub async fn pass(replica: &Replica, state: &State) -> Outlook {
    for step in plan(state) {
        if let Err(error) = perform(replica, step).await {
            tracing::warn!(%error, "cannot write the swarm's roles");
            return Outlook::Again;
        }
    }
    Outlook::Settled
}

/// Writes until nothing is missing: for a swarm that is just made.
pub async fn settle(replica: &Replica) -> Result<(), ProposeError> {
    for _ in 0..LOOKS {
        let steps = plan(&replica.state());
        if steps.is_empty() {
            break;
        }
        for step in steps {
            perform(replica, step).await?;
        }
    }
    Ok(())
}

async fn perform(replica: &Replica, step: Step) -> Result<(), ProposeError> {
    match replica.propose(step.into()).await {
        // Somebody was quicker: the next look sees what they made of it.
        Ok(_)
        | Err(ProposeError::Rejected(
            Rejection::AlreadyExists | Rejection::Conflict { .. } | Rejection::NotFound,
        )) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::edit;

    fn perform(state: &mut State, steps: Vec<Step>) {
        for step in steps {
            state.apply(step.into()).unwrap();
        }
    }

    fn settled() -> State {
        let mut state = State::default();
        for _ in 0..LOOKS {
            let steps = plan(&state);
            if steps.is_empty() {
                return state;
            }
            perform(&mut state, steps);
        }
        panic!("it never settles");
    }

    fn cluster_role(name: &str) -> Key {
        Key::new(Resource::ClusterRole, "", name)
    }

    #[test]
    fn a_new_swarm_gets_its_roles_and_then_rests() {
        let state = settled();
        let rules = |name| {
            state.get(&cluster_role(name)).unwrap().body()["rules"]
                .as_array()
                .unwrap()
                .len()
        };
        assert!(rules("view") > 0);
        assert!(rules("edit") > rules("view"));
        assert!(rules("admin") > rules("edit"));
    }

    #[test]
    fn what_was_taken_away_comes_back_and_what_was_added_stays() {
        let mut state = settled();
        let key = cluster_role("system:basic-user");
        let own = json!({ "verbs": ["get"], "apiGroups": ["x"], "resources": ["y"] });
        edit(&mut state, &key, |body| body["rules"] = json!([own]));
        let steps = plan(&state);
        perform(&mut state, steps);
        let rules = state.get(&key).unwrap().body()["rules"].clone();
        assert_eq!(rules[0], own);
        assert_eq!(rules.as_array().unwrap().len(), 3);
        assert_eq!(plan(&state), []);
    }

    #[test]
    fn who_wants_the_last_word_has_it() {
        let mut state = settled();
        let key = cluster_role("system:basic-user");
        edit(&mut state, &key, |body| {
            body["rules"] = json!([]);
            body["metadata"]["annotations"] = json!({ AUTOUPDATE: "false" });
        });
        assert_eq!(plan(&state), []);
    }

    #[test]
    fn parts_of_an_aggregated_role_come_and_go() {
        let mut state = settled();
        let key = cluster_role("mine");
        let rule = json!({ "verbs": ["get"], "apiGroups": ["x"], "resources": ["y"] });
        let labels = json!({ "rbac.authorization.k8s.io/aggregate-to-view": "true" });
        let content = json!({ "rules": [rule] });
        perform(
            &mut state,
            vec![Step::Create {
                key: key.clone(),
                labels,
                content,
            }],
        );
        let holds = |state: &mut State, name: &str| {
            for _ in 0..LOOKS {
                let steps = plan(state);
                perform(state, steps);
            }
            let role = state.get(&cluster_role(name)).unwrap().body().clone();
            role["rules"].as_array().unwrap().contains(&rule)
        };
        for name in ["view", "edit", "admin"] {
            assert!(holds(&mut state, name), "{name}");
        }
        edit(&mut state, &key, |body| {
            body["metadata"]["labels"] = json!({});
        });
        for name in ["view", "edit", "admin"] {
            assert!(!holds(&mut state, name), "{name}");
        }
    }
}
