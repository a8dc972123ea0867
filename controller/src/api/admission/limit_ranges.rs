//! What the LimitRanges of a namespace say about each copy of a function: how much memory and CPU
//! it gets when its Function says nothing, and how much it may ask for.
//!
//! Pure over the state. A replica may be a moment behind; the limits then count from a moment later,
//! as in Kubernetes.

use hive_manifests::Resource;
use hive_manifests::function::Resources;
use hive_manifests::quantity::{Bytes, MilliCpu};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::state::{Key, State};

/// Limits of one amount, in bytes or thousandths of a core.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    default: Option<u64>,
    min: Option<u64>,
    max: Option<u64>,
}

/// All LimitRanges of a namespace together: the narrowest limits, the first default by name.
#[derive(Debug, Default)]
struct Limits {
    memory: Range,
    cpu: Range,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    default: Amounts,
    default_request: Amounts,
    min: Amounts,
    max: Amounts,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Amounts {
    memory: Option<Bytes>,
    cpu: Option<MilliCpu>,
}

impl Range {
    fn narrow(&mut self, other: Range) {
        self.default = self.default.or(other.default);
        self.min = self.min.max(other.min);
        self.max = match (self.max, other.max) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// What a copy gets that asks for nothing, where that is not `usual`.
    fn unsaid(&self, usual: u64) -> Option<u64> {
        let fitting = usual.max(self.min.unwrap_or(0));
        let fitting = fitting.min(self.max.unwrap_or(u64::MAX));
        self.default.or((fitting != usual).then_some(fitting))
    }

    /// Kubernetes' words for an amount that is out of the range.
    fn complaint(&self, name: &str, amount: u64, show: impl Fn(u64) -> String) -> Option<String> {
        let (bound, limit) = match (self.max, self.min) {
            (Some(max), _) if amount > max => ("maximum", max),
            (_, Some(min)) if amount < min => ("minimum", min),
            _ => return None,
        };
        Some(format!(
            "{bound} {name} usage per Function is {}, but spec.resources.{name} is {}",
            show(limit),
            show(amount)
        ))
    }
}

impl Limits {
    fn of(state: &State, namespace: &str) -> Self {
        let mut limits = Self::default();
        for object in state.list(Resource::LimitRange, Some(namespace)) {
            let body = object.to_value();
            let items = body["spec"]["limits"].as_array().into_iter().flatten();
            // One that an other version wrote and that can't be read limits nothing.
            for item in items.filter_map(|item| Item::deserialize(item).ok()) {
                let default = |of: fn(Amounts) -> Option<u64>| Range {
                    default: of(item.default).or(of(item.default_request)),
                    min: of(item.min),
                    max: of(item.max),
                };
                limits.memory.narrow(default(|it| it.memory.map(|it| it.0)));
                limits.cpu.narrow(default(|it| it.cpu.map(|it| it.0)));
            }
        }
        limits
    }
}

fn is_limited(state: &State, key: &Key) -> bool {
    key.resource == Resource::Function
        && state
            .list(Resource::LimitRange, Some(&key.namespace))
            .next()
            .is_some()
}

/// Fills in what a Function leaves unsaid. The body is valid, and not completed otherwise.
pub fn fill(state: &State, key: &Key, body: &mut Value) {
    if !is_limited(state, key) {
        return;
    }
    let limits = Limits::of(state, &key.namespace);
    let usual = Resources::default();
    let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let resources = spec.entry("resources").or_insert(Value::Null);
    if resources.is_null() {
        *resources = json!({});
    }
    let Some(resources) = resources.as_object_mut() else {
        return;
    };
    let set = |resources: &mut Map<String, Value>, name: &str, amount: Option<Value>| {
        if let Some(amount) = amount
            && resources.get(name).is_none_or(Value::is_null)
        {
            resources.insert(name.to_owned(), amount);
        }
    };
    let memory = limits.memory.unsaid(usual.memory.0);
    set(resources, "memory", memory.map(|it| json!(Bytes(it))));
    let cpu = limits.cpu.unsaid(usual.cpu.0);
    set(resources, "cpu", cpu.map(|it| json!(MilliCpu(it))));
}

/// Why a complete Function may not be as it is. What it had `before` already is not asked again:
/// limits that come later change nothing that runs.
pub fn complaint(state: &State, key: &Key, body: &Value, before: Option<&Value>) -> Option<String> {
    if !is_limited(state, key) {
        return None;
    }
    let limits = Limits::of(state, &key.namespace);
    let asked = |name: &str| {
        let amount = &body["spec"]["resources"][name];
        let is_old = before.is_some_and(|before| before["spec"]["resources"][name] == *amount);
        (!is_old).then_some(amount)
    };
    let read = |name, range: &Range, show: fn(u64) -> String, parse: fn(&Value) -> Option<u64>| {
        range.complaint(name, parse(asked(name)?)?, show)
    };
    read(
        "memory",
        &limits.memory,
        |amount| Bytes(amount).to_string(),
        |value| Bytes::deserialize(value).ok().map(|it| it.0),
    )
    .or_else(|| {
        read(
            "cpu",
            &limits.cpu,
            |amount| MilliCpu(amount).to_string(),
            |value| MilliCpu::deserialize(value).ok().map(|it| it.0),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::declare;

    fn limited(items: &[Value]) -> State {
        let mut state = State::default();
        for (index, item) in items.iter().enumerate() {
            let key = Key::new(Resource::LimitRange, "team", format!("limits-{index}"));
            declare(&mut state, key, json!({ "spec": { "limits": [item] } }));
        }
        state
    }

    fn key() -> Key {
        Key::new(Resource::Function, "team", "f")
    }

    #[test]
    fn what_is_unsaid_follows_the_namespace() {
        let table = [
            (vec![], json!(null)),
            (
                vec![json!({ "default": { "memory": "64Mi" } })],
                json!({ "memory": "64Mi" }),
            ),
            (
                vec![json!({ "defaultRequest": { "cpu": "1" } })],
                json!({ "cpu": "1" }),
            ),
            // Our own default, 128Mi, is brought into the range.
            (
                vec![json!({ "min": { "memory": "1Gi" } })],
                json!({ "memory": "1Gi" }),
            ),
            (
                vec![json!({ "max": { "memory": "32Mi" } })],
                json!({ "memory": "32Mi" }),
            ),
            (vec![json!({ "max": { "memory": "1Gi" } })], json!({})),
            // The first by name says the default.
            (
                vec![
                    json!({ "default": { "memory": "1Mi" } }),
                    json!({ "default": { "memory": "2Mi", "cpu": 2 } }),
                ],
                json!({ "memory": "1Mi", "cpu": "2" }),
            ),
        ];
        for (items, expected) in table {
            let mut body = json!({ "spec": {} });
            fill(&limited(&items), &key(), &mut body);
            assert_eq!(body["spec"]["resources"], expected, "{items:?}");
        }
    }

    #[test]
    fn what_is_said_stays_and_is_within_all_limits() {
        let state = limited(&[
            json!({ "default": { "memory": "64Mi" }, "max": { "memory": "1Gi" } }),
            json!({ "max": { "memory": "256Mi" }, "min": { "cpu": "100m" } }),
        ]);
        let mut body = json!({ "spec": { "resources": { "memory": "512Mi", "cpu": "50m" } } });
        let before = body.clone();
        fill(&state, &key(), &mut body);
        assert_eq!(body, before);
        assert_eq!(
            complaint(&state, &key(), &body, None).as_deref(),
            Some("maximum memory usage per Function is 256Mi, but spec.resources.memory is 512Mi")
        );
        body["spec"]["resources"]["memory"] = json!("256Mi");
        assert_eq!(
            complaint(&state, &key(), &body, None).as_deref(),
            Some("minimum cpu usage per Function is 100m, but spec.resources.cpu is 50m")
        );
        // What ran already goes on.
        assert_eq!(complaint(&state, &key(), &before, Some(&before)), None);
    }
}
